"""Read files with the tabular readers into an engine, and look at what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.readers.base import Reader, SourceFile
from ehrready.readers.tabular import OmopReader, TableReader
from ehrready.sources import recognise


@dataclass
class Run:
    """One reading: the connection, the files by name and the ledger rows by name."""

    con: duckdb.DuckDBPyConnection
    files: dict[str, SourceFile]
    ledger: dict[str, dict[str, Any]]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()

    def one(self, sql: str) -> Any:
        return self.rows(sql)[0][0]


@contextlib.contextmanager
def reading(paths: Sequence[Path], *readers: Reader) -> Iterator[Run]:
    """Read files as the pipeline does: OMOP first, then any table, unless told otherwise."""
    chosen: Sequence[Reader] = readers or (OmopReader(), TableReader())
    files = recognise(sorted(paths), chosen)
    ledger = Ledger.of(files)
    with open_engine(memory="1GB", threads=2) as con:
        for reader in chosen:
            mine = [file for file in files if not file.skip and file.format == reader.format]
            for event in reader.read(mine, con):
                ledger.add(event)
        ledger.close()
        rows = {file.path.name: row for file, row in zip(files, ledger.rows(), strict=True)}
        for row in rows.values():
            assert row["read"] == row["profiled"] + sum(row["reasons"].values())
        yield Run(con, {file.path.name: file for file in files}, rows)


def write(path: Path, sql: str) -> Path:
    """Write the result of a query as Parquet or CSV, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form = "FORMAT parquet" if path.suffix == ".parquet" else "FORMAT csv, HEADER"
    with duckdb.connect() as con:
        con.execute(f"COPY ({sql}) TO '{path}' ({form})")
    return path
