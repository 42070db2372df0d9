"""Comparability: is the live data like the data the model was trained on?

A comparison alarms when the effect is at least a practical margin and its confidence bound clears the noise at the
effective sample size (patients, not rows); Benjamini-Hochberg within a family comes on top, in ehrready.evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip, state_outcome
from ehrready.checks.conformance import no_free_text
from ehrready.profile import Profile
from ehrready.terminology import rollup
from ehrready.terminology.releases import Store


@check("comparability", compares=True)
def presence_shift(profile: Profile, training: Profile, element: str, *, margin: float = 0.02, min_n: int = 30) -> list[Outcome]:
    """Is the element missing, text-only or free text more often than in training?

    Defects: `missing` (missing or null token), `text-only`, `free-text`, and `vanished` when no record of the table
    has the element at all although training had it.

    Numerator: records, concepts or codings with the defect, as `present`, `coded` and `no-free-text` count them.
    Denominator: all that these checks count.

    The effect is the difference of the rates, its interval Newcombe-Wilson with the effective n.  Alarms when the rise is at least the margin and the
    interval lies above zero.

    Options: `margin` (default 0.02): the smallest rise of a rate that matters; `min_n`: smallest denominator.
    """
    then = state_outcome(training, element, ("missing", "null-token"), None)
    if then is not None and then.of is None:
        return skip("not-assessed", "a count of training is hidden (1-10 patients)")
    if then is None or not then.of or then.of < min_n:
        return skip("not-applicable", "training has too few records with this element's table")
    now = state_outcome(profile, element, ("missing", "null-token"), None)
    if now is not None and now.of is None:
        return skip("not-assessed", "a count is hidden (1-10 patients)")
    if now is None or (now.of and now.n == now.of):
        visible = state_outcome(training, element, ("present",), None), state_outcome(training, element, ("coded",), None)
        filled = then.of - then.n if then.n is not None else max((o.n or 0) for o in visible if o is not None)
        if then.n is None and not filled:  # the states hide each other: the classes of its codes may still show
            filled = min(then.of, sum(values[0] or 0 for _, values in training.rows("classes", element)))
        if then.n is None and not filled:
            return skip("not-assessed", "training's counts are hidden (1-10 patients)")
        if now is not None and (now.of or 0) < min_n:
            return skip("not-assessed", f"fewer than {min_n} records to judge by")
        if filled / then.of < 0.01:
            return skip("not-applicable", "training does not have this element either")
        if now is None and not profile.total("profiled"):
            return skip("not-assessed", "nothing was read")
        of = now.of if now else 0
        return [
            Outcome("vanished", of, of, now.patients if now else 0, status="fail", training=(then.of - filled, then.of), training_patients=then.patients, effect=1.0, limit=margin,
                    detail="training had it, the live data does not")
        ]  # fmt: skip
    pairs = [("missing", now, then)]
    coded = ("text-only", "coded")
    text_now, text_then = (state_outcome(p, element, ("text-only",), coded) for p in (profile, training))
    if text_now is not None and text_then is not None and text_now.of and text_then.of:
        pairs.append(("text-only", text_now, text_then))
    free_now, free_then = (no_free_text(p, element, classes=["free-text"])[0] for p in (profile, training))
    if not free_now.status and not free_then.status:
        pairs.append(("free-text", free_now, free_then))
    return [_shift(defect, a, b, margin, min_n) for defect, a, b in pairs]


def _shift(defect: str, now: Outcome, then: Outcome, margin: float, min_n: int) -> Outcome:
    """Compare one rate with training."""
    if now.rate is None or then.rate is None or now.of is None or then.of is None or now.n is None or then.n is None:
        return Outcome(defect, status="not-assessed", reason="a count is hidden (1-10 patients)")
    n1, n2 = now.effective_n, then.effective_n
    if now.of < min_n or n1 < min_n or n2 < min_n:
        return Outcome(defect, now.n, now.of, status="not-assessed", reason=f"fewer than {min_n} independent records to compare")
    low, high = stats.newcombe(now.rate, n1, then.rate, n2)
    effect = now.rate - then.rate
    return Outcome(
        defect, now.n, now.of, now.patients, now.of_patients,
        status="fail" if effect >= margin and low > 0 else "pass",
        training=(then.n, then.of), training_patients=then.patients, effect=effect, limit=margin, interval=(low, high),
        p=stats.rise_p_value(now.rate, n1, then.rate, n2), family="missingness", partition=now.partition,
        detail=f"effective n {n1:,.0f} against {n2:,.0f}", independent=(n1, n2),
    )  # fmt: skip


@check("comparability", compares=True, looks_up=True)
def unseen_codes(
    profile: Profile, training: Profile, element: str, store: Store | None = None, *, margin: float = 0.02, min_n: int = 30
) -> list[Outcome]:
    """How much of the live data is in codes that training never saw?

    Only well-formed codes of public systems take part (repaired where a dot or the case was missing), so that one
    cause is not found twice; a system that training never used is the business of `expected-system`.

    Numerator: live codings whose code is not in training (`unseen`).
    Denominator: live codings of systems that training has.

    The expectation is Good-Turing's: the share of training that is in codes seen once.  Alarms when the share exceeds
    the expectation by the margin and its Wilson lower bound (effective n) lies above the expectation.  The message
    says how many are of an ICD category, LOINC component or RxNorm ingredient that training never saw either; components and ingredients
    where the official files were added to the terminology store.

    Options: `margin` (default 0.02); `min_n`: smallest number of codings on either side.
    """
    known: dict[str, set[str]] = {}
    once = 0
    for (_, system, code), (n, *_) in training.rows("codes", element):
        known.setdefault(system, set()).add(code)
        once += n is None or n == 1  # a hidden code may have been seen once: the expectation is an upper bound
    classes = [values for key, values in training.rows("classes", element) if key[1] in known and key[3] in {"well-formed", "repairable"}]
    if any(values[0] is None for values in classes):
        return skip("not-assessed", "training's number of codes is hidden (1-10 patients)")
    total = sum(values[0] or 0 for values in classes)
    if total < min_n:
        return skip("not-applicable", "training has too few codes of this element")
    unseen = seen = most = 0
    tops: list[tuple[int, str]] = []
    cells: dict[tuple[str, ...], float] = {}
    rolled: dict[str, dict[str, tuple[int, int]]] = {}
    for (_, system, code), (count, people, *_) in profile.rows("codes", element):
        if system not in known:
            continue
        if code in known[system]:
            seen += count or 0
            if count is None:
                return skip("not-assessed", "a count is hidden (1-10 patients)")
        elif count is None or people is None:
            return skip("not-assessed", "the counts of unseen codes are hidden (1-10 patients): use internal profiles")
        else:
            unseen += count
            cells[element, system, code] = count
            rolled.setdefault(system, {})[code] = (count, people)
            most = max(most, people)
            if people > 10:
                tops.append((count, f"{system} {code}"))
    of = seen + unseen
    if of < min_n:
        return skip("not-assessed" if of else "not-applicable", f"fewer than {min_n} codes in the systems that training used")
    expected = once / total
    rate = unseen / of
    patients = [o.of_patients if (o := state_outcome(p, element, ("coded",), None)) else None for p in (profile, training)]
    independent, before = min(of, patients[0] or of), min(total, patients[1] or total)
    low, high = stats.wilson(rate * independent, independent)
    alarm = rate - expected >= margin and low > expected
    names = ", ".join(f"{name} ({n})" for n, name in sorted(tops, key=lambda t: (-t[0], t[1]))[:3])
    detail = f"effective n {independent:,} against {before:,}"
    detail = "; ".join([detail, *_rolled_up(known, rolled, store)])
    return [
        Outcome(
            "unseen", unseen, of, None, few=0 < most < 11, status="fail" if alarm else "pass", training=(once, total), effect=rate - expected, limit=margin,
            independent=(independent, before), interval=(low, high), detail=f"{detail}; most frequent: {names}" if names else detail, cells=cells,
        )
    ]  # fmt: skip


def _rolled_up(known: dict[str, set[str]], unseen: dict[str, dict[str, tuple[int, int]]], store: Store | None) -> Iterator[str]:
    """Say for each system how many of its unseen codings are of something that training never saw either.

    A number is told where more than ten patients are sure to stand behind it, and behind what is left of the total.
    """
    for system, codes in sorted(unseen.items()):
        name, total = rollup.level(system), sum(n for n, _ in codes.values())
        if not name or total <= 10:
            continue
        plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
        mine = rollup.above(system, sorted(codes), store)
        seen = set(rollup.above(system, sorted(known[system]), store).values())
        if not mine or not seen:
            yield f"{plural} are not loaded (ehrready terminology add {system})"
            continue
        kinds: dict[str, list[tuple[int, int]]] = {"new": [], "seen": [], "unknown": []}
        for code, counts in codes.items():
            kinds["unknown" if code not in mine else "seen" if mine[code] in seen else "new"].append(counts)
        n = {kind: sum(count for count, _ in counts) for kind, counts in kinds.items()}
        if any(counts and max(people for _, people in counts) <= 10 for counts in kinds.values()):
            yield f"{'some' if n['new'] else 'none'} of them in {plural} that training never saw"
            continue
        rest = f"{n['unknown']:,} of no known one, the others in known ones" if n["unknown"] else "the others in known ones"
        yield f"{n['new']:,} of {total:,} in {plural} that training never saw, {rest}"
