"""The model contract: what it says, what it costs patients, and that nothing small shows."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ehrready import api, contract, pipeline
from ehrready.checks.contract import STEPS, waterfall
from ehrready.cli import app
from ehrready.contract import evidence, model_card
from ehrready.contract.draft import draft
from ehrready.contract.parser import CARD_KEYS
from ehrready.contract.schema import contract_schema
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from ehrready.production import run as production

ROOT = Path(__file__).parents[2]

#: How many patients stop at each step; the 240 others have the feature.
LOST = {"present": 40, "coded": 20, "system": 30, "code": 50, "unit": 60, "timed": 35}


def _result(patient: str, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": f"o{number}", "status": "final", "subject": {"reference": f"Patient/{patient}"},
        "code": {"coding": [{"system": "http://loinc.org", "version": "2.77", "code": "2160-0"}]}, "effectiveDateTime": "2024-06-01",
        "valueQuantity": {"value": 1.0, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}, **changes,
    }  # fmt: skip


#: What is wrong with the one result of a patient who stops at a step.
WRONG: dict[str, dict[str, Any]] = {
    "coded": {"code": {"text": "creatinine"}},
    "system": {"code": {"coding": [{"system": "http://snomed.info/sct", "code": "113075003"}]}},
    "code": {"code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}},
    "unit": {"valueQuantity": {"value": 80, "unit": "umol/L", "system": "http://unitsofmeasure.org", "code": "umol/L"}},
    "timed": {"effectiveDateTime": "2020-06-01"},
}


def _source(tmp_path: Path, lost: dict[str, int], usable: int = 240, female_lost: bool = False) -> str:
    lines: list[dict[str, Any]] = []
    number = itertools.count()
    for step, n in [*lost.items(), ("", usable)]:
        for _ in range(n):
            i = next(number)
            female = (i % 10 < (9 if step else 1)) if female_lost else i % 2 == 0
            lines.append(
                {"resourceType": "Patient", "id": f"Canary{i}", "gender": "female" if female else "male", "birthDate": "1980-01-01"}
            )
            lines.append(
                {"resourceType": "Encounter", "id": f"e{i}", "status": "finished", "subject": {"reference": f"Patient/Canary{i}"},
                 "class": {"code": "IMP"}, "period": {"start": "2024-06-30", "end": "2024-06-30"}}
            )  # fmt: skip
            if step != "present":
                lines.append(_result(f"Canary{i}", i, **WRONG.get(step, {})))
    path = tmp_path / "export.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


TEXT = """contract: "1.0"
model: {name: renal, version: 1.2.0}
cohort: {min_age: 18, having: [encounter]}
features:
  - {name: creatinine, table: observation, codes: {LOINC: ["2160-0"]}, units: [mg/dL], window_days: 365, required: 0.6, owner: engineering,
     releases: {LOINC: ["2.77"]}}
