"""Accuracy from counts: scores by bucket and label give AUROC, AUPRC, Brier score, calibration and ECE, exact to the bucket.

Figures are scikit-learn's on the weighted buckets.  Intervals (95 %) are percentiles of a multinomial bootstrap of the same counts
with a fixed seed; its size is the number of predictions over Kish's design effect, so that a patient with many predictions counts
as one observation.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ehrready.production import buckets
from ehrready.profile import Profile

#: Metric (as in a contract's baseline) to: +1 where more is better, -1 where less is, 0 where the best is in between.
METRICS: dict[str, int] = {"auroc": 1, "auprc": 1, "brier": -1, "calibration_slope": 0, "calibration_intercept": 0, "ece": -1}
#: Patients with and without the outcome below which nothing is said of a group.
FEWEST = 11
DRAWS, SEED = 499, 20160
_ECE_BINS = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric with its 95 % interval and standard error; ``bias`` is what noise adds to it (ECE grows in small groups)."""

    value: float
    low: float
    high: float
    error: float
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled predictions of a group by bucket, in rising order of score: ``positive`` and ``negative`` at ``score``."""

    score: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    patients: tuple[int, int]  # with the outcome, without
    effect: float  # Kish's design effect
    probability: bool

    @property
    def n(self) -> int:
        """Labelled predictions."""
        return int(self.positive.sum() + self.negative.sum())


#: What a text of the contract is in the run that saves a validation without texts (ehrready.production.run).
NO_TEXT = "text-none"


def outputs(profile: Profile) -> dict[str, str]:
    """Return the outputs of a profile and what they are: ``score 0 1``, ``class``, ``text``, NO_TEXT."""
    return {key[0]: key[2].removeprefix("is ") for key, _ in profile.rows("predictions") if key[2].startswith("is ")}


def alerts(profile: Profile, output: str) -> tuple[int, int] | None:
    """Return alerts of the whole run and the predictions that they are a share of; None where there is no threshold, or they are hidden.

    Where a saved profile hides how many predictions there were, they are a share of those with a valid score.
    """
    n, of, _ = profile.frames["predictions"].get((output, "", "alert"), (None, None, None))
    if of is None:
        of = sum(values[0] or 0 for _, values in profile.rows("scores", output, "", "all", ""))
    return (n, of) if n is not None and of >= max(n, 1) else None


def labelled(
    profile: Profile, output: str, month: str = "", grouping: str = "all", group: str = "", *, like: Profile | None = None
) -> Labelled | None:
    """Return the labelled predictions of a group; None where there are none, or where a count is hidden.

    ``like``: in the buckets of that profile's scores, where it has joined some: figures are compared in the same ones.
    """
    cells: dict[str, list[int]] = {}
    for (_, _, _, _, bucket, label), (n, _) in profile.rows("scores", output, month, grouping, group):
        if label in {"0", "1"}:
            if n is None:
                return None
            cells.setdefault(bucket, [0, 0])[int(label)] += n
    of = {key[4]: values for key, values in profile.rows("clusters", output, month, grouping, group) if key[4] in {"0", "1"}}
    if not cells or any(v is None for values in of.values() for v in values):
        return None
    cells = _as_in(cells, like, output)
    order = sorted(cells, key=buckets.bounds)
    n = sum(values[0] or 0 for values in of.values())
    squares = sum(values[2] or 0 for values in of.values())
    people = tuple((of.get(label, (0, 0))[1] or 0) for label in ("1", "0"))
    return Labelled(
        np.array([buckets.middle(b) for b in order]),
        np.array([cells[b][1] for b in order], dtype=float),
        np.array([cells[b][0] for b in order], dtype=float),
        (people[0], people[1]),
        max(1.0, squares / n) if n else 1.0,
        outputs(profile).get(output) == "score 0 1",
    )


def _as_in(cells: dict[str, list[int]], like: Profile | None, output: str) -> dict[str, list[int]]:
    """Return the counts in the joined buckets of another profile; as they are where it joins none."""
    joined = sorted({key[4] for key in like.frames["scores"] if key[:2] == (output, "")} if like else (), key=buckets.bounds)
    if not any("~" in bucket for bucket in joined):
        return cells
    ends = [buckets.bounds(bucket)[1] for bucket in joined]
    found: dict[str, list[int]] = {}
    for bucket, counts in cells.items():
        place = min(bisect.bisect_left(ends, buckets.bounds(bucket)[1]), len(ends) - 1)
        mine = found.setdefault(joined[place], [0, 0])
        mine[0], mine[1] = mine[0] + counts[0], mine[1] + counts[1]
    return found


def enough(data: Labelled | None, min_n: int) -> bool:
    """Can anything be said of the group, and may it be?"""
    return data is not None and min(data.patients) >= FEWEST and sum(data.patients) >= min_n


def figures(data: Labelled) -> dict[str, Figure]:
    """Return every metric that the score allows, with its interval; needs predictions with and without the outcome."""
    points = _points(data)
    size = max(2, round(data.n / data.effect))
    both = np.concatenate([data.positive, data.negative])
    draw = np.random.RandomState(SEED)
    sampled = draw.multinomial(size, both / both.sum(), size=DRAWS).astype(float)
    positive, negative = np.split(sampled, 2, axis=1)
    whole = (positive.sum(axis=1) > 0) & (negative.sum(axis=1) > 0)
    noise = _noise(data.score, (positive + negative).astype(int), draw) if data.probability else 0.0
    found = {}
    for name, drawn in batch(data.score, positive[whole], negative[whole], probability=data.probability).items():
        values = drawn[np.isfinite(drawn)]
        low, high = (float(np.quantile(values, q)) for q in (0.025, 0.975)) if len(values) else (math.nan, math.nan)
        error = float(values.std()) if len(values) else math.inf
        bias = noise if name == "ece" else 0.0
        found[name] = Figure(points[name], min(low, points[name]), max(high, points[name]), error, bias)
    return found


def _noise(score: np.ndarray, sizes: np.ndarray, draw: np.random.RandomState) -> float:
    """Return the calibration error that samples of these sizes have of a model without any: their outcomes drawn from its scores."""
    happened = draw.binomial(sizes, score).astype(float)
    return float(_ece(score, happened, sizes - happened).mean())


def _ece(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    bins = np.minimum((score * _ECE_BINS).astype(int), _ECE_BINS - 1)[:, None] == np.arange(_ECE_BINS)
    found: np.ndarray = np.abs((positive - score * (positive + negative)) @ bins).sum(axis=1) / (positive + negative).sum(axis=1)
    return found


def _points(data: Labelled) -> dict[str, float]:
    """Return the figures themselves: scikit-learn's, and what it has no function for."""
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    place = np.arange(len(data.score))
    truth = np.repeat([1, 0], len(place))
    given = {"y_true": truth, "sample_weight": np.concatenate([data.positive, data.negative])}
    found = {
        "auroc": float(roc_auc_score(y_score=np.tile(place, 2), **given)),
        "auprc": float(average_precision_score(y_score=np.tile(place, 2), **given)),
    }
    if data.probability:
        rest = batch(data.score, data.positive[None, :], data.negative[None, :], probability=True)
        found |= {name: float(rest[name][0]) for name in ("calibration_slope", "calibration_intercept", "ece")}
        found["brier"] = float(brier_score_loss(y_proba=np.tile(data.score, 2), **given))
    return found


