"""Great Expectations on canonical tables, its users' own Checkpoints, suites in and out; never a value of a patient."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrready import cli, pipeline, rules
from ehrready.engines import duckdb as engine
from ehrready.errors import UsageError
from ehrready.integrations import gx, gx_export, gx_suite, gx_tables
from ehrready.tables import ABSENT, CODED

CANARY = "Zebulon-4711"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        names = ", ".join(f'"{name}"' for name in row)
        con.execute(f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(row))})', list(row.values()))


@contextlib.contextmanager
def tables(**rows: Sequence[dict[str, Any]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a locked engine with these rows."""
    with engine.open_engine(threads=1) as con:
        for table, listed in rows.items():
            insert(con, table, listed)
        engine.lock(con)
        yield con


def status(values: Sequence[str | None], people: int = 7) -> list[dict[str, Any]]:
    return [
        {"record": i, "patient_id": f"{CANARY}{i % people}", "status": value, "value_number": float(i)} for i, value in enumerate(values)
    ]


def is_(column: str, value: object) -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": column}, "operator": "==", "parameter": value}


# --- any expectation on a canonical table


@settings(max_examples=15)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([None, "final", "x", CANARY]), st.sampled_from([None, "p", "q", "r"]), st.booleans()), max_size=30
    ),
    condition=st.booleans(),
)
def test_counts_are_those_of_sql(rows: list[tuple[str | None, str | None, bool]], condition: bool) -> None:
    listed = [
        {"record": i, "status": s, "patient_id": p, "excluded": "test-patient" if e else None, "value_number": float(i % 3)}
        for i, (s, p, e) in enumerate(rows)
    ]
    where = "excluded IS NULL" + (" AND value_number = 1" if condition else "")
    extra = {"row_condition": is_("value_number", 1)} if condition else {}
    with tables(observation=listed) as con:
        for kind, kwargs, universe, bad in [
            ("expect_column_values_to_not_be_null", {}, "true", "status IS NULL"),
            ("ExpectColumnValuesToBeInSet", {"value_set": ["final", "x"]}, "status IS NOT NULL", f"status = '{CANARY}'"),
        ]:
            found = gx.measure_expectation(con, "observation", kind, {"column": "status", "mostly": 0.5, **kwargs, **extra})
            cells = con.execute(
                f"SELECT patient_id, count(*) FILTER (WHERE {bad}), count(*) FROM observation WHERE {where} AND {universe} GROUP BY 1"
            ).fetchall()
            n, of = sum(c[1] for c in cells), sum(c[2] for c in cells)
            assert (found.error, found.n, found.of, found.by_record) == (None, n, of, True)
            assert found.success == (not of or (of - n) / of >= 0.5)
            named, alone = [c for c in cells if c[0]], [c for c in cells if not c[0]]
            lonely, lonely_bad = sum(c[2] for c in alone), sum(c[1] for c in alone)
            assert (found.patients, found.of_patients) == (sum(c[1] > 0 for c in named), len(named))
            assert found.n2 == sum(c[1] ** 2 for c in named) + lonely_bad
            assert found.of2 == sum(c[2] ** 2 for c in named) + lonely
            assert found.n_of == sum(c[1] * c[2] for c in named) + lonely_bad


def test_kinds_of_expectations() -> None:
    rows = status([None, "final", CANARY] * 4)
    with tables(observation=rows) as con:

        def counts(kind: str, **kwargs: Any) -> tuple[int, int, int | None, bool]:
            found = gx.measure_expectation(con, "observation", kind, kwargs)
            assert found.error is None, found.error
            return found.n, found.of, found.patients, found.by_record

        assert counts("expect_column_values_to_be_unique", column="status") == (8, 8, 6, True)
        assert counts("expect_column_values_to_be_null", column="status") == (8, 12, 6, True)
        assert counts("expect_column_values_to_match_regex", column="status", regex="^f") == (4, 8, 4, True)
        assert counts("expect_column_values_to_be_between", column="value_number", min_value=0, max_value=5) == (6, 12, 6, True)
        assert counts("expect_column_values_to_be_increasing", column="record") == (0, 12, 0, True)
        assert counts("ExpectColumnPairValuesAToBeGreaterThanB", column_A="value_number", column_B="record", or_equal=True)[:2] == (0, 12)
        assert counts("expect_compound_columns_to_be_unique", column_list=["status", "patient_id"])[:2] == (0, 12)
        assert counts("expect_select_column_values_to_be_unique_within_record", column_list=["record", "value_number"])[:2] == (12, 12)
        # about the table: 0 or 1 of 1, and no patient
        assert counts("expect_table_row_count_to_equal", value=12) == (0, 1, None, False)
        assert counts("expect_table_row_count_to_equal", value=11) == (1, 1, None, False)
        assert counts("expect_column_to_exist", column="status") == (0, 1, None, False)
        assert counts("expect_column_to_exist", column="nowhere") == (1, 1, None, False)
        assert counts("expect_table_columns_to_match_ordered_list", column_list=["nowhere"]) == (1, 1, None, False)
        assert counts("expect_column_mean_to_be_between", column="value_number", min_value=100) == (1, 1, None, False)
        assert counts("expect_column_distinct_values_to_be_in_set", column="status", value_set=["final"]) == (1, 1, None, False)
        assert counts("expect_column_values_to_be_of_type", column="status", type_="str") == (0, 1, None, False)


