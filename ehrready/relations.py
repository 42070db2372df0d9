"""Relations between records: identity, references, times against birth, death and end; and administrative codes.

Exact counts ``n`` of ``of`` with their patients, one row per element and kind.  They add over sources that share no
patient (docs/checks.md, conventions).  An element whose table or target was not exported has no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ehrready.engines.duckdb import quote
from ehrready.profile import Frame
from ehrready.tables import TABLES
from ehrready.valuesets import VALUE_SETS

if TYPE_CHECKING:
    import duckdb

#: Tables whose ``at`` is the time of care: what happens long after death is an error there (a report or a bill is not).
_CARE = ("encounter", "observation", "medication", "procedure", "immunization")
_DATED = (*_CARE, "condition", "report", "document")
_ENDED = ("encounter", "condition", "medication", "procedure")

# a partial date stands for every day in it: hi is its last one, lo its first
_HI = "CASE length({0}) WHEN 4 THEN {0} || '-12-31' WHEN 7 THEN {0} || '-31' ELSE left({0}, 10) END"
_LO = "CASE length({0}) WHEN 4 THEN {0} || '-01-01' WHEN 7 THEN {0} || '-01' ELSE left({0}, 10) END"
#: References that point at a record: contained and conditional ones point at nothing that is exported.
REAL = "{0} IS NOT NULL AND NOT is_absent({0}) AND NOT starts_with({0}, '#') AND NOT contains({0}, '?')"
_IS_DATE = "({0} BETWEEN '1000' AND '9999:' AND (length({0}) IN (4, 7) OR length({0}) >= 10))"


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Fill ``categories`` and the rows of ``relations`` about records and their times."""
    frame = frames["relations"]
    tables = [t for t in TABLES if con.execute(f'SELECT 1 FROM "{t}" WHERE excluded IS NULL LIMIT 1').fetchone()]
    _times(con, frame, tables)
    _identities(con, frame, tables)
    _references(con, frame, tables)
    _categories(con, frames["categories"], tables)


def _count(
    con: duckdb.DuckDBPyConnection, frame: Frame, element: str, source: str, defects: dict[str, tuple[str, str]], n: str = "1"
) -> None:
    """Add a row per defect: ``defects`` is kind to (universe, test), ``n`` the records a row of ``source`` stands for."""
    if not defects:
        return
    parts = []
    for universe, test in defects.values():
        found = f"FILTER (WHERE ({universe}) AND ({test}))"
        parts += [
            f"coalesce(sum({n}) {found}, 0)",
            f"coalesce(sum({n}) FILTER (WHERE {universe}), 0)",
            f"count(DISTINCT patient_id) {found}",
        ]
    row = con.execute(f"SELECT {', '.join(parts)} FROM {source}").fetchone() or ()
    for i, kind in enumerate(defects):
        frame[element, kind] = (int(row[3 * i]), int(row[3 * i + 1]), int(row[3 * i + 2]))


def _times(con: duckdb.DuckDBPyConnection, frame: Frame, tables: list[str]) -> None:
    """Compare times with birth (a day of grace for time zones), death (30 days) and end; count times of midnight."""

    def day(column: str, bound: str) -> str:
        return f"CASE WHEN {_IS_DATE.format(column)} THEN try_cast({bound.format(column)} AS DATE) END"

    con.execute(
        f"CREATE TEMP TABLE lifetime AS SELECT patient_id, strftime(min({day('birth_date', _LO)}) - 1, '%Y-%m-%d') born, "
        # a month's last day may not exist: the 28th and three days more is never earlier
        f"strftime(max({day('death_date', _HI.replace('-31', '-28'))}) + 33, '%Y-%m-%d') died FROM patient WHERE excluded IS NULL "
        "AND patient_id IS NOT NULL AND NOT is_absent(patient_id) GROUP BY 1"
    )
    for table in _DATED:
        if table not in tables:
            continue
        source = f'(SELECT * FROM "{table}" LEFT JOIN lifetime USING (patient_id) WHERE excluded IS NULL)'
        _count(con, frame, f"{table}.at", source, time_defects(table))


def time_defects(table: str) -> dict[str, tuple[str, str]]:
    """Return the defects of a table's times: kind to (SQL of where it applies, SQL of the defect), over ``lifetime``."""
    dated = _IS_DATE.format('"at"')
    hi, lo = _HI.format('"at"'), _LO.format('"at"')
    defects = {
        "before-birth": (f"{dated} AND born IS NOT NULL", f"{hi} < born"),
        "midnight-only": ('length("at") >= 16', "substring(\"at\", 12, 5) = '00:00' AND substring(\"at\", 18, 2) IN ('', '00')"),
    }
    if table in _CARE:
        defects["after-death"] = (f"{dated} AND died IS NOT NULL", f"{lo} > died")
    if table in _ENDED:
        ended = _IS_DATE.format('"end"')
        both = f"{dated} AND {ended}" + (' AND "at" IS DISTINCT FROM recorded_at' if table == "condition" else "")
        common = 'least(length("at"), length("end"))'
        defects["end-before-start"] = (both, f'left("end", {common}) < left("at", {common})')
    return defects


