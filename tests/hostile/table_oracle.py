"""What the cells of Parquet and delimited text mean, in plain Python: as text, as a time, as a number, as a concept id (see ``omop_oracle``)."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.profile_rows import token

_HL7 = re.compile(
    r"([0-9]{4})(?:(0[1-9]|1[0-2])(?:(0[1-9]|[12][0-9]|3[01])(?:([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60))?)?)?)?)?(?:\.[0-9]{1,4})?(?:[+-][0-9]{4})?"
)


def is_null(value: str | None) -> bool:
    """Say whether a text stands for nothing."""
    return token(value)


def clean(value: str) -> str | None:
    """Return a text without the blanks (and the mark of a stated absence) around it, None for nothing."""
    return value.strip(" \t\r\n\x01") or None


def iso(value: str) -> str:
    """Return a time as an ISO 8601 prefix: no offset, no fraction; what is no time stays."""
    if value[4:5] != "-" and (found := _HL7.fullmatch(value)):
        parts = [part for part in found.groups() if part is not None]
        value = "-".join(parts[:3])
        if len(parts) > 3:
            value += "T" + ":".join([*parts[3:], "00", "00"][:3])
    return value if len(value) <= 10 else value[:19].replace(" ", "T")


@dataclass
class Column:
    """One column of a file: its name, what it holds, and its cells."""

    name: str
    kind: str
    cells: Sequence[Any]
    #: a time of day without a day
    clockless: bool = False
    single: bool = False

    def text(self, i: int) -> str | None:
        """Return a cell as text."""
        value = self.cells[i]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            if abs(value) < 1e15 and value == math.trunc(value):
                return str(int(value))
            return str(np.float32(value)) if self.single else repr(value)
        if isinstance(value, Decimal):
            told = f"{value:f}"
            return told.rstrip("0").rstrip(".") if "." in told else told
        if isinstance(value, datetime):
            return value.isoformat()[:19]
        if isinstance(value, bytes):
            return _binary(value)
        return _nested(value) if isinstance(value, list | dict) else str(value)

    def time(self, i: int) -> str | None:
        """Return a cell as a time."""
        text = self.text(i)
        return text if text is None or (self.kind in {"date", "time"} and not self.clockless) else iso(text)

    def iso(self, i: int) -> str | None:
        """Return a cell of a joined table as a time."""
        text = self.text(i)
        return None if text is None else iso(text)

    def number(self, i: int) -> float | None:
        """Return a cell as a finite number."""
        text = self.text(i)
        if text is None:
            return None
        try:
            value = float(self.cells[i]) if self.kind in {"integer", "number"} else float(text if text.isascii() else "")
        except (ValueError, OverflowError):
            return None
        return value if math.isfinite(value) else None

    def concept_id(self, i: int) -> int | None:
        """Return a cell as a concept id: a whole number of 64 bits; 0 is none."""
        text = self.text(i)
        if text is None or self.kind not in {"integer", "number", "text"}:
            return None
        try:
            value = Decimal(text) if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", text) else None
        except InvalidOperation:
            return None
        if value is None or value != value.to_integral_value() or not -(1 << 63) <= value < 1 << 63:
            return None
        return int(value) or None

    def empty(self, i: int) -> bool:
        """Say whether a cell holds nothing."""
        value = self.cells[i]
        if isinstance(value, str):
            return clean(value) is None
        return value is None or (isinstance(value, float) and math.isnan(value))


@dataclass
class File:
    """A file's columns, the number of each of its good rows, and how many rows were rejected by reason."""

    columns: list[Column]
    places: list[int]
    rejected: Counter[str] = field(default_factory=Counter)


def _binary(value: bytes) -> str | None:
    try:
        return clean(value.decode())
    except UnicodeDecodeError:
        return "".join(chr(b) if 32 <= b < 127 and b not in b"\\'\"" else f"\\x{b:02X}" for b in value)


def _nested(value: Any) -> str:
    """Return how the engine writes lists and structures of numbers."""
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"'{key}': {_nested(one)}" for key, one in value.items())
        return "{" + inner + "}"
    return "NULL" if value is None else str(value)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    for name, tests in {
        "boolean": [pa.types.is_boolean], "integer": [pa.types.is_integer, pa.types.is_null], "number": [pa.types.is_floating, pa.types.is_decimal],
        "text": [pa.types.is_string, pa.types.is_large_string], "date": [pa.types.is_date], "time": [pa.types.is_timestamp, pa.types.is_time],
        "binary": [pa.types.is_binary, pa.types.is_large_binary], "nested": [pa.types.is_nested],
    }.items():  # fmt: skip
        if any(test(kind) for test in tests):
            return name
    raise AssertionError(kind)


