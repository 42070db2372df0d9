"""SQL of the FHIR reader, generated from mappings/fhir.yaml.

For each canonical table the mapped paths of its resource types become one ``json_transform`` structure, so that
a resource is parsed once; scalars and concepts are read off the resulting struct.  Strings are taken as text,
numbers as JSON, so that a number written as a string is a finding and not a number.
"""

from __future__ import annotations

import json
from typing import Any

import duckdb

from ehrready.engines.duckdb import quote
from ehrready.tables import TABLES

_CONCEPT = {
    "text": "VARCHAR",
    "coding": [{"system": "VARCHAR", "version": "VARCHAR", "code": "VARCHAR", "display": "VARCHAR"}],
    "extension": [{"url": "VARCHAR", "valueCode": "VARCHAR"}],
}
_CODING = _CONCEPT["coding"][0]
_REASON = [{"url": "VARCHAR", "valueCode": "VARCHAR"}]
_QUANTITY = {"value": "JSON", "unit": "VARCHAR", "system": "VARCHAR", "code": "VARCHAR", "comparator": "VARCHAR"}
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_NULL_SYSTEMS = (
    "http://terminology.hl7.org/CodeSystem/v3-NullFlavor",
    "http://hl7.org/fhir/v3/NullFlavor",
    "urn:oid:2.16.840.1.113883.5.1008",
    "http://terminology.hl7.org/CodeSystem/data-absent-reason",
    "http://hl7.org/fhir/data-absent-reason",
)
_CODEABLE = (
    'STRUCT("text" VARCHAR, coding STRUCT("system" VARCHAR, "version" VARCHAR, code VARCHAR, display VARCHAR)[], '
    "extension STRUCT(url VARCHAR, valueCode VARCHAR)[])"
)
_TIMES = {"at", "end", "birth_date", "death_date", "recorded_at"}
_REFERENCES = {"patient_id", "encounter_id", "site"}