def _identities(con: duckdb.DuckDBPyConnection, frame: Frame, tables: list[str]) -> None:
    """Count surplus records: an id given twice within its type; the same number for a patient, code and time of day."""
    for table in tables:
        # in HL7v2 patients and visits are made one per key by the reader, and nothing else has an id
        where = "id IS NOT NULL AND excluded IS NULL AND source_type NOT IN ('PID', 'PV1')"
        total = con.execute(f'SELECT count(*) FROM "{table}" WHERE {where}').fetchone()
        if total and total[0]:
            con.execute(
                f'CREATE OR REPLACE TEMP TABLE twice AS SELECT source_type, id, count(*) - 1 n FROM "{table}" WHERE {where} '
                "GROUP BY 1, 2 HAVING count(*) > 1"
            )
            row = con.execute(
                "SELECT (SELECT coalesce(sum(n), 0) FROM twice), (SELECT count(DISTINCT patient_id) FROM "
                f'"{table}" JOIN twice USING (source_type, id) WHERE excluded IS NULL)'
            ).fetchone() or (0, 0)
            frame[f"{table}.id", "duplicate-id"] = (int(row[0]), int(total[0]), int(row[1]))
    if "observation" not in tables:
        return
    clocked = "clock IS NOT NULL AND v IS NOT NULL AND patient_id IS NOT NULL AND r > 0"
    con.execute(
        "CREATE TEMP TABLE same AS SELECT patient_id, r, clock, v FROM reading WHERE "
        f"{clocked} GROUP BY ALL HAVING count(*) > 1;"
        # a copy under the same id is a duplicate-id and counted there
        "CREATE TEMP TABLE copies AS SELECT s.patient_id, s.r, s.clock, s.v, o.encounter_id, o.status, o.unit, o.unit_code, o.range_low, "
        "o.range_high, count(DISTINCT coalesce(o.source_type || o.id, o.record::VARCHAR)) c FROM same s JOIN reading g USING (patient_id, r, clock, v) "
        "JOIN observation o USING (record) GROUP BY ALL"
    )
    row = con.execute(
        f"SELECT (SELECT count(*) FROM reading WHERE {clocked}), coalesce(sum(c - 1), 0), count(DISTINCT patient_id) FILTER (WHERE c > 1) FROM copies"
    ).fetchone() or (0, 0, 0)
    near = con.execute(
        "SELECT coalesce(sum(k - 1), 0), count(DISTINCT patient_id) FILTER (WHERE k > 1) FROM (SELECT patient_id, count(*) k FROM copies "
        "GROUP BY patient_id, r, clock, v)"
    ).fetchone() or (0, 0)
    frame["observation.code", "duplicate-record"] = (int(row[1]), int(row[0]), int(row[2]))
    frame["observation.code", "near-duplicate"] = (int(near[0]), int(row[0]), int(near[1]))


def _references(con: duckdb.DuckDBPyConnection, frame: Frame, tables: list[str]) -> None:
    """Count references to patients and encounters that were not exported, and encounters of another patient."""
    con.execute(
        "CREATE TEMP TABLE known_patient AS SELECT DISTINCT patient_id AS known FROM patient WHERE patient_id IS NOT NULL;"
        "CREATE TEMP TABLE known_visit AS SELECT id AS visit, min(patient_id) lowest, max(patient_id) highest FROM encounter WHERE id IS NOT NULL GROUP BY 1;"
        "CREATE TEMP TABLE known_pair AS SELECT DISTINCT id AS pair_visit, patient_id AS pair_patient FROM encounter WHERE id IS NOT NULL AND patient_id IS NOT NULL"
    )
    for table in tables:
        if table == "patient":
            continue
        con.execute(
            f'CREATE OR REPLACE TEMP TABLE link AS SELECT patient_id, encounter_id, count(*) n FROM "{table}" WHERE excluded IS NULL GROUP BY ALL'
        )
        source = "(SELECT * FROM link LEFT JOIN known_patient ON patient_id = known LEFT JOIN known_visit ON encounter_id = visit "
        source += "LEFT JOIN known_pair ON encounter_id = pair_visit AND patient_id = pair_patient)"
        patient, visit = REAL.format("patient_id"), REAL.format("encounter_id")
        if "patient" in tables:
            _count(con, frame, f"{table}.patient_id", source, {"unresolved": (patient, "known IS NULL")}, "n")
        if "encounter" in tables and table != "encounter":
            defects = {
                "unresolved": (visit, "visit IS NULL"),
                "several-patients": (
                    f"visit IS NOT NULL AND lowest IS NOT NULL AND {patient}",
                    "pair_visit IS NULL",
                ),
            }
            _count(con, frame, f"{table}.encounter_id", source, defects, "n")
    if "encounter" in tables:
        source = "(SELECT visit, lowest AS patient_id, lowest <> highest AS two FROM known_visit WHERE lowest IS NOT NULL)"
        _count(con, frame, "encounter.id", source, {"several-patients": ("true", "two")})


def _categories(con: duckdb.DuckDBPyConnection, frame: Frame, tables: list[str]) -> None:
    """Count administrative codes; a value that no value set has is pooled."""
    for element, sets in VALUE_SETS.items():
        table, _, column = element.partition(".")
        if table not in tables:
            continue
        known = {family: f"({', '.join(map(quote, sorted(values)))})" for family, values in sets.items()}
        value = (
            f"CASE WHEN v IS NULL THEN '' WHEN is_absent(v) THEN '?absent' WHEN null_token(v) AND lower(v) <> 'unknown' THEN '?null-token' WHEN lower(v) IN "
            f"{known['fhir']} THEN lower(v) WHEN length(source_type) = 3 AND upper(v) IN {known.get('hl7v2', known['fhir'])} THEN upper(v) ELSE '?other' END"
        )
        rows = con.execute(
            f"SELECT {value} category, sum(n), count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END) FROM "
            f'(SELECT "{column}" v, source_type, patient_id, count(*) n FROM "{table}" WHERE excluded IS NULL GROUP BY ALL) GROUP BY 1'
        ).fetchall()
        frame.update({(element, str(name)): (int(n), int(patients)) for name, n, patients in rows})