def _cells(array: Any) -> list[Any]:
    kind = array.type
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", kind.tz), safe=False)
        return [None if v is None else v.astimezone(UTC).replace(tzinfo=None) if v.tzinfo else v for v in array.to_pylist()]
    if pa.types.is_date64(kind):
        array = array.cast(pa.date32())
    cells: list[Any] = array.to_pylist()
    return cells


def load(path: Path) -> File:
    """Return what is in a file."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as parquet:
            table = parquet.read()
        columns = [
            Column(f.name, _kind(f.type), _cells(table.column(i)), pa.types.is_time(f.type), pa.types.is_float32(f.type))
            for i, f in enumerate(table.schema)
        ]
        return File(columns, [*range(1, table.num_rows + 1)])
    return delimited(path.read_bytes())


def lines_of(data: bytes) -> list[str]:
    """Return the lines of a text file; bytes that are no characters stay as marks of their own."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return io.StringIO(data.decode("utf-16"), newline="").readlines()
    raw = data.splitlines(keepends=True)
    bad = [line for line in raw if _broken(line)]
    some = any(not line.isascii() for line in raw if not _broken(line))  # a mark of UTF-8 is UTF-8
    text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1" if bad and not some else "utf-8", "surrogateescape")
    return io.StringIO(text, newline="").readlines()


def _broken(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def delimited(data: bytes) -> File:
    """Return what is in delimited text: a row that does not fit its header is rejected, alone."""
    lines = lines_of(data)
    first = next(i for i, line in enumerate(lines) if line.strip())
    bare = re.sub('"[^"]*"', "", lines[first])
    mark = max(",\t;|", key=bare.count)
    names = [name.strip() for name in _row(lines[first:], mark)[0]]
    found = _parsed(lines[first + 1 :], mark, len(names), quotes=True)
    if mark == "\t" and found[2]:  # files of tabs that know no quotes: every line is a row, and cells are not wrapped in quotes as a rule
        plain = _parsed(lines[first + 1 :], mark, len(names), quotes=False)
        cells = [cell for row in plain[1] for cell in row if cell.startswith('"')]
        wrapped = sum(len(cell) > 1 and cell[-1] == '"' for cell in cells)
        if not plain[2] and 2 * wrapped <= len(cells):
            found = plain
    places, rows, rejected = found
    return File([Column(name, "text", [row[i] for row in rows]) for i, name in enumerate(names)], places, rejected)


def _parsed(lines: Sequence[str], mark: str, width: int, *, quotes: bool) -> tuple[list[int], list[list[str]], Counter[str]]:
    """Return the places and cells of the rows that fit, and how many do not, by reason."""
    at, read = 0, 0
    places: list[int] = []
    rows: list[list[str]] = []
    rejected: Counter[str] = Counter()
    while at < len(lines):
        if not lines[at].strip("\r\n"):
            at += 1
            continue
        read += 1
        try:
            cells, n = _row(lines[at:], mark) if quotes else (lines[at].rstrip("\r\n").split(mark), 1)
        except ValueError:
            cells, n = [], 1
        while len(cells) > width and cells[-1] == "":
            cells.pop()
        text = "".join(lines[at : at + n])
        at += n
        if "\0" in text or re.search("[\udc80-\udcff]", text):
            rejected["encoding"] += 1
        elif len(cells) != width:
            rejected["invalid-csv"] += 1
        else:
            places.append(read)
            rows.append(cells)
    return places, rows, rejected


def _row(lines: Sequence[str], mark: str) -> tuple[list[str], int]:
    """Return the cells of the row that begins with a line, and how many lines it takes; ValueError where its quotes do not close."""
    cells: list[str] = []
    cell, quoted, closed, n = "", False, False, 0
    for n, line in enumerate(lines, 1):
        i = 0
        while i < len(line):
            char = line[i]
            if quoted:
                if char == '"' and line[i + 1 : i + 2] == '"':
                    cell, i = cell + '"', i + 1
                elif char == '"':
                    quoted, closed = False, True
                    if line[i + 1 :].lstrip(" ")[:1] not in {mark, "\r", "\n", ""}:
                        raise ValueError
                    i += len(line[i + 1 :]) - len(line[i + 1 :].lstrip(" "))
                else:
                    cell += char
            elif char == '"' and not cell.strip(" ") and not closed:  # behind blanks, too
                cell, quoted = "", True
            elif char == mark:
                cells, cell, closed = [*cells, cell], "", False
            elif char not in "\r\n":
                cell += char
            i += 1
        if not quoted:
            return [*cells, cell], n
    raise ValueError
