"""``monitor --labels``: outcomes that come apart from the predictions give the same figures as outcomes beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ehrready.cli import app
from ehrready.errors import SourceError, UsageError
from ehrready.privacy import hide_profile
from tests.production.test_monitor import TEXT, _risk, monitor, of, rows, save, write

Row = dict[str, Any]


def apart(given: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return predictions without their labels, and the labels by patient and time."""
    labels = [{"patient_id": r["patient_id"], "prediction_time": r["time"], "readmitted": r["readmitted"]} for r in given]
    return [{k: v for k, v in r.items() if k != "readmitted"} for r in given], labels


def numbers(card: Any) -> list[tuple[Any, ...]]:
    return [(f["rule"], f["defect"], f["status"], f["numerator"], f["denominator"], f["message"]) for f in card.document["findings"]
            if f["dimension"] == "production" and f["defect"] != "unmatched-label"]  # fmt: skip


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_labels_apart_are_labels_beside(tmp_path: Path, name: str) -> None:
    given = rows(601)
    beside, _ = monitor(tmp_path, given)
    bare, labels = apart(given)
    card, profile = monitor(tmp_path, bare, labels=[write(tmp_path / name, labels[::-1])])
    assert numbers(card) == numbers(beside)
    stray = of(card, "label-known", "unmatched-label")
    assert (stray["status"], stray["numerator"], stray["denominator"]) == ("pass", 0, len(given))
    assert card.document["subject"]["records"]["read"] == 2 * len(given)
    assert hide_profile(profile).frames["predictions"]["", "", "unmatched-label"] == (0, len(given), 0)


def test_risk_assessments_are_judged_by_labels_of_their_day_or_their_id(tmp_path: Path) -> None:
    given = rows(602, per=400)
    resources = [{**_risk(r["patient_id"], r["time"][:10], r["risk"]), "id": f"ra-{i}"} for i, r in enumerate(given)]
    path = tmp_path / "risk.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    _, validation = monitor(tmp_path, rows(603, per=400))
    against = [save(tmp_path / "validation.json", validation)]
    bare, _ = monitor(tmp_path, str(path), against=against)
    assert (of(bare, "accuracy-drift")["status"], bare.verdict) == ("not-assessed", "cannot-tell")
    by_time = apart(given)[1]
    by_id = [{"prediction_id": f"ra-{i}", "label": r["readmitted"], "label_time": r["time"]} for i, r in enumerate(given)]
    cards = [monitor(tmp_path, str(path), against=against, labels=[write(tmp_path / "l.csv", labels)])[0] for labels in (by_time, by_id)]
    assert {of(card, "accuracy-drift", "auroc")["status"] for card in cards} == {"pass"}
    assert numbers(cards[0]) == numbers(cards[1])


def test_labels_of_no_prediction_are_counted_and_those_of_other_times_told(tmp_path: Path) -> None:
    bare, labels = apart(rows(604))
    for row in labels[100:250]:
        row["patient_id"] = "X" + row["patient_id"]
    early = [{**row, "prediction_time": "2025-06-01"} for row in labels[:40]]
    contract, path = tmp_path / "contract.yaml", write(tmp_path / "p.csv", bare)
    contract.write_text(TEXT)
    out = tmp_path / "card.json"
    done = CliRunner().invoke(
        app, ["monitor", path, "--contract", str(contract), "--labels", write(tmp_path / "l.csv", labels + early), "--json", str(out)]
    )
    assert "40 labels are of times before or after" in done.output
    card = json.loads(out.read_bytes())
    found = {f["defect"]: (f["numerator"], f["denominator"], f["status"]) for f in card["findings"] if f["rule"] == "label-known"}
    assert found == {"unlabelled": (150, 900, "warn"), "unmatched-label": (150, 900, "warn")}
    assert not any(row["patient_id"] in done.output for row in labels)


def test_labels_of_nobody_are_no_pass(tmp_path: Path) -> None:
    bare, labels = apart(rows(605))
    for row in labels:
        row["patient_id"] = "X" + row["patient_id"]
    card, _ = monitor(tmp_path, bare, labels=[write(tmp_path / "l.csv", labels)])
    assert (of(card, "label-known", "unmatched-label")["status"], card.verdict) == ("fail", "cannot-tell")


def test_labels_add_up_across_runs(tmp_path: Path) -> None:
    given = rows(606)
    bare, labels = apart(given)
    path, state = write(tmp_path / "l.csv", labels), str(tmp_path / "state")
    whole, _ = monitor(tmp_path, bare, labels=[path])
    joined = None
    for month in ("2026-01", "2026-02", "2026-03"):
        joined, _ = monitor(tmp_path, [row for row in bare if row["time"].startswith(month)], labels=[path], state=state)
    assert joined is not None
    assert numbers(joined) == numbers(whole)
    assert of(joined, "label-known", "unmatched-label")["denominator"] == len(given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient_id": ""}, "row 3: no patient or prediction id"),
        ({"prediction_time": "03/01/2026"}, "row 3: no time of the prediction"),
        ({"label_time": "soon"}, "row 3: a label whose time"),
        ({"label_time": "2025-12-31"}, "row 3: a label from before its prediction"),
        ({"label_time": "2031-01-01"}, "row 3: a label from the future"),
    ],
)
def test_what_can_be_no_label_stops_the_run_with_its_row(tmp_path: Path, change: Row, said: str) -> None:
    bare, labels = apart(rows(607, per=50))
    labels = [{**row, "label_time": row["prediction_time"]} for row in labels]
    labels[2] |= change
    with pytest.raises(SourceError) as error:
        monitor(tmp_path, bare, labels=[write(tmp_path / "l.csv", labels)])
    assert f"labels file 1, {said}" in str(error.value)
    assert "P607" not in str(error.value)


def test_labels_that_contradict_each_other_or_the_prediction_stop_the_run(tmp_path: Path) -> None:
    given = rows(608, per=50)
    bare, labels = apart(given)
    with pytest.raises(SourceError, match=r"row 1: a label that contradicts another of the same prediction \(2 such\)"):
        monitor(tmp_path, bare, labels=[write(tmp_path / "l.csv", [*labels, {**labels[0], "readmitted": 1 - labels[0]["readmitted"]}])])
    monitor(tmp_path, bare, labels=[write(tmp_path / "l.csv", [*labels, labels[0]])])
    wrong = [{**row, "readmitted": 1 - row["readmitted"]} for row in labels[:1]]
    with pytest.raises(SourceError, match="row 1: a label that contradicts"):
        monitor(tmp_path, given, labels=[write(tmp_path / "l.csv", wrong)])


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        ("patient_id", "which prediction they are of"),
        ("prediction_time", "which prediction they are of"),
        ("readmitted", "no column for the label"),
    ],
)
def test_a_column_of_labels_that_is_not_there_is_named(tmp_path: Path, drop: str, said: str) -> None:
    bare, labels = apart(rows(609, per=50))
    with pytest.raises(UsageError, match=said):
        monitor(tmp_path, bare, labels=[write(tmp_path / "l.csv", [{k: v for k, v in row.items() if k != drop} for row in labels])])


def test_a_file_that_is_both_and_one_that_is_no_table_are_refused(tmp_path: Path) -> None:
    given = rows(610, per=50)
    path = write(tmp_path / "p.csv", given)
    with pytest.raises(UsageError, match="as predictions and as labels"):
        monitor(tmp_path, path, labels=[path])
    (tmp_path / "l.txt").write_text("nothing")
    with pytest.raises(UsageError, match="labels must be Parquet or CSV"):
        monitor(tmp_path, path, labels=[str(tmp_path / "l.txt")])
