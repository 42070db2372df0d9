"""What the codings say: system, class and declared release, judged per distinct pair and counted in rows.

``coding.system`` is whatever the source wrote.  Each distinct (system, code) pair is resolved and classified once
in Python (``ehrready.terminology``); the result goes back into the engine as a table, so that the cost does not
grow with the rows.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import concepts, currency, narrow, sorted_terms
from ehrready.cells import LATE, NUMBER, STRICT_MONTH, TEMP
from ehrready.engines.duckdb import quote
from ehrready.profile import Frame
from ehrready.readers.arrays import integers, strings
from ehrready.tables import CODED
from ehrready.terminology import grammar, systems

if TYPE_CHECKING:
    import duckdb

    from ehrready.terminology.releases import Store

# Σn² and Σn·of; a row without a patient is its own cluster, so that the sums of two data sets add
_SUMS = "sum(n), count(p), sum(CASE WHEN p IS NULL THEN n ELSE n * n END), sum(CASE WHEN p IS NULL THEN n ELSE n * total END)"

#: Systems told apart per concept: the bits of a BIGINT, less one for the surplus.
_BITS = 61

#: Systems of HL7's own small tables are pooled under one key: their URIs are open-ended.
HL7 = "hl7"


_ROWS = (
    "SELECT element, coalesce(\"system\", '') s, coalesce(code, '') c, coalesce(version, '') version, coalesce(display, '') display, count(*) n, "
    "max(position) most FROM coding GROUP BY ALL"
)
_NARROW = (
    "SELECT e.element, coalesce(k.\"system\", ''), coalesce(k.code, ''), coalesce(k.version, ''), coalesce(k.display, ''), g.n, g.most FROM "
    "(SELECT el, cid, count(*) n, max(position) most FROM narrow_coding GROUP BY el, cid) g JOIN element_of e USING (el) JOIN narrow_concept k ON k.id = g.cid"
)


def measure(
    con: duckdb.DuckDBPyConnection,
    frames: dict[str, Frame],
    store: Store | None = None,
    temp: str = TEMP,
    known: Callable[[], None] = lambda: None,
) -> None:
    """Fill the frames ``systems``, ``classes``, ``codes``, ``releases`` and those of ehrready.currency.

    Texts are looked at once per distinct coding (``term``); rows are numbers: ``said`` has a row per coding, and ``per_term``
    adds them up per patient, which is all that most frames need.  Both may be read on another connection (``temp``, see ehrready.cells);
    ``known`` is called when they have what is said of patients themselves (which is never narrow).
    """
    short, numbered = narrow.there(con), concepts.shared(con)
    # text, how often it is said, the last place in a concept where it is
    sources = [concepts.counted(numbered, NUMBER) if numbered else _ROWS]
    if short:
        con.execute("CREATE TEMP TABLE element_of (el INTEGER, element VARCHAR)")
        con.executemany("INSERT INTO element_of VALUES (?, ?)", [[el, element] for el, element in enumerate(CODED)])
        sources.append(_NARROW)
    con.execute(
        f"CREATE {temp}TABLE term AS SELECT row_number() OVER (ORDER BY element, s, c, version, display) - 1 q, * FROM (SELECT element, "
        f"s, c, version, display, sum(n)::BIGINT n, max(most) most FROM ({' UNION ALL '.join(sources)}) AS source(element, s, c, version, display, n, most) "
        "GROUP BY element, s, c, version, display);"
        "CREATE TEMP TABLE pair AS SELECT row_number() OVER (ORDER BY element, s, c) - 1 pid, * FROM (SELECT element, s, c, sum(n)::BIGINT n FROM term GROUP BY ALL)"
    )
    _classify(con, store)
    con.execute(
        f"CREATE OR REPLACE {temp}TABLE term AS SELECT t.q, t.version, t.display, t.most, j.* FROM term t JOIN judge j ON t.element = j.element "
        "AND t.s = j.s AND t.c = j.c"
    )
    if numbered:
        for statement in concepts.said(numbered, NUMBER, LATE):
            con.execute(statement)
        con.execute("DROP TABLE row_of")  # a row per record: nothing else asks it, and room is wanted
    else:
        con.execute(
            f"CREATE TEMP TABLE {'said_text' if short else 'said'} AS SELECT t.q, g.record, g.concept, CASE WHEN a.p > 0 THEN a.p END AS p, {STRICT_MONTH.format('g.used')} AS m "
            f"FROM ({_used(con)}) g JOIN term t ON g.element = t.element AND coalesce(g.\"system\", '') = t.s AND coalesce(g.code, '') = t.c "
            "AND coalesce(g.version, '') = t.version AND coalesce(g.display, '') = t.display LEFT JOIN person a ON g.patient_id = a.patient_id"
        )
    if short:
        _said_narrow(con)
    con.execute(f"CREATE {temp}TABLE per_term AS SELECT q, p, count(*) n FROM {'said_text' if short else 'said'} GROUP BY q, p")
    known()
    groupings: list[sorted_terms.Grouping] | None = [] if short else None
    _grouped(con, frames, groupings, "codes", ("element", "key", "code"), ("element", "key"), "code <> ''")
    _grouped(con, frames, groupings, "classes", ("element", "key", "how", "cls"), ("element",), "true")
    _systems(con, frames, groupings)
    _releases(con, frames, groupings)
    if groupings is not None:
        sorted_terms.count(con, frames, groupings)
    currency.measure(con, frames, store, "said_month" if short else "said")


def views(con: duckdb.DuckDBPyConnection) -> None:
    """Create ``judged``, the codings with what was found of each, for rules of contracts and work-lists."""
    con.execute(
        "CREATE TEMP VIEW judged AS SELECT j.element, s.record, s.concept, a.patient_id, nullif(j.version, '') AS version, "
        "nullif(j.display, '') AS display, s.m, j.pid FROM said s JOIN term j USING (q) LEFT JOIN person a ON a.p = s.p"
    )


def _said_narrow(con: duckdb.DuckDBPyConnection) -> None:
    """Make ``said`` a view that has the narrow codings, too; ``term_of`` is what each concept id of an element is."""
    late = ", ".join(str(CODED.index(element)) for element in LATE)
    con.execute(
        "CREATE TEMP TABLE term_of AS SELECT e.el, k.id AS cid, t.q, t.pid FROM narrow_concept k JOIN term t ON t.s = coalesce(k.\"system\", '') "
        "AND t.c = coalesce(k.code, '') AND t.version = coalesce(k.version, '') AND t.display = coalesce(k.display, '') JOIN element_of e ON e.element = t.element;"
        "CREATE TEMP VIEW said AS SELECT q, record, concept, p, m FROM said_text UNION ALL "
        f"SELECT t.q, n.record, 1, n.p, n.m FROM narrow_coding n JOIN term_of t ON n.el = t.el AND n.cid = t.cid WHERE n.el NOT IN ({late}) UNION ALL "
        "SELECT t.q, n.record, 1, n.p, coalesce(v.used, n.m) FROM narrow_coding n JOIN term_of t ON n.el = t.el AND n.cid = t.cid "
        f"LEFT JOIN visit v ON n.e = v.e WHERE n.el IN ({late});"
        # the months in which each is said: few, once the concepts are
        "CREATE TEMP VIEW said_month AS SELECT q, m FROM said_text UNION ALL SELECT t.q, n.m FROM (SELECT DISTINCT el, cid, m FROM narrow_coding "
        f"WHERE el NOT IN ({late}){''.join(_late(con))}) n JOIN term_of t ON n.el = t.el AND n.cid = t.cid"
    )


def _late(con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the SQL of the months of narrow codings that are chosen at the end of an encounter, with ``UNION ALL`` before each."""
    late = {CODED.index(element) for element in LATE}
    for table in narrow.tables(con):
        columns = [(el, column) for el, column in narrow.codes(con, table) if el in late]
        if not columns:
            continue
        rows, joined = narrow.of(table), "{0} n JOIN visit v ON n.e = v.e"
        # of a table by itself, where all visits are there: the engine looks them up by place
        (inner,) = con.execute(f"SELECT (SELECT count(*) FROM {rows}) = (SELECT count(*) FROM {joined.format(rows)})").fetchall()[0]
        source = joined.format(rows) if inner else f"{rows} n LEFT JOIN visit v ON n.e = v.e"
        for el, column in columns:
            yield f" UNION ALL SELECT DISTINCT {el}, n.{column}, coalesce(v.used, n.m) FROM {source} WHERE n.{column} IS NOT NULL"


