"""Comparability of numbers: results against the distributions of training (checks.md 21)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip
from ehrready.checks.units import _pairs
from ehrready.histograms import Histogram, by_cell, quantile
from ehrready.profile import Profile


@dataclass(frozen=True, slots=True)
class _Shift:
    """One analyte and unit: its two histograms, as many independent results as patients, and how far they lie apart."""

    key: tuple[str, ...]
    now: Histogram
    then: Histogram
    independent: tuple[int, int]
    gap: float
    distance: float

    @property
    def total(self) -> int:
        return sum(c for _, c in self.now)


@check("comparability", compares=True)
def value_shift(
    profile: Profile, training: Profile, element: str, *, margin: float = 0.15, distance: float = 0.1, min_n: int = 100
) -> list[Outcome]:
    """Are the numbers of each analyte distributed as in training?

    Per analyte and unit, with as many independent results as patients: the largest gap of the cumulative shares less the
    two-sample noise (Kolmogorov-Smirnov), and the Wasserstein-1 distance in training's interquartile ranges, where the means
    differ beyond their standard error.  The p-values of all analytes are judged together
    (Benjamini-Hochberg at 1 %).  Both count what lies beyond training's 0.1-99.9 % range as lying at its ends: it is the `tail`,
    which alarms where the lower bound of its share (Wilson) is above 1 % for an analyte.

    Numerator: results of analytes that shifted (`shifted`), results in the tails (`tail`).
    Denominator: numeric results of analytes and units that both profiles have from at least `min_n` patients.
    Alarms when the gap exceeds the noise by `margin`, or the Wasserstein distance is at least `distance`, and either is beyond chance.

    Options: `margin` (default 0.15): share of the results that must lie elsewhere; `distance` (default 0.1): interquartile
    ranges by which results must lie elsewhere on average; `min_n` (default 100): patients.
    """
    people = [{key[1:4]: values[1] for key, values in p.rows("units", element)} for p in (profile, training)]
    compared: list[_Shift] = []
    for key, (now, then) in _pairs(profile, training).items():
        sizes = [sum(c for _, c in cells) for cells in (now, then)]
        a, b = (min(p.get((key[0], key[1], key[2])) or size, size) for p, size in zip(people, sizes, strict=True))
        if min(a, b) >= min_n:
            compared.append(_Shift(key, now, then, (a, b), *compare(*_within(now, then))))
    if not compared:
        return skip("not-applicable", f"no analyte has visible results of {min_n} patients in the same unit on both sides")
    of = sum(shift.total for shift in compared)
    p_values = [_p_value(shift, margin, distance) for shift in compared]
    moved = [shift for shift, beyond in zip(compared, stats.benjamini_hochberg(p_values), strict=True) if beyond]
    moved.sort(key=lambda shift: (-shift.gap, shift.key))
    n = sum(shift.total for shift in moved)
    cells: dict[tuple[str, ...], float] = {}
    for shift in moved:
        cells.update(_excess(shift))
    return [
        Outcome(
            "shifted", n, of, people=False, status="fail" if n else "pass", limit=0.0, detail="; ".join(map(_words, moved[:3])),
            partition=f"{element} shift", cells=cells, independent=_least(moved or compared),
        ),
        _tail(compared, element, of),
    ]  # fmt: skip


def _words(shift: _Shift) -> str:
    name = f"{shift.key[0]} {shift.key[1]} in {shift.key[2] or 'no unit'}"
    return (
        f"{name}: median {quantile(shift.now, 0.5):.3g}, training {quantile(shift.then, 0.5):.3g}, largest gap {100 * shift.gap:.0f} points, "
        f"distance {shift.distance:.2f} interquartile ranges, effective n {shift.independent[0]:,} against {shift.independent[1]:,}"
    )


def _least(shifts: list[_Shift]) -> tuple[float, float]:
    """Return the effective n of the analyte that has the least to be judged by."""
    return min((shift.independent for shift in shifts), key=lambda sides: (1 / sides[0] + 1 / sides[1]) * -1)


def _tail(compared: list[_Shift], element: str, of: int) -> Outcome:
    """Count the results outside training's middle 99.8 %, of the analytes that have more than a percent there."""
    tails: list[tuple[int, str]] = []
    cells: dict[tuple[str, ...], float] = {}
    tail, alarm = 0, False
    for shift in compared:
        low, high = quantile(shift.then, 0.001) * 0.98, quantile(shift.then, 0.999) * 1.02
        beyond = [(v, c) for v, c in shift.now if v < low or v > high]
        outside = sum(c for _, c in beyond)
        independent = shift.independent[0]
        least = stats.wilson(outside / shift.total * independent, independent)[0]
        if least > 0.002:  # more than training's own share
            tail += outside
            alarm = alarm or least > 0.01
            tails.append((outside, f"{shift.key[0]} {shift.key[1]} ({100 * outside / shift.total:.1f} %)"))
            cells.update(by_cell(shift.key, beyond))
    if not alarm:
        tail, tails, cells = 0, [], {}
    names = ", ".join(text for count, text in sorted(tails, key=lambda t: (-t[0], t[1]))[:3] if count > 10)
    return Outcome(
        "tail", tail, of, status="fail" if tail else "pass", few=0 < tail < 11, limit=0.0, detail=names, partition=f"{element} tail", cells=cells,
        independent=_least(compared),
    )  # fmt: skip


