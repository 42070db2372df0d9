"""Groupings of cells: states of elements, volumes, patients and relations, by all, month, site and group of patients.

Per table the cells are added up per patient and group, with a column for every distinct set of combos that an element's
state or a flag stands for; the integers of the profile are sums over these columns.  Sets that are the same (an element that
every record has) share a column.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrready import bypatient, cells, narrow, sorted_cells
from ehrready.profile import Frame

if TYPE_CHECKING:
    import duckdb

    from ehrready.bypatient import Numbers

#: Groups of patients in which missing data is compared (checks.md 23).
SUBGROUPS = ("sex", "age", "race", "ethnicity")

#: The tables whose months say how long a patient is in the data.
_EVENTS = frozenset({"condition", "allergy", "patient"})


class Columns:
    """The distinct sets of combos that are asked for, each a column ``a<number>`` of the sums per patient; ``single``: a cell is a record."""

    def __init__(self, combos: Sequence[int], single: bool) -> None:
        self._combos, self._single = combos, single
        self._known: dict[frozenset[int], int] = {}
        self.sql: list[str] = []

    def members(self) -> tuple[Numbers, list[Numbers]]:
        """Return the combos in order, and for each column which of them are in its set."""
        combos = np.array(sorted(self._combos), dtype=np.int64)
        return combos, [np.array([combo in found for combo in combos.tolist()], dtype=np.bool_) for found in self._known]

    def of(self, test: str, members: Iterable[int]) -> int:
        """Return the number of the column of the combos that meet a test; a set that is known has one."""
        found = frozenset(members)
        if found not in self._known:
            self._known[found] = len(self.sql)
            every = len(found) == len(self._combos)
            if self._single:
                n = "count(*)" if every else f"count(CASE WHEN {test} THEN 1 END)"
            else:
                n = f"sum({'n' if every else f'CASE WHEN {test} THEN n ELSE 0 END'})::BIGINT"
            self.sql.append(f"{n} AS a{len(self.sql)}")
        return self._known[found]


class Table:
    """The columns of one table, and what each is: ``states`` is element and state to column, ``flags`` flag to column."""

    def __init__(self, name: str, combos: Sequence[int], *, single: bool = False) -> None:
        self.name, self.columns, self.single = name, Columns(combos, single), single
        #: sums by month, where they were made beside other sums
        self.months: list[tuple[int, ...]] | None = None
        self.states: dict[tuple[str, str], int] = {}
        self.flags: dict[str, int] = {}
        self.flags["record"] = self.columns.of(cells.has("record"), (c for c in combos if c & 1))
        for element in cells.elements_of(name):
            seen = {cells.state_of(element, combo) for combo in combos} - {""}
            for state in (*sorted(seen), *(["*"] if seen else [])):
                members = (c for c in combos if (found := cells.state_of(element, c)) and state in {found, "*"})
                self.states[element, state] = self.columns.of(cells.is_state(element, state), members)
        self.shown = len(self.columns.sql)  # the columns behind are asked for over all records only
        for bit, flag in enumerate(cells.FLAGS):
            self.flags[flag] = self.columns.of(cells.has(flag), (c for c in combos if c >> bit & 1))
        self.pairs = sorted({(column, self.states[element, "*"]) for (element, _), column in self.states.items()})

    def sums(self) -> str:
        """Return the SQL of n, patients, Σn² and Σn·of; a row without a patient is its own cluster, so that profiles add."""
        made = []
        for i in range(self.shown):
            made += [
                f"sum(a{i})",
                f"count(CASE WHEN a{i} > 0 AND p > 0 THEN 1 END)",
                f"sum(CASE WHEN p > 0 THEN a{i} * a{i} ELSE a{i} END)",
            ]
        made += [f"sum(CASE WHEN p > 0 THEN a{i} * a{total} ELSE a{i} END)" for i, total in self.pairs]
        return ", ".join(made)

    def add(self, states: Frame, grouping: str, group: str, row: Sequence[Any]) -> None:
        """Add a row of ``sums`` to the frame, states that do not occur left out."""
        behind = {pair: 3 * self.shown + place for place, pair in enumerate(self.pairs)}
        for (element, state), column in self.states.items():
            n, patients, squares = row[3 * column : 3 * column + 3]
            if n:
                of = row[behind[column, self.states[element, "*"]]]
                states[element, grouping, group, state] = (int(n), int(patients), int(squares), int(of))


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], made: Sequence[Table], tables: Sequence[str]) -> None:
    """Fill ``states``, ``volume``, ``patients``, ``history`` and the rows of ``relations`` that are flags of records."""
    places = con.execute("SELECT place, site FROM place WHERE site <> ''").fetchall()
    for table in made:
        _months(con, frames, table)
        _groups(con, frames, table)
        _flags(con, frames["relations"], table, tables)
        if places:
            _sites(con, frames["states"], table, {int(number): str(site) for number, site in places})
    _patients(con, frames, made)


def build(con: duckdb.DuckDBPyConnection, temp: str = cells.TEMP) -> list[Table]:
    """Add the cells of each table up by patient and place (``placed_...``) and by patient (``whole_...``); return the tables that have any.

    ``y`` is the last year of a patient's records, those kept out included.  ``temp``: see ehrready.cells.
    """
    made = _tables(con, temp)
    dated = f"m >= 0 AND {cells.has('record')}"
    century = f"m >= 190000 AND m < 210000 AND {cells.has('record')}"
    either = cells.mask("record") | cells.mask("excluded")
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(bypatient.Sorting(con)) if any(table.single for table in made) else None
        begun = {table.name: sorted_cells.begin(con, work, table) for table in made if work is not None and table.single}
        narrow.forget_cells(con, begun, temp)
        for table in made:
            columns, sums = ", ".join(table.columns.sql), ", ".join(f"sum(a{i})::BIGINT AS a{i}" for i in range(len(table.columns.sql)))
            if table.name in begun:
                table.months = sorted_cells.add_up(con, table, begun[table.name])
            else:
                con.execute(
                    f"CREATE TEMP TABLE placed_{table.name} AS SELECT place, p, {columns}, min(CASE WHEN {dated} THEN m END) first_month, "
                    f"min(CASE WHEN {century} THEN m END) since, max(CASE WHEN {century} THEN m END) until, max(CASE WHEN (combo & {either}) = 0 THEN NULL "
                    f"WHEN m >= 190000 AND m < 210000 THEN m // 100 WHEN m < -1 THEN -m END) y FROM cell WHERE t = {cells.NUMBER[table.name]} GROUP BY place, p"
                )
            con.execute(
                f"CREATE TEMP TABLE whole_{table.name} AS SELECT p, {sums}, min(first_month) first_month, min(since) since, max(until) until, max(y) y "
                f"FROM placed_{table.name} GROUP BY p"
            )
    return made


def _tables(con: duckdb.DuckDBPyConnection, temp: str) -> list[Table]:
    """Return the tables that have cells, in order; how many records have each combo is ``combo_sum`` (``temp``, see ehrready.cells)."""
    con.execute(f"CREATE {temp}TABLE combo_sum AS SELECT t, combo, sum(n)::BIGINT n FROM cell GROUP BY t, combo")
    found: dict[int, list[int]] = {}
    for number, combo in con.execute("SELECT t, combo FROM combo_sum ORDER BY t, combo").fetchall():
        found.setdefault(int(number), []).append(int(combo))
    names, short = list(cells.NUMBER), narrow.tables(con)
    return [Table(names[number], combos, single=names[number] in short) for number, combos in found.items()]


def _months(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], table: Table) -> None:
    record, month_of = 3 * table.flags["record"], "CASE WHEN m < 0 THEN -1 ELSE m END"
    rows: Iterable[Sequence[Any]] | None = table.months
    if rows is None:
        columns = ", ".join(table.columns.sql[: table.shown])
        per_patient = f"SELECT {month_of} AS g, p, {columns} FROM cell WHERE t = {cells.NUMBER[table.name]} GROUP BY {month_of}, p"
        rows = con.execute(f"SELECT g, {table.sums()} FROM ({per_patient}) GROUP BY g ORDER BY g").fetchall()
    for month, *row in rows:
        text = cells.month_text(int(month))
        if row[record]:
            frames["volume"][table.name, text] = (int(row[record]), int(row[record + 1]))
        if text:
            table.add(frames["states"], "month", text, row)


def _groups(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], table: Table) -> None:
    """Add the sums over all records and by group of patients: a patient is in one group, so the sums per patient serve."""
    names = ", ".join(SUBGROUPS)
    sets = ", ".join(f"({name})" for name in SUBGROUPS)
    groups = ", ".join(f"coalesce(d.{name}, 'unknown') {name}" for name in SUBGROUPS)
    rows = con.execute(
        f"SELECT {', '.join(f'grouping({name})' for name in SUBGROUPS)}, {names}, {table.sums()} FROM (SELECT w.*, {groups} FROM whole_{table.name} w "
        f"LEFT JOIN demographic d ON w.p = d.p) GROUP BY GROUPING SETS ((), {sets})"
    ).fetchall()
    width = len(SUBGROUPS)
    for row in rows:
        mine = [i for i in range(width) if not row[i]]
        grouping, group = (SUBGROUPS[mine[0]], str(row[width + mine[0]])) if mine else ("all", "")
        table.add(frames["states"], grouping, group, row[2 * width :])


def _sites(con: duckdb.DuckDBPyConnection, states: Frame, table: Table, sites: dict[int, str]) -> None:
    for place, *row in con.execute(
        f"SELECT place, {table.sums()} FROM placed_{table.name} WHERE place IS NOT NULL GROUP BY place"
    ).fetchall():
        if int(place) in sites:
            table.add(states, "site", sites[int(place)], row)


def _flags(con: duckdb.DuckDBPyConnection, frame: Frame, table: Table, tables: Sequence[str]) -> None:
    """Count the defects that are flags: n of ``of``, and the patients named in these records."""
    name, wanted = table.name, []
    if name not in tables:
        return
    if name in cells.DATED:
        wanted += [(f"{name}.at", "before-birth", "before-birth", "born"), (f"{name}.at", "midnight-only", "midnight", "clocked")]
    if name in cells.CARE:
        wanted.append((f"{name}.at", "after-death", "after-death", "died"))
    if name in cells.ENDED:
        wanted.append((f"{name}.at", "end-before-start", "end-before-start", "ended"))
    if "patient" in tables and name != "patient":
        wanted.append((f"{name}.patient_id", "unresolved", "patient-unresolved", "patient"))
    if "encounter" in tables and name not in {"patient", "encounter"}:
        wanted.append((f"{name}.encounter_id", "unresolved", "visit-unresolved", "visit"))
        wanted.append((f"{name}.encounter_id", "several-patients", "visit-of-another", "visit-of"))
    if not wanted:
        return
    sums = []
    for _, _, defect, universe in wanted:
        a, b = table.flags[defect], table.flags[universe]
        sums += [f"coalesce(sum(a{a}), 0)", f"coalesce(sum(a{b}), 0)", f"count(CASE WHEN a{a} > 0 AND p > 0 THEN p END)"]
    row = con.execute(f"SELECT {', '.join(sums)} FROM whole_{name}").fetchone() or ()
    for place, (element, kind, _, _) in enumerate(wanted):
        frame[element, kind] = (int(row[3 * place]), int(row[3 * place + 1]), int(row[3 * place + 2]))


def _patients(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], made: Sequence[Table]) -> None:
    """Count patients: all, by first month, and by the months between first and last dated event (capped at ten years)."""
    parts = []
    for table in made:
        dated = (
            "NULL::INTEGER first_month, NULL::INTEGER since, NULL::INTEGER until" if table.name in _EVENTS else "first_month, since, until"
        )
        parts.append(f"SELECT p, {dated} FROM whole_{table.name} WHERE p > 0 AND a{table.flags['record']} > 0")
    if not parts:
        frames["patients"]["all", ""] = (0,)
        return
    # a month may be of any two digits: the years' difference counts, as the months' does
    con.execute(
        "CREATE TEMP TABLE span AS SELECT p, min(first_month) first_month, (max(until) // 100 - min(since) // 100) * 12 + max(until) % 100 "
        f"- min(since) % 100 AS months FROM ({' UNION ALL '.join(parts)}) GROUP BY p"
    )
    rows = con.execute(
        "SELECT 'all', 0, count(*) FROM span UNION ALL SELECT 'first', first_month, count(*) FROM span WHERE first_month IS NOT NULL GROUP BY 2 "
        "UNION ALL SELECT 'months', least(months, 120), count(*) FROM span WHERE months IS NOT NULL GROUP BY 2"
    ).fetchall()
    for kind, value, n in rows:
        if kind == "all":
            frames["patients"]["all", ""] = (int(n),)
        elif kind == "first":
            frames["patients"]["first-month", cells.month_text(int(value))] = (int(n),)
        else:
            frames["history"][(f"{int(value):03d}",)] = (int(n),)
