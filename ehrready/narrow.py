"""The narrow tables: records as numbers, where a reader could take the short way (readers.tabular_narrow); and what measures read of them.

``narrow`` has a row per record of every table but patients, ``narrow_coding`` a row per coding with its OMOP concept id; ``of`` names the
rows of one table, since a statement binds every file of a view anew.  A person's number is its id; the states of elements are the digits
of ``digits`` (ehrready.cells).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ehrready import cells
from ehrready.engines.duckdb import quote
from ehrready.tables import SCALARS
from ehrready.tables import TABLES as TABLES_OF

if TYPE_CHECKING:
    import duckdb

#: Canonical columns that the short way knows.
COLUMNS = frozenset(
    [
        "id",
        "patient_id",
        "encounter_id",
        "site",
        "at",
        "end",
        "value_number",
        "value_text",
        "comparator",
        "unit",
        "unit_code",
        "range_low",
        "range_high",
    ]
)

_VALUES = {
    "c0": "BIGINT", "c1": "BIGINT", "value_kind": "VARCHAR", "value_number": "DOUBLE", "value_text": "VARCHAR", "value_declared": "VARCHAR",
    "comparator": "VARCHAR", "unit": "VARCHAR", "unit_code": "VARCHAR", "range_low": "DOUBLE", "range_high": "DOUBLE",
}  # fmt: skip
_NARROW = {
    "t": "INTEGER", "source_type": "VARCHAR", "record": "BIGINT", "p": "BIGINT", "e": "BIGINT", "id": "BIGINT", "site": "VARCHAR",
    "m": "INTEGER", "day": "DATE", "clock": "BIGINT", "used": "INTEGER", "digits": "BIGINT",
}  # fmt: skip
_CODING = {"el": "INTEGER", "record": "BIGINT", "position": "INTEGER", "p": "BIGINT", "e": "BIGINT", "m": "INTEGER", "cid": "BIGINT"}
CONCEPTS = "narrow_concept"
#: First characters of the texts that ``null_token`` knows (upper case, and what stands before them).
_FIRST = quote('UuNnSs\u017f-.?#<(\\" \t\r\n')


def null_token(text: str) -> str:
    """Return the SQL of ``null_token``, the search spared where the first character tells."""
    return f"(CASE WHEN {text} <> '' AND strpos({_FIRST}, left({text}, 1)) = 0 THEN false ELSE null_token({text}) END)"


def of(table: str) -> str:
    """Return the name of the view of a canonical table's narrow rows."""
    return f"narrow_{table}"


def views(rows: Mapping[str, Sequence[str]], codings: Sequence[str]) -> list[str]:
    """Return the statements that make ``narrow``, its tables and ``narrow_coding`` views of these SELECTs; ``rows`` by canonical table."""
    whole = " UNION ALL ".join(f"SELECT * FROM {of(table)}" for table in rows) or f"SELECT * FROM {of('encounter')}"
    parts = [(of(table), _NARROW | _VALUES, rows.get(table, ())) for table in TABLES_OF if table != "patient"]
    made = []
    for name, columns, selects in (*parts, ("narrow", {}, [whole]), ("narrow_coding", _CODING, codings)):
        none = f"SELECT {', '.join(f'NULL::{kind} AS {column}' for column, kind in columns.items())} WHERE false"
        made.append(f"CREATE VIEW {name} AS {' UNION ALL '.join(selects or [none])}")
    return made


def drop() -> list[str]:
    """Return the statements that remove the views."""
    return [f"DROP VIEW IF EXISTS {name}" for name in ("narrow", "narrow_coding", *map(of, TABLES_OF))]


#: What the numbers cannot say: a person's id that is no positive number, a year before 1000 or after 9999.
OUTSIDE = "p <= 0 OR (m <> -1 AND (m < 100000 OR m > 999912)) OR (used IS NOT NULL AND (used < 100000 OR used > 999912))"


#: What ehrready.values reads of the results.
RESULTS = (
    "(SELECT record, p, c0, c1, clock, value_kind, value_number, value_text, value_declared, comparator, unit, unit_code, NULL::VARCHAR absent_reason "
    "FROM narrow_observation)"
)


