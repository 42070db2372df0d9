"""The tabular readers: OMOP CDM, and any other Parquet or CSV table, with or without a mapping.

Both are a mapping (mappings/*.yaml; tabular_mapping) on one engine: every table file becomes a relation and
every rule of the mapping a few ``INSERT ... SELECT`` (tabular_sql).  A record is a row.  Files of one table
and schema are loaded together in one transaction; where they cannot be read the set is halved until the damaged
file stands alone, so that its neighbours stay and nothing of it does.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.readers.streams import STREAM_ERRORS, head
from ehrready.readers.tabular_columns import column_statistics, kind_of
from ehrready.readers.tabular_csv import stage
from ehrready.readers.tabular_files import (
    PARQUET,
    DamagedError,
    Relation,
    Sandbox,
    footer,
    has_parquet_bytes,
    header,
    is_csv,
    is_parquet,
    parquet_relation,
    table_names,
)
from ehrready.readers.tabular_lookup import Lookups
from ehrready.readers.tabular_mapping import NONE, TableMapping, find, shipped
from ehrready.readers.tabular_sql import Compiler

if TYPE_CHECKING:
    from ehrready.narrow import Rows

#: Files loaded by one statement.
_GROUP = 256
#: The kind of a table that no mapping knows.
GENERIC = "table"


class _MappedReader:
    """What readers of tables by a mapping share: rows need the lookup tables and no other files."""

    format: str
    _mapping: TableMapping
    meets: Mapping[str, tuple[str, ...]] = {}
    kept: tuple[str, ...] = ()

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables; yields the events of the ledger, table by table."""
        yield from self.stage(files, con)

    def stage(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection, among: Sequence[SourceFile] = ()) -> Iterator[Event]:
        """Read some of the files, with the lookup tables that are ``among`` all of them."""
        yield from _Reading(self.format, self._mapping, con).run(among or files, frozenset(file.number for file in files))

    def finish(self, con: duckdb.DuckDBPyConnection) -> None:
        """Nothing waits: a row needs the lookup tables alone."""

    def resolve(self, con: duckdb.DuckDBPyConnection) -> None:
        """Nothing waits."""

    def looked_up(self, kind: str) -> frozenset[str] | None:
        """Return the columns that are read of a table that is only looked things up in; None for all other tables."""
        return self._mapping.looked_up(kind)


class OmopReader(_MappedReader):
    """Reader of OMOP CDM 5.3 and 5.4 tables in Parquet or CSV (OHDSI CommonDataModel)."""

    format = "omop"

    #: whether nobody needs the canonical tables but the measures: then records may go to narrow tables
    narrow = False

    # read when a file may be a table, and not before
    @functools.cached_property
    def _mapping(self) -> TableMapping:  # type: ignore[override]
        return shipped("omop")

    def recognise(self, path: Path, head: bytes) -> str:
        """Return the OMOP table's name (lower case) where name and key columns are both there, else ``""``.

        A damaged file that bears an OMOP table's name is claimed, so that it is rejected and not skipped.
        """
        return _known_table(self._mapping, path, head) or self._placeholder(path, head)

    def _placeholder(self, path: Path, head: bytes) -> str:
        """Return the reference table that a file stands for by its name alone, beside a person table.

        Exports of small data sets write vocabulary tables they do not have as files with other columns.
        """
        if not is_parquet(path, head) and not is_csv(path):
            return ""
        known = [name for name in table_names(path) if name in self._mapping.reference]
        return known[0] if known and any(path.parent.glob("[pP][eE][rR][sS][oO][nN].*")) else ""

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables; yields the events of the ledger, table by table."""
        mapped = {rule.table for rule in self._mapping.rules}
        if self.narrow and all(PARQUET.search(file.path.name) for file in files if file.kind in mapped):
            from ehrready.readers import tabular_narrow

            reading = _Reading(self.format, self._mapping, con, narrow=True)
            events = tabular_narrow.events(reading.run(files, frozenset(file.number for file in files)), con)
            if events is not None:
                yield from events
                return
        yield from self.stage(files, con)

    def source_elements(self) -> dict[str, str]:
        """Map canonical elements to ``table.column`` of the CDM."""
        return self._mapping.source_elements()


class TableReader(_MappedReader):
    """Reader of any Parquet or CSV table; ``mapping`` is the name of a shipped mapping or a YAML file.

    Tables that the mapping does not know, and all without one, are counted and their columns measured.
    Raises UsageError for a mapping with mistakes.
    """

    # FHIR stored as nested Parquet (a resourceType column, structs) is read as such a table for now:
    # `recognise` is the place to leave it to the FHIR reader.
    format = "table"

    def __init__(self, mapping: Path | str | None = None) -> None:
        self._mapping = NONE if mapping is None else find(mapping)

    def recognise(self, path: Path, head: bytes) -> str:
        """Return the mapping's table name, ``table`` for any other Parquet or CSV file, or ``""``."""
        if not is_parquet(path, head) and not is_csv(path):
            return ""
        return _known_table(self._mapping, path, head) or GENERIC

    def source_elements(self) -> dict[str, str]:
        """Map canonical elements to ``table.column`` of the mapped layout; empty without a mapping."""
        return self._mapping.source_elements()


