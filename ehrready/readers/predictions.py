"""The reader of what a model gave: a table (Parquet, CSV) of predictions, or FHIR RiskAssessment resources.

It is told by the model contract what the outputs are and how their columns are called.  Everything is judged here, row by row in
SQL, so that what is counted afterwards (ehrready.production) needs no contract: the range, the class, the alert, the label and
whether its window has closed.  What cannot be a prediction (no patient, no time, a label before the prediction) stops the run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ehrready.contract import Contract, Output
from ehrready.engines.duckdb import open_engine, quote
from ehrready.errors import SourceError, UsageError
from ehrready.production import FORMAT, LABEL, buckets
from ehrready.readers import labels
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

    from ehrready.readers.blocks import Integers

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
#: What a label may say against the positive one where that is a yes; against any other every value is a no.
_YES, _NO = ("1", "true", "t", "yes", "y", "positive"), ("0", "false", "f", "no", "n", "negative")
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
        _judge(con, self.contract, self.as_of)  # empty: the tables are there whatever becomes of the files
        _cite(con)
        tables = [file for file in files if file.kind == "table"]
        yield from _Tables(self, con).run(tables, frozenset(file.number for file in tables))
        resources = [file for file in files if file.kind not in {"table", "labels"}]
        if resources:
            yield from self._resources(resources, con)
        given = [file for file in files if file.kind == "labels"]
        if given:
            yield from labels.Labels(self.contract, con).run(given, frozenset(file.number for file in given))
        self.outside = labels.join(
            con, self.contract, self.as_of, _label(self.contract, [name for output in self.contract.outputs for name in output.classes])
        )
        _refuse(con, self.contract, self.as_of)
        _judge(con, self.contract, self.as_of)
        _cite(con)

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


def _refuse(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None) -> None:
    """Stop at what can be no prediction; raises SourceError with the first place of each mistake and how many there are."""
    at, label_at = labels.DAY.format("made"), labels.DAY.format("label_at")
    last = con.execute(f"SELECT max({at}) FROM prediction_raw").fetchone()
    end = as_of or (last[0] + dt.timedelta(days=contract.label.delay_days) if last and last[0] else None)
    what = "the given day" if as_of else "the last prediction and the label's delay"
    mistakes = {
        "no patient": ("patient_id IS NULL OR is_absent(patient_id) OR null_token(patient_id)", "every prediction needs the patient it is about"),
        "no time, or one that is no ISO 8601 date": (f"{at} IS NULL", "write times as 2026-01-31 or 2026-01-31T10:15"),
        "a label whose time is no ISO 8601 date": (f"label_at IS NOT NULL AND {label_at} IS NULL", "write times as 2026-01-31 or 2026-01-31T10:15"),
        "a label from before its prediction": (
            f"label_at IS NOT NULL AND ({label_at} < {at} OR (length(label_at) > 10 AND length(made) > 10 AND label_at < made))",
            "an outcome that was known cannot be predicted: take the prediction out, or mend the time",
        ),
        f"a label from the future, after {what}": (f"{label_at} > {quote(str(end))}::DATE" if end else "false", "mend the time, or give the day of the export with --stamp"),
        "citations that are no JSON list of objects": (
            "citations IS NOT NULL AND (NOT json_valid(citations) OR json_type(CASE WHEN json_valid(citations) THEN citations END) <> 'ARRAY')",
            'write them as [{"kind": "code", "system": "http://loinc.org", "code": "2160-0"}]',
        ),
    }  # fmt: skip
    if as_of:
        mistakes["a time after the given day"] = (
            f"{at} > {quote(str(as_of))}::DATE",
            "mend the time, or give the day of the export with --stamp",
        )
    tests = ", ".join(f"count(DISTINCT record) FILTER ({test}), min(record) FILTER ({test})" for test, _ in mistakes.values())
    row = con.execute(f"SELECT {tests} FROM prediction_raw").fetchone() or ()
    problems = [
        f"predictions {labels.place(row[2 * i + 1])}: {what}{f' ({row[2 * i]} such)' if row[2 * i] > 1 else ''}: {remedy}"
        for i, (what, (_, remedy)) in enumerate(mistakes.items())
        if row[2 * i]
    ]
    if problems:
        raise SourceError("\n".join(problems))


def _label(contract: Contract, classes: Sequence[str]) -> str:
    """Return the SQL of a label: ``class NAME`` for one of ``classes``, ``1``, ``0``, ``?`` for one that is none of these, NULL for none."""
    wanted = contract.label.positive.strip().lower()
    same = f"lower(label) = {quote(wanted)} OR TRY_CAST(label AS DOUBLE) = TRY_CAST({quote(wanted)} AS DOUBLE)"
    if wanted in _YES:
        same = f"lower(label) IN ({', '.join(map(quote, _YES))}) OR {same}"
    other = f"lower(label) IN ({', '.join(map(quote, _NO))}) OR TRY_CAST(label AS DOUBLE) = 0" if wanted in _YES else "true"
    true = f"WHEN lower(label) IN ({', '.join(quote(name.lower()) for name in classes)}) THEN '{LABEL}' || lower(label) " if classes else ""
    return f"CASE WHEN label IS NULL OR null_token(label) THEN NULL {true}WHEN {same} THEN '1' WHEN {other} THEN '0' ELSE '?' END"


def _number(value: float | None) -> str:
    return "NULL" if value is None else repr(float(value))


def _judge(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None) -> None:
    """Create ``prediction``: each with what is wrong with it, its bucket, whether it alerts, and its label once that is final.

    ``label`` is 1, 0, of a class output ``class NAME``, ``unlabelled`` (its window has closed), ``open`` (it has not) or ``unknown`` (it says none
    of these).
    """
    at = labels.DAY.format("made")
    row = con.execute(f"SELECT max({at}), max({labels.DAY.format('label_at')}) FROM prediction_raw").fetchone() or ()
    end = as_of or max((day for day in row if day), default=None)
    closed = f"{at} + {contract.label.delay_days} <= {quote(str(end))}::DATE" if end else "false"
    parts = []
    for output in contract.outputs:
        low, high = _number(output.low), _number(output.high)
        if output.kind == "score":
            value = "TRY_CAST(score AS DOUBLE)"
            wrong = (
                f"CASE WHEN score IS NULL OR (null_token(score) AND lower(trim(score)) <> 'nan') THEN 'missing' WHEN {value} IS NULL OR NOT isfinite({value}) "
                f"THEN 'not-a-number' WHEN {value} < {low} THEN 'below-range' WHEN {value} > {high} THEN 'above-range' END"
            )
        elif output.kind == "class":
            value = "NULL::DOUBLE"
            known = ", ".join(quote(name.lower()) for name in output.classes)
            wrong = (
                f"CASE WHEN class IS NULL OR null_token(class) THEN 'missing' WHEN lower(class) NOT IN ({known}) THEN 'unknown-class' END"
            )
        else:
            value, wrong = "NULL::DOUBLE", "CASE WHEN NOT texts AND citations IS NULL THEN 'missing' END"
        parts.append(
            f"SELECT record, output, {quote(output.kind)} AS kind, patient_id, made, left(made, 7) AS month, {wrong} AS wrong, {value} AS v, class, "
            f"{low}::DOUBLE AS low, {high}::DOUBLE AS high, {_number(output.threshold)}::DOUBLE AS threshold, {_label(contract, output.classes)} AS y, ({closed}) AS closed, "
            f"sex, age, texts, citations, horizon FROM prediction_raw WHERE output = {quote(output.name)}"
        )
    con.execute(
        f"CREATE OR REPLACE TABLE prediction AS SELECT record, output, kind, patient_id, made, month, wrong, lower(sex) AS sex, TRY_CAST(age AS DOUBLE) AS age, texts, "
        "citations IS NOT NULL AS cites, low, high, CASE WHEN wrong IS NULL AND kind = 'class' THEN lower(class) END AS class, "
        "CASE WHEN wrong IS NULL AND kind = 'score' AND threshold IS NOT NULL THEN v >= threshold END AS alert, "
        "CASE WHEN NOT closed THEN 'open' WHEN y IS NULL THEN 'unlabelled' WHEN y = '?' THEN 'unknown' ELSE y END AS label, "
        f"CASE WHEN wrong IS NULL AND kind = 'score' THEN {buckets.sql('v', 'low', 'high', 'threshold')} END AS bucket, "
        "row_number() OVER (PARTITION BY output, patient_id, made, horizon ORDER BY record) > 1 AS again "
        f"FROM ({' UNION ALL '.join(parts)})"
    )


def _cite(con: duckdb.DuckDBPyConnection) -> None:
    """Create ``citation``: what generated texts cite, one row a claim; raises SourceError for one that claims nothing."""
    from ehrready.terminology import systems

    def of(name: str) -> str:
        return f"clean(json_extract_string(c, '$.{name}'))"

    con.execute(
        f"CREATE OR REPLACE TABLE citation AS SELECT record, output, patient_id, left(made, 7) AS month, lower({of('kind')}) AS kind, {of('system')} AS system, "
        f"{of('code')} AS code, {of('value')} AS value, {of('unit')} AS unit, left({of('date')}, 10) AS day, lower({of('name')}) AS name, NULL::VARCHAR AS key "
        "FROM (SELECT * EXCLUDE (citations), unnest(from_json(citations, '[\"JSON\"]')) AS c FROM prediction_raw WHERE citations IS NOT NULL)"
    )
    for (system,) in con.execute("SELECT DISTINCT system FROM citation WHERE system IS NOT NULL ORDER BY 1").fetchall():
        con.execute("UPDATE citation SET key = ? WHERE system = ?", [systems.resolve(system).key or system, system])
    con.execute(
        "UPDATE citation SET kind = CASE WHEN value IS NOT NULL AND code IS NOT NULL THEN 'value' WHEN key IN ('rxnorm', 'ndc') OR (name IS NOT NULL AND code IS NULL) "
        "THEN 'medication' WHEN code IS NOT NULL THEN 'code' WHEN day IS NOT NULL THEN 'date' END WHERE kind IS NULL"
    )
    wrong = (
        "coalesce(kind, '') NOT IN ('code', 'value', 'medication', 'date') OR (kind = 'code' AND code IS NULL) OR (kind = 'value' AND (code IS NULL "
        "OR TRY_CAST(value AS DOUBLE) IS NULL)) OR (kind = 'medication' AND code IS NULL AND name IS NULL) OR (kind = 'date' AND TRY_CAST(day AS DATE) IS NULL)"
    )
    row = con.execute(f"SELECT count(*), min(record) FROM citation WHERE {wrong}").fetchone()
    if row and row[0]:
        raise SourceError(
            f"predictions {labels.place(row[1])}: a citation that claims nothing ({row[0]} such): give kind (code, value, medication, date) and its code, value, "
            "name or date"
        )
    # a date that is cited with something else is a claim of its own
    con.execute(
        "INSERT INTO citation SELECT record, output, patient_id, month, 'date', system, code, NULL, NULL, day, NULL, key FROM citation "
        "WHERE kind <> 'date' AND TRY_CAST(day AS DATE) IS NOT NULL"
    )
