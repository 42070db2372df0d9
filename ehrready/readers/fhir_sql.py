"""SQL of the FHIR reader, generated from mappings/fhir.yaml.

For each canonical table the mapped paths of its resource types become one ``json_transform`` structure, so that
a resource is parsed once; scalars are computed from its leaves (ehrready.readers.leaves), concepts become numbers (ehrready.concepts).  Strings are taken as text,
numbers as JSON, so that a number written as a string is a finding and not a number.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ehrready import cells, concepts
from ehrready.engines.duckdb import quote
from ehrready.readers import fhir_values
from ehrready.readers.arrays import Integers, batched, integers, strings
from ehrready.readers.fhir_concepts import CODING, CONCEPT, TIMES, Element, layout, nulls, wrong_types
from ehrready.readers.fhir_leaves import Leaves
from ehrready.readers.leaves import Columns, Told, side_by_side, tell
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
CREATE OR REPLACE MACRO ref(v) AS CASE
    WHEN starts_with(v, 'Patient/') AND NOT contains(v[9:], '/') AND NOT contains(v, '?') THEN v[9:]
    WHEN starts_with(v, 'Encounter/') AND NOT contains(v[11:], '/') AND NOT contains(v, '?') THEN v[11:]
    WHEN v IS NULL OR contains(v, '?') OR starts_with(v, '#') THEN v
    WHEN starts_with(v, 'urn:uuid:') THEN v[10:]
    ELSE regexp_extract(v, '([^/]*)(?:/_history/.*)?$', 1) END;
CREATE OR REPLACE MACRO patient_ref(v) AS CASE
    WHEN starts_with(v, 'Patient/') AND NOT contains(v[9:], '/') OR NOT contains(v, '/') THEN clean(ref(v))
    WHEN regexp_matches(v, '(^|/)(Group|Device|Location|Practitioner|Organization|Medication|Substance)/[^/]+$')
    THEN absent('not-a-patient') ELSE clean(ref(v)) END;
CREATE OR REPLACE MACRO why(ext) AS list_extract(list_transform(list_filter(ext, lambda e:
    e.url = 'http://hl7.org/fhir/StructureDefinition/data-absent-reason'), lambda e: coalesce(e.valueCode, 'unknown')), 1);
CREATE OR REPLACE MACRO null_coding(k) AS k."system" IN ({", ".join(map(quote, _NULL_SYSTEMS))});
CREATE OR REPLACE MACRO real_codings(c) AS list_filter(c.coding, lambda k:
    k.code IS NOT NULL AND trim(k.code) <> '' AND NOT coalesce(null_coding(k), false));
CREATE OR REPLACE MACRO concept_why(c) AS CASE lower(coalesce(why(c.extension), list_extract(
    list_transform(list_filter(c.coding, lambda k: null_coding(k)), lambda k: k.code), 1)))
    WHEN 'msk' THEN 'masked' ELSE lower(coalesce(why(c.extension), list_extract(
    list_transform(list_filter(c.coding, lambda k: null_coding(k)), lambda k: k.code), 1))) END;
CREATE OR REPLACE MACRO number_of(j) AS CASE WHEN regexp_matches(j, '^-?[0-9]')
    THEN (CASE WHEN isfinite(try_cast(j AS DOUBLE)) THEN try_cast(j AS DOUBLE) END) END;
"""


def prepare(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], *, shared: bool) -> None:
    """Create the macros and staging tables of one reading."""
    con.execute(_MACROS)
    concepts.prepare(con, layout(mapping), words=shared)
    con.execute(
        "CREATE TEMP TABLE alias (url VARCHAR, id VARCHAR);"
        'CREATE TEMP TABLE medication_ref (record BIGINT, patient_id VARCHAR, encounter_id VARCHAR, "at" VARCHAR, ref VARCHAR);'
        f"CREATE TEMP TABLE drug (id VARCHAR, url VARCHAR, c {_CODEABLE})"
    )


