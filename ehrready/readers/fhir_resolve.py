"""What needs all FHIR files: medications that are resources of their own, URLs of Bundle entries, test patients."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from ehrready import cells, concepts
from ehrready.engines.duckdb import quote
from ehrready.readers.fhir_concepts import CODING_COLUMNS, COUNT, TEXT
from ehrready.tables import TABLES


def _insert(con: duckdb.DuckDBPyConnection, element: str, rows: str) -> None:
    """Insert rows of (record, patient_id, encounter_id, site, at, c, ordinal) as concepts and codings."""
    con.execute(
        f'INSERT INTO concept SELECT {quote(element)}, record, ordinal, patient_id, encounter_id, site, "at", {TEXT}, {COUNT}, '
        f"concept_why(c) FROM ({rows})"
    )
    con.execute(
        f'INSERT INTO coding SELECT {quote(element)}, record, patient_id, encounter_id, site, "at", i, {CODING_COLUMNS}, '
        "ordinal FROM (SELECT * EXCLUDE (k_list), unnest(k_list) k, "
        'generate_subscripts(k_list, 1) i FROM (SELECT record, patient_id, encounter_id, site, "at", ordinal, real_codings(c) k_list '
        f"FROM ({rows}) WHERE len(c.coding) > 0))"
    )


def medications(con: duckdb.DuckDBPyConnection, wording: concepts.Wording | None = None) -> None:
    """Write the concepts of medications that are resources of their own, as rows or, with ``wording``, as numbers."""
    waiting = con.execute("SELECT count(*) FROM medication_ref").fetchone()
    if not waiting or not waiting[0]:
        return
    con.execute(
        "CREATE TEMP TABLE drug_of AS SELECT ref, any_value(c) c FROM (SELECT id AS ref, c FROM drug UNION ALL "
        "SELECT url, c FROM drug WHERE url IS NOT NULL AND url <> id) WHERE ref IS NOT NULL GROUP BY ref HAVING count(DISTINCT c) = 1"
    )
    if wording is None:
        _insert(
            con,
            "medication.code",
            'SELECT record, patient_id, encounter_id, NULL::VARCHAR site, "at", c, 1 ordinal FROM medication_ref LEFT JOIN drug_of USING (ref)',
        )
        return
    con.execute(
        f"CREATE TEMP TABLE drug_number AS SELECT ref, c, row_number() OVER (ORDER BY ref) + {wording.further()} AS x FROM drug_of;"
        f"INSERT INTO concept_text SELECT x, 1, {TEXT}, {COUNT}, concept_why(c) FROM drug_number;"
        f"INSERT INTO concept_coding SELECT x, 1, i, {CODING_COLUMNS} FROM (SELECT x, unnest(list) AS k, generate_subscripts(list, 1) AS i "
        "FROM (SELECT x, real_codings(c) AS list FROM drug_number WHERE len(c.coding) > 0));"
        "UPDATE medication SET x0 = d.x FROM (SELECT record, x FROM medication_ref LEFT JOIN drug_number USING (ref)) d "
        "WHERE medication.record = d.record"
    )


def resolve(con: duckdb.DuckDBPyConnection, rows: Sequence[str] = ("concept", "coding"), words: Collection[str] = ()) -> None:
    """Replace Bundle URLs by ids and leave test patients out; plain SQL, which runs on Spark, too.

    ``rows`` are the tables of a row per concept and per coding, none where these are numbers in their record; ``words`` are the tables
    whose records have their states as a number: it is made anew where an id is not what its URL was (``NA``, a search).
    """
    if con.execute("SELECT 1 FROM alias LIMIT 1").fetchone():
        con.execute("CREATE TEMP TABLE alias_of AS SELECT url, min(id) id FROM alias GROUP BY url HAVING count(DISTINCT id) = 1")
        if words:
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE alias_of AS SELECT *, ({cells.standing('url')}) = ({cells.standing('id')}) AS alike FROM alias_of"
            )
        for table in [*TABLES, "component", *rows, "defect"]:
            for column in ("patient_id", "encounter_id"):
                if table == "defect" and column == "encounter_id":
                    continue
                word = ", word = CASE WHEN alias_of.alike THEN word END" if table in words else ""
                con.execute(f'UPDATE "{table}" SET {column} = alias_of.id{word} FROM alias_of WHERE "{table}".{column} = alias_of.url')
        for table in words:
            con.execute(f'UPDATE "{table}" AS t SET word = {" + ".join(cells.own_parts(table))} WHERE word IS NULL')
    if con.execute("SELECT 1 FROM patient WHERE excluded = 'test-patient' LIMIT 1").fetchone():
        tests = "(SELECT patient_id FROM patient WHERE excluded = 'test-patient')"
        for table in [*TABLES, "component"]:
            con.execute(f"UPDATE \"{table}\" SET excluded = 'test-patient' WHERE excluded IS NULL AND patient_id IN {tests}")
        for table in (*rows, "defect"):
            con.execute(f"DELETE FROM {table} WHERE patient_id IN {tests}")
