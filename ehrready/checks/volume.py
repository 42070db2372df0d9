"""Comparability of volumes: feeds that fall silent, panels that are not sent any more, shorter histories (checks.md 19, 22)."""

from __future__ import annotations

import math
from statistics import median

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip
from ehrready.profile import Profile, Values
from ehrready.tables import table_of


@check("comparability", compares=True)
def code_volume_shift(
    profile: Profile, training: Profile, element: str, *, factor: float = 2.0, min_n: int = 30, q: float = 0.01
) -> list[Outcome]:
    """Is each code used as often per patient as in training?

    Records of a code per patient and month with any record of the table, live against training, divided by the median
    ratio of all codes (that everything comes more or less often is the business of `volume-shift`).  Rare events cluster in
    patients: the variance is the sum of the squared counts of each patient, on both sides.

    Numerator: codes that are used less or more often by `factor` (`code-volume`), beyond chance over all codes
    (Benjamini-Hochberg at `q`), by code system.
    Denominator: codes that training has of `min_n` patients and that should by its rate be there `min_n` times.

    Options: `factor` (default 2): smallest ratio that matters, up or down; `min_n` (default 30); `q` (default 0.01).
    """
    table = table_of(element)
    months = [_patient_months(p, table) for p in (profile, training)]
    if not months[0] or not months[1]:
        hidden = any(m is None for m in months)
        return skip("not-assessed" if hidden else "not-applicable", "the months of records are hidden" if hidden else "no dated records")
    systems = sorted({key[1] for key, _ in profile.rows("codes", element)} & {key[1] for key, _ in training.rows("codes", element)})
    found = []
    for system in systems:
        then = {key[2]: values for key, values in training.rows("codes", element, system) if (values[1] or 0) >= min_n}
        now = {key[2]: values for key, values in profile.rows("codes", element, system) if key[2] in then}
        if outcome := _judged(element, system, now, then, months[0] / months[1], factor, min_n, q):
            found.append(outcome)
    return found or skip("not-applicable", f"no code of training that should be there {min_n} times")


Codes = dict[str, Values]
_HIDDEN = "a count is hidden (1-10 patients)"


def _judged(element: str, system: str, now: Codes, then: Codes, scale: float, factor: float, min_n: int, q: float) -> Outcome | None:
    """Compare the codes of one system; None where none can be."""
    usual = _usual(now, then, scale)
    compared: list[tuple[str, Values, float]] = []
    p_values: list[float] = []
    for code, before in sorted(then.items()):
        here = now.get(code, (0, 0, 0, 0))
        expected = (before[0] or 0) * scale * usual
        if here[0] is None or here[1] is None or expected < min_n:
            continue
        compared.append((code, here, expected))
        matters = not 1 / factor < here[0] / expected < factor
        p_values.append(stats.two_sided_p((here[0] - expected) / _deviation(here, before, expected)) if matters else 1.0)
    if not compared:
        return None
    kept = [one for one, beyond in zip(compared, stats.benjamini_hochberg(p_values, q), strict=True) if beyond]
    kept.sort(key=lambda one: (-abs((one[1][0] or 0) - one[2]), one[0]))
    shown = [one for one in kept if not 0 < (one[1][1] or 0) <= 10]  # a code of 1-10 patients is never named
    cells: dict[tuple[str, ...], float] = {}
    for code, here, expected in kept:
        excess = (here[0] or 0) - expected
        cells[(element, system, code) if excess > 0 else (element, system, code, "lacking")] = abs(excess)
    return Outcome(
        "code-volume", len(kept), len(compared), people=False, status="fail" if kept else "pass", limit=0.0, group={"system": system},
        detail="; ".join(_words(system, code, here, then[code], expected) for code, here, expected in shown[:3]), cells=cells, partition=f"{element} {system} volume",
        independent=next((_independent(here, then[code]) for code, here, _ in shown or compared if (here[1] or 0) > 10), None),
    )  # fmt: skip


