"""SQL of coded elements in FHIR, and of elements of the wrong JSON type.

The same concept stands in many resources: each different JSON text of one is parsed once and joined back to its rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

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
COUNT = "coalesce(len(list_filter(real_codings(c), lambda k: NOT null_token(k.code))), 0)"


def concepts(elements: list[Element], parts: str = "") -> list[str]:
    """Return the statements that write the concepts and codings of a block.

    The same concept stands in many resources: each different text is parsed once, and joined back to its rows.  ``parts`` is the
    element whose further concepts are those of the table ``part``.
    """

    def distinct(selects: list[str]) -> str:
        return f"SELECT DISTINCT raw FROM ({' UNION ALL '.join(selects)}) WHERE raw IS NOT NULL"

    known = 'record, patient_id, encounter_id, site, "at"'
    rows, texts = [], {False: list[str](), True: list[str]()}
    for element in elements:
        wanted = "excluded IS NULL" + (f" AND {element.column} IS NOT NULL" if element.optional else "")
        if "reference" in element.spec:
            wanted += " AND drug_ref IS NULL"
        rows.append(
            f"SELECT {quote(element.name)} AS element, {known}, {element.column} AS raw, {element.listed} AS listed, "
            f"{element.optional} AS optional, 0 AS behind FROM typed WHERE {wanted}"
        )
        texts[element.listed].append(f"SELECT {element.column} AS raw FROM typed WHERE excluded IS NULL")
    if parts:
        rows.append(
            f"SELECT {quote(parts)} AS element, {known}, code AS raw, false AS listed, false AS optional, concept - 1 AS behind FROM part"
        )
        texts[False].append("SELECT code AS raw FROM part")
    one, many = quote(json.dumps(CONCEPT)), quote(json.dumps([CONCEPT]))
    parsed = []
    if texts[False]:
        parsed.append(f"SELECT raw, false AS listed, 1 AS ordinal, from_json(raw, {one}) AS c FROM ({distinct(texts[False])})")
    if texts[True]:
        parsed.append(
            "SELECT raw, true AS listed, generate_subscripts(list, 1) AS ordinal, unnest(list) AS c FROM "
            f"(SELECT raw, from_json(raw, {many}) AS list FROM ({distinct(texts[True])})) WHERE len(list) > 0"
        )
    union = " UNION ALL ".join(rows)
    return [
        f'CREATE OR REPLACE TEMP TABLE concept_of AS SELECT raw, listed, ordinal, c, {TEXT} AS "text", {COUNT} AS n_codings, '
        f"concept_why(c) AS absent_reason FROM ({' UNION ALL '.join(parsed)})",
        'CREATE OR REPLACE TEMP TABLE coding_of AS SELECT raw, listed, ordinal, i, clean(k."system") AS "system", clean(k."version") AS "version", '
        "k.code AS code, clean(k.display) AS display FROM (SELECT raw, listed, ordinal, unnest(list) AS k, generate_subscripts(list, 1) AS i "
        "FROM (SELECT raw, listed, ordinal, real_codings(c) AS list FROM concept_of WHERE len(c.coding) > 0))",
        'INSERT INTO concept SELECT element, record, coalesce(ordinal, 1) + behind, patient_id, encounter_id, site, "at", "text", coalesce(n_codings, 0), '
        f"absent_reason FROM ({union}) LEFT JOIN concept_of USING (raw, listed) WHERE ordinal IS NOT NULL OR NOT optional",
        'INSERT INTO coding SELECT element, record, patient_id, encounter_id, site, "at", i, "system", "version", code, display, ordinal + behind '
        f"FROM ({union}) JOIN coding_of USING (raw, listed)",
    ]


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
