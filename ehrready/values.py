"""What results hold: kinds of values, units and log-bucket histograms by code; one door out, as in ehrready.measure.

Distinct (code, unit) pairs are judged in Python (``ehrready.units``, ``ehrready.analytes``) and joined back, so the cost
does not grow with the rows.  A result counts under one public code: LOINC before SNOMED CT before any other; results
without one are pooled as system ``other``.  Everything is counted per patient first.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import analytes, bypatient, narrow, numerals, sorted_numbers, units
from ehrready.engines.duckdb import quote
from ehrready.histograms import GAMMA, PARSES
from ehrready.profile import Frame
from ehrready.readers.arrays import integers, strings
from ehrready.tables import CODED

if TYPE_CHECKING:
    import duckdb

UNPARSEABLE = "?unparseable"
NULL_TOKEN = "?null-token"  # noqa: S105 - the name of a pool, no secret

#: Values that people type for "not known": learnt per analyte, see ``value-plausible``.
SENTINELS = (-9999, -999, -99, -9, -1, 0, 99, 99.9, 999, 999.9, 9999, 9999.9, 99999, 999999, 9999999, 99999999)

# most numbers lie between two of them
_SENTINEL = f"CASE WHEN v > 0 AND v < 99 THEN 0 WHEN v > 99.9 AND v < 999 THEN 0 ELSE CASE v {' '.join(f'WHEN {value} THEN {place}' for place, value in enumerate(SENTINELS, 1))} ELSE 0 END END"
_IS_NUMBER = "kind IN ('number', 'comparator')"
#: Kinds of numbers that ``x`` tells apart, and the last of them.
_TYPED, _COMPARATOR = len(SENTINELS) + 2, len(SENTINELS) + 1

#: Shapes of a text: what number it hides.
_NUMBER = r"[+-]?(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
_TAIL = r"\s*([%a-zA-Zµμ°/\[][^ ]{0,19})?"
_SIGN = "(?:<=?|>=?|≤|≥)"


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Fill ``units``, ``values`` and ``value_kinds``, and the rows of ``relations`` about values and units."""
    results = int(con.execute(f"SELECT count(*) FROM {narrow.of('observation')}").fetchall()[0][0]) if narrow.there(con) else 0
    short = results > 0
    if not short and not con.execute("SELECT 1 FROM observation LIMIT 1").fetchone():
        return
    _read(con, short)
    numbers = _judge(con, short)
    con.execute("CREATE TEMP TABLE kind_cell AS SELECT r, kind, p, count(*) n FROM reading WHERE NOT is_number GROUP BY r, kind, p")
    if short:
        _sorted(con, frames, numbers, results)
    else:
        _grouped(con, frames, numbers)
    frames["values"] |= _histograms(con)


def _sorted(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], numbers: str, results: int) -> None:
    """Fill the frames with narrow numbers, which are added up as they are sorted."""
    kinds = [f"{name}{mark}" for name in ("number", *(f"number={value:.9g}" for value in SENTINELS), "comparator") for mark in ("", "!")]
    sums = sorted_numbers.count(con, _told(numbers), narrow.of("observation"), results, sorted_numbers.told(con, kinds))
    con.execute(f"CREATE TEMP TABLE timed AS SELECT {sums.timed} AS n")
    codes = {0: ("other", ""), **{r: (key, code) for r, key, code in con.execute("SELECT r, key, code FROM best_code").fetchall()}}
    frames["value_kinds"] = _kinds(con, "") | {(*codes[r], kind): values for (r, kind), values in sums.kinds.items()}
    frames["units"] = {("observation.unit", *name): values for name, values in sums.units.items()}
    relations = frames["relations"]
    _hidden(con, relations, f"SELECT 'number', NULL, {sums.n}::BIGINT")
    for defect, (n, patients) in sums.defects.items():
        of_units = defect in sorted_numbers.UNITS
        relations["observation.unit" if of_units else "observation.value", defect] = (n, sums.n if of_units else sums.judged, patients)


def _grouped(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], numbers: str) -> None:
    """Fill the frames with numbers that the engine groups."""
    _cells(con, numbers)
    frames["value_kinds"] = _kinds(con, _number_kinds(con))
    frames["units"] = _units(con)
    _relations(con, frames["relations"])


def _rows(con: duckdb.DuckDBPyConnection, sql: str, keys: int) -> Frame:
    return {tuple(map(str, row[:keys])): tuple(map(int, row[keys:])) for row in con.execute(sql).fetchall()}


