"""Plausibility: can the values, times, identities and links be true?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ehrready.checks.base import Outcome, check, skip
from ehrready.histograms import bounds, bucket_of, coarse_of, histograms, is_coarse, middle, quantile
from ehrready.profile import Profile
from ehrready.tables import table_of

#: Tables whose months say how far the export reaches; problem lists and allergies reach back, not forward.
_EVENTS = ("encounter", "observation", "medication", "procedure", "immunization", "report", "document")


def relation(profile: Profile, element: str, kind: str, *, partition: str = "") -> Outcome | None:
    """Return the counts of a record-level defect; None where it was not measured."""
    row = profile.frames["relations"].get((element, kind))
    if row is None:
        return None
    n, of, patients = row
    everyone = profile.frames["states"].get((f"{table_of(element)}.patient_id", "all", "", "*"), (None, None))[1]
    return Outcome(kind, n, of, patients, everyone, partition=partition or f"{element} {kind}")


def relations(profile: Profile, element: str, kinds: list[str], missing: str) -> list[Outcome]:
    """Return the outcomes of several kinds, those with records to judge; one not-applicable outcome when there are none."""
    found = [outcome for kind in kinds if (outcome := relation(profile, element, kind)) is not None and outcome.of != 0]
    return found or skip("not-applicable", missing)


@check("plausibility")
def value_plausible(profile: Profile, element: str) -> list[Outcome]:
    """Can the number be a patient's, or is it an error of unit, decimal point or entry?

    Limits are hard and wide (ehrready/terminology/data/plausible_limits.csv, with sources), converted to the unit of the
    result.  A sentinel (9999, 999, -1, 0 where impossible) stands for "not known": one outside the limits, or, for
    analytes without limits or inside them, a spike of one such number far from all others.

    Numerator: results outside the limits (`implausible`), results that are a sentinel (`sentinel`); no result is both.
    Denominator: numeric results with limits for their LOINC code and a unit that converts.
    """
    outcomes = relations(profile, element, ["implausible", "sentinel"], "no numeric result with known limits and a unit that converts")
    learnt = _sentinels(profile)
    if not learnt:
        return [_named(profile, outcome) for outcome in outcomes]
    n, most = sum(count for count, _, _, _ in learnt), max(people for _, people, _, _ in learnt)
    known = next((o for o in outcomes if o.defect == "sentinel"), None)
    of = (known.of or 0 if known else 0) + sum(total for total in _unjudged(profile, {name for _, _, name, _ in learnt}))
    names = ", ".join(sorted({name for _, people, name, _ in learnt if people > 10})[:3])
    total = Outcome("sentinel", n, of, None, few=most < 11, detail=f"learnt for {names}" if names else "", partition=f"{element} sentinel")
    if known is not None:
        total.n = None if known.n is None else n + known.n
        total.of_patients = known.of_patients
        total.few = total.few and (known.patients or 0) < 11
    total.cells = _cells(profile, "sentinel", {(name, coarse_of(bucket_of(value))) for _, _, name, value in learnt})
    return [*(_named(profile, o) for o in outcomes if o.defect == "implausible"), total]


def _named(profile: Profile, outcome: Outcome) -> Outcome:
    """Add the codes with most defects, those of 11 or more patients."""
    tops: dict[str, int] = defaultdict(int)
    for (system, code, kind), (n, patients) in profile.rows("value_kinds"):
        if code and kind.endswith("!") and (kind == "number!") is (outcome.defect == "implausible") and n and (patients or 0) > 10:
            tops[f"{system} {code}"] += n
    if tops:
        outcome.detail = "most in " + ", ".join(sorted(tops, key=lambda name: (-tops[name], name))[:3])
    if outcome.n:
        outcome.cells = _cells(profile, outcome.defect)
    return outcome


def _cells(profile: Profile, defect: str, learnt: Collection[tuple[str, str]] = ()) -> dict[tuple[str, ...], float]:
    """Return the coarse cells of the numbers outside the limits, or at a sentinel: with the distribution's they are one finding."""
    from ehrready import analytes
    from ehrready import units as ucum

    marks = {
        (key[0], key[1], coarse_of(bucket_of(float(key[2].removeprefix("number=").rstrip("!")))))
        for key, values in profile.rows("value_kinds")
        if key[2].startswith("number=") and key[2] != "number=0" and values[0]
    }
    found: dict[tuple[str, ...], float] = {}
    for (system, code, unit, bucket), (n, _) in profile.frames["values"].items():
        if not is_coarse(bucket) or "?" in bucket or n is None:
            continue
        limits = analytes.limits(system, code, ucum.resolve(unit) if unit and unit[0] != "?" else None)
        low, high = bounds(bucket)
        outside = limits is not None and (high < limits[0] or low > limits[1])
        at_mark = (system, code, bucket) in marks
        if (outside and not at_mark) if defect == "implausible" else at_mark and (outside or (f"{system} {code}", bucket) in learnt):
            found[system, code, unit, bucket] = float(n)
    return found


def _unjudged(profile: Profile, names: set[str]) -> list[int]:
    """Return the results of the codes for which a sentinel was learnt and which no limits judge."""
    from ehrready import analytes

    return [
        sum((n or 0) for (_, _, kind), (n, _) in profile.rows("value_kinds", system, code) if kind.startswith("number"))
        for system, code in (name.split(" ", 1) for name in sorted(names))
        if analytes.analyte(system, code) is None
    ]


