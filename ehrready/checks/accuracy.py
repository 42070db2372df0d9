"""Is the model as accurate as in its validation?  Scores and classes, month by month and by group of patients (docs/monitoring.md)."""

from __future__ import annotations

import functools
import math

import numpy as np

from ehrready.checks.base import Outcome, check, skip
from ehrready.production import accuracy, classes
from ehrready.production.accuracy import Figure
from ehrready.production.classes import Classified
from ehrready.profile import Profile

#: Metric to: +1 where more is better, -1 where less is, 0 where the best is in between.
METRICS = {**accuracy.METRICS, **classes.METRICS}
#: How a metric is written.
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score", "calibration_slope": "calibration slope", "calibration_intercept": "calibration intercept",
         "ece": "expected calibration error", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}  # fmt: skip


#: Labelled predictions of a group: of a score, or of a class.
Group = accuracy.Labelled | Classified


@functools.lru_cache(maxsize=4096)
def _figures(data: bytes, key: tuple[float, ...]) -> dict[str, Figure]:
    score, positive, negative = np.frombuffer(data).reshape(3, -1)
    return accuracy.figures(accuracy.Labelled(score, positive, negative, (int(key[0]), int(key[1])), key[2], bool(key[3])))


def measured(data: Group) -> dict[str, Figure]:
    """Return a group's figures; the same counts are not drawn from twice."""
    if isinstance(data, Classified):
        return classes.figures(data)
    return _figures(
        np.stack([data.score, data.positive, data.negative]).tobytes(), (*map(float, data.patients), data.effect, float(data.probability))
    )


@check("production", may_compare=True)
def accuracy_drift(
    profile: Profile,
    training: Profile | None,
    element: str,  # noqa: ARG001
    *,
    baseline: dict[str, float] | None = None,
    margin: float = 0.05,
    slope_margin: float = 0.2,
    min_n: int = 100,
) -> list[Outcome]:
    """Is the model as accurate as in its validation?

    Of scores AUROC, AUPRC and, between 0 and 1, Brier score, calibration slope, calibration in the large and expected calibration
    error (10 bins); of classes accuracy and balanced accuracy (the mean over the true classes of the share told rightly), where labels
    say the class; over all predictions, by month and by group of patients (sex, age). They are computed from scores by bucket and
    label, or from classes by true class; the intervals (95 %) are a seeded bootstrap whose size is the number of predictions over Kish's design effect, so that a
    patient with many predictions counts once. Only predictions whose label window has closed count. Baseline: the predictions of the
    validation (`--against`), else the figures of the contract (`label: baseline`); a group is held against its own where the
    validation has it.

    Numerator: groups in which the metric is worse than the baseline.
    Denominator: groups with at least `min_n` patients, of a score 11 of them with the outcome and 11 without, of a class none or 11
    told rightly and wrongly (balanced accuracy: 11 of every class, and the classes of the whole run).
    Alarms when the metric is worse by the margin and by more than the noise of both sides (95 %, Bonferroni over groups and metrics).

    Options: `baseline`, figures by metric (the contract's); `margin` (default 0.05) of AUROC, AUPRC, Brier score, ECE and both accuracies;
    `slope_margin` (default 0.2) of calibration slope and intercept; `min_n` (default 100).
    """
    found: list[Outcome] = []
    for output, kind in accuracy.outputs(profile).items():
        if kind.startswith("text"):
            continue
        whole = _of_group(profile, output, "all", "")
        if not _enough(whole, min_n):
            status, why = _why_not(profile, output, whole, min_n)
            found.append(Outcome("accuracy", status=status, reason=why, group={"output": output}))
            continue
        found += _drift(profile, training, output, baseline or {}, {"slope": slope_margin, "": margin}, min_n)
    return found or skip("not-applicable", "no output is a score or a class")


def _why_not(profile: Profile, output: str, whole: Group | None, min_n: int) -> tuple[str, str]:
    """Return the status and the reason of an output of which nothing can be said."""
    if whole is not None:
        few = f"fewer than {accuracy.FEWEST} of one kind" if isinstance(whole, accuracy.Labelled) else "1 to 10 told rightly or wrongly"
        return "not-assessed", f"fewer than {min_n} patients with a final label, or {few}"
    unlabelled, of, _ = profile.frames["predictions"].get((output, "", "unlabelled"), (0, 0, 0))
    if accuracy.outputs(profile)[output] == "class" and (of or 0) > (unlabelled or 0):
        return "not-applicable", "the labels say whether it happened, not which class of the contract it was"
    return "not-assessed", "no prediction has a label whose window has closed"


