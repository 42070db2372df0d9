"""Measure: from canonical tables to the integers of a profile.  The only door out of the tables (design section 8).

Every statement groups, counts and sums; no value of a patient is selected except codes, and those only when they
are well-formed codes of a recognised public system (``ehrready.codings``).  Rows are first added up per patient,
so that distinct patients and the moments for the design effect (Σn², Σn·of) come from the same pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ehrready import codings, custom, overlaps, relations, values
from ehrready.engines.duckdb import quote
from ehrready.profile import Frame, Profile
from ehrready.tables import ABSENT, CODED, SCALARS, TABLES

if TYPE_CHECKING:
    import duckdb

    from ehrready.ledger import Ledger
    from ehrready.rules import Rule
    from ehrready.terminology.releases import Store

# States of an element in a record: present (scalars) or coded, text-only, null-token, missing, absent-with-reason and
# masked.  missing and null-token are defects; masked is in no denominator.
_MASKED, _UNKNOWN = quote(ABSENT + "masked"), "('unknown', 'unk')"

#: Rows of a table to which an element applies, where that is not every row.
ELIGIBLE: dict[str, str] = {
    # a result that is not final has no value yet (FHIR ObservationStatus, HL7 table 0085)
    "observation.value": "(status IS NULL OR status IN ('final', 'amended', 'corrected', 'appended'))",
    "observation.unit": "value_kind = 'number'",
    "encounter.end": "(status IS NULL OR status IN ('finished', 'completed', 'discharged'))",
}


def measure(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, *, name: str = "dataset", store: Store | None = None, rules: Iterable[Rule] = ()
) -> Profile:
    """Measure the canonical tables of ``con`` and the closed ledger into an exact profile.

    ``store`` holds the release tables against which codes and displays are judged at their date; of ``rules`` those are
    measured that say themselves what is to be counted.
    """
    profile = Profile(name)
    frames = profile.frames
    frames["ledger"] = ledger_frame(ledger)
    frames["declared"] = _declared(ledger)
    _sites(con)
    codings.measure(con, frames, store)
    _people(con)
    frames["types"] = _frame(con, 'SELECT format, "type", sum(n) FROM types GROUP BY 1, 2', 2)
    _columns(con, frames)
    _records(con, frames)
    for table in TABLES:
        _scalars(con, table, frames["states"])
    _concepts(con, frames["states"])
    frames["defects"] = _frame(con, "SELECT element, kind, count(*), count(DISTINCT patient_id) FROM defect GROUP BY 1, 2", 2)
    values.measure(con, frames)
    relations.measure(con, frames)
    overlaps.measure(con, frames, overlaps.StateSql(_scalar_states, _CONCEPT_STATE))
    frames["custom"] = custom.measure(con, rules)
    return profile


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


def _sites(con: duckdb.DuckDBPyConnection) -> None:
    """Give every row the site of its encounter, else of its patient, where the format does not say it per record."""
    con.execute(
        "CREATE TEMP TABLE site_of_encounter AS SELECT id, min(site) site FROM encounter WHERE site IS NOT NULL AND id IS NOT NULL GROUP BY 1;"
        "CREATE TEMP TABLE site_of_patient AS SELECT patient_id id, min(site) site FROM patient WHERE site IS NOT NULL AND patient_id IS NOT NULL GROUP BY 1"
    )
    # no site at all needs no join; a single one does, since profiles of several hospitals must add up
    sites = con.execute(
        "SELECT count(site) FROM (SELECT site FROM site_of_encounter UNION ALL SELECT site FROM site_of_patient "
        "UNION ALL SELECT any_value(site) FROM concept)"
    ).fetchone()
    known = bool(sites and sites[0])
    for name in [*TABLES, "concept"]:
        key = "patient_id" if name == "patient" else "encounter_id" if name != "encounter" else "id"
        site = "NULL"
        joins = ""
        if known:
            site = "coalesce(t.site, e.site, p.site)"
            joins = f" LEFT JOIN site_of_encounter e ON t.{key} = e.id LEFT JOIN site_of_patient p ON t.patient_id = p.id"
        con.execute(
            f'CREATE TEMP VIEW "{name}_v" AS SELECT t.* EXCLUDE (patient_id), '
            f"CASE WHEN NOT is_absent(t.patient_id) THEN t.patient_id END AS patient_id, t.patient_id AS stated_patient, {site} AS place, "
            "CASE WHEN regexp_matches(t.\"at\", '^[0-9]{4}-[0-9]{2}') "
            f'THEN left(t."at", 7) ELSE \'\' END AS month FROM "{name}" t{joins}'
        )


def _columns(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Book the unmapped columns, numbered within their table: their names may be anything."""
    frames["columns"] = _frame(
        con,
        'SELECT "table", \'column-\' || lpad(dense_rank() OVER (PARTITION BY "table" ORDER BY "column")::VARCHAR, 2, \'0\'), kind, '
        'sum(rows), sum(missing), sum(null_token) FROM generic_column GROUP BY "table", "column", kind',
        3,
    )


