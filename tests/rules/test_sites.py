"""Limits by site for checks that read more than the states of an element: the sites' records are measured apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from ehrready import pipeline, privacy
from ehrready.document_checks import first_problem
from ehrready.errors import UsageError
from ehrready.options import Options
from ehrready.privacy import SUMMED
from ehrready.profile import Profile
from ehrready.suppression import small

PACK = """\
pack: mine
version: 1.0.0
extends: core
overrides:
  - {rules: code-is-code, site: NORTH, fail: {max_rate: 0.5}}
  - {rules: patient-linked, site: NORTH, fail: {max_rate: 0.001}}
  - {rules: patient-sex-present, site: NORTH, fail: {max_rate: 0.5}}
"""


def _feed(folder: Path, *, bad: tuple[int, int] = (40, 12), of: int = 200) -> str:
    """Write two hospitals' conditions: of ``of`` codes each so many are words; the South's refer to patients of the North."""
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[dict[str, Any]]] = {"Patient": [], "Encounter": [], "Condition": [], "Observation": []}
    for s, site in enumerate(("NORTH", "SOUTH")):
        for number in range(of):
            who, stay = f"{site}-{number}", f"{site}-e{number}"
            lines["Patient"].append(
                {"id": who, "gender": "female", "birthDate": "1970-01-01", "managingOrganization": {"reference": f"Organization/{site}"}}
            )
            subject = {"reference": f"Patient/{'NORTH' if number % 2 else site}-{number}"}
            lines["Encounter"].append({
                "id": stay, "status": "finished", "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                "subject": subject, "period": {"start": "2024-01-02", "end": "2024-01-03"},
                "serviceProvider": {"reference": f"Organization/{site}"},
            })  # fmt: skip
            code = "sugar disease, see note" if number < bad[s] else "E11.9"
            lines["Condition"].append({
                "id": f"{site}-c{number}", "subject": subject, "encounter": {"reference": f"Encounter/{stay}"}, "recordedDate": "2024-01-02",
                "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}]},
            })  # fmt: skip
            parts = [{"code": _loinc(code), "valueQuantity": {"value": 80 + number % 9, "unit": "mm[Hg]"}} for code in ("8480-6", "8462-4")]
            lines["Observation"].append({
                "id": f"{site}-o{number}", "status": "final", "subject": subject, "encounter": {"reference": f"Encounter/{stay}"},
                "effectiveDateTime": "2024-01-02T10:00:00", "code": _loinc("85354-9"), "component": parts,
            })  # fmt: skip
    for name, resources in lines.items():
        data = b"\n".join(orjson.dumps({"resourceType": name, **resource}) for resource in resources)
        (folder / f"{name}.ndjson").write_bytes(data)
    return str(folder)


def _loinc(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def _options(tmp_path: Path, **more: Any) -> Options:
    (tmp_path / "mine.yaml").write_text(PACK)
    return Options(rules=(str(tmp_path / "mine.yaml"),), internal=True, **more)


def _found(card: Any, rule: str, element: str, defect: str) -> dict[str, tuple[str, int | None, int | None]]:
    return {
        f["group"].get("site", ""): (f["status"], f["numerator"], f["denominator"])
        for f in card.document["findings"]
        if (f["rule"], f["element"], f["defect"]) == (rule, element, defect)
    }


def test_codes_are_judged_at_each_site_and_links_across_sites_hold(tmp_path: Path) -> None:
    card, _ = pipeline.check([_feed(tmp_path / "live")], None, _options(tmp_path))
    assert _found(card, "code-is-code", "condition.code", "free-text") == {"NORTH": ("pass", 40, 200), "other-sites": ("fail", 12, 200)}
    linked = _found(card, "patient-linked", "condition.patient_id", "unresolved")
    assert linked == {"NORTH": ("pass", 0, 200), "other-sites": ("pass", 0, 200)}, "a patient of another site is there"
    assert _found(card, "patient-sex-present", "patient.sex", "missing") == {"NORTH": ("pass", 0, 200), "other-sites": ("pass", 0, 200)}


def test_a_saved_profile_keeps_the_sites_apart_that_its_rules_name(tmp_path: Path) -> None:
    options, source = _options(tmp_path), _feed(tmp_path / "live")
    live, _, _ = pipeline.read_profile([source], options)
    kept = privacy.without_sites(live, {"NORTH"}).to_json()
    assert first_problem(orjson.loads(kept), "profile") == ""
    again = Profile.from_json(kept)
    assert set(again.sites) == {"NORTH", "other-sites"}
    assert again.to_json() == kept
    judged = pipeline.judge(again, None, options)
    direct, _ = pipeline.check([source], None, options)
    for rule, element, defect in (
        ("code-is-code", "condition.code", "free-text"),
        ("patient-linked", "condition.patient_id", "unresolved"),
    ):
        assert _found(judged, rule, element, defect) == _found(direct, rule, element, defect)
    plain, _, _ = pipeline.read_profile([source], Options(internal=True))
    assert not plain.sites
    assert {**plain.frames, "custom": {}} == live.frames
    unkept = _found(pipeline.judge(plain, None, options), "code-is-code", "condition.code", "")
    assert unkept == {"NORTH": ("not-assessed", None, None), "other-sites": ("not-assessed", None, None)}


def test_the_sites_add_up_to_the_whole(tmp_path: Path) -> None:
    live, _, _ = pipeline.read_profile([_feed(tmp_path / "live")], _options(tmp_path))
    rows = 0
    for name in ("classes", "systems", "codes", "currency", "units", "value_kinds", "values"):
        for key, values in live.frames[name].items():
            if not key[0].startswith(("patient.", "encounter.")):  # those that are referred to come along with a site's records
                assert values[0] == sum((part[name].get(key) or (0,))[0] or 0 for part in live.sites.values()), (name, key)
                rows += 1
    assert rows > 20
    assert ("loinc", "8480-6", "number") in live.sites["NORTH"]["value_kinds"], "components go with their observation"


def test_the_rate_in_training_is_that_of_the_same_site(tmp_path: Path) -> None:
    options = _options(tmp_path)
    training, _, _ = pipeline.read_profile([_feed(tmp_path / "training", bad=(40, 0))], options)
    live, _, _ = pipeline.read_profile([_feed(tmp_path / "live", bad=(0, 40))], options)
    card = pipeline.judge(live, training, options)
    before = {
        f["group"]["site"]: f["training"]["rate"]
        for f in card.document["findings"]
        if (f["rule"], f["element"], f["defect"]) == ("code-is-code", "condition.code", "free-text")
    }
    assert before == {"NORTH": pytest.approx(0.2), "other-sites": 0.0}


def test_profiles_of_two_exports_add_up_site_by_site(tmp_path: Path) -> None:
    options = _options(tmp_path)
    one, _, _ = pipeline.read_profile([_feed(tmp_path / "one", bad=(40, 12))], options)
    two, _, _ = pipeline.read_profile([_feed(tmp_path / "two", bad=(1, 2))], options)
    rows = {site: part["classes"]["condition.code", "icd10cm", "exact", "free-text"][0] for site, part in one.merge(two).sites.items()}
    assert rows == {"NORTH": 41, "other-sites": 14}
    plain, _, _ = pipeline.read_profile([_feed(tmp_path / "two", bad=(1, 2))], Options(internal=True))
    assert one.merge(plain).sites == {}, "what one of them does not keep apart cannot be judged apart"


@pytest.mark.parametrize("bad", [(40, 3), (3, 40), (0, 3), (4, 4), (40, 40)])
def test_a_small_cell_of_a_site_cannot_be_worked_out_from_the_others(tmp_path: Path, bad: tuple[int, int]) -> None:
    live, _, _ = pipeline.read_profile([_feed(tmp_path / "live", bad=bad)], _options(tmp_path))
    out = privacy.hide_profile(live, {"NORTH"})
    shown = 0
    for name in SUMMED:
        for key, whole in out.frames[name].items():
            exact = {site: live.sites[site][name].get(key, (0,))[0] or 0 for site in live.sites}
            parts = {site: out.sites[site][name].get(key, (0,))[0] for site in live.sites}
            hidden = [site for site, n in parts.items() if n is None]
            adds_up = sum(exact.values()) == live.frames[name].get(key, (None,))[0]
            if whole[0] is not None and adds_up and len(hidden) == 1:
                raise AssertionError(f"{name} {key}: the hidden part of {hidden[0]} is the whole less the others")
            shown += len(parts) - len(hidden)
            assert not any(small(n) for n in parts.values()), (name, key)
    assert shown > 50


PACK_OF_ALL = """\
pack: mine
version: 1.0.0
extends: core
overrides:
  - {rules: [id-unique, encounter-linked, administrative-code-allowed, patient-sex-present, code-present], site: NORTH, fail: {max_rate: 0.5}}
