"""The short cuts of the HL7v2 reader give what the long ways give: columns once per different value, concepts as numbers, blocks of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ehrready import concepts, pipeline
from ehrready.engines.duckdb import open_engine
from ehrready.options import Options
from ehrready.readers import hl7v2, hl7v2_concepts, hl7v2_rows, hl7v2_sql, hl7v2_write, leaves
from ehrready.readers.base import SourceFile
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.tables import ALL

_times = st.sampled_from(
    ["20240305", "20240305101112-0500", "202403", "2024", "20241399", "", "2024030510", "now", '""', "18991231", "202403050000"]
)
_cwe = st.sampled_from(
    [
        "44054006^Diabetes^SCT", "E11.9^T2D^I10C^44054006^Diab^SCT^2024^2023", "^text only", "UNK^unknown^NULLFL", "MSK^m^HL70353", "",
        "^^^^^^^^orig", "5", "^", "a\\T\\b^x\\F\\y^L", "N/A^^L^x^y^L", "E11.9^a\\.br\\b^I10C~I10^b^I10C", "1^2^3^4^5^6^7^8^9^10^11^12^13", '""', "H",
    ]
)  # fmt: skip


def _of(*fields: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return segments of fields that are given or drawn."""
    return st.tuples(*(st.just(f) if isinstance(f, str) else f for f in fields)).map("|".join)


_some = st.sampled_from
_header = _of(
    "MSH", "^~\\&", _some(["EHR", "", "A\\F\\B"]), _some(["LCC", "FAC&x^1", "", '""']), "", "", _times, "",
    _some(["ADT^A01^ADT_A01", "ORU^R01", "VXU^V04", "RDE^O11", "", "xx^yy"]), "1", "P", _some(["2.5.1", "2.2", "2", ""]),
)  # fmt: skip
_person = _of(
    "PID", "1", _some(["", "OLD1"]), _some(["P1^^^AUTH&1.2^MR", "P1", "P2^^^AUTH~P3", "", '""', "P\\T\\4"]), "", "", "", _times,
    _some(["M", "F", "X", ""]), "", _cwe, *[""] * 4, _cwe, *[""] * 6, _cwe, *[""] * 6, _times, _some(["Y", "N", ""]),
)  # fmt: skip
_visit = _of(
    "PV1", "1", _some(["I", "O^x^L", "", "E^"]), "", _some(["", "R", "A^b"]), *[""] * 13, _some(["", "T", "X^y^Z"]),
    _some(["V1", "V2", "V1^^^A", "", '""']), *[""] * 24, _times, _times,
)  # fmt: skip
_result = _of(
    "OBX", "1", _some(["NM", "SN", "CE", "CWE", "ST", "DT", "ED", "", "nm"]), _cwe, "",
    _some(["5", "-1.5e3", "abc", "<5", "^5", "<^7.1", "^1^-^2", "", "^", "5~6", '""', ">=^10", "1_000", "inf", "UNK", "E11.9^T^I10C", "a\\F\\b", "x" * 80]),
    _some(["mg/dL^mg^UCUM", "%", "^pct", "", "x^^ISO+", "UNK^^UCUM"]), _some(["3.5-5", "<10", ">=2", "", "a-b", "-1--2"]),
    _some(["H", "", "H~L", "N^n^HL70078", "~L", "^^~X^^z"]), "", "", _some(["F", "P", "D", "W", ""]), "", "", _times,
)  # fmt: skip
_others = st.one_of(
    _of("OBR", "1", "", "", _cwe, "", "", _times, *[""] * 14, _times, "", "", _some(["F", "P", ""])),
    _of("DG1", "1", "", _cwe, _some(["", "words", "w\\F\\x"]), _times),
    _of("RXE", _times.map("^^^".__add__), _cwe),
    _of("RXO", _cwe),
    _of("RXA", "0", "1", _times, _times, _cwe, *[""] * 14, _some(["CP", "NA", ""])),
    _of("ORC", "NW", "", "", "", _some(["CM", "IP", ""]), "", "", "", _times),
    _of("PR1", "1", "", _cwe, _some(["", "words"]), _times),
    _of("AL1", "1", "DA", _cwe, "", "", _times),
    _of("TXA", "1", _cwe, "", _times),
    _some(["OBX", "OBX|1|NM", "PID|", "PV1", "a line of text", "ZZZ|\\x", "NTE|1||a\\F\\b"]),
)
_segments = st.one_of(_result, _result, _others, _person, _visit)
_message = st.tuples(_header, st.lists(_person, max_size=1), st.lists(_visit, max_size=1), st.lists(_segments, max_size=8)).map(
    lambda parts: "\r".join([parts[0], *parts[1], *parts[2], *parts[3]]) + "\r"
)
#: Some with other separators: these are written anew.
_text = st.tuples(_message, st.sampled_from(["|"] * 9 + ["#"])).map(lambda drawn: drawn[0].replace("|", drawn[1]))
_files = st.lists(st.lists(_text, min_size=1, max_size=5).map("".join), min_size=1, max_size=3)


