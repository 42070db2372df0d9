"""What the charts of a report show: live data against training, month by month and code by code.

Everything here is computed from profiles *as they may leave* (``privacy.hide_profile``), so a distribution can say
nothing that the saved profile does not.  On top of that a share is rounded to a step worth at least eleven codings:
exact shares would give totals away, and the difference of two totals may be a small cell.

A distribution is a JSON object of one of these kinds; null is a hidden number, never nought:

    {kind: "volume-by-month", table, series: [{month, live, training}]}          records; month null: without a date
    {kind: "missing-by-month", element, series: [{month, live, training}]}       share of records without the element
    {kind: "code-mix", element, system, rows: [{code, live_share, training_share}], other: {live_share, training_share}}
    {kind: "value", element, system, code, unit, buckets: [{low, high, live_share, training_share}]}

``value`` is for numeric results and comes with the value checks: the bounds are numbers in ``unit``, ``low`` null in
the first bucket (everything below) and ``high`` null in the last; ``display`` may name the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ehrready.privacy import hide_profile
from ehrready.profile import Profile
from ehrready.suppression import SMALLEST, small
from ehrready.tables import TABLES, table_of

#: Calendar months shown per side, codes named per mix, elements with a course of missingness.
MONTHS, CODES, ELEMENTS = 24, 15, 8
#: A share is rounded to the first of these that is worth at least eleven codings; else there is no distribution.
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
#: Records of a month below which a share of it would be noise.
FEWEST = 30
#: Element missing in this share of the records, or this much more or less often than in training: worth a course.
NOTABLE = 0.01

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def distributions(profile: Profile, training: Profile | None, *, internal: bool = False) -> list[dict[str, Any]]:
    """Return the distributions of the live profile beside training's (null where there is none).

    ``internal`` keeps exact counts, as in an internal scorecard; profiles hidden before stay hidden.
    """
    live = profile if internal or not profile.internal else hide_profile(profile)
    then = training if training is None or internal or not training.internal else hide_profile(training)
    months = sorted({*_busiest(live), *(_busiest(then) if then else ())})
    mixes = sorted(_code_mix(live, then, internal), key=lambda mix: -difference(mix))
    return [*_volume(live, then, months), *_missing(live, then, months, internal), *mixes]


def difference(mix: Mapping[str, Any]) -> float:
    """Return the share of a code mix that would have to change to make it training's, as far as its rows show; 0 without training."""
    sides = [(row["live_share"], row["training_share"]) for row in [*mix["rows"], mix["other"]]]
    total: float = sum(abs(live - then) for live, then in sides if then is not None)
    return round(total / 2, 4)


def _busiest(profile: Profile) -> list[str]:
    """Return the run of at most 24 calendar months with the most records: a mistyped year must not move the axis."""
    counts: dict[int, int] = {}
    for (_, month), (n, _) in profile.frames["volume"].items():
        if _MONTH.fullmatch(month):
            place = int(month[:4]) * 12 + int(month[5:]) - 1
            counts[place] = counts.get(place, 0) + (n or 0)
    if not counts:
        return []
    end = max(counts, key=lambda last: (sum(n for m, n in counts.items() if last - MONTHS < m <= last), last))
    inside = [m for m in counts if end - MONTHS < m <= end]
    return [f"{m // 12:04d}-{m % 12 + 1:02d}" for m in range(min(inside), max(inside) + 1)]


def _volume(live: Profile, then: Profile | None, months: list[str]) -> Iterator[dict[str, Any]]:
    """Yield records per month of each table that has dates."""
    for table in TABLES:
        series: list[dict[str, Any]] = []
        for month in [*months, ""]:
            counts = [_count(p, table, month) for p in (live, then)]
            series.append({"month": month or None, "live": counts[0], "training": counts[1] if then else None})
        if any(row[side] for row in series[:-1] for side in ("live", "training")):
            undated = series[-1]["live"] != 0 or series[-1]["training"] not in {0, None}
            yield {"kind": "volume-by-month", "table": table, "series": series if undated else series[:-1]}


def _count(profile: Profile | None, table: str, month: str) -> int | None:
    return None if profile is None else profile.frames["volume"].get((table, month), (0, 0))[0]


