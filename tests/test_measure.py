"""Laws of measuring: the profile is a function of the records, however they are ordered, split into files and threads."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import duckdb
import orjson
import pytest

from ehrready import cells, narrow, resources
from ehrready.engines import duckdb as engine
from ehrready.pipeline import Options, read_profile
from ehrready.tables import CODED, SCALARS, TABLES

SAMPLE = resources.folder("sample_data") / "live"


def _bytes(folder: Path, *, threads: int | None = None, validate: str = "sample") -> bytes:
    profile = read_profile([str(folder)], Options(internal=True, threads=threads, validate=validate))[0]
    # the ledger tells files and bytes apart, as it should
    profile.frames["ledger"], profile.frames["declared"] = {}, {}
    return profile.to_json()


@pytest.fixture(scope="module")
def omop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's OMOP tables as Parquet, one file each."""
    folder = tmp_path_factory.mktemp("omop")
    for path in (SAMPLE / "omop").iterdir():
        if path.suffix in {".csv", ".parquet"}:
            duckdb.execute(f"COPY (SELECT * FROM '{path}') TO '{folder / path.stem}.parquet'")
    return folder


def test_threads_do_not_matter(omop: Path) -> None:
    assert _bytes(omop, threads=1) == _bytes(omop, threads=3)


def test_order_of_rows_and_files_does_not_matter(omop: Path, tmp_path: Path) -> None:
    for path in omop.iterdir():
        n = duckdb.execute(f"SELECT count(*) FROM '{path}'").fetchall()[0][0]
        # the last rows come first, in two files
        for part, where in (("0002", f"i <= {n // 3}"), ("0001", f"i > {n // 3}")):
            duckdb.execute(
                f"COPY (SELECT * EXCLUDE (i) FROM (SELECT row_number() OVER () i, * FROM '{path}') WHERE {where} ORDER BY i DESC) "
                f"TO '{tmp_path / path.stem}-{part}.parquet'"
            )
    assert _bytes(omop) == _bytes(tmp_path)


def test_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    for path in (SAMPLE / "fhir").glob("*.ndjson*"):
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines(keepends=True)
        (tmp_path / path.name.removesuffix(".gz")).write_bytes(b"".join(reversed(lines)))
    # how resources are built is looked at in a sample, which lines in another place change
    assert _bytes(SAMPLE / "fhir", validate="none") == _bytes(tmp_path, validate="none")


def test_every_state_has_its_digit() -> None:
    """A combo holds all elements of a table: no digit reaches into another, and every state is told back."""
    for table in TABLES:
        elements = cells.elements_of(table)
        assert set(elements) == {e for e in (*SCALARS, "observation.value", "observation.unit", *CODED) if e.partition(".")[0] == table}
        for i, state in enumerate(cells.STATES):
            combo = sum(((i + place) % 8) << cells.shift(element) for place, element in enumerate(elements))
            assert combo < 2**63
            found = [cells.state_of(element, combo) for element in elements]
            assert found == [cells.STATES[(i + place) % 8] for place in range(len(elements))]
            assert not elements or found[0] == state


@pytest.mark.parametrize(
    ("text", "month"),
    [
        ("2024-05-03T10:00:00", 202405),
        ("2024-05", 202405),
        ("2024-99", 202499),
        ("2024", -2024),
        ("1999-1", -1999),
        ("1850", -1),
        ("x", -1),
        (None, -1),
    ],
)
def test_month_of_a_time(text: str | None, month: int) -> None:
    with engine.open_engine(threads=1) as con:
        assert con.execute(f"SELECT {cells.MONTH.format('t.v')} FROM (SELECT ?::VARCHAR v) t", [text]).fetchall() == [(month,)]
    assert cells.month_text(month) == ((text or "")[:7] if month >= 0 else "")


def test_a_masked_patient_is_no_patient_but_named() -> None:
    """Records of a patient that is masked count as records; the mark itself is one name in defects of references."""
    with engine.open_engine(threads=1) as con:
        con.execute(
            "INSERT INTO observation (record, patient_id, \"at\") VALUES (1, chr(1) || 'masked', '2024-01-01'), (2, 'a', '2024-01-01')"
        )
        cells.build(con)
        assert con.execute("SELECT p > 0, sum(n) FROM cell GROUP BY 1 ORDER BY 1").fetchall() == [(False, 1), (True, 1)]


def test_null_tokens_are_those_of_the_macro_that_spark_reads() -> None:
    """The search in one text finds what the list finds, and no more."""
    listed = re.findall(r"CREATE MACRO null_token.*?;", engine.MACROS, re.DOTALL)[0].replace("null_token", "listed", 1)
    with engine.open_engine(threads=1) as con:
        con.execute(listed)
        tokens = [*re.findall("'([^']*)'", listed.partition(" IN")[2])]
        assert len(tokens) == 25
        near = [f"{a}{token}{b}" for token in tokens for a in ("", " ", '"', "x", "\x1f") for b in ("", "\t", "y", "\x1f", "\x1fNA")]
        texts = [
            *tokens,
            *near,
            *(token.lower() for token in tokens),
            "UNK\x1fNA",
            "\x1f",
            "NANA",
            "\uff2e\uff21",
            "na\u017f",
            "\u017fee note",
            None,
        ]
        rows = con.execute("SELECT v, null_token(v), listed(v) FROM (SELECT unnest(?::VARCHAR[]) v)", [texts]).fetchall()
        assert [row for row in rows if row[1] != row[2]] == []
        assert {row[1] for row in rows} == {True, False, None}
        assert con.execute(
            f"SELECT count(*) FROM (SELECT unnest(?::VARCHAR[]) v) WHERE {narrow.null_token('v')} IS DISTINCT FROM listed(v)", [texts]
        ).fetchall() == [(0,)]


