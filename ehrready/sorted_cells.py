"""Narrow cells added up by month and patient, and by place and patient, by sorting them (ehrready.bypatient): what ehrready.states lets the engine group else."""

from __future__ import annotations

import functools
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ehrready import bypatient
from ehrready.bypatient import Numbers
from ehrready.readers.arrays import integers

if TYPE_CHECKING:
    import duckdb

    from ehrready.states import Table

#: Rows of ``placed_...`` as columns, months, and a row of sums for each.
Part = tuple[list[Numbers], Numbers, Numbers]
#: No month, and a month behind all.
_NONE, _LAST = -1, 10**9
#: What a row of ``placed_...`` has besides patient, place and the columns: SQL of a patient's first month, and of the first, the last and the year of the last of a century.
_MONTHS = ("first_month", "since", "until", "y")


def begin(con: duckdb.DuckDBPyConnection, work: bypatient.Sorting, table: Table) -> list[Future[Part]]:
    """Start what ``add_up`` awaits."""
    source = f"cell_{table.name}"
    (rows,) = con.execute(f"SELECT count(*) FROM {source}").fetchall()[0]
    sql = f"SELECT coalesce(n.p, 0) AS p, coalesce(n.place, 0) AS place, n.m, n.combo FROM {source} n WHERE true{bypatient.AMONG}"
    return work.begin(sql, source, int(rows), functools.partial(_part, table))


def add_up(con: duckdb.DuckDBPyConnection, table: Table, parts: list[Future[Part]]) -> list[tuple[int, ...]]:
    """Make ``placed_...`` of a table of narrow records, and return its sums by month (month, then ``Table.sums``)."""
    width = len(table.columns.sql)
    columns = [*(f"a{i}" for i in range(width)), *_MONTHS]
    typed = [*(f"{name} BIGINT" for name in columns[:width]), *(f"{name} INTEGER" for name in _MONTHS)]
    con.execute(f"CREATE TEMP TABLE placed_{table.name} (place INTEGER, p BIGINT, {', '.join(typed)})")
    told = ", ".join([*columns[:width], *(f"nullif({name}, {_NONE})" for name in _MONTHS)])
    sums: dict[int, Numbers] = {}
    for part in parts:
        placed, months, by_month = part.result()
        con.register("_placed", pa.Table.from_arrays([integers(column) for column in placed], names=["place", "p", *columns]))
        con.execute(f"INSERT INTO placed_{table.name} SELECT nullif(place, 0), nullif(p, 0), {told} FROM _placed")
        con.unregister("_placed")
        for month, row in zip(months.tolist(), by_month, strict=True):
            sums[month] = sums.get(month, 0) + row
    return [(month, *sums[month].tolist()) for month in sorted(sums)]


def _part(table: Table, columns: dict[str, Numbers]) -> Part:
    """Return of some patients' cells the rows of ``placed_...``, and the months with a row of sums each."""
    combos, members = table.columns.members()
    which = np.searchsorted(combos, columns["combo"]).astype(np.uint32)
    bits = len(combos).bit_length()
    months, month = bypatient.numbered(columns["m"])
    patients, n, which_of, month_of = _cells(columns["p"], month, len(months), which, bits)
    at = np.flatnonzero(bypatient.begins(patients, month_of))
    by_month = _moments(
        table, [_sums(n, which_of, at, member) for member in members[: table.shown]], month_of[at], len(months), patients[at]
    )
    dated = _dated(patients[at], months[month_of[at]])
    places, place = bypatient.numbered(columns["place"])
    patients, n, which_of, place_of = _cells(columns["p"], place, len(places), which, bits)
    at = np.flatnonzero(bypatient.begins(patients, place_of))
    patients = patients[at]
    patient = np.cumsum(bypatient.begins(patients)) - 1
    sums = [_sums(n, which_of, at, member) for member in members]
    return [places[place_of[at]], patients, *sums, *(column[patient] for column in dated)], months, by_month


def _cells(p: Numbers, group: Numbers, groups: int, which: Numbers, bits: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return the cells by patient and group: patient, records, combo (``which``, a number of so many ``bits``), group.

    Records are doubles, which sums take as they are and whose squares are exact up to 94 million.
    """
    kind: type[np.unsignedinteger[Any]] = np.uint32 if groups.bit_length() + bits <= 32 else np.uint64
    patients, keys, first = bypatient.pairs(p, (group.astype(kind) << kind(bits)) | which.astype(kind))
    n = np.diff(first, append=len(p)).astype(np.float64)
    return patients, n, keys & keys.dtype.type((1 << bits) - 1), keys >> keys.dtype.type(bits)


def _sums(n: Numbers, which: Numbers, at: Numbers, member: Numbers) -> Numbers:
    """Return the records of some combos in each group of cells that stand side by side."""
    return np.add.reduceat(n if member.all() else n * member[which], at)


def _moments(table: Table, sums: list[Numbers], group: Numbers, groups: int, patients: Numbers) -> Numbers:
    """Return a row per group: of each column n, patients and Σn², then Σn·of (``Table.sums``); a row without a patient is its own cluster."""
    none = int(np.searchsorted(patients, 1))
    known: dict[tuple[int, int], Numbers] = {}

    def product(column: int, whole: int) -> Numbers:
        if (column, whole) not in known:
            values = sums[column] * sums[whole]
            values[:none] = sums[column][:none]
            known[column, whole] = np.bincount(group, values, groups)
        return known[column, whole]

    found = []
    for i, one in enumerate(sums):
        found += [np.bincount(group, one, groups), np.bincount(group[none:][one[none:] > 0], minlength=groups), product(i, i)]
    found += [product(column, whole) for column, whole in table.pairs]
    return np.stack(found, axis=1).astype(np.int64)


def _dated(patients: Numbers, month: Numbers) -> list[Numbers]:
    """Return a patient's months (``_MONTHS``), -1 where there are none; the rows are by patient.

    Of narrow records all count, and a month is yyyymm or -1 (others go the long way): what else ehrready.states asks of a cell is always so.
    """
    at = np.flatnonzero(bypatient.begins(patients))
    century = (month >= 190000) & (month < 210000)
    first = np.minimum.reduceat(np.where(month >= 0, month, _LAST), at)
    since = np.minimum.reduceat(np.where(century, month, _LAST), at)
    until = np.maximum.reduceat(np.where(century, month, _NONE), at)
    return [
        np.where(first == _LAST, _NONE, first),
        np.where(since == _LAST, _NONE, since),
        until,
        np.where(until == _NONE, _NONE, until // 100),
    ]
