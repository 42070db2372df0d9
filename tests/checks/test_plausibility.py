"""Planted errors of time, identity, links and codes come back with their exact numbers; clean data stays quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ehrready
from ehrready.checks.plausibility import last_month, time_plausible
from ehrready.profile import Profile

Resource = dict[str, Any]
PEOPLE = 60
NEW = {"unit-valid", "unit-familiar", "unit-swap", "value-parses", "value-plausible", "time-plausible", "unique", "linked", "allowed-value"}


def export() -> list[Resource]:
    """Make a clean export: 60 patients, an encounter and a glucose each month of 2024, one in four dead since January 2025."""
    found: list[Resource] = []
    for p in range(PEOPLE):
        patient: Resource = {"resourceType": "Patient", "id": f"p{p}", "gender": "female", "birthDate": "1950" if p % 3 else "1960-05-04"}
        if p % 4 == 0:
            patient["deceasedDateTime"] = "2025-01"
        found.append(patient)
        for m in range(1, 13):
            day = f"2024-{m:02d}-{1 + p % 28:02d}"
            subject = {"reference": f"Patient/p{p}"}
            found.append({"resourceType": "Encounter", "id": f"e{p}-{m}", "status": "finished", "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                          "subject": subject, "period": {"start": f"{day}T09:00:00-05:00", "end": f"{day}T10:30:00-05:00"}})  # fmt: skip
            found.append({"resourceType": "Observation", "id": f"o{p}-{m}", "status": "final", "subject": subject, "encounter": {"reference": f"Encounter/e{p}-{m}"},
                          "effectiveDateTime": f"{day}T09:{p % 60:02d}:10-05:00", "valueQuantity": {"value": 80 + (p * m) % 50, "unit": "mg/dL"},
                          "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
                          "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]})  # fmt: skip
    return found


def check(folder: Path, resources: list[Resource], **options: Any) -> dict[tuple[str, str, str], Resource]:
    """Write, check and index the findings by (check, element, defect)."""
    folder.mkdir()
    (folder / "x.ndjson").write_bytes(b"\n".join(map(orjson.dumps, resources)) + b"\n")
    card = ehrready.check(folder, internal=True, **options).document
    return {(f["check"], f["element"], f["defect"]): f for f in card["findings"] if f["check"] in NEW}


def of_type(resources: list[Resource], kind: str) -> list[Resource]:
    return [r for r in resources if r["resourceType"] == kind]


def test_a_clean_export_raises_nothing(tmp_path: Path) -> None:
    findings = check(tmp_path / "x", export())
    assert [key for key, f in findings.items() if f["status"] in {"fail", "warn", "error"}] == []
    assert sum(f["status"] == "pass" for f in findings.values()) > 20


def some(data: list[Resource], kind: str, month: int, *, dead: bool = False) -> list[Resource]:
    """Return the month's records of living (or dead) patients: every month is another plot to plant in."""
    mark = kind[0].lower()
    return [
        r
        for r in data
        if r["resourceType"] == kind
        and r["id"][0] == mark
        and r["id"].endswith(f"-{month}")
        and (int(r["id"][1:].split("-")[0]) % 4 == 0) is dead
    ]


def _before_birth(rows: list[Resource]) -> None:
    for r in rows:
        r["effectiveDateTime"] = "1931-02-03T10:00:05Z"


def _after_death(rows: list[Resource]) -> None:
    for r in rows:
        r["period"] = {"start": "2025-03-04T09:00:00Z", "end": "2025-03-04T10:00:00Z"}


def _end_before_start(rows: list[Resource]) -> None:
    for r in rows:
        r["period"]["end"] = "2023-12-31"


def _future(rows: list[Resource]) -> None:
    for r in rows:
        r["effectiveDateTime"] = "2029-02-03T10:00:05Z"


def _no_encounter(rows: list[Resource]) -> None:
    for r in rows:
        r["encounter"] = {"reference": "Encounter/nowhere"}


def _other_encounter(rows: list[Resource]) -> None:
    for r in rows:
        r["encounter"] = {"reference": "Encounter/e0-1"}


