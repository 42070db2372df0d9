"""``postgresql://user@host/db[?schema=cdm]``: the tables and views of a PostgreSQL database, through ADBC.

All tables are read in one read-only transaction of isolation level REPEATABLE READ, so that they fit each other.
The password comes from where libpq takes it: PGPASSWORD, the password file, a service; the URL is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pyarrow as pa

from ehrready.errors import UsageError
from ehrready.stores import extra
from ehrready.stores.duckdb_file import once
from ehrready.stores.tables import Store, TablePath

#: pg_type.typname to the Arrow type it is read as; all others are read as text.
_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "bytea": pa.binary(),
}
_ID = re.compile(r"(^|_)id$", re.IGNORECASE)

#: Tables, views, materialised views and foreign tables outside the system's schemas; of a partitioned table the whole.
#: A domain counts as its base type.
_CATALOG = """
SELECT n.nspname::text, c.relname::text, a.attname::text, coalesce(b.typname, t.typname)::text, a.atttypmod::int4, c.oid::int8
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY n.nspname, c.relname, a.attnum
"""


def opened(_kind: str, rest: str, place: str) -> Sequence[TablePath]:
    """Return the tables of a database; raises UsageError: the driver is missing, no login, no such schema."""
    dbapi = extra("adbc_driver_postgresql.dbapi", "postgres", place)
    uri, label, wanted = _uri(rest)
    try:
        # the transaction is ours: in one of its own the driver refuses to go back to a savepoint
        con = dbapi.connect(uri, autocommit=True)
        with con.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(_CATALOG)
            catalog = cursor.fetchall()
    except dbapi.Error as error:
        raise UsageError(f"{place}: {_why(error)}") from None
    tables: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for schema, table, column, type_, modifier, _ in catalog:
        if not wanted or schema in wanted:
            tables.setdefault((schema, table), []).append((column, type_, modifier))
    store = Store(con.close)
    if missing := [name for name in wanted if name not in {schema for schema, _ in tables}]:
        store.close()
        raise UsageError(f"{place}: {len(missing)} of the schemas named are not there or hold no table")
    for (schema, table), columns in tables.items():
        _table(store, con, f"{label}: {schema}.{table}", schema, table, columns)
    return once(store, place)


def _uri(rest: str) -> tuple[str, str, list[str]]:
    """Return the URI for libpq, a label without user and password, and the schemas that are wanted."""
    parts = urlsplit(f"postgresql://{rest}")
    given = parse_qsl(parts.query, keep_blank_values=True)
    wanted = [name for key, value in given if key == "schema" for name in value.split(",") if name]
    query = urlencode([pair for pair in given if pair[0] != "schema"], quote_via=quote)
    uri = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    return uri, f"postgresql://{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}", wanted


def _why(error: Exception) -> str:
    """Return a sentence for why there is no connection (the text is looked at, never shown)."""
    state, text = getattr(error, "sqlstate", "") or "", str(error).lower()
    if state.startswith("28") or any(word in text for word in ("password", "authentication", "pg_hba", "role")):
        return "PostgreSQL refuses the login: check the user in the URL, and set PGPASSWORD or the password file (~/.pgpass)"
    if state == "3D000" or "does not exist" in text:
        return "PostgreSQL has no such database"
    return "PostgreSQL cannot be reached or read: check host and port in the URL, and that the server runs"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(name: str, type_: str, modifier: int) -> tuple[str, pa.DataType]:
    """Return the SQL of a column and the Arrow type that it is read as."""
    sql = _quoted(name)
    if type_ in {"date", "timestamp", "timestamptz"}:
        return f"CASE WHEN isfinite({sql}) THEN {sql} END", _TYPES[type_]  # Arrow knows no infinity
    if type_ == "oid":
        return f"{sql}::int8", _TYPES[type_]
    if type_ in _TYPES:
        return sql, _TYPES[type_]
    if type_ == "numeric":
        precision, scale = ((modifier - 4) >> 16, (modifier - 4) & 0x7FF) if modifier >= 4 else (0, -1)
        if scale == 0 and precision <= 18:
            return f"{sql}::int8", pa.int64()
        # a key must not be rounded: more than 15 digits do not fit a double
        if scale == 0 or (scale < 0 and _ID.search(name)):
            return f"{sql}::text", pa.string()
        return f"{sql}::float8", pa.float64()
    return f"{sql}::text", pa.string()


def _table(store: Store, con: Any, label: str, schema: str, table: str, columns: list[tuple[str, str, int]]) -> None:
    source = f"{_quoted(schema)}.{_quoted(table)}"
    read = {name: _column(name, type_, modifier) for name, type_, modifier in columns}
    arrow = pa.schema([(name, kind) for name, (_, kind) in read.items()])

    def select(names: Sequence[str] | None) -> Iterable[pa.RecordBatch]:
        chosen = names or list(read)
        if names is not None and not names:
            return ()
        listed = ", ".join(f"{read[name][0]} AS {_quoted(name)}" for name in chosen)
        return _run(con, f"SELECT {listed} FROM {source}")

    def rows() -> int:
        return sum(batch.column(0)[0].as_py() for batch in _run(con, f"SELECT count(*) FROM {source}"))

    TablePath(store, label, table, arrow, select, rows)


def _run(con: Any, sql: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query behind a savepoint: a table that may not be read must not end the transaction of the others."""
    with con.cursor() as cursor:
        cursor.execute("SAVEPOINT ehrready")
    try:
        with con.cursor() as cursor:
            cursor.execute(sql)
            yield from cursor.fetch_record_batch()
    except Exception:
        with con.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT ehrready")
        raise
