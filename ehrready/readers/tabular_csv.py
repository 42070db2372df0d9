"""Delimited text (RFC 4180 and its relatives) into a staging table of text columns, with an exact row count.

DuckDB's parser runs in strict mode: it takes every row or none.  Only when it refuses (a row with a wrong
number of cells, a stray quote, bytes of no character set) the one file is parsed again here, row by row, so
that each bad row is counted with its reason and its neighbours stay.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from ehrready.engines.duckdb import quote
from ehrready.readers.streams import STREAM_ERRORS, TooLarge, consumed, open_stream
from ehrready.readers.tabular_files import (
    STAGE,
    Column,
    DamagedError,
    Relation,
    by_name,
    glob_free,
    header,
    in_file_order,
)
from ehrready.stores.remote import is_remote
from ehrready.tables import POSITION_BITS

_BLOCK = 8 * 1024 * 1024
_HEADER_BYTES = 1 << 20
_BATCH_ROWS = 20_000
#: A physical line longer than this (characters) is rejected as ``too-large``.
MAX_LINE = 64 * 1024 * 1024
#: A quoted cell may run over this many lines (and 1 MiB) before its opening quote is taken for a stray one.
_MAX_SPAN = 1000
_MAX_SPAN_CHARS = 1 << 20
#: After so many stray quotes in one file no cell may contain a line end any more: bounds the work.
_MAX_STRAY = 100
_SURROGATES = re.compile("[\udc80-\udcff]")
_REOPENED = re.compile(b' +"')


@dataclass(slots=True)
class Staged:
    """A CSV file in a temp table: rows met, and rejected ones by reason (position of the first, count)."""

    relation: Relation
    read: int
    status: str = "read"
    size: int | None = None  # bytes read of the file on disk
    rejected: dict[str, tuple[int, int]] = field(default_factory=dict)

    def reject(self, position: int, reason: str) -> None:
        """Count one rejected row."""
        first, n = self.rejected.get(reason, (position, 0))
        self.rejected[reason] = (first, n + 1)


@dataclass(slots=True)
class _Text:
    """What one pass over the bytes found out about a text file; ``path`` holds it as UTF-8."""

    path: Path
    newlines: int = 0
    nul: bool = False
    multibyte: bool = False  # some line is valid UTF-8 beyond ASCII
    bad: bool = False  # some line is not UTF-8
    cut: bool = False  # the compressed stream ended early
    ends: bool = True  # the last line has its line end
    size: int | None = None  # bytes read of the file on disk

    def look(self, lines: bytes) -> None:
        """Take note of whole lines."""
        self.newlines += lines.count(b"\n")
        self.nul = self.nul or b"\0" in lines
        if lines.isascii():
            return
        try:
            lines.decode("utf-8")
            self.multibyte = True
        except UnicodeDecodeError:
            self.bad = True
            self.multibyte = self.multibyte or any(map(_is_multibyte, lines.splitlines()))


def _is_multibyte(line: bytes) -> bool:
    if line.isascii():
        return False
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def stage(con: duckdb.DuckDBPyConnection, path: Path, number: int, folder: Path, *, fast: bool = True) -> Staged:
    """Load a CSV file into the temp table STAGE; ``folder`` takes a decoded copy where one is needed.

    Raises DamagedError when nothing of the file can be read.  ``fast`` False parses row by row (for tests).
    """
    text = _prepare(path, folder)
    try:
        with text.path.open("rb") as stream:
            delimiter, names, lines = header(stream.read(_HEADER_BYTES))
        columns = by_name([Column(f'"c{n}"', "VARCHAR", name) for n, name in enumerate(names)])
        base = f"{number}::BIGINT << {POSITION_BITS}"
        sql = f"{STAGE} AS s"
        # one column: DuckDB takes an empty line for a row; mixed encodings, NUL: it cannot say which row
        fast = fast and len(names) > 1 and not text.nul and not (text.bad and text.multibyte)
        if fast and (rows := _fast(con, text, delimiter, len(names), lines)) is not None:
            staged = Staged(Relation(sql, str(number), f"({base} | (s.rowid + 1))", columns), rows)
        else:
            staged = Staged(Relation(sql, str(number), f"({base} | s.row_number)", columns), 0)
            _slow(con, text.path, delimiter, len(names), lines, staged)
    finally:
        if text.path != path:
            text.path.unlink(missing_ok=True)
    staged.size = text.size
    if text.cut:
        staged.status = "truncated"
        staged.read += 1
        staged.reject(staged.read, "truncated")
    return staged


def _prepare(path: Path, folder: Path) -> _Text:
    """Read all bytes once; write a plain UTF-8 copy where the file is compressed, remote or in another encoding."""
    text = _Text(path)
    copy = folder / f"{path.stat().st_ino:x}.csv"
    rest = b""
    try:
        with open_stream(path) as stream:
            block = stream.read(_BLOCK)
            utf16 = block[:2] in {b"\xff\xfe", b"\xfe\xff"}
            plain = isinstance(stream, io.BufferedReader) and not is_remote(path) and not utf16  # DuckDB reads it where it lies
            decoder = codecs.getincrementaldecoder("utf-16")() if utf16 else None
            text.path = path if plain else copy
            with io.BytesIO() if plain else copy.open("wb") as out:
                while True:
                    try:
                        data = decoder.decode(block, not block).encode() if decoder else block
                    except UnicodeError as error:
                        raise DamagedError("encoding") from error
                    end = data.rfind(b"\n") + 1
                    lines, rest = (rest + data[:end], data[end:]) if end else (b"", rest + data)
                    if lines:
                        text.look(lines)
                    if not plain:
                        out.write(data)
                    if not block:
                        break
                    try:
                        block = stream.read(_BLOCK)
                    except EOFError:  # a cut stream: whole lines of it stay
                        text.cut = True
                        out.truncate(out.tell() - len(rest))
                        break
                text.size = None if text.cut else consumed(stream)
                if rest and not text.cut:
                    text.look(rest)
                    text.ends = False
    except STREAM_ERRORS as error:
        text.path.unlink(missing_ok=True) if text.path != path else None
        raise DamagedError(_reason(error)) from error
    except DamagedError:
        copy.unlink(missing_ok=True)
        raise
    if text.cut and not text.newlines:
        copy.unlink(missing_ok=True)
        raise DamagedError("truncated")
    if text.bad and not text.multibyte:
        text.path = _latin1(text.path, folder / "latin1.csv", remove=text.path != path)
    return text


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "truncated"
    system = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    return "unreadable" if system and not isinstance(error, TooLarge) else "compression"


def _latin1(source: Path, target: Path, *, remove: bool) -> Path:
    """Write a Latin-1 file again as UTF-8."""
    with source.open("rb") as stream, target.open("wb") as out:
        while block := stream.read(_BLOCK):
            out.write(block.decode("latin-1").encode("utf-8"))
    if remove:
        source.unlink()
    return target


def _columns(width: int) -> list[str]:
    return [f"c{n}" for n in range(width)]


def _fast(con: duckdb.DuckDBPyConnection, text: _Text, delimiter: str, width: int, skip: int) -> int | None:
    """Load all rows with DuckDB in file order and return how many, or None where that is not certain.

    DuckDB may refuse a row, and it may also drop rows without a word (those behind an open quote at the end of a
    file): its count must be the number of lines, else of rows as `_count_rows` counts them.  Tab files are also
    tried without quotes (OHDSI Athena writes none).
    """
    columns = "{" + ", ".join(f"'{name}': 'VARCHAR'" for name in _columns(width)) + "}"
    source = f"{glob_free(text.path)}, auto_detect = false, header = false, skip = {skip}"
    lines = text.newlines + (not text.ends) - skip
    with in_file_order(con):
        for mark in ("'\"'", "''") if delimiter == "\t" else ("'\"'",):
            exact: int | None = lines
            for parallel in ("true", "false"):
                try:
                    con.execute(
                        f"CREATE OR REPLACE TEMP TABLE {STAGE} AS SELECT * FROM read_csv({source}, "
                        f"delim = {quote(delimiter)}, quote = {mark}, escape = {mark}, columns = {columns}, "
                        f"strict_mode = true, null_padding = false, parallel = {parallel})"
                    )
                except (duckdb.InvalidInputException, duckdb.ConversionException):
                    break
                if mark == "''" and _wrapped(con, width):
                    break
                rows = int(con.execute(f"SELECT count(*) FROM {STAGE}").fetchall()[0][0])
                if rows == exact:
                    return rows
                exact = _count_rows(text.path, skip, quotes=mark != "''")
                if rows == exact:
                    return rows
    return None


def _wrapped(con: duckdb.DuckDBPyConnection, width: int) -> bool:
    """Whether quotes are no part of the text after all: more cells of STAGE are wrapped in them than only begin with one.

    Else one bad row would leave its neighbours' cells with their quotes on.
    """
    cells = " UNION ALL ".join(f"SELECT {name} AS c FROM {STAGE} WHERE starts_with({name}, '\"')" for name in _columns(width))
    wrapped = "length(c) > 1 AND ends_with(c, '\"')"
    return bool(con.execute(f"SELECT coalesce(2 * count(*) FILTER (WHERE {wrapped}) > count(*), false) FROM ({cells})").fetchall()[0][0])


def _count_rows(path: Path, skip: int, *, quotes: bool) -> int | None:
    """Count the rows after ``skip`` lines: line feeds outside quotes, blank lines left out.

    Independent of any parser: within a row of RFC 4180 the quotes so far are even exactly outside quotes.  None
    where that does not tell: a quote still open at the end or opened anew, a carriage return that may end a line.
    """
    rows, length, odd, last = 0, 0, False, 0  # length: bytes since the last row's end
    with path.open("rb") as stream:
        for _ in range(skip):
            stream.readline()
        while block := stream.read(_BLOCK):
            data = np.frombuffer(block, np.uint8)
            inside = np.bitwise_xor.accumulate(data == 34) ^ odd if quotes else np.zeros(len(data), np.bool_)
            # DuckDB goes on with a cell at a quote that stands behind a closed one and blanks, to wherever that closes
            closed = np.flatnonzero((data[:-1] == 34) & ~inside[:-1] & (data[1:] == 32)) if quotes else ()
            if any(_REOPENED.match(block, int(at) + 1) for at in closed):
                return None
            ends = np.flatnonzero((data == 10) & ~inside)
            returns = np.flatnonzero((data == 13) & ~inside)
            following = data[np.minimum(returns + 1, len(data) - 1)]
            if (last == 13 and not odd and data[0] != 10) or np.any((following != 10) & (returns + 1 < len(data))):
                return None
            sizes = np.diff(ends, prepend=-1) - 1
            if len(ends):
                sizes[0] += length
                length = len(data) - 1 - int(ends[-1])
            else:
                length += len(data)
            before = np.where(ends > 0, data[np.maximum(ends - 1, 0)], last)
            rows += int(np.count_nonzero((sizes > 1) | ((sizes == 1) & (before != 13))))
            odd, last = bool(inside[-1]), int(data[-1])
    return None if odd or (last == 13 and length) else rows + bool(length)


def _slow(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    delimiter: str,
    width: int,
    skip: int,
    staged: Staged,
) -> None:
    """Load the good rows one by one and count the others in ``staged``."""
    names = _columns(width)
    kinds = ", ".join(f'"{name}" VARCHAR' for name in names)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {STAGE} (row_number BIGINT, {kinds})")
    numbers: list[int] = []
    cells: list[list[str]] = []

    def flush() -> None:
        if numbers:
            texts = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
            arrays = [pa.array(numbers, pa.int64()), *texts]
            con.register("ehrready_csv_batch", pa.table(arrays, ["row_number", *names]))
            con.execute(f"INSERT INTO {STAGE} SELECT * FROM ehrready_csv_batch")
            con.unregister("ehrready_csv_batch")
            numbers.clear()
            cells.clear()

    limit = csv.field_size_limit(MAX_LINE)
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in _rows(_lines(stream, skip), delimiter, width):
                staged.read += 1
                if isinstance(row, str):
                    staged.reject(staged.read, row)
                    continue
                numbers.append(staged.read)
                cells.append(row)
                if len(numbers) >= _BATCH_ROWS:
                    flush()
        flush()
    finally:
        csv.field_size_limit(limit)


def _lines(stream: io.TextIOBase | io.TextIOWrapper, skip: int) -> Iterator[str]:
    """Yield physical lines after the header; one that is too long comes as ``""``."""
    for _ in range(skip):
        stream.readline(MAX_LINE)
    while line := stream.readline(MAX_LINE):
        if len(line) >= MAX_LINE and line[-1] not in "\r\n":
            while (more := stream.readline(MAX_LINE)) and more[-1] not in "\r\n":
                pass
            yield ""
        else:
            yield line


class _Feed:
    """Physical lines for one logical row: what the parser has pulled can be put back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: deque[str] = deque()
        self.taken: list[str] = []
        self.span = _MAX_SPAN

    def line(self) -> str | None:
        return self._back.popleft() if self._back else next(self._lines, None)

    def __iter__(self) -> Iterator[str]:
        yield self.taken[0]
        size = len(self.taken[0])
        while len(self.taken) < self.span and size <= _MAX_SPAN_CHARS:
            line = self.line()
            if line is None:
                return
            if line == "":  # too long to be part of anything
                self._back.appendleft(line)
                return
            self.taken.append(line)
            size += len(line)
            yield line

    def put_back(self) -> None:
        """Keep only the first line as taken."""
        self._back.extendleft(reversed(self.taken[1:]))


