"""Scorecards that tests change."""

from __future__ import annotations

from typing import Any

from ehrready import scoring


def rescored(card: dict[str, Any], verdict: str = "not-ready") -> dict[str, Any]:
    """Give a changed scorecard the score, coverage and dimensions that its findings give."""
    findings = card["findings"]
    units = scoring.units((f["rule"], f["element"], f["status"]) for f in findings)
    required = scoring.units((f["rule"], f["element"], f["status"]) for f in findings if f["severity"] == "error")
    of_rule = {f["rule"]: f["dimension"] for f in findings}
    covered = scoring.coverage(required)
    card["score"], card["coverage"] = scoring.score(units.values()), None if covered is None else round(covered, 4)
    card["dimensions"] = [
        {"name": row["name"], **scoring.tally([status for (rule, _), status in units.items() if of_rule[rule] == row["name"]])}
        for row in card["dimensions"]
    ]
    card["verdict"] = verdict
    return card