"""


def test_a_small_site_cannot_be_worked_out_from_the_ledger_and_the_other_sites(tmp_path: Path) -> None:
    """The ledger says that there are 304 conditions and patients: what the others have is the small site's."""
    source = _hospitals(tmp_path / "live", {"NORTH": ["I10"], "SOUTH": ["I10"]}, few={"NORTH": 4})
    (tmp_path / "all.yaml").write_text(PACK_OF_ALL)
    options = Options(rules=(str(tmp_path / "all.yaml"),))
    card, _ = pipeline.check([source], None, options)
    apart = [f for f in card.document["findings"] if "site" in f["group"] and f["status"] != "not-applicable"]
    assert {(f["element"], f["group"]["site"]) for f in apart} >= {("patient.id", "NORTH"), ("condition.id", "other-sites")}
    assert not any(f["numerator"] or f["denominator"] or f["patients"] for f in apart)
    assert all(f["rate"] is None for f in apart), "with the number of records it tells the numerator"
    out = privacy.hide_profile(pipeline.read_profile([source], options)[0], {"NORTH"})
    assert out.frames["relations"]["condition.id", "duplicate-id"][1] == 304
    assert all(part["relations"]["condition.id", "duplicate-id"][1] is None for part in out.sites.values())


@pytest.mark.parametrize("bad", [(3, 40), (40, 3)])
def test_a_small_count_of_a_site_is_not_the_whole_less_the_rate_of_the_others(tmp_path: Path, bad: tuple[int, int]) -> None:
    """The saved profile has 43 of the whole, and 200 records of each: a rate of 0.2 would leave 3."""
    _options(tmp_path)
    card, _ = pipeline.check([_feed(tmp_path / "live", bad=bad)], None, Options(rules=(str(tmp_path / "mine.yaml"),)))
    found = [
        f for f in card.document["findings"] if (f["rule"], f["element"], f["defect"]) == ("code-is-code", "condition.code", "free-text")
    ]
    assert [(f["numerator"], f["denominator"], f["rate"]) for f in found] == [(None, None, None)] * 2


