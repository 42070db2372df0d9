"""Seeded data for the performance benchmark: the same bytes of content for the same arguments, made by DuckDB alone."""

from __future__ import annotations

from pathlib import Path

import duckdb

#: LOINC code, unit, least and greatest usual value of the analytes in ``omop``; concept ids are numbered from 3000000.
_LABS = [
    ("2160-0", "mg/dL", 0.5, 1.4), ("2345-7", "mg/dL", 65, 140), ("2951-2", "mmol/L", 132, 148), ("2823-3", "mmol/L", 3.2, 5.4),
    ("2075-0", "mmol/L", 95, 110), ("2028-9", "mmol/L", 20, 32), ("3094-0", "mg/dL", 6, 28), ("17861-6", "mg/dL", 8.2, 10.6),
    ("718-7", "g/dL", 9, 17.5), ("4544-3", "%", 28, 52), ("6690-2", "10*3/uL", 3, 13), ("777-3", "10*3/uL", 120, 450),
    ("4548-4", "%", 4.5, 11), ("2093-3", "mg/dL", 110, 290), ("2085-9", "mg/dL", 25, 90), ("2571-8", "mg/dL", 40, 400),
    ("8480-6", "mm[Hg]", 90, 180), ("8462-4", "mm[Hg]", 50, 110), ("8867-4", "/min", 48, 125), ("9279-1", "/min", 10, 28),
    ("8310-5", "Cel", 35.8, 39.2), ("29463-7", "kg", 40, 140), ("8302-2", "cm", 140, 200), ("39156-5", "kg/m2", 17, 45),
    ("1742-6", "U/L", 5, 90), ("1920-8", "U/L", 8, 80), ("1975-2", "mg/dL", 0.2, 2.2), ("1751-7", "g/dL", 2.8, 5.2),
]  # fmt: skip
_UNITS = sorted({unit for _, unit, _, _ in _LABS})
_CONDITIONS = ["38341003", "44054006", "55822004", "195967001", "73211009", "13645005", "84114007", "49436004", "40930008", "35489007",
               "271737000", "10509002", "444814009", "195662009", "162864005", "15777000", "72892002", "59621000", "53741008", "230690007"]  # fmt: skip
_VISITS = [(9202, "OP"), (9201, "IP"), (9203, "ER")]


def omop(
    folder: Path,
    *,
    persons: int = 50_000,
    measurements: int = 5_000_000,
    conditions: int = 1_000_000,
    visits: int = 1_000_000,
    seed: int = 7,
) -> Path:
    """Write OMOP CDM 5.4 tables (all their columns) as Parquet, ordered by person as an ETL leaves them; returns the folder.

    A folder that is complete is left as it is.
    """
    done = folder / "DONE"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        con.execute(f"CREATE MACRO draw(i, what, n) AS (hash(i, what, {seed}) % n)::INTEGER")
        con.execute("CREATE TABLE lab (k INTEGER, code VARCHAR, unit VARCHAR, low DOUBLE, high DOUBLE)")
        con.executemany("INSERT INTO lab VALUES (?, ?, ?, ?, ?)", [[k, *lab] for k, lab in enumerate(_LABS)])
        con.execute("CREATE TABLE unit (k INTEGER, unit VARCHAR)")
        con.executemany("INSERT INTO unit VALUES (?, ?)", [[k, unit] for k, unit in enumerate(_UNITS)])
        con.execute("CREATE TABLE dx (k INTEGER, code VARCHAR)")
        con.executemany("INSERT INTO dx VALUES (?, ?)", [[k, code] for k, code in enumerate(_CONDITIONS)])
        for name, sql in _tables(persons, measurements, conditions, visits).items():
            con.execute(f"COPY ({sql}) TO '{folder / name}.parquet' (FORMAT parquet, COMPRESSION snappy)")
    done.touch()
    return folder


