"""Waivers and baselines: what somebody answers for, until when, and what fails again."""

from __future__ import annotations

import copy
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ehrready import pipeline
from ehrready.cli import app
from ehrready.difference import difference
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from ehrready.reporters import console
from ehrready.rules import waivers
from ehrready.scorecard import Scorecard

DAY = dt.date(2026, 6, 1)
GOOD = "waivers:\n  - rule: sex-there\n    reason: Registration is being mended.\n    owner: registration\n    expires: 2026-09-01\n"
PACK = (
    "pack: own\nversion: 1.0.0\nrules:\n  - id: sex-there\n    check: present\n    on: patient.sex\n    fail: {max_rate: 0.1}\n"
    "    severity: error\n    owner: engineering\n    why: because\n    fix: mend it\n"
    "  - id: birth-there\n    check: present\n    on: patient.birth_date\n    fail: {max_rate: 0.1}\n    severity: warning\n"
    "    owner: engineering\n    why: because\n    fix: mend it\n"
)


def _source(tmp_path: Path, no_sex: int = 80, no_birth: int = 0, of: int = 200) -> str:
    lines = []
    for n in range(of):
        lines.append(
            {"resourceType": "Patient", "id": f"p{n}"}
            | ({"gender": "female"} if n >= no_sex else {})
            | ({"birthDate": "1970-01-01"} if n >= no_birth else {})
        )
    path = tmp_path / f"data-{no_sex}-{no_birth}.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


def _card(tmp_path: Path, waiver: str = "", stamp: str = "2026-06-01", **sizes: int) -> Scorecard:
    (tmp_path / "own.yaml").write_text(PACK)
    (tmp_path / "waivers.yaml").write_text(waiver)
    options = Options(rules=(str(tmp_path / "own.yaml"),), waivers=str(tmp_path / "waivers.yaml") if waiver else None, stamp=stamp)
    return pipeline.check([_source(tmp_path, **sizes)], None, options)[0]


def _sex(card: Scorecard) -> dict[str, Any]:
    return next(f for f in card.document["findings"] if f["rule"] == "sex-there" and f["defect"] == "missing")


def test_a_waived_failure_is_a_condition_and_passes_the_gate(tmp_path: Path) -> None:
    assert _card(tmp_path).verdict == "not-ready"
    card = _card(tmp_path, GOOD)
    assert (card.verdict, card.exit_code("error"), card.exit_code("warning")) == ("ready-with-conditions", 0, 0)
    assert (_sex(card)["status"], _sex(card)["numerator"]) == ("fail", 80)
    assert _sex(card)["waiver"] == {"owner": "registration", "reason": "Registration is being mended.", "expires": "2026-09-01"}
    assert "waived" in card.document["verdict_reasons"][0]
    assert [(w["rule"], w["status"], w["findings"]) for w in card.document["waivers"]] == [("sex-there", "active", [_sex(card)["id"]])]


def test_the_console_does_not_ask_to_fix_what_is_waived(tmp_path: Path) -> None:
    shown = {}
    for waiver in ("", GOOD):
        console.render(_card(tmp_path, waiver), Console(file=(text := io.StringIO()), width=200))
        shown[waiver] = text.getvalue()
    assert "patient.sex: 80 of 200" in shown[""]
    assert "patient.sex: 80 of 200" not in shown[GOOD]
    assert "1 waived" in shown[GOOD]


def test_other_failures_still_count(tmp_path: Path) -> None:
    card = _card(tmp_path, GOOD, no_birth=60)
    assert (card.verdict, card.exit_code("error"), card.exit_code("warning")) == ("ready-with-conditions", 0, 1)


def test_on_its_last_day_a_waiver_holds_and_on_the_next_it_fails_and_says_so(tmp_path: Path) -> None:
    assert _card(tmp_path, GOOD, stamp="2026-09-01").verdict == "ready-with-conditions"
    late = _card(tmp_path, GOOD, stamp="2026-09-02")
    assert late.verdict == "not-ready"
    assert _sex(late)["waiver"] is None
    assert "expired on 2026-09-01" in _sex(late)["reason"]
    assert any("expired" in reason for reason in late.document["verdict_reasons"])


def test_a_waiver_with_a_largest_rate_fails_again_when_it_gets_worse(tmp_path: Path) -> None:
    waiver = GOOD + "    max_rate: 0.45\n"
    assert _card(tmp_path, waiver).verdict == "ready-with-conditions"
    worse = _card(tmp_path, waiver, no_sex=120)
    assert worse.verdict == "not-ready"
    assert "beyond the 45 %" in _sex(worse)["reason"]
    assert worse.document["waivers"][0]["status"] == "exceeded"


