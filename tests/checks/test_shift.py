"""Numbers against training: SciPy's figures, quiet on samples of one population, loud where values moved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ehrready.checks import CHECKS, Outcome
from ehrready.checks.shift import compare
from ehrready.histograms import bucket_of, coarse_of, middle
from ehrready.profile import Profile

GLUCOSE = ("loinc", "2345-7", "mg/dL")


@given(st.lists(st.integers(1, 40), min_size=2, max_size=60), st.lists(st.integers(1, 40), min_size=2, max_size=60))
def test_gap_and_distance_are_scipys(a: list[int], b: list[int]) -> None:
    now, then = (sorted(Counter(float(x) for x in side).items()) for side in (a, b))
    gap, distance = compare(now, then)
    assert gap == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-9)
    spread = _spread(then)
    if spread:
        assert distance * spread == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)


def _spread(cells: list[tuple[float, int]]) -> float:
    from ehrready.histograms import quantile

    return quantile(cells, 0.75) - quantile(cells, 0.25)


def made(values: np.ndarray) -> Profile:
    """Return a profile of one result per patient."""
    profile = Profile("made")
    for value in values.tolist():
        for bucket in (bucket_of(value), coarse_of(bucket_of(value))):
            n = (profile.frames["values"].get((*GLUCOSE, bucket)) or (0, 0))[0] or 0
            profile.frames["values"][(*GLUCOSE, bucket)] = (n + 1, n + 1)
    n = len(values)
    profile.frames["units"]["observation.unit", *GLUCOSE] = (n, n, n, n)
    return profile


def found(live: np.ndarray, training: np.ndarray) -> dict[str, Outcome]:
    return {o.defect: o for o in CHECKS["value-shift"].run(made(live), made(training), "observation.value")}


def test_samples_of_one_population_raise_no_alarm() -> None:
    draw = np.random.RandomState(5)
    training = draw.lognormal(4.6, 0.2, 3000)
    for size in (150, 300, 3000):
        for _ in range(10):
            assert {o.status for o in found(draw.lognormal(4.6, 0.2, size), training).values()} == {"pass"}


def test_a_fifth_more_is_a_shift_and_named() -> None:
    draw = np.random.RandomState(6)
    outcome = found(1.2 * draw.lognormal(4.6, 0.2, 1000), draw.lognormal(4.6, 0.2, 3000))["shifted"]
    assert outcome.status == "fail"
    assert "2345-7 in mg/dL: median" in outcome.detail


def test_a_fifth_of_the_results_a_fifth_higher_is_a_shift_of_many_patients() -> None:
    draw = np.random.RandomState(8)
    live = draw.lognormal(4.6, 0.2, 3000)
    live[:600] *= 1.2
    outcome = found(live, draw.lognormal(4.6, 0.2, 3000))["shifted"]
    assert outcome.status == "fail"
    assert outcome.independent == (3000, 3000)


def test_values_beyond_training_are_a_tail() -> None:
    draw = np.random.RandomState(7)
    live = np.concatenate([draw.lognormal(4.6, 0.2, 940), np.full(60, 2000.0)])
    outcome = found(live, draw.lognormal(4.6, 0.2, 3000))["tail"]
    assert outcome.status == "fail"
    assert outcome.n is not None
    assert 60 <= outcome.n <= 66


def test_the_middle_of_a_bucket_is_within_a_percent() -> None:
    for value in (0.013, 1.0, 104.0, 98765.4):
        assert middle(bucket_of(value)) == pytest.approx(value, rel=0.0101)
