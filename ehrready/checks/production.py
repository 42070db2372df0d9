"""What a model gives in production: outputs, their distribution, accuracy, grounding (ehrready.production; docs/monitoring.md)."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip
from ehrready.checks.mix import _noise, js_distance
from ehrready.production import accuracy, buckets
from ehrready.profile import Profile
from ehrready.suppression import small

_SCORE_ONLY = ("not-a-number", "below-range", "above-range")
_NO_TEXT = "a validation without texts is saved: they are held against each patient's record, not against a validation"


def _counted(profile: Profile, output: str, kind: str) -> Outcome | None:
    """Return the count of a kind over the whole run, with the month in which most of it is; None without one."""
    row = profile.frames["predictions"].get((output, "", kind))
    if row is None:
        return None
    n, of, patients = row
    worst: tuple[float, str] | None = None
    for month in accuracy.months(profile, output):
        m, total, people = profile.frames["predictions"].get((output, month, kind), (0, 0, 0))
        few = min(people or 0, (total or 0) - (m or 0)) < accuracy.FEWEST or small((n or 0) - (m or 0))
        if m and total and not few and (worst is None or m / total > worst[0]):
            worst = (m / total, month)
    detail = f"worst month {worst[1]}: {100 * worst[0]:.0f} %" if worst else ""
    return Outcome(kind, n, of, patients, group={"output": output}, detail=detail, partition=f"prediction {output} {kind}")


@check("production")
def output_valid(profile: Profile, element: str, *, defects: list[str]) -> list[Outcome]:  # noqa: ARG001 - the outputs are one element
    """Is what the model gives possible at all?

    Each output is judged by its kind: a score by the range of the contract, a class by its classes.

    Numerator: predictions with the defect: `missing`, `not-a-number` (NaN, infinite, words), `below-range`, `above-range`,
    `unknown-class`, `duplicate` (the same patient, time and output once more).
    Denominator: predictions of the output; an output of the contract that no file holds is not assessed (a text: not applicable, where
    only a validation is saved).

    Options: `defects`, those that the rule is about.
    """
    found = []
    for output, kind in accuracy.outputs(profile).items():
        if kind == accuracy.NO_TEXT:
            found.append(Outcome("", status="not-applicable", reason=_NO_TEXT, group={"output": output}))
            continue
        for defect in defects:
            if (defect in _SCORE_ONLY and not kind.startswith("score")) or (defect == "unknown-class" and kind != "class"):
                continue
            outcome = _counted(profile, output, defect)
            if outcome is None and defect == defects[0]:
                reason = f"the predictions have no output {output}: give the file that holds it, too, or take it out of the contract"
                outcome = Outcome("", status="not-assessed", reason=reason, group={"output": output})
            found += [outcome] if outcome else []
    return found or skip("not-applicable", "no output of the contract can have the defect")


@check("production")
def label_known(profile: Profile, element: str) -> list[Outcome]:  # noqa: ARG001
    """Are the outcomes known by which accuracy is measured?

    Only predictions whose label window has closed count: the label's delay has passed at the day of the run (`--stamp`), else
    at the last prediction or label.

    Numerator: predictions without a label, or with one that is neither the positive one nor its opposite (`unlabelled`); labels given
    apart (`--labels`) that belong to no prediction (`unmatched-label`).
    Denominator: predictions with a valid output whose label window has closed; labels given apart, without those of times before the
    first prediction or after the last.
    """
    found = [
        outcome
        for output, kind in accuracy.outputs(profile).items()
        if not kind.startswith("text") and (outcome := _counted(profile, output, "unlabelled"))
    ]
    if (strays := _counted(profile, "", "unmatched-label")) is not None:
        strays.group = {}
        found.append(strays)
    return found or skip("not-assessed", "the label window of no prediction has closed yet")


@check("production")
def grounded(profile: Profile, element: str) -> list[Outcome]:  # noqa: ARG001
    """Does the patient's record hold what a generated text cites?

    Codes, values, medications and dates are compared exactly with the same patient's record, at any time in it. What is not cited
    in a form that a machine can read is not seen: a paraphrase, a negation, a claim without a citation.

    Numerator: citations of a kind that the patient's record does not hold.
    Denominator: citations of the kind that are about patients whom the records know.
    """
    texts = [output for output, kind in accuracy.outputs(profile).items() if kind == "text"]
    if not texts:
        promised = accuracy.NO_TEXT in accuracy.outputs(profile).values()
        return skip("not-applicable", _NO_TEXT if promised else "the contract names no generated text")
    found: list[Outcome] = []
    for output in texts:
        kinds = sorted({key[2] for key in profile.frames["predictions"] if key[:2] == (output, "") and key[2].startswith("ungrounded-")})
        found += [outcome for kind in kinds if (outcome := _counted(profile, output, kind))]
    return found or skip(
        "not-assessed", "no citation is about a patient of the records: give the records with --data, with the same patient ids"
    )


@check("production")
def text_cited(profile: Profile, element: str) -> list[Outcome]:  # noqa: ARG001
    """Do generated texts cite what they rest on?

    Numerator: texts without a citation, of which nothing can be checked (`uncited`).
    Denominator: generated texts.
    """
    found = [outcome for output in accuracy.outputs(profile) if (outcome := _counted(profile, output, "uncited"))]
    return found or skip("not-applicable", "there is no generated text")


# --- distribution


@check("production", may_compare=True)
def score_shift(profile: Profile, training: Profile | None, element: str, *, margin: float = 0.1, min_n: int = 100) -> list[Outcome]:  # noqa: ARG001
    """Does the model give scores, or classes, in the same proportions as in its validation?

    Month by month, the Jensen-Shannon distance (base 2) between the shares of the deciles of the validation's scores (of the
    classes), against the profile of the validation's predictions (`--against`), else against the first month. Its limit is the
    margin or the noise at this sample size (99 %, Bonferroni over the months; seeded bootstrap), whichever is larger.

    Numerator: predictions of the shifted months that would have to move to restore the proportions (`score-mix`).
    Denominator: predictions of the output.

    Options: `margin` (default 0.1); `min_n` (default 100): patients of a month that is compared.
    """
    found = [
        _shift(profile, training, output, margin, min_n)
        for output, kind in accuracy.outputs(profile).items()
        if not kind.startswith("text")
    ]
    return found or skip("not-applicable", "no output is a score or a class")


def _shift(profile: Profile, training: Profile | None, output: str, margin: float, min_n: int) -> Outcome:
    group = {"output": output}
    before = None if training is None else _histogram(training, output, "")
    if before and accuracy.outputs(profile)[output] != accuracy.outputs(training or profile).get(output):
        return Outcome(
            "score-mix", status="not-assessed", reason="the validation's predictions were measured with another range", group=group
        )
    enough = [m for m in accuracy.months(profile, output) if _people(profile, output, m) >= min_n]
    months = [m for m in enough if _histogram(profile, output, m)]
    if enough and not months:
        return Outcome("score-mix", status="not-assessed", reason="no month has a score or class that the contract knows", group=group)
    against = "validation"
    if before is None:
        if len(months) < 2:
            why = f"no profile of the validation's predictions, and fewer than two months of {min_n} patients"
            return Outcome("score-mix", status="not-applicable", reason=why, group=group)
        against, before = months[0], _histogram(profile, output, months[0])
    assert before is not None  # noqa: S101 - for the type checker: either side has just been looked at
    total = _all(profile, output)
    moved = 0.0
    worst: tuple[float, float, float, str] | None = None
    edges = _deciles(before)
    q = _shares(before, edges)
    n_then = _effective(training if against == "validation" and training else profile, output, "" if against == "validation" else against)
    for month in months:
        now = _histogram(profile, output, month) if month != against else None
        if now is None:
            continue
        p, n_now = _shares(now, edges), _effective(profile, output, month)
        distance = js_distance(p, q)
        limit = max(margin, float(np.quantile(_noise((p * n_now + q * n_then) / (n_now + n_then), n_now, n_then), 1 - 0.01 / len(months))))
        if distance > limit:
            moved += 0.5 * float(np.abs(p - q).sum()) * sum(now.values())
        if worst is None or distance - limit > worst[0]:
            worst = (distance - limit, distance, limit, month)
    if worst is None:
        return Outcome("score-mix", status="not-assessed", reason=f"no month has {min_n} patients", group=group)
    detail = f"farthest {worst[3]}: Jensen-Shannon distance {worst[1]:.3f}, limit {worst[2]:.3f}, against {against}"
    return Outcome(
        "score-mix", min(round(moved), total), total, people=False, status="fail" if moved else "pass", group=group, detail=detail,
        partition=f"prediction {output} shift",
    )  # fmt: skip


def _all(profile: Profile, output: str) -> int:
    return profile.frames["predictions"].get((output, "", "all"), (0,))[0] or 0


def _people(profile: Profile, output: str, month: str) -> int:
    return profile.frames["predictions"].get((output, month, "all"), (0, 0, 0))[2] or 0


def _histogram(profile: Profile, output: str, month: str) -> dict[tuple[float, float, str], int] | None:
    """Return (first, last index, class) to predictions; None where there are none or one is hidden."""
    cells: dict[tuple[float, float, str], int] = {}
    for (_, _, _, _, bucket, _), (n, _) in profile.rows("scores", output, month, "all", ""):
        if n is None:
            return None
        place = (*buckets.bounds(bucket), "")
        cells[place] = cells.get(place, 0) + n
    for (_, _, kind), (n, _, _) in profile.rows("predictions", output, month):
        if kind.startswith("class "):
            if n is None:
                return None
            cells[0.0, 0.0, kind] = n
    return cells or None


def _deciles(cells: dict[tuple[float, float, str], int]) -> list[tuple[float, str]]:
    """Return the upper edges of ten groups of about equal size; of classes each its own."""
    total, seen = sum(cells.values()), 0
    edges: list[tuple[float, str]] = []
    for (_, high, name), n in sorted(cells.items()):
        seen += n
        if name or seen >= (len(edges) + 1) * total / 10:
            edges.append((high, name))
    return edges


def _shares(cells: dict[tuple[float, float, str], int], edges: list[tuple[float, str]]) -> np.ndarray:
    counts = np.zeros(len(edges) + 1)
    for (_, high, name), n in cells.items():
        counts[next((i for i, edge in enumerate(edges) if (name and edge[1] == name) or (not name and high <= edge[0])), len(edges))] += n
    shares: np.ndarray = counts / max(counts.sum(), 1.0)
    return shares


def _effective(profile: Profile, output: str, month: str) -> float:
    """Return predictions over Kish's design effect; patients where the clusters are not known."""
    rows = [values for _, values in profile.rows("clusters", output, month, "all", "")]
    n, squares = sum(r[0] or 0 for r in rows), sum(r[2] or 0 for r in rows)
    return n * n / squares if squares else float(max(1, _people(profile, output, month)))


