"""SQL of coded elements in FHIR, and of elements of the wrong JSON type.

The same concept stands in many resources: each different JSON text of one has a number and is parsed once (ehrready.concepts).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ehrready.concepts import Numbered
from ehrready.engines.duckdb import quote

CONCEPT = {
    "text": "VARCHAR",
    "coding": [{"system": "VARCHAR", "version": "VARCHAR", "code": "VARCHAR", "display": "VARCHAR"}],
    "extension": [{"url": "VARCHAR", "valueCode": "VARCHAR"}],
}
CODING = CONCEPT["coding"][0]
TIMES = {"at", "end", "birth_date", "death_date", "recorded_at"}


@dataclass(frozen=True, slots=True)
class Element:
    """A coded element: the column of ``typed`` that holds its JSON text, a list of concepts or one."""

    name: str
    column: str
    listed: bool
    optional: bool
    spec: dict[str, Any]

    @property
    def plain(self) -> str:
        """The name of the property where the element is one of the resource itself, else ``""``."""
        path: str = self.spec.get("path", "").removesuffix("[]")
        return "" if "[" in path or "." in path else path


#: The columns of a concept in the struct ``c``.
TEXT = (
    'coalesce(clean(c."text"), clean(list_extract(list_transform(list_filter(c.coding, lambda k: clean(k.display) IS NOT NULL AND NOT '
    "coalesce(null_coding(k), false)), lambda k: k.display), 1)), clean(list_extract(list_transform(list_filter(real_codings(c), "
    "lambda k: null_token(k.code)), lambda k: k.code), 1)))"
)
CODING_COLUMNS = 'clean(k."system"), clean(k."version"), k.code, clean(k.display)'
COUNT = "coalesce(len(list_filter(real_codings(c), lambda k: NOT null_token(k.code))), 0)"


#: What makes rows of new numbers (``ehrready.concepts.Wording``).
PARSE = (
    f"CREATE OR REPLACE TEMP TABLE concept_of AS SELECT x, 1 AS ordinal, from_json(raw, {quote(json.dumps(CONCEPT))}) AS c FROM _new WHERE NOT listed "
    f"UNION ALL SELECT x, generate_subscripts(list, 1) AS ordinal, unnest(list) AS c FROM (SELECT x, from_json(raw, {quote(json.dumps([CONCEPT]))}) AS list "
    "FROM _new WHERE listed) WHERE len(list) > 0",
    f"INSERT INTO concept_text SELECT x, ordinal, {TEXT}, {COUNT}, concept_why(c) FROM concept_of",
    f"INSERT INTO concept_coding SELECT x, ordinal, i, {CODING_COLUMNS} FROM (SELECT x, ordinal, unnest(list) AS k, generate_subscripts(list, 1) AS i "
    "FROM (SELECT x, ordinal, real_codings(c) AS list FROM concept_of WHERE len(c.coding) > 0))",
)


def layout(mapping: dict[str, Any]) -> list[Numbered]:
    """Return the columns of numbers of each table, in the order of the mapping."""
    found = []
    for table, entry in mapping.items():
        for number, (element, spec) in enumerate(entry["concepts"].items()):
            found.append(Numbered(table, element, f"x{number}", bool(spec.get("optional"))))
        if parts := entry.get("parts"):  # the record's own code is the first
            found.append(Numbered("component", parts, "x0", False, "t.concept - 1"))
    return found


def nulls(elements: list[Element]) -> str:
    """Return the statement that notes coded elements that are JSON null: ``json_transform`` takes them for absent."""
    found = []
    for element in elements:
        if element.plain:
            absent = f"{element.column} IS NULL" + (" AND drug_ref IS NULL" if "reference" in element.spec else "")
            found.append(
                f"SELECT {quote(element.name)}, record, patient_id, 'wrong-type' FROM typed JOIN _rows USING (record) WHERE has_null "
                f"AND excluded IS NULL AND {absent} AND json_type(text, '$.{element.plain}') = 'NULL'"
            )
    return f"INSERT INTO defect {' UNION ALL '.join(found)}" if found else ""


def wrong_types(table: str, entry: dict[str, Any], elements: list[Element]) -> list[tuple[str, str]]:
    """Return (condition on ``typed``, statement) that notes elements of another JSON type than FHIR says.

    The conditions are cheap and may hold for a right one, too; the statements look at the JSON.
    """
    found = []
    for element in elements:
        if not element.plain:
            continue
        column = element.column
        if element.listed:
            condition, wrong = f"NOT starts_with({column}, '[')", f"NOT starts_with({column}, '[')"
        else:
            condition = f"NOT starts_with({column}, '{{') OR contains({column}, '\"coding\":') AND NOT contains({column}, '\"coding\":[')"
            wrong = (
                f"json_extract_string({column}, '$.text') IS NULL AND json_type({column}, '$.coding') IS DISTINCT FROM 'ARRAY' AND "
                f"(NOT starts_with({column}, '{{') OR json_type({column}, '$.coding') IS NOT NULL)"
            )
        found.append((condition, _defect(element.name, f"({condition}) AND ({wrong})")))
    if table == "observation":
        condition = "value_kind = 'text' AND starts_with(value_text, '\"')"
        other = "json_type(text, '$.valueQuantity.value') = 'VARCHAR' OR json_type(text, '$.valueInteger') = 'VARCHAR'"
        found.append((condition, _defect("observation.value", f"{condition} AND {_among(other)}")))
    for name, paths in entry["columns"].items():
        first = paths if isinstance(paths, str) else paths[0]
        condition = f"starts_with(\"{name}\", '{{') OR starts_with(\"{name}\", '[')"
        wrong = condition
        if "." not in first and name in TIMES:  # a date written as a JSON number reads as its digits
            digits = f"regexp_full_match(\"{name}\", '-?[0-9.]+')"
            condition += f" OR {digits}"
            other = f"json_type(text, '$.{first}') NOT IN ('VARCHAR', 'NULL')"
            wrong += f" OR ({digits} AND {_among(other)})"
        found.append((condition, _defect(f"{table}.{name}", f"({wrong})")))
    return found


def _defect(element: str, condition: str) -> str:
    return f"INSERT INTO defect SELECT {quote(element)}, record, patient_id, 'wrong-type' FROM typed WHERE excluded IS NULL AND {condition}"


def _among(condition: str) -> str:
    return f"record IN (SELECT record FROM _rows WHERE {condition})"
