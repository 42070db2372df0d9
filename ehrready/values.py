"""What results hold: kinds of values, units and log-bucket histograms by code; one door out, as in ehrready.measure.

Distinct (code, unit) pairs are judged in Python (``ehrready.units``, ``ehrready.analytes``) and joined back, so the cost
does not grow with the rows.  A result counts under one public code: LOINC before SNOMED CT before any other; results
without one are pooled as system ``other``.  Everything is counted per patient first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import analytes, narrow, units
from ehrready.engines.duckdb import quote
from ehrready.histograms import COARSE, GAMMA, PARSES
from ehrready.profile import Frame
from ehrready.readers.blocks import integers, strings
from ehrready.tables import CODED

if TYPE_CHECKING:
    import duckdb

UNPARSEABLE = "?unparseable"
NULL_TOKEN = "?null-token"  # noqa: S105 - the name of a pool, no secret

#: Values that people type for "not known": learnt per analyte, see ``value-plausible``.
SENTINELS = (-9999, -999, -99, -9, -1, 0, 99, 99.9, 999, 999.9, 9999, 9999.9, 99999, 999999, 9999999, 99999999)

#: Shapes of a text: what number it hides.
_NUMBER = r"[+-]?(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
_TAIL = r"\s*([%a-zA-Zµμ°/\[][^ ]{0,19})?"
_SIGN = "(?:<=?|>=?|≤|≥)"


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Fill ``units``, ``values`` and ``value_kinds``, and the rows of ``relations`` about values and units."""
    short = narrow.there(con) and con.execute(f"SELECT 1 FROM {narrow.of('observation')} LIMIT 1").fetchone() is not None
    if not short and not con.execute("SELECT 1 FROM observation LIMIT 1").fetchone():
        return
    _read(con, short)
    _judge(con)
    _cells(con)
    frames["value_kinds"] = _rows(
        con,
        "SELECT coalesce(c.key, 'other'), coalesce(c.code, ''), k.kind, sum(k.n), count(k.p) FROM kind_cell k LEFT JOIN best_code c "
        "USING (r) GROUP BY 1, 2, 3",
        3,
    )
    frames["units"] = _rows(
        con,
        "SELECT 'observation.unit', coalesce(c.key, 'other'), coalesce(c.code, ''), shown, sum(n), count(p), "
        "sum(CASE WHEN p IS NULL THEN n ELSE n * n END), sum(CASE WHEN p IS NULL THEN n ELSE n * total END) FROM "
        "(SELECT r, shown, p, sum(n)::BIGINT n, sum(sum(n)) OVER (PARTITION BY p)::BIGINT total FROM (SELECT k, p, sum(n) n FROM number_sum GROUP BY k, p) "
        "JOIN unit_pair USING (k) GROUP BY r, shown, p) LEFT JOIN best_code c USING (r) GROUP BY 1, 2, 3, 4",
        4,
    )
    _histograms(con, frames)
    _relations(con, frames["relations"])


def _rows(con: duckdb.DuckDBPyConnection, sql: str, keys: int) -> Frame:
    return {tuple(map(str, row[:keys])): tuple(map(int, row[keys:])) for row in con.execute(sql).fetchall()}


def _kind() -> str:
    """Return the SQL of a value's kind: ``number``, ``comparator``, or what its text looks like behind where it stood."""
    shape = (
        f"CASE WHEN null_token(t) THEN 'null-token' WHEN regexp_full_match(t, '{_NUMBER}') THEN "
        "CASE WHEN coalesce(isfinite(try_cast(t AS DOUBLE)), true) THEN 'number' ELSE 'non-finite' END "
        "WHEN regexp_full_match(t, '(?i)[+-]?inf(inity)?') THEN 'non-finite' "
        rf"WHEN regexp_full_match(t, '{_SIGN}?\s*{_NUMBER}\s*[:/]\s*{_NUMBER}') THEN 'ratio' "
        f"WHEN regexp_full_match(t, '{_NUMBER}{_TAIL}') THEN 'number-with-unit' "
        rf"WHEN regexp_full_match(t, '{_SIGN}\s*{_NUMBER}{_TAIL}') THEN 'comparator' "
        rf"WHEN regexp_full_match(t, '{_NUMBER}\s*(-|\x{{2013}}|~|to)\s*{_NUMBER}') THEN 'range' ELSE 'words' END"
    )
    return (
        "CASE WHEN value_kind = 'number' THEN CASE WHEN comparator IS NULL THEN 'number' ELSE 'comparator' END "
        f"WHEN value_kind = 'text' THEN CASE WHEN null_token(t) THEN '' ELSE coalesce(value_declared, 'text') || ':' END || {shape} "
        "WHEN value_kind IS NULL THEN CASE WHEN absent_reason IS NULL THEN 'none' ELSE 'absent' END ELSE value_kind END"
    )


