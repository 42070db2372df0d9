"""Which release codes come from: laws on small made tables, behaviour over quarters, the real history where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.terminology import fingerprint
from ehrready.terminology.fingerprint import infer, infer_strata

LABELS = ["FY2020", "FY2021", "FY2022", "FY2023"]
DATES = ["2019-10-01", "2020-10-01", "2021-10-01", "2022-10-01"]


def table() -> np.ndarray:
    """2,000 codes of every release; 200 new in each, 100 retired in each."""
    always = np.ones((2000, 4), dtype=bool)
    new = [np.tile(np.arange(4) >= r, (200, 1)) for r in (1, 2, 3)]
    gone = [np.tile(np.arange(4) < r, (100, 1)) for r in (1, 2, 3)]
    return np.concatenate([always, *new, *gone])


VALID = table()


def used(release: int, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Return a random share of the codes of a release."""
    rows = np.flatnonzero(VALID[:, release])
    return np.random.RandomState(seed).choice(rows, int(share * len(rows)), replace=False)


@pytest.mark.parametrize("release", range(4))
def test_a_feed_in_one_release_is_told_with_evidence(release: int) -> None:
    found = infer(VALID, LABELS, used(release))
    assert (found.releases, found.pattern) == ((LABELS[release],), "single")
    assert found.probability is not None
    assert found.probability >= 0.99
    assert any(LABELS[release] in line or "none of the" in line for line in found.evidence)


@given(seed=st.integers(0, 10**6), release=st.integers(0, 3), size=st.integers(0, 400))
def test_a_statement_never_leaves_the_truth_out_and_is_never_sure_of_little(seed: int, release: int, size: int) -> None:
    rows = np.flatnonzero(VALID[:, release])
    seen = np.random.RandomState(seed).choice(rows, size, replace=False)
    found = infer(VALID, LABELS, seen)
    if len(found.releases) == 1:
        assert found.n_discriminating >= fingerprint.DISCRIMINATING
        assert found.releases == (LABELS[release],)


@given(seed=st.integers(0, 10**6), release=st.integers(0, 3))
def test_the_order_of_codes_and_rows_does_not_matter(seed: int, release: int) -> None:
    draw = np.random.RandomState(seed)
    seen = used(release, 0.1, seed)
    shuffled = draw.permutation(len(VALID))
    place = np.argsort(shuffled)
    assert infer(VALID[shuffled], LABELS, draw.permutation(place[seen])) == infer(VALID, LABELS, seen)


def test_releases_with_the_same_codes_are_stated_together() -> None:
    doubled = VALID[:, [0, 1, 1, 2, 3]]
    found = infer(doubled, ["A", "B", "B update", "C", "D"], used(1))
    assert found.releases == ("B", "B update")
    assert found.pattern == "single"


def test_codes_of_nowhere_and_too_few_codes_cannot_tell() -> None:
    assert infer(VALID, LABELS, np.array([], dtype=np.int64)).pattern == "cannot-tell"
    few = infer(VALID, LABELS, np.arange(5))
    assert (few.releases, few.pattern) == ((), "cannot-tell")
    foreign = infer(VALID, LABELS, used(2)[:100], unknown=60)
    assert "in no release" in foreign.reason


def test_a_pool_of_feeds_is_not_one_release() -> None:
    found = infer(VALID, LABELS, np.concatenate([used(0, seed=1), used(3, seed=2)]))
    assert found.pattern in {"mixed", "cannot-tell"}
    assert len(found.releases) != 1


QUARTERS = ["2020-Q1", "2020-Q3", "2021-Q1", "2021-Q3", "2022-Q1", "2022-Q3", "2023-Q1"]
IN_FORCE = [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("releases", "pattern"),
    [
        (IN_FORCE, "tracks-calendar"),
        ([0] * 7, "frozen"),
        ([3] * 7, "re-mapped"),
        ([0, 0, 0, 0, 1, 1, 2], "lagging"),
    ],
)
def test_quarters_tell_how_a_feed_keeps_up(releases: list[int], pattern: str) -> None:
    strata = {quarter: (used(release, seed=i), 0) for i, (quarter, release) in enumerate(zip(QUARTERS, releases, strict=True))}
    overall, quarters = infer_strata(VALID, LABELS, DATES, strata)
    assert overall.pattern == pattern
    assert set(overall.releases) == {LABELS[release] for release in releases}
    assert [quarters[quarter].releases for quarter in QUARTERS] == [(LABELS[release],) for release in releases]


def test_an_undated_pool_is_never_one_release() -> None:
    overall, _ = infer_strata(VALID, LABELS, DATES, {"": (used(2), 0)})
    assert (overall.releases, overall.pattern) == ((), "cannot-tell")
    assert "undated" in overall.reason


def test_quarters_that_repeat_few_codes_do_not_become_sure() -> None:
    few = np.concatenate([np.arange(150), np.flatnonzero(~VALID[:, 2] & VALID[:, 3])[:6]])
    overall, _ = infer_strata(VALID, LABELS, DATES, dict.fromkeys(QUARTERS, (few, 0)))
    assert overall.n_discriminating == 6
    assert len(overall.releases) != 1


def test_the_real_history_two_thousand_codes_tell_the_year(shared: Path) -> None:
    from benchmarks.release_inference import History, cell

    found = cell(History(shared / "terminology"), 60, 4, n=2000, noise=0.005, adoption=1.0, shape=1.07)
    assert found["right"] >= 0.9  # 0.98 over 120 runs, docs/terminology-inference.md
    assert found["wrong_sure"] == 0
