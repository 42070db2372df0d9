# ruff: noqa: ARG001 - one signature for all classes
"""Planted faults of a model in production: what ``ehrready monitor`` finds, how exactly it counts, and what it finds in nothing.

    python -m benchmarks.planted.production [--patients 400] [--share 0.05] [--clean 10]

A class is one function: it spoils a share of the predictions, or of what notes cite, and returns how many it hit.  Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MONTHS = ("2026-01", "2026-02", "2026-03")
CONTRACT = """contract: "1.0"
model: {name: benchmark, version: 1.0.0}
features: [{name: any, table: observation}]
outputs:
  - {name: risk, kind: score, range: [0, 1], threshold: 0.4}
label: {name: outcome, positive: 1}
"""
NOTES = """contract: "1.0"
model: {name: benchmark, version: 1.0.0}
features: [{name: any, table: observation}]
outputs:
  - {name: summary, kind: text}
"""
LOINC, ICD, RXNORM = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm", "http://www.nlm.nih.gov/research/umls/rxnorm"
CONDITIONS = ("E11.9", "I10", "N18.30", "J44.9", "I50.9")
DRUGS = (("860975", "metformin"), ("314076", "lisinopril"), ("197361", "amlodipine"), ("617312", "atorvastatin"), ("855332", "warfarin"))
Row = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A class: the (rule, defect) that must alarm; ``exact``: its numerator is the number of rows that were hit.

    ``notes``: it spoils what generated texts cite, which are held against records.
    """

    name: str
    rule: str
    defect: str
    plant: Callable[[list[Row], random.Random, float], int]
    exact: bool
    notes: bool


FAULTS: dict[str, Fault] = {}


def fault(
    rule: str, defect: str, *, exact: bool = False, notes: bool = False
) -> Callable[[Callable[[list[Row], random.Random, float], int]], Callable[[list[Row], random.Random, float], int]]:
    """Register a class under the function's name."""

    def register(plant: Callable[[list[Row], random.Random, float], int]) -> Callable[[list[Row], random.Random, float], int]:
        name = plant.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, rule, defect, plant, exact, notes)
        return plant

    return register


def predictions(seed: int, patients: int) -> list[Row]:
    """Return a calibrated model's predictions: one a patient and month."""
    rng, rows = random.Random(seed), []
    for month in MONTHS:
        for i in range(patients):
            z = rng.gauss(-1.2, 1.3)
            outcome = int(rng.random() < 1 / (1 + math.exp(-z)))
            rows.append(
                {"patient": f"p{seed}-{i}", "time": f"{month}-{1 + i % 28:02d}", "risk": 1 / (1 + math.exp(-z)), "outcome": outcome}
            )
    return rows


def facts(seed: int, patient: int) -> Row:
    """Return what a patient's record says: two diagnoses, a result, two drugs and the days of them."""
    rng = random.Random(f"{seed}/{patient}")
    days = [f"2025-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}" for _ in range(3)]
    return {"conditions": rng.sample(CONDITIONS, 2), "value": round(rng.uniform(0.5, 3.0), 2), "drugs": rng.sample(DRUGS, 2), "days": days}