def _codes_of(name: str, keys: str, where: str) -> str:
    """Return the statement that makes a table of the best rank of the codes by some keys of ``said`` (``g``)."""
    return (
        f"CREATE TEMP TABLE {name} AS SELECT {keys}, min(b.r) r FROM said g JOIN (SELECT t.q, b.r FROM term t JOIN best_code b USING (pid)) b "
        f"USING (q){' WHERE ' + where if where else ''} GROUP BY {keys};"
    )


def _read(con: duckdb.DuckDBPyConnection, short: bool) -> None:
    """Make ``reading``: a narrow row per result with its code's rank, patient number, unit as typed, kind and number."""
    parts = con.execute("SELECT 1 FROM component LIMIT 1").fetchone() is not None
    con.execute(
        "CREATE TEMP TABLE best_code AS SELECT pid, key, code, dense_rank() OVER (ORDER BY CASE key WHEN 'loinc' THEN 0 WHEN 'snomed' THEN 1 "
        "ELSE 2 END, key, code)::INTEGER r FROM judge WHERE element = 'observation.code' AND code <> '';"
        + (
            f"CREATE TEMP TABLE rank_of AS SELECT t.cid, min(b.r) r FROM term_of t JOIN best_code b USING (pid) WHERE t.el = {CODED.index('observation.code')} "
            "GROUP BY t.cid;"
            if short
            else _codes_of("code_of", "g.record", "g.concept = 1" if parts else "")
            + (_codes_of("code_of_part", "g.record, g.concept", "g.concept > 1") if parts else "")
        )
        + "CREATE OR REPLACE TEMP TABLE best_code AS SELECT DISTINCT r, key, code FROM best_code"
    )
    # the columns that are needed, with the text that may hide a number; a word behind a number counts when it is a unit
    sources = {"result": narrow.RESULTS if short else "observation WHERE excluded IS NULL"}
    if parts:
        sources["part_result"] = "component WHERE excluded IS NULL"
    for name, source in sources.items():
        con.execute(
            f"CREATE TEMP VIEW {name} AS SELECT *, CASE WHEN value_kind = 'text' THEN replace(trim(value_text, ' \"'), '\u2212', '-') END t FROM {source}"
        )
    tail = f"regexp_extract(t, '^{_NUMBER}{_TAIL}$', 1)"
    found = (row[0] for name in sources for row in con.execute(f"SELECT DISTINCT {tail} FROM {name} WHERE value_kind = 'text'").fetchall())
    tails = sorted({word for word in found if word})
    con.execute("CREATE TEMP TABLE unit_tail (tail VARCHAR)")
    if known := [[word] for word in tails if units.listed(word)]:
        con.executemany("INSERT INTO unit_tail VALUES (?)", known)
    sentinel = " ".join(f"WHEN {value} THEN 'number={value:.9g}'" for value in SENTINELS)
    who, clock, joins = (
        # the time where it has a time of day: midnight is what a date becomes
        "patient_id",
        'CASE WHEN length("at") >= 16 AND substring("at", 12, 5) <> \'00:00\' THEN "at" END',
        "LEFT JOIN code_of USING (record) LEFT JOIN person USING (patient_id)",
    )
    rank = "r"
    if short:
        who, clock, rank = "p, c0, c1", "clock", "least(x.r, y.r)"
        joins = "f LEFT JOIN rank_of x ON f.c0 = x.cid LEFT JOIN rank_of y ON f.c1 = y.cid"
    columns = (
        f"SELECT record, coalesce({rank}, 0) r, CASE WHEN p > 0 THEN p END AS p, clock, u, "
        f"CASE WHEN kind = 'number' THEN CASE v {sentinel} ELSE kind END WHEN ends_with(kind, ':number-with-unit') "
        f"AND {tail} NOT IN (SELECT tail FROM unit_tail) THEN split_part(kind, ':', 1) || ':words' ELSE kind END kind, "
        "kind IN ('number', 'comparator') is_number, CASE WHEN kind = 'number' THEN v END v "
        f"FROM (SELECT record, {who}, "
        f"coalesce(CASE WHEN NOT {narrow.null_token('unit_code')} THEN unit_code END, unit) u, t, {_kind()} kind, value_number v, "
    )
    con.execute(f"CREATE TEMP TABLE reading AS {columns}{clock} AS clock FROM result) {joins}")
    if parts:  # without a clock, which makes duplicates: a record that is there twice is one record too many, whatever it consists of
        of = "LEFT JOIN code_of_part USING (record, concept) LEFT JOIN person USING (patient_id)"
        con.execute(f"INSERT INTO reading {columns}concept, NULL::VARCHAR AS clock FROM part_result) {of}")


