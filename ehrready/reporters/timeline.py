"""The time line of code-system releases: what training used and what the data declares or gives away, side by side.

A picture per code system, its lanes from top to bottom: training declared, training read from the codes, declared here,
read from the codes here, and the quarters of service where the scorecard has them.  Releases that name a date (FY2026,
2024-06-03, SNOMED CT editions) stand on a calendar; others stand in order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ehrready.reporters import words
from ehrready.reporters.charts import Picture

Row = Mapping[str, Any]

_LEFT, _RIGHT, _LANE = 14, 346, 30
#: Quarters drawn, the latest; the table has all.
_QUARTERS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A code system's picture and what the codes say."""

    system: str
    picture: Picture
    kind: str
    words: str
    evidence: list[str]


def timelines(releases: Iterable[Row]) -> list[Line]:
    """Return a line per code system with any release known, the most alarming first."""
    grouped: dict[str, list[Row]] = {}
    for row in releases:
        grouped.setdefault(row["system"], []).append(row)
    ranked = sorted(grouped.items(), key=lambda item: (_alarm(_status(item[1])), item[0]))
    drawn = [(name, members, _lanes(members)) for name, members in ranked]
    return [_line(name, members, lanes) for name, members, lanes in drawn if _speaks(lanes)]


def _speaks(lanes: Sequence[tuple[str, str, list[str]]]) -> bool:
    """Is there more to see than one release that everybody declares?"""
    return len({release for _, _, found in lanes for release in found}) > 1 or any(
        found and cls.endswith("span") for cls, _, found in lanes
    )


def _status(members: Sequence[Row]) -> str:
    """Return the most alarming status; an element that states nothing says nothing about what another states."""
    return min((r["status"] for r in members if r["status"] != "not-declared"), key=_alarm, default="not-declared")


def _alarm(status: str) -> int:
    order = [*(key for key in words.RELEASES if key != "not-declared"), "not-declared"]
    return order.index(status) if status in order else -1


def _lanes(members: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Return (class, name, releases) per lane; the releases of all elements of the system together."""
    days = _calendar(members)

    def order(release: str) -> tuple[str, list[tuple[int, str]]]:
        return _order(release, days)

    def declared(rows: Iterable[Row]) -> list[str]:
        return sorted({share["release"] for row in rows for share in row.get("declared") or () if share["release"]}, key=order)

    def inferred(rows: Iterable[Row]) -> list[str]:
        return sorted({str(r) for row in rows if row.get("inferred") for r in row["inferred"].get("releases") or ()}, key=order)

    trained = [row["training"] for row in members if row["training"]]
    lanes = [
        ("training points", "Training, as declared", declared(trained)),
        ("training span", "Training, read from its codes", inferred(trained)),
        ("live points", "Here, as declared", declared(members)),
        ("live span", "Here, read from the codes", inferred(members)),
    ]
    return [*lanes, *(("live span", f"Here, {quarter}", found) for quarter, found in _strata(members)[-_QUARTERS:])]


def _strata(members: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return quarter → releases read from the codes; a list of objects or an object is understood."""
    found: dict[str, set[str]] = {}
    for row in members:
        strata = row.get("strata") or []
        if isinstance(strata, Mapping):
            strata = [{"quarter": key, "releases": value} for key, value in strata.items()]
        for stratum in strata:
            quarter = str(stratum.get("quarter") or stratum.get("stratum") or stratum.get("period") or "")
            names = stratum.get("releases") or ()
            found.setdefault(quarter, set()).update(map(str, [names] if isinstance(names, str) else names))
    days = _calendar(members)
    return [(quarter, sorted(names, key=lambda release: _order(release, days))) for quarter, names in sorted(found.items()) if names]


def starts(release: str) -> date | None:
    """Return the day from which a release is valid, where its name says so: FY2026 from 1 October 2025."""
    found = re.fullmatch(r"FY(20\d\d)", release)
    if found:
        return date(int(found[1]) - 1, 10, 1)
    found = re.search(r"(?:^|/version/)(\d{4})-?(\d\d)-?(\d\d)$", release)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def _calendar(members: Iterable[Row]) -> dict[str, date]:
    """Return release → first day in force, from the scorecard's own time line."""
    days: dict[str, date] = {}
    for row in members:
        for entry in row.get("timeline") or ():
            try:
                days[str(entry["release"])] = date.fromisoformat(str(entry["effective"]))
            except (KeyError, ValueError):
                continue
    return days


def _day(release: str, days: Mapping[str, date]) -> date | None:
    return days.get(release) or starts(release)


def _order(release: str, days: Mapping[str, date]) -> tuple[str, list[tuple[int, str]]]:
    """Sort by date, else by the numbers in the name (LOINC 2.9 stands before 2.77)."""
    day = _day(release, days)
    parts = [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,9})", release)]
    return day.isoformat() if day else "", parts


