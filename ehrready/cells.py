"""Cells: records counted by patient, month, place and state; everything that groups records is added up from them.

A record's states and flags are the digits of one integer (``combo``), so that a table is scanned once, whatever the number
of its elements; the scan joins one row per patient (``person``) and one per encounter (``visit``), which hold all that
a record is compared with: the site, the patient's lifetime, whether the target of a reference was exported.
Patients are numbered: ``p`` is positive, negative for the mark of a stated absence, NULL where none is stated.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ehrready import concepts, narrow
from ehrready.engines.duckdb import quote
from ehrready.tables import ABSENT, CODED, DERIVED, SCALARS, TABLES, table_of

if TYPE_CHECKING:
    import duckdb

    from ehrready.concepts import Numbered

#: The kind of a table that no other connection reads, as ``CREATE`` has it.
TEMP = "TEMP "

# States of an element in a record: present (scalars) or coded, text-only, null-token, missing, absent-with-reason and
# masked.  missing and null-token are defects; masked is in no denominator.  The place in the list is the digit; 0 is: does not apply.
STATES = ("", "present", "missing", "masked", "absent-with-reason", "null-token", "text-only", "coded")
DIGIT = {state: digit for digit, state in enumerate(STATES)}
_DIGIT = DIGIT
_MASKED, _UNKNOWN = quote(ABSENT + "masked"), "('unknown', 'unk')"

#: Rows of a table to which an element applies, where that is not every row.
ELIGIBLE: dict[str, str] = {
    # a result that is not final has no value yet (FHIR ObservationStatus, HL7 table 0085)
    "observation.value": "(status IS NULL OR status IN ('final', 'amended', 'corrected', 'appended'))",
    "observation.unit": "value_kind = 'number'",
    "encounter.end": "(status IS NULL OR status IN ('finished', 'completed', 'discharged'))",
}

#: Tables whose ``at`` is the time of care: what happens long after death is an error there (a report or a bill is not).
CARE = ("encounter", "observation", "medication", "procedure", "immunization")
DATED = (*CARE, "condition", "report", "document")
ENDED = ("encounter", "condition", "medication", "procedure")

#: Of a record's concepts the first one tells its state; every part of a record (FHIR Observation.component) tells its own.
COUNTED = "(ordinal = 1 OR element = 'observation.code')"

#: Bits of a combo, from the lowest: a record that counts, one kept out, then universes and defects (ehrready.relations).
FLAGS = (
    "record", "excluded", "clocked", "midnight", "born", "before-birth", "died", "after-death", "ended", "end-before-start",
    "patient", "patient-unresolved", "visit", "visit-unresolved", "visit-of", "visit-of-another",
)  # fmt: skip
_BIT = {flag: bit for bit, flag in enumerate(FLAGS)}
#: Columns that are references, and the flag of those that point at anything.
_REFERENCES = {"patient_id": "patient", "encounter_id": "visit"}

NUMBER = {table: number for number, table in enumerate(TABLES)}

# a partial date stands for every day in it: hi is its last one, lo its first
_HI = "CASE length({0}) WHEN 4 THEN {0} || '-12-31' WHEN 7 THEN {0} || '-31' ELSE left({0}, 10) END"
_LO = "CASE length({0}) WHEN 4 THEN {0} || '-01-01' WHEN 7 THEN {0} || '-01' ELSE left({0}, 10) END"
_IS_DATE = "({0} BETWEEN '1000' AND '9999:' AND (length({0}) IN (4, 7) OR length({0}) >= 10))"

#: References that point at a record: contained and conditional ones point at nothing that is exported.
REAL = "{0} IS NOT NULL AND NOT is_absent({0}) AND NOT starts_with({0}, '#') AND NOT contains({0}, '?')"

#: A month as yyyymm; -yyyy for what says a year of the last or this century and no month; -1 for anything else.
MONTH = (
    "CASE WHEN regexp_matches({0}, '^[0-9]{{4}}-[0-9]{{2}}') THEN left({0}, 4)::INTEGER * 100 + substring({0}, 6, 2)::INTEGER "
    "WHEN regexp_matches({0}, '^(19|20)[0-9][0-9]') THEN -(left({0}, 4)::INTEGER) ELSE -1 END"
)

#: The month of a time as yyyymm, -1 where there is none: a release is in force in a month of the calendar.
STRICT_MONTH = "CASE WHEN regexp_matches({0}, '^[0-9]{{4}}-(0[1-9]|1[0-2])') THEN left({0}, 4)::INTEGER * 100 + substring({0}, 6, 2)::INTEGER ELSE -1 END"

#: Elements that are coded at discharge, not when they happen.
LATE = ("condition.code", "procedure.code")


def month_text(month: int) -> str:
    """Return ``YYYY-MM`` of a month's number, ``""`` of none."""
    return f"{month // 100:04d}-{month % 100:02d}" if month >= 0 else ""


