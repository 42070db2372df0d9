"""How a report writes numbers, places and names for people: plain words, units, nothing that looks like what it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from markupsafe import Markup, escape

from ehrready.terminology.systems import SYSTEMS

#: Verdict → its words and what they mean to the reader.
VERDICTS = {
    "ready": ("Ready", "Every requirement that could be assessed is met."),
    "ready-with-conditions": (
        "Ready with conditions",
        "No requirement failed, but the warnings need a decision before a model runs on this data.",
    ),
    "not-ready": ("Not ready", "A model should not run on this data until the failed requirements are fixed."),
    "cannot-tell": ("Cannot tell", "Too little could be read or assessed for a verdict. This is not a pass."),
}
#: Status → words for a badge.
STATUSES = {
    "error": "Could not be judged",
    "fail": "Failed",
    "warn": "Warning",
    "pass": "Passed",
    "not-assessed": "Not assessed",
    "not-applicable": "Does not apply",
}
SEVERITIES = {"error": "required", "warning": "advised", "info": "for information"}
FORMATS = {"fhir": "FHIR", "hl7v2": "HL7 v2", "omop": "OMOP", "table": "tables", "predictions": "predictions"}
#: Status of a release → kind of its badge, its words.
RELEASES = {
    "different": ("warn", "not what training used"),
    "not-declared": ("none", "not stated"),
    "not-compared": ("none", "nothing to compare with"),
    "same": ("pass", "as in training"),
}
#: How the releases of the codes run against the calendar.
PATTERNS = {
    "single": "one release",
    "interval": "cannot be told closer",
    "tracks-calendar": "follows the yearly updates",
    "lagging": "one release behind the calendar",
    "frozen": "stays at a release that has been replaced",
    "re-mapped": "older records coded anew in a later release",
    "mixed": "different releases in the same quarters",
}
#: What a finding without an element is about, by its dimension; else the whole data set.
_WHOLE = {"integration": "The EHR", "production": "The model"}
#: Canonical table → what a hospital calls its records.
TABLES = {
    "": "Whole data set",
    "patient": "Patients",
    "encounter": "Encounters",
    "condition": "Conditions",
    "observation": "Observations",
    "medication": "Medications",
    "procedure": "Procedures",
    "immunization": "Immunizations",
    "allergy": "Allergies",
    "report": "Reports",
    "document": "Documents",
    "prediction": "Predictions",
}
#: What a dimension asks.
DIMENSIONS = {
    "completeness": "Is it there?",
    "conformance": "Is it written as agreed?",
    "release": "Same code-system versions?",
    "plausibility": "Can it be true?",
    "comparability": "Is it like training?",
    "integration": "Does the EHR offer it?",
    "production": "Does the model still do it?",
}
#: Fields whose name is not yet plain English.
_FIELDS = {"at": "date", "patient_id": "link to the patient", "encounter_id": "link to the encounter", "value_code": "coded value"}
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_EDITIONS = {"900000000000207008": "International edition", "731000124108": "US edition"}


def number(value: float | None) -> str:
    """Write a count with thousands separators; None is a hidden one."""
    return "<11" if value is None else f"{value:,}"


def percent(rate: float | None) -> str:
    """Write a share of 1 with one decimal; what is not quite nothing or everything never looks like it."""
    if rate is None:
        return "hidden"
    if 0 < rate < 0.0005:
        return "<0.1\u00a0%"
    if rate >= 0.9995:
        return "100\u00a0%" if rate >= 1 else ">99.9\u00a0%"
    return f"{100 * rate:.1f}\u00a0%"


def whole(rate: float | None) -> str:
    """Write a rounded share without needless decimals: 12 %, 0.5 %."""
    return "hidden" if rate is None else f"{100 * rate:.3g}\u00a0%"


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")


def month(value: str | None) -> str:
    """Write ``2025-03`` as March 2025; anything else stays as it is."""
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", value or "")
    return f"{_MONTHS[int(found[2]) - 1]} {found[1]}" if found else str(value or "unknown")


def release(value: str | None) -> str:
    """Write a release for people: the edition URI of SNOMED CT becomes its edition and date, the rest stays."""
    found = re.fullmatch(r"http://snomed\.info/sct/(\d{6,18})(?:/version/(\d{4})(\d\d)(\d\d))?", value or "")
    if not found:
        return value or "not stated"
    edition = _EDITIONS.get(found[1], f"edition {found[1]}")
    return f"{edition} {found[2]}-{found[3]}-{found[4]}" if found[2] else edition


def release_words(status: str, seen: Collection[str] = (), trained: Collection[str] = ()) -> tuple[str, str]:
    """Return the badge of a release status, its kind and words; a status of a later version speaks for itself.

    ``same`` may be said of the codes alone: where this data declares (``seen``) what training never declared, that is told.
    """
    if status == "same" and seen and trained and not set(seen) <= set(trained):
        return "warn", "declared otherwise, the codes fit both"
    return RELEASES.get(status, ("none", status))


def size(value: int) -> str:
    """Write a number of bytes in the largest decimal unit that leaves at least 1."""
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= width:
            return f"{value / width:.1f}\u00a0{unit}"
    return f"{value}\u00a0bytes"


def plain(value: Any) -> str:
    """Write a JSON value as text: lists with commas, objects as JSON."""
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def words(name: str) -> str:
    """Write an owner's name as words: ``clinical-informatics`` is Clinical informatics."""
    return name[:1].upper() + name[1:].replace("-", " ")


def tied(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\u00a0%")


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 finding, 2 findings."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(name: str) -> str:
    """Write a canonical table as a hospital calls its records; an unknown one keeps its name."""
    return TABLES.get(name, name)


def place(element: str) -> str:
    """Write an element as words: ``patient.birth_date`` is Patient birth date; nothing is the whole data set."""
    owner, _, field = element.partition(".")
    if not element:
        return TABLES[""]
    return f"{owner[:1].upper()}{owner[1:]} {_FIELDS.get(field, field.replace('_', ' '))}".strip()


def where(finding: Mapping[str, Any]) -> str:
    """Write what a finding is about: its element, else the data set, the EHR or the model."""
    return place(finding["element"]) if finding["element"] else _WHOLE.get(finding["dimension"], TABLES[""])


def inline(finding: Mapping[str, Any]) -> str:
    """Write what a finding is about within a sentence."""
    text = where(finding)
    return text[:1].lower() + text[1:]


def system(key: str) -> str:
    """Write a code system by its name: ``icd10cm`` is ICD-10-CM; an unknown one keeps its key."""
    known = SYSTEMS.get(key)
    return known.name if known else key


def _bare(message: str, element: str) -> str:
    for start in (element,) if element else ("all records", "the EHR"):
        message = message.removeprefix(f"{start}: ")
    return message


def sentence(message: str, element: str) -> str:
    """Return a finding's message without the element it starts with, as a sentence of its own."""
    rest = _bare(message, element)
    return tied(rest[:1].upper() + rest[1:])


def gist(message: str, element: str) -> str:
    """Return what a finding's message says was found, without what follows for engineers (effective n, examples)."""
    rest = _bare(message, element)
    return tied("; ".join(rest.split("; ")[:2]))


def ticks(text: str) -> Markup:
    """Turn `words` between backquotes into code elements; everything else is escaped text."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts))
