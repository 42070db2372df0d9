"""What plain Python (tests/hostile/omop_oracle.py) found that OMOP tables were read otherwise than docs/mapping.md says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrready import pipeline
from ehrready.options import Options
from ehrready.profile import Frame, Profile


def _write(folder: Path, **tables: dict[str, Any]) -> Path:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def _both(folder: Path) -> Profile:
    """Return the profile of a folder: the same bytes both ways."""
    short = pipeline.read_profile([str(folder)], Options(internal=True))[0]
    long = pipeline.read_profile([str(folder)], Options(internal=True), also=lambda _: None)[0]
    assert short.to_json() == long.to_json()
    return short


def _codes(frames: dict[str, Frame], element: str) -> dict[tuple[str, ...], int | None]:
    return {key[1:]: values[0] for key, values in frames["codes"].items() if key[0] == element}


@pytest.mark.parametrize(
    ("ids", "codes"),
    [
        (["12.7", "12.0", "0x10", "abc", " 13 ", "0"], {"12": 1, "13": 1}),
        ([12.7, 12.0, None], {"12": 1}),
        ([Decimal("12.5"), Decimal("13.0"), Decimal("0.0")], {"13": 1}),
        ([True, False, None], {}),
    ],
)
def test_a_concept_id_is_a_whole_number(ids: list[Any], codes: dict[str, int], tmp_path: Path) -> None:
    """12.7 was rounded to the id of another concept, and true was concept 1."""
    profile = _both(_write(tmp_path, condition_occurrence={"person_id": [1] * len(ids), "condition_concept_id": ids}))
    assert _codes(profile.frames, "condition.code") == {("omop", code): n for code, n in codes.items()}


def test_of_a_concept_that_is_there_twice_one_row_is_taken_whole(tmp_path: Path) -> None:
    """The least of each column was taken: the system of one row, the code of another."""
    concept = {
        "concept_id": [5, 5, 6, 7],
        "vocabulary_id": ["LOINC", "ICD10CM", "SNOMED", None],
        "concept_code": ["2345-7", "E11.9", None, "9"],
        "concept_name": ["Glucose", "Diabetes", "x", "y"],
    }
    rows = {"person_id": [1] * 4, "condition_concept_id": [5, 6, 7, 8]}
    profile = _both(_write(tmp_path, concept=concept, condition_occurrence=rows))
    assert _codes(profile.frames, "condition.code") == {("icd10cm", "E11.9"): 1, ("omop", "6"): 1, ("omop", "7"): 1, ("omop", "8"): 1}


def test_a_concept_whose_code_stands_for_nothing_is_no_code(tmp_path: Path) -> None:
    """As in FHIR; it passed as coded."""
    concept = {
        "concept_id": [5, 6],
        "vocabulary_id": ["SNOMED"] * 2,
        "concept_code": ["UNK", "44054006"],
        "concept_name": [None, "Diabetes"],
    }
    rows = {"person_id": [1] * 4, "condition_concept_id": [5, 5, 6, 0], "condition_source_value": [None, "sugar", "sugar", None]}
    states = _both(_write(tmp_path, concept=concept, condition_occurrence=rows)).frames["states"]
    found = {key[3]: values[0] for key, values in states.items() if key[:2] == ("condition.code", "all")}
    assert found == {"null-token": 1, "text-only": 1, "coded": 1, "missing": 1, "*": 4}


def test_a_month_of_three_digits_is_no_month(tmp_path: Path) -> None:
    """It was cut to two: the eleventh."""
    person = {"person_id": [1, 2, 3], "year_of_birth": [1960] * 3, "month_of_birth": [112, 1, 11], "day_of_birth": [None, 310, 3]}
    assert _both(_write(tmp_path, person=person)).frames["defects"]["patient.birth_date", "bad-time"] == (2, 2)


def test_one_bad_row_leaves_no_quotes_on_the_cells_of_its_neighbours(tmp_path: Path) -> None:
    """A file with tabs was then read as if quotes were text."""
    rows = ['"1"\t"5"', '"2"\t"5"x', '"3"\t"6"']
    (tmp_path / "condition_occurrence.tsv").write_text("\n".join(["person_id\tcondition_concept_id", *rows, ""]))
    profile, ledger, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    assert ledger.entries[1].reasons == {"invalid-csv": 1}
    assert _codes(profile.frames, "condition.code") == {("omop", "5"): 1, ("omop", "6"): 1}


def test_files_with_tabs_that_know_no_quotes_are_read_as_they_stand(tmp_path: Path) -> None:
    rows = ['5\tSNOMED\t44054006\t"Sugar" disease', '6\tSNOMED\t38341003\tof 5" or more', '7\tSNOMED\t22298006\t"All of it"']
    (tmp_path / "concept.tsv").write_text("\n".join(["concept_id\tvocabulary_id\tconcept_code\tconcept_name", *rows, ""]))
    _write(tmp_path, condition_occurrence={"person_id": [1, 1, 1], "condition_concept_id": [5, 6, 7]})
    profile, ledger, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    assert not any(entry.rejected for entry in ledger.entries.values())
    assert len(_codes(profile.frames, "condition.code")) == 3
    assert {key[1] for key in profile.frames["codes"]} == {"snomed"}


@pytest.mark.parametrize("bad", [b"", b"3,6,\xff\n", b'3,6,"x"y\n'])
def test_a_mark_of_utf_8_and_blanks_before_quotes_are_no_part_of_a_name_or_cell(bad: bytes, tmp_path: Path) -> None:
    """With a byte that is no UTF-8 in the file the first column had another name, and the file was no table of OMOP; with a bad row blanks kept quotes on."""
    rows = b'\xef\xbb\xbf"person_id", "condition_concept_id",condition_source_value\n"1", "5","\xc3\xa9"\n"2" ,"6",x\n' + bad
    (tmp_path / "condition_occurrence.csv").write_bytes(rows)
    profile, ledger, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    assert (ledger.entries[1].format, ledger.entries[1].profiled, ledger.entries[1].rejected) == ("omop", 2, int(bool(bad)))
    assert _codes(profile.frames, "condition.code") == {("omop", "5"): 1, ("omop", "6"): 1}
    assert profile.patients == 2


def test_a_quote_behind_a_closed_one_swallows_no_rows(tmp_path: Path) -> None:
    """DuckDB goes on with the cell, to the next quote there is; the rows between were neither read nor rejected."""
    rows = '1,5,"x"  "y\n2,5,z\n3,5,z\n4,6,"z"\n5,6,"a\nb"\n'
    (tmp_path / "condition_occurrence.csv").write_text("person_id,condition_concept_id,condition_source_value\n" + rows)
    profile, ledger, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    assert (ledger.entries[1].read, ledger.entries[1].reasons) == (5, {"invalid-csv": 1})
    assert _codes(profile.frames, "condition.code") == {("omop", "5"): 2, ("omop", "6"): 2}