#: What narrow codings are to be added up by, beside what is in ``per_term``; None without such.
Narrow = list[sorted_terms.Grouping] | None


def _grouped(
    con: duckdb.DuckDBPyConnection,
    frames: dict[str, Frame],
    later: Narrow,
    frame: str,
    by: tuple[str, ...],
    within: tuple[str, ...],
    where: str,
) -> None:
    """Count codings by some columns of ``term``, with the moments over patients within the first of them.

    Rows are grouped by numbers, not by texts, and not at all where each group is one term.
    """
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE group_of AS SELECT q, (dense_rank() OVER (ORDER BY {', '.join(by)}))::INTEGER k, "
        f"(dense_rank() OVER (ORDER BY {', '.join(within)}))::INTEGER w, {', '.join(by)} FROM term WHERE {where}"
    )
    several = con.execute("SELECT 1 FROM group_of GROUP BY k HAVING count(*) > 1 LIMIT 1").fetchone() is not None
    counted = "SELECT g.k, any_value(g.w) w, s.p, sum(s.n)::BIGINT n" if several else "SELECT g.k, g.w, s.p, s.n"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE per_group AS {counted} FROM per_term s JOIN group_of g USING (q){' GROUP BY g.k, s.p' if several else ''}"
    )
    if later is not None:
        later.append(sorted_terms.grouping(con, frame, f"SELECT q, k, w, {', '.join(by)} FROM group_of"))
    frames[frame] = _rows(
        con,
        f"SELECT {', '.join(by)}, n, patients, n2, n_of FROM (SELECT k, {_SUMS} FROM {_totalled('per_group', 'w')} GROUP BY k) AS s(k, n, patients, n2, n_of) "
        f"JOIN (SELECT DISTINCT k, {', '.join(by)} FROM group_of) USING (k)",
        len(by),
    )


