"""Comparability of what the codes and months are made of: code mix, volume, history, subgroups (checks.md 20, 22, 23)."""

from __future__ import annotations

import math

import numpy as np

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip, state_outcome
from ehrready.profile import Profile, Values
from ehrready.terminology import rollup

_HIDDEN = "a count is hidden (1-10 patients)"
#: Draws of the seeded bootstrap; RandomState's streams are frozen (NumPy NEP 19), so the limit is the same everywhere.
_DRAWS, _SEED = 499, 20160


@check("comparability", compares=True)
def code_mix_shift(
    profile: Profile, training: Profile, element: str, *, margin: float = 0.05, top: int = 200, min_n: int = 30
) -> list[Outcome]:
    """Are the codes used in the same proportions as in training?

    The Jensen-Shannon distance (base 2) between the shares of training's most frequent codes, of all its other codes
    and of codes it never saw, by code system.  Its limit is the margin or the 99th percentile of the noise at this sample
    size, whichever is larger: a bootstrap of two samples of one population at their effective sizes (first-order
    correction for clustering in patients after Rao and Scott 1981).  ICD codes are compared by category, too (`category-mix`), with no
    more independent codings than patients: codes that changed places within a category are a matter of `code-mix` alone.

    Numerator: live codings that would have to change their code (`code-mix`) or category (`category-mix`) to restore training's
    shares (half the sum of the absolute differences).
    Denominator: live codings of the system.

    Options: `margin` (default 0.05): smallest distance that matters; `top` (default 200): codes told apart;
    `min_n`: smallest effective number of codings on either side.
    """
    outcomes: list[Outcome] = []
    for system in sorted({key[1] for key, _ in training.rows("codes", element)} & {key[1] for key, _ in profile.rows("codes", element)}):
        outcomes += _mix(profile, training, element, system, margin, top, min_n)
    return outcomes or skip("not-applicable", "no code system that training and the live data share")


def _mix(profile: Profile, training: Profile, element: str, system: str, margin: float, top: int, min_n: int) -> list[Outcome]:
    """Compare the codes of a system; of ICD their categories, too, once the codes can be compared."""
    group = {"system": system}
    then, now = ({key[2]: values for key, values in p.rows("codes", element, system)} for p in (training, profile))
    total_then, total_now = _codings(training, element, system), _codings(profile, element, system)
    if total_then is None or total_now is None:
        return [Outcome("code-mix", status="not-assessed", reason=f"{system}: {_HIDDEN}", group=group)]
    visible = {code: values[0] for code, values in then.items() if values[0] is not None}
    chosen = sorted(visible, key=lambda code: (-visible[code], code))[:top]
    q = _shares([visible[code] for code in chosen], 0, total_then)
    unseen = sum(values[0] or 0 for code, values in now.items() if code not in then)
    p = _shares([now.get(code, (0,))[0] or 0 for code in chosen], unseen, total_now)
    n_then, n_now = _effective(then, chosen, total_then), _effective(now, chosen, total_now)
    if min(n_then, n_now) < min_n:
        reason = f"{system}: fewer than {min_n} independent codings to compare"
        return [Outcome("code-mix", status="not-assessed", reason=reason, group=group)]
    found = [
        _compared(
            "code-mix",
            p,
            q,
            (n_now, n_then),
            margin,
            (total_now, total_then),
            group,
            [*chosen, "other codes", "codes unseen in training"],
            now,
        )
    ]
    found[0].cells = _excess(
        element, system, p, q, chosen, {code: v[0] or 0 for code, v in now.items() if code not in then}, (n_now, n_then), total_now
    )
    people = [state_outcome(side, element, ("coded",), None) for side in (profile, training)]
    if system in rollup.CATEGORISED and len({rollup.category(code) for code in then}) < len(then):
        # counts of one patient within a category are not told apart by code: no more independent codings than patients
        independent = tuple(min(n, (o.of_patients if o else None) or n) for n, o in zip((n_now, n_then), people, strict=True))
        if min(independent) >= min_n:
            found.append(_categories(then, now, independent, margin, top, (total_now, total_then), group))
            found[1].cells = found[0].cells if found[0].status == found[1].status else {}
    return found


def _categories(
    then: dict[str, Values],
    now: dict[str, Values],
    independent: tuple[float, ...],
    margin: float,
    top: int,
    totals: tuple[int, int],
    group: dict[str, str],
) -> Outcome:
    """Compare the categories of ICD codes; codes that either side hides count with the categories that are not told apart."""
    sums: list[dict[str, int]] = [{}, {}]
    people: dict[str, int] = {}
    hidden = {code for codes in (now, then) for code, values in codes.items() if values[0] is None}  # on one side: left out on both
    for side, codes in zip(sums, (now, then), strict=True):
        for code, values in codes.items():
            if code not in hidden:
                side[rollup.category(code)] = side.get(rollup.category(code), 0) + (values[0] or 0)
    for code, values in now.items():
        people[rollup.category(code)] = max(people.get(rollup.category(code), 0), values[1] or 0)
    chosen = sorted(sums[1], key=lambda name: (-sums[1][name], name))[:top]
    unseen = sum(n for name, n in sums[0].items() if name not in sums[1])
    p = _shares([sums[0].get(name, 0) for name in chosen], unseen, totals[0])
    q = _shares([sums[1][name] for name in chosen], 0, totals[1])
    names = [*chosen, "other categories", "categories unseen in training"]
    shown: dict[str, Values] = {name: (n, people[name], 0, 0) for name, n in sums[0].items()}
    return _compared("category-mix", p, q, (independent[0], independent[1]), margin, totals, group, names, shown)


