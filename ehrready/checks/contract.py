"""What a model contract asks of the data (ehrready.contract compiles to rules with these checks)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ehrready import custom, stats
from ehrready.checks.base import CannotCount, Counted, Outcome, check, skip
from ehrready.engines.duckdb import quote
from ehrready.profile import Profile
from ehrready.releases import declared, infer
from ehrready.tables import CODED, TABLES
from ehrready.terminology.releases import Store

if TYPE_CHECKING:
    import duckdb

#: Steps of the waterfall, in order: what a patient has to have, one after the other.
STEPS: dict[str, str] = {
    "present": "with a record",
    "coded": "coded",
    "system": "in an accepted code system",
    "code": "with an accepted code",
    "unit": "in an accepted unit",
    "timed": "dated, in the window",
}
_SMALL = 11
_DATED = "regexp_matches(\"at\", '^(19|20)[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])')"


def code_element(table: str) -> str:
    """Return the coded element that names what a record of the table is about; "" where there is none."""
    return next((f"{table}.{name}" for name in ("code", "type") if f"{table}.{name}" in CODED and table != "encounter"), "")


def _day(column: str) -> str:
    return f"TRY_CAST(left({column}, 10) AS DATE)"


def _cohort(options: dict[str, Any]) -> str:
    """Return the SQL of (patient_id, last): the cohort's patients and the day of their last dated record."""
    seen = " UNION ALL ".join(
        f'SELECT patient_id, CASE WHEN {_DATED} THEN {_day(chr(34) + "at" + chr(34))} END AS d FROM "{t}_v" WHERE patient_id IS NOT NULL'
        for t in TABLES
    )
    where = "".join(
        f' AND patient_id IN (SELECT patient_id FROM "{t}_v" WHERE patient_id IS NOT NULL)'
        for t in options.get("having") or ()
        if t in TABLES
    )
    sql = f"SELECT patient_id, max(d) AS last FROM ({seen}) WHERE true{where} GROUP BY 1"
    lowest, highest = options.get("min_age"), options.get("max_age")
    if lowest is None and highest is None:
        return sql
    # who has no birth date, or no dated record, cannot be shown to be of the cohort
    age = "date_part('year', age(c.last, b.born))"
    limits = (f" AND {age} >= {int(lowest)}" if lowest is not None else "") + (
        f" AND {age} <= {int(highest)}" if highest is not None else ""
    )
    return (
        f"SELECT c.patient_id, c.last FROM ({sql}) c JOIN (SELECT patient_id, min({_day('birth_date')}) AS born FROM patient_v GROUP BY 1) b "
        f"USING (patient_id) WHERE b.born IS NOT NULL AND c.last IS NOT NULL{limits}"
    )


def _accepted(codes: dict[str, Any], system: str, code: str) -> tuple[str, str]:
    """Return the SQL conditions that the system, and that the code within it, is one of the accepted."""
    if not codes:
        return "true", "true"
    within = []
    for key, wanted in sorted(codes.items()):
        exact = sorted(c for c in wanted if not c.endswith("*"))
        parts = [f"{code} IN ({', '.join(map(quote, exact))})"] if exact else []
        parts += [f"starts_with({code}, {quote(c[:-1])})" for c in sorted(wanted) if c.endswith("*")]
        within.append(f"({system} = {quote(key)} AND ({' OR '.join(parts)}))")
    return f"{system} IN ({', '.join(quote(key) for key in sorted(codes))})", " OR ".join(within)


def _units(con: duckdb.DuckDBPyConnection, wanted: list[str]) -> str:
    """Return the SQL list of the units as the source writes them that mean one of the wanted ones."""
    from ehrready.units import resolve

    known = {unit.ucum for text in wanted if (unit := resolve(text))}
    found = sorted(wanted)
    for (text,) in con.execute(
        "SELECT DISTINCT coalesce(unit_code, unit) FROM result_v WHERE coalesce(unit_code, unit) IS NOT NULL"
    ).fetchall():
        unit = resolve(text)
        if unit is not None and unit.ucum in known:
            found.append(text)
    return ", ".join(quote(text) for text in sorted(set(found)))


