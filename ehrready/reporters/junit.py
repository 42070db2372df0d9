"""JUnit XML for CI servers: a suite per table, a case per finding; warnings, waivers and what was not assessed are skipped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from ehrready.scorecard import Scorecard

#: What XML 1.0 (section 2.2) does not allow in a document.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(card: Scorecard) -> str:
    """Return the scorecard as JUnit XML, without times and hosts: the same scorecard gives the same bytes."""
    document = card.document
    suites: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for finding in document["findings"]:
        suites[finding["table"] or "data set"].append(finding)
    root = ET.Element("testsuites", name=_text(f"ehrready {document['subject']['name']}"))
    totals: dict[str, int] = defaultdict(int)
    for table, findings in sorted(suites.items()):
        suite = ET.SubElement(root, "testsuite", name=_text(table))
        counts: dict[str, int] = defaultdict(int)
        for finding in findings:
            case = ET.SubElement(
                suite, "testcase", classname=_text(f"{finding['pack'] or 'ehrready'}.{finding['rule']}"), name=_name(finding)
            )
            kind, said = _outcome(finding)
            if kind:
                result = ET.SubElement(case, kind, message=_text(said))
                if kind != "skipped":
                    result.set("type", _text(finding["rule"]))
                result.text = _text(f"{finding['message']}\nWhy: {finding['why']}\nFix ({finding['owner']}): {finding['fix']}")
            counts[kind] += 1
        _count(suite, len(findings), counts)
        for kind, n in counts.items():
            totals[kind] += n
    _count(root, len(document["findings"]), totals)
    if document["verdict"] == "cannot-tell" and not totals["failure"] and not totals["error"]:
        _cannot_tell(root, document, totals)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _cannot_tell(root: ET.Element, document: Mapping[str, Any], totals: dict[str, int]) -> None:
    """Add an error that no rule stands for (nothing read, too little assessed): a run that cannot tell must not look green."""
    suite = ET.SubElement(root, "testsuite", name="verdict")
    case = ET.SubElement(suite, "testcase", classname="ehrready.verdict", name="the data can be judged")
    ET.SubElement(case, "error", message=_text(" ".join(document["verdict_reasons"])), type="cannot-tell")
    _count(suite, 1, {"error": 1})
    totals["error"] += 1
    _count(root, len(document["findings"]) + 1, totals)


def _name(finding: Mapping[str, Any]) -> str:
    group = ", ".join(f"{key} {value}" for key, value in sorted(finding["group"].items()))
    parts = [finding["title"] or finding["rule"], f"[{finding['element']}]" if finding["element"] else "", finding["defect"], group]
    return _text(" ".join(filter(None, parts)))


def _outcome(finding: Mapping[str, Any]) -> tuple[str, str]:
    """Return the element of a case that did not pass, and its message."""
    status, waiver = finding["status"], finding["waiver"]
    if status == "pass":
        return "", ""
    if status == "error":
        return "error", finding["reason"] or finding["message"]
    if waiver:
        return "skipped", f"waived by {waiver['owner']} until {waiver['expires']}: {waiver['reason']}"
    if status == "fail" and finding["severity"] == "error":
        return "failure", finding["message"]
    if status in {"fail", "warn"}:
        return "skipped", f"{'information' if finding['severity'] == 'info' else 'warning'}: {finding['message']}"
    return "skipped", f"{status}: {finding['reason']}"


def _count(element: ET.Element, tests: int, counts: Mapping[str, int]) -> None:
    for name, n in (
        ("tests", tests),
        ("failures", counts.get("failure", 0)),
        ("errors", counts.get("error", 0)),
        ("skipped", counts.get("skipped", 0)),
    ):
        element.set(name, str(n))


def _text(value: object) -> str:
    return _FORBIDDEN.sub("\ufffd", str(value))
