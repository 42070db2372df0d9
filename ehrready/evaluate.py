"""Evaluate: rules on profiles, never on rows; one finding per rule, element, group and defect, passes included."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ehrready import sites, stats
from ehrready.checks import CHECKS, Check, Outcome
from ehrready.profile import Profile
from ehrready.rules import Rule
from ehrready.tables import table_of

if TYPE_CHECKING:
    from ehrready.terminology.releases import Store


@dataclass(slots=True)
class Finding:
    """The result of one rule on one element, group and defect; the numerator counts the defect."""

    rule: Rule
    dimension: str
    element: str
    source_element: str
    outcome: Outcome
    status: str
    reason: str = ""
    limit: float | None = None
    hidden: bool = False
    rounded: bool = False  # hidden for its neighbours' sake: the rate may be shown, rounded
    group: dict[str, str] = field(default_factory=dict)
    waiver: dict[str, Any] | None = None  # who answers for it, why and until when
    cause: str | None = None  # id of the finding on the same records that this one comes from

    @property
    def id(self) -> str:
        """A stable id: the same rule, element, group and defect have it in every run."""
        parts = [self.rule.id, self.element, self.outcome.defect, *(f"{k}={v}" for k, v in sorted(self.group.items()))]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def evaluate(profile: Profile, training: Profile | None, rules: Sequence[Rule], store: Store | None = None) -> list[Finding]:
    """Return the findings of the rules, in rule and element order.  A check that crashes is status ``error``."""
    findings = [finding for rule in rules for element in rule.elements for finding in _findings(profile, training, rule, element, store)]
    _false_discovery(findings)
    return findings


def _findings(profile: Profile, training: Profile | None, rule: Rule, element: str, store: Store | None) -> list[Finding]:
    """Return the findings of a rule on an element: by site where the rule has limits for some, else over all records."""
    if not rule.sites:
        return _judged(profile, training, rule, element, store)
    found = []
    for site, limits in [*rule.sites, (sites.OTHERS, rule.limits)]:
        part, before = (
            whole and (sites.others(whole, rule, element) if site == sites.OTHERS else sites.only(whole, rule, element, site))
            for whole in (profile, training)
        )
        own = replace(rule, limits=limits, sites=())
        if part is None:
            outcome = Outcome("", status="not-assessed", reason=_UNKEPT, group={"site": site})
            source = _source_element(profile, training, element)
            found.append(Finding(own, CHECKS[rule.check].dimension, element, source, outcome, outcome.status, _UNKEPT, group=outcome.group))
        else:
            found += [_at(site, finding) for finding in _judged(part, before, own, element, store)]
    return found


_UNKEPT = "the profile does not keep this rule's sites apart: make it with the same --rules"


def _at(site: str, finding: Finding) -> Finding:
    finding.group = {**finding.group, "site": site}
    if finding.reason == sites.NO_RECORDS:
        finding.reason = f"no record is of the site {site}, or the profile does not keep its sites apart"
    return finding


def _judged(profile: Profile, training: Profile | None, rule: Rule, element: str, store: Store | None) -> list[Finding]:
    check = CHECKS[rule.check]
    if training is not None and training.only_predictions and not check.may_compare:
        training = None  # the validation's predictions say nothing of the records
    source = _source_element(profile, training, element)
    reason = _not_applicable(profile, training, rule, element)
    if reason:
        outcomes = [Outcome("", status="not-applicable", reason=reason)]
    else:
        try:
            outcomes = _run(check, rule, profile, training, element, store)
        except Exception as error:  # noqa: BLE001 - a result of its own; its text may quote data
            outcomes = [Outcome("", status="error", reason=f"the check crashed ({type(error).__name__}): please report it")]
    before = _before(training, rule, element, store)
    found = []
    for outcome in outcomes:
        status, why, limit = _judge(rule, outcome, before.get((outcome.defect, *sorted(outcome.group.items()))))
        dimension = str(rule.options.get("dimension", check.dimension)) if check.measured else check.dimension
        found.append(Finding(rule, dimension, element, source, outcome, status, why, limit, group=outcome.group))
    return found


def _run(check: Check, rule: Rule, profile: Profile, training: Profile | None, element: str, store: Store | None) -> list[Outcome]:
    """Call a check with what it asks for (ehrready.checks.base.Check)."""
    arguments: list[object] = [profile]
    if check.compares or check.may_compare:
        arguments.append(training)
    if not check.whole:
        arguments.append(element)
    if check.looks_up:
        arguments.append(store)
    if check.measured:
        arguments.append((rule.id, rule.digest))
    return check.run(*arguments, **rule.options)


def _source_element(profile: Profile, training: Profile | None, element: str) -> str:
    place = profile.source_elements.get(element)
    return place or (training.source_elements.get(element, "") if training else "")


def _not_applicable(profile: Profile, training: Profile | None, rule: Rule, element: str) -> str:
    """Say why a rule has no business here, or return ``""``."""
    check = CHECKS[rule.check]
    if check.compares and training is None:
        return "no training profile"
    if check.whole:
        return ""
    if element not in profile.source_elements:
        return "the format does not carry this element"
    table = table_of(element)
    trained = training is not None and training.has(table)
    if not profile.has(table) and not (check.compares and trained):
        return f"the data has no {table} records"
    return ""


def _before(training: Profile | None, rule: Rule, element: str, store: Store | None) -> dict[tuple[Any, ...], Outcome]:
    """Return a counting check's outcomes on the training profile, by defect and group."""
    check = CHECKS[rule.check]
    if (
        training is None
        or check.compares
        or check.may_compare
        or (not check.measured and (check.whole or element not in training.source_elements))
    ):
        return {}
    try:
        found = _run(check, rule, training, None, element, store)
        return {(outcome.defect, *sorted(outcome.group.items())): outcome for outcome in found}
    except Exception:  # noqa: BLE001 - the live side reports the crash; without a training rate nothing is lost
        return {}


