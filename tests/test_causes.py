"""One cause, one finding: what hits the same records is grouped under the first, and nothing else is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ehrready
from ehrready.checks import CHECKS
from ehrready.histograms import bucket_of, coarse_of
from ehrready.overlaps import union
from ehrready.profile import Profile

N = 600


def observations(lacking: dict[str, set[int]]) -> list[dict[str, Any]]:
    """Return one result per patient; ``lacking`` says which lack a code, a value or a time."""
    made = []
    for i in range(N):
        one: dict[str, Any] = {
            "resourceType": "Observation",
            "id": f"o{i}",
            "status": "final",
            "subject": {"reference": f"Patient/p{i}"},
            "effectiveDateTime": f"2024-{1 + i % 12:02d}-11T10:20:30Z",
            "code": {"text": "glucose", "coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
            "valueQuantity": {"value": 80 + i % 40, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
        }
        if i in lacking.get("code", ()):
            del one["code"]["coding"]
        if i in lacking.get("value", ()):
            del one["valueQuantity"]
        if i in lacking.get("at", ()):
            del one["effectiveDateTime"]
        made.append(one)
    return made


def write(folder: Path, lacking: dict[str, set[int]]) -> Path:
    folder.mkdir(parents=True)
    people = [
        {
            "resourceType": "Patient",
            "id": f"p{i}",
            "gender": "female",
            "birthDate": f"19{50 + i % 40}-04-05",
            "identifier": [{"value": f"{i}"}],
        }
        for i in range(N)
    ]
    for name, records in (("Patient", people), ("Observation", observations(lacking))):
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder


def alarms(card: dict[str, Any], *elements: str) -> list[dict[str, Any]]:
    return [f for f in card["findings"] if f["status"] in {"fail", "warn"} and f["element"] in elements and f["severity"] != "info"]


def groups(card: dict[str, Any]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Return the first of each group to all in it, as (element, defect)."""
    by_id = {f["id"]: f for f in card["findings"]}
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for f in card["findings"]:
        if f["status"] in {"fail", "warn"}:
            head = by_id[f["cause"] or f["id"]]
            assert head["cause"] is None  # one step: a first has no first
            assert head["status"] in {"fail", "warn"}
            found.setdefault((head["element"], head["rule"]), set()).add((f["element"], f["defect"]))
    return found


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return ehrready.profile_of(write(tmp_path_factory.mktemp("causes") / "training", {}), threads=1, validate="none")


def checked(folder: Path, training: Profile | None, lacking: dict[str, set[int]], *, internal: bool = True) -> dict[str, Any]:
    card = ehrready.check(write(folder, lacking), against=training, threads=1, validate="none", internal=internal)
    return dict(card.document)


def test_absolute_and_comparison_of_one_defect_are_one(tmp_path: Path, training: Profile) -> None:
    hit = set(random.Random(1).sample(range(N), 90))
    found = alarms(checked(tmp_path / "live", training, {"code": hit}), "observation.code")
    assert len(found) >= 2
    assert sum(f["cause"] is None for f in found) == 1


def test_defects_of_the_same_records_are_one_and_of_others_are_not(tmp_path: Path, training: Profile) -> None:
    draw = random.Random(2)
    hit = set(draw.sample(range(N), 120))
    nearly = {*list(hit)[:-4], *draw.sample(sorted(set(range(N)) - hit), 4)}  # 116 of 124 shared: 0.94
    same = groups(checked(tmp_path / "same", training, {"code": hit, "at": nearly}))
    assert any({"observation.code", "observation.at"} <= {element for element, _ in members} for members in same.values())
    half = {*list(hit)[:-20], *draw.sample(sorted(set(range(N)) - hit), 20)}  # 100 of 140: 0.71
    apart = groups(checked(tmp_path / "apart", training, {"code": hit, "at": half}))
    assert all(len({element for element, _ in members}) == 1 for members in apart.values())