@check("production", may_compare=True)
def alert_share(
    profile: Profile,
    training: Profile | None,
    element: str,  # noqa: ARG001
    *,
    expected: dict[str, float] | None = None,
    factor: float = 1.5,
    min_n: int = 100,
) -> list[Outcome]:
    """Does the model alert about as often as was agreed?

    Expected is the contract's `alert_share`, else the share in the validation's predictions (`--against`). The whole run and every
    month of at least `min_n` patients are looked at.

    Numerator: predictions at or above the threshold (`alert`).
    Denominator: predictions of the output.
    Alarms when the share is more than `factor` times the expected one, or less than its inverse, and the interval (Wilson, effective
    n, 99 %) does not hold the expected one.

    Options: `expected`, by output (the contract's); `factor` (default 1.5); `min_n` (default 100).
    """
    found = []
    for output in accuracy.outputs(profile):
        outcome = _counted(profile, output, "alert")
        if outcome is None or outcome.of == 0:
            continue
        if outcome.n is None or outcome.of is None:
            found.append(Outcome("alert", status="not-assessed", reason="a count is hidden (1-10 patients)", group=outcome.group))
            continue
        then = accuracy.alerts(training, output) if training else None
        wanted = (expected or {}).get(output)
        if wanted is None and then:
            wanted = then[0] / then[1]
            outcome.training = then
        if wanted is None and training and (output, "", "alert") in training.frames["predictions"]:
            reason = "the validation's number of alerts is hidden (1-10 patients): state alert_share in the contract"
            found.append(Outcome("alert", status="not-assessed", reason=reason, group=outcome.group))
            continue
        if wanted is None:
            found.append(
                Outcome(
                    "alert",
                    status="not-applicable",
                    reason="the contract names no alert_share, and no validation's predictions are given",
                    group=outcome.group,
                )
            )
            continue
        outcome.status, outcome.limit, odd = "pass", wanted * factor, []
        for month in ["", *accuracy.months(profile, output)]:
            n, of, _ = profile.frames["predictions"].get((output, month, "alert"), (0, 0, 0))
            if n is None or not of or _people(profile, output, month) < min_n:
                continue
            rate, size = n / of, _effective(profile, output, month)
            low, high = stats.wilson(rate * size, size, NormalDist().inv_cdf(0.995))
            if (rate > wanted * factor and low > wanted) or (rate < wanted / factor and high < wanted):
                odd.append((month, rate, n, of))
        if odd:
            outcome.status = "fail"
            shown = [f"{month} {100 * rate:.0f} %" for month, rate, n, of in odd if month and min(n, of - n) >= accuracy.FEWEST]
            outcome.detail = f"expected {100 * wanted:.1f} %" + (f"; {', '.join(shown[:6])}" if shown else "")
        found.append(outcome)
    return found or skip("not-applicable", "no output has a threshold")
