"""Files of tables: which table a file is, what its header says, and a relation that DuckDB can select from.

Parquet is scanned where it lies.  CSV is loaded once into a staging table of text columns: DuckDB's parser in
strict mode takes all rows or none, and only a damaged file is parsed again row by row (tabular_csv).
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from ehrready.engines.duckdb import lacks, quote
from ehrready.readers.base import SourceFile
from ehrready.stores import remote
from ehrready.tables import POSITION_BITS

#: The temp table that a file is copied into where it cannot be scanned where it lies.
STAGE = "ehrready_stage"

PARQUET = re.compile(r"\.(parquet|parq|pq)$", re.IGNORECASE)
CSV = re.compile(r"\.(csv|tsv)(\.gz|\.zst)?$", re.IGNORECASE)
#: A file that is one part of a table named by its folder: part-00000-uuid.c000.snappy, 000000000012, data_0.
_PART = re.compile(r"(part|data|chunk|shard|file|run)?[-_.]?\d.*|part.*", re.IGNORECASE)
#: The number of a part behind a table's name: measurement-0001, measurement_0_3.
_SHARD = re.compile(r"([-_.]\d+)+$")
_DELIMITERS = ",\t;|"

PARQUET_MAGIC = b"PAR1"


class DamagedError(Exception):
    """A whole file that cannot be read; ``reason`` is a key of ehrready.readers.base.REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a relation: its SQL identifier, its DuckDB type and the name the file gives it."""

    identifier: str
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows DuckDB can select from, as alias ``s``.

    ``number`` is SQL for the number of the row's file and ``record`` for its record key; ``columns`` is by
    lower-case name.
    """

    sql: str
    number: str
    record: str
    columns: dict[str, Column]


def is_parquet(path: Path, head: bytes) -> bool:
    """Whether a file is, or claims to be, Parquet: by its magic number or its suffix."""
    return head.startswith(PARQUET_MAGIC) or bool(PARQUET.search(path.name))


def has_parquet_bytes(path: Path) -> bool:
    """Whether a file on disk is, or claims to be, Parquet; raises DamagedError if it cannot be opened."""
    try:
        with path.open("rb") as stream:
            return is_parquet(path, stream.read(4))
    except OSError as error:
        raise DamagedError("unreadable") from error


def is_csv(path: Path) -> bool:
    """Whether a file claims to be a delimited text table by its suffix."""
    return bool(CSV.search(path.name))


def table_names(path: Path) -> list[str]:
    """Return the table names a path may stand for, lower case, the most likely first.

    ``dbo.measurement.csv`` → measurement, dbo; ``measurement/part-0001.parquet`` → …, measurement.
    """
    stem = CSV.sub("", PARQUET.sub("", path.name)).lower()
    words = [_SHARD.sub("", word) or word for word in reversed(stem.split("."))]
    names = [_SHARD.sub("", stem) or stem, *words]
    if _PART.fullmatch(stem):
        folders = (folder for folder in path.parts[-2::-1] if "=" not in folder)  # hive partitions: year=2024
        parent = next(folders, "").lower()
        parent = CSV.sub("", PARQUET.sub("", parent))
        names = [parent, *parent.split("."), *names] if parent else names
    return list(dict.fromkeys(name for name in names if name))


def footer(path: Path) -> tuple[int, pa.Schema]:
    """Return the row count and schema of a Parquet file's footer; raises DamagedError.

    Besides Sandbox this is the one place where native code parses a file that may be hostile.
    """
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            if not size:
                raise DamagedError("empty")
            stream.seek(0)
            start = stream.read(4)
            stream.seek(max(size - 4, 0))
            end = stream.read(4)
            if start == PARQUET_MAGIC and end != PARQUET_MAGIC:
                raise DamagedError("truncated")
            with pq.ParquetFile(stream) as file:
                return file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowException, ValueError, EOFError, RecursionError, MemoryError) as error:
        raise DamagedError("invalid-parquet") from error
    except OSError as error:
        # Arrow raises OSError both for what it cannot open and for what it cannot parse
        raise DamagedError("unreadable" if error.errno is not None else "invalid-parquet") from error


def header(head: bytes) -> tuple[str, list[str], int]:
    """Return delimiter, column names and physical lines of the header in a CSV file's first bytes.

    Raises DamagedError: ``empty`` without any text, ``encoding`` for binary data.
    """
    text = decode_head(head)
    if not text.strip():
        raise DamagedError("empty")
    if "\0" in text.partition("\n")[0]:
        raise DamagedError("encoding")
    line = next(line for line in text.splitlines() if line.strip())
    bare = re.sub(r'"[^"]*"', "", line)
    delimiter = max(_DELIMITERS, key=bare.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True
    )  # as DuckDB: a quote may stand behind blanks
    try:
        names = next(row for row in reader if row)
    except (csv.Error, StopIteration) as error:
        raise DamagedError("invalid-csv") from error
    return delimiter, [name.strip() for name in names], reader.line_num