_MACROS = f"""
CREATE OR REPLACE TEMP MACRO ref(v) AS CASE
    WHEN v IS NULL OR contains(v, '?') OR starts_with(v, '#') THEN v
    WHEN starts_with(v, 'urn:uuid:') THEN v[10:]
    ELSE regexp_extract(v, '([^/]*)(?:/_history/.*)?$', 1) END;
CREATE OR REPLACE TEMP MACRO patient_ref(v) AS CASE
    WHEN regexp_matches(v, '(^|/)(Group|Device|Location|Practitioner|Organization|Medication|Substance)/[^/]+$')
    THEN absent('not-a-patient') ELSE clean(ref(v)) END;
CREATE OR REPLACE TEMP MACRO why(ext) AS list_extract(list_transform(list_filter(ext, lambda e:
    e.url = 'http://hl7.org/fhir/StructureDefinition/data-absent-reason'), lambda e: coalesce(e.valueCode, 'unknown')), 1);
CREATE OR REPLACE TEMP MACRO null_coding(k) AS k."system" IN ({", ".join(map(quote, _NULL_SYSTEMS))});
CREATE OR REPLACE TEMP MACRO real_codings(c) AS list_filter(c.coding, lambda k:
    k.code IS NOT NULL AND trim(k.code) <> '' AND NOT coalesce(null_coding(k), false));
CREATE OR REPLACE TEMP MACRO concept_why(c) AS CASE lower(coalesce(why(c.extension), list_extract(
    list_transform(list_filter(c.coding, lambda k: null_coding(k)), lambda k: k.code), 1)))
    WHEN 'msk' THEN 'masked' ELSE lower(coalesce(why(c.extension), list_extract(
    list_transform(list_filter(c.coding, lambda k: null_coding(k)), lambda k: k.code), 1))) END;
CREATE OR REPLACE TEMP MACRO number_of(j) AS CASE WHEN regexp_matches(j, '^-?[0-9]')
    THEN (CASE WHEN isfinite(try_cast(j AS DOUBLE)) THEN try_cast(j AS DOUBLE) END) END;
"""


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Create the macros and staging tables of one reading."""
    con.execute(_MACROS)
    con.execute(
        "CREATE TEMP TABLE alias (url VARCHAR, id VARCHAR);"
        'CREATE TEMP TABLE medication_ref (record BIGINT, patient_id VARCHAR, encounter_id VARCHAR, "at" VARCHAR, ref VARCHAR);'
        f"CREATE TEMP TABLE drug (id VARCHAR, url VARCHAR, c {_CODEABLE})"
    )


def extract(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any]) -> None:
    """Move the block in the temp table ``resource`` into the canonical tables."""
    present = {row[0] for row in con.execute("SELECT DISTINCT type FROM resource").fetchall()}
    con.execute(
        "INSERT INTO alias SELECT DISTINCT ref(url), id FROM (SELECT url, json_extract_string(text, '$.id') id FROM resource "
        "WHERE url IS NOT NULL AND type IN ('Patient', 'Encounter')) WHERE id IS NOT NULL AND ref(url) <> id"
    )
    if "Medication" in present:
        structure = json.dumps({"id": "VARCHAR", "code": _CONCEPT})
        con.execute(
            f"INSERT INTO drug SELECT x.id, ref(url), x.code FROM (SELECT url, json_transform(text, {quote(structure)}) x "
            "FROM resource WHERE type = 'Medication')"
        )
    for table, entry in mapping.items():
        types = [kind for kind in entry["types"] if kind in present]
        if types:
            _extract_table(con, table, entry, types)


def _extract_table(con: duckdb.DuckDBPyConnection, table: str, entry: dict[str, Any], types: list[str]) -> None:
    structure: dict[str, Any] = {"id": "VARCHAR", "meta": {"security": [_CODING]}}
    select = ["record", "coalesce(x.id, ref(url)) AS id"]
    columns = entry["columns"]
    for name in TABLES[table].names[2:]:
        if name in columns:
            select.append(f'{_scalar(structure, name, columns[name])} AS "{name}"')
        elif table == "patient" and name == "patient_id":
            select.append("coalesce(x.id, ref(url)) AS patient_id")
        elif name == "source_type":
            select.append("type AS source_type")
        elif name == "excluded":
            select.append(f"{_excluded(structure, entry)} AS excluded")
        elif table == "observation" and name == "value_kind":
            select.extend(_observation(structure))
        elif name not in _OBSERVATION or table != "observation":
            select.append(f'NULL AS "{name}"')
    concepts = []
    for number, (element, spec) in enumerate(entry["concepts"].items()):
        concepts.append((element, spec, f"c{number}"))
        select.append(f"{_concept(structure, spec)} AS c{number}")
    names = ", ".join(f'"{n}"' for n in TABLES[table].names)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE typed AS SELECT {', '.join(select)} FROM (SELECT record, url, type, "
        f"json_transform(text, {quote(json.dumps(structure))}) x FROM resource WHERE type IN ({', '.join(map(quote, types))}))"
    )
    con.execute(f'INSERT INTO "{table}" ({names}) SELECT {names} FROM typed')
    for element, spec, column in concepts:
        _insert_concept(con, element, spec, column)
    _wrong_types(con, table, entry, types)


def _leaf(structure: dict[str, Any], path: str, leaf: Any) -> str:
    """Add a dotted path to the structure and return its SQL; ``[]`` takes the first element of a list."""
    node, sql = structure, "x"
    steps = path.split(".")
    for step in steps[:-1]:
        name = step.removesuffix("[]")
        child = node.setdefault(name, [{}] if step.endswith("[]") else {})
        sql += f'."{name}"' + ("[1]" if step.endswith("[]") else "")
        node = child[0] if isinstance(child, list) else child
    node.setdefault(steps[-1], leaf)
    return f'{sql}."{steps[-1]}"'


def _scalar(structure: dict[str, Any], name: str, paths: str | list[str]) -> str:
    """Return the SQL of a canonical scalar: the first present path, then a stated reason for its absence."""
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        sql = f"clean({_leaf(structure, path, 'VARCHAR')})"
        if name in _TIMES:
            sql = f"iso({sql})"
        elif name == "patient_id":
            sql = f"patient_ref({sql})"
        elif name in _REFERENCES:
            sql = f"ref({sql})"
        found.append(sql)
    if name not in _REFERENCES:
        for path in [paths] if isinstance(paths, str) else paths:
            if "." not in path:
                structure[f"_{path}"] = {"extension": _REASON}
                found.append(f'absent(why(x."_{path}".extension))')
    return f"coalesce({', '.join(found)})" if len(found) > 1 else found[0]


def _excluded(structure: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return the SQL of the reason why a record is in no denominator."""
    cases = ["WHEN len(list_filter(x.meta.security, lambda k: k.code = 'HTEST')) > 0 THEN 'test-patient'"]
    structure.setdefault("status", "VARCHAR")
    cases.append("WHEN x.status = 'entered-in-error' THEN 'entered-in-error'")
    if "excluded_by" in entry:
        structure.setdefault("verificationStatus", _CONCEPT)
        for code in ("entered-in-error", "refuted"):
            cases.append(f"WHEN len(list_filter(x.verificationStatus.coding, lambda k: k.code = '{code}')) > 0 THEN '{code}'")
    return f"CASE {' '.join(cases)} END"