def _judge(rule: Rule, outcome: Outcome, before: Outcome | None) -> tuple[str, str, float | None]:
    """Return status, reason and the limit that decided."""
    limits = rule.limits
    if outcome.status:
        return outcome.status, outcome.reason, outcome.limit
    if outcome.n is None or outcome.of is None:
        return "not-assessed", "a count is hidden (1-10 patients)", limits.fail
    if outcome.of < rule.min_n:
        return "not-assessed", f"fewer than {rule.min_n} records to judge by", limits.fail
    rate = outcome.n / outcome.of
    outcome.interval = outcome.interval or stats.wilson(rate * outcome.effective_n, outcome.effective_n)
    reason = ""
    if before is not None and before.n is not None and before.of:
        outcome.training, outcome.training_patients = (before.n, before.of), before.patients
        outcome.effect = rate - before.n / before.of
    if limits.fail is not None and rate > limits.fail:
        return "fail", reason, limits.fail
    if limits.max_rise is not None:
        if before is None or before.rate is None or before.of is None or before.of < rule.min_n:
            reason = "without the comparison: no training profile with enough records"
        else:
            low, _ = stats.newcombe(rate, outcome.effective_n, before.rate, before.effective_n)
            if rate - before.rate > limits.max_rise and low > 0:
                return "fail", "", limits.max_rise
    if (
        limits.warn_rise is not None
        and before is not None
        and before.rate is not None
        and before.of is not None
        and before.of >= rule.min_n
    ):
        low, _ = stats.newcombe(rate, outcome.effective_n, before.rate, before.effective_n)
        if rate - before.rate > limits.warn_rise and low > 0:
            return "warn", "", limits.warn_rise
    if limits.warn is not None and rate > limits.warn:
        return "warn", reason, limits.warn
    return "pass", reason, limits.fail if limits.fail is not None else limits.warn


def _false_discovery(findings: list[Finding], q: float = 0.01) -> None:
    """Take back comparisons that do not survive Benjamini-Hochberg within their family."""
    families: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.outcome.family and finding.outcome.p is not None:
            families.setdefault(finding.outcome.family, []).append(finding)
    for members in families.values():
        kept = stats.benjamini_hochberg([f.outcome.p or 0.0 for f in members], q)
        for finding, keep in zip(members, kept, strict=True):
            if finding.status == "fail" and not keep:
                finding.status, finding.reason = "pass", "within the noise once all comparisons are counted"