@check("comparability", compares=True)
def codes_no_longer_seen(profile: Profile, training: Profile, element: str, *, margin: float = 0.02, min_n: int = 30) -> list[Outcome]:
    """How much of training is in codes that the live data has no more?

    The reverse of `unseen-codes`: features that the model learnt and that can no longer occur.

    Numerator: training codings whose code the live data does not have (`no-longer-seen`).
    Denominator: training codings of the code systems that the live data has.

    The expectation is what so many live patients would lack by chance: a code that one of a hundred patients has is absent
    among two hundred with probability e^-2.  Alarms when the share exceeds the expectation by the margin and by more than three
    standard deviations of what chance gives, code by code.

    Options: `margin` (default 0.02); `min_n`: smallest number of patients on either side.
    """
    everyone = [p.frames["states"].get((element, "all", "", "*"), (0, 0, 0, 0))[1] for p in (profile, training)]
    if None in everyone:
        return skip("not-assessed", "a number of patients is hidden (1-10 patients)")
    if min(n or 0 for n in everyone) < min_n:
        return skip("not-applicable", f"fewer than {min_n} patients with this element's table on both sides")
    now = {key[1:] for key, _ in profile.rows("codes", element)}
    systems = {system for system, _ in now}
    ratio = (everyone[0] or 0) / (everyone[1] or 1)
    gone: list[tuple[int, int, tuple[str, ...]]] = []
    of, chance, variance = 0, 0.0, 0.0
    for key, (n, people, *_) in training.rows("codes", element):
        if key[1] not in systems or n is None or people is None:
            continue  # a hidden code of training is of few patients: likely absent by chance
        of += n
        absent = math.exp(-people * ratio)
        chance, variance = chance + n * absent, variance + n * n * absent * (1 - absent)
        if key[1:] not in now:
            gone.append((n, people, key[1:]))
    if not of:
        return skip("not-applicable", "no code system that training and the live data share")
    n, expected = sum(count for count, *_ in gone), chance / of
    deviation = math.sqrt(variance) / of
    alarm = n / of - expected >= margin and n / of - expected > 3 * deviation
    names = ", ".join(f"{' '.join(key)} ({count:,})" for count, people, key in sorted(gone, key=lambda g: (-g[0], g[2]))[:3] if people > 10)
    return [
        Outcome(
            "no-longer-seen", n, of, None, few=0 < max((people for _, people, _ in gone), default=0) < 11, status="fail" if alarm else "pass",
            effect=n / of - expected, limit=margin, partition=f"{element} gone",
            interval=(max(0.0, n / of - 1.96 * deviation), min(1.0, n / of + 1.96 * deviation)),
            independent=(everyone[0] or 0, everyone[1] or 0),
            detail=f"by chance {100 * expected:.1f} % ± {100 * deviation:.1f}, effective n {everyone[0]:,} against {everyone[1]:,}" + (f"; most frequent: {names}" if names else ""),
            cells={(element, *key, "lacking"): count * ratio for count, _, key in gone},
        )
    ]  # fmt: skip


@check("comparability")
def volume_gap(profile: Profile, element: str, *, usual: int = 30) -> list[Outcome]:
    """Are there months in which a feed was silent?

    A month is a gap (`gap-month`) when fewer than half as many patients have a record in it as in its neighbours (the
    median of up to three months on either side), these have at least `usual`, and the difference is more than four
    standard errors of two Poisson counts: a few busy patients make no gap.  The first and the last month are left
    out: an export seldom begins or ends with a whole month.

    Numerator: gap months of the element's table.  Denominator: months between its first and its last.

    Options: `usual` (default 30): patients that the neighbours must have.
    """
    months = _months(profile, element.partition(".")[0])
    if months is None:
        return skip("not-assessed", _HIDDEN)
    inner = range(1, len(months) - 1)
    if len(months) < 6:
        return skip("not-applicable", "fewer than six months of records")
    gaps = []
    for i in inner:
        around = [months[j][1] for j in range(max(0, i - 3), min(len(months), i + 4)) if j != i]
        middle = median(around)
        there = months[i][1]
        if middle >= usual and there < middle / 2 and middle - there > 4 * math.sqrt(middle + there):
            gaps.append(months[i][0])
    detail = f"{', '.join(gaps[:6])}" + (f" and {len(gaps) - 6} more" if len(gaps) > 6 else "") if gaps else ""
    return [Outcome("gap-month", len(gaps), len(inner), people=False, detail=detail)]


def _months(profile: Profile, table: str) -> list[tuple[str, int]] | None:
    """Return every month from the first to the last with its patients, empty ones included; None when one is hidden."""
    found = {month: values[1] for (_, month), values in profile.rows("volume", table) if "1900" < month < "2100"}
    if not found or any(n is None for n in found.values()):
        return None if found else []
    first, last = min(found), max(found)
    start, end = (int(m[:4]) * 12 + int(m[5:]) - 1 for m in (first, last))
    names = [f"{i // 12:04d}-{i % 12 + 1:02d}" for i in range(start, min(end, start + 2400) + 1)]
    return [(name, found.get(name) or 0) for name in names]


@check("comparability", compares=True)
def volume_shift(profile: Profile, training: Profile, element: str, *, factor: float = 1.5, min_months: int = 6) -> list[Outcome]:
    """Do patients have about as many records a month as in training?

    Records per patient and month with any (the table's own), the median over whole months, live against training.

    Numerator: live records of the table above or below what training's rate would give (`volume`).
    Denominator: live records of the table.
    Alarms when the rates differ by the factor and by more than three standard errors over the months.

    Options: `factor` (default 1.5): the smallest ratio that matters, up or down; `min_months`: months on either side.
    """
    table = element.partition(".")[0]
    live, past = (_rates(p, table) for p in (profile, training))
    if live is None or past is None:
        return skip("not-assessed", _HIDDEN)
    if min(len(live), len(past)) < min_months:
        return skip("not-assessed", f"fewer than {min_months} whole months with records on both sides")
    (now, error_now), (before, error_before) = (_centre(rates) for rates in (live, past))
    change, error = math.log(now / before), math.hypot(error_now, error_before)
    alarm = abs(change) >= math.log(factor) and abs(change) > 3 * error
    total = profile.tables().get(table, 0)
    moved = min(total, round(total * abs(1 - before / now)))
    return [
        Outcome(
            "volume", moved, total, people=False, status="fail" if alarm else "pass", effect=now / before - 1, limit=factor - 1, training=(0, training.tables().get(table, 0)),
            detail=f"{now:.2f} records per patient and month, training {before:.2f}, effective n {len(live):,} against {len(past):,} months",
            independent=(len(live), len(past)),
        )
    ]  # fmt: skip


