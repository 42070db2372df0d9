"""OMOP and unmapped tables in Parquet: what arrives in the canonical tables, and what damage costs."""

from __future__ import annotations

import csv
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrready.readers.tabular import OmopReader, TableReader
from ehrready.tables import ELEMENTS, POSITION_BITS
from tests.readers.tabular_helpers import reading, write

DATASETS = ["gibleed_5.3", "synthea27nj_5.4"]

#: OMOP table, canonical table, element, source concept column, standard concept column.
CODED = [
    ("condition_occurrence", "condition.code", "condition_source_concept_id", "condition_concept_id"),
    ("procedure_occurrence", "procedure.code", "procedure_source_concept_id", "procedure_concept_id"),
    ("measurement", "observation.code", "measurement_source_concept_id", "measurement_concept_id"),
    ("observation", "observation.code", "observation_source_concept_id", "observation_concept_id"),
    ("drug_exposure", "medication.code", "drug_source_concept_id", "drug_concept_id"),
]

CONCEPTS = """
    SELECT * FROM (VALUES (1, 'SNOMED', '44054006', 'Type 2 diabetes'), (2, 'ICD10CM', 'E11.9', 'T2DM'),
        (3, 'CVX', '207', 'Moderna'), (4, 'RxNorm', '860975', 'metformin'), (5, 'LOINC', '4548-4', 'HbA1c'),
        (6, 'UCUM', '%', 'percent'), (7, 'SNOMED', '10828004', 'Positive'), (8, 'NDC', '0001', 'a drug'))
    AS t(concept_id, vocabulary_id, concept_code, concept_name)"""


