"""Nasty but legal OMOP exports, made from a seed: types, nulls, copies, strangers, odd texts, several files and schemas of a table."""

from __future__ import annotations

import csv
import math
import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Concept ids of the data: two of them are of no concept table, one is said twice there, and one has no code.
CONCEPTS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 8507, 8532, 8521, 8551, 4171756, 4172703, 4172704, 99, 2_000_000_001]
_VOCABULARY: list[tuple[int | None, str | None, str | None, str | None]] = [
    (1, "SNOMED", "44054006", "Diabetes"), (2, "ICD10CM", "E11.9", "Diabetes"), (3, "LOINC", "2345-7", "Glucose"), (4, "LOINC", "718-7", "Haemoglobin"),
    (5, "RxNorm", "197361", "Amlodipine"), (6, "CVX", "140", "Influenza"), (7, "UCUM", "mg/dL", "milligram per decilitre"), (8, "UCUM", "%", "percent"),
    (9, "UCUM", "g/dL", "gram per decilitre"), (10, "Race", "5", "White"), (11, "Race", "3", "Black"), (12, "Ethnicity", "Hispanic", "Hispanic"),
    (13, "UNK", "unknown", "?"), (13, "SNOMED", "38341003", "Hypertension"), (14, "SNOMED", None, None), (8507, "Gender", "M", "MALE"), (None, "SNOMED", "1", "x"),
]  # fmt: skip
_TEXTS = [
    None, None, "", " ", "E11.9", "sugar", "Sugar ", "unknown", "UNK", " n/a", "NULL", "?", "-", "\u0000x", "\u0001masked", "caf\u00e9", "e\u0301", "\u202e\u200b",
    "\U0001f9ec", "\u017fsee", "a\tb\nc", '"quoted"', "5.4", "> 3 mg/dL", "<0.5", "1e400", "positive", "NEG", "7,5", "\u00a0", "\ufeff", "\x85none",
]  # fmt: skip
_UNITS = [None, "", "mg/dL", "MG/DL", "g/dL", "%", "percent", "UNK", " ", "mmol/l", "furlong", "\u00b5g"]
_NUMBERS: list[float | None] = [
    None,
    0.0,
    -0.0,
    1.0,
    5.4,
    -3.5,
    100.0,
    1e15,
    1e18,
    1e300,
    -1e300,
    1e-300,
    float("nan"),
    float("inf"),
    float("-inf"),
    999.0,
    12.0,
    12.0,
]
_DAYS = [
    None,
    date(2024, 3, 5),
    date(2024, 3, 6),
    date(2023, 12, 31),
    date(1000, 1, 1),
    date(1899, 12, 31),
    date(2099, 1, 1),
    date(1960, 2, 29),
    date(1961, 7, 8),
]
_FAR = [date(9999, 12, 31), date(999, 12, 31), date(1, 1, 1)]
_IDS: list[pa.DataType] = [pa.int32(), pa.int64(), pa.int64(), pa.int64()]
_RANGES = {pa.int16(): (-(1 << 15), 1 << 15), pa.int32(): (-(1 << 31), 1 << 31), pa.uint32(): (0, 1 << 32), pa.uint64(): (0, 1 << 63)}
_ODD_IDS: list[pa.DataType] = [pa.string(), pa.decimal128(38, 0), pa.decimal128(20, 2), pa.float64(), pa.uint32(), pa.uint64(), pa.int16()]


