"""Which release of a code system the codes themselves come from (`release-inferred`, checks.md 12).

``infer`` judges the codes of one stretch of time, ``infer_strata`` (in ``calendars``) the quarters of a feed together.
Both work from the distinct codes alone.  What the method assumes, where it fails and how often it is right stands in
docs/terminology-inference.md; ``benchmarks/release_inference.py`` repeats the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ehrready.terminology.lifecycles import (
    Bools,
    Floats,
    Ints,
    Lifecycles,
    counts,
    group_terms,
    lifecycles,
    log_likelihood,
    log_likelihood_pools,
    logsumexp,
)

#: Posterior mass that a statement must hold.
SURE = 0.99
#: Fewest distinct codes, valid in some releases only, that a statement of one release needs.
DISCRIMINATING = 20
#: Largest share of codes outside the stated releases that a statement of one release allows.
UNEXPLAINED = 0.01
#: Largest share of codes in no release with which anything is said at all.
FOREIGN = 0.10
# A pool of years is said where it is this much likelier than any one release.
_POOL_ODDS = np.log(20.0)


@dataclass(frozen=True, slots=True)
class Inference:
    """Which releases the codes come from.

    ``releases`` holds one label when sure, several neighbouring ones when not (also when releases have the same
    codes: then all of them), none when it cannot tell.  ``probability`` is the posterior mass of ``releases`` (of the
    pattern, for quarters judged together).  ``best`` is the likeliest label even where it cannot tell, empty without codes: for
    tables, not for decisions.  ``n_codes`` counts distinct codes, known or not; ``n_discriminating`` those that are
    valid in some releases only; ``unexplained`` is the share of codes that none of ``releases`` (of ``best``) has.
    """

    releases: tuple[str, ...]
    probability: float | None
    pattern: str
    evidence: tuple[str, ...]
    reason: str
    n_codes: int
    n_discriminating: int
    unexplained: float
    best: str = ""


@dataclass(frozen=True, slots=True)
class Stratum:
    """What was seen in one stretch of time: codes per group and block, codes in no release, log likelihood per release."""

    seen: Ints  # int[G, B]
    unknown: int
    log_likelihood: Floats  # float[R]
    log_likelihood_pools: Floats  # float[R, R]

    @property
    def by_group(self) -> Ints:
        """Return distinct codes seen of each group, int[G]."""
        return np.asarray(self.seen.sum(axis=1))

    @property
    def n_codes(self) -> int:
        """Return the number of distinct codes, known or not."""
        return int(self.seen.sum()) + self.unknown


def prepare(valid: Bools | Lifecycles, labels: Sequence[str], block: NDArray[np.integer] | None = None) -> Lifecycles:
    """Group a table's codes once, for several calls of `infer`.

    Raises:
        ValueError: Wrong shape, or not one label for each release.
    """
    table = valid if isinstance(valid, Lifecycles) else lifecycles(valid, block)
    if table.releases != len(labels):
        raise ValueError(f"the table has {table.releases} releases, but {len(labels)} labels are given")
    return table


def observe(table: Lifecycles, seen: NDArray[np.integer], unknown: int) -> Stratum:
    """Count the codes of one stretch of time and work out the likelihood of every release.

    Raises:
        ValueError: An index that is no row of the table, or a negative number of unknown codes.
    """
    if unknown < 0:
        raise ValueError("the number of unknown codes must not be negative")
    # A code that no release has, though the table lists it (a header of a table of billable codes), is unknown too.
    rows = np.unique(np.asarray(seen, dtype=np.intp).reshape(-1))
    found = counts(table, rows)
    terms = group_terms(table, found)
    return Stratum(found, unknown + len(rows) - int(found.sum()), log_likelihood(table, terms), log_likelihood_pools(table, terms))


def posterior(table: Lifecycles, log_likelihood_: Floats) -> Floats:
    """Posterior of every release, float[R]; flat over distinct releases, those with the same codes sharing one part."""
    logs = log_likelihood_ - np.log(np.bincount(table.alias)[table.alias])
    mass = np.exp(logs - logsumexp(logs))
    return np.asarray(mass / mass.sum())


def shortest_interval(table: Lifecycles, mass: Floats, sure: float = SURE) -> tuple[int, int]:
    """First and last release of the shortest run that holds ``sure`` of the mass, releases with the same codes together."""
    by_alias = np.bincount(table.alias, weights=mass)
    sums = np.concatenate([[0.0], np.cumsum(by_alias)])
    sure = min(sure, sums[-1])
    best: tuple[int, float, int] | None = None
    for start in range(len(by_alias)):
        end = int(np.searchsorted(sums, sums[start] + sure - 1e-12))
        if end < len(sums):
            candidate = (end - start, -float(sums[end] - sums[start]), start)
            best = candidate if best is None or candidate < best else best
    length, _, start = best or (len(by_alias), 0.0, 0)
    return _releases_of(table, start, start + length - 1)


def _releases_of(table: Lifecycles, first: int, last: int) -> tuple[int, int]:
    inside = np.flatnonzero((table.alias >= first) & (table.alias <= last))
    return int(inside[0]), int(inside[-1])


def widen(table: Lifecycles, mass: Floats, low: int, high: int) -> tuple[int, int]:
    """Add the likelier neighbour to one release, both where the table has both and they are about as likely."""
    first, last, top = int(table.alias[low]), int(table.alias[high]), int(table.alias[-1])
    before = float(mass[table.alias == first - 1].sum()) if first > 0 else -1.0
    after = float(mass[table.alias == last + 1].sum()) if last < top else -1.0
    return _releases_of(table, first - (before >= after and first > 0), last + (after > before))


def discriminating(table: Lifecycles, seen: Ints) -> int:
    """Distinct codes seen that are valid in some releases only."""
    return int(seen[~table.always].sum())


def unexplained(table: Lifecycles, stratum: Stratum, low: int, high: int) -> float:
    """Share of the distinct codes that no release from low to high has."""
    outside = ~table.masks[:, low : high + 1].any(axis=1)
    return (int(stratum.by_group[outside].sum()) + stratum.unknown) / max(stratum.n_codes, 1)


def _n(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def evidence(table: Lifecycles, labels: Sequence[str], stratum: Stratum, low: int, high: int) -> tuple[str, ...]:
    """Say in words what speaks for the releases from low to high: new codes seen, newer ones not, retired ones still used."""
    seen, sizes = stratum.by_group, table.size
    said: list[str] = []

    def cohort(of: Ints, release: int) -> tuple[int, int]:
        inside = of == release
        return int(seen[inside].sum()), int(sizes[inside].sum())

    started = [release for release in range(1, table.releases) if (table.born == release).any()]
    for release in [r for r in started if r <= low][-1:] + [r for r in started if low < r <= high]:
        k, of = cohort(table.born, release)
        said.append(
            f"{_n(k, 'code', 'codes')} of {of} first valid in {labels[release]}"
            if k
            else f"none of the {of} codes new in {labels[release]}"
        )
    for release in [r for r in started if r > high][:1]:
        k, of = cohort(table.born, release)
        said.append(
            f"only {_n(k, 'code', 'codes')} of the {of} new in {labels[release]}"
            if k
            else f"none of the {of} codes new in {labels[release]}"
        )
    later = sum(cohort(table.born, release)[0] for release in [r for r in started if r > high][1:])
    if later:
        said.append(f"{_n(later, 'code', 'codes')} of later releases")
    ended = [release for release in range(1, table.releases) if (table.gone == release).any()]
    for release in [r for r in ended if r <= high]:
        k, of = cohort(table.gone, release)
        if k:
            said.append(f"{_n(k, 'code', 'codes')} of {of} retired in {labels[release]} still used")
        elif release > low or release == max(r for r in ended if r <= high):
            said.append(f"none of the {of} codes retired in {labels[release]}")
    for release in [r for r in ended if r > high][:1]:
        k, of = cohort(table.gone, release)
        if k:
            said.append(f"{_n(k, 'code', 'codes')} of {of} that {labels[release]} retires")
    if stratum.unknown:
        said.append(f"{_n(stratum.unknown, 'code', 'codes')} in no release")
    return tuple(said)


def cannot_tell(reason: str, n_codes: int = 0) -> Inference:
    """Return the inference that says nothing, and why."""
    return Inference((), None, "cannot-tell", (), reason, n_codes, 0, 0.0)


def infer(
    valid: Bools | Lifecycles,
    labels: Sequence[str],
    seen: NDArray[np.integer],
    unknown: int = 0,
    *,
    block: NDArray[np.integer] | None = None,
) -> Inference:
    """Infer which release the codes of one stretch of time come from.

    Args:
        valid: bool[n_codes, R]: which release has which code (of ICD-10-CM: as a billable code), or the grouping of
            such a table that `prepare` made.
        labels: The releases' labels in their order.
        seen: Rows of the table that were seen, in any order.
        unknown: Number of distinct codes that are no row of the table.
        block: Optional int[n_codes]: codes that are used together (their chapter), so that a specialty's rate of use is
            judged by its own codes. Ignored with a grouped table.

    Returns:
        Pattern ``single`` (one release, or several with the same codes), ``interval``, ``mixed`` (codes that one
        release retired and codes of later ones side by side: a pool of years or feeds) or ``cannot-tell``.

    Raises:
        ValueError: Shapes that do not fit, an index that is no row of the table.
    """
    table = prepare(valid, labels, block)
    return judge(table, labels, observe(table, seen, unknown))


def judge(table: Lifecycles, labels: Sequence[str], stratum: Stratum) -> Inference:
    """Make the statement about one stretch of time; see `infer`."""
    n_codes, n_disc = stratum.n_codes, discriminating(table, stratum.seen)
    if n_codes == 0:
        return cannot_tell("no codes")
    if table.releases < 2 or table.alias[-1] == 0:
        return cannot_tell("the table has only one release, or releases with the same codes", n_codes)
    mass = posterior(table, stratum.log_likelihood)
    top = int(table.alias[int(mass.argmax())])
    low, high = _releases_of(table, top, top)
    out = Inference((), None, "cannot-tell", evidence(table, labels, stratum, low, high), "", n_codes, n_disc,
                    unexplained(table, stratum, low, high), labels[low])  # fmt: skip
    if stratum.unknown > FOREIGN * n_codes:
        return replace(out, reason=f"{stratum.unknown} of {n_codes} distinct codes are in no release of the table")
    if n_disc == 0 and stratum.seen.sum() < DISCRIMINATING:
        return replace(out, reason="too few codes, none of which tells releases apart")
    pools = stratum.log_likelihood_pools
    i, j = np.unravel_index(int(pools.argmax()), pools.shape)
    if i < j and pools[i, j] > stratum.log_likelihood.max() + _POOL_ODDS:
        low, high = int(i), int(j)
        return replace(
            out, releases=tuple(labels[low : high + 1]), pattern="mixed", evidence=evidence(table, labels, stratum, low, high),
            unexplained=unexplained(table, stratum, low, high),
            probability=round(float(1 / (1 + np.exp(stratum.log_likelihood.max() - pools[i, j]))), 4),
            reason="codes of several releases side by side: several years or feeds are pooled",
        )  # fmt: skip
    low, high = shortest_interval(table, mass)
    if table.alias[low] == table.alias[high] and (n_disc < DISCRIMINATING or unexplained(table, stratum, low, high) > UNEXPLAINED):
        low, high = widen(table, mass, low, high)
    if (low, high) == (0, table.releases - 1):
        return replace(out, reason=f"{_n(n_disc, 'code tells', 'codes tell')} releases apart: too few")
    return replace(
        out, releases=tuple(labels[low : high + 1]), probability=round(float(mass[low : high + 1].sum()), 4),
        pattern="single" if table.alias[low] == table.alias[high] else "interval",
        evidence=evidence(table, labels, stratum, low, high), unexplained=unexplained(table, stratum, low, high),
    )  # fmt: skip


def infer_strata(
    valid: Bools | Lifecycles,
    labels: Sequence[str],
    effective: Sequence[str],
    strata: Mapping[str, tuple[NDArray[np.integer], int]],
) -> tuple[Inference, dict[str, Inference]]:
    """Infer the releases of a feed from its quarters of service.

    Args:
        valid: As in `infer`.
        labels: The releases' labels in their order.
        effective: ISO dates from which they are in force.
        strata: Quarter ``YYYY-Qn`` to (rows of the distinct codes seen, distinct codes in no release); ``""`` is undated.

    Returns:
        The statement about the whole and that about each quarter.  Patterns of the whole: ``tracks-calendar`` (each
        quarter in the release in force then), ``frozen`` (one release although later ones came into force), ``lagging``
        (the same number of releases behind), ``re-mapped`` (one release that is later than some of the quarters), else
        what `infer` says of one quarter, ``mixed`` or ``cannot-tell``.  An undated pool is never one release.
    """
    table = prepare(valid, labels)
    seen = {quarter: observe(table, rows, unknown) for quarter, (rows, unknown) in sorted(strata.items())}
    found = {quarter: judge(table, labels, stratum) for quarter, stratum in seen.items()}
    dated = [quarter for quarter in seen if quarter and seen[quarter].n_codes]
    if not dated:
        pool = next(iter(found.values()), None)
        if pool is None:
            return cannot_tell("no codes"), found
        return replace(
            cannot_tell("the codes are undated: a pool of years is not one release", pool.n_codes), evidence=pool.evidence
        ), found
    if len(dated) == 1:
        return found[dated[0]], found
    logs = np.array([seen[quarter].log_likelihood for quarter in dated])
    force = np.array([_in_force(effective, quarter) for quarter in dated])
    rows = np.arange(len(dated))
    stories: dict[tuple[str, int], float] = {("fixed", r): float(logs[:, r].sum()) for r in range(table.releases)}
    for lag in range(min(4, table.releases)):  # releases behind, not counting those without a change of codes
        stories["calendar", lag] = float(logs[rows, _behind(table, force, lag)].sum())
    best = max(stories.values())
    said = {name: label for name, label in stories.items() if label > best - float(np.log(100.0))}
    told = [found[quarter] for quarter in dated if found[quarter].releases]
    union = observe(
        table, np.concatenate([np.asarray(strata[quarter][0], dtype=np.intp) for quarter in dated]), max(seen[q].unknown for q in dated)
    )
    n_codes, n_disc = union.n_codes, discriminating(table, union.seen)
    free = float(logs.max(axis=1).sum())
    proof = max((found[q] for q in dated), key=lambda f: f.n_discriminating).evidence
    base = Inference((), None, "cannot-tell", proof, "", n_codes, n_disc, max(f.unexplained for f in found.values()))
    if not told:
        return replace(base, reason=found[dated[-1]].reason or "too few codes in every quarter"), found
    if free - best > 10.0 * len(dated):
        return replace(
            base, releases=_union(labels, told), pattern="mixed", reason="quarters come from releases that no single story explains"
        ), found
    runs: dict[tuple[int, ...], tuple[str, int]] = {}
    for kind, value in sorted(said, key=lambda story: (story != ("calendar", 0), story[0] == "calendar", story[1])):
        used = _behind(table, force, value) if kind == "calendar" else np.full(len(dated), value)
        runs.setdefault(tuple(table.alias[used].tolist()), (kind, value))  # a lag that ends at the first release is frozen there
    low, high = _releases_of(table, int(min(min(run) for run in runs)), int(max(max(run) for run in runs)))
    if n_disc < DISCRIMINATING:  # quarters repeat each other's codes: they must not make few of them sure
        low, high = widen(table, posterior(table, union.log_likelihood), low, high)
    patterns = {_pattern(table, force, kind, value) for kind, value in runs.values()} if n_disc >= DISCRIMINATING else {"interval"}
    pattern = patterns.pop() if len(patterns) == 1 else "interval"
    if pattern == "single" and len(runs) > 1:
        pattern = "interval"
    if pattern == "interval" and (low, high) == (0, table.releases - 1):
        return replace(base, reason="the quarters fit several releases"), found
    return replace(base, releases=tuple(labels[low : high + 1]), pattern=pattern, probability=SURE), found


def _pattern(table: Lifecycles, force: Ints, kind: str, value: int) -> str:
    """Name a story: one release for all quarters, or a number of releases behind the calendar."""
    inside = set(table.alias[force].tolist())
    if kind == "calendar":
        return "lagging" if value else "single" if len(inside) == 1 else "tracks-calendar"
    alias = int(table.alias[value])
    if inside == {alias}:
        return "single"
    if alias > min(inside):
        return "re-mapped"
    return "frozen" if len(inside) > 1 else "lagging"


def _behind(table: Lifecycles, force: Ints, lag: int) -> Ints:
    """Return the release ``lag`` changes of the code set before the one in force, for each quarter."""
    alias = np.maximum(table.alias[force] - lag, 0)
    return np.asarray([int(np.flatnonzero(table.alias == a)[0]) for a in alias], dtype=np.intp)


def _in_force(effective: Sequence[str], quarter: str) -> int:
    """Return the release in force in the middle of a quarter (the first one before all)."""
    year, number = quarter.split("-Q")
    middle = f"{year}-{3 * int(number) - 1:02d}-15"
    return max((i for i, day in enumerate(effective) if day <= middle), default=0)


def _union(labels: Sequence[str], told: Sequence[Inference]) -> tuple[str, ...]:
    said = {label for one in told for label in one.releases}
    return tuple(label for label in labels if label in said)