def test_patients_of_one_site_only_are_not_the_difference_of_a_whole_and_its_overlapping_parts(tmp_path: Path) -> None:
    """Of 40 patients of the North 36 are at the South, too: 340 less 336 are those that are not."""
    source = _hospitals(tmp_path / "live", {"SOUTH": ["I10"], "NORTH": ["I10"]}, few={"NORTH": 40})
    lines = (tmp_path / "live" / "export.ndjson").read_bytes().splitlines()
    more = [
        {"resourceType": "Encounter", "id": f"v{i}", "subject": {"reference": f"Patient/NORTH-{i}"}, "serviceProvider": {"reference": "Organization/SOUTH"}}
        for i in range(36)
    ]  # fmt: skip
    (tmp_path / "live" / "export.ndjson").write_bytes(b"".join(line + b"\n" for line in (*lines, *map(orjson.dumps, more))))
    (tmp_path / "all.yaml").write_text(PACK_OF_ALL)
    live, _, _ = pipeline.read_profile([source], Options(rules=(str(tmp_path / "all.yaml"),), internal=True))
    whole, others = "states", ("patient.sex", "all", "", "*")
    assert (live.frames[whole][others][0], live.sites["other-sites"][whole][others][0]) == (340, 336)
    out = privacy.hide_profile(live, {"NORTH"})
    assert out.sites["other-sites"][whole][others][0] is None or out.frames[whole][others][0] is None


@pytest.mark.parametrize(
    "sites", [5, [], {"NORTH": 5}, {"NORTH": []}, {"NORTH": {"classes": {"rows": [["x"]]}}}, {"NORTH": {"classes": 5}}]
)
def test_broken_sites_of_a_saved_profile_are_refused(sites: Any) -> None:
    document = Profile().as_dict() | {"sites": sites}
    with pytest.raises(UsageError, match=r"the profile.*(of another type|has no rows|expected 4 texts)"):
        Profile.from_json(orjson.dumps(document))


def test_spark_says_that_it_does_not_measure_sites_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"limits by site of code-is-code, patient-linked: .*--engine duckdb"):
        pipeline.check([_feed(tmp_path / "live")], None, _options(tmp_path, engine="spark"))


