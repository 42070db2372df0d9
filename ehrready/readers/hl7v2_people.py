"""Patients and visits of HL7v2, which many messages describe: they wait until every file is read, so that the order of files cannot matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready import cells
from ehrready.engines.duckdb import quote
from ehrready.readers import hl7v2_concepts, hl7v2_sql
from ehrready.readers.arrays import batched, integers, numbers, strings
from ehrready.readers.hl7v2_rows import Waiting, are_null, coded
from ehrready.readers.hl7v2_sql import PLACE_BITS
from ehrready.readers.leaves import alike
from ehrready.tables import TABLES

if TYPE_CHECKING:
    import duckdb

    from ehrready.concepts import Wording

_KEY = {"patient": "patient_id", "visit": "encounter_id"}


def _names(entry: Mapping[str, Any]) -> list[str]:
    """Return the columns of what waits that are no number: those of which the latest value counts."""
    return ["site", *entry["columns"], *(f"r{i}" for i in range(len(entry["concepts"])))]


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the staging tables, empty."""
    for table, entry in hl7v2_sql.people():
        columns = ["record BIGINT", "message BIGINT", *(f'"{n}" VARCHAR' for n in ("patient_id", "encounter_id", "ts", *_names(entry)))]
        con.execute(f"CREATE OR REPLACE TEMP TABLE _hl7_all_{table} ({', '.join(columns)})")


def meets() -> dict[str, tuple[str, ...]]:
    """Return staging table to the key of its rows; a message without the key is a row of its own."""
    return {f"_hl7_all_{table}": (f"coalesce({_KEY[entry['key']]}, message::VARCHAR)",) for table, entry in hl7v2_sql.people()}


def stage(con: duckdb.DuckDBPyConnection, waiting: Waiting) -> None:
    """Let the patients or visits of a block wait."""
    con.register("staged", batched(_once(waiting)))
    con.execute(f"INSERT INTO _hl7_all_{waiting.table} BY NAME SELECT * FROM staged")
    con.unregister("staged")


def _once(waiting: Waiting) -> pa.Table:
    """Return rows that say the same of one patient or visit as one row, with the first record and the last time."""
    columns, key, record = waiting.columns, waiting.key, waiting.record
    n = len(record)
    unnamed = are_null(columns[key].dictionary)[numbers(columns[key].indices)]
    message = np.where(unnamed, record >> PLACE_BITS, -1)
    which, first = alike([*(column for name, column in columns.items() if name != "ts"), integers(message)], n)
    times = columns["ts"].dictionary
    times = times.fill_null(strings([b""]).cast(times.type)[0])  # a text of Python would import pandas
    order = numbers(pc.sort_indices(times)).astype(np.int64)
    rank = np.empty(len(times), np.int64)
    rank[order] = np.arange(len(times))
    latest = np.full(len(first), -1)
    np.maximum.at(latest, which, rank[numbers(columns["ts"].indices)])
    least = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(least, which, record)
    used = latest >= 0  # a dictionary may have a value that no row has
    first, least, latest = first[used], least[used], latest[used]
    taken = integers(first)
    made = {name: column.take(taken) for name, column in columns.items() if name != "ts"}
    made |= {"record": integers(least), "message": integers(least >> PLACE_BITS), "ts": coded(times, order[latest])}
    return pa.Table.from_arrays(list(made.values()), names=list(made))


def finish(con: duckdb.DuckDBPyConnection, wording: Wording, *, shared: bool) -> None:
    """Reduce the staged patients and visits to one row each and write them; the tables have their columns of numbers."""
    for table, entry in hl7v2_sql.people():
        # the greatest (time, value) of the values there are; a message without the key is a row of its own
        names = list(enumerate(_names(entry)))
        latest = [f'substr(m_{i}, strpos(m_{i}, chr(1)) + 1) AS "{name}"' for i, name in names]
        greatest = [f"max(coalesce(ts, '') || chr(1) || \"{name}\") AS m_{i}" for i, name in names]
        key = _KEY[entry["key"]]
        other = [f'NULL::VARCHAR AS "{name}"' for name in TABLES[table].names if name not in _KNOWN and name not in entry["columns"]]
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hl7_typed AS SELECT record, patient_id, encounter_id, {key} AS id, {', '.join([*latest, *other])} FROM ("
            f"SELECT min(record) AS record, patient_id, encounter_id, {', '.join(greatest)} FROM _hl7_all_{table} "
            f"GROUP BY patient_id, encounter_id, CASE WHEN {key} IS NULL THEN message END)"
        )
        con.execute(f"DROP TABLE _hl7_all_{table}")
        _write(con, table, entry, wording, shared=shared)
    wording.write(con, rest=True)


_KNOWN = frozenset({"record", "patient_id", "encounter_id", "site", "id"})


def _write(con: duckdb.DuckDBPyConnection, table: str, entry: Mapping[str, Any], wording: Wording, *, shared: bool) -> None:
    columns = {name: f't."{name}"' for name in ("record", "id", "patient_id", "encounter_id", "site", *entry["columns"])}
    columns["source_type"] = quote(entry["segment"])
    joins = ""
    for number in range(len(entry["concepts"])):
        texts = con.sql(f"SELECT DISTINCT r{number} AS r FROM _hl7_typed WHERE r{number} IS NOT NULL").to_arrow_table().column(0)
        given = integers(wording.numbers(texts, listed=False))
        con.register(f"_hl7_x{number}", batched(pa.Table.from_arrays([texts, given], names=["r", "x"])))
        columns[f"x{number}"] = f"x{number}.x"
        joins += f" LEFT JOIN _hl7_x{number} x{number} ON t.r{number} = x{number}.r"
    if shared:
        columns |= {"word": f"({' + '.join(cells.own_parts(table))})::BIGINT", "m": cells.MONTH.format("t.at")}
    wording.write(con)
    names = ", ".join(f'"{name}"' for name in columns)
    con.execute(f'INSERT INTO "{table}" ({names}) SELECT {", ".join(columns.values())} FROM _hl7_typed t{joins}')
    for number in range(len(entry["concepts"])):
        con.unregister(f"_hl7_x{number}")


def tables() -> tuple[str, ...]:
    """Return the tables that are filled when every file is read."""
    return tuple(table for table, _ in hl7v2_sql.people())


def layout() -> list[Any]:
    """Return the columns of numbers of these tables."""
    return hl7v2_concepts.layout(tables())