def elements_of(table: str) -> list[str]:
    """Return the elements of a table whose states are measured, in the order of their digits."""
    scalars = [element for element, (t, _) in SCALARS.items() if t == table]
    derived = ["observation.value", "observation.unit"] if table == "observation" else []
    return [*scalars, *derived, *(element for element in CODED if table_of(element) == table)]


def shift(element: str) -> int:
    """Return the lowest bit of an element's digit."""
    return len(FLAGS) + 3 * elements_of(table_of(element)).index(element)


def mask(flag: str) -> int:
    """Return the bit of a flag as a number."""
    return 1 << _BIT[flag]


def standing(column: str) -> str:
    """Return the SQL of a number that says what state a reference is in, and whether it points at anything (``REAL``)."""
    return f"({_scalar(column)}) + CASE WHEN {REAL.format(column)} THEN {len(STATES)} ELSE 0 END"


def has(flag: str) -> str:
    """Return the SQL of whether a combo has a flag."""
    return f"((combo >> {_BIT[flag]}) & 1) = 1"


def is_state(element: str, state: str) -> str:
    """Return the SQL of whether a combo has an element in a state; ``*`` is any."""
    digit = f"((combo >> {shift(element)}) & 7)"
    return f"{digit} > 0" if state == "*" else f"{digit} = {_DIGIT[state]}"


def state_of(element: str, combo: int) -> str:
    """Return the state of an element in a combo, ``""`` where it does not apply."""
    return STATES[combo >> shift(element) & 7]


def build(con: duckdb.DuckDBPyConnection, temp: str = TEMP, begin: Callable[[Callable[[Any], None]], Any] | None = None) -> Any:
    """Make ``person``, ``visit``, ``place`` and ``cell``.

    ``temp``: of what kind those tables are that measures on another connection read, too (``TEMP``, or ``""`` where there are such);
    ``begin`` starts work on that connection: narrow records beside all else, whose ``result`` is returned and to be awaited before ``cell`` is asked.
    """
    filled = [table for table in TABLES if con.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()]
    short, numbered = narrow.there(con), concepts.shared(con)
    # where concepts are numbers of their records, these name all patients and sites
    others = () if numbered else ("concept", "coding")
    _people(con, [*filled, *others], short, temp)
    _visits(con, short)
    known = _places(con, [*filled, *others[:1]], short, temp)
    several = _several(con, short)
    if several:
        con.execute(
            f"CREATE {temp}TABLE known_pair AS SELECT DISTINCT id AS pair_visit, patient_id AS pair_patient FROM encounter "
            "WHERE id IS NOT NULL AND patient_id IS NOT NULL"
            if not short
            else f"CREATE {temp}TABLE known_pair AS SELECT DISTINCT e, p FROM {narrow.of('encounter')} WHERE e IS NOT NULL AND p IS NOT NULL"
        )
    counted = "counted" if short else "cell"
    con.execute(f"CREATE {temp}TABLE {counted} (t INTEGER, p BIGINT, place INTEGER, m INTEGER, combo BIGINT, n BIGINT)")
    narrowed = begin(functools.partial(narrow.make_cells, several=several, temp=temp)) if short and begin is not None else None
    if numbered:
        con.execute(f"CREATE TEMP TABLE concept_state AS SELECT t.x, {concept_digit()} AS digit FROM concept_text t WHERE t.ordinal = 1")
    # of narrow rows none but patients are here
    rows = {table: _records(table, known, several and not short, numbered.get(table, ()), short) for table in filled}
    if con.execute("SELECT 1 FROM component LIMIT 1").fetchone():
        rows["component"] = _components(known, numbered.get("component", ()))
    _count(con, counted, rows, numbered)
    if not numbered:
        _concepts(con, counted, known, short)
    if short and narrowed is None:
        narrow.make_cells(con, several, temp)
    return narrowed


