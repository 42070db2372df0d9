"""The HL7v2 reader: cases, equal forms of one content, the mapping, published files, mutations."""

from __future__ import annotations

import csv
import gzip
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.readers import hl7v2
from ehrready.readers.base import FileEntry, Rejected, SourceFile
from ehrready.readers.blocks import head
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.readers.hl7v2_sql import PLACE_BITS
from ehrready.tables import ALL, ELEMENTS, ENTRY_BIT, POSITION_BITS

CASES = Path(__file__).parent.parent / "cases" / "hl7v2"
_CASES = yaml.safe_load((CASES / "cases.yaml").read_text("utf-8"))

MSH = "MSH|^~\\&|LAB|HOSP|||{time}||{type}|1|P|2.5.1"
PID = "PID|1||P1^^^AUTH^MR||DOE^JANE||19800229|F|||||||||||||||"
PV1 = "PV1|1|I|||||||||||||||||V1"


class Tables:
    """What a reading gave: the connection's tables as sorted rows, the ledger, the rejections."""

    def __init__(self, con: duckdb.DuckDBPyConnection, entries: dict[int, FileEntry], rejected: list[Rejected]) -> None:
        self.con, self.entries, self.rejected = con, entries, rejected

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[Any, ...]:
        (found,) = self.rows(sql)
        return found

    def everything(self) -> dict[str, list[str]]:
        """All canonical tables but the count by type, rows in one order, without the columns of the position."""
        return {name: sorted(map(repr, self.rows(f'SELECT * FROM "{name}"'))) for name in ALL}