def _known_table(mapping: TableMapping, path: Path, head: bytes) -> str:
    """Return the table of the mapping that a file is by its name and columns, or ``""``."""
    parquet = is_parquet(path, head)
    if not parquet and not is_csv(path):
        return ""
    prefix = f"{mapping.name}_"  # CLIF names its files clif_labs.parquet
    names = [each for name in table_names(path) for each in (name, name.removeprefix(prefix))]
    known = [name for name in names if name in mapping.tables]
    if not known:
        return ""
    try:
        columns = footer(path)[1].names if parquet else header(head)[1]
    except DamagedError:
        return known[0]
    present = {name.lower() for name in columns}
    return next((name for name in known if present.issuperset(mapping.expects.get(name, ()))), "")


class _Counts:
    """What is booked when everything is read: records by table, and the unmapped columns."""

    def __init__(self) -> None:
        self._types: dict[str, int] = {}
        self._columns: dict[tuple[str, str, str], list[int]] = {}

    def add(self, table: str, relation: Relation, names: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Add the rows of ``column_statistics`` over the columns ``names``."""
        self._types[table] = self._types.get(table, 0) + sum(row[1] for row in rows)
        for place, name in enumerate(names):
            key = (table, name, kind_of(relation.columns[name]))
            sums = self._columns.setdefault(key, [0, 0, 0])
            for row in rows:
                for at, number in enumerate((row[1], row[3 + 2 * place], row[4 + 2 * place])):
                    sums[at] += number

    def book(self, con: duckdb.DuckDBPyConnection, source: str) -> None:
        """Write the canonical tables ``types`` and ``generic_column``."""
        for table, n in sorted(self._types.items()):
            con.execute("INSERT INTO types VALUES (?, ?, ?)", [source, table, n])
        if rows := [[*key, *sums] for key, sums in sorted(self._columns.items())]:  # in one statement: there may be hundreds
            places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
            con.execute(f"INSERT INTO generic_column VALUES {places}", [value for row in rows for value in row])


class _Reading:
    """One reading of a list of files into one connection."""

    def __init__(self, source: str, mapping: TableMapping, con: duckdb.DuckDBPyConnection, *, narrow: bool = False) -> None:
        self._format, self._mapping, self._con, self._narrow = source, mapping, con, narrow
        self._counts = _Counts()
        self._rows: dict[str, list[Rows]] = {}
        #: statements of patients, who stay in the canonical tables: done beside the narrow ones
        self._patients: list[str] = []

    def run(self, files: Sequence[SourceFile], wanted: frozenset[int]) -> Iterator[Event]:
        """Read the wanted files: lookup tables first, then table by table in the order of their first file."""
        tables: dict[str, list[SourceFile]] = {}
        known = self._mapping.tables
        for file in files:
            # the mark keeps names of unmapped files apart from mapped ones
            name = file.kind if file.kind in known else "\0" + next(iter(table_names(file.path)), "")
            tables.setdefault(name, []).append(file)
        # names of unmapped files are input: they are numbered, sorted, and do not leave
        unknown = sorted(tables.keys() - known)
        self._public = {name: f"table-{number:02d}" for number, name in enumerate(unknown, 1)}
        self._sandbox = Sandbox(self._con)
        with contextlib.closing(self._sandbox), tempfile.TemporaryDirectory(dir=self._spill()) as folder:
            self._folder = Path(folder)
            self._lookups = Lookups(self._mapping, self._con, self._sandbox, self._folder)
            with self._lookups.opened(tables):
                for table, all_members in tables.items():
                    members = [file for file in all_members if file.number in wanted]
                    reference = table in self._mapping.reference
                    yield from self._reference(members) if reference else self._table(table, members)
                if self._narrow:
                    from ehrready.readers import tabular_narrow

                    tabular_narrow.keep(self._con, self._rows, self._patients)
        self._counts.book(self._con, self._format)

    def _spill(self) -> Path | None:
        """Return the engine's own folder, for decoded CSV: it is private and goes with the engine."""
        setting = self._con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
        folder = Path(setting).parent
        return folder if setting and folder.is_absolute() and folder.is_dir() else None

    def _reference(self, files: Sequence[SourceFile]) -> Iterator[Event]:
        """Account for vocabulary and metadata files: no records, unless the file is broken."""
        for file in files:
            try:
                if file.number in self._lookups.broken:
                    raise DamagedError(self._lookups.broken[file.number])
                if has_parquet_bytes(file.path):
                    footer(file.path)
                else:
                    header(_head(file.path))
            except DamagedError as error:
                yield from _unreadable(file, error.reason)
                continue
            staged = self._lookups.staged.get(file.number)
            for reason, (first, n) in staged.rejected.items() if staged else ():
                yield Read(file.number, n)
                yield Rejected(file.number, first, reason, n)
            yield Ended(file.number, "truncated" if staged and staged.status == "truncated" else "reference")

    def _table(self, table: str, files: Sequence[SourceFile]) -> Iterator[Event]:
        """Load the files of one table, those of one schema together: a statement for each would cost more than most parts' rows."""
        groups: dict[str, list[tuple[SourceFile, int]]] = {}
        for file in files:
            rows, key = 0, ""
            try:
                if has_parquet_bytes(file.path):
                    rows, arrow = footer(file.path)
                    key = "parquet\n" + "\n".join(f"{field.name} {field.type}" for field in arrow)
            except DamagedError as error:
                yield from _unreadable(file, error.reason)
                continue
            if not key:
                yield from self._csv(table, file)
                continue
            group = groups.setdefault(key, [])
            group.append((file, rows))
            if len(group) >= _GROUP:
                yield from self._parquet(table, groups.pop(key))
        for group in groups.values():
            yield from self._parquet(table, group)

    def _csv(self, table: str, file: SourceFile) -> Iterator[Event]:
        """Load one delimited text file."""
        try:
            staged = stage(self._con, file.path, file.number, self._folder)
        except DamagedError as error:
            yield from _unreadable(file, error.reason)
            return
        rows = self._insert(table, staged.relation)
        rejected = sum(n for _, n in staged.rejected.values())
        if rows.get(file.number, 0) != staged.read - rejected:
            raise AssertionError(f"ledger law broken in file {file.number}")
        yield Read(file.number, staged.read)
        for reason, (first, n) in staged.rejected.items():
            yield Rejected(file.number, first, reason, n)
        yield Ended(file.number, staged.status, bytes=staged.size)

    def _parquet(self, table: str, files: Sequence[tuple[SourceFile, int]]) -> Iterator[Event]:
        """Load Parquet files of one schema, each with its footer's row count.

        A set that cannot be read is halved until the damaged file is found.
        """
        if not files:
            return
        try:
            relation = parquet_relation(self._con, self._sandbox, [file for file, _ in files])
        except DamagedError as error:
            if len(files) == 1:
                yield from _unreadable(files[0][0], error.reason)
            else:
                half = len(files) // 2
                yield from self._parquet(table, files[:half])
                yield from self._parquet(table, files[half:])
            return
        rows = self._insert(table, relation)
        for file, declared in files:
            yield Read(file.number, rows.get(file.number, 0))
            yield Ended(file.number, "read", declared)

    def _statements(self, compiler: Compiler) -> list[str]:
        if self._narrow and compiler.rule.to == "patient":
            self._patients += compiler.statements()
            return []
        if self._narrow:
            from ehrready.readers.tabular_narrow import NarrowCompiler

            self._rows.setdefault(compiler.rule.to, []).append(NarrowCompiler(compiler).rows())
            return []
        return compiler.statements()

    def _insert(self, table: str, relation: Relation) -> dict[int, int]:
        """Move a relation into the canonical tables, all or nothing; returns the rows of each file."""
        rules = [rule for rule in self._mapping.rules if rule.table == table]
        mapped = self._mapping.used(table)
        unmapped = [name for name in relation.columns if name not in mapped]
        self._con.execute("BEGIN")
        try:
            for rule in rules:
                compiler = Compiler(rule, relation, self._lookups.joins(rule))
                self._lookups.resolve(compiler)
                for statement in self._statements(compiler):
                    self._con.execute(statement)
            measured = self._con.execute(column_statistics(relation, unmapped)).fetchall()
            self._con.executemany("INSERT INTO profiled VALUES (?, ?)", [[row[0], row[1]] for row in measured]) if measured else None
            self._con.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._con.execute("ROLLBACK")
            raise
        self._counts.add(self._public.get(table, table), relation, unmapped, measured)
        return {row[0]: row[1] for row in measured}


def _head(path: Path) -> bytes:
    try:
        return head(path)
    except STREAM_ERRORS as error:
        raise DamagedError("unreadable") from error


def _unreadable(file: SourceFile, reason: str) -> Iterator[Event]:
    """Yield the events of a file that could not be read at all: one rejected record."""
    yield Read(file.number, 1)
    yield Rejected(file.number, 0, reason)
    yield Ended(file.number, "unreadable")
