"""A few predictions without a possible output cannot be worked out from anything that is saved or shown (docs/privacy.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ehrready.privacy import hide_profile
from ehrready.production import accuracy
from ehrready.profile import Profile
from ehrready.suppression import small
from tests.production.test_monitor import TEXT, monitor, of, rows, save, write

Row = dict[str, Any]
TWO = TEXT.replace("label:", "  - {name: other, kind: score, range: [0, 1]}\nlabel:")
CLASS = """contract: "1.0"
model: {name: triage, version: 1.0.0}
features:
  - {name: creatinine, table: observation}
outputs:
  - {name: triage, kind: class, classes: [low, high]}
label: {name: truth, delay_days: 0}
"""
NOTES = TEXT.replace("label:", "  - {name: note, kind: text}\nlabel:")


def given(missing: int, valid: int = 860) -> list[Row]:
    """Return predictions of which so many are missing, the valid ones being the same whatever their number."""
    made = rows(700, per=300)
    lost = [{**row, "patient_id": f"M{i}", "risk": None} for i, row in enumerate(made[:missing])]
    return made[:valid] + lost


def numbers(profile: Profile, document: Row, output: str) -> tuple[set[int], set[int]]:
    """Return what is published of all predictions, and of the valid ones: every count, and the sums that anybody can make."""
    valid: set[int | None] = set()
    for frame in ("scores", "confusion", "clusters"):
        for place in (0, 1):
            found = [values[place] for key, values in profile.frames[frame].items() if key[0] == output]
            valid |= {_sum(found)}
    counts = {key[2]: values for key, values in profile.frames["predictions"].items() if key[0] == output}
    valid |= {values[1] for kind, values in counts.items() if kind in {"unlabelled", "uncited"}} - {None}
    classes = [values[0] for kind, values in counts.items() if kind.startswith("class ")]
    valid |= {_sum(classes)} if classes else set()
    every = {values[1] for kind, values in counts.items() if kind not in {"unlabelled", "uncited"} and not kind.startswith("is ")}
    every |= {counts["all"][0], counts["all"][2], profile.frames["patients"]["predicted", ""][0], document["subject"]["patients"]}
    for place in (0, 1):
        months = [values[place] for values in profile.frames["volume"].values()]
        every |= {_sum(months)}
    shown = [f for f in document["findings"] if f["check"] in {"output-valid", "alert-share", "score-shift", "ingest-accounted"}]
    every |= {f["denominator"] for f in shown}
    # what has a rate and a numerator elsewhere has a denominator
    alerts = counts.get("alert", (None,))[0]
    every |= {round(alerts / f["rate"]) for f in shown if f["defect"] == "alert" and alerts and f["rate"]}
    records = [
        profile.total("profiled"),
        *(row["profiled"] for row in document["ledger"]),
        *(row["declared"] for row in document["ledger"]),
    ]
    records += [document["subject"]["records"]["profiled"], *(v[1] for v in profile.frames["declared"].values())]
    if counts["all"][0] is None:
        assert {n % 10 for n in records if n is not None} <= {0}, "rounded"
    else:
        every |= set(records)
    return {n for n in every if n is not None}, {n for n in valid if n is not None}


def _sum(found: list[int | None]) -> int | None:
    """Return the sum; None where a part is hidden, or there is none."""
    known = [n for n in found if n is not None]
    return sum(known) if known and len(known) == len(found) else None


@pytest.mark.parametrize("missing", [0, 1, 5, 10, 11, 40])
@pytest.mark.parametrize("name", ["predictions.csv", "predictions.parquet"])
def test_missing_predictions_cannot_be_subtracted(tmp_path: Path, missing: int, name: str) -> None:
    card, exact = monitor(tmp_path, given(missing), name=name)
    saved = Profile.from_json(hide_profile(exact).to_json())
    every, valid = numbers(saved, dict(card.document), "risk")
    assert 860 in valid
    assert not {a - b for a in every for b in valid} & set(range(1, 11))
    finding, row = of(card, "output-valid", "missing"), saved.frames["predictions"]["risk", "", "missing"]
    if small(missing):
        assert row == (None, None, None)
        assert (finding["hidden"], finding["numerator"], finding["rate"]) == (True, None, None)
        assert finding["status"] in {"warn", "fail"}
    else:
        assert row == (missing, 860 + missing, missing)
        assert (finding["numerator"], finding["denominator"]) == (missing, 860 + missing)
        assert 860 + missing in every


@pytest.mark.parametrize("numbers_missing", [(1, 2, 3, 4), (5, 7, 10)])
def test_what_is_published_is_the_same_whatever_the_few_are(tmp_path: Path, numbers_missing: tuple[int, ...]) -> None:
    """Apart from what the limit says (more than 0.5 % or not) nothing depends on how many they are, rounded numbers included."""
    told = []
    for missing in numbers_missing:
        card, exact = monitor(tmp_path, given(missing))
        saved, document = hide_profile(exact).as_dict(), json.loads(card.to_json())
        for row in saved["frames"]["ledger"]["rows"]:
            row[4] = 0  # bytes
        document["provenance"]["input_sha256"] = document["subject"]["bytes"] = document["ledger"][0]["bytes"] = None
        # the share of alerts in a month, in whole percent, is of all its predictions, whose number is not told
        document["distributions"] = [d for d in document["distributions"] if d["kind"] != "production-by-month"]
        told.append(json.dumps([saved, document], sort_keys=True, default=list))
    assert len(set(told)) == 1


def test_another_output_of_the_same_table_tells_nothing(tmp_path: Path) -> None:
    made = [{**row, "other": 0.3 + i % 5 / 10} for i, row in enumerate(given(5))]
    card, exact = monitor(tmp_path, made, TWO)
    saved = hide_profile(exact)
    for output in ("risk", "other"):
        every, valid = numbers(saved, dict(card.document), output)
        assert valid
        assert not every
    assert saved.frames["predictions"]["other", "", "missing"] != (0, 865, 0)
    zeros = [saved.frames["predictions"]["other", "", kind][0] for kind in ("missing", "not-a-number", "below-range", "above-range")]
    assert None in zeros, "its valid scores and nothing wrong would be all predictions"


def test_a_few_behind_many_of_another_kind_are_not_told(tmp_path: Path) -> None:
    made = given(5)
    for row in made[:20]:
        row["risk"] = 1.5
    card, exact = monitor(tmp_path, made)
    saved = hide_profile(exact)
    counts = {key[2]: values for key, values in saved.frames["predictions"].items()}
    assert counts["missing"][0] is None
    assert counts["all"][0] is None or counts["above-range"][0] is None
    assert (of(card, "output-valid", "above-range")["numerator"] is None) == (counts["above-range"][0] is None)


def test_classes_and_texts_tell_nothing_either(tmp_path: Path) -> None:
    made = [{**row, "triage": ("low", "high")[i % 2], "truth": ("low", "high")[i % 3 > 0]} for i, row in enumerate(given(0))]
    for row in made[:5]:
        row["triage"] = None
    card, exact = monitor(tmp_path, made, CLASS)
    saved = hide_profile(exact)
    every, valid = numbers(saved, dict(card.document), "triage")
    assert 855 in valid, "class by true class stays for a baseline"
    assert not {a - b for a in every for b in valid} & set(range(1, 11))
    noted = [{**row, "note": "A text." if i > 4 else None, "citations": None} for i, row in enumerate(given(0))]
    card, exact = monitor(tmp_path, noted, NOTES)
    saved = hide_profile(exact)
    every, valid = numbers(saved, dict(card.document), "note")
    assert not {a - b for a in every for b in valid} & set(range(1, 11))


def test_a_baseline_with_hidden_counts_stays_one(tmp_path: Path) -> None:
    _, exact = monitor(tmp_path, given(5))
    saved = Profile.from_json(hide_profile(exact).to_json())
    assert accuracy.alerts(saved, "risk") == (exact.frames["predictions"]["risk", "", "alert"][0], 860)
    against = [save(tmp_path / "validation.json", saved)]
    card, _ = monitor(tmp_path, rows(701), against=against)
    for rule, defect in (("alert-share", "alert"), ("score-shift", "score-mix"), ("accuracy-drift", "auroc")):
        assert of(card, rule, defect)["status"] == "pass", rule
    worse, _ = monitor(tmp_path, rows(702, noise=1.0), against=against)
    assert of(worse, "accuracy-drift", "auroc")["status"] == "fail"


def test_a_check_of_a_hidden_count_is_no_pass(tmp_path: Path) -> None:
    """The saved profile judged by itself: what it hides is not assessed, and few alerts of a validation are no share."""
    from ehrready.pipeline import Options, judge

    _, exact = monitor(tmp_path, given(5))
    card = judge(hide_profile(exact), None, Options(contract=str(tmp_path / "contract.yaml")))
    for rule, defect in (
        ("output-valid", "missing"),
        ("output-valid", "above-range"),
        ("prediction-once", "duplicate"),
        ("alert-share", "alert"),
    ):
        assert of(card, rule, defect)["status"] == "not-assessed", (rule, defect)
    made = given(5)
    for row in made:
        row["risk"] = None if row["risk"] is None else min(row["risk"], 0.39)
    for row in made[:7]:
        row["risk"] = 0.9
    _, few = monitor(tmp_path, made)
    card, _ = monitor(tmp_path, rows(703), against=[save(tmp_path / "few.json", hide_profile(few))])
    assert of(card, "alert-share")["status"] == "not-assessed"
    assert "alert_share" in of(card, "alert-share")["reason"]


def test_a_month_is_not_told_by_the_others(tmp_path: Path) -> None:
    made = rows(704, per=100)
    for month, many in (("2026-01", 12), ("2026-02", 13), ("2026-03", 5)):
        for row in [row for row in made if row["time"].startswith(month)][:many]:
            row["risk"] = None
    card, _ = monitor(tmp_path, made)
    (series,) = [d["series"] for d in card.document["distributions"] if d.get("measure") == "missing"]
    assert [point["share"] is None for point in series] == [True, False, True]
    path = write(tmp_path / "again.csv", made)
    exact, _ = monitor(tmp_path, path, internal=True)
    assert of(exact, "output-valid", "missing")["numerator"] == 30
