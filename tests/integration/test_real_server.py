"""``ehrready integration`` against a FHIR server that runs: its own CapabilityStatement, made by the framework, not by us."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.helpers.servers import listening

PROJECT = Path(__file__).parents[2]
PYTHON = PROJECT / ".venv-servers" / "bin" / "python"
CONTRACT = """contract: "1.0"
model: {name: renal, version: 1.2.0}
cohort: {having: [encounter]}
features:
  - {name: creatinine, table: observation, codes: {LOINC: ["2160-0"]}, units: [mg/dL]}
  - {name: kidney-disease, table: condition}
  - {name: stays, table: encounter}
outputs:
  - {name: risk, kind: score, range: [0, 1], write_back: {resource: RiskAssessment, interactions: [create]}}
deployment: {fhir_version: 4.3.0, smart: backend, scopes: [system/Observation.rs]}
"""
RESULT = {
    "resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/p1"}, "effectiveDateTime": "2026-03-01",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]}, "valueQuantity": {"value": 1.1, "unit": "mg/dL"},
}  # fmt: skip


@contextlib.contextmanager
def server(*without: str) -> Iterator[str]:
    """Run tests/integration/fhir_server.py; yields its base address."""
    if not PYTHON.exists() or not list(PYTHON.parents[1].glob("lib/*/site-packages/fhirstarter")):
        pytest.skip("needs the FHIR server: make servers")
    script = str(Path(__file__).parent / "fhir_server.py")
    with listening(lambda port: [str(PYTHON), script, str(port), "--without", *without]) as address:
        yield address


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """A server that offers all that the contract needs."""
    with server() as address:
        yield address


def _ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body)
    answer = urllib3.request("POST" if body else "GET", url, body=data, headers={"Content-Type": "application/fhir+json"}, timeout=60)
    assert answer.status in {200, 201}
    return dict(json.loads(answer.data or b"{}"))


def _judged(tmp_path: Path, base: str, contract: str = CONTRACT) -> tuple[dict[str, Any], int]:
    """Run the command as its user does; returns the scorecard and the exit code."""
    (tmp_path / "contract.yaml").write_text(contract)
    arguments = ["integration", "--capability", base, "--contract", "contract.yaml", "--json", "card.json", "--html", "card.html"]
    done = subprocess.run(
        [sys.executable, "-m", "ehrready", *arguments], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    return json.loads((tmp_path / "card.json").read_bytes()), done.returncode


def _statuses(card: dict[str, Any]) -> dict[str, str]:
    return {f["rule"].removeprefix("integration-"): f["status"] for f in card["findings"] if f["severity"] != "info"}


def test_a_running_server_that_offers_what_the_model_needs_is_ready(tmp_path: Path, base: str) -> None:
    card, code = _judged(tmp_path, base)
    assert _statuses(card) == dict.fromkeys(
        ("fhir-version", "read-condition", "read-encounter", "read-observation", "read-patient", "write-risk", "smart", "scopes"), "pass"
    )
    assert (card["verdict"], code) == ("ready", 0)
    assert (card["subject"]["bytes"] > 1000, card["subject"]["records"]["profiled"]) == (True, 1)


def test_the_server_does_what_its_statement_says(base: str) -> None:
    # else the tests above and below would be about a page of text: what passes can be done, what is left out cannot
    _ask(f"{base}/Observation", RESULT)
    found = _ask(f"{base}/Observation?patient=p1&code=2160-0&date=2026-03-01")
    assert [entry["resource"]["valueQuantity"]["value"] for entry in found["entry"]] == [1.1]
    assert _ask(f"{base}/Observation?patient=p2")["total"] == 0


def test_what_a_running_server_lacks_is_found_and_nothing_else(tmp_path: Path) -> None:
    with server("Observation.date", "RiskAssessment.create", "Encounter.search") as base:
        bulk = CONTRACT.replace("smart: backend", "smart: backend, bulk_export: true")
        card, code = _judged(tmp_path, base, bulk)
    assert (card["verdict"], code) == ("not-ready", 1)
    failed = {f["rule"]: (f["numerator"], f["denominator"], f["message"]) for f in card["findings"] if f["status"] == "fail"}
    assert {rule: counts[:2] for rule, counts in failed.items()} == {
        "integration-read-observation": (1, 4), "integration-read-encounter": (3, 3), "integration-write-risk": (1, 1), "integration-bulk-export": (1, 1),
    }  # fmt: skip
    assert "Observation search by date" in failed["integration-read-observation"][2]
    assert "RiskAssessment create" in failed["integration-write-risk"][2]
    assert _statuses(card)["read-condition"] == "pass"


def test_a_running_server_of_another_fhir_release_cannot_be_judged(tmp_path: Path, base: str) -> None:
    card, code = _judged(tmp_path, base, CONTRACT.replace("4.3.0", "4.0.1"))
    assert (card["verdict"], code) == ("cannot-tell", 3)
    assert "is 4.3.0 (R4B), the contract needs 4.0.1 (R4)" in card["verdict_reasons"][1]
