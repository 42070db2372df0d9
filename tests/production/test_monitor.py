"""``ehrready monitor``: predictions against the contract, the validation and the record; figures against scikit-learn on the rows."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from typer.testing import CliRunner

from ehrready import sequence
from ehrready.checks.accuracy import measured
from ehrready.cli import app
from ehrready.errors import SourceError, UsageError
from ehrready.pipeline import Options
from ehrready.privacy import hide_profile
from ehrready.production import accuracy, buckets, run
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard
from ehrready.suppression import small

TEXT = """contract: "1.0"
model: {name: readmission, version: 1.0.0}
features:
  - {name: creatinine, table: observation}
outputs:
  - {name: risk, kind: score, range: [0, 1], threshold: 0.4}
label: {name: readmitted, delay_days: 0, positive: 1}
"""
Row = dict[str, Any]


def rows(
    seed: int, months: tuple[str, ...] = ("2026-01", "2026-02", "2026-03"), per: int = 300, noise: float = 0.0, prefix: str = "P"
) -> list[Row]:
    """Return predictions of a calibrated model; ``noise``: the share whose score has nothing to do with the outcome."""
    draw = np.random.RandomState(seed)
    found = []
    for month in months:
        for i in range(per):
            z = draw.normal(-1.2, 1.3)
            outcome = int(draw.random_sample() < 1 / (1 + np.exp(-z)))
            z = draw.normal(-1.2, 1.3) if draw.random_sample() < noise else z
            found.append(
                {"patient_id": f"{prefix}{seed}-{month}-{i}", "time": f"{month}-{1 + i % 28:02d}T10:15:00", "risk": float(1 / (1 + np.exp(-z))),
                 "readmitted": outcome, "sex": ("male", "female")[i % 2], "age": 20 + i % 70}
            )  # fmt: skip
    return found


def write(path: Path, given: list[Row]) -> str:
    """Write rows as CSV or Parquet, by the name."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(given), path)
        return str(path)
    names = list(dict.fromkeys(name for row in given for name in row))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(given)
    return str(path)


def monitor(
    tmp_path: Path, given: list[Row] | str, text: str = TEXT, name: str = "predictions.csv", **more: Any
) -> tuple[Scorecard, Profile]:
    """Run monitor; options of the run by name, the rest is handed on."""
    contract = tmp_path / "contract.yaml"
    contract.write_text(text)
    path = given if isinstance(given, str) else write(tmp_path / name, given)
    handed = {key: more.pop(key) for key in ("data", "against", "state", "validation", "labels") if key in more}
    card, profile, _, _ = run.monitor([path], Options(contract=str(contract), validate="none", **more), **handed)
    return card, profile


def save(path: Path, profile: Profile) -> str:
    path.write_bytes(profile.to_json())
    return str(path)


def of(card: Scorecard, rule: str, defect: str = "") -> Row:
    (found,) = [f for f in card.document["findings"] if f["rule"] == rule and (not defect or f["defect"] == defect)]
    return dict(found)


def test_figures_are_scikit_learns_to_the_bucket(tmp_path: Path) -> None:
    given = rows(5, per=700)
    _, profile = monitor(tmp_path, given)
    data = accuracy.labelled(profile, "risk")
    assert data is not None
    assert data.n == len(given)
    found = measured(data)
    score, truth = np.array([r["risk"] for r in given]), np.array([r["readmitted"] for r in given])
    x = np.log(score / (1 - score))[:, None]
    wanted = {
        "auroc": roc_auc_score(truth, score), "auprc": average_precision_score(truth, score), "brier": brier_score_loss(truth, score),
        "calibration_slope": LogisticRegression(C=np.inf, tol=1e-10).fit(x, truth).coef_[0][0],
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, abs=0.01 if name == "auprc" else 0.004), name
        assert found[name].low < value < found[name].high, name
    index = np.floor(x[:, 0] / buckets.WIDTH)
    index += 0.5 * ((score >= 0.4) & (index == np.floor(np.log(0.4 / 0.6) / buckets.WIDTH)))
    # a score on the border of a bucket may fall to either side
    assert found["auroc"].value == pytest.approx(roc_auc_score(truth, index), abs=1e-4)
    assert found["auprc"].value == pytest.approx(average_precision_score(truth, index), abs=1e-3)
    # in the large: the mean of the risks, moved by the intercept, is the share of outcomes
    intercept = found["calibration_intercept"].value
    assert np.mean(1 / (1 + np.exp(-(x + intercept)))) == pytest.approx(truth.mean(), abs=0.002)
    bins = np.minimum((score * 10).astype(int), 9)
    ece = sum(abs(truth[bins == b].sum() - score[bins == b].sum()) for b in range(10)) / len(score)
    assert found["ece"].value == pytest.approx(ece, abs=0.005)