def _totalled(table: str, *within: str) -> str:
    """Return the SQL of a table of sums per patient with ``total``, the patient's sum within some columns; a join is cheaper than a window."""
    keys = ", ".join((*within, "p"))
    sums = f"(SELECT {keys}, sum(n)::BIGINT total FROM {table} WHERE p IS NOT NULL GROUP BY {keys})"
    return f"(SELECT t.*, w.total FROM {table} t LEFT JOIN {sums} w ON {' AND '.join(f't.{key} = w.{key}' for key in (*within, 'p'))})"


def _used(con: duckdb.DuckDBPyConnection) -> str:
    """Return the SQL of ``coding`` with ``used``: when the code was chosen, since that decides which release applies.

    Diagnoses and procedures are coded at discharge; an onset or a problem list's date may lie decades back, so the
    encounter's end and the date of recording go before it.  Everything else is coded when it happens.
    """
    late = f"({', '.join(map(quote, LATE))})"
    known = con.execute(
        "SELECT (SELECT count(*) FROM visit WHERE used IS NOT NULL), (SELECT count(recorded_at) FROM condition), "
        f"(SELECT count(*) FROM coding WHERE element IN {late} AND encounter_id IS NOT NULL)"
    ).fetchone()
    encounters, recorded, linked = known or (0, 0, 0)
    dates, joins = ['g."at"'], ""
    if recorded:
        dates.insert(0, "c.recorded_at")
        joins += " LEFT JOIN condition c ON g.record = c.record AND g.element = 'condition.code'"
    if encounters and linked:
        dates.insert(0, "e.used")
        joins += " LEFT JOIN visit e ON g.encounter_id = e.id"
    if len(dates) == 1:
        return 'SELECT g.*, g."at" AS used FROM coding g'
    return (
        f'SELECT g.*, g."at" AS used FROM coding g WHERE element NOT IN {late} UNION ALL '
        f"SELECT g.*, coalesce({', '.join(dates)}) AS used FROM coding g{joins} WHERE g.element IN {late}"
    )


def _rows(con: duckdb.DuckDBPyConnection, sql: str, keys: int) -> Frame:
    return {tuple(map(str, row[:keys])): tuple(map(int, row[keys:])) for row in con.execute(sql).fetchall()}


