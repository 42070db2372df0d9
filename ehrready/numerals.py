"""Numbers added up: per patient by what they are (``number_sum``), and in log-bucket histograms (``bucket``).

The rows are SQL (ehrready.values) with ``p`` the patient, ``x`` what a number is (code, unit, sentinel or comparator, outside the limits), ``h`` its code and unit,
``v`` the number, ``b`` its fine bucket and ``clocked``, whether it has a time of day.  ``bucket`` has the numbers with an ``h`` and no comparator by sign and bucket ``b``,
fine and coarse (``width``): records and patients.  ``timed`` is how many of them have a patient and a time of day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import bypatient
from ehrready.histograms import COARSE
from ehrready.readers.arrays import integers

if TYPE_CHECKING:
    import duckdb


def count(con: duckdb.DuckDBPyConnection, rows: str, source: str, results: int) -> None:
    """Make ``number_sum``, ``bucket`` and ``timed``; narrow ``results`` (so many of ``source``) are sorted (ehrready.bypatient), else the engine groups them."""
    if not results:
        _grouped(con, rows)
    else:
        _sorted(con, rows, source, results)


def _grouped(con: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Let the engine group the numbers.

    Patients are counted by coarse bucket with a bit for each fine one in it, so that the rows are grouped by patient once.
    """
    con.execute(
        f"CREATE TEMP TABLE numeral AS SELECT x, p, clocked, h, sign(v)::TINYINT AS sign, c::INTEGER AS c, coalesce(b - {COARSE} * c + {COARSE - 1}, 0)::TINYINT AS i "
        f"FROM (SELECT *, coalesce(ceil(b / {COARSE}.0)::INTEGER, 0) AS c FROM ({rows}));"
        "CREATE TEMP TABLE number_sum AS SELECT x, p, count(*) n FROM numeral GROUP BY x, p;"
        "CREATE TEMP TABLE timed AS SELECT count(*) n FROM numeral WHERE clocked AND sign IS NOT NULL AND p IS NOT NULL AND h IS NOT NULL;"
        "CREATE TEMP TABLE in_fine AS SELECT h, sign, c, i, count(*) n FROM numeral WHERE h IS NOT NULL AND sign IS NOT NULL GROUP BY h, sign, c, i;"
        "CREATE TEMP TABLE in_coarse AS SELECT h, sign, c, fine, count(p) patients FROM (SELECT h, sign, c, p, bit_or(bit) fine FROM "
        "(SELECT h, sign, c, p, 1::INTEGER << i AS bit FROM numeral WHERE h IS NOT NULL AND sign IS NOT NULL) GROUP BY h, sign, c, p) GROUP BY h, sign, c, fine"
    )
    of_one = "SELECT h, sign, c, i, sum(patients) patients FROM in_coarse JOIN in_fine USING (h, sign, c) WHERE (fine >> i) & 1 = 1 GROUP BY h, sign, c, i"
    con.execute(
        f"CREATE TEMP TABLE bucket AS SELECT h, sign, '' AS width, {COARSE} * c - {COARSE - 1} + i AS b, n, patients FROM in_fine JOIN ({of_one}) USING (h, sign, c, i) "
        "UNION ALL SELECT h, sign, 'c' AS width, c AS b, n, patients FROM (SELECT h, sign, c, sum(n) n FROM in_fine GROUP BY h, sign, c) "
        "JOIN (SELECT h, sign, c, sum(patients) patients FROM in_coarse GROUP BY h, sign, c) USING (h, sign, c)"
    )


def _sorted(con: duckdb.DuckDBPyConnection, rows: str, source: str, results: int) -> None:
    """Do the same with the numbers sorted, since groups by patient are nearly as many."""
    con.execute(
        "CREATE TEMP TABLE number_sum (x INTEGER, p BIGINT, n BIGINT);"
        "CREATE TEMP TABLE bucket (h INTEGER, sign TINYINT, width VARCHAR, b INTEGER, n BIGINT, patients BIGINT)"
    )
    # ``hs`` is the number of code, unit and sign, -1 without one
    columns = "SELECT coalesce(p, 0) AS p, x, coalesce(h * 3 + sign(v)::TINYINT + 1, -1)::INTEGER AS hs, coalesce(b, 0) AS b, clocked::TINYINT AS clocked"
    timed = 0
    counts: list[bypatient.Numbers] = []
    with bypatient.Sorting(con) as work:
        for part in work.begin(f"{columns} FROM ({rows})", source, results, _part):
            sums, buckets, clocked = part.result()
            con.register("_sums", pa.Table.from_arrays([integers(column) for column in sums], names=["p", "x", "n"]))
            con.execute("INSERT INTO number_sum SELECT x, nullif(p, 0), n FROM _sums")
            con.unregister("_sums")
            counts.append(buckets)
            timed += clocked
    con.execute(f"CREATE TEMP TABLE timed AS SELECT {timed} AS n")
    con.register(
        "_buckets",
        pa.Table.from_arrays([integers(column) for column in np.concatenate(counts, axis=1)], names=["hs", "coarse", "b", "n", "patients"]),
    )
    con.execute(
        "INSERT INTO bucket SELECT hs // 3, hs % 3 - 1, CASE coarse WHEN 1 THEN 'c' ELSE '' END, b, sum(n), sum(patients) FROM _buckets GROUP BY hs, coarse, b"
    )
    con.unregister("_buckets")


def _part(columns: dict[str, bypatient.Numbers]) -> tuple[tuple[bypatient.Numbers, ...], bypatient.Numbers, int]:
    """Return of some patients' numbers the sums by patient and ``x``, the buckets (columns of ``_sorted``), and how many have a patient and a time of day."""
    patients, x, first = bypatient.pairs(columns["p"], columns["x"])
    sums = (patients, x, np.diff(first, append=len(columns["p"])))
    told = columns["hs"] >= 0
    p, hs, b, clocked = (columns[name] if told.all() else columns[name][told] for name in ("p", "hs", "b", "clocked"))
    if not len(p):
        return sums, np.zeros((5, 0), np.int64), 0
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
    return sums, np.concatenate([np.stack(columns) for columns in found], axis=1), int(np.count_nonzero(clocked[p > 0]))