def test_the_batch_of_the_intervals_is_scikit_learn_on_the_same_counts(tmp_path: Path) -> None:
    _, profile = monitor(tmp_path, rows(6))
    data = accuracy.labelled(profile, "risk")
    assert data is not None
    batch = accuracy.batch(data.score, data.positive[None, :], data.negative[None, :], probability=True)
    found = measured(data)
    for name in ("auroc", "auprc", "brier"):
        assert batch[name][0] == pytest.approx(found[name].value, abs=1e-12)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    def labelled(seed: int, n: int) -> accuracy.Labelled:
        draw = np.random.RandomState(seed)
        z = np.floor(draw.normal(-1.2, 1.3, n) / buckets.WIDTH)
        score, place = np.unique(1 / (1 + np.exp(-(z + 0.5) * buckets.WIDTH)), return_inverse=True)
        truth = draw.random_sample(n) < score[place]
        counts = [np.bincount(place[truth == value], minlength=len(score)).astype(float) for value in (True, False)]
        return accuracy.Labelled(score, counts[0], counts[1], (int(truth.sum()), int(n - truth.sum())), 1.0, True)

    truth = {name: figure.value for name, figure in measured(labelled(999, 200_000)).items()}
    for name in ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"):
        figures = [measured(labelled(seed, 400))[name] for seed in range(100)]
        assert 88 <= sum(f.low <= truth[name] <= f.high for f in figures) <= 100, name


def test_patients_are_the_clusters(tmp_path: Path) -> None:
    once = rows(7, per=200)
    often = [{**row, "time": row["time"].replace("10:15", f"{10 + hour}:15")} for row in once for hour in range(9)]
    narrow, wide = (monitor(tmp_path, given)[1] for given in (once, often))
    figures = [measured(data)["auroc"] for p in (narrow, wide) if (data := accuracy.labelled(p, "risk"))]
    assert figures[0].value == pytest.approx(figures[1].value)
    assert figures[1].error == pytest.approx(figures[0].error, rel=0.15)  # nine times the rows, the same patients


def test_drift_is_found_in_its_month_and_nothing_on_unchanged_data(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(11, ("2025-01", "2025-02", "2025-03"), 500))
    for kept in (validation, hide_profile(validation)):
        baseline = save(tmp_path / "validation.json", kept)
        ready, _ = monitor(tmp_path, rows(12, per=400), against=[baseline])
        assert ready.verdict == "ready", ready.document["verdict_reasons"]
        drifted = rows(13, ("2026-01", "2026-02"), 400) + rows(14, ("2026-03",), 400, noise=0.9)
        card, _ = monitor(tmp_path, drifted, against=[baseline])
        assert card.verdict == "not-ready"
        finding = of(card, "accuracy-drift", "auroc")
        assert (finding["status"], finding["owner"], finding["dimension"]) == ("fail", "clinical-informatics", "production")
        assert "2026-03" in finding["message"]
        assert "2026-01" not in finding["message"]


def test_the_contracts_figures_are_a_baseline_too(tmp_path: Path) -> None:
    text = TEXT.replace("positive: 1", "positive: 1, baseline: {auroc: 0.95, brier: 0.15}")
    card, _ = monitor(tmp_path, rows(21), text)
    assert of(card, "accuracy-drift", "auroc")["status"] == "fail"
    assert of(card, "accuracy-drift", "brier")["status"] == "pass"
    assert of(card, "accuracy-drift", "ece")["status"] == "not-applicable"


def test_false_alarms_are_few(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(31, per=500), threads=1)
    baseline = save(tmp_path / "validation.json", hide_profile(validation))
    verdicts = [monitor(tmp_path, rows(3100 + seed, per=300), against=[baseline], threads=1)[0].verdict for seed in range(6)]
    assert verdicts.count("ready") >= 5, verdicts


