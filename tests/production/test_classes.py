"""``ehrready monitor`` on outputs that are classes: accuracy and balanced accuracy against scikit-learn on the rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from typer.testing import CliRunner

from ehrready import document_checks
from ehrready.checks.accuracy import held, measured
from ehrready.cli import app
from ehrready.errors import SourceError
from ehrready.privacy import hide_profile
from ehrready.production import classes
from ehrready.production.classes import Classified
from ehrready.profile import Profile
from ehrready.suppression import small
from tests.production.test_monitor import monitor, of, save, write

NAMES = ("low", "medium", "high")
TEXT = """contract: "1.0"
model: {name: triage, version: 1.0.0}
features:
  - {name: creatinine, table: observation}
outputs:
  - {name: triage, kind: class, classes: [low, medium, High]}
label: {name: truth, delay_days: 0}
"""
Row = dict[str, Any]


def rows(seed: int, months: tuple[str, ...] = ("2026-01", "2026-02", "2026-03"), per: int = 400, wrong: float = 0.25) -> list[Row]:
    """Return predictions of a model that is wrong in a share of all, evenly over patients; classes are of unequal size."""
    draw = np.random.RandomState(seed)
    found = []
    for month in months:
        for i in range(per):
            truth = str(draw.choice(NAMES, p=(0.6, 0.25, 0.15)))
            told = truth if draw.random_sample() >= wrong else str(draw.choice([name for name in NAMES if name != truth]))
            found.append(
                {"patient_id": f"P{seed}-{month}-{i}", "time": f"{month}-{1 + i % 28:02d}T10:15:00", "triage": told, "truth": truth.upper(),
                 "sex": ("male", "female")[i % 2], "age": 20 + i % 70}
            )  # fmt: skip
    return found


def _pair(given: list[Row]) -> tuple[list[str], list[str]]:
    return [row["truth"].lower() for row in given], [row["triage"].lower() for row in given]


def test_figures_are_scikit_learns_in_all_by_month_and_by_group(tmp_path: Path) -> None:
    given = rows(1)
    card, profile = monitor(tmp_path, given, TEXT)
    found = {(by, group): now for by, group, now, _ in held(profile, None, "triage", {}, 100)}
    parts = {("all", ""): given, ("month", "2026-02"): [r for r in given if r["time"] < "2026-03" and r["time"] > "2026-02"],
             ("sex", "female"): [r for r in given if r["sex"] == "female"], ("age", "45-64"): [r for r in given if 45 <= r["age"] < 65]}  # fmt: skip
    for place, part in parts.items():
        truth, told = _pair(part)
        wanted = {"accuracy": accuracy_score(truth, told), "balanced_accuracy": balanced_accuracy_score(truth, told)}
        for name, value in wanted.items():
            figure = found[place][name]
            assert figure.value == pytest.approx(value, abs=1e-12), (place, name)
            assert figure.low < value < figure.high
    # shown: as JSON that fits its schema, and as pictures
    drawn = {(d["kind"], d["metric"]) for d in card.document["distributions"] if d["kind"].startswith("accuracy")}
    assert drawn == set(itertools.product(("accuracy-by-month", "accuracy-by-group"), ("accuracy", "balanced_accuracy")))
    assert document_checks.first_problem(dict(card.document), "scorecard") == ""
    finding = of(card, "accuracy-drift", "balanced-accuracy")
    assert (finding["status"], "balanced accuracy 0.7" in finding["reason"]) == ("not-applicable", True)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    shares, recall = np.array([0.6, 0.25, 0.15]), np.array([0.9, 0.7, 0.6])
    truth = {"accuracy": float(shares @ recall), "balanced_accuracy": float(recall.mean())}
    inside = dict.fromkeys(truth, 0)
    for seed in range(100):
        both = np.random.RandomState(seed).multinomial(400, np.concatenate([shares * recall, shares * (1 - recall)])).astype(float)
        right, wrong = both[:3], both[3:]
        data = Classified(NAMES, right, wrong, tuple(int(n) for n in right + wrong), (int(right.sum()), int(wrong.sum())), 1.0)
        for name, figure in measured(data).items():
            inside[name] += figure.low <= truth[name] <= figure.high
    assert all(88 <= n <= 100 for n in inside.values()), inside


def test_patients_are_the_clusters(tmp_path: Path) -> None:
    once = rows(2, per=200)
    often = [{**row, "time": row["time"].replace("10:15", f"{10 + hour}:15")} for row in once for hour in range(9)]
    narrow, wide = (
        measured(data)["accuracy"] for g in (once, often) if (data := classes.classified(monitor(tmp_path, g, TEXT)[1], "triage"))
    )
    assert narrow.value == pytest.approx(wide.value)
    assert wide.error == pytest.approx(narrow.error, rel=0.15)


def test_drift_is_found_in_its_month_and_nothing_on_unchanged_data(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(11, per=600), TEXT)
    for kept in (validation, hide_profile(validation)):
        baseline = save(tmp_path / "validation.json", Profile.from_json(kept.to_json()))
        ready, _ = monitor(tmp_path, rows(12), TEXT, against=[baseline])
        assert ready.verdict == "ready", ready.document["verdict_reasons"]
        assert {of(ready, "accuracy-drift", d)["status"] for d in ("accuracy", "balanced-accuracy")} == {"pass"}
        card, _ = monitor(tmp_path, rows(13, ("2026-01", "2026-02")) + rows(14, ("2026-03",), wrong=0.6), TEXT, against=[baseline])
        assert card.verdict == "not-ready"
        for defect in ("accuracy", "balanced-accuracy"):
            finding = of(card, "accuracy-drift", defect)
            assert finding["status"] == "fail"
            assert "2026-03" in finding["message"]
            assert "2026-01" not in finding["message"]


def test_a_rare_class_that_is_lost_is_seen_by_balanced_accuracy(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(15, per=600, wrong=0.1), TEXT)
    given = rows(16, wrong=0.1)
    for row in given:
        if row["truth"] == "HIGH":
            row["triage"] = "low"
    against = [save(tmp_path / "validation.json", validation)]
    finding = of(monitor(tmp_path, given, TEXT, against=against)[0], "accuracy-drift", "balanced-accuracy")
    assert (finding["status"], finding["numerator"]) == ("fail", finding["denominator"])


def test_the_contracts_figures_are_a_baseline_too(tmp_path: Path) -> None:
    text = TEXT.replace("delay_days: 0", "delay_days: 0, baseline: {accuracy: 0.95, balanced_accuracy: 0.7}")
    card, _ = monitor(tmp_path, rows(21), text)
    assert of(card, "accuracy-drift", "accuracy")["status"] == "fail"
    assert of(card, "accuracy-drift", "balanced-accuracy")["status"] == "pass"


def test_false_alarms_are_few(tmp_path: Path) -> None:
    _, validation = monitor(tmp_path, rows(31, per=500), TEXT, threads=1)
    baseline = save(tmp_path / "validation.json", hide_profile(validation))
    verdicts = [monitor(tmp_path, rows(3100 + seed, per=300), TEXT, against=[baseline], threads=1)[0].verdict for seed in range(6)]
    assert verdicts.count("ready") >= 5, verdicts


def test_only_closed_label_windows_count(tmp_path: Path) -> None:
    text = TEXT.replace("delay_days: 0", "delay_days: 31")
    given = rows(41)
    _, profile = monitor(tmp_path, given, text)
    data = classes.classified(profile, "triage")
    assert data is not None
    assert data.n == sum(r["time"][:10] <= "2026-02-25" for r in given)  # 31 days before the last prediction, 2026-03-28
    early, _ = monitor(tmp_path, rows(42, ("2026-03",)), text)
    assert of(early, "accuracy-drift")["status"] == "not-assessed"
    assert early.verdict == "cannot-tell"


def test_labels_that_say_no_class_are_told(tmp_path: Path) -> None:
    happened = [{**row, "truth": "1" if row["truth"] == "HIGH" else "0"} for row in rows(51)]
    card, _ = monitor(tmp_path, happened, TEXT)
    finding = of(card, "accuracy-drift")
    assert (finding["status"], "not which class" in finding["reason"]) == ("not-applicable", True)
    assert of(card, "label-known")["numerator"] == 0
    unknown = rows(52)
    for row in unknown[:40]:
        row["truth"] = "higher"
    card, profile = monitor(tmp_path, unknown, TEXT)
    assert of(card, "label-known", "unlabelled")["numerator"] == 40
    data = classes.classified(profile, "triage")
    assert data is not None
    assert data.n == len(unknown) - 40
    # a class that is called like a yes is a class
    named = TEXT.replace("[low, medium, High]", "['0', '1', '2']")
    numbers = {name: str(i) for i, name in enumerate(NAMES)}
    given = [{**row, "triage": numbers[row["triage"]], "truth": numbers[row["truth"].lower()]} for row in rows(53)]
    data = classes.classified(monitor(tmp_path, given, named)[1], "triage")
    assert data is not None
    assert measured(data)["accuracy"].value == pytest.approx(accuracy_score(*_pair(given)))


def test_labels_apart_say_the_class_and_may_not_contradict(tmp_path: Path) -> None:
    given = rows(61)
    apart = [{"patient": row["patient_id"], "prediction_time": row["time"], "truth": row["truth"]} for row in given]
    bare = [{k: v for k, v in row.items() if k != "truth"} for row in given]
    _, beside = monitor(tmp_path, given, TEXT)
    _, joined = monitor(tmp_path, bare, TEXT, labels=[write(tmp_path / "labels.csv", apart)])
    assert joined.frames["confusion"] == beside.frames["confusion"]
    apart.append({**apart[0], "truth": "low" if apart[0]["truth"] != "LOW" else "medium"})
    with pytest.raises(SourceError, match="contradicts another of the same prediction"):
        monitor(tmp_path, bare, TEXT, labels=[write(tmp_path / "labels.csv", apart)])


def test_runs_add_up_to_one(tmp_path: Path) -> None:
    given, state = rows(71), tmp_path / "state"
    joined, _ = monitor(tmp_path, given[:1], TEXT)
    for month in ("2026-01", "2026-02", "2026-03"):
        joined, _ = monitor(tmp_path, [row for row in given if row["time"].startswith(month)], TEXT, state=str(state))
    whole, _ = monitor(tmp_path, given, TEXT)
    figures = [[d for d in card.document["distributions"] if d["kind"].startswith("accuracy")] for card in (joined, whole)]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 4


# --- what may not be shown


def test_few_who_were_told_wrongly_are_not_to_be_worked_out(tmp_path: Path) -> None:
    given = rows(81, wrong=0.2)
    for i, row in enumerate(r for r in given if r["time"].startswith("2026-02")):
        row["triage"] = (
            "other" if i > 390 else row["truth"].lower() if i > 6 or row["truth"] == "HIGH" else "high"
        )  # at most seven are wrong
    card, profile = monitor(tmp_path, given, TEXT)
    february = classes.classified(profile, "triage", "2026-02")
    assert february is not None
    assert small(february.sides[1])
    groups = {group for by, group, _, _ in held(profile, None, "triage", {}, 100) if by == "month"}
    # the whole less the others would tell it, so another month goes as well: of both together more than ten are wrong
    assert len(groups) == 1
    assert "2026-02" not in groups
    (course,) = [d for d in card.document["distributions"] if d["kind"] == "accuracy-by-month" and d["metric"] == "accuracy"]
    assert sum(row["value"] is None for row in course["series"]) == 2
    nearly, _ = monitor(tmp_path, [{**row, "triage": row["truth"].lower()} if i > 4 else row for i, row in enumerate(rows(82))], TEXT)
    assert of(nearly, "accuracy-drift")["status"] in {"not-assessed", "not-applicable"}  # 5 wrong at most, or none


def test_balanced_accuracy_needs_every_class_of_the_run(tmp_path: Path) -> None:
    given = [row for row in rows(83) if not (row["truth"] == "HIGH" and row["time"].startswith("2026-02"))]
    _, profile = monitor(tmp_path, given, TEXT)
    months = {group: set(now) for by, group, now, _ in held(profile, None, "triage", {}, 100) if by == "month"}
    assert months == {"2026-01": {"accuracy", "balanced_accuracy"}, "2026-02": {"accuracy"}, "2026-03": {"accuracy", "balanced_accuracy"}}


@pytest.mark.parametrize("seed", range(8))
def test_a_saved_profile_gives_no_small_cell_away(tmp_path: Path, seed: int) -> None:
    draw = np.random.RandomState(seed)
    given = rows(900 + seed, per=int(draw.randint(20, 160)), wrong=float(draw.choice([0.02, 0.1, 0.3])))
    for column, value in (("triage", None), ("triage", "other"), ("truth", None)):
        for i in draw.choice(len(given), draw.randint(0, 16), replace=False):
            given[i][column] = value
    _, exact = monitor(tmp_path, given, TEXT, threads=1)
    saved = hide_profile(exact)
    cells = {key[4:]: values for key, values in saved.frames["confusion"].items()}
    assert not any(key[1] for name in ("confusion", "clusters") for key in saved.frames[name])
    assert not any(small(v) for values in cells.values() for v in values)
    assert not any(small(v) for values in saved.frames["clusters"].values() for v in values)
    if cells:
        counts = {key[2]: v[0] for key, v in saved.frames["predictions"].items()}
        total = sum(v[0] or 0 for v in cells.values())
        unknown = [k for k in ("missing", "unknown-class") if counts.get(k, 0) is None]
        if counts["all"] is not None:  # how many were read is hidden, where that less the classes would tell a few
            assert not small(len(given) - total)
            assert len(unknown) != 1
        by_class: dict[str, int] = {}
        for (name, _), (n, _) in cells.items():
            by_class[name] = by_class.get(name, 0) + (n or 0)
        assert not any(small(n) for n in by_class.values())
    # what is kept gives the figures of the whole run
    data, before = classes.classified(saved, "triage"), classes.classified(exact, "triage")
    if data is not None and before is not None:
        assert measured(data)["accuracy"].value == pytest.approx(measured(before)["accuracy"].value)


def test_where_a_class_is_too_small_to_name_accuracy_is_kept_alone(tmp_path: Path) -> None:
    given = rows(95, per=300)
    rare = [row for row in given if row["truth"] == "HIGH"]
    given = [row for row in given if row["truth"] != "HIGH"] + rare[:8]
    _, exact = monitor(tmp_path, given, TEXT)
    saved = hide_profile(exact)
    assert {key[5] for key in saved.frames["confusion"]} == {"*"}
    data = classes.classified(saved, "triage")
    assert data is not None
    assert set(measured(data)) == {"accuracy"}
    against = [save(tmp_path / "validation.json", Profile.from_json(saved.to_json()))]
    card, _ = monitor(tmp_path, rows(96), TEXT, against=against)
    assert of(card, "accuracy-drift", "accuracy")["status"] == "pass"
    assert of(card, "accuracy-drift", "balanced-accuracy")["status"] == "not-applicable"


def test_the_report_shows_the_course(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").write_text(TEXT)
    given = write(tmp_path / "predictions.csv", rows(97))
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["monitor", given, "--contract", str(tmp_path / "contract.yaml"), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "Balanced accuracy of triage, by group" in page.read_text()
    assert "P97" not in page.read_text()


@pytest.mark.parametrize(("until", "status"), [("2026-02", "pass"), ("2027", "not-assessed")])
def test_months_without_a_known_class_are_not_compared(tmp_path: Path, until: str, status: str) -> None:
    given = rows(9)
    for row in given:
        if row["time"] < until:
            row["triage"] = "another"
    card, _ = monitor(tmp_path, given, TEXT)
    assert of(card, "score-shift")["status"] == status
    assert of(card, "output-valid", "unknown-class")["status"] == "fail"