def _hospitals(folder: Path, sites: dict[str, list[str]], few: dict[str, int] | None = None) -> str:
    """Write conditions of hospitals whose patients (300, of some a ``few``) have their codes in turn."""
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for site, codes in sites.items():
        for i in range((few or {}).get(site, 300)):
            who: dict[str, Any] = {"id": f"{site}-{i}", "gender": "male", "birthDate": "1960-01-01"}
            lines.append({"resourceType": "Patient", **who, "managingOrganization": {"reference": f"Organization/{site}"}})
            coding = {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": codes[i % len(codes)]}
            own: dict[str, Any] = {
                "subject": {"reference": f"Patient/{site}-{i}"},
                "code": {"coding": [coding]},
                "recordedDate": f"2024-{1 + i % 12:02d}-03",
            }
            lines.append({"resourceType": "Condition", "id": f"{site}-c{i}", **own})
    (folder / "export.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return str(folder)


def test_a_hospital_that_sends_nothing_is_one_cause(tmp_path: Path) -> None:
    north, south = ["E11.9", "I10", "J45.909"], ["N18.30", "I50.9", "F32.A"]
    options = _options(tmp_path)
    training = tmp_path / "training.json"
    before, _, _ = pipeline.read_profile([_hospitals(tmp_path / "training", {"NORTH": north, "SOUTH": south})], options)
    training.write_bytes(privacy.without_sites(before, {"NORTH"}).to_json())

    def alarms(source: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        document = pipeline.check([source], str(training), options)[0].document
        found = [f for f in document["findings"] if f["status"] in {"fail", "warn"}]
        return {f["check"]: f["cause"] for f in found}, {f["check"]: f for f in document["findings"]}

    causes, findings = alarms(_hospitals(tmp_path / "gone", {"SOUTH": south}))
    (vanished,) = [findings["site-vanished"]]
    assert (vanished["status"], vanished["numerator"], vanished["denominator"], vanished["cause"]) == ("fail", 1, 1, None)
    assert "NORTH" in vanished["message"]
    assert {"code-mix-shift", "codes-no-longer-seen"} <= causes.keys()
    assert causes["code-mix-shift"] == causes["codes-no-longer-seen"] == vanished["id"]
    # another mix at the site that is left is no matter of the other one
    causes, findings = alarms(_hospitals(tmp_path / "changed", {"SOUTH": ["N18.30", "N18.30", "N18.30", "I50.9"]}))
    assert causes["site-vanished"] is None
    assert causes["code-mix-shift"] is None
    causes, findings = alarms(_hospitals(tmp_path / "both", {"NORTH": north, "SOUTH": south}))
    assert findings["site-vanished"]["status"] == "pass"
    assert "site-vanished" not in causes


def test_a_site_that_is_not_kept_apart_has_not_vanished(tmp_path: Path) -> None:
    options = _options(tmp_path)
    source = _hospitals(tmp_path / "training", {"NORTH": ["I10"], "SOUTH": ["I10"]})
    training = pipeline.read_profile([source], options)[0]
    core = Options(internal=True)
    pooled = pipeline.read_profile([source], core)[0]
    for live, before, status in ((pooled, training, "not-assessed"), (training, pooled, "not-applicable"), (training, training, "pass")):
        card = pipeline.judge(live, before, core)
        (finding,) = [f for f in card.document["findings"] if f["check"] == "site-vanished"]
        assert finding["status"] == status


@pytest.mark.parametrize("together", [False, True])
def test_a_patient_is_not_of_the_site_of_an_encounter_that_happens_to_have_its_id(tmp_path: Path, together: bool) -> None:
    lines = [
        {"resourceType": "Patient", "id": "1", "gender": "female"},
        {"resourceType": "Patient", "id": "2", "gender": "male"},
        {
            "resourceType": "Encounter",
            "id": "1",
            "subject": {"reference": "Patient/2"},
            "serviceProvider": {"reference": "Organization/far"},
        },
    ]
    (tmp_path / "export.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    # the tables of rows and the numbers of records are counted by the same statements
    profile, _, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True), also=(lambda _: None) if together else None)
    at_site = {(key[0].split(".")[0], key[2]) for key in profile.frames["states"] if key[1] == "site"}
    assert at_site == {("encounter", "far")}
