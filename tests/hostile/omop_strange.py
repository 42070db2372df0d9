"""Strange OMOP exports, made from a seed: ids that are text, dates that are none, concept ids of every type, partial vocabularies, CSV of every dialect."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.omop_cases import _VOCABULARY, COLUMNS, Maker, _said

_IDS = ["1", "2", "3", "007", "A-1", " 5 ", "", "UNK", "NULL", "-3", "1.0", "\u00e9", "x?y", "#1", "a b", None, "7", "9"]
_TIMES = [
    "2024-03-05", "20240305", "2024-03", "2024", "05/03/2024", "2024-02-30", "2024-03-05 10:30:00", "2024-03-05T10:30:00+02:00", "2024-03-05T10:30",
    "202403051030", "not a date", "UNK", "", None, "9999-12-31", "1899-12-31", "2024-13-01", "2024-13", "20241301", "0", "2024-03-05 00:00:00", "2024-03-05 10:30:00.123",
    "1960", "1961-07-08", "masked", "2024-03-05 (BC)", "2024-03-05T10:30:00Z",
]  # fmt: skip
_CONCEPTS = [
    "1",
    "2",
    "3",
    "4",
    "6",
    "7",
    "0",
    "00",
    "",
    None,
    "abc",
    "3.0",
    "12.7",
    "1e1",
    "-1",
    "+2",
    str(1 << 63),
    "99",
    " 8 ",
    "UNK",
    "13",
    "14",
    "0x10",
    "8507",
    "2.5",
]
_NUMBERS = [
    "5.4",
    ">5",
    "1e400",
    "inf",
    "-inf",
    "nan",
    "7,5",
    " 5 ",
    "positive",
    "",
    None,
    "UNK",
    "1e3",
    "-0",
    "+4",
    ".5",
    "5.",
    "12 mg/dL",
    "0x1F",
    "\u0665",
    "999",
    "1:2",
    "1-2",
    "- 5",
]
_PARTS = ["1", "02", "13", "31", "112", "0", "", None, "1960", "2.0", "x", "-1", " 7 "]
_MORE_CONCEPTS: list[tuple[Any, Any, Any, Any]] = [
    (2, "LOINC", "0000", "A"), (3, None, "2345-7", "Glucose"), (4, "", "x", "y"), (20, "SNOMED", "UNK", "Unknown"), (20, "CVX", "zz", None), (5, "ZZ", "aaa", "\u00e9"),
    (-1, "SNOMED", "22298006", "MI"), (0, "None", "No matching concept", "No matching concept"), (6, "CVX", " 140 ", " "), (8521, "Gender", "O", None),
]  # fmt: skip
_VERSIONS = [
    ("SNOMED", "2024-03-01 SNOMED CT"),
    ("SNOMED", "2023-09-01"),
    ("LOINC", "LOINC 2.77"),
    ("OMOP", "v5.0"),
    (None, "x"),
    ("UCUM", None),
    ("UCUM", " "),
]


class Strange(Maker):
    """Makes one export; what is strange of it is drawn for each column and file."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, tame=False)
        self.rng = random.Random(f"strange {seed}")
        self.strange = self.rng.choice([0.02, 0.1, 0.3])
        self.csv = self.rng.choice([0.0, 0.0, 0.3, 1.0])
        self.rows = self.rng.choice([5, 40, 120])

    def column(self, table: str, column: str, n: int) -> pa.Array:
        """Return the cells of one column: as a rule what its name says."""
        if not self.odds(self.strange):
            return super().column(table, column, n)
        if column.endswith("concept_id"):
            return self._concepts(n)
        if column.endswith(("_date", "_datetime")):
            return self.of(_TIMES, n)
        if column.endswith("_id"):
            return self.of(_IDS, n)
        if column.endswith("_of_birth"):
            return self.of(_PARTS, n)
        if column in {"value_as_number", "range_low", "range_high"}:
            return self.of(_NUMBERS, n)
        return self._anything(n)

    def of(self, pool: list[Any], n: int) -> pa.Array:
        """Return texts."""
        return pa.array([self.rng.choice(pool) for _ in range(n)], pa.string())

    def _concepts(self, n: int) -> pa.Array:
        match self.rng.randrange(5):
            case 0:
                return pa.array(
                    [self.rng.choice([Decimal("1.0"), Decimal("2.5"), Decimal("0.0"), None]) for _ in range(n)], pa.decimal128(10, 1)
                )
            case 1:
                return pa.array(
                    [self.rng.choice([1.0, 2.5, float("nan"), float("inf"), 1e300, -1.0, 0.0, None]) for _ in range(n)], pa.float64()
                )
            case 2:
                return self._anything(n)
            case _:
                return self.of(_CONCEPTS, n)

    def _anything(self, n: int) -> pa.Array:
        kinds: list[tuple[pa.DataType, list[Any]]] = [
            (pa.bool_(), [True, False, None]), (pa.binary(), [b"x", b"\xff", b"", b" 5 ", None]), (pa.list_(pa.int64()), [[1], [], [None, 2], None]),
            (pa.struct([("a", pa.int64())]), [{"a": 1}, {"a": None}, None]), (pa.null(), [None]), (pa.int64(), [0, 1, 8507, -5, None]),
            (pa.float32(), [0.1, 5.5, 1e20, 16777217.0, None]), (pa.decimal128(12, 4), [Decimal("5.4000"), Decimal("-0.5000"), Decimal("100.0000"), None]),
        ]  # fmt: skip
        kind, pool = self.rng.choice(kinds)
        return pa.array([self.rng.choice(pool) for _ in range(n)], kind)

    def write(self, folder: Path) -> Path:
        """Write the export; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in COLUMNS:
            if self.odds(0.15):
                continue
            for part in range(self.rng.choice([1, 1, 1, 2, 3])):
                table = self.table(name)
                if self.odds(0.02):  # no table of the CDM any more
                    table = table.drop_columns([column for column in table.column_names if column.lower() == "person_id"])
                self._file(folder / f"{'mystery' if self.odds(0.02) else name}-{part:04d}", table)
        rows = [row for row in [*_VOCABULARY, *_MORE_CONCEPTS] if self.odds(0.8)]
        for i, some in enumerate((rows[::2], rows[1::2]) if self.odds(0.3) else (rows,)):
            if self.odds(0.8):
                names = ("concept_id", "vocabulary_id", "concept_code", "concept_name")[: self.rng.choice([3, 4, 4])]
                self._file(folder / f"concept-{i:04d}", pa.table({name: [row[at] for row in some] for at, name in enumerate(names)}))
        if self.odds(0.5):
            said = [row for row in _VERSIONS if self.odds(0.7)]
            self._file(folder / "vocabulary", pa.table({"vocabulary_id": pa.array([v for v, _ in said], pa.string()), "vocabulary_version": pa.array([v for _, v in said], pa.string())}))  # fmt: skip
        return folder

    def _file(self, stem: Path, table: pa.Table) -> None:
        if self.odds(self.csv):
            stem.with_name(f"{stem.name}.csv").write_bytes(self.delimited(table))
        else:
            pq.write_table(
                table, stem.with_name(f"{stem.name}.parquet"), row_group_size=self.rng.choice([1, 7, 1000]), use_dictionary=self.odds(0.5)
            )

    def delimited(self, table: pa.Table) -> bytes:
        """Return a table as delimited text of some dialect, now and then with rows that do not fit."""
        mark, end = self.rng.choice([",", ",", ",", "\t", ";", "|"]), self.rng.choice(["\n", "\n", "\r\n"])
        always, ragged = self.odds(0.3), self.rng.choice([0.0, 0.0, 0.03])

        def cell(value: Any) -> str:
            text = (str(value) if isinstance(value, float) and math.isinf(value) else _said(value)).replace("\0", "")
            special = any(char in text for char in (mark, '"', "\n", "\r"))
            return '"' + text.replace('"', '""') + '"' if always or special or text[:1] in {" ", "\u00a0"} else text

        lines = [mark.join(map(cell, table.column_names))]
        for row in table.to_pylist():
            cells = [cell(value) for value in row.values()]
            if self.odds(ragged):
                cells = self.rng.choice(
                    [
                        cells[:-1],
                        [*cells, "more"],
                        [*cells, "", ""],
                        ["x", *cells],
                        [f'a"b{c}' for c in cells],
                        [f'"{c}"x' for c in cells],
                        ['"open', *cells[1:]],
                        [],
                    ]
                )
            lines.append(mark.join(cells))
        text = end.join(lines) + (end if self.odds(0.8) else "")
        match self.rng.randrange(8):
            case 0:
                return text.encode("utf-16")
            case 1:
                return text.encode("latin-1", "replace")
            case 2:
                return b"\xef\xbb\xbf" + text.encode()
        return text.encode()