def read(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Tables:
    files = [SourceFile(i, path, path.stat().st_size, "hl7v2", "messages") for i, path in enumerate(paths, 1)]
    ledger, rejected = Ledger.of(files), []
    for event in Hl7v2Reader().read(files, con):
        ledger.add(event)
        if isinstance(event, Rejected):
            rejected.append(event)
    ledger.close()
    return Tables(con, ledger.entries, rejected)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine(threads=2) as connection:
        yield connection


def of_text(tmp_path: Path, con: duckdb.DuckDBPyConnection, *messages: Sequence[str]) -> Tables:
    """Read messages, given as lists of segments, from one file."""
    path = tmp_path / "text.hl7"
    path.write_bytes("".join(segment + "\r" for message in messages for segment in message).encode())
    return read(con, [path])


def message(*segments: str, time: str = "20240102030405", type: str = "ORU^R01") -> list[str]:  # noqa: A002 # MSH-9
    return [MSH.format(time=time, type=type), *segments]


# --- cases -----------------------------------------------------------------------------------------------------


def test_every_case_file_is_described() -> None:
    assert {path.stem for path in CASES.glob("*.hl7")} == set(_CASES["cases"])


@pytest.mark.parametrize("name", sorted(_CASES["cases"]))
def test_case(name: str, con: duckdb.DuckDBPyConnection) -> None:
    expected = _CASES["defaults"] | _CASES["cases"][name]
    path = CASES / f"{name}.hl7"
    assert Hl7v2Reader().recognise(path, head(path)) == "messages"
    found = read(con, [path])
    entry = found.entries[1]
    assert (entry.status, entry.read, entry.declared) == (expected["status"], expected["read"], expected["declared"])
    reasons: dict[str, list[int]] = {}
    for event in found.rejected:
        reasons.setdefault(event.reason, []).append(event.position)
    assert reasons == expected["reasons"]
    values = found.rows("SELECT coalesce(value_number::VARCHAR, value_text) FROM observation ORDER BY record")
    assert [value for (value,) in values] == [str(value) for value in expected["observations"]]
    assert found.row("SELECT count(*) FROM defect WHERE element = 'message.charset'") == (expected["charset"],)


def test_many_small_files_keep_their_own_rows(con: duckdb.DuckDBPyConnection) -> None:
    paths = sorted(CASES.glob("*.hl7"))
    found = read(con, paths)
    for number, path in enumerate(paths, 1):
        expected = _CASES["defaults"] | _CASES["cases"][path.stem]
        entry = found.entries[number]
        assert (path.stem, entry.read, entry.status) == (path.stem, expected["read"], expected["status"])
        (count,) = found.row(f"SELECT count(*) FROM observation WHERE record >> {POSITION_BITS} = {number}")
        assert (path.stem, count) == (path.stem, len(expected["observations"]))


def test_recognise_by_content_then_by_name() -> None:
    reader = Hl7v2Reader()
    for start in (b"MSH|^~\\&|", b"\xef\xbb\xbfMSH|", b"\r\n MSH*", b"\x0bMSH|", b"FHS|", b"BHS|"):
        assert reader.recognise(Path("export.txt"), start) == "messages"
    for start in (b"MSHELL|", b"MSH was high", b"Patient,MSH\r", b"", b'{"resourceType": 1}'):
        assert reader.recognise(Path("export.txt"), start) == ""
    assert reader.recognise(Path("export.hl7"), b"a log\rMSH|") == "messages"
    assert reader.recognise(Path("export.hl7"), b"") == "messages"
    assert reader.recognise(Path("export.hl7"), b"<ORU_R01>") == ""


def test_compressed_and_cut(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    data = gzip.compress((CASES / "two_messages.hl7").read_bytes())
    whole, cut = tmp_path / "a.hl7.gz", tmp_path / "b.hl7.gz"
    whole.write_bytes(data)
    cut.write_bytes(data[:-12])
    found = read(con, [whole, cut])
    assert (found.entries[1].status, found.entries[1].read, found.entries[1].rejected) == ("read", 2, 0)
    assert found.entries[2].status in {"truncated", "unreadable"}
    assert found.entries[2].reasons == {"truncated": 1}


# --- one content, many forms -----------------------------------------------------------------------------------


def _forms(content: bytes) -> dict[str, bytes]:
    """Return the same messages (CR line ends) in every framing."""
    lines = content.split(b"\r")
    mixed = b"".join(line + (b"\r", b"\n", b"\r\n")[i % 3] for i, line in enumerate(lines[:-1]))
    frames = [b"\x0bMSH" + part + b"\x1c\r" for part in content.split(b"MSH|^") for part in [b"|^" + part] if part != b"|^"]
    return {
        "cr": content,
        "lf": content.replace(b"\r", b"\n"),
        "crlf": content.replace(b"\r", b"\r\n"),
        "mixed": mixed,
        "mllp": b"".join(frames),
        "bom": b"\xef\xbb\xbf" + content,
        "blank-lines": content.replace(b"\r", b"\r\r"),
        "no-last-end": content.rstrip(b"\r"),
        "utf-16": content.decode().encode("utf-16"),
    }


@pytest.mark.parametrize("form", ["lf", "crlf", "mixed", "mllp", "bom", "blank-lines", "no-last-end", "utf-16"])
def test_forms_of_one_content_give_the_same_tables(form: str, tmp_path: Path, shared: Path) -> None:
    content = b"".join(
        re.sub(rb"[\r\n]+", b"\r", (shared / "data" / "hl7v2" / "fhir_converter" / name).read_bytes().removeprefix(b"\xef\xbb\xbf")) + b"\r"
        for name in ("ORU-R01-01.hl7", "ADT-A01-01.hl7", "MDM-T05-01.hl7")
    ).replace(b"\r\r", b"\r")
    found = []
    for name in ("cr", form):
        path = tmp_path / f"{name}.hl7"
        path.write_bytes(_forms(content)[name])
        with open_engine(threads=2) as con:
            tables = read(con, [path])
            found.append((tables.entries[1].read, tables.entries[1].rejected, tables.everything()))
    assert found[0][0] == 3
    assert found[0] == found[1]


def test_other_separators_give_the_same_tables(tmp_path: Path) -> None:
    plain = message(PID, PV1, "OBX|1|ST|1^{}^L^2^b^M||{}|mg&ml|||||F", "NTE|1||x")
    other = [segment.translate(str.maketrans("|^~\\&", "*:;/+")) for segment in plain]
    # what separates in one is data in the other; an escape means the separator of its own message
    plain = "".join(segment + "\r" for segment in plain).format(r"A\T\B \S\ \F\ x*y:z", r"1 \E\ 2 \R\ /E/ \.br\ .")
    other = "".join(segment + "\r" for segment in other).format("A&B ^ | x/F/y/S/z", r"1 \ 2 ~ /E/E/E/ /.br/ .")
    found = []
    for name, text in (("plain", plain), ("other", other)):
        path = tmp_path / f"{name}.hl7"
        path.write_text(text, "utf-8", newline="")
        with open_engine(threads=2) as con:
            found.append(read(con, [path]).everything())
    assert found[0] == found[1]
    assert any("'A&B ^ | x*y:z'" in row for row in found[0]["concept"])


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    early = message("PID|1||P1||||19800101|F", "PV1|1|E|||||||||||||||||V1", time="20240101")
    late = message("PID|1||P1||||19810101|", "PV1|1|I|||||||||||||||||V1", time="20240301")
    tie = message("PID|1||P1||||19800505|M", "PV1|1|O|||||||||||||||||V1", time="20240301")
    found = []
    for order in ([early, late, tie], [tie, late, early]):
        paths = []
        for i, one in enumerate(order):
            paths.append(tmp_path / f"{i}.hl7")
            paths[-1].write_text("\r".join(one), "utf-8", newline="")
        with open_engine(threads=2) as con:
            tables = read(con, paths)
            found.append(
                (
                    tables.rows("SELECT id, birth_date, sex FROM patient"),
                    tables.rows("SELECT code FROM coding WHERE element = 'encounter.class'"),
                )
            )
    # the last value by MSH-7; of two at the same time the greater; an empty one takes nothing away
    assert found[0] == found[1] == ([("P1", "1981-01-01", "male")], [("O",)])


# --- the mapping -----------------------------------------------------------------------------------------------


def test_patient_and_encounter(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message("PID|1||P1^^^AUTH&1.2&ISO^MR~X9||||19800229|U", PV1),
        message('PID|1||P1^^^OTHER||||""|A', "PV1|1|O"),
        message("PID|1||||||1970|", "PV1|1|O"),
    )
    rows = found.rows("SELECT id, birth_date, sex, site FROM patient ORDER BY id NULLS LAST")
    assert rows == [("P1^^^AUTH", "1980-02-29", "unknown", "HOSP"), ("P1^^^OTHER", '""', "other", "HOSP"), (None, "1970", None, "HOSP")]
    visits = found.rows("SELECT id, patient_id FROM encounter ORDER BY ALL NULLS LAST")
    assert visits == [("V1", "P1^^^AUTH"), (None, "P1^^^OTHER"), (None, None)]
    classes = found.rows("SELECT code, system FROM coding WHERE element = 'encounter.class' ORDER BY 1")
    assert classes == [("I", "HL70004"), ("O", "HL70004"), ("O", "HL70004")]
    # a concept of each patient for race, ethnicity, language, though none is given
    assert found.row("SELECT count(*), sum(n_codings) FROM concept WHERE element LIKE 'patient.%'") == (9, 0)


def test_patient_id_before_version_2_3(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    old = [segment.replace("2.5.1", "2.2") for segment in message("PID|1|OLD^1||", "OBX|1|NM|1||1")]
    new = message("PID|1|OLD^1||", "OBX|1|NM|1||2")
    found = of_text(tmp_path, con, old, new)
    assert found.rows("SELECT value_number, patient_id FROM observation ORDER BY 1") == [(1.0, "OLD"), (2.0, None)]


def test_two_patients_in_one_message(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            "OBX|1|NM|0||0", "PID|1||A", PV1, "OBR|1|||1|||2024", "OBX|1|NM|1||1", "PID|2||B", "PV1|1|I|||||||||||||||||V2", "OBX|1|NM|2||2"
        ),
    )
    rows = found.rows('SELECT value_number, patient_id, encounter_id, "at" FROM observation ORDER BY 1')
    # what stands before any PID is of the first; OBR-7 does not reach over to the next patient
    assert rows == [(0.0, "A", "V1", None), (1.0, "A", "V1", "2024"), (2.0, "B", "V2", None)]
    assert found.rows("SELECT id FROM patient ORDER BY 1") == [("A",), ("B",)]


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("NM", "5.40", ("number", 5.4, None, None)),
        ("NM", " -7 ", ("number", -7.0, None, None)),
        ("NM", ">100", ("text", None, ">100", None)),
        ("NM", "1e999", ("text", None, "1e999", None)),
        ("NM", "nan", ("text", None, "nan", None)),
        ("NM", "1_000", ("text", None, "1_000", None)),
        ("NM", '""', ("text", None, '""', None)),
        ("NM", "", (None, None, None, None)),
        ("NM", "5.4~6.1", ("number", 5.4, None, None)),
        ("SN", ">^100", ("number", 100.0, None, ">")),
        ("SN", "^>^100", ("number", 100.0, None, ">")),
        ("SN", "^12", ("number", 12.0, None, None)),
        ("SN", "=^12", ("number", 12.0, None, None)),
        ("SN", "12", ("number", 12.0, None, None)),
        ("SN", "^1^:^128", ("text", None, "1:128", None)),
        ("SN", "^10^-^20", ("text", None, "10-20", None)),
        ("ST", "5.4 mg", ("text", None, "5.4 mg", None)),
        ("FT", r"a\.br\b \T\ \X0A\ c", ("text", None, r"a\.br\b & \X0A\ c", None)),
        ("", "x", ("text", None, "x", None)),
        ("CWE", "10828004^Positive^SCT", ("coded", None, "Positive", None)),
        ("CE", "^^^POS^Positive local^L", ("coded", None, "POS"[:0] or None, None)),
        ("CWE", '""', ("text", None, '""', None)),
        ("TS", "202401", ("time", None, "202401", None)),
        ("CWE^^HL70125", "1^a^L", ("coded", None, "a", None)),
        ("RP", "p^q", ("other", None, "p^q", None)),
        ("ED", "^" * 3 + "A" * 500, ("other", None, "^" * 3 + "A" * 61, None)),
    ],
)
def test_value(kind: str, data: str, expected: tuple[Any, ...], tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(tmp_path, con, message(PID, f"OBX|1|{kind}|1^a^L||{data}||||||F"))
    assert found.row("SELECT value_kind, value_number, value_text, comparator FROM observation") == expected
    coded = found.rows("SELECT code FROM coding WHERE element = 'observation.value_code'")
    assert bool(coded) == (expected[0] == "coded")


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("3.5-5.1", 3.5, 5.1),
        ("-2 - 3", -2.0, 3.0),
        ("<5", None, 5.0),
        (">= 60", 60.0, None),
        ("neg", None, None),
        ("3.5-5.1 mmol", 3.5, 5.1),
    ],
)
def test_range(text: str, low: float | None, high: float | None, tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(tmp_path, con, message(PID, f"OBX|1|NM|1||1|mg|{text}"))
    assert found.row("SELECT range_low, range_high FROM observation") == (low, high)


def test_observation_columns(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            PID,
            PV1,
            "OBR|1|||24323-8^CMP^LN|||202401020304||||||||||||||||||A",
            "OBX|1|NM|2345-7^Glucose^LN^GLU^Glucose local^L^2.78^1^Gluc||5|mg/dL^milligram^UCUM||H~HH^Very high^LOCAL|||F",
            "OBX|2|NM|2345-7||5|^milligram|||||W|||2024010299",
            "OBX|3|NM|^Sodium||5|mmol/L||N|||P|||20240103",
        ),
    )
    rows = found.rows('SELECT status, "at", unit, unit_code, excluded FROM observation ORDER BY record')
    assert rows == [
        ("final", "2024-01-02T03:04:00", "mg/dL", "mg/dL", None),
        ("entered-in-error", "2024-01-02T99:00:00", "milligram", None, "entered-in-error"),
        ("preliminary", "2024-01-03", "mmol/L", None, None),
    ]
    codings = found.rows("SELECT position, system, version, code, display FROM coding WHERE element = 'observation.code' ORDER BY 1")
    # the withdrawn one is in no denominator, so it has no coding
    assert codings == [(1, "LN", "2.78", "2345-7", "Glucose"), (2, "L", "1", "GLU", "Glucose local")]
    texts = found.rows("SELECT text, n_codings FROM concept WHERE element = 'observation.code' ORDER BY record")
    assert texts == [("Gluc", 2), ("Sodium", 0)]
    interpretation = found.rows(
        "SELECT ordinal, n_codings FROM concept WHERE element = 'observation.interpretation' ORDER BY record, ordinal"
    )
    assert interpretation == [(1, 1), (2, 1), (1, 1)]
    systems = found.rows("SELECT code, system FROM coding WHERE element = 'observation.interpretation' ORDER BY 1")
    assert systems == [("H", "HL70078"), ("HH", "LOCAL"), ("N", "HL70078")]
    assert found.row("SELECT status, id FROM report") == ("partial", None)