def test_a_stated_absence_is_an_answer_and_no_value() -> None:
    values = [ABSENT + "unknown", ABSENT + "masked", "male", None]
    rows = [{"record": i, "patient_id": str(i), "sex": value} for i, value in enumerate(values)]
    with tables(patient=rows) as con:
        assert gx.measure_expectation(con, "patient", "expect_column_values_to_not_be_null", {"column": "sex"}).n == 1
        found = gx.measure_expectation(con, "patient", "expect_column_values_to_be_in_set", {"column": "sex", "value_set": ["male"]})
        assert (found.n, found.of) == (0, 1)


@pytest.mark.parametrize(
    ("table", "kind", "kwargs", "says"),
    [
        ("observation", "expect_column_values_to_be_in_sett", {"column": "status"}, "did you mean 'expect_column_values_to_be_in_set'?"),
        ("observtion", "expect_column_to_exist", {"column": "status"}, "did you mean 'observation'?"),
        ("observation", "expect_column_values_to_be_null", {"column": "statu"}, "did you mean 'status'?"),
        ("observation", "expect_column_values_to_be_null", {"colum": "status"}, "no argument 'colum' (did you mean 'column'?)"),
        ("observation", "expect_column_values_to_be_in_set", {"column": "status", "mostly": 7}, "do not fit: mostly"),
        ("observation", "expect_column_values_to_be_null", {}, "do not fit: column"),
        ("observation", "expect_column_values_to_match_regex", {"column": "status", "regex": "("}, "crashed on this table"),
        ("observation", "expect_column_max_to_be_between", {"column": "status", "min_value": 3}, "crashed on this table"),
        ("observation", "expect_column_values_to_match_regex", {"column": "status", "regex": {"$PARAMETER": "r"}}, "crashed"),
        ("observation", "unexpected_rows_expectation", {"unexpected_rows_query": "SELECT 1"}, "needs a database"),
        (
            "observation",
            "expect_column_values_to_be_null",
            {"column": "status", "row_condition": "@pd.read_csv('/etc/passwd')", "condition_parser": "pandas"},
            "must be a condition object",
        ),
        (
            "observation",
            "expect_column_values_to_be_null",
            {"column": "status", "row_condition": {"type": "pass_through", "pass_through_filter": "status == 'a'"}},
            "must be a condition object",
        ),
        ("observation", "expect_column_values_to_be_null", {"column": "status", "row_condition": is_("a` or `b", 1)}, "has no column"),
        (
            "observation",
            "expect_column_values_to_be_null",
            {"column": "status", "row_condition": {"type": "and", "conditions": 5}},
            "must be a condition object",
        ),
        ("observation", "x" * 100_000, {}, "has no expectation 'xxx"),
        (
            "observation",
            "expect_column_values_to_match_json_schema",
            {"column": "status", "json_schema": {"allOf": [{"$ref": "http://example.org/s.json"}]}},
            "own parts only",
        ),
        ("coding", "expect_codes_to_be_of_release", {"column": "code", "system": ICD, "release": "FY1999"}, "crashed on this table"),
        ("coding", "expect_column_values_to_be_valid_codes", {"column": "code"}, "do not fit"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error(table: str, kind: str, kwargs: dict[str, Any], says: str) -> None:
    rows = status([CANARY, None])
    with tables(observation=rows, coding=[{"element": "condition.code", "record": 1, "code": CANARY, "system": CANARY}]) as con:
        found = gx.measure_expectation(con, table, kind, kwargs)
    assert found.error is not None
    assert says in found.error
    assert CANARY not in repr(found)
    assert (found.n, found.of, found.success) == (0, 0, None)


def test_parameters_are_filled_in() -> None:
    kwargs = {"column": "status", "value_set": {"$PARAMETER": "allowed"}}
    with tables(observation=status(["a", "b"])) as con:
        found = gx.measure_expectation(con, "observation", "expect_column_values_to_be_in_set", kwargs, parameters={"allowed": ["a"]})
    assert (found.n, found.of, found.error) == (1, 2, None)


_opened: list[str] = []
_watching: list[bool] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and (event in {"os.mkdir", "socket.connect"} or (event == "open" and set(str(arguments[1] or "")) & set("wax+"))):
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)


def test_nothing_is_printed_logged_or_written(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    gx.library()
    with tables(observation=status([CANARY, "x", None])) as con:
        capfd.readouterr()
        _opened.clear()
        _watching.append(True)
        try:
            several: list[tuple[str, dict[str, Any]]] = [
                ("expect_column_values_to_be_in_set", {"value_set": ["x"]}),
                ("expect_column_values_to_match_json_schema", {"json_schema": {"type": "object"}}),
                ("expect_column_values_to_be_between", {"min_value": 1}),
                ("expect_column_values_to_be_valid_codes", {"system": ICD}),
            ]
            for kind, kwargs in several:
                found = gx.measure_expectation(con, "observation", kind, {"column": "status", **kwargs})
                assert CANARY not in repr(found)
        finally:
            _watching.clear()
    assert _opened == []
    assert capfd.readouterr() == ("", "")
    assert CANARY not in caplog.text


# --- in a user's own Checkpoint


@pytest.fixture
def context() -> Any:
    return gx.library().get_context(mode="ephemeral")


def test_own_expectations_in_a_checkpoint(context: Any) -> None:
    library = gx.library()
    frame = pd.DataFrame(
        {
            "code": ["E11.9", "e119", "250.00", "chest pain", None, "I10", "V27.0"],
            "system": [ICD, "I10C", "2.16.840.1.113883.6.90", ICD, ICD, "99LOCAL", "ICD9CM"],
            "test": ["2345-7"] * 7,
            "unit": ["mg/dL", "mmol/L", "banana", "UNK", None, "mg/dl", "kg"],
        }
    )
    suite = library.ExpectationSuite(
        name="codes",
        expectations=[
            gx.ExpectColumnValuesToBeValidCodes(column="code", system_column="system"),
            gx.ExpectColumnValuesToBeValidCodes(column="code", system="ICD10CM", mostly=0.1),
            gx.ExpectColumnValuesToHaveNoFreeText(column="code", system_column="system"),
            gx.ExpectColumnValuesToHaveNoFreeText(column="code", system="ICD10CM", classes=["repairable"]),
            gx.ExpectCodesToBeOfRelease(column="code", system="ICD10CM", release="2024", mostly=0.5),
            gx.ExpectUnitsToBeValidForCode(column="unit", code_column="test"),
            gx.ExpectUnitsToBeValidForCode(column="unit", code_column="test", system=LOINC, defects=["unit-unparseable"]),
        ],
    )
    reloaded = library.ExpectationSuite(**json.loads(json.dumps(suite.to_json_dict())))
    batch = context.data_sources.add_pandas("mine").add_dataframe_asset("codes").add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(
        library.ValidationDefinition(name="definition", data=batch, suite=context.suites.add(reloaded))
    )
    checkpoint = context.checkpoints.add(
        library.Checkpoint(name="checkpoint", validation_definitions=[definition], result_format={"result_format": "COMPLETE"})
    )
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    done = checkpoint.run(batch_parameters={"dataframe": frame})
    (found,) = done.run_results.values()
    assert not [r.exception_info for r in found.results if "result" not in r or not r.result]
    lists = [r.result["unexpected_list"] for r in found.results]
    assert lists == [
        ["e119", "250.00", "chest pain", "I10"],
        ["e119", "250.00", "chest pain"],
        ["chest pain"],
        ["e119"],
        ["250.00", "chest pain"],
        ["mmol/L", "banana", "UNK", "kg"],
        ["banana"],
    ]
    assert [r.success for r in found.results] == [False, True, False, False, True, False, False]
    assert all(r.result["element_count"] == 7 and r.result["missing_count"] == 1 for r in found.results)
    for expectation in suite.expectations:
        expectation.render()
        assert expectation.rendered_content[0].value.template.startswith("$column ")
        assert ("$mostly_pct %" in expectation.rendered_content[0].value.template) == (expectation.mostly < 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gx.ExpectColumnValuesToBeValidCodes(column="c"),
        lambda: gx.ExpectColumnValuesToBeValidCodes(column="c", system=ICD, system_column="s"),
        lambda: gx.ExpectColumnValuesToBeValidCodes(column="c", system="my own codes"),
        lambda: gx.ExpectColumnValuesToHaveNoFreeText(column="c", classes=["fretext"]),
        lambda: gx.ExpectUnitsToBeValidForCode(column="c", code_column="d", defects=["bad"]),
    ],
)
def test_wrong_arguments_of_our_own_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"give either|names no code system|may be"):
        make()


def test_a_users_context_stays_the_current_one(context: Any) -> None:
    from great_expectations.data_context.data_context.context_factory import project_manager

    with tables(observation=status(["a"])) as con:
        assert gx.measure_expectation(con, "observation", "expect_column_to_exist", {"column": "status"}).success
    assert project_manager.get_current_project() is context
    assert not context.data_sources.all()


# --- columns that ehrready adds


def test_added_columns_say_what_the_rules_count(project: Path) -> None:
    counted: dict[tuple[str, str], int] = defaultdict(int)
    folder = project / "sample_data" / "live" / "fhir"

    def also(con: duckdb.DuckDBPyConnection) -> None:
        concepts, _ = gx_tables.frame(con, "concept", ["element", "ordinal", "state"])
        for element, state in concepts.loc[concepts.ordinal == 1, ["element", "state"]].dropna().itertuples(index=False):
            counted[str(element), str(state)] += 1
        results, _ = gx_tables.frame(con, "observation", ["value_state", "unit_state"])
        for name in results.columns:
            for state, n in results[name].value_counts().items():
                counted[f"observation.{name.partition('_')[0]}", str(state)] += int(n)

    profile, _, _ = pipeline.read_profile([str(folder)], pipeline.Options(), also=also)
    expected = {
        (key[0], key[3]): values[0]
        for key, values in profile.rows("states")
        if key[1] == "all" and key[3] not in {"*", "masked"} and (key[0] in CODED or key[0] in {"observation.value", "observation.unit"})
    }
    assert len(expected) > 20
    assert counted == expected


def test_the_main_code_is_loinc_where_there_is_one() -> None:
    codings = [
        {"element": "observation.code", "record": 1, "position": p, "system": system, "code": code}
        for p, (system, code) in enumerate([("99LAB", "GLU"), ("http://snomed.info/sct", "1"), ("2.16.840.1.113883.6.1", "2345-7")], 1)
    ]
    with tables(observation=[{"record": 1}, {"record": 2}], coding=codings) as con:
        frame, people = gx_tables.frame(con, "observation", ["record", "code", "code_system"])
    assert frame.code.iloc[0] == "2345-7"
    assert frame.code.isna().tolist() == [False, True]
    assert people.tolist() == [-1, -1]


def test_the_pattern_of_null_tokens_is_the_engines() -> None:
    tokens = ["", "NA", "n/a", "N.A.", "NULL", "none", "NIL", "nan", "-", "--", ".", "?", "??", "See note", "SEE NOTES", "SEE COMMENT"]
    tokens += ["see comments", "NOT AVAILABLE", "not applicable", "#N/A", "<NULL>", "(null)", "\\N", '""', "  na ", "female", "NAN1", "---"]
    with tables(encounter=[{"record": i, "status": token} for i, token in enumerate(tokens)]) as con:
        counted = con.execute("SELECT count(*) FROM encounter WHERE null_token(status)").fetchone()
        kwargs = {"column": "status", "regex": gx_export._NULLS}
        found = gx.measure_expectation(con, "encounter", "expect_column_values_to_not_match_regex", kwargs)
    assert counted == (len(tokens) - 3,)
    assert (found.n, found.of) == (len(tokens) - 3, len(tokens))


# --- suites out and in


def run(*arguments: str | Path) -> int:
    """Run a command in this process, where GX is imported once."""
    try:
        return int(cli.app([*map(str, arguments)], standalone_mode=False) or 0)
    except UsageError as error:
        sys.stderr.write(str(error))
        return int(error.code)


def test_an_exported_suite_is_loaded_by_gx(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    library = gx.library()
    place = tmp_path / "gx" / "expectations" / "ehrready-core.json"
    context = library.get_context(mode="file", project_root_dir=tmp_path)
    capfd.readouterr()
    assert run("rules", "export", "--to", "gx", "-o", place) == 0
    written = capfd.readouterr()
    document = json.loads(place.read_bytes())
    assert written.out == ""
    suite = library.ExpectationSuite(**document)
    stored = context.suites.get("ehrready-core")
    assert len(suite.expectations) == len(stored.expectations) == len(document["expectations"]) > 80  # none was dropped
    assert {e.severity.value for e in stored.expectations} == {"critical", "warning"}
    first = next(e for e in document["expectations"] if e["meta"]["ehrready"]["element"] == "patient.birth_date")
    assert first["type"] == "expect_column_values_to_not_be_null"
    assert first["kwargs"] == {"column": "birth_date", "mostly": 0.98}
    # every rule is in the suite or named on stderr, one line each
    exported = {e["meta"]["ehrready"]["rule"] for e in document["expectations"]}
    lost = {line.partition(":")[0] for line in written.err.splitlines()}
    every = {rule.id for rule in rules.load_all(["core"])[0].rules}
    assert exported | lost == every
    assert "values-as-in-training" in lost - exported
    assert "patient-birth-date-present" in exported - lost


def test_export_to_stdout_by_table_and_its_mistakes(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("rules", "export", "fhir-us-core", "--table", "encounter") == 0
    document = json.loads(capfd.readouterr().out)
    assert {e["meta"]["ehrready"]["table"] for e in document["expectations"]} == {"encounter"}
    assert document["name"] == "ehrready-fhir-us-core-encounter"
    assert run("rules", "export", "--table", "encunter") == 2
    assert run("rules", "export", "--to", "dbt") == 2
    assert run("rules", "export", "hl7v2", "--table", "patient") == 2
    assert "none of these rules" in capfd.readouterr().err


def test_an_exported_suite_counts_what_the_rules_count(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite, card = tmp_path / "suite.json", tmp_path / "card.json"
    exported, _ = gx_export.suite(rules.load_all(["core", "omop"]))
    of = {"patient.birth_date", "patient.sex", "condition.code", "observation.code", "observation.value", "observation.unit", "procedure.at",
          "condition.encounter_id", "encounter.end", "encounter.class", "patient.id"}  # fmt: skip
    entries = [e for e in exported["expectations"] if e["meta"]["ehrready"]["element"] in of]
    suite.write_text(json.dumps(exported | {"expectations": entries}), encoding="utf-8")
    source = project / "sample_data" / "live" / "omop"
    assert run("gx", "run", suite, source, "--rules", "core", "--rules", "omop", "--json", card, "--internal") == 1
    document = json.loads(card.read_bytes())
    theirs: dict[tuple[str, str], int] = defaultdict(int)
    ours: dict[tuple[str, str], int] = defaultdict(int)
    for finding in document["findings"]:
        if finding["pack"].startswith("gx-"):
            about = entries[int(finding["rule"].removeprefix("gx-ehrready-core-omop-").partition("-")[0]) - 1]["meta"]["ehrready"]
            theirs[about["rule"], about["element"]] += finding["numerator"] or 0
            assert finding["status"] != "error", finding["message"]
        else:
            ours[finding["rule"], finding["element"]] += finding["numerator"] or 0
    assert len({rule for rule, _ in theirs}) >= 14
    assert sum(theirs.values()) > 1000
    assert dict(theirs) == {place: ours[place] for place in theirs}
    pack = next(p for p in document["provenance"]["rule_packs"] if p["name"] == "gx-ehrready-core-omop")
    assert len(pack["sha256"]) == 64


def test_unique_ids_in_an_exported_suite_are_those_of_the_rule() -> None:
    document, _ = gx_export.suite(rules.load_all(["core"]), table="encounter")
    (entry,) = [e for e in document["expectations"] if e["meta"]["ehrready"]["rule"] == "id-unique"]
    rows = [
        ("PV1", "a"),
        ("PV1", "a"),
        ("Encounter", "a"),
        ("Encounter", "b"),
        ("Encounter", "b"),
        ("Encounter", None),
        ("Encounter", None),
    ]
    with tables(encounter=[{"record": i, "source_type": kind, "id": name} for i, (kind, name) in enumerate(rows)]) as con:
        found = gx.measure_expectation(con, "encounter", entry["type"], entry["kwargs"])
    assert (found.error, found.n, found.of) == (None, 2, 3)


def conditions(folder: Path, *, bad: int, total: int = 60) -> Path:
    folder.mkdir()
    lines = [
        {"resourceType": "Condition", "id": f"{CANARY}{i}", "subject": {"reference": f"Patient/{CANARY}{i}"}, "onsetDateTime": "2024-03-05",
         "recordedDate": "2024-03-05" if i >= bad else None, "code": {"coding": [{"system": ICD, "code": "E11.9" if i else CANARY}]}}
        for i in range(total)
    ]  # fmt: skip
    text = "\n".join(json.dumps({k: v for k, v in line.items() if v is not None}) for line in lines)
    (folder / "c.ndjson").write_text(text + "\n", encoding="utf-8")
    return folder


def suite_of(path: Path, *expectations: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({"name": f"My {'suite'}", "expectations": expectations, **more}), encoding="utf-8")
    return path


def test_a_suite_is_merged_into_the_scorecard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    not_null = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "recorded_at", "mostly": 0.9}}
    suite = suite_of(
        tmp_path / "mine.json",
        not_null,
        not_null | {"kwargs": {"column": "recorded_at", "mostly": 0.5}, "severity": "info"},
        {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 1}, "severity": "warning", "notes": "Because."},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "end", "value_set": ["2024"]}},
        not_null | {"kwargs": {"column": "sex"}, "meta": {"ehrready": {"table": "patient"}}},
    )
    card, page = tmp_path / "card.json", tmp_path / "card.html"
    source = conditions(tmp_path / "data", bad=20)
    assert run("gx", "run", suite, source, "--table", "condition", "--json", card, "--html", page) == 1
    shown = capfd.readouterr()
    document = json.loads(card.read_bytes())
    mine = [f for f in document["findings"] if f["pack"] == "gx-my-suite"]
    assert [(f["rule"].split("-", 4)[3], f["status"], f["severity"], f["limit"]) for f in mine] == [
        ("1", "fail", "error", 0.1),
        ("2", "pass", "info", 0.5),
        ("3", "fail", "warning", None),
        ("4", "not-assessed", "error", 0.0),
        ("5", "not-applicable", "error", 0.0),
    ]
    assert mine[0]["rule"] == "gx-my-suite-1-expect_column_values_to_not_be_null"
    assert (mine[0]["dimension"], mine[0]["element"], mine[0]["numerator"], mine[0]["denominator"]) == (
        "conformance", "condition.recorded_at", 20, 60,
    )  # fmt: skip
    assert mine[0]["patients"] == 20
    assert mine[2]["message"] == "condition: the table is not as expected"
    assert mine[2]["why"] == "Because."
    assert document["verdict"] == "not-ready"
    everything = shown.out + shown.err + card.read_text("utf-8") + page.read_text("utf-8")
    assert "gx-my-suite-1" in everything
    assert CANARY not in everything