def _compared(
    defect: str, p: np.ndarray, q: np.ndarray, n: tuple[float, float], margin: float, totals: tuple[int, int], group: dict[str, str],
    names: list[str], now: dict[str, Values],
) -> Outcome:  # fmt: skip
    """Judge live shares ``p`` against training's ``q`` with effective sizes ``n``; ``now`` says whom a name stands for."""
    distance = js_distance(p, q)
    noise = _noise((p * n[0] + q * n[1]) / (n[0] + n[1]), *n)
    limit = max(margin, float(np.quantile(noise, 0.99)))
    moved = 0.5 * float(np.abs(p - q).sum())
    return Outcome(
        defect, round(moved * totals[0]), totals[0], status="fail" if distance > limit else "pass", effect=distance, limit=limit,
        independent=n, training=(0, totals[1]), p=(1 + int((noise >= distance).sum())) / (1 + _DRAWS), family="mix", group=group, people=False,
        detail=f"Jensen-Shannon distance {distance:.3f}, limit {limit:.3f}, effective n {n[0]:,.0f} against {n[1]:,.0f}, "
        f"PSI {_psi(p, q):.2f}{_contributors(p, q, names, now)}",
    )  # fmt: skip


def _excess(
    element: str, system: str, p: np.ndarray, q: np.ndarray, chosen: list[str], unseen: dict[str, int], n: tuple[float, float], total: int
) -> dict[tuple[str, ...], float]:
    """Return the codings that are too many, by code, beyond three standard errors: the records that make the mix another one."""
    m = (p + q) / 2
    beyond = (p - q) > 3 * np.sqrt(m * (1 - m) * (1 / n[0] + 1 / n[1]))
    names = [*chosen, ""]
    cells: dict[tuple[str, ...], float] = {(element, system, names[i]): float(p[i] - q[i]) * total for i in range(len(names)) if beyond[i]}
    return cells | ({(element, system, code): float(count) for code, count in unseen.items()} if beyond[-1] else {})


def _codings(profile: Profile, element: str, system: str) -> int | None:
    """Return the codings of a system with a code that may be counted; None when a part is hidden."""
    cells = [values[0] for key, values in profile.rows("classes", element, system) if key[3] in {"well-formed", "repairable"}]
    if any(n is None for n in cells):
        known = [values[0] for _, values in profile.rows("codes", element, system)]
        return None if any(n is None for n in known) else sum(n or 0 for n in known)
    return sum(n or 0 for n in cells)


def _shares(counts: list[int], unseen: int, total: int) -> np.ndarray:
    """Return the shares of the chosen codes, of the others and of the unseen; they sum to 1."""
    listed = np.array(counts, dtype=float)
    rest = max(0.0, total - listed.sum() - unseen)
    shares = np.array([*listed, rest, float(unseen)])
    normed: np.ndarray = shares / max(shares.sum(), 1.0)
    return normed


def _effective(codes: dict[str, Values], chosen: list[str], total: int) -> float:
    """Return the effective number of codings: total over the design effect of the codes' shares, taken together.

    The sum of the clustered variances over the sum of the binomial ones: a mean of the codes' own design effects would
    rest on the rarest codes, whose own are hardly known (half the runs alarmed on unchanged data of few patients).
    """
    listed = sum(values[0] or 0 for values in codes.values())
    if not listed:
        return 0.0
    of2 = sum(values[3] or 0 for values in codes.values()) * total / listed
    clustered = simple = 0.0
    for n, _, n2, n_of in (codes[code] for code in chosen if code in codes):
        share = (n or 0) / total
        clustered += ((n2 or 0) - 2 * share * (n_of or 0) + share * share * of2) / total**2
        simple += share * (1 - share) / total
    return total / max(1.0, clustered / simple) if simple else min(float(total), total * total / max(of2, 1.0))


