"""Unseen codes, rolled up to what they are of: ICD categories, and LOINC components where they are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ehrready.checks import CHECKS, Outcome
from ehrready.profile import Profile
from ehrready.terminology.releases import Release, ReleaseTable, Store, save

SYSTEMS = {"condition.code": "icd10cm", "observation.code": "loinc"}


def made(element: str, codes: dict[str, int], people: int = 40) -> Profile:
    """Return a profile of codes with their counts, each of ``people`` patients."""
    profile, system = Profile("made"), SYSTEMS[element]
    for code, n in codes.items():
        profile.frames["codes"][element, system, code] = (n, min(n, people), n, n)
    total = sum(codes.values())
    everyone = (total, total, total, total)
    profile.frames["classes"][element, system, "exact", "well-formed"] = everyone
    profile.frames["states"][element, "all", "", "*"] = profile.frames["states"][element, "all", "", "coded"] = everyone
    return profile


def unseen(element: str, live: Profile, training: Profile, store: Store | None = None) -> Outcome:
    (outcome,) = CHECKS["unseen-codes"].run(live, training, element, store)
    return outcome


def loinc(folder: Path) -> Store:
    codes = {"14749-6": "Glucose", "2345-7": "Glucose", "2160-0": "Creatinine", "718-7": ""}
    release = Release("2.81", "2025-08-12", len(codes), "Loinc.csv", "0" * 64)
    table = ReleaseTable("loinc", (release,), np.array(sorted(codes)), np.ones((len(codes), 1), dtype=bool), None)
    table.attributes["component"] = [codes[code] for code in sorted(codes)]
    folder.mkdir()
    save(table, folder / "loinc.parquet")
    return Store(folder)


def test_icd_codes_are_rolled_up_to_their_category() -> None:
    training = made("condition.code", {"E11.9": 400, "I10": 400})
    outcome = unseen("condition.code", made("condition.code", {"E11.9": 300, "E11.65": 60, "Z99.2": 40}), training)
    assert (outcome.status, outcome.n, outcome.independent) == ("fail", 100, (400, 800))
    assert "effective n 400 against 800; 40 of 100 in ICD categories that training never saw, the others in known ones" in outcome.detail


def test_loinc_codes_are_rolled_up_to_their_component_where_it_is_loaded(tmp_path: Path) -> None:
    training = made("observation.code", {"2345-7": 400, "2823-3": 400})
    live = made("observation.code", {"2345-7": 300, "14749-6": 60, "2160-0": 30, "718-7": 20})
    detail = unseen("observation.code", live, training, loinc(tmp_path / "store")).detail
    assert "30 of 110 in LOINC components that training never saw, 20 of no known one, the others in known ones" in detail
    for store in (None, Store(tmp_path / "empty")):
        outcome = unseen("observation.code", live, training, store)
        assert (outcome.status, outcome.n) == ("fail", 110)
        assert "LOINC components are not loaded (ehrready terminology add loinc)" in outcome.detail


def test_a_part_of_few_patients_is_not_told() -> None:
    training = made("condition.code", {"E11.9": 400, "I10": 400})
    live = made("condition.code", {"E11.9": 300, "E11.65": 90, "Z99.2": 7})
    detail = unseen("condition.code", live, training).detail
    assert "some of them in ICD categories that training never saw" in detail
    assert "7" not in detail.replace("397", "").partition("; most frequent")[0]
