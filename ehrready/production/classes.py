"""Accuracy of outputs that are classes, from counts of what was given and what it was: accuracy and balanced accuracy.

Figures are scikit-learn's on the counts.  Intervals (95 %) are made as those of scores (ehrready.production.accuracy): percentiles of a
multinomial bootstrap with a fixed seed, its size the number of predictions over Kish's design effect.  Balanced accuracy is the mean
over the true classes of the share that was told rightly: a rare class counts as much as a frequent one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ehrready.production import LABEL
from ehrready.production.accuracy import DRAWS, FEWEST, SEED, Figure
from ehrready.profile import Profile, Values
from ehrready.suppression import small

METRICS: dict[str, int] = {"accuracy": 1, "balanced_accuracy": 1}
#: What stands for every class where a saved profile may not name them (ehrready.production.hiding).
ANY = "*"


@dataclass(frozen=True, slots=True)
class Classified:
    """Labelled predictions of a group by true class: how many were told rightly and wrongly."""

    names: tuple[str, ...]
    right: np.ndarray
    wrong: np.ndarray
    patients: tuple[int, ...]  # by true class
    sides: tuple[int, int]  # at least so many patients were told rightly, wrongly
    effect: float  # Kish's design effect

    @property
    def n(self) -> int:
        """Labelled predictions."""
        return int(self.right.sum() + self.wrong.sum())

    @property
    def balanced(self) -> bool:
        """Has every true class enough patients, and are there two?"""
        return len(self.names) > 1 and min(self.patients) >= FEWEST


def classified(profile: Profile, output: str, month: str = "", grouping: str = "all", group: str = "") -> Classified | None:
    """Return the labelled predictions of a group; None where there are none, or where a count is hidden."""
    place = (output, month, grouping, group)
    cells = {key[4:]: values for key, values in profile.rows("confusion", *place) if key[5]}
    clusters = {key[4].removeprefix(LABEL): v for key, v in profile.rows("clusters", *place) if key[4].startswith(LABEL)}
    if not cells or any(value is None for values in (*cells.values(), *clusters.values()) for value in values):
        return None
    names = sorted({truth for _, truth in cells})
    side = {told: [v for (given, truth), v in cells.items() if (given == truth) is told] for told in (True, False)}
    counted = {
        told: [sum(v[0] or 0 for (given, truth), v in cells.items() if truth == name and (given == name) is told) for name in names]
        for told in (True, False)
    }
    n = sum(values[0] or 0 for values in clusters.values())
    squares = sum(values[2] or 0 for values in clusters.values())
    return Classified(
        tuple(names),
        np.array(counted[True], dtype=float),
        np.array(counted[False], dtype=float),
        tuple((clusters.get(name, (0, 0))[1] or 0) for name in names),
        (people(side[True]), people(side[False])),
        max(1.0, squares / n) if n else 1.0,
    )


def people(cells: Iterable[Values]) -> int:
    """Return how many patients several cells have at least: their sum where each has one prediction, else those of the fullest."""
    known = [(n or 0, patients or 0) for n, patients in (values[:2] for values in cells)]
    if all(n == patients for n, patients in known):
        return sum(n for n, _ in known)
    return max((patients for _, patients in known), default=0)


def enough(data: Classified | None, min_n: int) -> bool:
    """Can anything be said of the group, and may it be?  Accuracy and their number would tell how many were wrong."""
    return data is not None and sum(data.patients) >= min_n and not any(map(small, data.sides))


def shown(profile: Profile, output: str, min_n: int) -> set[tuple[str, str]]:
    """Return the (by, group) whose figures may be shown: all, and the parts of which no few can be worked out.

    Accuracy tells how many were wrong, so that of the months (groups of a kind) that are not shown all together must hide none or many.
    """
    found = {("all", "")}
    places = {("month", key[1]) for key in profile.frames["clusters"] if key[0] == output and key[1] and key[2] == "all"}
    places |= {(key[2], key[3]) for key in profile.frames["clusters"] if key[:2] == (output, "") and key[2] != "all"}
    for kind in sorted({by for by, _ in places}):
        parts = {
            group: classified(profile, output, *((group,) if by == "month" else ("", by, group))) for by, group in places if by == kind
        }
        open_ = [group for group, data in parts.items() if group != "unknown" and enough(data, min_n)]
        open_.sort(key=lambda group: (-(data.n if (data := parts[group]) else 0), group))
        while open_ and any(small(sum(data.sides[i] for group, data in parts.items() if data and group not in open_)) for i in (0, 1)):
            open_.pop()
        found |= {(kind, group) for group in open_}
    return found


def figures(data: Classified) -> dict[str, Figure]:
    """Return accuracy and, where every true class has enough patients, balanced accuracy, each with its interval."""
    points = _points(data)
    size = max(2, round(data.n / data.effect))
    both = np.concatenate([data.right, data.wrong])
    sampled = np.random.RandomState(SEED).multinomial(size, both / both.sum(), size=DRAWS).astype(float)
    right, wrong = np.split(sampled, 2, axis=1)
    with np.errstate(invalid="ignore"):
        drawn = {"accuracy": right.sum(axis=1) / size, "balanced_accuracy": (right / (right + wrong)).mean(axis=1)}
    found = {}
    for name, value in points.items():
        values = drawn[name][np.isfinite(drawn[name])]
        low, high = (float(np.quantile(values, q)) for q in (0.025, 0.975)) if len(values) else (math.nan, math.nan)
        found[name] = Figure(value, min(low, value), max(high, value), float(values.std()) if len(values) else math.inf)
    return found


def _points(data: Classified) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    place = np.arange(len(data.names))
    # which other class was told instead does not matter to either figure: the next one
    told = np.concatenate([place, (place + 1) % len(place) if len(place) > 1 else place - 1])
    given = {"y_true": np.tile(place, 2), "y_pred": told, "sample_weight": np.concatenate([data.right, data.wrong])}
    found = {"accuracy": float(accuracy_score(**given))}
    if data.balanced:
        found["balanced_accuracy"] = float(balanced_accuracy_score(**given))
    return found