def _classify(con: duckdb.DuckDBPyConnection, store: Store | None) -> None:
    """Create ``judge``: per distinct (element, system, code) its key, how it was found, its class and public code.

    ``token`` is what the pair says about the system: its key, ``?local``, ``?unknown-uri``, ``?missing-system`` or
    ``!icd9cm`` where the content says another system than the one declared.
    """
    pairs: list[tuple[str, str, str, int]] = con.execute("SELECT element, s, c, n FROM pair ORDER BY pid").fetchall()
    resolved = {s: systems.resolve(s or None) for s in {s for _, s, _, _ in pairs}}
    undecided: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for element, s, c, n in pairs:
        if resolved[s].how == "undecided":
            undecided[element, s].append((c, n))
    decided = {place: grammar.resolve_undecided(resolved[place[1]].candidates, codes) for place, codes in undecided.items()}
    keys, hows = [], []
    for element, s, _, _ in pairs:
        found = resolved[s]
        keys.append(decided[element, s] if found.how == "undecided" else found.key)
        hows.append(found.how)
    classified = grammar.classify_pairs([(key, c) for key, (_, _, c, _) in zip(keys, pairs, strict=True)])
    mislabelled = _mislabelled(keys, [c for _, _, c, _ in pairs], classified, store)
    out: list[list[str]] = [[], [], [], [], []]
    for i, other in mislabelled.items():
        classified[i] = dataclasses.replace(classified[i], cls="other-system", looks_like=other, repaired=None)
    for key, how, result, (_, _, c, _) in zip(keys, hows, classified, pairs, strict=True):
        public = systems.is_public(key) and result.cls in {"well-formed", "repairable"}
        shown = HL7 if key.partition(":")[0] in {"hl7", "fhir", "v2", "v3", "hl7v2_table"} else key
        if result.cls == "other-system" and result.looks_like:
            token = f"!{result.looks_like}"
        elif how in {"exact", "alias"} or (how == "undecided" and key):
            token = shown
        else:
            token = {"missing": "?missing-system", "local": "?local", "undecided": "?undecided"}.get(how, "?unknown-uri")
        code = (result.repaired or c.strip()) if public and shown != HL7 else ""
        for column, value in zip(out, (shown if token[0] != "?" else token[1:], how, result.cls, code, token), strict=True):
            column.append(value)
    text = [strings([v.encode() for v in column]).cast(pa.large_string()) for column in out]
    pid = integers(np.arange(len(pairs)))
    con.register("_judge", pa.Table.from_arrays([pid, *text], names=["pid", "key", "how", "cls", "code", "token"]))
    con.execute("CREATE TEMP TABLE judge AS SELECT j.*, p.element, p.s, p.c FROM _judge j JOIN pair p USING (pid)")
    con.unregister("_judge")


def _mislabelled(
    keys: Sequence[str | None], raw: Sequence[str], classified: Sequence[grammar.Classified], store: Store | None
) -> dict[int, str]:
    """Return the pairs whose grammar fits but whose code only the other revision of ICD has ever had.

    ``V58.61`` (ICD-9-CM) has the shape of an ICD-10-CM code: only the lists of codes tell them apart (checks.md 4, 5).
    """
    found: dict[int, str] = {}
    for key, other in (("icd10cm", "icd9cm"), ("icd9cm", "icd10cm")):
        mine = [i for i, k in enumerate(keys) if k == key and classified[i].cls in {"well-formed", "repairable"}]
        if not mine or store is None:
            continue
        table, rival = store.table(key), store.table(other)
        if table is None or rival is None or not table.complete:
            continue
        codes = [classified[i].repaired or raw[i].strip() for i in mine]
        suspects = [(i, code) for i, code, at in zip(mine, codes, table.positions(codes), strict=True) if at < 0]
        found.update({i: other for (i, _), at in zip(suspects, rival.positions([code for _, code in suspects]), strict=True) if at >= 0})
    return found


