"""Strange sources, read by the readers and by plain Python (``fhir_oracle``, ``hl7v2_oracle``): the same rows in every canonical table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.readers import blocks, leaves
from ehrready.readers.base import Reader, SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.tables import ALL, POSITION_BITS, TABLES
from tests.hostile import fhir_cases, fhir_oracle, hl7v2_cases, hl7v2_oracle

Rows = dict[str, Counter[str]]


def _told(reader: Reader, paths: Sequence[Path], kind: str, leave_out: set[str]) -> tuple[Rows, Ledger, Counter[str]]:
    """Read files; returns the rows of the tables, the ledger and the records by type."""
    files = [SourceFile(i, path, path.stat().st_size, reader.format, kind) for i, path in enumerate(paths, 1)]
    ledger = Ledger.of(files)
    rows: Rows = {}
    with open_engine(threads=1) as con:
        for event in reader.read(files, con):
            ledger.add(event)
        ledger.close()
        for table in [*TABLES, "component", "concept", "coding"]:
            names = [name for name in ALL[table].names if name not in leave_out]
            columns = ", ".join(f'"{name}"' for name in names)
            sql = f'SELECT {columns} FROM "{table}"'
            # parts of a record that is kept out are in no denominator either
            sql += " WHERE excluded IS NULL" if table == "component" else ""
            rows[table] = Counter(repr(dict(zip(names, row, strict=True))) for row in con.execute(sql).fetchall())
        types = Counter({name: int(n) for name, n in con.execute('SELECT "type", sum(n) FROM types GROUP BY 1').fetchall()})
    return rows, ledger, types


def _differ(found: Rows, wanted: dict[str, list[dict[str, Any]]], leave_out: set[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return, for each table that is not as wanted, some rows that are lacking and some that are too many."""
    problems = {}
    for table, rows in found.items():
        names = [name for name in ALL[table].names if name not in leave_out]
        expected = Counter(repr({name: row.get(name) for name in names}) for row in wanted.get(table, []))
        if expected != rows:
            problems[table] = (list(expected - rows)[:2], list(rows - expected)[:2])
    return problems


def fhir_problems(folder: Path, seed: int, count: int, *, shared: bool) -> dict[str, Any]:
    """Read random resources as NDJSON; returns what is not as the oracle says."""
    resources = fhir_cases.resources(seed, count)
    path = folder / f"{seed}.ndjson"
    path.write_text("".join(json.dumps(one, ensure_ascii=bool(i % 2)) + "\n" for i, one in enumerate(resources)), "utf-8")
    reader = FhirReader()
    reader.shared = shared
    rows, ledger, _ = _told(reader, [path], "ndjson", set())
    entry = ledger.entries[1]
    found: dict[str, Any] = dict(
        _differ(rows, fhir_oracle.tables(((1 << POSITION_BITS) + i, one) for i, one in enumerate(resources, 1)), set())
    )
    return found | ({} if (entry.read, entry.rejected) == (count, 0) else {"ledger": (entry.read, entry.reasons)})


def hl7v2_problems(folder: Path, seed: int, count: int, *, shared: bool) -> dict[str, Any]:
    """Read files of random messages; returns what is not as the oracle says."""
    texts = hl7v2_cases.texts(seed, count)
    paths = [folder / f"{seed}-{i:04d}.hl7" for i in range(count)]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    reader = Hl7v2Reader()
    reader.shared = shared
    left_out = {"record", "absent_reason"}
    rows, ledger, types = _told(reader, paths, "messages", left_out)
    wanted, kinds, rejected = hl7v2_oracle.read([hl7v2_oracle.one_form(text.encode()) for text in texts])
    found: dict[str, Any] = dict(_differ(rows, wanted, left_out))
    reasons: Counter[str] = sum((Counter(entry.reasons) for entry in ledger.entries.values()), Counter())
    return found | ({} if (types, reasons) == (kinds, rejected) else {"ledger": (types - kinds, kinds - types, reasons, rejected)})


@pytest.mark.parametrize(("few", "shared"), [(2048, False), (0, True)])
def test_strange_resources_are_read_as_plain_python_reads_them(
    few: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaves, "FEW", few)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 400_000)
    assert fhir_problems(tmp_path, 8 + few, 1500, shared=shared) == {}


@pytest.mark.parametrize(("few", "shared"), [(2048, False), (0, True)])
def test_strange_messages_are_read_as_plain_python_reads_them(
    few: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaves, "FEW", few)
    assert hl7v2_problems(tmp_path, 8 + few, 200, shared=shared) == {}


def test_an_oracle_that_is_wrong_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_oracle, "_TOKENS", {"", "UNK"})
    assert set(fhir_problems(tmp_path, 8, 200, shared=False)) == {"concept"}
