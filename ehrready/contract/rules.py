"""A contract as a rule pack: what ``check --contract`` measures and judges beside the other rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ehrready.checks.contract import code_element
from ehrready.contract.model import Contract, Feature
from ehrready.rules.model import Limits, Pack, Rule
from ehrready.terminology import systems


def pack(contract: Contract) -> Pack:
    """Return the rules that a contract stands for; ids are ``feature-NAME``, ``feature-NAME-groups`` and ``pin-SYSTEM-ELEMENT``."""
    rules: list[Rule] = []
    for feature in contract.features:
        rules.append(_available(contract, feature))
        if contract.subgroups:
            rules.append(_groups(contract, feature))
    rules += _pins(contract)
    if contract.lookback_days:
        rules.append(_lookback(contract))
    name = f"contract {contract.model}"
    return Pack(
        name, contract.version, contract.sha256, f"Model contract of {contract.model}", (), tuple(_named(rule, name) for rule in rules)
    )


def informed(packs: Sequence[Pack], contract: Contract) -> list[Pack]:
    """Return rule packs whose rules about predictions know what the contract promises: validation figures and share of alerts."""
    shares = {output.name: output.alert_share for output in contract.outputs if output.alert_share is not None}
    told: dict[str, dict[str, Any]] = {
        "accuracy-drift": {"baseline": dict(contract.label.baseline)} if contract.label.baseline else {},
        "alert-share": {"expected": shares} if shares else {},
    }
    return [
        replace(pack, rules=tuple(replace(r, options={**told[r.check], **r.options}) if told.get(r.check) else r for r in pack.rules))
        for pack in packs
    ]


def _named(rule: Rule, name: str) -> Rule:
    return replace(rule, pack=name)


def _options(contract: Contract, feature: Feature) -> dict[str, Any]:
    cohort = contract.cohort
    given: dict[str, Any] = {
        "table": feature.table,
        "codes": {key: list(codes) for key, codes in sorted(feature.codes.items())},
        "units": list(feature.units),
        "window_days": feature.window_days,
        "min_age": cohort.min_age,
        "max_age": cohort.max_age,
        "having": list(cohort.having),
    }
    return {key: value for key, value in given.items() if value}


def _available(contract: Contract, feature: Feature) -> Rule:
    return Rule(
        f"feature-{feature.name}", "feature-available", ("",), feature.severity, feature.owner,
        f"{contract.model} was built with the feature {feature.name}: patients without it get another prediction, or none.",
        "Follow the waterfall to the step at which most patients are lost: feed, coding, code system, code set, unit or date.",
        f"Feature {feature.name} is available", _options(contract, feature), Limits(fail=round(1 - feature.required, 6)),
    )  # fmt: skip


def _groups(contract: Contract, feature: Feature) -> Rule:
    return Rule(
        f"feature-{feature.name}-groups", "feature-by-group", ("",), "warning", feature.owner,
        "A model that lacks its input for one group of patients serves that group worse.",
        "Ask who documents this fact for the group, and where; do not deploy to a group without the feature.",
        f"Feature {feature.name} is there for all groups alike", {**_options(contract, feature), "attributes": list(contract.subgroups)}, Limits(),
    )  # fmt: skip


def _pins(contract: Contract) -> list[Rule]:
    """Return one rule per element and system; features that pin the same system agree on the releases that all accept."""
    pinned: dict[tuple[str, str], set[str]] = {}
    for feature in contract.features:
        for system, releases in feature.releases.items():
            place = (code_element(feature.table), system)
            pinned[place] = pinned[place] & set(releases) if place in pinned else set(releases)
    return [
        Rule(
            f"pin-{system.replace(':', '-')}-{element.replace('.', '-')}", "release-pinned", (element,), "error", "clinical-informatics",
            f"{contract.model} was validated on these releases only: codes of others are unknown to it, or mean something else.",
            "Map to an accepted release, or validate the model on the new one and extend the contract.",
            f"{systems.system(system).name} is of an accepted release", {"system": system, "releases": sorted(releases)}, Limits(),
        )
        for (element, system), releases in sorted(pinned.items())
        if element
    ]  # fmt: skip


def _lookback(contract: Contract) -> Rule:
    months = max(1, round(contract.lookback_days / 30.4375))
    return Rule(
        "contract-lookback", "lookback", ("",), "error", "engineering",
        f"{contract.model} looks {contract.lookback_days} days back: a shorter history looks like a healthier patient.",
        "Export as much history as the model looks back, from every system that keeps it.",
        "Patients have the history that the model looks at", {"months": months}, Limits(),
    )  # fmt: skip
