"""OMOP Parquet that is read the short way, into narrow tables, gives what the long way gives, and what CSV of the same rows gives."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrready import narrow, pipeline
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.readers import tabular, tabular_files, tabular_narrow
from ehrready.readers.base import SourceFile
from ehrready.tables import TABLES
from tests.hostile.omop_cases import Maker, as_csv


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows by a word for each reading that tried the short way: whether it went through."""
    found: list[bool] = []
    tried = tabular_narrow.events

    def noted(run: Any, con: duckdb.DuckDBPyConnection) -> Sequence[Any] | None:
        events = tried(run, con)
        found.append(narrow.there(con))
        return events

    monkeypatch.setattr(tabular_narrow, "events", noted)
    return found


def _short(folder: Path) -> Profile:
    return pipeline.read_profile([str(folder)], Options(internal=True))[0]


def _both(folder: Path) -> Profile:
    """Return the profile of a folder, the same bytes both ways, every file of it read."""
    short = _short(folder)
    long, ledger, _ = pipeline.read_profile([str(folder)], Options(internal=True), also=lambda _: None)  # who looks at the tables sees rows
    assert "unreadable" not in {entry.status for entry in ledger.entries.values()}
    assert short.to_json() == long.to_json()
    return short


def _write(folder: Path, **tables: dict[str, Any]) -> Path:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name.replace('__', '-')}.parquet")
    return folder


@pytest.mark.parametrize("seed", [1, 5, 7, 23])
def test_any_export_counts_the_same_both_ways(seed: int, tmp_path: Path, taken: list[bool]) -> None:
    _both(Maker(seed, tame=True).write(tmp_path))
    assert taken == [True]


@pytest.mark.parametrize("seed", [101, 148])
def test_types_and_values_that_are_no_numbers_count_the_same(seed: int, tmp_path: Path) -> None:
    _both(Maker(seed, tame=False).write(tmp_path))


@pytest.mark.parametrize("seed", [0, 4])
def test_text_of_the_same_rows_counts_the_same(seed: int, tmp_path: Path) -> None:
    folder = Maker(seed, tame=True).write(tmp_path / "parquet")
    for path in folder.iterdir():  # of a few tables: a CSV file costs 0.3 s, whatever is in it
        if not path.name.startswith(("concept.", "person-", "death-", "visit_", "measurement-0000")):
            path.unlink()
    text = json.loads(_short(as_csv(folder, tmp_path / "csv")).to_json())["frames"]
    numbers = json.loads(_short(folder).to_json())["frames"]
    for name in ("columns", "declared", "ledger"):  # types of columns, sizes, and what a footer says
        del numbers[name], text[name]
    assert numbers == text


@pytest.mark.parametrize("seed", [2, 6])
def test_rules_that_ask_the_tables_find_every_record_and_change_no_other_count(seed: int, tmp_path: Path, taken: list[bool]) -> None:
    """``check: sql`` needs rows, and so does an expectation: the reading is then the long way, and all else is the same."""
    folder = Maker(seed, tame=True).write(tmp_path / "export")
    about = "severity: error, owner: engineering, why: w, fix: f, title: t, fail: {max_rate: 0.1}"
    asking = "".join(
        f"  - {{id: own-{table}, check: sql, {about}, query: 'SELECT count(*) n, count(*) of FROM {table}'}}\n" for table in TABLES
    )
    found = []
    for name, rules in (("plain", f"  - {{id: own-born, check: present, on: patient.birth_date, {about}}}\n"), ("asking", asking)):
        (tmp_path / f"{name}.yaml").write_text(f"pack: own\nversion: 1.0.0\nrules:\n{rules}")
        options = Options(internal=True, rules=(str(tmp_path / f"{name}.yaml"),))
        found.append(pipeline.read_profile([str(folder)], options)[0])
    plain, asked = found
    assert taken == [True]
    counted = {key[0].removeprefix("own-"): (key[3], values[0]) for key, values in asked.frames["custom"].items()}
    assert counted == {table: ("", plain.tables().get(table, 0)) for table in TABLES}
    assert {**asked.frames, "custom": {}} == {**plain.frames, "custom": {}}


