"""Every document that ehrready writes fits its published JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import orjson
import pytest
from typer.testing import CliRunner

from ehrready import document_checks
from ehrready.cli import app
from ehrready.privacy import hide_profile
from ehrready.saved import load_profile
from tests.helpers.samples import Samples

ROOT = Path(__file__).parents[1]
GOLDEN = sorted((ROOT / "tests" / "golden").glob("scorecard-*.json"))


@pytest.mark.parametrize("name", ["scorecard", "profile", "difference", "pack", "waivers"])
def test_the_schemas_are_schemas(name: str) -> None:
    done = CliRunner().invoke(app, ["schema", name])
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_scorecards_fit(path: Path) -> None:
    assert document_checks.first_problem(json.loads(path.read_text()), "scorecard") == ""


@pytest.mark.parametrize("source", ["fhir", "hl7v2", "omop"])
@pytest.mark.parametrize("internal", [False, True])
def test_what_is_measured_and_judged_fits(tmp_path: Path, samples: Samples, source: str, *, internal: bool) -> None:
    runner = CliRunner()
    profile, card, difference = tmp_path / "p.json", tmp_path / "c.json", tmp_path / "d.json"
    training = samples.profile("training", source)
    profile.write_bytes((training if internal else hide_profile(training)).to_json())
    card.write_bytes(samples.card("live", source, load_profile(str(profile))[0], internal=internal).to_json())
    assert runner.invoke(app, ["diff", str(card), str(card), "--json", str(difference)]).exit_code == 0
    for path, name in ((profile, "profile"), (card, "scorecard"), (difference, "difference")):
        assert document_checks.first_problem(orjson.loads(path.read_bytes()), name) == ""


def test_what_the_command_line_writes_fits(tmp_path: Path) -> None:
    sample, runner = ROOT / "sample_data", CliRunner()
    profile, card = tmp_path / "p.json", tmp_path / "c.json"
    assert runner.invoke(app, ["profile", str(sample / "training" / "hl7v2"), "-o", str(profile)]).exit_code == 0
    done = runner.invoke(app, ["check", str(sample / "live" / "hl7v2"), "--against", str(profile), "--json", str(card)])
    assert done.exit_code == 1, done.output
    for path, name in ((profile, "profile"), (card, "scorecard")):
        assert document_checks.first_problem(orjson.loads(path.read_bytes()), name) == ""


def test_a_schema_says_where_and_never_what() -> None:
    document = json.loads(GOLDEN[0].read_text())
    document["ledger"][0]["reasons"] = {"MRN-12345": "Smith"}
    problem = document_checks.first_problem(document, "scorecard")
    assert problem.startswith("/ledger/0/reasons/")
    assert not any(word in problem for word in ("MRN", "Smith"))
