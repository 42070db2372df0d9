"""JUnit and SARIF: what CI servers count, and texts that stay texts."""

from __future__ import annotations

import copy
import html
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ehrready import testing
from ehrready.errors import UsageError
from ehrready.outputs import OUTPUTS, chosen, write
from ehrready.reporters import github, junit, markdown, sarif
from ehrready.scorecard import Scorecard

HOSTILE = "</testcase><failure/>\x1b[31m\x00\ud800 ]]> &amp; ::error::x"
GOLDEN = Path(__file__).parents[1] / "golden" / "scorecard-fhir.json"


def _card() -> Scorecard:
    return Scorecard.from_json(GOLDEN.read_bytes())


def _changed(**changes: Any) -> Scorecard:
    document = copy.deepcopy(dict(_card().document))
    failing = next(f for f in document["findings"] if (f["status"], f["severity"]) == ("fail", "error"))
    failing.update(changes)
    return Scorecard(document)


def test_junit_has_a_case_for_every_finding_and_its_numbers_add_up() -> None:
    card = _card()
    root = ET.fromstring(junit.render(card))  # noqa: S314 - our own output
    cases = list(root.iter("testcase"))
    assert len(cases) == len(card.document["findings"]) == int(root.get("tests", "0"))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.get(name, "0")) == sum(1 for _ in root.iter(kind)) == sum(int(suite.get(name, "0")) for suite in root)
    failing = [f for f in card.document["findings"] if (f["status"], f["severity"]) == ("fail", "error")]
    assert len(list(root.iter("failure"))) == len(failing) > 0
    passing = [case for case in cases if not len(case)]
    assert len(passing) == sum(f["status"] == "pass" for f in card.document["findings"])
    assert {suite.get("name") for suite in root} == {f["table"] or "data set" for f in card.document["findings"]}


def test_a_waived_failure_is_skipped_with_its_reason() -> None:
    waiver = {"owner": "registration", "reason": "Being mended.", "expires": "2027-01-31"}
    before, after = (ET.fromstring(junit.render(card)) for card in (_card(), _changed(waiver=waiver)))  # noqa: S314
    assert int(after.get("failures", "0")) == int(before.get("failures", "0")) - 1
    assert "waived by registration until 2027-01-31: Being mended." in [e.get("message") for e in after.iter("skipped")]
    log = json.loads(sarif.render(_changed(waiver=waiver)))
    (suppressed,) = [r for r in log["runs"][0]["results"] if "suppressions" in r]
    assert suppressed["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "Being mended. (registration, until 2027-01-31)"}
    ]


def test_a_run_that_cannot_tell_is_no_green_build() -> None:
    document = copy.deepcopy(dict(_card().document))
    document |= {
        "findings": [f for f in document["findings"] if f["status"] == "pass"],
        "verdict": "cannot-tell",
        "verdict_reasons": ["No record could be read."],
    }
    root = ET.fromstring(junit.render(Scorecard(document)))  # noqa: S314
    assert (root.get("errors"), next(root.iter("error")).get("message")) == ("1", "No record could be read.")
    run = json.loads(sarif.render(Scorecard(document)))["runs"][0]
    assert run["invocations"][0]["executionSuccessful"] is False


def test_sarif_results_point_to_their_rules_and_keep_their_fingerprints() -> None:
    card = _card()
    run = json.loads(sarif.render(card))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[r["ruleIndex"]]["id"] for r in run["results"]] == [r["ruleId"] for r in run["results"]]
    expected = {f["id"] for f in card.document["findings"] if f["status"] in {"fail", "warn", "error"}}
    assert {r["partialFingerprints"]["ehrreadyFinding/v1"] for r in run["results"]} == expected
    assert {r["level"] for r in run["results"]} <= {"error", "warning", "note"}
    assert len({r["partialFingerprints"]["ehrreadyFinding/v1"] for r in run["results"]}) == len(run["results"])


