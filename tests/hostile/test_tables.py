"""Parquet and CSV made to break readers: a clear reason, the neighbours read, and no crash."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from ehrready.pipeline import Options, read_profile
from ehrready.readers.base import FileEntry
from tests.hostile.table_cases import CSV_GOOD, csv_mutations, damaged, mutations, nested, parquet, person


def read(folder: Path, files: dict[str, bytes]) -> dict[str, FileEntry]:
    """Read files together; returns their ledger entries by name."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    _, ledger, sources = read_profile([str(folder)], Options(threads=2))
    return {source.path.name: ledger.entries[source.number] for source in sources}


def test_damaged_parquet_is_rejected_and_its_neighbours_are_read(tmp_path: Path) -> None:
    cases = damaged()
    files = {f"{name}.parquet": data for name, (data, _) in cases.items()} | {
        "aa.parquet": parquet(person()),
        "zz.parquet": parquet(nested()),
    }
    entries = read(tmp_path / "d", files)
    assert {name: dict(entries[f"{name}.parquet"].reasons) for name in cases} == {name: {reason: 1} for name, (_, reason) in cases.items()}
    assert {entries[f"{name}.parquet"].status for name in cases} == {"unreadable"}
    assert [(entries[name].status, entries[name].profiled) for name in ("aa.parquet", "zz.parquet")] == [("read", 50), ("read", 20)]


def test_mutated_parquet_is_read_or_rejected(tmp_path: Path) -> None:
    files = {f"{i:04d}.parquet": data for i, data in enumerate(mutations(600, seed=8))}
    entries = read(tmp_path / "m", files)
    statuses = Counter(entry.status for entry in entries.values())
    assert statuses["unreadable"] > 100
    assert statuses["read"] > 20
    assert sum(statuses.values()) == statuses["read"] + statuses["unreadable"] == 600


def test_absurd_shapes_are_read(tmp_path: Path) -> None:
    wide = pa.table({f"c{i}": [1, None] for i in range(300)})
    deep = pa.array([1, 2])
    for _ in range(60):
        deep = pa.StructArray.from_arrays([deep], ["x"])
    files = {
        "wide.parquet": parquet(wide),
        "deep.parquet": parquet(pa.table({"d": deep})),
        "norows.parquet": parquet(person(0)),
        "names.parquet": parquet(pa.table([[1], [2], [3]], names=["", '"; DROP TABLE person; --', "a\n<b>"])),
        "same.parquet": parquet(pa.table([[1], [2]], names=["A", "a"])),
        "wrongtypes.parquet": parquet(pa.table({"person_id": ["x"], "gender_concept_id": [[1]], "year_of_birth": [b"\xff"]})),
    }
    entries = read(tmp_path / "s", files)
    assert {name: entry.profiled for name, entry in entries.items() if entry.status == "read"} == {
        "wide.parquet": 2, "deep.parquet": 2, "norows.parquet": 0, "names.parquet": 1, "same.parquet": 1,
        "wrongtypes.parquet": 1,
    }  # fmt: skip


def test_omop_columns_of_wrong_types_do_not_stop_the_run(tmp_path: Path) -> None:
    table = pa.table({"person_id": ["x", None], "gender_concept_id": [[1], []], "year_of_birth": [1.5, float("nan")]})
    entries = read(tmp_path / "o", {"person.parquet": parquet(table), "visit_occurrence.csv": b"visit_occurrence_id,person_id\nx,y\n"})
    assert entries["person.parquet"].read == 2
    assert {entry.status for entry in entries.values()} == {"read"}


def test_mutated_csv_is_read_or_rejected(tmp_path: Path) -> None:
    files = {f"{i:04d}.csv": data for i, data in enumerate(csv_mutations(200, seed=8))} | {"person.csv": CSV_GOOD}
    entries = read(tmp_path / "m", files)
    assert entries["person.csv"].profiled == 30
    assert all(entry.format in {"omop", "table"} for entry in entries.values())
    assert sum(entry.rejected for entry in entries.values()) > 200


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty", b"", "empty"),
        ("blank", b"\n\n \n", "empty"),
        ("nul", b"\0" * 100, "encoding"),
        ("binary", bytes(range(256)) * 10, "encoding"),
        ("utf16-cut", "a,b\n1,2\n".encode("utf-16")[:-1], "encoding"),
    ],
)
def test_text_that_is_no_table(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    entries = read(tmp_path / name, {"x.csv": data, "person.csv": CSV_GOOD})
    assert (entries["x.csv"].status, entries["x.csv"].reasons) == ("unreadable", {reason: 1})
