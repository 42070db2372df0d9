"""What the codes themselves say about their release: measured against loaded release tables (checks.md 6, 12, 13).

Everything is judged once per distinct pair: (code, month) for currency, (code, display) for displays.  The result goes
back into the engine as a table and is counted there, so that the cost does not grow with the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ehrready.cells import month_text
from ehrready.engines.duckdb import quote
from ehrready.profile import Frame
from ehrready.readers.arrays import integers, strings

if TYPE_CHECKING:
    import duckdb

    from ehrready.terminology.releases import ReleaseTable, Store

#: Code systems that appear in dated releases which add and retire codes: those whose release can be told from use.
RELEASED = ("icd10cm", "icd10pcs", "icd9cm", "icd9pcs", "loinc", "snomed", "rxnorm", "cvx", "hcpcs", "cpt")

#: Classes of ``code-current``; the last three are in no denominator.
CLASSES = ("current", "retired", "not-yet-valid", "header", "unknown", "unlisted", "outside", "undated")

#: Classes that are defects, of codes and of displays.
DEFECTS = ("retired", "not-yet-valid", "header", "unknown", "differs")

#: A code may be used this long after its release ended: claims and late documentation (checks.md 13).
GRACE_DAYS = 90

#: A table answers for events up to this long after its newest release came into force.
HORIZON_DAYS = 366

_DAY = np.timedelta64(1, "D")


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], store: Store | None, said: str = "said") -> None:
    """Fill ``quarters``, ``currency``, ``displays`` and ``tables`` from ``said`` and ``term`` (ehrready.codings); ``said`` may name what has the same months."""
    released = ", ".join(map(quote, RELEASED))
    con.execute(
        f"CREATE TEMP TABLE dated AS SELECT j.pid, s.m, min(j.element) element, min(j.key) key, min(j.code) code FROM (SELECT DISTINCT q, m FROM {said}) s "
        f"JOIN term j USING (q) WHERE j.code <> '' AND j.key IN ({released}) GROUP BY 1, 2"
    )
    rows = con.execute(
        "SELECT DISTINCT element, key, code, left(lpad(m::VARCHAR, 6, '0'), 4) || '-Q' || ((m % 100 + 2) // 3)::VARCHAR FROM dated WHERE m > 0"
    ).fetchall()
    frames["quarters"] = {tuple(row): (1,) for row in rows}
    if store is None:
        return
    used = [row[0] for row in con.execute("SELECT DISTINCT key FROM dated ORDER BY 1").fetchall()]
    tables = {system: table for system in used if (table := store.table(system)) is not None}
    for table in tables.values():
        for release in table.releases:
            frames["tables"][table.system, release.label, release.sha256] = (1,)
    if tables:
        _currency(con, frames, tables)
        _displays(con, frames, tables)


def _currency(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], tables: dict[str, ReleaseTable]) -> None:
    """Class every (code, month) by the releases in force then; count codings and patients by class."""
    keys = ", ".join(map(quote, tables))
    pairs = con.execute(f"SELECT pid, key, code, m FROM dated WHERE key IN ({keys}) ORDER BY pid, m").fetchnumpy()
    pid, number, key, code = _columns(pairs, "pid", "m", "key", "code")
    month = np.array([month_text(int(m)) for m in number], dtype=np.str_)
    classes = np.full(len(pid), CLASSES.index("undated"), dtype=np.int64)
    for system, table in tables.items():
        mine = key == system
        classes[mine] = class_of(table, table.positions(code[mine]), month[mine])
    con.register(
        "_classed", pa.Table.from_arrays([integers(pid), integers(number), _texts(np.array(CLASSES)[classes])], names=["pid", "m", "cls"])
    )
    source = (
        "SELECT j.element, j.key, c.cls, s.p, count(*) n FROM said s JOIN term j USING (q) JOIN _classed c ON c.pid = j.pid AND c.m = s.m"
    )
    _count(con, frames, "currency", f"{source} GROUP BY 1, 2, 3, 4")


def class_of(table: ReleaseTable, positions: np.ndarray, months: np.ndarray) -> np.ndarray:
    """Return the index in CLASSES of each (code, month); ``positions`` are -1 for unknown codes, months ``YYYY-MM`` or ``""``."""
    known = positions >= 0
    at = np.where(known, positions, 0)
    result = np.full(len(positions), CLASSES.index("unknown" if table.complete else "unlisted"), dtype=np.int64)
    dated = months != ""
    starts = np.where(dated, months, "2000-01").astype("datetime64[M]")
    first_day, last_day = starts.astype("datetime64[D]"), (starts + np.timedelta64(1, "M")).astype("datetime64[D]") - _DAY
    effective = np.array([release.effective or "NaT" for release in table.releases], dtype="datetime64[D]")
    in_order = not np.isnat(effective).any()
    if not in_order or not len(effective):  # without dates a table knows codes, not when they were valid
        result[known] = CLASSES.index("outside")
        result[~dated] = CLASSES.index("undated")
        return result
    since = np.searchsorted(effective, first_day - GRACE_DAYS * _DAY, side="right") - 1  # release in force when grace began
    until = np.searchsorted(effective, last_day, side="right") - 1
    # a code is good when one of the releases in force from the beginning of grace to the end of the month has it
    upto = np.concatenate([np.zeros((len(table.codes), 1), dtype=np.int32), np.cumsum(table.valid, axis=1, dtype=np.int32)], axis=1)
    low, high = np.clip(since, 0, None), np.clip(until, -1, None) + 1
    valid = upto[at, np.maximum(high, low)] - upto[at, low] > 0
    later = upto[at, -1] - upto[at, np.maximum(high, 0)] > 0
    named = np.where(valid, CLASSES.index("current"), np.where(later, CLASSES.index("not-yet-valid"), CLASSES.index("retired")))
    if table.billable is not None:
        billable = np.concatenate(
            [np.zeros((len(table.codes), 1), dtype=np.int32), np.cumsum(table.billable, axis=1, dtype=np.int32)], axis=1
        )
        leaf = billable[at, np.maximum(high, low)] - billable[at, low] > 0
        named = np.where(valid & ~leaf, CLASSES.index("header"), named)
    before = until < 0
    after = (last_day > effective[-1] + HORIZON_DAYS * _DAY) & table.valid[:, -1].any()  # a system that was withdrawn has no later release
    # outside the table's years only what it can still say is said: a code of its edge release is taken as current
    edge = np.where(before, table.valid[at, 0], table.valid[at, -1])
    named = np.where((before | after) & ~edge, CLASSES.index("outside"), np.where(before & edge, CLASSES.index("current"), named))
    result[known] = named[known]
    result[~known & (before | after)] = CLASSES.index("outside")
    result[~dated] = CLASSES.index("undated")
    return result


def _displays(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], tables: dict[str, ReleaseTable]) -> None:
    """Class every (code, display) by whether the display resembles a name of the code."""
    named = [system for system, table in tables.items() if table.has_names]
    if not named:
        return
    keys = ", ".join(map(quote, named))
    con.execute(
        "CREATE TEMP TABLE shown AS SELECT q, pid, element, key, code, lower(trim(display)) display FROM term WHERE code <> '' "
        f"AND key IN ({keys}) AND trim(display) <> ''"
    )
    pairs = con.execute("SELECT DISTINCT pid, key, code, display FROM shown ORDER BY 1, 4").fetchnumpy()
    pid, key, code, display = _columns(pairs, "pid", "key", "code", "display")
    if not len(pid):
        return
    verdict = np.full(len(pid), "unlisted", dtype=object)
    for system in named:
        table, mine = tables[system], np.flatnonzero(key == system)
        for i, position in zip(mine, table.positions(code[mine]), strict=True):
            names = table.names(int(position)) if position >= 0 else ()
            if names:
                verdict[i] = "agrees" if agrees(str(display[i]), names) else "differs"
    con.register("_classed", pa.Table.from_arrays([integers(pid), _texts(display), _texts(verdict)], names=["pid", "display", "cls"]))
    source = "SELECT d.element, d.key, c.cls, s.p, sum(s.n)::BIGINT n FROM per_term s JOIN shown d USING (q) JOIN _classed c ON c.pid = d.pid AND c.display = d.display"
    _count(con, frames, "displays", f"{source} GROUP BY 1, 2, 3, 4")


_WORD = re.compile(r"[a-z0-9]+")
_NOISE = frozenset({"a", "an", "and", "by", "for", "in", "nos", "of", "on", "or", "other", "the", "to", "unspecified", "with", "without"})


def agrees(display: str, names: tuple[str, ...]) -> bool:
    """Does a display name the same thing as one of the code's names?

    Half of the shorter side's words, as stems of five letters, must be on the other side; noise words do not count
    unless nothing else is there.  An abbreviated display (every word the beginning of a name's word) agrees too.
    """
    mine = _stems(display)
    for name in names:
        theirs = _stems(name)
        small, large = sorted((mine, theirs), key=len)
        if not small or sum(any(a.startswith(b) or b.startswith(a) for b in large) for a in small) * 2 >= len(small):
            return True
    return False


def _stems(text: str) -> frozenset[str]:
    words = _WORD.findall(text.lower())
    return frozenset(word[:5] for word in words if word not in _NOISE) or frozenset(word[:5] for word in words)


def _columns(pairs: Mapping[str, Any], *names: str) -> list[np.ndarray]:
    """Return columns of a query's result as plain arrays: numbers as int64, all else as text."""
    return [np.asarray(pairs[name], dtype=np.int64 if name in {"pid", "m"} else np.str_) for name in names]


def _texts(values: np.ndarray) -> pa.Array:
    return strings([str(value).encode() for value in values]).cast(pa.large_string())


def _count(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], frame: str, source: str) -> None:
    """Count ``source`` (element, key, cls, p, n) by class: n, patients, Σn², Σn·of per element and system."""
    rows = con.execute(
        "SELECT element, key, cls, sum(n), count(p), sum(CASE WHEN p IS NULL THEN n ELSE n * n END), sum(CASE WHEN p IS NULL THEN n ELSE n * total END) "
        f"FROM (SELECT *, sum(n) OVER (PARTITION BY element, key, p)::BIGINT total FROM ({source})) GROUP BY 1, 2, 3"
    ).fetchall()
    # what is wrong, for the records that have several defects (ehrready.overlaps)
    con.execute(f"CREATE TEMP TABLE {frame}_class AS SELECT * FROM _classed WHERE cls IN ({', '.join(map(quote, DEFECTS))})")
    con.unregister("_classed")
    frames[frame] = {tuple(map(str, row[:3])): tuple(map(int, row[3:])) for row in rows}