def month(at: str) -> str:
    """Return the SQL of the number of a time's month, -1 without one."""
    return f"CASE WHEN {at} IS NULL THEN -1 WHEN isinf({at}) THEN 0 ELSE year({at}) * 100 + month({at}) END"


def there(con: Any) -> bool:
    """Whether the short way was taken."""
    import duckdb

    if not isinstance(con, duckdb.DuckDBPyConnection):
        return False  # another engine reads the canonical tables
    return bool(con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'narrow'").fetchone())


def select(table: str, source_type: str, source: str, given: set[str]) -> str:
    """Return the SELECT of the rows of a table; ``source`` has the columns ``given`` and, as ``concepts``, the digits of the concepts."""
    digits, states = cells.DIGIT, ["concepts"]
    for element, (of, column) in SCALARS.items():
        if of == table:
            name = {"patient_id": "p", "encounter_id": "e"}.get(column, column)
            # the CDM has no status
            state = (
                str(digits["missing"])
                if name not in given
                else f'CASE WHEN "{name}" IS NULL THEN {digits["missing"]} ELSE {digits["present"]} END'
            )
            states.append(f"({state}) * {1 << cells.shift(element)}")
    if table == "observation":
        value = (
            f"CASE WHEN value_kind = 'text' AND null_token(value_text) THEN {digits['null-token']} WHEN value_kind IS NOT NULL THEN "
            f"{digits['present']} ELSE {digits['missing']} END"
        )
        unit = (
            f"CASE WHEN value_kind IS DISTINCT FROM 'number' THEN 0 WHEN coalesce(unit, unit_code) IS NULL THEN {digits['missing']} "
            f"WHEN {null_token('coalesce(unit, unit_code)')} THEN {digits['null-token']} ELSE {digits['present']} END"
        )
        states += [f"({value}) * {1 << cells.shift('observation.value')}", f"({unit}) * {1 << cells.shift('observation.unit')}"]
    flags = {"record": "true"}
    if table in cells.DATED:
        flags["clocked"] = 'clocked AND "at" IS NOT NULL'
        flags["midnight"] = 'clocked AND "at" IS NOT NULL AND "at" = date_trunc(\'day\', "at")'
    if table in cells.ENDED:
        flags["ended"] = '"at" IS NOT NULL AND "end" IS NOT NULL'
        flags["end-before-start"] = (
            '"at" IS NOT NULL AND "end" IS NOT NULL AND CASE WHEN clocked AND end_clocked THEN "end" < "at" ELSE "end"::DATE < "at"::DATE END'
        )
    states += [f"(CASE WHEN {test} THEN {cells.mask(flag)} ELSE 0 END)" for flag, test in flags.items()]
    clock = 'CASE WHEN clocked AND (hour("at") <> 0 OR minute("at") <> 0) THEN epoch_us("at") // 1000000 END'
    used = month('coalesce("end", "at")') if table == "encounter" else "NULL"
    if table == "encounter":
        used = f'CASE WHEN coalesce("end", "at") IS NOT NULL THEN {used} END'
    values = {
        "t": str(cells.NUMBER[table]), "source_type": quote(source_type), "record": "record", "p": "p", "e": "e", "id": "id", "site": "site",
        "m": month('"at"'), "day": '"at"::DATE', "clock": clock, "used": used, "digits": " + ".join(states),
    }  # fmt: skip
    values |= {name: name if name in given else "NULL" for name in _VALUES}
    return f"SELECT {', '.join(f'({values[name]})::{kind} AS {name}' for name, kind in (_NARROW | _VALUES).items())} FROM {source}"


def coding(values: Sequence[str], source: str) -> str:
    """Return the SELECT of codings; ``values`` are in the order of the columns."""
    return f"SELECT {', '.join(f'({sql})::{kind} AS {name}' for sql, (name, kind) in zip(values, _CODING.items(), strict=True))} {source}"


def tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the canonical tables that have narrow rows."""
    if not there(con):
        return []
    return [str(row[0]) for row in con.execute("SELECT name FROM narrow_table ORDER BY t").fetchall()]


def duplicates(con: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int, int]:
    """Return surplus records under an id given twice, records with an id, and the patients of ids given twice.

    Ids are compared in runs of 64: a run whose bits are as many as its records has none twice, so that few groups are made.
    """
    where, run, rows = "id IS NOT NULL", "source_type, id >> 6", of(table)
    total = con.execute(f"SELECT count(*) FROM {rows} WHERE {where}").fetchone() or (0,)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE suspect AS SELECT source_type, id >> 6 AS run FROM {rows} WHERE {where} GROUP BY {run} "
        "HAVING count(*) <> bit_count(bit_or(1::UBIGINT << (id & 63)::UBIGINT))"
    )
    if not con.execute("SELECT 1 FROM suspect LIMIT 1").fetchone():
        return 0, int(total[0]), 0
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE twice AS SELECT source_type, id, count(*) - 1 n FROM {rows} n SEMI JOIN suspect s "
        f"ON n.source_type = s.source_type AND (n.id >> 6) = s.run WHERE {where} GROUP BY 1, 2 HAVING count(*) > 1"
    )
    row = con.execute(
        f"SELECT (SELECT coalesce(sum(n), 0) FROM twice), (SELECT count(DISTINCT p) FROM {rows} n SEMI JOIN twice w "
        f"ON n.source_type = w.source_type AND n.id = w.id WHERE {where})"
    ).fetchone() or (0, 0)
    return int(row[0]), int(total[0]), int(row[1])


def shared_visits(con: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Return the encounters that are of several patients, those of any, and the first patients (by id as text) of the former."""
    row = con.execute("SELECT count(CASE WHEN low <> high THEN 1 END), count(*) FROM visit WHERE low IS NOT NULL").fetchone() or (0, 0)
    first = con.execute(
        f"SELECT count(DISTINCT lowest) FROM (SELECT min(n.p::VARCHAR) lowest FROM {of('encounter')} n JOIN visit v ON n.e = v.e WHERE v.low <> v.high "
        "GROUP BY n.e)"
    ).fetchone() or (0,)
    return int(row[0]), int(row[1]), int(first[0])


def joined(table: str, several: bool = False) -> str:
    """Return the SQL of a table's narrow rows with the patient (``a``), the visit (``v``) and the combo of each record."""
    real, dated = "n.p IS NOT NULL", "n.day IS NOT NULL"
    other = "NOT EXISTS (SELECT 1 FROM known_pair k WHERE k.e = n.e AND k.p = n.p)" if several else "n.p <> v.low AND n.p <> v.high"
    flags = {"patient": real, "patient-unresolved": f"{real} AND NOT coalesce(a.exported, false)"}
    if table in cells.DATED:
        flags |= {"born": f"{dated} AND a.born_day IS NOT NULL", "before-birth": f"{dated} AND n.day < a.born_day"}
    if table in cells.CARE:
        flags |= {"died": f"{dated} AND a.died_day IS NOT NULL", "after-death": f"{dated} AND n.day > a.died_day"}
    if table != "encounter":
        flags |= {
            "visit": "n.e IS NOT NULL", "visit-unresolved": "n.e IS NOT NULL AND v.e IS NULL",
            "visit-of": f"v.low IS NOT NULL AND {real}", "visit-of-another": f"v.low IS NOT NULL AND {real} AND {other}",
        }  # fmt: skip
    combo = " + ".join(["n.digits", *(f"(CASE WHEN {test} THEN {cells.mask(flag)} ELSE 0 END)" for flag, test in flags.items())])
    return (
        f"(SELECT n.record, n.p, coalesce(s.place, v.place, a.place) AS place, n.m, {combo} AS combo FROM {of(table)} n LEFT JOIN person a ON n.p = a.p "
        f"LEFT JOIN visit v ON n.e = v.e LEFT JOIN place s ON n.site = s.site)"
    )
