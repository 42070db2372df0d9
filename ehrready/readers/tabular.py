"""The tabular readers: OMOP CDM, and any other Parquet or CSV table, with or without a mapping.

Both are a mapping (mappings/*.yaml, grammar in tabular_mapping) on one engine: every table file becomes a
relation and every rule of the mapping a few ``INSERT ... SELECT``.  A record is a row.  Files of one table and
schema are loaded together in one transaction; where that fails the set is halved until the damaged file stands
alone, so that its neighbours stay and nothing of it does.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.readers.tabular_csv import Staged, stage
from ehrready.readers.tabular_files import (
    Damaged,
    Relation,
    footer,
    header,
    identifier,
    is_csv,
    is_parquet,
    parquet_relation,
    table_names,
)
from ehrready.readers.tabular_mapping import Rule, TableMapping, find, rule_refs, shipped
from ehrready.readers.tabular_sql import CONCEPTS, Compiler, column_statistics, id_of, kind_of, text_of

#: Files loaded by one statement.
_GROUP = 256
#: The kind of a table that no mapping knows.
GENERIC = "table"
#: Failures that are not the file's: they end the run.
_OURS = (
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.FatalException,
)


class OmopReader:
    """Reader of OMOP CDM 5.3 and 5.4 tables in Parquet or CSV (OHDSI CommonDataModel)."""

    format = "omop"

    def __init__(self) -> None:
        self._mapping = shipped("omop")

    def recognise(self, path: Path, head: bytes) -> str:
        """Return the OMOP table's name (lower case), or ``""``: the name and the key columns must both be there.

        A damaged file that bears an OMOP table's name is claimed, so that it is rejected and not skipped.
        """
        return _known_table(self._mapping, path, head)

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables; yields the events of the ledger, table by table."""
        yield from _Reading(self.format, self._mapping, con).run(files)

    def source_elements(self) -> dict[str, str]:
        """Map canonical elements to ``table.column`` of the CDM."""
        return self._mapping.source_elements()


