"""The reader of what a model gave: a table (Parquet, CSV) of predictions, or FHIR RiskAssessment resources.

It is told by the model contract what the outputs are and how their columns are called; what it has read is judged by
:mod:`ehrready.readers.judging`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ehrready.contract import Contract, Output
from ehrready.engines.duckdb import open_engine, quote
from ehrready.errors import UsageError
from ehrready.production import FORMAT
from ehrready.readers import judging, labels
from ehrready.readers.base import Event, SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.tabular import _Reading
from ehrready.readers.tabular_columns import kind_of, text_of, value_of
from ehrready.readers.tabular_files import Column, Relation, is_csv, is_parquet
from ehrready.readers.tabular_mapping import NONE
from ehrready.tables import PREDICTED

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from ehrready.readers.arrays import Integers

#: What a column may be called where the contract does not say it; the output's own name stands before those of score, class and
#: text, the label's before those of label.
NAMES: dict[str, tuple[str, ...]] = {
    "patient": ("patient", "patient_id", "subject_id", "person_id", "mrn"),
    "time": ("time", "at", "prediction_time", "predicted_at", "scored_at", "timestamp"),
    "score": ("score", "probability", "risk", "risk_score", "prediction"),
    "class": ("class", "predicted_class", "prediction"),
    "label": ("label", "outcome", "y_true"),
    "label_time": ("label_time", "label_at", "outcome_time"),
    "text": ("text", "generated_text", "summary"),
    "citations": ("citations",),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "id": ("prediction_id",),
}
_RAW = (
    "record",
    "output",
    "patient_id",
    "made",
    "score",
    "class",
    "label",
    "label_at",
    "sex",
    "age",
    "texts",
    "citations",
    "horizon",
    "id",
)
_TYPES = ", ".join(f'"{name}" {"BIGINT" if name == "record" else "BOOLEAN" if name == "texts" else "VARCHAR"}' for name in _RAW)
_RISK = (
    '{"id": "VARCHAR", "status": "VARCHAR", "subject": {"reference": "VARCHAR"}, "occurrenceDateTime": "VARCHAR", "occurrencePeriod": {"start": "VARCHAR"}, '
    '"prediction": [{"outcome": {"text": "VARCHAR", "coding": [{"code": "VARCHAR"}]}, "probabilityDecimal": "JSON", '
    '"qualitativeRisk": {"text": "VARCHAR", "coding": [{"code": "VARCHAR"}]}, "whenPeriod": "JSON", "whenRange": "JSON"}]}'
)


class PredictionReader:
    """Reader of the files that the user names as predictions; ``as_of`` is the day on which labels are looked at.

    Without it that is the day of the last prediction or label: no clock decides what a run finds.
    """

    format = FORMAT

    def __init__(self, contract: Contract, paths: Sequence[Path], as_of: dt.date | None = None, labels: Sequence[Path] = ()) -> None:
        self.contract, self.as_of = contract, as_of
        self._paths, self._labels = {path.resolve() for path in paths}, {path.resolve() for path in labels}
        self.outside = 0  # labels of predictions before or after those that were read
        if self._paths & self._labels:
            raise UsageError("a file is named as predictions and as labels: name it as predictions alone, they may hold their labels")
        if not contract.outputs:
            raise UsageError("the contract names no outputs: monitor needs to know what the model gives (outputs: name, kind, range)")

    def recognise(self, path: Path, head: bytes) -> str:
        """Return ``table``, ``ndjson`` or ``document`` for a file that was named as predictions, ``labels`` for theirs, else ``""``."""
        if path.resolve() in self._labels:
            if is_parquet(path, head) or is_csv(path):
                return "labels"
            raise UsageError("labels must be Parquet or CSV: one of the files is neither")
        if path.resolve() not in self._paths:
            return ""
        kind = "table" if is_parquet(path, head) or is_csv(path) else FhirReader().recognise(path, head)
        if not kind:
            raise UsageError("predictions must be Parquet, CSV or FHIR RiskAssessment JSON: one of the files is none of them")
        return kind

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the tables ``prediction`` and ``citation``; raises UsageError and SourceError for what can be no prediction."""
        con.execute(f"CREATE TABLE prediction_raw ({_TYPES})")
        labels.create(con)
        con.execute("CREATE TABLE promised (output VARCHAR, kind VARCHAR, low DOUBLE, high DOUBLE)")
        for output in self.contract.outputs:
            con.execute("INSERT INTO promised VALUES (?, ?, ?, ?)", [output.name, output.kind, output.low, output.high])
        judging.judge(con, self.contract, self.as_of)  # empty: the tables are there whatever becomes of the files
        judging.cite(con)
        tables = [file for file in files if file.kind == "table"]
        yield from _Tables(self, con).run(tables, frozenset(file.number for file in tables))
        resources = [file for file in files if file.kind not in {"table", "labels"}]
        if resources:
            yield from self._resources(resources, con)
        given = [file for file in files if file.kind == "labels"]
        if given:
            yield from labels.Labels(self.contract, con).run(given, frozenset(file.number for file in given))
        self.outside = labels.join(
            con,
            self.contract,
            self.as_of,
            judging.label_sql(self.contract, [name for output in self.contract.outputs for name in output.classes]),
        )
        judging.refuse(con, self.contract, self.as_of)
        judging.judge(con, self.contract, self.as_of)
        judging.cite(con)

    def source_elements(self) -> dict[str, str]:
        """Map the elements of predictions to what they are in a source."""
        return dict(zip(PREDICTED, ("predictions", "score", "label", "citations"), strict=True))

    def _resources(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Read RiskAssessments in an engine of their own: what else stands in their Bundles is no record of the hospital."""
        with open_engine(threads=1) as own:
            own.execute(f"CREATE TABLE prediction_raw ({_TYPES})")
            yield from _Resources(self).read(files, own)
            for name in ("prediction_raw", "types", "profiled"):
                con.register("_own", own.sql(f"SELECT * FROM {name}").to_arrow_table())
                con.execute(f"INSERT INTO {name} SELECT * FROM _own")
                con.unregister("_own")


class _Tables(_Reading):
    """Reads tables as the tabular readers do, into predictions."""

    def __init__(self, reader: PredictionReader, con: duckdb.DuckDBPyConnection) -> None:
        super().__init__(FORMAT, NONE, con)
        self._reader = reader

    def _insert(self, table: str, relation: Relation) -> dict[int, int]:  # noqa: ARG002 - the interface of _Reading
        given = {output.name: _own(relation, output) for output in self._reader.contract.outputs}
        here = [output for output in self._reader.contract.outputs if given[output.name]]
        if not here:
            raise UsageError(*(_unfound(output) for output in self._reader.contract.outputs))
        shared = _columns(relation, here, self._reader.contract.label.name)
        for output in here:
            self._con.execute(
                f"INSERT INTO prediction_raw SELECT {_select(output, {**shared, **given[output.name]}, relation)} FROM {relation.sql}"
            )
        rows = self._con.execute(f"SELECT {relation.number}, count(*), max({relation.record}) FROM {relation.sql} GROUP BY 1").fetchall()
        for number, n, _ in rows:
            self._con.execute("INSERT INTO profiled VALUES (?, ?)", [number, n])
        self._con.execute("INSERT INTO types VALUES (?, 'prediction', ?)", [FORMAT, sum(row[1] for row in rows)])
        return {row[0]: row[1] for row in rows}


class _Resources(FhirReader):
    """Reads FHIR as its reader does; of each block the RiskAssessments are kept."""

    def __init__(self, reader: PredictionReader) -> None:
        super().__init__(sample=0)
        self._reader = reader

    def _keep(self, con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, records: Integers) -> None:  # noqa: ARG002 - FhirReader's
        if name != "RiskAssessment":
            return
        con.register("_risks", rows)
        outputs = [output for output in self._reader.contract.outputs if output.kind in {"score", "class"}]
        for output in outputs:
            alone = sum(other.kind == output.kind for other in outputs) == 1
            named = f"lower(coalesce(p.outcome.\"text\", '')) = {quote(output.name.lower())} OR list_contains(list_transform(p.outcome.coding, lambda k: lower(k.code)), {quote(output.name.lower())})"
            given = "p.probabilityDecimal IS NOT NULL" if output.kind == "score" else "p.qualitativeRisk IS NOT NULL"
            con.execute(
                f"INSERT INTO prediction_raw SELECT record, {quote(output.name)}, patient_ref(x.subject.reference), "
                "iso(clean(coalesce(x.occurrenceDateTime, x.occurrencePeriod.start))), CAST(p.probabilityDecimal AS VARCHAR), "
                'coalesce(clean(list_extract(p.qualitativeRisk.coding, 1).code), clean(p.qualitativeRisk."text")), NULL, NULL, NULL, NULL, false, NULL, '
                "coalesce(CAST(p.whenRange AS VARCHAR), CAST(p.whenPeriod AS VARCHAR)), clean(x.id) FROM (SELECT record, x, unnest(x.prediction) p FROM "
                f"(SELECT record, json_transform(text, {quote(_RISK)}) x FROM _risks)) "
                f"WHERE coalesce(x.status, '') <> 'entered-in-error' AND ({given}) AND ({'true' if alone else named})"
            )
        con.unregister("_risks")


def _unfound(output: Output) -> str:
    role = {"score": "score", "class": "class", "text": "citations"}[output.kind]
    names = ", ".join(dict.fromkeys((output.name, *NAMES[role])))
    return (
        f"the predictions have no {role} for the output {output.name} of the contract: call its column one of {names}, or name it "
        f"(outputs: columns: {{{role}: ...}})"
    )


def _columns(relation: Relation, outputs: Sequence[Output], label: str) -> dict[str, Column]:
    """Return what every output of a table shares, by role; raises UsageError without a patient or a time."""
    named = {
        role: name for output in outputs for role, name in output.columns.items() if role not in {"score", "class", "text", "citations"}
    }
    found = {}
    for role in ("patient", "time", "label", "label_time", "sex", "age", "id"):
        own = (label,) if role == "label" and label else ()
        column = _one(relation, role, named.get(role), own)
        if column is not None:
            found[role] = column
    lacking = [role for role in ("patient", "time") if role not in found]
    if lacking:
        raise UsageError(
            *(
                f"the predictions have no column for the {role}{'' if role == 'time' else ' key'}: call it one of {', '.join(NAMES[role])}, or name it in the "
                f"contract (outputs: columns: {{{role}: ...}})"
                for role in lacking
            )
        )
    return found


def _own(relation: Relation, output: Output) -> dict[str, Column]:
    """Return the columns of one output."""
    roles = {"score": ("score",), "class": ("class",), "text": ("text", "citations")}[output.kind]
    found = {}
    for role in roles:
        own = () if role == "citations" else (output.name,)
        column = _one(relation, role, output.columns.get(role), own)
        if column is not None:
            found[role] = column
    return found


def _one(relation: Relation, role: str, named: str | None, own: tuple[str, ...]) -> Column | None:
    """Return the column of a role: the named one, else the one that bears a usual name; raises UsageError where that cannot be told."""
    if named is not None:
        if named.lower() not in relation.columns:
            raise UsageError(f"the contract names a column for {role} that the predictions do not have: mend outputs: columns: {role}")
        return relation.columns[named.lower()]
    for name in own:
        if name.lower() in relation.columns:
            return relation.columns[name.lower()]
    there = [name for name in NAMES[role] if name in relation.columns]
    if len(there) > 1:
        raise UsageError(
            f"the predictions have several columns that may be the {role} ({', '.join(there)}): name it in the contract (outputs: columns)"
        )
    return relation.columns[there[0]] if there else None


def _select(output: Output, given: dict[str, Column], relation: Relation) -> str:
    """Return the SQL of a raw prediction of one output."""

    def text(role: str) -> str:
        return f"clean({text_of(given[role])})" if role in given else "NULL"

    score = "NULL"
    if "score" in given:  # NaN is another mistake than nothing at all
        floating = given["score"].type in {"DOUBLE", "FLOAT"}
        score = f"CAST({value_of(given['score'])} AS VARCHAR)" if floating else text("score")
    cited = "NULL"
    if "citations" in given:
        nested = kind_of(given["citations"]) == "nested"
        cited = f"CAST(to_json({value_of(given['citations'])}) AS VARCHAR)" if nested else text("citations")
    texts = f"{text('text')} IS NOT NULL" if "text" in given else f"{cited} IS NOT NULL"
    return ", ".join(
        (relation.record, quote(output.name), text("patient"), f"iso({text('time')})", score, text("class"), text("label"),
         f"iso({text('label_time')})", text("sex"), text("age"), texts, cited, "NULL", text("id"))
    )  # fmt: skip
