"""Narrow rows: OMOP Parquet whose ids are integers and whose times are dates goes to ``narrow`` as numbers, not as text.

The canonical tables then stay empty but for ``patient``; measures read ``narrow`` and ``narrow_coding`` (ehrready.narrow).  It is a
short way to the same integers: where a column has another type, or a value lies outside what numbers can say (a negative person,
the year 10000), ``NotNarrowError`` sends all files the long way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from ehrready import cells, narrow
from ehrready.readers.base import Event
from ehrready.readers.tabular_columns import INTEGER, is_clock, kind_of, value_of
from ehrready.readers.tabular_files import Column
from ehrready.readers.tabular_mapping import Concept, Expr, First, Ref
from ehrready.readers.tabular_sql import CONCEPTS, Compiler
from ehrready.tables import ALL, CODED


class NotNarrowError(Exception):
    """A file or value that the short way cannot hold."""


@dataclass(slots=True)
class NarrowCompiler:
    """Writes the statements that move one rule's rows into the narrow tables."""

    compiler: Compiler

    def selects(self) -> tuple[str, list[str]]:
        """Return the SELECT of the records and those of their codings; raises NotNarrowError where a column is of another type."""
        rows = self._rows()
        codings = [sql for concept in self.compiler.rule.concepts for sql in self._codings(concept)]
        return self._lasting(rows), [self._lasting(sql) for sql in codings]

    @staticmethod
    def _lasting(sql: str) -> str:
        """The lookup of concepts goes with the reading; its copy stays."""
        return sql.replace(f"JOIN {CONCEPTS} AS", f"JOIN {narrow.CONCEPTS} AS")

    def _integer(self, name: str) -> str:
        expr = self.compiler.rule.columns.get(name)
        if expr is None:
            return "NULL::BIGINT"
        if not isinstance(expr, Ref) or expr.table:
            raise NotNarrowError
        column = self.compiler.own(expr)
        if column is None:
            return "NULL::BIGINT"
        if not INTEGER.fullmatch(column.type) or column.type.startswith("U") or "HUGE" in column.type:
            raise NotNarrowError
        return f"CAST({value_of(column)} AS BIGINT)"

    def _times(self, name: str) -> list[Column]:
        """Return the columns of a time, the first that is set is it."""
        expr = self.compiler.rule.columns.get(name)
        options: tuple[Expr, ...] = () if expr is None else expr.options if isinstance(expr, First) else (expr,)
        found = []
        for option in options:
            if not isinstance(option, Ref) or option.table:
                raise NotNarrowError
            column = self.compiler.own(option)
            if column is not None:
                if not is_clock(column) or "ZONE" in column.type:
                    raise NotNarrowError
                found.append(column)
        return found

    def _time(self, name: str) -> tuple[str, str]:
        """Return the SQL of a time in whole seconds, and of whether it has a time of day."""
        columns = self._times(name)
        if not columns:
            return "NULL::TIMESTAMP", "false"
        value = ", ".join(f"TRY_CAST({value_of(column)} AS TIMESTAMP)" for column in columns)
        cases = " ".join(f"WHEN {value_of(column)} IS NOT NULL THEN {str(column.type != 'DATE').lower()}" for column in columns)
        return f"date_trunc('second', coalesce({value}))", f"CASE {cases} ELSE false END"

    def _plain(self, name: str) -> None:
        """Raise where a number would be read from text."""
        expr = self.compiler.rule.columns.get(name)
        column = self.compiler.own(expr) if isinstance(expr, Ref) else None
        if expr is not None and (not isinstance(expr, Ref) or (column is not None and kind_of(column) not in {"integer", "number"})):
            raise NotNarrowError

    def _rows(self) -> str:
        """Return the SELECT of the records."""
        c, rule = self.compiler, self.compiler.rule
        if rule.joins or set(rule.columns) - narrow.COLUMNS:
            raise NotNarrowError
        c.clear()
        at, clocked = self._time("at")
        end, end_clocked = self._time("end")
        values: dict[str, str] = {
            "record": c.record, "p": self._integer("patient_id"), "e": self._integer("encounter_id"), "id": self._integer("id"),
            "site": c.column("site"), "at": at, "clocked": clocked, "end": end, "end_clocked": end_clocked,
        }  # fmt: skip
        if rule.to == "observation":
            for name in ("value_number", "range_low", "range_high"):
                self._plain(name)
                values[name] = c.number(name) or "NULL::DOUBLE"
            for name in ("value_text", "comparator", "unit", "unit_code"):
                values[name] = c.column(name)
            c.observation(values)
            values.setdefault("value_declared", "NULL")
        states = []
        for concept in rule.concepts:
            state, ids = self._state(concept)
            states.append(f"{state} * {1 << cells.shift(concept.element)}")
            if concept.element == "observation.code":
                values |= {f"c{i}": sql for i, sql in enumerate(ids[:2])}
        values["concepts"] = " + ".join(states) or "0"
        inner = ", ".join(f'{sql} AS "{name}"' for name, sql in values.items())
        return narrow.select(rule.to, rule.table, f"(SELECT {inner} {c.source()})", set(values))

    def _state(self, concept: Concept) -> tuple[str, list[str]]:
        """Return the SQL of the digit of a concept's state, and of its ids."""
        c = self.compiler
        ids = []
        for coding in concept.codings:
            if coding.code is not None:
                raise NotNarrowError
            for ref in coding.concept_ids:
                column = c.own(ref)
                if column is not None and not INTEGER.fullmatch(column.type):
                    raise NotNarrowError
            if (sql := c.coding_id(coding)) is not None:
                ids.append(sql)
        present = " OR ".join(c.presence(concept)) or "false"
        if not concept.always:
            return f"(CASE WHEN {present} THEN {cells.DIGIT['coded']} ELSE 0 END)", ids
        text = c.text(concept.text) or "NULL::VARCHAR"
        return (
            f"(CASE WHEN {present} THEN {cells.DIGIT['coded']} WHEN {text} IS NULL THEN {cells.DIGIT['missing']} "
            f"WHEN {narrow.null_token(text)} THEN {cells.DIGIT['null-token']} ELSE {cells.DIGIT['text-only']} END)"
        ), ids

    def _codings(self, concept: Concept) -> Iterator[str]:
        """Yield a SELECT per coding: element, record, place in the concept, patient, encounter, month, concept id."""
        c = self.compiler
        present = c.presence(concept)
        at, place = self._time("at")[0], 0
        for coding in concept.codings:
            c.clear()
            if (sql := c.coding_id(coding)) is None:
                continue
            position = " + ".join(["1", *(f"CAST({earlier} AS INTEGER)" for earlier in present[:place])])
            test = present[place]
            place += 1
            values = [str(CODED.index(concept.element)), c.record, position, self._integer("patient_id"), self._integer("encounter_id")]
            yield narrow.coding([*values, narrow.month(at), sql], c.source([test]))


