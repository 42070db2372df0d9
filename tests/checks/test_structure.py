"""Whole FHIR resources, on the sample that the reader keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ehrready import pipeline, rules
from ehrready.checks import structure
from ehrready.errors import UsageError
from ehrready.integrations import fhir_validation
from ehrready.pipeline import Options
from ehrready.readers import chosen
from ehrready.scorecard import Scorecard

CANARY = "Zanzibar"


def _observation(n: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{n}",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{CANARY}{n % 50}"},
        **more,
    }


def _source(tmp_path: Path, resources: list[dict[str, Any]]) -> str:
    path = tmp_path / "data.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)) + "\n")
    return str(path)


def _card(source: str, **options: Any) -> Scorecard:
    return pipeline.check([source], None, Options(rules=("fhir-us-core",), internal=True, **options))[0]


def _found(card: Scorecard, rule: str) -> dict[tuple[str, ...], tuple[str, int, int]]:
    rows = [f for f in card.document["findings"] if f["rule"] == rule]
    return {tuple(f["group"].values()): (f["status"], f["numerator"], f["denominator"]) for f in rows}


def test_each_kind_of_error_is_found_at_its_path_and_no_value_is_shown(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {CANARY: "x"},
        {"valueQuantity": {"value": CANARY}},
        {"status": None},
        {"code": []},
        {"effectiveDateTime": CANARY},
    ]
    resources = [_observation(n, **(wrong[n % 10] if n % 10 < 5 else {})) for n in range(100)]
    for resource in resources:
        if resource["status"] is None:
            del resource["status"]
    card = _card(_source(tmp_path, resources))
    found = _found(card, "us-core-structure-valid")
    assert found[()] == ("fail", 50, 100)
    assert {key: value[1:] for key, value in found.items() if key} == {
        ("Observation", "unknown-property"): (10, 100),
        ("Observation.code", "wrong-type"): (10, 100),
        ("Observation.effectiveDateTime", "wrong-format"): (10, 100),
        ("Observation.status", "missing"): (10, 100),
        ("Observation.valueQuantity.value", "wrong-format"): (10, 100),
    }
    assert CANARY not in card.to_json().decode()


def test_sound_resources_pass_and_a_sample_is_enough(tmp_path: Path) -> None:
    source = _source(tmp_path, [_observation(n) for n in range(400)])
    assert _found(_card(source), "us-core-structure-valid") == {(): ("pass", 0, 100)}
    assert _found(_card(source, validate="all"), "us-core-structure-valid") == {(): ("pass", 0, 400)}
    (none,) = [f for f in _card(source, validate="none").document["findings"] if f["rule"] == "us-core-structure-valid"]
    assert none["status"] == "not-applicable"


def test_the_sample_is_the_same_every_time_and_spread_over_the_file(tmp_path: Path) -> None:
    source = _source(tmp_path, [_observation(n, **({CANARY: 1} if n >= 200 else {})) for n in range(400)])
    first, second = _card(source), _card(source)
    assert first.to_json() == second.to_json()
    status, wrong, of = _found(first, "us-core-structure-valid")[()]
    assert (status, of) == ("fail", 100)
    assert 30 <= wrong <= 70


def test_must_support_elements_that_nobody_fills_are_named(tmp_path: Path) -> None:
    lab = {"category": [{"coding": [{"code": "laboratory"}]}]}
    resources = [_observation(n, **lab, valueString="x", **({"interpretation": [{"text": "H"}]} if n == 7 else {})) for n in range(60)]
    found = _found(_card(_source(tmp_path, resources)), "us-core-must-support-filled")
    assert found[("Observation.category",)] == ("pass", 0, 60)
    assert found[("Observation.value[x]|Observation.dataAbsentReason|Observation.component",)] == ("pass", 0, 60)
    assert found[("Observation.effective[x]",)] == ("fail", 60, 60)
    assert found[("Observation[laboratory].interpretation",)] == ("pass", 59, 60)
    assert found[("Observation[laboratory].specimen",)] == ("fail", 60, 60)
    assert not [key for key in found if key[0].startswith("Patient.")], "a type that is not there is not judged"


def test_an_extension_in_place_of_a_value_is_there(tmp_path: Path) -> None:
    absent = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}
    resources = [_observation(n, _effectiveDateTime=absent) for n in range(40)]
    assert _found(_card(_source(tmp_path, resources)), "us-core-must-support-filled")[("Observation.effective[x]",)][0] in {"pass", "fail"}
    patients = [{"resourceType": "Patient", "id": str(n), "_birthDate": absent} for n in range(40)]
    assert _found(_card(_source(tmp_path, patients)), "us-core-must-support-filled")[("Patient.birthDate",)] == ("pass", 0, 40)


def test_other_processes_find_the_same() -> None:
    texts = [json.dumps(_observation(n, **({CANARY: 1} if n % 7 == 0 else {}))) for n in range(5_200)]
    alone, shared = fhir_validation.validate(texts, processes=1), fhir_validation.validate(texts, processes=2)
    assert alone == shared
    assert alone.wrong == 743


@pytest.mark.parametrize("version", ["R4", "R4B", "R5", "STU3"])
def test_every_version_has_its_models(version: str) -> None:
    found = fhir_validation.validate([json.dumps(_observation(1)), '{"resourceType": "Nonsense"}'], version)
    assert (found.checked, dict(found.problems)) == (2, {("unknown-type", "unknown-type"): 1})


def test_wrong_options_are_wrong_usage(tmp_path: Path) -> None:
    base = "pack: own\nversion: 1.0.0\nrules:\n  - id: x\n    severity: info\n    owner: o\n    why: w\n    fix: f\n    fail: {max_rate: 0.1}\n"
    for more, says in (
        ("    check: structure-valid\n    version: R3\n", "version must be one of"),
        ("    check: must-support\n    elements: [birth date]\n", "is no path such as"),
    ):
        (tmp_path / "own.yaml").write_text(base + more)
        with pytest.raises(UsageError, match=says):
            rules.load(tmp_path / "own.yaml")
    assert [reader.format for reader in chosen("auto", validate="none")] == ["fhir", "hl7v2", "omop", "table"]


def test_a_signal_while_the_sample_is_fetched_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise RuntimeError("Query interrupted")  # what the engine raises of a statement that a signal ends

    monkeypatch.setattr(structure, "_sample", interrupted)
    with pytest.raises(RuntimeError, match="interrupted"):
        _card(_source(tmp_path, [_observation(1)]))