def _excess(shift: _Shift) -> dict[tuple[str, ...], float]:
    """Return the cells that hold more results than training's shares give, beyond three standard errors or where training has none."""
    now, then = by_cell(shift.key, shift.now), by_cell(shift.key, shift.then)
    total, before = shift.total, sum(then.values())
    found = {}
    for cell, n in now.items():
        p, q = n / total, then.get(cell, 0.0) / before
        m = (p + q) / 2
        if (q <= 0.002 and p > q) or p - q > 3 * math.sqrt(m * (1 - m) * (1 / shift.independent[0] + 1 / shift.independent[1])):
            found[cell] = (p - q) * total
    return found


def _p_value(shift: _Shift, margin: float, distance: float) -> float:
    """Return the p-value of a shift that matters, 1 of one that does not."""
    a, b = shift.independent
    scale = math.sqrt(1 / a + 1 / b)
    found = 1.0
    if shift.gap - 1.95 * scale >= margin:  # 1.95: the critical value at 0.1 %
        found = min(1.0, 2 * math.exp(-2 * (shift.gap / scale) ** 2))
    if distance <= shift.distance < math.inf:
        sides = _within(shift.now, shift.then)
        (mean, variance), (before, spread) = (_moments(cells) for cells in sides)
        error = math.sqrt(variance / a + spread / b)
        found = min(found, stats.two_sided_p((mean - before) / error) if error else 0.0)
    return found


def _moments(cells: Histogram) -> tuple[float, float]:
    """Return mean and variance."""
    total = sum(c for _, c in cells)
    mean = sum(v * c for v, c in cells) / total
    return mean, sum((v - mean) ** 2 * c for v, c in cells) / total


def _within(now: Histogram, then: Histogram) -> tuple[Histogram, Histogram]:
    """Return both histograms with what is beyond training's 0.1-99.9 % moved to its ends: a 9999 is a tail and no shift."""
    low, high = quantile(then, 0.001), quantile(then, 0.999)
    inside = [[(min(max(v, low), high), c) for v, c in cells] for cells in (now, then)]
    return inside[0], inside[1]


def compare(now: Histogram, then: Histogram) -> tuple[float, float]:
    """Return the largest gap of the two cumulative distributions and their Wasserstein-1 distance in interquartile ranges of ``then``."""
    totals = [sum(c for _, c in cells) for cells in (now, then)]
    steps: dict[float, tuple[float, float]] = {}
    for side, cells in enumerate((now, then)):
        for value, count in cells:
            a, b = steps.get(value, (0.0, 0.0))
            steps[value] = (a + count / totals[0], b) if side == 0 else (a, b + count / totals[1])
    gap = area = f = g = 0.0
    before: float | None = None
    for value in sorted(steps):
        if before is not None:
            area += abs(f - g) * (value - before)
        f, g, before = f + steps[value][0], g + steps[value][1], value
        gap = max(gap, abs(f - g))
    spread = quantile(then, 0.75) - quantile(then, 0.25)
    return gap, area / spread if spread > 0 else (0.0 if area == 0 else math.inf)