@functools.cache
def table(path: Path) -> dict[str, list[Any]]:
    """Read a Parquet file with pyarrow alone, columns by lower-case name."""
    return {name.lower(): values for name, values in pq.read_table(path).to_pydict().items()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_published_omop_is_read_completely(shared: Path, dataset: str) -> None:
    folder = shared / "data" / "omop" / dataset
    with (shared / "data" / "MANIFEST.csv").open(encoding="utf-8") as stream:
        listed = {
            Path(row["file"]).name: int(row["n_resources_messages_rows"])
            for row in csv.DictReader(stream)
            if row["file"].startswith(f"omop/{dataset}/")
        }
    paths = sorted(folder.glob("*.parquet"))
    assert {path.name for path in paths} == listed.keys()
    with reading(paths) as run:
        for path in paths:
            row, rows = run.ledger[path.name], pq.ParquetFile(path).metadata.num_rows
            assert rows == listed[path.name]
            if row["status"] == "reference":
                assert (row["format"], row["read"]) == ("omop", 0)
            else:
                assert (row["status"], row["read"], row["profiled"], row["declared"]) == ("read", rows, rows, rows)
        counted = run.one("SELECT sum(n) FROM types")
        assert counted == sum(row["profiled"] for row in run.ledger.values())


@pytest.mark.parametrize("dataset", DATASETS)
def test_published_omop_codings_agree_with_a_count_in_python(shared: Path, dataset: str) -> None:
    folder = shared / "data" / "omop" / dataset
    known = table(folder / "concept.parquet")
    vocabulary = dict(zip(known["concept_id"], known["vocabulary_id"], strict=True))
    code = dict(zip(known["concept_id"], known["concept_code"], strict=True))
    expected: Counter[tuple[str, str, str]] = Counter()
    concepts: Counter[tuple[str, int]] = Counter()
    for name, element, source, standard in CODED:
        data = table(folder / f"{name}.parquet")
        rows = len(data[standard])
        for first, second in zip(data.get(source, [0] * rows), data[standard], strict=True):
            ids = [i for i in dict.fromkeys([first, second]) if i]
            vaccine = name == "drug_exposure" and any(vocabulary.get(i) == "CVX" for i in ids)
            where = "immunization.code" if vaccine else element
            concepts[where, len(ids)] += 1
            for i in ids:
                expected[where, vocabulary.get(i, "OMOP"), code.get(i, str(i))] += 1
    with reading(list(folder.glob("*.parquet"))) as run:
        elements = "('" + "', '".join({element for element, _, _ in expected}) + "')"
        found = run.rows(f"SELECT element, system, code, count(*) FROM coding WHERE element IN {elements} GROUP BY ALL")
        assert {row[:3]: row[3] for row in found} == expected
        rows_ = run.rows(f"SELECT element, n_codings, count(*) FROM concept WHERE element IN {elements} GROUP BY ALL")
        assert {row[:2]: row[2] for row in rows_} == concepts


def test_missing_columns_are_counted_like_pyarrow_does(shared: Path) -> None:
    folder = shared / "data" / "omop" / "gibleed_5.3"
    with reading(list(folder.glob("*.parquet"))) as run:
        counted = run.rows('SELECT "table", "column", rows, missing FROM generic_column WHERE "table" NOT LIKE \'table-%\'')
    assert len(counted) > 40
    for name, column, rows, missing in counted:
        values = table(folder / f"{name}.parquet")[column]
        empty = sum(value is None or (isinstance(value, str) and not value.strip()) for value in values)
        assert (rows, missing) == (len(values), empty), (name, column)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_person(tmp_path: Path, suffix: str) -> None:
    write(
        tmp_path / f"PERSON{suffix}",
        """SELECT * FROM (VALUES (1, 8507, 1950, 5, 3, NULL, 'M', 8527, 'white', 9),
            (2, 8532, 1960, NULL, NULL, NULL, 'F', 0, 'other', NULL), (3, 0, 1970, 2, NULL, NULL, 'weiblich', NULL, NULL, NULL),
            (4, 8551, 1980, 1, 1, TIMESTAMP '1980-01-02 10:30:00', NULL, 1, NULL, 8))
        AS t(PERSON_ID, GENDER_CONCEPT_ID, YEAR_OF_BIRTH, MONTH_OF_BIRTH, DAY_OF_BIRTH, BIRTH_DATETIME,
            GENDER_SOURCE_VALUE, RACE_CONCEPT_ID, RACE_SOURCE_VALUE, CARE_SITE_ID)""",
    )
    write(tmp_path / f"death{suffix}", "SELECT 2 AS person_id, DATE '2020-05-06' AS death_date")
    with reading(list(tmp_path.iterdir())) as run:
        assert run.rows("SELECT id, patient_id, birth_date, sex, death_date, site FROM patient ORDER BY id") == [
            ("1", "1", "1950-05-03", "male", None, "9"),
            ("2", "2", "1960", "female", "2020-05-06", None),
            ("3", "3", "1970-02", "weiblich", None, None),
            ("4", "4", "1980-01-02", "unknown", None, "8"),
        ]
        race = "SELECT patient_id, text, n_codings FROM concept WHERE element = 'patient.race' ORDER BY 1"
        assert run.rows(race) == [("1", "white", 1), ("2", "other", 0), ("3", None, 0), ("4", None, 1)]
        assert run.ledger[f"death{suffix}"]["profiled"] == 1
        assert run.one("SELECT n FROM types WHERE type = 'death'") == 1


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_concepts_are_resolved_and_counted(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"concept{suffix}", CONCEPTS)
    write(tmp_path / f"vocabulary{suffix}", "SELECT 'ICD10CM' AS vocabulary_id, 'FY2021' AS vocabulary_version")
    write(
        tmp_path / f"condition_occurrence{suffix}",
        """SELECT * FROM (VALUES (1, 11, 1, 2, 'E11.9'), (2, 11, 1, 1, 'dm'), (3, 12, 0, 0, 'sugar'), (4, 12, NULL, NULL, NULL),
            (5, 12, 99, 0, 'x'))
        AS t(condition_occurrence_id, person_id, condition_concept_id, condition_source_concept_id, condition_source_value)""",
    )
    with reading(list(tmp_path.iterdir())) as run:
        concept = "SELECT c.id, k.text, k.n_codings, k.ordinal FROM concept k JOIN condition c USING (record) ORDER BY 1"
        assert run.rows(concept) == [
            ("1", "E11.9", 2, 1),
            ("2", "dm", 1, 1),
            ("3", "sugar", 0, 1),
            ("4", None, 0, 1),
            ("5", "x", 1, 1),
        ]
        coding = "SELECT c.id, position, system, version, code, display FROM coding JOIN condition c USING (record) ORDER BY 1, 2"
        assert run.rows(coding) == [
            ("1", 1, "ICD10CM", "FY2021", "E11.9", "T2DM"),
            ("1", 2, "SNOMED", None, "44054006", "Type 2 diabetes"),
            ("2", 1, "SNOMED", None, "44054006", "Type 2 diabetes"),
            ("5", 1, "OMOP", None, "99", None),
        ]
        assert run.ledger[f"concept{suffix}"]["status"] == "reference"


def test_without_a_concept_table_the_id_is_the_code(tmp_path: Path) -> None:
    write(
        tmp_path / "procedure_occurrence.parquet",
        "SELECT 7 AS person_id, 4298386 AS procedure_concept_id, TIMESTAMP '2020-01-02 03:04:05.678' AS procedure_datetime",
    )
    with reading([tmp_path / "procedure_occurrence.parquet"]) as run:
        assert run.rows('SELECT system, code, "at" FROM coding') == [("OMOP", "4298386", "2020-01-02T03:04:05")]


def test_vaccines_are_immunizations(tmp_path: Path) -> None:
    write(tmp_path / "concept.parquet", CONCEPTS)
    write(
        tmp_path / "drug_exposure.parquet",
        """SELECT * FROM (VALUES (1, 1, 3, 0), (2, 1, 4, 8), (3, 1, 0, 3), (4, 1, 0, 0))
        AS t(drug_exposure_id, person_id, drug_concept_id, drug_source_concept_id)""",
    )
    with reading(list(tmp_path.iterdir())) as run:
        assert run.rows("SELECT id FROM immunization ORDER BY 1") == [("1",), ("3",)]
        assert run.rows("SELECT id FROM medication ORDER BY 1") == [("2",), ("4",)]
        assert run.one("SELECT n FROM types WHERE type = 'drug_exposure'") == 4
        assert run.rows("SELECT element, count(*) FROM concept GROUP BY 1 ORDER BY 1") == [
            ("immunization.code", 2),
            ("medication.code", 2),
        ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_measurement_values(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"concept{suffix}", CONCEPTS)
    write(
        tmp_path / f"measurement{suffix}",
        """SELECT *, 5 AS measurement_concept_id FROM (VALUES
            (1, 1, '5.4', 4172703, 0, 6, 'percent', NULL, 1.5, 9), (2, 1, '100', 4172704, 0, 6, NULL, '>100', NULL, NULL),
            (3, 1, NULL, NULL, 7, 0, NULL, 'POS', NULL, NULL), (4, 1, NULL, 0, 0, 0, NULL, 'hemolyzed', NULL, NULL),
            (5, 1, 'five', 0, 0, 0, NULL, NULL, NULL, NULL), (6, 1, NULL, 0, 0, 0, NULL, NULL, NULL, NULL),
            (7, 1, 'NaN', 4171756, 0, 0, NULL, NULL, NULL, NULL))
        AS t(measurement_id, person_id, value_as_number, operator_concept_id, value_as_concept_id, unit_concept_id,
            unit_source_value, value_source_value, range_low, range_high)""",
    )
    with reading(list(tmp_path.iterdir())) as run:
        columns = "id, value_kind, value_number, value_text, comparator, unit, unit_code, range_low, range_high"
        assert run.rows(f"SELECT {columns} FROM observation ORDER BY 1") == [
            ("1", "number", 5.4, None, None, "percent", "%", 1.5, 9.0),
            ("2", "number", 100.0, None, ">", "%", "%", None, None),
            ("3", "coded", None, "POS", None, None, None, None, None),
            ("4", "text", None, "hemolyzed", None, None, None, None, None),
            ("5", "text", None, "five", None, None, None, None, None),
            ("6", None, None, None, None, None, None, None, None),
            ("7", "text", None, "NaN", "<", None, None, None, None),
        ]
        coded = "SELECT element, text, n_codings FROM concept WHERE element = 'observation.value_code'"
        assert run.rows(coded) == [("observation.value_code", "POS", 1)]
        wrong = "SELECT element, kind, count(*) FROM defect GROUP BY ALL"
        assert run.rows(wrong) == [("observation.value", "wrong-type", 1)]


def test_parquet_and_csv_of_the_same_rows_are_the_same(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "omop" / "synthea27nj_5.4"
    names = ["concept", "person", "death", "visit_occurrence", "condition_occurrence", "measurement", "drug_exposure"]
    found = []
    for suffix in (".parquet", ".csv"):
        paths = [write(tmp_path / suffix[1:] / f"{n}{suffix}", f"FROM '{folder}/{n}.parquet'") for n in names]
        with reading(paths) as run:
            tables = ("patient", "encounter", "condition", "observation", "medication", "concept", "coding", "types")
            found.append({name: run.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in tables})
    assert found[0] == found[1]


def test_records_tell_file_and_row(tmp_path: Path) -> None:
    for part, rows in (("part-0001", 3), ("part-0002", 70_000), ("part-0003", 2)):
        write(
            tmp_path / "measurement" / f"{part}.parquet",
            f"SELECT 1 AS person_id, range + 1 AS measurement_id, 5 AS measurement_concept_id, range AS value_as_number FROM range({rows})",
        )
    with reading(list((tmp_path / "measurement").iterdir())) as run:
        assert {name: row["read"] for name, row in run.ledger.items()} == {
            "part-0001.parquet": 3,
            "part-0002.parquet": 70_000,
            "part-0003.parquet": 2,
        }
        position = f"record & ((1::BIGINT << {POSITION_BITS}) - 1)"
        assert run.one(f"SELECT count(*) FROM observation WHERE {position} <> id::BIGINT") == 0
        by_file = f"SELECT record >> {POSITION_BITS}, count(*) FROM observation GROUP BY 1 ORDER BY 1"
        assert run.rows(by_file) == [(1, 3), (2, 70_000), (3, 2)]
        assert run.one("SELECT count(DISTINCT record) FROM concept") == 70_005


def damage(path: Path, how: str) -> None:
    """Spoil a Parquet file."""
    data = path.read_bytes()
    if how == "pages":  # data pages scrambled, footer whole
        path.write_bytes(data[:4] + bytes(byte ^ 0xFF for byte in data[4:400]) + data[400:])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "footer":
        path.write_bytes(data[:-40] + b"\xff" * 32 + data[-8:])
    elif how == "text":
        path.write_text("this is no table")
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("pages", "invalid-parquet"),
        ("cut", "truncated"),
        ("footer", "invalid-parquet"),
        ("text", "invalid-parquet"),
        ("empty", "empty"),
    ],
)
def test_a_damaged_part_costs_itself_alone(tmp_path: Path, how: str, reason: str) -> None:
    paths = [
        write(
            tmp_path / "condition_occurrence" / f"part-{part}.parquet",
            f"SELECT {part} AS person_id, range AS condition_occurrence_id, range % 7 AS condition_concept_id, "
            "'v' || range AS condition_source_value, 'n' || range AS stop_reason FROM range(500)",
        )
        for part in range(5)
    ]
    damage(paths[2], how)
    with reading(paths) as run:
        rows = [run.ledger[path.name] for path in paths]
        assert [row["profiled"] for row in rows] == [500, 500, 0, 500, 500]
        assert (rows[2]["status"], rows[2]["reasons"], rows[2]["format"]) == ("unreadable", {reason: 1}, "omop")
        assert run.rows("SELECT patient_id, count(*) FROM condition GROUP BY 1 ORDER BY 1") == [(str(part), 500) for part in (0, 1, 3, 4)]
        assert run.one("SELECT count(*) FROM concept") == 2000
        assert run.rows("SELECT DISTINCT rows FROM generic_column") == [(2000,)]


def test_a_file_that_breaks_the_engine_breaks_only_the_sandbox(tmp_path: Path) -> None:
    # two bytes of a data page changed: DuckDB 2.0 fails with an internal error, which during an insert would
    # invalidate the database
    folder = tmp_path / "measurement"
    write(folder / "part-1.parquet", "SELECT 1 AS person_id, 2 AS measurement_concept_id")
    hostile = Path(__file__).parent.parent / "cases" / "tabular" / "internal-error.parquet"
    (folder / "part-2.parquet").write_bytes(hostile.read_bytes())
    write(folder / "part-3.parquet", "SELECT 1 AS person_id, 2 AS measurement_concept_id")
    with reading(list(folder.iterdir())) as run:
        assert [row["profiled"] for row in run.ledger.values()] == [1, 0, 1]
        assert run.ledger["part-2.parquet"]["reasons"] == {"invalid-parquet": 1}
        assert run.one("SELECT count(*) FROM observation") == 2


def test_a_broken_reference_table_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "condition_occurrence.parquet", "SELECT 1 AS person_id, 5 AS condition_concept_id")
    damage(write(tmp_path / "concept.parquet", CONCEPTS), "cut")
    with reading(list(tmp_path.iterdir())) as run:
        assert run.ledger["concept.parquet"]["status"] == "unreadable"
        assert run.rows("SELECT system, code FROM coding") == [("OMOP", "5")]