#: The text that may hide a number.
HIDDEN = "CASE WHEN value_kind = 'text' THEN replace(trim(value_text, ' \"'), '\u2212', '-') END"


#: All that ``kind`` may be of a table with numbers, texts and codes.
KINDS = (
    "number", "comparator", "none", "coded", "null-token",
    *(f"{place}:{shape}" for place in ("text", "declared") for shape in (
        "number", "non-finite", "ratio", "number-with-unit", "comparator", "range", "words"
    )),
)  # fmt: skip


def kind(t: str) -> str:
    """Return the SQL of a value's kind: ``number``, ``comparator``, or what its text ``t`` looks like behind where it stood."""
    shape = (
        f"CASE WHEN null_token({t}) THEN 'null-token' WHEN regexp_full_match({t}, '{_NUMBER}') THEN "
        f"CASE WHEN coalesce(isfinite(try_cast({t} AS DOUBLE)), true) THEN 'number' ELSE 'non-finite' END "
        f"WHEN regexp_full_match({t}, '(?i)[+-]?inf(inity)?') THEN 'non-finite' "
        rf"WHEN regexp_full_match({t}, '{_SIGN}?\s*{_NUMBER}\s*[:/]\s*{_NUMBER}') THEN 'ratio' "
        f"WHEN regexp_full_match({t}, '{_NUMBER}{_TAIL}') THEN 'number-with-unit' "
        rf"WHEN regexp_full_match({t}, '{_SIGN}\s*{_NUMBER}{_TAIL}') THEN 'comparator' "
        rf"WHEN regexp_full_match({t}, '{_NUMBER}\s*(-|\x{{2013}}|~|to)\s*{_NUMBER}') THEN 'range' ELSE 'words' END"
    )
    return (
        "CASE WHEN value_kind = 'number' THEN CASE WHEN comparator IS NULL THEN 'number' ELSE 'comparator' END "
        f"WHEN value_kind = 'text' THEN CASE WHEN null_token({t}) THEN '' ELSE coalesce(value_declared, 'text') || ':' END || {shape} "
        "WHEN value_kind IS NULL THEN CASE WHEN absent_reason IS NULL THEN 'none' ELSE 'absent' END ELSE value_kind END"
    )


def _codes_of(name: str, keys: str, where: str) -> str:
    """Return the statement that makes a table of the best rank of the codes by some keys of ``said`` (``g``)."""
    return (
        f"CREATE TEMP TABLE {name} AS SELECT {keys}, min(b.r) r FROM said g JOIN (SELECT t.q, b.r FROM term t JOIN best_code b USING (pid)) b "
        f"USING (q){' WHERE ' + where if where else ''} GROUP BY {keys};"
    )


