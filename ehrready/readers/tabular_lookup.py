"""Lookup tables of a tabular source: OMOP's concept and vocabulary, and what a mapping's rules join.

They are read before everything else into temp tables.  Only the concepts that the data mention are resolved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from ehrready.readers.base import SourceFile
from ehrready.readers.tabular_columns import id_of, text_of
from ehrready.readers.tabular_csv import Staged, stage
from ehrready.readers.tabular_files import (
    STAGE,
    DamagedError,
    Relation,
    Sandbox,
    footer,
    has_parquet_bytes,
    identifier,
    parquet_relation,
)
from ehrready.readers.tabular_mapping import Rule, TableMapping, rule_refs
from ehrready.readers.tabular_sql import CONCEPTS, Compiler

_SOURCE, _VOCABULARY, _MET = "ehrready_concept_source", "ehrready_vocabulary", "ehrready_met_concept"
_TABLES = {
    CONCEPTS: "id BIGINT, system VARCHAR, version VARCHAR, code VARCHAR, display VARCHAR",
    _SOURCE: "id BIGINT, system VARCHAR, code VARCHAR, display VARCHAR",
    _VOCABULARY: "system VARCHAR, version VARCHAR",
    _MET: "place INTEGER, id BIGINT",
    STAGE: "c0 VARCHAR",
}


class Lookups:
    """The temp tables of one reading; ``broken`` has the reason for each lookup file that cannot be read."""

    def __init__(self, mapping: TableMapping, con: duckdb.DuckDBPyConnection, sandbox: Sandbox, folder: Path) -> None:
        self._mapping, self._con, self._sandbox, self._folder = mapping, con, sandbox, folder
        self._joined: dict[tuple[Rule, str], str] = {}
        self.broken: dict[int, str] = {}
        #: delimited lookup files by number: what was read of them, bad rows included
        self.staged: dict[int, Staged] = {}

    @contextlib.contextmanager
    def opened(self, tables: Mapping[str, Sequence[SourceFile]]) -> Iterator[None]:
        """Load the lookup files among ``tables`` (by table name); the temp tables go on leaving."""
        try:
            for name, columns in _TABLES.items():
                self._con.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
            if any(k.concept_ids for rule in self._mapping.rules for c in rule.concepts for k in c.codings):
                keys = ("concept_id", "vocabulary_id", "concept_code", "concept_name")
                self._load(_SOURCE, keys, tables.get("concept", ()), id_first=True)
                self._load(_VOCABULARY, ("vocabulary_id", "vocabulary_version"), tables.get("vocabulary", ()))
            for rule in self._mapping.rules:
                for table, pairs in rule.joins.items():
                    if rule.table in tables and table in tables:
                        self._join(rule, table, pairs, tables[table])
            yield
        finally:
            for name in [*_TABLES, *self._joined.values()]:
                self._con.execute(f"DROP TABLE IF EXISTS temp.{name}")

    def joins(self, rule: Rule) -> dict[str, str]:
        """Return the temp table of each joined table of a rule that is among the files."""
        return {table: self._joined[rule, table] for table in rule.joins if (rule, table) in self._joined}

    def resolve(self, compiler: Compiler) -> None:
        """Look up the concept ids of a relation that were not met before, and tell the compiler of what systems those of each column are."""
        ids = compiler.concept_ids()
        if not ids:
            return
        scans = " UNION ALL ".join(
            f"SELECT {place} AS place, id FROM (SELECT DISTINCT {sql} AS id FROM {compiler.relation.sql})" for place, sql in enumerate(ids)
        )
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE {_MET} AS SELECT place, id FROM ({scans}) WHERE id IS NOT NULL")
        self._con.execute(
            # of an id that is there twice one row as a whole is taken: the system of one and the code of another would be no code at all
            f"INSERT INTO {CONCEPTS} SELECT id, coalesce(said.system, 'OMOP'), (SELECT min(version) FROM {_VOCABULARY} v WHERE v.system = "
            "coalesce(said.system, 'OMOP')), coalesce(said.code, CAST(id AS VARCHAR)), said.display FROM (SELECT n.id, min({'system': c.system, "
            f"'code': c.code, 'display': c.display}}) AS said FROM {_MET} n LEFT JOIN (SELECT * FROM {_SOURCE} WHERE system IS NOT NULL AND code IS NOT NULL) c "
            f"ON c.id = n.id WHERE n.id NOT IN (SELECT id FROM {CONCEPTS}) GROUP BY n.id)"
        )
        systems: dict[str, set[str]] = {sql: set() for sql in ids}
        for place, system in self._con.execute(f"SELECT DISTINCT m.place, c.system FROM {_MET} m JOIN {CONCEPTS} c USING (id)").fetchall():
            systems[ids[place]].add(system)
        compiler.systems = systems

    def _load(self, target: str, columns: Sequence[str], files: Sequence[SourceFile], *, id_first: bool = False) -> None:
        """Copy columns of a lookup table's files as text (the first one as concept id)."""
        for file in files:
            try:
                relation = self._relation(file)
                found = [relation.columns.get(name) for name in columns]
                sql = [text_of(column) if column else "NULL" for column in found]
                if id_first and found[0] is not None:
                    sql[0] = id_of(found[0])
                self._con.execute(f'INSERT INTO "{target}" SELECT {", ".join(sql)} FROM {relation.sql}')
            except DamagedError as error:
                self.broken[file.number] = error.reason

    def _relation(self, file: SourceFile) -> Relation:
        if has_parquet_bytes(file.path):
            footer(file.path)
            return parquet_relation(self._con, self._sandbox, [file])
        self.staged[file.number] = stage(self._con, file.path, file.number, self._folder)
        return self.staged[file.number].relation

    def _join(self, rule: Rule, table: str, pairs: Sequence[tuple[str, str]], files: Sequence[SourceFile]) -> None:
        """Make the temp table of a joined lookup: one row a key, so that no record is ever doubled."""
        wanted = sorted({ref.column for ref in rule_refs(rule) if ref.table == table})
        name = f"ehrready_join_{len(self._joined)}"
        self._joined[rule, table] = name
        keys = [f"k{n}" for n in range(len(pairs))]
        kinds = ", ".join(f"{identifier(column)} VARCHAR" for column in [*keys, *wanted])
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({kinds})")
        self._load(name, [*(theirs for theirs, _ in pairs), *wanted], files)
        listed = ", ".join(keys)
        least = "".join(f", min({identifier(column)}) AS {identifier(column)}" for column in wanted)
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {listed}{least} FROM {name} GROUP BY {listed}")