def _line(name: str, members: Sequence[Row], lanes: list[tuple[str, str, list[str]]]) -> Line:
    known = sorted({release for _, _, found in lanes for release in found}, key=lambda release: _order(release, _calendar(members)))
    days = _calendar(members)
    axis = sorted({*known, *_between(known, days)}, key=lambda release: _order(release, days))
    x, dated = _places(axis, days)
    shown = [lane for lane in lanes if lane[2] or lane[1].endswith("as declared")]
    declared = {lane: found for _, lane, found in lanes}
    kind, says = words.release_words(_status(members), declared["Here, as declared"], declared["Training, as declared"])
    end = 34 + _LANE * len(shown)
    picture = Picture(
        words.system(name), f"{words.system(name)} releases: {says}.",
        "; ".join(f"{lane}: {', '.join(map(words.release, found)) or 'not stated'}" for _, lane, found in shown) + ".",
        ["", "Releases"], [[lane, ", ".join(map(words.release, found)) or "not stated"] for _, lane, found in [*shown, *_left_out(members)]],
        height=end, code=name,
    )  # fmt: skip
    picture.marks.append(("axis", f"M{_LEFT} {end - 18}H{_RIGHT}"))
    picture.marks.append(("grid", "".join(f"M{x[release]} 4V{end - 18}" for release in axis)))
    last = -99
    for release in axis:
        label = _short(release)
        if x[release] - last >= 6 * len(label) + 8 or release == axis[-1]:
            cls = "s" if x[release] < 60 else "e" if x[release] > 300 else "m"
            picture.labels.append((x[release], end - 5, cls, label))
            last = x[release]
    for n, (cls, lane, found) in enumerate(shown):
        y = 24 + _LANE * n
        picture.labels.append((_LEFT - 12, y - 10, "s", lane + ("" if found else ": not stated")))
        if found and cls.endswith("span"):
            picture.marks.append((cls, f"M{x[found[0]]} {y}H{x[found[-1]]}"))
        for release in found:
            side = cls.split()[0]
            picture.marks.append((f"{side} points", f"M{x[release]} {y}h0" if side == "live" else f"M{x[release] - 5} {y}l5-5 5 5-5 5z"))
    if not dated and len(known) > 1:
        picture.note = "In order of release; the distances mean nothing."
    return Line(name, picture, kind, says, _evidence(members))


def _left_out(members: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Return the lanes of the quarters before those drawn."""
    return [("", f"Here, {quarter}", found) for quarter, found in _strata(members)[:-_QUARTERS]]


def _between(known: Sequence[str], days: Mapping[str, date]) -> list[str]:
    """Return the releases between the first and the last known, so that the axis shows how many were skipped."""
    dates = [day for release in known if (day := _day(release, days))]
    if len(dates) < len(known) or not dates:
        return []
    years = [f"FY{year}" for year in range(min(dates).year + 1, max(dates).year + 2)] if all(r.startswith("FY") for r in known) else []
    every = {release: day for release in [*days, *years] if (day := _day(release, days))}
    return [release for release, day in every.items() if min(dates) <= day <= max(dates)]


def _short(release: str) -> str:
    """Return a release short enough for an axis."""
    day = starts(release)
    text = day.isoformat() if day and "/" in release else release
    return text if len(text) <= 14 else f"{text[:13]}…"


def _places(known: Sequence[str], known_days: Mapping[str, date]) -> tuple[dict[str, int], bool]:
    """Return release → x: on a calendar where all of them are dated and stand apart, else evenly in order."""
    days = [day for release in known if (day := _day(release, known_days))]
    room = _RIGHT - _LEFT
    if len(known) < 2:
        return dict.fromkeys(known, _LEFT + room // 2), True
    even = {release: _LEFT + round(room * n / (len(known) - 1)) for n, release in enumerate(known)}
    if len(days) < len(known) or days[0] == days[-1]:
        return even, False
    span = (days[-1] - days[0]).days
    dated = [_LEFT + round(room * (day - days[0]).days / span) for day in days]
    if any(b - a < 14 for a, b in itertools.pairwise(dated)):
        return even, False
    return dict(zip(known, dated, strict=True)), True


def _evidence(members: Sequence[Row]) -> list[str]:
    """Return what the codes say, per element: releases, probability, pattern and the evidence as sentences."""
    lines = []
    for row in members:
        found = row.get("inferred")
        if found:
            names = ", ".join(map(words.release, map(str, found.get("releases") or ()))) or "no release"
            sure = f", probability {words.percent(found['probability'])}" if isinstance(found.get("probability"), int | float) else ""
            pattern = f", {words.PATTERNS.get(str(found['pattern']), words.plain(found['pattern']))}" if found.get("pattern") else ""
            lines.append(f"{words.place(row['element'])}: {names}{sure}{pattern}.")
            lines += [words.plain(line) for line in found.get("evidence") or ()]
    return lines
