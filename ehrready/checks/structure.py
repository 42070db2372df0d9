"""Conformance of whole FHIR resources, on a sample that the reader keeps (or on all, ``--validate all``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from ehrready import custom
from ehrready.checks.base import CannotCount, Counted, Outcome, check
from ehrready.integrations import fhir_validation
from ehrready.profile import Profile

if TYPE_CHECKING:
    import duckdb

_VERSIONS = ("R4", "R4B", "R5", "STU3")
_PATH = re.compile(r"([A-Z][A-Za-z]+)(?:\[([A-Za-z-]+)\])?((?:\.[a-z][A-Za-z]*(?:\[x\])?)+)")
_NO_SAMPLE = CannotCount("no FHIR resource was kept for it (another format, or --validate none)", "not-applicable")


def _sample(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return (type, text) of the resources that the reader kept, in the order of their records."""
    kept = con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'fhir_sample'").fetchone()
    rows = con.execute("SELECT type, text FROM fhir_sample ORDER BY record").fetchall() if kept and kept[0] else []
    if not rows:
        raise _NO_SAMPLE
    return rows


def _few(con: duckdb.DuckDBPyConnection) -> bool:
    """Say whether some resources were kept, so few that one thread of Python looks at them in no time."""
    kept = con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'fhir_sample'").fetchone()
    some = con.execute("SELECT count(*) FROM fhir_sample").fetchone() if kept and kept[0] else None
    return bool(some and 0 < some[0] < fhir_validation.MANY)


def _validate(con: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> Callable[[], list[Counted]]:
    texts = [text for _, text in _sample(con)]
    return lambda: _validated(texts, options.get("version", "R4B"))


def _validated(texts: list[str], version: str) -> list[Counted]:
    found = fhir_validation.validate(texts, version)
    counted = [Counted(found.wrong, found.checked, len(found.wrong_people))]
    for (path, kind), n in sorted(found.problems.items()):
        group = (("path", path), ("problem", kind))
        counted.append(Counted(n, found.of[path.partition(".")[0]], len(found.people[path, kind]), group))
    return counted


def _lint_structure(options: dict[str, Any]) -> list[str]:
    return [] if options.get("version", "R4B") in _VERSIONS else [f"version must be one of {', '.join(_VERSIONS)}"]


@check("conformance", whole=True, measured=_validate, lint=_lint_structure, apart=_few)
def structure_valid(profile: Profile, key: tuple[str, str], *, version: str = "R4B") -> list[Outcome]:  # noqa: ARG001
    """Are FHIR resources built as their version says?

    The models of fhir.resources look at a sample (100 resources of each type, spread over the files; all with
    `--validate all`): unknown properties, missing required elements, wrong types and formats. They know no value sets,
    invariants or profiles. R4 is judged by the models of R4B.

    Numerator: sampled resources with any error; and, as findings of their own, with one kind of error at one element path.
    Denominator: sampled resources; of one path, those of its type.

    Options: `version` of FHIR: R4, R4B (default), R5 or STU3.
    """
    return custom.outcomes(profile, key)


def _lint_support(options: dict[str, Any]) -> list[str]:
    wrong = [path for path in options["elements"] for part in path.split("|") if not _PATH.fullmatch(part.strip())]
    return [f"elements: {path!r} is no path such as Patient.name.family or Observation[laboratory].interpretation" for path in wrong]


def _support(con: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> Callable[[], list[Counted]]:
    kept = _sample(con)
    return lambda: _supported(kept, options["elements"])


def _supported(kept: list[tuple[str, str]], elements: list[str]) -> list[Counted]:
    documents = [(kind, orjson.loads(text)) for kind, text in kept]
    counted = []
    for path in elements:
        parts = [_PATH.fullmatch(part.strip()) for part in path.split("|")]
        matches = [match for match in parts if match]
        mine = [d for kind, d in documents if kind == matches[0][1] and (not matches[0][2] or matches[0][2] in _categories(d))]
        lacking = [d for d in mine if not any(_there(d, match[3].strip(".").split(".")) for match in matches)]
        if mine:
            people = len({fhir_validation.patient_of(d) for d in lacking} - {""})
            counted.append(Counted(len(lacking), len(mine), people, (("path", path),)))
    return counted


def _categories(document: dict[str, Any]) -> set[str]:
    """Return the codes of a resource's category."""
    concepts = document.get("category")
    found = set()
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        codings = concept.get("coding") if isinstance(concept, dict) else None
        found |= {str(coding.get("code")) for coding in codings or [] if isinstance(coding, dict)}
    return found


def _there(node: Any, path: list[str]) -> bool:
    """Is there a value at a path?  ``value[x]`` is any of its types; an extension instead of a value (absent for a reason) counts."""
    if isinstance(node, list):
        return any(_there(item, path) for item in node)
    if not path:
        return node not in (None, "", {}, [])
    if not isinstance(node, dict):
        return False
    name, rest = path[0], path[1:]
    stem = name.removesuffix("[x]")
    names = [key for key in node if key.startswith(stem) and key[len(stem) : len(stem) + 1].isupper()] if stem != name else [name]
    return any(_there(node.get(key), rest) or bool(node.get(f"_{key}")) for key in names) or bool(node.get(f"_{name}"))


@check("completeness", whole=True, measured=_support, lint=_lint_support, apart=_few)
def must_support(profile: Profile, key: tuple[str, str], *, elements: list[str]) -> list[Outcome]:  # noqa: ARG001
    """Does the sender fill elements that a profile marks as must-support?

    Looked at in the same sample as `structure-valid`. An element absent for a reason (an extension in its place) is there.

    Numerator: sampled resources of the type without the element.
    Denominator: sampled resources of the type (and of the category in brackets).

    Options: `elements`: paths such as `Patient.name.family`, `Observation[laboratory].interpretation`, with `|` between those of
    which one is enough.
    """
    return custom.outcomes(profile, key)
