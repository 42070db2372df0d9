"""A table of a database or a lake that a reader takes for a Parquet file.

Until it is staged it is a Parquet file without a row (its schema is all that recognising needs); ``stage`` then
writes the rows once, as they stream in, to a Parquet file in the engine's own temporary folder.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from ehrready.readers.base import Reader, SourceFile

#: Gives the rows of a table: all columns (None), some of them, or no row at all (an empty list).
Pull = Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]]
#: A number behind a name is a part of a table among files (measurement_2), another table in a database.
_SHARD = re.compile(r"[-_.]\d+$")
#: Rows of a row group: enough for DuckDB to scan with all its threads, little enough to hold.
_ROWS = 122_880


class Store:
    """What tables come from: closed when all of them are staged."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close, self.tables = close, cast(list["TablePath"], [])

    def glob(self, pattern: str) -> list[TablePath]:
        """Return the tables whose file name matches: a reader looks for neighbours so."""
        return [table for table in self.tables if fnmatch.fnmatchcase(table.name, pattern)]

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(Exception):
            self._close()


class TablePath:
    """One table, as the path of a Parquet file: ``name`` is the table's and ``.parquet``.

    ``label`` tells people where it is (never a password), ``rows`` is how many rows the store says it has.
    """

    def __init__(self, store: Store, label: str, table: str, schema: pa.Schema, pull: Pull, rows: Callable[[], int | None]) -> None:
        self.parent, self.label, self.schema, self.pull, self.rows = store, label, schema, pull, rows
        stem = re.sub(r"[/\\\0]", "_", table)
        self.name = f"{stem}{'_' if _SHARD.search(stem) else ''}.parquet"
        store.tables.append(self)

    @property
    def suffixes(self) -> list[str]:
        """Return the suffixes of the name."""
        return Path(self.name).suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the name alone: no folder says which table it is."""
        return (self.name,)

    def as_posix(self) -> str:
        """Return what the files of a run are sorted by."""
        return self.label

    def __str__(self) -> str:
        return self.label

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open the table without its rows."""
        return io.BytesIO(_empty(self.schema))

    def stat(self) -> os.stat_result:
        """Return a regular file without a size: a table has no bytes of its own that could be counted."""
        return os.stat_result((stat.S_IFREG | 0o400, id(self), 0, 1, 0, 0, 0, 0, 0, 0))


def _empty(schema: pa.Schema) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()


def stage(
    files: Sequence[SourceFile], readers: Iterable[Reader], folder: Path, progress: Callable[[str, int, int], None]
) -> list[SourceFile]:
    """Return the files with every table written to a Parquet file of its own below ``folder``.

    A table that cannot be read to its end, or gives another number of rows than its store counts, leaves no file:
    its ledger row will say unreadable.  Of tables that a reader only looks things up in, it gets the columns that it
    names (``Reader.looked_up``).  All stores are closed.
    """
    by_format = {reader.format: reader for reader in readers}
    tables = [(file, table) for file in files if (table := _table(file.path)) is not None]
    placed = {}
    try:
        for done, (file, table) in enumerate(tables):
            progress("fetching tables", done, len(tables))
            if file.skip:
                continue
            place = folder / f"{file.number:04d}" / table.name
            place.parent.mkdir(parents=True)
            asked = getattr(by_format[file.format], "looked_up", lambda kind: None)(file.kind)
            _fetch(table, place, asked)
            placed[file.number] = place
    finally:
        for store in {id(table.parent): table.parent for _, table in tables}.values():
            store.close()
    return [replace(file, path=placed[file.number]) if file.number in placed else file for file in files]


def is_table(path: object) -> bool:
    """Whether a path is a table that was not staged."""
    return isinstance(path, TablePath)


def _table(path: object) -> TablePath | None:
    return path if isinstance(path, TablePath) else None


def _fetch(table: TablePath, place: Path, asked: Iterable[str] | None) -> None:
    """Write the rows of a table; leaves no file when they are not all there."""
    import pyarrow.parquet as pq

    columns = None if asked is None else [name for name in table.schema.names if name.lower() in set(asked)]
    written = 0
    try:
        schema = table.schema if not columns else pa.schema([table.schema.field(name) for name in columns])
        expected = table.rows() if columns is None else None
        with pq.ParquetWriter(place, schema) as writer:
            for batch in table.pull(columns):
                written += batch.num_rows
                writer.write_table(fitted(batch, schema), row_group_size=_ROWS)
        if expected is not None and expected != written:
            place.unlink()
    except Exception as error:  # noqa: BLE001 - whatever the store's library raises: the table is unreadable
        place.unlink(missing_ok=True)
        _raise_if_elsewhere(error)


def _raise_if_elsewhere(error: Exception) -> None:
    """Let the want of memory or disk be told as such, and an interruption end the run: they are no fault of the table."""
    import errno

    from ehrready.engines.duckdb import NO_ROOM, stopped
    from ehrready.errors import SourceError

    if isinstance(error, MemoryError) or stopped(error):
        raise error
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}:
        raise SourceError(NO_ROOM) from None


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Return a batch as a table of the schema that the store promised, columns by place."""
    table = pa.Table.from_arrays(batch.columns, names=schema.names)
    return table if table.schema.equals(schema) else table.cast(schema)


def plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema that Parquet can hold without metadata: views of strings as strings, dictionaries as their values."""

    def simple(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return simple(kind.value_type)
        if kind in (pa.string_view(), pa.large_string()):
            return pa.string()
        if kind in (pa.binary_view(), pa.large_binary()):
            return pa.binary()
        return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind

    return pa.schema([pa.field(field.name, simple(field.type)) for field in schema])


def parameters(rest: str, known: Sequence[str], place: str) -> tuple[str, dict[str, Any]]:
    """Split ``path?name=value`` of a source; raises UsageError for a name that is not known."""
    from urllib.parse import parse_qsl

    from ehrready.errors import UsageError

    path, _, query = rest.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(f"{place}: {len(unknown)} unknown parameter(s) behind the question mark: known are {', '.join(known)}")
    return path, given
