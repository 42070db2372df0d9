"""SARIF 2.1.0 (OASIS) for code-scanning views: rules, results with stable fingerprints, waivers as suppressions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ehrready.reporters.console import plain
from ehrready.scorecard import Scorecard

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def render(card: Scorecard) -> bytes:
    """Return the scorecard as a SARIF log of one run; results are the findings that failed, warned or crashed."""
    d = card.document
    rules: dict[str, Mapping[str, Any]] = {}
    for finding in d["findings"]:
        rules.setdefault(finding["rule"], finding)
    places = {name: place for place, name in enumerate(rules)}
    notices = [
        {"level": "error" if card.verdict == "cannot-tell" else "note", "message": {"text": plain(reason)}}
        for reason in d["verdict_reasons"]
    ]
    run = {
        "tool": {"driver": {"name": "ehrready", "version": d["tool"]["version"], "semanticVersion": d["tool"]["version"],
                            "rules": [_rule(finding) for finding in rules.values()]}},
        "automationDetails": {"id": f"ehrready/{plain(d['subject']['name'])}/"},
        "invocations": [{"executionSuccessful": card.verdict != "cannot-tell", "toolExecutionNotifications": notices}],
        "results": [_result(f, places) for f in d["findings"] if f["status"] in {"fail", "warn", "error"}],
        "columnKind": "unicodeCodePoints",
        "properties": {"verdict": card.verdict, "score": d["score"], "coverage": d["coverage"]},
    }  # fmt: skip
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return orjson.dumps(log, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _rule(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": finding["rule"],
        "shortDescription": {"text": plain(finding["title"] or finding["rule"])},
        "fullDescription": {"text": plain(finding["why"])},
        "help": {"text": plain(finding["fix"])},
        "defaultConfiguration": {"level": _LEVELS[finding["severity"]]},
        "properties": {
            "dimension": finding["dimension"],
            "owner": plain(finding["owner"]),
            "tags": [finding["dimension"], finding["check"]],
        },
    }


def _result(finding: Mapping[str, Any], places: Mapping[str, int]) -> dict[str, Any]:
    level = "error" if finding["status"] == "error" else _LEVELS[finding["severity"]]
    if finding["status"] == "warn" and level == "error":
        level = "warning"
    name = finding["element"] or "data-set"
    result: dict[str, Any] = {
        "ruleId": finding["rule"],
        "ruleIndex": places[finding["rule"]],
        "kind": "fail",
        "level": level,
        "message": {"text": plain(finding["message"])},
        # there is no line in a data set: the element is the place, and a code-scanning view wants a file as well
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": name}},
                       "logicalLocations": [{"fullyQualifiedName": name, "kind": "element"}]}],
        "partialFingerprints": {"ehrreadyFinding/v1": finding["id"]},
        "properties": {"status": finding["status"], "defect": finding["defect"], "numerator": finding["numerator"],
                       "denominator": finding["denominator"], "group": {key: plain(value) for key, value in finding["group"].items()}},
    }  # fmt: skip
    if waiver := finding["waiver"]:
        said = f"{waiver['reason']} ({waiver['owner']}, until {waiver['expires']})"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": plain(said)}]
    return result
