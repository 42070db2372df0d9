"""A reader: a line of a census file is one stay, ``STAY|patient|ward|sex|birth date|from|to``; the last line is ``END|stays``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.tables import POSITION_BITS

if TYPE_CHECKING:
    import duckdb

_FIELDS = 7
_PATIENT = "INSERT INTO patient (record, id, patient_id, source_type, birth_date, sex) VALUES (?, ?, ?, 'census', clean(?), clean(?))"
_STAY = 'INSERT INTO encounter (record, patient_id, source_type, "at", "end") VALUES (?, ?, \'census\', iso(clean(?)), iso(clean(?)))'


class CensusReader:
    """Reads census files (*.census)."""

    format = "census"

    def recognise(self, path: Path, head: bytes) -> str:
        """A census file is one by its name and its first word."""
        return "stays" if path.suffix == ".census" and head.startswith((b"STAY|", b"END|")) else ""

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill patient and encounter.  Files are small here; a reader of large ones hands blocks to DuckDB as Arrow tables."""
        seen: set[str] = set()
        for file in files:
            good, ended = 0, False
            for number, line in enumerate(file.path.read_bytes().splitlines(), 1):
                record = file.number << POSITION_BITS | number
                fields = line.decode("utf-8", "replace").split("|")
                if fields[0] == "END" and len(fields) == 2:
                    ended = True
                    continue
                yield Read(file.number, 1)
                if len(fields) != _FIELDS or fields[0] != "STAY" or not fields[1] or "\ufffd" in line.decode("utf-8", "replace"):
                    yield Rejected(file.number, number, "invalid-csv")
                    continue
                _, patient, _, sex, born, start, end = fields
                if patient not in seen:
                    seen.add(patient)
                    con.execute(_PATIENT, [record, patient, patient, born, sex])
                con.execute(_STAY, [record, patient, start, end])
                good += 1
            con.execute("INSERT INTO profiled VALUES (?, ?)", [file.number, good])
            yield Ended(file.number, "read" if ended else "truncated", bytes=file.size)

    def source_elements(self) -> dict[str, str]:
        """Where the elements are in a census line."""
        return {
            "patient.id": "field 2", "patient.sex": "field 4", "patient.birth_date": "field 5",
            "encounter.patient_id": "field 2", "encounter.at": "field 6", "encounter.end": "field 7",
        }  # fmt: skip
