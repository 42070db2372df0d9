"""Rule packs: YAML in, validated rules out; every mistake of every pack is reported at once with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from ehrready import resources
from ehrready.checks import CHECKS
from ehrready.errors import UsageError
from ehrready.rules.document import compose, hint, shown
from ehrready.rules.model import MIN_N, SEVERITIES, Limits, Pack, Rule
from ehrready.rules.parser import CycleError, PackParser

__all__ = ["MIN_N", "SEVERITIES", "Limits", "Pack", "Rule", "default_packs", "known", "load", "load_all", "merged", "shipped", "sites"]


def shipped() -> dict[str, Path]:
    """Return the packs that come with ehrready, by name."""
    return {path.stem: path for path in sorted(resources.folder("rules").glob("*.yaml"))}


def default_packs(formats: Iterable[str]) -> list[Pack]:
    """Return core and the pack of each format that was read."""
    packs = [load(path) for path in shipped().values()]
    seen = set(formats)
    chosen = _outermost([pack for pack in packs if pack.name == "core" or seen & set(pack.formats)])
    # of predictions alone the record's rules know nothing but that they could be read
    return (
        [
            replace(pack, rules=tuple(r for r in pack.rules if r.elements == ("",) and not CHECKS[r.check].compares))
            if pack.name == "core"
            else pack
            for pack in chosen
        ]
        if seen == {"predictions"}
        else chosen
    )


def every(mapping: str | None) -> list[Pack]:
    """Return all packs that could be taken without being named, before it is known which formats there are."""
    return default_packs(
        [*(fmt for path in shipped().values() for fmt in load(path).formats if fmt in {"fhir", "hl7v2", "omop"}), mapping or ""]
    )


def load_all(names: Sequence[str]) -> list[Pack]:
    """Load packs by shipped name or path; raises UsageError with the mistakes of all of them."""
    problems: list[str] = []
    packs: list[Pack] = []
    for name in names:
        try:
            packs.append(load(_find(name)))
        except UsageError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    packs = _outermost(packs)
    problems += _clashes(packs)
    if problems:
        raise UsageError(*problems)
    return packs


def lint(names: Sequence[str]) -> list[Pack]:
    """Load packs each on its own (they need not agree); raises UsageError with the mistakes of all of them."""
    problems: list[str] = []
    packs: list[Pack] = []
    owners: dict[str, str] = {}
    for name in names:
        try:
            packs.append(load(_find(name)))
        except UsageError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    for pack in packs:
        for rule_id in dict.fromkeys(rule.id for rule in pack.rules if rule.pack == pack.name):
            if owners.setdefault(rule_id, pack.name) != pack.name:
                problems.append(f"rule {rule_id} is in pack {owners[rule_id]} and in pack {pack.name}: ids are unique, rename one")
    if problems:
        raise UsageError(*problems)
    return packs


def _outermost(packs: Sequence[Pack]) -> list[Pack]:
    """Leave out the packs that another one extends: it brings their rules, as it has changed them."""
    inner = {(pack.name, pack.sha256) for outer in packs for pack in _below(outer)}
    return [pack for pack in packs if (pack.name, pack.sha256) not in inner]


def _below(pack: Pack) -> list[Pack]:
    return [inner for other in pack.extends for inner in (other, *_below(other))]


def _clashes(packs: Sequence[Pack]) -> list[str]:
    """Return the rules about which packs named together disagree."""
    problems = []
    first: dict[str, tuple[Pack, list[Rule]]] = {}
    for pack in packs:
        own: dict[str, list[Rule]] = {}
        for rule in pack.rules:
            own.setdefault(rule.id, []).append(rule)
        for name, parts in own.items():
            other, theirs = first.setdefault(name, (pack, parts))
            if theirs != parts and {r.pack for r in theirs} != {r.pack for r in parts}:
                problems.append(f"rule {name} is in pack {other.name} and in pack {pack.name}: ids are unique, rename one")
            elif theirs != parts:
                problems.append(
                    f"rule {name} is not the same in pack {other.name} and in pack {pack.name}, which changes it: name one of them"
                )
    for pack in packs:
        for other in packs:
            for name in sorted(set(pack.disabled) & {rule.id for rule in other.rules}):
                problems.append(f"rule {name} is switched off by pack {pack.name} and brought back by pack {other.name}: name one of them")
    return problems


def merged(packs: Sequence[Pack]) -> list[Rule]:
    """Return the rules of the packs, each part of a rule once (packs may extend the same pack), in pack order."""
    return list({(rule.id, rule.elements): rule for pack in packs for rule in pack.rules}.values())


def known() -> set[str]:
    """Return the ids of all rules that come with ehrready: a waiver may name one that does not apply today."""
    return {rule.id for path in shipped().values() for rule in load(path).rules}


def sites(rules: Iterable[Rule]) -> set[str]:
    """Return the sites that rules name: their codes may stand in outputs (design section 8)."""
    return {site for rule in rules for site, _ in rule.sites}


def _find(name: str) -> Path:
    path = Path(name)
    packs = shipped()
    if path.suffix in {".yaml", ".yml"} or (name not in packs and path.is_file()):
        if not path.is_file():
            raise UsageError(f"rule pack {path.name}: no such file")
        return path
    if name not in packs:
        raise UsageError(
            f"no rule pack is called {shown(name)}{hint(name, packs)}; shipped: {', '.join(packs)}; else give a path to a .yaml file"
        )
    return packs[name]


def load(path: Path, _chain: tuple[str, ...] = ()) -> Pack:
    """Read and validate one pack; raises UsageError listing every mistake as ``file:line: what and remedy``."""
    return _own(path) if path.parent == resources.folder("rules") else _read(path, _chain)


@cache
def _own(path: Path) -> Pack:
    """Read a pack that comes with ehrready, once: every run asks for several of them more than once."""
    return _read(path, ())


def _read(path: Path, _chain: tuple[str, ...]) -> Pack:
    try:
        with path.open("rb") as file:
            data = file.read(1_000_001)  # one byte more than a pack may have
    except OSError:
        raise UsageError(f"rule pack {path.name}: cannot be read") from None
    node = compose(data, path.name, "a rule pack")
    parser = PackParser(path.name, path.parent, (*_chain, path.resolve().as_posix()), _extended)
    pack = parser.pack(node, data)
    if parser.problems:
        raise UsageError(*parser.problems)
    return pack


def _extended(name: str, folder: Path, chain: tuple[str, ...]) -> Pack:
    """Load a pack that another extends: a shipped name, or a file beside the other; raises CycleError."""
    beside = folder / name
    path = beside if beside.suffix in {".yaml", ".yml"} else _find(name)
    if path.resolve().as_posix() in chain:
        raise CycleError
    return load(path, chain)
