"""Exports full of canary tokens, and a detector that finds one however it is written."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

#: A letter run that no program, library or report has by chance.
MARK = "Zqxjvkw"


class Mint:
    """Makes tokens, each with a number, so that a hit says which place leaked."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def __call__(self, place: str) -> str:
        self.places.append(place)
        return f"{MARK}{len(self.places):04d}q"


def forms(token: str = MARK) -> dict[str, bytes]:
    """Return the ways in which a token could leave; base64 at its three alignments without the shared borders."""
    raw = token.encode()
    found = {
        "plain": raw,
        "upper": token.upper().encode(),
        "lower": token.lower().encode(),
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "hex-upper": raw.hex().upper().encode(),
        "url": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "html": "".join(f"&#{byte};" for byte in raw).encode(),
        "utf-16": token.encode("utf-16-le"),
        "escaped": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "quoted": quote(token).encode(),
    }
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        start, end = (0, 2, 3)[shift], len(text) - 1
        found[f"base64-{shift}"] = text[start:end].encode()
    return found


def hits(data: bytes) -> list[str]:
    """Return the forms in which a canary stands in some output, with the token's number where it is legible."""
    found = [name for name, form in forms().items() if form in data]
    return found + [match.decode() for match in re.findall(rf"(?i){MARK}\d+q".encode(), data)[:5]]


def _minted(mint: Mint, source: str, number: int) -> Callable[[str], str]:
    """Return what makes the tokens of a record: numbered ones for the first three, one for all others."""
    return (lambda place: mint(f"{source} {place}")) if number < 3 else (lambda place: f"{MARK}0000q")


