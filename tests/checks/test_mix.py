"""Code mix, volume and subgroups: quiet on samples of one population, sure when something moved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from ehrready.checks import CHECKS, Outcome
from ehrready.checks.mix import js_distance
from ehrready.profile import Profile

ELEMENT, SYSTEM = "condition.code", "icd10cm"


def sampled(seed: int, patients: int, weights: np.ndarray, per_patient: int = 4, sticky: float = 0.0) -> Profile:
    """Return a profile of patients who each have some codes; ``sticky`` patients have one code over and over."""
    draw = np.random.RandomState(seed)
    counts = np.zeros((patients, len(weights)), dtype=np.int64)
    for i in range(patients):
        size = 1 + draw.poisson(per_patient)
        if draw.random_sample() < sticky:
            counts[i, draw.choice(len(weights), p=weights)] = size * 3
        else:
            counts[i] = draw.multinomial(size, weights)
    return of_counts(counts)


def of_counts(counts: np.ndarray) -> Profile:
    profile = Profile("made")
    total = counts.sum(axis=1)
    for j in range(counts.shape[1]):
        n = counts[:, j]
        if n.sum():
            values = (int(n.sum()), int((n > 0).sum()), int((n * n).sum()), int((n * total).sum()))
            profile.frames["codes"][ELEMENT, SYSTEM, f"A{j:02d}.0"] = values
    everyone = (int(total.sum()), len(counts), int((total**2).sum()), int((total**2).sum()))
    profile.frames["classes"][ELEMENT, SYSTEM, "exact", "well-formed"] = everyone
    return profile


def zipf(codes: int) -> np.ndarray:
    weights: np.ndarray = 1.0 / np.arange(1, codes + 1)
    weights /= weights.sum()
    return weights


def mix(live: Profile, training: Profile) -> Outcome:
    outcome, *categories = CHECKS["code-mix-shift"].run(live, training, ELEMENT)
    assert categories == []  # no two codes of a category
    return outcome


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_the_distance_is_scipys(a: list[int], b: list[int]) -> None:
    p, q = (np.array([*x, 1.0]) / (sum(x) + 1) for x in (a, b))
    assert js_distance(p, q) == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-7)


@pytest.mark.parametrize("sticky", [0.0, 0.5])
def test_samples_of_one_population_raise_no_alarm(sticky: float) -> None:
    weights = zipf(90)
    training = sampled(1, 1500, weights, sticky=sticky)
    alarms = [seed for seed in range(2, 42) if mix(sampled(seed, 300, weights, sticky=sticky), training).status == "fail"]
    assert len(alarms) <= 2  # the limit is the noise's 99th percentile


def test_a_tenth_of_the_records_moving_to_another_code_is_seen_and_named() -> None:
    weights = zipf(90)
    moved = weights.copy()
    moved[0] -= 0.1
    moved[40] += 0.1
    outcome = mix(sampled(5, 2000, moved), sampled(1, 2000, weights))
    assert outcome.status == "fail"
    assert "A40.0 +" in outcome.detail
    assert "A00.0 -" in outcome.detail
    assert outcome.n is not None
    assert outcome.of is not None
    assert outcome.n / outcome.of == pytest.approx(0.1, abs=0.05)


def test_clustering_in_patients_lowers_the_effective_number() -> None:
    weights = zipf(30)
    free, sticky = (mix(sampled(3, 800, weights, sticky=s), sampled(1, 800, weights, sticky=s)) for s in (0.0, 0.9))
    effective = [float(o.detail.split("effective n ")[1].split(" ")[0].replace(",", "")) for o in (free, sticky)]
    assert effective[1] < 0.5 * effective[0]


def by_category(profile: Profile, per: int = 3) -> Profile:
    """Give each ``per`` codes one ICD category."""
    codes = dict(profile.frames["codes"])
    profile.frames["codes"].clear()
    for i, (_, values) in enumerate(sorted(codes.items())):
        profile.frames["codes"][ELEMENT, SYSTEM, f"B{i // per:02d}.{i % per}"] = values
    people = profile.frames["classes"][ELEMENT, SYSTEM, "exact", "well-formed"]
    profile.frames["states"][ELEMENT, "all", "", "*"] = profile.frames["states"][ELEMENT, "all", "", "coded"] = people
    return profile


def categories(live: Profile, training: Profile) -> dict[str, Outcome]:
    return {o.defect: o for o in CHECKS["code-mix-shift"].run(by_category(live), by_category(training), ELEMENT)}


def test_codes_that_change_places_within_a_category_move_no_category() -> None:
    weights = zipf(30)
    training = sampled(1, 2000, weights)
    within, across = weights.copy(), weights.copy()
    within[0], within[2] = weights[2], weights[0]  # both of B00
    across[0], across[29] = weights[29], weights[0]
    one, other = categories(sampled(5, 2000, within), training), categories(sampled(5, 2000, across), sampled(1, 2000, weights))
    assert {defect: o.status for defect, o in one.items()} == {"code-mix": "fail", "category-mix": "pass"}
    assert {defect: o.status for defect, o in other.items()} == {"code-mix": "fail", "category-mix": "fail"}
    assert "B00 -" in other["category-mix"].detail
    assert other["category-mix"].cells == other["code-mix"].cells
    assert other["category-mix"].independent == (2000, 2000)


@pytest.mark.parametrize("sticky", [0.0, 0.5])
def test_categories_of_one_population_raise_no_alarm(sticky: float) -> None:
    weights = zipf(90)
    statuses = []
    for seed in range(2, 32):
        found = categories(sampled(seed, 300, weights, sticky=sticky), sampled(1, 1500, weights, sticky=sticky))
        statuses.append(found["category-mix"].status)
    assert statuses.count("fail") <= 1
    assert len(statuses) == 30


def test_what_a_side_hides_is_no_shift_of_a_category() -> None:
    weights = zipf(90)
    training = sampled(1, 1500, weights)
    for key, values in list(training.frames["codes"].items()):
        if (values[1] or 0) < 60:
            training.frames["codes"][key] = (None,) * 4
    found = categories(sampled(2, 1500, weights), training)
    assert found["category-mix"].status == "pass"


def test_hidden_counts_are_not_taken_for_a_shift() -> None:
    weights = zipf(90)
    training = sampled(1, 1500, weights)
    for key, values in list(training.frames["codes"].items()):
        if (values[1] or 0) < 11:
            training.frames["codes"][key] = (None,) * 4
    assert mix(sampled(2, 1500, weights), training).status == "pass"


def monthly(records: dict[str, int]) -> Profile:
    profile = Profile("made")
    for month, n in records.items():
        profile.frames["volume"]["observation", month] = (n, max(11, n // 4))
    return profile


def test_a_silent_month_is_found_and_an_empty_one_too() -> None:
    months = {f"2024-{m:02d}": 400 for m in range(1, 13)} | {"2024-05": 90}
    del months["2024-09"]
    (outcome,) = CHECKS["volume-gap"].run(monthly(months), "observation.at")
    assert (outcome.n, outcome.of) == (2, 10)
    assert outcome.detail == "2024-05, 2024-09"


def test_a_ramp_at_either_end_is_no_gap() -> None:
    months = {f"2024-{m:02d}": n for m, n in enumerate([20, 400, 380, 410, 390, 400, 35], 1)}
    (outcome,) = CHECKS["volume-gap"].run(monthly(months), "observation.at")
    assert outcome.n == 0


def grouped(rates: dict[str, tuple[int, int]]) -> Profile:
    """Return a profile of one record per patient: group → (missing, records)."""
    profile = Profile("made")
    states = profile.frames["states"]
    for group, (missing, of) in rates.items():
        states["observation.value", "sex", group, "*"] = (of, of, of, of)
        states["observation.value", "sex", group, "missing"] = (missing, missing, missing, missing)
    n, of = (sum(r[i] for r in rates.values()) for i in (0, 1))
    states["observation.value", "all", "", "*"] = (of, of, of, of)
    states["observation.value", "all", "", "missing"] = (n, n, n, n)
    return profile


def test_a_group_whose_data_is_missing_more_often_is_named() -> None:
    outcomes = CHECKS["subgroup-gap"].run(grouped({"female": (180, 1000), "male": (60, 1000)}), "observation.value")
    (outcome,) = [o for o in outcomes if o.status == "fail"]
    assert outcome.group == {"sex": "female"}
    assert outcome.effect == pytest.approx(0.12)


@pytest.mark.parametrize("rates", [{"female": (75, 1000), "male": (60, 1000)}, {"female": (9, 60), "male": (60, 1000)}])
def test_a_small_gap_and_a_small_group_raise_no_alarm(rates: dict[str, tuple[int, int]]) -> None:
    assert all(o.status != "fail" for o in CHECKS["subgroup-gap"].run(grouped(rates), "observation.value"))
