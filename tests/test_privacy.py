"""Small cells: hidden, and not to be had by subtraction, in scorecards and in saved profiles."""

from __future__ import annotations

import itertools
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ehrready
from ehrready.privacy import hide_profile
from ehrready.profile import Frame, Profile, Values
from ehrready.suppression import SMALLEST

ICD = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9"}
SCT = {"system": "http://snomed.info/sct", "code": "44054006"}


def conditions(folder: Path, *, total: int, missing: int, text: int = 0, people: int | None = None, canary: str = "") -> Path:
    """Write a data set of conditions, one patient each (or ``people`` patients), with missing and text-only codes."""
    folder.mkdir()
    lines = []
    for i in range(total):
        owner = f"{canary}p{i % (people or total)}"
        code = {"coding": [ICD, SCT]} if i >= missing + text else {"text": f"{canary} words"} if i >= missing else None
        condition = {"resourceType": "Condition", "id": f"{canary}{i}", "subject": {"reference": f"Patient/{owner}"},
                     "onsetDateTime": "2024-03-05", "recorder": {"display": canary}}  # fmt: skip
        lines.append(condition | ({"code": code} if code else {}))
    (folder / f"{canary}c.ndjson").write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return folder


def test_a_small_cell_is_hidden_and_no_two_denominators_differ_by_it(tmp_path: Path) -> None:
    card = ehrready.check(conditions(tmp_path / "x", total=200, missing=5)).document
    shown = [f for f in card["findings"] if f["element"] == "condition.code"]
    missing = next(f for f in shown if f["rule"] == "code-present" and f["defect"] == "missing")
    assert (missing["hidden"], missing["numerator"], missing["denominator"], missing["rate"]) == (True, None, None, None)
    denominators = {f["denominator"] for f in shown if f["denominator"]}
    assert all(not 0 < abs(a - b) < SMALLEST for a, b in itertools.combinations(denominators, 2))
    assert " 5 of " not in str(card)


def test_internal_scorecards_show_exact_counts_and_say_so(tmp_path: Path) -> None:
    card = ehrready.check(conditions(tmp_path / "x", total=200, missing=5), internal=True).document
    missing = next(f for f in card["findings"] if f["rule"] == "code-present" and f["element"] == "condition.code")
    assert (missing["numerator"], missing["denominator"], card["internal"]) == (5, 200, True)


def test_many_records_of_few_patients_are_hidden_too(tmp_path: Path) -> None:
    card = ehrready.check(conditions(tmp_path / "x", total=300, missing=60, people=5)).document
    assert card["subject"]["patients"] is None
    assert all(f["numerator"] is None for f in card["findings"] if f["rule"] == "code-present" and f["element"] == "condition.code")


def test_hidden_training_does_not_turn_alarms_into_passes(tmp_path: Path) -> None:
    training = ehrready.profile_of(conditions(tmp_path / "t", total=400, missing=5))
    live = conditions(tmp_path / "l", total=400, missing=400)
    for profile in (training, hide_profile(training)):
        card = ehrready.check(live, against=profile).document
        shift = [f for f in card["findings"] if f["check"] == "presence-shift" and f["element"] == "condition.code"]
        # 395 coded concepts stand in several frames, and 5 missing follow from each: a saved profile cannot say what vanished
        assert [(f["defect"], f["status"]) for f in shift] == [("vanished", "fail") if profile.internal else ("", "not-assessed")]


def test_a_hidden_defect_is_not_masked_by_a_passing_sibling(tmp_path: Path) -> None:
    exact = ehrready.profile_of(conditions(tmp_path / "h", total=150, missing=10))
    assert ehrready.compare(exact, exact).verdict == "not-ready"
    hidden = hide_profile(exact)
    card = ehrready.compare(hidden, hidden)
    assert card.verdict != "ready"


def test_no_value_of_a_patient_is_in_any_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ehrready.reporters import html

    canary = "ZQXCANARY"
    folder = conditions(tmp_path / "x", total=60, missing=12, text=20, canary=canary)
    card = ehrready.check(folder)
    profile = ehrready.profile_of(folder)
    outputs = [card.to_json(), html.render(card).encode(), hide_profile(profile).to_json(), profile.to_json()]
    assert [canary.encode() in output for output in outputs] == [False] * 4
    assert canary not in "".join(capfd.readouterr())


def _values(n: int) -> Values:
    return (n, n, n, n)


@given(
    cells=st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["missing", "coded", "text-only"])), st.integers(0, 60), min_size=2
    )
)
def test_no_sum_of_the_saved_states_leaves_one_small_cell(cells: dict[tuple[str, str], int]) -> None:
    states: Frame = {}
    for (month, state), n in cells.items():
        for key in (("e", "month", month, state), ("e", "all", "", state), ("e", "month", month, "*"), ("e", "all", "", "*")):
            states[key] = _values((states.get(key, (0,))[0] or 0) + n)
    profile = Profile.zero()
    profile.frames["states"] = states
    hidden = hide_profile(profile).frames["states"]
    for group in {key[:3] for key in states}:
        if hidden[*group, "*"][0] is None:
            continue
        parts = [key for key in states if key[:3] == group and key[3] != "*"]
        _not_derivable(states, hidden, parts)
    for state in {key[3] for key in states if key[3] != "*" and hidden["e", "all", "", key[3]][0] is not None}:
        _not_derivable(states, hidden, [("e", "month", month, state) for month in "abc" if ("e", "month", month, state) in states])


def _not_derivable(exact: Frame, hidden: Frame, parts: list[tuple[str, ...]]) -> None:
    gone = [key for key in parts if hidden[key][0] is None]
    assert all(not 0 < (exact[key][0] or 0) < SMALLEST for key in parts if key not in gone)
    rest = [key for key in parts if key not in gone and exact[key][0]]
    if gone and rest:
        assert len(gone) > 1
        assert sum(exact[key][0] or 0 for key in gone) >= SMALLEST


def test_what_goes_with_a_small_cell_does_not_depend_on_the_order_of_the_rows() -> None:
    """Rows come as the engine's threads made them; the same measures must give the same bytes."""
    states: Frame = {
        ("condition.at", "all", "", "present"): (42, 41, 44, 47),
        ("condition.at", "race", "white", "present"): (34, 33, 36, 39),
        ("condition.at", "sex", "male", "*"): (65, 48, 117, 117),
        ("condition.at", "sex", "male", "missing"): (23, 10, 67, 70),
        ("condition.at", "sex", "male", "present"): (42, 41, 44, 47),
    }
    hidden = set()
    for rows in itertools.permutations(states.items()):
        profile = Profile.zero()
        profile.frames["states"] = dict(rows)
        hidden.add(hide_profile(profile).to_json())
    assert len(hidden) == 1