def test_an_unused_waiver_is_warned_of(tmp_path: Path) -> None:
    card = _card(tmp_path, GOOD, no_sex=0)
    assert card.document["waivers"][0]["status"] == "unused"
    assert any("covers no finding" in reason for reason in card.document["verdict_reasons"])
    other = _card(tmp_path, GOOD + "    on: condition.*\n")
    assert other.verdict == "not-ready"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("waiver: []", "did you mean 'waivers'?"),
        (GOOD.replace("sex-there", "sex-ther"), "w.yaml:2: no rule is called 'sex-ther' (did you mean 'sex-there'?)"),
        (GOOD.replace("    expires: 2026-09-01\n", ""), "w.yaml:2: the waiver needs expires"),
        (GOOD.replace("2026-09-01", "2026-02-30"), "not a value that YAML knows"),
        (GOOD.replace("2026-09-01", "2026-12-01"), "more than 180 days ahead: at most 2026-11-28"),
        (GOOD.replace("2026-09-01", "soon"), "a date such as 2027-03-31"),
        (GOOD.replace("    owner: registration\n", ""), "needs a text for owner"),
        (GOOD + "    max_rate: 7\n", "max_rate must be a share"),
        (GOOD + "    colour: red\n", "unknown key 'colour'"),
        ("waivers: &a [*a]\n", "aliases are not allowed"),
        ("x" * 1_000_001, "at most 1,000,000 bytes"),
        ("[" * 60, "nested deeper than 50 levels"),
    ],
)
def test_mistakes_in_a_waiver_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        waivers.load(str(tmp_path / "w.yaml"), {"sex-there"}, DAY)
    assert says in str(caught.value)


def test_a_wrong_waiver_file_ends_the_run_before_reading(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("waivers: 3\n")
    found = CliRunner().invoke(app, ["check", _source(tmp_path), "--waivers", str(tmp_path / "w.yaml")])
    assert isinstance(found.exception, UsageError)
    missing = CliRunner().invoke(app, ["check", _source(tmp_path), "--waivers", str(tmp_path / "none.yaml")])
    assert isinstance(missing.exception, UsageError)


def test_with_a_baseline_only_what_is_new_or_worse_fails(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(_card(tmp_path).to_json())
    (tmp_path / "own.yaml").write_text(PACK)
    options = Options(rules=(str(tmp_path / "own.yaml"),), baseline=str(old))

    same, _ = pipeline.check([_source(tmp_path)], None, options)
    assert (same.verdict, same.exit_code("error"), same.exit_code("warning")) == ("not-ready", 0, 0)
    assert "0 new, 0 worse" in " ".join(same.document["verdict_reasons"])

    worse, _ = pipeline.check([_source(tmp_path, no_sex=150)], None, options)
    assert worse.exit_code("error") == 1
    assert [f["rule"] for f in worse.document["baseline"]["worse"]] == ["sex-there"]

    new, _ = pipeline.check([_source(tmp_path, no_birth=150)], None, options)
    assert (new.exit_code("error"), new.exit_code("warning")) == (0, 1)
    assert [f["rule"] for f in new.document["baseline"]["new"]] == ["birth-there"]

    fixed, _ = pipeline.check([_source(tmp_path, no_sex=0)], None, options)
    assert [f["rule"] for f in fixed.document["baseline"]["fixed"]] == ["sex-there"]
    assert fixed.exit_code("error") == 0


def test_a_baseline_is_no_excuse_for_what_cannot_be_told(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(_card(tmp_path).to_json())
    (tmp_path / "cut.ndjson").write_text('{"resourceType": "Patient", "id": "1"}\n{"resourceType": "Pat')
    card, _ = pipeline.check([str(tmp_path / "cut.ndjson")], None, Options(baseline=str(old)))
    assert card.exit_code("error") == 3


def test_what_is_no_longer_assessed_is_not_fixed(tmp_path: Path) -> None:
    old = dict(_card(tmp_path).document)
    new = copy.deepcopy(old)
    for finding in new["findings"]:
        if finding["rule"] == "sex-there":
            finding["status"] = "not-assessed"
    found = difference(old, new)
    assert ([f["rule"] for f in found.gone], found.fixed) == (["sex-there"], [])


def test_scorecards_of_different_packs_say_so(tmp_path: Path) -> None:
    old = _card(tmp_path).document
    new = copy.deepcopy(dict(old))
    new["provenance"]["rule_packs"][0]["sha256"] = "0" * 64
    assert any("different rule packs" in line for line in difference(old, new).unlike)
    assert not difference(old, old).unlike
    assert not difference(old, old).new
