"""The course of a model in production for the report: accuracy and what goes wrong, by month; accuracy by group of patients.

Like all distributions (ehrready.distributions) they show nothing that may not leave: figures of groups with at least 11 patients on
either side of every count, shares in whole percent.

    {kind: "accuracy-by-month", output, metric, baseline, series: [{month, value, low, high}]}       baseline null without one
    {kind: "accuracy-by-group", output, metric, baseline, rows: [{by, group, value, low, high}]}
    {kind: "production-by-month", output, measure, expected, series: [{month, share}]}               share null: hidden or none
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ehrready.checks.accuracy import METRICS, held
from ehrready.production import accuracy
from ehrready.profile import Profile, Values
from ehrready.suppression import Suppression, small

#: What is drawn month by month besides accuracy, where there is any of it.
MEASURES = (
    "alert", "missing", "not-a-number", "below-range", "above-range", "unknown-class", "duplicate", "unlabelled", "uncited", "ungrounded-code",
    "ungrounded-value", "ungrounded-medication", "ungrounded-date",
)  # fmt: skip
#: Predictions (citations) of a month below which a share would be noise.
FEWEST = 30


def course(
    profile: Profile, training: Profile | None, told: Mapping[str, Mapping[str, Any]], *, internal: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the distributions of production; ``told`` are the options of the checks accuracy-drift and alert-share."""
    drift, alerts = told.get("accuracy-drift", {}), told.get("alert-share", {})
    for output, kind in accuracy.outputs(profile).items():
        if not kind.startswith("text"):
            yield from _accuracy(profile, training, output, drift.get("baseline") or {}, int(drift.get("min_n", 100)))
        for measure in MEASURES:
            expected = (alerts.get("expected") or {}).get(output) if measure == "alert" else None
            then = accuracy.alerts(training, output) if training and measure == "alert" else None
            if expected is None and then:
                expected = round(then[0] / then[1], 2)
            yield from _shares(profile, output, measure, expected, internal=internal)


def _accuracy(profile: Profile, training: Profile | None, output: str, stated: dict[str, float], min_n: int) -> Iterator[dict[str, Any]]:
    groups = held(profile, training, output, stated, min_n)
    for metric in METRICS:
        rows = [
            {"by": by, "group": group, **{key: round(getattr(now[metric], key), 3) for key in ("value", "low", "high")}}
            for by, group, now, _ in groups
            if metric in now
        ]
        if not rows:
            continue
        baseline = groups[0][3].get(metric)
        common = {"output": output, "metric": metric, "baseline": round(baseline.value, 3) if baseline else None}
        of_month = {row["group"]: row for row in rows if row["by"] == "month"}
        empty = {"value": None, "low": None, "high": None}
        series = [{"month": month, **{key: of_month.get(month, empty)[key] for key in empty}} for month in accuracy.months(profile, output)]
        if of_month:
            yield {"kind": "accuracy-by-month", **common, "series": series}
        people = [row for row in rows if row["by"] != "month"]
        if len(people) > 1 and metric in {"auroc", "calibration_intercept", "accuracy", "balanced_accuracy"}:
            yield {"kind": "accuracy-by-group", **common, "rows": people}


def _shares(profile: Profile, output: str, measure: str, expected: float | None, *, internal: bool) -> Iterator[dict[str, Any]]:
    series: list[dict[str, Any]] = []
    found = {month: profile.frames["predictions"].get((output, month, measure), (0, 0, 0)) for month in accuracy.months(profile, output)}
    few = set() if internal else _few(found)
    for month, (n, of, _) in found.items():
        hidden = n is None or of is None or of < FEWEST or month in few
        series.append({"month": month, "share": None if hidden else round((n or 0) / (of or 1), 2)})
    if any(row["share"] for row in series):
        yield {"kind": "production-by-month", "output": output, "measure": measure, "expected": expected, "series": series}


def _few(found: dict[str, Values]) -> set[str]:
    """Return the months with a small cell, and those that would tell it as the whole run less the others."""
    cells = Suppression()
    cells.frame("months", {(month,): values for month, values in found.items()}, 2)
    cells.hidden |= {("months", (month,)) for month, (n, of, _) in found.items() if n is not None and of is not None and small(of - n)}
    cells.total("run", (), [("months", (month,)) for month in found])
    cells.close()
    return {key[0] for name, key in cells.hidden if name == "months"}