@pytest.mark.parametrize(
    "value", ["TIMESTAMPTZ '2024-01-02 03:04:05+00'", "INTERVAL 3 DAY", "{'a': [1, NULL]}", "TIME '03:04:05'", "'\\xff'::BLOB"]
)
def test_a_sound_file_is_read_whatever_types_it_has(tmp_path: Path, value: str) -> None:
    """Values stay in the engine: Python knows some of its types only with packages that nobody installed."""
    path = write(tmp_path / "visit_occurrence.parquet", f"SELECT 1 AS visit_occurrence_id, 2 AS person_id, {value} AS local FROM range(9)")
    with reading([path]) as run:
        assert (run.ledger[path.name]["status"], run.ledger[path.name]["profiled"]) == ("read", 9)


def test_an_empty_table_is_read_and_has_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "note.parquet", "SELECT 1 AS note_id, 2 AS person_id WHERE false")
    with reading([path]) as run:
        assert (run.ledger["note.parquet"]["status"], run.ledger["note.parquet"]["read"]) == ("read", 0)
        assert run.rows("SELECT type, n FROM types") == [("note", 0)]


def test_unmapped_tables_are_measured_and_their_names_stay(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "secret name": pa.array(["a", " ", None, "N/A", "unknown"]),
            "number": pa.array([1.5, float("nan"), None, 2.0, 3.0]),
            "nested": pa.array([{"x": 1}, None, {"x": None}, {"x": 2}, {"x": 3}]),
            "day": pa.array([None, None, None, 1, 2], pa.date32()),
        }
    )
    pq.write_table(rows, tmp_path / "zeta.parquet")
    (tmp_path / "alpha.csv").write_text("id;b\n1;\n2;x\n", encoding="utf-8")
    with reading(list(tmp_path.iterdir())) as run:
        assert run.rows("SELECT * FROM types ORDER BY type") == [("table", "table-01", 2), ("table", "table-02", 5)]
        columns = 'SELECT "table", "column", kind, rows, missing, null_token FROM generic_column ORDER BY 1, 2'
        assert run.rows(columns) == [
            ("table-01", "b", "text", 2, 1, 0),
            ("table-01", "id", "text", 2, 0, 0),
            ("table-02", "day", "date", 5, 3, 0),
            ("table-02", "nested", "nested", 5, 1, 0),
            ("table-02", "number", "number", 5, 2, 0),
            ("table-02", "secret name", "text", 5, 2, 2),
        ]


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / "we[i]r*d ?'\"name"
    rows = pa.table({'x"; DROP TABLE patient; --': ["1"], "file_row_number": [7]})
    folder.mkdir()
    pq.write_table(rows.drop_columns("file_row_number"), folder / "a'b[0].parquet")
    (folder / "c*'.csv").write_text('"q""; DROP TABLE x",\'b\n1,2\n', encoding="utf-8")
    with reading(list(folder.iterdir())) as run:
        assert [row["profiled"] for row in run.ledger.values()] == [1, 1]
        assert run.one("SELECT count(*) FROM patient") == 0


