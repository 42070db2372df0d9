"""The scorecard as FHIR R4: a Bundle of a MeasureReport (numbers) and an OperationOutcome (what is wrong).

Source: FHIR R4, MeasureReport (summary) and OperationOutcome; population codes of the measure-population code system.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from ehrready.reporters.words import plain

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard

_POPULATION = "http://terminology.hl7.org/CodeSystem/measure-population"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_SEVERITY = {"error": "error", "warning": "warning", "info": "information"}
#: IssueType by dimension; the rest are business rules.
_CODE = {"completeness": "incomplete", "conformance": "code-invalid", "release": "code-invalid", "plausibility": "value"}


def render(card: Scorecard) -> bytes:
    """Return a Bundle of type collection; hidden numbers are absent."""
    d = card.document
    name = f"urn:ehrready:{d['provenance']['input_sha256']}:{card.verdict}"
    entries = [
        {"fullUrl": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name}:{i}')}", "resource": resource}
        for i, resource in enumerate((_report(d), _outcome(d)))
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    return orjson.dumps(bundle, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _report(d: Mapping[str, Any]) -> dict[str, Any]:
    period = {key: value for key, value in d["subject"]["period"].items() if value}
    report = {
        "resourceType": "MeasureReport",
        "status": "error" if d["verdict"] == "cannot-tell" else "complete",
        "type": "summary",
        "measure": f"urn:ehrready:readiness|{d['tool']['version']}",
        "subject": {"display": plain(d["subject"]["name"])},
        "period": period or {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]},
        "group": [_group(f) for f in d["findings"] if f["status"] in {"pass", "warn", "fail"}],
    }
    if "generated_at" in d:
        report["date"] = d["generated_at"]
    return {key: value for key, value in report.items() if value}


def _group(f: Mapping[str, Any]) -> dict[str, Any]:
    words = [f["rule"], f["element"], f["defect"], *(plain(value) for value in f["group"].values())]
    populations = [
        {"code": {"coding": [{"system": _POPULATION, "code": name}]}, "count": f[name]}
        for name in ("numerator", "denominator")
        if f[name] is not None and f[name] < 2**31  # FHIR integer
    ]
    group: dict[str, Any] = {"id": f["id"], "code": {"text": " ".join(filter(None, words))}}
    if populations:
        group["population"] = populations
    if f["rate"] is not None:
        group["measureScore"] = {"value": f["rate"], "unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}
    return group


def _outcome(d: Mapping[str, Any]) -> dict[str, Any]:
    severity = "information" if d["verdict"] == "ready" else "warning" if d["verdict"] == "ready-with-conditions" else "error"
    issues = [
        {"severity": severity, "code": "informational", "details": {"text": f"Verdict: {d['verdict']}."}, "diagnostics": plain(reason)}
        for reason in d["verdict_reasons"]
    ]
    issues += [_issue(f) for f in d["findings"] if f["status"] in {"fail", "warn", "error"}]
    return {"resourceType": "OperationOutcome", "issue": issues or [{"severity": severity, "code": "informational"}]}


def _issue(f: Mapping[str, Any]) -> dict[str, Any]:
    severity = "error" if f["status"] == "error" else _SEVERITY[f["severity"]]
    if severity == "error" and (f["status"] == "warn" or f["waiver"]):
        severity = "warning"
    text = plain(f["title"] or f["rule"])
    issue = {
        "severity": severity,
        "code": "exception" if f["status"] == "error" else _CODE.get(f["dimension"], "business-rule"),
        "details": {"text": text, "coding": [{"system": "urn:ehrready:rule", "code": f["rule"]}]},
        "diagnostics": plain(f["message"] or f["reason"] or text),
    }
    return issue | ({"expression": [f["element"]]} if f["element"] else {})
