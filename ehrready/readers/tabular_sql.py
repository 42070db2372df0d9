"""SQL of the tabular readers, generated from a mapping and from the columns a file has.

Everything is ``INSERT INTO canonical SELECT ... FROM file``.  A column that a file lacks is NULL.  Concept
ids are resolved through the temp table ``ehrready_concept`` (id, system, version, code, display).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ehrready.engines.duckdb import quote
from ehrready.readers.tabular_columns import id_of, is_clock, kind_of, text_of, value_of
from ehrready.readers.tabular_files import Column, Relation, identifier
from ehrready.readers.tabular_mapping import (
    Coding,
    Concept,
    ConceptCode,
    Const,
    DateTime,
    Expr,
    First,
    Mapped,
    Ref,
    Rule,
    YearMonthDay,
)
from ehrready.tables import CODING, CONCEPT, POSITION_BITS, TABLES

#: Resolved concept ids; an id that no concept table explains has system ``OMOP`` and itself as code.
CONCEPTS = "ehrready_concept"

_TIMES = frozenset({"at", "end", "birth_date", "death_date", "recorded_at"})
#: Bits of the position that number the rules a row feeds more than once.
_SLOT_BIT = POSITION_BITS - 4


@dataclass(slots=True)
class Compiler:
    """Writes the statements of one rule over one relation.

    ``joins`` maps each joined table that is there to its temp table (columns: the keys as ``k0, k1…`` and the
    needed columns by name, all text).
    """

    rule: Rule
    relation: Relation
    joins: Mapping[str, str]
    #: of what systems the concepts of each id expression are, once they are looked up
    systems: Mapping[str, set[str]] = field(default_factory=dict)
    _lookups: dict[str, str] = field(default_factory=dict)

    # -- expressions --------------------------------------------------------------------------------------

    @property
    def record(self) -> str:
        """SQL of the record key."""
        slot = self.rule.slot << _SLOT_BIT
        return f"({self.relation.record} | {slot})" if slot else self.relation.record

    def own(self, ref: Ref) -> Column | None:
        """Return the relation's column of a reference, None where it lacks it or it is joined."""
        return None if ref.table else self.relation.columns.get(ref.column)

    def text(self, expr: Expr | None, *, time: bool = False) -> str | None:
        """Return SQL of an expression as text, None where nothing of it is in the file."""
        sql: str | None = None
        match expr:
            case Ref():
                sql = self._ref(expr, time=time)
            case Const(value=value):
                sql = quote(value)
            case First(options=options):
                found = [part for option in options if (part := self.text(option, time=time)) is not None]
                sql = f"coalesce({', '.join(found)})" if len(found) > 1 else next(iter(found), None)
            case Mapped():
                sql = self._mapped(expr, time=time)
            case DateTime(date=date, time=clock):
                sql = self._date_time(self.text(date, time=True), self.text(clock))
            case YearMonthDay(year=year, month=month, day=day):
                sql = self._date(self.text(year), self.text(month), self.text(day))
            case ConceptCode(ref=ref, vocabulary=vocabulary):
                if (column := self.own(ref)) is not None:
                    alias = self.lookup(id_of(column))
                    test = f"{alias}.system = {quote(vocabulary)}" if vocabulary else "true"
                    sql = f"CASE WHEN {test} THEN {alias}.code END"
        return sql

    def _mapped(self, expr: Mapped, *, time: bool) -> str | None:
        sql, rest = self.text(expr.ref), self.text(expr.other, time=time)
        if sql is None:
            return rest
        cases = " ".join(f"WHEN {quote(raw)} THEN {_literal(new)}" for raw, new in expr.pairs)
        return f"CASE {sql} {cases} ELSE {rest or 'NULL'} END" if cases else rest

    @staticmethod
    def _date_time(day: str | None, clock: str | None) -> str | None:
        if day is None or clock is None:
            return day
        joined = f"left({day}, 10) || 'T' || left({clock}, 8)"
        return f"CASE WHEN regexp_matches({clock}, '^\\d\\d:\\d\\d') THEN {joined} ELSE {day} END"

    def _ref(self, ref: Ref, *, time: bool) -> str | None:
        if ref.table:
            if ref.table not in self.joins:
                return None
            sql = f"{self._alias(ref.table)}.{identifier(ref.column)}"
            return _time(sql) if time else sql
        column = self.own(ref)
        if column is None:
            return None
        sql = text_of(column)
        return sql if not time or is_clock(column) else _time(sql)

    def _alias(self, table: str) -> str:
        return f"j{list(self.rule.joins).index(table)}"

    @staticmethod
    def _date(year: str | None, month: str | None, day: str | None) -> str | None:
        if year is None:
            return None
        tail = "''"
        for part in (day, month):  # without a month the day says nothing
            # not lpad, which cuts what is longer: month 112 is none, and not the eleventh
            two = f"CASE WHEN length({part}) < 2 THEN '0' || {part} ELSE {part} END"
            some = f"CASE WHEN {part} IS NULL THEN '' ELSE '-' || {two} || {tail} END"
            tail = some if part is not None else "''"
        return f"{year} || {tail}"

    def lookup(self, concept_id: str) -> str:
        """Return the alias of the resolved concept of an id expression, joined by ``source``."""
        return self._lookups.setdefault(concept_id, f"c{len(self._lookups)}")

    def concept_ids(self) -> list[str]:
        """Return SQL of every concept id the rule's codings and units refer to."""
        exprs = list(self.rule.columns.values())
        for concept in self.rule.concepts:
            for coding in concept.codings:
                exprs += [expr for expr in (coding.code, coding.display) if expr is not None]
                if (sql := self.coding_id(coding)) is not None:
                    self.lookup(sql)
        for expr in exprs:
            self.text(expr)
        return list(self._lookups)

    def coding_id(self, coding: Coding) -> str | None:
        """Return SQL of a coding's concept id: the first of its columns that is set."""
        found = [id_of(column) for ref in coding.concept_ids if (column := self.own(ref)) is not None]
        return f"coalesce({', '.join(found)})" if len(found) > 1 else next(iter(found), None)

    def column(self, name: str) -> str:
        """Return SQL of a canonical text column."""
        sql = self.text(self.rule.columns.get(name), time=name in _TIMES)
        if sql is None:
            return "NULL"
        # only a time of day is cut off: what stands behind a day otherwise makes it none
        return f"CASE WHEN substring({sql}, 11, 1) = 'T' THEN left({sql}, 10) ELSE {sql} END" if name == "birth_date" else sql

    def _common(self) -> dict[str, str]:
        """Return SQL of the columns that concept and coding repeat."""
        columns = {n: self.column(n) for n in ("patient_id", "encounter_id", "site", "at")}
        return {"record": self.record, **columns}

    def number(self, name: str) -> str | None:
        """Return SQL of a canonical number; what is not a finite number is NULL."""
        expr = self.rule.columns.get(name)
        column = self.own(expr) if isinstance(expr, Ref) else None
        if column is not None and kind_of(column) in {"integer", "number"}:
            sql = f"CAST({value_of(column)} AS DOUBLE)"
            return f"CASE WHEN isfinite({sql}) THEN {sql} END" if column.type in {"DOUBLE", "FLOAT"} else sql
        text = self.text(expr)
        if text is None:
            return None
        return f"CASE WHEN isfinite(TRY_CAST({text} AS DOUBLE)) THEN TRY_CAST({text} AS DOUBLE) END"

    def clear(self) -> None:
        """Forget the joins that were asked for."""
        self._lookups.clear()

    # -- statements ---------------------------------------------------------------------------------------

    def source(self, extra: Iterable[str] = ()) -> str:
        """Return FROM and WHERE of a statement, with the joins that its expressions asked for."""
        joins = ""
        for table, staged in self.joins.items():
            alias = self._alias(table)
            pairs = [(n, self.own(Ref(ours))) for n, (_, ours) in enumerate(self.rule.joins[table])]
            on = " AND ".join(f"{alias}.k{n} = {text_of(c)}" if c else "false" for n, c in pairs)
            joins += f" LEFT JOIN {identifier(staged)} AS {alias} ON {on}"
        conditions = " AND ".join([*self.filters(), *extra])
        for sql, alias in self._lookups.items():
            joins += f" LEFT JOIN {CONCEPTS} AS {alias} ON {alias}.id = {sql}"
        return f"FROM {self.relation.sql}{joins} WHERE {conditions or 'true'}"

    def filters(self) -> list[str]:
        """Return the conditions of ``where`` and ``vocabulary``."""
        found = []
        for where in self.rule.where:
            sql = self.text(Ref(where.column)) or "NULL::VARCHAR"
            listed = ", ".join(map(quote, where.values))
            test = f"coalesce({sql} IN ({listed}), false)" if where.values else f"{sql} IS NOT NULL"
            found.append(f"NOT ({test})" if where.negate else test)
        if self.rule.vocabulary:
            listed = ", ".join(map(quote, self.rule.vocabulary))
            codings = [coding for concept in self.rule.concepts for coding in concept.codings]
            aliases = [self.lookup(key) for coding in codings if (key := self.coding_id(coding)) is not None]
            tests = [f"coalesce({alias}.system IN ({listed}), false)" for alias in aliases]
            some = " OR ".join(tests) or "false"
            found.append(f"NOT ({some})" if self.rule.vocabulary_negate else f"({some})")
        return found

    def statements(self) -> list[str]:
        """Return the INSERTs that move the relation's rows into the canonical tables."""
        made = [self._table(), *self._bad_times()]
        for concept in self.rule.concepts:
            made += self._concept(concept)
        if (bad := self._bad_number()) is not None:
            made.append(bad)
        return made

    def _insert(self, target: str, values: Mapping[str, str], extra: Iterable[str] = ()) -> str:
        """Return one INSERT; called last, when every expression has asked for its joins."""
        names = ", ".join(f'"{name}"' for name in values)
        source = self.source(extra)
        return f'INSERT INTO "{target}" ({names}) SELECT {", ".join(values.values())} {source}'

    def _table(self) -> str:
        self._lookups.clear()
        schema = TABLES[self.rule.to]
        values = {"record": self.record, "source_type": quote(self.rule.table)}
        for name in schema.names[1:]:
            if name not in self.rule.columns:
                continue
            if str(schema.field(name).type) == "double":
                values[name] = self.number(name) or "NULL"
            else:
                values[name] = self.column(name)
        if self.rule.to == "observation":
            self.observation(values)
        return self._insert(self.rule.to, values)

    def observation(self, values: dict[str, str]) -> None:
        """Add ``value_kind``; a number that cannot be read becomes text."""
        number, text = values.get("value_number", "NULL"), values.get("value_text", "NULL")
        if (raw := self.text(self.rule.columns.get("value_number"))) is not None:
            text = f"CASE WHEN {number} IS NULL THEN coalesce({raw}, {text}) END"
            values["value_text"] = text
            values["value_declared"] = f"CASE WHEN {number} IS NULL AND {raw} IS NOT NULL THEN 'declared' END"
        coded = "false"
        for concept in self.rule.concepts:
            if concept.element == "observation.value_code":
                coded = " OR ".join(self.presence(concept)) or "false"
        values["value_kind"] = (
            f"CASE WHEN {number} IS NOT NULL THEN 'number' WHEN {coded} THEN 'coded' WHEN {text} IS NOT NULL THEN 'text' END"
        )

    def presence(self, concept: Concept) -> list[str]:
        """Return, per coding that the file can have, the SQL of whether a row has it."""
        found: list[str] = []
        ids: list[str] = []
        for coding in concept.codings:
            if coding.code is not None:
                if (code := self.text(coding.code)) is not None:
                    found.append(f"{code} IS NOT NULL")
            elif (sql := self.coding_id(coding)) is not None:
                # the source concept may be the standard concept itself: one coding
                tests = [f"{sql} IS NOT NULL", *(f"{sql} IS DISTINCT FROM {other}" for other in ids)]
                found.append(" AND ".join(tests))
                ids.append(sql)
        return [f"({test})" for test in found]

    def _concept(self, concept: Concept) -> list[str]:
        present = self.presence(concept)
        unexcluded = [f"({self.column('excluded')}) IS NULL"] if "excluded" in self.rule.columns else []
        statements = []
        place = 0
        codings = []
        for coding in concept.codings:
            self._lookups.clear()
            values = self._coding(coding)
            if values is None:
                continue
            test, before = present[place], present[:place]
            place += 1
            codings.append((coding, test))
            values["position"] = " + ".join(["1", *(f"CAST({earlier} AS INTEGER)" for earlier in before)])
            row = {"element": quote(concept.element), **self._common(), **values, "concept": "1"}
            statements.append(self._insert("coding", {n: row[n] for n in CODING.names if n in row}, [test, *unexcluded]))
        self._lookups.clear()
        counted, shown, tokens = [], [], []
        for coding, test in codings:
            values = self._coding(coding) or {}
            code, display = values["code"], values["display"]
            counted.append(f"CAST({test} AND NOT null_token({code}) AS INTEGER)")
            tokens.append(f"CASE WHEN {test} AND null_token({code}) THEN {code} END")
            shown += [display] if display != "NULL" else []
        texts = [sql for sql in (self.text(concept.text), *shown, *tokens) if sql is not None]
        row = {
            "element": quote(concept.element),
            **self._common(),
            "ordinal": "1",
            "text": f"coalesce({', '.join(texts)})" if texts else "NULL",
            "n_codings": " + ".join(counted) or "0",
            "absent_reason": "NULL",
        }
        only = [] if concept.always else [f"({' OR '.join(present) or 'false'})"]
        statements.append(self._insert("concept", {n: row[n] for n in CONCEPT.names if n in row}, [*only, *unexcluded]))
        return statements

    def _coding(self, coding: Coding) -> dict[str, str] | None:
        """Return the SQL of a coding's own columns, None where the file has nothing of it."""
        if coding.code is None:
            sql = self.coding_id(coding)
            if sql is None:
                return None
            alias = self.lookup(sql)
            return {name: f"{alias}.{name}" for name in ("system", "version", "code", "display")}
        code = self.text(coding.code)
        if code is None:
            return None
        parts = {"system": coding.system, "version": coding.version, "display": coding.display}
        return {"code": code, **{name: self.text(expr) or "NULL" for name, expr in parts.items()}}

    # -- defects ------------------------------------------------------------------------------------------

    def _defect(self, element: str, kind: str, value: str, test: str) -> str:
        """Return the INSERT of a defect where ``value``, as ``v``, is filled, no null token, and fails the test."""
        inner = f"{self.record} AS record, {self.column('patient_id')} AS patient_id, {value} AS v {self.source()}"
        return (
            f"INSERT INTO defect (element, record, patient_id, kind) SELECT {quote(element)}, record, patient_id, "
            # a CASE keeps the order: what is sound is not searched for tokens
            f"{quote(kind)} FROM (SELECT {inner}) WHERE CASE WHEN v IS NULL THEN false WHEN {test} THEN NOT null_token(v) ELSE false END"
        )

    def _bad_times(self) -> list[str]:
        """Times that are no ISO 8601 prefix; typed date columns cannot hold one, a year, month and day apart can."""
        made = []
        for name in sorted(_TIMES & self.rule.columns.keys()):
            self._lookups.clear()
            sql = self.column(name)
            if "hl7_iso(" in sql or self._apart(self.rule.columns[name]):
                # a cast is much faster than a pattern and knows the calendar; short ones are 2024 or 2024-05
                day = "substring(v, 5, 1) <> '-' OR TRY_CAST(v AS TIMESTAMP) IS NULL"
                month = r"NOT regexp_matches(v, '^\d{4}(-(0[1-9]|1[0-2]))?$')"
                test = f"CASE WHEN length(v) >= 10 THEN {day} ELSE {month} END"
                made.append(self._defect(f"{self.rule.to}.{name}", "bad-time", sql, test))
        return made

    def _apart(self, expr: Expr) -> bool:
        """Whether a time may be put together from a year, month and day of the file."""
        options = expr.options if isinstance(expr, First) else (expr,)
        return any(isinstance(option, YearMonthDay) and self.text(option) is not None for option in options)

    def _bad_number(self) -> str | None:
        """Results in the number column that are no number."""
        self._lookups.clear()
        number = self.number("value_number")
        if number is None or "TRY_CAST" not in number:
            return None
        raw = self.text(self.rule.columns["value_number"]) or "NULL"
        return self._defect("observation.value", "wrong-type", raw, "NOT coalesce(isfinite(TRY_CAST(v AS DOUBLE)), false)")


def _time(sql: str) -> str:
    """Return SQL of a text as an ISO 8601 prefix; the patterns of ``hl7_iso`` are spared what is ISO already."""
    return f"CASE WHEN substring({sql}, 5, 1) = '-' THEN iso({sql}) ELSE iso(hl7_iso({sql})) END"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else quote(value)