def _cells(lines: Iterable[str], delimiter: str) -> list[str] | None:
    """Return the cells of the first row of some lines, without blanks before them (a quote may stand there), None where its quotes do not close."""
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return None


def _rows(lines: Iterator[str], delimiter: str, width: int) -> Iterator[list[str] | str]:
    """Yield the cells of each row, or the reason why it is rejected; blank lines are no rows.

    A row whose quotes do not close is rejected as one line: parsing goes on with the next one.
    """
    feed = _Feed(lines)
    stray = 0
    padded = re.compile(rf'((?:^|{re.escape(delimiter)}) *"(?:[^"]|"")*") +(?=[{re.escape(delimiter)}\r\n]|$)')
    while (line := feed.line()) is not None:
        if line == "":
            yield "too-large"
            continue
        if not line.strip("\r\n"):
            continue
        feed.taken = [line]
        row = _cells(feed, delimiter)
        if row is None and len(feed.taken) == 1:  # blanks behind a closing quote: DuckDB takes them, too
            row = _cells([padded.sub(r"\1", line)], delimiter)
        if row is None:
            if len(feed.taken) > 1:
                feed.put_back()
                stray += 1
                feed.span = 1 if stray >= _MAX_STRAY else _MAX_SPAN
            yield "encoding" if _SURROGATES.search(line) or "\0" in line else "invalid-csv"
            continue
        while len(row) > width and row[-1] == "":
            row.pop()  # delimiters at the end of the line: DuckDB takes them too
        joined = "".join(feed.taken)
        if _SURROGATES.search(joined) or "\0" in joined:
            yield "encoding"
        elif len(row) != width:
            yield "invalid-csv"
        else:
            yield row