class TableReader:
    """Reader of any Parquet or CSV table; ``mapping`` is the name of a shipped mapping or a YAML file.

    Tables that the mapping does not know, and all without one, are counted and their columns measured.
    Raises UsageError for a mapping with mistakes.
    """

    # FHIR stored as nested Parquet (a resourceType column, structs) is read as such a table for now; the place
    # to hand it to the FHIR reader is `recognise`.
    format = "table"

    def __init__(self, mapping: Path | str | None = None) -> None:
        self._mapping = find(mapping) if mapping is not None else TableMapping("none", "", (), frozenset(), {})

    def recognise(self, path: Path, head: bytes) -> str:
        """Return the mapping's table name, ``table`` for any other Parquet or CSV file, or ``""``."""
        if not is_parquet(path, head) and not is_csv(path):
            return ""
        return _known_table(self._mapping, path, head) or GENERIC

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables; yields the events of the ledger, table by table."""
        yield from _Reading(self.format, self._mapping, con).run(files)

    def source_elements(self) -> dict[str, str]:
        """Map canonical elements to ``table.column`` of the mapped layout; empty without a mapping."""
        return self._mapping.source_elements()


def _known_table(mapping: TableMapping, path: Path, head: bytes) -> str:
    """Return the table of the mapping that a file is by its name and columns, or ``""``."""
    parquet = is_parquet(path, head)
    if not parquet and not is_csv(path):
        return ""
    names = [candidate for name in table_names(path) for candidate in (name, name.removeprefix(f"{mapping.name}_"))]
    known = [name for name in names if name in mapping.tables]
    if not known:
        return ""
    try:
        columns = footer(path)[1].names if parquet else header(head)[1]
    except Damaged:
        return known[0]
    present = {name.lower() for name in columns}
    return next((name for name in known if present.issuperset(mapping.expects.get(name, ()))), "")


@dataclass(slots=True)
class _Counts:
    """Rows, empty cells and null tokens of unmapped columns, by table, column and kind."""

    columns: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)

    def add_rows(self, table: str, n: int) -> None:
        self.types[table] = self.types.get(table, 0) + n

    def add_column(self, table: str, column: str, kind: str, numbers: Sequence[int]) -> None:
        sums = self.columns.setdefault((table, column, kind), [0, 0, 0])
        for place, number in enumerate(numbers):
            sums[place] += number


class _Reading:
    """One reading of a list of files into one connection."""

    def __init__(self, fmt: str, mapping: TableMapping, con: duckdb.DuckDBPyConnection) -> None:
        self._format, self._mapping, self._con = fmt, mapping, con
        self._counts = _Counts()
        self._joined: dict[tuple[int, str], str] = {}  # rule, table → temp table
        self._folder = Path()

    def run(self, files: Sequence[SourceFile]) -> Iterator[Event]:
        """Read all files: lookup tables first, then table by table in the order of their first file."""
        tables: dict[str, list[SourceFile]] = {}
        for file in files:
            tables.setdefault(file.kind if file.kind in self._mapping.tables else self._generic(file), []).append(file)
        generic = sorted(tables.keys() - self._mapping.tables)
        # names of unmapped files are input: they are numbered, sorted, and do not leave
        public = {name: f"table-{number:02d}" for number, name in enumerate(generic, 1)}
        with self._workspace():
            broken = self._lookups(tables)
            for table, members in tables.items():
                if table in self._mapping.reference:
                    yield from self._reference(members, broken)
                else:
                    yield from self._table(public.get(table, table), table, members)
            self._book()

    @staticmethod
    def _generic(file: SourceFile) -> str:
        """Return the name a table without mapping is sorted by; the mark keeps it apart from mapped names."""
        return "\x00" + next(iter(table_names(file.path)), "")

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[None]:
        """Have temp tables and a private folder for decoded CSV, beside the engine's own files."""
        setting = self._con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
        parent = Path(setting).parent if setting else None
        made = ["ehrready_concept_source", "ehrready_vocabulary", "ehrready_new_concept", "ehrready_csv", CONCEPTS]
        try:
            with tempfile.TemporaryDirectory(dir=parent if parent and parent.is_dir() else None) as folder:
                self._folder = Path(folder)
                self._con.execute(
                    f"CREATE TEMP TABLE {CONCEPTS} (id BIGINT, system VARCHAR, version VARCHAR, code VARCHAR, display VARCHAR);"
                    "CREATE TEMP TABLE ehrready_concept_source (id BIGINT, system VARCHAR, code VARCHAR, display VARCHAR);"
                    "CREATE TEMP TABLE ehrready_vocabulary (system VARCHAR, version VARCHAR)"
                )
                yield
        finally:
            for name in [*made, *self._joined.values()]:
                self._con.execute(f"DROP TABLE IF EXISTS temp.{identifier(name)}")

    # -- lookups ------------------------------------------------------------------------------------------

    def _lookups(self, tables: dict[str, list[SourceFile]]) -> dict[int, str]:
        """Load the concept and vocabulary tables and what rules join; returns broken files with the reason."""
        broken: dict[int, str] = {}
        needed = any(coding.concept_ids for r in self._mapping.rules for c in r.concepts for coding in c.codings)
        if needed:
            columns = ("concept_id", "vocabulary_id", "concept_code", "concept_name")
            self._lookup("ehrready_concept_source", columns, tables.get("concept", []), broken, number=True)
            columns = ("vocabulary_id", "vocabulary_version")
            self._lookup("ehrready_vocabulary", columns, tables.get("vocabulary", []), broken)
        for place, rule in enumerate(self._mapping.rules):
            for table, pairs in rule.joins.items():
                if rule.table in tables and table in tables:
                    self._join(place, rule, table, pairs, tables[table], broken)
        return broken

    def _lookup(
        self, target: str, columns: Sequence[str], files: Sequence[SourceFile], broken: dict[int, str], *, number: bool = False
    ) -> None:
        """Copy columns of a lookup table's files as text (the first as concept id) into a temp table."""
        for file in files:
            try:
                relation = self._relation(file)
                found = [relation.columns.get(name) for name in columns]
                sql = [text_of(column) if column else "NULL" for column in found]
                if number and found[0]:
                    sql[0] = id_of(found[0])
                self._con.execute(f'INSERT INTO "{target}" SELECT {", ".join(sql)} FROM {relation.sql}')
            except Damaged as error:
                broken[file.number] = error.reason
            except duckdb.Error as error:
                if isinstance(error, _OURS):
                    raise
                broken[file.number] = "invalid-parquet"

    def _join(
        self,
        place: int,
        rule: Rule,
        table: str,
        pairs: Sequence[tuple[str, str]],
        files: Sequence[SourceFile],
        broken: dict[int, str],
    ) -> None:
        """Make the temp table of a joined lookup: one row a key, so that no row is ever doubled."""
        wanted = sorted({ref.column for ref in rule_refs(rule) if ref.table == table})
        name = f"ehrready_join_{place}_{list(rule.joins).index(table)}"
        self._joined[place, table] = name
        keys = [f"k{n}" for n in range(len(pairs))]
        kinds = ", ".join(f"{identifier(column)} VARCHAR" for column in [*keys, *wanted])
        self._con.execute(f"CREATE TEMP TABLE {name} ({kinds})")
        self._lookup(name, [*(theirs for theirs, _ in pairs), *wanted], files, broken)
        listed = ", ".join(keys)
        least = "".join(f", min({identifier(column)}) AS {identifier(column)}" for column in wanted)
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {listed}{least} FROM {name} GROUP BY {listed}")

    def _relation(self, file: SourceFile) -> Relation:
        """Return one file as a relation, whatever its kind; raises Damaged."""
        if _is_parquet(file):
            footer(file.path)
            return parquet_relation(self._con, [file])
        return stage(self._con, file.path, file.number, "ehrready_csv", self._folder).relation

    def _reference(self, files: Sequence[SourceFile], broken: dict[int, str]) -> Iterator[Event]:
        """Account for vocabulary and metadata files: no records, unless the file is broken."""
        for file in files:
            try:
                if file.number in broken:
                    raise Damaged(broken[file.number])
                if _is_parquet(file):
                    footer(file.path)
                else:
                    header(_head(file.path))
            except Damaged as error:
                yield from _unreadable(file, error.reason)
            else:
                yield Ended(file.number, "reference")

    # -- tables -------------------------------------------------------------------------------------------

    def _table(self, public: str, table: str, files: Sequence[SourceFile]) -> Iterator[Event]:
        """Load the files of one table; ``public`` is the name it is counted under."""
        self._counts.add_rows(public, 0)
        group: list[SourceFile] = []
        declared: dict[int, int] = {}
        schema = ""
        for file in files:
            try:
                if not _is_parquet(file):
                    yield from self._parquet(public, table, group, declared)
                    group = []
                    yield from self._csv(public, table, file)
                    continue
                rows, arrow = footer(file.path)
            except Damaged as error:
                yield from self._parquet(public, table, group, declared)
                group = []
                yield from _unreadable(file, error.reason)
                continue
            key = "\n".join(f"{f.name} {f.type}" for f in arrow)
            if group and (key != schema or len(group) >= _GROUP):
                yield from self._parquet(public, table, group, declared)
                group = []
            schema = key
            declared[file.number] = rows
            group.append(file)
        yield from self._parquet(public, table, group, declared)

    def _csv(self, public: str, table: str, file: SourceFile) -> Iterator[Event]:
        staged: Staged = stage(self._con, file.path, file.number, "ehrready_csv", self._folder)
        rows = self._insert(public, table, staged.relation)
        rejected = sum(n for _, n in staged.rejected.values())
        if rows.get(file.number, 0) != staged.read - rejected:
            raise AssertionError(f"ledger law broken in file {file.number}")
        yield Read(file.number, staged.read)
        for reason, (first, n) in staged.rejected.items():
            yield Rejected(file.number, first, reason, n)
        yield Ended(file.number, staged.status)

    def _parquet(
        self, public: str, table: str, files: list[SourceFile], declared: dict[int, int]
    ) -> Iterator[Event]:
        """Load Parquet files of one schema; a failing set is halved until the damaged file is found."""
        if not files:
            return
        try:
            rows = self._insert(public, table, parquet_relation(self._con, files))
        except duckdb.Error as error:
            if isinstance(error, _OURS):
                raise
            if len(files) > 1:
                half = len(files) // 2
                yield from self._parquet(public, table, files[:half], declared)
                yield from self._parquet(public, table, files[half:], declared)
                return
            if self._scannable(files[0]):
                raise  # the file is sound: the failure is elsewhere (a full disk)
            yield from _unreadable(files[0], "invalid-parquet")
            return
        for file in files:
            yield Read(file.number, rows.get(file.number, 0))
            yield Ended(file.number, "read", declared[file.number])

    def _scannable(self, file: SourceFile) -> bool:
        """Whether every page of a Parquet file can be read."""
        try:
            relation = parquet_relation(self._con, [file])
            self._con.execute(column_statistics(relation, relation.columns)).fetchall()
        except duckdb.Error:
            return False
        return True

    def _insert(self, public: str, table: str, relation: Relation) -> dict[int, int]:
        """Move a relation into the canonical tables, all or nothing; returns the rows of each file."""
        rules = [(place, rule) for place, rule in enumerate(self._mapping.rules) if rule.table == table]
        compilers = [
            Compiler(rule, relation, {t: n for (p, t), n in self._joined.items() if p == place})
            for place, rule in rules
        ]
        mapped = self._mapping.used(table)
        unmapped = [name for name in relation.columns if name not in mapped]
        self._con.execute("BEGIN")
        try:
            for compiler in compilers:
                self._resolve(compiler)
                for statement in compiler.statements():
                    self._con.execute(statement)
            measured = self._con.execute(column_statistics(relation, unmapped)).fetchall()
            self._con.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._con.execute("ROLLBACK")
            raise
        for row in measured:
            self._counts.add_rows(public, row[1])
            for place, name in enumerate(unmapped):
                numbers = (row[1], row[3 + 2 * place], row[4 + 2 * place])
                self._counts.add_column(public, name, kind_of(relation.columns[name]), numbers)
        if not measured:
            for name in unmapped:
                self._counts.add_column(public, name, kind_of(relation.columns[name]), (0, 0, 0))
        return {row[0]: row[1] for row in measured}

    def _resolve(self, compiler: Compiler) -> None:
        """Look up the concept ids of a relation that were not met before."""
        ids = compiler.concept_ids()
        if not ids:
            return
        scans = " UNION ALL ".join(f"SELECT DISTINCT {sql} AS id FROM {compiler.relation.sql}" for sql in ids)
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE ehrready_new_concept AS SELECT DISTINCT id FROM ({scans}) "
            f"WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM {CONCEPTS})"
        )
        self._con.execute(
            f"INSERT INTO {CONCEPTS} SELECT id, coalesce(system, 'OMOP'), (SELECT min(version) FROM ehrready_vocabulary v "
            "WHERE v.system = found.system), coalesce(code, CAST(id AS VARCHAR)), display FROM ("
            "SELECT n.id, min(c.system) AS system, min(c.code) AS code, min(c.display) AS display "
            "FROM ehrready_new_concept n LEFT JOIN ehrready_concept_source c ON c.id = n.id GROUP BY n.id) found"
        )

    def _book(self) -> None:
        """Write what was counted on the way: records by table, and the unmapped columns."""
        for table, n in sorted(self._counts.types.items()):
            self._con.execute("INSERT INTO types VALUES (?, ?, ?)", [self._format, table, n])
        for (table, column, kind), sums in sorted(self._counts.columns.items()):
            self._con.execute("INSERT INTO generic_column VALUES (?, ?, ?, ?, ?, ?)", [table, column, kind, *sums])


def _is_parquet(file: SourceFile) -> bool:
    try:
        with file.path.open("rb") as stream:
            return is_parquet(file.path, stream.read(4))
    except OSError as error:
        raise Damaged("unreadable") from error


def _head(path: Path) -> bytes:
    from ehrready.readers.blocks import STREAM_ERRORS, head

    try:
        return head(path)
    except STREAM_ERRORS as error:
        raise Damaged("unreadable") from error


def _unreadable(file: SourceFile, reason: str) -> Iterator[Event]:
    """Yield the events of a file that could not be read at all: one rejected record."""
    yield Read(file.number, 1)
    yield Rejected(file.number, 0, reason)
    yield Ended(file.number, "unreadable")


