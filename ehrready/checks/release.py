"""Release: which version of a code system the data says it is in (what the codes themselves say comes with 11-13)."""

from __future__ import annotations

import numpy as np

from ehrready import stats
from ehrready.checks.base import Outcome, check, skip
from ehrready.profile import Profile
from ehrready.releases import Seen, declared, infer, systems_of
from ehrready.terminology.releases import ReleaseTable, Store


@check("release", compares=True)
def release_declared(profile: Profile, training: Profile, element: str, *, max_rate: float = 0.02, min_n: int = 30) -> list[Outcome]:
    """Does the data declare the code-system releases that the model was trained on?

    Declared releases are Coding.version, CWE-7/8 and the OMOP vocabulary version, normalised (`FY2026`, `2.81`).

    Numerator: codings that declare a release of their system which training never declared (`other-release`).
    Denominator: codings of systems for which training declared a release, that declare one.

    Options: `max_rate` (default 0.02): share of codings that may declare another release; `min_n`: how many must
    declare one at all.
    """
    live, trained = declared(profile, element), declared(training, element)
    n = of = patients = 0
    train_of = 0
    news: list[str] = []
    for system, releases in live.items():
        known = {release for release in trained.get(system, {}) if release}
        if not known:
            continue
        train_of += sum(n or 0 for release, (n, _) in trained[system].items() if release)
        for release, (count, people) in releases.items():
            if not release:
                continue
            if count is None or people is None:
                return skip("not-assessed", "a count is hidden (1-10 patients)")
            of += count
            if release not in known:
                n += count
                patients = max(patients, people)
                news.append(f"{system} {release} (trained on {', '.join(sorted(known))})")
    if not of:
        any_trained = any(release for releases in trained.values() for release in releases)
        return skip("not-assessed" if any_trained and live else "not-applicable", "no release is declared on both sides")
    if of < min_n:
        return skip("not-assessed", f"fewer than {min_n} codings declare a release")
    rate = n / of
    return [
        Outcome(
            "other-release", n, of, patients, status="fail" if rate > max_rate else "pass", limit=max_rate, effect=rate,
            training=(0, train_of), detail="; ".join(sorted(news)),
        )
    ]  # fmt: skip


#: Defects of ``code-current``; the other classes of the ``currency`` frame are good or in no denominator.
CURRENCY = ("retired", "not-yet-valid", "header", "unknown")


@check("release", looks_up=True)
def code_current(profile: Profile, element: str, store: Store | None, *, classes: list[str] | None = None) -> list[Outcome]:
    """Was each code valid in its code system on the day it was used?

    The day is the encounter's end for diagnoses and procedures (else when they were recorded), the event's time for
    all others.  Every dated code of a system with a loaded release table is `current`, `retired`, `not-yet-valid`,
    `header` (a category that may not be billed) or `unknown` (in no release of a complete table); a code may be used
    for 90 days after the release that retired it.

    Numerator: codings of a defect class, each class a defect of its own, by code system.
    Denominator: dated codings of that system within the years that the release table covers.

    Options: `classes`: the defect classes to judge (default: all four).
    """
    outcomes = []
    for system in systems_of(profile, element):
        cells = {key[2]: values for key, values in profile.rows("currency", element, system)}
        judged = [values for cls, values in cells.items() if cls in {"current", *CURRENCY}]
        if not judged:
            continue
        total = [None if any(v[i] is None for v in judged) else sum(v[i] or 0 for v in judged) for i in (0, 2)]
        zero = (0, 0, 0, 0)
        for cls in classes or CURRENCY:
            n, patients, n2, n_of = cells.get(cls, zero)
            outcomes.append(
                Outcome(
                    cls, n, total[0], patients, None, n2, total[1], n_of, group={"system": system}, partition=f"{element} {system} currency",
                    cells=_unknown(profile, element, system, store) if cls == "unknown" and n else {},
                )
            )  # fmt: skip
    return outcomes or _no_table(profile, element, store)


def _unknown(profile: Profile, element: str, system: str, store: Store | None) -> dict[tuple[str, ...], float]:
    """Return the codes that are in no release, with their codings."""
    table = store.table(system) if store else None
    rows = [(key[2], values[0] or 0) for key, values in profile.rows("codes", element, system)]
    if table is None or not rows:
        return {}
    return {(element, system, code): n for (code, n), at in zip(rows, table.positions([c for c, _ in rows]), strict=True) if at < 0}


@check("release")
def display_agrees(profile: Profile, element: str) -> list[Outcome]:
    """Does the text beside a code name what the code means?

    A display agrees when half of its words (as stems) are in one of the names that the loaded release gives the code.

    Numerator: codings whose display names something else (`differs`), by code system.
    Denominator: codings with a display and a code whose names are loaded.
    """
    outcomes = []
    for system in systems_of(profile, element):
        cells = {key[2]: values for key, values in profile.rows("displays", element, system)}
        known = [cells[cls] for cls in ("agrees", "differs") if cls in cells]
        if not known:
            continue
        of, of2 = (None if any(v[i] is None for v in known) else sum(v[i] or 0 for v in known) for i in (0, 2))
        n, patients, n2, n_of = cells.get("differs", (0, 0, 0, 0))
        outcomes.append(
            Outcome("differs", n, of, patients, None, n2, of2, n_of, group={"system": system}, partition=f"{element} {system} displays")
        )
    return outcomes or skip("not-applicable", "no display beside a code whose names are loaded (ehrready terminology add)")


