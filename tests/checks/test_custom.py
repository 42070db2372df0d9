"""Rules that say themselves what is counted: one SELECT in the locked engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ehrready import pipeline, rules
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard

CANARY = "Canary"


def _source(tmp_path: Path, patients: int = 60) -> str:
    lines: list[dict[str, object]] = []
    for n in range(patients):
        lines.append({"resourceType": "Patient", "id": f"{CANARY}{n}", "gender": "female" if n % 2 else "male", "birthDate": "1970-01-01"})
        lines.append(
            {"resourceType": "Encounter", "id": f"e{n}", "status": "finished", "subject": {"reference": f"Patient/{CANARY}{n}"}, "class": {"code": "IMP"},
             "period": {"start": "2024-01-02", **({"end": "2024-01-03"} if n % 3 else {})}}
        )  # fmt: skip
    path = tmp_path / "data.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


def _pack(tmp_path: Path, query: str, more: str = "") -> str:
    indented = query.replace("\n", "\n      ")
    path = tmp_path / "own.yaml"
    path.write_text(
        "pack: own\nversion: 1.0.0\nrules:\n"
        "  - id: stays-end\n    check: sql\n    title: Stays end\n    fail: {max_rate: 0.1}\n    severity: error\n    owner: engineering\n"
        f"    why: because\n    fix: mend it\n{more}    query: |\n      {indented}\n"
        "  - id: sex-there\n    check: present\n    on: patient.sex\n    fail: {max_rate: 0.1}\n    severity: error\n    owner: engineering\n"
        "    why: because\n    fix: mend it\n"
    )
    return str(path)


OPEN = 'SELECT count(*) FILTER (WHERE "end" IS NULL) AS n, count(*) AS of, count(DISTINCT patient_id) FILTER (WHERE "end" IS NULL) AS patients FROM encounter'


def _card(tmp_path: Path, query: str, more: str = "", internal: bool = False) -> Scorecard:
    options = Options(rules=(_pack(tmp_path, query, more),), internal=internal)
    return pipeline.check([_source(tmp_path)], None, options)[0]


def _own(card: Scorecard) -> list[dict[str, object]]:
    return [f for f in card.document["findings"] if f["rule"] == "stays-end"]


def test_a_query_is_counted_and_judged_by_the_rules_limits(tmp_path: Path) -> None:
    card = _card(tmp_path, OPEN, "    dimension: completeness\n")
    (finding,) = _own(card)
    assert (finding["numerator"], finding["denominator"], finding["patients"], finding["status"]) == (20, 60, 20, "fail")
    assert finding["dimension"] == "completeness"
    assert card.verdict == "not-ready"


def test_without_patients_the_number_is_for_internal_eyes_only(tmp_path: Path) -> None:
    query = 'SELECT count(*) FILTER (WHERE "end" IS NULL) AS n, count(*) AS of FROM encounter'
    (shown,) = _own(_card(tmp_path, query, internal=True))
    assert shown["numerator"] == 20
    (hidden,) = _own(_card(tmp_path, query))
    assert (hidden["numerator"], hidden["hidden"], hidden["status"]) == (None, True, "fail")


def test_groups_are_findings_of_their_own_and_values_of_patients_are_numbered(tmp_path: Path) -> None:
    query = "SELECT p.sex AS sex, count(*) AS n, 60 AS of, count(DISTINCT p.patient_id) AS patients FROM patient p GROUP BY p.sex"
    assert {tuple(f["group"].items()) for f in _own(_card(tmp_path, query))} == {(("sex", "female"),), (("sex", "male"),)}  # type: ignore[attr-defined]
    query = "SELECT patient_id AS who, 0 AS n, 60 AS of, 0 AS patients FROM patient"
    card = _card(tmp_path, query, internal=True)
    assert CANARY not in card.to_json().decode()
    assert [f["group"] for f in _own(card)][:2] == [{"who": "group-01"}, {"who": "group-02"}]


def test_a_profile_made_with_the_pack_is_judged_later_and_one_without_says_so(tmp_path: Path) -> None:
    options = Options(rules=(_pack(tmp_path, OPEN),), internal=True)
    source = _source(tmp_path)
    saved = Profile.from_json(pipeline.read_profile([source], options)[0].to_json())
    assert _own(pipeline.judge(saved, None, options)) == _own(pipeline.check([source], None, options)[0])
    (finding,) = _own(pipeline.judge(pipeline.read_profile([source], Options())[0], None, options))
    assert finding["status"] == "not-assessed"
    other = Options(rules=(_pack(tmp_path, OPEN.replace("IS NULL", "IS NOT NULL")),), internal=True)
    (finding,) = _own(pipeline.judge(saved, None, other))
    assert finding["status"] == "not-assessed", "a measure of another query is another measure"


def test_training_is_compared_with_where_it_was_measured_too(tmp_path: Path) -> None:
    options = Options(rules=(_pack(tmp_path, OPEN),), internal=True)
    profile = pipeline.read_profile([_source(tmp_path)], options)[0]
    (finding,) = _own(pipeline.judge(profile, profile, options))
    assert finding["training"] == {"numerator": 20, "denominator": 60, "rate": 0.333333}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT 1 AS n, 2 AS of; SELECT 1 AS n, 2 AS of", "must be one SELECT"),
        ("DROP TABLE patient", "must be one SELECT"),
        ("COPY (SELECT 1 AS n, 2 AS of) TO '/tmp/out.csv'", "must be one SELECT"),
        ("SELECT count(*) AS n, 1 AS of FROM read_csv('/etc/passwd')", "reads from read_csv()"),
        ("SELECT count(*) AS n, 1 AS of FROM duckdb_settings()", "reads from duckdb_settings()"),
        ("SELECT count(*) AS n, 1 AS of FROM query('SELECT 1')", "reads from query()"),
        ("SELECT count(*) AS n, 1 AS of FROM information_schema.tables", "reads 'information_schema.tables'"),
        ("SELECT count(*) AS n, 1 AS of FROM '/etc/passwd'", "only the canonical tables may be read"),
        ("SELECT count(*) AS n, 1 AS of FROM duckdb_settings_x", "only the canonical tables may be read"),
        ("SELECT count(*) AS n, 1 AS of FROM encounters", "only the canonical tables may be read"),
        ("SELECT count(wrong) AS n, 1 AS of FROM encounter", "does not fit the tables"),
        ("SELECT count(*) AS n FROM encounter", "must return the columns n and of"),
        ("SELEC 1", "not valid SQL"),
        ("SELECT 1 AS n, 2 AS of, 3 AS a, 4 AS b, 5 AS c", "at most 2 group columns"),
        ('SELECT 1 AS n, 2 AS of, 3 AS "Dr. No"', "a plain name"),
        ("SELECT 1 AS n, 2 AS of LIMIT (SELECT content FROM read_text('/etc/passwd'))", "reads from read_text()"),
    ],
)
def test_what_is_no_count_over_the_tables_is_refused_before_reading(tmp_path: Path, query: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        rules.load(Path(_pack(tmp_path, query)))
    assert says in str(caught.value)
    assert "own.yaml:4" in str(caught.value)


@pytest.mark.parametrize(
    ("query", "more", "says"),
    [
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) AS n, count(*) AS of FROM r",
            "    seconds: 1\n",
            "longer than its limit of 1 s",
        ),
        ("SELECT 5 AS n, 2 AS of", "", "0 <= n <= of"),
        ("SELECT 1 AS n, 5 AS of, 3 AS patients", "", "at most n"),
        ("SELECT 0.5 AS n, 2 AS of", "", "whole numbers"),
        ("SELECT CAST(id AS INTEGER) AS n, 2 AS of FROM patient", "", "failed on this data"),
        ("SELECT id AS who, 0 AS n, 2 AS of FROM encounter UNION ALL SELECT id || 'x', 0, 2 FROM encounter", "", "more than 100 rows"),
    ],
)
def test_a_query_that_fails_is_an_error_and_the_other_rules_are_judged(tmp_path: Path, query: str, more: str, says: str) -> None:
    card = _card(tmp_path, query, more)
    (finding,) = _own(card)
    assert finding["status"] == "error"
    assert says in str(finding["reason"])
    assert CANARY not in card.to_json().decode()
    assert card.verdict == "cannot-tell"
    assert {f["status"] for f in card.document["findings"] if f["rule"] == "sex-there"} == {"pass"}


def test_joins_and_common_table_expressions_are_welcome(tmp_path: Path) -> None:
    query = (
        "WITH inpatient AS (SELECT record FROM coding WHERE element = 'encounter.class' AND code = 'IMP') "
        'SELECT count(*) FILTER (WHERE "end" IS NULL) AS n, count(*) AS of FROM encounter JOIN inpatient USING (record)'
    )
    (finding,) = _own(_card(tmp_path, query, internal=True))
    assert (finding["numerator"], finding["denominator"]) == (20, 60)