def js_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon distance of two distributions, base 2: 0 when equal, 1 when disjoint (Lin 1991)."""
    return math.sqrt(max(0.0, float(_divergence(p[None, :], q[None, :])[0])))


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log2(p / m), 0.0) + np.where(q > 0, q * np.log2(q / m), 0.0)
    found: np.ndarray = terms.sum(axis=1) / 2
    return found


def _noise(pooled: np.ndarray, n_now: float, n_then: float) -> np.ndarray:
    """Return distances between pairs of samples of one population, of the two effective sizes."""
    draw = np.random.RandomState(_SEED)
    sizes = (max(1, round(n_now)), max(1, round(n_then)))
    pooled = pooled / pooled.sum()
    a, b = (draw.multinomial(size, pooled, size=_DRAWS) / size for size in sizes)
    distances: np.ndarray = np.sqrt(np.maximum(_divergence(a, b), 0.0))
    return distances


def _psi(p: np.ndarray, q: np.ndarray) -> float:
    """Return the population stability index, for those used to it (shares below 0.01 % taken as that)."""
    a, b = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return float(((a - b) * np.log(a / b)).sum())


def _contributors(p: np.ndarray, q: np.ndarray, names: list[str], now: dict[str, Values]) -> str:
    """Name the categories that moved most; a live code of 1-10 patients is never named."""
    moves = sorted(range(len(p)), key=lambda i: (-abs(p[i] - q[i]), names[i]))
    shown = [i for i in moves if names[i] not in now or (now[names[i]][1] or 0) > 10][:3]
    words = [f"{names[i]} {100 * (p[i] - q[i]):+.1f} points" for i in shown if abs(p[i] - q[i]) >= 0.0005]
    return f"; most of it: {', '.join(words)}" if words else ""


@check("comparability", decides=True)
def subgroup_gap(
    profile: Profile, element: str, *, attributes: list[str] | None = None, margin: float = 0.05, min_n: int = 100
) -> list[Outcome]:
    """Is the element missing more often in one group of patients than in the others?

    Groups are by sex, age at the last event, race and ethnicity as far as the data has them.

    Numerator: records of the group without the element (missing, null token or, of a coded element, text only).
    Denominator: records of the group.
    Alarms when the group's rate exceeds that of all others by the margin and the interval of the difference (effective n,
    Holm-corrected over the groups) lies above zero.

    Options: `attributes` (default: sex, age, race, ethnicity); `margin` (default 0.05); `min_n` (default 100): effective
    number of records in the group and in the rest.
    """
    defects = ("missing", "null-token", "text-only")
    whole = state_outcome(profile, element, defects, None)
    if whole is None or not whole.of:
        return skip("not-applicable", "no records of this table")
    tested: list[tuple[float, Outcome]] = []
    hidden = False
    for attribute in attributes or ["sex", "age", "race", "ethnicity"]:
        groups = sorted({key[2] for key, _ in profile.rows("states", element, attribute)} - {"unknown"})
        if len(groups) < 2:
            continue
        found = {group: _group_rate(profile, element, attribute, group, defects) for group in [*groups, "unknown"]}
        for group in groups:
            mine, rest = found[group], [found[g] for g in groups if g != group]
            if mine is None or any(r is None for r in rest):
                hidden = True
                continue
            n, of, n_eff, patients = mine
            others = [r for r in rest if r is not None]
            n_rest, of_rest, eff_rest = (sum(r[i] for r in others) for i in (0, 1, 2))
            if min(n_eff, eff_rest) < min_n or not of_rest:
                continue
            effect = n / of - n_rest / of_rest
            p = stats.rise_p_value(n / of, n_eff, n_rest / of_rest, eff_rest)
            interval = stats.newcombe(n / of, n_eff, n_rest / of_rest, eff_rest)
            outcome = Outcome(
                "subgroup-gap", int(n), int(of), int(patients), effect=effect, limit=margin, interval=interval, group={attribute: group},
                detail=f"{attribute} {group}; all others {100 * n_rest / of_rest:.1f} %, effective n {n_eff:,.0f} against {eff_rest:,.0f}",
                status="pass", partition=f"{element} {attribute}", independent=(n_eff, eff_rest),
            )  # fmt: skip
            tested.append((p, outcome))
    if not tested:
        reason = _HIDDEN if hidden else f"no two groups of patients with {min_n} independent records each"
        return skip("not-assessed" if hidden else "not-applicable", reason)
    tested.sort(key=lambda pair: (pair[0], sorted(pair[1].group.items())))
    alarms = []
    for rank, (p, outcome) in enumerate(tested):
        if p > 0.01 / (len(tested) - rank):  # Holm 1979: the first that does not pass ends it
            break
        if (outcome.effect or 0) >= margin and outcome.interval and outcome.interval[0] > 0:
            outcome.status = "fail"
            alarms.append(outcome)
    if alarms:
        return sorted(alarms, key=lambda o: sorted(o.group.items()))
    worst = max(tested, key=lambda pair: (pair[1].effect or 0.0, sorted(pair[1].group.items())))[1]
    return [worst]


def _group_rate(
    profile: Profile, element: str, attribute: str, group: str, defects: tuple[str, ...]
) -> tuple[float, float, float, float] | None:
    """Return defects, records, effective n and patients of a group; None when a count is hidden."""
    cells = {key[3]: values for key, values in profile.rows("states", element, attribute, group)}
    total = cells.get("*")
    if total is None:
        return (0.0, 0.0, 0.0, 0.0)
    found = [cells[state] for state in defects if state in cells]
    if any(v is None for values in (total, *found) for v in values):
        return None
    n, patients, n2, n_of = (sum(values[i] or 0 for values in found) for i in range(4))
    of, _, of2, _ = (v or 0 for v in total)
    return (n, of, stats.effective_n(n, of, n2, of2, n_of), patients)
