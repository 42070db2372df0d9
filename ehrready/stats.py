"""The few statistics a finding needs.

Closed forms with the normal quantile of the standard library: importing
SciPy costs a second, and these are one line each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

_Z95 = NormalDist().inv_cdf(0.975)


def wilson(n: float, of: float, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of ``n`` of ``of`` (Wilson 1927); (0, 1) when ``of`` is 0."""
    if of <= 0:
        return 0.0, 1.0
    p = n / of
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(p1: float, n1: float, p2: float, n2: float, z: float = _Z95) -> tuple[float, float]:
    """Return the interval of ``p1 - p2`` (Newcombe 1998, method 10) with effective sizes ``n1`` and ``n2``."""
    low1, high1 = wilson(p1 * n1, n1, z)
    low2, high2 = wilson(p2 * n2, n2, z)
    difference = p1 - p2
    return (
        difference - math.sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2),
        difference + math.sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2),
    )


def rise_p_value(p1: float, n1: float, p2: float, n2: float) -> float:
    """Return the one-sided p-value that ``p1`` exceeds ``p2`` (pooled two-proportion z test)."""
    pooled = (p1 * n1 + p2 * n2) / (n1 + n2)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    return 1.0 if deviation == 0 else 1 - NormalDist().cdf((p1 - p2) / deviation)


def two_sided_p(z: float) -> float:
    """Return the two-sided p-value of a standard normal deviate."""
    return 2 * NormalDist().cdf(-abs(z))


def effective_n(n: int, of: int, n2: int, of2: int, n_of: int) -> float:
    """Return the effective sample size of a proportion whose rows cluster in patients.

    From Σn², Σof² and Σn·of over patients: the linearised (sandwich) variance of a ratio estimator
    (Cochran 1977, 6.4).  Where nobody or everybody has the defect it is Kish's of²/Σof².
    """
    if of <= 0 or of2 <= 0:
        return 0.0
    kish = of * of / of2
    p = n / of
    spread = n2 - 2 * p * n_of + p * p * of2
    if n in {0, of} or spread <= 0:
        return min(float(of), kish)
    return max(1.0, min(float(of), p * (1 - p) * of * of / spread))


def benjamini_hochberg(p_values: Sequence[float], q: float = 0.01) -> list[bool]:
    """Return which hypotheses are rejected at false discovery rate ``q`` (Benjamini and Hochberg 1995)."""
    order = sorted(range(len(p_values)), key=lambda i: (p_values[i], i))
    last = max((rank for rank, i in enumerate(order, 1) if p_values[i] <= q * rank / len(order)), default=0)
    rejected = [False] * len(order)
    for i in order[:last]:
        rejected[i] = True
    return rejected
