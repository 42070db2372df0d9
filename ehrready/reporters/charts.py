"""Charts of the distributions: geometry and words of inline SVG, each with a title, a description and its numbers.

Live data is drawn solid, training hollow or dashed, so that colour is never needed to tell them apart.  Coordinates are
whole view-box units of a picture 360 wide: about one pixel each on a phone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ehrready.distributions import difference
from ehrready.reporters import words

Row = Mapping[str, Any]

WIDTH = 360
#: A code mix that differs by less than this share is shown folded away.
NOTABLE = 0.02
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 352, 16, 100
_NAMES = 86  # room for the codes of a mix
#: Counts of the two sides are drawn on one scale unless one is this many times the other.
_FAR = 5


@dataclass(slots=True)
class Picture:
    """An SVG to draw: ``marks`` are (class, path), ``labels`` (x, y, class, text); ``rows`` are its numbers as text."""

    heading: str
    title: str
    desc: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    height: int = 124
    marks: list[tuple[str, str]] = field(default_factory=list)
    labels: list[tuple[int, int, str, str]] = field(default_factory=list)
    note: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures of one kind: what they show, and those folded away because they hardly differ."""

    kind: str
    heading: str
    intro: str
    pictures: list[Picture]
    quiet: list[Picture]


def charts(distributions: Iterable[Row]) -> list[Group]:
    """Return the charts of a scorecard's distributions by kind; a kind of a later version is left out."""
    from ehrready.reporters.courses import KINDS

    kinds = {**KINDS, **_KINDS}
    found: dict[str, list[tuple[Row, Picture]]] = {}
    for d in distributions:
        if d.get("kind") in kinds:
            found.setdefault(d["kind"], []).append((d, kinds[d["kind"]][2](d)))
    groups = []
    for kind, (heading, intro, _) in kinds.items():
        members = found.get(kind, [])
        quiet = [p for d, p in members if kind == "code-mix" and _compared(d) and difference(d) < NOTABLE]
        if members:
            groups.append(Group(kind, heading, intro, [p for _, p in members if p not in quiet], quiet))
    return groups


def _compared(mix: Row) -> bool:
    return mix["other"]["training_share"] is not None


# --- courses over months


@dataclass(frozen=True, slots=True)
class _Axis:
    """Places of months: a run of months is unbroken, a gap between runs is one slot wide."""

    slots: dict[str, int]
    breaks: list[int]
    width: float

    def x(self, slot: float) -> int:
        return round(_LEFT + self.width * slot)


def _axis(months: Sequence[str]) -> _Axis:
    slots: dict[str, int] = {}
    breaks = []
    place, last = 0, None
    for month in months:
        now = _ordinal(month)
        if last is not None and now != last + 1:
            breaks.append(place)
            place += 1
        slots[month] = place
        place, last = place + 1, now
    return _Axis(slots, breaks, (_RIGHT - _LEFT) / max(place, 1))


def _ordinal(month: str) -> int:
    found = re.fullmatch(r"(\d{4})-(\d\d)", month)
    return int(found[1]) * 12 + int(found[2]) if found else -1