def test_only_closed_label_windows_count(tmp_path: Path) -> None:
    text = TEXT.replace("delay_days: 0", "delay_days: 31")
    given = rows(41)
    _, profile = monitor(tmp_path, given, text)
    data = accuracy.labelled(profile, "risk")
    assert data is not None
    assert data.n == sum(r["time"][:10] <= "2026-02-25" for r in given)  # 31 days before the last prediction, 2026-03-28
    _, later = monitor(tmp_path, given, text, stamp="2026-05-01")
    data = accuracy.labelled(later, "risk")
    assert data is not None
    assert data.n == len(given)
    card, _ = monitor(tmp_path, given, text, stamp="2026-03-28", against=[])
    assert of(card, "label-known")["denominator"] == sum(r["time"][:10] <= "2026-02-25" for r in given)
    early, _ = monitor(tmp_path, rows(42, ("2026-03",)), text)
    assert of(early, "accuracy-drift")["status"] == "not-assessed"
    assert early.verdict == "cannot-tell"


def test_impossible_outputs_are_counted_exactly(tmp_path: Path) -> None:
    given = rows(51)
    for row, value in zip(given, [None] * 12 + ["NaN"] * 13 + [1.5] * 14 + [-0.2] * 15 + ["high"] * 16, strict=False):
        row["risk"] = value
    given += given[200:217]
    card, _ = monitor(tmp_path, given)
    counts = {f["defect"]: f["numerator"] for f in card.document["findings"] if f["check"] == "output-valid"}
    assert counts == {"missing": 12, "not-a-number": 29, "above-range": 14, "below-range": 15, "duplicate": 17}
    assert of(card, "output-valid", "missing")["denominator"] == 917


def test_parquet_with_nan_and_null_is_told_apart(tmp_path: Path) -> None:
    given = rows(52)
    for row in given[:20]:
        row["risk"] = float("nan")
    for row in given[20:35]:
        row["risk"] = None
    card, _ = monitor(tmp_path, given, name="predictions.parquet")
    assert (of(card, "output-valid", "not-a-number")["numerator"], of(card, "output-valid", "missing")["numerator"]) == (20, 15)


def test_classes_are_held_against_the_contract(tmp_path: Path) -> None:
    text = TEXT.replace("kind: score, range: [0, 1], threshold: 0.4", "kind: class, classes: [low, high]")
    given = [{**row, "risk": "high" if row["risk"] > 0.4 else "low"} for row in rows(53)]
    for row in given[:25]:
        row["risk"] = "medium"
    card, _ = monitor(tmp_path, given, text)
    assert of(card, "output-valid", "unknown-class")["numerator"] == 25
    assert of(card, "accuracy-drift")["status"] == "not-applicable"
    for row in given[600:]:
        row["risk"] = "high"
    assert of(monitor(tmp_path, given, text)[0], "score-shift")["status"] == "fail"


def test_scores_and_alerts_that_move_are_told(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(61, per=500))
    baseline = save(tmp_path / "validation.json", hide_profile(validation))
    moved = rows(62, per=400)
    for row in moved[800:]:
        row["risk"] = min(0.99, row["risk"] + 0.3)
    card, _ = monitor(tmp_path, moved, against=[baseline])
    assert (of(card, "score-shift")["status"], of(card, "alert-share")["status"]) == ("fail", "fail")
    assert "2026-03" in of(card, "score-shift")["message"]
    agreed = TEXT.replace("threshold: 0.4", "threshold: 0.4, alert_share: 0.9")
    assert of(monitor(tmp_path, rows(63), agreed)[0], "alert-share")["status"] == "fail"


# --- bad input


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient_id": ""}, "row 3: no patient"),
        ({"patient_id": "UNK"}, "row 3: no patient"),
        ({"time": ""}, "row 3: no time"),
        ({"time": "03/01/2026"}, "row 3: no time"),
        ({"readmitted_at": "2025-12-31"}, "row 3: a label from before its prediction"),
        ({"readmitted_at": "2031-01-01"}, "row 3: a label from the future"),
        ({"readmitted_at": "soon"}, "row 3: a label whose time"),
    ],
)
def test_what_can_be_no_prediction_stops_the_run_with_its_row(tmp_path: Path, change: Row, said: str) -> None:
    given = [{**row, "readmitted_at": row["time"]} for row in rows(71)]
    given[2] |= change
    text = TEXT.replace("threshold: 0.4", "threshold: 0.4, columns: {label_time: readmitted_at}")
    with pytest.raises(SourceError) as error:
        monitor(tmp_path, given, text)
    assert said in str(error.value)
    assert "P71" not in str(error.value)