def keep(con: duckdb.DuckDBPyConnection, rows: Mapping[str, Sequence[str]], codings: Sequence[str]) -> None:
    """Make the views of what was found, and the concepts they look up."""
    con.execute(f"CREATE TABLE {narrow.CONCEPTS} AS SELECT * FROM {CONCEPTS}")
    for statement in narrow.views(rows, codings):
        con.execute(statement)


def check(con: duckdb.DuckDBPyConnection) -> None:
    """Raise where a value is outside what the numbers can say, once all is read."""
    if con.execute(f"SELECT 1 FROM narrow WHERE {narrow.OUTSIDE} LIMIT 1").fetchone():
        raise NotNarrowError
    if con.execute(
        "SELECT 1 FROM patient WHERE patient_id IS NOT NULL AND coalesce(TRY_CAST(patient_id AS BIGINT), 0) <= 0 LIMIT 1"
    ).fetchone():
        raise NotNarrowError


def undo(con: duckdb.DuckDBPyConnection) -> None:
    """Empty every table: the files are read the long way."""
    for name in ALL:
        con.execute(f'DELETE FROM "{name}"')
    for statement in narrow.drop():
        con.execute(statement)
    con.execute(f"DROP TABLE IF EXISTS {narrow.CONCEPTS}")


def events(run: Iterator[Event], con: duckdb.DuckDBPyConnection) -> Sequence[Event] | None:
    """Return the events of a narrow reading, None (and nothing in the tables) where the files are no such files."""
    try:
        found = list(run)
        check(con)
    except NotNarrowError:
        with contextlib.suppress(duckdb.Error):
            con.execute("ROLLBACK")
        undo(con)
        return None
    return found