def _tables(persons: int, measurements: int, conditions: int, visits: int) -> dict[str, str]:
    """Return table name to the SELECT that makes it."""
    none, text = "NULL::INTEGER", "NULL::VARCHAR"

    def who(rows: int) -> str:
        """Return the SQL of the person and the visit of row ``i``: rows are spread evenly, a visit is the person's own."""
        person = f"i * {persons} // {rows}"
        return f"({person} + 1)::INTEGER person_id, (({person}) * {visits} // {persons} + draw(i, 'visit', {max(visits // persons, 1)}) + 1)::INTEGER own_visit"

    day = "DATE '2019-01-01' + draw(i, 'day', 1800)"
    return {
        "person": "SELECT (i + 1)::INTEGER person_id, [8507, 8532][draw(i, 'sex', 2) + 1]::INTEGER gender_concept_id, "
        "1930 + draw(i, 'year', 85) year_of_birth, 1 + draw(i, 'month', 12) month_of_birth, 1 + draw(i, 'date', 28) day_of_birth, "
        "make_timestamp(year_of_birth, month_of_birth, day_of_birth, 0, 0, 0) birth_datetime, "
        "[8527, 8516, 8515, 0][draw(i, 'race', 4) + 1]::INTEGER race_concept_id, "
        f"[38003563, 38003564][draw(i, 'ethnicity', 2) + 1]::INTEGER ethnicity_concept_id, {none} location_id, {none} provider_id, "
        f"1 + draw(i, 'site', 3) care_site_id, 'P' || i person_source_value, ['M', 'F'][draw(i, 'sex', 2) + 1] gender_source_value, "
        "0 gender_source_concept_id, ['white', 'black', 'asian', NULL][draw(i, 'race', 4) + 1] race_source_value, 0 race_source_concept_id, "
        "['hispanic', 'nonhispanic'][draw(i, 'ethnicity', 2) + 1] ethnicity_source_value, 0 ethnicity_source_concept_id "
        f"FROM range({persons}) t(i)",
        "visit_occurrence": f"SELECT (i + 1)::INTEGER visit_occurrence_id, (i * {persons} // {visits} + 1)::INTEGER person_id, "
        f"[9202, 9201, 9203][draw(i, 'kind', 3) + 1]::INTEGER visit_concept_id, {day} visit_start_date, "
        "visit_start_date + to_minutes(draw(i, 'minute', 1440)) visit_start_datetime, visit_start_date + draw(i, 'stay', 4) visit_end_date, "
        "visit_end_date + INTERVAL 1439 MINUTE visit_end_datetime, 44818517 visit_type_concept_id, draw(i, 'provider', 500) provider_id, "
        "1 + draw(i, 'site', 3) care_site_id, ['OP', 'IP', 'ER'][draw(i, 'kind', 3) + 1] visit_source_value, 0 visit_source_concept_id, "
        f"0 admitted_from_concept_id, {text} admitted_from_source_value, 0 discharged_to_concept_id, {text} discharged_to_source_value, "
        f"{none} preceding_visit_occurrence_id FROM range({visits}) t(i)",
        "condition_occurrence": f"SELECT (i + 1)::INTEGER condition_occurrence_id, person_id, 4000000 + k condition_concept_id, "
        f"{day} condition_start_date, condition_start_date::TIMESTAMP condition_start_datetime, CASE WHEN draw(i, 'over', 3) > 0 THEN "
        "condition_start_date + draw(i, 'length', 60) END condition_end_date, condition_end_date::TIMESTAMP condition_end_datetime, "
        f"32817 condition_type_concept_id, {none} condition_status_concept_id, {text} stop_reason, draw(i, 'provider', 500) provider_id, "
        f"own_visit visit_occurrence_id, {none} visit_detail_id, code condition_source_value, 4000000 + k condition_source_concept_id, "
        f"{text} condition_status_source_value FROM (SELECT i, {who(conditions)} FROM range({conditions}) t(i)) "
        f"JOIN dx ON k = draw(i, 'dx', {len(_CONDITIONS)}) ORDER BY i",
        "measurement": "SELECT (i + 1)::INTEGER measurement_id, person_id, 3000000 + l.k measurement_concept_id, "
        f"{day} measurement_date, measurement_date + to_minutes(draw(i, 'minute', 1440)) measurement_datetime, "
        "strftime(measurement_datetime, '%H:%M:%S') measurement_time, 32856 measurement_type_concept_id, 4172703 operator_concept_id, "
        "CASE WHEN draw(i, 'null', 50) > 0 THEN round(low + (high - low) * draw(i, 'value', 1000) / 1000, 2) END value_as_number, "
        "0 value_as_concept_id, 8000 + u.k unit_concept_id, low range_low, high range_high, draw(i, 'provider', 500) provider_id, "
        f"own_visit visit_occurrence_id, {none} visit_detail_id, code measurement_source_value, 3000000 + l.k measurement_source_concept_id, "
        f"l.unit unit_source_value, 0 unit_source_concept_id, value_as_number::VARCHAR value_source_value, {none} measurement_event_id, "
        f"{none} meas_event_field_concept_id FROM (SELECT i, {who(measurements)} FROM range({measurements}) t(i)) "
        f"JOIN lab l ON l.k = draw(i, 'lab', {len(_LABS)}) JOIN unit u ON u.unit = l.unit ORDER BY i",
        "concept": "SELECT concept_id::INTEGER concept_id, concept_name, domain_id, vocabulary_id, 'Class' concept_class_id, 'S' standard_concept, "
        "concept_code, DATE '1970-01-01' valid_start_date, DATE '2099-12-31' valid_end_date, NULL::VARCHAR invalid_reason FROM ("
        "SELECT 3000000 + k concept_id, 'Analyte ' || code concept_name, 'Measurement' domain_id, 'LOINC' vocabulary_id, code concept_code FROM lab "
        "UNION ALL SELECT 8000 + k, unit, 'Unit', 'UCUM', unit FROM unit UNION ALL SELECT 4000000 + k, 'Condition ' || code, 'Condition', 'SNOMED', "
        "code FROM dx UNION ALL VALUES (9202, 'Outpatient Visit', 'Visit', 'Visit', 'OP'), (9201, 'Inpatient Visit', 'Visit', 'Visit', 'IP'), "
        "(9203, 'Emergency Room Visit', 'Visit', 'Visit', 'ER'), (8527, 'White', 'Race', 'Race', '5'), (8516, 'Black or African American', 'Race', "
        "'Race', '3'), (8515, 'Asian', 'Race', 'Race', '2'), (38003563, 'Hispanic or Latino', 'Ethnicity', 'Ethnicity', 'Hispanic'), "
        "(38003564, 'Not Hispanic or Latino', 'Ethnicity', 'Ethnicity', 'Not Hispanic')) ORDER BY concept_id",
    }