_OBSERVATION = {
    "value_kind", "value_number", "value_text", "comparator", "unit", "unit_code", "range_low", "range_high", "absent_reason",
    "value_declared",
}  # fmt: skip


def _observation(structure: dict[str, Any]) -> list[str]:
    """Return the value columns of an Observation (FHIR R4 Observation.value[x])."""
    structure.update(
        valueQuantity=_QUANTITY,
        valueString="VARCHAR",
        valueBoolean="VARCHAR",
        valueInteger="JSON",
        valueDateTime="VARCHAR",
        valueTime="VARCHAR",
        valueCodeableConcept=_CONCEPT,
        valueRange="JSON",
        valueRatio="JSON",
        valueSampledData="JSON",
        valuePeriod="JSON",
        component=[{"code": _CONCEPT}],
        hasMember=[{"reference": "VARCHAR"}],
        dataAbsentReason=_CONCEPT,
        referenceRange=[{"low": {"value": "JSON"}, "high": {"value": "JSON"}}],
    )
    number = "coalesce(number_of(x.valueQuantity.value), number_of(x.valueInteger))"
    reason = "coalesce(list_extract(list_transform(x.dataAbsentReason.coding, lambda k: k.code), 1), x.dataAbsentReason.text)"
    return [
        f"CASE WHEN {number} IS NOT NULL THEN 'number' WHEN x.valueQuantity.value IS NOT NULL OR x.valueInteger IS NOT NULL "
        "OR clean(x.valueString) IS NOT NULL THEN 'text' "
        "WHEN x.valueCodeableConcept.coding IS NOT NULL OR clean(x.valueCodeableConcept.text) IS NOT NULL THEN 'coded' "
        "WHEN x.valueBoolean IS NOT NULL THEN 'boolean' WHEN x.valueDateTime IS NOT NULL OR x.valueTime IS NOT NULL THEN 'time' "
        "WHEN coalesce(x.valueRange, x.valueRatio, x.valueSampledData, x.valuePeriod) IS NOT NULL THEN 'other' "
        "WHEN len(x.component) > 0 OR len(x.hasMember) > 0 THEN 'components' END AS value_kind",
        f"{number} AS value_number",
        f"CASE WHEN {number} IS NULL THEN coalesce(clean(x.valueString), x.valueQuantity.value::VARCHAR, x.valueInteger::VARCHAR) END AS value_text",
        "clean(x.valueQuantity.comparator) AS comparator",
        "coalesce(clean(x.valueQuantity.unit), clean(x.valueQuantity.code)) AS unit",
        "CASE WHEN x.valueQuantity.\"system\" = 'http://unitsofmeasure.org' THEN clean(x.valueQuantity.code) END AS unit_code",
        "number_of(x.referenceRange[1].low.value) AS range_low",
        "number_of(x.referenceRange[1].high.value) AS range_high",
        f"CASE WHEN lower({reason}) IN ('masked', 'msk') THEN 'masked' ELSE lower({reason}) END AS absent_reason",
        f"CASE WHEN {number} IS NULL AND coalesce(x.valueQuantity.value, x.valueInteger) IS NOT NULL THEN 'declared' END AS value_declared",
    ]


