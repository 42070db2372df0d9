"""Concepts as numbers: what a source says of a coded element is kept once per different text, and a record has its number.

A reader whose records repeat the same concepts (FHIR, HL7v2) adds columns of numbers to the canonical tables (``Numbered``): NULL where the
element is absent, 0 where another statement says what it is.  ``concept_text`` and ``concept_coding`` say what a number means; the same
text may have several numbers.  From them ``concept`` and ``coding`` are filled row by row (``expand``), or, where nothing else is read
or asked, become views of the same rows (``share``): then the measures count numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ehrready.engines.duckdb import is_duckdb, quote
from ehrready.readers.arrays import Integers, batched, integers, strings, truths
from ehrready.tables import TABLES

if TYPE_CHECKING:
    import duckdb

_MADE = (
    'CREATE OR REPLACE TEMP TABLE concept_text (x BIGINT, ordinal INTEGER, "text" VARCHAR, n_codings INTEGER, absent_reason VARCHAR);'
    'CREATE OR REPLACE TEMP TABLE concept_coding (x BIGINT, ordinal INTEGER, "position" INTEGER, "system" VARCHAR, "version" VARCHAR, '
    "code VARCHAR, display VARCHAR)"
)

#: Coded elements that a table has at most.
MOST = 4


#: Bytes of concepts whose numbers are remembered; then they are forgotten, and the same text gets another number.
MOST_KNOWN = 64 * 1024 * 1024
#: Bytes of concepts that wait until they are parsed: the statements are planned anew each time.
MOST_WAITING = 8 * 1024 * 1024


class Wording:
    """The numbers of concepts by the text that a source has of one, or of a list: each different text is parsed once.

    ``parse`` are the statements that write ``concept_text`` and ``concept_coding`` of what is ``_new`` (x, listed, raw).
    """

    def __init__(self, parse: Sequence[str]) -> None:
        self._parse = parse
        self._known: dict[tuple[bool, str], int] = {}
        self._new: list[tuple[int, bool, str]] = []
        self._next, self._bytes, self._waiting = 1, 0, 0

    def number(self, text: str | None, listed: bool) -> int:
        """Return the number of a text, -1 of none."""
        if text is None:
            return -1
        found = self._known.get((listed, text))
        if found is None:
            if self._bytes > MOST_KNOWN:
                self._known, self._bytes = {}, 0
            found = self._known[listed, text] = self._next
            self._next += 1
            self._bytes += len(text) + 200
            self._waiting += len(text) + 200
            self._new.append((found, listed, text))
        return found

    def numbers(self, texts: pa.Array, *, listed: bool) -> Integers:
        """Return the numbers of texts, some of which may be null."""
        return np.array([self.number(text, listed) for text in texts.to_pylist()], np.int64)

    def further(self) -> int:
        """Return a number above all that were given."""
        return self._next

    def write(self, con: duckdb.DuckDBPyConnection, *, rest: bool = False) -> None:
        """Say what the new numbers mean, once there are many of them; ``rest``: of all of them, since nothing more is read."""
        if not self._new or not (rest or self._waiting > MOST_WAITING):
            return
        x, listed, raw = zip(*self._new, strict=True)
        columns = [integers(np.array(x)), truths(np.array(listed)), strings([text.encode() for text in raw]).cast(pa.large_string())]
        con.register("_new", batched(pa.Table.from_arrays(columns, names=["x", "listed", "raw"])))
        for statement in self._parse:
            con.execute(statement)
        con.unregister("_new")
        self._new, self._waiting = [], 0


@dataclass(frozen=True, slots=True)
class Numbered:
    """A coded element: the column of its table that holds numbers, and whether an absent one is no concept (``optional``).

    ``behind`` is SQL of how many concepts of the element come before the record's own (parts of a record).
    """

    table: str
    element: str
    column: str
    optional: bool
    behind: str = "0"


def prepare(con: duckdb.DuckDBPyConnection, layout: Sequence[Numbered], *, words: bool) -> None:
    """Add the columns of numbers, and make the tables that say what they mean, empty; records that are there keep their concepts.

    ``words``: also columns for what a record's own columns add to its combo (``word``), and for its month (``m``): see ehrready.cells.
    """
    con.execute("BEGIN")
    for table in dict.fromkeys(one.table for one in layout if words and one.table in TABLES):
        con.execute(f'ALTER TABLE "{table}" ADD COLUMN word BIGINT; ALTER TABLE "{table}" ADD COLUMN m INTEGER')
    for one in layout:
        con.execute(f'ALTER TABLE "{one.table}" ADD COLUMN IF NOT EXISTS {one.column} BIGINT DEFAULT 0')
    con.execute(_MADE)
    con.execute("COMMIT")


def _rows(one: Numbered) -> tuple[str, str]:
    """Return the SELECTs of an element's concepts and codings, in the order of the columns of ``concept`` and ``coding``."""
    known = 't.patient_id, t.encounter_id, t.site, t."at"'
    concepts = (
        f'SELECT {quote(one.element)} AS element, t.record, (coalesce(w.ordinal, 1) + {one.behind})::INTEGER AS ordinal, {known}, w."text", '
        f'coalesce(w.n_codings, 0) AS n_codings, w.absent_reason FROM "{one.table}" t {"" if one.optional else "LEFT "}JOIN concept_text w '
        f"ON t.{one.column} = w.x WHERE t.excluded IS NULL AND t.{one.column} IS DISTINCT FROM 0"
    )
    codings = (
        f'SELECT {quote(one.element)} AS element, t.record, {known}, k."position", k."system", k."version", k.code, k.display, '
        f'(k.ordinal + {one.behind})::INTEGER AS concept FROM "{one.table}" t JOIN concept_coding k ON t.{one.column} = k.x WHERE t.excluded IS NULL'
    )
    return concepts, codings