def _people(con: duckdb.DuckDBPyConnection, naming: list[str], short: bool, temp: str) -> None:
    """Create ``person``: per patient id its number, birth and death as days, site, and whether a patient record has it."""

    def day(column: str, bound: str) -> str:
        return f"CASE WHEN {_IS_DATE.format(column)} THEN try_cast({bound.format(column)} AS DATE) END"

    # the last day of a month may be any of four
    of_month = f"last_day(try_cast({_LO.format('death_date')} AS DATE))"
    died = f"CASE WHEN length(death_date) = 7 AND {_IS_DATE.format('death_date')} THEN {of_month} ELSE {day('death_date', _HI)} END"
    said = " UNION ALL ".join(f'SELECT patient_id FROM "{table}" WHERE patient_id IS NOT NULL' for table in naming or ["patient"])
    number = "row_number() OVER (ORDER BY patient_id)"
    if short:  # a person's number is its id
        if numbers := " UNION ALL ".join(f"SELECT p FROM {narrow.of(table)}" for table in narrow.of_others(con)):
            said += f" UNION ALL SELECT p::VARCHAR FROM (SELECT DISTINCT p FROM ({numbers}) WHERE p IS NOT NULL)"
        number = "CAST(patient_id AS BIGINT)"
    con.execute(
        f"CREATE TEMP TABLE lifetime AS SELECT patient_id, strftime(min({day('birth_date', _LO)}) - 1, '%Y-%m-%d') born, "
        # a year of five digits would stand before all others as text
        f"CASE WHEN max({died}) > DATE '9999-12-01' THEN '9999-12-31' ELSE strftime(max({died}) + 30, '%Y-%m-%d') END died FROM patient WHERE excluded IS NULL "
        "AND patient_id IS NOT NULL AND NOT is_absent(patient_id) GROUP BY 1;"
        f"CREATE {temp}TABLE person AS SELECT i.patient_id, CASE WHEN is_absent(i.patient_id) THEN -i.number ELSE i.number END p, l.born, l.died, "
        "try_cast(l.born AS DATE) born_day, try_cast(l.died AS DATE) died_day, "
        f"k.site, k.patient_id IS NOT NULL AS exported FROM (SELECT patient_id, {number} number FROM "
        f"(SELECT DISTINCT patient_id FROM ({said}))) i LEFT JOIN lifetime l ON i.patient_id = l.patient_id "
        "LEFT JOIN (SELECT patient_id, min(site) site FROM patient WHERE patient_id IS NOT NULL GROUP BY 1) k ON i.patient_id = k.patient_id"
    )


