"""SQL of the FHIR reader, generated from mappings/fhir.yaml.

For each canonical table the mapped paths of its resource types become one ``json_transform`` structure, so that
a resource is parsed once; scalars and concepts are read off the resulting struct.  Strings are taken as text,
numbers as JSON, so that a number written as a string is a finding and not a number.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.engines.duckdb import quote
from ehrready.readers import fhir_values
from ehrready.readers.blocks import batched, numbers, truths
from ehrready.readers.fhir_concepts import CODING, CONCEPT, COUNT, TEXT, TIMES, Element, concepts, nulls, wrong_types
from ehrready.tables import TABLES

_REASON = [{"url": "VARCHAR", "valueCode": "VARCHAR"}]
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
_REFERENCES = {"patient_id", "encounter_id", "site"}

_MACROS = f"""
CREATE OR REPLACE TEMP MACRO ref(v) AS CASE
    WHEN starts_with(v, 'Patient/') AND NOT contains(v[9:], '/') AND NOT contains(v, '?') THEN v[9:]
    WHEN starts_with(v, 'Encounter/') AND NOT contains(v[11:], '/') AND NOT contains(v, '?') THEN v[11:]
    WHEN v IS NULL OR contains(v, '?') OR starts_with(v, '#') THEN v
    WHEN starts_with(v, 'urn:uuid:') THEN v[10:]
    ELSE regexp_extract(v, '([^/]*)(?:/_history/.*)?$', 1) END;
CREATE OR REPLACE TEMP MACRO patient_ref(v) AS CASE
    WHEN starts_with(v, 'Patient/') AND NOT contains(v[9:], '/') OR NOT contains(v, '/') THEN clean(ref(v))
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


def extract(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], kind: str, rows: pa.Table) -> list[int]:
    """Move the resources of one type (record, url, text) into the canonical tables.

    Returns the records whose text turned out to be no JSON: they are not in the tables.
    """
    urls = rows.column("url").null_count < len(rows)
    con.register("_rows", batched(rows))
    if kind == "Medication":
        con.execute(_DRUGS)
        lost = con.execute("SELECT record FROM drugs WHERE x IS NULL").fetchall()
        con.execute("INSERT INTO drug SELECT x.id, ref(url), x.code FROM drugs WHERE x IS NOT NULL")
        con.unregister("_rows")
        return [record for (record,) in lost]
    form = _form(next(table for table, entry in mapping.items() if kind in entry["types"]), kind)
    typed = con.sql(form.typed_with_url if urls else form.typed).to_arrow_table()
    broken: list[int] = typed.column("record").filter(typed.column("broken")).to_pylist()
    if broken:
        typed = typed.filter(pc.invert(typed.column("broken")))
        con.register("_rows", batched(rows.filter(truths(np.isin(numbers(rows.column("record")), broken, invert=True)))))
    con.register("typed", batched(typed))  # an Arrow table and not a temporary one: scanned by all threads however small it is
    null, *seen = con.execute(form.look).fetchall()[0]
    for statement in form.insert:
        con.execute(statement)
    if urls and kind in {"Patient", "Encounter"}:
        con.execute(
            "INSERT INTO alias SELECT DISTINCT ref(url), own FROM typed WHERE url IS NOT NULL AND own IS NOT NULL AND ref(url) <> own"
        )
    for found, statement in zip([null, *seen], [form.nulls, *form.wrong], strict=True):
        if found and statement:
            con.execute(statement)
    con.unregister("typed")
    con.unregister("_rows")
    return broken


