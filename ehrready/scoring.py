"""Score, coverage and verdict of a scorecard, from (rule, element, status): what makes them and what checks saved ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

#: Statuses of a finding whose number was judged; the others are never counted as a pass.
ASSESSED = ("pass", "warn", "fail")
#: Coverage below which nothing can be said.
MIN_COVERAGE = 0.8

#: Checks of a model in production: without one of them that applies nothing is known of it, however much of its data was assessed.
PROMISED = ("output-valid", "accuracy-drift", "grounded")

_RANK = {"error": 5, "fail": 4, "warn": 3, "not-assessed": 2, "pass": 1, "not-applicable": 0}

Units = Mapping[tuple[str, str], str]


def units(rows: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """Return (rule, element) → its worst status: the unit that scores and coverage count."""
    found: dict[tuple[str, str], str] = {}
    for rule, element, status in rows:
        key = (rule, element)
        if _RANK[status] >= _RANK.get(found.get(key, "not-applicable"), 0):
            found[key] = status
    return found


def coverage(found: Units) -> float | None:
    """Return assessed / (assessed + not-assessed + error); None when nothing applies."""
    counted = [status for status in found.values() if status != "not-applicable"]
    return sum(status in ASSESSED for status in counted) / len(counted) if counted else None


def score(statuses: Iterable[str]) -> float | None:
    """Return 0-100 over the assessed units: a pass is 1, a warning ½, a failure 0."""
    worth = [{"pass": 1.0, "warn": 0.5, "fail": 0.0}[status] for status in statuses if status in ASSESSED]
    return round(100 * sum(worth) / len(worth), 1) if worth else None


def tally(statuses: Sequence[str]) -> dict[str, float | int | None]:
    """Return a dimension's score, coverage and counts; ``not_assessed`` includes crashed checks."""
    applying = [status for status in statuses if status != "not-applicable"]
    assessed = sum(status in ASSESSED for status in applying)
    return {
        "score": score(applying),
        "coverage": round(assessed / len(applying), 4) if applying else None,
        **{status: applying.count(status) for status in ASSESSED},
        "not_assessed": len(applying) - assessed,
    }


def knows(rows: Iterable[tuple[str, str, str]]) -> bool:
    """Was anything of (status, severity, check) assessed that says more than that the records can be read, and nothing promised left out?"""
    found = list(rows)
    return not any(map(left_out, found)) and any(
        status in ASSESSED and severity == "error" and check != "ingest-accounted" for status, severity, check in found
    )


def left_out(row: tuple[str, str, str]) -> bool:
    """Is (status, severity, check) a required check of a model in production that applies and could not be assessed?"""
    status, severity, check = row
    return status == "not-assessed" and severity == "error" and check in PROMISED


def verdict(*, unread: bool, required_fail: bool, covered: float | None, known: bool, conditions: bool) -> str:
    """Return the verdict in the order of design section 6.

    ``unread``: a file could not be read to its end, a check crashed or no record was read.  ``required_fail``: a failing
    error that nobody waived.  ``known``: a required rule knows what is in the records.  ``conditions``: a warning, or a
    waiver that covers something.
    """
    if unread:
        return "cannot-tell"
    if required_fail:
        return "not-ready"
    if covered is None or covered < MIN_COVERAGE or not known:
        return "cannot-tell"
    return "ready-with-conditions" if conditions else "ready"