def fhir(folder: Path, mint: Mint, patients: int = 40) -> Path:
    """Write FHIR NDJSON with a canary in every place that a patient or a site fills, malformed records included."""
    folder.mkdir(parents=True)
    rows: dict[str, list[str]] = {}
    for i in range(patients):
        c = _minted(mint, "fhir", i)
        pid = c("Patient.id")
        common: dict[str, object] = {
            "meta": {"source": c("meta.source"), "tag": [{"system": c("tag.system"), "code": c("tag")}], "profile": [c("profile")]},
            "text": {"status": "generated", "div": f"<div>{c('narrative')}</div>"},
            "identifier": [{"system": f"urn:{c('identifier.system')}", "value": c("identifier")}],
            "extension": [{"url": f"http://{c('extension.url')}", "valueString": c("extension")}],
            c("property"): c("property.value"),
            "language": c("language"),
        }
        patient = common | {
            "resourceType": "Patient", "id": pid, "name": [{"family": c("family"), "given": [c("given")], "text": c("name")}],
            "address": [{"line": [c("line")], "city": c("city"), "postalCode": c("zip"), "district": c("district"), "state": c("state")}],
            "telecom": [{"system": "phone", "value": c("phone")}, {"system": "email", "value": f"{c('email')}@x"}],
            "birthDate": c("birthDate") if i == 1 else "1980-01-01", "gender": c("gender") if i == 2 else "female",
            "photo": [{"data": base64.b64encode(c("photo").encode()).decode()}], "contact": [{"name": {"text": c("contact")}}],
            "managingOrganization": {"reference": f"Organization/{c('org')}", "display": c("org.display")},
        }  # fmt: skip
        code = {"coding": [{"system": f"http://{c('local.system')}", "version": c("version"), "code": c("local.code"), "display": c("display")},
                           {"system": "http://loinc.org", "version": c("loinc.version"), "code": c("loinc.code"), "display": c("loinc.display")},
                           {"system": "http://snomed.info/sct", "code": "44054006", "display": c("sct.display")}],
                "text": c("code.text")}  # fmt: skip
        subject = {"reference": f"Patient/{pid}", "display": c("subject"), "identifier": {"value": c("logical")}}
        encounter = {"reference": f"Encounter/{c('encounter')}"}
        rows.setdefault("Patient", []).append(json.dumps(patient))
        clinical: dict[str, dict[str, object]] = {
            "Observation": {"status": c("status") if i == 1 else "final", "valueString": c("value"), "note": [{"text": c("note")}],
                            "effectiveDateTime": c("when") if i == 2 else "2024-03-05T10:00:00Z", "performer": [{"display": c("performer")}],
                            "device": {"display": c("device")}, "valueQuantity": {"value": 5.5, "unit": c("unit"), "code": c("unit.code")},
                            "interpretation": [{"text": c("interpretation")}], "referenceRange": [{"text": c("range")}]},
            "Condition": {"onsetDateTime": "2024-03-05", "recorder": {"display": c("recorder")}, "note": [{"text": c("condition.note")}]},
            "DiagnosticReport": {"status": "final", "conclusion": c("conclusion"), "presentedForm": [{"title": c("form.title")}]},
            "MedicationRequest": {"status": "active", "medicationCodeableConcept": code, "dosageInstruction": [{"text": c("dosage")}]},
        }  # fmt: skip
        for kind, more in clinical.items():
            record = common | {"resourceType": kind, "id": c(f"{kind}.id"), "code": code, "subject": subject, "encounter": encounter} | more
            rows.setdefault(kind, []).append(json.dumps(record))
        rows.setdefault("Mystery", []).append(json.dumps({"resourceType": c("resourceType"), "id": c("mystery.id")}))
    whole = rows["Observation"][0]
    bad = [whole[: len(whole) // 2], whole.replace('"status"', f"{mint('bad json')} status"), whole + mint("after"), f'"{mint("text")}"',
           f"[{mint('list')}]", whole.replace(":", ",", 1), json.dumps({"id": mint("no type")}), "[" * 2000 + mint("deep") + "]" * 2000]  # fmt: skip
    for kind, lines in rows.items():
        body = "\n".join([*lines, *(bad if kind == "Observation" else [])])
        (folder / f"{kind}.{mint('file name')}.ndjson").write_bytes(body.encode() + (b"\n\xff\xfe" + mint("bytes").encode() + b"\n"))
    (folder / f"cut.{mint('cut file')}.ndjson").write_text(whole[:100])
    return folder


def hl7v2(folder: Path, mint: Mint, messages: int = 40) -> Path:
    """Write HL7v2 messages with a canary in every field that a patient or a site fills."""
    folder.mkdir(parents=True)
    found = []
    for i in range(messages):
        c = _minted(mint, "hl7v2", i)
        fields = {
            name: "|".join(c(f"{name}-{n}") for n in range(1, count)) for name, count in {"NK1": 30, "IN1": 40, "GT1": 20, "ZQX": 9}.items()
        }
        found.append("\r".join([
            f"MSH|^~\\&|{c('MSH-3')}|{c('MSH-4')}|{c('MSH-5')}|{c('MSH-6')}|20240305||ORU^R01|{c('MSH-10')}|P|2.5|{c('MSH-13')}",
            f"PID|1|{c('PID-2')}|{c('PID-3')}^^^{c('PID-3.4')}|{c('PID-4')}|{c('PID-5')}^{c('PID-5.2')}|{c('PID-6')}|"
            f"{c('PID-7') if i == 1 else '19800101'}|{c('PID-8') if i == 2 else 'F'}|{c('PID-9')}|{c('PID-10')}|{c('PID-11')}^^{c('city')}|{c('PID-12')}"
            f"|{c('PID-13')}|{c('PID-14')}|{c('PID-15')}|{c('PID-16')}|{c('PID-17')}|{c('PID-18')}|{c('PID-19')}|{c('PID-20')}",
            f"PV1|1|{c('PV1-2')}|{c('PV1-3')}||||{c('PV1-7')}||||||||||||{c('PV1-19')}",
            f"DG1|1|{c('DG1-2')}|{c('DG1-3')}^{c('DG1-3.2')}^{c('DG1-3.3')}|{c('DG1-4')}|20240305",
            f"OBR|1|{c('OBR-2')}|{c('OBR-3')}|{c('OBR-4')}^{c('OBR-4.2')}^{c('OBR-4.3')}|||{c('OBR-7') if i == 1 else '20240305'}",
            f"OBX|1|ST|{c('OBX-3')}^{c('OBX-3.2')}^L^2345-7^{c('OBX-3.5')}^LN^{c('OBX-3.7')}^{c('OBX-3.8')}||{c('OBX-5')}|{c('OBX-6')}|{c('OBX-7')}|{c('OBX-8')}|||F",
            f"OBX|2|NM|2345-7^{c('name')}^LN|{c('OBX-4')}|5.4|{c('unit')}|||||F||||{c('OBX-15')}|{c('OBX-16')}",
            f"NTE|1|{c('NTE-2')}|{c('NTE-3')}", f"AL1|1||{c('AL1-3')}^{c('AL1-3.2')}|{c('AL1-4')}|{c('AL1-5')}",
            *(f"{name}|{value}" for name, value in fields.items()),
        ]))  # fmt: skip
    bad = ["MSH|||" + mint("bad header"), mint("junk"), f"MSHabc|{mint('glued')}"]
    body = "\r".join([bad[1], *found, *bad]) + "\r"
    (folder / f"{mint('hl7 file')}.hl7").write_bytes(body.encode() + b"OBX|1|ST|\xff" + mint("bytes").encode())
    return folder


def tables(folder: Path, mint: Mint, rows: int = 40) -> Path:
    """Write OMOP and unmapped tables with a canary in every text column, column name and file name."""
    folder.mkdir(parents=True)

    def t(place: str) -> list[str]:
        return [mint(f"omop {place}")] * rows

    ids = list(range(rows))
    person = {"person_id": ids, "gender_concept_id": [8507] * rows, "year_of_birth": [1980] * rows, "person_source_value": t("person"),
              "gender_source_value": t("gender"), "race_source_value": t("race"), mint("column name"): t("unmapped")}  # fmt: skip
    condition = {"condition_occurrence_id": ids, "person_id": ids, "condition_concept_id": [0] * rows, "condition_start_date": ["2024-03-05"] * rows,
                 "condition_source_value": t("condition"), "condition_status_source_value": t("status"), "stop_reason": t("stop")}  # fmt: skip
    note = {"note_id": ids, "person_id": ids, "note_date": ["2024-03-05"] * rows, "note_title": t("title"), "note_text": t("note")}
    concept = {"concept_id": [1, 2], "concept_name": [mint("concept"), "x"], "vocabulary_id": [mint("vocabulary"), "LOINC"],
               "concept_code": [mint("concept code"), mint("loinc code")]}  # fmt: skip
    for name, columns in {
        "person": person,
        "condition_occurrence": condition,
        "note": note,
        "concept": concept,
        mint("table"): {mint("only"): t("x")},
    }.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / f"{mint('csv file')}.csv").write_text(f'{mint("header")},b\n{mint("cell")},1\n{mint("bad")},1,2,3\n"{mint("open")}\n')
    (folder / "drug_exposure.parquet").write_bytes(b"PAR1" + mint("broken").encode() + b"PAR1")
    return folder


EXPORTS = {"fhir": fhir, "hl7v2": hl7v2, "omop": tables}