def _written(folder: Path, texts: Sequence[str]) -> list[SourceFile]:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, text in enumerate(texts, 1):
        (folder / f"{number}.hl7").write_bytes(text.encode())
    return [SourceFile(n, folder / f"{n}.hl7", len(text.encode()), "hl7v2", "messages") for n, text in enumerate(texts, 1)]


def _tables(files: Sequence[SourceFile], *, shared: bool = False) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of every canonical table, in an order of their own."""
    reader = Hl7v2Reader()
    reader.shared = shared
    with open_engine(threads=1) as con:
        for _ in reader.read(files, con):
            pass
        return {name: _rows(con, name) for name in ALL}


def _rows(con: Any, table: str) -> list[tuple[Any, ...]]:
    columns = ", ".join("sum(n)" if name == "n" else f'"{name}"' for name in ALL[table].names)  # these are counted block by block
    by = " GROUP BY ALL" if "sum(n)" in columns else ""
    return sorted(con.execute(f'SELECT {columns} FROM "{table}"{by}').fetchall(), key=repr)


_drawn = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@_drawn
@given(_files)
def test_columns_of_different_values_are_those_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    files = _written(tmp_path / "data", texts)
    monkeypatch.setattr(leaves, "FEW", 10**9)
    rows = _tables(files)
    monkeypatch.setattr(leaves, "FEW", 0)
    assert _tables(files) == rows
    monkeypatch.setattr(hl7v2_rows, "MANY", 0)
    assert _tables(files) == rows


@_drawn
@given(_files)
def test_concepts_that_are_numbers_are_the_same_rows(tmp_path: Path, texts: list[str]) -> None:
    files = _written(tmp_path / "data", texts)
    assert _tables(files, shared=True) == _tables(files)


@_drawn
@given(_files, st.integers(1, 2000))
def test_small_blocks_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], size: int) -> None:
    files = _written(tmp_path / "data", texts)
    monkeypatch.setattr(hl7v2, "BLOCK_BYTES", 32 * 1024 * 1024)
    whole = _tables(files)
    monkeypatch.setattr(hl7v2, "BLOCK_BYTES", size)
    assert _tables(files) == whole


@_drawn
@given(_files)
def test_a_profile_counts_the_same_whether_concepts_are_numbers_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    _written(tmp_path / "data", texts)
    monkeypatch.setattr(leaves, "FEW", 3)
    short, _, _ = pipeline.read_profile([str(tmp_path / "data")], Options(internal=True))
    monkeypatch.setattr(leaves, "FEW", 10**9)
    long, _, _ = pipeline.read_profile([str(tmp_path / "data")], Options(internal=True), also=lambda _: None)  # who looks sees rows
    assert short.to_json() == long.to_json()


def test_a_patient_of_many_messages_waits_once_a_block(tmp_path: Path) -> None:
    """What says the same but for its time is one row that waits: the time is the last one, the record the first one."""
    message = "MSH|^~\\&|E|S|||{}||ADT^A01|1|P|2.5\rPID|1||P1|||||{}\r"
    files = _written(
        tmp_path, ["".join(message.format(time, sex) for time, sex in [("2023", "M"), ("2021", "F"), ("2025", "M"), ("2024", "F")])]
    )
    with open_engine(threads=1) as con:
        reader = Hl7v2Reader()
        for _ in reader.stage(files, con):
            pass
        waiting = con.execute("SELECT record, sex, ts FROM _hl7_all_patient ORDER BY record").fetchall()
        reader.finish(con)
        assert con.execute("SELECT record, sex FROM patient").fetchall() == [(waiting[0][0], "male")]
    assert [(sex, ts) for _, sex, ts in waiting] == [("male", "2025"), ("female", "2024")]


def test_nothing_comes_of_nothing() -> None:
    """Columns leave out the ways whose leaves are all null: each of them must give null then (the type of a message is ``other``)."""
    forms = [hl7v2_sql.form(i, "", True) for i in range(len(hl7v2_sql.entries()))]
    forms += [hl7v2_sql.person(i, "") for i in range(len(hl7v2_sql.people()))] + [hl7v2_sql.header("")]
    with open_engine(threads=1) as con:
        hl7v2_write.prepare(con, shared=True)
        for form in forms:
            nothing = ", ".join(f"NULL::VARCHAR AS g{place}_{leaf}" for place, (used, _) in enumerate(form.columns.groups) for leaf in used)
            con.execute(f"CREATE OR REPLACE TEMP TABLE _different AS SELECT 0 AS i, {nothing}")
            found = con.sql(form.columns.select(())).to_arrow_table().to_pylist()[0]
            said = {name for name, value in found.items() if value is not None and name in form.columns.ways}
            assert said - {"kind"} == set(), form.entry


def test_no_table_has_more_coded_elements_than_columns_of_numbers() -> None:
    assert max(int(one.column[1:]) for one in hl7v2_concepts.layout()) < concepts.MOST
