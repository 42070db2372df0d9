"""The canonical tables as Great Expectations sees them: pandas frames, made from the engine column by column.

Great Expectations knows values and nulls, no stated absences, and one table at a time.  So a scalar that is absent for a
stated reason is null here (unless ``keep_reasons``), excluded records are left out as everywhere, and an event table has
its main coding beside it: ``code``, ``code_system``, ``code_version``, ``code_display`` (LOINC before SNOMED CT before any
other recognised system).  ``observation.any_unit`` is the unit's code, else its text.  ``observation.value_state``,
``observation.unit_state`` and ``concept.state`` are what ``present`` and ``coded`` count: ``present`` or ``coded``,
``text-only``, ``null-token``, ``missing``, ``absent-with-reason``; null where the element does not apply or is masked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrready.cells import ELIGIBLE
from ehrready.engines.duckdb import quote
from ehrready.tables import ALL, CODED, TABLES

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

#: Tables that expectations may be about.
NAMES: tuple[str, ...] = (*TABLES, "concept", "coding")

#: The element whose first coding stands beside the rows of a table.
MAIN_CODE: dict[str, str] = {
    table: element for table in TABLES for element in (f"{table}.code", f"{table}.type", f"{table}.class") if element in CODED
}

_CODING = {"code": "code", "code_system": "system", "code_version": "version", "code_display": "display"}
# the states of ehrready.measure, null where the element does not apply or is masked
_STATE = (
    "CASE WHEN t.n_codings > 0 THEN 'coded' WHEN t.absent_reason = 'masked' THEN NULL "
    'WHEN t.absent_reason IS NOT NULL AND (t."text" IS NULL OR null_token(t."text")) THEN \'absent-with-reason\' '
    "WHEN null_token(t.\"text\") THEN 'null-token' WHEN t.\"text\" IS NOT NULL THEN 'text-only' "
    "WHEN t.absent_reason IS NOT NULL THEN 'absent-with-reason' ELSE 'missing' END"
)
_VALUE_STATE = (
    f"CASE WHEN {ELIGIBLE['observation.value']} THEN CASE WHEN value_kind = 'text' AND null_token(value_text) THEN 'null-token' "
    "WHEN value_kind IS NOT NULL THEN 'present' WHEN absent_reason = 'masked' THEN NULL "
    "WHEN absent_reason IS NOT NULL THEN 'absent-with-reason' ELSE 'missing' END END"
)
_UNIT_STATE = (
    f"CASE WHEN {ELIGIBLE['observation.unit']} THEN CASE WHEN coalesce(unit, unit_code) IS NULL THEN 'missing' "
    "WHEN null_token(coalesce(unit, unit_code)) THEN 'null-token' ELSE 'present' END END"
)
_DERIVED = {
    ("observation", "any_unit"): "coalesce(CASE WHEN NOT null_token(t.unit_code) THEN t.unit_code END, t.unit)",
    ("observation", "value_state"): _VALUE_STATE,
    ("observation", "unit_state"): _UNIT_STATE,
    ("concept", "state"): _STATE,
}
_ORDER = {"concept": ("record", "element", "ordinal"), "coding": ("record", "element", "concept", "position", "system", "code")}


def columns(table: str) -> tuple[str, ...]:
    """Return the names of a table's columns, the added ones last."""
    added = [name for of, name in _DERIVED if of == table]
    return (*ALL[table].names, *added, *(_CODING if table in MAIN_CODE else ()))


def frame(
    con: duckdb.DuckDBPyConnection, table: str, wanted: Sequence[str], *, keep_reasons: bool = False, rows: bool = True
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the wanted columns of a canonical table, ordered by record, and the number of each row's patient (-1: none).

    ``keep_reasons`` leaves a text where a value is absent for a stated reason, for expectations about nulls; without
    ``rows`` there are only the columns.
    """
    select = [f'{_expression(table, name, keep_reasons)} AS "{name}"' for name in wanted]
    patient = "CASE WHEN NOT is_absent(t.patient_id) THEN t.patient_id END"
    number = f"CASE WHEN {patient} IS NULL THEN -1 ELSE dense_rank() OVER (ORDER BY {patient}) END"
    source = f'"{table}" t'
    where = " WHERE t.excluded IS NULL" if "excluded" in ALL[table].names else ""
    order = ", ".join(f't."{name}"' for name in _ORDER.get(table, ("record", "id")))
    # the caller's connection may have a result that it has not read to the end
    with contextlib.closing(con.cursor()) as cursor:
        if set(wanted) & set(_CODING) and table in MAIN_CODE:
            source += f" LEFT JOIN ({_main_codings(cursor, MAIN_CODE[table])}) m ON t.record = m.record"
        sql = f"SELECT {', '.join([*select, f'{number} AS ehrready_patient'])} FROM {source}{where} ORDER BY {order}{'' if rows else ' LIMIT 0'}"
        made = cursor.sql(sql).to_arrow_table()
    people = made.column("ehrready_patient").to_numpy().astype(np.int64)
    frame: Any = made.drop_columns("ehrready_patient").to_pandas()
    return frame, people


def _expression(table: str, name: str, keep_reasons: bool) -> str:
    if (table, name) in _DERIVED:
        return _DERIVED[table, name]
    if name in _CODING and name not in ALL[table].names:
        return f'm."{_CODING[name]}"'
    if ALL[table].field(name).type != "string":
        return f't."{name}"'
    return f'CASE WHEN is_absent(t."{name}") THEN {quote("stated-absence") if keep_reasons else "NULL"} ELSE t."{name}" END'


def _main_codings(con: duckdb.DuckDBPyConnection, element: str) -> str:
    """Return the SQL of one coding per record of an element; registers how systems are preferred."""
    import pyarrow as pa

    from ehrready.terminology import systems

    found = [row[0] for row in con.execute('SELECT DISTINCT "system" FROM coding WHERE element = ? ORDER BY 1', [element]).fetchall()]
    keys = [systems.resolve(name).key for name in found]
    ranks = [{"loinc": 0, "snomed": 1, "local": 3, "": 3}.get(key, 2) for key in keys]
    con.register("_preferred", pa.table({"name": pa.array(found, pa.string()), "rank": pa.array(ranks, pa.int64())}))
    return (
        'SELECT g.record, g."system", g."version", g.code, g.display FROM coding g JOIN _preferred p ON g."system" IS NOT DISTINCT FROM p.name '
        f"WHERE g.element = {quote(element)}{' AND g.concept = 1' if element == 'observation.code' else ''} QUALIFY row_number() OVER "
        '(PARTITION BY g.record ORDER BY p.rank, g.concept, g.position, g."system", g.code) = 1'
    )
