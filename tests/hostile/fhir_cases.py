"""FHIR resources of every mapped type that are valid JSON and strange FHIR: seeded, each for the oracle (``fhir_oracle``) and the reader."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

Resource = dict[str, Any]

REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_SYSTEMS = [
    "http://loinc.org", "http://snomed.info/sct", "urn:oid:2.16.840.1.113883.6.96", "2.16.840.1.113883.6.1", "https://loinc.org/", "LOINC", "", " ",
    "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "http://hl7.org/fhir/data-absent-reason", "http://hl7.org/fhir/sid/icd-10-cm", None, 5,
]  # fmt: skip
_CODES = [
    "2345-7", "44054006", "E11.9", "UNK", "msk", "MSK", "n/a", " ", "", "  x ", "null", "a\u0000b", "\u0001masked", "\U0001f600", "e\u0301", "\u00a0", None, 0, 7.5, True, "[{", '"', "\\N",
]  # fmt: skip
_WORDS = ["Diabetes", "see note", "", "  ", "\tx\n", "None", "\u2028", "\x7f", "n" * 3000, None, 12, False, "null", "nan,]", "Infinity"]
_REFERENCES = [
    "Patient/p1", "Patient/p2/_history/3", "https://x.org/fhir/Patient/p3", "https://x.org/fhir/Patient/p3/_history/1", "urn:uuid:p4", "urn:oid:1.2", "#p",
    "Group/g", "x/Device/d", "Patient/", "Patient?identifier=5", "p5", "", " ", "Patient/p1 ", "Encounter/e1", "Encounter/e2/_history/1", "Patient/a/b", "\u00e9", None, 5,
    "Patient/p1\u0000", "/", "//", "a/", "Organization/o1", "_history/", "x/_history/1/y", "UNK", "Patient/UNK", "Patient/Group/g",
]  # fmt: skip
_TIMES = [
    "2024-03-05", "2024-03", "2024", "2024-03-05T10:00:00+02:00", "2024-03-05 10:00:00", "2024-13-01", " ", "", 2024, None, "1700-01-01", "20240305", "UNK", "05/03/2024",
    "2024-03-05T10:00:00.123456Z", " 2024-03-05 ", "2024-3-5", "2024-02-30", "9999-12-31", "0000", "\u0662\u0660\u0662\u0664", ["2024"], {"a": 1}, "2024-03-05T",
]  # fmt: skip
_STATUS = ["final", "entered-in-error", "finished", "active", "FINAL", " final", "", None, "unknown", 5]
_NUMBERS = [
    0,
    -0.0,
    5,
    -1.5,
    5.4,
    1e22,
    1e-9,
    2**53 + 1,
    10**18,
    999,
    "7",
    "abc",
    None,
    True,
    [],
    [5],
    {},
    {"value": 5},
    0.1 + 0.2,
    5e-324,
    1.7976931348623157e308,
]
_UNITS = ["mg/dL", "mmol/L", "", " ", "UNK", "%", "\u00b5g", None, 5, "10*3/uL", "{score}"]


def _coding(rng: random.Random) -> Any:
    if rng.random() < 0.04:
        return rng.choice([None, "x", 5, [], {}])
    given = {
        "system": rng.choice(_SYSTEMS),
        "version": rng.choice(["2024", "", None]),
        "code": rng.choice(_CODES),
        "display": rng.choice(_WORDS),
    }
    return {name: value for name, value in given.items() if rng.random() < 0.8}


def concept(rng: random.Random) -> Any:
    """Return a CodeableConcept, or something that stands in its place."""
    if rng.random() < 0.08:
        return rng.choice(
            [None, "words", 5, [], {}, {"coding": {"code": "2345-7"}}, {"coding": []}, {"coding": "x"}, {"text": {}}, [{"text": "x"}], True]
        )
    found: Resource = {}
    if rng.random() < 0.8:
        found["coding"] = [_coding(rng) for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    if rng.random() < 0.5:
        found["text"] = rng.choice(_WORDS)
    if rng.random() < 0.1:
        found["extension"] = extensions(rng)
    return found


def extensions(rng: random.Random) -> Any:
    """Return extensions that may state why something is absent."""
    one = [
        {"url": REASON, "valueCode": rng.choice(["unknown", "masked", "MSK", "asked-unknown"])},
        {"url": REASON},
        {"url": "x", "valueCode": "masked"},
    ]
    return rng.choice([[], {}, None, "x", [None], one[:1], one[1:2], one[2:], [one[2], one[0]], [one[0], one[0]], ["x", one[0]]])


def _several(rng: random.Random, what: Any) -> Any:
    return (
        [what(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        if rng.random() < 0.93
        else rng.choice([None, {}, "x", {"coding": [{"code": "5"}]}])
    )


def _reference(rng: random.Random) -> Any:
    return (
        {"reference": rng.choice(_REFERENCES)}
        if rng.random() < 0.95
        else rng.choice([None, "Patient/p1", [], {}, [{"reference": "Patient/p1"}]])
    )


def _period(rng: random.Random) -> Any:
    return (
        {name: rng.choice(_TIMES) for name in ("start", "end") if rng.random() < 0.7}
        if rng.random() < 0.95
        else rng.choice([None, "2024", []])
    )


def value(rng: random.Random) -> Resource:
    """Return the properties of a value[x], also several or none."""
    found: Resource = {}
    for _ in range(rng.choice([0, 1, 1, 1, 1, 2])):
        match rng.randrange(9):
            case 0 | 1 | 2:
                given = {"value": rng.choice(_NUMBERS), "unit": rng.choice(_UNITS), "code": rng.choice(_UNITS), "comparator": rng.choice(["<", ">=", "", None, "x"]),
                         "system": rng.choice(["http://unitsofmeasure.org", "x", None])}  # fmt: skip
                found["valueQuantity"] = {name: x for name, x in given.items() if rng.random() < 0.7}
            case 3:
                found["valueString"] = rng.choice([*_WORDS, "5.4", "> 3 mg/dL", "<0.01", "1:80"])
            case 4:
                found["valueCodeableConcept"] = concept(rng)
            case 5:
                found["valueInteger"] = rng.choice(_NUMBERS)
            case 6:
                found[rng.choice(["valueBoolean", "valueDateTime", "valueTime"])] = rng.choice([True, False, "2024", "10:00:00", None])
            case 7:
                found[rng.choice(["valueRange", "valueRatio", "valueSampledData", "valuePeriod"])] = rng.choice(
                    [{}, {"low": {"value": 1}}, None, "x"]
                )
            case _:
                found["dataAbsentReason"] = rng.choice(
                    [{"coding": [{"code": rng.choice(["masked", "MSK", "unknown", "Error"])}]}, {"text": "lost"}, {"coding": []}, None, "x"]
                )
    if rng.random() < 0.2:
        found["referenceRange"] = rng.choice(
            [[{"low": {"value": rng.choice(_NUMBERS)}, "high": {"value": rng.choice(_NUMBERS)}}], [], {}, [None], [{"low": 5}]]
        )
    return found


_DATED: dict[str, dict[str, Any]] = {
    "Encounter": {"period": _period, "actualPeriod": _period, "type": lambda rng: _several(rng, concept), "serviceProvider": _reference},
    "Condition": {"onsetDateTime": _TIMES, "onsetPeriod": _period, "recordedDate": _TIMES, "assertedDate": _TIMES, "abatementDateTime": _TIMES, "abatementPeriod": _period,
                  "code": concept, "category": lambda rng: _several(rng, concept), "clinicalStatus": concept,
                  "verificationStatus": lambda rng: rng.choice([concept(rng), {"coding": [{"code": "refuted"}]}, {"coding": [{"code": "confirmed"}]}, "refuted"])},
    "Observation": {"effectiveDateTime": _TIMES, "effectivePeriod": _period, "effectiveInstant": _TIMES, "code": concept, "category": lambda rng: _several(rng, concept),
                    "interpretation": lambda rng: _several(rng, concept)},
    "MedicationRequest": {"authoredOn": _TIMES, "medicationCodeableConcept": concept},
    "MedicationStatement": {"effectiveDateTime": _TIMES, "effectivePeriod": _period, "dateAsserted": _TIMES, "medicationReference": _reference},
    "MedicationAdministration": {"effectivePeriod": _period, "medicationCodeableConcept": concept},
    "MedicationDispense": {"whenHandedOver": _TIMES, "whenPrepared": _TIMES, "medicationCodeableConcept": concept},
    "Procedure": {"performedDateTime": _TIMES, "performedPeriod": _period, "occurrenceDateTime": _TIMES, "code": concept},
    "Immunization": {"occurrenceDateTime": _TIMES, "date": _TIMES, "vaccineCode": concept},
    "AllergyIntolerance": {"onsetDateTime": _TIMES, "recordedDate": _TIMES, "code": concept, "verificationStatus": concept},
    "DiagnosticReport": {"effectiveDateTime": _TIMES, "issued": _TIMES, "code": concept, "category": lambda rng: _several(rng, concept)},
    "DocumentReference": {"date": _TIMES, "created": _TIMES, "type": concept},
}  # fmt: skip


def resource(rng: random.Random, number: int) -> Resource:  # noqa: C901 # one case per type
    """Return a resource of a random type; ``number`` makes its id, one in ten has none or another one's."""
    kind = rng.choice([*_DATED, "Observation", "Observation", "Patient", "Medication", "Appointment", "NotFHIR"])
    found: Resource = {"resourceType": kind, "id": f"r{number}"}
    if rng.random() < 0.1:
        found["id"] = rng.choice([None, "", 5, "r1", "p1", "p2", "UNK", " x", "\u00e9"])
    for name, made in _DATED.get(kind, {}).items():
        if rng.random() < 0.6:
            found[name] = made(rng) if callable(made) else rng.choice(made)
            if isinstance(made, list) and rng.random() < 0.15:
                found[f"_{name}"] = rng.choice([{"extension": extensions(rng)}, None, [], "x"])
    if kind in _DATED:
        for name, chance in {"subject": 0.8, "patient": 0.1, "encounter": 0.4, "context": 0.1}.items():
            if rng.random() < chance:
                found[name] = _reference(rng)
        if rng.random() < 0.7:
            found["status"] = rng.choice(_STATUS)
    if kind == "Encounter" and rng.random() < 0.7:
        found["class"] = _coding(rng)
    if kind == "Observation":
        found |= value(rng)
        if rng.random() < 0.3:
            found["component"] = _several(
                rng, lambda rng: {"code": concept(rng), **value(rng)} if rng.random() < 0.9 else rng.choice([None, {}, "x", []])
            )
        if rng.random() < 0.1:
            found["hasMember"] = rng.choice([[], [{"reference": "Observation/1"}], None, {}, "x", [None]])
    if kind == "Patient":
        found |= {name: rng.choice(_TIMES) for name in ("birthDate", "deceasedDateTime") if rng.random() < 0.6}
        found |= {
            "gender": rng.choice(["female", "UNK", "", None, "F", 1]),
            "_birthDate": {"extension": extensions(rng)},
            "deceasedBoolean": rng.choice([True, False, None, "true"]),
        }
        found["communication"] = _several(rng, lambda rng: {"language": concept(rng)})
        found["extension"] = rng.choice([None, [], [_race(rng)], [_race(rng), _race(rng)], {"url": "x"}, ["x", _race(rng)]])
    if kind == "DocumentReference" and rng.random() < 0.5:
        found["context"] = {"encounter": [_reference(rng)], "period": _period(rng)}
    if kind == "MedicationStatement" and rng.random() < 0.3:
        found |= {
            "medicationReference": {"reference": rng.choice(["#a", "#b", "#"])},
            "contained": [{"id": "a", "code": concept(rng)}, {"id": "a", "code": concept(rng)}],
        }
    if kind == "Medication":
        found["code"] = concept(rng)
    if rng.random() < 0.02:
        found["meta"] = {
            "security": rng.choice([[{"code": "HTEST"}], [{"code": "R"}], {"code": "HTEST"}, "HTEST", [None, {"code": "HTEST"}]])
        }
    items = list(found.items())
    if rng.random() < 0.2:
        rng.shuffle(items)
    return dict(items)