def _of_group(profile: Profile, output: str, by: str, group: str, like: Profile | None = None) -> Group | None:
    """Return the labelled predictions of a group that ``accuracy.groups`` yields."""
    place = (group,) if by == "month" else ("", by, group)
    if accuracy.outputs(profile).get(output) == "class":
        return classes.classified(profile, output, *place)
    return accuracy.labelled(profile, output, *place, like=like)


def _enough(data: Group | None, min_n: int) -> bool:
    return classes.enough(data, min_n) if isinstance(data, Classified) else accuracy.enough(data, min_n)


def _alike(data: Group, other: Group | None) -> dict[str, Figure]:
    """Return a group's figures; without the balanced accuracy where the classes are others, since it is another mean then."""
    same = not isinstance(data, Classified) or (isinstance(other, Classified) and data.names == other.names)
    return {name: figure for name, figure in measured(data).items() if same or name != "balanced_accuracy"}


def held(
    profile: Profile, training: Profile | None, output: str, stated: dict[str, float], min_n: int
) -> list[tuple[str, str, dict[str, Figure], dict[str, Figure]]]:
    """Return (by, group, figures, their baseline) of the groups that are large enough, everybody first.

    A group of patients is held against its own in the validation's predictions where those have it, else against all of them; what
    they do not give, against the figures that the contract states.
    """
    known = training is not None and accuracy.outputs(training).get(output) == accuracy.outputs(profile)[output]
    validation = training if known else None
    plain = {name: Figure(value, value, value, 0.0) for name, value in stated.items()}
    found = []
    whole = _of_group(profile, output, "all", "")
    shown = classes.shown(profile, output, min_n) if isinstance(whole, Classified) else None
    for by, group in accuracy.groups(profile, output):
        if shown is not None and (by, group) not in shown:
            continue
        data = _of_group(profile, output, by, group, validation)
        if data is None or not _enough(data, min_n):
            continue
        before = None
        if validation:
            own = _of_group(validation, output, by, group) if by not in {"all", "month"} else None
            before = own if _enough(own, min_n) else _of_group(validation, output, "all", "")
        then = _alike(before, whole) if before is not None and _enough(before, min_n) else {}
        found.append((by, group, _alike(data, whole), plain | then))
    return found


def _drift(
    profile: Profile, training: Profile | None, output: str, stated: dict[str, float], margins: dict[str, float], min_n: int
) -> list[Outcome]:
    from statistics import NormalDist  # brings fractions and decimal

    groups = held(profile, training, output, stated, min_n)
    outcomes = []
    metrics = classes.METRICS if accuracy.outputs(profile)[output] == "class" else accuracy.METRICS
    for metric in metrics:
        mine = [(by, group, now[metric], then.get(metric)) for by, group, now, then in groups if metric in now]
        if not mine:
            continue
        here, first, defect = mine[0][2], mine[0][3], metric.replace("_", "-")
        if first is None:
            reason = f"{NAMES[metric]} {_written(here)} here; no baseline: give the validation's predictions (--against), or state it in the contract (label: baseline)"
            outcomes.append(Outcome(defect, status="not-applicable", reason=reason, group={"output": output}))
            continue
        margin = margins["slope"] if metric.startswith("calibration_") else margins[""]
        z = NormalDist().inv_cdf(1 - 0.025 / (len(mine) * len(metrics)))
        bad = [(by, group, now, then) for by, group, now, then in mine if then is not None and _worse(metric, now, then, margin, z)]
        # the worst of the groups that alarm: where to look
        far = sorted((g for g in bad if g[0] != "all"), key=lambda g: (-abs(g[2].value - g[3].value), g[:2]))
        told = [f"{NAMES[metric]} {_written(here)}, in validation {first.value:.3f}"]
        told += [f"worse in {', '.join(f'{group} {_written(now)}' for _, group, now, _ in far[:3])}"] if far else []
        outcomes.append(
            Outcome(
                defect, len(bad), len(mine), people=False, status="fail" if bad else "pass", group={"output": output}, detail="; ".join(told),
                partition=f"prediction {output} accuracy",
            )
        )  # fmt: skip
    return outcomes


def _written(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _worse(metric: str, now: Figure, then: Figure, margin: float, z: float) -> bool:
    change = (now.value - now.bias) - (then.value - then.bias)
    loss = abs(change) if METRICS[metric] == 0 else -change * METRICS[metric]
    noise = z * math.hypot(now.error, then.error)
    return math.isfinite(loss) and math.isfinite(noise) and loss >= margin and loss > noise