def _judge(con: duckdb.DuckDBPyConnection) -> None:
    """Create ``unit_pair``: per distinct (code, unit) what to show, the canonical unit, its class, and the plausible limits."""
    pairs = con.execute(
        "SELECT r, u, null_token(u), c.key, c.code FROM (SELECT DISTINCT r, coalesce(u, '') u FROM reading WHERE is_number) LEFT JOIN best_code c "
        "USING (r) ORDER BY 1, 2"
    ).fetchall()
    columns: list[list[str]] = [[] for _ in range(6)]
    for _, typed, null, key, code in pairs:
        shown = NULL_TOKEN if null and typed else analytes.shown(typed) if typed.strip() else ""
        unit = units.resolve(shown) if shown and shown[0] != "?" else None
        canonical = unit.ucum if unit else "" if shown != UNPARSEABLE else UNPARSEABLE
        limits = analytes.limits(key, code, unit) if unit or shown == "" else None
        row = (typed, shown, canonical, analytes.unit_class(key, code, shown), *(map(repr, limits) if limits else ("", "")))
        for column, text in zip(columns, row, strict=True):
            column.append(text)
    arrays = [integers(np.array([pair[0] for pair in pairs], dtype=np.int64))]
    arrays += [strings([text.encode() for text in column]).cast(pa.large_string()) for column in columns]
    con.register("_pairs", pa.Table.from_arrays(arrays, names=["r", "u", "shown", "canonical", "cls", "low", "high"]))
    # a limit that was converted may be off by the last digit of a double: a value on it is not outside
    con.execute(
        "CREATE TEMP TABLE unit_pair AS SELECT (row_number() OVER (ORDER BY r, u))::INTEGER k, * EXCLUDE (low, high), low - abs(low) * 1e-9 low, high + abs(high) * 1e-9 high FROM (SELECT "
        "r::INTEGER r, u, shown, canonical, cls, try_cast(low AS DOUBLE) low, try_cast(high AS DOUBLE) high FROM _pairs)"
    )
    con.unregister("_pairs")


