"""Structure of FHIR resources, by the models of fhir.resources.

What the models know: element names, types, cardinalities, the formats of primitives, one type per choice.  What they do not
know: value sets, invariants, profiles, references.  R4 is read with the models of R4B, which differ in a few resource types
(among those that ehrready profiles none); R5 and STU3 have their own.
"""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ehrready.checks.base import CannotCount

#: FHIR version to the package that holds its models.
VERSIONS = {"R4": "fhir.resources.R4B", "R4B": "fhir.resources.R4B", "R5": "fhir.resources", "STU3": "fhir.resources.STU3"}
#: From so many resources on, other processes help: importing the models costs each of them a second.
MANY = 5_000
_CHUNK = 1_000
#: Resources of a contained or unknown type are validated as far as the models know them.
_UNKNOWN = "unknown-type"

_KINDS = {
    "model_field_validation.missing": "missing",
    "missing": "missing",
    "extra_forbidden": "unknown-property",
    "value_error": "wrong-format",
    "model_validation_format": "wrong-type",
    "string_pattern_mismatch": "wrong-format",
}

#: (element path, kind of error) of one resource.
Problem = tuple[str, str]


@dataclass(slots=True)
class Validated:
    """Resources checked, by type; resources and patients with each problem, and with any."""

    checked: int = 0
    wrong: int = 0
    problems: dict[Problem, int] = field(default_factory=lambda: defaultdict(int))
    people: dict[Problem, set[str]] = field(default_factory=lambda: defaultdict(set))
    of: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong_people: set[str] = field(default_factory=set)


def validate(texts: Sequence[str], version: str = "R4B", processes: int | None = None) -> Validated:
    """Validate resources, each a JSON text; raises CannotCount where the models are not installed.

    Many resources are shared out to ``processes`` (default: one per core); the result does not depend on them.
    """
    try:
        importlib.import_module(VERSIONS[version])
    except ImportError:
        raise CannotCount("fhir.resources is not installed: pip install fhir.resources", "not-applicable") from None
    workers = processes or os.cpu_count() or 1
    if len(texts) < MANY or workers == 1:
        parts = [_some(version, texts)]
    else:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_some, [version] * len(chunks), chunks))
    found = Validated()
    for rows in parts:
        for kind, patient, problems in rows:
            found.checked += 1
            found.of[kind] += 1
            found.wrong += bool(problems)
            if problems and patient:
                found.wrong_people.add(patient)
            for problem in problems:
                found.problems[problem] += 1
                if patient:
                    found.people[problem].add(patient)
    return found


def _some(version: str, texts: Sequence[str]) -> list[tuple[str, str, list[Problem]]]:
    """Return (type, patient, problems) of each resource; runs in another process where there are many."""
    models: dict[str, Any] = {}
    lookup = importlib.import_module(VERSIONS[version]).get_fhir_model_class
    return [_one(text, models, lookup) for text in texts]


def _one(text: str, models: dict[str, Any], lookup: Any) -> tuple[str, str, list[Problem]]:
    document = orjson.loads(text)
    kind = str(document.get("resourceType"))
    if kind not in models:
        try:
            models[kind] = lookup(kind)
        except Exception:  # noqa: BLE001 - the models say "no such type" in several ways
            models[kind] = None
    if models[kind] is None:
        return _UNKNOWN, patient_of(document), [(_UNKNOWN, "unknown-type")]
    try:
        models[kind].model_validate_json(text)
    except Exception as error:  # noqa: BLE001 - its text quotes values and is not looked at
        return kind, patient_of(document), sorted(_problems(kind, error))
    return kind, patient_of(document), []


def _problems(kind: str, error: Exception) -> set[Problem]:
    """Return the places and kinds of what the models found; names that the models do not know are left out."""
    listed = getattr(error, "errors", None)
    if listed is None:
        return {(kind, "other")}
    found: set[Problem] = set()
    for item in listed():
        path = [str(step) for step in item["loc"] if isinstance(step, str) and step != "root"]
        problem = _KINDS.get(item["type"], "wrong-type" if str(item["type"]).endswith(("_type", "_parsing")) else "other")
        if problem == "unknown-property":
            path = path[:-1]
        found.add((".".join([kind, *path]), problem))
    return found or {(kind, "other")}


def patient_of(document: dict[str, Any]) -> str:
    """Return what tells a resource's patient from others, ``""`` when it names none; it never leaves this process."""
    if document.get("resourceType") == "Patient":
        return f"Patient/{document.get('id')}"
    for name in ("subject", "patient"):
        reference = document.get(name)
        if isinstance(reference, dict) and isinstance(reference.get("reference"), str):
            return str(reference["reference"])
    return ""
