"""HL7 v2.7 batch files of a population: ADT, ORU, RDE, VXU and MDM, one batch per site in each file.

Every clinical record stands once, in its natural segment: conditions in DG1, procedures in PR1 and allergies
in AL1 of the visit's closing ADT; vital signs and questions in its OBX; laboratory reports in the OBR and OBX
of one ORU per visit; medications in RXE, immunizations in RXA, documents in TXA.  MDM^T01 (no content) is
used rather than T02, whose OBX would be one more observation.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from . import codes, fhir
from .model import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .model import Coding, Concept, Encounter, Observation, Patient, Population, Report

E = TypeVar("E", bound=Event)

COMPRESSED = frozenset({"adt", "oru", "rde"})
_STRUCTURES = {
    "A01": "ADT^A01^ADT_A01",
    "A03": "ADT^A03^ADT_A03",
    "A08": "ADT^A08^ADT_A01",
    "R01": "ORU^R01^ORU_R01",
    "O11": "RDE^O11^RDE_O11",
    "V04": "VXU^V04^VXU_V04",
    "T01": "MDM^T01^MDM_T01",
}
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\"}


def _esc(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def _when(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S") + "-0500"


def _segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(i, "") for i in range(1, max(fields) + 1))])


def _parts(components: Iterable[str]) -> str:
    return "^".join(components).rstrip("^")


def _version(system: str | None, release: str) -> str:
    if system == "icd10cm":
        return release
    return codes.RELEASES[system][1] if system in codes.RELEASES else ""


def _coding(coding: Coding) -> list[str]:
    system = codes.SYSTEMS[coding.system][1] if coding.system else ""
    return [_esc(coding.code), _esc(coding.display), system]


def cwe(concept: Concept, release: str) -> str:
    """Return a concept as CWE: codings in components 1-3 and 4-6, their versions in 7 and 8."""
    if not concept.codings:
        return _parts(["", _esc(concept.text)])
    first = concept.codings[0]
    parts, versions = _coding(first), [_version(first.system, release)]
    for second in concept.codings[1:2]:
        parts += _coding(second)
        versions.append(_version(second.system, release))
    return _parts([*parts, *[""] * (6 - len(parts)), *versions])


class _Writer:
    """Collects messages by file and site, in the order of events."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))

    def add(self, file: str, event: str, key: str, at: datetime, encounter: Encounter, body: list[str]) -> None:
        """Add a message; ``key`` becomes its control id and the tie-breaker of its place."""
        site = encounter.patient.site
        header = _segment(
            "MSH",
            {
                1: "^~\\&", 2: "EHR", 3: site, 4: "EHRREADY", 5: "QA", 6: _when(at), 8: _STRUCTURES[event],
                9: key, 10: "P", 11: "2.7", 17: "UNICODE UTF-8",
            },
        )  # fmt: skip
        segments = [header]
        if file in {"adt", "mdm"}:
            segments.append(_segment("EVN", {2: _when(at)}))
        segments.append(_pid(encounter.patient))
        segments.append(_pv1(encounter, closed=event != "A01"))
        text = "".join(segment + "\r" for segment in [*segments, *body])
        self.messages[file][site].append((_when(at) + key, text))

    def files(self) -> dict[str, bytes]:
        """Return file name to content: FHS, one BHS ... BTS batch per site, FTS; lines end with CR."""
        out = {}
        for file in sorted(self.messages):
            batches = self.messages[file]
            lines = [f"FHS|^~\\&|EHR||EHRREADY|QA|||{file}.hl7"]
            for site in sorted(batches):
                lines.append(f"BHS|^~\\&|EHR|{site}|EHRREADY|QA")
                text = "".join(message for _, message in sorted(batches[site]))
                lines.append(text.removesuffix("\r"))
                lines.append(f"BTS|{len(batches[site])}")
            lines.append(f"FTS|{len(batches)}")
            name = f"{file}.hl7.gz" if file in COMPRESSED else f"{file}.hl7"
            out[name] = "".join(line + "\r" for line in lines).encode()
        return out


def _pid(patient: Patient) -> str:
    race = next(row for row in codes.RACES if row[0] == patient.race)
    ethnicity = next(row for row in codes.ETHNICITIES if row[0] == patient.ethnicity)
    language = next(row for row in codes.LANGUAGES if row[0] == patient.language)
    fields = {
        1: "1",
        3: _parts([patient.mrn, "", "", patient.site, "MR"]),
        5: _parts([patient.family, patient.given]),
        7: patient.birth.strftime("%Y%m%d") if patient.birth else "",
        8: {"female": "F", "male": "M"}.get(patient.sex, patient.sex),
        10: _parts([race[0], race[1], "CDCREC"]),
        15: _parts([language[0], language[1], "ISO6391"]),
        22: _parts([ethnicity[0], ethnicity[1], "CDCREC"]),
    }
    if patient.death:
        fields |= {29: _when(patient.death), 30: "Y"}
    return _segment("PID", fields)


def _pv1(encounter: Encounter, *, closed: bool) -> str:
    kind = encounter.words or codes.CLASSES[encounter.kind][0]
    fields = {1: "1", 2: kind, 19: str(encounter.number), 44: _when(encounter.start)}
    if closed:
        fields[45] = _when(encounter.end)
    return _segment("PV1", fields)


