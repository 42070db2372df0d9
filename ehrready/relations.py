"""Relations between records: identity and administrative codes; those of a record to its patient and encounter are flags (ehrready.cells).

Exact counts ``n`` of ``of`` with their patients, one row per element and kind.  They add over sources that share no
patient (docs/checks.md, conventions).  An element whose table or target was not exported has no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ehrready import bypatient, narrow
from ehrready.engines.duckdb import is_duckdb, quote
from ehrready.profile import Frame
from ehrready.readers.arrays import integers, numbers
from ehrready.tables import table_of
from ehrready.valuesets import VALUE_SETS

if TYPE_CHECKING:
    import duckdb


#: Results whose duplicates are looked for in one statement.
AT_ONCE = 8_000_000
#: A number of a patient with a time of day.
_TIMED = "clock IS NOT NULL AND v IS NOT NULL AND p IS NOT NULL"


def apart(con: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> tuple[Frame, Frame]:
    """Return the rows of ``relations`` about ids, and ``categories``: of the canonical tables alone, no matter what else was measured."""
    ids: Frame = {}
    categories: Frame = {}
    _ids(con, ids, tables)
    _categories(con, categories, tables)
    return ids, categories


def measure(
    con: duckdb.DuckDBPyConnection,
    frames: dict[str, Frame],
    tables: Sequence[str],
    found: tuple[Frame, Frame],
    same: bypatient.Numbers | None = None,
) -> None:
    """Fill ``categories`` and the rows of ``relations`` about identities, with what :func:`apart` ``found``; flags of a record are ehrready.states.

    ``same``: what :func:`alike` found where it was asked beside.
    """
    frame = frames["relations"]
    frame.update(found[0])
    _copies(con, frame, tables, same)
    _visits(con, frame, tables)
    frames["categories"].update(found[1])
    short = narrow.tables(con)
    for element in VALUE_SETS:
        if table_of(element) in short:  # the CDM has no administrative code of a record: all lack it
            frames["categories"][element, ""] = frames["states"][element, "all", "", "*"][:2]


def _ids(con: duckdb.DuckDBPyConnection, frame: Frame, tables: Sequence[str]) -> None:
    """Count surplus records: an id given twice within its type."""
    short = narrow.tables(con)
    for table in tables:
        if table in short:
            n, of, patients = narrow.duplicates(con, table)
            if of:
                frame[f"{table}.id", "duplicate-id"] = (n, of, patients)
            continue
        # in HL7v2 patients and visits are made one per key by the reader, and nothing else has an id
        where = "id IS NOT NULL AND excluded IS NULL AND source_type NOT IN ('PID', 'PV1')"
        grouped = f'SELECT source_type, id, count(*) n FROM "{table}" WHERE {where} GROUP BY source_type, id'
        total, once = con.execute(f"SELECT coalesce(sum(n), 0), count(*) FROM ({grouped})").fetchall()[0]
        patients = 0
        if total > once:
            found = con.execute(
                f'SELECT count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END) FROM "{table}" JOIN '
                f"({grouped} HAVING count(*) > 1) USING (source_type, id) WHERE excluded IS NULL"
            ).fetchall()
            patients = int(found[0][0])
        if total:
            frame[f"{table}.id", "duplicate-id"] = (int(total) - int(once), int(total), patients)


def _copies(con: duckdb.DuckDBPyConnection, frame: Frame, tables: Sequence[str], found: bypatient.Numbers | None) -> None:
    """Count surplus records: the same number for a patient, code and time of day; ``found`` is what :func:`alike` has found already."""
    if "observation" not in tables:
        return
    rows, number = _hashed(con)
    if found is None:
        found = alike(con, tables)
    if found is not None and not len(found):  # as usual
        (results,) = con.execute("SELECT n FROM timed").fetchall()[0]
        frame["observation.code", "duplicate-record"] = frame["observation.code", "near-duplicate"] = (0, int(results), 0)
        return
    timed = f"{_TIMED} AND r > 0"
    if found is None:  # another engine has other means, and other hashes
        con.execute(
            f"CREATE TEMP TABLE alike AS SELECT h FROM (SELECT {number} AS h FROM {rows} WHERE {timed}) GROUP BY h HAVING count(*) > 1"
        )
    else:
        con.register("_alike", pa.Table.from_arrays([integers(found).view(pa.uint64())], names=["h"]))
        con.execute("CREATE TEMP TABLE alike AS SELECT h FROM _alike")
        con.unregister("_alike")
    if rows == "reading":
        kind, own, details, same = (
            "source_type",
            "o.encounter_id, o.status",
            "observation",
            f"reading WHERE {timed} AND {number} IN (SELECT h FROM alike)",
        )
    else:
        kind, own, details = "src", "o.e", f"(SELECT * FROM {rows} JOIN narrow_detail USING (record))"
        # in a table of their own: in one statement the engine joins all results to all of them
        con.execute(f"CREATE TEMP TABLE alike_record AS SELECT record FROM {rows} WHERE {_TIMED} AND {number} IN (SELECT h FROM alike)")
        same = f"reading WHERE record IN (SELECT record FROM alike_record) AND {timed}"
    con.execute(f"CREATE TEMP TABLE same AS SELECT p, r, clock, v FROM {same} GROUP BY ALL HAVING count(*) > 1")
    con.execute(
        # a copy under the same id is a duplicate-id and counted there
        f"CREATE TEMP TABLE copies AS SELECT s.p, s.r, s.clock, s.v, {own}, o.unit, o.unit_code, o.range_low, o.range_high, "
        f"count(DISTINCT coalesce(o.{kind} || ' ' || o.id, o.record::VARCHAR)) c FROM same s JOIN reading g USING (p, r, clock, v) JOIN {details} o "
        "USING (record) GROUP BY ALL"
    )
    row = con.execute(
        "SELECT (SELECT n FROM timed), coalesce(sum(c - 1), 0), count(DISTINCT CASE WHEN c > 1 THEN p END) FROM copies"
    ).fetchone() or (0, 0, 0)
    near = con.execute(
        "SELECT coalesce(sum(k - 1), 0), count(DISTINCT CASE WHEN k > 1 THEN p END) FROM (SELECT p, count(*) k FROM copies GROUP BY p, r, clock, v)"
    ).fetchone() or (0, 0)
    frame["observation.code", "duplicate-record"] = (int(row[1]), int(row[0]), int(row[2]))
    frame["observation.code", "near-duplicate"] = (int(near[0]), int(row[0]), int(near[1]))


def _hashed(con: Any) -> tuple[str, str]:
    """Return a table of results and the SQL of a number of each that those which are there twice share: few do.

    Narrow results are as they are read, so that they can be looked at beside other work; their codes are not at hand.
    """
    if "observation" in narrow.tables(con):
        return narrow.of("observation"), "hash(p, clock, v)"
    return "reading", "hash(p, r, clock, v)"


def alike(con: Any, tables: Sequence[str]) -> bypatient.Numbers | None:
    """Return the numbers (``_hashed``) that more than one result of a patient has; None where the engine is to look for them.

    Sorted they stand side by side, and NumPy sorts them sooner than the engine makes as many groups as rows.  More than
    ``AT_ONCE`` are looked at in parts, since there may not be memory for all at once.
    """
    if "observation" not in tables or not is_duckdb(con):
        return None
    rows, number = _hashed(con)
    timed = _TIMED if rows != "reading" else f"{_TIMED} AND r > 0"
    (results,) = con.execute(f"SELECT count(*) FROM {rows}").fetchall()[0]
    found = []
    parts = bypatient.parts(con, rows, int(results) // AT_ONCE + 1, sampled=AT_ONCE >= bypatient.LITTLE)
    for among in parts[:-1] or parts:  # what has no patient is no copy
        hashed = numbers(con.sql(f"SELECT {number} AS h FROM {rows} n WHERE {timed}{among}").to_arrow_table().column("h"))
        ordered = hashed.view(np.uint64)
        if ordered.flags.writeable:
            ordered.sort()
        else:
            ordered = np.sort(ordered)
        del hashed
        found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
    return np.concatenate(found)


def _visits(con: duckdb.DuckDBPyConnection, frame: Frame, tables: Sequence[str]) -> None:
    """Count encounters that are of several patients."""
    if "encounter" in tables:
        if "encounter" in narrow.tables(con):
            frame["encounter.id", "several-patients"] = narrow.shared_visits(con)
            return
        patient = "CASE WHEN NOT is_absent(patient_id) THEN patient_id END"
        row = con.execute(
            "SELECT count(CASE WHEN lowest <> highest THEN 1 END), count(*), count(DISTINCT CASE WHEN lowest <> highest THEN lowest END) FROM "
            f"(SELECT min({patient}) lowest, max({patient}) highest FROM encounter WHERE id IS NOT NULL AND excluded IS NULL GROUP BY id) WHERE lowest IS NOT NULL"
        ).fetchone() or (0, 0, 0)
        frame["encounter.id", "several-patients"] = (int(row[0]), int(row[1]), int(row[2]))


def _categories(con: duckdb.DuckDBPyConnection, frame: Frame, tables: Sequence[str]) -> None:
    """Count administrative codes; a value that no value set has is pooled."""
    short = narrow.tables(con)
    for element, sets in VALUE_SETS.items():
        table, _, column = element.partition(".")
        if table not in tables or table in short:
            continue
        known = {family: f"({', '.join(map(quote, sorted(values)))})" for family, values in sets.items()}
        value = (
            f"CASE WHEN v IS NULL THEN '' WHEN is_absent(v) THEN '?absent' WHEN {narrow.null_token('v')} AND lower(v) <> 'unknown' THEN '?null-token' WHEN lower(v) IN "
            f"{known['fhir']} THEN lower(v) WHEN length(source_type) = 3 AND upper(v) IN {known.get('hl7v2', known['fhir'])} THEN upper(v) ELSE '?other' END"
        )
        source = f'SELECT "{column}" v, source_type, patient_id, count(*) n FROM "{table}" WHERE excluded IS NULL GROUP BY ALL'
        rows = con.execute(
            f"SELECT {value} category, sum(n), count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END) FROM "
            f"({source}) GROUP BY 1"
        ).fetchall()
        frame.update({(element, str(name)): (int(n), int(patients)) for name, n, patients in rows})
