"""``ehrready diff`` and ``ehrready schema``."""

from __future__ import annotations

import copy
import html
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from ehrready.cli import app
from ehrready.errors import UsageError
from tests.helpers.cards import rescored

GOLDEN = Path(__file__).parent / "golden" / "scorecard-fhir.json"


def _cards(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    old = json.loads(GOLDEN.read_text())
    new = copy.deepcopy(old)
    failing = [f for f in new["findings"] if f["status"] == "fail" and f["severity"] == "error"]
    passing = next(f for f in new["findings"] if f["status"] == "pass" and f["severity"] == "error")
    failing[0]["status"] = "pass"
    failing[1].update(numerator=failing[1]["denominator"], rate=1.0, interval=[0.98, 1.0])
    passing.update(status="fail", message="<script>alert(1)</script> [x](http://evil) ::error::")
    rescored(new)
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "new.json").write_text(json.dumps(new))
    return tmp_path / "old.json", tmp_path / "new.json", {"fixed": failing[0], "worse": failing[1], "new": passing}


def test_what_changed_is_told_in_every_output(tmp_path: Path) -> None:
    old, new, changed = _cards(tmp_path)
    done = CliRunner().invoke(app, ["diff", str(old), str(new), "--json", str(tmp_path / "d.json"), "--markdown", str(tmp_path / "d.md"), "--html", str(tmp_path / "d.html")])  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "d.json").read_text())
    for kind, finding in changed.items():
        assert [f["id"] for f in document[kind]] == [finding["id"]]
    assert (document["better"], document["gone"], document["unlike"]) == ([], [], [])
    text = (tmp_path / "d.md").read_text()
    assert re.findall(r"### (\d+) (new|worse|fixed)", text) == [("1", "new"), ("1", "worse"), ("1", "fixed")]
    assert "<script>" not in text
    assert "](http" not in text
    assert "<script>alert(1)</script>" in html.unescape(text), "shown as text"
    page = (tmp_path / "d.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert all(finding["title"] in html.unescape(page) for finding in changed.values())


def test_a_scorecard_against_itself_has_no_change(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["diff", str(GOLDEN), str(GOLDEN), "--json", "-"])
    document = json.loads(done.stdout)
    assert not any(document[kind] for kind in ("new", "worse", "better", "fixed", "gone"))
    assert len(document["same"]) > 5


def test_what_is_no_scorecard_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert isinstance(CliRunner().invoke(app, ["diff", str(GOLDEN), str(tmp_path / "x.json")]).exception, UsageError)
    assert isinstance(CliRunner().invoke(app, ["diff", str(GOLDEN), str(GOLDEN), "--json", "-", "--markdown", "-"]).exception, UsageError)


@pytest.mark.parametrize("name", ["pack", "waivers"])
def test_schemas_are_printed(name: str) -> None:
    document = json.loads(CliRunner().invoke(app, ["schema", name]).stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["$id"] == f"urn:ehrready:schema:{name}:1"


def test_an_unknown_schema_is_wrong_usage() -> None:
    assert "there are contract, difference, pack, profile, scorecard, waivers" in str(
        CliRunner().invoke(app, ["schema", "nothing"]).exception
    )
