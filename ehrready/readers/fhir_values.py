"""SQL of what an Observation says, and of what each of its components does (FHIR R4 Observation.value[x]).

A component is a result of its own: a row of the table ``component``, and a concept of ``observation.code`` behind that of
the Observation.  Components leave the first parse as JSON text and are taken apart in a second one, so that Observations without
any pay nothing for them.
"""

from __future__ import annotations

import json
from typing import Any

from ehrready.engines.duckdb import quote
from ehrready.tables import COMPONENT

#: Columns of the canonical table that are made here and not from mapped paths.
COLUMNS = frozenset(
    {
        "value_kind", "value_number", "value_text", "comparator", "unit", "unit_code", "range_low", "range_high", "absent_reason",
        "value_declared",
    }
)  # fmt: skip

_QUANTITY = {"value": "JSON", "unit": "VARCHAR", "system": "VARCHAR", "code": "VARCHAR", "comparator": "VARCHAR"}
_VALUE: dict[str, Any] = {
    "valueQuantity": _QUANTITY,
    "valueString": "VARCHAR",
    "valueBoolean": "VARCHAR",
    "valueInteger": "JSON",
    "valueDateTime": "VARCHAR",
    "valueTime": "VARCHAR",
    "valueCodeableConcept": "JSON",
    "valueRange": "JSON",
    "valueRatio": "JSON",
    "valueSampledData": "JSON",
    "valuePeriod": "JSON",
    "dataAbsentReason": {"text": "VARCHAR", "coding": [{"code": "VARCHAR"}]},
    "referenceRange": [{"low": {"value": "JSON"}, "high": {"value": "JSON"}}],
}


def observation(structure: dict[str, Any]) -> list[str]:
    """Add what an Observation's value needs to the structure; return the SQL of its columns and of ``parts``, its components."""
    structure.update(_VALUE, component="JSON", hasMember=[{"reference": "VARCHAR"}])
    columns = _columns("x", "WHEN json_array_length(x.component) > 0 OR len(x.hasMember) > 0 THEN 'components'")
    return [*columns, "CASE WHEN json_array_length(x.component) > 0 THEN x.component::VARCHAR END AS parts"]


def components() -> list[str]:
    """Return the statements that make ``part``, the components of a block with the JSON text of their codes, and write their values.

    ``part`` says, too, which concept of its record a component's code is: the Observation's own is the first.
    """
    own = ", ".join(f'"{name}"' for name in COMPONENT.names if name not in COLUMNS and name != "concept")
    shape = json.dumps([{"code": "JSON", **_VALUE}])
    listed = f"SELECT {own}, TRY(from_json(parts, {quote(shape)})) AS list FROM typed WHERE parts IS NOT NULL AND excluded IS NULL"
    names = ", ".join(f'"{name}"' for name in COMPONENT.names)
    return [
        f"CREATE OR REPLACE TEMP TABLE part AS SELECT {own}, {', '.join(_columns('k'))}, (i + 1)::INTEGER AS concept, k.code::VARCHAR AS code "
        f"FROM (SELECT {own}, unnest(list) AS k, generate_subscripts(list, 1) AS i FROM ({listed}))",
        f"INSERT INTO component ({names}) SELECT {names} FROM part",
        # a number written as a string: what is left of valueQuantity.value then has its quotation marks
        "INSERT INTO defect SELECT 'observation.value', record, patient_id, 'wrong-type' FROM part "
        "WHERE value_declared = 'declared' AND starts_with(value_text, '\"')",
    ]


def _columns(x: str, otherwise: str = "") -> list[str]:
    """Return the SQL of the value columns of a struct; ``otherwise`` is what says that it has parts instead."""
    number = f"coalesce(number_of({x}.valueQuantity.value), number_of({x}.valueInteger))"
    reason = f"coalesce({x}.dataAbsentReason.coding[1].code, {x}.dataAbsentReason.text)"
    coded = (
        f"CASE WHEN {x}.valueCodeableConcept IS NULL THEN false ELSE json_type({x}.valueCodeableConcept, '$.coding') IS NOT DISTINCT FROM 'ARRAY' "
        f"OR clean(json_extract_string({x}.valueCodeableConcept, '$.text')) IS NOT NULL END"
    )
    return [
        f"CASE WHEN {number} IS NOT NULL THEN 'number' WHEN {x}.valueQuantity.value IS NOT NULL OR {x}.valueInteger IS NOT NULL "
        f"OR clean({x}.valueString) IS NOT NULL THEN 'text' "
        f"WHEN {coded} THEN 'coded' "
        f"WHEN {x}.valueBoolean IS NOT NULL THEN 'boolean' WHEN {x}.valueDateTime IS NOT NULL OR {x}.valueTime IS NOT NULL THEN 'time' "
        f"WHEN coalesce({x}.valueRange, {x}.valueRatio, {x}.valueSampledData, {x}.valuePeriod) IS NOT NULL THEN 'other' "
        f"{otherwise} END AS value_kind",
        f"{number} AS value_number",
        f"CASE WHEN {number} IS NULL THEN coalesce(clean({x}.valueString), {x}.valueQuantity.value::VARCHAR, {x}.valueInteger::VARCHAR) END "
        "AS value_text",
        f"clean({x}.valueQuantity.comparator) AS comparator",
        f"coalesce(clean({x}.valueQuantity.unit), clean({x}.valueQuantity.code)) AS unit",
        f"CASE WHEN {x}.valueQuantity.\"system\" = 'http://unitsofmeasure.org' THEN clean({x}.valueQuantity.code) END AS unit_code",
        f"number_of({x}.referenceRange[1].low.value) AS range_low",
        f"number_of({x}.referenceRange[1].high.value) AS range_high",
        f"CASE WHEN lower({reason}) IN ('masked', 'msk') THEN 'masked' ELSE lower({reason}) END AS absent_reason",
        f"CASE WHEN {number} IS NULL AND coalesce({x}.valueQuantity.value, {x}.valueInteger) IS NOT NULL THEN 'declared' END AS value_declared",
    ]