def _frame(picture: Picture, axis: _Axis, top: str, bottom: str = "0") -> None:
    """Draw the axes: the value at the top and bottom, the first and last month of every run that has room."""
    months = list(axis.slots)
    picture.marks.append(("axis", f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"))
    picture.marks.append(("grid", f"M{_LEFT} {_TOP}H{_RIGHT}M{_LEFT} {(_TOP + _BOTTOM) // 2}H{_RIGHT}"))
    picture.labels += [(_LEFT - 4, _TOP + 4, "e", top), (_LEFT - 4, _BOTTOM, "e", bottom)]
    for slot in axis.breaks:
        x = axis.x(slot + 0.5)
        picture.marks.append(("cut", f"M{x - 4} {_BOTTOM + 4}l4-8M{x} {_BOTTOM + 4}l4-8"))
    edges = [0, *(i for i, m in enumerate(months) if axis.slots[m] - 1 in axis.breaks), len(months)]
    for start, end in itertools.pairwise(edges):
        first, last = months[start], months[end - 1]
        left, right = axis.x(axis.slots[first]), axis.x(axis.slots[last] + 1)
        if right - left > 110:
            picture.labels += [(left, _BOTTOM + 14, "s", first), (right, _BOTTOM + 14, "e", last)]
        else:
            picture.labels.append((right, _BOTTOM + 14, "e", last) if end == len(months) else (left, _BOTTOM + 14, "s", first))


def _volume(d: Row) -> Picture:
    """Draw records per month: live as solid bars, training as hollow ones, a hidden number as a dash below the axis."""
    rows = [row for row in d["series"] if row["month"]]
    compared = any(row["training"] is not None for row in rows)
    most = {side: max((row[side] or 0 for row in rows), default=0) for side in ("live", "training")}
    apart = bool(compared and min(most.values()) and max(most.values()) > _FAR * min(most.values()))
    tops = most if apart else dict.fromkeys(most, max(most.values()))
    axis = _axis([row["month"] for row in rows])
    name = words.table(d["table"])
    says = f"{name} per month: here at most {most['live']:,}" + (f", in training at most {most['training']:,}" if compared else "")
    picture = Picture(
        name, says + ".", "Solid bars are the live data" + (", hollow bars training." if compared else "."),
        ["Month", "Here", *(["Training"] if compared else [])],
        [[row["month"] or "without a date", *(words.number(row[side]) for side in ("live", "training")[: 1 + compared])] for row in d["series"]],
    )  # fmt: skip
    _frame(picture, axis, "most" if apart else words.number(max(most.values())))
    if apart:
        picture.note = f"Each on its own scale: the busiest month has {most['live']:,} here, {most['training']:,} in training."
    for side, inset in (("training", 0.1), ("live", 0.25 if compared else 0.1)):
        path, hidden = "", ""
        for row in rows:
            slot, n = axis.slots[row["month"]], row[side]
            left, right = axis.x(slot + inset), max(axis.x(slot + inset) + 1, axis.x(slot + 1 - inset))
            if n:
                path += f"M{left} {_BOTTOM}V{_BOTTOM - max(1, round((_BOTTOM - _TOP) * n / (tops[side] or 1)))}H{right}V{_BOTTOM}"
            elif n is None and (side == "live" or compared):
                hidden += f"M{left} {_BOTTOM - 3}H{right}"
        picture.marks += [(cls, p) for cls, p in ((f"{side} area", path), (f"{side} unknown", hidden)) if p]
    undated = next((row for row in d["series"] if not row["month"]), None)
    if undated and undated["live"]:
        picture.note = f"{picture.note} {words.number(undated['live'])} here have no date.".strip()
    return picture


def _missing(d: Row) -> Picture:
    """Draw the share without the element by month: live as a solid line with dots, training dashed with diamonds."""
    rows = d["series"]
    compared = any(row["training"] is not None for row in rows)
    top = max((row[side] or 0.0 for row in rows for side in ("live", "training")), default=0.0)
    top = next((s for s in (0.05, 0.1, 0.2, 0.5) if top <= s), 1.0)
    axis = _axis([row["month"] for row in rows])
    live = [row["live"] for row in rows if row["live"] is not None]
    name = words.place(d["element"])
    says = f"{name}: missing in {words.whole(min(live))} to {words.whole(max(live))} of a month's records here" if live else name
    picture = Picture(
        name, says + ".", "The solid line with dots is the live data" + (", the dashed line with diamonds training." if compared else "."),
        ["Month", "Here", *(["Training"] if compared else [])],
        [[row["month"], *("\u2013" if row[side] is None else words.whole(row[side]) for side in ("live", "training")[: 1 + compared])] for row in rows],
        code=d["element"],
    )  # fmt: skip
    _frame(picture, axis, words.whole(top))
    for side in ("training", "live"):
        at = [(axis.slots[r["month"]], r[side]) for r in rows if r[side] is not None]
        places = [(axis.x(slot + 0.5), round(_BOTTOM - (_BOTTOM - _TOP) * value / top), slot) for slot, value in at]
        if places:
            line = "".join(f"{'L' if n and slot == places[n - 1][2] + 1 else 'M'}{x} {y}" for n, (x, y, slot) in enumerate(places))
            # many diamonds in a row would hide the line: its ends do
            marked = [places[0], places[-1]] if side == "training" and len(places) > 12 else places
            picture.marks += [(f"{side} line", line), (f"{side} points", _points([(x, y) for x, y, _ in marked], side))]
    return picture


def _points(places: Iterable[tuple[int, int]], side: str) -> str:
    """Return a path of marks: dots are strokes of no length with round ends, diamonds are outlines."""
    return "".join(f"M{x} {y}h0" if side == "live" else f"M{x - 4} {y}l4-4 4 4-4 4z" for x, y in places)


# --- code mix, values


def _mix(d: Row) -> Picture:
    """Draw the share of each code: a dot for live, a hollow diamond for training, a line between them."""
    rows = [*d["rows"], {"code": "all others", **d["other"]}]
    compared = _compared(d)
    sides = [("live", "live_share"), *([("training", "training_share")] if compared else [])]
    top = max((row[key] or 0.0 for row in d["rows"] for _, key in sides), default=0.0)
    top = next((s for s in (0.02, 0.05, 0.1, 0.2, 0.5) if top <= s), 1.0)
    end = 18 + 16 * len(d["rows"])

    def x(share: float) -> int:
        return round(_NAMES + (_RIGHT - 6 - _NAMES) * min(share / top, 1.0))

    name = f"{words.place(d['element'])}, {words.system(d['system'])}"
    differ = words.whole(difference(d)) if compared else ""
    picture = Picture(
        name, f"{name}: {differ + ' of the mix differs from training' if compared else 'its most frequent codes'}.",
        "Dots are the live data" + (", hollow diamonds training; codes are ordered by difference." if compared else "."),
        ["Code", "Here", *(["Training"] if compared else [])],
        [[row["code"] + (f" {row['display']}" if row.get("display") else ""), *(words.whole(row[key]) for _, key in sides)] for row in rows],
        height=end + 16,
    )  # fmt: skip
    middle = x(top / 2)
    picture.marks += [("axis", f"M{_NAMES} 10V{end}"), ("grid", f"M{middle} 10V{end}M{x(top)} 10V{end}")]
    picture.labels += [
        (_NAMES, end + 12, "m", "0"),
        (middle, end + 12, "m", words.whole(top / 2)),
        (x(top), end + 12, "e", words.whole(top)),
    ]
    paths = {"live": "", "training": "", "link": ""}
    for n, row in enumerate(d["rows"]):
        y = 20 + 16 * n
        picture.labels.append((_NAMES - 6, y + 4, "e c", str(row["code"])))
        for side, key in sides:
            paths[side] += _points([(x(row[key]), y)], side)
        if compared and row["live_share"] != row["training_share"]:
            paths["link"] += f"M{x(row['training_share'])} {y}H{x(row['live_share'])}"
    picture.marks += [
        (cls, paths[key]) for cls, key in (("link", "link"), ("training points", "training"), ("live points", "live")) if paths[key]
    ]
    others = [f"{words.whole(d['other'][key])} {'here' if side == 'live' else 'in training'}" for side, key in sides]
    picture.note = f"{differ + ' of the mix differs. ' if compared else ''}All other codes: {', '.join(others)}."
    return picture


def _value(d: Row) -> Picture:
    """Draw the shares of results per bucket of values: live as a filled step line, training as a dashed one."""
    buckets = d["buckets"]
    compared = any(b["training_share"] is not None for b in buckets)
    sides = [("training", "training_share"), ("live", "live_share")] if compared else [("live", "live_share")]
    top = max((b[key] or 0.0 for b in buckets for _, key in sides), default=0.0) or 1.0
    unit = f" {d['unit']}" if d.get("unit") else ""
    name = str(d.get("display") or f"{words.system(d['system'])} {d['code']}")
    spans = [_span(b["low"], b["high"]) for b in buckets]
    picture = Picture(
        f"{name} ({unit.strip()})" if unit else name, f"{name}: share of results by value{unit and ' in'}{unit}.",
        "The filled outline is the live data" + (", the dashed line training." if compared else "."),
        [f"Value{unit and ','}{unit}", "Here", *(["Training"] if compared else [])],
        [[span, *(words.whole(b[key]) for _, key in reversed(sides))] for span, b in zip(spans, buckets, strict=True)], code=str(d["code"]),
    )  # fmt: skip
    width = (_RIGHT - _LEFT) / max(len(buckets), 1)
    picture.marks.append(("axis", f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"))
    picture.labels += [(_LEFT - 4, _TOP + 4, "e", words.whole(top)), (_LEFT - 4, _BOTTOM, "e", "0")]
    for side, key in sides:
        path, drawn = "", False
        for n, b in enumerate(buckets):
            if b[key] is not None:  # a hidden share is a gap
                left, right = (round(_LEFT + width * (n + i)) for i in (0, 1))
                path += f"{'' if drawn else f'M{left} {_BOTTOM}'}V{_BOTTOM - round((_BOTTOM - _TOP) * b[key] / top)}H{right}"
            elif drawn:
                path += f"V{_BOTTOM}"
            drawn = b[key] is not None
        picture.marks.append((f"{side} step", f"{path}V{_BOTTOM}" if drawn else path))
    edges = [(n, b["low"]) for n, b in enumerate(buckets) if b["low"] is not None]
    for n, low in edges[:: max(1, -(-len(edges) // 5))]:
        picture.labels.append((round(_LEFT + width * n), _BOTTOM + 14, "m", f"{low:g}"))
    return picture


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "any" if low is None and high is None else f"below {high:g}" if low is None else f"{low:g} and more"
    return f"{low:g} to {high:g}"


_KINDS: dict[str, tuple[str, str, Callable[[Row], Picture]]] = {
    "missing-by-month": (
        "Missing data by month",
        "Elements that are often missing here, or more or less often than in training. A step usually dates a change in an interface.",
        _missing,
    ),
    "code-mix": (
        "Which codes are used",
        "Share of each code among the codes of its system; those that differ most from training first.",
        _mix,
    ),
    "value": ("Values of results", "How the numeric results are spread, code by code, in one unit.", _value),
    "volume-by-month": (
        "Records by month",
        "A hole, or a feed that starts late, is a period that the model does not see.",
        _volume,
    ),
}
