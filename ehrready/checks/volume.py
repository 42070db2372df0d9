"""Comparability of the volume of single codes: a panel that is not sent any more, a test that is sent twice (checks.md 19, 22)."""

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
            detail=f"by chance {100 * expected:.1f} % ± {100 * deviation:.1f}, effective n {everyone[0]} against {everyone[1]}" + (f"; most frequent: {names}" if names else ""),
            cells={(element, *key, "lacking"): count * ratio for count, _, key in gone},
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
    effective = f", effective n {sides[0]:.0f} against {sides[1]:.0f}" if n else ""
    return f"{system} {code} {n / expected:.2f} times as often ({n:,} records, {expected:,.0f} by training's rate{effective})"
