"""Narrow numbers added up by sorting them (ehrready.bypatient): what ehrready.numerals and ehrready.values let the engine group else.

Sorted by patient and by what they are, numbers are added up by kind, unit and defect on the way, so that no table of their sums per patient is needed.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import bypatient
from ehrready.bypatient import Numbers
from ehrready.histograms import COARSE
from ehrready.readers.arrays import integers
from ehrready.sorted_terms import Grouping, moments

if TYPE_CHECKING:
    import duckdb

#: Classes of units that are defects.
UNITS = ("unit-missing", "unit-unparseable", "unit-incommensurable")
#: Defects that are counted with their patients: a number outside the limits of its code, one that is typed for "not known", and those of its unit.
_DEFECTS = ("implausible", "sentinel", *UNITS)


@dataclass(frozen=True, slots=True)
class Told:
    """What the numbers of code and unit (``unit_pair``) stand for, by number; ``kinds`` is what ``x`` says besides: ``x`` is the number times so many, plus the place."""

    codes: Numbers
    #: code and unit as it is shown, by the number of the pair
    units: Numbers
    names: Sequence[tuple[str, str, str]]
    limited: Numbers
    #: place in ``UNITS``, -1 for none
    classes: Numbers
    kinds: Sequence[str]


@dataclass(slots=True)
class Sums:
    """Sums of numbers: by code and kind n and patients, by unit the moments too, by defect n and patients; how many are judged, and are timed."""

    kinds: dict[tuple[int, str], tuple[int, ...]]
    units: dict[tuple[str, str, str], tuple[int, ...]]
    defects: dict[str, tuple[int, ...]]
    judged: int = 0
    timed: int = 0
    n: int = 0


#: Of a part: sums by keys of kinds, and of units, then by defect, how many are judged, the buckets (columns of ``count``), and how many are timed.
_Part = tuple[tuple[Numbers, Numbers], tuple[Numbers, Numbers], list[Numbers], int, Numbers, int]


def told(con: duckdb.DuckDBPyConnection, kinds: Sequence[str]) -> Told:
    """Return what the rows of ``unit_pair`` are."""
    rows = con.execute(
        "SELECT r, coalesce(c.key, 'other'), coalesce(c.code, ''), shown, cls, low IS NOT NULL FROM unit_pair LEFT JOIN best_code c USING (r) ORDER BY k"
    ).fetchall()
    names: dict[tuple[str, str, str], int] = {}
    places = [names.setdefault((key, code, shown), len(names)) for _, key, code, shown, _, _ in rows]
    classes = [UNITS.index(row[4]) if row[4] in UNITS else -1 for row in rows]
    # numbers begin at 1
    code, unit, defect = (np.array([0, *column], np.int64) for column in ([row[0] for row in rows], places, classes))
    return Told(code, unit, list(names), np.array([False, *(row[5] for row in rows)]), defect, kinds)


def count(con: duckdb.DuckDBPyConnection, rows: str, source: str, results: int, told: Told) -> Sums:
    """Make ``bucket`` (ehrready.numerals) and return the sums of the numbers; there are so many ``results`` in the table ``source``."""
    con.execute("CREATE TEMP TABLE bucket (h INTEGER, sign TINYINT, width VARCHAR, b INTEGER, n BIGINT, patients BIGINT)")
    # ``hs`` is the number of code, unit and sign, -1 without one
    columns = "SELECT coalesce(p, 0) AS p, x, coalesce(h * 3 + sign(v)::TINYINT + 1, -1)::INTEGER AS hs, coalesce(b, 0) AS b, clocked::TINYINT AS clocked"
    by_kind, by_unit = defaultdict[int, Numbers](lambda: np.zeros(2, np.int64)), defaultdict[int, Numbers](lambda: np.zeros(4, np.int64))
    defects = np.zeros((len(_DEFECTS), 2), np.int64)
    sums = Sums({}, {}, {})
    counts: list[Numbers] = []
    with bypatient.Sorting(con) as work:
        for part in work.begin(f"{columns} FROM ({rows})", source, results, functools.partial(_part, told)):
            kinds, units, defective, judged, buckets, timed = part.result()
            for found, (keys, values) in ((by_kind, kinds), (by_unit, units)):
                for key, row in zip(keys.tolist(), values, strict=True):
                    found[key] += row
            defects += np.concatenate(defective)
            sums.judged += judged
            sums.timed += timed
            counts.append(buckets)
    width = len(told.kinds)
    sums.kinds = {(key // width, told.kinds[key % width]): tuple(row.tolist()) for key, row in by_kind.items()}
    sums.units = {told.names[key]: tuple(row.tolist()) for key, row in by_unit.items()}
    sums.defects = {name: tuple(row) for name, row in zip(_DEFECTS, defects.tolist(), strict=True)}
    sums.n = sum(row[0] for row in sums.units.values())
    con.register(
        "_buckets",
        pa.Table.from_arrays([integers(column) for column in np.concatenate(counts, axis=1)], names=["hs", "coarse", "b", "n", "patients"]),
    )
    con.execute(
        "INSERT INTO bucket SELECT hs // 3, hs % 3 - 1, CASE coarse WHEN 1 THEN 'c' ELSE '' END, b, sum(n), sum(patients) FROM _buckets GROUP BY hs, coarse, b"
    )
    con.unregister("_buckets")
    return sums


def _part(told: Told, columns: dict[str, Numbers]) -> _Part:
    """Return the sums of some patients' numbers."""
    patients, x, first = bypatient.pairs(columns["p"], columns["x"])
    n = np.diff(first, append=len(columns["p"])).astype(np.float64)
    xs, terms = bypatient.numbered(x)
    pair, kind = np.divmod(xs.astype(np.int64), len(told.kinds))
    names = np.array(told.kinds)[kind]
    limits = np.char.endswith(names, "!") & told.limited[pair]
    defective = [
        limits & (names == "number!"),
        limits & (names != "number!"),
        *(told.classes[pair] == place for place in range(len(UNITS))),
    ]
    judged = told.limited[pair] & ~np.char.startswith(names, "comparator")
    many = np.bincount(terms, n, len(xs))

    def grouped(keys: Numbers, width: int) -> tuple[Numbers, Numbers]:
        found, group = np.unique(keys, return_inverse=True)
        return found, moments(_grouping(group, len(found), width), patients, terms, n)

    sums = (
        grouped(told.codes[pair] * len(told.kinds) + kind, 2),
        grouped(told.units[pair], 4),
        [moments(_grouping(np.where(found, 0, -1), 1, 2), patients, terms, n) for found in defective],
        int(many[judged].sum()),
    )
    return *sums, *_buckets(columns)


