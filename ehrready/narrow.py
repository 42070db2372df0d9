"""The narrow tables: records as numbers, where a reader could take the short way (readers.tabular_narrow); and what measures read of them.

``of`` names the narrow table of a canonical one (all but patients), a row per record; ``narrow_coding`` is a view of the rows' codings with
their OMOP concept ids.  A person's number is its id; the states of elements are the digits of ``digits`` (ehrready.cells).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ehrready import cells
from ehrready.engines.duckdb import is_duckdb, quote
from ehrready.tables import CODED, SCALARS, table_of
from ehrready.tables import TABLES as TABLES_OF

if TYPE_CHECKING:
    import duckdb

#: Canonical columns that the short way knows.
COLUMNS = frozenset(
    {
        "id",
        "patient_id",
        "encounter_id",
        "site",
        "at",
        "end",
        "value_number",
        "value_text",
        "comparator",
        "unit",
        "unit_code",
        "range_low",
        "range_high",
    }
)

#: Columns of a narrow table (``""``: of the type that they are found in), and what some have besides: ``src`` is the number of the source table
#: a row comes from, whose ids are its own, ``used`` when an encounter's codes were chosen, ``clock`` a time that has a time of day, ``kind`` the kind of a value
#: and ``t`` its text, ``ucum`` the concept of its unit where UCUM has it, else ``u`` the unit's text.
_ROW = {
    "src": "UTINYINT", "record": "BIGINT", "p": "", "e": "", "id": "", "m": "INTEGER", "day": "DATE", "digits": "BIGINT",
}  # fmt: skip
_MORE = {
    "encounter": {"site": "VARCHAR", "used": "INTEGER"},
    "observation": {"clock": "TIMESTAMP", "kind": "", "t": "VARCHAR", "v": "DOUBLE", "ucum": "", "u": "VARCHAR"},
}
#: Codings of a concept that the short way knows, and the name of the column of one.
CODINGS = 2
#: What only a result that may be there twice is asked for: a view of the files.
DETAIL = {"record": "BIGINT", "unit": "VARCHAR", "unit_code": "VARCHAR", "range_low": "DOUBLE", "range_high": "DOUBLE"}
CONCEPTS = "narrow_concept"
#: Ids are looked at as bits where there are at most so many bits for each.
_BITS_EACH = 8
#: First characters of the texts that ``null_token`` knows (upper case, and what stands before them).
_FIRST = quote('UuNnSs\u017f-.?#<(\\" \t\r\n')


def null_token(text: str) -> str:
    """Return the SQL of ``null_token``, the search spared where the first character tells: a digit, or any other that no token begins with."""
    return f"(CASE WHEN {text} BETWEEN '/' AND '<' THEN false WHEN {text} <> '' AND strpos({_FIRST}, left({text}, 1)) = 0 THEN false ELSE null_token({text}) END)"


def of(table: str) -> str:
    """Return the name of the narrow table of a canonical one."""
    return f"narrow_{table}"


def code(element: str, place: int) -> str:
    """Return the name of the column with the concept id of a coding."""
    return f"c{CODED.index(element)}_{place}"


def codes(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[int, str]]:
    """Return the columns of a narrow table that are codings, each with the number of its element."""
    found = {column[0] for column in con.execute(f"SELECT * FROM {of(table)} LIMIT 0").description}
    named = [(el, code(element, place)) for el, element in enumerate(CODED) for place in range(CODINGS)]
    return [(el, column) for el, column in named if column in found]


def make(rows: Mapping[str, Sequence[Rows]], results: Mapping[str, str]) -> list[str]:
    """Return the statements that fill the narrow tables and make the views, of the rows by canonical table.

    ``results`` is the SQL of ``t`` and ``kind`` of a result (ehrready.values).
    """
    made, codings = [], []
    for table in TABLES_OF:
        if table == "patient":
            continue
        elements = [element for element in CODED if table_of(element) == table]
        places = {element: max((len(one.codes.get(element, ())) for one in rows.get(table, ())), default=0) for element in elements}
        if table == "observation":
            places["observation.code"] = CODINGS
        codes = [code(element, place) for element, n in places.items() for place in range(n)]
        columns = _ROW | _MORE.get(table, {}) | dict.fromkeys(codes, "")
        kinds = list(dict.fromkeys(one.kind for one in rows.get(table, ())))
        selects = [one.select(table, kinds.index(one.kind), columns, results) for one in rows.get(table, ())]
        made.append(f"CREATE TABLE {of(table)} AS {' UNION ALL '.join(selects or [_nothing(columns)])}")
        for element, n in places.items():
            named = [code(element, place) for place in range(n)]
            for place, column in enumerate(named):
                position = " + ".join(["1", *(f"({earlier} IS NOT NULL)::INTEGER" for earlier in named[:place])])
                codings.append(
                    f"SELECT {CODED.index(element)} AS el, record, {position} AS position, p, e, m, {column} AS cid FROM {of(table)} WHERE {column} IS NOT NULL"
                )
    details = [one.detail() for one in rows.get("observation", ())]
    made.append(f"CREATE VIEW narrow_coding AS {' UNION ALL '.join(codings)}")
    made.append(f"CREATE VIEW narrow_detail AS {' UNION ALL '.join(details or [_nothing(DETAIL)])}")
    return made


def _nothing(columns: Mapping[str, str]) -> str:
    """Return a SELECT of no rows."""
    nulls = (f"NULL::{kind or 'BIGINT'} AS {column}" for column, kind in columns.items())
    return f"SELECT {', '.join(nulls)} WHERE false"


def drop() -> list[str]:
    """Return the statements that remove what ``make`` made."""
    views = [f"DROP VIEW IF EXISTS {name}" for name in ("narrow_coding", "narrow_detail")]
    return [*views, *(f"DROP TABLE IF EXISTS {name}" for name in (CONCEPTS, "narrow_table", *map(of, TABLES_OF)))]


def outside(table: str) -> str:
    """Return the SQL of what the numbers of a table cannot say: a person's id that is no positive number, a year before 1000 or after 9999."""
    used = " OR (used IS NOT NULL AND (used < 100000 OR used > 999912))" if table == "encounter" else ""
    return f"p <= 0 OR (m <> -1 AND (m < 100000 OR m > 999912)){used}"