def _concept(structure: dict[str, Any], spec: dict[str, Any]) -> str:
    """Return the SQL of a concept: a struct, or a list of structs for a repeating element."""
    if "coding" in spec:
        sql = _leaf(structure, spec["coding"], _CODING)
        return f"CASE WHEN {sql} IS NOT NULL THEN {{'text': NULL::VARCHAR, 'coding': [{sql}], 'extension': NULL}}::{_CODEABLE} END"
    if "us_core" in spec:
        structure["extension"] = [{"url": "VARCHAR", "extension": [{"url": "VARCHAR", "valueCoding": _CODING, "valueString": "VARCHAR"}]}]
        url = quote(_US_CORE + spec["us_core"])
        parts = f"flatten(list_transform(list_filter(x.extension, lambda e: e.url = {url}), lambda e: e.extension))"
        return (
            f"CASE WHEN len({parts}) > 0 THEN {{'text': list_extract(list_transform(list_filter({parts}, lambda p: "
            f"p.url = 'text'), lambda p: p.valueString), 1), 'coding': list_transform(list_filter({parts}, lambda p: "
            f"p.url = 'ombCategory' AND p.valueCoding IS NOT NULL), lambda p: p.valueCoding), 'extension': NULL}}::{_CODEABLE} END"
        )
    path: str = spec["path"]
    if path.endswith("[]"):
        structure[path.removesuffix("[]")] = [_CONCEPT]
        return f'x."{path.removesuffix("[]")}"'
    if "[]." in path:
        outer, inner = path.split("[].")
        item = structure.setdefault(outer, [{}])[0]
        item[inner] = _CONCEPT
        return f'list_transform(x."{outer}", lambda e: e."{inner}")'
    sql = _leaf(structure, path, _CONCEPT)
    if "reference" not in spec:
        return sql
    reference = _leaf(structure, spec["reference"], "VARCHAR")
    structure["contained"] = [{"id": "VARCHAR", "code": _CONCEPT}]
    inner = f"list_extract(list_transform(list_filter(x.contained, lambda e: '#' || e.id = {reference}), lambda e: e.code), 1)"
    # a reference to another resource is resolved when everything is read: it travels in the text for now
    return (
        f"CASE WHEN {sql} IS NULL AND starts_with({reference}, '#') THEN {inner} WHEN {sql} IS NULL AND {reference} IS NOT NULL "
        f"THEN {{'text': {quote(_REF_MARK)} || ref({reference}), 'coding': NULL, 'extension': NULL}}::{_CODEABLE} ELSE {sql} END"
    )


_REF_MARK = "\x02"


