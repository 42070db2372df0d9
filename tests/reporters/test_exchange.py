"""OpenLineage and FHIR: the scorecard in the words of other people's tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ehrready import testing
from ehrready.outputs import OUTPUTS
from ehrready.reporters import fhir, openlineage
from ehrready.scorecard import Scorecard

GOLDEN = Path(__file__).parents[1] / "golden"
CARDS = [Scorecard.from_json((GOLDEN / f"scorecard-{name}.json").read_bytes()) for name in ("fhir", "hl7v2", "omop")]


@pytest.mark.parametrize("card", CARDS, ids=["fhir", "hl7v2", "omop"])
def test_fhir_is_valid_r4_and_says_what_the_scorecard_says(card: Scorecard) -> None:
    from fhir.resources.R4B.bundle import Bundle

    document = json.loads(fhir.render(card))
    Bundle.model_validate(document)
    report, outcome = (entry["resource"] for entry in document["entry"])
    findings = {f["id"]: f for f in card.document["findings"]}
    for group in report["group"]:
        finding = findings[group["id"]]
        counts = {one["code"]["coding"][0]["code"]: one["count"] for one in group.get("population", ())}
        assert counts.get("numerator") == finding["numerator"]
        assert counts.get("denominator") == finding["denominator"]
    failing = [f for f in findings.values() if f["status"] in {"fail", "warn", "error"}]
    assert len(outcome["issue"]) == len(failing) + len(card.document["verdict_reasons"])
    errors = {issue["details"]["coding"][0]["code"] for issue in outcome["issue"] if issue["severity"] == "error" and "expression" in issue}
    assert errors == {f["rule"] for f in failing if (f["status"], f["severity"]) == ("fail", "error") and f["element"] and not f["waiver"]}


@pytest.mark.parametrize("card", CARDS, ids=["fhir", "hl7v2", "omop"])
def test_openlineage_has_the_facets_and_fails_what_is_required(card: Scorecard) -> None:
    event = json.loads(openlineage.render(card))
    assert {"eventTime", "producer", "schemaURL", "run", "job"} <= event.keys()
    assert event["eventType"] == "COMPLETE"
    facets = event["inputs"][0]["inputFacets"]
    assert all({"_producer", "_schemaURL"} <= facet.keys() for facet in facets.values())
    assert facets["dataQualityMetrics"]["rowCount"] == card.document["subject"]["records"]["read"]
    assertions = facets["dataQualityAssertions"]["assertions"]
    assessed = [f for f in card.document["findings"] if f["status"] in {"pass", "warn", "fail"}]
    assert len(assertions) == len(assessed)
    required = [f for f in assessed if (f["status"], f["severity"]) == ("fail", "error") and not f["waiver"]]
    assert sum(not one["success"] for one in assertions) == len(required) > 0


def test_a_run_that_cannot_tell_fails() -> None:
    document = {**CARDS[0].document, "verdict": "cannot-tell"}
    card = Scorecard(document)
    assert json.loads(openlineage.render(card))["eventType"] == "FAIL"
    assert json.loads(fhir.render(card))["entry"][0]["resource"]["status"] == "error"


@pytest.mark.parametrize("name", ["openlineage", "fhir"])
def test_the_contract_of_reporters_is_kept(name: str) -> None:
    assert testing.reporter(OUTPUTS[name])
