"""The mapping of HL7v2: what each segment becomes in the canonical tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.readers.hl7v2_sql import PLACE_BITS
from ehrready.tables import ELEMENTS, ENTRY_BIT, POSITION_BITS
from tests.readers.hl7v2_helpers import PID, PV1, engine, message, of_text

con = engine  # the fixture


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
        ("entered-in-error", "2024010299", "milligram", None, "entered-in-error"),
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
        f"SELECT record >> {POSITION_BITS}, (record & {(1 << ENTRY_BIT) - 1}) >> {PLACE_BITS} FROM observation ORDER BY record"
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
