"""Packs that extend others: what is switched off, changed by element, and changed by site."""

from __future__ import annotations

from pathlib import Path

import pytest

from ehrready import pipeline, privacy, rules
from ehrready.errors import UsageError
from ehrready.evaluate import evaluate
from ehrready.pipeline import Options
from ehrready.profile import Profile
from ehrready.rules import Limits, Rule

PACK = """\
pack: mine
version: 2.0.0
extends: core
{more}
"""


def _pack(tmp_path: Path, more: str, name: str = "mine.yaml") -> rules.Pack:
    (tmp_path / name).write_text(PACK.format(more=more))
    return rules.load(tmp_path / name)


def _rules(pack: rules.Pack, rule_id: str) -> list[Rule]:
    return [rule for rule in pack.rules if rule.id == rule_id]


def test_an_override_changes_the_elements_it_names_and_no_other(tmp_path: Path) -> None:
    pack = _pack(tmp_path, "overrides:\n  - {rules: event-time-present, on: 'report.*', fail: {max_rate: 0.2}, severity: warning}")
    parts = _rules(pack, "event-time-present")
    changed = next(part for part in parts if part.elements == ("report.at",))
    rest = next(part for part in parts if "report.at" not in part.elements)
    assert (changed.limits.fail, changed.severity) == (0.2, "warning")
    assert (rest.limits.fail, rest.severity) == (0.05, "error")
    core = next(rule for rule in rules.load(rules.shipped()["core"]).rules if rule.id == "event-time-present")
    assert sorted(changed.elements + rest.elements) == sorted(core.elements)


def test_an_override_may_name_rules_by_glob_and_set_options_they_share(tmp_path: Path) -> None:
    pack = _pack(
        tmp_path, "overrides:\n  - {rules: '*-present', owner: registration}\n  - {rules: patient-sex-present, null_tokens: false}"
    )
    assert {rule.owner for rule in pack.rules if rule.id.endswith("-present")} == {"registration"}
    assert [rule.options for rule in _rules(pack, "patient-sex-present")] == [{"null_tokens": False}]
    assert next(rule for rule in pack.rules if rule.id == "code-coded").owner != "registration"


def test_later_overrides_win_and_keep_what_they_do_not_name(tmp_path: Path) -> None:
    more = "overrides:\n  - {rules: patient-sex-present, fail: {max_rate: 0.3}, warn: {max_rate: 0.2}}\n  - {rules: patient-*, fail: {max_rate: 0.4}}"
    rule = _rules(_pack(tmp_path, more.replace("patient-*", "patient-sex-*")), "patient-sex-present")[0]
    assert rule.limits == Limits(fail=0.4, warn=0.2)


def test_rules_are_switched_off_by_glob(tmp_path: Path) -> None:
    pack = _pack(tmp_path, "disable: ['*-as-in-training', lookback*]".replace(", lookback*", ""))
    assert not [rule for rule in pack.rules if rule.id.endswith("-as-in-training")]
    assert "volume-as-in-training" in pack.disabled


def test_a_pack_may_extend_a_pack_that_extends_another(tmp_path: Path) -> None:
    _pack(tmp_path, "overrides:\n  - {rules: patient-sex-present, fail: {max_rate: 0.3}}", "base.yaml")
    (tmp_path / "top.yaml").write_text(
        "pack: top\nversion: 1.0.0\nextends: base.yaml\noverrides:\n  - {rules: patient-sex-present, min_n: 5}\n"
    )
    rule = _rules(rules.load(tmp_path / "top.yaml"), "patient-sex-present")[0]
    assert (rule.limits.fail, rule.min_n) == (0.3, 5)


def test_a_folder_with_the_name_of_a_pack_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "hl7v2").write_text("no pack")
    monkeypatch.chdir(tmp_path)
    assert [pack.name for pack in rules.load_all(["core", "hl7v2"])] == ["core", "hl7v2"]


