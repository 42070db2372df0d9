"""SQL of the HL7v2 reader, generated from mappings/hl7v2.yaml.

The leaves of a segment are its mapped fields, those of the segments it looks back to, and what its message says of it: patient, visit,
site.  Columns are SQL over these leaves, computed once per different value (ehrready.readers.leaves).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ehrready import cells
from ehrready.engines.duckdb import quote
from ehrready.readers.hl7v2_concepts import BESIDE, unescaped
from ehrready.readers.hl7v2_mapping import Place, alternatives, mapping, places, scalars, sources, used
from ehrready.readers.leaves import Columns
from ehrready.tables import TABLES

#: ``record`` is the message's number in its file and, in its last bits, the segment's place in the message: a
#: message has many rows of a table, and what belongs to one row is found by ``record``.
PLACE_BITS = 15

_TIMES = frozenset({"at", "end", "birth_date", "death_date", "recorded_at"})
_NUMBER = r"[+-]?[0-9]*\.?[0-9]+"
_PAIR = rf"^({_NUMBER})\s*-\s*({_NUMBER})(?:\s.*)?$"
_LIMIT = rf"=?\s*({_NUMBER})(?:\s.*)?$"
_OTHER_LENGTH = 64  # characters kept of a value of a type that is not read (an embedded document may be megabytes)
#: A field of a segment, or by name what its message says of it.
Leaf = tuple[str, int] | str
#: What a message says of a segment.
CONTEXT_LEAVES = ("patient_id", "encounter_id", "site")

#: hl7_first: the first repetition.  hl7_part: the first component (or subcomponent).  hl7_blank: a field of
#: separators only is NULL.  hl7_id: the HL7 null is no identifier.  hl7_number: a finite number, else NULL.
MACROS = """
CREATE OR REPLACE MACRO hl7_first(v) AS CASE WHEN contains(v, '~') THEN split_part(v, '~', 1) ELSE v END;
CREATE OR REPLACE MACRO hl7_part(v, s) AS CASE WHEN contains(v, s) THEN split_part(v, s, 1) ELSE v END;
CREATE OR REPLACE MACRO hl7_blank(v) AS CASE WHEN trim(v, ' ^&~') <> '' THEN v END;
CREATE OR REPLACE MACRO hl7_id(v) AS nullif(v, '""');
CREATE OR REPLACE MACRO hl7_number(v) AS CASE WHEN NOT contains(v, '_') AND isfinite(try_cast(v AS DOUBLE))
    THEN try_cast(v AS DOUBLE) END;
"""


class _Layers:
    """Columns in layers, each of which may use those below: no expression is written twice.  ``leaves`` are fields by alias."""

    def __init__(self, escapes: str) -> None:
        self.escapes = escapes
        self.leaves: dict[Leaf, str] = {}
        self.layers: list[dict[str, str]] = [{}, {}, {}]

    def leaf(self, what: Place | str) -> str:
        """Return the alias of a place's field with all its repetitions, or of what a message says."""
        key = what if isinstance(what, str) else (what.segment, what.field)
        return self.leaves.setdefault(key, f"l{len(self.leaves)}")

    def fields(self, found: Iterable[Place]) -> None:
        """Add the first repetition of the places' fields (``Place.name``)."""
        self.layers[0] |= {place.name: f"hl7_first({self.leaf(place)})" for place in found}

    def texts(self, found: Iterable[Place]) -> None:
        """Add the texts of places (``Place.text``)."""
        chosen = {place.text: place for place in found}
        self.fields(chosen.values())
        self.layers[1] |= {f"raw_{name}": place.part for name, place in chosen.items()}
        self.layers[2] |= {name: f"clean({unescaped(f'raw_{name}', self.escapes)})" for name in chosen}

    def add(self, columns: Mapping[str, str]) -> None:
        """Put a layer of further columns on top."""
        self.layers.append(dict(columns))


