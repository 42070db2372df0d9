"""CSV work-lists: only when allowed, only for their owner, never in another output, and no formula."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from ehrready.cli import app
from ehrready.errors import UsageError

ROOT = Path(__file__).parents[1]
WORD = "=cmd|'ZQX'!A1"


def _export(folder: Path) -> Path:
    folder.mkdir()
    lines = []
    for i in range(30):
        code = (
            {"text": WORD}
            if i < 12
            else {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9" if i < 20 else "J45.909"}]}
        )
        lines.append({"resourceType": "Condition", "id": str(i), "subject": {"reference": f"Patient/{i % 6}"}, "code": code})
        lines.append({"resourceType": "Observation", "id": f"o{i}", "status": "final", "subject": {"reference": f"Patient/{i % 6}"},
                      "code": {"coding": [{"system": "urn:local", "code": "@GLU"}, {"system": "http://loinc.org", "code": "2345-7"}]},
                      "valueQuantity": {"value": 90, "unit": "mg/dL" if i % 2 else "zqx"}})  # fmt: skip
    (folder / "x.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_they_need_a_permission(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(_export(tmp_path / "x")), "--worklists", str(tmp_path / "w")])
    assert isinstance(done.exception, UsageError)
    assert "--allow-phi" in str(done.exception)
    assert not (tmp_path / "w").exists()


def test_they_hold_what_a_mapping_team_needs_and_nothing_else_does(tmp_path: Path) -> None:
    source, lists, card = _export(tmp_path / "x"), tmp_path / "w", tmp_path / "c.json"
    training = tmp_path / "t.json"
    assert CliRunner().invoke(app, ["profile", str(ROOT / "sample_data" / "training" / "fhir"), "-o", str(training)]).exit_code == 0
    done = CliRunner().invoke(
        app,
        ["check", str(source), "--against", str(training), "--worklists", str(lists), "--allow-phi", "--json", str(card), "--html", str(tmp_path / "c.html"), "--fail-on", "never"],
    )  # fmt: skip
    assert done.exit_code in {0, 3}, done.output
    assert _rows(lists / "uncoded-terms.csv") == [{"element": "condition.code", "term": f"'{WORD}", "records": "12", "patients": "6"}]
    assert [(row["system"], row["code"], row["codings"]) for row in _rows(lists / "codes-of-no-public-system.csv")] == [
        ("urn:local", "'@GLU", "30")
    ]
    assert [(row["unit"], row["problem"], row["results"]) for row in _rows(lists / "bad-units.csv")] == [("zqx", "unit-unparseable", "15")]
    known = {row[2] for row in orjson.loads(training.read_bytes())["frames"]["codes"]["rows"]}
    unseen = [row["code"] for row in _rows(lists / "unseen-codes.csv")]
    assert unseen == [code for code in ("J45.909", "E11.9") if code not in known]
    assert stat.S_IMODE(lists.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in lists.iterdir()} == {0o600}
    for text in (done.output, card.read_text(), (tmp_path / "c.html").read_text()):
        assert not any(word in text for word in ("ZQX", "zqx", "@GLU"))


@pytest.mark.parametrize("source", ["fhir", "hl7v2", "omop"])
def test_every_format_has_them(source: str, tmp_path: Path) -> None:
    arguments = [
        "check",
        str(ROOT / "sample_data" / "live" / source),
        "--worklists",
        str(tmp_path / "w"),
        "--allow-phi",
        "--fail-on",
        "never",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert _rows(tmp_path / "w" / "uncoded-terms.csv")
    assert _rows(tmp_path / "w" / "bad-units.csv")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    done = CliRunner().invoke(app, ["check", str(_export(tmp_path / "x")), "--worklists", str(tmp_path / "w"), "--allow-phi"])
    assert isinstance(done.exception, UsageError)