def test_a_label_after_the_given_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="after the given day"):
        monitor(tmp_path, rows(72), stamp="2026-02-01")


@pytest.mark.parametrize(
    ("drop", "said"),
    [("patient_id", "no column for the patient key"), ("time", "no column for the time"), ("risk", "no score for the output risk")],
)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, drop: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        monitor(tmp_path, [{k: v for k, v in row.items() if k != drop} for row in rows(73)])


def test_a_column_of_the_contract_that_is_not_there_and_one_that_may_be_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="columns: score"):
        monitor(tmp_path, rows(74), TEXT.replace("threshold: 0.4", "threshold: 0.4, columns: {score: riskk}"))
    given = [{("score" if k == "risk" else k): v for k, v in row.items()} | {"probability": 0.1} for row in rows(74)]
    with pytest.raises(UsageError, match="several columns that may be the score"):
        monitor(tmp_path, given)


def test_a_contract_without_outputs_and_an_unknown_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no outputs"):
        monitor(tmp_path, rows(75), TEXT.replace("outputs:\n  - {name: risk, kind: score, range: [0, 1], threshold: 0.4}\n", ""))
    with pytest.raises(UsageError, match=r"contract.yaml:6: the output: unknown key 'treshold'"):
        monitor(tmp_path, rows(75), TEXT.replace("threshold", "treshold"))
    with pytest.raises(UsageError, match="threshold must lie in the range"):
        monitor(tmp_path, rows(75), TEXT.replace("0.4", "40"))


def test_a_damaged_file_is_no_pass(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "cut.parquet", rows(76)))
    path.write_bytes(path.read_bytes()[:-200])
    card, _ = monitor(tmp_path, str(path))
    assert card.verdict == "cannot-tell"
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert monitor(tmp_path, str(empty))[0].verdict == "cannot-tell"


def test_a_broken_row_is_rejected_and_counted(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "rows.csv", rows(77)))
    path.write_text(path.read_text() + "a,b\n")
    card, _ = monitor(tmp_path, str(path))
    assert card.document["subject"]["records"] == {"read": 901, "profiled": 900, "rejected": 1}


# --- FHIR


def _risk(patient: str | None, at: str, score: float | None = 0.2, **more: Any) -> Row:
    return {
        "resourceType": "RiskAssessment", "status": "final", **({"subject": {"reference": f"Patient/{patient}"}} if patient else {}),
        "occurrenceDateTime": at, "prediction": [{"outcome": {"text": "risk"}, "probabilityDecimal": score}], **more,
    }  # fmt: skip


def test_risk_assessments_are_predictions_in_lines_and_in_a_bundle(tmp_path: Path) -> None:
    given = [_risk(f"p{i}", f"2026-01-{1 + i % 28:02d}", 1.5 if i < 12 else 0.3) for i in range(200)]
    given.append(_risk("p1", "2026-01-05", status="entered-in-error"))
    lines, bundle = tmp_path / "risk.ndjson", tmp_path / "bundle.json"
    lines.write_text("\n".join(map(json.dumps, given)))
    patients = [{"resource": {"resourceType": "Patient", "id": "p0"}}]
    bundle.write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [*patients, *({"resource": r} for r in given)]}, indent=1)
    )
    for path in (lines, bundle):
        card, profile = monitor(tmp_path, str(path))
        assert profile.frames["predictions"]["risk", "", "all"] == (200, 200, 200)
        assert of(card, "output-valid", "above-range")["numerator"] == 12
        assert "patient" not in profile.tables()
    given[3] = _risk(None, "2026-01-01")
    lines.write_text("\n".join(map(json.dumps, given)))
    with pytest.raises(SourceError, match="row 4: no patient"):
        monitor(tmp_path, str(lines))