@dataclass(frozen=True, slots=True)
class Form:
    """What is read of a segment: its leaves in the order of their aliases (fields, or what a message says), and its columns.

    ``names`` are those that are written as they are; of the coded ``elements`` (column of numbers to column of text, listed) the numbers.
    """

    table: str
    entry: dict[str, Any]
    leaves: tuple[Leaf, ...]
    columns: Columns
    names: tuple[str, ...]
    elements: tuple[tuple[str, str, bool], ...]
    insert: str


@functools.cache
def header(escapes: str) -> Form:
    """Return what a message header says: site, time, code and type of the message, whether it is of a version before 2.3."""
    found = {name: places(place) for name, place in mapping()["context"].items()}
    layers = _Layers(escapes)
    layers.texts(place for name in ("site", "time", "code", "event", "version") for place in found[name])
    code, event = found["code"][0].text, found["event"][0].text
    kind = f"{code} || coalesce('^' || {event}, '')"
    columns = {
        "site": [f"coalesce({', '.join(f'hl7_id({place.text})' for place in found['site'])})"],
        "ts": [found["time"][0].text],
        "code": [f"split_part({code}, '_', 1)"],
        "kind": [f"CASE WHEN regexp_full_match({kind}, '[A-Z0-9]{{3}}[_^][A-Z0-9]{{3}}') THEN {kind} ELSE 'other' END"],
        "early": [rf"CASE WHEN regexp_matches({found['version'][0].text}, '^2(\.[012])?$') THEN 'y' END"],
    }
    return Form("", {}, tuple(layers.leaves), Columns.of(columns, layers=layers.layers), (), (), "")


def entries() -> list[tuple[str, dict[str, Any]]]:
    """Return (table, entry) of the rows that a block writes: all but patients and visits, which wait."""
    return [(table, entry) for table, entry in sources(mapping()) if "key" not in entry]


def people() -> list[tuple[str, dict[str, Any]]]:
    """Return (table, entry) of patients and visits."""
    return [(table, entry) for table, entry in sources(mapping()) if "key" in entry]


@functools.cache
def person(number: int, escapes: str) -> Form:
    """Return what the segment of ``people`` says of a patient or visit, and whose it is (``patient_id`` or ``encounter_id``)."""
    table, entry = people()[number]
    place = {name: places(found)[0] for name, found in mapping()["context"].items()}
    layers = _Layers(escapes)
    if entry["key"] == "patient":
        layers.texts(place[name] for name in ("patient", "authority", "patient_before_2_3"))
        authority = f"coalesce('^^^' || hl7_id({place['authority'].text}), '')"
        former = f"CASE WHEN {layers.leaf('early')} = 'y' THEN hl7_id({place['patient_before_2_3'].text}) END"
        made = {"patient_id": [f"hl7_id({place['patient'].text}) || {authority}", former]}
    else:
        layers.texts([place["visit"]])
        made = {"encounter_id": [f"hl7_id({place['visit'].text})"]}
    own, elements = _columns(entry, layers)
    names = (*entry["columns"], *(f"r{i}" for i in range(len(elements))))
    state = cells.standing(f"t.{next(iter(made))}")  # of the reference, as the records have it
    made |= own | {f"r{i}": [sql] for i, (sql, _) in enumerate(elements)}
    return Form(table, entry, tuple(layers.leaves), Columns.of(made, layers=layers.layers, standing=state), names, (), "")