class Maker:
    """Makes one export; ``tame`` leaves out the types and values that send a reading the long way."""

    def __init__(self, seed: int, *, tame: bool) -> None:
        self.rng, self.tame = random.Random(seed), tame
        self.odd = 0.0 if tame else self.rng.choice([0.0, 0.02, 0.1])
        self.people = self.rng.choice([[1, 2, 3], [*range(1, 40)], [7, 9, 1 << 40, (1 << 53) + 1]])
        self.visits = [*range(1, self.rng.choice([3, 30]))]
        self.rows = self.rng.choice([5, 40, 200])

    def odds(self, chance: float) -> bool:
        return self.rng.random() < chance

    def id_type(self) -> pa.DataType:
        big = max(self.people) >= 1 << 31
        return self.rng.choice(_ODD_IDS) if self.odds(self.odd) else self.rng.choice(_IDS[1:] if big else _IDS)

    def ids(self, pool: list[int], n: int, nulls: float) -> list[int | None]:
        found: list[int | None] = [None if self.odds(nulls) else self.rng.choice(pool) for _ in range(n)]
        if not self.tame and self.odds(0.05) and n:
            found[self.rng.randrange(n)] = self.rng.choice([0, -1, -(1 << 40), (1 << 63) - 1])
        return found

    def key(self, n: int) -> list[int | None]:
        """Return ids of records: numbered, with some said twice, or any."""
        start = self.rng.choice([1, 1, 60, -70, 1 << 33])
        found: list[int | None] = [start + i for i in range(n)]
        if self.odds(0.4):
            found = [None if self.odds(0.1) else self.rng.choice(found) if self.odds(0.2) else i for i in found]
        self.rng.shuffle(found) if self.odds(0.5) else None
        return found

    def array(self, values: list[int | None], kind: pa.DataType) -> pa.Array:
        """Return whole numbers as a type, without those that it cannot hold."""
        low, high = _RANGES.get(kind, (-(1 << 63), 1 << 63))
        kept = [v if v is None or low <= v < high else None for v in values]
        if pa.types.is_string(kind):
            return pa.array([None if v is None else str(v) for v in kept], kind)
        if pa.types.is_decimal(kind):
            return pa.array([None if v is None or abs(v) > 10**17 else Decimal(v) for v in kept], kind)
        return pa.array([None if v is None else float(v) for v in kept] if pa.types.is_float64(kind) else kept, kind)

    def texts(self, pool: list[Any], n: int) -> pa.Array:
        words = self.rng.sample(pool, self.rng.randrange(1, len(pool) + 1))
        array = pa.array([self.rng.choice(words) for _ in range(n)], pa.string())
        if self.odds(0.3):
            return array.dictionary_encode()
        return array.cast(pa.large_string()) if self.odds(0.2) else array

    def days(self, n: int) -> list[date | None]:
        pool = self.rng.sample(_DAYS, self.rng.randrange(1, len(_DAYS) + 1))
        return [self.rng.choice(_FAR) if self.odds(self.odd / 10) else self.rng.choice(pool) for _ in range(n)]

    def dates(self, n: int) -> pa.Array:
        days = self.days(n)
        if self.odds(self.odd):
            return pa.array([None if d is None else d.isoformat() for d in days], pa.string())
        return pa.array(days, self.rng.choice([pa.date32(), pa.date32(), pa.date64()]))

    def times(self, n: int) -> pa.Array:
        clocks = [(0, 0, 0, 0), (0, 0, 0, 0), (10, 30, 0, 0), (23, 59, 59, 999_999), (0, 0, 30, 0), (0, 1, 0, 0), (10, 30, 0, 5)]
        times = [None if d is None else datetime.combine(d, time(*self.rng.choice(clocks))) for d in self.days(n)]
        if self.odds(self.odd):
            if self.odds(0.5):
                return pa.array([None if t is None else t.isoformat(" ") for t in times], pa.string())
            return pa.array([None if t is None else t.replace(tzinfo=UTC) for t in times], pa.timestamp("us", "UTC"))
        unit = self.rng.choice(["us", "us", "ms", "s", "ns"])
        if unit == "ns" and any(t is not None and not 1700 < t.year < 2200 for t in times):
            unit = "us"
        return pa.array(times, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)

    def numbers(self, n: int) -> pa.Array:
        pool = self.rng.sample(_NUMBERS, self.rng.randrange(1, len(_NUMBERS) + 1))
        found = [self.rng.choice(pool) for _ in range(n)]
        if self.odds(self.odd):
            return pa.array([None if v is None else str(v) for v in found], pa.string())
        match self.rng.randrange(6):
            case 0:
                return pa.array(found, pa.float64()).cast(pa.float32(), safe=False)
            case 1:
                exact = [None if v is None or not abs(v) < 1e15 else Decimal(str(v)).quantize(Decimal("0.001")) for v in found]
                return pa.array(exact, pa.decimal128(38, 3))
            case 2:
                return pa.array([None if v is None or not abs(v) < 1e17 else int(v) for v in found], pa.int64())
            case _:
                return pa.array(found, pa.float64())

    def concept(self, n: int) -> pa.Array:
        pool = self.rng.sample(CONCEPTS, self.rng.randrange(1, 8))
        kind = self.rng.choice(_ODD_IDS[:-1]) if self.odds(self.odd) else self.rng.choice(_IDS)
        return self.array([None if self.odds(0.1) else self.rng.choice(pool) for _ in range(n)], kind)

    def column(self, table: str, column: str, n: int) -> pa.Array:
        """Return the cells of one column, by what its name says."""
        match column:
            case "person_id":
                return self.array(self.persons(n) if table == "person" else self.ids(self.people, n, 0.05), self.id_type())
            case "care_site_id":
                return self.array(self.ids([1, 2, 3], n, 0.3), self.id_type())
            case "unit_source_value":
                return self.texts(_UNITS, n)
            case "value_as_number" | "range_low" | "range_high":
                return self.numbers(n)
        if column == f"{table}_id":
            return self.array(self.key(n), self.id_type())
        if column == "visit_occurrence_id":
            return self.array(self.ids(self.visits, n, 0.2), self.id_type())
        if column.endswith("concept_id"):
            return self.concept(n)
        if column.endswith("_date"):
            return self.dates(n)
        if column.endswith("_datetime"):
            return self.times(n)
        if column.endswith(("_value", "_title", "_string")):
            return self.texts(_TEXTS, n)
        return self.array([self.rng.choice([None, 1, 12, 13, 31, 1960, 2023, 1890]) for _ in range(n)], pa.int32())

    def persons(self, n: int) -> list[int | None]:
        """Return ids of persons: some of them, as a rule once each."""
        pool = self.rng.sample(self.people, self.rng.randrange(1, len(self.people) + 1))
        if self.odds(0.3):
            return self.ids(pool, n, 0.1)
        return [*pool, *([None] * n)][:n]

    def table(self, name: str) -> pa.Table:
        """Return the rows of one file of a table."""
        n = self.rng.choice([0, 1, self.rows, self.rows, self.rows])
        columns = [column for column in COLUMNS[name] if column in NEEDED[name] or not self.odds(0.12)]
        if self.odds(0.3):
            self.rng.shuffle(columns)
        upper = self.odds(0.2)
        arrays = {column.upper() if upper else column: self.column(name, column, n) for column in columns}
        if self.odds(0.3):
            arrays["extra"] = self.rng.choice(
                [self.numbers(n), self.texts(_TEXTS, n), pa.array([[i] for i in range(n)], pa.list_(pa.int64()))]
            )
        return pa.table(arrays)

    def write(self, folder: Path) -> Path:
        """Write the export as Parquet files; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in COLUMNS:
            if self.odds(0.15):
                continue
            for part in range(self.rng.choice([1, 1, 1, 2, 3])):
                path, size = folder / f"{name}-{part:04d}.parquet", self.rng.choice([1, 7, 1000])
                pq.write_table(self.table(name), path, row_group_size=size, version="2.6", use_dictionary=self.odds(0.5))
        if self.odds(0.8):
            names = ("concept_id", "vocabulary_id", "concept_code", "concept_name")
            rows = [dict(zip(names, row, strict=True)) for row in _VOCABULARY]
            pq.write_table(pa.Table.from_pylist(rows), folder / "concept.parquet")
        return folder


_EVENT = ["person_id", "visit_occurrence_id"]
COLUMNS = {
    "person": ["person_id", "care_site_id", "birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth", "gender_concept_id", "gender_source_value",
               "race_concept_id", "race_source_value", "ethnicity_concept_id", "ethnicity_source_value"],
    "death": ["person_id", "death_date", "death_datetime", "cause_concept_id"],
    "visit_occurrence": ["visit_occurrence_id", "person_id", "care_site_id", "visit_start_date", "visit_start_datetime", "visit_end_date", "visit_end_datetime",
                         "visit_concept_id", "visit_source_value"],
    "condition_occurrence": ["condition_occurrence_id", *_EVENT, "condition_start_date", "condition_start_datetime", "condition_end_date",
                             "condition_concept_id", "condition_source_concept_id", "condition_source_value"],
    "measurement": ["measurement_id", *_EVENT, "measurement_date", "measurement_datetime", "value_as_number", "value_source_value", "operator_concept_id",
                    "unit_source_value", "unit_concept_id", "range_low", "range_high", "measurement_source_concept_id", "measurement_concept_id",
                    "measurement_source_value", "value_as_concept_id"],
    "observation": ["observation_id", *_EVENT, "observation_date", "observation_datetime", "value_as_number", "value_as_string", "value_source_value",
                    "unit_source_value", "unit_concept_id", "observation_source_concept_id", "observation_concept_id", "observation_source_value", "value_as_concept_id"],
    "drug_exposure": ["drug_exposure_id", *_EVENT, "drug_exposure_start_date", "drug_exposure_start_datetime", "drug_exposure_end_date", "drug_exposure_end_datetime",
                      "drug_source_concept_id", "drug_concept_id", "drug_source_value"],
    "procedure_occurrence": ["procedure_occurrence_id", *_EVENT, "procedure_date", "procedure_datetime", "procedure_source_concept_id", "procedure_concept_id",
                             "procedure_source_value"],
    "note": ["note_id", *_EVENT, "note_date", "note_datetime", "note_class_concept_id", "note_type_concept_id", "note_title"],
    "provider": ["provider_id", "care_site_id"],
}  # fmt: skip
NEEDED = {
    "person": {"person_id"}, "death": {"person_id"}, "visit_occurrence": {"visit_occurrence_id", "person_id"},
    "condition_occurrence": {"person_id", "condition_concept_id"}, "measurement": {"person_id", "measurement_concept_id"},
    "observation": {"person_id", "observation_concept_id"}, "drug_exposure": {"person_id", "drug_concept_id"},
    "procedure_occurrence": {"person_id", "procedure_concept_id"}, "note": {"note_id", "person_id"}, "provider": {"provider_id"},
}  # fmt: skip


def as_csv(folder: Path, to: Path) -> Path:
    """Write an export's Parquet files as CSV; what text cannot say (infinity, NUL, lists) is taken out of the Parquet files, too."""
    to.mkdir()
    for path in sorted(folder.iterdir()):
        with pq.ParquetFile(path) as file:
            table = file.read()
        for place, field in reversed([*enumerate(table.schema)]):
            cells = table[place].to_pylist()
            if pa.types.is_list(field.type):
                table = table.remove_column(place)
            elif pa.types.is_floating(field.type):
                table = table.set_column(
                    place, field.name, pa.array([None if v is None or math.isinf(v) else v for v in cells], field.type)
                )
            elif any(isinstance(v, str) and "\0" in v for v in cells):
                table = table.set_column(place, field.name, pa.array([v.replace("\0", "") if v else v for v in cells], pa.string()))
        pq.write_table(table, path)
        with (to / f"{path.stem}.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, quoting=csv.QUOTE_ALL)
            rows.writerow(table.column_names)
            rows.writerows([_said(v) for v in row.values()] for row in table.to_pylist())
    return to


def _said(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))  # as DuckDB and pandas write a column of whole numbers
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)
