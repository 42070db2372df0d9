"""The demo finds every planted defect and nothing else, in each format; formats agree; bytes are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import ehrready
from ehrready import demo
from ehrready.scorecard import Scorecard
from tests.helpers.samples import Samples

FORMATS = ("fhir", "hl7v2", "omop")

#: What a planted defect shows as, beyond its own finding: the same records met by the comparison with training.
#: (a defect of presence is also a rise against training)
COMPARED = {
    "birth-date-missing": ("presence-shift", "missing"),
    "condition-text-only": ("presence-shift", "text-only"),
    "condition-words-as-code": ("presence-shift", "free-text"),
    "observation-unit-null-token": ("presence-shift", "missing"),
    "observation-value-missing": ("presence-shift", "missing"),
    "procedure-time-missing": ("presence-shift", "missing"),
    "encounter-class-words": ("presence-shift", "free-text"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the demo once; returns its folder."""
    made = tmp_path_factory.mktemp("demo")
    demo.run(made, lambda stage, done, of: None)
    return made


@pytest.fixture(scope="module")
def cards(folder: Path) -> dict[str, dict[str, Any]]:
    """Return format → scorecard document of the demo."""
    return {name: json.loads((folder / f"scorecard-{name}.json").read_bytes()) for name in FORMATS}


def planted(project: Path, name: str) -> list[dict[str, Any]]:
    manifest = yaml.safe_load((project / "sample_data" / "MANIFEST.yaml").read_text("utf-8"))
    return [d | d["formats"][name] for d in manifest["planted"] if "planted" in d["formats"][name]]


def alarms(card: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    # the sample leaves most must-support elements of US Core out; that is information, no alarm
    bad = [f for f in card["findings"] if f["status"] in {"fail", "warn", "error"} and f["check"] != "must-support"]
    return {(f["check"], f["element"], f["defect"]): f["numerator"] for f in bad}


@pytest.mark.parametrize("name", FORMATS)
def test_the_demo_finds_all_planted_defects_with_their_counts_and_nothing_else(
    project: Path, cards: dict[str, dict[str, Any]], name: str
) -> None:
    found = alarms(cards[name])
    explained = {
        ("release-declared", "condition.code", "other-release"),
        # the planted new codes, seen by the release tables that ship with the package
        ("codes-since-training", "condition.code", "new-since-training"),
    }
    for defect in planted(project, name):
        kind = {"unseen-codes": "unseen"}.get(defect["defect"], defect["defect"])
        key = (defect["check"], defect["element"], kind)
        assert found.get(key) == defect["planted"], defect["id"]
        explained.add(key)
        if defect["id"] in COMPARED:
            explained.add((COMPARED[defect["id"]][0], defect["element"], COMPARED[defect["id"]][1]))
        if defect["check"] == "coded":
            explained.add(("presence-shift", defect["element"], "text-only"))
    assert set(found) <= explained, sorted(set(found) - explained)
    assert cards[name]["verdict"] == "not-ready"
    assert cards[name]["coverage"] == 1.0
    assert cards[name]["subject"]["period"] == {"start": "2025-10", "end": "2026-06"}
    assert cards[name]["subject"]["patients"] == 400


@pytest.mark.parametrize("name", FORMATS)
def test_the_training_sample_is_ready_against_itself_and_alone(samples: Samples, name: str) -> None:
    alone, against = samples.card("training", name), samples.card("training", name, samples.profile("training", name))
    assert (alone.verdict, against.verdict) == ("ready", "ready")
    assert alarms(dict(against.document)) == {}


def test_the_three_formats_agree_on_verdict_and_shared_counts(samples: Samples) -> None:
    states = {}
    for name in FORMATS:
        frames = samples.profile("live", name).frames
        states[name] = {key: values[:2] for key, values in frames["states"].items() if key[1] == "all"}
    for element in ("patient.birth_date", "patient.sex", "condition.code", "condition.at", "observation.code", "observation.value",
                    "observation.unit", "observation.at", "medication.code", "procedure.code", "procedure.at", "encounter.at"):  # fmt: skip
        counts = [{key: v for key, v in states[name].items() if key[0] == element} for name in FORMATS]
        assert counts[0] == counts[1], element
        assert counts[0] == counts[2], element


@pytest.mark.parametrize("name", FORMATS)
def test_compare_of_internal_profiles_is_check(project: Path, samples: Samples, name: str) -> None:
    training = samples.profile("training", name)
    live = project / "sample_data" / "live" / name
    checked = ehrready.check(live, against=training, internal=True)
    compared = ehrready.compare(samples.profile("live", name), training)
    for key in ("verdict", "verdict_reasons", "findings", "releases", "dimensions", "subject", "score", "coverage"):
        assert checked.document[key] == compared.document[key], key


def test_same_input_same_bytes_whatever_threads_and_order(project: Path, tmp_path: Path) -> None:
    live = project / "sample_data" / "live" / "fhir"
    paths = sorted(live.iterdir())
    first = ehrready.check(live, threads=1).to_json()
    assert ehrready.check(list(reversed(paths)), threads=2).to_json() == first


@pytest.mark.parametrize("name", FORMATS)
def test_golden_scorecards(project: Path, cards: dict[str, dict[str, Any]], name: str) -> None:
    """The scorecards of the samples, as committed; `python scripts/make_golden.py` writes them anew after a review."""
    golden = project / "tests" / "golden" / f"scorecard-{name}.json"
    ours = Scorecard(cards[name]).to_json()
    assert json.loads(golden.read_bytes()) == json.loads(ours)


def test_the_demo_of_the_model_finds_what_was_planted_in_production(project: Path, folder: Path) -> None:
    planted = yaml.safe_load((project / "sample_data" / "production" / "MANIFEST.yaml").read_text("utf-8"))["planted"]
    card = json.loads((folder / "scorecard-monitor.json").read_bytes())
    found = {f["defect"]: f for f in card["findings"] if f["dimension"] == "production" and f["status"] in {"fail", "warn"}}
    for defect in (
        "above-range",
        "missing",
        "duplicate",
        "ungrounded-code",
        "ungrounded-value",
        "ungrounded-medication",
        "ungrounded-date",
    ):
        assert found[defect]["numerator"] == planted[defect], defect
    assert found["auroc"]["status"] == "fail"
    assert planted["month of the drift"] in found["auroc"]["message"]
    assert card["verdict"] == "not-ready"
    vendors = {vendor: json.loads((folder / f"scorecard-integration-vendor-{vendor}.json").read_bytes()) for vendor in "ab"}
    assert {vendor: card["verdict"] for vendor, card in vendors.items()} == {"a": "ready", "b": "not-ready"}
    lacking = {
        f["rule"].removeprefix("integration-") for f in vendors["b"]["findings"] if f["status"] == "fail" and f["severity"] == "error"
    }
    assert lacking == {"read-observation", "bulk-export", "write-readmission", "smart", "scopes"}
    assert "Validation in production" in (folder / "status.html").read_text("utf-8")
