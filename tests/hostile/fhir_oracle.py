"""What FHIR resources mean in the canonical tables, in plain Python: a second opinion on the reader, written from its mapping and from FHIR.

One resource at a time, with ``json`` and ``dict``: no Arrow, no SQL, no block.  ``tables()`` gives the rows that a reading must give, record by record.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]
Resource = dict[str, Any]

_REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_NULLS = {
    "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "http://hl7.org/fhir/v3/NullFlavor", "urn:oid:2.16.840.1.113883.5.1008",
    "http://terminology.hl7.org/CodeSystem/data-absent-reason", "http://hl7.org/fhir/data-absent-reason",
}  # fmt: skip
_TOKENS = {
    "", "UNK", "UNKNOWN", "NA", "N/A", "N.A.", "NULL", "NONE", "NIL", "NAN", "-", "--", ".", "?", "??", "SEE NOTE", "SEE NOTES", "SEE COMMENT",
    "SEE COMMENTS", "NOT AVAILABLE", "NOT APPLICABLE", "#N/A", "<NULL>", "(NULL)", "\\N",
}  # fmt: skip
#: What a code that is blank consists of: the spaces of Unicode (Zs).
_SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_SUBJECT, _ENCOUNTER = ["subject.reference", "patient.reference"], ["encounter.reference", "context.reference"]
_OCCURRENCE = ["authoredOn", "effectiveDateTime", "effectivePeriod.start", "occurenceDateTime", "occurencePeriod.start", "whenHandedOver",
               "whenPrepared", "dateAsserted"]  # fmt: skip
_DRUG: tuple[str, dict[str, list[str]], dict[str, str]] = (
    "medication",
    {"patient_id": _SUBJECT, "encounter_id": _ENCOUNTER, "status": ["status"], "at": _OCCURRENCE, "end": ["effectivePeriod.end", "occurencePeriod.end"]},
    {},
)  # fmt: skip
#: Resource type to its table, the paths of its columns, and its coded elements (``*`` behind the name: absent is no row).
TYPES: dict[str, tuple[str, dict[str, list[str]], dict[str, str]]] = {
    "Patient": ("patient", {"site": ["managingOrganization.reference"], "birth_date": ["birthDate"], "death_date": ["deceasedDateTime"],
                            "deceased": ["deceasedBoolean"], "sex": ["gender"]}, {}),
    "Encounter": ("encounter", {"patient_id": _SUBJECT, "site": ["serviceProvider.reference"], "status": ["status"],
                                "at": ["period.start", "actualPeriod.start"], "end": ["period.end", "actualPeriod.end"]}, {"encounter.type": "type[]"}),
    "Condition": ("condition", {"patient_id": _SUBJECT, "encounter_id": _ENCOUNTER, "end": ["abatementDateTime", "abatementPeriod.end"],
                                "at": ["onsetDateTime", "onsetPeriod.start", "recordedDate", "assertedDate"], "recorded_at": ["recordedDate", "assertedDate"]},
                  {"condition.code": "code", "condition.category": "category[]", "condition.clinical_status": "clinicalStatus",
                   "condition.verification_status": "verificationStatus"}),
    "Observation": ("observation", {"patient_id": ["subject.reference"], "encounter_id": _ENCOUNTER, "status": ["status"],
                                    "at": ["effectiveDateTime", "effectivePeriod.start", "effectiveInstant"]},
                    {"observation.code": "code", "observation.category": "category[]", "observation.interpretation*": "interpretation[]",
                     "observation.value_code*": "valueCodeableConcept"}),
    **dict.fromkeys(("MedicationRequest", "MedicationStatement", "MedicationAdministration", "MedicationDispense"), _DRUG),
    "Procedure": ("procedure", {"patient_id": ["subject.reference"], "encounter_id": _ENCOUNTER, "status": ["status"],
                                "at": ["performedDateTime", "performedPeriod.start", "occurrenceDateTime", "occurrencePeriod.start"],
                                "end": ["performedPeriod.end", "occurrencePeriod.end"]}, {"procedure.code": "code"}),
    "Immunization": ("immunization", {"patient_id": ["patient.reference", "subject.reference"], "encounter_id": ["encounter.reference"],
                                      "status": ["status"], "at": ["occurrenceDateTime", "date"]}, {"immunization.code": "vaccineCode"}),
    "AllergyIntolerance": ("allergy", {"patient_id": ["patient.reference", "subject.reference"], "encounter_id": ["encounter.reference"],
                                       "at": ["onsetDateTime", "recordedDate", "assertedDate"]}, {"allergy.code": "code"}),
    "DiagnosticReport": ("report", {"patient_id": ["subject.reference"], "encounter_id": _ENCOUNTER, "status": ["status"],
                                    "at": ["effectiveDateTime", "effectivePeriod.start", "issued"]}, {"report.code": "code", "report.category": "category[]"}),
    "DocumentReference": ("document", {"patient_id": ["subject.reference"], "encounter_id": ["context.encounter[].reference"], "status": ["status"],
                                       "at": ["date", "context.period.start", "created"]}, {"document.type": "type"}),
}  # fmt: skip
_TIMES = {"at", "end", "birth_date", "death_date", "recorded_at"}
_REFERENCES = {"patient_id", "encounter_id", "site"}
_NOT_PEOPLE = "(^|/)(Group|Device|Location|Practitioner|Organization|Medication|Substance)/[^/]+$"


def text(value: Any) -> str | None:
    """Return the text of a JSON value that stands where text belongs."""
    return value if value is None or isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def clean(value: Any) -> str | None:
    """Return the text without white space (and the mark of a stated absence) around it; None for nothing."""
    found = text(value)
    return (found.strip(" \t\r\n\x01") or None) if found is not None else None


def is_token(value: str) -> bool:
    """Say whether a text stands for nothing."""
    return value.strip(' \t\r\n"').upper() in _TOKENS


def at(value: Any, path: str) -> Any:
    """Return what is at a dotted path (``[]``: the first of a list), None where something on the way is of another type."""
    for step in path.split("."):
        value = value.get(step.removesuffix("[]")) if isinstance(value, dict) else None
        if step.endswith("[]"):
            value = value[0] if isinstance(value, list) and value else None
    return value


def reference(value: str | None) -> str | None:
    """Return the id that a reference points at; conditional and contained ones stay as they are."""
    if value is None or "?" in value or value.startswith("#"):
        return value
    if value.startswith("urn:uuid:"):
        return value[9:]
    return re.sub(r"/_history/.*$", "", value, flags=re.DOTALL).rsplit("/", 1)[-1]


def who(value: str | None) -> str | None:
    """Return the patient that a reference points at, the mark of another kind of subject, or None."""
    if value is not None and "/" in value and re.search(_NOT_PEOPLE, value) and not re.fullmatch("Patient/[^/]*", value):
        return "\x01not-a-patient"
    return clean(reference(value))


def reason(extensions: Any) -> str | None:
    """Return the stated reason among extensions."""
    if not isinstance(extensions, list):
        return None
    found = [one for one in extensions if isinstance(one, dict) and one.get("url") == _REASON]
    return (text(found[0].get("valueCode")) or ("unknown" if found[0].get("valueCode") is None else "")) if found else None


def scalar(resource: Resource, name: str, paths: list[str]) -> str | None:
    """Return a canonical scalar: the first path that has a value, then a stated reason."""
    for path in paths:
        value = clean(at(resource, path))
        if name in _TIMES and value is not None and len(value) > 10:
            value = value[:19].replace(" ", "T")
        if name == "patient_id":
            value = who(value)
        elif name in _REFERENCES:
            value = reference(value)
        if value is not None:
            return value
    if name not in _REFERENCES:
        for path in paths:
            if "." not in path and (why := reason(at(resource, f"_{path}.extension"))) is not None:
                return f"\x01{why}"
    return None


def codings(concept: Any) -> list[Row]:
    """Return the codings of a concept that are objects."""
    found = at(concept, "coding")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _stated(coding: Row) -> bool:
    return text(coding.get("system")) in _NULLS


def _real(concept: Any) -> list[Row]:
    return [c for c in codings(concept) if (text(c.get("code")) or "").strip(_SPACES) and not _stated(c)]


def concept_rows(concept: Any) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return (text, number of codings, reason) of a concept, and (position, system, version, code, display) of its codings."""
    real = _real(concept)
    displays = [clean(c.get("display")) for c in codings(concept) if not _stated(c)]
    tokens = [clean(c["code"]) for c in real if is_token(text(c["code"]) or "")]
    said = next((t for t in (clean(at(concept, "text")), *displays, *tokens) if t is not None), None)
    nulls = [text(c.get("code")) for c in codings(concept) if _stated(c)]
    why = reason(at(concept, "extension"))
    why = why if why is not None else next(iter(nulls), None)
    why = None if why is None else "masked" if why.lower() == "msk" else why.lower()
    rows = [(i, clean(c.get("system")), clean(c.get("version")), text(c["code"]), clean(c.get("display"))) for i, c in enumerate(real, 1)]
    return (said, len(real) - len(tokens), why), rows


