"""FHIR R4 bulk export of a population: one NDJSON file per resource type, shaped like US Core."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import codes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from .model import Coding, Concept, Event, Observation, Patient, Population, Report

_TERM = "http://terminology.hl7.org/CodeSystem/"
_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
#: The big files are compressed; the others stay readable in a browser.
COMPRESSED = frozenset({"Condition", "DiagnosticReport", "Encounter", "MedicationRequest", "Observation"})


def when(at: datetime) -> str:
    """Return a FHIR dateTime in the hospitals' zone (UTC-5 all year)."""
    return at.isoformat() + "-05:00"


def _coding(coding: Coding, release: str) -> dict[str, str]:
    out = {}
    if coding.system:
        out["system"] = codes.SYSTEMS[coding.system][0]
        if coding.system == "icd10cm":
            out["version"] = release
        elif coding.system in codes.RELEASES:
            out["version"] = codes.RELEASES[coding.system][0]
    return {**out, "code": coding.code, "display": coding.display}


def _concept(concept: Concept, release: str) -> dict[str, Any]:
    codings = [_coding(coding, release) for coding in concept.codings]
    return {**({"coding": codings} if codings else {}), "text": concept.text}


def _fixed(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": _TERM + system, "code": code}]}


def _base(kind: str, event: Event, who: str = "subject") -> dict[str, Any]:
    return {
        "resourceType": kind,
        "id": event.id,
        who: {"reference": f"Patient/{event.patient.id}"},
        "encounter": {"reference": f"Encounter/{event.encounter.id}"},
    }


def _extension(name: str, code: str, text: str) -> dict[str, Any]:
    coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": code, "display": text}
    return {
        "url": f"{_CORE}us-core-{name}",
        "extension": [{"url": "ombCategory", "valueCoding": coding}, {"url": "text", "valueString": text}],
    }


def _patient(patient: Patient) -> dict[str, Any]:
    race = next(row for row in codes.RACES if row[0] == patient.race)
    ethnicity = next(row for row in codes.ETHNICITIES if row[0] == patient.ethnicity)
    language = next(row for row in codes.LANGUAGES if row[0] == patient.language)
    out: dict[str, Any] = {
        "resourceType": "Patient",
        "id": patient.id,
        "extension": [
            _extension("race", race[0], race[1]),
            _extension("ethnicity", ethnicity[0], ethnicity[1]),
        ],
        "identifier": [
            {
                "type": _fixed("v2-0203", "MR"),
                "system": f"urn:sample:{patient.site.lower()}:mrn",
                "value": patient.mrn,
            }
        ],
        "name": [{"family": patient.family, "given": [patient.given]}],
        "gender": patient.sex,
    }
    if patient.birth:
        out["birthDate"] = patient.birth.isoformat()
    if patient.death:
        out["deceasedDateTime"] = when(patient.death)
    spoken = {"system": "urn:ietf:bcp:47", "code": language[0], "display": language[1]}
    out["communication"] = [{"language": {"coding": [spoken], "text": language[1]}}]
    out["managingOrganization"] = {"reference": f"Organization/{patient.site}"}
    return out


def _encounters(pop: Population) -> Iterator[dict[str, Any]]:
    for e in pop.encounters:
        kind = codes.ENCOUNTER_TYPES[e.kind]
        coding = {
            "system": codes.SYSTEMS["snomed"][0],
            "version": codes.RELEASES["snomed"][0],
            "code": kind[0],
            "display": kind[1],
        }
        yield {
            "resourceType": "Encounter",
            "id": e.id,
            "status": "finished",
            "class": {"system": _TERM + "v3-ActCode", "code": e.words or e.kind},
            "type": [{"coding": [coding], "text": kind[1]}],
            "subject": {"reference": f"Patient/{e.patient.id}"},
            "period": {"start": when(e.start), "end": when(e.end)},
            "serviceProvider": {"reference": f"Organization/{e.patient.site}"},
        }


def _condition(event: Event, release: str) -> dict[str, Any]:
    out = _base("Condition", event)
    out["clinicalStatus"] = _fixed("condition-clinical", event.status)
    out["verificationStatus"] = _fixed("condition-ver-status", "confirmed")
    out["category"] = [_fixed("condition-category", "encounter-diagnosis")]
    out["code"] = _concept(event.concept, release)
    if event.at:
        out["onsetDateTime"] = when(event.at)
        if event.end:
            out["abatementDateTime"] = when(event.end)
        out["recordedDate"] = when(event.encounter.moment(0.9))
    return out


def interpretation(event: Observation) -> str:
    """Return H, L or N against the reference range (HL7 table 0078), or nothing without a range or value."""
    a = event.analyte
    if event.number_value is None or (a.low is None and a.high is None):
        return ""
    if a.high is not None and event.number_value > a.high:
        return "H"
    return "L" if a.low is not None and event.number_value < a.low else "N"


def _observation(event: Observation, release: str) -> dict[str, Any]:
    a = event.analyte
    out = _base("Observation", event)
    out["status"] = "final"
    out["category"] = [_fixed("observation-category", a.category)]
    out["code"] = _concept(event.concept, release)
    if event.at:
        out["effectiveDateTime"] = when(event.at)
    if event.number_value is not None:
        quantity: dict[str, Any] = {"value": event.number_value, "unit": event.unit}
        if event.unit == a.unit:
            quantity |= {"system": "http://unitsofmeasure.org", "code": a.unit}
        out["valueQuantity"] = quantity
    elif event.answer:
        ref = event.answer
        coding = {"system": codes.SYSTEMS[ref.system][0], "version": codes.RELEASES[ref.system][0]}
        out["valueCodeableConcept"] = {
            "coding": [{**coding, "code": ref.code, "display": ref.name}],
            "text": ref.name,
        }
    elif event.text_value is not None:
        out["valueString"] = event.text_value
    flag = interpretation(event)
    if flag:
        out["interpretation"] = [_fixed("v3-ObservationInterpretation", flag)]
        unit = {"unit": a.unit, "system": "http://unitsofmeasure.org", "code": a.unit}
        bounds = {name: {"value": v, **unit} for name, v in (("low", a.low), ("high", a.high)) if v is not None}
        out["referenceRange"] = [bounds]
    return out


def _report(event: Report, release: str) -> dict[str, Any]:
    out = _base("DiagnosticReport", event)
    out["status"] = "final"
    out["category"] = [_fixed("v2-0074", "LAB")]
    out["code"] = _concept(event.concept, release)
    if event.at:
        out["effectiveDateTime"] = when(event.at)
    out["issued"] = when(event.encounter.moment(0.8))
    out["result"] = [{"reference": f"Observation/{result.id}"} for result in event.results]
    return out


def _medication(event: Event, release: str) -> dict[str, Any]:
    out = _base("MedicationRequest", event)
    out |= {
        "status": event.status,
        "intent": "order",
        "medicationCodeableConcept": _concept(event.concept, release),
    }
    if event.at:
        out["authoredOn"] = when(event.at)
    return out


def _procedure(event: Event, release: str) -> dict[str, Any]:
    out = _base("Procedure", event)
    out |= {"status": "completed", "code": _concept(event.concept, release)}
    if event.at:
        out["performedDateTime"] = when(event.at)
    return out


def _immunization(event: Event, release: str) -> dict[str, Any]:
    out = _base("Immunization", event, "patient")
    out |= {"status": "completed", "vaccineCode": _concept(event.concept, release)}
    if event.at:
        out["occurrenceDateTime"] = when(event.at)
    return {**out, "primarySource": True}


def _allergy(event: Event, release: str) -> dict[str, Any]:
    category = {"DA": "medication", "EA": "environment", "FA": "food"}
    kinds = {item.code: item.kind for item in codes.ALLERGIES}
    out = _base("AllergyIntolerance", event, "patient")
    out["clinicalStatus"] = _fixed("allergyintolerance-clinical", "active")
    out["verificationStatus"] = _fixed("allergyintolerance-verification", "confirmed")
    out["category"] = [category[kinds[event.concept.codings[0].code]]]
    out["code"] = _concept(event.concept, release)
    if event.at:
        out["recordedDate"] = when(event.at)
    return out


def _document(event: Event, release: str) -> dict[str, Any]:
    out = _base("DocumentReference", event)
    encounter = out.pop("encounter")
    out |= {"status": "current", "type": _concept(event.concept, release)}
    system = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
    out["category"] = [{"coding": [{"system": system, "code": "clinical-note"}]}]
    if event.at:
        out["date"] = when(event.at)
    out["content"] = [{"attachment": {"contentType": "text/plain", "data": "U3ludGhldGljIG5vdGUu"}}]
    return {**out, "context": {"encounter": [encounter]}}


def resources(pop: Population) -> dict[str, list[dict[str, Any]]]:
    """Return the resources of a population by type, in a fixed order."""
    r = pop.release
    organizations = [{"resourceType": "Organization", "id": site[0], "active": True, "name": site[1]} for site in codes.SITES]
    return {
        "AllergyIntolerance": [_allergy(e, r) for e in pop.allergies],
        "Condition": [_condition(e, r) for e in pop.conditions],
        "DiagnosticReport": [_report(e, r) for e in pop.reports],
        "DocumentReference": [_document(e, r) for e in pop.documents],
        "Encounter": list(_encounters(pop)),
        "Immunization": [_immunization(e, r) for e in pop.immunizations],
        "MedicationRequest": [_medication(e, r) for e in pop.medications],
        "Observation": [_observation(e, r) for e in pop.observations],
        "Organization": organizations,
        "Patient": [_patient(p) for p in pop.patients],
        "Procedure": [_procedure(e, r) for e in pop.procedures],
    }


def files(pop: Population) -> dict[str, bytes]:
    """Return file name to content; a name ending in ``.gz`` asks the writer to compress it."""
    out: dict[str, bytes] = {}
    for kind, rows in resources(pop).items():
        lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
        out[f"{kind}.ndjson{'.gz' if kind in COMPRESSED else ''}"] = "".join(lines).encode()
    if pop.name == "live":
        out["log.ndjson"] = _export_log()
    return out


def _export_log() -> bytes:
    """Return the log that a bulk export client leaves beside its files; it holds no resource."""
    events: list[tuple[str, str, dict[str, object]]] = [
        ("06:00:00", "kickoff", {"exportUrl": "https://fhir.example.org/r4/Group/sample/$export"}),
        ("06:03:10", "status_complete", {"transactionTime": "2026-07-10T11:00:00Z"}),
        ("06:05:42", "export_complete", {"files": 11, "errors": 0}),
    ]
    rows = (
        {
            "exportId": "sample-1",
            "timestamp": f"2026-07-10T{at}-05:00",
            "eventId": event,
            "eventDetail": detail,
        }
        for at, event, detail in events
    )
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
