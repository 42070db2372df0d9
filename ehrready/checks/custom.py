"""Checks whose rules say themselves what is counted."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

from ehrready import custom, valuesets
from ehrready.checks.base import DIMENSIONS, CannotCount, Counted, Outcome, check
from ehrready.errors import UsageError
from ehrready.profile import Profile
from ehrready.tables import ALL, ELEMENTS, TABLES

if TYPE_CHECKING:
    import duckdb

#: Columns of a query that are numbers; the others are groups.
_NUMBERS = ("n", "of", "patients")
_MOST_GROUPS, _MOST_ROWS, _MOST_SECONDS = 2, 100, 600
#: Table functions that reach nothing.
_FUNCTIONS = {"range", "generate_series", "unnest"}
#: Values of group columns that may leave as they are: years, months, names of tables and elements, administrative codes.
_PERIOD = re.compile(r"(19|20)\d\d(-(0[1-9]|1[0-2]))?")
_TABLES_SHOWN = sorted({*TABLES, "component", "concept", "coding"})


def _lint(options: dict[str, Any]) -> list[str]:
    """Return what is wrong with a query, tried on empty tables: nothing of a patient can be in the engine's words."""
    import duckdb

    from ehrready.engines import duckdb as engine

    if options.get("dimension", DIMENSIONS[0]) not in DIMENSIONS:
        return [f"dimension must be one of {', '.join(DIMENSIONS)}"]
    if not 1 <= options.get("seconds", 1) <= _MOST_SECONDS:
        return [f"seconds must be between 1 and {_MOST_SECONDS}"]
    query = str(options.get("query", ""))
    with duckdb.connect(":memory:", config={"memory_limit": "256MB", "threads": 1}) as con:
        engine.prepare(con)
        engine.lock(con)
        timer = threading.Timer(10, con.interrupt)
        timer.start()
        try:
            _single_select(con, query)
            described = con.execute(f"DESCRIBE {query}").fetchall()
            _columns([str(row[0]) for row in described], query)
        except CannotCount as error:
            return [str(error)]
        except duckdb.Error as error:
            said = re.sub(r"\s+", " ", str(error).partition("LINE ")[0])[:200].strip()
            return [f"the query does not fit the tables: {said} (tables: {', '.join(_TABLES_SHOWN)})"]
        finally:
            timer.cancel()
    return []


def _single_select(con: duckdb.DuckDBPyConnection, query: str) -> None:
    import duckdb

    try:
        statements = con.extract_statements(query)
    except duckdb.Error:
        raise CannotCount("the query is not valid SQL of DuckDB") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise CannotCount("the query must be one SELECT")
    row = con.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    tables, functions, defined = _sources(json.loads(row[0]) if row else {})
    if closed := sorted(functions - _FUNCTIONS):
        raise CannotCount(f"the query reads from {closed[0]}(): only the canonical tables may be read ({', '.join(_TABLES_SHOWN)})")
    if unknown := sorted(tables - defined - ALL.keys()):
        raise CannotCount(f"the query reads {unknown[0]!r}: only the canonical tables may be read ({', '.join(_TABLES_SHOWN)})")


def _sources(tree: Any) -> tuple[set[str], set[str], set[str]]:
    """Return the tables, table functions and common table expressions that a serialised statement names anywhere."""
    tables: set[str] = set()
    functions: set[str] = set()
    defined: set[str] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if node.get("type") == "BASE_TABLE":
                place = [node.get(key) or "" for key in ("catalog_name", "schema_name")]
                tables.add(".".join(filter(None, [*place, str(node.get("table_name"))])))
            elif node.get("type") == "TABLE_FUNCTION":
                functions.add(str((node.get("function") or {}).get("function_name")))
            defined |= {str(item.get("key")) for item in (node.get("cte_map") or {}).get("map", [])}
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
    return tables, functions, defined


def _columns(names: list[str], query: str) -> list[int]:
    """Return the places of the group columns; raises CannotCount when the columns are not those of a count."""
    if names.count("n") != 1 or names.count("of") != 1:
        raise CannotCount("the query must return the columns n and of (and patients, and up to two groups)")
    groups = [name for name in names if name not in _NUMBERS]
    if len(set(names)) < len(names) or len(groups) > _MOST_GROUPS:
        raise CannotCount(f"the query may return n, of, patients and at most {_MOST_GROUPS} group columns, each once")
    for name in groups:
        # a name that the query does not spell out (PIVOT) would be a value of the data
        if not re.fullmatch("[a-z][a-z_]{0,29}", name) or not re.search(rf"\b{name}\b", query):
            raise CannotCount("a group column needs a plain name that stands in the query (small letters and underscores)")
    return [place for place, name in enumerate(names) if name not in _NUMBERS]