def _systems(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], later: Narrow) -> None:
    """Count concepts by the set of systems their codings are in (a bit per system, so that it stays integers)."""
    tokens = [row[0] for row in con.execute("SELECT DISTINCT token FROM judge ORDER BY 1").fetchall()]
    if not tokens:
        return
    if len(tokens) > _BITS:  # 62 bits: the surplus shares the last one
        con.execute(f"UPDATE judge SET token = '?unknown-uri' WHERE token NOT IN ({', '.join(map(quote, tokens[:_BITS]))})")
        tokens = sorted({*tokens[:_BITS], "?unknown-uri"})
    con.execute("CREATE TEMP TABLE token_bit (token VARCHAR, bit BIGINT)")
    con.executemany("INSERT INTO token_bit VALUES (?, ?)", [(token, 1 << i) for i, token in enumerate(tokens)])
    # where no concept has a second coding each coding is a concept, and the sums per patient serve
    single = "SELECT element FROM term GROUP BY element HAVING max(most) = 1"
    con.execute(
        "CREATE TEMP TABLE bit_of AS SELECT t.q, t.element, (dense_rank() OVER (ORDER BY t.element))::INTEGER w, b.bit, s.element IS NOT NULL AS single "
        f"FROM term t JOIN judge j USING (pid) JOIN token_bit b ON b.token = j.token LEFT JOIN ({single}) s ON s.element = t.element;"
        "CREATE TEMP TABLE per_concept AS SELECT w, p, bits, sum(n)::BIGINT n FROM (SELECT b.w, s.p, b.bit AS bits, s.n FROM per_term s "
        "JOIN bit_of b USING (q) WHERE b.single UNION ALL SELECT w, p, bits, count(*) n FROM (SELECT b.w, g.record, g.concept, "
        "min(g.p) p, bit_or(b.bit) bits FROM said g JOIN bit_of b USING (q) WHERE NOT b.single GROUP BY 1, 2, 3) GROUP BY 1, 2, 3) GROUP BY 1, 2, 3"
    )
    rows = _rows(
        con,
        f"SELECT element, bits, n, patients, n2, n_of FROM (SELECT w, bits, {_SUMS} FROM {_totalled('per_concept', 'w')} GROUP BY w, bits) "
        "AS s(w, bits, n, patients, n2, n_of) JOIN (SELECT DISTINCT w, element FROM bit_of) USING (w)",
        2,
    )
    for (element, bits), values in rows.items():
        names = "+".join(token for i, token in enumerate(tokens) if int(bits) >> i & 1)
        frames["systems"][element, names] = values
    if later is not None:
        told = "SELECT q, dense_rank() OVER (ORDER BY w, bit), w, element, token FROM bit_of JOIN token_bit USING (bit) WHERE single"
        later.append(sorted_terms.grouping(con, "systems", told))


def _releases(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], later: Narrow) -> None:
    """Count codings by declared release; a string that is no recognised release is ``other``, none is ``""``."""
    con.execute(
        "CREATE TEMP TABLE declared AS SELECT t.q, t.element, t.key, t.version v FROM term t JOIN judge j USING (pid) "
        "WHERE j.token NOT LIKE '?%' AND t.key <> 'hl7'"
    )
    raw: list[tuple[str, str]] = con.execute("SELECT DISTINCT key, v FROM declared ORDER BY 1, 2").fetchall()
    if not raw:
        return
    names = [("" if not v else systems.normalise_version(key, v) or "other") for key, v in raw]
    columns = [strings([x.encode() for x in column]).cast(pa.large_string()) for column in (*zip(*raw, strict=True), names)]
    con.register("_release", pa.Table.from_arrays(columns, names=["key", "v", "release"]))
    con.execute(
        "CREATE TEMP TABLE release_of AS SELECT d.q, (dense_rank() OVER (ORDER BY d.element, d.key, r.release))::INTEGER k, d.element, d.key, r.release "
        "FROM declared d JOIN _release r ON d.key = r.key AND d.v = r.v"
    )
    frames["releases"] = _rows(
        con,
        "SELECT element, key, release, n, patients FROM (SELECT k, sum(n) n, count(p) patients FROM (SELECT r.k, s.p, sum(s.n) n FROM per_term s "
        "JOIN release_of r USING (q) GROUP BY r.k, s.p) GROUP BY k) JOIN (SELECT DISTINCT k, element, key, release FROM release_of) USING (k)",
        3,
    )
    con.unregister("_release")
    if later is not None:
        later.append(sorted_terms.grouping(con, "releases", "SELECT q, k, k, element, key, release FROM release_of", 2))
