"""Numbers added up: per patient by what they are (``number_sum``), and in log-bucket histograms (``bucket``).

The rows are SQL (ehrready.values) with ``p`` the patient, ``x`` what a number is (code, unit, sentinel or comparator, outside the limits), ``h`` its code and unit,
``v`` the number, ``b`` its fine bucket and ``clocked``, whether it has a time of day.  ``bucket`` has the numbers with an ``h`` and no comparator by sign and bucket ``b``,
fine and coarse (``width``): records and patients.  ``timed`` is how many of them have a patient and a time of day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ehrready.histograms import COARSE

if TYPE_CHECKING:
    import duckdb


def count(con: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Make ``number_sum``, ``bucket`` and ``timed`` (of narrow rows see ehrready.sorted_numbers).

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
