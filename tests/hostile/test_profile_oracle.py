"""Random sources, read and measured, against plain Python: the rows of OMOP tables (``omop_oracle``) and the counts of every profile (``profile_oracle``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ehrready.engines.duckdb import open_engine
from ehrready.readers import tabular_narrow
from ehrready.readers.base import Event, SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.readers.tabular_csv import stage
from ehrready.tables import POSITION_BITS
from tests.hostile import csv_cases, fhir_cases, hl7v2_cases, omop_check, profile_check, profile_codes, table_oracle
from tests.hostile.omop_cases import Maker
from tests.hostile.omop_strange import Strange


def fhir_problems(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Measure random resources; returns what is not counted as plain Python counts it."""
    path = folder / f"{seed}.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in fhir_cases.resources(seed, count)), "utf-8")
    return profile_check.problems(FhirReader(), [SourceFile(1, path, path.stat().st_size, "fhir", "ndjson")])


def hl7v2_problems(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Measure files of random messages; returns what is not counted as plain Python counts it."""
    files = []
    for i, text in enumerate(hl7v2_cases.texts(seed, count), 1):
        path = folder / f"{seed}-{i:04d}.hl7"
        path.write_bytes(text.encode())
        files.append(SourceFile(i, path, path.stat().st_size, "hl7v2", "messages"))
    return profile_check.problems(Hl7v2Reader(), files)


def omop_problems(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Read random exports, sound and strange by turns; returns what is not as plain Python says."""
    for number in range(seed * count, (seed + 1) * count):
        maker = Strange(number) if number % 2 else Maker(number, tame=number % 4 == 0)
        if found := omop_check.problems(maker.write(folder / str(number)), short=number % 8 != 7):
            return {"export": number, **found}
    return {}


def csv_problems(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Read random delimited text, all at once and row by row; returns what is not as plain Python says."""
    with open_engine(threads=1) as con:
        for number in range(seed * count, (seed + 1) * count):
            data = csv_cases.delimited(number)
            (folder / "x.csv").write_bytes(data)
            wanted = table_oracle.delimited(data)
            rows = [(place, *(column.cells[i].strip(" ") or None for column in wanted.columns)) for i, place in enumerate(wanted.places)]
            for fast in (
                (True,) if "\t" in table_oracle.lines_of(data)[0] else (True, False)
            ):  # quotes may be no quotes there, which one row cannot tell
                staged = stage(con, folder / "x.csv", 1, folder, fast=fast)
                names = ", ".join(f"nullif(trim(c{i}, ' '), '')" for i in range(len(wanted.columns)))
                found = con.execute(
                    f"SELECT ({staged.relation.record}) - (1::BIGINT << {POSITION_BITS}), {names} FROM {staged.relation.sql} ORDER BY 1"
                ).fetchall()
                reasons = {reason: n for reason, (_, n) in staged.rejected.items()}
                if (staged.read, reasons, found) != (len(rows) + wanted.rejected.total(), dict(wanted.rejected), rows):
                    return {"text": number, "fast": fast, "found": (staged.read, reasons, found), "wanted": (dict(wanted.rejected), rows)}
    return {}


def test_delimited_text_is_read_as_plain_python_reads_it(tmp_path: Path) -> None:
    assert csv_problems(tmp_path, 1, 150) == {}


def test_the_counts_of_strange_resources_are_those_of_plain_python(tmp_path: Path) -> None:
    assert fhir_problems(tmp_path, 19, 400) == {}


def test_the_counts_of_strange_messages_are_those_of_plain_python(tmp_path: Path) -> None:
    assert hl7v2_problems(tmp_path, 8, 80) == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_sound_exports_are_read_and_counted_as_plain_python_does(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    tried = tabular_narrow.events

    def noted(run: Iterator[Event], con: duckdb.DuckDBPyConnection) -> Sequence[Event] | None:
        taken.append((found := tried(run, con)) is not None)
        return found

    monkeypatch.setattr(tabular_narrow, "events", noted)
    Maker(seed, tame=True).write(tmp_path)
    assert omop_check.problems(tmp_path, short=True) == {}
    assert omop_check.problems(tmp_path, short=False) == {}
    assert taken == [True]


@pytest.mark.parametrize("seed", [1, 11, 23])
def test_strange_exports_are_read_and_counted_as_plain_python_does(seed: int, tmp_path: Path) -> None:
    assert omop_check.problems(Strange(seed).write(tmp_path), short=False) == {}


def test_an_oracle_that_is_wrong_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_codes, "_SENTINELS", {-9999})
    Maker(1, tame=True).write(tmp_path)
    assert set(omop_check.problems(tmp_path, short=True)) == {"value_kinds", "relations", "overlaps"}
