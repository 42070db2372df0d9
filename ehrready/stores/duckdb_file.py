"""``duckdb:///path/file.db[?schema=main]``: the tables and views of a DuckDB file, attached read-only.

The file is opened by an engine of its own without access to other files or the network, so that a view in it
cannot reach anything else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from ehrready.errors import UsageError
from ehrready.stores.tables import Store, TablePath, parameters, plain

if TYPE_CHECKING:
    import duckdb

#: Types that Parquet or the readers hold otherwise are read as these.
_READ_AS = {
    "HUGEINT": "DECIMAL(38, 0)",
    "UHUGEINT": "VARCHAR",
    "BIGNUM": "VARCHAR",
    "UUID": "VARCHAR",
    "INTERVAL": "VARCHAR",
    "BIT": "VARCHAR",
}
_ROWS = 122_880


def opened(_kind: str, rest: str, place: str) -> Sequence[TablePath]:
    """Return the tables of a DuckDB file; raises UsageError when it cannot be opened."""
    import duckdb

    path, given = parameters(rest, ("schema",), place)
    path = unquote(path)
    if not Path(path).is_file():
        raise UsageError(f"{place}: there is no such DuckDB file: give duckdb:///absolute/path/file.db")
    try:
        con = duckdb.connect(
            path,
            read_only=True,
            config={
                "enable_external_access": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "preserve_insertion_order": True,
                "threads": os.cpu_count() or 1,
            },
        )
    except duckdb.Error as error:
        raise UsageError(f"{place}: {_why(str(error).lower())}") from None
    store = Store(con.close)
    wanted = [name for name in given.get("schema", "").split(",") if name]
    columns = con.execute(
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "AND database_name = current_database() ORDER BY schema_name, table_name, column_index"
    ).fetchall()
    tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for schema, table, column, type_ in columns:
        if not wanted or schema in wanted:
            tables.setdefault((schema, table), []).append((column, type_))
    if missing := [name for name in wanted if name not in {schema for schema, *_ in columns}]:
        con.close()
        raise UsageError(f"{place}: {len(missing)} of the schemas named are not there or hold no table")
    for (schema, table), listed in tables.items():
        _table(store, con, path, schema, table, listed)
    return once(store, place)


def once(store: Store, place: str) -> list[TablePath]:
    """Return the tables of a store; raises UsageError when two schemas have one of the same name, for then patients would count twice."""
    names = [table.name.lower() for table in store.tables]
    if twice := len(names) - len(set(names)):
        store.close()
        raise UsageError(f"{place}: {twice} table(s) stand in more than one schema: say which with ?schema=NAME[,NAME]")
    return store.tables


def _why(text: str) -> str:
    """Return a sentence for what the engine said (its text is looked at, never shown)."""
    if "lock" in text:
        return "the DuckDB file is open for writing in another process: close that, or copy the file and give the copy"
    if "version" in text or "serializ" in text:
        return "the DuckDB file was written by a version of DuckDB that this one cannot read: EXPORT DATABASE there, and give the folder"
    if "encrypt" in text:
        return "the DuckDB file is encrypted: give one that is not"
    return "the file cannot be opened as a DuckDB file: check that it is one, whole, and readable"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(store: Store, con: duckdb.DuckDBPyConnection, path: str, schema: str, table: str, columns: list[tuple[str, str]]) -> None:
    import duckdb

    source = f"{_quoted(schema)}.{_quoted(table)}"
    read = {
        name: f"CAST({_quoted(name)} AS {_READ_AS[kind]}) AS {_quoted(name)}" if kind in _READ_AS else _quoted(name)
        for name, kind in columns
    }

    def select(names: Sequence[str] | None, end: str = "") -> pa.RecordBatchReader:
        wanted = [read[name] for name in names] if names else list(read.values())
        limit = " LIMIT 0" if names is not None and not names else end
        # a cursor: two tables may be read at a time
        return con.cursor().sql(f"SELECT {', '.join(wanted)} FROM {source}{limit}").to_arrow_reader(_ROWS)

    def rows() -> int:
        return int(con.cursor().execute(f"SELECT count(*) FROM {source}").fetchall()[0][0])

    try:
        arrow = plain(select([]).schema)
    except duckdb.Error:  # a view over what is not there, or outside of the file: it stands in the ledger as unreadable
        arrow = pa.schema([(name, pa.string()) for name, _ in columns])
    TablePath(store, f"duckdb://{path}: {schema}.{table}", table, arrow, select, rows)
