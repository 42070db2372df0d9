"""What the tests of the HL7v2 reader share: a reading of files or of messages written as lists of segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.readers.base import FileEntry, Rejected, SourceFile
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.tables import ALL

CASES = Path(__file__).parent.parent / "cases" / "hl7v2"

MSH = "MSH|^~\\&|LAB|HOSP|||{time}||{type}|1|P|2.5.1"
PID = "PID|1||P1^^^AUTH^MR||DOE^JANE||19800229|F|||||||||||||||"
PV1 = "PV1|1|I|||||||||||||||||V1"


class Tables:
    """What a reading gave: the connection's tables as sorted rows, the ledger, the rejections."""

    def __init__(self, con: duckdb.DuckDBPyConnection, entries: dict[int, FileEntry], rejected: list[Rejected]) -> None:
        self.con, self.entries, self.rejected = con, entries, rejected

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[Any, ...]:
        (found,) = self.rows(sql)
        return found

    def everything(self) -> dict[str, list[str]]:
        """All canonical tables but the count by type, rows in one order, without the columns of the position."""
        return {name: sorted(map(repr, self.rows(f'SELECT * FROM "{name}"'))) for name in ALL}


def read(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Tables:
    files = [SourceFile(i, path, path.stat().st_size, "hl7v2", "messages") for i, path in enumerate(paths, 1)]
    ledger, rejected = Ledger.of(files), []
    for event in Hl7v2Reader().read(files, con):
        ledger.add(event)
        if isinstance(event, Rejected):
            rejected.append(event)
    ledger.close()
    return Tables(con, ledger.entries, rejected)


@pytest.fixture
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine(threads=2) as connection:
        yield connection


def of_text(tmp_path: Path, con: duckdb.DuckDBPyConnection, *messages: Sequence[str]) -> Tables:
    """Read messages, given as lists of segments, from one file."""
    path = tmp_path / "text.hl7"
    path.write_bytes("".join(segment + "\r" for message in messages for segment in message).encode())
    return read(con, [path])


def message(*segments: str, time: str = "20240102030405", type: str = "ORU^R01") -> list[str]:  # noqa: A002 # MSH-9
    return [MSH.format(time=time, type=type), *segments]
