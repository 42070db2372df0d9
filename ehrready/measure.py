"""Measure: from canonical tables to the integers of a profile.  The only door out of the tables (design section 8).

Every statement groups, counts and sums; no value of a patient is selected except codes, and those only when they
are well-formed codes of a recognised public system (``ehrready.codings``).  Rows are first added up per patient,
so that distinct patients and the moments for the design effect (Σn², Σn·of) come from the same pass.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ehrready import cells, codings, custom, narrow, overlaps, relations, sites, states, values
from ehrready.engines.duckdb import LITTLE_MEMORY, is_duckdb, memory_of, quote
from ehrready.production import FORMAT as PREDICTIONS
from ehrready.production import measure as production
from ehrready.profile import Frame, Profile, empty
from ehrready.tables import ALL, TABLES

if TYPE_CHECKING:
    import duckdb

    from ehrready.ledger import Ledger
    from ehrready.rules import Rule
    from ehrready.terminology.releases import Store

T = TypeVar("T")

#: The patient of a row; a stated absence is none.
_PATIENT = "CASE WHEN NOT is_absent(patient_id) THEN patient_id END"


def measure(
    con: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    *,
    name: str = "dataset",
    store: Store | None = None,
    rules: Iterable[Rule] = (),
    meanwhile: Callable[[], None] | None = None,
) -> Profile:
    """Measure the canonical tables of ``con`` and the closed ledger into an exact profile.

    ``store`` holds the release tables against which codes and displays are judged at their date; of ``rules`` those are
    measured that say themselves what is to be counted, and the sites that have limits of their own are measured apart.
    ``meanwhile`` is done beside it: Python is idle while the engine groups and counts.
    """
    profile = Profile(name)
    frames = profile.frames
    frames["ledger"] = ledger_frame(ledger)
    frames["declared"] = _declared(ledger)
    formats = {entry.format for entry in ledger.entries.values()} - {""}
    if formats == {PREDICTIONS}:
        production.measure(con, frames, records=False)
        return profile
    rules = tuple(rules)
    with _Beside(con) as beside:
        begun = custom.begin(con, rules, beside.python)
        if meanwhile is not None:
            beside.python.submit(meanwhile)
        _records(con, frames, store, beside)
        frames["types"] = _frame(con, 'SELECT format, "type", sum(n) FROM types GROUP BY 1, 2', 2)
        _columns(con, frames)
        _views(con)
        overlaps.measure(con, frames)
        frames["custom"] = custom.measure(con, rules, begun)
    if PREDICTIONS in formats:
        production.measure(con, frames)
    named = sites.to_measure(rules)
    for site in [*named, sites.OTHERS] if named else ():
        with sites.alone(con, site, named) as part, _Beside(part, part=True) as none:
            _records(part, found := empty(), store, none)
        profile.sites[site] = sites.kept(found)
    return profile


@dataclass(frozen=True, slots=True)
class _Turn(Generic[T]):
    """Work of the engine that is done when its result is asked for."""

    work: Callable[[duckdb.DuckDBPyConnection], T]
    con: duckdb.DuckDBPyConnection

    def result(self) -> T:
        return self.work(self.con)


class _Beside:
    """What is done beside the measures: work of ``python``, and in the engine what needs little of what they make (``begin``).

    The latter only with memory for two statements at once.  Else, and for a ``part`` of the records (whose tables are those of one
    connection), it is done when its turn comes.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, *, part: bool = False) -> None:
        self.python, self._engine = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        roomy = not part and is_duckdb(con) and memory_of(con) >= LITTLE_MEMORY
        self._con, self._other = con, con.cursor() if roomy else None
        self._begun: list[Future[Any]] = []
        #: of what kind tables are that both connections read: temporary ones are a connection's own
        self.temp = "" if roomy else cells.TEMP

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None and self._other is not None:
            # nobody waits for what it does; between two statements there is nothing to interrupt, so it is tried until it has ended
            while wait([future for future in self._begun if not future.cancel()], 0.05).not_done:
                self._other.interrupt()
        for threads in (self.python, self._engine):
            threads.shutdown(cancel_futures=True)
        if self._other is not None:
            self._other.close()

    def begin(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> Future[T] | _Turn[T]:
        """Start some work of the engine, behind what was begun before; the result awaits it."""
        if self._other is None:
            return _Turn(work, self._con)
        self._begun.append(begun := self._engine.submit(work, self._other))
        return begun


def _records(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], store: Store | None, beside: _Beside) -> None:
    """Measure the records of the canonical tables: what is the same for the whole data set and for the records of one site.

    Where there is room, states are added up, and ids and categories counted, beside codings and values.
    """
    tables = narrow.tables(con)
    tables = [t for t in TABLES if t in tables or con.execute(f'SELECT 1 FROM "{t}" WHERE excluded IS NULL LIMIT 1').fetchone()]
    temp = beside.temp
    alone = beside.begin(functools.partial(relations.apart, tables=tables))
    narrowed = cells.build(con, temp, beside.begin)
    counted, known = empty(), threading.Event()
    try:
        states_of = beside.begin(functools.partial(_states, frames=counted, tables=tables, temp=temp, known=known))
        # narrow results are as they are: nothing of what is made of them is needed
        same = beside.begin(functools.partial(relations.alike, tables=tables)) if narrow.there(con) else None
        codings.measure(con, frames, store, temp, known.set)
    finally:
        known.set()
    _excluded(con, frames)
    frames["defects"] = _frame(con, f"SELECT element, kind, count(*), count(DISTINCT {_PATIENT}) FROM defect GROUP BY 1, 2", 2)
    values.measure(con, frames)
    if narrowed is not None:
        narrowed.result()
    states_of.result()
    for name, rows in counted.items():
        frames[name].update(rows)
    relations.measure(con, frames, tables, alone.result(), same.result() if same is not None else None)


