"""What plain Python (tests/hostile/profile_oracle.py) found that the measures counted otherwise than docs/checks.md says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ehrready
from ehrready.profile import Profile


def _fhir(folder: Path, *resources: dict[str, Any]) -> Profile:
    (folder / "a.ndjson").write_text("\n".join(map(json.dumps, resources)))
    return ehrready.profile_of(folder / "a.ndjson", internal=True)


def _condition(who: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Condition", "subject": {"reference": who}, **more}


def _given(who: str, at: str) -> dict[str, Any]:
    return {"resourceType": "Immunization", "patient": {"reference": f"Patient/{who}"}, "occurrenceDateTime": at}


def test_a_patient_of_unknown_age_is_in_no_group_of_age(tmp_path: Path) -> None:
    """They were among those of 85 and more."""
    people = [{"resourceType": "Patient", "id": "a"}, {"resourceType": "Patient", "id": "b", "birthDate": "1930-01-01"}]
    born_later = {"resourceType": "Patient", "id": "c", "birthDate": "2030"}
    states = _fhir(tmp_path, *people, born_later, *(_given(who, "2024-05-03") for who in "abc")).frames["states"]
    groups = {key[2]: values[0] for key, values in states.items() if key[:2] == ("immunization.at", "age") and key[3] == "*"}
    assert groups == {"unknown": 2, "85+": 1}


@pytest.mark.parametrize(
    ("died", "at", "after"),
    [
        ("9999-12-31", "2024-05-03", 0),  # how some systems write that nobody has died; the 30 days behind are of the year 10000
        ("2024-01-01", "2024-01-31", 0),
        ("2024-01-01", "2024-02-01", 1),
        ("2024-02", "2024-03-30", 0),
        ("2024-02", "2024-03-31", 1),
        ("2023", "2024-01-30", 0),
        ("2023", "2024-01-31", 1),
    ],
)
def test_what_happens_after_death_happens_more_than_thirty_days_after_the_last_day_it_may_be(
    died: str, at: str, after: int, tmp_path: Path
) -> None:
    profile = _fhir(tmp_path, {"resourceType": "Patient", "id": "a", "deceasedDateTime": died}, _given("a", at))
    assert profile.frames["relations"]["immunization.at", "after-death"] == (after, 1, after)


def test_a_subject_that_is_no_patient_is_not_counted_as_one(tmp_path: Path) -> None:
    group = [_condition("Group/1", id="x", onsetDateTime="2024-05-03T00:00:00", abatementDateTime=["2024"]) for _ in range(2)]
    frames = _fhir(tmp_path, {"resourceType": "Patient", "id": "a"}, *group, _condition("Patient/a", id="x")).frames
    assert frames["relations"]["condition.id", "duplicate-id"] == (2, 3, 1)
    assert frames["relations"]["condition.at", "midnight-only"] == (2, 2, 0)
    assert frames["defects"] == {("condition.end", "wrong-type"): (2, 0)}


def test_encounters_entered_in_error_are_not_of_several_patients(tmp_path: Path) -> None:
    def stay(number: int, who: str, status: str = "finished") -> dict[str, Any]:
        return {"resourceType": "Encounter", "id": f"e{number}", "status": status, "subject": {"reference": who}}

    stays = [stay(1, "Patient/a"), stay(1, "Patient/b", "entered-in-error"), stay(2, "Patient/a", "entered-in-error")]
    of_a_group = [stay(3, "Patient/a"), stay(3, "Group/x"), stay(4, "Patient/a"), stay(4, "Patient/b")]
    profile = _fhir(tmp_path, *stays, *of_a_group)
    assert profile.frames["relations"]["encounter.id", "several-patients"] == (1, 3, 1)


def test_an_encounter_of_a_group_makes_no_record_one_of_several_patients(tmp_path: Path) -> None:
    stay = {"resourceType": "Encounter", "id": "e", "status": "finished", "subject": {"reference": "Group/x"}}
    seen = _condition("Patient/a", encounter={"reference": "Encounter/e"})
    profile = _fhir(tmp_path, {"resourceType": "Patient", "id": "a"}, stay, seen)
    assert profile.frames["relations"]["condition.encounter_id", "several-patients"] == (0, 0, 0)
    assert profile.frames["relations"]["condition.encounter_id", "unresolved"] == (0, 1, 0)