@dataclass(frozen=True, slots=True)
class Parsed:
    """Resources of one type as columns: ``leaves`` still has their records; ``broken`` are those whose text is no JSON.

    ``concepts`` are, by coded element, the different texts and which of them each row has; ``wrong`` the statements about wrong types.
    """

    form: _Form
    leaves: pa.Table
    broken: list[int]
    told: Told | None
    concepts: Mapping[str, tuple[pa.Array, Integers]]
    wrong: Sequence[str]


@dataclass(frozen=True, slots=True)
class Leafed:
    """Resources of one type as the leaves of their columns; ``broken`` are the records whose text is no JSON."""

    form: _Form
    leaves: pa.Table
    broken: list[int]


def parse(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], kind: str, rows: pa.Table, *, shared: bool) -> Leafed:
    """Parse the resources of one mapped type (record, url, text).  ``shared``: for measures that read numbers."""
    table = next(table for table, entry in mapping.items() if kind in entry["types"])
    form = _form(table, kind, rows.column("url").null_count < len(rows), shared)
    con.register("_rows", batched(rows))
    leaves = con.sql(form.parse).to_arrow_table()
    con.unregister("_rows")
    broken: list[int] = leaves.column("record").filter(leaves.column("broken")).to_pylist()
    return Leafed(form, leaves.filter(pc.invert(leaves.column("broken"))) if broken else leaves, broken)


def columns(con: duckdb.DuckDBPyConnection, found: Leafed) -> Parsed:
    """Compute the columns of parsed resources; nothing is written."""
    form, leaves = found.form, found.leaves
    if not len(leaves):
        return Parsed(form, leaves, found.broken, None, {}, ())
    told = tell(con, form.columns, leaves)
    concepts = {element.column: told.different(element.column) for element in form.elements}
    wrong = _wrong(con, form, told, side_by_side({column: texts for column, (texts, _) in concepts.items()}))
    wrong += [form.nulls] * bool(form.nulls and pc.any(leaves.column("has_null")).as_py())
    return Parsed(form, leaves, found.broken, told, concepts, wrong)


def write(con: duckdb.DuckDBPyConnection, parsed: Parsed, rows: pa.Table, wording: concepts.Wording) -> None:
    """Write parsed resources into the canonical tables; ``rows`` are those that were parsed and not broken."""
    form, told = parsed.form, parsed.told
    if told is None:
        return
    typed = told.table(form.names).append_column("record", parsed.leaves.column("record"))
    for element in form.elements:
        texts, which = parsed.concepts[element.column]
        found = wording.numbers(texts, listed=element.listed)
        typed = typed.append_column(f"x{element.column[1:]}", integers(found[which]))
    wording.write(con)
    if "m" in form.names:
        typed = typed.append_column("word", integers(told.sum(len(typed))))
    if parsed.wrong:  # these look at the texts of concepts, too
        con.register("_rows", batched(rows))
        typed = typed.append_column("has_null", parsed.leaves.column("has_null"))
        for element in form.elements:
            typed = typed.append_column(element.column, told.table([element.column]).column(0))
    con.register("typed", batched(typed))  # an Arrow table and not a temporary one: scanned by all threads however small it is
    con.execute(form.insert)
    if "parts" in form.names and told.some("parts"):
        _parts(con, wording)
    if "drug_ref" in form.names and told.some("drug_ref"):
        con.execute(
            'INSERT INTO medication_ref SELECT record, patient_id, encounter_id, "at", drug_ref FROM typed '
            "WHERE excluded IS NULL AND drug_ref IS NOT NULL"
        )
    if form.kind in {"Patient", "Encounter"} and "url" in form.names:
        con.execute(
            "INSERT INTO alias SELECT DISTINCT ref(url), own FROM typed WHERE url IS NOT NULL AND own IS NOT NULL AND ref(url) <> own"
        )
    for statement in parsed.wrong:
        con.execute(statement)
    con.unregister("typed")
    if parsed.wrong:
        con.unregister("_rows")