def _read(con: duckdb.DuckDBPyConnection, short: bool) -> None:
    """Make ``reading``: a row per result with its code's rank, patient number, unit as typed, kind and number."""
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
    # the columns that are needed, with the text that may hide a number; the time where it has a time of day: midnight is what a date becomes
    told = f"SELECT record, patient_id, coalesce(CASE WHEN NOT {narrow.null_token('unit_code')} THEN unit_code END, unit) u, t, {kind('t')} kind, value_number v"
    clock = 'CASE WHEN length("at") >= 16 AND substring("at", 12, 5) <> \'00:00\' THEN "at" END'
    sources = {"result": f"{told}, {clock} AS clock FROM (SELECT *, {HIDDEN} t FROM observation WHERE excluded IS NULL)"}
    rank, joins = "r", "LEFT JOIN code_of USING (record) LEFT JOIN person USING (patient_id)"
    first, second = (narrow.code("observation.code", place) for place in range(narrow.CODINGS))
    if short:
        sources["result"] = (
            f"SELECT n.* REPLACE (coalesce(k.code, n.u) AS u) FROM {narrow.of('observation')} n LEFT JOIN {narrow.CONCEPTS} k ON n.ucum = k.id"
        )
        rank, joins = "least(x.r, y.r)", f"f LEFT JOIN rank_of x ON f.{first} = x.cid LEFT JOIN rank_of y ON f.{second} = y.cid"
    if parts:  # without a clock, which makes duplicates: a record that is there twice is one record too many, whatever it consists of
        sources["part_result"] = (
            f"{told}, concept, NULL::VARCHAR AS clock FROM (SELECT *, {HIDDEN} t FROM component WHERE excluded IS NULL)"
        )
    for name, source in sources.items():
        con.execute(f"CREATE TEMP VIEW {name} AS {source}")
    # a word behind a number counts when it is a unit
    tail = f"regexp_extract(t, '^{_NUMBER}{_TAIL}$', 1)"
    found = (row[0] for name in sources for row in con.execute(f"SELECT DISTINCT {tail} FROM {name} WHERE t IS NOT NULL").fetchall())
    tails = sorted({word for word in found if word})
    con.execute("CREATE TEMP TABLE unit_tail (tail VARCHAR)")
    if known := [[word] for word in tails if units.listed(word)]:
        con.executemany("INSERT INTO unit_tail VALUES (?)", known)
    columns = (
        f"SELECT record, coalesce({rank}, 0) r, CASE WHEN p > 0 THEN p END AS p, clock, u, CASE WHEN ends_with(kind, ':number-with-unit') "
        f"AND {tail} NOT IN (SELECT tail FROM unit_tail) THEN split_part(kind, ':', 1) || ':words' ELSE kind END kind, "
        f"{'v IS NOT NULL' if short else _IS_NUMBER} is_number, CASE WHEN kind = 'number' THEN v END v, "
        f"(CASE WHEN kind = 'number' THEN {_SENTINEL} ELSE 0 END)::TINYINT s FROM "
    )
    # narrow rows are short as they are
    con.execute(f"CREATE TEMP {'VIEW' if short else 'TABLE'} reading AS {columns}result {joins}")
    if parts:
        of = "LEFT JOIN code_of_part USING (record, concept) LEFT JOIN person USING (patient_id)"
        con.execute(f"INSERT INTO reading {columns}part_result {of}")
    typed = "SELECT DISTINCT r, u FROM reading WHERE is_number"
    if short:
        keys = (first, second, "ucum", "u")
        counts = con.execute(f"SELECT {', '.join(f'count({key})' for key in keys)} FROM {narrow.of('observation')}").fetchall()[0]
        # what nobody says is no key: most units are concepts, and most codes are one
        said = [key for key, n in zip(keys, counts, strict=True) if n or key == first]
        rest = "".join(f", NULL::{'VARCHAR' if key == 'u' else 'BIGINT'} AS {key}" for key in keys if key not in said)
        numbers = f"SELECT *{rest} FROM (SELECT DISTINCT {', '.join(said)} FROM {narrow.of('observation')} WHERE v IS NOT NULL)"
        typed = f"SELECT f.* EXCLUDE (u), f.u AS word, coalesce(k.code, f.u) AS u, coalesce({rank}, 0) r FROM ({numbers}) {joins} LEFT JOIN {narrow.CONCEPTS} k ON f.ucum = k.id"
    con.execute(f"CREATE TEMP TABLE typed AS {typed}")


def _judge(con: duckdb.DuckDBPyConnection, short: bool) -> str:
    """Create ``unit_pair``: per distinct (code, unit) what to show, the canonical unit, its class, and the plausible limits.

    Returns the SQL of the numbers, each with its pair; of narrow rows with the mark of ``bypatient.parts``.
    """
    pairs = con.execute(
        "SELECT r, u, null_token(u), c.key, c.code FROM (SELECT DISTINCT r, coalesce(u, '') u FROM typed) LEFT JOIN best_code c "
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
        "CREATE TEMP TABLE unit_pair AS SELECT (row_number() OVER (ORDER BY r, u))::INTEGER k, CASE WHEN r > 0 THEN (dense_rank() OVER "
        "(ORDER BY r, canonical))::INTEGER END h, * EXCLUDE (low, high), low - abs(low) * 1e-9 low, high + abs(high) * 1e-9 high FROM (SELECT "
        "r::INTEGER r, u, shown, canonical, cls, try_cast(low AS DOUBLE) low, try_cast(high AS DOUBLE) high FROM _pairs)"
    )
    con.unregister("_pairs")
    numbers = "SELECT * FROM (SELECT r, coalesce(u, '') AS u, p, clock, v, s FROM reading WHERE is_number) JOIN unit_pair USING (r, u)"
    if short:  # one join finds the pair of the concepts and the unit
        keys = {key: key for key in (*(narrow.code("observation.code", place) for place in range(narrow.CODINGS)), "ucum")} | {"u": "word"}
        keys, same = _telling(con, keys)
        pairs_of = f"SELECT {', '.join(f't.{key} AS key{i}' for i, key in enumerate(keys.values()))}, x.* FROM typed t JOIN unit_pair x ON x.r = t.r AND x.u = coalesce(t.u, '')"
        # a comparator's number is none, where there are any
        comparator = con.execute(f"SELECT 1 FROM {narrow.of('observation')} WHERE kind = 'comparator' LIMIT 1").fetchone()
        plain = ("CASE WHEN n.kind = 'number' THEN ", " END") if comparator else ("", "")
        numbers = (
            f"SELECT x.*, n.p, n.clock, {plain[0]}n.v{plain[1]} AS v, {plain[0]}{_SENTINEL}{plain[1].replace(' ', ' ELSE 0 ', 1)} AS s "
        )
        numbers += f"FROM {narrow.of('observation')} n JOIN ({pairs_of}) x ON {same} WHERE n.v IS NOT NULL{bypatient.AMONG}"
    return numbers


