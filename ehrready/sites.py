"""One site's part of a profile: what a rule with limits by site is judged on.

The states of elements (frame ``states``) are measured by site for every site, since it costs next to nothing.  What other checks
read is not: only where a rule has limits for a site, the site's records become tables of their own and are measured like the
whole (``Profile.sites``), and the records of all other sites together likewise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ehrready.engines.duckdb import quote
from ehrready.profile import Frame, Profile, Values, empty, merged
from ehrready.tables import ALL, TABLES

if TYPE_CHECKING:
    import duckdb

    from ehrready.rules import Rule

#: The records of no named site.
OTHERS = "other-sites"
#: Why a rule by site has nothing to judge.
NO_RECORDS = "no records of this table"
#: Tables with rows of the records of others.
_LONG = tuple(name for name, schema in ALL.items() if name not in TABLES and "record" in schema.names)
#: Frames that are not measured by site: of files, of columns without a mapping, of what rules count, of pairs of defects, of models.
WHOLE_ONLY = ("ledger", "declared", "types", "columns", "custom", "overlaps", "predictions", "scores", "clusters", "runs")


def to_measure(rules: Sequence[Rule]) -> list[str]:
    """Return the sites whose records must be measured apart: those of rules whose check reads more than states."""
    from ehrready.checks import CHECKS

    return sorted({site for rule in rules for site, _ in rule.sites if not CHECKS[rule.check].by_state})


@contextlib.contextmanager
def alone(con: duckdb.DuckDBPyConnection, site: str, named: Sequence[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection whose canonical tables hold one site's records (of ``OTHERS``: those of none of the ``named``).

    A record is of its own site, else of its encounter's, else of its patient's.  Encounters and patients of other sites that it
    refers to come with it, so that links are resolved and times compared as in the whole.
    """
    wanted = f"NOT IN ({', '.join(map(quote, named))})" if site == OTHERS else f"= {quote(site)}"
    part = con.cursor()  # temporary tables are a connection's own, and stand before those of the same name in the database
    try:
        part.execute(
            "CREATE TEMP TABLE _home AS SELECT patient_id, min(site) site FROM patient WHERE patient_id IS NOT NULL GROUP BY 1;"
            "CREATE TEMP TABLE _stay AS SELECT id, min(site) site FROM encounter WHERE id IS NOT NULL GROUP BY 1"
        )
        for table in TABLES:
            stay = "id" if table == "encounter" else "encounter_id"
            part.execute(
                f'CREATE TEMP TABLE "_{table}" AS SELECT t.* FROM "{table}" t LEFT JOIN _home a ON t.patient_id = a.patient_id '
                f"LEFT JOIN _stay v ON t.{stay} = v.id WHERE coalesce(t.site, v.site, a.site, '') {wanted}"
            )
        for table, key in (("encounter", "encounter_id"), ("patient", "patient_id")):
            own = "id" if table == "encounter" else "patient_id"
            named_there = " UNION ".join(f'SELECT {key} AS k FROM "_{other}" WHERE {key} IS NOT NULL' for other in TABLES if other != table)
            part.execute(
                f'INSERT INTO "_{table}" SELECT t.* FROM "{table}" t SEMI JOIN ({named_there}) r ON t.{own} = r.k '
                f'ANTI JOIN (SELECT {own} AS k FROM "_{table}" WHERE {own} IS NOT NULL) h ON t.{own} = h.k'
            )
        records = " UNION ALL ".join(f'SELECT {quote(table)} AS tbl, record FROM "_{table}"' for table in TABLES)
        for table in _LONG:
            of = "split_part(t.element, '.', 1)" if "element" in ALL[table].names else "'observation'"
            part.execute(
                f"CREATE TEMP TABLE _{table} AS SELECT t.* FROM {table} t SEMI JOIN (SELECT DISTINCT tbl, record FROM ({records})) k "
                f"ON t.record = k.record AND {of} = k.tbl"
            )
        for table in (*TABLES, *_LONG):
            part.execute(f'ALTER TABLE "_{table}" RENAME TO "{table}"')
        yield part
    finally:
        part.close()


def kept(frames: dict[str, Frame]) -> dict[str, Frame]:
    """Return the frames of a site's part without those that are of the whole only."""
    return {name: {} if name in WHOLE_ONLY else frame for name, frame in frames.items()}


def only(profile: Profile, rule: Rule, element: str, site: str) -> Profile | None:
    """Return the profile as if it held a site's records only; None where it does not keep the site apart."""
    if not _by_state(rule):
        return _part(profile, profile.sites[site]) if site in profile.sites else None
    return _states(profile, {(element, "all", "", key[3]): values for key, values in profile.rows("states", element, "site", site)})


def others(profile: Profile, rule: Rule, element: str) -> Profile | None:
    """Return the profile as if it held the records that are of none of the rule's sites; None where it does not keep them apart.

    Records and moments of states are differences.  Patients seen at several sites make the difference of patients a lower bound
    there, and the sum of the sites' patients an upper bound elsewhere.
    """
    named = [site for site, _ in rule.sites]
    if not _by_state(rule):
        return without(profile, named) if OTHERS in profile.sites else None
    left: Frame = {}
    for key, values in profile.rows("states", element, "all", ""):
        gone = [profile.frames["states"].get((element, "site", site, key[3]), (0, 0, 0, 0)) for site in named]
        left[key] = _minus(values, gone)
    return _states(profile, left)


def without(profile: Profile, named: Sequence[str]) -> Profile:
    """Return a profile that keeps its sites apart as if it held the records that are of none of some sites."""
    rest = empty()
    for site, part in sorted(profile.sites.items()):
        rest = rest if site in named else merged(rest, part)
    return _part(profile, rest)


def _by_state(rule: Rule) -> bool:
    from ehrready.checks import CHECKS

    return CHECKS[rule.check].by_state


def _minus(values: Values, gone: Sequence[Values]) -> Values:
    if any(value is None for row in (values, *gone) for value in row):
        return tuple(None for _ in values)
    left = [max((value or 0) - sum(row[i] or 0 for row in gone), 0) for i, value in enumerate(values)]
    left[1] = max(left[1], 1) if left[0] else 0
    return tuple(left)


def _states(profile: Profile, states: Frame) -> Profile:
    frames = {name: dict(frame) if name in {"ledger", "volume"} else {} for name, frame in profile.frames.items()}
    frames["states"] = states
    return Profile(profile.name, profile.internal, frames, profile.source_elements)


def _part(profile: Profile, part: dict[str, Frame]) -> Profile:
    return Profile(profile.name, profile.internal, {**part, "ledger": profile.frames["ledger"]}, profile.source_elements)