def _insert_concept(con: duckdb.DuckDBPyConnection, element: str, spec: dict[str, Any], column: str) -> None:
    """Write the concept and coding rows of one element of the block."""
    path = spec.get("path", "")
    common = 'record, patient_id, encounter_id, site, "at"'
    if "[]" in path:
        rows = f"SELECT {common}, unnest({column}) c, generate_subscripts({column}, 1) ordinal FROM typed WHERE excluded IS NULL AND len({column}) > 0"
        if not spec.get("optional"):
            rows += f" UNION ALL SELECT {common}, NULL, 1 FROM typed WHERE excluded IS NULL AND coalesce(len({column}), 0) = 0"
    else:
        rows = f"SELECT {common}, {column} c, 1 ordinal FROM typed WHERE excluded IS NULL"
        if spec.get("optional"):
            rows += f" AND {column} IS NOT NULL"
    if "reference" in spec:
        con.execute(
            f'INSERT INTO medication_ref SELECT record, patient_id, encounter_id, "at", c."text"[2:] FROM ({rows}) '
            f'WHERE starts_with(c."text", {quote(_REF_MARK)})'
        )
        rows = f'SELECT * FROM ({rows}) WHERE c IS NULL OR c."text" IS NULL OR NOT starts_with(c."text", {quote(_REF_MARK)})'
    _write(con, element, rows)


def _write(con: duckdb.DuckDBPyConnection, element: str, rows: str) -> None:
    """Insert rows of (record, patient_id, encounter_id, site, at, c, ordinal) as concepts and codings."""
    con.execute(
        f'INSERT INTO concept SELECT {quote(element)}, record, ordinal, patient_id, encounter_id, site, "at", coalesce(clean(c."text"), '
        "clean(list_extract(list_transform(list_filter(c.coding, lambda k: clean(k.display) IS NOT NULL AND NOT "
        "coalesce(null_coding(k), false)), lambda k: k.display), 1)), clean(list_extract(list_transform(list_filter(real_codings(c), "
        "lambda k: null_token(k.code)), lambda k: k.code), 1))), "
        "coalesce(len(list_filter(real_codings(c), lambda k: NOT null_token(k.code))), 0), "
        f"concept_why(c) FROM ({rows})"
    )
    con.execute(
        f'INSERT INTO coding SELECT {quote(element)}, record, patient_id, encounter_id, site, "at", i, clean(k."system"), '
        'clean(k."version"), k.code, clean(k.display), ordinal FROM (SELECT * EXCLUDE (k_list), unnest(k_list) k, '
        'generate_subscripts(k_list, 1) i FROM (SELECT record, patient_id, encounter_id, site, "at", ordinal, real_codings(c) k_list '
        f"FROM ({rows}) WHERE len(c.coding) > 0))"
    )


def _wrong_types(con: duckdb.DuckDBPyConnection, table: str, entry: dict[str, Any], types: list[str]) -> None:
    """Note elements that are there but of another JSON type than FHIR says (json_transform makes them NULL)."""
    for element, spec in entry["concepts"].items():
        path = spec.get("path", "").removesuffix("[]")
        if not path or "[" in path or "." in path:
            continue
        column = f"c{list(entry['concepts']).index(element)}"
        listed = spec["path"].endswith("[]")
        empty = (
            f"coalesce(len({column}), 0) = 0" if listed else f'{column} IS NULL OR ({column}.coding IS NULL AND {column}."text" IS NULL)'
        )
        right = "'ARRAY'" if listed else "'OBJECT'"
        nested = "" if listed else f" OR coalesce(json_type(text, '$.{path}.coding'), 'ARRAY') <> 'ARRAY'"
        con.execute(
            f"INSERT INTO defect SELECT {quote(element)}, record, patient_id, 'wrong-type' FROM (SELECT record, patient_id FROM typed "
            f"WHERE excluded IS NULL AND ({empty})) JOIN (SELECT record, text FROM resource WHERE type IN ({', '.join(map(quote, types))})) "
            f"USING (record) WHERE json_type(text, '$.{path}') <> {right}{nested}"
        )
    if table == "observation":
        con.execute(
            "INSERT INTO defect SELECT 'observation.value', record, patient_id, 'wrong-type' FROM typed WHERE excluded IS NULL "
            "AND value_kind = 'text' AND starts_with(value_text, '\"') AND record IN (SELECT record FROM resource WHERE "
            "json_type(text, '$.valueQuantity.value') = 'VARCHAR' OR json_type(text, '$.valueInteger') = 'VARCHAR')"
        )
    for name, paths in entry["columns"].items():
        first = paths if isinstance(paths, str) else paths[0]
        number = ""
        if "." not in first and name in _TIMES:  # a date written as a JSON number reads as its digits
            number = (
                f" OR (regexp_full_match(\"{name}\", '-?[0-9.]+') AND record IN (SELECT record FROM resource WHERE "
                f"json_type(text, '$.{first}') NOT IN ('VARCHAR', 'NULL')))"
            )
        con.execute(
            f"INSERT INTO defect SELECT {quote(f'{table}.{name}')}, record, patient_id, 'wrong-type' FROM typed "
            f"WHERE excluded IS NULL AND (starts_with(\"{name}\", '{{') OR starts_with(\"{name}\", '['){number})"
        )


