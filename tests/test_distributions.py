"""Distributions: live beside training, and nothing small or derivable in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.distributions import CODES, MONTHS, STEPS, difference, distributions
from ehrready.privacy import hide_profile
from ehrready.profile import Profile
from ehrready.suppression import SMALLEST
from tests.helpers.samples import Samples

_COUNT = st.one_of(st.integers(0, 40), st.integers(0, 3000))
_MONTH = st.integers(0, 40).map(lambda i: f"{2023 + i // 12}-{i % 12 + 1:02d}")


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Make a profile of conditions: months, codes of two systems with their totals, and months of two states."""
    made = Profile("p")
    frames = made.frames
    for month, n in draw(st.dictionaries(st.one_of(_MONTH, st.just("")), _COUNT, max_size=12)).items():
        missing = draw(st.integers(0, n))
        patients = draw(st.integers(min(n, 1), n)) if n else 0
        frames["volume"]["condition", month] = (n, patients)
        for group, key in (("all", ""), *((("month", month),) if month else ())):
            for state, count in (("*", n), ("missing", missing), ("coded", n - missing)):
                place = ("condition.code", group, key, state)
                frames["states"][place] = tuple((v or 0) + count for v in frames["states"].get(place, (0,) * 4))
    for system in ("icd10cm", "snomed"):
        counts = draw(st.dictionaries(st.integers(0, 30).map(lambda i: f"C{i:02d}"), _COUNT.filter(bool), max_size=25))
        for code, n in counts.items():
            frames["codes"]["condition.code", system, code] = (n, draw(st.integers(1, n)))
        if counts:
            total = sum(counts.values())
            frames["classes"]["condition.code", system, "exact", "well-formed"] = (total, total, total, total)
    return made


@given(live=profiles(), training=st.one_of(st.none(), profiles()))
def test_nothing_small_leaves_and_nothing_can_be_had_by_subtraction(live: Profile, training: Profile | None) -> None:
    found = distributions(live, training)
    # nothing that the saved profile, fit to leave, does not say
    hidden = hide_profile(live), hide_profile(training) if training else None
    assert found == distributions(*hidden)
    for side, exact in (("live", live), ("training", training)):
        if exact is None:
            assert all(row[side] is None for d in found if "series" in d for row in d["series"])
            assert all(row[f"{side}_share"] is None for d in found if "rows" in d for row in [*d["rows"], d["other"]])
            continue
        for d in found:
            if d["kind"] == "volume-by-month":
                _volume_is_safe(d, side, exact)
            elif d["kind"] == "code-mix":
                _mix_is_safe(d, f"{side}_share", exact)
            elif d["kind"] == "missing-by-month":
                for row in d["series"]:
                    n, of = (
                        exact.frames["states"].get(("condition.code", "month", row["month"], s), (0,))[0] or 0 for s in ("missing", "*")
                    )
                    assert row[side] is None or (not 0 < n < SMALLEST and not 0 < of - n < SMALLEST)


def _volume_is_safe(d: dict[str, Any], side: str, exact: Profile) -> None:
    shown = {row["month"] or "": row[side] for row in d["series"]}
    cells = {month: values for (table, month), values in exact.frames["volume"].items() if table == d["table"]}
    for month, value in shown.items():
        if value:
            assert min(v for v in cells[month] if v is not None) >= SMALLEST
    known = {month for month in cells if shown.get(month) is not None}
    unknown = [cells[month] for month in cells if month not in known and (cells[month][0] or 0) > 0]
    if any(cells[month][0] for month in known):  # then the total may be known, and so what is missing from it
        assert not 0 < sum(values[0] or 0 for values in unknown) < SMALLEST


def _mix_is_safe(d: dict[str, Any], share: str, exact: Profile) -> None:
    cells = {key[2]: values for key, values in exact.rows("codes", d["element"], d["system"])}
    for row in d["rows"]:
        n, patients = cells.get(row["code"], (0, 0))
        assert not 0 < (n or 0) < SMALLEST
        assert not 0 < (patients or 0) < SMALLEST
    named = {row["code"] for row in d["rows"]}
    rest = sum(values[0] or 0 for code, values in cells.items() if code not in named)
    assert not 0 < rest < SMALLEST
    total = sum(values[0] or 0 for values in cells.values())
    for row in [*d["rows"], d["other"]]:  # at least eleven counts would be shown as this share
        assert any(abs(row[share] / step - round(row[share] / step)) < 1e-6 and step * total >= SMALLEST for step in STEPS)