def test_small_cells_of_a_suite_are_hidden(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "s.json", {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "recorded_at"}})
    source = conditions(tmp_path / "data", bad=5)
    for flags, numbers in (([], (True, None, None, None, None)), (["--internal"], (False, 5, 60, 0.083333, 5))):
        card = tmp_path / "card.json"
        assert run("gx", "run", suite, source, "--table", "condition", "--json", card, *flags) == 1
        (found,) = [f for f in json.loads(card.read_bytes())["findings"] if f["pack"].startswith("gx-")]
        assert (found["hidden"], found["numerator"], found["denominator"], found["rate"], found["patients"]) == numbers
        assert found["status"] == "fail"


def test_twenty_records_of_three_patients_are_a_small_cell(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [
        {"resourceType": "Condition", "id": str(i), "subject": {"reference": f"Patient/{i % 3 if i < 20 else i}"}} | ({} if i < 20 else {"recordedDate": "2024-01-01"})
        for i in range(100)
    ]  # fmt: skip
    (folder / "c.ndjson").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    suite = suite_of(tmp_path / "s.json", {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "recorded_at"}})
    run("gx", "run", suite, folder, "--table", "condition", "--json", tmp_path / "card.json")
    (found,) = [f for f in json.loads((tmp_path / "card.json").read_bytes())["findings"] if f["pack"].startswith("gx-")]
    assert (found["hidden"], found["numerator"], found["status"]) == (True, None, "fail")