def month(at: str) -> str:
    """Return the SQL of the number of a time's month, -1 without one."""
    return f"coalesce(year({at}) * 100 + month({at}), CASE WHEN {at} IS NULL THEN -1 ELSE 0 END)"  # infinity has no year


def there(con: Any) -> bool:
    """Whether the short way was taken."""
    if not is_duckdb(con):
        return False  # another engine reads the canonical tables
    return bool(con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'narrow_coding'").fetchone())  # to list tables takes longer


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of files for a narrow table: SQL by name, the FROM of it, and per element the SQL of its codings, NULL where a row lacks one.

    ``kind`` is the source table: a table may be several files of different columns.
    ``details`` is what ``DETAIL`` is made of, from a FROM of its own.
    ``values`` has ``record p e id at clocked end end_clocked concepts`` (the digits of the concepts) and what ``_MORE`` is made of.
    """

    values: Mapping[str, str]
    codes: Mapping[str, Sequence[str]]
    source: str
    kind: str
    details: Mapping[str, str]
    detail_source: str

    def select(self, table: str, number: int, columns: Mapping[str, str], results: Mapping[str, str]) -> str:
        """Return the SELECT of the columns of a narrow table; ``number`` tells the rows from those of other source tables."""
        codes = {code(element, place): sql for element, found in self.codes.items() for place, sql in enumerate(found)}
        made = {"src": str(number), "m": self._month(table), "day": '"at"::DATE', "digits": self._digits(table)}
        if table == "encounter":
            coded = 'coalesce("end", "at")'
            made["used"] = f"CASE WHEN {coded} IS NOT NULL THEN {month(coded)} END"
        if table == "observation":
            made |= {"v": "value_number", **results}
            made["clock"] = 'CASE WHEN clocked AND epoch_us("at") - epoch_us("at"::DATE::TIMESTAMP) >= 60000000 THEN "at" END'
        given = {name: name for name in (*self.values, *codes)} | made
        chosen = [
            f"({given[name]})::{kind} AS {name}" if kind else f"{given.get(name, 'NULL::BIGINT')} AS {name}"
            for name, kind in columns.items()
        ]
        inner = ", ".join(f'{sql} AS "{name}"' for name, sql in (*self.values.items(), *codes.items()))
        return f"SELECT {', '.join(chosen)} FROM (SELECT {inner} {self.source})"

    def detail(self) -> str:
        """Return the SELECT of the details of results."""
        return f"SELECT {', '.join(f'({self.details[name]})::{kind} AS {name}' for name, kind in DETAIL.items())} {self.detail_source}"

    @staticmethod
    def _month(table: str) -> str:
        """Return the SQL of a row's month, 0 where an end is of a year that numbers cannot say (``outside``; an encounter's is ``used``)."""
        start = month('"at"')
        within = "\"end\" BETWEEN '1000-01-01' AND '9999-12-31 23:59:59'"
        return f'CASE WHEN "end" IS NULL OR {within} THEN {start} ELSE 0 END' if table in cells.ENDED else start

    def _digits(self, table: str) -> str:
        """Return the SQL of the digits and of the flags that need no other table: those of a usual record, and what is unlike them."""
        digits = cells.DIGIT
        usual, unlike = cells.mask("record"), ["concepts"]
        for element, (of_table, column) in SCALARS.items():
            if of_table == table:
                name, unit = {"patient_id": "p", "encounter_id": "e"}.get(column, column), 1 << cells.shift(element)
                if name in self.values:
                    usual += digits["present"] * unit
                    unlike.append(f'("{name}" IS NULL)::BIGINT * {(digits["missing"] - digits["present"]) * unit}')
                else:  # the CDM has no status
                    usual += digits["missing"] * unit
        if table == "observation":
            value = (
                f"CASE WHEN value_number IS NOT NULL THEN {digits['present']} WHEN value_kind IS NULL THEN {digits['missing']} WHEN value_kind = 'text' AND null_token(value_text) THEN {digits['null-token']} "
                f"ELSE {digits['present']} END"
            )
            # by reckoning: a CASE takes three times as long, and a token is a text
            unit_state = (
                f"(value_number IS NOT NULL)::BIGINT * ({digits['present']} + (ucum IS NULL AND u IS NULL)::BIGINT * {digits['missing'] - digits['present']} "
                f"+ unit_token::BIGINT * {digits['null-token'] - digits['present']})"
            )
            unlike += [f"({value}) * {1 << cells.shift('observation.value')}", f"({unit_state}) * {1 << cells.shift('observation.unit')}"]
        flags = {}
        if table in cells.DATED:
            flags["clocked"] = 'clocked AND "at" IS NOT NULL'
            flags["midnight"] = 'clocked AND "at" IS NOT NULL AND "at" = "at"::DATE::TIMESTAMP'
        if table in cells.ENDED:
            flags["ended"] = '"at" IS NOT NULL AND "end" IS NOT NULL'
            flags["end-before-start"] = (
                '"at" IS NOT NULL AND "end" IS NOT NULL AND CASE WHEN clocked AND end_clocked THEN "end" < "at" ELSE "end"::DATE < "at"::DATE END'
            )
        unlike += [f"({test})::BIGINT * {cells.mask(flag)}" for flag, test in flags.items()]
        return " + ".join([str(usual), *unlike])


def note(con: duckdb.DuckDBPyConnection) -> None:
    """Note which tables have narrow rows (``narrow_table``)."""
    rows = [f"(SELECT {cells.NUMBER[table]} AS t, '{table}' AS name FROM {of(table)} LIMIT 1)" for table in TABLES_OF if table != "patient"]
    con.execute(f"CREATE TABLE narrow_table AS {' UNION ALL '.join(rows)}")


def tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the canonical tables that have narrow rows."""
    if not there(con):
        return []
    return [str(row[0]) for row in con.execute("SELECT name FROM narrow_table ORDER BY t").fetchall()]