def _race(rng: random.Random) -> Any:
    parts = [
        {"url": "ombCategory", "valueCoding": _coding(rng)},
        {"url": "text", "valueString": rng.choice(_WORDS)},
        {"url": "detailed", "valueCoding": _coding(rng)},
        "x",
        None,
    ]
    return {
        "url": US_CORE + rng.choice(["race", "ethnicity", "sex"]),
        "extension": rng.choice([rng.sample(parts, rng.randrange(5)), None, {}, "x"]),
    }


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places in a JSON value, but for itself."""
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*before, step)
        yield from paths(inner, (*before, step))


def changed(found: Resource, rng: random.Random) -> Resource:
    """Return a resource with the value at one place replaced by another JSON value."""
    anything: list[Any] = [
        None, True, False, 0, -1, 5.5, 12345.25, "", "x", "HTEST", "refuted", [], {}, [None], [[]], [{}], {"a": 1}, [1, "x"], {"coding": "x"}, {"coding": [None]},
        {"coding": [[1]]}, [{"coding": [{"code": 5}]}], "\u0000", "\u0001masked", "null", {"reference": 5}, {"extension": [5]}, ["HTEST"], "[", '"', [[["refuted"]]],
    ]  # fmt: skip
    whole = copy.deepcopy(found)
    places = [path for path in paths(whole) if path != ("resourceType",)]
    if not places:
        return whole
    *steps, last = rng.choice(places)
    inner: Any = whole
    for step in steps:
        inner = inner[step]
    inner[last] = copy.deepcopy(rng.choice(anything))
    return whole


def resources(seed: int, count: int) -> list[Resource]:
    """Return resources, one in five of them changed at a random place."""
    rng = random.Random(seed)
    found = [resource(rng, number) for number in range(count)]
    return [changed(one, rng) if rng.random() < 0.2 else one for one in found]
