"""One cause, one finding: findings that hit the same records are grouped under the first (checks.md, conventions).

Two alarms are one when their records are the same to nine tenths (Jaccard index).  Rules see profiles and not rows, so that is
read from what was counted: the overlaps of a table's defects (ehrready.overlaps), the codes and buckets that a comparison
rests on, and what one count holds of another by definition.  Nothing is grouped where the records cannot be compared: two
findings too many are read, a hidden one is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ehrready.checks import CHECKS, DIMENSIONS, site
from ehrready.evaluate import Finding, evaluate
from ehrready.overlaps import LACKING, UNFILLED, UNIONS, name, union
from ehrready.profile import Profile
from ehrready.tables import table_of

if TYPE_CHECKING:
    from ehrready.terminology.releases import Store

#: The least Jaccard index of two sets of records that are taken for one.
SAME = 0.9
#: Above this index for two independent defects of the same frequencies, agreement says nothing: what nearly all records
#: lack is lacking in nearly the same records, whatever the causes.
BY_CHANCE = 0.5

#: Prefix of the condition (ehrready.overlaps) that a check's defect is.
_PREFIX = {
    "present": "", "coded": "", "no-free-text": "code-", "expected-system": "system-", "unit-valid": "", "value-parses": "",
    "value-plausible": "", "time-plausible": "", "linked": "", "code-current": "", "display-agrees": "",
}  # fmt: skip
#: Defects that are several conditions, or another's.
_ALSO: dict[tuple[str, str], tuple[str, ...]] = {
    ("presence-shift", "missing"): UNFILLED,
    ("presence-shift", "vanished"): UNFILLED,
    ("presence-shift", "text-only"): ("text-only",),
    ("presence-shift", "free-text"): ("code-free-text",),
    ("subgroup-gap", "subgroup-gap"): LACKING,
    ("unit-valid", "unit-missing"): UNFILLED,
}
#: Which finding of a group is the first: what is there before what it looks like, data alone before the comparison.
_ORDER = {dimension: place for place, dimension in enumerate(DIMENSIONS)}
_SEVERITY = {"error": 0, "warning": 1, "info": 2}


def group(findings: Sequence[Finding], profile: Profile, training: Profile | None = None, store: Store | None = None) -> None:
    """Set ``cause`` of each alarm that hits the records of an earlier one, or that comes from a site of training that sends nothing.

    Runs after hiding: a hidden finding is never grouped with a shown one, whose count would tell its own.  A waived finding
    is grouped with waived ones only, and the first is never milder than those beneath it.
    """
    places = {id(f): place for place, f in enumerate(findings)}
    alarms = [f for f in findings if f.status in {"fail", "warn"}]
    alarms.sort(key=lambda f: (f.status != "fail", _SEVERITY.get(f.rule.severity, 3), _ORDER.get(f.dimension, 9), places[id(f)]))
    first: list[Finding] = []
    for finding in alarms:
        finding.cause = next((f.id for f in first if _alike(f, finding) and _same(f, finding, profile)), None)
        if finding.cause is None:
            first.append(finding)
    if training is not None:
        _of_a_site(findings, first, profile, training, store)


def _of_a_site(findings: Sequence[Finding], first: Sequence[Finding], profile: Profile, training: Profile, store: Store | None) -> None:
    """Group the comparisons that would not alarm had training lacked the sites that have gone, with what stands beneath them."""
    vanished = next((f for f in first if f.rule.check == "site-vanished"), None)
    rest = site.without(training, profile) if vanished else None
    if vanished is None or rest is None:
        return
    for finding in first:
        rule, check = finding.rule, CHECKS[finding.rule.check]
        compared = (check.compares or rule.limits.max_rise is not None or rule.limits.warn_rise is not None) and not check.measured
        milder = _SEVERITY.get(rule.severity, 3) < _SEVERITY.get(vanished.rule.severity, 3)
        if finding is vanished or milder or not compared or rule.sites or not _alike(vanished, finding):
            continue
        again = evaluate(profile, rest, [replace(rule, elements=(finding.element,))], store)
        told = [f.status for f in again if f.id == finding.id or not f.outcome.defect]
        if told and set(told) <= {"pass", "not-applicable"}:
            for one in findings:
                if one is finding or one.cause == finding.id:
                    one.cause = vanished.id


def _alike(one: Finding, other: Finding) -> bool:
    return one.hidden == other.hidden and bool(one.waiver) == bool(other.waiver)


def _same(one: Finding, other: Finding, profile: Profile) -> bool:
    """Do two alarms hit the same records?"""
    if _gone(one) and _gone(other):
        return table_of(one.element) == table_of(other.element)
    if one.outcome.cells and other.outcome.cells:
        return _jaccard(one.outcome.cells, other.outcome.cells) >= SAME
    if {one.rule.check, other.rule.check} == {"release-declared", "release-inferred"}:  # of different codings, of one feed
        return one.element == other.element and one.outcome.defect == other.outcome.defect
    a, b = _conditions(one), _conditions(other)
    if not a or not b or table_of(one.element) != table_of(other.element):
        return False
    if one.element == other.element and (nested := _nested(one, other, a, b, profile)) is not None:
        return nested
    return not _part(one) and not _part(other) and _overlapping(one, other, a, b, profile)


def _gone(finding: Finding) -> bool:
    """Does it say that a whole table is not there?"""
    return finding.outcome.defect == "vanished" and finding.outcome.of == 0


def _part(finding: Finding) -> dict[str, str]:
    """Return the group of patients or the site that a finding is about; a code system is part of its condition's name."""
    return {key: value for key, value in finding.group.items() if key != "system"}