def batch(score: np.ndarray, positive: np.ndarray, negative: np.ndarray, *, probability: bool) -> dict[str, np.ndarray]:
    """Return metric to its value for each row of counts; buckets are in rising order of score."""
    p, n = positive.sum(axis=1), negative.sum(axis=1)
    below = np.cumsum(negative, axis=1) - negative
    above_p = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1]
    above_n = np.cumsum(negative[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(above_p > 0, above_p / (above_p + above_n), 0.0)
        found = {
            "auroc": (positive * (below + negative / 2)).sum(axis=1) / (p * n),
            "auprc": (positive * precision).sum(axis=1) / p,
        }
        if probability:
            found["brier"] = ((positive * (1 - score) ** 2) + negative * score**2).sum(axis=1) / (p + n)
            found["calibration_slope"] = _recalibrated(score, positive, negative)
            found["calibration_intercept"] = _in_the_large(score, positive, negative)
            found["ece"] = _ece(score, positive, negative)
    return found


def _logit(score: np.ndarray) -> np.ndarray:
    clipped = np.clip(score, 5e-5, 1 - 5e-5)
    logit: np.ndarray = np.log(clipped / (1 - clipped))
    return logit


def _recalibrated(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the slope of a logistic regression of the outcome on the log-odds of the score (Cox 1958), by Newton's method.

    NaN where it does not converge: a score that separates the outcomes has none.
    """
    x, n = _logit(score), positive + negative
    a, b = np.zeros(len(n)), np.ones(len(n))
    step = np.full(len(n), np.inf)
    for _ in range(30):
        fitted = 1 / (1 + np.exp(-np.clip(a[:, None] + b[:, None] * x, -30, 30)))
        rest, weight = positive - n * fitted, n * fitted * (1 - fitted)
        g0, g1 = rest.sum(axis=1), (rest * x).sum(axis=1)
        h00, h01, h11 = weight.sum(axis=1), (weight * x).sum(axis=1), (weight * x * x).sum(axis=1)
        det = h00 * h11 - h01**2
        da, db = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        step = np.abs(db)
        if not (step > 1e-9).any():
            break
        a, b = a + np.clip(da, -5, 5), b + np.clip(db, -5, 5)
    slope: np.ndarray = np.where((step < 1e-6) & (np.abs(b) < 50), b, np.nan)
    return slope


def _in_the_large(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the intercept with the slope held at 1: how far all risks are off, in log-odds (positive: too low)."""
    x, n = _logit(score), positive + negative
    a = np.zeros(len(n))
    for _ in range(30):
        fitted = 1 / (1 + np.exp(-np.clip(a[:, None] + x, -30, 30)))
        change = (positive - n * fitted).sum(axis=1) / (n * fitted * (1 - fitted)).sum(axis=1)
        a = a + np.clip(change, -5, 5)
        if np.abs(change).max() < 1e-9:
            break
    return a


def groups(profile: Profile, output: str) -> Iterator[tuple[str, str]]:
    """Yield (by, group) of an output: all, its months, its groups of patients."""
    yield "all", ""
    for month in months(profile, output):
        yield "month", month
    for by, group in sorted({key[2:4] for key in profile.frames["clusters"] if key[:2] == (output, "") and key[2] != "all"}):
        if group != "unknown":
            yield by, group


def months(profile: Profile, output: str) -> list[str]:
    """Return the months with predictions of an output."""
    return sorted({key[1] for key in profile.frames["predictions"] if key[0] == output and key[1]})