def _filled(con: duckdb.DuckDBPyConnection, layout: Sequence[Numbered]) -> list[Numbered]:
    """Return the elements of tables that have records."""
    there = {table: con.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None for table in {one.table for one in layout}}
    return [one for one in layout if there[one.table]]


def expand(con: duckdb.DuckDBPyConnection, layout: Sequence[Numbered]) -> None:
    """Write a row per concept and per coding, and take the numbers away."""
    pairs = [_rows(one) for one in _filled(con, layout)]
    if pairs:
        con.execute(f"INSERT INTO concept {' UNION ALL '.join(concepts for concepts, _ in pairs)}")
        con.execute(f"INSERT INTO coding {' UNION ALL '.join(codings for _, codings in pairs)}")
    con.execute("BEGIN")
    for one in layout:
        con.execute(f'ALTER TABLE "{one.table}" DROP COLUMN IF EXISTS {one.column}')
    con.execute("DROP TABLE concept_text; DROP TABLE concept_coding")
    con.execute("COMMIT")


def share(con: duckdb.DuckDBPyConnection, layout: Sequence[Numbered]) -> None:
    """Make ``concept`` and ``coding`` views of the numbered records, of the connection that read them."""
    filled = _filled(con, layout)
    if not filled:
        return
    con.execute("DROP TABLE concept; DROP TABLE coding")
    for name, place in (("concept", 0), ("coding", 1)):
        con.execute(f"CREATE TEMP VIEW {name} AS {' UNION ALL '.join(_rows(one)[place] for one in filled)}")
    con.execute("CREATE TEMP TABLE numbered (element VARCHAR, name VARCHAR, x VARCHAR, optional BOOLEAN, behind VARCHAR)")
    con.executemany("INSERT INTO numbered VALUES (?, ?, ?, ?, ?)", [[o.element, o.table, o.column, o.optional, o.behind] for o in filled])


def shared(con: Any) -> Mapping[str, Sequence[Numbered]]:
    """Return the numbered elements by table where ``concept`` and ``coding`` are views; nothing where they are tables."""
    if not is_duckdb(con):
        return {}  # another engine has tables
    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'numbered'").fetchone():
        return {}
    found: dict[str, list[Numbered]] = {}
    for element, table, column, optional, behind in con.execute("SELECT * FROM numbered ORDER BY name, x").fetchall():
        found.setdefault(table, []).append(Numbered(table, element, column, optional, behind))
    return found