def test_a_column_named_like_the_row_counter(tmp_path: Path) -> None:
    path = write(tmp_path / "person.parquet", "SELECT 3 AS person_id, 99 AS file_row_number, 5 AS file_index")
    with reading([path]) as run:
        assert run.ledger["person.parquet"]["profiled"] == 1
        assert run.one("SELECT record FROM patient") == (1 << POSITION_BITS) + 1


@pytest.mark.parametrize(
    ("name", "columns", "kind"),
    [
        ("measurement.parquet", "person_id, measurement_concept_id", "measurement"),
        ("MEASUREMENT.parquet", "PERSON_ID, MEASUREMENT_CONCEPT_ID", "measurement"),
        ("measurement/part-0001.parquet", "person_id, measurement_concept_id", "measurement"),
        ("measurement.parquet/part-00000-6f0e.c000.snappy.parquet", "person_id, measurement_concept_id", "measurement"),
        ("measurement/year=2020/000000000012.parquet", "person_id, measurement_concept_id", "measurement"),
        ("measurement_0003.csv", "person_id, measurement_concept_id", "measurement"),
        ("dbo.measurement.csv", "person_id, measurement_concept_id", "measurement"),
        ("measurement.csv", "a, b", ""),
        ("measurements.csv", "person_id, measurement_concept_id", ""),
        ("person.parquet", "patient_id, name", ""),
    ],
)
def test_what_is_an_omop_table(tmp_path: Path, name: str, columns: str, kind: str) -> None:
    values = ", ".join(f'1 AS "{column.strip()}"' for column in columns.split(","))
    path = write(tmp_path / name, f"SELECT {values}")
    with path.open("rb") as stream:
        head = stream.read(65536)
    assert OmopReader().recognise(path, head) == kind
    assert TableReader().recognise(path, head) == "table"


@pytest.mark.parametrize("name", ["notes.txt", "log.ndjson", "README.md", "person.json"])
def test_other_files_are_left_alone(tmp_path: Path, name: str) -> None:
    assert OmopReader().recognise(tmp_path / name, b"person_id,x\n") == ""
    assert TableReader().recognise(tmp_path / name, b"person_id,x\n") == ""


def test_source_elements_are_those_the_mapping_fills() -> None:
    found = OmopReader().source_elements()
    assert found.keys() <= set(ELEMENTS)
    assert found["condition.code"] == "condition_occurrence.condition_concept_id"
    assert found["observation.value"].startswith("measurement.value_as_number")
    # the CDM has no status: a rule about it is not applicable
    assert not [element for element in found if element.endswith(".status")]
    assert TableReader().source_elements() == {}
