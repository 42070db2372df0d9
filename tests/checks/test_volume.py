"""The volume of single codes: quiet on samples of one population, named when a test stops, whatever the whole does."""

from __future__ import annotations

import numpy as np
import pytest

from ehrready.checks import CHECKS, Outcome
from ehrready.profile import Profile

ELEMENT, SYSTEM = "observation.code", "loinc"


def made(seed: int, patients: int, rates: np.ndarray, *, sticky: bool = False, months: int = 12) -> Profile:
    """Return a profile of patients who have each code at its rate a month; ``sticky`` ones have what they have many times."""
    draw = np.random.RandomState(seed)
    profile = Profile("made")
    total = np.zeros(patients, dtype=np.int64)
    for j, rate in enumerate(rates):
        counts = draw.poisson(rate * months / (8 if sticky else 1), size=patients) * (8 if sticky else 1)
        total += counts
        if counts.sum():
            n = int(counts.sum())
            profile.frames["codes"][ELEMENT, SYSTEM, f"{1000 + j}-0"] = (n, int((counts > 0).sum()), int((counts**2).sum()), 0)
    for month in range(months):
        profile.frames["volume"]["observation", f"2024-{month + 1:02d}"] = (int(total.sum()) // months, patients)
    return profile


def judged(live: Profile, training: Profile) -> Outcome:
    (outcome,) = CHECKS["code-volume-shift"].run(live, training, ELEMENT)
    return outcome


RATES = np.geomspace(0.02, 0.3, 25)


@pytest.mark.parametrize("sticky", [False, True])
def test_samples_of_one_population_raise_no_alarm(sticky: bool) -> None:
    training = made(1, 1500, RATES, sticky=sticky)
    alarms = [seed for seed in range(2, 32) if judged(made(seed, 250, RATES, sticky=sticky), training).status == "fail"]
    assert len(alarms) <= 1


def test_a_test_that_stops_is_named_and_one_that_vanished_too() -> None:
    fewer = RATES.copy()
    fewer[20] *= 0.2
    fewer[10] = 0.0
    outcome = judged(made(2, 800, fewer), made(1, 1500, RATES))
    assert (outcome.status, outcome.n) == ("fail", 2)
    assert "loinc 1020-0 0.2" in outcome.detail
    assert "loinc 1010-0 0.00 times" in outcome.detail


def test_a_whole_that_doubles_and_a_shorter_export_are_no_code_that_changed() -> None:
    training = made(1, 1500, RATES)
    assert judged(made(2, 800, 2.5 * RATES), training).status == "pass"
    assert judged(made(3, 800, RATES, months=3), training).status == "pass"


def test_a_code_of_few_patients_is_not_named() -> None:
    fewer = RATES.copy()
    fewer[24] *= 0.002
    live = made(2, 800, fewer)
    assert 0 < (live.frames["codes"][ELEMENT, SYSTEM, "1024-0"][1] or 0) <= 10
    outcome = judged(live, made(1, 1500, RATES))
    assert outcome.n == 1
    assert "1024-0" not in outcome.detail


def with_patients(profile: Profile, patients: int) -> Profile:
    profile.frames["states"][ELEMENT, "all", "", "*"] = (5 * patients, patients, 0, 0)
    return profile


def gone(live: Profile, training: Profile) -> Outcome:
    (outcome,) = CHECKS["codes-no-longer-seen"].run(live, training, ELEMENT)
    return outcome


def test_training_codes_that_vanished_are_counted_and_named() -> None:
    training = with_patients(made(1, 1500, RATES), 1500)
    fewer = RATES.copy()
    fewer[15] = 0.0
    outcome = gone(with_patients(made(2, 800, fewer), 800), training)
    n = training.frames["codes"][ELEMENT, SYSTEM, "1015-0"][0]
    assert (outcome.status, outcome.n) == ("fail", n)
    assert "loinc 1015-0" in outcome.detail


def test_rare_codes_that_a_small_sample_lacks_by_chance_are_no_alarm() -> None:
    rare = np.full(400, 0.0006)
    training = with_patients(made(1, 3000, rare), 3000)
    for seed in range(2, 12):
        outcome = gone(with_patients(made(seed, 150, rare), 150), training)
        assert outcome.n is not None
        assert outcome.n > 0.1 * (outcome.of or 0)
        assert outcome.status == "pass"