def _obx(index: int, event: Observation, release: str) -> str:
    a = event.analyte
    kind = "NM" if a.unit else "ST" if a.code == "67875-5" else "CWE"
    value = unit = ""
    if event.number_value is not None:
        value = str(event.number_value)
        unit = f"{a.unit}^^UCUM" if event.unit == a.unit else event.unit or ""
    elif event.answer:
        system = event.answer.system
        name = codes.SYSTEMS[system][1]
        value = _parts([event.answer.code, _esc(event.answer.name), name, "", "", "", codes.RELEASES[system][1]])
    elif event.text_value is not None:
        value = _esc(event.text_value)
    flag = fhir.interpretation(event)
    span = ""
    if flag:
        low, high = ("" if bound is None else str(bound) for bound in (a.low, a.high))
        span = f"{low}-{high}" if low and high else f"<{high}" if high else f">{low}"
    fields = {
        1: str(index),
        2: kind,
        3: cwe(event.concept, release),
        5: value,
        6: unit,
        7: span,
        8: flag,
        11: "F",
    }
    return _segment("OBX", fields | {14: _when(event.at) if event.at else ""})


def _adt_body(
    allergies: Sequence[Event],
    conditions: Sequence[Event],
    procedures: Sequence[Event],
    results: Sequence[Observation],
    release: str,
) -> list[str]:
    body = []
    kinds = {item.code: item.kind for item in codes.ALLERGIES}
    for i, event in enumerate(allergies, 1):
        kind = kinds[event.concept.codings[0].code]
        fields = {1: str(i), 2: f"{kind}^^HL70127", 3: cwe(event.concept, release)}
        body.append(_segment("AL1", fields | {6: event.at.strftime("%Y%m%d") if event.at else ""}))
    for i, event in enumerate(conditions, 1):
        fields = {1: str(i), 3: cwe(event.concept, release), 5: _when(event.at) if event.at else "", 6: "F"}
        body.append(_segment("DG1", fields))
    for i, event in enumerate(procedures, 1):
        fields = {1: str(i), 3: cwe(event.concept, release), 5: _when(event.at) if event.at else ""}
        body.append(_segment("PR1", fields))
    body.extend(_obx(i, event, release) for i, event in enumerate(results, 1))
    return body


def _oru_body(reports: Sequence[Report], release: str) -> list[str]:
    body = []
    for i, report in enumerate(reports, 1):
        at = _when(report.at) if report.at else ""
        fields = {1: str(i), 3: str(report.number), 4: cwe(report.concept, release), 7: at, 25: "F"}
        body.append(_segment("OBR", fields | {22: _when(report.encounter.moment(0.8))}))
        body.extend(_obx(n, event, release) for n, event in enumerate(report.results, 1))
    return body


def _rde_body(events: Sequence[Event], release: str) -> list[str]:
    body = []
    for event in events:
        at = _when(event.at) if event.at else ""
        status = {"active": "IP", "completed": "CM"}.get(event.status, event.status)
        body.append(_segment("ORC", {1: "NW", 2: str(event.number), 5: status, 9: at}))
        body.append(_segment("RXE", {2: cwe(event.concept, release), 3: "1", 5: "{tbl}^^UCUM", 32: at}))
        body.append(_segment("RXR", {1: "PO^Oral^HL70162"}))
    return body


def _vxu_body(events: Sequence[Event], release: str) -> list[str]:
    body = []
    for event in events:
        at = _when(event.at) if event.at else ""
        body.append(_segment("ORC", {1: "RE", 3: str(event.number), 9: at}))
        code = cwe(event.concept, release)
        body.append(_segment("RXA", {1: "0", 2: "1", 3: at, 4: at, 5: code, 6: "0.5", 7: "mL^^UCUM", 20: "CP"}))
        body.append(_segment("RXR", {1: "IM^Intramuscular^HL70162"}))
    return body


def _group(events: Iterable[E]) -> dict[str, list[E]]:
    grouped: dict[str, list[E]] = defaultdict(list)
    for event in events:
        grouped[event.encounter.id].append(event)
    return grouped


def files(pop: Population) -> dict[str, bytes]:
    """Return file name to content; a name ending in ``.gz`` asks the writer to compress it."""
    r = pop.release
    writer = _Writer()
    reported = {result.id for report in pop.reports for result in report.results}
    bedside = _group(result for result in pop.observations if result.id not in reported)
    allergies, conditions, procedures = _group(pop.allergies), _group(pop.conditions), _group(pop.procedures)
    reports, medications = _group(pop.reports), _group(pop.medications)
    immunizations, documents = _group(pop.immunizations), _group(pop.documents)
    for encounter in pop.encounters:
        key, own = str(encounter.number), encounter.id
        if encounter.kind == "IMP":
            writer.add("adt", "A01", f"{key}-A01", encounter.start, encounter, [])
        close = "A03" if encounter.kind == "IMP" else "A08"
        body = _adt_body(allergies[own], conditions[own], procedures[own], bedside[own], r)
        writer.add("adt", close, f"{key}-{close}", encounter.end, encounter, body)
        for file, event, share, body in (
            ("oru", "R01", 0.8, _oru_body(reports[own], r)),
            ("rde", "O11", 0.75, _rde_body(medications[own], r)),
            ("vxu", "V04", 0.85, _vxu_body(immunizations[own], r)),
        ):
            if body:
                writer.add(file, event, f"{key}-{event}", encounter.moment(share), encounter, body)
        for document in documents[own]:
            at = document.at or encounter.end
            number = str(document.number)
            txa = {1: "1", 2: cwe(document.concept, r), 3: "TX", 4: _when(at), 12: number, 17: "AU"}
            writer.add("mdm", "T01", f"{number}-T01", at, encounter, [_segment("TXA", txa)])
    return writer.files()