def test_the_published_example_and_the_published_table(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data" / "model_output"
    text = TEXT.replace("name: risk", "name: cancer")
    _, profile = monitor(tmp_path, str(folder / "fhir" / "riskassessment-example.json"), text)
    document = json.loads((folder / "fhir" / "riskassessment-example.json").read_text())
    assert profile.frames["predictions"]["cancer", "2006-01", "all"][0] == len(
        [p for p in document["prediction"] if "probabilityDecimal" in p]
    )
    # a table that nobody here wrote: the fare as a score of survival, as scikit-learn has it
    with (folder / "nannyml" / "titanic_reference.csv").open() as file:
        given = [
            {"PassengerId": r["PassengerId"], "time": "2026-01-01", "Fare": float(r["Fare"]), "Survived": r["Survived"]}
            for r in csv.DictReader(file)
        ]
    text = TEXT.replace(
        "name: risk, kind: score, range: [0, 1], threshold: 0.4",
        "name: Fare, kind: score, range: [0, 600], columns: {patient: PassengerId, label: Survived}",
    )
    _, profile = monitor(tmp_path, given, text)
    data = accuracy.labelled(profile, "Fare")
    assert data is not None
    wanted = roc_auc_score([int(r["Survived"]) for r in given], [r["Fare"] for r in given])
    assert measured(data)["auroc"].value == pytest.approx(wanted, abs=0.01)
    assert set(measured(data)) == {"auroc", "auprc"}


# --- generated text


def _record(patients: int) -> list[Row]:
    found: list[Row] = []
    for i in range(patients):
        subject = {"subject": {"reference": f"Patient/p{i}"}}
        found += [
            {"resourceType": "Patient", "id": f"p{i}", "gender": "female", "birthDate": "1950-01-01"},
            {"resourceType": "Observation", "id": f"o{i}", "status": "final", **subject, "effectiveDateTime": "2026-01-02",
             "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
             "valueQuantity": {"value": 1.23, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}},
            {"resourceType": "Condition", "id": f"c{i}", **subject, "onsetDateTime": "2026-01-03",
             "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9"}]}},
            {"resourceType": "MedicationRequest", "id": f"m{i}", "status": "active", "intent": "order", **subject, "authoredOn": "2026-01-04",
             "medicationCodeableConcept": {"text": "Metformin 500 mg", "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]}},
        ]  # fmt: skip
    return found


TRUE = [
    {"kind": "code", "system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9"},
    {"kind": "value", "system": "http://loinc.org", "code": "2160-0", "value": 1.2, "unit": "mg/dL"},
    {"kind": "medication", "name": "metformin"},
    {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"},
    {"kind": "date", "date": "2026-01-04"},
]
FALSE = [
    {"kind": "code", "system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"},
    {"kind": "value", "system": "http://loinc.org", "code": "2160-0", "value": 1.3, "unit": "mg/dL"},
    {"kind": "value", "system": "http://loinc.org", "code": "2160-0", "value": 1.23, "unit": "umol/L"},
    {"kind": "medication", "name": "warfarin"},
    {"kind": "date", "date": "2026-01-05"},
]
NOTES = TEXT.replace("name: risk, kind: score, range: [0, 1], threshold: 0.4", "name: summary, kind: text")


@pytest.mark.parametrize("name", ["notes.csv", "notes.parquet"])
def test_what_the_record_does_not_hold_is_counted_by_kind(tmp_path: Path, name: str) -> None:
    data = tmp_path / "record.ndjson"
    data.write_text("\n".join(map(json.dumps, _record(120))))
    given: list[dict[str, Any]] = [
        {
            "patient_id": f"p{i}",
            "time": "2026-01-10",
            "summary": "words that nobody reads",
            "citations": json.dumps(TRUE + (FALSE if i < 30 else [])),
        }
        for i in range(150)
    ]
    for row in given[60:80]:
        row["citations"] = None
    card, profile = monitor(tmp_path, given, NOTES, name, data=[str(data)])
    counts = {f["defect"]: (f["numerator"], f["denominator"]) for f in card.document["findings"] if f["check"] == "grounded"}
    assert counts == {
        "ungrounded-code": (30, 130), "ungrounded-value": (60, 160), "ungrounded-medication": (30, 230), "ungrounded-date": (30, 130),
    }  # fmt: skip
    assert profile.frames["predictions"]["summary", "", "unknown-patient"][0] == 30 * len(TRUE)
    assert of(card, "text-cited")["numerator"] == 20
    alone, _ = monitor(tmp_path, given, NOTES, name)
    assert of(alone, "text-grounded")["status"] == "not-assessed"
    text = card.to_json().decode() + profile.to_json().decode()
    assert not re.search(r"words that|metformin|warfarin|2026-01-1", text, re.IGNORECASE)


def test_a_date_that_is_cited_with_a_code_is_a_claim_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "record.ndjson"
    data.write_text("\n".join(map(json.dumps, _record(50))))
    cited = [
        {"kind": "code", "system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9", "date": day}
        for day in ("2026-01-03", "2026-01-04")
    ]
    given = [{"patient_id": f"p{i}", "time": "2026-01-10", "citations": json.dumps(cited)} for i in range(50)]
    card, _ = monitor(tmp_path, given, NOTES, data=[str(data)])
    assert (of(card, "text-grounded", "ungrounded-code")["numerator"], of(card, "text-grounded", "ungrounded-date")["numerator"]) == (0, 50)


@pytest.mark.parametrize(
    "cited",
    [
        "not json",
        '{"kind": "code"}',
        '[{"kind": "code"}]',
        '[{"kind": "gene", "code": "x"}]',
        '[{"kind": "value", "code": "2160-0", "value": "high"}]',
    ],
)
def test_citations_that_claim_nothing_stop_the_run(tmp_path: Path, cited: str) -> None:
    given = [{"patient_id": f"p{i}", "time": "2026-01-10", "citations": cited if i == 4 else "[]"} for i in range(50)]
    with pytest.raises(SourceError, match="row 5: "):
        monitor(tmp_path, given, NOTES)


def test_records_are_judged_beside_the_predictions(tmp_path: Path, project: Path) -> None:
    given = rows(81)
    card, _ = monitor(tmp_path, given, data=[str(project / "sample_data" / "live" / "fhir")])
    packs = {pack["name"] for pack in card.document["provenance"]["rule_packs"]}
    assert {"core", "monitoring", "contract readmission"} <= packs
    assert card.document["subject"]["patients"] == 400
    _, validation = monitor(tmp_path, given)
    mixed, _ = monitor(
        tmp_path, given, data=[str(project / "sample_data" / "live" / "fhir")], against=[save(tmp_path / "v.json", validation)]
    )
    compared = [f for f in mixed.document["findings"] if f["check"] in {"unseen-codes", "presence-shift"}]
    assert {f["status"] for f in compared} == {"not-applicable"}


# --- runs


def test_runs_add_up_to_one_and_a_run_again_adds_nothing(tmp_path: Path) -> None:
    given = rows(91, per=250)
    whole, _ = monitor(tmp_path, given)
    state = str(tmp_path / "state")
    joined = whole
    for month in ("2026-01", "2026-02", "2026-03", "2026-02"):
        joined, _ = monitor(tmp_path, [row for row in given if row["time"].startswith(month)], state=state)
    assert len(list(Path(state).iterdir())) == 3
    assert joined.document["distributions"] == whole.document["distributions"]
    numbers = [
        [(f["rule"], f["defect"], f["numerator"], f["denominator"]) for f in card.document["findings"] if f["dimension"] == "production"]
        for card in (joined, whole)
    ]
    assert numbers[0] == numbers[1]
    mode = {path.stat().st_mode & 0o777 for path in Path(state).iterdir()}
    assert (mode, Path(state).stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_labels_that_come_later_take_the_place_of_none(tmp_path: Path) -> None:
    given = rows(92)
    state = str(tmp_path / "state")
    monitor(tmp_path, [{**row, "readmitted": None} for row in given], state=state)
    card, _ = monitor(tmp_path, given, state=state)
    assert len(list(Path(state).iterdir())) == 1
    assert of(card, "label-known")["numerator"] == 0
    # the first month again in a longer export: it counts once
    more = given + rows(93, ("2026-04",))
    card, _ = monitor(tmp_path, more, state=state)
    assert of(card, "prediction-once")["denominator"] == len(more)
    card, _ = monitor(tmp_path, rows(94, ("2026-05",)), state=state)
    assert of(card, "prediction-once")["denominator"] == len(more) + 300


def test_a_state_of_another_contract_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    monitor(tmp_path, rows(95), state=str(state))
    with pytest.raises(UsageError, match="another kind or range"):
        monitor(tmp_path, rows(96), TEXT.replace("[0, 1]", "[0, 2]"), state=str(state))
    (path,) = state.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is not valid JSON"):
        monitor(tmp_path, rows(96), state=str(state))


# --- what may not leave


@pytest.mark.parametrize("seed", range(5))
def test_a_saved_profile_gives_no_small_cell_away(tmp_path: Path, seed: int) -> None:
    draw = np.random.RandomState(seed)
    given = rows(200 + seed, per=int(draw.randint(15, 120)))
    for kind, value in (("missing", None), ("nan", "NaN"), ("above", 1.7)):
        for i in draw.choice(len(given), draw.randint(0, 16), replace=False):
            given[i]["risk"] = value if kind else None
    for i in draw.choice(len(given), draw.randint(0, 16), replace=False):
        given[i]["readmitted"] = None
    _, exact = monitor(tmp_path, given, threads=1)
    saved = hide_profile(exact)
    counts, scores = saved.frames["predictions"], saved.frames["scores"]
    assert not any(key[1] for name in ("predictions", "scores", "clusters") for key in saved.frames[name])
    assert not saved.frames["runs"]
    assert not any(small(v) for (_, _, _, _, _, _), values in scores.items() for v in values)
    assert not any(small(v) for key, values in counts.items() if not key[2].startswith("is ") for v in values)
    # all = valid scores + what is wrong: one unknown alone could be worked out
    wrong = {
        key[2]: counts[key][0] for key in counts if key[2] in {"missing", "not-a-number", "below-range", "above-range", "unknown-class"}
    }
    unknown = [kind for kind, n in wrong.items() if n is None]
    if scores and counts["risk", "", "all"][0] is not None:
        left = counts["risk", "", "all"][0] - sum(n or 0 for n in wrong.values()) - sum(v[0] or 0 for v in scores.values())
        assert not unknown or (len(unknown) > 1 and not small(left))
        # what alerts against the buckets above every cut
        alerts = counts["risk", "", "alert"][0]
        if alerts is not None:
            order = sorted({key[4] for key in scores}, key=buckets.bounds)
            sizes = [sum(v[0] or 0 for key, v in scores.items() if key[4] == bucket) for bucket in order]
            for cut in range(len(order)):
                part = abs(sum(sizes[cut:]) - alerts)
                assert not small(part), (cut, part)


def test_a_scorecard_shows_no_small_number_of_predictions(tmp_path: Path) -> None:
    given = rows(301)
    for row in given[:4]:
        row["risk"] = 1.5
    for row in given[10:17]:
        row["readmitted"] = None
    card, _ = monitor(tmp_path, given)
    finding = of(card, "output-valid", "above-range")
    assert (finding["hidden"], finding["numerator"], finding["rate"]) == (True, None, None)
    hidden = of(card, "label-known")
    assert (hidden["hidden"], hidden["denominator"]) == (True, None)
    text = card.to_json().decode()
    assert not re.search(
        r'"(numerator|patients)": ([1-9]|10)\b', re.sub(r'"check": "(accuracy-drift|ingest-accounted)".*?"why"', "", text, flags=re.DOTALL)
    )


def test_same_input_same_bytes_whatever_order_and_threads(tmp_path: Path) -> None:
    given = rows(302)
    first, _ = monitor(tmp_path, given, threads=1)
    again, _ = monitor(tmp_path, given[::-1], threads=2)
    a, b = (json.loads(c.to_json()) for c in (first, again))
    for d in (a, b):
        d["ledger"][0].pop("bytes")
    assert a == b


def test_the_command_writes_its_outputs_and_says_what_to_mend(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").write_text(TEXT)
    path = write(tmp_path / "p.csv", rows(401, per=400))
    saved = tmp_path / "validation.json"
    done = CliRunner().invoke(
        app, ["monitor", path, "--contract", str(tmp_path / "contract.yaml"), "--save-profile", str(saved), "--name", "validation"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(saved.read_bytes())["internal"] is False
    out = tmp_path / "report.html"
    again = [
        "monitor",
        path,
        "--contract",
        str(tmp_path / "contract.yaml"),
        "--against",
        str(saved),
        "--html",
        str(out),
        "--json",
        str(tmp_path / "card.json"),
    ]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert "Production" in out.read_text()
    assert json.loads((tmp_path / "card.json").read_bytes())["contract"]["model"] == "readmission"
    (tmp_path / "p.txt").write_text("nothing")
    done = CliRunner().invoke(app, ["monitor", str(tmp_path / "p.txt"), "--contract", str(tmp_path / "contract.yaml")])
    assert (done.exit_code, isinstance(done.exception, UsageError) or "must be Parquet" in done.output) == (1, True)


def test_an_output_that_no_file_holds_is_no_pass(tmp_path: Path) -> None:
    text = TEXT.replace("threshold: 0.4}", "threshold: 0.4}\n  - {name: summary, kind: text}")
    card, _ = monitor(tmp_path, rows(402), text)
    assert card.verdict == "cannot-tell"
    assert any("no output summary" in f["reason"] for f in card.document["findings"])


def test_a_validation_without_texts_is_no_cannot_tell_and_production_without_them_is(tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text(TEXT.replace("threshold: 0.4}", "threshold: 0.4}\n  - {name: summary, kind: text}"))
    path, saved, out = write(tmp_path / "p.csv", rows(403, per=400)), tmp_path / "validation.json", tmp_path / "card.json"
    command = ["monitor", path, "--contract", str(contract), "--json", str(out)]
    done = CliRunner().invoke(app, [*command, "--save-profile", str(saved)])
    assert done.exit_code == 0, done.output
    assert "summary: no text among these predictions" in done.output
    document = json.loads(out.read_bytes())
    told = {
        f["rule"]: (f["status"], f["reason"])
        for f in document["findings"]
        if f["group"].get("output") == "summary" or f["check"] == "grounded"
    }
    assert {"output-valid", "text-grounded"} <= set(told)
    assert all(status == "not-applicable" and "a validation without texts" in reason for status, reason in told.values())
    # production: with a baseline, a state or records, saving the profile or not
    record = tmp_path / "record.ndjson"
    record.write_text("\n".join(map(json.dumps, _record(50))))
    keep = ["--save-profile", str(tmp_path / "again.json")]
    for more in (
        [],
        ["--against", str(saved)],
        ["--against", str(saved), *keep],
        ["--state", str(tmp_path / "s"), *keep],
        ["--data", str(record), *keep],
    ):
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code in {1, 3}, (more, done.output)
        document = json.loads(out.read_bytes())
        assert [f["status"] for f in document["findings"] if f["rule"] == "output-valid" and f["group"].get("output") == "summary"] == [
            "not-assessed"
        ]
        assert document["verdict"] in {"not-ready", "cannot-tell"}


def test_a_validation_of_a_missing_score_is_no_pass(tmp_path: Path) -> None:
    text = TEXT.replace(
        "threshold: 0.4}",
        "threshold: 0.4}\n  - {name: other, kind: score, range: [0, 1], columns: {score: second}}\n  - {name: summary, kind: text}",
    )
    (tmp_path / "contract.yaml").write_text(text)
    first = [{k: v for k, v in row.items() if k != "risk"} | {"summary": "words"} for row in rows(404)]
    path = write(tmp_path / "p.csv", first)
    command = ["monitor", path, "--contract", str(tmp_path / "contract.yaml"), "--save-profile", str(tmp_path / "v.json")]
    assert CliRunner().invoke(app, command).exit_code != 0


def test_the_stage_is_not_passed_by_a_validation_without_the_texts_of_the_contract(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    text = TEXT.replace("positive: 1", "positive: 1, baseline: {auroc: 0.76}").replace("0.4}", "0.4}\n  - {name: summary, kind: text}")
    card, _ = monitor(tmp_path, rows(501, per=400), text, validation=True)
    assert card.verdict == "ready"
    (project / "contract.yaml").write_text(text)
    (project / "card.json").write_bytes(card.to_json())
    cards, found = sequence.read(str(project))
    stage = sequence._judged("validation", cards, found[0][1])
    assert (stage["status"], "generated text" in stage["reason"]) == ("blocked", True)


def test_the_stage_is_passed_by_a_run_in_which_accuracy_was_judged(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    judged, _ = monitor(tmp_path, rows(501, per=400), TEXT.replace("positive: 1", "positive: 1, baseline: {auroc: 0.76}"))
    plain, _ = monitor(tmp_path, rows(501, per=400))
    stages = []
    for card in (judged, plain):
        text = TEXT.replace("positive: 1", "positive: 1, baseline: {auroc: 0.76}") if card is judged else TEXT
        (project / "contract.yaml").write_text(text)
        (project / "card.json").write_bytes(card.to_json())
        cards, found = sequence.read(str(project))
        assert [c.stage for c in cards] == ["validation"]
        stages.append(sequence._judged("validation", cards, found[0][1]))
    assert [stage["status"] for stage in stages] == ["passed", "blocked"]
    assert "Neither accuracy nor grounding" in stages[1]["reason"]