def _states(con: duckdb.DuckDBPyConnection, *, frames: dict[str, Frame], tables: Sequence[str], temp: str, known: threading.Event) -> None:
    """Add up the cells; the groups of patients, for which their codings are asked, when these are ``known``."""
    made = states.build(con, temp)
    known.wait()
    _demographic(con, [table.name for table in made if table.name not in {"patient", "condition", "allergy"}], temp)
    states.measure(con, frames, made, tables)


def _frame(con: duckdb.DuckDBPyConnection, sql: str, keys: int) -> Frame:
    """Run an aggregate whose first ``keys`` columns are text and the others integers."""
    return {tuple(str(key) for key in row[:keys]): tuple(int(v) for v in row[keys:]) for row in con.execute(sql).fetchall()}


def ledger_frame(ledger: Ledger) -> Frame:
    """Add up the ledger by format, status and reason; ``""`` is the reason of the rows that carry the sizes."""
    frame: Frame = {}

    def add(key: tuple[str, str, str], values: tuple[int, ...]) -> None:
        frame[key] = tuple((a or 0) + b for a, b in zip(frame.get(key, (0,) * 5), values, strict=True))

    for entry in ledger.entries.values():
        add((entry.format, entry.status, entry.skip), (1, entry.size, entry.read, entry.profiled, 0))
        for reason, n in entry.reasons.items():
            add((entry.format, entry.status, reason), (0, 0, 0, 0, n))
    return frame


def _declared(ledger: Ledger) -> Frame:
    """Add up by format what files declare to hold and what was read of them."""
    frame: Frame = {}
    for entry in ledger.entries.values():
        if entry.declared is not None and entry.status != "reference":
            lacking, beyond = max(entry.declared - entry.read, 0), max(entry.read - entry.declared, 0)
            values = (1, entry.declared, entry.read, lacking, beyond)
            key = (entry.format,)
            frame[key] = tuple((a or 0) + b for a, b in zip(frame.get(key, (0,) * 5), values, strict=True))
    return frame


def _views(con: duckdb.DuckDBPyConnection) -> None:
    """Create what rules of contracts and work-lists see: the tables without stated absences of a patient, and the judged codings."""
    for name in TABLES:
        con.execute(f'CREATE TEMP VIEW "{name}_v" AS {_view(name)}')
    # what a feature is looked for in: the results, each with the number of its code among the record's concepts
    con.execute(f"CREATE TEMP VIEW result_v AS SELECT *, 1 AS concept FROM observation_v UNION ALL {_view('component')}")
    codings.views(con)


def _view(table: str) -> str:
    """Return the SELECT of the canonical columns of a table, without stated absences of a patient."""
    columns = (
        "CASE WHEN NOT is_absent(patient_id) THEN patient_id END AS patient_id" if name == "patient_id" else f'"{name}"'
        for name in ALL[table].names
    )
    return f'SELECT {", ".join(columns)} FROM "{table}"'