def duplicates(con: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int, int]:
    """Return surplus records under an id given twice, records with an id, and the patients of ids given twice.

    Ids of one source that lie close together are compared as bits, one each; others in runs of 64: a run whose bits are as many as its records has none twice, so that few groups are made.
    """
    where, run, rows = "id IS NOT NULL", "src, id >> 6", of(table)
    total, low, high, sources = con.execute(f"SELECT count(id), min(id), max(id), max(src) - min(src) + 1 FROM {rows}").fetchall()[0]
    if not total:
        return 0, 0, 0
    if sources == 1 and high - low < _BITS_EACH * total:
        distinct = con.execute(f"SELECT bit_count(bitstring_agg(id, {low}, {high})) FROM {rows}").fetchall()[0][0]
        if distinct == total:
            return 0, int(total), 0
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE suspect AS SELECT src, id >> 6 AS run FROM {rows} WHERE {where} GROUP BY {run} "
        "HAVING count(*) <> bit_count(bit_or(1::UBIGINT << (id & 63)::UBIGINT))"
    )
    if not con.execute("SELECT 1 FROM suspect LIMIT 1").fetchone():
        return 0, int(total), 0
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE twice AS SELECT src, id, count(*) - 1 n FROM {rows} n SEMI JOIN suspect s "
        f"ON n.src = s.src AND (n.id >> 6) = s.run WHERE {where} GROUP BY 1, 2 HAVING count(*) > 1"
    )
    row = con.execute(
        f"SELECT (SELECT coalesce(sum(n), 0) FROM twice), (SELECT count(DISTINCT p) FROM {rows} n SEMI JOIN twice w "
        f"ON n.src = w.src AND n.id = w.id WHERE {where})"
    ).fetchone() or (0, 0)
    return int(row[0]), int(total), int(row[1])


