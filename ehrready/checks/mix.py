"""Comparability of what the codes and months are made of: code mix, volume, history, subgroups (checks.md 20, 22, 23)."""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip, state_outcome
from ehrready.profile import Profile, Values

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
    correction for clustering in patients after Rao and Scott 1981).

    Numerator: live codings that would have to change their code to restore training's shares (`code-mix`; half the sum
    of the absolute differences).
    Denominator: live codings of the system.

    Options: `margin` (default 0.05): smallest distance that matters; `top` (default 200): codes told apart;
    `min_n`: smallest effective number of codings on either side.
    """
    outcomes = []
    for system in sorted({key[1] for key, _ in training.rows("codes", element)} & {key[1] for key, _ in profile.rows("codes", element)}):
        outcomes.append(_mix(profile, training, element, system, margin, top, min_n))
    return outcomes or skip("not-applicable", "no code system that training and the live data share")


def _mix(profile: Profile, training: Profile, element: str, system: str, margin: float, top: int, min_n: int) -> Outcome:
    group = {"system": system}
    then, now = ({key[2]: values for key, values in p.rows("codes", element, system)} for p in (training, profile))
    total_then, total_now = _codings(training, element, system), _codings(profile, element, system)
    if total_then is None or total_now is None:
        return Outcome("code-mix", status="not-assessed", reason=f"{system}: {_HIDDEN}", group=group)
    visible = {code: values[0] for code, values in then.items() if values[0] is not None}
    chosen = sorted(visible, key=lambda code: (-visible[code], code))[:top]
    q = _shares([visible[code] for code in chosen], 0, total_then)
    unseen = sum(values[0] or 0 for code, values in now.items() if code not in then)
    p = _shares([now.get(code, (0,))[0] or 0 for code in chosen], unseen, total_now)
    n_then, n_now = _effective(then, chosen, total_then), _effective(now, chosen, total_now)
    if min(n_then, n_now) < min_n:
        return Outcome(
            "code-mix", status="not-assessed", reason=f"{system}: fewer than {min_n} independent codings to compare", group=group
        )
    distance = js_distance(p, q)
    noise = _noise((p * n_now + q * n_then) / (n_now + n_then), n_now, n_then)
    limit = max(margin, float(np.quantile(noise, 0.99)))
    moved = 0.5 * float(np.abs(p - q).sum())
    names = [*chosen, "other codes", "codes unseen in training"]
    return Outcome(
        "code-mix", round(moved * total_now), total_now, status="fail" if distance > limit else "pass", effect=distance, limit=limit,
        independent=(n_now, n_then), training=(0, total_then), p=(1 + int((noise >= distance).sum())) / (1 + _DRAWS), family="mix", group=group, people=False,
        cells=_excess(element, system, p, q, chosen, {code: v[0] or 0 for code, v in now.items() if code not in then}, (n_now, n_then), total_now),
        detail=f"Jensen-Shannon distance {distance:.3f}, limit {limit:.3f}, effective n {n_now:.0f} against {n_then:.0f}, "
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


@check("comparability")
def volume_gap(profile: Profile, element: str, *, usual: int = 30) -> list[Outcome]:
    """Are there months in which a feed was silent?

    A month is a gap (`gap-month`) when fewer than half as many patients have a record in it as in its neighbours (the
    median of up to three months on either side), these have at least `usual`, and the difference is more than four
    standard errors of two Poisson counts: a few busy patients make no gap.  The first and the last month are left
    out: an export seldom begins or ends with a whole month.

    Numerator: gap months of the element's table.  Denominator: months between its first and its last.

    Options: `usual` (default 30): patients that the neighbours must have.
    """
    months = _months(profile, element.partition(".")[0])
    if months is None:
        return skip("not-assessed", _HIDDEN)
    inner = range(1, len(months) - 1)
    if len(months) < 6:
        return skip("not-applicable", "fewer than six months of records")
    gaps = []
    for i in inner:
        around = [months[j][1] for j in range(max(0, i - 3), min(len(months), i + 4)) if j != i]
        middle = median(around)
        there = months[i][1]
        if middle >= usual and there < middle / 2 and middle - there > 4 * math.sqrt(middle + there):
            gaps.append(months[i][0])
    detail = f"{', '.join(gaps[:6])}" + (f" and {len(gaps) - 6} more" if len(gaps) > 6 else "") if gaps else ""
    return [Outcome("gap-month", len(gaps), len(inner), people=False, detail=detail)]


def _months(profile: Profile, table: str) -> list[tuple[str, int]] | None:
    """Return every month from the first to the last with its patients, empty ones included; None when one is hidden."""
    found = {month: values[1] for (_, month), values in profile.rows("volume", table) if "1900" < month < "2100"}
    if not found or any(n is None for n in found.values()):
        return None if found else []
    first, last = min(found), max(found)
    start, end = (int(m[:4]) * 12 + int(m[5:]) - 1 for m in (first, last))
    names = [f"{i // 12:04d}-{i % 12 + 1:02d}" for i in range(start, min(end, start + 2400) + 1)]
    return [(name, found.get(name) or 0) for name in names]


@check("comparability", compares=True)
def volume_shift(profile: Profile, training: Profile, element: str, *, factor: float = 1.5, min_months: int = 6) -> list[Outcome]:
    """Do patients have about as many records a month as in training?

    Records per patient and month with any (the table's own), the median over whole months, live against training.

    Numerator: live records of the table above or below what training's rate would give (`volume`).
    Denominator: live records of the table.
    Alarms when the rates differ by the factor and by more than three standard errors over the months.

    Options: `factor` (default 1.5): the smallest ratio that matters, up or down; `min_months`: months on either side.
    """
    table = element.partition(".")[0]
    live, past = (_rates(p, table) for p in (profile, training))
    if live is None or past is None:
        return skip("not-assessed", _HIDDEN)
    if min(len(live), len(past)) < min_months:
        return skip("not-assessed", f"fewer than {min_months} whole months with records on both sides")
    (now, error_now), (before, error_before) = (_centre(rates) for rates in (live, past))
    change, error = math.log(now / before), math.hypot(error_now, error_before)
    alarm = abs(change) >= math.log(factor) and abs(change) > 3 * error
    total = profile.tables().get(table, 0)
    moved = min(total, round(total * abs(1 - before / now)))
    return [
        Outcome(
            "volume", moved, total, people=False, status="fail" if alarm else "pass", effect=now / before - 1, limit=factor - 1, training=(0, training.tables().get(table, 0)),
            detail=f"{now:.2f} records per patient and month, training {before:.2f}, effective n {len(live)} against {len(past)} months",
            independent=(len(live), len(past)),
        )
    ]  # fmt: skip


def _rates(profile: Profile, table: str) -> list[float] | None:
    """Return records per patient of each inner month with at least 30 patients; None when a month is hidden."""
    cells = sorted((month, values) for (_, month), values in profile.rows("volume", table) if "1900" < month < "2100")
    if any(v is None for _, values in cells for v in values):
        cells = [(month, values) for month, values in cells if None not in values]
    return [(n or 0) / (patients or 1) for _, (n, patients) in cells[1:-1] if (patients or 0) >= 30]


def _centre(rates: list[float]) -> tuple[float, float]:
    """Return the median rate and the standard error of its logarithm over months."""
    logs = [math.log(rate) for rate in rates if rate > 0] or [0.0]
    spread = 1.4826 * median(abs(x - median(logs)) for x in logs)  # robust to a gap month
    return math.exp(median(logs)), max(1.2533 * spread / math.sqrt(len(logs)), 0.01)


@check("comparability", compares=True, whole=True)
def lookback(profile: Profile, training: Profile, *, months: int = 12, margin: float = 0.05, min_n: int = 30) -> list[Outcome]:
    """Do patients have as long a history as in training?

    Numerator: patients whose first and last event are less than the look-back apart (`short-history`).
    Denominator: patients with a dated event.
    Alarms when the share exceeds training's by the margin and the interval of the difference lies above zero.

    Options: `months` (default 12): the look-back that the model needs; `margin` (default 0.05); `min_n`: patients.
    """
    sides = []
    for p in (profile, training):
        cells = [(int(key[0]), values[0]) for key, values in p.rows("history")]
        if any(n is None for _, n in cells):
            return skip("not-assessed", _HIDDEN)
        sides.append((sum(n or 0 for m, n in cells if m < months), sum(n or 0 for _, n in cells)))
    (n, of), (n_then, of_then) = sides
    if min(of, of_then) < min_n:
        return skip("not-assessed" if of else "not-applicable", f"fewer than {min_n} patients with dated events on both sides")
    low, high = stats.newcombe(n / of, of, n_then / of_then, of_then)
    effect = n / of - n_then / of_then
    return [
        Outcome(
            "short-history", n, of, n, of, status="fail" if effect >= margin and low > 0 else "pass", training=(n_then, of_then), training_patients=n_then,
            effect=effect, limit=margin, interval=(low, high), p=stats.rise_p_value(n / of, of, n_then / of_then, of_then), family="volume",
            detail=f"look-back of {months} months, effective n {of} against {of_then}", independent=(of, of_then),
        )
    ]  # fmt: skip


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
                detail=f"{attribute} {group}; all others {100 * n_rest / of_rest:.1f} %, effective n {n_eff:.0f} against {eff_rest:.0f}",
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