def _rates(profile: Profile, table: str) -> list[float] | None:
    """Return records per patient of each inner month with at least 30 patients; None when a month is hidden."""
    cells = sorted((month, values) for (_, month), values in profile.rows("volume", table) if "1900" < month < "2100")
    if any(v is None for _, values in cells for v in values):
        cells = [(month, values) for month, values in cells if None not in values]
    return [(n or 0) / (patients or 1) for _, (n, patients) in cells[1:-1] if (patients or 0) >= 30]


def _centre(rates: list[float]) -> tuple[float, float]:
    """Return the median rate and the standard error of its logarithm over months."""
    logs = [math.log(rate) for rate in rates if rate > 0] or [0.0]
    spread = 1.4826 * median(abs(x - median(logs)) for x in logs)  # robust to a gap month
    return math.exp(median(logs)), max(1.2533 * spread / math.sqrt(len(logs)), 0.01)


@check("comparability", compares=True, whole=True)
def lookback(profile: Profile, training: Profile, *, months: int = 12, margin: float = 0.05, min_n: int = 30) -> list[Outcome]:
    """Do patients have as long a history as in training?

    Numerator: patients whose first and last event are less than the look-back apart (`short-history`).
    Denominator: patients with a dated event.
    Alarms when the share exceeds training's by the margin and the interval of the difference lies above zero.

    Options: `months` (default 12): the look-back that the model needs; `margin` (default 0.05); `min_n`: patients.
    """
    sides = []
    for p in (profile, training):
        cells = [(int(key[0]), values[0]) for key, values in p.rows("history")]
        if any(n is None for _, n in cells):
            return skip("not-assessed", _HIDDEN)
        sides.append((sum(n or 0 for m, n in cells if m < months), sum(n or 0 for _, n in cells)))
    (n, of), (n_then, of_then) = sides
    if min(of, of_then) < min_n:
        return skip("not-assessed" if of else "not-applicable", f"fewer than {min_n} patients with dated events on both sides")
    low, high = stats.newcombe(n / of, of, n_then / of_then, of_then)
    effect = n / of - n_then / of_then
    return [
        Outcome(
            "short-history", n, of, n, of, status="fail" if effect >= margin and low > 0 else "pass", training=(n_then, of_then), training_patients=n_then,
            effect=effect, limit=margin, interval=(low, high), p=stats.rise_p_value(n / of, of, n_then / of_then, of_then), family="volume",
            detail=f"look-back of {months} months, effective n {of:,} against {of_then:,}", independent=(of, of_then),
        )
    ]  # fmt: skip


def _patient_months(profile: Profile, table: str) -> int | None:
    """Return the sum over months of the patients with a dated record of the table; None where most of them are hidden."""
    cells = [values[1] for (_, month), values in profile.rows("volume", table) if month]
    shown = [n for n in cells if n is not None]
    return None if 2 * len(shown) < len(cells) else sum(shown)


def _usual(now: Codes, then: Codes, scale: float) -> float:
    """Return the median ratio of all codes, 1 where there are fewer than ten to tell it by."""
    ratios = [(now.get(code, (0,))[0] or 0) / ((before[0] or 1) * scale) for code, before in then.items()]
    return median(ratios) or 1.0 if len(ratios) >= 10 else 1.0


def _deviation(here: Values, before: Values, expected: float) -> float:
    """Return the standard deviation of observed less expected records, whose counts cluster in patients."""
    n, n2 = before[0] or 1, before[2] or before[0] or 1
    design = n2 / n
    return math.sqrt(max(here[2] or 0, expected * design) + expected * expected * n2 / (n * n))


def _independent(here: Values, before: Values) -> tuple[float, float]:
    """Return the effective numbers of records, here and in training: counts that come in clusters of a patient."""
    return ((here[0] or 0) ** 2 / (here[2] or 1), (before[0] or 0) ** 2 / (before[2] or 1))


def _words(system: str, code: str, here: Values, before: Values, expected: float) -> str:
    n = here[0] or 0
    sides = _independent(here, before)
    effective = f", effective n {sides[0]:,.0f} against {sides[1]:,.0f}" if n else ""
    return f"{system} {code} {n / expected:.2f} times as often ({n:,} records, {expected:,.0f} by training's rate{effective})"