def _no_patient(rows: list[Resource]) -> None:
    for r in rows:
        r["subject"] = {"reference": "Patient/nobody"}
        del r["encounter"]


def _status(rows: list[Resource]) -> None:
    for r in rows:
        r["status"] = "Closed by nurse"


def _implausible(rows: list[Resource]) -> None:
    for r in rows:
        r["valueQuantity"]["value"] = 88000


def _sentinel(rows: list[Resource]) -> None:
    for r in rows:
        r["valueQuantity"]["value"] = -1


#: (what to do, type, month, dead patients, what finds it)
PLANTED = [
    (_before_birth, "Observation", 1, False, ("time-plausible", "observation.at", "before-birth")),
    (_future, "Observation", 2, False, ("time-plausible", "observation.at", "future")),
    (_no_encounter, "Observation", 3, False, ("linked", "observation.encounter_id", "unresolved")),
    (_other_encounter, "Observation", 4, False, ("linked", "observation.encounter_id", "several-patients")),
    (_no_patient, "Observation", 5, False, ("linked", "observation.patient_id", "unresolved")),
    (_implausible, "Observation", 6, False, ("value-plausible", "observation.value", "implausible")),
    (_sentinel, "Observation", 7, False, ("value-plausible", "observation.value", "sentinel")),
    (_after_death, "Encounter", 1, True, ("time-plausible", "encounter.at", "after-death")),
    (_end_before_start, "Encounter", 2, False, ("time-plausible", "encounter.at", "end-before-start")),
    (_status, "Encounter", 3, False, ("allowed-value", "encounter.status", "not-allowed")),
]
COPIES = {
    ("unique", "observation.id", "duplicate-id"): (8, {}),
    ("unique", "observation.code", "duplicate-record"): (9, {"id": "c"}),
    ("unique", "observation.code", "near-duplicate"): (10, {"id": "c", "status": "amended"}),
}


def test_planted_defects_come_back_exactly_and_alone(tmp_path: Path) -> None:
    data = export()
    planted = {}
    for plant, kind, month, dead, found in PLANTED:
        rows = some(data, kind, month, dead=dead)
        plant(rows)
        planted[found] = len(rows)
    for found, (month, change) in COPIES.items():
        rows = some(data, "Observation", month)
        planted[found] = len(rows)
        data += [r | change | ({"id": "c" + r["id"]} if change else {}) for r in rows]
    findings = check(tmp_path / "x", data)
    assert {key: f["numerator"] for key, f in findings.items() if f["status"] in {"fail", "warn", "error"}} == planted
    assert set(planted.values()) == {45, 15}
    of = {key: findings[key]["denominator"] for key in planted}
    assert of["time-plausible", "encounter.at", "after-death"] == 180  # encounters of those who died
    assert of["allowed-value", "encounter.status", "not-allowed"] == 720
    assert of["unique", "observation.id", "duplicate-id"] == 720 + 3 * 45
    assert of["linked", "observation.encounter_id", "unresolved"] == 720 + 3 * 45 - 45


def test_partial_dates_are_widened_and_references_without_a_target_kept_apart(tmp_path: Path) -> None:
    data = export()
    for r in of_type(data, "Patient"):
        r["birthDate"] = "2024"  # somewhere in the year of every event
    for r in of_type(data, "Encounter"):
        r["period"]["end"] = r["period"]["start"][:7]
    for i, r in enumerate(of_type(data, "Observation")):
        r["encounter"] = {"reference": "#contained" if i % 2 else "Encounter?identifier=x"}
    findings = check(tmp_path / "x", data)
    assert [key for key, f in findings.items() if f["status"] == "fail"] == []
    assert ("linked", "observation.encounter_id", "unresolved") not in findings


def test_links_to_types_that_were_not_exported_do_not_apply(tmp_path: Path) -> None:
    findings = check(tmp_path / "x", of_type(export(), "Observation"))
    found = findings["linked", "observation.patient_id", ""]
    assert (found["status"], found["numerator"]) == ("not-applicable", None)


