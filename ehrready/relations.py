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
from ehrready.valuesets import VALUE_SETS

if TYPE_CHECKING:
    import duckdb


#: Results whose duplicates are looked for in one statement.
AT_ONCE = 8_000_000


def apart(con: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> tuple[Frame, Frame]:
    """Return the rows of ``relations`` about ids, and ``categories``: of the canonical tables alone, no matter what else was measured."""
    ids: Frame = {}
    categories: Frame = {}
    _ids(con, ids, tables)
    _categories(con, categories, tables)
    return ids, categories


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], tables: Sequence[str], found: tuple[Frame, Frame]) -> None:
    """Fill ``categories`` and the rows of ``relations`` about identities, with what :func:`apart` ``found``; flags of a record are ehrready.states."""
    frame = frames["relations"]
    frame.update(found[0])
    _copies(con, frame, tables)
    _visits(con, frame, tables)
    frames["categories"].update(found[1])


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
        total = con.execute(f'SELECT count(*) FROM "{table}" WHERE {where}').fetchone()
        if total and total[0]:
            con.execute(
                f'CREATE OR REPLACE TEMP TABLE twice AS SELECT source_type, id, count(*) - 1 n FROM "{table}" WHERE {where} '
                "GROUP BY 1, 2 HAVING count(*) > 1"
            )
            row = con.execute(
                "SELECT (SELECT coalesce(sum(n), 0) FROM twice), (SELECT count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END) FROM "
                f'"{table}" JOIN twice USING (source_type, id) WHERE excluded IS NULL)'
            ).fetchone() or (0, 0)
            frame[f"{table}.id", "duplicate-id"] = (int(row[0]), int(total[0]), int(row[1]))


def _copies(con: duckdb.DuckDBPyConnection, frame: Frame, tables: Sequence[str]) -> None:
    """Count surplus records: the same number for a patient, code and time of day."""
    if "observation" not in tables:
        return
    short = narrow.tables(con)
    told, kind, own, rows = "reading", "source_type", "o.encounter_id, o.status", "observation"
    if "observation" in short:
        told, kind, own, rows = (
            narrow.of("observation"),
            "src",
            "o.e",
            f"(SELECT * FROM {narrow.of('observation')} JOIN narrow_detail USING (record))",
        )
    timed = "clock IS NOT NULL AND v IS NOT NULL AND p IS NOT NULL"
    # few are there twice: they are looked for by one number first, which has the code where it is at hand
    short_way = "observation" in short
    # half of it, since what is alike is looked at again: it is sorted in half the time
    timed, number = (timed, "(hash(p, clock, v) >> 32)::UINTEGER") if short_way else (f"{timed} AND r > 0", "hash(p, r, clock, v)")
    _alike(con, f"SELECT {number} AS h FROM {told} n WHERE {timed}", told)
    found, timed = f"{told} WHERE {timed} AND {number} IN (SELECT h FROM alike)", f"{timed} AND r > 0"
    if short_way:
        # in a table of their own: in one statement the engine joins all results to all of them
        con.execute(f"CREATE TEMP TABLE alike_record AS SELECT record FROM {found}")
        found = f"reading WHERE record IN (SELECT record FROM alike_record) AND {timed}"
    con.execute(f"CREATE TEMP TABLE same AS SELECT p, r, clock, v FROM {found} GROUP BY ALL HAVING count(*) > 1")
    con.execute(
        # a copy under the same id is a duplicate-id and counted there
        f"CREATE TEMP TABLE copies AS SELECT s.p, s.r, s.clock, s.v, {own}, o.unit, o.unit_code, o.range_low, o.range_high, "
        f"count(DISTINCT coalesce(o.{kind} || ' ' || o.id, o.record::VARCHAR)) c FROM same s JOIN reading g USING (p, r, clock, v) JOIN {rows} o "
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


def _alike(con: Any, hashes: str, rows: str) -> None:
    """Create ``alike``: the hashes of some ``rows`` (``n``) that are there twice, each of a patient's.

    Sorted they stand side by side, and NumPy sorts them sooner than the engine makes as many groups as rows.  More than
    ``AT_ONCE`` are looked at in parts, since there may not be memory for all at once.
    """
    if not is_duckdb(con):  # another engine has other means, and other hashes
        con.execute(f"CREATE TEMP TABLE alike AS SELECT h FROM ({hashes}) GROUP BY h HAVING count(*) > 1")
        return
    (results,) = con.execute(f"SELECT count(*) FROM {rows}").fetchall()[0]
    found = []
    parts = bypatient.parts(con, rows, int(results) // AT_ONCE + 1, sampled=AT_ONCE >= bypatient.LITTLE)
    for among in parts[:-1] or parts:  # what has no patient is no copy
        hashed = numbers(con.sql(hashes + among).to_arrow_table().column("h"))
        ordered = np.sort(hashed.view(f"u{hashed.itemsize}"))
        found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
    con.register("_alike", pa.Table.from_arrays([integers(np.concatenate(found)).view(pa.uint64())], names=["h"]))
    con.execute("CREATE TEMP TABLE alike AS SELECT h FROM _alike")
    con.unregister("_alike")


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
        if table not in tables:
            continue
        known = {family: f"({', '.join(map(quote, sorted(values)))})" for family, values in sets.items()}
        if table in short:  # the CDM has no administrative code of a record
            row = con.execute(f"SELECT count(*), count(DISTINCT p) FROM {narrow.of(table)}").fetchone() or (0, 0)
            frame[element, ""] = (int(row[0]), int(row[1]))
            continue
        value = (
            f"CASE WHEN v IS NULL THEN '' WHEN is_absent(v) THEN '?absent' WHEN null_token(v) AND lower(v) <> 'unknown' THEN '?null-token' WHEN lower(v) IN "
            f"{known['fhir']} THEN lower(v) WHEN length(source_type) = 3 AND upper(v) IN {known.get('hl7v2', known['fhir'])} THEN upper(v) ELSE '?other' END"
        )
        source = f'SELECT "{column}" v, source_type, patient_id, count(*) n FROM "{table}" WHERE excluded IS NULL GROUP BY ALL'
        rows = con.execute(
            f"SELECT {value} category, sum(n), count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END) FROM "
            f"({source}) GROUP BY 1"
        ).fetchall()
        frame.update({(element, str(name)): (int(n), int(patients)) for name, n, patients in rows})
