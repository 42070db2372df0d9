"""Which records of a table have which defects together: what tells that two findings are one (checks.md, conventions).

Frame ``overlaps``: per table and pair of conditions the records that have both; a pair of the same condition counts the
records that have it.  Rows per record are made only for records with a defect, and only for the conditions that the other
frames count at all; the integers add like all others, since a pair that never occurs has no row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ehrready import cells, currency, narrow
from ehrready.engines.duckdb import quote
from ehrready.histograms import PARSES
from ehrready.profile import Frame
from ehrready.tables import CODED, DERIVED, table_of

if TYPE_CHECKING:
    import duckdb

#: Conditions that are counted as one, too: what ``presence-shift`` and ``subgroup-gap`` call missing.
UNFILLED = ("missing", "null-token")
LACKING = (*UNFILLED, "text-only")
UNIONS = (UNFILLED, LACKING)

_CLASSES = ("null-token", "repairable", "other-system", "free-text", "malformed")
#: What a concept is when no coding of a known system is in it, in the order of ``expected-system``.
_TOKENS = ("local", "unknown-uri", "missing-system", "undecided")
#: Before a condition that is a test of a combo.
_COMBO = "combo:"
#: Conditions in one column of bits (a BIGINT).
_BITS = 62


def name(element: str, defect: str, *more: str) -> str:
    """Return the name of a condition of records: element, what tells it from others (a code system), defect."""
    return " ".join((element, *more, defect))


def union(element: str, defects: tuple[str, ...]) -> str:
    """Return the name of the condition that one of several defects is there."""
    return name(element, "|".join(defects))


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Fill ``overlaps``; the last measure, since the others say which defects there are."""
    tables: dict[str, dict[str, str]] = defaultdict(dict)
    short = narrow.tables(con)
    for rows in (_states(frames, short), _codings(frames, short), _values(frames), _relations(frames, short)):
        for condition, sql in rows:
            tables[table_of(condition)][condition] = sql
    for table in sorted(tables):
        frames["overlaps"].update(_pairs(table, _sets(con, table, sorted(tables[table].items()))))