def _sentinels(profile: Profile) -> list[tuple[int, int, str, float]]:
    """Return (n, patients, code, number) of the spikes at a sentinel value that lie apart from everything else."""
    candidates = []
    for (system, code, kind), (n, patients) in profile.rows("value_kinds"):
        value = float(kind.removeprefix("number=")) if kind.startswith("number=") and not kind.endswith("!") else 0.0
        if value != 0.0 and code and n is not None and n >= 5:  # a zero is below the limit of detection as often as unknown
            candidates.append((system, code, value, n, patients or 0))
    cells: dict[tuple[str, str], list[tuple[float, int]] | None] = {}
    for (system, code, _), part in histograms(profile, codes={(c[0], c[1]) for c in candidates}).items():
        before = cells.get((system, code), [])
        cells[system, code] = None if part is None or before is None else sorted([*before, *part])
    found = []
    for system, code, value, n, patients in candidates:
        every = cells.get((system, code))
        if every is None:
            continue
        own = middle(bucket_of(value))
        others = [(place, count) for place, count in every if place != own]
        inside, rest = sum(count for place, count in every if place == own), sum(count for _, count in others)
        if rest < 100 or n < 0.002 * rest or inside > 1.1 * n:
            continue
        near = sum(count for place, count in others if (place > value / 3 if value > 0 else place < 0))
        if near <= 0.1 * n and (value < 0 or quantile(others, 0.999) < value / 3):
            found.append((n, patients, f"{system} {code}", value))
    return found


@check("plausibility")
def time_plausible(profile: Profile, element: str, *, defects: list[str] | None = None, horizon: str = "") -> list[Outcome]:
    """Can the event have happened then?

    There is no clock: `future` is what lies more than a month after the last month that the export fills (or after
    `horizon`).  A partial date is widened to its bounds; birth has a day of grace for time zones.

    Numerator: events after the export's last month (`future`), before the patient's birth (`before-birth`), more than
    30 days after death (`after-death`), ended before they started (`end-before-start`), at midnight sharp (`midnight-only`).
    Denominator: dated events; those of patients with a birth or death date; those with an end; those with a time of day.

    Options: `defects` (default: all but `midnight-only`); `horizon`: the last month that is not the future, `2025-06`.
    """
    kinds = defects or ["future", "before-birth", "after-death", "end-before-start"]
    outcomes = relations(profile, element, [kind for kind in kinds if kind != "future"], "no time to compare")
    if "future" in kinds and (future := _future(profile, element, horizon)) is not None:
        outcomes = [future, *(o for o in outcomes if o.defect)]
    return outcomes


def _future(profile: Profile, element: str, given: str) -> Outcome | None:
    last = given or last_month(profile)
    if not last:
        return None
    after = _next(last)
    n, of, people, most = 0, 0, 0, 0
    for (_, month), (count, patients) in profile.rows("volume", table_of(element)):
        if not "1000" < month < "9999-99":
            continue
        if count is None or patients is None:
            if month > after:
                return Outcome("future", status="not-assessed", reason="a count is hidden (1-10 patients)")
            continue
        of += count
        if month > after:
            n, people, most = n + count, people + patients, max(most, patients)
    return Outcome("future", n, of, people, few=0 < most < 11, detail=f"after {last}", partition=f"{element} future") if of else None


def last_month(profile: Profile) -> str:
    """Return the last month of the block of months that holds the bulk of the events; ``""`` when there is no such block.

    From the month of the median event forward, over gaps of at most two months, while a month has 1 % of a usual one.
    """
    months: dict[str, int] = defaultdict(int)
    for (table, month), (n, _) in profile.rows("volume"):
        if table in _EVENTS and "1900" < month < "2200":
            months[month] += n or 0
    total = sum(months.values())
    if total < 100:
        return ""
    ordered = sorted(months)
    seen, middle = 0, ""
    for month in ordered:
        seen += months[month]
        if not middle and 2 * seen >= total:
            middle = month
    usual = sorted(months.values())[-max(1, len(months) // 4) :][0]
    last, step, gap = middle, middle, 0
    while gap <= 2:
        step = _next(step)
        if months.get(step, 0) >= max(1, 0.01 * usual):
            last, gap = step, 0
        else:
            gap += 1
    inside = sum(n for month, n in months.items() if month <= last)
    return last if inside >= 0.85 * total else ""


def _next(month: str) -> str:
    year, number = int(month[:4]), int(month[5:7])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


@check("plausibility")
def unique(profile: Profile, element: str, *, defects: list[str] | None = None) -> list[Outcome]:
    """Is every record there once?

    Numerator: surplus records: with an id that another record of the same type has (`duplicate-id`, of `*.id`); the same
    result under another id (`duplicate-record`, of `observation.code`: patient, code, time, number, unit, status and
    encounter agree); the same patient, code, time of day and number but another unit, status or encounter (`near-duplicate`).
    Denominator: records with an id; numeric results with a patient, a public code and a time of day other than midnight.

    Options: `defects` (default: those of the element).
    """
    kinds = ["duplicate-id"] if element.endswith(".id") else ["duplicate-record", "near-duplicate"]
    return relations(profile, element, defects or kinds, "no records with an id or a time of day to compare")


@check("plausibility")
def linked(profile: Profile, element: str) -> list[Outcome]:
    """Do references find their target?

    Numerator: references to a patient or encounter that was not exported (`unresolved`); records whose encounter is
    another patient's, or encounters given to two patients (`several-patients`).
    Denominator: populated references, contained and conditional ones (`#id`, `Patient?identifier=`) apart; not
    applicable where no record of the target's type was exported.
    """
    return relations(profile, element, ["unresolved", "several-patients"], "no such reference, or its target type was not exported")