def _telling(con: duckdb.DuckDBPyConnection, keys: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the fewest columns that tell the rows of ``typed`` from each other, as most codes come with one unit, and the join of ``n`` to them (``x``)."""
    rows = con.execute(f"SELECT {', '.join(keys.values())} FROM typed").fetchall()
    places = next(
        chosen for size in range(1, len(keys) + 1) for chosen in itertools.combinations(range(len(keys)), size)
        if size == len(keys) or len({tuple(row[i] for i in chosen) for row in rows}) == len(rows)
    )  # fmt: skip
    found = {key: column for i, (key, column) in enumerate(keys.items()) if i in places}
    # a plain equality is cheaper
    plain = [all(row[i] is not None for row in rows) for i in places]
    return found, " AND ".join(f"n.{key} {'=' if plain[i] else 'IS NOT DISTINCT FROM'} x.key{i}" for i, key in enumerate(found))


def _told(rows: str) -> str:
    """Return the SQL of numbers as ehrready.numerals asks for them: ``x`` is code, unit, sentinel or comparator, and whether it is outside the limits."""
    return (
        "SELECT p, h, v, clock IS NOT NULL AS clocked, "
        f"((k * {_TYPED} + CASE WHEN v IS NULL THEN {_COMPARATOR} ELSE s END) * 2 + coalesce(v < low OR v > high, false)::INTEGER)::INTEGER AS x, "
        f"CASE WHEN v <> 0 THEN ceil(ln(abs(v)) / ln({GAMMA}))::INTEGER END AS b FROM ({rows})"
    )


def _cells(con: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Add up per patient: ``number_sum``, the numbers by ``x``.  ``number_kind`` is what each ``x`` stands for, with the numbers of its groups by kind and by unit."""
    told = "".join(f" WHEN {place} THEN 'number={value:.9g}'" for place, value in enumerate(SENTINELS, 1))
    numerals.count(con, _told(rows))
    con.execute(
        f"CREATE TEMP TABLE number_kind AS SELECT x, r, shown, cls, beyond = 1 AND s = 0 AS implausible, beyond = 1 AND s > 0 AS sentinel, "
        f"low IS NOT NULL AND s < {_COMPARATOR} AS judged, kind, (dense_rank() OVER (ORDER BY r, kind))::INTEGER kk, "
        "(dense_rank() OVER (ORDER BY r, shown))::INTEGER uu FROM (SELECT *, "
        f"CASE s WHEN 0 THEN 'number'{told} ELSE 'comparator' END || CASE WHEN beyond = 1 THEN '!' ELSE '' END kind "
        f"FROM (SELECT x, x % 2 AS beyond, (x // 2) % {_TYPED} AS s, (x // {2 * _TYPED})::INTEGER AS k FROM (SELECT DISTINCT x FROM number_sum)) "
        "JOIN unit_pair USING (k))"
    )


def _number_kinds(con: duckdb.DuckDBPyConnection) -> str:
    """Return the SQL of records and patients by the kinds of numbers (``kk``), for ``_kinds``."""
    several = con.execute("SELECT 1 FROM number_kind GROUP BY kk HAVING count(*) > 1 LIMIT 1").fetchone() is not None
    numbers = (
        f"SELECT kk, p, {'sum(n) n' if several else 'n'} FROM number_sum JOIN number_kind USING (x){' GROUP BY kk, p' if several else ''}"
    )
    return (
        f"SELECT r, kind, n, patients FROM (SELECT kk, sum(n) n, count(p) patients FROM ({numbers}) GROUP BY kk) "
        "JOIN (SELECT DISTINCT kk, r, kind FROM number_kind) USING (kk) UNION ALL "
    )


def _kinds(con: duckdb.DuckDBPyConnection, numbers: str) -> Frame:
    """Return the kinds of values by code, those of ``numbers`` among them: records and patients."""
    return _rows(
        con,
        f"SELECT coalesce(c.key, 'other'), coalesce(c.code, ''), k.kind, k.n, k.patients FROM ({numbers}SELECT r, kind, sum(n) n, count(p) patients FROM kind_cell "
        "GROUP BY r, kind) k LEFT JOIN best_code c USING (r)",
        3,
    )


def _units(con: duckdb.DuckDBPyConnection) -> Frame:
    """Return the units by code: records, patients and the moments over patients."""
    several = con.execute("SELECT 1 FROM number_kind GROUP BY uu HAVING count(*) > 1 LIMIT 1").fetchone() is not None
    counted = "SELECT uu, p, sum(n)::BIGINT n" if several else "SELECT uu, p, n"
    con.execute(f"CREATE TEMP TABLE unit_sum AS {counted} FROM number_sum JOIN number_kind USING (x){' GROUP BY uu, p' if several else ''}")
    return _rows(
        con,
        "SELECT 'observation.unit', coalesce(c.key, 'other'), coalesce(c.code, ''), shown, n, patients, n2, n_of FROM (SELECT uu, sum(n) n, count(p) patients, "
        "sum(CASE WHEN p IS NULL THEN n ELSE n * n END) n2, sum(CASE WHEN p IS NULL THEN n ELSE n * total END) n_of FROM "
        "(SELECT u.*, w.total FROM unit_sum u LEFT JOIN (SELECT p, sum(n)::BIGINT total FROM number_sum WHERE p IS NOT NULL GROUP BY p) w ON u.p = w.p) GROUP BY uu) "
        "JOIN (SELECT DISTINCT uu, r, shown FROM number_kind) USING (uu) LEFT JOIN best_code c USING (r)",
        4,
    )


def _histograms(con: duckdb.DuckDBPyConnection) -> Frame:
    """Return the numbers without a comparator by code, canonical unit and bucket, fine and coarse: records and patients."""
    return _rows(
        con,
        "SELECT c.key, c.code, canonical, CASE sign WHEN 0 THEN width || 'zero' WHEN -1 THEN 'neg:' || width || b ELSE width || b END, n, patients "
        "FROM bucket JOIN (SELECT DISTINCT h, r, canonical FROM unit_pair) USING (h) JOIN best_code c USING (r)",
        4,
    )


def _hidden(con: duckdb.DuckDBPyConnection, frame: Frame, numbers: str) -> None:
    """Count what hides in texts: n of all values with one, with their patients; ``numbers`` is the SELECT of a row with how many are plain numbers."""
    lists = {defect: f"kind IN ({', '.join(map(quote, kinds))})" for defect, kinds in PARSES.items()}
    both = f"(SELECT kind, p, n FROM kind_cell WHERE contains(kind, ':') UNION ALL {numbers})"
    _add(con, frame, "observation.value", both, "true", lists)


def _add(con: duckdb.DuckDBPyConnection, frame: Frame, element: str, table: str, universe: str, defects: dict[str, str]) -> None:
    parts = ", ".join(f"coalesce(sum(n) FILTER (WHERE {test}), 0), count(DISTINCT p) FILTER (WHERE {test})" for test in defects.values())
    row = con.execute(f"SELECT coalesce(sum(n), 0), {parts} FROM {table} WHERE {universe}").fetchone() or ()
    for i, kind in enumerate(defects):
        frame[element, kind] = (int(row[1 + 2 * i]), int(row[0]), int(row[2 + 2 * i]))


def _relations(con: duckdb.DuckDBPyConnection, frame: Frame) -> None:
    """Count the defects of values and units exactly: n of ``of``, with their patients."""
    numbers = "number_sum JOIN number_kind USING (x)"
    _hidden(con, frame, "SELECT 'number', NULL, sum(n)::BIGINT FROM number_sum")
    _add(con, frame, "observation.value", numbers, "judged", {kind: kind for kind in ("implausible", "sentinel")})
    _add(con, frame, "observation.unit", numbers, "true", {cls: f"cls = '{cls}'" for cls in sorted_numbers.UNITS})
