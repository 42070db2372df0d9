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
def test_what_a_run_writes_fits(tmp_path: Path, source: str, *, internal: bool) -> None:
    sample = ROOT / "sample_data"
    flags = ["--internal"] if internal else []
    runner = CliRunner()
    profile, card, difference = tmp_path / "p.json", tmp_path / "c.json", tmp_path / "d.json"
    assert runner.invoke(app, ["profile", str(sample / "training" / source), "-o", str(profile), *flags]).exit_code == 0
    done = runner.invoke(app, ["check", str(sample / "live" / source), "--against", str(profile), "--json", str(card), *flags])
    assert done.exit_code == 1, done.output
    assert runner.invoke(app, ["diff", str(card), str(card), "--json", str(difference)]).exit_code == 0
    for path, name in ((profile, "profile"), (card, "scorecard"), (difference, "difference")):
        assert document_checks.first_problem(orjson.loads(path.read_bytes()), name) == ""


def test_a_schema_says_where_and_never_what() -> None:
    document = json.loads(GOLDEN[0].read_text())
    document["ledger"][0]["reasons"] = {"MRN-12345": "Smith"}
    problem = document_checks.first_problem(document, "scorecard")
    assert problem.startswith("/ledger/0/reasons/")
    assert not any(word in problem for word in ("MRN", "Smith"))