@functools.cache
def form(number: int, escapes: str, shared: bool) -> Form:
    """Return the columns of one of ``entries``; ``shared``: with its states and its month as numbers (ehrready.cells)."""
    table, entry = entries()[number]
    layers = _Layers(escapes)
    made = {name: [layers.leaf(name)] for name in CONTEXT_LEAVES}
    own, texts = _columns(entry, layers)
    made |= own
    names = [*CONTEXT_LEAVES, *entry["columns"]]
    if value := entry.get("value"):
        said = _value(value, layers)
        made |= {name: [sql] for name, sql in said.items()}
        names += said
        texts.append(("CASE WHEN value_kind_of = 'coded' THEN value_data END", False))
    if shared:
        made |= {name: ["NULL::VARCHAR"] for name in TABLES[table].names[2:] if name not in made}
    made |= {f"c{i}": [sql] for i, (sql, _) in enumerate(texts)}
    elements = tuple((f"x{i}", f"c{i}", listed) for i, (_, listed) in enumerate(texts))
    more = {"m": cells.MONTH.format("t.at")} if shared else {}
    columns = Columns.of(made, cells.own_parts(table, references=False) if shared else (), layers.layers, **more)
    written = ", ".join(f'"{name}"' for name in ["record", *names, *more])
    numbers = ", ".join(x for x, *_ in elements)
    given = ", ".join(f"nullif({x}, -1)" for x, *_ in elements)
    word = ", word" * shared
    insert = f'INSERT INTO "{table}" ({written}, source_type, {numbers}{word}) SELECT {written}, {quote(entry["segment"])}, {given}{word} FROM typed'
    return Form(table, entry, tuple(layers.leaves), columns, (*names, *more), elements, insert)


def _columns(entry: dict[str, Any], layers: _Layers) -> tuple[dict[str, list[str]], list[tuple[str, bool]]]:
    """Return the canonical scalars of an entry by name, and the texts of its coded elements with whether they are lists."""
    layers.texts(scalars(entry))
    layers.fields(place for place in used(entry) if place.name not in layers.layers[0])
    columns = {name: [_column(column)] for name, column in entry["columns"].items()}
    # a macro is planned anew wherever its argument stands in it: what goes into one that is not short is a column of its own
    times = _TIMES & columns.keys()
    layers.add({f"time_{name}": columns[name][0] for name in sorted(times)})
    layers.add({f"digits_{name}": f"hl7_digits(time_{name})" for name in sorted(times)})
    columns |= {name: [f"coalesce(_digits_iso(digits_{name}), time_{name})"] for name in times}
    fields = {Place.of(one["cwe"]).name for concept in entry["concepts"].values() for one in alternatives(concept)}
    layers.add({f"cwe_{name}": f"hl7_blank({name})" for name in sorted(fields)})
    concepts = []
    for concept in entry["concepts"].values():
        if concept.get("repeats"):
            whole = layers.leaf(Place.of(concept["cwe"]))
            each = _in_system("v", concept["system"]) if "system" in concept else "v"
            parts = f"list_transform(string_split({whole}, '~'), lambda v: CASE WHEN trim(v, ' ^&~') <> '' THEN {each} ELSE '' END)"
            concepts.append((f"CASE WHEN hl7_blank({whole}) IS NOT NULL THEN array_to_string({parts}, '~') END", True))
            continue
        sql = f"coalesce({', '.join(_raw(one) for one in alternatives(concept))})"
        if "text" in concept:
            sql = f"nullif(coalesce({sql}, '') || coalesce({BESIDE} || {Place.of(concept['text']).text}, ''), '')"
        concepts.append((sql, False))
    return columns, concepts


def _column(found: Any) -> str:
    """Return the SQL of a canonical scalar."""
    sql = f"coalesce({', '.join(place.text for place in places(found))})"
    if isinstance(found, dict) and "map" in found:
        cases = " ".join(f"WHEN {quote(a)} THEN {quote(b)}" for a, b in mapping()["maps"][found["map"]].items())
        return f"CASE {sql} {cases}{'' if found.get('only') else f' ELSE {sql}'} END"
    return sql


def _raw(concept: dict[str, Any]) -> str:
    """Return the SQL of a CWE as the message has it, with the system of codes that can only be of one table."""
    name = f"cwe_{Place.of(concept['cwe']).name}"
    return _in_system(name, concept["system"]) if "system" in concept else name


def _in_system(raw: str, system: str) -> str:
    return (
        f"CASE length({raw}) - length(replace({raw}, '^', '')) WHEN 0 THEN {raw} || {quote('^^' + system)} "
        f"WHEN 1 THEN {raw} || {quote('^' + system)} ELSE {raw} END"
    )


