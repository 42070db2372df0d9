"""A model on the synthetic population: contract, two vendors' statements, its predictions in validation and in three months.

The patients are those of the other folders; the model is made up, and so is what happened to them.  What is planted stands in
``production/MANIFEST.yaml`` with its counts: accuracy that is lost in the third month, outputs that cannot be, citations that the record
does not hold.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import random
from typing import TYPE_CHECKING, Any

import yaml

from . import codes

if TYPE_CHECKING:
    from pathlib import Path

    from .model import Population

SEED = 404
VALIDATION, LIVE = ("2024-09", "2024-10", "2024-11"), ("2026-03", "2026-04", "2026-05")
#: How many of what is planted; the third month's scores are told by ``drift``: the share that has nothing to do with the outcome.
PLANTED = {"above-range": 15, "missing": 12, "duplicate": 14, "drift": 0.9, "ungrounded-code": 24, "ungrounded-value": 21, "ungrounded-medication": 18,
           "ungrounded-date": 16}  # fmt: skip

CONTRACT = """\
# Model contract of the sample data: a made-up model, so that every command has something to work on.
contract: "1.0"
model: {name: sample-readmission, version: 1.0.0}
cohort: {description: adults after a stay, min_age: 18, having: [encounter]}
features:
  - {name: systolic-pressure, table: observation, codes: {LOINC: ["8480-6"]}, units: ["mm[Hg]"], required: 0.5}
  - {name: any-diagnosis, table: condition, codes: {ICD-10-CM: ["*"]}, required: 0.5}
outputs:
  - name: readmission
    kind: score
    range: [0, 1]
    threshold: 0.4
    columns: {label: readmitted}
    write_back: {resource: RiskAssessment, interactions: [create]}
  - {name: summary, kind: text}
label: {name: readmitted, delay_days: 30, positive: 1}
deployment:
  fhir_version: 4.0.1
  bulk_export: true
  smart: backend
  scopes: [system/Observation.rs, system/Condition.rs]
  profiles: ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"]
subgroups: [sex, age]
owners:
  - {name: engineering, webhook: EHRREADY_WEBHOOK_ENGINEERING}
  - {name: clinical-informatics, webhook: EHRREADY_WEBHOOK_INFORMATICS, style: teams}
