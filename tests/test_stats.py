"""Statistics against SciPy and against simulation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready import stats


@given(of=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_is_scipys(of: int, share: float) -> None:
    scipy_stats = pytest.importorskip("scipy.stats", reason="SciPy comes with great-expectations")
    n = round(of * share)
    low, high = scipy_stats.binomtest(n, of).proportion_ci(method="wilson")
    assert list(stats.wilson(n, of)) == pytest.approx([low, high], abs=1e-9)


def test_newcombe_reproduces_the_papers_example() -> None:
    # Newcombe 1998 (Stat Med 17:873), table II, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339
    low, high = stats.newcombe(56 / 70, 70, 48 / 80, 80)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@given(counts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_effective_n_stays_between_one_and_the_rows(counts: list[tuple[int, int]]) -> None:
    pairs = [(n, n + rest) for n, rest in counts if n + rest]
    n, of = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    result = stats.effective_n(n, of, sum(a * a for a, _ in pairs), sum(b * b for _, b in pairs), sum(a * b for a, b in pairs))
    assert 0 <= result <= of
    assert (result >= 1) == (of > 0)


def test_effective_n_is_the_number_of_patients_when_each_has_all_or_nothing() -> None:
    # 40 patients with 10 rows each, 10 of them always missing: 400 rows say no more than 40
    n, of, n2, of2, n_of = 100, 400, 10 * 100, 40 * 100, 10 * 100
    assert stats.effective_n(n, of, n2, of2, n_of) == pytest.approx(40)


def test_benjamini_hochberg_rejects_the_step_up_set() -> None:
    assert stats.benjamini_hochberg([0.001, 0.5, 0.004, 0.03], q=0.01) == [True, False, True, False]
    assert stats.benjamini_hochberg([], q=0.01) == []