def _visits(con: duckdb.DuckDBPyConnection, short: bool) -> None:
    """Create ``visit`` (of narrow rows ``stay``, see ``_places``): per encounter id its site, its patients, and when its codes were chosen."""
    if short:
        rows = f"FROM {narrow.of('encounter')} WHERE e IS NOT NULL"
        # an id that is there once needs no group (see narrow.duplicates)
        twice = con.execute(
            f"SELECT 1 {rows} GROUP BY e >> 6 HAVING count(*) <> bit_count(bit_or(1::UBIGINT << (e & 63)::UBIGINT)) LIMIT 1"
        )
        if twice.fetchone():
            con.execute(f"CREATE TEMP TABLE stay AS SELECT e, min(site) site, min(p) low, max(p) high, max(used) used {rows} GROUP BY e")
        else:
            con.execute(f"CREATE TEMP VIEW stay AS SELECT e, site, p AS low, p AS high, used {rows}")
        return
    patient = "CASE WHEN NOT is_absent(patient_id) THEN patient_id END"
    con.execute(
        f"CREATE TEMP TABLE visit AS SELECT id, min(site) site, min({patient}) lowest, max({patient}) highest, "
        'max(coalesce(CASE WHEN NOT is_absent("end") THEN "end" END, "at")) used FROM encounter WHERE id IS NOT NULL GROUP BY 1'
    )


def _several(con: duckdb.DuckDBPyConnection, short: bool) -> bool:
    """Return whether an encounter is of more than two patients: then two of them do not tell who they all are."""
    rows, key, who, least, most = (
        (narrow.of("encounter"), "e", "p", "low", "high") if short else ("encounter", "id", "patient_id", "lowest", "highest")
    )
    asked = f"SELECT 1 FROM (SELECT * FROM visit WHERE {least} <> {most}) v JOIN {rows} t ON t.{key} = v.{key} WHERE t.{who} NOT IN ({least}, {most}) LIMIT 1"
    return con.execute(asked).fetchone() is not None


def _places(con: duckdb.DuckDBPyConnection, naming: list[str], short: bool, temp: str) -> bool:
    """Create ``place``, the number of each site; returns whether there is any (else no join is needed).

    A single site needs the joins, too, since profiles of several hospitals must add up.
    """
    said = " UNION ALL ".join(f'SELECT site FROM "{table}"' for table in naming or ["patient"])
    said += f" UNION ALL SELECT DISTINCT site FROM {narrow.of('encounter')}" if short else ""
    con.execute(
        f"CREATE {temp}TABLE place AS SELECT site, (row_number() OVER (ORDER BY site))::INTEGER AS place FROM "
        f"(SELECT DISTINCT site FROM ({said}) WHERE site IS NOT NULL)"
    )
    # only what an encounter, a patient or a concept says makes the others be asked
    asked = f"SELECT site FROM {'stay' if short else 'visit'} UNION ALL SELECT site FROM person" + " UNION ALL SELECT site FROM concept" * (
        "concept" in naming
    )
    known = bool(con.execute(f"SELECT 1 FROM ({asked}) WHERE site IS NOT NULL LIMIT 1").fetchone())
    if not known and "concept" not in naming:  # a view, which is asked only where any record says a site
        stated = any(con.execute(f'SELECT 1 FROM "{table}" WHERE site IS NOT NULL LIMIT 1').fetchone() for table in naming)
        known = stated and bool(con.execute("SELECT 1 FROM concept WHERE site IS NOT NULL LIMIT 1").fetchone())
    if short:
        some = con.execute("SELECT 1 FROM place LIMIT 1").fetchone() is not None
        place, join = ("s.place", " LEFT JOIN place s ON x.site = s.site") if some else ("NULL::INTEGER AS place", "")
        for table, source, columns in (
            ("person", "person", f"x.*, {place}, {narrow.lifetime()}"),
            ("visit", "stay", f"x.* EXCLUDE (site), {place}"),
        ):
            con.execute(f"CREATE OR REPLACE {temp}TABLE {table} AS SELECT {columns} FROM {source} x{join}")
    return known


def _joined(key: str, known: bool, short: bool = False) -> tuple[str, str]:
    """Return the SQL of a row's place and the joins that every scan makes; beside narrow rows (``short``) there are patients alone, who have no visit."""
    visit = "(SELECT NULL::VARCHAR AS site WHERE false) v ON false" if short else f"visit v ON {key} = v.id"
    joins = f" LEFT JOIN person a ON t.patient_id = a.patient_id LEFT JOIN {visit}"
    if known:
        joins += " LEFT JOIN place s ON s.site = coalesce(t.site, v.site, a.site)"
    return ("s.place" if known else "NULL::INTEGER"), joins


