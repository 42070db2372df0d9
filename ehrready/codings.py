"""What the codings say: system, class and declared release, judged per distinct pair and counted in rows.

``coding.system`` is whatever the source wrote.  Each distinct (system, code) pair is resolved and classified once
in Python (``ehrready.terminology``); the result goes back into the engine as a table, so that the cost does not
grow with the rows.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrready import currency
from ehrready.engines.duckdb import quote
from ehrready.profile import Frame
from ehrready.readers.blocks import integers, strings
from ehrready.terminology import grammar, systems

if TYPE_CHECKING:
    import duckdb

    from ehrready.terminology.releases import Store

# Σn² and Σn·of; a row without a patient is its own cluster, so that the sums of two data sets add
_SQUARES = "sum(CASE WHEN patient_id IS NULL THEN n ELSE n * n END), sum(CASE WHEN patient_id IS NULL THEN n ELSE n * total END)"

_MONTH = "^[0-9]{4}-(0[1-9]|1[0-2])"

#: Systems told apart per concept: the bits of a BIGINT, less one for the surplus.
_BITS = 61

#: Systems of HL7's own small tables are pooled under one key: their URIs are open-ended.
HL7 = "hl7"


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], store: Store | None = None) -> None:
    """Fill the frames ``systems``, ``classes``, ``codes``, ``releases`` and those of ehrready.currency."""
    con.execute(
        "CREATE TEMP TABLE pair AS SELECT element, coalesce(\"system\", '') s, coalesce(code, '') c, count(*) n FROM coding GROUP BY ALL"
    )
    _classify(con, store)
    con.execute(
        "CREATE TEMP TABLE judged AS SELECT g.element, g.record, g.concept, CASE WHEN NOT is_absent(g.patient_id) THEN g.patient_id END AS patient_id, "
        f"g.version, g.display, CASE WHEN regexp_matches(g.used, '{_MONTH}') THEN left(g.used, 7) ELSE '' END AS month, j.pid "
        f"FROM ({_used(con)}) g JOIN judge j ON g.element = j.element AND coalesce(g.\"system\", '') = j.s AND coalesce(g.code, '') = j.c"
    )
    con.execute("CREATE TEMP TABLE per_pair AS SELECT element, pid, patient_id, count(*) n FROM judged GROUP BY ALL")
    con.execute(
        "CREATE TEMP TABLE per_code AS SELECT p.element, j.key, j.code, p.patient_id, sum(p.n)::BIGINT n, sum(sum(p.n)) OVER "
        "(PARTITION BY p.element, j.key, p.patient_id)::BIGINT total FROM per_pair p JOIN judge j USING (pid) WHERE j.code <> '' "
        "GROUP BY p.element, j.key, j.code, p.patient_id"
    )
    frames["codes"] = _rows(con, f"SELECT element, key, code, sum(n), count(patient_id), {_SQUARES} FROM per_code GROUP BY 1, 2, 3", 3)
    con.execute(
        "CREATE TEMP TABLE per_class AS SELECT element, key, how, cls, patient_id, sum(n)::BIGINT n, sum(sum(n)) OVER "
        "(PARTITION BY element, patient_id)::BIGINT total FROM (SELECT p.element, p.patient_id, p.n, j.key, j.how, j.cls FROM per_pair p "
        "JOIN judge j USING (pid)) GROUP BY element, key, how, cls, patient_id"
    )
    frames["classes"] = _rows(
        con,
        f"SELECT element, key, how, cls, sum(n), count(patient_id), {_SQUARES} FROM per_class GROUP BY 1, 2, 3, 4",
        4,
    )
    _systems(con, frames)
    _releases(con, frames)
    currency.measure(con, frames, store)


def _used(con: duckdb.DuckDBPyConnection) -> str:
    """Return the SQL of ``coding`` with ``used``: when the code was chosen, since that decides which release applies.

    Diagnoses and procedures are coded at discharge; an onset or a problem list's date may lie decades back, so the
    encounter's end and the date of recording go before it.  Everything else is coded when it happens.
    """
    late = "('condition.code', 'procedure.code')"
    known = con.execute(
        'SELECT (SELECT count(*) FROM encounter WHERE coalesce("end", "at") IS NOT NULL), (SELECT count(recorded_at) FROM condition), '
        f"(SELECT count(*) FROM coding WHERE element IN {late} AND encounter_id IS NOT NULL)"
    ).fetchone()
    encounters, recorded, linked = known or (0, 0, 0)
    dates, joins = ['g."at"'], ""
    if recorded:
        dates.insert(0, "c.recorded_at")
        joins += " LEFT JOIN condition c ON g.record = c.record AND g.element = 'condition.code'"
    if encounters and linked:
        dates.insert(0, "e.used")
        joins += (
            ' LEFT JOIN (SELECT id, max(coalesce(CASE WHEN NOT is_absent("end") THEN "end" END, "at")) used FROM encounter '
            "WHERE id IS NOT NULL GROUP BY 1) e ON g.encounter_id = e.id"
        )
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
    pairs: list[tuple[str, str, str, int]] = con.execute("SELECT element, s, c, n FROM pair ORDER BY 1, 2, 3").fetchall()
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
    con.execute(
        "CREATE TEMP TABLE judge AS SELECT j.*, p.element, p.s, p.c FROM _judge j JOIN "
        "(SELECT row_number() OVER (ORDER BY element, s, c) - 1 pid, element, s, c FROM pair) p USING (pid)"
    )
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


def _systems(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count concepts by the set of systems their codings are in (a bit per system, so that it stays integers)."""
    tokens = [row[0] for row in con.execute("SELECT DISTINCT token FROM judge ORDER BY 1").fetchall()]
    if not tokens:
        return
    if len(tokens) > _BITS:  # 62 bits: the surplus shares the last one
        con.execute(f"UPDATE judge SET token = '?unknown-uri' WHERE token NOT IN ({', '.join(map(quote, tokens[:_BITS]))})")
        tokens = sorted({*tokens[:_BITS], "?unknown-uri"})
    con.execute("CREATE TEMP TABLE token_bit (token VARCHAR, bit BIGINT)")
    con.executemany("INSERT INTO token_bit VALUES (?, ?)", [(token, 1 << i) for i, token in enumerate(tokens)])
    con.execute(
        "CREATE TEMP TABLE per_concept AS SELECT element, patient_id, bits, count(*) n FROM (SELECT g.element, g.record, g.concept, "
        "min(g.patient_id) patient_id, bit_or(b.bit) bits FROM judged g JOIN (SELECT pid, bit FROM judge JOIN token_bit USING (token)) b "
        "USING (pid) GROUP BY 1, 2, 3) GROUP BY 1, 2, 3"
    )
    con.execute("CREATE TEMP TABLE concept_total AS SELECT element, patient_id, sum(n)::BIGINT total FROM per_concept GROUP BY 1, 2")
    rows = _rows(
        con,
        f"SELECT p.element, bits, sum(n), count(p.patient_id), {_SQUARES.replace('patient_id', 'p.patient_id')} FROM per_concept p JOIN concept_total t "
        "ON p.element = t.element AND p.patient_id IS NOT DISTINCT FROM t.patient_id GROUP BY 1, 2",
        2,
    )
    for (element, bits), values in rows.items():
        names = "+".join(token for i, token in enumerate(tokens) if int(bits) >> i & 1)
        frames["systems"][element, names] = values


def _releases(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count codings by declared release; a string that is no recognised release is ``other``, none is ``""``."""
    con.execute(
        "CREATE TEMP TABLE declared AS SELECT g.element, j.key, coalesce(g.version, '') v, g.patient_id, count(*) n FROM judged g "
        "JOIN judge j USING (pid) WHERE j.token NOT LIKE '?%' AND j.key <> 'hl7' GROUP BY ALL"
    )
    raw: list[tuple[str, str]] = con.execute("SELECT DISTINCT key, v FROM declared ORDER BY 1, 2").fetchall()
    if not raw:
        return
    names = [("" if not v else systems.normalise_version(key, v) or "other") for key, v in raw]
    columns = [strings([x.encode() for x in column]).cast(pa.large_string()) for column in (*zip(*raw, strict=True), names)]
    con.register("_release", pa.Table.from_arrays(columns, names=["key", "v", "release"]))
    frames["releases"] = _rows(
        con,
        "SELECT d.element, d.key, r.release, sum(d.n), count(DISTINCT d.patient_id) FROM declared d JOIN _release r "
        "ON d.key = r.key AND d.v = r.v GROUP BY 1, 2, 3",
        3,
    )
    con.unregister("_release")