def _missing(live: Profile, then: Profile | None, months: list[str], internal: bool) -> Iterator[dict[str, Any]]:
    """Yield the share of records without an element by month, of the elements where it is notable."""
    worth: list[tuple[float, str]] = []
    for element in sorted({key[0] for key in live.frames["states"] if not key[0].endswith(".at")}):  # without a time it has no month
        now, before = (None if p is None else _share_missing(p, element, "all", "", internal) for p in (live, then))
        if now is not None and (now >= NOTABLE or (before is not None and abs(now - before) >= NOTABLE)):
            worth.append((-abs(now - (before or 0.0)), element))
    for _, element in sorted(worth)[:ELEMENTS]:
        series = []
        for month in months:
            shares = [None if p is None else _share_missing(p, element, "month", month, internal) for p in (live, then)]
            series.append({"month": month, "live": shares[0], "training": shares[1]})
        if sum(row["live"] is not None for row in series) > 1:
            yield {"kind": "missing-by-month", "element": element, "series": series}


def _share_missing(profile: Profile, element: str, grouping: str, group: str, internal: bool) -> float | None:
    """Return missing and null tokens of all but masked, in whole percent; None when hidden, or too few to say."""
    states = profile.frames["states"]
    zero = (0, 0, 0, 0)
    missing, token, masked = (states.get((element, grouping, group, state), zero)[0] for state in ("missing", "null-token", "masked"))
    total = states.get((element, grouping, group, "*"), zero)[0]
    # the month's number of records must be public anyway: the shares of many elements would give it away together
    public = grouping == "all" or _count(profile, table_of(element), group) is not None
    if missing is None or token is None or masked is None or total is None or not public:
        return None
    n, of = missing + token, total - masked
    if of < FEWEST or (not internal and (small(n) or small(of - n))):
        return None
    return round(n / of, 2)


def _code_mix(live: Profile, then: Profile | None, internal: bool) -> Iterator[dict[str, Any]]:
    """Yield per element and system the codes whose shares differ most; a code hidden on either side is not named."""
    places = sorted({key[:2] for p in (live, then) if p for key in p.frames["codes"]})
    for element, system in places:
        now = _mix(live, element, system, internal)
        before = _mix(then, element, system, internal) if then else None
        if now is None or (then is not None and before is None):
            continue
        codes = sorted({code for mix in (now, before) if mix for code in mix[0]})
        hidden = {code for mix in (now, before) if mix for code, share in mix[0].items() if share is None}
        rows: list[dict[str, Any]] = [
            {
                "code": code,
                "live_share": _rounded(now[0].get(code) or 0.0, now[1]),
                "training_share": _rounded(before[0].get(code) or 0.0, before[1]) if before else None,
            }
            for code in codes
            if code not in hidden
        ]
        rows.sort(key=lambda row: (-abs(row["live_share"] - (row["training_share"] or 0.0)), -row["live_share"], row["code"]))
        rows = [row for row in rows if row["live_share"] or row["training_share"]][:CODES]
        named = [row["code"] for row in rows]
        other = {
            "live_share": _rest(now, named),
            "training_share": _rest(before, named) if before else None,
        }
        if rows:
            yield {"kind": "code-mix", "element": element, "system": system, "rows": rows, "other": other}


Mix = tuple[dict[str, float | None], float]


def _mix(profile: Profile, element: str, system: str, internal: bool) -> Mix | None:
    """Return code → exact share (None hidden) and the step to round to; None when the total is hidden or small."""
    counts = {key[2]: values[0] for key, values in profile.rows("codes", element, system)}
    cells = [values[0] for key, values in profile.rows("classes", element, system) if key[3] in {"well-formed", "repairable"}]
    if any(n is None for n in cells):  # then the codes may still all be known
        cells = list(counts.values())
    total = _sum(cells)
    if not total:
        return None
    step = 0.0001 if internal else next((step for step in STEPS if step * total >= SMALLEST), None)
    return None if step is None else ({code: None if n is None else n / total for code, n in counts.items()}, step)


def _rest(mix: Mix, named: Iterable[str]) -> float:
    return _rounded(max(0.0, 1 - sum(mix[0].get(code) or 0.0 for code in named)), mix[1])


def _rounded(share: float, step: float) -> float:
    return round(step * round(share / step), 4)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for n in counts:
        if n is None:
            return None
        total += n
    return total
