"""What changed between two scorecards: findings that are new, worse, better, fixed, the same, or no longer assessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Finding = Mapping[str, Any]

#: Kinds of change in the order in which they are told, and what they are called.
KINDS = {
    "new": "new",
    "worse": "worse",
    "gone": "no longer assessed",
    "better": "better, still failing",
    "same": "as before",
    "fixed": "fixed",
}

_FAILING = ("fail", "warn")
_RANK = {"warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Difference:
    """Finding documents of the newer scorecard by what became of them (``fixed`` and ``gone`` are the older one's).

    ``worse`` and ``better``: the status changed, or the intervals of the two rates do not overlap.  ``gone``: it failed
    and is no longer assessed, which is no repair.  ``unlike`` says why the two can be compared in part only.
    """

    new: list[Finding] = field(default_factory=list)
    worse: list[Finding] = field(default_factory=list)
    better: list[Finding] = field(default_factory=list)
    same: list[Finding] = field(default_factory=list)
    fixed: list[Finding] = field(default_factory=list)
    gone: list[Finding] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Compare the documents of two scorecards, finding by finding (same rule, element, group and defect).

    Information (severity ``info``) is left out, as it is from the verdict.
    """
    before, after = _by_id(old), _by_id(new)
    found = Difference(unlike=_unlike(old, new))
    assessed = {(f["rule"], f["element"]) for f in new["findings"] if f["status"] in {"pass", *_FAILING}}
    for key, finding in after.items():
        if finding["status"] not in _FAILING:
            continue
        known = before.get(key)
        if known is None or known["status"] not in _FAILING:
            found.new.append(finding)
        else:
            (found.worse, found.same, found.better)[1 - _change(known, finding)].append(finding)
    for key, finding in before.items():
        if finding["status"] in _FAILING and after.get(key, {}).get("status") not in _FAILING:
            (found.fixed if (finding["rule"], finding["element"]) in assessed else found.gone).append(finding)
    return found


def _by_id(document: Mapping[str, Any]) -> dict[str, Finding]:
    return {f["id"]: f for f in document["findings"] if f["severity"] != "info"}


def _change(old: Finding, new: Finding) -> int:
    """Return 1 when a failing finding got worse, -1 when it got better, 0 when it is the same within the noise."""
    step = _RANK[new["status"]] - _RANK[old["status"]]
    if step:
        return 1 if step > 0 else -1
    if None in (old["rate"], new["rate"]) or not old["interval"] or not new["interval"]:
        return 0
    if new["rate"] > old["rate"] and new["interval"][0] > old["interval"][1]:
        return 1
    return -1 if new["rate"] < old["rate"] and new["interval"][1] < old["interval"][0] else 0


def _unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say where the two were made with different rules, training sets or versions."""
    a, b = old["provenance"], new["provenance"]
    said = []
    if [(p["name"], p["sha256"]) for p in a["rule_packs"]] != [(p["name"], p["sha256"]) for p in b["rule_packs"]]:
        said.append("The two were judged by different rule packs, or by different versions of them.")
    if a["training_sha256"] != b["training_sha256"]:
        said.append("The two were compared with different training profiles.")
    if old["tool"]["version"] != new["tool"]["version"]:
        said.append(f"The two were made by different versions of ehrready ({old['tool']['version']} and {new['tool']['version']}).")
    if sorted(old["subject"]["formats"]) != sorted(new["subject"]["formats"]):
        said.append("The two are about data in different formats.")
    return said