@check("release", compares=True, looks_up=True)
def release_inferred(profile: Profile, training: Profile, element: str, store: Store | None) -> list[Outcome]:
    """Do the codes come from the releases that the model was trained on?

    The release is inferred from the distinct codes themselves, per quarter of service, and not from what the data
    declares: which codes of each release are there, which are missing, which are left over from another one.

    Numerator: distinct live codes that are in no release of training (`other-release`), by code system.
    Denominator: distinct live codes that the release table knows.
    Alarms when the releases of live and training are both known and have none in common.
    """
    outcomes = []
    for system in systems_of(profile, element):
        live = infer(profile, element, system, store)
        trained = infer(training, element, system, store)
        if live is None or trained is None:
            outcomes.append(
                Outcome(
                    "other-release", status="not-applicable", reason=_overlap(profile, training, element, system), group={"system": system}
                )
            )
            continue
        unsure = next(
            (
                f"{who}: {seen.overall.reason or 'its codes fit several releases'}"
                for who, seen in (("live data", live), ("training", trained))
                if not seen.releases
            ),
            "",
        )
        if unsure:
            outcomes.append(Outcome("other-release", status="not-assessed", reason=f"{system}: {unsure}", group={"system": system}))
            continue
        news = _outside(live, trained.releases)
        of = int((live.positions >= 0).sum())
        differ = not set(live.releases) & set(trained.releases)
        outcomes.append(
            Outcome(
                "other-release", news, of, people=False, status="fail" if differ else "pass", group={"system": system},
                detail=f"live {_span(live.releases)}, trained on {_span(trained.releases)}" + "".join(f"; {line}" for line in live.overall.evidence[:2]),
            )
        )  # fmt: skip
    return outcomes or skip("not-applicable", "no codes of a public code system")


@check("release", looks_up=True)
def release_in_force(profile: Profile, element: str, store: Store | None) -> list[Outcome]:
    """Is the data coded in the release that is in force when it is recorded?

    Numerator: quarters whose codes come from a release that was not in force then (`frozen`, `lagging`, `re-mapped`).
    Denominator: quarters whose release can be told.
    """
    outcomes = []
    for system in systems_of(profile, element):
        seen = infer(profile, element, system, store)
        told = [quarter for quarter in seen.quarters.values() if quarter.releases] if seen else []
        if seen is None or not told or seen.overall.pattern in {"cannot-tell", ""}:
            continue
        off = seen.overall.pattern in {"frozen", "lagging", "re-mapped", "mixed"}
        n = sum(not _in_force(seen, quarter) for quarter, found in seen.quarters.items() if found.releases) if off else 0
        outcomes.append(
            Outcome(
                seen.overall.pattern if off else "frozen", n, len(told), people=False, group={"system": system},
                detail=f"{system} {_span(seen.releases)}" + "".join(f"; {line}" for line in seen.overall.evidence[:2]),
            )
        )  # fmt: skip
    if outcomes:
        return outcomes
    return _no_table(profile, element, store, otherwise=("not-assessed", "too few dated codes to tell a release by"))


@check("release", compares=True, looks_up=True)
def codes_since_training(
    profile: Profile, training: Profile, element: str, store: Store | None, *, margin: float = 0.01, min_n: int = 30
) -> list[Outcome]:
    """How much of the data is in codes that did not exist, or exist no more, between training's release and today's?

    Defects: `new-since-training` (live codings whose code is in no release of training and first valid later),
    `retired-since-training` (training codings whose code is in no release of the live data: features that cannot
    occur any more) and `meaning-changed` (live codings whose code got a name of another meaning after training's
    last release, as far as the table has the names of each release).  Replacements are named where the loaded release gives them.

    Numerator: codings with such codes, by code system.
    Denominator: codings of the system with codes that the release table knows (live, or of training).

    Options: `margin` (default 0.01): the smallest share that matters; `min_n`: smallest denominator.
    """
    outcomes = []
    for system in systems_of(profile, element):
        live, trained = infer(profile, element, system, store), infer(training, element, system, store)
        if live is None or trained is None or not live.releases or not trained.releases:
            continue
        for defect, here, there, who in (
            ("new-since-training", live, trained.releases, profile),
            ("retired-since-training", trained, live.releases, training),
        ):
            outcomes.append(_since(defect, here, there, who, margin, min_n))
        outcomes.append(_since("meaning-changed", live, trained.releases, profile, margin, min_n))
    if outcomes:
        return outcomes
    return _no_table(profile, element, store, otherwise=("not-assessed", "the releases of live data and training cannot both be told"))