def _records(table: str, known: bool, several: bool, numbered: Sequence[Numbered], short: bool) -> str:
    """Return the SELECT of patient, place, month and combo of a table's records, and of their numbered concepts."""
    place, joins = _joined("t.id" if table == "encounter" else "t.encounter_id", known, short)
    if several:
        joins += " LEFT JOIN known_pair k ON t.encounter_id = k.pair_visit AND t.patient_id = k.pair_patient"
    own = own_parts(table)
    others = [_flag(flag, test) for flag, test in _flags(table, several).items() if not _is_own(test)]
    parts = [*(["t.word"] if numbered else own), *others, *_states_of(numbered)]
    joins += concepts.joined(numbered)
    recorded = "t.recorded_at, " if table == "condition" else ""
    used = STRICT_MONTH.format(f"coalesce(v.used, {recorded}t.at)") if table in {table_of(e) for e in LATE} else "NULL::INTEGER"
    return (
        f"SELECT {concepts.kept(numbered, used, 't.excluded IS NULL')}a.p, {place} AS place, {'t.m' if numbered else MONTH.format('t.at')} AS m, CASE WHEN t.excluded IS NOT NULL THEN 2 "
        f'ELSE 1 + {" + ".join(parts)} END AS combo FROM "{table}" t{joins}'
    )


def own_parts(table: str, *, references: bool = True) -> list[str]:
    """Return what a record's own columns (of ``t``) add to its combo, as SQL: the states of its elements and the flags that need no join.

    Without ``references`` those of patient and encounter are left out (see ``of_references``).
    """
    apart = set() if references else {f"{table}.{column}" for column in _REFERENCES}
    digits = [f"{digit} * {1 << shift(element)}" for element, digit in _digits(table).items() if element not in apart]
    flags = {flag: test for flag, test in _flags(table, several=False).items() if _is_own(test)}
    return [*digits, *(_flag(flag, test) for flag, test in flags.items() if references or flag not in _REFERENCES.values())]


def of_references(table: str) -> dict[str, tuple[int, int]]:
    """Return what the references of a record add to its combo, by column: how much per digit of their state, and that they point at anything."""
    elements, flags = _digits(table), _flags(table, several=False)
    return {
        column: (1 << shift(f"{table}.{column}") if f"{table}.{column}" in elements else 0, mask(flag) if flag in flags else 0)
        for column, flag in _REFERENCES.items()
    }


def _flag(flag: str, test: str) -> str:
    return f"(CASE WHEN {test} THEN {1 << _BIT[flag]} ELSE 0 END)"


def _is_own(test: str) -> bool:
    """Say whether a flag needs neither person nor visit."""
    return not re.search(r"\b[avk]\.", test)


def _components(known: bool, numbered: Sequence[Numbered]) -> str:
    """Return the same of components: their combos are of value, unit and numbered code alone, since they are results and no records."""
    place, joins = _joined("t.encounter_id", known)
    digits = _digits("observation")
    parts = [*(f"{digits[element]} * {1 << shift(element)}" for element in DERIVED), *_states_of(numbered)]
    return (
        f"SELECT {concepts.kept(numbered, 'NULL::INTEGER', 'true')}a.p, {place} AS place, {MONTH.format('t.at')} AS m, {' + '.join(parts)} AS combo FROM component t{joins}"
        f"{concepts.joined(numbered)} WHERE t.excluded IS NULL"
    )


def _states_of(numbered: Sequence[Numbered]) -> list[str]:
    """Return the SQL of the digits of numbered concepts."""
    return [
        f"coalesce(d{i}.digit, {0 if one.optional else _DIGIT['missing']})::BIGINT * {1 << shift(one.element)}"
        for i, one in enumerate(numbered)
    ]


