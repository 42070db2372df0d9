"""The log-bucket histograms of results and the kinds of their values: the vocabulary that measures, checks and privacy share.

Bucket b holds the numbers in (gamma^(b-1), gamma^b]; ``zero`` and ``neg:b`` stand apart (design section 4; DDSketch, Masson, Rim
and Lee 2019).  Coarse buckets ``c...`` join eight fine ones and are counted apart, since patients do not add up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable

from ehrready.profile import Key, Profile

#: Cells (middle of a bucket, n) in rising order.
Histogram = list[tuple[float, int]]

#: The middle of a bucket is within (gamma-1)/(gamma+1) = 0.99 % of every number in it.
GAMMA = 1.02
#: Fine buckets in a coarse one, which is 17 % wide.
COARSE = 8
#: Histograms (code and unit) that keep their fine buckets in a saved profile, the most frequent first.
FINE_HISTOGRAMS = 300

#: Defects of ``value-parses`` by kind of value; a kind that is in none of them is a number or a text that may be one.
PARSES: dict[str, tuple[str, ...]] = {
    "number-in-text": ("text:number", "text:number-with-unit", "declared:number", "declared:number-with-unit", "structured:number", "structured:number-with-unit"),
    "comparator-in-text": ("text:comparator", "declared:comparator", "structured:comparator"),
    "ratio-in-text": ("text:ratio", "text:range", "declared:ratio", "declared:range"),
    "text-in-number": ("declared:words", "structured:words", "declared:non-finite", "text:non-finite", "structured:non-finite"),
}  # fmt: skip


def is_coarse(bucket: str) -> bool:
    """Is this a coarse bucket (``c12``, ``neg:c12``, ``czero``)?"""
    return bucket.removeprefix("neg:").startswith("c")


def marker_of(bucket: str) -> str:
    """Return the row that says that buckets of this width are hidden or left out."""
    return "c?hidden" if is_coarse(bucket) else "?hidden"


def coarse_of(bucket: str) -> str:
    """Return the coarse bucket of a fine one."""
    if bucket == marker_of(""):
        return marker_of("c")
    sign = "neg:" if bucket.startswith("neg:") else ""
    index = bucket.removeprefix("neg:")
    return "czero" if index == "zero" else f"{sign}c{math.ceil(int(index) / COARSE)}"


def bucket_of(value: float) -> str:
    """Return the fine bucket of a finite number."""
    if value == 0:
        return "zero"
    return ("neg:" if value < 0 else "") + str(math.ceil(math.log(abs(value)) / math.log(GAMMA)))


@functools.cache
def middle(bucket: str) -> float:
    """Return the number that stands for a bucket: within 1 % of all in a fine one."""
    low, high = bounds(bucket)
    return 0.0 if low == high == 0 else 2 / (1 / low + 1 / high)


def _power(index: int) -> float:
    """Return gamma to the power of an index, kept within the doubles that divide."""
    return math.exp(min(max(index * math.log(GAMMA), -700.0), 709.0))


def bounds(bucket: str) -> tuple[float, float]:
    """Return the least and the greatest number that a bucket may hold."""
    index = bucket.removeprefix("neg:").removeprefix("c")
    if index == "zero":
        return 0.0, 0.0
    step = COARSE if is_coarse(bucket) else 1
    near, far = _power((int(index) - 1) * step), _power(int(index) * step)
    return (-far, -near) if bucket.startswith("neg:") else (near, far)


def histograms(profile: Profile, *, coarse: bool = False, codes: Collection[tuple[str, str]] | None = None) -> dict[Key, Histogram | None]:
    """Return (system, code, unit) to its cells (middle, n), in rising order; None where the profile hides some of them.

    One pass over the frame; ``codes`` limits it to some (system, code).
    """
    found: dict[Key, Histogram | None] = {}
    for (system, code, unit, bucket), (n, _) in profile.frames["values"].items():
        if is_coarse(bucket) is not coarse or (codes is not None and (system, code) not in codes):
            continue
        cells = found.setdefault((system, code, unit), [])
        if n is None:
            found[system, code, unit] = None
        elif cells is not None:
            cells.append((middle(bucket), n))
    return {key: sorted(cells) if cells is not None else None for key, cells in sorted(found.items())}


def quantile(buckets: Iterable[tuple[float, int]], share: float) -> float:
    """Return the quantile of a histogram; NaN of an empty one."""
    cells = list(buckets)
    wanted = share * sum(n for _, n in cells)
    seen = 0
    for value, n in cells:
        seen += n
        if seen >= wanted and n:
            return value
    return math.nan


def by_cell(key: Key, buckets: Histogram) -> dict[Key, float]:
    """Return the coarse cells of a histogram's buckets: what a finding on results consists of (ehrready.causes)."""
    cells: dict[Key, float] = {}
    for value, n in buckets:
        cell = (*key, coarse_of(bucket_of(value)))
        cells[cell] = cells.get(cell, 0.0) + n
    return cells
