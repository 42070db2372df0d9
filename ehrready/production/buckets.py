"""Buckets of scores: equal steps of the log-odds of a score's place in its range, so that low risks are told apart as well as high ones.

A bucket is a text: its index, ``.5`` behind it where the alert threshold divides it and the score is above; ``-100`` and ``100``
are the ends of the range.  Joined buckets, as in a profile that may leave, are ``low~high~index`` (ehrready.production.hiding).
"""

from __future__ import annotations

import functools
import math

#: Width in log-odds: at 0.5 a bucket is 0.025 wide, at 0.01 it is 0.001.
WIDTH = 0.1
_END = 100


def sql(score: str, low: str, high: str, threshold: str) -> str:
    """Return the SQL of a score's bucket as text."""
    share = f"(({score} - {low}) / ({high} - {low}))"
    index = _index(share)
    edge = _index(f"(({threshold} - {low}) / ({high} - {low}))")
    return (
        f"CAST({index} AS VARCHAR) || CASE WHEN {score} >= {threshold} AND {index} = {edge} AND abs({index}) < {_END} THEN '.5' ELSE '' END"
    )


def _index(share: str) -> str:
    inner = f"CAST(floor(ln({share} / (1 - {share})) / {WIDTH}) AS INTEGER)"
    return f"CASE WHEN {share} <= 0 THEN -{_END} WHEN {share} >= 1 THEN {_END} ELSE greatest(least({inner}, {_END - 1}), -{_END - 1}) END"


def bounds(bucket: str) -> tuple[float, float]:
    """Return the first and last index that a bucket, or several joined, stand for."""
    low, _, rest = bucket.partition("~")
    return float(low), float(rest.partition("~")[0] or low)


@functools.cache
def middle(bucket: str) -> float:
    """Return the place in the range (0 to 1) that stands for a bucket."""
    index = float(bucket.rpartition("~")[2])
    if abs(index) >= _END:
        return float(index > 0)
    return 1 / (1 + math.exp(-(math.floor(index) + 0.5) * WIDTH))