def _sets(con: duckdb.DuckDBPyConnection, table: str, found: list[tuple[str, str]]) -> list[tuple[list[str], int]]:
    """Return each set of conditions that records have, with the number of records; some are tests of a narrow record's combo."""
    columns = [f"m{low}" for low in range(0, len(found), _BITS)]
    rows, tests = [], {column: ["0"] for column in columns}
    for i, (_, sql) in enumerate(found):
        mine, bit = f"m{i - i % _BITS}", 1 << i % _BITS
        if sql.startswith(_COMBO):
            tests[mine].append(f"CASE WHEN {sql.removeprefix(_COMBO)} THEN {bit} ELSE 0 END")
        else:
            bits = ", ".join(f"{bit if column == mine else 0}::BIGINT AS {column}" for column in columns)
            rows.append(f"SELECT record, {bits} FROM ({sql})")
    names = ", ".join(columns)
    others = (
        f"(SELECT record, {', '.join(f'bit_or({c}) AS {c}' for c in columns)} FROM ({' UNION ALL '.join(rows)}) GROUP BY record)"
        if rows
        else ""
    )
    bits = ", ".join(f"({' + '.join(tests[c])})::BIGINT AS {c}" for c in columns)
    if len(rows) == len(found):
        source = f"SELECT {names}, 1 AS n FROM {others}"
    elif not rows:  # then cells have it all
        source = f"SELECT {bits}, n FROM combo_sum WHERE t = {cells.NUMBER[table]}"
    else:
        both = ", ".join(f"c.{c} | coalesce(o.{c}, 0) AS {c}" for c in columns)
        source = (
            f"SELECT {both}, 1 AS n FROM (SELECT record, {bits} FROM {narrow.joined(table)}) c LEFT JOIN {others} o ON c.record = o.record"
        )
    some = " OR ".join(f"{c} <> 0" for c in columns)
    counted = con.execute(f"SELECT {names}, sum(n)::BIGINT FROM ({source}) WHERE {some} GROUP BY {names} ORDER BY {names}").fetchall()
    return [([c for i, (c, _) in enumerate(found) if int(row[i // _BITS]) >> i % _BITS & 1], int(row[-1])) for row in counted]


def _pairs(table: str, sets: list[tuple[list[str], int]]) -> Frame:
    """Add the sets up to pairs, the unions of conditions included."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for conditions, n in sets:
        named = set(conditions)
        for condition in conditions:
            element, _, defect = condition.partition(" ")
            named.update(union(element, d) for d in UNIONS if defect in d and (element in CODED or d == UNFILLED))
        order = sorted(named)
        for i, one in enumerate(order):
            for other in order[i:]:
                counts[table, one, other] += n
    return {key: (n,) for key, n in counts.items()}


Rows = Iterator[tuple[str, str]]


def _states(frames: dict[str, Frame], short: Collection[str]) -> Rows:
    """Yield the states in which an element is absent."""
    for (element, grouping, _, state), (n, *_) in frames["states"].items():
        if grouping != "all" or state not in LACKING or not n:
            continue
        if table_of(element) in short:
            yield name(element, state), _COMBO + cells.is_state(element, state)
        elif element in CODED:
            yield (
                name(element, state),
                f"SELECT record FROM concept t WHERE element = {quote(element)} AND {cells.COUNTED} AND {cells.state_test(element, state)}",
            )
        else:
            sources = (table_of(element), *(["component"] if element in DERIVED else []))
            test = cells.state_test(element, state)
            yield (
                name(element, state),
                " UNION ALL ".join(f'SELECT record FROM "{source}" t WHERE excluded IS NULL AND {test}' for source in sources),
            )


def _codings(frames: dict[str, Frame], short: Collection[str]) -> Rows:
    """Yield the classes of codes, the defects of systems, and what release tables say of codes and displays."""

    def said(element: str) -> str:
        """Return the rows that an element's codings are among."""
        return "said_text" if short and table_of(element) not in short else "said"

    for element, cls in sorted({(key[0], key[3]) for key in frames["classes"] if key[3] in _CLASSES}):
        yield (
            name(element, f"code-{cls}"),
            f"SELECT record FROM {said(element)} JOIN term USING (q) WHERE element = {quote(element)} AND cls = {quote(cls)} "
            f"AND ({quote(cls)} IN ('free-text', 'null-token') OR how NOT IN ('local', 'unknown-uri'))",
        )
    tokens: dict[str, set[str]] = defaultdict(set)
    for element, together in frames["systems"]:
        names = together.split("+")
        if any(token[0] == "!" for token in names):
            tokens[element].add("swapped")
        elif all(token[0] == "?" for token in names):
            tokens[element].add(next(defect for defect in (*_TOKENS, "") if not defect or f"?{defect}" in names))
    for element, defects in sorted(tokens.items()):
        has = ", ".join(f"max(CASE WHEN judge.token = '?{t}' THEN 1 ELSE 0 END) AS has{i}" for i, t in enumerate(_TOKENS))
        each = (
            "SELECT record, max(CASE WHEN starts_with(judge.token, '!') THEN 2 WHEN starts_with(judge.token, '?') THEN 0 ELSE 1 END) AS known, "
            f"{has} FROM {said(element)} JOIN term USING (q) JOIN judge USING (pid) WHERE term.element = {quote(element)} GROUP BY record, concept"
        )
        for defect in sorted(defects - {""}):
            i = _TOKENS.index(defect) if defect in _TOKENS else 0
            which = "known = 2" if defect == "swapped" else " AND ".join(["known = 0", *(f"has{j} = 0" for j in range(i)), f"has{i} = 1"])
            yield name(element, f"system-{defect}"), f"SELECT record FROM ({each}) WHERE {which}"
    for frame, seen in (("currency", "c.m = said.m"), ("displays", "c.display = lower(trim(term.display))")):
        for element, system, cls in sorted(frames[frame]):
            if cls in currency.DEFECTS:
                yield (
                    name(element, cls, system),
                    f"SELECT record FROM {said(element)} said JOIN term USING (q) JOIN {frame}_class c ON term.pid = c.pid AND {seen} "
                    f"WHERE term.element = {quote(element)} AND term.key = {quote(system)} AND c.cls = {quote(cls)}",
                )


def _values(frames: dict[str, Frame]) -> Rows:
    """Yield what is wrong with results: numbers in text, implausible ones, units."""
    counted = {key[1] for key, values in frames["relations"].items() if key[0] in {"observation.value", "observation.unit"} and values[0]}
    for defect, kinds in PARSES.items():
        if defect in counted:
            yield name("observation.value", defect), f"SELECT record FROM reading WHERE kind IN ({', '.join(map(quote, kinds))})"
    pairs = "SELECT record, s, v, low, high, cls FROM (SELECT record, r, coalesce(u, '') AS u, s, v, is_number FROM reading) "
    pairs += "JOIN unit_pair USING (r, u) WHERE is_number"
    for defect, test in (("implausible", "s = 0"), ("sentinel", "s > 0")):
        if defect in counted:
            yield name("observation.value", defect), f"SELECT record FROM ({pairs}) WHERE (v < low OR v > high) AND {test}"
    for defect in ("unit-missing", "unit-unparseable", "unit-incommensurable"):
        if defect in counted:
            yield name("observation.unit", defect), f"SELECT record FROM ({pairs}) WHERE cls = {quote(defect)}"


def _relations(frames: dict[str, Frame], short: Collection[str]) -> Rows:
    """Yield times that cannot be and references to nothing."""
    for (element, kind), values in frames["relations"].items():
        table, _, column = element.partition(".")
        if not values[0]:
            continue
        if table in short:
            flag = {"patient_id unresolved": "patient-unresolved", "encounter_id unresolved": "visit-unresolved"}.get(
                f"{column} {kind}", kind
            )
            if (column == "at" and kind != "midnight-only") or kind == "unresolved":
                yield name(element, kind), _COMBO + cells.has(flag)
        elif column == "at" and kind != "midnight-only":
            universe, test = cells.time_defects(table)[kind]
            source = f'"{table}" t LEFT JOIN person a ON t.patient_id = a.patient_id'
            yield name(element, kind), f"SELECT record FROM {source} WHERE t.excluded IS NULL AND ({universe}) AND ({test})"
        elif kind == "unresolved":
            target = f"t.{column}"
            known = (
                "person k ON t.patient_id = k.patient_id AND k.exported" if column == "patient_id" else "visit k ON t.encounter_id = k.id"
            )
            missing = "k.patient_id IS NULL" if column == "patient_id" else "k.id IS NULL"
            yield (
                name(element, kind),
                f'SELECT record FROM "{table}" t LEFT JOIN {known} WHERE t.excluded IS NULL AND {cells.REAL.format(target)} AND {missing}',
            )