def _count(con: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> list[Counted]:
    """Run a rule's query in the locked engine, on a connection that sees the canonical tables alone."""
    import duckdb

    query, seconds = str(options["query"]), int(options.get("seconds", 60))
    with con.cursor() as cursor:
        _single_select(cursor, query)
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.start()
        try:
            cursor.execute(query)
            names = [str(column[0]) for column in cursor.description or ()]
            rows = cursor.fetchmany(_MOST_ROWS + 1)
        except duckdb.InterruptException:
            raise CannotCount(f"the query ran longer than its limit of {seconds} s") from None
        except duckdb.PermissionException:
            raise CannotCount("the query tried to leave the tables: files and the network are closed to rules") from None
        except duckdb.OutOfMemoryException:
            raise CannotCount("the query needs more memory than the run has (--memory)") from None
        except duckdb.Error as error:
            raise CannotCount(f"the query failed on this data ({type(error).__name__})") from None
        finally:
            timer.cancel()
    groups = _columns(names, query)
    if len(rows) > _MOST_ROWS:
        raise CannotCount(f"the query returned more than {_MOST_ROWS} rows: group more coarsely")
    return _counted(names, groups, rows)


def _counted(names: list[str], groups: list[int], rows: list[tuple[Any, ...]]) -> list[Counted]:
    places = {name: names.index(name) for name in _NUMBERS if name in names}
    public = {place: _public([row[place] for row in rows]) for place in groups}
    found = []
    for row in rows:
        numbers = {name: row[place] for name, place in places.items()}
        if any(not isinstance(v, int) or isinstance(v, bool) for v in numbers.values()) or not 0 <= numbers["n"] <= numbers["of"]:
            raise CannotCount("the query must return whole numbers with 0 <= n <= of")
        patients = numbers.get("patients")
        if patients is not None and not 0 <= patients <= numbers["n"]:
            raise CannotCount("patients must be the distinct patients behind n, at most n")
        group = tuple((names[place], public[place][row[place]]) for place in groups)
        found.append(Counted(numbers["n"], numbers["of"], patients, group))
    return found


def _public(values: list[Any]) -> dict[Any, str]:
    """Return group value to what may be shown of it: itself when it is no value of a patient, else a number in sorted order."""
    known = {*ELEMENTS, *TABLES, *(code for codes in valuesets.VALUE_SETS.values() for code in frozenset().union(*codes.values()))}
    shown = {value: str(value) for value in values if str(value) in known or _PERIOD.fullmatch(str(value))}
    others = sorted({value for value in values if value not in shown and value is not None}, key=str)
    return {**shown, **{value: f"group-{number:02d}" for number, value in enumerate(others, 1)}, None: "none"}


@check("plausibility", whole=True, measured=_count, lint=_lint)
def sql(
    profile: Profile,
    key: tuple[str, str],
    *,
    query: str,  # noqa: ARG001 - the options are what was counted, before
    dimension: str = "plausibility",  # noqa: ARG001
    seconds: int = 60,  # noqa: ARG001
) -> list[Outcome]:
    """Does one SELECT over the canonical tables find defects?

    The query runs in the locked engine (no file, no network, the canonical tables alone) and returns one row, or one per
    group: `n` and `of`, optionally `patients` (the distinct patients behind `n`), and up to two group columns. Without
    `patients` the number is shown with `--internal` only, since it may be a single patient's. Values of group columns
    leave when they are years, months, names of elements or administrative codes; others are numbered.

    Numerator: what the query returns as `n`.
    Denominator: what the query returns as `of`.

    Options: `query`; `dimension` (default plausibility); `seconds`, after which the query is stopped (default 60).
    """
    return custom.outcomes(profile, key)


def _lint_expectation(options: dict[str, Any]) -> list[str]:
    from ehrready.integrations import gx_tables

    if options["table"] not in gx_tables.NAMES:
        return [f"table must be one of {', '.join(gx_tables.NAMES)}"]
    if options.get("dimension", DIMENSIONS[0]) not in DIMENSIONS:
        return [f"dimension must be one of {', '.join(DIMENSIONS)}"]
    return []


def _expect(con: duckdb.DuckDBPyConnection, options: dict[str, Any]) -> list[Counted]:
    from ehrready.integrations import gx

    try:
        counts = gx.measure_expectation(con, options["table"], options["expectation"], options.get("kwargs") or {})
    except UsageError:
        raise CannotCount(gx.MISSING) from None
    if counts.error:
        raise CannotCount(counts.error)
    return [Counted(counts.n, counts.of, counts.patients, people=counts.by_record)]


@check("conformance", whole=True, measured=_expect, lint=_lint_expectation)
def expectation(
    profile: Profile,
    key: tuple[str, str],
    *,
    expectation: str,  # noqa: ARG001 - the options are what was counted, before
    table: str,  # noqa: ARG001
    kwargs: dict[str, Any] | None = None,  # noqa: ARG001
    dimension: str = "conformance",  # noqa: ARG001
) -> list[Outcome]:
    """Does an expectation of Great Expectations hold on a canonical table?

    Analytics are off, nothing but counts is kept, and an expectation that is unknown, dropped or
    crashes is status `error`. The rule's limits decide, not `mostly`; one about the table as a whole holds or fails.

    Numerator: records of the table that are not as expected.
    Denominator: records that the expectation looks at (nulls apart, as in Great Expectations).

    Options: `expectation`, its type (`expect_column_values_to_be_in_set` or `ExpectColumnValuesToBeInSet`); `table`, a canonical one; `kwargs`,
    its arguments; `dimension` (default conformance).
    """
    return custom.outcomes(profile, key)
