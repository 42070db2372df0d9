"""Charts of a model in production: figures with their intervals by month and by group, shares by month; a dashed line is what was promised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ehrready.checks.accuracy import NAMES
from ehrready.reporters import words
from ehrready.reporters.charts import _BOTTOM, _LEFT, _NAMES, _RIGHT, _TOP, Picture, _axis, _frame
from ehrready.wording import DEFECTS

Row = Mapping[str, Any]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that holds the values, in steps of a tenth."""
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    return low, high if high > low else low + 0.1


def _title(d: Row) -> str:
    name = str(NAMES.get(d["metric"], d["metric"]))
    return f"{name[:1].upper()}{name[1:]} of {d['output']}"


def _said(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3f}"


def by_month(d: Row) -> Picture:
    """Draw a metric by month with its interval, and the baseline as a dashed line."""
    rows, baseline = d["series"], d["baseline"]
    given = [row for row in rows if row["value"] is not None]
    low, high = _span([v for row in given for v in (row["low"], row["high"])] + ([baseline] if baseline is not None else []))
    axis = _axis([row["month"] for row in rows])

    def y(value: float) -> int:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low))

    ends = f"{given[0]['value']:.3f} in {given[0]['month']}, {given[-1]['value']:.3f} in {given[-1]['month']}"
    picture = Picture(
        _title(d), f"{_title(d)}: {ends}{f'; in validation {baseline:.3f}' if baseline is not None else ''}.",
        "Dots are months, the lines through them 95 % intervals" + ("; the dashed line is the validation." if baseline is not None else "."),
        ["Month", "Here", "95 % interval"],
        [[row["month"], _said(row["value"]), "\u2013" if row["value"] is None else f"{row['low']:.3f} to {row['high']:.3f}"] for row in rows],
        note=f"In validation {baseline:.3f}." if baseline is not None else "No validation to hold it against.",
    )  # fmt: skip
    _frame(picture, axis, f"{high:.1f}", f"{low:.1f}")
    if baseline is not None:
        picture.marks.append(("training line", f"M{_LEFT} {y(baseline)}H{_RIGHT}"))
    places = [(axis.x(axis.slots[row["month"]] + 0.5), row) for row in given]
    picture.marks.append(("link", "".join(f"M{x} {y(row['low'])}V{y(row['high'])}" for x, row in places)))
    picture.marks.append(("live line", "M" + "L".join(f"{x} {y(row['value'])}" for x, row in places)))
    picture.marks.append(("live points", "".join(f"M{x} {y(row['value'])}h0" for x, row in places)))
    return picture


def by_group(d: Row) -> Picture:
    """Draw a metric by group of patients with its interval, and the baseline as a dashed line."""
    rows, baseline = d["rows"], d["baseline"]
    low, high = _span([v for row in rows for v in (row["low"], row["high"])] + ([baseline] if baseline is not None else []))
    end = 18 + 16 * len(rows)

    def x(value: float) -> int:
        return round(_NAMES + (_RIGHT - 6 - _NAMES) * (value - low) / (high - low))

    names = [row["group"] or "everybody" for row in rows]
    worst = min(rows, key=lambda row: row["value"])
    picture = Picture(
        f"{_title(d)}, by group", f"{_title(d)} by group of patients: {worst['value']:.3f} ({worst['group'] or 'everybody'}) at the least.",
        "Dots are groups, the lines through them 95 % intervals" + ("; the dashed line is the validation." if baseline is not None else "."),
        ["Group", "Here", "95 % interval"],
        [[name, _said(row["value"]), f"{row['low']:.3f} to {row['high']:.3f}"] for name, row in zip(names, rows, strict=True)], height=end + 16,
        note=f"In validation {baseline:.3f}." if baseline is not None else "",
    )  # fmt: skip
    picture.marks += [("axis", f"M{_NAMES} 10V{end}"), ("grid", f"M{_RIGHT - 6} 10V{end}")]
    picture.labels += [(_NAMES, end + 12, "m", f"{low:.1f}"), (_RIGHT - 6, end + 12, "e", f"{high:.1f}")]
    if baseline is not None:
        picture.marks.append(("training line", f"M{x(baseline)} 10V{end}"))
    for n, name in enumerate(names):
        picture.labels.append((_NAMES - 6, 24 + 16 * n, "e", name))
    picture.marks.append(("link", "".join(f"M{x(row['low'])} {20 + 16 * n}H{x(row['high'])}" for n, row in enumerate(rows))))
    picture.marks.append(("live points", "".join(f"M{x(row['value'])} {20 + 16 * n}h0" for n, row in enumerate(rows))))
    return picture


def shares(d: Row) -> Picture:
    """Draw the share of predictions or citations with a defect, or that alert, by month."""
    rows, expected = d["series"], d["expected"]
    given = [row for row in rows if row["share"] is not None]
    most = max([row["share"] for row in given] + [expected or 0.0])
    top = next((s for s in (0.02, 0.05, 0.1, 0.2, 0.5) if most <= s), 1.0)
    axis = _axis([row["month"] for row in rows])
    what = "citations" if d["measure"].startswith("ungrounded") else "texts" if d["measure"] == "uncited" else "predictions"
    name = f"{d['output']}: {what} that {DEFECTS.get(d['measure'], d['measure'])}"
    peak = max(given, key=lambda row: row["share"])
    picture = Picture(
        name, f"{name}: at most {words.whole(peak['share'])}, in {peak['month']}.", "Dots are months" + ("; the dashed line is what was agreed." if expected else "."),
        ["Month", "Share"], [[row["month"], "\u2013" if row["share"] is None else words.whole(row["share"])] for row in rows],
        note=f"Expected {words.whole(expected)}." if expected else "",
    )  # fmt: skip
    _frame(picture, axis, words.whole(top))

    def y(value: float) -> int:
        return round(_BOTTOM - (_BOTTOM - _TOP) * value / top)

    if expected:
        picture.marks.append(("training line", f"M{_LEFT} {y(expected)}H{_RIGHT}"))
    places = [(axis.x(axis.slots[row["month"]] + 0.5), y(row["share"])) for row in given]
    picture.marks.append(("live line", "M" + "L".join(f"{a} {b}" for a, b in places)))
    picture.marks.append(("live points", "".join(f"M{a} {b}h0" for a, b in places)))
    return picture


#: Kind of a distribution to heading, introduction and what draws it.
KINDS = {
    "accuracy-by-month": ("Accuracy by month", "A fall that goes beyond the intervals is the month to look at: what changed then?", by_month),
    "accuracy-by-group": ("Accuracy by group of patients", "A group whose interval lies beyond the others' is served worse by the model.", by_group),
    "production-by-month": ("Outputs by month", "Shares of what the model gave: alerts, impossible outputs, citations that the record does not hold.", shares),
}  # fmt: skip
