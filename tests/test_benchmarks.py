"""The data that the performance benchmark makes itself: it must be made, and be what it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.performance import exports
from ehrready import pipeline
from ehrready.options import Options
from ehrready.profile import Profile


def _profile(folder: Path) -> Profile:
    profile, ledger, _ = pipeline.read_profile([str(folder)], Options(internal=True))
    assert not any(entry.reasons for entry in ledger.entries.values())
    return profile


def test_bundles_hold_the_resources_of_the_lines_and_copies_are_other_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "BASE_PATIENTS", 12)
    lines = _profile(exports.fhir(tmp_path / "fhir", 0.1))
    bundles = _profile(exports.bundles(tmp_path / "bundles", 0.1))
    assert lines.patients
    assert lines.patients % 12 == 0, "every copy has patients of its own"
    beside = {"ledger", "custom"}  # files are other ones, and the sample of resources that is validated goes by their place
    assert {name: frame for name, frame in lines.frames.items() if name not in beside} == {
        name: frame for name, frame in bundles.frames.items() if name not in beside
    }


def test_the_batch_declares_its_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "BASE_PATIENTS", 12)
    feed = _profile(exports.hl7v2(tmp_path, 0.05))
    assert feed.patients
    assert feed.frames["declared"]["hl7v2",][3:] == (0, 0)