def records(seed: int, patients: int) -> list[Row]:
    """Return the patients' records as FHIR resources."""
    found: list[Row] = []
    for i in range(patients):
        known, subject = facts(seed, i), {"subject": {"reference": f"Patient/p{seed}-{i}"}}
        days = known["days"]
        found.append({"resourceType": "Patient", "id": f"p{seed}-{i}", "gender": "female", "birthDate": "1950-01-01"})
        found.append(
            {"resourceType": "Observation", "id": f"o{i}", "status": "final", **subject, "effectiveDateTime": days[0],
             "code": {"coding": [{"system": LOINC, "code": "2160-0"}]},
             "valueQuantity": {"value": known["value"], "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}}
        )  # fmt: skip
        found += [
            {
                "resourceType": "Condition",
                "id": f"c{i}-{code}",
                **subject,
                "onsetDateTime": days[1],
                "code": {"coding": [{"system": ICD, "code": code}]},
            }
            for code in known["conditions"]
        ]
        found += [
            {"resourceType": "MedicationRequest", "id": f"m{i}-{code}", "status": "active", "intent": "order", **subject, "authoredOn": days[2],
             "medicationCodeableConcept": {"text": f"{name.title()} tablet", "coding": [{"system": RXNORM, "code": code}]}}
            for code, name in known["drugs"]
        ]  # fmt: skip
    return found


def notes(seed: int, patients: int) -> list[Row]:
    """Return a summary a patient and month: it cites a diagnosis, a result, a drug by name, a drug by code and a day."""
    rows = []
    for month in MONTHS:
        for i in range(patients):
            known = facts(seed, i)
            cited = [
                {"kind": "code", "system": ICD, "code": known["conditions"][0]},
                {"kind": "value", "system": LOINC, "code": "2160-0", "value": known["value"], "unit": "mg/dL"},
                {"kind": "medication", "name": known["drugs"][0][1]},
                {"kind": "medication", "system": RXNORM, "code": known["drugs"][1][0]},
                {"kind": "date", "date": known["days"][1]},
            ]
            rows.append({"patient": f"p{seed}-{i}", "time": f"{month}-{1 + i % 28:02d}", "citations": cited, "known": known})
    return rows


def _some(rows: list[Row], rng: random.Random, share: float) -> list[Row]:
    return rng.sample(rows, max(1, round(share * len(rows))))


def _last(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["time"].startswith(MONTHS[-1])]


@fault("output-valid", "missing", exact=True)
def score_missing(rows: list[Row], rng: random.Random, share: float) -> int:
    """No score."""
    hit = _some(rows, rng, share)
    for row in hit:
        row["risk"] = ""
    return len(hit)


@fault("output-valid", "not-a-number", exact=True)
def score_nan(rows: list[Row], rng: random.Random, share: float) -> int:
    """NaN, as NumPy writes it."""
    hit = _some(rows, rng, share)
    for row in hit:
        row["risk"] = "nan"
    return len(hit)


@fault("output-valid", "above-range", exact=True)
def score_in_percent(rows: list[Row], rng: random.Random, share: float) -> int:
    """A part of the jobs writes percent."""
    hit = [row for row in _some(rows, rng, share) if row["risk"] > 0.0101]
    for row in hit:
        row["risk"] *= 100
    return len(hit)


@fault("prediction-once", "duplicate", exact=True)
def logged_twice(rows: list[Row], rng: random.Random, share: float) -> int:
    """The job ran twice for some."""
    hit = [dict(row) for row in _some(rows, rng, share)]
    rows += hit
    return len(hit)


@fault("label-known", "unlabelled", exact=True)
def outcomes_lost(rows: list[Row], rng: random.Random, share: float) -> int:
    """Outcomes that never arrive: five times the share, since a few always lack."""
    hit = _some(rows, rng, min(1.0, 5 * share))
    for row in hit:
        row["outcome"] = ""
    return len(hit)


@fault("accuracy-drift", "auroc")
def model_goes_blind(rows: list[Row], rng: random.Random, share: float) -> int:
    """In the last month scores have nothing to do with the outcome, in fifteen times the share."""
    hit = _some(_last(rows), rng, min(1.0, 15 * share))
    for row in hit:
        row["risk"] = 1 / (1 + math.exp(-rng.gauss(-1.2, 1.3)))
    return len(hit)


@fault("accuracy-drift", "calibration-intercept")
def outcome_becomes_rarer(rows: list[Row], rng: random.Random, share: float) -> int:
    """In the last month most outcomes are prevented: the risks are too high."""
    hit = [row for row in _last(rows) if row["outcome"] == 1 and rng.random() < min(1.0, 12 * share)]
    for row in hit:
        row["outcome"] = 0
    return len(hit)


@fault("score-shift", "score-mix")
def another_release_scores_higher(rows: list[Row], rng: random.Random, share: float) -> int:
    """In the last month all scores move up by one in log-odds."""
    for row in _last(rows):
        row["risk"] = 1 / (1 + math.exp(-(math.log(row["risk"] / (1 - row["risk"])) + 1)))
    return len(_last(rows))


@fault("alert-share", "alert")
def alerts_double(rows: list[Row], rng: random.Random, share: float) -> int:
    """Twice as many alerts in the last month."""
    hit = [row for row in _last(rows) if row["risk"] < 0.4 and rng.random() < 0.4]
    for row in hit:
        row["risk"] = 0.41 + 0.3 * rng.random()
    return len(hit)


@fault("text-grounded", "ungrounded-code", exact=True, notes=True)
def code_not_in_record(rows: list[Row], rng: random.Random, share: float) -> int:
    """A diagnosis that other patients have."""
    hit = _some(rows, rng, share)
    for row in hit:
        row["citations"][0]["code"] = rng.choice([code for code in CONDITIONS if code not in row["known"]["conditions"]])
    return len(hit)


@fault("text-grounded", "ungrounded-value", exact=True, notes=True)
def value_not_in_record(rows: list[Row], rng: random.Random, share: float) -> int:
    """A result a tenth beside the record's: nearer ones are grounded where they are cited with one decimal."""
    hit = _some(rows, rng, share)
    for row in hit:
        row["citations"][1]["value"] = round(row["known"]["value"] + rng.choice((-0.1, 0.1)), 2)
    return len(hit)


@fault("text-grounded", "ungrounded-medication", exact=True, notes=True)
def medication_not_in_record(rows: list[Row], rng: random.Random, share: float) -> int:
    """A drug that other patients take: half of them by name, half by code."""
    hit = _some(rows, rng, share)
    for i, row in enumerate(hit):
        code, name = rng.choice([drug for drug in DRUGS if drug not in row["known"]["drugs"]])
        row["citations"][2 + i % 2] |= {"code": code} if i % 2 else {"name": name}
    return len(hit)


@fault("text-grounded", "ungrounded-date", exact=True, notes=True)
def date_not_in_record(rows: list[Row], rng: random.Random, share: float) -> int:
    """The right day of another year."""
    hit = _some(rows, rng, share)
    for row in hit:
        row["citations"][4]["date"] = "2024" + row["citations"][4]["date"][4:]
    return len(hit)


def summarise(rows: list[Row], seed: int, patients: int, folder: Path) -> dict[str, Any]:
    """Run monitor on notes beside the records of their patients; returns the scorecard's document."""
    told = [{"patient": row["patient"], "time": row["time"], "citations": json.dumps(row["citations"])} for row in rows]
    data = folder / "records.ndjson"
    data.write_text("\n".join(map(json.dumps, records(seed, patients))), encoding="utf-8")
    return examine(told, folder, [], NOTES, [str(data)])[0]


def examine(
    rows: list[Row], folder: Path, against: list[str], contract: str = CONTRACT, data: Sequence[str] = ()
) -> tuple[dict[str, Any], Any]:
    """Run monitor on rows; returns the scorecard's document and the profile."""
    from ehrready.pipeline import Options
    from ehrready.production.run import monitor

    (folder / "contract.yaml").write_text(contract, encoding="utf-8")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    card, profile, _, _ = monitor(
        [str(folder / "predictions.csv")],
        Options(contract=str(folder / "contract.yaml"), threads=1, internal=True),
        data=data,
        against=against,
    )
    return dict(card.document), profile


def run(patients: int, share: float, clean: int) -> dict[str, Any]:
    """Plant every class alone and judge clean samples; the validation is a sample of its own, saved as it may leave."""
    from ehrready.privacy import hide_profile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, profile = examine(predictions(1, 2 * patients), folder, [])
        baseline = folder / "validation.profile.json"
        baseline.write_bytes(hide_profile(profile).to_json())
        results = []
        for one in FAULTS.values():
            rows = notes(2, patients) if one.notes else predictions(2, patients)
            hit = one.plant(rows, random.Random(f"3/{one.name}"), share)
            document = summarise(rows, 2, patients, folder) if one.notes else examine(rows, folder, [str(baseline)])[0]
            (found,) = [f for f in document["findings"] if (f["rule"], f["defect"]) == (one.rule, one.defect)]
            results.append(
                {
                    "class": one.name,
                    "planted": hit,
                    "found": found["status"] in {"fail", "warn"},
                    "counted": found["numerator"],
                    "exact": one.exact,
                }
            )
        alarms, assessed = [], 0
        for seed in range(clean):
            cards = [
                examine(predictions(100 + seed, patients), folder, [str(baseline)])[0],
                summarise(notes(100 + seed, patients), 100 + seed, patients, folder),
            ]
            # the records are ordinary data: what is judged here is production
            judged = [
                f for card in cards for f in card["findings"] if f["dimension"] == "production" and f["status"] in {"pass", "warn", "fail"}
            ]
            assessed += len(judged)
            alarms += [f"{f['rule']} {f['defect']}" for f in judged if f["status"] != "pass"]
    return {"planted": results, "clean": {"samples": clean, "assessed": assessed, "alarms": alarms}}


def report(found: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    lines = ["| class | found | counted of planted |", "|---|---|---|"]
    for row in found["planted"]:
        lines.append(
            f"| {row['class']} | {'yes' if row['found'] else '**no**'} | {str(row['counted']) + ' of ' + str(row['planted']) if row['exact'] else ''} |"
        )
    clean = found["clean"]
    lines += [
        "",
        f"{clean['samples']} clean samples: {len(clean['alarms'])} false alarms in {clean['assessed']} findings {', '.join(clean['alarms'])}".rstrip()
        + ".",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=400, help="a month")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--clean", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(given.patients, given.share, given.clean)
    print(report(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