_DRUGS = (
    "CREATE OR REPLACE TEMP TABLE drugs AS SELECT record, url, TRY(json_transform(text, "
    f"{quote(json.dumps({'id': 'VARCHAR', 'code': CONCEPT}))})) x FROM _rows"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """The statements that extract resources of one type: made once, run for every block.

    ``look`` says in one row whether there are JSON nulls, and whether each of ``wrong`` has anything to do.
    """

    typed: str
    typed_with_url: str
    look: str
    insert: tuple[str, ...]
    nulls: str
    wrong: tuple[str, ...]


@functools.cache
def _form(table: str, kind: str) -> _Form:
    """Return the statements of a resource type; the mapping is one file, read once."""
    from ehrready.readers.fhir import mapping

    entry = mapping()[table]
    structure: dict[str, Any] = {"id": "VARCHAR", "meta": {"security": "JSON"}}
    select = ["record", "x IS NULL AS broken", "contains(text, 'null') AS has_null", "$id AS id"]
    columns = entry["columns"]
    for name in TABLES[table].names[2:]:
        if name in columns:
            select.append(f'{_scalar(structure, name, columns[name])} AS "{name}"')
        elif table == "patient" and name == "patient_id":
            select.append("$id AS patient_id")
        elif name == "source_type":
            select.append(f"{quote(kind)} AS source_type")
        elif name == "excluded":
            select.append(f"{_excluded(structure, entry)} AS excluded")
        elif table == "observation" and name == "value_kind":
            select.extend(fhir_values.observation(structure))
        elif name not in fhir_values.COLUMNS or table != "observation":
            select.append(f'NULL::VARCHAR AS "{name}"')
    elements = []
    for number, (element, spec) in enumerate(entry["concepts"].items()):
        listed = "[]" in spec.get("path", "")
        elements.append(Element(element, f"c{number}", listed, bool(spec.get("optional")), spec))
        select.append(f"{_concept(structure, spec)} AS c{number}")
        if "reference" in spec:
            select.append(f"{_reference(structure, spec)} AS drug_ref")
    names = ", ".join(f'"{n}"' for n in TABLES[table].names)
    made = f"FROM (SELECT record, url, text, TRY(json_transform(text, {quote(json.dumps(structure))})) x FROM _rows)"
    with_url = ["x.id AS own", "url", *select]
    insert = [f'INSERT INTO "{table}" ({names}) SELECT {names} FROM typed']
    if parts := entry.get("parts", ""):
        insert += fhir_values.components()
    insert += concepts(elements, parts)
    if any("reference" in element.spec for element in elements):
        insert.append(
            'INSERT INTO medication_ref SELECT record, patient_id, encounter_id, "at", drug_ref FROM typed '
            "WHERE excluded IS NULL AND drug_ref IS NOT NULL"
        )
    wrong = wrong_types(table, entry, elements)
    looks = "".join(f", coalesce(bool_or({condition}), false)" for condition, _ in wrong)
    return _Form(
        f"SELECT {', '.join(select).replace('$id', 'x.id')} {made}",
        f"SELECT {', '.join(with_url).replace('$id', 'coalesce(x.id, ref(url))')} {made}",
        f"SELECT coalesce(bool_or(has_null), false){looks} FROM typed",
        tuple(insert),
        nulls(elements),
        tuple(statement for _, statement in wrong),
    )


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
        if name in TIMES:
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
                found.append(f'CASE WHEN x."_{path}".extension IS NOT NULL THEN absent(why(x."_{path}".extension)) END')
    return f"coalesce({', '.join(found)})" if len(found) > 1 else found[0]


def _excluded(structure: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return the SQL of the reason why a record is in no denominator."""

    def among(text: str, shape: Any, codings: str, code: str) -> str:  # parsed only where the code is in the text
        parsed = f"from_json({text}, {quote(json.dumps(shape))}){codings}"
        return f"CASE WHEN contains({text}, {quote(code)}) THEN len(list_filter({parsed}, lambda k: k.code = {quote(code)})) > 0 ELSE false END"

    cases = [f"WHEN {among('x.meta.security', [CODING], '', 'HTEST')} THEN 'test-patient'"]
    structure.setdefault("status", "VARCHAR")
    cases.append("WHEN x.status = 'entered-in-error' THEN 'entered-in-error'")
    if "excluded_by" in entry:
        structure.setdefault("verificationStatus", "JSON")
        for code in ("entered-in-error", "refuted"):
            cases.append(f"WHEN {among('x.verificationStatus', CONCEPT, '.coding', code)} THEN '{code}'")
    return f"CASE {' '.join(cases)} END"


def _concept(structure: dict[str, Any], spec: dict[str, Any]) -> str:
    """Return the SQL of the JSON text of a concept, or of a list of them for a repeating element."""
    if "coding" in spec:
        sql = _leaf(structure, spec["coding"], "JSON")
        return f"'{{\"coding\":[' || {sql}::VARCHAR || ']}}'"
    if "us_core" in spec:
        structure["extension"] = [{"url": "VARCHAR", "extension": [{"url": "VARCHAR", "valueCoding": CODING, "valueString": "VARCHAR"}]}]
        url = quote(_US_CORE + spec["us_core"])
        parts = f"flatten(list_transform(list_filter(x.extension, lambda e: e.url = {url}), lambda e: e.extension))"
        return (
            f"CASE WHEN len({parts}) > 0 THEN to_json({{'text': list_extract(list_transform(list_filter({parts}, lambda p: "
            f"p.url = 'text'), lambda p: p.valueString), 1), 'coding': list_transform(list_filter({parts}, lambda p: "
            "p.url = 'ombCategory' AND p.valueCoding IS NOT NULL), lambda p: p.valueCoding)})::VARCHAR END"
        )
    path: str = spec["path"]
    if "[]." in path:
        outer, inner = path.split("[].")
        item = structure.setdefault(outer, [{}])[0]
        item[inner] = "JSON"
        return f"'[' || array_to_string(list_transform(x.\"{outer}\", lambda e: coalesce(e.\"{inner}\"::VARCHAR, 'null')), ',') || ']'"
    sql = f"{_leaf(structure, path.removesuffix('[]'), 'JSON')}::VARCHAR"
    if "reference" not in spec:
        return sql
    reference = _leaf(structure, spec["reference"], "VARCHAR")
    structure["contained"] = [{"id": "VARCHAR", "code": "JSON"}]
    inner = f"list_extract(list_transform(list_filter(x.contained, lambda e: '#' || e.id = {reference}), lambda e: e.code), 1)::VARCHAR"
    return f"CASE WHEN {sql} IS NULL AND starts_with({reference}, '#') THEN {inner} ELSE {sql} END"


def _reference(structure: dict[str, Any], spec: dict[str, Any]) -> str:
    """Return the SQL of a reference that stands for the concept; it is resolved when everything is read."""
    sql, reference = _leaf(structure, spec["path"], "JSON"), _leaf(structure, spec["reference"], "VARCHAR")
    return f"CASE WHEN {sql} IS NULL AND NOT starts_with({reference}, '#') THEN ref({reference}) END"


def _write(con: duckdb.DuckDBPyConnection, element: str, rows: str) -> None:
    """Insert rows of (record, patient_id, encounter_id, site, at, c, ordinal) as concepts and codings."""
    con.execute(
        f'INSERT INTO concept SELECT {quote(element)}, record, ordinal, patient_id, encounter_id, site, "at", {TEXT}, {COUNT}, '
        f"concept_why(c) FROM ({rows})"
    )
    con.execute(
        f'INSERT INTO coding SELECT {quote(element)}, record, patient_id, encounter_id, site, "at", i, clean(k."system"), '
        'clean(k."version"), k.code, clean(k.display), ordinal FROM (SELECT * EXCLUDE (k_list), unnest(k_list) k, '
        'generate_subscripts(k_list, 1) i FROM (SELECT record, patient_id, encounter_id, site, "at", ordinal, real_codings(c) k_list '
        f"FROM ({rows}) WHERE len(c.coding) > 0))"
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
        for table in [*TABLES, "component", "concept", "coding", "defect"]:
            for column in ("patient_id", "encounter_id"):
                if table == "defect" and column == "encounter_id":
                    continue
                con.execute(f'UPDATE "{table}" SET {column} = alias_of.id FROM alias_of WHERE "{table}".{column} = alias_of.url')
    if con.execute("SELECT 1 FROM patient WHERE excluded = 'test-patient' LIMIT 1").fetchone():
        tests = "(SELECT patient_id FROM patient WHERE excluded = 'test-patient')"
        for table in [*TABLES, "component"]:
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
