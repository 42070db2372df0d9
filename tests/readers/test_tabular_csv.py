"""Delimited text: one tiny file per malformation, and the ledger law under generated damage."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrready.engines.duckdb import open_engine
from ehrready.readers import tabular_csv
from ehrready.readers.tabular import TableReader
from ehrready.readers.tabular_csv import Staged, stage
from ehrready.readers.tabular_files import DamagedError
from tests.readers.tabular_helpers import reading

CASES = Path(__file__).parent.parent / "cases" / "tabular"
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "cases.yaml").read_text("utf-8"))

#: A mapping that keeps the second column of the cases as text.
MAPPING = """
mapping: cases
version: 1.0.0
tables:
  - table: case
    to: document
    columns: {patient_id: person_id}
    concepts: {document.type: {text: note}}
"""


def test_every_case_file_is_expected() -> None:
    named = {path.name for path in CASES.iterdir() if path.suffix not in {".yaml", ".parquet"}}
    assert named == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_case(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    (tmp_path / "mapping.yaml").write_text(MAPPING, encoding="utf-8")
    path = tmp_path / f"case{''.join(Path(name).suffixes)}"
    path.write_bytes((CASES / name).read_bytes())
    with reading([path], TableReader(tmp_path / "mapping.yaml")) as run:
        row = run.ledger[path.name]
        assert row["status"] == expected.get("status", "read")
        assert row["reasons"] == expected.get("reasons", {})
        if "cut" in expected:
            assert 0 < row["profiled"] < 2000
        else:
            assert (row["read"], row["profiled"]) == (expected["read"], expected["profiled"])
        assert run.one("SELECT count(*) FROM document") == row["profiled"]
        if "notes" in expected:
            notes = run.rows("SELECT text FROM concept WHERE element = 'document.type' ORDER BY record")
            assert [note for (note,) in notes] == expected["notes"]


@functools.cache
def engine() -> duckdb.DuckDBPyConnection:
    """One connection for all examples: staging replaces its table every time."""
    return duckdb.connect(config={"threads": 2})


def staged(data: bytes, *, fast: bool) -> tuple[Staged, list[tuple[Any, ...]]] | str:
    """Stage a CSV file and return it with its rows in file order, or why it could not be read."""
    con = engine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(data)
        try:
            found = stage(con, path, 1, Path(folder), fast=fast)
        except DamagedError as error:
            return error.reason
        # what reads a cell trims it: blanks before it may be gone
        cells = ", ".join(f"ltrim(coalesce(s.{column.identifier}, ''), ' ')" for column in found.relation.columns.values())
        sql = f"SELECT {found.relation.record}, {cells} FROM {found.relation.sql} ORDER BY 1"
        return found, con.execute(sql).fetchall()


cell = st.text(st.sampled_from('ab1 ,;"\n\r\täñ'), max_size=6)
good_row = st.lists(cell, min_size=3, max_size=3)
#: Without quotes and line ends an open quote before it can never close on it.
plain_row = st.lists(st.text(st.sampled_from("ab1 ;'äñ"), max_size=6), min_size=3, max_size=3)
#: Damaged lines: a wrong number of plain cells, an open quote, a byte of no character set.
bad_line = st.one_of(
    st.sampled_from([1, 2, 4, 5, 9]).map(lambda n: ",".join(["x"] * n).encode()),
    st.just(b'x,"open,y'),
    st.just(b"x,\xff\xc3\xa4,y"),
    st.just(b"x,\0,y"),
)


@settings(max_examples=60)
@given(st.lists(st.one_of(plain_row, bad_line), max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_every_row_is_profiled_or_rejected(rows: list[list[str] | bytes], end: bytes, final: bool) -> None:
    lines = [",".join(row).encode() if isinstance(row, list) else row for row in rows]
    data = end.join(["ä,b,c".encode(), *lines]) + (end if final else b"")
    result = staged(data, fast=True)
    assert not isinstance(result, str)
    found, kept = result
    wanted = [(n, *(cell.lstrip(" ") for cell in row)) for n, row in enumerate(rows, 1) if isinstance(row, list)]
    assert [(record & 0xFFFFFFFF, *cells) for record, *cells in kept] == wanted
    assert found.read == len(rows)
    assert sum(n for _, n in found.rejected.values()) == len(rows) - len(wanted)


@settings(max_examples=60)
@given(st.lists(good_row, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read_back(rows: list[list[str]], end: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
    for fast in (True, False):
        result = staged(out.getvalue().encode(), fast=fast)
        assert not isinstance(result, str)
        found, kept = result
        assert (found.read, found.rejected) == (len(rows), {})
        assert [cells for _, *cells in kept] == [[cell.lstrip(" ") for cell in row] for row in rows]


@settings(max_examples=150)
@given(st.text(st.sampled_from('a1,;"\n\r'), max_size=40))
def test_both_parsers_agree_where_the_fast_one_takes_a_file(text: str) -> None:
    data = b"a,b\n" + text.encode()
    fast, slow = staged(data, fast=True), staged(data, fast=False)
    if isinstance(fast, str) or isinstance(slow, str):
        assert fast == slow
        return
    assert (fast[0].read, fast[0].rejected) == (slow[0].read, slow[0].rejected)
    assert fast[1] == slow[1]


def test_rows_of_a_large_file_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("n,text\n")
        for number in range(1, 700_001):
            stream.write(f'{number},"{"x" * (number % 40)}"\n')
    assert path.stat().st_size > 16_000_000  # more than one thread parses it
    with open_engine(memory="1GB", threads=2) as con:
        found = stage(con, path, 1, tmp_path)
        assert found.read == 700_000
        record = f"({found.relation.record} & 4294967295)"
        sql = f"SELECT count(*) FROM {found.relation.sql} WHERE {record} <> c0::BIGINT"
        assert con.execute(sql).fetchall() == [(0,)]


def test_many_open_quotes_take_no_quadratic_time() -> None:
    data = b"a,b\n" + b'x,"y\n' * 20_000
    result = staged(data, fast=True)
    assert not isinstance(result, str)
    assert result[0].read == 20_000
    assert sum(n for _, n in result[0].rejected.values()) == 20_000 - len(result[1])


def test_a_compressed_file_may_not_expand_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ehrready.readers import streams

    monkeypatch.setattr(streams, "MAX_RATIO_FLOOR", 1 << 20)
    monkeypatch.setattr(streams, "MAX_RATIO", 10)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1_000_000, mtime=0))
    with reading([path]) as run:
        row = run.ledger["t.csv.gz"]
        assert (row["status"], row["reasons"]) == ("unreadable", {"compression": 1})
    assert [each.name for each in tmp_path.iterdir()] == ["t.csv.gz"]


def counted(text: bytes) -> int | None:
    """Count rows byte by byte: non-empty lines, where a line feed between quotes is none."""
    rows, line, inside = 0, b"", False
    for at, byte in enumerate(text):
        if byte == 34:
            inside = not inside
        if byte == 13 and not inside and text[at + 1 : at + 2] != b"\n":
            return None
        if byte == 10 and not inside:
            rows, line = rows + bool(line.strip(b"\r")), b""
        else:
            line += bytes([byte])
    return None if inside else rows + bool(line)


@settings(max_examples=300)
@given(st.text(st.sampled_from('a,"\n\r'), max_size=30), st.integers(1, 9))
def test_rows_are_counted_alike_whatever_the_block(text: str, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabular_csv, "_BLOCK", block)
        path = Path(folder) / "t.csv"
        path.write_bytes(b"a,b\n" + text.encode())
        assert tabular_csv._count_rows(path, 1, quotes=True) == counted(text.encode())
