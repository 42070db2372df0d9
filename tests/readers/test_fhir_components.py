"""Components of an Observation are results: measured like those of other formats, never as records of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ehrready
from ehrready import pipeline
from ehrready.pipeline import Options
from ehrready.profile import Profile

SYSTOLIC, DIASTOLIC, PANEL = "8480-6", "8462-4", "85354-9"
MMHG = {"unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def part(code: str, value: float | str | None, **more: Any) -> dict[str, Any]:
    return {"code": coded(code), **({} if value is None else {"valueQuantity": {"value": value, **MMHG}}), **more}


def panel(number: int, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": f"o{number}", "status": "final", "subject": {"reference": f"Patient/p{number}"},
        "effectiveDateTime": f"2024-03-05T10:{number % 60:02d}:00", "code": coded(PANEL), "component": list(parts), **more,
    }  # fmt: skip


def profile(folder: Path, panels: list[dict[str, Any]]) -> Profile:
    """Profile panels, each of a patient of its own."""
    folder.mkdir(exist_ok=True)
    people = [{"resourceType": "Patient", "id": f"p{i}", "birthDate": "1970-01-01", "gender": "female"} for i in range(len(panels))]
    (folder / "export.ndjson").write_text("".join(json.dumps(line) + "\n" for line in [*people, *panels]), "utf-8")
    return ehrready.profile_of([str(folder)])


def pressure(i: int, **more: Any) -> dict[str, Any]:
    return panel(i, part(DIASTOLIC, 70 + i % 9), part(SYSTOLIC, 110 + i % 20), **more)


def test_components_are_counted_by_code_unit_and_value_and_are_no_records(tmp_path: Path) -> None:
    frames = profile(tmp_path, [pressure(i) for i in range(40)]).frames
    assert {key[2]: value[:2] for key, value in frames["codes"].items() if key[0] == "observation.code"} == {
        PANEL: (40, 40),
        SYSTOLIC: (40, 40),
        DIASTOLIC: (40, 40),
    }
    assert frames["value_kinds"] == {
        ("loinc", PANEL, "components"): (40, 40), ("loinc", SYSTOLIC, "number"): (40, 40), ("loinc", DIASTOLIC, "number"): (40, 40),
    }  # fmt: skip
    assert {key[1:]: value[:2] for key, value in frames["units"].items()} == {
        ("loinc", SYSTOLIC, "mm[Hg]"): (40, 40),
        ("loinc", DIASTOLIC, "mm[Hg]"): (40, 40),
    }
    assert sum(n or 0 for (_, code, *_), (n, _) in frames["values"].items() if code == SYSTOLIC) == 80  # fine and coarse buckets
    assert frames["volume"]["observation", "2024-03"] == (40, 40)
    # a value and a code for the panel and each part, a unit for each part, a time for the panel alone
    states = {
        element: frames["states"][element, "all", "", "*"][0] for element in ("observation.value", "observation.code", "observation.at")
    }
    assert states == {"observation.value": 120, "observation.code": 120, "observation.at": 40}
    assert frames["states"]["observation.unit", "all", "", "present"][:2] == (80, 40)
    assert ("observation.value", "all", "", "missing") not in frames["states"]


def test_defects_of_components_are_counted_where_they_are(tmp_path: Path) -> None:
    panels = [pressure(i) for i in range(40)]
    panels[0]["component"][0]["valueQuantity"]["value"] = 7000
    panels[1]["component"][0] = part(DIASTOLIC, None)
    panels[2]["component"][0] = part(DIASTOLIC, None, dataAbsentReason={"coding": [{"code": "not-performed"}]})
    panels[3]["component"][0]["valueQuantity"] = {"value": 71}
    panels[4]["component"][0]["valueQuantity"] |= {"unit": "mg/dL", "code": "mg/dL"}
    panels[5]["component"][0]["code"] = {"text": "lower number"}
    del panels[6]["component"][0]["code"]
    panels[7]["component"][0]["valueQuantity"]["value"] = "71"
    panels[8]["component"][0] = {"code": coded(DIASTOLIC), "valueString": "71 mmHg"}
    panels[9]["status"] = "entered-in-error"
    frames = profile(tmp_path, panels).frames
    relations = {key: value[0] for key, value in frames["relations"].items() if value[0]}
    assert relations["observation.value", "implausible"] == 1
    assert relations["observation.unit", "unit-missing"] == 1
    assert relations["observation.unit", "unit-incommensurable"] == 1
    assert relations["observation.value", "number-in-text"] == 2  # one of them as a JSON string
    assert frames["defects"]["observation.value", "wrong-type"] == (1, 1)
    found = {(key[0], key[3]): value[0] for key, value in frames["states"].items() if key[1] == "all"}
    assert found["observation.value", "missing"] == 1
    assert found["observation.value", "absent-with-reason"] == 1
    assert found["observation.unit", "missing"] == 1
    assert found["observation.code", "text-only"] == 1
    assert found["observation.code", "missing"] == 1
    assert found["observation.at", "*"] == 39
    assert found["observation.value", "*"] == 3 * 39


def test_a_panel_that_is_there_twice_is_one_record_too_many(tmp_path: Path) -> None:
    panels = [pressure(i) for i in range(40)]
    frames = profile(tmp_path, [*panels, panels[0]]).frames
    assert frames["relations"]["observation.id", "duplicate-id"] == (1, 41, 1)
    assert frames["relations"]["observation.code", "duplicate-record"][0] == 0


@pytest.mark.parametrize("component", [[], {}, "120/80", None, [None], [[]], ["x"]])
def test_what_is_no_list_of_components_is_no_result(tmp_path: Path, component: Any) -> None:
    frames = profile(tmp_path, [pressure(0, component=component), pressure(1)]).frames
    assert frames["types"]["fhir", "Observation"] == (2,)
    assert frames["volume"]["observation", "2024-03"] == (2, 2)
    numbers = {key[1]: n for key, (n, _) in frames["value_kinds"].items() if key[2] == "number"}
    assert numbers == {SYSTOLIC: 1, DIASTOLIC: 1}


def test_components_of_test_patients_and_bundle_urls(tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "a", "meta": {"security": [{"code": "HTEST"}]}}
    other = {"resourceType": "Patient", "id": "b"}
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": patient}, {"fullUrl": "urn:uuid:2", "resource": other},
        {"resource": pressure(0, subject={"reference": "urn:uuid:1"})}, {"resource": pressure(1, subject={"reference": "urn:uuid:2"})},
    ]  # fmt: skip
    (tmp_path / "b.json").write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), "utf-8")
    frames = ehrready.profile_of([str(tmp_path)]).frames
    assert frames["value_kinds"]["loinc", SYSTOLIC, "number"] == (1, 1)
    assert frames["states"]["observation.code", "all", "", "coded"][:2] == (3, 1)


def test_pressures_that_shift_or_change_their_code_are_found_against_training(tmp_path: Path) -> None:
    def made(folder: str, code: str, shift: int) -> str:
        panels = [panel(i, part(DIASTOLIC, 70 + i % 9), part(code, 110 + shift + i * 7 % 40)) for i in range(400)]
        profile(tmp_path / folder, panels)
        return str(tmp_path / folder)

    training, same = made("training", SYSTOLIC, 0), made("same", SYSTOLIC, 0)
    shifted, unseen = made("shifted", SYSTOLIC, 20), made("unseen", "8459-0", 0)
    against = tmp_path / "training.profile.json"
    against.write_bytes(pipeline.read_profile([training], Options(internal=True))[0].to_json())

    def failing(source: str) -> set[str]:
        document = pipeline.check([source], str(against), Options(validate="none"))[0].document
        return {f["check"] for f in document["findings"] if f["status"] in {"fail", "warn"} and f["element"].startswith("observation.")}

    assert not failing(same) & {"value-shift", "unseen-codes", "code-mix-shift"}
    assert "value-shift" in failing(shifted)
    assert "unseen-codes" in failing(unseen)


def test_components_do_not_hide_how_few_records_cannot_be_judged(tmp_path: Path) -> None:
    panels = [pressure(i) for i in range(60)]
    profile(tmp_path / "data", panels)
    path = tmp_path / "data" / "export.ndjson"
    lines = path.read_text().replace(', "birthDate": "1970-01-01"', "", 3)  # 57 times of 60 records can be held against a birth
    path.write_text(lines)
    document = pipeline.check([str(tmp_path / "data")], None, Options(validate="none"))[0].document
    birth = [f for f in document["findings"] if f["defect"] == "before-birth" and f["element"] == "observation.at"]
    assert [f["denominator"] for f in birth] == [None]


def test_components_are_judged_at_their_records_site(tmp_path: Path) -> None:
    panels = [pressure(i) for i in range(80)]
    for i in range(6):
        panels[i]["component"][0]["valueQuantity"]["value"] = 7000
    people = [
        {"resourceType": "Patient", "id": f"p{i}", "managingOrganization": {"reference": f"Organization/{'NORTH' if i < 40 else 'SOUTH'}"}}
        for i in range(80)
    ]
    (tmp_path / "export.ndjson").write_text("".join(json.dumps(line) + "\n" for line in [*people, *panels]), "utf-8")
    pack = tmp_path / "mine.yaml"
    pack.write_text(
        "pack: mine\nversion: 1.0.0\nextends: core\noverrides:\n  - {rules: value-plausible, site: NORTH, fail: {max_rate: 0.5}}\n", "utf-8"
    )
    options = Options(rules=(str(pack),), internal=True, validate="none")
    document = pipeline.check([str(tmp_path / "export.ndjson")], None, options)[0].document
    found = {f["group"]["site"]: (f["numerator"], f["denominator"]) for f in document["findings"] if f["defect"] == "implausible"}
    assert found == {"NORTH": (6, 80), "other-sites": (0, 80)}