def test_packs_named_together_must_agree(tmp_path: Path) -> None:
    _pack(tmp_path, "overrides:\n  - {rules: patient-sex-present, fail: {max_rate: 0.3}}")
    (tmp_path / "plain.yaml").write_text("pack: plain\nversion: 1.0.0\nextends: core\n")
    mine, plain = str(tmp_path / "mine.yaml"), str(tmp_path / "plain.yaml")
    assert [pack.name for pack in rules.load_all(["core", mine])] == ["mine"], "a pack brings those it extends, as it changed them"
    with pytest.raises(UsageError, match="patient-sex-present is not the same in pack plain and in pack mine"):
        rules.load_all([plain, mine])
    _pack(tmp_path, "disable: patient-sex-present")
    with pytest.raises(UsageError, match="switched off by pack mine and brought back by pack plain"):
        rules.load_all([plain, mine])
    (tmp_path / "again.yaml").write_text("pack: again\nversion: 1.0.0\nextends: [core, fhir-us-core]\n")
    both = rules.load_all([plain, str(tmp_path / "again.yaml")])
    assert {rule.id for rule in rules.merged(both)} == {rule.id for pack in both for rule in pack.rules}
    assert len(rules.merged(both)) == len({(rule.id, rule.elements) for pack in both for rule in pack.rules})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("overrides:\n  - {fail: {max_rate: 0.1}}", "mine.yaml:5: the override needs rules"),
        ("overrides:\n  - {rules: code-codet, fail: {max_rate: 0.1}}", "no rule 'code-codet' (did you mean 'code-coded'?)"),
        ("overrides:\n  - {rules: code-coded}", "changes nothing"),
        ("overrides:\n  - {rules: code-coded, on: patient.sex, fail: {max_rate: 0.1}}", "no element matches 'patient.sex'"),
        ("overrides:\n  - {rules: code-coded, severity: errr}", "did you mean 'error'?"),
        ("overrides:\n  - {rules: code-coded, null_tokens: true}", "unknown key 'null_tokens'"),
        ("overrides:\n  - {rules: patient-sex-present, null_tokens: 3}", "option null_tokens of present must be true or false"),
        ("overrides:\n  - {rules: code-mix-as-in-training, fail: {max_rate: 0.1}}", "code-mix-shift sets its own limit"),
        (
            "overrides:\n  - {rules: ingest-accounted, site: A, fail: {max_rate: 0.1}}",
            "ingest-accounted cannot be judged by site (allowed-value, code-current, coded, ",
        ),
        (
            "overrides:\n  - {rules: code-coded, site: other-sites, fail: {max_rate: 0.1}}",
            "other-sites are the sites without limits of their own",
        ),
        ("overrides:\n  - {rules: code-coded, site: A, severity: info}", "limits of its own"),
        ("overrides: {rules: code-coded}", "overrides must be a list"),
        ("disable: []", "disable must be a text or a list of texts"),
        ("rules:\n  - id: 2024-13-45\n    check: coded", "the rule needs a text for id"),
    ],
)
def test_mistakes_in_a_pack_that_extends_another(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        _pack(tmp_path, more)
    assert says in str(caught.value)


def test_mistakes_are_told_in_the_order_of_their_lines(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _pack(tmp_path, "disable: nothing-such\noverrides:\n  - {rules: code-coded}\n  - {rules: nope, min_n: 0}")
    lines = [int(problem.split(":")[1]) for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert len(lines) >= 3


def _by_site() -> Profile:
    """Three sites: A leaves sex out in half of its patients, B and C in none."""
    profile = Profile()
    profile.source_elements["patient.sex"] = "Patient.gender"
    states = profile.frames["states"]
    profile.frames["volume"]["patient", ""] = (300, 300)
    for grouping, group, missing, of in (("all", "", 50, 300), ("site", "A", 50, 100), ("site", "B", 0, 100), ("site", "C", 0, 100)):
        for state, n in (("missing", missing), ("present", of - missing), ("*", of)):
            if n:
                states["patient.sex", grouping, group, state] = (n, n, n, n)
    return profile


def _sex(sites: tuple[tuple[str, Limits], ...]) -> Rule:
    return Rule(
        "sex",
        "present",
        ("patient.sex",),
        "error",
        "engineering",
        "why",
        "fix",
        options={"null_tokens": False},
        limits=Limits(fail=0.05),
        sites=sites,
    )


def test_a_site_with_limits_of_its_own_is_judged_apart_from_the_others() -> None:
    everywhere = evaluate(_by_site(), None, [_sex(())])
    assert [(f.group, f.status) for f in everywhere] == [({}, "fail")]
    apart = evaluate(_by_site(), None, [_sex((("A", Limits(fail=0.6)),))])
    assert [(f.group["site"], f.status, f.outcome.n, f.outcome.of) for f in apart] == [
        ("A", "pass", 50, 100),
        ("other-sites", "pass", 0, 200),
    ]
    strict = evaluate(_by_site(), None, [_sex((("B", Limits(fail=0.001)),))])
    assert [(f.group["site"], f.status, f.outcome.n) for f in strict] == [("B", "pass", 0), ("other-sites", "fail", 50)]


def test_a_site_that_sends_nothing_is_no_pass() -> None:
    findings = evaluate(_by_site(), None, [_sex((("Z", Limits(fail=0.6)),))])
    assert [(f.group["site"], f.status) for f in findings] == [("Z", "not-applicable"), ("other-sites", "fail")]
    assert "site Z" in findings[0].reason


def test_a_saved_profile_keeps_the_sites_that_rules_name_and_pools_the_others() -> None:
    kept = {key[2] for key in privacy.hide_profile(_by_site(), {"A"}).frames["states"] if key[1] == "site"}
    assert kept == {"A", "other-sites"}
    assert {key[2] for key in privacy.hide_profile(_by_site()).frames["states"] if key[1] == "site"} == {"other-sites"}


def test_sites_are_judged_in_a_whole_run(tmp_path: Path) -> None:
    messages = []
    for number in range(120):
        sex = "" if number % 2 and number < 60 else "F"
        site = "NORTH" if number < 60 else "SOUTH"
        messages.append(
            f"MSH|^~\\&|LAB|{site}|||202401{number % 28 + 1:02d}||ADT^A01|{number}|P|2.5\rPID|1||P{number}^^^{site}||||19700101|{sex}\rPV1|1|I\r"
        )
    (tmp_path / "feed.hl7").write_text("".join(messages))
    (tmp_path / "mine.yaml").write_text(
        PACK.format(more="overrides:\n  - {rules: patient-sex-present, site: NORTH, fail: {max_rate: 0.9}}")
    )
    card, _ = pipeline.check([str(tmp_path / "feed.hl7")], None, Options(rules=(str(tmp_path / "mine.yaml"),), internal=True))
    found = {
        f["group"].get("site"): f for f in card.document["findings"] if f["rule"] == "patient-sex-present" and f["defect"] == "missing"
    }
    assert {site: (f["status"], f["numerator"], f["denominator"]) for site, f in found.items()} == {
        "NORTH": ("pass", 30, 60),
        "other-sites": ("pass", 0, 60),
    }