def _records(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count records and patients by table and month, excluded ones apart."""
    union = " UNION ALL ".join(f"SELECT '{t}' AS tbl, patient_id, month, excluded FROM \"{t}_v\"" for t in TABLES)
    con.execute(f"CREATE TEMP TABLE event AS SELECT tbl, patient_id, month, excluded, count(*) n FROM ({union}) GROUP BY ALL")
    frames["volume"] = _frame(
        con, "SELECT tbl, month, sum(n), count(DISTINCT patient_id) FROM event WHERE excluded IS NULL GROUP BY 1, 2", 2
    )
    frames["excluded"] = _frame(
        con, "SELECT tbl, excluded, sum(n), count(DISTINCT patient_id) FROM event WHERE excluded IS NOT NULL GROUP BY 1, 2", 2
    )
    patients = "patient_id IS NOT NULL AND NOT is_absent(patient_id) AND excluded IS NULL"
    frames["patients"] = _frame(
        con,
        f"SELECT 'all', '', count(DISTINCT patient_id) FROM event WHERE {patients} UNION ALL SELECT 'first-month', m, count(*) FROM "
        f"(SELECT patient_id, min(month) m FROM event WHERE {patients} AND month <> '' AND tbl NOT IN ('condition', 'allergy', 'patient') "
        "GROUP BY 1) GROUP BY 2",
        2,
    )
    frames["history"] = _history(con)


def _history(con: duckdb.DuckDBPyConnection) -> Frame:
    """Count patients by the months between their first and last dated event (capped at ten years)."""
    rows = _frame(
        con,
        "SELECT CASE WHEN months > 120 THEN 120 ELSE months END AS m, count(*) FROM (SELECT patient_id, (left(max(month), 4)::INTEGER - left(min(month), 4)::INTEGER) * 12 "
        "+ right(max(month), 2)::INTEGER - right(min(month), 2)::INTEGER AS months FROM event WHERE patient_id IS NOT NULL AND NOT is_absent(patient_id) "
        "AND excluded IS NULL AND month BETWEEN '1900' AND '2100' AND tbl NOT IN ('condition', 'allergy', 'patient') GROUP BY 1) GROUP BY 1",
        1,
    )
    return {(f"{int(months):03d}",): values for (months,), values in rows.items()}


#: Groups of patients in which missing data is compared (checks.md 23), and the SQL that puts a patient into one.
#: Age is that at the patient's last event, so that it does not depend on who else is in the data.
_OMB = {"1002-5": "american-indian", "2028-9": "asian", "2054-5": "black", "2076-8": "pacific-islander", "2106-3": "white", "2131-1": "other",
        "2135-2": "hispanic", "2186-5": "not-hispanic"}  # fmt: skip
#: The same groups by the codes of OMOP's vocabularies Race (whose finer codes begin with these: 5.01) and Ethnicity.
_OMOP = {
    "1": "american-indian",
    "2": "asian",
    "3": "black",
    "4": "pacific-islander",
    "5": "white",
    "Hispanic": "hispanic",
    "Not Hispanic": "not-hispanic",
}
SUBGROUPS = ("sex", "age", "race", "ethnicity")


def _people(con: duckdb.DuckDBPyConnection) -> None:
    """Create ``demographic``: the groups each patient belongs to, in words of the administrative code sets; NULL when unknown."""
    omb, omop = (" ".join(f"WHEN {quote(code)} THEN {quote(name)}" for code, name in names.items()) for names in (_OMB, _OMOP))
    group = f"CASE WHEN j.key = 'cdcrec' THEN CASE j.code {omb} END ELSE CASE split_part(j.code, '.', 1) {omop} END END"
    dates = " UNION ALL ".join(
        f"SELECT patient_id, max(left(\"at\", 4)) y FROM \"{t}_v\" WHERE regexp_matches(\"at\", '^(19|20)[0-9][0-9]') GROUP BY 1"
        for t in TABLES if t not in {"patient", "condition", "allergy"}
    )  # fmt: skip
    con.execute(
        f"CREATE TEMP TABLE demographic AS WITH seen AS (SELECT patient_id, max(y)::INTEGER y FROM ({dates}) WHERE patient_id IS NOT NULL GROUP BY 1), "
        f"said AS (SELECT element, patient_id, CASE WHEN count(DISTINCT grp) = 1 THEN min(grp) WHEN count(DISTINCT grp) > 1 THEN 'several' END grp "
        f"FROM (SELECT g.element, g.patient_id, {group} grp FROM judged g JOIN judge j USING (pid) "
        "WHERE g.element IN ('patient.race', 'patient.ethnicity') AND j.key IN ('cdcrec', 'omop:race', 'omop:ethnicity')) GROUP BY 1, 2) "
        "SELECT p.patient_id, p.sex, CASE WHEN s.y - p.born < 0 OR s.y - p.born > 120 THEN NULL WHEN s.y - p.born < 18 THEN '00-17' "
        "WHEN s.y - p.born < 45 THEN '18-44' WHEN s.y - p.born < 65 THEN '45-64' WHEN s.y - p.born < 85 THEN '65-84' ELSE '85+' END age, "
        "r.grp race, e.grp ethnicity FROM (SELECT patient_id, min(CASE lower(sex) WHEN 'male' THEN 'male' WHEN 'm' THEN 'male' WHEN 'female' THEN 'female' "
        "WHEN 'f' THEN 'female' WHEN 'other' THEN 'other' WHEN 'o' THEN 'other' END) sex, min(CASE WHEN regexp_matches(birth_date, '^(18|19|20)[0-9][0-9]') "
        "THEN left(birth_date, 4)::INTEGER END) born FROM patient_v WHERE patient_id IS NOT NULL GROUP BY 1) p "
        "LEFT JOIN seen s USING (patient_id) LEFT JOIN said r ON r.patient_id = p.patient_id AND r.element = 'patient.race' "
        "LEFT JOIN said e ON e.patient_id = p.patient_id AND e.element = 'patient.ethnicity'"
    )


def _scalar_states(table: str) -> dict[str, str]:
    """Return scalar element of a table to the SQL of its state, NULL where it does not apply."""
    elements = {element: column for element, (t, column) in SCALARS.items() if t == table}
    cases = {element: _scalar_state(f'"{column}"') for element, column in elements.items()}
    if table == "observation":
        cases["observation.value"] = (
            "CASE WHEN value_kind = 'text' AND null_token(value_text) THEN 'null-token' WHEN value_kind IS NOT NULL THEN 'present' "
            "WHEN absent_reason = 'masked' THEN 'masked' WHEN absent_reason IS NOT NULL THEN 'absent-with-reason' ELSE 'missing' END"
        )
        cases["observation.unit"] = (
            "CASE WHEN coalesce(unit, unit_code) IS NULL THEN 'missing' WHEN null_token(coalesce(unit, unit_code)) "
            "THEN 'null-token' ELSE 'present' END"
        )
    return {element: _eligible(element, sql) for element, sql in cases.items()}


def _scalars(con: duckdb.DuckDBPyConnection, table: str, states: Frame) -> None:
    """Measure the states of a table's scalar elements in one scan."""
    # the view's patient_id is NULL where the source states a reason for its absence
    cases = {element: sql.replace('"patient_id"', "stated_patient") for element, sql in _scalar_states(table).items()}
    if not cases:
        return
    columns = ", ".join(f"{sql} AS s{i}" for i, sql in enumerate(cases.values()))
    con.execute(
        f'CREATE OR REPLACE TEMP TABLE cell AS SELECT patient_id, place, month, {columns}, count(*) n FROM "{table}_v" '
        "WHERE excluded IS NULL GROUP BY ALL"
    )
    for i, element in enumerate(cases):
        _roll_up(con, states, f"SELECT {quote(element)} element, patient_id, place, month, s{i} state, n FROM cell WHERE s{i} IS NOT NULL")


def _eligible(element: str, sql: str) -> str:
    return f"CASE WHEN {ELIGIBLE[element]} THEN {sql} END" if element in ELIGIBLE else sql


def _scalar_state(column: str) -> str:
    return (
        f"CASE WHEN {column} IS NULL THEN 'missing' WHEN {column} = {_MASKED} THEN 'masked' WHEN is_absent({column}) "
        f"OR lower({column}) IN {_UNKNOWN} THEN 'absent-with-reason' WHEN null_token({column}) THEN 'null-token' ELSE 'present' END"
    )


_CONCEPT_STATE = (
    "CASE WHEN n_codings > 0 THEN 'coded' WHEN absent_reason = 'masked' THEN 'masked' "
    'WHEN absent_reason IS NOT NULL AND ("text" IS NULL OR null_token("text")) THEN \'absent-with-reason\' '
    "WHEN null_token(\"text\") THEN 'null-token' WHEN \"text\" IS NOT NULL THEN 'text-only' "
    "WHEN absent_reason IS NOT NULL THEN 'absent-with-reason' ELSE 'missing' END"
)


def _concepts(con: duckdb.DuckDBPyConnection, states: Frame) -> None:
    """Measure the states of the coded elements: of the first concept of each record."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE cell AS SELECT element, patient_id, place, month, {_CONCEPT_STATE} state, count(*) n FROM concept_v "
        "WHERE ordinal = 1 GROUP BY ALL"
    )
    _roll_up(con, states, f"SELECT * FROM cell WHERE element IN ({', '.join(map(quote, CODED))})")


def _squares(count: str) -> str:
    """Return the SQL of Σn² and Σn·of over clusters."""
    return f"sum(CASE WHEN patient_id IS NULL THEN {count} ELSE {count} * {count} END), sum(CASE WHEN patient_id IS NULL THEN {count} ELSE {count} * total END)"


def _roll_up(con: duckdb.DuckDBPyConnection, states: Frame, cells: str) -> None:
    """Add (element, patient_id, place, month, state, n) up to n, patients, Σn², Σn·of by all, month, site and subgroup.

    The state ``*`` is the total; rows without a patient count as no patient, each its own cluster (so that sums add).
    """
    for grouping, group in (("all", "''"), ("month", "month"), ("site", "place")):
        where = "" if grouping == "all" else f" WHERE {group} IS NOT NULL AND {group} <> ''"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE per_patient AS SELECT element, {group} g, patient_id, state, sum(n)::BIGINT n, "
            f"sum(sum(n)) OVER (PARTITION BY element, {group}, patient_id)::BIGINT total FROM ({cells}){where} GROUP BY element, {group}, patient_id, state"
        )
        rows = _frame(
            con,
            f"SELECT element, g, state, sum(n), count(patient_id), {_squares('n')} FROM per_patient GROUP BY 1, 2, 3 UNION ALL "
            f"SELECT element, g, '*', sum(total), count(patient_id), {_squares('total')} FROM "
            "(SELECT DISTINCT element, g, patient_id, total FROM per_patient) GROUP BY 1, 2",
            3,
        )
        states.update({(element, grouping, g, state): values for (element, g, state), values in rows.items()})
        if grouping == "all":
            con.execute("CREATE OR REPLACE TEMP TABLE whole AS SELECT element, patient_id, state, n, total FROM per_patient")
    for attribute in SUBGROUPS:  # a patient is in one group, so the sums of the whole serve
        joined = f"SELECT w.*, coalesce(p.{attribute}, 'unknown') g FROM whole w LEFT JOIN demographic p USING (patient_id)"
        rows = _frame(
            con,
            f"SELECT element, g, state, sum(n), count(patient_id), {_squares('n')} FROM ({joined}) GROUP BY 1, 2, 3 UNION ALL "
            f"SELECT element, g, '*', sum(total), count(patient_id), {_squares('total')} FROM (SELECT DISTINCT element, g, patient_id, total FROM ({joined})) "
            "GROUP BY 1, 2",
            3,
        )
        states.update({(element, attribute, g, state): values for (element, g, state), values in rows.items()})
