"""Labels that come apart from the predictions: tables of outcomes, joined to them by patient and time of the prediction, or by its id.

What can be no label (no prediction named, known before its prediction, from the future, two that contradict each other) stops the run.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from ehrready.contract import Contract
from ehrready.engines.duckdb import quote
from ehrready.errors import SourceError, UsageError
from ehrready.production import FORMAT
from ehrready.readers.tabular import _Reading
from ehrready.readers.tabular_columns import text_of
from ehrready.readers.tabular_files import Column, Relation
from ehrready.readers.tabular_mapping import NONE
from ehrready.tables import ENTRY_BIT, POSITION_BITS

if TYPE_CHECKING:
    import duckdb

#: What a column of labels may be called; the names of the contract (``columns``, ``label``) stand before these.
NAMES: dict[str, tuple[str, ...]] = {
    "id": ("prediction_id",),
    "patient": ("patient", "patient_id", "subject_id", "person_id", "mrn"),
    "time": ("prediction_time", "predicted_at", "scored_at"),
    "label": ("label", "outcome", "y_true"),
    "label_time": ("label_time", "label_at", "outcome_time"),
}
#: SQL of the day of a time, NULL for what is none.
DAY = "TRY_CAST(left({0}, 10) AS DATE)"


def place(record: int) -> str:
    """Return where a record stands: ``file 1, row 3``."""
    file, position = record >> POSITION_BITS, record & ((1 << POSITION_BITS) - 1)
    entry = position >> ENTRY_BIT
    return f"file {file}, {'entry' if entry else 'row'} {position & ((1 << ENTRY_BIT) - 1)}"


def create(con: duckdb.DuckDBPyConnection) -> None:
    """Create the empty tables ``label_raw`` and ``label_given`` (what is counted of labels: those that had to belong to a prediction)."""
    con.execute("CREATE TABLE label_raw (record BIGINT, id VARCHAR, patient_id VARCHAR, made VARCHAR, label VARCHAR, label_at VARCHAR)")
    con.execute("CREATE TABLE label_given (output VARCHAR, patient_id VARCHAR, month VARCHAR, matched BOOLEAN)")


class Labels(_Reading):
    """Reads tables as the tabular readers do, into ``label_raw``."""

    def __init__(self, contract: Contract, con: duckdb.DuckDBPyConnection) -> None:
        super().__init__(FORMAT, NONE, con)
        self._contract = contract

    def _insert(self, table: str, relation: Relation) -> dict[int, int]:  # noqa: ARG002 - the interface of _Reading
        found = _columns(relation, self._contract)

        def text(role: str) -> str:
            return f"clean({text_of(found[role])})" if role in found else "NULL"

        self._con.execute(
            f"INSERT INTO label_raw SELECT {relation.record}, {text('id')}, {text('patient')}, iso({text('time')}), {text('label')}, "
            f"iso({text('label_time')}) FROM {relation.sql}"
        )
        rows = self._con.execute(f"SELECT {relation.number}, count(*) FROM {relation.sql} GROUP BY 1").fetchall()
        for number, n in rows:
            self._con.execute("INSERT INTO profiled VALUES (?, ?)", [number, n])
        self._con.execute("INSERT INTO types VALUES (?, 'label', ?)", [FORMAT, sum(row[1] for row in rows)])
        return {row[0]: row[1] for row in rows}


def _columns(relation: Relation, contract: Contract) -> dict[str, Column]:
    """Return the columns of a table of labels by role; raises UsageError where one is lacking or cannot be told."""
    found: dict[str, Column] = {}
    problems = []
    for role, usual in NAMES.items():
        own = {output.columns[role] for output in contract.outputs if role in output.columns}
        own |= {contract.label.name} if role == "label" and contract.label.name else set()
        names = sorted(name.lower() for name in own if name.lower() in relation.columns) or [n for n in usual if n in relation.columns]
        if len(names) > 1:
            problems.append(
                f"the labels have several columns that may be the {role.replace('_', ' ')} ({', '.join(names)}): leave one of them"
            )
        elif names:
            found[role] = relation.columns[names[0]]
    if "label" not in found:
        problems.append(
            f"the labels have no column for the label: call it one of {', '.join(NAMES['label'])}, or name it in the contract (label: name)"
        )
    if "id" not in found and not {"patient", "time"} <= found.keys():
        problems.append(
            f"the labels do not say which prediction they are of: give prediction_id, or the patient ({', '.join(NAMES['patient'])}) and the time of the "
            f"prediction ({', '.join(NAMES['time'])})"
        )
    if problems:
        raise UsageError(*problems)
    return found


def join(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None, outcome: str) -> int:
    """Give the predictions their labels; returns how many labels are of no prediction because of their time.

    ``outcome`` is the SQL of what a label says.  Times are compared as they are written; where one of both is a day only, by the day.
    Raises SourceError for what can be no label, with the first place of each mistake and how many there are.
    """
    if not con.execute("SELECT 1 FROM label_raw LIMIT 1").fetchone():
        return 0
    day = DAY.format
    same = f"(TRY_CAST(l.made AS TIMESTAMP) = TRY_CAST(p.made AS TIMESTAMP) OR ({day('l.made')} = {day('p.made')} AND (length(l.made) = 10 OR length(p.made) = 10)))"
    once = "(SELECT DISTINCT record, id, patient_id, made FROM prediction_raw) p"
    con.execute(f"CREATE TEMP TABLE labelled AS SELECT *, {outcome} AS y FROM label_raw")
    con.execute(
        f"CREATE TEMP TABLE label_of AS SELECT l.*, p.record AS prediction, p.made AS predicted FROM labelled l JOIN {once} "
        "ON l.id = p.id AND coalesce(l.patient_id, p.patient_id) = p.patient_id "
        f"UNION ALL SELECT l.*, p.record, p.made FROM labelled l JOIN {once} ON l.id IS NULL AND l.patient_id = p.patient_id AND {same}"
    )
    _refuse(con, contract, as_of, outcome)
    con.execute(
        "UPDATE prediction_raw SET label = m.label, label_at = coalesce(m.label_at, prediction_raw.label_at) "
        "FROM (SELECT prediction, min(label) AS label, min(label_at) AS label_at FROM label_of WHERE y IS NOT NULL GROUP BY 1) m "
        "WHERE prediction_raw.record = m.prediction AND (prediction_raw.label IS NULL OR null_token(prediction_raw.label))"
    )
    con.execute(
        f"CREATE TEMP TABLE label_seen AS SELECT '' AS output, coalesce(l.patient_id, l.id) AS patient_id, coalesce(left(l.made, 7), r.month) AS month, "
        f"l.record IN (SELECT record FROM label_of) AS matched, coalesce({day('l.made')} BETWEEN r.first AND r.last, true) AS inside FROM labelled l, "
        f"(SELECT min({day('made')}) AS first, max({day('made')}) AS last, max(left(made, 7)) AS month FROM prediction_raw) r"
    )
    con.execute("INSERT INTO label_given SELECT output, patient_id, month, matched FROM label_seen WHERE matched OR inside")
    row = con.execute("SELECT count(*) FROM label_seen WHERE NOT matched AND NOT inside").fetchone()
    return int(row[0]) if row else 0


def _refuse(con: duckdb.DuckDBPyConnection, contract: Contract, as_of: dt.date | None, outcome: str) -> None:
    """Stop at what can be no label."""
    day = DAY.format
    row = con.execute(f"SELECT max({day('made')}) FROM prediction_raw").fetchone()
    end = as_of or (row[0] + dt.timedelta(days=contract.label.delay_days) if row and row[0] else None)
    what = "the given day" if as_of else "the last prediction and the label's delay"
    known = f"SELECT record AS prediction, {outcome} AS y FROM prediction_raw"
    doubtful = f"SELECT prediction FROM (SELECT prediction, y FROM label_of UNION ALL {known}) GROUP BY 1 HAVING count(DISTINCT y) > 1"
    times = "write times as 2026-01-31 or 2026-01-31T10:15"
    mistakes = {
        "no patient or prediction id": ("labelled", "id IS NULL AND (patient_id IS NULL OR is_absent(patient_id) OR null_token(patient_id))",
                                        "every label needs the prediction it is about"),
        "no time of the prediction, or one that is no ISO 8601 date": ("labelled", f"id IS NULL AND {day('made')} IS NULL", times),
        "a label whose time is no ISO 8601 date": ("labelled", f"label_at IS NOT NULL AND {day('label_at')} IS NULL", times),
        "a label from before its prediction": (
            "label_of",
            f"label_at IS NOT NULL AND ({day('label_at')} < {day('predicted')} OR (length(label_at) > 10 AND length(predicted) > 10 AND label_at < predicted))",
            "an outcome that was known cannot be predicted: take the prediction out, or mend the time",
        ),
        f"a label from the future, after {what}": ("labelled", f"{day('label_at')} > {quote(str(end))}::DATE" if end else "false",
                                                   "mend the time, or give the day of the export with --stamp"),
        "a label that contradicts another of the same prediction": ("label_of", f"prediction IN ({doubtful})", "keep the one that is final"),
    }  # fmt: skip
    problems = []
    for said, (table, test, remedy) in mistakes.items():
        found = con.execute(f"SELECT count(DISTINCT record), min(record) FROM {table} WHERE {test}").fetchone()
        if found and found[0]:
            problems.append(f"labels {place(found[1])}: {said}{f' ({found[0]} such)' if found[0] > 1 else ''}: {remedy}")
    if problems:
        raise SourceError("\n".join(problems))