def test_a_crashed_expectation_makes_the_verdict_cannot_tell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = suite_of(
        tmp_path / "s.json",
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "code", "regex": "("}},
        {"type": "expect_column_values_to_be_null", "kwargs": {"column": "end"}},
    )
    card = tmp_path / "card.json"
    assert run("gx", "run", suite, conditions(tmp_path / "data", bad=0), "--table", "condition", "--json", card, "--fail-on", "never") == 3
    document = json.loads(card.read_bytes())
    found = [f for f in document["findings"] if f["pack"].startswith("gx-")]
    assert [f["status"] for f in found] == ["error", "pass"]
    assert found[0]["numerator"] is None
    assert document["verdict"] == "cannot-tell"
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err + card.read_text("utf-8")


def test_a_suite_against_training_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path / "s.json",
        {"type": "expect_column_values_to_be_valid_codes", "kwargs": {"column": "code", "system_column": "code_system", "mostly": 0.99}},
        {"type": "expect_column_values_to_be_increasing", "kwargs": {"column": "record"}},
    )
    profile = tmp_path / "t.json"
    assert run("profile", conditions(tmp_path / "then", bad=0), "-o", profile, "--name", "then") == 0
    cards, source = [], conditions(tmp_path / "now", bad=20)
    for threads in ("1", "2"):
        card = tmp_path / f"{threads}.json"
        assert run("gx", "run", suite, source, "--table", "condition", "--against", profile, "--threads", threads, "--json", card) == 1
        cards.append(card.read_bytes())
    assert cards[0] == cards[1]
    document = json.loads(cards[0])
    assert document["training"]["name"] == "then"
    found = [f for f in document["findings"] if f["pack"].startswith("gx-")]
    assert [f["status"] for f in found] == ["fail", "pass"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "needs name and a list of expectations"),
        ('{"name": "x", "expectations": []}', "needs name and a list of expectations"),
        ('{"expectation_suite_name": "x", "expectations": [{}]}', "0.x: save it again"),
        ('{"name": "x", "expectations": [{"expectation_type": "a", "kwargs": {}}]}', "0.x: save it again"),
        ('{"name": "x", "expectations": [{"type": "a", "kwargs": {}, "meta": null}]}', "expectation 1: no table: give --table"),
        ('{"name": "x", "expectations": [{"type": "a", "kwargs": {}, "meta": {"ehrready": {"table": "b"}}}]}', "must be one of patient"),
        ('{"name": "x", "expectations": [{"type": "a", "kwargs": [], "severity": "bad"}, 7]}', "expectation 2: it needs a type"),
        ("[" * 2000, "not valid JSON"),
        ('{"name": "x", "expectations": [{"type": "a", "severity": ["x"], "notes": 5}]}', "severity must be one of"),
    ],
)
def test_a_wrong_suite_is_told_at_once(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as told:
        gx_suite.read(str(path))
    assert says in str(told.value)
    assert str(told.value).startswith("suite s.json")


def test_a_wrong_table_or_file_is_told(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "s.json", {"type": "a", "kwargs": {}})
    with pytest.raises(UsageError, match="--table must be one of patient"):
        gx_suite.read(str(suite), table="patients")
    with pytest.raises(UsageError, match="cannot be read"):
        gx_suite.read(str(tmp_path / "none.json"), table="patient")


# --- the page


def test_docs_example_runs(project: Path) -> None:
    page = (project / "docs" / "great-expectations.md").read_text("utf-8")
    program = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    with contextlib.redirect_stderr(io.StringIO()):
        exec(compile(program, "docs", "exec"), names)  # noqa: S102 - the project's own page
    (found,) = names["result"].run_results.values()
    assert [result.result["unexpected_count"] for result in found.results] == [2, 1, 1]
    assert not names["result"].success


def test_docs_name_every_expectation_table_and_check(project: Path) -> None:
    page = (project / "docs" / "great-expectations.md").read_text("utf-8")
    assert [name for name in gx.__all__ if name.startswith("Expect") and f"| `{name}(" not in page] == []
    assert " ".join(gx_tables.NAMES) in page
    assert [name for name in gx_export._MAKERS if f"\n| `{name}`" not in page] == []


# --- without Great Expectations


def test_help_and_export_do_not_import_it(tmp_path: Path, project: Path) -> None:
    program = (
        "import contextlib, sys\nfrom ehrready.cli import app\n"
        "for words in (['--help'], ['gx', 'run', '--help'], ['rules', 'export', '-o', 'suite.json']):\n"
        "    with contextlib.suppress(SystemExit): app(words, standalone_mode=False)\n"
        "assert 'great_expectations' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(project)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "suite.json").exists()


def test_a_missing_installation_is_told_before_the_work(tmp_path: Path, project: Path) -> None:
    broken = tmp_path / "path" / "great_expectations"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no')\n", encoding="utf-8")
    suite = suite_of(tmp_path / "s.json", {"type": "a", "kwargs": {}})
    done = subprocess.run(
        [sys.executable, "-m", "ehrready", "gx", "run", suite, tmp_path, "--table", "patient"],
        env=os.environ | {"PYTHONPATH": f"{broken.parent}{os.pathsep}{project}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "ehrready: Great Expectations is not installed: pip install great-expectations"


def _rule(tmp_path: Path, expectation: str, table: str, kwargs: str) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(
        "pack: own\nversion: 1.0.0\nrules:\n  - id: as-expected\n    check: expectation\n    severity: error\n    owner: engineering\n    why: w\n"
        f"    fix: f\n    fail: {{max_rate: 0.1}}\n    expectation: {expectation}\n    table: {table}\n    kwargs: {kwargs}\n"
    )
    return str(path)


def _patients(tmp_path: Path) -> str:
    lines = [
        {"resourceType": "Patient", "id": f"p{n}", "gender": "female" if n < 40 else "male", "birthDate": "1970-01-01"} for n in range(60)
    ]
    (tmp_path / "data.ndjson").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(tmp_path / "data.ndjson")


def test_a_rule_may_be_an_expectation_and_its_limits_decide(tmp_path: Path) -> None:
    rule = _rule(tmp_path, "expect_column_values_to_be_in_set", "patient", "{column: sex, value_set: [female], mostly: 0.1}")
    options = pipeline.Options(rules=(rule,))
    card, _ = pipeline.check([_patients(tmp_path)], None, options)
    (found,) = [f for f in card.document["findings"] if f["rule"] == "as-expected"]
    assert (found["status"], found["numerator"], found["denominator"], found["patients"]) == ("fail", 20, 60, 20)
    profile = pipeline.read_profile([_patients(tmp_path)], options)[0]
    assert list(pipeline.judge(profile, None, options).document["findings"]) == list(card.document["findings"])


def test_a_rule_about_a_table_holds_or_fails(tmp_path: Path) -> None:
    for limits, status in (("{min_value: 50, max_value: 70}", "pass"), ("{min_value: 100, max_value: 200}", "fail")):
        rule = _rule(tmp_path, "ExpectTableRowCountToBeBetween", "patient", limits)
        card, _ = pipeline.check([_patients(tmp_path)], None, pipeline.Options(rules=(rule,)))
        assert [f["status"] for f in card.document["findings"] if f["rule"] == "as-expected"] == [status]


def test_an_unknown_expectation_in_a_rule_is_an_error_and_an_unknown_table_a_mistake(tmp_path: Path) -> None:
    rule = _rule(tmp_path, "expect_the_unexpected", "patient", "{column: sex}")
    card, _ = pipeline.check([_patients(tmp_path)], None, pipeline.Options(rules=(rule,)))
    assert card.verdict == "cannot-tell"
    assert [f["status"] for f in card.document["findings"]] == ["error"]
    with pytest.raises(UsageError, match="table must be one of patient"):
        rules.load(Path(_rule(tmp_path, "expect_the_unexpected", "patients", "{}")))


def test_it_is_imported_beside_pyspark_where_no_file_is_the_main_module() -> None:
    """PySpark 4.3 ended such a process with exit code 0 when Great Expectations looked for Spark Connect."""
    pytest.importorskip("pyspark", reason="needs PySpark: make spark")
    done = subprocess.run(
        [sys.executable, "-c", "from ehrready.integrations import gx; gx.library(); print('imported')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr
