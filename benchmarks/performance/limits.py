"""What ehrready is held against: the bare engine doing the least that has to be done, and other people's parsers.

Each is a program of its own (``python -m benchmarks.performance.limits NAME FOLDER``), so that its time and memory are those of
a whole process, as ehrready's are.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: The columns that ehrready reads of each resource type, as DuckDB types: what ``typed read_json`` has to find.
_CONCEPT = 'STRUCT(coding STRUCT("system" VARCHAR, "version" VARCHAR, code VARCHAR, display VARCHAR)[], "text" VARCHAR)'
_REFERENCE = "STRUCT(reference VARCHAR)"
_PERIOD = 'STRUCT("start" VARCHAR, "end" VARCHAR)'
_EXTENSION = 'STRUCT(url VARCHAR, extension STRUCT(url VARCHAR, valueCoding STRUCT("system" VARCHAR, code VARCHAR, display VARCHAR), valueString VARCHAR)[])[]'
COLUMNS: dict[str, dict[str, str]] = {
    "Patient": {"id": "VARCHAR", "birthDate": "VARCHAR", "deceasedDateTime": "VARCHAR", "deceasedBoolean": "VARCHAR", "gender": "VARCHAR",
                "managingOrganization": _REFERENCE, "communication": f"STRUCT(language {_CONCEPT})[]", "extension": _EXTENSION},
    "Encounter": {"id": "VARCHAR", "status": "VARCHAR", "class": 'STRUCT("system" VARCHAR, code VARCHAR, display VARCHAR)', "type": f"{_CONCEPT}[]",
                  "subject": _REFERENCE, "period": _PERIOD, "serviceProvider": _REFERENCE},
    "Condition": {"id": "VARCHAR", "clinicalStatus": _CONCEPT, "verificationStatus": _CONCEPT, "category": f"{_CONCEPT}[]", "code": _CONCEPT,
                  "subject": _REFERENCE, "encounter": _REFERENCE, "onsetDateTime": "VARCHAR", "abatementDateTime": "VARCHAR", "recordedDate": "VARCHAR"},
    "Observation": {"id": "VARCHAR", "status": "VARCHAR", "category": f"{_CONCEPT}[]", "code": _CONCEPT, "subject": _REFERENCE, "encounter": _REFERENCE,
                    "effectiveDateTime": "VARCHAR", "valueQuantity": 'STRUCT("value" DOUBLE, comparator VARCHAR, unit VARCHAR, "system" VARCHAR, code VARCHAR)',
                    "valueString": "VARCHAR", "valueCodeableConcept": _CONCEPT, "dataAbsentReason": _CONCEPT, "interpretation": f"{_CONCEPT}[]",
                    "referenceRange": 'STRUCT(low STRUCT("value" DOUBLE), high STRUCT("value" DOUBLE))[]'},
    "MedicationRequest": {"id": "VARCHAR", "status": "VARCHAR", "medicationCodeableConcept": _CONCEPT, "subject": _REFERENCE, "encounter": _REFERENCE,
                          "authoredOn": "VARCHAR"},
    "Procedure": {"id": "VARCHAR", "status": "VARCHAR", "code": _CONCEPT, "subject": _REFERENCE, "encounter": _REFERENCE, "performedDateTime": "VARCHAR"},
    "Immunization": {"id": "VARCHAR", "status": "VARCHAR", "vaccineCode": _CONCEPT, "patient": _REFERENCE, "encounter": _REFERENCE,
                     "occurrenceDateTime": "VARCHAR"},
    "AllergyIntolerance": {"id": "VARCHAR", "clinicalStatus": _CONCEPT, "code": _CONCEPT, "patient": _REFERENCE, "recordedDate": "VARCHAR"},
    "DiagnosticReport": {"id": "VARCHAR", "status": "VARCHAR", "category": f"{_CONCEPT}[]", "code": _CONCEPT, "subject": _REFERENCE,
                         "encounter": _REFERENCE, "effectiveDateTime": "VARCHAR"},
    "DocumentReference": {"id": "VARCHAR", "status": "VARCHAR", "type": _CONCEPT, "subject": _REFERENCE, "date": "VARCHAR"},
}  # fmt: skip


def read_json(folder: Path) -> None:
    """DuckDB's own typed ``read_json`` of the columns that ehrready reads, into tables."""
    import duckdb

    with duckdb.connect() as con:
        for name, columns in COLUMNS.items():
            listed = ", ".join(f"\"{column}\": '{kind}'" for column, kind in columns.items())
            con.execute(
                f"CREATE TABLE \"{name}\" AS SELECT * FROM read_json('{folder}/{name}.ndjson', format = 'newline_delimited', columns = {{{listed}}})"
            )