@pytest.mark.parametrize("name", ["junit", "sarif"])
def test_hostile_texts_stay_texts(name: str) -> None:
    hostile = HOSTILE.replace("\ud800", "")
    card = _changed(title=hostile, message=hostile, why=hostile, fix=hostile, owner=hostile, group={"site": hostile})
    made = OUTPUTS[name](card)
    text = made.decode() if isinstance(made, bytes) else made
    assert "\x1b" not in text
    assert "\x00" not in text
    if name == "junit":
        assert len(list(ET.fromstring(text).iter("testcase"))) == len(card.document["findings"])  # noqa: S314
    else:
        assert "\\u001b" not in text
        assert "::error::" not in text


@pytest.mark.parametrize("render", [junit.render, sarif.render, markdown.render])
def test_the_contract_of_reporters_is_kept(render: Any) -> None:
    assert testing.reporter(render)


def test_one_output_that_fails_leaves_the_others_unwritten(tmp_path: Path) -> None:
    wanted = chosen({"json": str(tmp_path / "a.json"), "sarif": str(tmp_path / "a.sarif")})

    def broken(card: Scorecard) -> str:
        raise ZeroDivisionError(card.verdict)

    with pytest.raises(UsageError, match="the reporter mine failed"):
        write(_card(), [*wanted, ("mine", str(tmp_path / "x"), broken)])
    assert list(tmp_path.iterdir()) == []
    assert len(write(_card(), wanted)) == 2


def test_only_one_output_goes_to_stdout() -> None:
    with pytest.raises(UsageError, match="only one output can go to stdout"):
        chosen({"json": "-"}, ["junit=-"])


def _html(text: str) -> str:
    made = pytest.importorskip("markdown", reason="needs the markdown package of the dev lock").markdown
    return str(made(text, extensions=["tables", "md_in_html"]))


def test_markdown_has_the_verdict_the_worst_and_what_was_not_assessed() -> None:
    text = markdown.render(_card())
    assert text.startswith("## Not ready: ")
    assert text.count("| error |") == 5
    page = _html(text)
    assert page.count("<table>") >= 2
    assert all(f"<td>{name}</td>" in page for name in ("completeness", "conformance", "release", "plausibility", "comparability"))


@pytest.mark.parametrize(
    "hostile",
    [
        "<img src=x onerror=alert(1)>",
        "[a](http://evil.example)",
        "![a](x)",
        "http://evil.example www.evil.example",
        "a | b\n| c | d |",
        "**b** `c` ~~d~~",
        "<details>",
        "&lt;b&gt;",
    ],
)
def test_hostile_texts_are_shown_in_markdown_and_do_nothing(hostile: str) -> None:
    sound = _html(markdown.render(_changed(message="x", fix="x", numerator=10**9)))
    page = _html(markdown.render(_changed(message=hostile, fix=hostile, numerator=10**9)))
    tags = [
        len([m for m in page.split("<") if m.startswith(name)]) for name in ("a ", "img", "strong", "code", "details", "td", "tr", "del")
    ]
    assert tags == [
        len([m for m in sound.split("<") if m.startswith(name)]) for name in ("a ", "img", "strong", "code", "details", "td", "tr", "del")
    ]


def test_mentions_issues_and_links_are_broken_up() -> None:
    text = markdown.escape("@all #1 http://x www.x")
    shown = html.unescape(text)
    for pattern in ("@a", "#1", "://", "www."):
        assert pattern not in shown


def test_a_run_in_github_actions_annotates_and_appends_to_the_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    card = _changed(message="50 % lost\n::error::forged", title="a:b,c", numerator=10**9)
    lines = github.publish(card, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)})
    assert any(line == "::error title=a%3Ab%2Cc::50 %25 lost ::error::forged" for line in lines)
    assert all(line.count("\n") == 0 for line in lines)
    assert sum(line.startswith("::error ") for line in lines) <= 10
    assert summary.read_text().startswith("before\n## Not ready")
    assert github.publish(card, {}) == []
    with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY"):
        github.publish(card, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)})