def number(value: Any) -> float | None:
    """Return a JSON number that is finite, of anything else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except OverflowError:
        return None


def value_of(body: Any) -> Row:
    """Return the columns of the value of an Observation or a component."""
    body = body if isinstance(body, dict) else {}
    quantity, integer = at(body, "valueQuantity.value"), body.get("valueInteger")
    n = next((x for x in (number(quantity), number(integer)) if x is not None), None)
    words, concept = clean(body.get("valueString")), body.get("valueCodeableConcept")
    kind: str | None = None
    if n is not None:
        kind = "number"
    elif quantity is not None or integer is not None or words is not None:
        kind = "text"
    elif isinstance(at(concept, "coding"), list) or clean(at(concept, "text")) is not None:
        kind = "coded"
    elif body.get("valueBoolean") is not None:
        kind = "boolean"
    elif body.get("valueDateTime") is not None or body.get("valueTime") is not None:
        kind = "time"
    elif any(body.get(f"value{name}") is not None for name in ("Range", "Ratio", "SampledData", "Period")):
        kind = "other"
    unit, code, system = (clean(at(body, f"valueQuantity.{name}")) for name in ("unit", "code", "system"))
    why = text(at(body, "dataAbsentReason.coding[].code"))
    why = why if why is not None else text(at(body, "dataAbsentReason.text"))
    raw = [json.dumps(x, separators=(",", ":"), ensure_ascii=False) for x in (quantity, integer) if x is not None]
    return {
        "value_kind": kind, "value_number": n, "value_text": None if n is not None else next(iter([*([words] if words else []), *raw]), None),
        "comparator": clean(at(body, "valueQuantity.comparator")), "unit": unit or code,
        "unit_code": code if text(at(body, "valueQuantity.system")) == "http://unitsofmeasure.org" and system else None,
        "range_low": number(at(body, "referenceRange[].low.value")), "range_high": number(at(body, "referenceRange[].high.value")),
        "absent_reason": None if why is None else "masked" if why.lower() in {"masked", "msk"} else why.lower(),
        "value_declared": "declared" if n is None and raw else None,
    }  # fmt: skip


def excluded(resource: Resource) -> str | None:
    """Return why a resource is in no denominator."""
    labels = at(resource, "meta.security")
    if any(text(at(one, "code")) == "HTEST" for one in (labels if isinstance(labels, list) else [])):
        return "test-patient"
    if text(resource.get("status")) == "entered-in-error":
        return "entered-in-error"
    if resource["resourceType"] in {"Condition", "AllergyIntolerance"}:
        for code in ("entered-in-error", "refuted"):
            if any(text(c.get("code")) == code for c in codings(resource.get("verificationStatus"))):
                return code
    return None


def elements(resource: Resource) -> Iterator[tuple[str, int, Any]]:
    """Yield (element, ordinal, concept) of the coded elements of a resource; an absent one is a None."""
    kind = resource["resourceType"]
    for name, path in TYPES[kind][2].items():
        found = resource.get(path.removesuffix("[]"))
        several = [found] if not path.endswith("[]") else found if isinstance(found, list) else []
        if not several and not name.endswith("*"):
            several = [None]
        for ordinal, concept in enumerate(several, 1):
            if concept is not None or not name.endswith("*") or path.endswith("[]"):
                yield name.removesuffix("*"), ordinal, concept
    if kind == "Encounter":
        yield "encounter.class", 1, None if (one := resource.get("class")) is None else {"coding": [one]}
    if kind == "Patient":
        for name in ("race", "ethnicity"):
            yield f"patient.{name}", 1, _us_core(resource, name)
        said = resource.get("communication")
        for ordinal, one in enumerate(said if isinstance(said, list) and said else [None], 1):
            yield "patient.language", ordinal, at(one, "language")


def _us_core(resource: Resource, name: str) -> Any:
    url = f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}"
    said = resource.get("extension")
    whole = [e for e in (said if isinstance(said, list) else []) if isinstance(e, dict) and e.get("url") == url]
    parts = [p for e in whole if isinstance(e.get("extension"), list) for p in e["extension"]]
    if not parts:
        return None
    parts = [p for p in parts if isinstance(p, dict)]
    words = [text(p.get("valueString")) for p in parts if p.get("url") == "text"]
    return {"text": words[0] if words else None, "coding": [p["valueCoding"] for p in parts if p.get("url") == "ombCategory" and isinstance(p.get("valueCoding"), dict)]}  # fmt: skip


def tables(records: Iterable[tuple[int, Resource]]) -> dict[str, list[Row]]:
    """Return the rows of the canonical tables for resources that stand in no Bundle."""
    found: dict[str, list[Row]] = {"component": [], "concept": [], "coding": []}
    records = list(records)
    drugs: dict[str, list[Any]] = {}
    for _, one in records:
        if one["resourceType"] == "Medication" and one.get("id") is not None:
            drugs.setdefault(text(one["id"]) or "", []).append(one.get("code"))
    tests = {text(one.get("id")) for _, one in records if one["resourceType"] == "Patient" and excluded(one) == "test-patient"} - {None}
    for record, resource in records:
        if resource["resourceType"] not in TYPES:
            continue
        table, columns, _ = TYPES[resource["resourceType"]]
        row: Row = {
            "record": record,
            "id": text(resource.get("id")),
            "source_type": resource["resourceType"],
            "excluded": excluded(resource),
        }
        row |= {name: scalar(resource, name, paths) for name, paths in columns.items()}
        if table == "patient":
            row["patient_id"] = row["id"]
        if row["excluded"] is None and row["patient_id"] in tests:
            row["excluded"] = "test-patient"
        known = {name: row.get(name) for name in ("record", "patient_id", "encounter_id", "site", "at")}
        coded = list(elements(resource))
        if table == "medication":
            coded.append(("medication.code", 1, _drug(resource, drugs)))
        if table == "observation":
            row |= value_of(resource)
            parts = resource.get("component")
            parts = parts if isinstance(parts, list) else []
            members = resource.get("hasMember")
            if row["value_kind"] is None and (parts or (isinstance(members, list) and members)):
                row["value_kind"] = "components"
            for i, part in enumerate(parts, 2) if row["excluded"] is None else ():
                found["component"].append({**{k: row.get(k) for k in ("record", "id", "patient_id", "encounter_id", "status", "at", "source_type")},
                                           **value_of(part), "concept": i})  # fmt: skip
                coded.append(("observation.code", i, at(part, "code")))
        found.setdefault(table, []).append(row)
        for element, ordinal, concept in coded if row["excluded"] is None else ():
            (said, n, why), rows = concept_rows(concept)
            found["concept"].append({"element": element, **known, "ordinal": ordinal, "text": said, "n_codings": n, "absent_reason": why})
            for position, system, version, code, display in rows:
                found["coding"].append({"element": element, **known, "position": position, "system": system, "version": version, "code": code,
                                        "display": display, "concept": ordinal})  # fmt: skip
    return found


def _drug(resource: Resource, drugs: dict[str, list[Any]]) -> Any:
    """Return the concept of a medication: its own, or that of the contained or other resource it refers to."""
    own, target = resource.get("medicationCodeableConcept"), text(at(resource, "medicationReference.reference"))
    if own is not None or target is None:
        return own
    if not target.startswith("#"):
        said = drugs.get(reference(target) or "", [])
        return said[0] if len({json.dumps(_parsed(one)) for one in said}) == 1 else None
    inside = resource.get("contained")
    found = [one for one in (inside if isinstance(inside, list) else []) if f"#{text(at(one, 'id'))}" == target]
    return found[0].get("code") if found else None


def _parsed(concept: Any) -> Any:
    return concept_rows(concept)
