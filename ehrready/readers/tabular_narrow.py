"""Narrow rows: OMOP Parquet whose ids are integers and whose times are dates goes to ``narrow`` as numbers, not as text.

The canonical tables then stay empty but for ``patient``; measures read ``narrow`` and ``narrow_coding`` (ehrready.narrow).  It is a
short way to the same integers: where a column has another type, or a value lies outside what numbers can say (a negative person,
the year 10000), ``NotNarrowError`` sends all files the long way.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from ehrready import bypatient, cells, narrow, values
from ehrready.engines.duckdb import beside, lacks, quote
from ehrready.readers.base import Event
from ehrready.readers.tabular_columns import INTEGER, id_of, is_clock, kind_of, value_of
from ehrready.readers.tabular_files import STAGE, Column
from ehrready.readers.tabular_mapping import Concept, ConceptCode, Expr, First, Ref
from ehrready.readers.tabular_sql import CONCEPTS, Compiler
from ehrready.tables import ALL, TABLES


class NotNarrowError(Exception):
    """A file or value that the short way cannot hold."""


@dataclass(slots=True)
class NarrowCompiler:
    """Writes what moves one rule's rows into a narrow table."""

    compiler: Compiler

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
        return value_of(column)

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
        clocks = [column for column in columns if column.type != "DATE"]
        clocked = " OR ".join(f"{value_of(column)} IS NOT NULL" for column in clocks) or "false"
        if columns[: len(clocks)] != clocks:  # a date goes before a time
            cases = " ".join(f"WHEN {value_of(column)} IS NOT NULL THEN {str(column.type != 'DATE').lower()}" for column in columns)
            clocked = f"CASE {cases} ELSE false END"
        return f"date_trunc('second', coalesce({value}))", f"({clocked})"

    def _plain(self, name: str) -> None:
        """Raise where a number would be read from text."""
        expr = self.compiler.rule.columns.get(name)
        column = self.compiler.own(expr) if isinstance(expr, Ref) else None
        if expr is not None and (not isinstance(expr, Ref) or (column is not None and kind_of(column) not in {"integer", "number"})):
            raise NotNarrowError

    def rows(self) -> narrow.Rows:
        """Return the rows; raises NotNarrowError where a column is of another type."""
        c, rule = self.compiler, self.compiler.rule
        if rule.joins or set(rule.columns) - narrow.COLUMNS or ("site" in rule.columns and rule.to != "encounter"):
            raise NotNarrowError
        if c.relation.sql.startswith(STAGE):  # what is copied is there until the next table is
            raise NotNarrowError
        c.clear()
        at, clocked = self._time("at")
        end, end_clocked = self._time("end")
        row: dict[str, str] = {
            "record": c.record, "p": self._integer("patient_id"), "e": self._integer("encounter_id"), "id": self._integer("id"),
            "at": at, "clocked": clocked, "end": end, "end_clocked": end_clocked,
        }  # fmt: skip
        if "site" in rule.columns:
            row["site"] = c.column("site")
        if rule.to == "observation":
            row |= self._result()
        states = []
        codes: dict[str, list[str]] = {}
        for concept in rule.concepts:
            state, codes[concept.element] = self._state(concept)
            states.append(f"{state} * {1 << cells.shift(concept.element)}")
        row["concepts"] = " + ".join(states) or "0"
        source = self._source()
        detail = {}
        if rule.to == "observation":
            detail = {"unit": f"coalesce({', '.join([*self._texts('unit'), 'NULL::VARCHAR'])})", "unit_code": c.column("unit_code")}
        return narrow.Rows(row, codes, source, rule.table, row | detail, self._source())

    def _source(self) -> str:
        """Return the FROM of what was asked so far: the lookup of concepts goes with the reading, its copy stays."""
        return self.compiler.source().replace(f"JOIN {CONCEPTS} AS", f"JOIN {narrow.CONCEPTS} AS")

    def _result(self) -> dict[str, str]:
        """Return the SQL of what a result holds: its kind, number, text and unit."""
        c, code = self.compiler, self.compiler.rule.columns.get("unit_code")
        if code is not None and not (isinstance(code, ConceptCode) and code.vocabulary == "UCUM"):
            raise NotNarrowError
        row: dict[str, str] = {}
        for name in ("value_number", "range_low", "range_high"):
            self._plain(name)
            row[name] = c.number(name) or "NULL::DOUBLE"
        for name in ("value_text", "comparator"):
            row[name] = c.column(name)
        row["value_declared"] = "NULL::VARCHAR"
        c.observation(row)
        return row | self._unit(code) | {"absent_reason": "NULL::VARCHAR"}

    def _unit(self, code: ConceptCode | None) -> dict[str, str]:
        """Return the SQL of a result's unit: its concept where UCUM has it, else its text, and whether one of its texts is a null token."""
        c = self.compiler
        column = c.own(code.ref) if code is not None else None
        # the code of a unit is no null token (``keep``), so that it is the unit where there is one
        if column is not None and c.systems.get(key := id_of(column), {""}) <= {"UCUM"}:  # most say their units so: then none is looked up
            units = self._texts("unit", but=column)
            ucum, known = f"{key}::{_size([column])}", f"{key} IS NOT NULL"
        else:
            units, ucum, known = self._texts("unit"), "NULL::INTEGER", f"({c.column('unit_code')}) IS NOT NULL"
            if column is not None:
                concept = c.lookup(id_of(column))
                ucum = f"CASE WHEN {concept}.system = 'UCUM' AND {concept}.code IS NOT NULL THEN {concept}.id END::{_size([column])}"
        return {
            "ucum": ucum, "u": f"CASE WHEN NOT ({known}) THEN coalesce({', '.join([*units, 'NULL::VARCHAR'])}) END",
            "unit_token": f"coalesce({', '.join([*(f'null_token({unit})' for unit in units), 'false'])})",
        }  # fmt: skip

    def _texts(self, name: str, but: Column | None = None) -> list[str]:
        """Return the SQL of the texts (``but`` for the codes of a column's concepts) of which the first is a column.

        Of a dictionary, as columns of few words are, ``clean`` is done once a word.
        """
        c, expr = self.compiler, self.compiler.rule.columns.get(name)
        found = []
        for option in expr.options if isinstance(expr, First) else (expr,):
            if but is not None and isinstance(option, ConceptCode) and c.own(option.ref) == but:
                continue
            column = c.own(option) if isinstance(option, Ref) else None
            sql = f"clean({value_of(column)})" if column is not None and column.type == "VARCHAR" else c.text(option)
            found += [sql] if sql is not None else []
        return found

    def _state(self, concept: Concept) -> tuple[str, list[str]]:
        """Return the SQL of the digit of a concept's state, and of its ids, NULL where the record has no such coding."""
        c, columns = self.compiler, []
        ids = []
        for coding in concept.codings:
            if coding.code is not None:
                raise NotNarrowError
            for ref in coding.concept_ids:
                column = c.own(ref)
                if column is not None and not INTEGER.fullmatch(column.type):
                    raise NotNarrowError
                columns += [column] if column is not None else []
            if (sql := c.coding_id(coding)) is not None and c.systems.get(sql, True):  # a column of nothing but 0 is none
                ids.append(sql)
        if len(ids) > narrow.CODINGS:
            raise NotNarrowError
        # a coding is not said twice
        codes = [
            f"{functools.reduce(lambda one, other: f'nullif({one}, {other})', [sql, *ids[:i]])}::{_size(columns)}"
            for i, sql in enumerate(ids)
        ]
        present = " OR ".join(f"{sql} IS NOT NULL" for sql in ids) or "false"
        if not concept.always:
            return "0" if not ids else f"(CASE WHEN {present} THEN {cells.DIGIT['coded']} ELSE 0 END)", codes
        text = c.text(concept.text) or "NULL::VARCHAR"
        return (
            f"(CASE WHEN {present} THEN {cells.DIGIT['coded']} WHEN {text} IS NULL THEN {cells.DIGIT['missing']} "
            f"WHEN {narrow.null_token(text)} THEN {cells.DIGIT['null-token']} ELSE {cells.DIGIT['text-only']} END)"
        ), codes


