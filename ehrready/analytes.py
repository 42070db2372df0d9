"""What is known of common analytes: LOINC property, expected unit, plausible limits, molar mass (plausible_limits.csv).

Limits are hard: beyond them lies an error of unit, decimal point or entry, not a sick patient.  Sources are in the file and
in docs/units.md.  LOINC property axis: LOINC Users' Guide, appendix on the Property attribute.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from ehrready import units
from ehrready.units import Unit

_FILE = Path(__file__).parent / "terminology" / "data" / "plausible_limits.csv"
_CONCENTRATION = {"length-3.mass": 1, "length-3.substance": -1}

#: Dimensions that a result of a LOINC property may have beside its expected unit's own; a ``*`` stands for any ending.
PROPERTY_DIMENSIONS: dict[str, tuple[str, ...]] = {
    "MCnc": ("length-3.mass",),
    "SCnc": ("length-3.substance",),
    "CCnc": ("length-3.substance.time-1", "arbitrary*"),
    "ACnc": ("arbitrary*", "length-3.substance.time-1"),
    "NCnc": ("length-3", "arbitrary*"),
    "NFr": ("1",),
    "VFr": ("1",),
    "MFr": ("1",),
    "SFr": ("1",),
    "Ratio": ("1",),
    "RelTime": ("1",),
    "Rden": ("1",),
    "Score": ("1",),
    "LsCnc": ("arbitrary*", "1"),
    "MRto": ("1", "mass.substance-1"),
    "Osmol": ("mass-1.substance", "length-3.substance"),
    "ArVRat": ("length3.time-1", "length.time-1"),
    "VRat": ("length3.time-1", "length3"),
    "NRat": ("time-1",),
    "Pres": ("length-1.mass.time-2",),
    "PPres": ("length-1.mass.time-2",),
    "Temp": ("temperature",),
    "Mass": ("mass",),
    "EntMass": ("mass",),
    "EntVol": ("length3",),
    "Vol": ("length3",),
    "Len": ("length",),
    "Area": ("length2",),
    "Vel": ("length.time-1",),
    "Time": ("time",),
}


@dataclass(frozen=True, slots=True)
class Analyte:
    """An analyte's LOINC property, expected UCUM unit, limits in it (None: no limit known) and molar mass in g/mol (0: none)."""

    name: str
    property: str
    unit: str
    low: float | None
    high: float | None
    molar_mass: float


@functools.cache
def _by_code() -> dict[str, Analyte]:
    found: dict[str, Analyte] = {}
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            low, high = (float(row[name]) if row[name] else None for name in ("low", "high"))
            analyte = Analyte(row["analyte"], row["property"], row["unit"], low, high, float(row["molar_mass"] or 0))
            found.update(dict.fromkeys(row["codes"].split(), analyte))
    return found


def analyte(system: str, code: str) -> Analyte | None:
    """Return what is known of a code; None for codes that the file does not have."""
    return _by_code().get(code) if system == "loinc" else None


def commensurable(known: Analyte, unit: Unit) -> bool:
    """May a result of this analyte carry this unit, by its LOINC property?"""
    expected = units.resolve(known.unit)
    allowed = PROPERTY_DIMENSIONS.get(known.property, ())
    return (
        expected is None
        or unit.dimension == expected.dimension
        or any(unit.dimension == one or (one.endswith("*") and unit.dimension.startswith(one[:-1])) for one in allowed)
    )


def convert(value: float, source: Unit, target: Unit, molar_mass: float = 0.0) -> float | None:
    """Convert a value; between mass and substance concentration by the molar mass (g/mol). None where there is no way."""
    base = value * source.factor + source.offset
    if source.dimension != target.dimension:
        step = _CONCENTRATION.get(source.dimension, 0)
        if not molar_mass or step == 0 or _CONCENTRATION.get(target.dimension) != -step:
            return None
        base = base * 1000 / molar_mass if step == 1 else base * molar_mass / 1000
    return (base - target.offset) / target.factor


def limits(system: str, code: str, unit: Unit | None) -> tuple[float, float] | None:
    """Return the plausible limits of a code in the given unit; None where unknown. A score needs no unit."""
    known = analyte(system, code)
    if known is None or known.low is None or known.high is None:
        return None
    expected = units.resolve(known.unit)
    if unit is None:
        return (known.low, known.high) if known.property == "Score" else None
    if expected is None:
        return None
    low, high = (convert(limit, expected, unit, known.molar_mass) for limit in (known.low, known.high))
    return None if low is None or high is None else (low, high)


def shown(typed: str) -> str:
    """Return what of a unit may leave: the spelling that a table has, else its UCUM code, else ``?unparseable``."""
    text = typed.strip()
    unit = units.resolve(text)
    if unit is None:
        return "?unparseable"
    return text if text in units.synonyms() else unit.ucum


def unit_class(system: str, code: str, unit: str) -> str:
    """Return the one defect class of a shown unit: unit-missing, unit-unparseable, unit-incommensurable, or ``""``."""
    if unit in {"", "?null-token"}:
        return "unit-missing"
    found = units.resolve(unit) if unit[0] != "?" else None
    if found is None:
        return "unit-unparseable"
    known = analyte(system, code)
    return "unit-incommensurable" if known is not None and not commensurable(known, found) else ""