def test_numbers_from_parquet_measure_as_texts_do(omop: Path) -> None:
    """The short way of OMOP Parquet gives the profile of the canonical tables; whoever looks at these gets them."""
    seen: list[int] = []
    long = read_profile(
        [str(omop)], Options(internal=True), also=lambda con: seen.append(con.execute("SELECT count(*) FROM observation").fetchone()[0])
    )[0]
    assert seen[0] > 0
    assert read_profile([str(omop)], Options(internal=True))[0].to_json() == long.to_json()


_HOSTILE = {
    "visit_occurrence": "SELECT * REPLACE (CASE WHEN person_id % 5 < 3 THEN 1 WHEN person_id % 7 = 0 THEN NULL ELSE visit_occurrence_id END AS visit_occurrence_id, "
    "CASE WHEN visit_occurrence_id % 3 > 0 THEN care_site_id END AS care_site_id)",
    "measurement": "SELECT * REPLACE (CASE measurement_id % 11 WHEN 0 THEN NULL WHEN 1 THEN 9000000 + person_id ELSE person_id END AS person_id, "
    "CASE measurement_id % 13 WHEN 0 THEN NULL WHEN 1 THEN 1 WHEN 2 THEN 99999999 ELSE visit_occurrence_id END AS visit_occurrence_id, "
    "CASE measurement_id % 17 WHEN 0 THEN -999 WHEN 1 THEN 0 WHEN 2 THEN -value_as_number WHEN 3 THEN 'nan'::DOUBLE WHEN 4 THEN NULL ELSE value_as_number END "
    "AS value_as_number, CASE measurement_id % 7 WHEN 0 THEN '< 5' WHEN 1 THEN 'unknown' WHEN 2 THEN ' 5 mg/dL ' WHEN 3 THEN '5,4' WHEN 4 THEN '' ELSE NULL END "
    "AS value_source_value, CASE measurement_id % 5 WHEN 0 THEN NULL WHEN 1 THEN 'N/A' WHEN 2 THEN ' mmol/L' ELSE unit_source_value END AS unit_source_value, "
    "CASE measurement_id % 4 WHEN 0 THEN 0 WHEN 1 THEN NULL ELSE unit_concept_id END AS unit_concept_id, "
    "CASE measurement_id % 3 WHEN 0 THEN NULL ELSE measurement_source_concept_id END AS measurement_source_concept_id, "
    "CASE measurement_id % 19 WHEN 0 THEN DATE '1801-01-01' ELSE measurement_date END AS measurement_date)",
}


def test_hostile_numbers_measure_as_texts_do(omop: Path, tmp_path: Path) -> None:
    """Encounters of many patients, records of nobody, of no encounter, given twice; sentinels, texts for numbers, units and times that cannot be."""
    for path in omop.iterdir():
        rows = f"{_HOSTILE.get(path.stem, 'SELECT *')} FROM '{path}'"
        twice = f" UNION ALL SELECT * FROM '{path}' WHERE measurement_id % 23 = 0" if path.stem == "measurement" else ""
        duckdb.execute(f"COPY ({rows}{twice}) TO '{tmp_path / path.name}'")
    long = read_profile([str(tmp_path)], Options(internal=True), also=lambda con: None)[0]
    short = read_profile([str(tmp_path)], Options(internal=True))[0]
    assert short.to_json() == long.to_json()
    relations = long.frames["relations"]
    for kind in ("several-patients", "unresolved"):
        assert relations["observation.encounter_id", kind][0]
    assert relations["observation.id", "duplicate-id"][0]
    assert {state for element, _, _, state in long.frames["states"] if element == "observation.unit"} >= {
        "missing",
        "null-token",
        "present",
    }


@pytest.mark.parametrize(
    "change",
    [
        "-person_id AS person_id",
        "measurement_date + INTERVAL 9000 YEAR AS measurement_date",
        "'x' || person_id AS person_id",
        "person_id::DOUBLE AS person_id",
    ],
)
def test_what_numbers_cannot_say_is_read_as_text(omop: Path, tmp_path: Path, change: str) -> None:
    for path in omop.iterdir():
        columns = f"* REPLACE ({change})" if path.stem == "measurement" else "*"
        duckdb.execute(f"COPY (SELECT {columns} FROM '{path}') TO '{tmp_path / path.name}'")
    long = read_profile([str(tmp_path)], Options(internal=True), also=lambda con: None)[0]
    assert read_profile([str(tmp_path)], Options(internal=True))[0].to_json() == long.to_json()
    assert long.total("read") == long.total("profiled") > 0


def test_duplicates_are_looked_for_in_parts_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ehrready import relations

    lines = [
        {
            "resourceType": "Observation", "id": f"o{i}", "status": "final", "subject": {"reference": f"Patient/p{i % 7}"},
            "effectiveDateTime": f"2024-03-05T10:{i % 5:02d}:30", "valueQuantity": {"value": i % 3, "unit": "mg/dL"},
            "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
        }
        for i in range(400)
    ]  # fmt: skip
    (tmp_path / "export.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    whole, _, _ = read_profile([str(tmp_path)], Options(internal=True))
    n, of, _ = whole.frames["relations"]["observation.code", "duplicate-record"]
    assert (n, of) == (400 - 7 * 5 * 3, 400)
    monkeypatch.setattr(relations, "AT_ONCE", 30)
    parts, _, _ = read_profile([str(tmp_path)], Options(internal=True))
    assert parts.to_json() == whole.to_json()