def _size(columns: Sequence[Column]) -> str:
    """Return the type of numbers that come from some columns."""
    return "INTEGER" if all(column.type in {"INTEGER", "SMALLINT", "TINYINT"} for column in columns) else "BIGINT"


def keep(con: duckdb.DuckDBPyConnection, rows: Mapping[str, Sequence[narrow.Rows]], patients: Sequence[str]) -> None:
    """Read the rows that were found into the narrow tables, and keep the concepts they look up; beside it run the statements of ``patients``.

    These are few rows of a file, which one thread reads.
    """
    if con.execute(f"SELECT 1 FROM {CONCEPTS} WHERE system = 'UCUM' AND null_token(code)").fetchone():
        raise NotNarrowError
    con.execute(f"CREATE TABLE {narrow.CONCEPTS} AS SELECT * FROM {CONCEPTS}")
    kinds = f"ENUM ({', '.join(map(quote, values.KINDS))})"
    told = (
        f"CASE WHEN value_number IS NOT NULL AND comparator IS NULL THEN 'number'::{kinds} ELSE ({values.kind(values.HIDDEN)})::{kinds} END"
    )

    def make(other: duckdb.DuckDBPyConnection) -> None:
        for statement in narrow.make(rows, {"t": values.HIDDEN, "kind": told}):
            other.execute(statement)

    with beside(con, make):
        for statement in ("BEGIN", *patients, "COMMIT"):
            con.execute(statement)
    # a code that is a null token is none, which the digits of a concept do not say
    tokens = [str(row[0]) for row in con.execute(f"SELECT id FROM {narrow.CONCEPTS} WHERE null_token(code)").fetchall()]
    if tokens and con.execute(f"SELECT 1 FROM narrow_coding WHERE cid IN ({', '.join(tokens)}) LIMIT 1").fetchone():
        raise NotNarrowError
    for table in rows:
        bypatient.gather(con, narrow.of(table))
    narrow.note(con)


def check(con: duckdb.DuckDBPyConnection) -> None:
    """Raise where a value is outside what the numbers can say, once all is read."""
    outside = (f"SELECT 1 FROM {narrow.of(table)} WHERE {narrow.outside(table)}" for table in TABLES if table != "patient")
    if con.execute(f"{' UNION ALL '.join(outside)} LIMIT 1").fetchone():
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


def events(run: Iterator[Event], con: duckdb.DuckDBPyConnection) -> Sequence[Event] | None:
    """Return the events of a narrow reading, None (and nothing in the tables) where the files are no such files.

    What the engine refuses of the short way's own SQL costs the short way, too, and not the files.
    """
    try:
        found = list(run)
        check(con)
    except (NotNarrowError, duckdb.Error) as error:
        if lacks(error):
            raise
        with contextlib.suppress(duckdb.Error):
            con.execute("ROLLBACK")
        undo(con)
        return None
    return found