def _cells(con: duckdb.DuckDBPyConnection) -> None:
    """Add up per patient: ``kind_cell`` (code, kind) and ``number_cell`` (code, unit, sign, bucket, outside the limits).

    Numbers are added up once, by the number ``k`` of their code and unit; all else comes from these sums.
    """
    con.execute(
        "CREATE TEMP TABLE number_sum AS SELECT k, kind, CASE WHEN v < low OR v > high THEN CASE WHEN kind = 'number' THEN 1 ELSE 2 END ELSE 0 END beyond, "
        "v IS NOT NULL AS told, CASE WHEN v = 0 THEN 0 WHEN v < 0 THEN -1 WHEN v > 0 THEN 1 END sign, "
        f"CASE WHEN v <> 0 THEN ceil(ln(abs(v)) / ln({GAMMA}))::INTEGER END b, p, count(*) n FROM "
        "(SELECT coalesce(u, '') u, r, kind, v, p FROM reading WHERE is_number) JOIN unit_pair USING (r, u) GROUP BY k, kind, beyond, told, sign, b, p;"
        "CREATE TEMP VIEW number_cell AS SELECT r, shown, canonical, cls, low IS NOT NULL AND told AS judged, CASE beyond WHEN 1 THEN 'implausible' "
        "WHEN 2 THEN 'sentinel' END outside, sign, b, p, n FROM number_sum JOIN unit_pair USING (k);"
        "CREATE TEMP TABLE kind_cell AS SELECT r, kind || CASE WHEN beyond > 0 THEN '!' ELSE '' END kind, p, sum(n)::BIGINT n FROM (SELECT k, kind, beyond, p, "
        "sum(n) n FROM number_sum GROUP BY k, kind, beyond, p) JOIN unit_pair USING (k) GROUP BY 1, 2, 3 UNION ALL "
        "SELECT r, kind, p, count(*) n FROM reading WHERE NOT is_number GROUP BY r, kind, p"
    )


def _histograms(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count the numbers without a comparator by code, canonical unit and bucket, fine and coarse."""
    con.execute(
        "CREATE TEMP TABLE histogram AS SELECT (row_number() OVER (ORDER BY r, canonical))::INTEGER h, r, canonical FROM (SELECT DISTINCT r, canonical "
        "FROM unit_pair WHERE r > 0);"
        "CREATE TEMP TABLE histogram_of AS SELECT k, h FROM unit_pair JOIN histogram USING (r, canonical);"
        "CREATE TEMP TABLE fine AS SELECT h, sign, b, p, sum(n)::BIGINT n FROM number_sum JOIN histogram_of USING (k) WHERE sign IS NOT NULL "
        "GROUP BY h, sign, b, p"
    )
    for step, prefix in ((1, ""), (COARSE, "c")):
        coarse = f"(SELECT h, sign, ceil(b / {step}.0)::INTEGER b, p, sum(n)::BIGINT n FROM fine GROUP BY ALL)"
        rows = "fine" if step == 1 else coarse
        frames["values"] |= _rows(
            con,
            f"SELECT c.key, c.code, canonical, CASE sign WHEN 0 THEN '{prefix}zero' WHEN -1 THEN 'neg:{prefix}' || b ELSE '{prefix}' || b END, n, patients "
            f"FROM (SELECT h, sign, b, sum(n) n, count(p) patients FROM {rows} GROUP BY h, sign, b) "
            "JOIN histogram USING (h) JOIN best_code c USING (r)",
            4,
        )


def _relations(con: duckdb.DuckDBPyConnection, frame: Frame) -> None:
    """Count the defects of values and units exactly: n of ``of``, with their patients."""

    def add(element: str, table: str, universe: str, defects: dict[str, str]) -> None:
        parts = ", ".join(
            f"coalesce(sum(n) FILTER (WHERE {test}), 0), count(DISTINCT p) FILTER (WHERE {test})" for test in defects.values()
        )
        row = con.execute(f"SELECT coalesce(sum(n), 0), {parts} FROM {table} WHERE {universe}").fetchone() or ()
        for i, kind in enumerate(defects):
            frame[element, kind] = (int(row[1 + 2 * i]), int(row[0]), int(row[2 + 2 * i]))

    lists = {defect: f"kind IN ({', '.join(map(quote, kinds))})" for defect, kinds in PARSES.items()}
    add("observation.value", "kind_cell", "starts_with(kind, 'number') OR kind = 'comparator' OR contains(kind, ':')", lists)
    add("observation.value", "number_cell", "judged", {kind: f"outside = '{kind}'" for kind in ("implausible", "sentinel")})
    classes = ("unit-missing", "unit-unparseable", "unit-incommensurable")
    add("observation.unit", "number_cell", "true", {cls: f"cls = '{cls}'" for cls in classes})