def _conditions(finding: Finding) -> frozenset[str]:
    """Return the conditions of records that a finding's defect is any of; none where they are not measured."""
    check, defect = finding.rule.check, finding.outcome.defect
    if several := _ALSO.get((check, defect)):
        return frozenset(name(finding.element, one) for one in several)
    if check not in _PREFIX:
        return frozenset()
    system = [finding.group["system"]] if "system" in finding.group else []
    return frozenset([name(finding.element, _PREFIX[check] + defect, *system)])


def _nested(one: Finding, other: Finding, a: frozenset[str], b: frozenset[str], profile: Profile) -> bool | None:
    """Compare two findings on an element of which one counts a part of the other by definition; None where neither does.

    Then the index is the ratio of the numerators.  Conditions that no record has do not tell two findings apart.
    """
    counted = {name(key[0], key[3]): values[0] for key, values in profile.rows("states", one.element, "all", "")}
    idle = {c for c in (name(one.element, state) for state in LACKING) if counted and counted.get(c, 0) == 0}
    small, large = a - idle, b - idle
    mine, theirs = one, other
    if not small <= large or _part(other):
        small, large, mine, theirs = large, small, other, one
    if not small or not small <= large or (_part(theirs) and _part(theirs) != _part(mine)):
        return None
    n, of = mine.outcome.n, theirs.outcome.n
    return n is not None and of is not None and of > 0 and SAME <= n / of <= 1


def _overlapping(one: Finding, other: Finding, a: frozenset[str], b: frozenset[str], profile: Profile) -> bool:
    """Compare two findings by the measured overlap of their conditions."""
    table = table_of(one.element)
    first, second = _measured(one.element, a), _measured(other.element, b)
    frame = profile.frames["overlaps"]
    both = (frame.get((table, *sorted((first, second)))) or (0,))[0] or 0
    counts = [(frame.get((table, condition, condition)) or (0,))[0] or 0 for condition in (first, second)]
    for count, finding in zip(counts, (one, other), strict=True):
        n = finding.outcome.n or 0
        if not n or not SAME <= count / n <= 1 / SAME:  # the rule counts something else than the condition
            return False
    if both < SAME * (sum(counts) - both):
        return False
    if one.element == other.element:
        return True
    of = min(n for n in (profile.tables().get(table, 0), one.outcome.of, other.outcome.of) if n is not None)
    p, q = (min(1.0, count / of) if of else 1.0 for count in counts)
    return p * q <= BY_CHANCE * (p + q - p * q)


def _measured(element: str, conditions: frozenset[str]) -> str:
    """Return the name under which conditions are counted together."""
    found = next((d for d in UNIONS if {name(element, one) for one in d} == conditions), None)
    return union(element, found) if found else min(conditions)


def _jaccard(a: Mapping[tuple[str, ...], float], b: Mapping[tuple[str, ...], float]) -> float:
    keys = {*a, *b}
    return sum(min(a.get(k, 0), b.get(k, 0)) for k in keys) / (sum(max(a.get(k, 0), b.get(k, 0)) for k in keys) or 1)