def test_what_nearly_all_records_lack_is_not_one_cause_for_that(tmp_path: Path, training: Profile) -> None:
    draw = random.Random(3)
    lacking = {key: set(draw.sample(range(N), 580)) for key in ("code", "at")}
    assert len(lacking["code"] & lacking["at"]) > 0.9 * len(lacking["code"] | lacking["at"])
    found = groups(checked(tmp_path / "live", training, lacking))
    assert all(len({element for element, _ in members}) == 1 for members in found.values())


def test_a_hidden_finding_is_never_grouped_with_a_shown_one(tmp_path: Path, training: Profile) -> None:
    hit = set(random.Random(4).sample(range(N), 11))
    card = checked(tmp_path / "live", training, {"code": hit, "at": {*list(hit)[:10]}}, internal=False)
    by_id = {f["id"]: f for f in card["findings"]}
    assert any(f["hidden"] for f in card["findings"] if f["element"] == "observation.at")
    for f in card["findings"]:
        assert f["cause"] is None or f["hidden"] == by_id[f["cause"]]["hidden"]


def test_a_table_that_vanished_is_one_cause(tmp_path: Path, training: Profile) -> None:
    folder = write(tmp_path / "live", {})
    (folder / "Observation.ndjson").unlink()
    card = ehrready.check(folder, against=training, threads=1, validate="none").document
    gone = [f for f in card["findings"] if f["defect"] == "vanished" and f["element"].startswith("observation.")]
    assert len(gone) > 2
    assert sum(f["cause"] is None for f in gone) == 1


def test_overlaps_are_those_of_the_records(tmp_path: Path) -> None:
    draw = random.Random(5)
    lacking = {key: set(draw.sample(range(N), size)) for key, size in (("code", 70), ("value", 50), ("at", 33))}
    frame = ehrready.profile_of(write(tmp_path / "live", lacking), threads=1, validate="none").frames["overlaps"]
    names = {"code": "observation.code text-only", "value": "observation.value missing", "at": "observation.at missing"}
    for one, a in names.items():
        for other, b in names.items():
            expected = len(lacking[one] & lacking[other])
            assert frame.get(("observation", *sorted((a, b))), (0,))[0] == expected
    assert frame["observation", *[union("observation.at", ("missing", "null-token"))] * 2] == (33,)


def test_a_saved_profile_holds_no_overlap(tmp_path: Path) -> None:
    from ehrready.privacy import hide_profile

    exact = ehrready.profile_of(write(tmp_path / "live", {"code": set(range(100))}), threads=1, validate="none")
    assert exact.frames["overlaps"]
    assert not hide_profile(exact).frames["overlaps"]


def test_a_sentinel_and_the_tail_that_it_makes_are_the_same_cells() -> None:
    key = ("loinc", "2345-7", "mg/dL")

    def made(values: list[float]) -> Profile:
        profile = Profile("made")
        for value in values:
            for bucket in (bucket_of(value), coarse_of(bucket_of(value))):
                n = (profile.frames["values"].get((*key, bucket)) or (0, 0))[0] or 0
                profile.frames["values"][(*key, bucket)] = (n + 1, n + 1)
        profile.frames["units"]["observation.unit", *key] = (len(values),) * 4
        spikes = sum(value == 9999 for value in values)
        profile.frames["value_kinds"]["loinc", "2345-7", "number=9999!"] = (spikes, spikes)
        profile.frames["relations"]["observation.value", "sentinel"] = (spikes, len(values), spikes)
        profile.frames["relations"]["observation.value", "implausible"] = (0, len(values), 0)
        return profile

    draw = np.random.RandomState(9)
    usual = draw.lognormal(4.6, 0.2, 3000).tolist()
    live = made([*usual[:900], *[9999.0] * 60])
    tail = next(o for o in CHECKS["value-shift"].run(live, made(usual), "observation.value") if o.defect == "tail")
    sentinel = next(o for o in CHECKS["value-plausible"].run(live, "observation.value") if o.defect == "sentinel")
    assert sentinel.cells == {(*key, coarse_of(bucket_of(9999))): 60.0}
    assert sum(tail.cells.values()) == pytest.approx(60, abs=6)
