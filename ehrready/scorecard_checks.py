"""Is a saved scorecard one that ehrready wrote?  It comes from elsewhere: cut, edited or contradictory ones are refused with the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ehrready import document_checks, scoring

STATUSES = ("pass", "warn", "fail", "not-assessed", "not-applicable", "error")

#: Checks whose numerator may be beyond the denominator: records too many of those that training's rate would give.
_BEYOND = frozenset({"volume-shift"})
_NUMBERS = ("numerator", "denominator", "interval", "effect", "n_effective", "patients")
#: What rounding to six decimals may change.
_ROUNDED = 1e-6


def first_problem(d: Mapping[str, Any]) -> str:
    """Return where and why a document cannot be a scorecard (a JSON pointer and a reason), or ``""``.

    Its shape is that of the published schema; its numbers must agree with each other and the verdict with the findings.
    """
    return document_checks.first_problem(d, "scorecard") or next(_contradictions(d), "")


def _contradictions(d: Mapping[str, Any]) -> Iterator[str]:
    ids: set[str] = set()
    for i, finding in enumerate(d["findings"]):
        yield from _finding(finding, f"/findings/{i}")
        if finding["id"] in ids:
            yield f"/findings/{i}/id stands there twice"
        ids.add(finding["id"])
    for i, row in enumerate(d["ledger"]):
        yield from _file(row, f"/ledger/{i}")
    for side in ("subject", "training"):
        if d[side] is not None:
            records, period = d[side]["records"], d[side]["period"]
            if records["read"] != records["profiled"] + records["rejected"]:
                yield f"/{side}/records: read is not profiled and rejected"
            if (period["start"] is None) != (period["end"] is None) or (period["start"] or "") > (period["end"] or ""):
                yield f"/{side}/period ends before it starts"
    for key in ("read", "profiled", "rejected"):
        if d["subject"]["records"][key] != sum(row[key] for row in d["ledger"]):
            yield f"/subject/records/{key} is not the ledger's sum"
    yield from _scores(d)
    yield from _verdict(d)


def _finding(f: Mapping[str, Any], place: str) -> Iterator[str]:
    n, of, rate, interval = f["numerator"], f["denominator"], f["rate"], f["interval"]
    if f["hidden"]:
        yield from (f"{place}/{key} is there although it is hidden" for key in _NUMBERS if f.get(key) is not None)
    if (n is None) != (of is None):
        yield f"{place}: the numerator or the denominator is missing"
    if n is not None and of is not None:
        if n > of and f["status"] in scoring.ASSESSED and f["check"] not in _BEYOND:
            yield f"{place}: the numerator is beyond the denominator"
        if (rate is None) is not (of == 0) or (rate is not None and abs(rate - n / of) > _ROUNDED):
            yield f"{place}/rate is not numerator / denominator"
    if interval is not None and interval[0] > interval[1]:
        yield f"{place}/interval is no pair of numbers in order"
    trained = f["training"]
    if trained and (not trained["denominator"] or abs(trained["rate"] - trained["numerator"] / trained["denominator"]) > _ROUNDED):
        yield f"{place}/training/rate is not numerator / denominator"


def _file(row: Mapping[str, Any], place: str) -> Iterator[str]:
    if row["read"] != row["profiled"] + row["rejected"]:
        yield f"{place}: read is not profiled and rejected"
    if sum(row["reasons"].values()) != row["rejected"]:
        yield f"{place}/reasons do not add up to rejected"


def _scores(d: Mapping[str, Any]) -> Iterator[str]:
    """Score, coverage and dimensions follow from the findings."""
    findings = d["findings"]
    units = scoring.units((f["rule"], f["element"], f["status"]) for f in findings)
    if d["score"] != scoring.score(units.values()):
        yield "/score is not what the findings give"
    covered = _coverage(findings)
    if d["coverage"] != (None if covered is None else round(covered, 4)):
        yield "/coverage is not what the findings give"
    of_rule = {f["rule"]: f["dimension"] for f in findings}
    for i, row in enumerate(d["dimensions"]):
        tally = scoring.tally([status for (rule, _), status in units.items() if of_rule[rule] == row["name"]])
        yield from (f"/dimensions/{i}/{key} is not what the findings give" for key, value in tally.items() if row[key] != value)
    if {row["name"] for row in d["dimensions"]} < set(of_rule.values()):
        yield "/dimensions lacks one that a finding has"


def _coverage(findings: list[Mapping[str, Any]]) -> float | None:
    return scoring.coverage(scoring.units((f["rule"], f["element"], f["status"]) for f in findings if f["severity"] == "error"))


def _verdict(d: Mapping[str, Any]) -> Iterator[str]:
    """A verdict that its own findings contradict was changed by hand."""
    findings = d["findings"]
    mine = [f for f in findings if not f["waiver"]]
    expected = scoring.verdict(
        unread=any(row["status"] in {"unreadable", "truncated"} for row in d["ledger"])
        or any(f["status"] == "error" for f in findings)
        or not d["subject"]["records"]["profiled"],
        required_fail=any((f["status"], f["severity"]) == ("fail", "error") for f in mine),
        covered=_coverage(findings),
        known=scoring.knows((f["status"], f["severity"], f["check"]) for f in findings),
        conditions=len(mine) < len(findings) or any(f["status"] in {"fail", "warn"} and f["severity"] != "info" for f in mine),
    )
    if d["verdict"] != expected:
        yield f"/verdict is {d['verdict']} although its findings and its ledger make it {expected}"