def _value(value: dict[str, Any], layers: _Layers) -> dict[str, str]:
    """Return the value columns of an observation (OBX-2, -5, -6, -7), over layers added for them."""
    kinds = {name: f"({', '.join(map(quote, types))})" for name, types in mapping()["value_types"].items()}
    unit = Place.of(value["unit"])
    unit_text, second, system = (unit._replace(component=i).text for i in (1, 2, 3))
    signs = "('', '<', '>', '<=', '>=', '=', '<>')"
    null = "trim(value_data) = '\"\"'"
    layers.add(
        {
            "value_type": f"coalesce(upper({Place.of(value['type']).text}), '')",
            "value_data": f"hl7_blank({Place.of(value['data']).name})",
            "reach": Place.of(value["range"]).text,
        }
    )
    # SN: comparator, number, separator, second number: a range or ratio is no number (v2.8.2 chapter 2.A.70)
    structured = f"CASE WHEN value_type IN {kinds['structured']} THEN string_split(value_data, '^') END"
    layers.add({"sn": f"list_transform({structured}, lambda part: trim(part))"})
    layers.add({"sn_shift": f"(len(sn) > 1 AND sn[1] = '' AND sn[2] IN {signs} AND sn[2] <> '')::INTEGER"})
    layers.add(
        {
            "figure": f"CASE WHEN value_type IN {kinds['number']} THEN value_data WHEN len(sn) = 1 THEN sn[1] "
            f"WHEN sn[1 + sn_shift] IN {signs} AND coalesce(sn[3 + sn_shift], '') = '' AND coalesce(sn[4], '') = '' THEN sn[2 + sn_shift] END"
        }
    )
    layers.add({"value_figure": "hl7_number(figure)", "value_plain": f"clean({unescaped('value_data', layers.escapes)})"})
    texts = [f"clean({unescaped(f'value_parts[{i}]', layers.escapes)})" for i in (9, 2, 1)]
    layers.add(
        {
            "value_kind_of": f"CASE WHEN value_data IS NULL THEN NULL WHEN value_figure IS NOT NULL THEN 'number' WHEN {null} THEN 'text' "
            f"WHEN value_type IN {kinds['coded']} THEN 'coded' WHEN value_type IN {kinds['text']} OR value_type IN {kinds['number']} "
            f"OR value_type IN {kinds['structured']} OR value_type = '' THEN 'text' "
            f"WHEN value_type IN {kinds['time']} THEN 'time' ELSE 'other' END",
            "value_parts": f"CASE WHEN value_type IN {kinds['coded']} THEN string_split(value_data, '^') END",
        }
    )

    def bound(number: int, sign: str) -> str:
        pair = f"regexp_extract(reach, {quote(_PAIR)}, {number})"
        single = f"regexp_extract(reach, {quote(sign + _LIMIT)}, 1)"
        return f"CASE WHEN reach IS NOT NULL THEN CASE WHEN starts_with(reach, '{sign}') THEN {single} ELSE {pair} END END"

    layers.add({"reach_low": bound(1, ">"), "reach_high": bound(2, "<")})
    return {
        "value_kind": "value_kind_of",
        "value_number": "value_figure",
        "value_text": f"CASE value_kind_of WHEN 'number' THEN NULL WHEN 'coded' THEN coalesce({', '.join(texts)}) "
        f"WHEN 'other' THEN left(value_plain, {_OTHER_LENGTH}) ELSE CASE WHEN sn IS NOT NULL THEN replace(value_plain, '^', '') "
        "ELSE value_plain END END",
        "comparator": "CASE WHEN value_figure IS NOT NULL AND len(sn) > 1 THEN nullif(nullif(sn[1 + sn_shift], ''), '=') END",
        "unit": f"coalesce({unit_text}, {second})",
        "unit_code": f"CASE WHEN {system} IN ('UCUM', 'ISO+') THEN {unit_text} END",
        "range_low": "hl7_number(reach_low)",
        "range_high": "hl7_number(reach_high)",
        "value_declared": f"CASE WHEN value_kind_of = 'text' AND value_type IN {kinds['number']} THEN 'declared' "
        f"WHEN value_kind_of = 'text' AND value_type IN {kinds['structured']} THEN 'structured' END",
    }
