"""Comparability of numbers: results against the distributions of training (checks.md 21)."""

from __future__ import annotations

import math

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip
from ehrready.checks.units import _pairs
from ehrready.histograms import Histogram, quantile
from ehrready.profile import Profile


@check("comparability", compares=True)
def value_shift(profile: Profile, training: Profile, element: str, *, margin: float = 0.15, min_n: int = 100) -> list[Outcome]:
    """Are the numbers of each analyte distributed as in training?

    Per analyte and unit: the largest gap of the cumulative shares less the two-sample noise (Kolmogorov-Smirnov at the 99.9 %
    level with as many observations as patients), and the Wasserstein-1 distance in training's interquartile ranges.
    Also `tail`: results outside training's 0.1-99.9 % range, where the lower bound of their share (Wilson) is above 1 %.

    Numerator: results of analytes that shifted (`shifted`), results in the tails (`tail`).
    Denominator: numeric results of analytes and units that both profiles have from at least `min_n` patients.
    Alarms when the gap exceeds the noise by the margin, or the distance is at least twice the margin beyond the noise.

    Options: `margin` (default 0.15): share of the results that must lie elsewhere; `min_n` (default 100): patients.
    """
    people = [{key[1:4]: values[1] for key, values in p.rows("units", element)} for p in (profile, training)]
    n = of = tail = 0
    tops: list[tuple[float, str, int]] = []
    tails: list[tuple[int, str]] = []
    assessed = False
    for key, (now, then) in _pairs(profile, training).items():
        independent = [
            min(p.get((key[0], key[1], key[2])) or sum(c for _, c in cells), sum(c for _, c in cells))
            for p, cells in zip(people, (now, then), strict=True)
        ]
        if min(independent) < min_n:
            continue
        assessed = True
        total = sum(c for _, c in now)
        of += total
        gap, distance = compare(now, then)
        noise = 1.95 * math.sqrt(1 / independent[0] + 1 / independent[1])  # KS critical value, alpha = 0.001
        if gap - noise >= margin or (gap > noise and distance - 2 * noise >= 2 * margin):
            n += total
            tops.append(
                (
                    gap,
                    f"{key[0]} {key[1]} in {key[2] or 'no unit'}: median {quantile(now, 0.5):.3g}, training {quantile(then, 0.5):.3g}",
                    total,
                )
            )
        outside = sum(c for v, c in now if v < quantile(then, 0.001) * 0.98 or v > quantile(then, 0.999) * 1.02)
        low, _ = stats.wilson(outside / total * independent[0], independent[0])
        if low > 0.01:
            tail += outside
            tails.append((outside, f"{key[0]} {key[1]} ({100 * outside / total:.1f} %)"))
    if not assessed:
        return skip("not-applicable", f"no analyte has visible results of {min_n} patients in the same unit on both sides")
    names = "; ".join(text for _, text, _ in sorted(tops, key=lambda t: (-t[0], t[1]))[:3])
    beyond = ", ".join(text for count, text in sorted(tails, key=lambda t: (-t[0], t[1]))[:3] if count > 10)
    return [
        Outcome("shifted", n, of, people=False, status="fail" if n else "pass", limit=0.0, detail=names, partition=f"{element} shift"),
        Outcome(
            "tail", tail, of, status="fail" if tail else "pass", few=0 < tail < 11, limit=0.0, detail=beyond, partition=f"{element} tail"
        ),
    ]


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