def _count(con: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> list[Counted]:
    """Count the patients lost at each step, and those without the feature in each group of patients."""
    table = str(options["table"])
    if table not in TABLES:
        raise CannotCount("the table is none of the canonical ones")
    element = code_element(table)
    codes = options.get("codes") or {}
    system, code = _accepted(codes, "j.key", "coalesce(nullif(j.code, ''), j.c)")
    units, days = options.get("units") or [], int(options.get("window_days") or 0)
    in_unit = f"coalesce(f.unit_code, f.unit) IN ({_units(con, units)})" if units else "true"
    dated = "f.d IS NOT NULL" + (f" AND f.d > c.last - INTERVAL {days} DAY" if days else "")
    coded = bool(element)
    graded = (
        f"CASE WHEN {'j.pid IS NULL' if coded else 'false'} THEN 1 WHEN NOT ({system if coded else 'true'}) THEN 2 WHEN NOT ({code if coded else 'true'}) THEN 3 "
        f"WHEN NOT coalesce({in_unit}, false) THEN 4 WHEN NOT ({dated}) THEN 5 ELSE 6 END"
    )
    columns, part, view = (
        ("unit, unit_code, concept, ", " AND g.concept = f.concept", "result_v") if table == "observation" else ("", "", f"{table}_v")
    )
    joined = (
        f"LEFT JOIN judged g ON g.record = f.record AND g.element = {quote(element)}{part} LEFT JOIN judge j ON j.pid = g.pid AND coalesce(j.c, '') <> ''"
        if coded
        else ""
    )
    depths = (
        f"SELECT c.patient_id, coalesce(max({graded}) FILTER (f.record IS NOT NULL), 0) AS depth FROM cohort c LEFT JOIN "
        f'(SELECT record, patient_id, {columns}CASE WHEN {_DATED} THEN {_day(chr(34) + "at" + chr(34))} END AS d FROM "{view}") f '
        f"USING (patient_id) {joined} GROUP BY 1"
    )
    sql = (
        f"WITH cohort AS MATERIALIZED ({_cohort(options)}), reached AS MATERIALIZED ({depths}) "
        "SELECT 'step', depth::VARCHAR, count(*), 0 FROM reached GROUP BY ALL UNION ALL "
        "SELECT 'sex', coalesce(d.sex, 'unknown'), count(*), count(*) FILTER (depth < 6) FROM reached LEFT JOIN demographic d USING (patient_id) GROUP BY ALL "
        "UNION ALL SELECT 'age', coalesce(d.age, 'unknown'), count(*), count(*) FILTER (depth < 6) FROM reached LEFT JOIN demographic d USING (patient_id) "
        "GROUP BY ALL ORDER BY ALL"
    )
    rows = con.execute(sql).fetchall()
    reached = {int(value): int(n) for kind, value, n, _ in rows if kind == "step"}
    of = sum(reached.values())
    by_step = [Counted(reached.get(i, 0), of, reached.get(i, 0), (("step", step),)) for i, step in enumerate(STEPS)]
    groups = [Counted(int(lost), int(n), int(lost), ((kind, value),)) for kind, value, n, lost in rows if kind != "step"]
    return [*by_step, *groups]


def waterfall(lost: list[int], of: int) -> str:
    """Return the patients left after each step, in words; a step that fewer than 11 patients fail is told with the next.

    >>> waterfall([0, 100, 0, 5, 20, 0], 1000)
    '1,000 patients → 1,000 with a record → 900 coded → 875 dated, in the window'
    """
    left, shown = of, []
    remaining = []
    for n in lost:
        left -= n
        remaining.append(left)
    below = remaining[-1]
    for (step, words), n in reversed(list(zip(STEPS.items(), remaining, strict=True))):
        last = step == "timed"
        if last or ((n - below == 0 or n - below >= _SMALL) and (of - n == 0 or of - n >= _SMALL)):
            shown.append(f"{n:,} {words}")
            below = n
    kept: list[str] = []
    for text in reversed(shown):  # a step that nobody fails says nothing new
        if not kept or text.partition(" ")[0] != kept[-1].partition(" ")[0] or text is shown[0]:
            kept.append(text)
    return " → ".join([f"{of:,} patients", *kept])


@check("completeness", whole=True, measured=_count)
def feature_available(
    profile: Profile,
    key: tuple[str, str],
    *,
    table: str,  # noqa: ARG001 - the options are what was counted, before
    codes: dict[str, list[str]] | None = None,  # noqa: ARG001
    units: list[str] | None = None,  # noqa: ARG001
    window_days: int = 0,  # noqa: ARG001
    min_age: int | None = None,  # noqa: ARG001
    max_age: int | None = None,  # noqa: ARG001
    having: list[str] | None = None,  # noqa: ARG001
) -> list[Outcome]:
    """Do the cohort's patients have what a feature of the model is made of?

    The message is the waterfall of patients: with a record, coded, in an accepted code system, with an accepted code, in an
    accepted unit, dated and in the window. A step that fewer than 11 patients fail is told together with the next.

    Numerator: patients of the cohort without a usable fact.
    Denominator: patients of the cohort.

    Options: `table`; `codes`, by code-system key (`*` at the end: any continuation); `units` (UCUM); `window_days` before the
    patient's last dated record (0: any time); the cohort: `min_age`, `max_age` (years at the last record), `having` (tables).
    """
    outcomes = custom.outcomes(profile, key)
    steps = [o for o in outcomes if "step" in o.group]
    if not steps:
        return outcomes
    by_step = {o.group["step"]: o for o in steps}
    lost = [by_step[step].n for step in STEPS]
    of = next((o.of for o in steps if o.of is not None), None)
    known = [n for n in lost if n is not None]
    if of is None or len(known) < len(lost):
        return skip("not-assessed", "a count is hidden (1-10 patients)")
    if not of:
        return skip("not-assessed", "no patient is of the contract's cohort")
    n = sum(known)
    detail = waterfall(known, of) if n == 0 or (n >= _SMALL and (of == n or of - n >= _SMALL)) else ""
    return [Outcome("unavailable", n, of, n, of, detail=detail, partition=f"feature {key[0]}")]


def _few(n: int | None) -> bool:
    return n is not None and 0 < n < _SMALL


@check("comparability", whole=True, measured=_count, decides=True)
def feature_by_group(
    profile: Profile,
    key: tuple[str, str],
    *,
    table: str,  # noqa: ARG001 - the options are what was counted, before
    attributes: list[str] | None = None,
    margin: float = 0.1,
    min_n: int = 50,
    codes: dict[str, list[str]] | None = None,  # noqa: ARG001
    units: list[str] | None = None,  # noqa: ARG001
    window_days: int = 0,  # noqa: ARG001
    min_age: int | None = None,  # noqa: ARG001
    max_age: int | None = None,  # noqa: ARG001
    having: list[str] | None = None,  # noqa: ARG001
) -> list[Outcome]:
    """Is a feature of the model available to all groups of patients alike?

    Numerator: patients of the group without a usable fact.
    Denominator: patients of the group that are in the cohort.
    Alarms when the group's share exceeds that of all others by the margin and the interval of the difference
    (Newcombe 1998, 99 % by Bonferroni over the groups) lies above zero.

    Options: those of `feature-available`; `attributes` (sex, age); `margin` (default 0.1); `min_n` (default 50) patients in
    the group and outside.
    """
    found: list[Outcome] = []
    hidden = False
    for attribute in attributes or ["sex", "age"]:
        outcomes = custom.outcomes(profile, key)
        if outcomes and outcomes[0].status:
            return outcomes[:1]
        everybody = [o for o in outcomes if attribute in o.group]
        # with the feature's own finding a group's number gives the others': each of them has to be no small cell
        few = any(_few(o.n) or _few(o.of) or _few((o.of or 0) - (o.n or 0)) for o in everybody)
        members = [o for o in everybody if o.group[attribute] != "unknown"]
        hidden |= any(o.n is None or o.of is None for o in members)
        whole = [(o, o.n, o.of) for o in members if o.n is not None and o.of is not None]
        for outcome, n, of in whole if len(whole) == len(members) > 1 else ():
            n_rest, of_rest = sum(m for o, m, _ in whole if o is not outcome), sum(m for o, _, m in whole if o is not outcome)
            if min(of, of_rest) < min_n:
                continue
            p = stats.rise_p_value(n / of, of, n_rest / of_rest, of_rest)
            interval = stats.newcombe(n / of, of, n_rest / of_rest, of_rest)
            effect = n / of - n_rest / of_rest
            alarm = effect >= margin and interval[0] > 0 and p * len(whole) <= 0.01
            found.append(
                Outcome(
                    "subgroup-gap", n, of, n, of, status="fail" if alarm else "pass", effect=effect, limit=margin, interval=interval, p=p,
                    group={attribute: outcome.group[attribute]}, partition=f"feature {key[0]} {attribute}", few=few,
                    detail=f"all others {100 * n_rest / of_rest:.1f} %, effective n {of:,} against {of_rest:,}", independent=(of, of_rest),
                )
            )  # fmt: skip
    alarms = [o for o in found if o.status == "fail"]
    if alarms:
        return alarms
    if not found:
        return (
            skip("not-assessed", "a count is hidden (1-10 patients)")
            if hidden
            else skip("not-applicable", f"no two groups of {min_n} patients")
        )
    return [max(found, key=lambda o: (o.effect or 0.0, sorted(o.group.items())))]


@check("release", looks_up=True, decides=True)
def release_pinned(
    profile: Profile, element: str, store: Store | None, *, system: str, releases: list[str], max_rate: float = 0.02, min_n: int = 30
) -> list[Outcome]:
    """Are the codes of the releases that the model contract names?

    What the codes themselves say goes first, where it is sure; else what the data declares.

    Numerator: codings that declare another release of the system; distinct codes of no accepted release where it is inferred.
    Denominator: codings that declare a release of the system; distinct codes that the release table knows where it is inferred.

    Options: `system`, its key; `releases`, the accepted ones (`FY2025`, `2.81`); `max_rate` (default 0.02), `min_n` (default 30).
    """
    wanted = set(releases)
    counts = declared(profile, element).get(system, {})
    seen = infer(profile, element, system, store)
    if seen is not None and seen.releases:
        accepted = [i for i, release in enumerate(seen.table.releases) if release.label in wanted]
        known = seen.positions[seen.positions >= 0]
        outside = int((~seen.table.valid[known][:, accepted].any(axis=1)).sum()) if accepted else len(known)
        others = sorted(set(seen.releases) - wanted)
        return [
            Outcome(
                "other-release", outside, len(known), people=False, status="pass" if not others else "fail", group={"system": system}, limit=max_rate,
                detail=f"the codes are of {', '.join(seen.releases)}; the contract accepts {', '.join(releases)}",
            )
        ]  # fmt: skip
    if any(value is None for pair in counts.values() for value in pair):
        return skip("not-assessed", "a count is hidden (1-10 patients)")
    stated = {release: (n or 0, people or 0) for release, (n, people) in counts.items() if release}
    of = sum(n for n, _ in stated.values())
    if of < min_n:
        why = (
            "no release table is loaded that tells it from the codes"
            if seen is None
            else seen.overall.reason or "the codes fit several releases"
        )
        return skip(
            "not-assessed" if counts else "not-applicable",
            f"{system}: fewer than {min_n} codings declare a release, and {why}" if counts else f"no codes of {system}",
        )
    other = {release: pair for release, pair in stated.items() if release not in wanted}
    n = sum(pair[0] for pair in other.values())
    return [
        Outcome(
            "other-release", n, of, max((people for _, people in other.values()), default=0), status="fail" if n / of > max_rate else "pass", limit=max_rate,
            group={"system": system}, detail=f"declared: {', '.join(sorted(stated))}; the contract accepts {', '.join(releases)}",
        )
    ]  # fmt: skip