def _grouping(group: Numbers, groups: int, width: int) -> Grouping:
    """Return groups that are all within the same."""
    return Grouping("", [("",)] * groups, group, np.ones(groups, np.int64), width)


def _buckets(columns: dict[str, Numbers]) -> tuple[Numbers, int]:
    """Return of some patients' numbers the buckets (columns of ``count``), and how many have a patient and a time of day."""
    told = columns["hs"] >= 0
    p, hs, b, clocked = (columns[name] if told.all() else columns[name][told] for name in ("p", "hs", "b", "clocked"))
    if not len(p):
        return np.zeros((5, 0), np.int64), 0
    low, width = int(b.min()), int(b.max()) - int(b.min()) + 1
    keys, places = bypatient.numbered(hs.astype(np.int64) * width + (b - low))
    hs, b = keys // width, keys % width + low
    n = np.bincount(places, minlength=len(keys))
    patients, fine, _ = bypatient.pairs(p, places)
    named = slice(int(np.searchsorted(patients, 1)), None)
    patients, fine = patients[named], fine[named]
    found = [(hs, np.zeros_like(hs), b, n, np.bincount(fine, minlength=len(keys)))]
    # keys are in order of their coarse buckets, too: pairs that are the same in these still stand side by side
    starts = bypatient.begins(hs, -(-b // COARSE))
    coarse = np.cumsum(starts) - 1
    fine = coarse[fine]
    held = np.bincount(fine[bypatient.begins(patients, fine)], minlength=int(coarse[-1]) + 1)
    hs, b = hs[starts], -(-b[starts] // COARSE)
    found.append((hs, np.ones_like(hs), b, np.add.reduceat(n, np.flatnonzero(starts)), held))
    return np.concatenate([np.stack(columns) for columns in found], axis=1), int(np.count_nonzero(clocked[p > 0]))