subgroups: [sex]
"""


def _check(tmp_path: Path, source: str, text: str = TEXT, **options: Any) -> dict[str, Any]:
    path = tmp_path / "contract.yaml"
    path.write_text(text)
    return dict(pipeline.check([source], None, Options(contract=str(path), validate="none", **options))[0].document)


def _of(document: dict[str, Any], rule: str) -> dict[str, Any]:
    (finding,) = [f for f in document["findings"] if f["rule"] == rule]
    return dict(finding)


def test_the_waterfall_counts_patients_at_the_step_that_they_fail(tmp_path: Path) -> None:
    document = _check(tmp_path, _source(tmp_path, LOST))
    finding = _of(document, "feature-creatinine")
    assert (finding["numerator"], finding["denominator"], finding["patients"]) == (235, 475, 235)
    assert (finding["status"], finding["limit"], finding["owner"]) == ("fail", 0.4, "engineering")
    left = list(itertools.accumulate(LOST.values(), lambda a, b: a - b, initial=475))[1:]
    assert [int(n) for n in re.findall(r"→ (\d+)", finding["message"])] == left
    assert document["contract"]["model"] == "renal"
    assert "renal 1.2.0" in document["verdict_reasons"][0]
    assert "contract renal" in {pack["name"] for pack in document["provenance"]["rule_packs"]}


def test_a_component_is_a_fact_with_its_own_unit(tmp_path: Path) -> None:
    source = Path(_source(tmp_path, LOST))
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    for line in lines:
        if line["resourceType"] == "Observation":  # what was the Observation's becomes its second component
            own = {key: line.pop(key) for key in ("code", "valueQuantity")}
            line["code"] = {"coding": [{"system": "http://loinc.org", "code": "24323-8"}]}
            line["component"] = [{"code": {"text": "comment"}, "valueString": "none"}, own]
    source.write_text("\n".join(map(json.dumps, lines)) + "\n")
    finding = _of(_check(tmp_path, str(source)), "feature-creatinine")
    assert (finding["numerator"], finding["denominator"], finding["patients"]) == (235, 475, 235)


def test_who_is_not_of_the_cohort_is_not_counted(tmp_path: Path) -> None:
    source = _source(tmp_path, LOST)
    children = TEXT.replace("min_age: 18, having: [encounter]", "min_age: 60")
    finding = _of(_check(tmp_path, source, children), "feature-creatinine")
    assert finding["status"] == "not-assessed"
    nobody = TEXT.replace("having: [encounter]", "having: [allergy]")
    finding = _of(_check(tmp_path, source, nobody), "feature-creatinine")
    assert (finding["status"], finding["reason"]) == ("not-assessed", "no patient is of the contract's cohort")


def test_a_feature_that_nobody_has_fails(tmp_path: Path) -> None:
    text = (
        TEXT.replace("table: observation", "table: immunization").replace(", units: [mg/dL]", "").replace('LOINC: ["2160-0"]', 'CVX: ["*"]')
    )
    finding = _of(_check(tmp_path, _source(tmp_path, LOST), text), "feature-creatinine")
    assert (finding["status"], finding["numerator"], finding["denominator"]) == ("fail", 475, 475)


def test_a_group_that_lacks_the_feature_is_named(tmp_path: Path) -> None:
    even = _of(_check(tmp_path, _source(tmp_path, LOST)), "feature-creatinine-groups")
    assert even["status"] == "pass"
    uneven = _of(_check(tmp_path, _source(tmp_path, LOST, female_lost=True)), "feature-creatinine-groups")
    assert (uneven["status"], uneven["group"]) == ("fail", {"sex": "female"})


@pytest.mark.parametrize("internal", [False, True])
def test_a_group_does_not_tell_the_few_of_another(tmp_path: Path, *, internal: bool) -> None:
    source = Path(_source(tmp_path, {"present": 0, "coded": 40}, usable=160))
    # of those without the feature all but three are women: 37 of 40, which with the 40 would tell the three
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    for i, patient in enumerate(line for line in lines if line["resourceType"] == "Patient"):
        patient["gender"] = "male" if i < 3 or i % 2 else "female"
    for i, patient in enumerate(line for line in lines if line["resourceType"] == "Patient"):
        if 3 <= i < 40:
            patient["gender"] = "female"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n")
    finding = _of(_check(tmp_path, str(source), internal=internal), "feature-creatinine-groups")
    assert finding["status"] == "fail"
    assert finding["numerator"] == (37 if internal else None)
    assert internal or "others" not in finding["message"]


def test_a_release_that_the_contract_does_not_accept_fails(tmp_path: Path) -> None:
    source = _source(tmp_path, LOST)
    assert _of(_check(tmp_path, source), "pin-loinc-observation-code")["status"] == "pass"
    finding = _of(_check(tmp_path, source, TEXT.replace('"2.77"', '"2.80"')), "pin-loinc-observation-code")
    assert finding["status"] == "fail"
    assert "accepts 2.80" in finding["message"]
    assert finding["numerator"] == finding["denominator"] > 300


def test_compare_of_internal_profiles_judges_the_contract_as_check_does(tmp_path: Path) -> None:
    source = _source(tmp_path, LOST)
    document = _check(tmp_path, source, internal=True)
    options = Options(contract=str(tmp_path / "contract.yaml"), validate="none", internal=True)
    profile, _, _ = pipeline.read_profile([source], options)
    again = pipeline.judge(profile, None, options).document
    for rule in ("feature-creatinine", "feature-creatinine-groups", "pin-loinc-observation-code"):
        assert _of(dict(again), rule) == _of(document, rule)


def test_a_profile_made_without_the_contract_cannot_tell(tmp_path: Path) -> None:
    source = _source(tmp_path, LOST)
    _check(tmp_path, source)
    profile, _, _ = pipeline.read_profile([source], Options(validate="none"))
    card = pipeline.judge(profile, None, Options(contract=str(tmp_path / "contract.yaml"))).document
    assert _of(dict(card), "feature-creatinine")["status"] == "not-assessed"


@given(st.lists(st.integers(0, 40), min_size=6, max_size=6), st.integers(0, 500))
def test_no_step_of_the_waterfall_shows_a_small_group(lost: list[int], usable: int) -> None:
    of = sum(lost) + usable
    text = waterfall(lost, of)
    numbers = [int(n.replace(",", "")) for n in re.findall(r"(?:^|→ )([\d,]+) ", text)]
    assert numbers[0] == of
    assert numbers[-1] == usable
    if sum(lost) == 0 or sum(lost) > 10:  # else the whole text is left out
        assert all(a - b == 0 or a - b > 10 for a, b in itertools.pairwise(numbers))


@pytest.mark.parametrize("step", list(STEPS))
def test_few_patients_lost_at_a_step_show_nowhere(tmp_path: Path, step: str) -> None:
    document = _check(tmp_path, _source(tmp_path, {**LOST, step: 4}))
    finding = _of(document, "feature-creatinine")
    numbers = [475 - LOST[step] + 4, *(int(n) for n in re.findall(r"→ (\d+)", finding["message"]))]
    assert finding["status"] in {"pass", "fail"}
    assert all(a == b or a - b > 10 for a, b in itertools.pairwise(numbers))
    assert "Canary" not in json.dumps(document)


def test_every_mistake_is_told_with_its_line() -> None:
    text = (
        'contract: "2.0"\nmodel: {name: a b, version: 1}\nfeatures:\n  - {name: x, table: labs}\n  - {name: y, table: condition, codes: {LOINK: [a]},\n'
        "     required: 2}\n  - {name: y, table: condition, codes: {ICD10: [b]}}\noutputs:\n  - {name: r, kind: score}\nowners:\n"
        "  - {name: e, webhook: 'https://x'}\nextra: 1\n"
    )
    with pytest.raises(UsageError) as raised:
        contract.parse(text.encode())
    told = "\n".join(raised.value.problems)
    for line, words in (
        (1, "version of this format"), (2, "model.name"), (4, "table must be one of"), (5, "did you mean 'LOINC'"), (6, "share between 0 and 1"),
        (7, "may be ICD-10-CM or"), (9, "a score needs range"), (11, "environment variable"), (12, "unknown key 'extra'"), (1, "two features"),
    ):  # fmt: skip
        assert re.search(rf"contract.yaml:{line}: .*{re.escape(words)}", told), (line, words, told)


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (4, "  - {name: x, table: obsrvation}", "table must be one of patient, .*did you mean 'observation'"),
        (4, "  - {name: x, table: observation, element: valu}", "unknown key 'element'"),
        (4, "  - {name: x, table: condition, codes: {ICD-10-XM: ['*']}}", "unknown code system 'ICD-10-XM'"),
        (6, "  - {name: r, kind: score, range: [0, 1], write_back: {resource: RiskAssesment}}", "'RiskAssesment' is no resource type .*did you mean 'RiskAssessment'"),
        (6, "  - {name: r, kind: score, range: [0, 1], write_back: {resource: RiskAssessment, interactions: [creat]}}", "did you mean 'create'"),
        (6, "  - {name: r, kind: score, range: [0, 1], columns: {patiennt: x}}", "unknown key 'patiennt'"),
        (2, "model: {name: a, version: 1}\ncohort: {having: [encountr]}", "did you mean 'encounter'"),
        (2, "model: {name: a, version: 1}\nsubgroups: [sexx]", "did you mean 'sex'"),
        (2, "model: {name: a, version: 1}\ndeployment: {fhir_version: R4}", "fhir_version is 'R4', and must be"),
        (2, "model: {name: a, version: 1}\ncard: {developper: us}", "did you mean 'developer'"),
    ],
)  # fmt: skip
def test_what_the_contract_does_not_know_ends_the_command_with_its_line(tmp_path: Path, line: int, instead: str, said: str) -> None:
    lines = [
        'contract: "1.0"',
        "model: {name: a, version: 1}",
        "features:",
        "  - {name: x, table: observation}",
        "outputs:",
        "  - {name: r, kind: text}",
    ]
    lines[line - 1] = instead
    path = tmp_path / "contract.yaml"
    path.write_text("\n".join(lines))
    (tmp_path / "metadata.json").write_text("{}")
    done = CliRunner().invoke(app, ["integration", "--capability", str(tmp_path / "metadata.json"), "--contract", str(path)])
    assert isinstance(done.exception, UsageError)  # which the command line turns into exit 2
    assert done.exception.code == 2
    (problem,) = done.exception.problems
    assert re.match(rf"contract.yaml:{line + instead.count(chr(10))}: .*{said}", problem), problem


@pytest.mark.parametrize("data", [b"", b"[]", b"a: &x 1\nb: *x", b"\xff\xfe", b"{" * 200])
def test_what_is_no_contract_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        contract.parse(data)


@pytest.mark.parametrize("fmt", ["fhir", "hl7v2", "omop"])
def test_a_draft_holds_for_the_data_that_it_was_drafted_from(tmp_path: Path, fmt: str) -> None:
    source = ROOT / "sample_data" / "training" / fmt
    text = draft(api.profile_of(source, validate="none"), most=2)
    jsonschema.validate(yaml.safe_load(text), contract_schema())
    document = _check(tmp_path, str(source), text)
    found = {f["rule"]: f["status"] for f in document["findings"] if f["check"] == "feature-available"}
    assert len(found) >= 4
    assert set(found.values()) == {"pass"}


def test_a_draft_of_an_empty_profile_says_what_to_do() -> None:
    from ehrready.profile import Profile

    with pytest.raises(UsageError, match="at least one feature"):
        contract.parse(draft(Profile("none")).encode())


def test_the_evidence_table_has_the_31_attributes_and_no_markup(tmp_path: Path) -> None:
    text = TEXT + 'card: {developer: "Us | <b>them</b>", intended_use: "To warn."}\n'
    document = _check(tmp_path, _source(tmp_path, LOST), text)
    found = evidence.rows(contract.parse(text.encode()), document)
    assert len(found) == 31
    by_paragraph = {row["paragraph"]: row for row in found}
    assert by_paragraph["2.i"]["evidence"] == "contract"
    assert by_paragraph["4.iv"]["answer"] == "0 of 1 features are available as required"
    assert by_paragraph["8.iv"]["evidence"] == "none"
    shown = evidence.markdown(contract.parse(text.encode()), document)
    assert "<b>" not in shown
    assert all(line.count("|") - line.count("\\|") == 5 for line in shown.splitlines() if line.startswith("|"))


SECTIONS = [  # in the order of the paper (figure 1)
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses", "Ethical considerations",
    "Caveats and recommendations",
]  # fmt: skip


def test_the_model_card_has_its_nine_sections_and_says_what_is_not_stated(tmp_path: Path) -> None:
    text = (
        TEXT
        + 'outputs:\n  - {name: risk, kind: score, range: [0, 1], threshold: 0.4}\ncard: {intended_use: "To | <b>warn</b>.", licence: MIT, bias_management: none}\n'
    )
    found, document = contract.parse(text.encode()), _check(tmp_path, _source(tmp_path, LOST), text)
    card = model_card.rows(found, document)
    assert list(dict.fromkeys(row["section"] for row in card)) == SECTIONS
    by_what = {row["attribute"]: row for row in card}
    assert by_what["Name and version"]["answer"] == "renal 1.2.0"
    assert by_what["Licence"] == {"section": "Model details", "attribute": "Licence", "answer": "MIT", "evidence": "contract"}
    assert by_what["Decision thresholds"]["answer"] == "risk: alerts from 0.4"
    # the answers of the source attributes, not others
    hti = {row["paragraph"]: row for row in evidence.rows(found, document)}
    assert by_what["Primary uses"]["answer"] == hti["2.i"]["answer"]
    assert by_what["Fairness and bias"]["answer"] == hti["5.ii"]["answer"]
    assert by_what["Relevance to the setting"]["answer"] == hti["4.iv"]["answer"] == "0 of 1 features are available as required"
    assert by_what["Developer"]["answer"] == "not stated in the contract: add card.developer"
    assert by_what["Risks and harms"]["evidence"] == "none"
    assert by_what["Performance measures"]["answer"].startswith("not measured")
    for row in card:  # each remedy is one that the contract takes
        if "add card." in row["answer"]:
            assert row["answer"].rpartition(".")[2] in CARD_KEYS
    shown = evidence.markdown(found, document)
    assert "## Model card" in shown
    assert "<b>" not in shown


def test_the_model_card_has_the_figures_of_production(demo_scorecards: tuple[Any, dict[str, Any]]) -> None:
    found, document = demo_scorecards
    by_what = {row["attribute"]: row for row in model_card.rows(found, document)}
    assert by_what["Groups that were evaluated"]["answer"] == "age 18-44, age 45-64, age 65-84, sex female, sex male"
    assert "AUROC" in by_what["Performance measures"]["answer"]
    shown = next(d for d in document["distributions"] if d["kind"] == "accuracy-by-group" and d["metric"] == "auroc")
    female = next(r for r in shown["rows"] if r["group"] == "female")
    assert f"female {female['value']} ({female['low']} to {female['high']})" in by_what["Results by group"]["answer"]
    assert by_what["Results by group"]["evidence"] == "scorecard"


@pytest.fixture(scope="module")
def demo_scorecards() -> tuple[Any, dict[str, Any]]:
    """The contract of the sample data, and the scorecard of its predictions."""
    folder = ROOT / "sample_data" / "production"
    path = str(folder / "contract.yaml")
    given = [str(folder / "predictions.csv.gz")]
    card, _, _, _ = production.monitor(given, Options(contract=path, stamp="2026-07-01", validate="none"))
    return contract.load(path), dict(card.document)


def test_from_the_command_line(tmp_path: Path) -> None:
    source = _source(tmp_path, LOST)
    runner = CliRunner()
    made, drafted, scored = (str(tmp_path / name) for name in ("p.json", "c.yaml", "s.json"))
    assert runner.invoke(app, ["profile", source, "-o", made, "--internal", "--validate", "none"]).exit_code == 0
    assert runner.invoke(app, ["contract", "init", "--from", made, "-o", drafted, "--model", "m"]).exit_code == 0
    assert runner.invoke(app, ["contract", "lint", drafted]).exit_code == 0
    runner.invoke(app, ["check", source, "--contract", drafted, "--json", scored, "--validate", "none"])
    shown = runner.invoke(app, ["contract", "evidence", drafted, scored])
    assert shown.exit_code == 0
    assert "| 9.ii |" in shown.stdout
    other = tmp_path / "other.yaml"
    other.write_text(TEXT)
    refused = runner.invoke(app, ["contract", "evidence", str(other), scored])
    assert isinstance(refused.exception, UsageError)


def test_two_features_that_differ_by_a_few_patients_do_not_tell_them(tmp_path: Path) -> None:
    lost = {"present": 40, "unit": 6}
    second = '  - {name: any-unit, table: observation, codes: {LOINC: ["2160-0"]}, required: 0.6}\n'
    text = TEXT.replace("subgroups", f"{second}subgroups")
    document = _check(tmp_path, _source(tmp_path, lost), text)
    numbers = [_of(document, f"feature-{name}")["numerator"] for name in ("creatinine", "any-unit")]
    assert numbers == [46, None]
    assert all(f["numerator"] is None for f in document["findings"] if f["rule"] == "feature-any-unit-groups")
    apart = _check(tmp_path, _source(tmp_path, {**lost, "unit": 30}), text)
    assert [_of(apart, f"feature-{name}")["numerator"] for name in ("creatinine", "any-unit")] == [70, 40]