"""


def _predictions(pop: Population, rng: random.Random, months: tuple[str, ...], drift: float = 0.0) -> list[dict[str, Any]]:
    """Return a prediction per patient and month of a calibrated model; in the last month a share of them is noise."""
    rows = []
    for month in months:
        for patient in pop.patients:
            z = rng.gauss(-1.2, 1.4)
            happened = int(rng.random() < 1 / (1 + math.exp(-z)))
            if month == months[-1] and rng.random() < drift:
                z = rng.gauss(-0.6, 1.4)
            time = f"{month}-{rng.randint(1, 28):02d}T{rng.randint(6, 20):02d}:{rng.randint(0, 59):02d}:00"
            rows.append({"patient_id": patient.id, "time": time, "readmission": round(1 / (1 + math.exp(-z)), 4), "readmitted": happened,
                         "sex": patient.sex, "age": int(month[:4]) - patient.birth.year if patient.birth else ""})  # fmt: skip
    return rows


def _spoil(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    second = [row for row in rows if row["time"].startswith(LIVE[1])]
    hit = rng.sample(second, PLANTED["above-range"] + PLANTED["missing"] + PLANTED["duplicate"])
    for row in hit[: PLANTED["above-range"]]:
        row["readmission"] = round(1 + rng.random() * 20, 4)
    for row in hit[PLANTED["above-range"] : PLANTED["above-range"] + PLANTED["missing"]]:
        row["readmission"] = ""
    return rows + [dict(row) for row in hit[PLANTED["above-range"] + PLANTED["missing"] :]]


def _notes(pop: Population, rng: random.Random) -> list[dict[str, Any]]:
    """Return a generated summary per patient with what it cites: facts of the record, and the planted ones that are not."""
    known = {system: uri[0] for system, uri in codes.SYSTEMS.items()}
    intact = {dx.icd10cm for dx in codes.CONDITIONS}  # what is spoilt otherwise may be written in another way
    facts: dict[str, list[dict[str, Any]]] = {patient.id: [] for patient in pop.patients}
    for kind, events in (("code", pop.conditions), ("medication", pop.medications), ("value", pop.observations)):
        for event in events:
            coding = next((c for c in event.concept.codings if c.system in {"icd10cm", "rxnorm", "loinc"}), None)
            number = getattr(event, "number_value", None)
            if kind == "code" and (coding is None or coding.system != "icd10cm" or coding.code not in intact):
                continue
            if (
                coding is None
                or event.at is None
                or event.concept.text != coding.display
                or (kind == "value" and (number is None or number > 9000))
            ):
                continue
            fact = {"kind": kind, "system": known[str(coding.system)], "code": coding.code}
            facts[event.patient.id].append({**fact, "value": number} if kind == "value" else fact)
            if kind == "value" and len(facts[event.patient.id]) % 5 == 0:
                facts[event.patient.id].append({"kind": "date", "date": event.at.date().isoformat()})
    rows = []
    for patient in pop.patients:
        cited = rng.sample(facts[patient.id], min(3, len(facts[patient.id])))
        time = f"{rng.choice(LIVE)}-{rng.randint(1, 28):02d}T12:00:00"
        rows.append({"patient_id": patient.id, "time": time, "summary": "Summary for the next visit.", "citations": cited})
    made = {
        "ungrounded-code": {"kind": "code", "system": known["icd10cm"], "code": "C91.00"},
        "ungrounded-value": {"kind": "value", "system": known["loinc"], "code": "8480-6", "value": 401.5},
        "ungrounded-medication": {"kind": "medication", "system": known["rxnorm"], "code": "6960"},
        "ungrounded-date": {"kind": "date", "date": "1999-12-31"},
    }
    for defect, claim in made.items():
        for row in rng.sample(rows, int(PLANTED[defect])):
            row["citations"] = [*row["citations"], claim]
    return [{**row, "citations": json.dumps(row["citations"])} for row in rows]


def _statement(resources: dict[str, tuple[str, ...]], *, software: str, export: bool, write: bool) -> dict[str, Any]:
    read = [{"code": "read"}, {"code": "search-type"}]
    listed = [
        {"type": name, "interaction": read, "searchParam": [{"name": p, "type": "date" if p == "date" else "token"} for p in parameters],
         **({"supportedProfile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient|6.1.0"]} if name == "Patient" and write else {})}
        for name, parameters in resources.items()
    ]  # fmt: skip
    if write:
        listed.append(
            {
                "type": "RiskAssessment",
                "interaction": [*read, {"code": "create"}],
                "searchParam": [{"name": "patient", "type": "reference"}],
            }
        )
    rest: dict[str, Any] = {"mode": "server", "security": {"service": [{"coding": [{"code": "SMART-on-FHIR"}]}]}, "resource": listed}
    if export:
        rest["operation"] = [{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}]
    return {"resourceType": "CapabilityStatement", "status": "active", "date": "2026-01-01", "kind": "instance", "software": {"name": software},
            "fhirVersion": "4.0.1", "format": ["application/fhir+json"], "rest": [rest]}  # fmt: skip


def files(training: Population, live: Population) -> dict[str, bytes]:
    """Return file name to content."""
    rng = random.Random(SEED)
    every = {
        "Patient": ("_id", "name"),
        "Encounter": ("patient", "date"),
        "Condition": ("patient", "code"),
        "Observation": ("patient", "code", "date"),
    }
    few = {"Patient": ("_id",), "Condition": ("patient",), "Observation": ("patient", "category")}
    backend = {
        "token_endpoint": "https://vendor-a.example/oauth2/token", "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"], "scopes_supported": ["system/*.rs"],
        "capabilities": ["client-confidential-asymmetric", "permission-v2"],
    }  # fmt: skip
    launch = {  # a clinician signs in: nothing for a model that runs by itself
        "authorization_endpoint": "https://vendor-b.example/oauth2/authorize", "token_endpoint": "https://vendor-b.example/oauth2/token",
        "grant_types_supported": ["authorization_code"], "scopes_supported": ["launch", "patient/*.rs", "user/*.rs"],
        "capabilities": ["launch-ehr", "client-public", "permission-v2"],
    }  # fmt: skip
    validation, predictions = _predictions(training, rng, VALIDATION), _spoil(_predictions(live, rng, LIVE, PLANTED["drift"]), rng)
    return {
        "contract.yaml": CONTRACT.encode(),
        "vendor-a-metadata.json": _json(_statement(every, software="Synthetic EHR A", export=True, write=True)),
        "vendor-a-smart.json": _json(backend),
        "vendor-b-metadata.json": _json(_statement(few, software="Synthetic EHR B", export=False, write=False)),
        "vendor-b-smart.json": _json(launch),
        "validation.csv.gz": _csv(validation),
        "predictions.csv.gz": _csv(predictions),
        "notes.csv.gz": _csv(_notes(live, rng)),
    }


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)


def write(folder: Path, training: Population, live: Population) -> None:
    """Write the folder and its manifest; nothing else there is touched."""
    folder.mkdir(parents=True, exist_ok=True)
    made = files(training, live)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    manifest = {
        "manifest_version": 1,
        "synthetic": "made by scripts/make_sample_data.py; no patient, model or vendor is real",
        "seed": SEED,
        "months": {"validation": list(VALIDATION), "live": list(LIVE)},
        "planted": {**PLANTED, "month of the impossible outputs": LIVE[1], "month of the drift": LIVE[2]},
        "files": [{"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in made.items()],
    }
    (folder / "MANIFEST.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False, width=110), encoding="utf-8")