def decode_head(head: bytes) -> str:
    """Decode the first bytes of a text file: UTF-8 or UTF-16 by its mark, else UTF-8 or Latin-1."""
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return head[: len(head) // 2 * 2].decode("utf-16", "replace")
    if head.startswith(b"\xef\xbb\xbf"):  # whatever follows: as Latin-1 the mark would be part of the first name
        return head[3:].decode("utf-8", "replace")
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 8:  # the 64 KiB ended inside a character
            return head[: error.start].decode("utf-8", "replace")
        return head.decode("latin-1")


def by_name(columns: Sequence[Column]) -> dict[str, Column]:
    """Index columns by lower-case name, the first of equals; unnamed and repeated ones get a number."""
    found: dict[str, Column] = {}
    for place, column in enumerate(columns, 1):
        name = column.name.lower() or f"column {place}"
        found[name if name not in found else f"{name} {place}"] = column
    return found


def glob_free(path: Path) -> str:
    """Return an absolute path as an SQL literal that DuckDB does not expand; a remote file by the name it is mounted under."""
    if remote.is_remote(path):
        return quote(remote.mounted(path))
    text = "".join(f"[{c}]" if c in "[*?" else c for c in str(path.absolute()))
    return quote(text)


def identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def in_file_order(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let ``CREATE TABLE AS`` keep the order of the file, so that ``rowid + 1`` is the row's number."""
    before = con.execute("SELECT current_setting('preserve_insertion_order')").fetchall()[0][0]
    con.execute("SET preserve_insertion_order = true")
    try:
        yield
    finally:
        con.execute(f"SET preserve_insertion_order = {str(bool(before)).lower()}")


class Sandbox:
    """An engine of its own that reads every page of a Parquet file before the real one meets it.

    Some damaged files make DuckDB fail with an internal error, and such an error during an insert invalidates the
    whole database (1 of 1,200 mutated files did).  Here it costs an empty one.  If a file is found that ends the
    process, this is the class to move into a process of its own.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        names = ("threads", "memory_limit", "temp_directory")
        settings = "current_setting('" + "'), current_setting('".join(names) + "')"
        self._config = dict(zip(names, con.execute(f"SELECT {settings}").fetchall()[0], strict=True))
        self._config |= {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        self._con = duckdb.connect(config=self._config)

    def close(self) -> None:
        """Release the engine."""
        self._con.close()

    def mount(self) -> None:
        """Let it read remote files, too."""
        remote.mount(self._con)

    def columns(self, scan: str) -> list[Column]:
        """Return the columns of a scan that can be read to its end; raises DamagedError."""
        try:
            described = self._con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()
            # the last value needs every page (counts and extremes would come from the footer); its hash is a number, whatever type it has
            self._con.execute(f"SELECT hash(last(COLUMNS(*))) FROM {scan}").fetchall()
        except (duckdb.Error, UnicodeError) as error:
            if lacks(error):
                raise  # no fault of the file
            if isinstance(error, duckdb.InternalException | duckdb.FatalException):
                mounted = self._con.filesystem_is_registered(remote.MOUNT)
                self._con.close()
                self._con = duckdb.connect(config=self._config)
                if mounted:
                    self.mount()
            raise DamagedError("invalid-parquet") from error
        return [Column(identifier(str(row[0])), str(row[1]), str(row[0])) for row in described]


def parquet_relation(con: duckdb.DuckDBPyConnection, sandbox: Sandbox, files: Sequence[SourceFile]) -> Relation:
    """Return a relation over Parquet files of one schema; raises DamagedError if any of them cannot be read."""
    if not all(isinstance(file.path, Path) for file in files):
        remote.mount(con)
        sandbox.mount()
    paths = ", ".join(glob_free(file.path) for file in files)
    scan = f"read_parquet([{paths}], hive_partitioning = false, union_by_name = false)"
    columns = by_name(sandbox.columns(scan))
    numbers = [file.number for file in files]
    number = str(numbers[0]) if len(numbers) == 1 else f"({numbers}::BIGINT[])[s.file_index::BIGINT + 1]"
    row = "s.file_row_number + 1"
    if {"file_index", "file_row_number"} & columns.keys():  # hides DuckDB's own: such a file is copied
        if len(files) > 1:
            raise DamagedError("invalid-parquet")  # one by one
        with in_file_order(con):
            con.execute(f"CREATE OR REPLACE TEMP TABLE {STAGE} AS SELECT * FROM {scan}")
        scan, row = STAGE, "s.rowid + 1"
    return Relation(f"{scan} AS s", number, f"(({number})::BIGINT << {POSITION_BITS} | ({row}))", columns)
