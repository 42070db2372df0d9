"""Bundles and arrays of resources: from one JSON text to the texts of what is in it, in SQL."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from ehrready.readers.arrays import BATCH_ROWS, Integers, batched, numbers

#: Documents are large: DuckDB gets them in batches of so many bytes, to use all threads.
_BATCH_BYTES = 1024 * 1024
_FAST = (
    'list_transform(list_filter(json_transform(text, \'{"entry":[{"fullUrl":"VARCHAR","resource":"JSON"}]}\').entry, '
    "lambda e: e.resource IS NOT NULL), lambda e: {'url': e.fullUrl, 'text': e.resource::VARCHAR})"
)
# a resource that is JSON null is an entry, too, and json_transform cannot tell it from none
_SLOW = (
    "list_transform(list_filter(from_json(json_extract(text, '$.entry'), '[\"JSON\"]'), lambda e: json_type(e, '$.resource') IS NOT NULL), "
    "lambda e: {'url': json_extract_string(e, '$.fullUrl'), 'text': json_extract(e, '$.resource')::VARCHAR})"
)


@dataclass(slots=True)
class Opened:
    """The entries of some Bundles or arrays: ``table`` (url, text), the record each comes from and its number in it.

    Records that were ``opened``, are ``unlike`` a Bundle (their entry is no list), or are ``broken`` (no JSON).
    """

    table: pa.Table
    up: Integers
    number: Integers
    opened: list[int]
    unlike: list[int]
    broken: list[int]


def entries(con: duckdb.DuckDBPyConnection, rows: pa.Table, text: str = "text") -> Opened:
    """Return the entries with a resource of the Bundles in ``rows`` (record, text); ``text`` is the SQL of a Bundle."""
    return _open(con, rows, text, f"CASE WHEN contains(text, 'null') THEN {_SLOW} ELSE {_FAST} END", "json_type(text, '$.entry')")


def arrays(con: duckdb.DuckDBPyConnection, rows: pa.Table, text: str = "text") -> Opened:
    """Return the elements of the arrays in ``rows`` (record, text); ``text`` is the SQL of an array."""
    elements = "list_transform(from_json(text, '[\"JSON\"]'), lambda e: {'url': NULL::VARCHAR, 'text': coalesce(e::VARCHAR, 'null')})"
    return _open(con, rows, text, elements, "'ARRAY'")


def _open(con: duckdb.DuckDBPyConnection, rows: pa.Table, text: str, elements: str, kind: str) -> Opened:
    con.register("_rows", batched(rows, max(1, min(BATCH_ROWS, len(rows) * _BATCH_BYTES // max(rows.nbytes, 1)))))
    source = f"(SELECT record, {text} AS text FROM _rows)"
    found = con.sql(
        "SELECT record, i, e.url AS url, e.text AS text FROM (SELECT record, unnest(list) AS e, generate_subscripts(list, 1) AS i FROM "
        f"(SELECT record, TRY({elements}) AS list FROM {source}))"
    ).to_arrow_table()
    up = numbers(found.column("record")).astype(np.int64)
    records = numbers(rows.column("record"))
    kinds = dict.fromkeys(np.unique(up).tolist(), "ARRAY")
    if without := np.setdiff1d(records, up).tolist():  # few: an empty list, none, something else, or no JSON at all
        asked = ", ".join(map(str, without))
        kinds |= dict(
            con.execute(
                f"SELECT record, CASE WHEN TRY({elements}) IS NOT NULL THEN 'ARRAY' WHEN json_valid(text) THEN coalesce({kind}, 'NULL') "
                f"ELSE 'broken' END FROM {source} WHERE record IN ({asked})"
            ).fetchall()
        )
    con.unregister("_rows")
    large = pa.large_string()
    table = pa.Table.from_arrays([found.column("url").cast(large), found.column("text").cast(large)], names=["url", "text"])
    return Opened(
        table,
        up,
        numbers(found.column("i")).astype(np.int64),
        [record for record, kind in sorted(kinds.items()) if kind in {"ARRAY", "NULL"}],
        [record for record, kind in sorted(kinds.items()) if kind not in {"ARRAY", "NULL", "broken"}],
        [record for record, kind in sorted(kinds.items()) if kind == "broken"],
    )
