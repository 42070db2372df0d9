"""Rule packs: every mistake at once, with file, line and a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from ehrready import rules
from ehrready.checks import CHECKS
from ehrready.errors import UsageError

GOOD = """\
pack: mine
version: 1.0.0
rules:
  - id: coded
    check: coded
    on: "*.code"
    fail: {max_rate: 0.05}
    severity: error
    owner: engineering
    why: because
    fix: map it
"""


def test_shipped_packs_are_sound_and_every_rule_is_explained() -> None:
    packs = [rules.load(path) for path in rules.shipped().values()]
    assert {"core", "fhir-us-core", "hl7v2", "omop"} <= {pack.name for pack in packs}
    homes: dict[str, set[str]] = {}
    for pack in packs:
        for rule in pack.rules:
            homes.setdefault(rule.id, set()).add(rule.pack)
    assert {rule_id: names for rule_id, names in homes.items() if len(names) > 1} == {}
    for pack in packs:
        for rule in pack.rules:
            assert rule.title, rule.id
            assert "Numerator" in CHECKS[rule.check].help, rule.check
            assert "Denominator" in CHECKS[rule.check].help or "denominator" in CHECKS[rule.check].help, rule.check


def test_a_glob_expands_to_elements(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    rule = rules.load(tmp_path / "p.yaml").rules[0]
    assert "condition.code" in rule.elements
    assert all(element.endswith(".code") for element in rule.elements)


def test_every_mistake_is_listed_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        GOOD.replace("check: coded", "check: coded\n    colour: red")
        .replace("fail: {max_rate: 0.05}", "fail: {max_rate: 5}")
        .replace("severity: error", "severity: fatal")
        .replace('on: "*.code"', "on: condition.cod")
        + "  - id: other\n    check: presnt\n"
    )
    with pytest.raises(UsageError) as caught:
        rules.load(tmp_path / "p.yaml")
    problems = "\n".join(caught.value.problems)
    for expected in (
        "p.yaml:6: the rule: unknown key 'colour'",
        "p.yaml:7: no element matches 'condition.cod' (did you mean 'condition.code'?)",
        "p.yaml:8: fail.max_rate must be a share between 0 and 1",
        "p.yaml:9: severity must be one of error, warning, info",
        "p.yaml:14: unknown check 'presnt' (did you mean 'present'?)",
    ):
        assert expected in problems, problems


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the pack is empty"),
        ("pack: [", "not valid YAML"),
        ("a: &x 1\nb: *x\n", "aliases are not allowed"),
        ("- 1\n", "must be a mapping"),
        (GOOD + GOOD.split("rules:\n")[1], "rule coded is there twice"),
        (GOOD.replace("rules:", "disable: [nothing]\nrules:"), "no rule 'nothing'"),
        (GOOD.replace("rules:", "extends: p.yaml\nrules:"), "break the cycle"),
        (GOOD.replace("    fail: {max_rate: 0.05}\n", ""), "has no limit"),
        (GOOD.replace("check: coded", "check: expected-system"), "needs the option systems"),
        (GOOD.replace("check: coded", "check: expected-system\n    systems: loinc"), "a list, each a text"),
        ("#" * 1_000_001, "at most"),
    ],
)
def test_bad_packs(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=says):
        rules.load_all([str(tmp_path / "p.yaml")])


def test_a_pack_extends_and_disables(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD.replace("rules:", "extends: core\ndisable: [code-coded]\nrules:"))
    ids = {rule.id for rule in rules.load(tmp_path / "p.yaml").rules}
    core = {rule.id for rule in rules.load(rules.shipped()["core"]).rules}
    assert ids == core - {"code-coded"} | {"coded"}