def _count(con: duckdb.DuckDBPyConnection, counted: str, rows: Mapping[str, str], numbered: Mapping[str, Sequence[Numbered]]) -> None:
    """Count rows by patient, place, month and combo; where concepts are numbers the rows stay, as ``row_of``, for the codings."""
    of = {table: NUMBER["observation" if table == "component" else table] for table in rows}
    if numbered:
        for i, (table, sql) in enumerate(rows.items()):  # one by one: the joins of all tables at once want several times the memory
            row = f"SELECT {of[table]} AS t, * FROM ({sql})"
            con.execute(f"INSERT INTO row_of {row}" if i else f"CREATE TEMP TABLE row_of AS {row}")
        con.execute(
            f"INSERT INTO {counted} SELECT t, p, place, m, combo, count(*) FROM row_of WHERE combo > 0 GROUP BY t, p, place, m, combo"
        )
        return
    for table, sql in rows.items():
        con.execute(
            f"INSERT INTO {counted} SELECT {of[table]}, p, place, m, combo, count(*) FROM ({sql}) WHERE combo > 0 GROUP BY p, place, m, combo"
        )


def _digits(table: str) -> dict[str, str]:
    """Return element to the SQL of its state's digit, 0 where it does not apply."""
    cases = {element: _scalar(f't."{column}"') for element, (t, column) in SCALARS.items() if t == table}
    if table == "observation":
        cases["observation.value"] = (
            f"CASE WHEN value_kind = 'text' AND null_token(value_text) THEN {_DIGIT['null-token']} WHEN value_kind IS NOT NULL THEN "
            f"{_DIGIT['present']} WHEN absent_reason = 'masked' THEN {_DIGIT['masked']} WHEN absent_reason IS NOT NULL THEN "
            f"{_DIGIT['absent-with-reason']} ELSE {_DIGIT['missing']} END"
        )
        cases["observation.unit"] = (
            f"CASE WHEN coalesce(unit, unit_code) IS NULL THEN {_DIGIT['missing']} WHEN null_token(coalesce(unit, unit_code)) "
            f"THEN {_DIGIT['null-token']} ELSE {_DIGIT['present']} END"
        )
    return {
        element: f"(CASE WHEN {ELIGIBLE[element]} THEN {sql} ELSE 0 END)" if element in ELIGIBLE else f"({sql})"
        for element, sql in cases.items()
    }


def _scalar(column: str) -> str:
    return (
        # what begins with a digit is none of what is asked for below
        f"CASE WHEN {column} IS NULL THEN {_DIGIT['missing']} WHEN {column} BETWEEN '/' AND '<' THEN {_DIGIT['present']} "
        f"WHEN {column} = {_MASKED} THEN {_DIGIT['masked']} WHEN is_absent({column}) "
        f"OR lower({column}) IN {_UNKNOWN} THEN {_DIGIT['absent-with-reason']} WHEN {narrow.null_token(column)} THEN {_DIGIT['null-token']} "
        f"ELSE {_DIGIT['present']} END"
    )


def _flags(table: str, several: bool) -> dict[str, str]:
    """Return flag to the SQL of its test: times against birth (a day of grace for time zones), death (30 days) and end; references."""
    tests: dict[str, str] = {}
    for kind, (universe, test) in time_defects(table).items():
        base, flag = _TIMES[kind]
        tests[base] = universe
        tests[flag] = f"({universe}) AND {test}"
    if table != "patient":
        patient, visit = REAL.format("t.patient_id"), REAL.format("t.encounter_id")
        tests["patient"] = patient
        tests["patient-unresolved"] = f"{patient} AND NOT coalesce(a.exported, false)"
        if table != "encounter":
            tests["visit"] = visit
            tests["visit-unresolved"] = f"{visit} AND v.id IS NULL"
            tests["visit-of"] = f"v.lowest IS NOT NULL AND {patient}"
            other = "k.pair_visit IS NULL" if several else "t.patient_id <> v.lowest AND t.patient_id <> v.highest"
            tests["visit-of-another"] = f"v.lowest IS NOT NULL AND {patient} AND {other}"
    return tests


