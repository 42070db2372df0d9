"""What predictions that were read are worth, row by row in SQL: judged here, so that what is counted afterwards needs no contract.

The range, the class, the alert, the label and whether its window has closed (ehrready.production counts them).  What cannot be a
prediction (no patient, no time, a label before the prediction) stops the run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ehrready.contract import Contract
from ehrready.engines.duckdb import quote
from ehrready.errors import SourceError
from ehrready.production import LABEL, buckets
from ehrready.readers import labels

if TYPE_CHECKING:
    import duckdb

#: What a label may say against the positive one where that is a yes; against any other every value is a no.
_YES, _NO = ("1", "true", "t", "yes", "y", "positive"), ("0", "false", "f", "no", "n", "negative")


def refuse(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None) -> None:
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


def label_sql(contract: Contract, classes: Sequence[str]) -> str:
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


def judge(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None) -> None:
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
            f"{low}::DOUBLE AS low, {high}::DOUBLE AS high, {_number(output.threshold)}::DOUBLE AS threshold, {label_sql(contract, output.classes)} AS y, ({closed}) AS closed, "
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


def cite(con: duckdb.DuckDBPyConnection) -> None:
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