def drugs(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> list[int]:
    """Keep the Medications in ``rows`` for what refers to them; returns the records whose text is no JSON."""
    con.register("_rows", batched(rows))
    con.execute(_DRUGS)
    lost = con.execute("SELECT record FROM drugs WHERE x IS NULL").fetchall()
    con.execute("INSERT INTO drug SELECT x.id, ref(url), x.code FROM drugs WHERE x IS NOT NULL")
    con.unregister("_rows")
    return [record for (record,) in lost]


def _wrong(con: duckdb.DuckDBPyConnection, form: _Form, told: Told, texts: pa.Table) -> list[str]:
    """Return the statements about elements of a wrong type that have anything to do, as the different values tell."""
    con.register("told", told.computed)
    con.register("told_texts", texts)
    looks = con.execute(form.look).fetchall()[0]
    con.unregister("told")
    con.unregister("told_texts")
    return [statement for found, statement in zip(looks, form.wrong, strict=True) if found]


def _parts(con: duckdb.DuckDBPyConnection, wording: concepts.Wording) -> None:
    """Write the components of a block."""
    make, write, defects = fhir_values.components()
    con.execute(make)
    codes = [code for (code,) in con.execute("SELECT DISTINCT code FROM part WHERE code IS NOT NULL ORDER BY 1").fetchall()]
    texts = strings([code.encode() for code in codes]).cast(pa.large_string())
    found = integers(wording.numbers(texts, listed=False))
    wording.write(con)
    con.register("part_code", pa.Table.from_arrays([texts, found], names=["code", "x"]))
    con.execute(write)
    con.unregister("part_code")
    con.execute(defects)


_DRUGS = (
    "CREATE OR REPLACE TEMP TABLE drugs AS SELECT record, url, TRY(json_transform(text, "
    f"{quote(json.dumps({'id': 'VARCHAR', 'code': CONCEPT}))})) x FROM _rows"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """The statements that extract resources of one type: made once, run for every block.

    ``parse`` gives the leaves, ``columns`` what is computed from them, ``names`` those that are written; ``look`` says in one row
    whether each of ``wrong`` has anything to do.
    """

    kind: str
    parse: str
    columns: Columns
    names: tuple[str, ...]
    elements: tuple[Element, ...]
    look: str
    insert: str
    nulls: str
    wrong: tuple[str, ...]


@functools.cache
def _form(table: str, kind: str, urls: bool, shared: bool) -> _Form:
    """Return the statements of a resource type, with the URLs of their entries or without; the mapping is one file, read once."""
    from ehrready.readers.fhir_look import mapping

    entry = mapping()[table]
    leaves = Leaves({"meta": {"security": "JSON"}})
    own = leaves.at("id")
    made: dict[str, list[str]] = {"id": [own]}
    if urls:
        made = {"own": [own], "url": [leaves.of("url")], "id": [own, f"ref({leaves.of('url')})"]}
    columns = entry["columns"]
    for name in TABLES[table].names[2:]:
        if name in columns:
            made[name] = _scalar(leaves, name, columns[name])
        elif table == "patient" and name == "patient_id":
            made[name] = made["id"]
        elif name == "source_type":
            made[name] = [quote(kind)]
        elif name == "excluded":
            made[name] = [_excluded(leaves, entry)]
        elif table == "observation" and name == "value_kind":
            made |= {column: [sql] for column, sql in fhir_values.observation(leaves).items()}
        elif name not in fhir_values.COLUMNS or table != "observation":
            made[name] = ["NULL::VARCHAR"]
    elements = []
    for number, (element, spec) in enumerate(entry["concepts"].items()):
        elements.append(Element(element, f"c{number}", "[]" in spec.get("path", ""), bool(spec.get("optional")), spec))
        made[f"c{number}"] = [leaves.of(_concept(leaves, spec))]
        if "reference" in spec:
            made["drug_ref"] = [_reference(leaves, spec)]
    names = ", ".join(f'"{n}"' for n in TABLES[table].names)
    selected = ", ".join(f"{sql} AS {alias}" for sql, alias in leaves.aliases.items())
    wrong = wrong_types(table, entry, elements)
    asked = {True: list[str](), False: list[str]()}  # of the texts of concepts, which come first, and of the other columns
    for condition, _ in wrong:
        asked[bool(re.match(r"(NOT )?starts_with\(c\d", condition))].append(f"coalesce(bool_or({condition}), false)")
    looks = " CROSS JOIN ".join(
        f"(SELECT {', '.join(asked[of])} FROM {source})" for of, source in ((True, "told_texts"), (False, "told")) if asked[of]
    )
    # 0: what the reference points at says it
    numbered = ", ".join(
        f"{'CASE WHEN drug_ref IS NULL THEN ' * ('reference' in e.spec)}nullif(x{e.column[1:]}, -1){' ELSE 0 END' * ('reference' in e.spec)}"
        for e in elements
    )
    more = ", ".join([*(f"x{e.column[1:]}" for e in elements), *["word", "m"] * shared])
    return _Form(
        kind,
        f"SELECT record, x IS NULL AS broken, contains(text, 'null') AS has_null, {selected} FROM (SELECT record, url, text, "
        f"TRY(json_transform(text, {quote(json.dumps(leaves.structure))})) x FROM _rows)",
        Columns.of(made, cells.own_parts(table), m=cells.MONTH.format("t.at")) if shared else Columns.of(made),
        (*(name for name in made if name not in {e.column for e in elements}), *["m"] * shared),
        tuple(elements),
        f"SELECT * FROM {looks}",
        f'INSERT INTO "{table}" ({names}, {more}) SELECT {names}, {numbered}{", word, m" * shared} FROM typed',
        nulls(elements),
        tuple(statement for _, statement in wrong),
    )


def _scalar(leaves: Leaves, name: str, paths: str | list[str]) -> list[str]:
    """Return the ways to a canonical scalar: the first present path, then a stated reason for its absence."""
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        sql = leaves.clean(path)
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
                extension = f"from_json({leaves.at(f'_{path}', 'JSON')}, {quote(json.dumps({'extension': _REASON}))}).extension"
                found.append(f"CASE WHEN {extension} IS NOT NULL THEN absent(why({extension})) END")
    return found


def _excluded(leaves: Leaves, entry: dict[str, Any]) -> str:
    """Return the SQL of the reason why a record is in no denominator."""

    def among(text: str, shape: Any, codings: str, code: str) -> str:  # parsed only where the code is in the text
        parsed = f"from_json({text}, {quote(json.dumps(shape))}){codings}"
        return f"CASE WHEN contains({text}, {quote(code)}) THEN len(list_filter({parsed}, lambda k: k.code = {quote(code)})) > 0 ELSE false END"

    cases = [f"WHEN {among(leaves.at('meta.security', 'JSON'), [CODING], '', 'HTEST')} THEN 'test-patient'"]
    cases.append(f"WHEN {leaves.at('status')} = 'entered-in-error' THEN 'entered-in-error'")
    if "excluded_by" in entry:
        for code in ("entered-in-error", "refuted"):
            cases.append(f"WHEN {among(leaves.at('verificationStatus', 'JSON'), CONCEPT, '.coding', code)} THEN '{code}'")
    return f"CASE {' '.join(cases)} END"


def _concept(leaves: Leaves, spec: dict[str, Any]) -> str:
    """Return the SQL, over ``x``, of the JSON text of a concept, or of a list of them for a repeating element."""
    structure = leaves.structure
    if "coding" in spec:
        sql = leaves.sql(spec["coding"], "JSON")
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
    sql = f"{leaves.sql(path.removesuffix('[]'), 'JSON')}::VARCHAR"
    if "reference" not in spec:
        return sql
    reference = leaves.sql(spec["reference"])
    structure["contained"] = [{"id": "VARCHAR", "code": "JSON"}]
    inner = f"list_extract(list_transform(list_filter(x.contained, lambda e: '#' || e.id = {reference}), lambda e: e.code), 1)::VARCHAR"
    return f"CASE WHEN {sql} IS NULL AND starts_with({reference}, '#') THEN {inner} ELSE {sql} END"


def _reference(leaves: Leaves, spec: dict[str, Any]) -> str:
    """Return the SQL of a reference that stands for the concept; it is resolved when everything is read."""
    concept, reference = leaves.at(spec["path"], "JSON"), leaves.at(spec["reference"])
    return f"CASE WHEN {concept} IS NULL AND NOT starts_with({reference}, '#') THEN ref({reference}) END"


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