def time_defects(table: str) -> dict[str, tuple[str, str]]:
    """Return the defects of a table's times: kind to (SQL of where it applies, SQL of the defect), over table ``t`` and person ``a``.

    Times are held against birth (a day of grace for time zones), death (30 days) and end.
    """
    defects: dict[str, tuple[str, str]] = {}
    at, end = 't."at"', 't."end"'
    dated, hi, lo = _IS_DATE.format(at), _HI.format(at), _LO.format(at)
    if table in DATED:
        defects["before-birth"] = (f"{dated} AND a.born IS NOT NULL", f"{hi} < a.born")
        defects["midnight-only"] = (f"length({at}) >= 16", f"substring({at}, 12, 5) = '00:00' AND substring({at}, 18, 2) IN ('', '00')")
    if table in CARE:
        defects["after-death"] = (f"{dated} AND a.died IS NOT NULL", f"{lo} > a.died")
    if table in ENDED:
        both = f"{dated} AND {_IS_DATE.format(end)}" + (f" AND {at} IS DISTINCT FROM t.recorded_at" if table == "condition" else "")
        common = f"least(length({at}), length({end}))"
        defects["end-before-start"] = (both, f"left({end}, {common}) < left({at}, {common})")
    return defects


#: Defect of a time to the flags of where it applies and of the defect.
_TIMES = {"before-birth": ("born", "before-birth"), "midnight-only": ("clocked", "midnight"), "after-death": ("died", "after-death"),
          "end-before-start": ("ended", "end-before-start")}  # fmt: skip


def concept_digit() -> str:
    """Return the SQL of the digit of a row of ``concept`` (``t``)."""
    return (
        f"CASE WHEN t.n_codings > 0 THEN {_DIGIT['coded']} WHEN t.absent_reason = 'masked' THEN {_DIGIT['masked']} WHEN t.absent_reason IS NOT NULL "
        f'AND (t."text" IS NULL OR null_token(t."text")) THEN {_DIGIT["absent-with-reason"]} WHEN null_token(t."text") THEN {_DIGIT["null-token"]} '
        f'WHEN t."text" IS NOT NULL THEN {_DIGIT["text-only"]} WHEN t.absent_reason IS NOT NULL THEN {_DIGIT["absent-with-reason"]} '
        f"ELSE {_DIGIT['missing']} END"
    )


def state_test(element: str, state: str) -> str:
    """Return the SQL of whether a record (``t`` is its table, or ``concept`` for a coded element) is in a state."""
    table = table_of(element)
    digit = concept_digit() if element in CODED else _digits(table)[element]
    return f"({digit}) = {_DIGIT[state]}"


def _concepts(con: duckdb.DuckDBPyConnection, counted: str, known: bool, short: bool) -> None:
    """Count the states of the coded elements: of the first concept of each record."""
    con.execute("CREATE TEMP TABLE coded_element (element VARCHAR, t INTEGER, unit BIGINT)")
    con.executemany("INSERT INTO coded_element VALUES (?, ?, ?)", [[e, NUMBER[table_of(e)], 1 << shift(e)] for e in CODED])
    place, joins = _joined("coalesce(o.id, t.encounter_id)" if known else "t.encounter_id", known, short)
    if known:  # what an encounter says of itself is where the encounter is
        joins = f" LEFT JOIN (SELECT record, id FROM encounter) o ON t.record = o.record AND starts_with(t.element, 'encounter.'){joins}"
    con.execute(
        f"INSERT INTO {counted} SELECT t, p, place, m, digit * unit, count(*) FROM (SELECT c.t, c.unit, a.p, {place} AS place, {MONTH.format('t.at')} AS m, "
        f"{concept_digit()} AS digit FROM concept t JOIN coded_element c ON t.element = c.element{joins} WHERE {COUNTED.replace('element', 't.element')}) "
        "GROUP BY t, p, place, m, digit, unit"
    )