def finish(con: duckdb.DuckDBPyConnection) -> None:
    """Resolve what needs all files: medication references, Bundle URLs, test patients."""
    medications(con)
    resolve(con)


def medications(con: duckdb.DuckDBPyConnection) -> None:
    """Write the concepts of medications that are resources of their own."""
    waiting = con.execute("SELECT count(*) FROM medication_ref").fetchone()
    if waiting and waiting[0]:
        con.execute(
            "CREATE TEMP TABLE drug_of AS SELECT ref, any_value(c) c FROM (SELECT id AS ref, c FROM drug UNION ALL "
            "SELECT url, c FROM drug WHERE url IS NOT NULL AND url <> id) WHERE ref IS NOT NULL GROUP BY ref HAVING count(DISTINCT c) = 1"
        )
        _write(
            con,
            "medication.code",
            'SELECT record, patient_id, encounter_id, NULL::VARCHAR site, "at", c, 1 ordinal FROM medication_ref LEFT JOIN drug_of USING (ref)',
        )


def resolve(con: duckdb.DuckDBPyConnection) -> None:
    """Replace Bundle URLs by ids and leave test patients out; plain SQL, which runs on Spark, too."""
    if con.execute("SELECT 1 FROM alias LIMIT 1").fetchone():
        con.execute("CREATE TEMP TABLE alias_of AS SELECT url, min(id) id FROM alias GROUP BY url HAVING count(DISTINCT id) = 1")
        for table in [*TABLES, "concept", "coding", "defect"]:
            for column in ("patient_id", "encounter_id"):
                if table == "defect" and column == "encounter_id":
                    continue
                con.execute(f'UPDATE "{table}" SET {column} = alias_of.id FROM alias_of WHERE "{table}".{column} = alias_of.url')
    if con.execute("SELECT 1 FROM patient WHERE excluded = 'test-patient' LIMIT 1").fetchone():
        tests = "(SELECT patient_id FROM patient WHERE excluded = 'test-patient')"
        for table in TABLES:
            con.execute(f"UPDATE \"{table}\" SET excluded = 'test-patient' WHERE excluded IS NULL AND patient_id IN {tests}")
        for table in ("concept", "coding", "defect"):
            con.execute(f"DELETE FROM {table} WHERE patient_id IN {tests}")


def source_elements(mapping: dict[str, Any]) -> dict[str, str]:
    """Return canonical element to FHIR path for every mapped element."""
    found = {}
    for table, entry in mapping.items():
        resource = entry["types"][0]
        for name, paths in entry["columns"].items():
            first = paths if isinstance(paths, str) else paths[0]
            found[f"{table}.{name}"] = f"{resource}.{first}".replace("[]", "").removesuffix(".reference")
        for element, spec in entry["concepts"].items():
            path = spec.get("path") or spec.get("coding") or f"extension(us-core-{spec['us_core']})"
            found[element] = f"{resource}.{path}".replace("[]", "")
        found[f"{table}.id"] = f"{resource}.id"
    found["observation.value"] = "Observation.value[x]"
    found["observation.unit"] = "Observation.valueQuantity.unit"
    return dict(sorted(found.items()))