def test_absent_codes_are_rows_to_count(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            PID, "DG1|1||", "DG1|2||^chest pain", "DG1|3|||sore throat|2024", 'DG1|4||""', "DG1|5||UNK^^I10", "DG1|6||ASKU^asked^NULLFL"
        ),
    )
    rows = found.rows("SELECT text, n_codings, absent_reason FROM concept WHERE element = 'condition.code' ORDER BY record")
    assert rows == [
        (None, 0, None),
        ("chest pain", 0, None),
        ("sore throat", 0, None),
        ('""', 0, None),
        ("UNK", 0, None),
        (None, 0, "asku"),
    ]
    assert found.rows("SELECT code FROM coding WHERE element = 'condition.code' ORDER BY 1") == [('""',), ("UNK",)]


def test_medication_and_immunization(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    rxa = "RXA|0|1|20240105||{code}|1||||||||||||||CP"
    found = of_text(
        tmp_path,
        con,
        message(PID, "ORC|NW||||CM||||20240101", "RXO|111^a^RXNORM", "RXE|1^^^20240102|222^b^RXNORM", type="RDE^O11"),
        message(PID, "ORC|NW||||||||20240103", "RXO|333^c^RXNORM", type="OMP^O09"),
        message(PID, rxa.format(code="444^d^RXNORM"), type="RAS^O17"),
        message(PID, "ORC|RE", rxa.format(code="998^no vaccine administered^CVX"), "OBX|1|NM|1||3", type="VXU^V04^VXU_V04"),
    )
    rows = found.rows(
        "SELECT c.code, m.\"at\", m.status FROM medication m JOIN coding c ON c.record = m.record AND c.element = 'medication.code' ORDER BY 1"
    )
    assert rows == [("222", "2024-01-02", "completed"), ("333", "2024-01-03", None), ("444", "2024-01-05", "completed")]
    assert found.rows('SELECT "at", status FROM immunization') == [("2024-01-05", "completed")]
    assert found.rows("SELECT code FROM coding WHERE element = 'immunization.code'") == [("998",)]
    assert found.row("SELECT count(*) FROM observation") == (1,)
    types = found.rows('SELECT "type", sum(n) FROM types GROUP BY 1 ORDER BY 1')
    assert types == [("OMP^O09", 1), ("RAS^O17", 1), ("RDE^O11", 1), ("VXU^V04", 1)]


def test_a_type_that_is_none_is_other(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(tmp_path, con, message(type="DOE JANE"), message(type=""), message(type="ADT"))
    assert found.rows('SELECT "type", sum(n) FROM types GROUP BY 1') == [("other", 3)]


def test_remaining_tables(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            PID + "2028-9^Asian^HL70005",
            PV1,
            "DG1|1||I10^Hypertension^I10||20240101||||||||||||||20240102",
            "PR1|1||99213^Visit^C4||20240103",
            "AL1|1|DA|70618^Penicillin^RXNORM",
            "TXA|1|DS|TX|20240104|||||||||||||AU",
        ),
    )
    assert found.row('SELECT "at", recorded_at, encounter_id FROM condition') == ("2024-01-01", "2024-01-02", "V1")
    assert found.row('SELECT "at" FROM procedure') == ("2024-01-03",)
    assert found.row('SELECT "at", status FROM document') == ("2024-01-04", "AU")
    codings = found.rows("SELECT element, code, system FROM coding ORDER BY 1")
    assert codings == [
        ("allergy.code", "70618", "RXNORM"),
        ("condition.code", "I10", "I10"),
        ("document.type", "DS", "HL70270"),
        ("encounter.class", "I", "HL70004"),
        ("procedure.code", "99213", "C4"),
    ]


def test_record_says_file_and_message_and_is_one_row(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(tmp_path, con, message(PID, "OBX|1|NM|1||1", "OBX|2|NM|1||2"), message(PID, "OBX|1|NM|1||3"))
    rows = found.rows(
        f"SELECT record >> {POSITION_BITS}, hl7v2_message FROM (SELECT record, (record & 549755813887) >> 15 hl7v2_message FROM observation) ORDER BY record"
    )
    assert rows == [(1, 1), (1, 1), (1, 2)]
    assert found.row("SELECT count(DISTINCT record) FROM observation") == (3,)


def test_source_elements_are_places_of_known_elements() -> None:
    places = Hl7v2Reader().source_elements()
    assert places["condition.code"] == "DG1-3"
    assert places["observation.value"] == "OBX-5"
    assert places["patient.id"] == "PID-3"
    assert places["immunization.code"] == "RXA-5"
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]{2}-\d+", place) for place in places.values())
    assert {element for element in places if element.endswith((".code", ".class", ".race"))} <= set(ELEMENTS)


# --- blocks ----------------------------------------------------------------------------------------------------


def test_blocks_cut_at_messages_give_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.hl7"
    path.write_bytes(
        b"FHS|^~\\&\rBHS|^~\\&\r"
        + b"".join((CASES / f"{name}.hl7").read_bytes() for name in ["plain", "multiline_value", "latin1_undeclared"] * 9)
        + b"BTS|27\r"
    )
    found = []
    for size in (1 << 25, 1000, 77):
        monkeypatch.setattr(hl7v2, "BLOCK_BYTES", size)
        with open_engine(threads=2) as con:
            tables = read(con, [path])
            found.append((tables.entries, {name: rows for name, rows in tables.everything().items() if name != "types"}))
            assert tables.row("SELECT sum(n) FROM types") == (27,)
    assert found[0] == found[1] == found[2]
    assert (found[0][0][1].read, found[0][0][1].declared) == (27, 27)


def test_a_message_beyond_the_limit_is_passed_over(tmp_path: Path, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hl7v2, "BLOCK_BYTES", 500)
    monkeypatch.setattr(hl7v2, "LONGEST_MESSAGE", 3000)
    long = message(PID, "OBX|1|ED|1||" + "A" * 9000)
    found = of_text(tmp_path, con, message(PID, "OBX|1|NM|1||1"), long, message(PID, "OBX|1|NM|1||3"))
    assert found.entries[1].reasons == {"too-large": 1}
    assert found.entries[1].read == 3
    assert [(event.position, event.reason) for event in found.rejected] == [(2, "too-large")]
    assert found.rows("SELECT value_number FROM observation ORDER BY 1") == [(1.0,), (3.0,)]


# --- published files -------------------------------------------------------------------------------------------


def _segments(data: bytes) -> Iterator[list[list[str]]]:
    """Split a file in the plainest way: yield messages as lists of fields.  Standard separators only."""
    found: list[list[str]] | None = None
    for line in re.split(r"[\r\n\x0b\x1c]+", data.decode("utf-8-sig")):
        if line.startswith("MSH|"):
            if found is not None:
                yield found
            found = []
        if line[:4] in {"FHS|", "BHS|", "BTS|", "FTS|"} or found is None:
            continue
        if re.match(r"[A-Z][A-Z0-9]{2}\|", line):
            found.append(line.split("|"))
        elif line and found:
            found[-1][-1] += "\n" + line
    if found is not None:
        yield found


def _plain(text: str) -> str:
    for escape, character in (("\\T\\", "&"), ("\\S\\", "^"), ("\\R\\", "~"), ("\\F\\", "|"), ("\\E\\", "\\")):
        text = text.replace(escape, character)
    return text


def test_published_files_against_a_plain_splitter(shared: Path, con: duckdb.DuckDBPyConnection) -> None:
    folder = shared / "data"
    with (folder / "MANIFEST.csv").open(encoding="utf-8", newline="") as stream:
        listed = {row["file"]: int(row["n_resources_messages_rows"]) for row in csv.DictReader(stream) if row["format"] == "hl7v2"}
    paths = [folder / name for name in sorted(listed)]
    found = read(con, paths)
    tables = {"OBX": "observation", "DG1": "condition", "OBR": "report", "PR1": "procedure", "AL1": "allergy", "TXA": "document"}
    counted = {
        segment: dict(found.rows(f"SELECT record >> {POSITION_BITS}, count(*) FROM {table} GROUP BY 1"))
        for segment, table in tables.items()
    }
    codes: Counter[tuple[str, str | None]] = Counter()
    values: Counter[float] = Counter()
    for number, path in enumerate(paths, 1):
        messages = list(_segments(path.read_bytes()))
        entry = found.entries[number]
        assert (path.name, entry.read, entry.rejected) == (path.name, listed[path.relative_to(folder).as_posix()], 0)
        assert len(messages) == entry.profiled
        kinds = Counter(fields[0] for one in messages for fields in one)
        for segment in tables:
            assert (path.name, segment, counted[segment].get(number, 0)) == (path.name, segment, kinds[segment])
        for fields in (fields for one in messages for fields in one if fields[0] == "OBX"):
            parts = [*(fields[3].split("~")[0].split("^") if len(fields) > 3 else []), "", "", ""]
            withdrawn = len(fields) > 11 and fields[11].split("^")[0] in {"W", "D"}
            if parts[0].strip() and not withdrawn:
                codes[_plain(parts[0]), _plain(parts[2]).strip() or None] += 1
            if len(fields) > 5 and fields[2] == "NM" and re.fullmatch(r"\s*[+-]?\d*\.?\d+\s*", fields[5].split("~")[0]):
                values[float(fields[5].split("~")[0])] += 1
    read_codes = found.rows("SELECT code, system FROM coding WHERE element = 'observation.code' AND position = 1")
    # a message whose first alternative is empty has its second one in position 1
    assert not codes - Counter(read_codes)
    joined = found.rows("SELECT value_number FROM observation WHERE value_number IS NOT NULL AND comparator IS NULL")
    assert not values - Counter(value for (value,) in joined)
    assert all(math.isfinite(value) for (value,) in joined)


# --- mutations -------------------------------------------------------------------------------------------------


def _mutate(data: bytes, rng: random.Random) -> bytes:
    """Break a file in one of the ways that exports break."""
    at = rng.randrange(len(data)) if data else 0
    ends = [found.start() for found in re.finditer(rb"\r", data)] or [0]
    end = rng.choice(ends)
    match rng.randrange(16):
        case 0:
            return data[:end] + data[end + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + bytes([rng.randrange(256)]) * rng.randrange(1, 9) + data[at:]
        case 3:
            return data.replace(b"MSH", b"MSHMSH" if rng.random() < 0.5 else b"MSH\rMSH", rng.randrange(1, 3))
        case 4:
            return data.replace(
                b"MSH|^~\\&", b"MSH" + bytes(rng.choices(b"|^~\\&#*A1 \r\x00\xff", k=rng.randrange(7))), rng.randrange(1, 3)
            )
        case 5:
            return data[:at] + b"\x00" * rng.randrange(1, 5) + data[at:]
        case 6:
            return data[:at] + rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1e", b"\x1d", b"\x11\x01"]) + data[at:]
        case 7:
            return data[:at] + b"\\" + rng.choice([b"", b"F", b"X0", b"E\\F", b".br", b"\\\\", b"Z" * 99]) + data[at:]
        case 8:
            return data[:at] + rng.choice([b"^", b"&", b"~", b"|"]) * rng.choice([1, 40, 3000]) + data[at:]
        case 9:
            return data.replace(b"|", rng.choice([b"*", b"||", b"\t", b"a", b"\xc2\xa7"]))
        case 10:
            return data.replace(b"\r", rng.choice([b"\n", b"\r\n", b"\x1c\r", b"\r\x0b", b""]), rng.randrange(1, 50))
        case 11:
            return data[at:] + data[:at]
        case 12:
            return (
                data[:at] + b"\r" + rng.choice([b"BTS|x", b"BHS", b"FTS|99999999999", b"PID|", b"MSH", b"msh|", b"A0|"]) + b"\r" + data[at:]
            )
        case 13:
            return data.replace(b"|P|", b"|P|2.5||||||" + rng.choice([b"8859/1", b"ISO IR87", b"8859/99", b"UNICODE UTF-16", b"\x1b$B"]), 1)
        case 14:
            return rng.choice([b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x0b\x0b", b"\x1b$B"]) + data
        case _:
            return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "cp1252", "utf-32", "ascii"]), "replace")


@pytest.mark.parametrize("seed", range(3))
def test_mutations_are_read_or_rejected_and_never_fail(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 # a seed, so that a failure can be replayed
    sources = [path.read_bytes() for path in sorted(CASES.glob("*.hl7"))]
    paths = []
    for number in range(150):
        data = rng.choice(sources)
        for _ in range(rng.randrange(1, 4)):
            data = _mutate(data, rng)
        paths.append(tmp_path / f"{number:03d}.hl7")
        paths[-1].write_bytes(data)
    good = tmp_path / "zz.hl7"
    good.write_bytes((CASES / "two_messages.hl7").read_bytes())
    paths.append(good)
    with open_engine(threads=2) as con:
        together = read(con, paths)
        counts = dict(together.rows(f"SELECT record >> {POSITION_BITS}, count(*) FROM observation GROUP BY 1"))
        for number, entry in together.entries.items():
            assert entry.profiled >= 0
            assert entry.read > 0 or entry.status == "read"
            assert counts.get(number, 0) == 0 or entry.profiled > 0
        assert (together.entries[len(paths)].read, together.entries[len(paths)].rejected, counts[len(paths)]) == (2, 0, 2)
        (types,) = together.row("SELECT sum(n) FROM types")
        assert types == sum(entry.profiled for entry in together.entries.values())


def test_extreme_fields(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            PID,
            "OBX|1|ST|1^a^L||" + "&x" * 200_000,
            "OBX|2|CWE|" + "x^" * 200_000 + "||1^a^L",
            "OBX|3|ST|1^a^L||" + "y" * 5_000_000,
            "OBX|4|NM|1^a^L||" + "9" * 5000,
            *["OBX|5|NM|1^a^L||1"] * 40_000,
        ),
        message(PID, "OBX|1|NM|1^a^L||2"),
    )
    assert found.entries[1].read == 2
    assert found.row("SELECT count(*) FROM observation") == (40_005,)
    assert found.rows("SELECT value_kind, length(value_text) FROM observation WHERE length(value_text) > 999 ORDER BY 2") == [
        ("text", 5000),
        ("text", 400_000),
        ("text", 5_000_000),
    ]