def test_files_of_two_layouts_by_turns_are_two_statements(tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is empty in some parts has another type there (as pandas writes it); a statement for each part took a minute for 600."""
    made: list[int] = []
    relation = tabular_files.parquet_relation

    def noted(con: duckdb.DuckDBPyConnection, sandbox: tabular_files.Sandbox, files: Sequence[SourceFile]) -> tabular_files.Relation:
        made.append(len(files))
        return relation(con, sandbox, files)

    monkeypatch.setattr(tabular, "parquet_relation", noted)
    for i in range(10):
        units = pa.array(["mg/dL"], pa.string()) if i % 2 else pa.nulls(1)
        _write(
            tmp_path,
            **{
                f"measurement__{i}": {
                    "person_id": [i + 1],
                    "measurement_concept_id": [5],
                    "value_as_number": [1.0],
                    "unit_source_value": units,
                }
            },
        )
    assert _both(tmp_path).tables() == {"observation": 10}
    assert made == [5, 5] * 2
    assert taken == [True]


@pytest.mark.parametrize("units", [[8, 8, None, 0, 9, 8], [8, 8, 7, 0, 9, 8], [None, None, 0, 0, None, None]])
def test_units_of_ucum_alone_and_beside_others(units: list[int | None], tmp_path: Path, taken: list[bool]) -> None:
    """Where every unit concept is of UCUM none is looked up; elsewhere each is."""
    concepts = {
        "concept_id": [5, 7, 8, 9],
        "vocabulary_id": ["LOINC", "Own", "UCUM", "UCUM"],
        "concept_code": ["1742-6", "u7", "mg/dL", "U/L"],
    }
    _write(
        tmp_path,
        concept={**concepts, "concept_name": ["a", "b", "c", "d"]},
        measurement={
            "person_id": [1] * 6, "measurement_concept_id": [5] * 6, "value_as_number": [1.0, None, 3.0, 4.0, 5.0, 6.0],
            "unit_concept_id": pa.array(units, pa.int32()), "unit_source_value": ["mg/dL", "x", "mmol/L", None, "?", "UNK"],
        },
    )  # fmt: skip
    assert sum(row[0] or 0 for row in _both(tmp_path).frames["units"].values()) == 5
    assert taken == [True]


def test_records_without_a_patient_or_visit_beside_those_that_have_both(tmp_path: Path, taken: list[bool]) -> None:
    """Persons and visits that are not named, or are not there, in one table; with room for two measures at once, and without."""
    visit = {"visit_occurrence_id": [1, 2], "person_id": [1, 2], "visit_concept_id": [9, 9], "care_site_id": [7, 8]}
    measurement = {
        "person_id": [1, 2, 1, None, 77, 1, 2, 1, 77], "visit_occurrence_id": [1, 2, None, 1, 1, 99, 1, 2, None], "measurement_concept_id": [5] * 9,
        "measurement_date": [date(2024, 3, 5)] * 8 + [None],
    }  # fmt: skip
    _write(tmp_path, person={"person_id": [1, 2], "year_of_birth": [1960, 2030]}, visit_occurrence=visit, measurement=measurement)
    profile = _both(tmp_path)
    frame = profile.frames["relations"]
    assert (frame["observation.patient_id", "unresolved"][:2], frame["observation.encounter_id", "unresolved"][:2]) == ((2, 8), (1, 7))
    assert frame["observation.encounter_id", "several-patients"][:2] == (3, 5)
    assert pipeline.read_profile([str(tmp_path)], Options(internal=True, memory="1GB"))[0].to_json() == profile.to_json()
    assert taken == [True, True]


def test_results_without_a_column_of_numbers(tmp_path: Path, taken: list[bool]) -> None:
    """An observation table may have no value_as_number."""
    folder = _write(tmp_path, observation={"person_id": [1, 2], "observation_concept_id": [5, 5], "value_as_string": ["high", "?"]})
    assert _both(folder).frames["states"]["observation.value", "all", "", "present"][0] == 1
    assert taken == [True]


def test_an_id_is_the_same_in_files_of_other_columns(tmp_path: Path, taken: list[bool]) -> None:
    """Parts of a table that have other columns or types are one table: an id in both is a duplicate."""
    rows = {"person_id": [1, 2], "measurement_concept_id": [5, 5], "measurement_id": [10, 11]}
    more = {**rows, "extra": ["a", "b"]}
    observed = {"person_id": [1], "observation_concept_id": [5], "observation_id": [10]}
    folder = _write(tmp_path, measurement__1=rows, measurement__2=more, observation=observed)
    assert _both(folder).frames["relations"]["observation.id", "duplicate-id"] == (2, 5, 2)
    assert taken == [True]


@pytest.mark.parametrize("end", [date(999, 12, 31), date(1, 1, 1)])
def test_an_end_of_a_year_before_1000_is_no_end(end: date, tmp_path: Path) -> None:
    started = [date(2024, 3, 5)] * 2
    folder = _write(
        tmp_path,
        condition_occurrence={
            "person_id": [1, 2], "condition_concept_id": [5, 5], "condition_start_date": started, "condition_end_date": [end, date(2024, 3, 4)],
        },
    )  # fmt: skip
    assert _both(folder).frames["relations"]["condition.at", "end-before-start"][:2] == (1, 1)


@pytest.mark.parametrize("values", [[12.0, 0.5, float("nan")], [float("nan"), 5.0], [5.0, None, float("nan"), float("inf")]])
def test_nan_is_no_value_whatever_the_footer_says_is_greatest(values: list[float | None], tmp_path: Path, taken: list[bool]) -> None:
    """DuckDB takes isnan for false where a footer tells the least and the greatest value, which NaN is not."""
    many = len(values)
    folder = _write(
        tmp_path, measurement={"person_id": [1] * many, "measurement_concept_id": [5] * many, "value_as_number": values, "other": values}
    )
    profile = _both(folder)
    lacking = sum(value is None or math.isnan(value) for value in values)
    assert profile.frames["states"]["observation.value", "all", "", "missing"][0] == lacking
    assert [row[1] for row in profile.frames["columns"].values()] == [lacking]
    assert taken == [True]


def test_what_the_engine_refuses_of_the_short_way_is_read_the_long_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write(tmp_path, note={"person_id": [1, 2], "note_id": [1, 1]}, measurement={"person_id": [1], "measurement_concept_id": [5]})
    expected = _short(folder).to_json()
    month = narrow.month
    monkeypatch.setattr(narrow, "month", lambda at: f"{month(at)} + CAST('refused' AS INTEGER)")
    assert _short(folder).to_json() == expected


def test_a_concept_id_that_no_integer_holds_costs_no_file(tmp_path: Path) -> None:
    ids = pa.array([(1 << 64) - 1, 5], pa.uint64())
    profile = _both(_write(tmp_path, measurement={"person_id": [1, 2], "measurement_concept_id": ids}))
    assert profile.frames["states"]["observation.code", "all", "", "coded"][0] == 1


def test_a_birth_date_of_three_columns_is_held_against_the_calendar(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        person={
            "person_id": [1, 2, 3, 4],
            "year_of_birth": [1960, 1960, 1960, 19],
            "month_of_birth": [2, 2, 13, None],
            "day_of_birth": [29, 30, None, None],
        },
    )
    assert _both(folder).frames["defects"]["patient.birth_date", "bad-time"] == (3, 3)


def test_columns_called_as_those_of_the_engine_count_the_same(tmp_path: Path) -> None:
    """Such a file is copied, and what is copied is there until the next one is: its rows are read before."""
    more = {"file_row_number": [7, 8, 9]}
    _write(
        tmp_path,
        person={"person_id": [1, 2, 3], "year_of_birth": [1960, 1970, 1980], "gender_concept_id": [8507, 8532, 8507]},
        condition_occurrence={
            "condition_occurrence_id": [1, 2, 3], "person_id": [1, 2, 3], "condition_concept_id": [201826] * 3,
            "condition_start_date": [date(2024, 3, day) for day in (1, 2, 3)], "visit_occurrence_id": [1, 2, 3], **more,
        },
        measurement={
            "measurement_id": [1, 2, 3], "person_id": [1, 1, 3], "measurement_concept_id": [3004501] * 3, "value_as_number": [5.0, 7.5, None],
            "measurement_date": [date(2024, 3, day) for day in (1, 2, 3)], "value_source_value": ["5", "7.5", None], **more,
        },
        visit_occurrence={
            "visit_occurrence_id": [1, 2, 3], "person_id": [1, 2, 3], "visit_concept_id": [9201] * 3,
            "visit_start_date": [date(2024, 3, 1)] * 3, "visit_end_date": [date(2024, 3, 4)] * 3, **more,
        },
    )  # fmt: skip
    found = _both(tmp_path)
    assert found.tables() == {"patient": 3, "condition": 3, "observation": 3, "encounter": 3}