@given(live=profiles(), training=profiles())
def test_they_are_bounded_and_do_not_depend_on_the_order_of_a_frame(live: Profile, training: Profile) -> None:
    found = distributions(live, training)
    turned = Profile("p", True, {name: dict(reversed(frame.items())) for name, frame in live.frames.items()})
    assert distributions(turned, training) == found
    for d in found:
        assert len(d.get("rows", ())) <= CODES
        assert len(d.get("series", ())) <= 2 * MONTHS + 1
        months = [row["month"] for row in d.get("series", ()) if row["month"]]
        assert months == sorted(set(months))
        if d["kind"] == "code-mix":
            assert 0 <= difference(d) <= 1.1  # shares are rounded


def test_a_mistyped_year_does_not_move_the_axis() -> None:
    live = Profile("p")
    live.frames["volume"] = {("condition", m): (100, 90) for m in ("2025-01", "2025-02", "1925-01", "9999-12")}
    (d,) = distributions(live, None)
    assert [(row["month"], row["live"]) for row in d["series"]] == [("2025-01", 100), ("2025-02", 100)]


def test_records_without_a_date_are_told_and_hidden_with_a_month_when_they_are_few() -> None:
    live = Profile("p")
    live.frames["volume"] = {("condition", "2025-01"): (100, 90), ("condition", "2025-02"): (50, 50), ("condition", ""): (5, 5)}
    (d,) = distributions(live, None)
    assert [(row["month"], row["live"]) for row in d["series"]] == [("2025-01", 100), ("2025-02", None), (None, None)]
    (d,) = distributions(live, None, internal=True)
    assert [(row["month"], row["live"]) for row in d["series"]] == [("2025-01", 100), ("2025-02", 50), (None, 5)]


def test_a_rare_code_is_never_named_and_counts_among_the_others() -> None:
    live, training = Profile("p"), Profile("t")
    for profile, rare in ((live, 4), (training, 400)):
        counts = {"E11.9": 500, "I10": 300, "C50.9": rare, "J45": 60}
        profile.frames["codes"] = {("condition.code", "icd10cm", code): (n, n) for code, n in counts.items()}
        total = sum(counts.values())
        profile.frames["classes"] = {("condition.code", "icd10cm", "exact", "well-formed"): (total,) * 4}
    (d,) = distributions(live, training)
    assert {row["code"] for row in d["rows"]} == {"E11.9", "I10"}
    assert d["other"] == {"live_share": 0.08, "training_share": 0.37}
    (d,) = distributions(live, training, internal=True)
    assert [row["code"] for row in d["rows"]] == ["C50.9", "E11.9", "I10", "J45"]


def test_the_sample_shows_the_new_codes_of_the_live_data(samples: Samples) -> None:
    document = samples.card("live", "fhir", samples.profile("training", "fhir")).document
    kinds = {d["kind"] for d in document["distributions"]}
    assert kinds == {"volume-by-month", "missing-by-month", "code-mix"}
    mix = next(d for d in document["distributions"] if d["kind"] == "code-mix")
    assert (mix["element"], mix["system"]) == ("condition.code", "icd10cm")
    assert mix["rows"][0]["training_share"] == 0 < mix["rows"][0]["live_share"]
    unit = next(d for d in document["distributions"] if d.get("element") == "observation.unit")
    assert {row["training"] for row in unit["series"] if row["training"] is not None} == {0.0}
    assert max(row["live"] or 0 for row in unit["series"]) == pytest.approx(0.1, abs=0.05)


def test_the_scorecard_says_what_each_rule_asks_and_what_each_check_counts(samples: Samples) -> None:
    document = samples.card("live", "fhir").document
    assert {f["check"] for f in document["findings"]} == document["checks"].keys()
    assert {f["rule"] for f in document["findings"]} == document["rules"].keys()
    assert all(words["numerator_text"] and words["denominator_text"] and words["question"] for words in document["checks"].values())
    assert document["rules"]["patient-birth-date-present"]["fail"] == 0.02
