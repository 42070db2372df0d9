"""Is what a generated text cites in the same patient's record?  Codes, values, medications and dates, by exact comparison.

It sees what is cited in a form that a machine can read, and nothing else: no paraphrase, no negation, no claim without a citation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ehrready.profile import Frame
from ehrready.tables import TABLES

if TYPE_CHECKING:
    import duckdb

#: What may be cited.
KINDS = ("code", "value", "medication", "date")
_CODE = "coalesce(nullif(j.code, ''), j.c)"
_SAME = "(c.key IS NULL OR j.key = c.key)"
#: Decimals that a number was cited with: the record's number, rounded to them, must be it.
_PLACES = "CASE WHEN contains(c.value, '.') THEN length(split_part(c.value, '.', 2)) ELSE 0 END::INTEGER"


def measure(con: duckdb.DuckDBPyConnection, frame: Frame, *, records: bool) -> None:
    """Count the citations of patients that the records know, and those of them that are not grounded; the others apart."""
    from ehrready.production.measure import count

    if not con.execute("SELECT 1 FROM citation LIMIT 1").fetchone():
        return
    if not records:
        count(con, frame, "citation", "output", {"unknown-patient": ("true", "true")})
        return
    people = " UNION ".join(f'SELECT patient_id FROM "{t}_v" WHERE patient_id IS NOT NULL AND excluded IS NULL' for t in TABLES)
    con.execute(
        f"CREATE TEMP TABLE cited AS SELECT row_number() OVER (ORDER BY c.record, c.output, c.kind, c.key, c.code, c.value, c.unit, c.day, c.name) AS i, c.*, p.patient_id IS NOT NULL AS known FROM citation c LEFT JOIN ({people}) p USING (patient_id)"
    )
    days = " UNION ".join(
        f'SELECT patient_id, left("at", 10) AS day FROM "{t}_v" WHERE length("at") >= 10 AND excluded IS NULL' for t in TABLES
    )
    dated = " UNION ALL ".join(f'SELECT record, left("at", 10) AS day FROM "{t}_v"' for t in TABLES if t != "patient")
    coded = "FROM cited c JOIN judged g USING (patient_id) JOIN judge j ON j.pid = g.pid"
    grounds = {
        "code": f"SELECT c.i {coded} WHERE c.kind = 'code' AND {_CODE} = c.code AND {_SAME}",
        "medication": f"SELECT c.i {coded} WHERE c.kind = 'medication' AND c.code IS NOT NULL AND g.element = 'medication.code' AND {_CODE} = c.code AND {_SAME} "
        "UNION SELECT c.i FROM cited c JOIN concept m USING (patient_id) WHERE c.kind = 'medication' AND c.code IS NULL AND m.element = 'medication.code' "
        "AND contains(lower(m.\"text\"), c.name)",
        "value": f"SELECT c.i {coded} JOIN result_v o ON o.record = g.record AND o.concept = g.concept WHERE c.kind = 'value' AND g.element = 'observation.code' AND {_CODE} = c.code "
        f"AND {_SAME} AND o.excluded IS NULL AND round(o.value_number, {_PLACES}) = TRY_CAST(c.value AS DOUBLE) "
        "AND (c.unit IS NULL OR lower(c.unit) IN (lower(o.unit), lower(o.unit_code)))",
        "date": f"SELECT c.i FROM cited c JOIN ({days}) d USING (patient_id, day) WHERE c.kind = 'date' AND c.code IS NULL UNION "
        f"SELECT c.i {coded} JOIN ({dated}) d ON d.record = g.record WHERE c.kind = 'date' AND {_CODE} = c.code AND {_SAME} AND d.day = c.day",
    }  # fmt: skip
    con.execute(f"CREATE TEMP TABLE grounded AS {' UNION '.join(grounds[kind] for kind in KINDS)}")
    con.execute("CREATE TEMP TABLE claim AS SELECT c.*, g.i IS NOT NULL AS grounded FROM cited c LEFT JOIN grounded g USING (i)")
    kinds = {f"ungrounded-{kind}": (f"known AND kind = '{kind}'", "NOT grounded") for kind in KINDS}
    count(con, frame, "claim", "output", {**kinds, "unknown-patient": ("true", "NOT known")})