def of_others(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the tables in which a person is named that no patient record has: a join to the patients leaves out records (and is cheaper than to group them)."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE known AS SELECT DISTINCT CAST(patient_id AS BIGINT) AS p FROM patient WHERE patient_id IS NOT NULL"
    )
    asked = "SELECT (SELECT count(p) FROM {0}) <> (SELECT count(*) FROM {0} n JOIN known k ON n.p = k.p)"
    return [table for table in tables(con) if con.execute(asked.format(of(table))).fetchall()[0][0]]


def shared_visits(con: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Return the encounters that are of several patients, those of any, and the first patients (by id as text) of the former."""
    row = con.execute("SELECT count(CASE WHEN low <> high THEN 1 END), count(*) FROM visit WHERE low IS NOT NULL").fetchone() or (0, 0)
    first = con.execute(
        f"SELECT count(DISTINCT lowest) FROM (SELECT min(n.p::VARCHAR) lowest FROM {of('encounter')} n JOIN visit v ON n.e = v.e WHERE v.low <> v.high "
        "GROUP BY n.e)"
    ).fetchone() or (0,)
    return int(row[0]), int(row[1]), int(first[0])


def lifetime() -> str:
    """Return the SQL of columns of ``person`` that say what most records are: of a patient, within the lifetime, with the flags ``usual``."""
    usual = cells.mask("patient") + cells.mask("visit") + cells.mask("visit-of")
    unlike = {
        "NOT exported": "patient-unresolved",
        "born_day IS NOT NULL": "born",
        "died_day IS NOT NULL": "died",
    }
    flags = " + ".join([str(usual), *(f"({test})::BIGINT * {cells.mask(flag)}" for test, flag in unlike.items())])
    return f"{flags} AS usual, coalesce(born_day, '-infinity'::DATE) AS first_day, coalesce(died_day, 'infinity'::DATE) AS last_day"


def _usual(table: str, flags: Iterable[str]) -> tuple[str, int]:
    """Return the SQL of whether a record is as most are, in its patient's lifetime and encounter, and which flags of ``usual`` it then has."""
    tests = ["n.p = a.p"]
    if table in cells.DATED:
        tests.append("n.day BETWEEN a.first_day AND a.last_day")
    if table != "encounter":
        tests.append("n.p = v.low AND n.p = v.high")
    return " AND ".join(tests), sum(cells.mask(flag) for flag in flags)


#: Rows that a join to patients and visits leaves out: what names none, and what names one that is not there.
BEYOND = ("n.p IS NULL OR n.e IS NULL", "n.p IS NOT NULL AND n.e IS NOT NULL AND (a.p IS NULL OR v.e IS NULL)")


def joined(table: str, several: bool = False, where: str = "true", *, inner: bool = False) -> str:
    """Return the SQL of a table's narrow rows with the patient (``a``), the visit (``v``) and the combo of each record.

    ``inner``: of those that have both (the others are ``BEYOND``), which the engine looks up by place and does not hash.
    """
    real, dated = "n.p IS NOT NULL", "n.day IS NOT NULL"
    other = "NOT EXISTS (SELECT 1 FROM known_pair k WHERE k.e = n.e AND k.p = n.p)" if several else "n.p <> v.low AND n.p <> v.high"
    flags = {"patient": real, "patient-unresolved": f"{real} AND NOT coalesce(a.exported, false)"}
    if table in cells.DATED:
        flags |= {"born": f"{dated} AND a.born_day IS NOT NULL", "before-birth": f"{dated} AND n.day < a.born_day"}
    if table in cells.CARE:
        flags |= {"died": f"{dated} AND a.died_day IS NOT NULL", "after-death": f"{dated} AND n.day > a.died_day"}
    if table != "encounter":
        flags |= {
            "visit": "n.e IS NOT NULL", "visit-unresolved": "n.e IS NOT NULL AND v.e IS NULL",
            "visit-of": f"v.low IS NOT NULL AND {real}", "visit-of-another": f"v.low IS NOT NULL AND {real} AND {other}",
        }  # fmt: skip
    usual, mine = _usual(table, flags)
    combo = " + ".join(["n.digits", *(f"coalesce({test}, false)::BIGINT * {cells.mask(flag)}" for flag, test in flags.items())])
    combo = f"CASE WHEN {usual} THEN n.digits + (a.usual & {mine}) ELSE {combo} END"
    kind = "JOIN" if inner else "LEFT JOIN"
    place, joins = "coalesce(v.place, a.place)", f" {kind} visit v ON n.e = v.e"
    if table == "encounter":  # nothing else has a site of its own, and nothing of another encounter is asked
        place, joins = "coalesce(s.place, v.place, a.place)", f"{joins} LEFT JOIN place s ON n.site = s.site"
    return f"(SELECT n.record, n.p, {place} AS place, n.m, {combo} AS combo FROM {of(table)} n {kind} person a ON n.p = a.p{joins} WHERE {where})"


def make_cells(con: duckdb.DuckDBPyConnection, several: bool, temp: str) -> None:
    """Make ``cell`` a view that has narrow records one by one: groups of them are nearly as many, and every measure asks for larger ones."""
    parts = ["SELECT t, p, place, m, combo, n FROM counted"]
    for table in tables(con):
        # most records name a patient and a visit that are there
        con.execute(f"CREATE {temp}TABLE cell_{table} AS SELECT p, place, m, combo FROM {joined(table, several, inner=True)}")
        for others in BEYOND:
            if con.execute(f"SELECT (SELECT count(*) FROM cell_{table}) = (SELECT count(*) FROM {of(table)})").fetchall()[0][0]:
                break
            con.execute(f"INSERT INTO cell_{table} SELECT p, place, m, combo FROM {joined(table, several, others)}")
        parts.append(f"SELECT {cells.NUMBER[table]}, p, place, m, combo, 1 FROM cell_{table}")
    con.execute(f"CREATE {temp}VIEW cell AS {' UNION ALL '.join(parts)}")


def forget_cells(con: duckdb.DuckDBPyConnection, names: Collection[str], temp: str) -> None:
    """Drop the cells of some tables, which nobody asks again: room is wanted."""
    if names:
        con.execute(f"CREATE OR REPLACE {temp}VIEW cell AS SELECT t, p, place, m, combo, n FROM counted")
    for table in names:
        con.execute(f"DROP TABLE cell_{table}")
