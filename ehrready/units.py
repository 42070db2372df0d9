"""Units of measure: what a typed unit means in UCUM, and how two units convert.

A unit is looked up in the shipped tables first (``unit_synonyms.csv``: spellings that EHRs use, ``ucum_units.csv``:
UCUM codes with their dimension and factor); only what neither knows is parsed by ucumvert and pint, which are
imported then and not before (0.4 s).  UCUM: https://ucum.org/ucum, version 2.2.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "terminology" / "data"
_ANNOTATION = re.compile(r"\{[^{}]*\}")
_SPACE = re.compile(r"\s+")
# x10E3/uL, 10^3/mm3, X10(3)/mcL, 10*9/L: one way of writing a power of ten
_POWER = re.compile(r"^x?\s*10\s*[*^e(x\-]?\s*(\d{1,2})\)?\s*/\s*(ul|mcl|mm3|cumm|cmm|mm\^3|l)$", re.IGNORECASE)
_VOLUMES = {"ul": "uL", "mcl": "uL", "mm3": "uL", "mm^3": "uL", "cumm": "uL", "cmm": "uL", "l": "L"}
_SIGNS = str.maketrans({"µ": "u", "μ": "u", "·": ".", "²": "2", "³": "3", "\u2212": "-", "\u00d7": "x", "⁶": "6", "⁹": "9", "º": "°"})
# UCUM's arbitrary units: their amounts are comparable with nothing else, so pint's "dimensionless" would mislead
_ARBITRARY = re.compile(
    r"\[(?:i?u|arb'u|au|cfu|pfu|ph|[gma]pl'u|ccid_50|tcid_50|eid_50|ffu|bau|d'ag'u|todd'u|usp'u|hpf|lpf)\]", re.IGNORECASE
)
# a number within a UCUM expression that is no count of hours, cells or square centimetres may be an identifier
_NUMBERS = re.compile(r"\d{5,}|^\d{2,}$")
_LONGEST = 30


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: its UCUM code, its dimension (``arbitrary`` units apart) and ``base = value * factor + offset`` in SI base units."""

    ucum: str
    dimension: str
    factor: float
    offset: float = 0.0


@functools.cache
def _catalogue() -> dict[str, Unit]:
    """UCUM code to its unit (made by scripts/make_units.py)."""
    with (_DATA / "ucum_units.csv").open(encoding="utf-8", newline="") as file:
        return {r["ucum"]: Unit(r["ucum"], r["dimension"], float(r["factor"]), float(r["offset"])) for r in csv.DictReader(file)}


@functools.cache
def synonyms() -> dict[str, str]:
    """Spelling, as typed, to its UCUM code."""
    with (_DATA / "unit_synonyms.csv").open(encoding="utf-8", newline="") as file:
        return {row["typed"]: row["ucum"] for row in csv.DictReader(file)}


@functools.cache
def _folded() -> dict[str, str]:
    """Spellings without case and space; short ones are left out, since ``M`` and ``m`` are two units."""
    pairs = [*synonyms().items(), *((code, code) for code in _catalogue())]
    found: dict[str, str] = {}
    for typed, code in pairs:
        found.setdefault(_fold(typed), code)
    return {typed: code for typed, code in found.items() if len(typed) > 2}


def _fold(text: str) -> str:
    return _SPACE.sub("", text).lower()


@functools.cache
def resolve(typed: str) -> Unit | None:
    """Return the unit that a typed string means, None when neither the tables nor UCUM know it; never raises.

    The string is safe to show when a unit is returned whose ``ucum`` is shown in its place: annotations (``{...}``)
    that the tables do not list are dropped, since anything may stand in them.
    """
    text = typed.strip().translate(_SIGNS)
    known = _catalogue()
    if code := synonyms().get(text) or synonyms().get(typed.strip()):
        return known[code]
    if text in known:
        return known[text]
    if (power := _POWER.match(text)) and (unit := known.get(f"10*{power[1]}/{_VOLUMES[power[2].lower()]}")):
        return unit
    if code := _folded().get(_fold(text)):
        return known[code]
    bare = _ANNOTATION.sub("", text)
    if bare != text and len(text) <= 2 * _LONGEST and "{" not in bare and "}" not in bare:
        bare = bare.rstrip("/.")
        return known.get(bare or "1") or (parse(bare) if _parseable(bare) else None)
    return parse(text) if _parseable(text) else None


def listed(text: str) -> bool:
    """Is this a unit as typed that the tables have, and no single letter that may be a grade or a name?"""
    return (text in synonyms() or text in _catalogue()) and (len(text) > 1 or text in "%gmLshCF")


def _parseable(text: str) -> bool:
    # no blank, one character set and few digits: a sentence or an identifier is not worth a parser's time
    return text.isascii() and 0 < len(text) <= _LONGEST and " " not in text and not _NUMBERS.search(text) and any(map(str.isalpha, text))


def parse(code: str) -> Unit | None:
    """Parse a UCUM code by ucumvert into pint's dimensions; None when it is not UCUM."""
    bare = _ANNOTATION.sub("", code)
    if bare != code:
        bare = bare.rstrip("/.")
    if not bare or bare == "[pH]":
        return Unit(code, "arbitrary pH" if bare else "1", 1.0)
    try:
        quantity = _from_ucum()(bare)
        one, zero = (quantity.__class__(value, quantity.units).to_base_units() for value in (1.0, 0.0))
        factor, offset = float(quantity.magnitude) * float(one.magnitude - zero.magnitude), float(zero.magnitude)
        powers = sorted((name.strip("[]"), power) for name, power in quantity.dimensionality.items())
        dimension = ".".join(name + ("" if power == 1 else f"{power:g}") for name, power in powers) or "1"
    except Exception:  # noqa: BLE001 - the parsers raise a dozen kinds for what is no unit
        return None
    if not factor > 0:
        return None
    arbitrary = " ".join(sorted(mark.lower() for mark in _ARBITRARY.findall(bare)))
    return Unit(code, f"arbitrary {arbitrary} {dimension}" if arbitrary else dimension, factor, offset if abs(offset) > 1e-9 else 0.0)


@functools.cache
def _from_ucum() -> Callable[[str], Any]:
    """Return what makes a pint quantity of a UCUM code; ucumvert's PintUcumRegistry would read pint's definitions a second time."""
    from ucumvert import UcumToPintTransformer, get_ucum_parser, parse_ucum  # type: ignore[import-untyped] # ships no types

    transformer, parser = UcumToPintTransformer(), get_ucum_parser()
    return lambda code: transformer.transform(parse_ucum(code, parser))
