"""SQL of what an Observation says, and of what each of its components does (FHIR R4 Observation.value[x]).

A component is a result of its own: a row of the table ``component``, and a concept of ``observation.code`` behind that of
the Observation.  Components leave the first parse as JSON text and are taken apart in a second one, so that Observations without
any pay nothing for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ehrready.engines.duckdb import quote
from ehrready.tables import COMPONENT

if TYPE_CHECKING:
    from ehrready.readers.fhir_leaves import Leaves

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

#: What of a value leaves the parse as JSON text: as text a number would not be told from one in quotation marks.
_JSON = frozenset(
    {
        "valueQuantity.value", "valueInteger", "valueCodeableConcept", "valueRange", "valueRatio", "valueSampledData", "valuePeriod",
        "referenceRange[1].low.value", "referenceRange[1].high.value",
    }
)  # fmt: skip


def observation(leaves: Leaves) -> dict[str, str]:
    """Return the SQL of the columns of an Observation's value over its leaves, and of ``parts``, its components."""
    leaves.structure.update(_VALUE, component="JSON", hasMember=[{"reference": "VARCHAR"}])
    parts = leaves.of("CASE WHEN json_array_length(x.component) > 0 THEN x.component::VARCHAR END")
    several = leaves.of("CASE WHEN json_array_length(x.component) > 0 OR len(x.hasMember) > 0 THEN 'y' END")

    def leaf(path: str) -> str:
        return leaves.of(f"x.{path}::VARCHAR" if path in _JSON else f"x.{path}")

    return _columns(leaf, f"WHEN {several} IS NOT NULL THEN 'components'") | {"parts": parts}


def components() -> tuple[str, str, str]:
    """Return the statements that make ``part``, the components of a block with the JSON text of their codes, write them, and note defects.

    ``part`` says, too, which concept of its record a component's code is: the Observation's own is the first.  ``part_code`` has
    the numbers of the codes (ehrready.concepts).
    """
    own = ", ".join(f'"{name}"' for name in COMPONENT.names if name not in COLUMNS and name != "concept")
    shape = json.dumps([{"code": "JSON", **_VALUE}])
    listed = f"SELECT {own}, TRY(from_json(parts, {quote(shape)})) AS list FROM typed WHERE parts IS NOT NULL AND excluded IS NULL"
    names = ", ".join(f'"{name}"' for name in COMPONENT.names)
    values = ", ".join(f'{sql} AS "{name}"' for name, sql in _columns(lambda path: f"k.{path}").items())
    return (
        f"CREATE OR REPLACE TEMP TABLE part AS SELECT {own}, {values}, (i + 1)::INTEGER AS concept, k.code::VARCHAR AS code "
        f"FROM (SELECT {own}, unnest(list) AS k, generate_subscripts(list, 1) AS i FROM ({listed}))",
        f"INSERT INTO component ({names}, x0) SELECT {names}, x FROM part LEFT JOIN part_code USING (code)",
        # a number written as a string: what is left of valueQuantity.value then has its quotation marks
        "INSERT INTO defect SELECT 'observation.value', record, patient_id, 'wrong-type' FROM part "
        "WHERE value_declared = 'declared' AND starts_with(value_text, '\"')",
    )


def _columns(leaf: Callable[[str], str], otherwise: str = "") -> dict[str, str]:
    """Return the SQL of the value columns; ``leaf`` gives the SQL of a path, ``otherwise`` is what says that there are parts instead."""
    quantity, integer, text, concept = (
        leaf(path) for path in ("valueQuantity.value", "valueInteger", "valueString", "valueCodeableConcept")
    )
    number = f"coalesce(number_of({quantity}), number_of({integer}))"
    reason = f"coalesce({leaf('dataAbsentReason.coding[1].code')}, {leaf('dataAbsentReason.text')})"
    unit, code = leaf("valueQuantity.unit"), leaf("valueQuantity.code")
    system = leaf('valueQuantity."system"')
    others = ", ".join(leaf(path) for path in ("valueRange", "valueRatio", "valueSampledData", "valuePeriod"))
    coded = (
        f"CASE WHEN {concept} IS NULL THEN false ELSE json_type({concept}, '$.coding') IS NOT DISTINCT FROM 'ARRAY' "
        f"OR clean(json_extract_string({concept}, '$.text')) IS NOT NULL END"
    )
    return {
        "value_kind": f"CASE WHEN {number} IS NOT NULL THEN 'number' WHEN {quantity} IS NOT NULL OR {integer} IS NOT NULL "
        f"OR clean({text}) IS NOT NULL THEN 'text' "
        f"WHEN {coded} THEN 'coded' "
        f"WHEN {leaf('valueBoolean')} IS NOT NULL THEN 'boolean' WHEN {leaf('valueDateTime')} IS NOT NULL OR {leaf('valueTime')} IS NOT NULL "
        f"THEN 'time' WHEN coalesce({others}) IS NOT NULL THEN 'other' "
        f"{otherwise} END",
        "value_number": number,
        "value_text": f"CASE WHEN {number} IS NULL THEN coalesce(clean({text}), {quantity}::VARCHAR, {integer}::VARCHAR) END",
        "comparator": f"clean({leaf('valueQuantity.comparator')})",
        "unit": f"coalesce(clean({unit}), clean({code}))",
        "unit_code": f"CASE WHEN {system} = 'http://unitsofmeasure.org' THEN clean({code}) END",
        "range_low": f"number_of({leaf('referenceRange[1].low.value')})",
        "range_high": f"number_of({leaf('referenceRange[1].high.value')})",
        "absent_reason": f"CASE WHEN lower({reason}) IN ('masked', 'msk') THEN 'masked' ELSE lower({reason}) END",
        "value_declared": f"CASE WHEN {number} IS NULL AND coalesce({quantity}, {integer}) IS NOT NULL THEN 'declared' END",
    }