def _since(defect: str, here: Seen, there: tuple[str, ...], profile: Profile, margin: float, min_n: int) -> Outcome:
    """Count the codings of one side whose code the other side's releases do not have."""
    group = {"system": here.system}
    counts = {key[2]: values for key, values in profile.rows("codes", here.element, here.system)}
    known, gone = here.positions >= 0, _renamed(here, there) if defect == "meaning-changed" else _missing(here, there)
    codes = np.array(here.codes, dtype=object)
    cells = [counts[code] for code in codes[known & gone]]
    if any(values[0] is None or values[1] is None for values in cells):
        return Outcome(
            defect, status="not-assessed", reason=f"{here.system}: a count is hidden (1-10 patients): use internal profiles", group=group
        )
    n, people = sum(values[0] or 0 for values in cells), max((values[1] or 0 for values in cells), default=0)
    rest = [counts[code] for code in codes[known & ~gone]]
    of = n + sum(values[0] or 0 for values in rest)
    if of < min_n:
        return Outcome(defect, status="not-assessed", reason=f"{here.system}: fewer than {min_n} codings", group=group)
    everyone = profile.patients or of
    low, high = stats.wilson(n / of * min(of, everyone), min(of, everyone))
    tops = sorted(
        ((counts[c][0] or 0, str(c), i) for i, c in enumerate(codes) if known[i] and gone[i] and (counts[c][1] or 0) > 10),
        key=lambda t: (-t[0], t[1]),
    )
    names = [f"{code}{_instead(here.table, int(here.positions[i]))} ({m:,})" for m, code, i in tops[:3]]
    return Outcome(
        defect, n, of, None, few=0 < people < 11, status="fail" if n / of >= margin and low > margin / 2 else "pass", interval=(low, high), limit=margin, group=group,
        detail=f"{here.system} {_span(here.releases)} against {_span(there)}" + (f"; most frequent: {', '.join(names)}" if names else ""),
        partition=f"{here.element} {here.system} {defect}",
        cells={(here.element, here.system, str(code)): counts[code][0] or 0 for code in codes[known & gone]} if defect == "new-since-training" else {},
    )  # fmt: skip


def _instead(table: ReleaseTable, position: int) -> str:
    found = table.replacements(position)
    return f" → {found[0]}" if found else ""


def _missing(seen: Seen, releases: tuple[str, ...]) -> np.ndarray:
    """Return, per code of ``seen``, whether it is known and in none of the releases, but in one of its own."""
    columns = [i for i, release in enumerate(seen.table.releases) if release.label in releases]
    at = np.where(seen.positions >= 0, seen.positions, 0)
    missing: np.ndarray = (seen.positions >= 0) & ~seen.table.valid[at][:, columns].any(axis=1)
    return missing


def _renamed(seen: Seen, releases: tuple[str, ...]) -> np.ndarray:
    """Return, per code of ``seen``, whether its meaning changed after the last of the releases."""
    order = {release.label: i for i, release in enumerate(seen.table.releases)}
    last = max(order[label] for label in releases)
    changed = [order.get(seen.table.attribute(int(at), "renamed"), -1) if at >= 0 else -1 for at in seen.positions]
    return np.array(changed, dtype=np.int64) > last


def _outside(seen: Seen, releases: tuple[str, ...]) -> int:
    return int(_missing(seen, releases).sum())


def _in_force(seen: Seen, quarter: str) -> bool:
    """Is one of the releases of a quarter in force at its beginning or its end?"""
    year, number = quarter.split("-Q")
    first, last = (f"{year}-{3 * int(number) - 2:02d}-01", f"{year}-{3 * int(number):02d}-28")
    force = {seen.table.in_force(first), seen.table.in_force(last)}
    return bool({seen.table.releases[i].label for i in force if i >= 0} & set(seen.quarters[quarter].releases))


def _span(releases: tuple[str, ...]) -> str:
    return releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}" if releases else "unknown"


def _overlap(profile: Profile, training: Profile, element: str, system: str) -> str:
    """Say that no release table is loaded, and how much of the vocabulary is training's."""
    live, known = ({key[2] for key, _ in p.rows("codes", element, system)} for p in (profile, training))
    share = f"; {100 * len(live & known) / len(live):.0f} % of its {len(live):,} distinct codes are training's too" if live else ""
    return f"no release table of {system} is loaded (ehrready terminology add){share}"


def _no_table(profile: Profile, element: str, store: Store | None, *, otherwise: tuple[str, str] | None = None) -> list[Outcome]:
    """Say which release tables are missing; ``otherwise`` where one is loaded."""
    missing = [system for system in systems_of(profile, element) if store is None or store.table(system) is None]
    if otherwise and len(missing) < len(systems_of(profile, element)):
        return skip(*otherwise)
    if missing:
        return skip("not-applicable", f"no release table is loaded for {', '.join(missing)} (ehrready terminology add)")
    return skip("not-applicable", "no dated codes of a code system with a release table")
