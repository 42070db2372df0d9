"""Writing what blocks of HL7v2 say into the canonical tables."""

from __future__ import annotations

import duckdb
import numpy as np

from ehrready import concepts
from ehrready.readers import hl7v2_people, hl7v2_sql
from ehrready.readers.arrays import batched, integers
from ehrready.readers.hl7v2_concepts import PARSE, layout
from ehrready.readers.hl7v2_rows import Found
from ehrready.tables import POSITION_BITS


def prepare(con: duckdb.DuckDBPyConnection, *, shared: bool) -> None:
    """Create the macros and the staging tables of one reading."""
    con.execute(hl7v2_sql.MACROS)
    concepts.prepare(con, layout(), words=shared)
    hl7v2_people.prepare(con)


def write(con: duckdb.DuckDBPyConnection, found: Found, wording: concepts.Wording) -> None:
    """Write the rows of a block; its patients and visits wait."""
    made = []
    for rows in found.rows:
        typed = rows.typed
        for x, _, listed in rows.form.elements:
            texts, which = rows.texts[x]
            typed = typed.append_column(x, integers(wording.numbers(texts, listed=listed)[which]))
        made.append((rows.form.insert, typed))
    wording.write(con)
    for statement, typed in made:
        con.register("typed", batched(typed))  # an Arrow table and not a temporary one: scanned by all threads however small it is
        con.execute(statement)
        con.unregister("typed")
    for waiting in found.people:
        hl7v2_people.stage(con, waiting)
    if len(found.messages):
        con.executemany("INSERT INTO types VALUES ('hl7v2', ?, ?)", list(found.types.items()))
        files, counts = np.unique(found.messages >> POSITION_BITS, return_counts=True)
        values = ", ".join(f"({file}, {n})" for file, n in zip(files.tolist(), counts.tolist(), strict=True))
        con.execute(f"INSERT INTO profiled VALUES {values}")
    if found.repaired is not None:
        con.register("repaired", found.repaired)
        con.execute("INSERT INTO defect SELECT 'message.charset', record, patient_id, 'charset' FROM repaired")
        con.unregister("repaired")


def finish(con: duckdb.DuckDBPyConnection, wording: concepts.Wording, *, shared: bool) -> None:
    """Reduce the staged patients and visits to one row each, with their concepts as numbers or, unless ``shared``, as rows."""
    if shared:
        hl7v2_people.finish(con, wording, shared=True)
        concepts.share(con, layout())
        return
    concepts.prepare(con, hl7v2_people.layout(), words=False)
    hl7v2_people.finish(con, concepts.Wording(PARSE), shared=False)
    concepts.expand(con, hl7v2_people.layout())