def joined(numbered: Sequence[Numbered]) -> str:
    """Return the SQL that joins the state of each numbered concept (``d0``, ``d1``...) to the records ``t``."""
    return "".join(f" LEFT JOIN concept_state d{i} ON t.{one.column} = d{i}.x" for i, one in enumerate(numbered))


def kept(numbered: Sequence[Numbered], used: str, counts: str) -> str:
    """Return the SQL of what of a record ``t`` is kept for its codings, the same columns for every table.

    ``used`` is the month in which the codes of the record were chosen, where that is not its own; ``counts`` whether they are counted.
    """
    if not numbered:
        return ""
    numbers = [f"t.{one.column}" for one in numbered] + ["NULL::BIGINT"] * MOST
    named = ", ".join(f"{sql} AS x{i}" for i, sql in enumerate(numbers[:MOST]))
    return f"t.record, ({numbered[0].behind})::INTEGER AS behind, {named}, {used} AS used, {counts} AS counts, "


def _places(layout: Mapping[str, Sequence[Numbered]], of: Mapping[str, int]) -> str:
    """Return the SQL of the elements by the number of their table and the column of their numbers."""
    rows = {(of[table], int(one.column[1:]), one.element) for table, found in layout.items() if table in of for one in found}
    return "(VALUES " + ", ".join(f"({t}, {i}, {quote(element)})" for t, i, element in sorted(rows)) + ") AS e(t, i, element)"


def counted(layout: Mapping[str, Sequence[Numbered]], of: Mapping[str, int]) -> str:
    """Return the SQL of the different codings of numbered concepts with how often they are said: as ``term`` of ehrready.codings needs.

    ``of`` are the numbers of tables in ``row_of`` (ehrready.cells).
    """
    numbers = " UNION ALL ".join(
        f"SELECT t, {i} AS i, x{i} AS x, count(*) n FROM row_of WHERE counts AND x{i} > 0 GROUP BY t, x{i}" for i in range(MOST)
    )
    return (
        "SELECT e.element, coalesce(k.\"system\", ''), coalesce(k.code, ''), coalesce(k.\"version\", ''), coalesce(k.display, ''), g.n, k.\"position\" "
        f"FROM ({numbers}) g JOIN {_places(layout, of)} ON g.t = e.t AND g.i = e.i JOIN concept_coding k ON g.x = k.x"
    )


def said(layout: Mapping[str, Sequence[Numbered]], of: Mapping[str, int], late: Sequence[str]) -> tuple[str, str]:
    """Return the statements that make ``said`` of numbered concepts; ``late`` are the elements dated by ``used``."""
    month = "CASE WHEN r.m > 0 AND r.m % 100 BETWEEN 1 AND 12 THEN r.m ELSE -1 END"
    rows = " UNION ALL ".join(
        "SELECT k.q, r.record, (r.behind + k.ordinal)::INTEGER AS concept, CASE WHEN r.p > 0 THEN r.p END AS p, "
        f"CASE WHEN k.late THEN r.used ELSE {month} END AS m FROM row_of r JOIN number_term k ON r.x{i} = k.x AND r.t = k.t WHERE k.i = {i} AND r.counts"
        for i in range(MOST)
    )
    return (
        f"CREATE TEMP TABLE number_term AS SELECT e.t, e.i, k.x, k.ordinal, t.q, t.element IN ({', '.join(map(quote, late))}) AS late FROM concept_coding k "
        "JOIN term t ON t.s = coalesce(k.\"system\", '') AND t.c = coalesce(k.code, '') AND t.version = coalesce(k.\"version\", '') "
        f"AND t.display = coalesce(k.display, '') JOIN {_places(layout, of)} ON t.element = e.element",
        f"CREATE TEMP TABLE said AS {rows}",
    )