def test_a_denominator_does_not_say_how_many_records_it_lacks(tmp_path: Path) -> None:
    from ehrready.privacy import hide_profile
    from ehrready.suppression import small

    data = export()
    for r in of_type(data, "Encounter")[:5]:
        del r["period"]["end"]
    folder = _write(tmp_path / "x", data)
    row = hide_profile(ehrready.profile_of(folder)).frames["relations"]["encounter.at", "end-before-start"]
    assert row == (None, None, None)
    card = ehrready.check(folder).document
    shown = {f["denominator"] for f in card["findings"] if f["element"] in {"encounter.at", "encounter.end"} and f["denominator"]}
    assert not any(small(720 - of) for of in shown)


def test_unfamiliar_and_swapped_units_are_found_against_training(tmp_path: Path) -> None:
    training = ehrready.profile_of(_write(tmp_path / "t", export()))
    familiar = check(tmp_path / "a", export(), against=training)
    assert {familiar["unit-familiar", "observation.unit", d]["status"] for d in ("unit-unfamiliar", "unit-incommensurable")} == {"pass"}
    assert familiar["unit-swap", "observation.unit", "unit-swapped"]["status"] == "pass"
    other = export()
    for r in of_type(other, "Observation")[:72]:
        r["valueQuantity"]["unit"] = "mg/L"
    found = check(tmp_path / "b", other, against=training)["unit-familiar", "observation.unit", "unit-unfamiliar"]
    assert (found["status"], found["numerator"], found["denominator"]) == ("fail", 72, 720)
    swapped = export()
    for r in of_type(swapped, "Observation"):
        r["valueQuantity"]["value"] = round(r["valueQuantity"]["value"] / 18.016, 2)
    found = check(tmp_path / "c", swapped, against=training)["unit-swap", "observation.unit", "unit-swapped"]
    assert (found["status"], found["numerator"]) == ("fail", 720)
    assert "loinc 2345-7 looks like mmol/L under a mg/dL label: ratio 18" in found["message"]


def _write(folder: Path, resources: list[Resource]) -> Path:
    folder.mkdir()
    (folder / "x.ndjson").write_bytes(b"\n".join(map(orjson.dumps, resources)) + b"\n")
    return folder


def months(counts: dict[str, int]) -> Profile:
    profile = Profile.zero()
    profile.frames["volume"] = {("observation", month): (n, n) for month, n in counts.items()}
    return profile


@pytest.mark.parametrize(
    ("counts", "last"),
    [
        ({f"2024-{m:02d}": 100 for m in range(1, 13)}, "2024-12"),
        ({f"2024-{m:02d}": 100 for m in range(1, 13)} | {"2031-01": 60}, "2024-12"),
        ({f"2024-{m:02d}": 100 for m in (1, 2, 5, 6, 9)}, "2024-09"),  # short gaps are no end
        ({"2024-03": 99}, ""),  # too few to say
        ({"2003-01": 50, "2010-01": 50, "2020-01": 50}, ""),  # no block that holds the bulk
    ],
)
def test_the_last_month_of_an_export(counts: dict[str, int], last: str) -> None:
    assert last_month(months(counts)) == last


def test_a_given_horizon_counts() -> None:
    profile = months({f"2024-{m:02d}": 100 for m in range(1, 13)})
    future = time_plausible(profile, "observation.at", defects=["future"], horizon="2024-06")[0]
    assert (future.n, future.of) == (500, 1200)  # July is within the month of grace


@given(
    counts=st.dictionaries(
        st.sampled_from([f"{y}-{m:02d}" for y in (2023, 2024, 2090) for m in range(1, 13)]), st.integers(1, 500), min_size=1
    )
)
def test_the_future_is_a_part_of_all(counts: dict[str, int]) -> None:
    for outcome in time_plausible(months(counts), "observation.at", defects=["future"]):
        if outcome.n is not None:
            assert 0 <= outcome.n <= (outcome.of or 0) == sum(counts.values())