def split_segments(folder: Path) -> None:
    """Split every segment of a batch into its fields in DuckDB SQL, into a table."""
    import duckdb

    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE segment AS SELECT message, seg[1:3] kind, string_split(seg, '|') fields FROM (SELECT message, "
            "unnest(string_split(body, chr(13))) seg FROM (SELECT row_number() OVER () message, unnest(string_split(content, 'MSH|')) body "
            f"FROM read_text('{folder}/*.hl7'))) WHERE seg <> ''"
        )


def summarize(folder: Path) -> None:
    """DuckDB's SUMMARIZE of every table."""
    import duckdb

    with duckdb.connect() as con:
        for path in sorted(folder.glob("*.parquet")):
            con.execute(f"SUMMARIZE SELECT * FROM '{path}'").fetchall()


def typer_alone(_: Path) -> None:
    """Import the libraries of the command line, nothing else."""
    import rich
    import typer

    _ = rich, typer


def fhir_resources(folder: Path) -> None:
    """Parse every resource with fhir.resources (R4B models), the validation that Python users have."""
    import importlib

    import orjson

    for path in sorted(folder.glob("*.ndjson")):
        model = getattr(importlib.import_module(f"fhir.resources.R4B.{path.stem.lower()}"), path.stem)
        with path.open("rb") as lines:
            for line in lines:
                model.model_validate(orjson.loads(line))


def _messages(folder: Path) -> list[str]:
    text = (folder / "feed.hl7").read_text("utf-8")
    return ["MSH|" + part.partition("BTS|")[0].strip() for part in text.split("MSH|")[1:]]


def python_hl7(folder: Path) -> None:
    """Parse every message with python-hl7 (``hl7.parse``)."""
    import hl7

    for message in _messages(folder):
        hl7.parse(message)


def hl7apy(folder: Path) -> None:
    """Parse every message with hl7apy (``parse_message``, tolerant, groups not looked for: the fastest of its settings)."""
    from hl7apy.parser import parse_message

    for message in _messages(folder):
        parse_message(message, find_groups=False)


def great_expectations(folder: Path) -> None:
    """Ten plain expectations of Great Expectations over the measurement table, as a pandas frame."""
    import os

    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd

    frame = pd.read_parquet(folder / "measurement.parquet")
    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas("pandas").add_dataframe_asset("measurement").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name="plain"))
    e = gx.expectations
    for expectation in (
        e.ExpectColumnValuesToNotBeNull(column="person_id"),
        e.ExpectColumnValuesToNotBeNull(column="measurement_date"),
        e.ExpectColumnValuesToNotBeNull(column="measurement_concept_id"),
        e.ExpectColumnValuesToNotBeNull(column="value_as_number"),
        e.ExpectColumnValuesToNotBeNull(column="visit_occurrence_id"),
        e.ExpectColumnValuesToBeUnique(column="measurement_id"),
        e.ExpectColumnValuesToBeBetween(column="value_as_number", min_value=0, max_value=1000),
        e.ExpectColumnValuesToMatchRegex(column="measurement_source_value", regex=r"^\d+-\d$"),
        e.ExpectColumnDistinctValuesToBeInSet(column="unit_source_value", value_set=["mg/dL", "mmol/L", "g/dL", "%"]),
        e.ExpectColumnMeanToBeBetween(column="value_as_number", min_value=0, max_value=1000),
    ):
        suite.add_expectation(expectation)
    context.validation_definitions.add(gx.ValidationDefinition(name="v", data=batch, suite=suite)).run(
        batch_parameters={"dataframe": frame}
    )


PROGRAMS = {
    "read-json": read_json,
    "split-segments": split_segments,
    "summarize": summarize,
    "typer": typer_alone,
    "fhir.resources": fhir_resources,
    "python-hl7": python_hl7,
    "hl7apy": hl7apy,
    "great-expectations": great_expectations,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