def _columns(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Book the unmapped columns, numbered within their table: their names may be anything."""
    frames["columns"] = _frame(
        con,
        'SELECT "table", \'column-\' || lpad(dense_rank() OVER (PARTITION BY "table" ORDER BY "column")::VARCHAR, 2, \'0\'), kind, '
        'sum(rows), sum(missing), sum(null_token) FROM generic_column GROUP BY "table", "column", kind',
        3,
    )


def _excluded(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count the records that are kept out, by table and reason."""
    union = " UNION ALL ".join(
        f"SELECT '{t}' AS tbl, {_PATIENT} patient_id, excluded FROM \"{t}\" WHERE excluded IS NOT NULL" for t in TABLES
    )
    frames["excluded"] = _frame(con, f"SELECT tbl, excluded, count(*), count(DISTINCT patient_id) FROM ({union}) GROUP BY 1, 2", 2)


#: Codes of the OMB categories of race and ethnicity, and their names.
_OMB = {"1002-5": "american-indian", "2028-9": "asian", "2054-5": "black", "2076-8": "pacific-islander", "2106-3": "white", "2131-1": "other",
        "2135-2": "hispanic", "2186-5": "not-hispanic"}  # fmt: skip
#: The same groups by the codes of OMOP's vocabularies Race (whose finer codes begin with these: 5.01) and Ethnicity.
_OMOP = {"1": "american-indian", "2": "asian", "3": "black", "4": "pacific-islander", "5": "white", "Hispanic": "hispanic",
         "Not Hispanic": "not-hispanic"}  # fmt: skip


def _demographic(con: duckdb.DuckDBPyConnection, dated: Sequence[str], temp: str) -> None:
    """Create ``demographic``: the groups each patient belongs to, in words of the administrative code sets; NULL when unknown.

    Age is that at the patient's last event, so that it does not depend on who else is in the data.
    """
    omb, omop = (" ".join(f"WHEN {quote(code)} THEN {quote(name)}" for code, name in names.items()) for names in (_OMB, _OMOP))
    group = f"CASE WHEN j.key = 'cdcrec' THEN CASE j.code {omb} END ELSE CASE split_part(j.code, '.', 1) {omop} END END"
    years = " UNION ALL ".join(f"SELECT p, y FROM whole_{table} WHERE p > 0" for table in dated) or "SELECT NULL::BIGINT p, NULL::INTEGER y"
    con.execute(
        f"CREATE {temp}TABLE demographic AS WITH seen AS (SELECT p, max(y) y FROM ({years}) GROUP BY p), "
        f"said_of AS (SELECT element, p, CASE WHEN min(grp) = max(grp) THEN min(grp) WHEN min(grp) <> max(grp) THEN 'several' END grp "
        f"FROM (SELECT j.element, s.p, {group} grp FROM per_term s JOIN term j USING (q) "
        "WHERE j.element IN ('patient.race', 'patient.ethnicity') AND j.key IN ('cdcrec', 'omop:race', 'omop:ethnicity')) GROUP BY 1, 2) "
        "SELECT p.patient_id, a.p, p.sex, CASE WHEN s.y - p.born < 0 THEN NULL WHEN s.y - p.born < 18 THEN '00-17' WHEN s.y - p.born < 45 THEN '18-44' "
        "WHEN s.y - p.born < 65 THEN '45-64' WHEN s.y - p.born < 85 THEN '65-84' WHEN s.y - p.born <= 120 THEN '85+' END age, "
        "r.grp race, e.grp ethnicity FROM (SELECT patient_id, min(CASE lower(sex) WHEN 'male' THEN 'male' WHEN 'm' THEN 'male' WHEN 'female' THEN 'female' "
        "WHEN 'f' THEN 'female' WHEN 'other' THEN 'other' WHEN 'o' THEN 'other' END) sex, min(CASE WHEN regexp_matches(birth_date, '^(18|19|20)[0-9][0-9]') "
        "THEN left(birth_date, 4)::INTEGER END) born FROM patient WHERE patient_id IS NOT NULL AND NOT is_absent(patient_id) GROUP BY 1) p "
        "JOIN person a ON a.patient_id = p.patient_id LEFT JOIN seen s ON s.p = a.p LEFT JOIN said_of r ON r.p = a.p AND r.element = 'patient.race' "
        "LEFT JOIN said_of e ON e.p = a.p AND e.element = 'patient.ethnicity'"
    )
