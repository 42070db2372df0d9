"""Narrow codings added up by term and patient, by sorting them (ehrready.bypatient): what ehrready.codings lets the engine group else.

What stands sorted by patient and term is added up by groups of terms on the way, with the moments over patients.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import bypatient, narrow
from ehrready.bypatient import Numbers
from ehrready.profile import Frame
from ehrready.readers.arrays import integers

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of terms, each with its key in a frame: a term's group (-1: none), and what a group is within (a number that rises with the group's).

    ``width``: of n, patients, Σn² and Σn·of (of the patient's codings within) so many are wanted, 2 or 4.
    """

    frame: str
    names: Sequence[tuple[str, ...]]
    group: Numbers
    within: Numbers
    width: int


def grouping(con: duckdb.DuckDBPyConnection, frame: str, sql: str, width: int = 4) -> Grouping:
    """Return the groups of a SELECT of term (``q``), group, what the group is within, and the columns of its key; both numbers begin at 1."""
    rows = con.execute(sql).fetchall()
    (terms,) = con.execute("SELECT coalesce(max(q), -1) + 1 FROM term").fetchall()[0]
    group, groups = np.full(int(terms), -1, np.int64), max((row[1] for row in rows), default=0)
    names: list[tuple[str, ...]] = [("",)] * groups
    within = np.zeros(groups, np.int64)
    for q, k, w, *name in rows:
        group[q], within[k - 1], names[k - 1] = k - 1, w, tuple(map(str, name))
    return Grouping(frame, names, group, within, width)


def count(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], groupings: Sequence[Grouping]) -> None:
    """Add the codings of narrow records to ``per_term``, and to the frames: terms and groups are of one element, so that each table has its own."""
    sums = [np.zeros((len(one.names), one.width), np.int64) for one in groupings]
    with bypatient.Sorting(con) as work:
        for table in narrow.tables(con):
            source = narrow.of(table)
            codings = [
                f"SELECT coalesce(n.p, 0) AS p, t.q::INTEGER AS q FROM {source} n JOIN (SELECT cid, q FROM term_of WHERE el = {el}) t ON n.{column} = t.cid "
                f"WHERE true{bypatient.AMONG}"
                for el, column in narrow.codes(con, table)
            ]
            if not codings:
                continue
            (rows,) = con.execute(f"SELECT count(*) FROM {source}").fetchall()[0]
            for part in work.begin(" UNION ALL ".join(codings), source, int(rows), functools.partial(_part, groupings)):
                per_term, by_group = part.result()
                con.register("_sums", pa.Table.from_arrays([integers(column) for column in per_term], names=["p", "q", "n"]))
                con.execute("INSERT INTO per_term SELECT q, nullif(p, 0), n FROM _sums")
                con.unregister("_sums")
                sums = [whole + more for whole, more in zip(sums, by_group, strict=True)]
    for one, whole in zip(groupings, sums, strict=True):
        for place in np.flatnonzero(whole[:, 0]).tolist():
            frames[one.frame][one.names[place]] = tuple(whole[place].tolist())


def _part(groupings: Sequence[Grouping], columns: dict[str, Numbers]) -> tuple[tuple[Numbers, Numbers, Numbers], list[Numbers]]:
    """Return of some patients' codings the patient, the term and how many are the same; and their sums by each grouping."""
    patients, terms, first = bypatient.pairs(columns["p"], columns["q"])
    n = np.diff(first, append=len(columns["p"]))
    return (patients, terms, n), [moments(one, patients, terms, n.astype(np.float64)) for one in groupings]


def moments(grouping: Grouping, patients: Numbers, terms: Numbers, n: Numbers) -> Numbers:
    """Return a row of sums per group of what is sorted by patient and term; what has no patient is its own cluster.  Sums of doubles are exact up to 2^53."""
    groups = len(grouping.names)
    if not len(terms) or (grouping.group < 0).all():
        return np.zeros((groups, grouping.width), np.int64)
    group = grouping.group[terms]
    if group.min() < 0:
        told = group >= 0
        patients, group, n = patients[told], group[told], n[told]
    if (np.diff(grouping.group[grouping.group >= 0]) < 0).any():  # a patient's groups are not in order where those of the terms are not
        order = np.lexsort((group, patients))
        patients, group, n = patients[order], group[order], n[order]
    at = np.flatnonzero(bypatient.begins(patients, group))
    patients, group, n = patients[at], group[at], np.add.reduceat(n, at) if len(at) else n
    named = patients > 0
    sums = [np.bincount(group, n, groups), np.bincount(group[named], minlength=groups)]
    if grouping.width > len(sums):
        runs = bypatient.begins(patients, grouping.within[group])
        total = (np.add.reduceat(n, np.flatnonzero(runs)) if len(n) else n)[np.cumsum(runs) - 1]
        sums += [np.bincount(group, np.where(named, n * n, n), groups), np.bincount(group, np.where(named, n * total, n), groups)]
    return np.stack(sums, axis=1).astype(np.int64)
