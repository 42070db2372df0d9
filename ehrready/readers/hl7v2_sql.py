"""SQL of the HL7v2 reader, generated from mappings/hl7v2.yaml.

A segment is split into fields once, and only the fields that are mapped are split further.  Rows of a block go
to the canonical tables at once; patients and encounters, which many messages describe, wait in staging tables
until every file is read, so that the order of files cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from ehrready.engines.duckdb import quote
from ehrready.readers.arrays import batched
from ehrready.readers.hl7v2_mapping import CONTEXT, Place, alternatives, places, scalars, sources, used
from ehrready.readers.hl7v2_split import ESCAPED
from ehrready.tables import ALL, POSITION_BITS

#: ``record`` is the message's number in its file and, in its last bits, the segment's place in the message: a
#: message has many rows of a table, and what belongs to one row is found by ``record``.
PLACE_BITS = 15

_TIMES = frozenset({"at", "end", "birth_date", "death_date", "recorded_at"})
_KNOWN = ("record", "patient_id", "encounter_id", "site", "ts", "message")
_VALUES = ("value_kind", "value_number", "value_text", "comparator", "unit", "unit_code", "range_low", "range_high", "value_declared")
#: Identifier, text, system and version of the three codings of a CWE (v2.8.2 chapter 2.A.14).
_CODINGS = ((1, 2, 3, 7), (4, 5, 6, 8), (10, 11, 12, 13))
_NUMBER = r"[+-]?[0-9]*\.?[0-9]+"
_PAIR = rf"^({_NUMBER})\s*-\s*({_NUMBER})(?:\s.*)?$"
_LIMIT = rf"=?\s*({_NUMBER})(?:\s.*)?$"
_OTHER_LENGTH = 64  # characters kept of a value of a type that is not read (an embedded document may be megabytes)

#: hl7_first: the first repetition.  hl7_part: the first component (or subcomponent).  hl7_blank: a field of
#: separators only is NULL.  hl7_id: the HL7 null is no identifier.  hl7_number: a finite number, else NULL.
_MACROS = """
CREATE OR REPLACE TEMP MACRO hl7_first(v) AS CASE WHEN contains(v, '~') THEN split_part(v, '~', 1) ELSE v END;
CREATE OR REPLACE TEMP MACRO hl7_part(v, s) AS CASE WHEN contains(v, s) THEN split_part(v, s, 1) ELSE v END;
CREATE OR REPLACE TEMP MACRO hl7_blank(v) AS CASE WHEN trim(v, ' ^&~') <> '' THEN v END;
CREATE OR REPLACE TEMP MACRO hl7_id(v) AS nullif(v, '""');
CREATE OR REPLACE TEMP MACRO hl7_number(v) AS CASE WHEN NOT contains(v, '_') AND isfinite(try_cast(v AS DOUBLE))
    THEN try_cast(v AS DOUBLE) END;
"""


class Layers:
    """A SELECT built in layers, each of which may use the columns of those below: no expression is written twice."""

    def __init__(self, source: str, escapes: str) -> None:
        self.sql = source
        self.escapes = escapes

    def add(self, columns: Mapping[str, str]) -> None:
        """Put a layer of further columns on top."""
        if columns:
            self.sql = f"SELECT *, {', '.join(f'{sql} AS {name}' for name, sql in columns.items())} FROM ({self.sql})"

    def texts(self, places: Iterable[Place]) -> None:
        """Put the texts of places on top (``Place.text``); their fields are columns already."""
        chosen = {place.text: place for place in places}
        self.add({f"raw_{name}": place.part for name, place in chosen.items()})
        self.add({name: f"clean({unescaped(f'raw_{name}', self.escapes)})" for name in chosen})


def unescaped(sql: str, escapes: str) -> str:
    """Return the SQL of a text with what its escapes stand for (``hl7v2_split.ESCAPED``)."""
    for mark in escapes:
        sql = f"replace({sql}, chr({ord(mark)}), {quote(ESCAPED[mark])})"
    return sql


def prepare(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any]) -> None:
    """Create the macros and clear the staging tables of an earlier reading."""
    con.execute(_MACROS)
    for table, entry in sources(mapping):
        if "key" in entry:
            con.execute(f"DROP TABLE IF EXISTS _hl7_all_{table}")


def extract(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], tables: Mapping[str, pa.Table], escapes: str) -> None:
    """Move the segments of a block into the canonical and staging tables.

    ``tables`` has a table per segment of the mapping (record, message, gid, no, up_SEG, segment), ``group``
    (gid, message, pgid: the group whose PID counts) and ``repaired`` (message); ``escapes`` are those it has.
    """
    for name, table in tables.items():
        con.register(f"_hl7_{name}", table)
    _context(con, mapping["context"], escapes)
    con.execute(
        "INSERT INTO types SELECT 'hl7v2', CASE WHEN regexp_full_match(kind, '[A-Z0-9]{3}[_^][A-Z0-9]{3}') THEN kind "
        "ELSE 'other' END t, count(*) FROM (SELECT code || coalesce('^' || event, '') AS kind FROM _hl7_header) GROUP BY t"
    )
    con.execute(f"INSERT INTO profiled SELECT record >> {POSITION_BITS}, count(*) FROM _hl7_MSH GROUP BY 1")
    if len(tables["repaired"]):
        con.execute(
            "INSERT INTO defect SELECT 'message.charset', s.record, c.patient_id, 'charset' FROM _hl7_repaired r "
            "JOIN _hl7_MSH s USING (message) JOIN _hl7_ctx c ON c.gid = s.gid"
        )
    con.execute(_CWE)
    for table, entry in sources(mapping):
        if not len(tables[entry["segment"]]):
            continue
        rows = _rows(mapping, entry, escapes)
        if "key" not in entry:
            con.register("_hl7_typed", batched(con.sql(rows).to_arrow_table()))  # scanned by all threads, unlike a small table
            _write(con, table, entry)
            con.unregister("_hl7_typed")
        elif _exists(con, table):
            con.execute(f"INSERT INTO _hl7_all_{table} {rows}")
        else:
            con.execute(f"CREATE TEMP TABLE _hl7_all_{table} AS {rows}")
    _concepts(con, mapping, escapes)
    for name in tables:
        con.unregister(f"_hl7_{name}")


def meets(mapping: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return staging table to the key of its rows; a message without the key is a row of its own."""
    key = {"patient": "patient_id", "visit": "encounter_id"}
    return {
        f"_hl7_all_{table}": (f"coalesce({key[entry['key']]}, message::VARCHAR)",) for table, entry in sources(mapping) if "key" in entry
    }


def _exists(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    found = con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [f"_hl7_all_{table}"]).fetchone()
    return found is not None


def finish(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any]) -> None:
    """Reduce the staged patients and encounters to one row each and write them."""
    con.execute(_CWE)
    for table, entry in sources(mapping):
        if "key" not in entry or not _exists(con, table):
            continue
        names = [name for (name, *_) in con.execute(f"DESCRIBE _hl7_all_{table}").fetchall() if name not in _KNOWN]
        # the greatest (time, value) of the values there are; a message without the key is a row of its own
        latest = [f'substr(m_{i}, strpos(m_{i}, chr(1)) + 1) AS "{name}"' for i, name in enumerate(["site", *names])]
        greatest = [f'max(ts || chr(1) || "{name}") AS m_{i}' for i, name in enumerate(["site", *names])]
        key = "patient_id" if entry["key"] == "patient" else "encounter_id"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hl7_typed AS SELECT record, patient_id, encounter_id, {', '.join(latest)} FROM ("
            f"SELECT min(record) AS record, patient_id, encounter_id, {', '.join(greatest)} FROM _hl7_all_{table} "
            f"GROUP BY patient_id, encounter_id, CASE WHEN {key} IS NULL THEN message END)"
        )
        _write(con, table, entry)
        con.execute(f"DROP TABLE _hl7_all_{table}")
    _concepts(con, mapping, "".join(ESCAPED))


def _fields(source: str, places: Iterable[Place], columns: str = "*") -> str:
    """Return a SELECT of the first repetition of each place's field, of segments split into fields."""
    chosen = {place.name: place.whole for place in places}
    picked = ", ".join(f"hl7_first({whole}) AS {name}" for name, whole in sorted(chosen.items()))
    return f"SELECT {columns}, {picked} FROM (SELECT *, string_split(segment, '|') AS f FROM {source})"


def _context(con: duckdb.DuckDBPyConnection, context: dict[str, Any], escapes: str) -> None:
    """Make ``_hl7_header`` (a row per message) and ``_hl7_ctx``: per PID and what follows it, whose record it is."""
    place = {name: places(found) for name, found in context.items()}
    columns: dict[str, str] = {}
    for segment in CONTEXT:
        wanted = [p for found in place.values() for p in found if p.segment == segment]
        layers = Layers(_fields(f"_hl7_{segment}", wanted), escapes)
        layers.texts(wanted)
        columns[segment] = layers.sql
    text = {name: found[0].text for name, found in place.items()}
    con.execute(
        "CREATE OR REPLACE TEMP TABLE _hl7_header AS SELECT message, "
        f"coalesce({', '.join(f'hl7_id({p.text})' for p in place['site'])}) AS site, coalesce({text['time']}, '') AS ts, "
        rf"{text['code']} AS code, {text['event']} AS event, regexp_matches({text['version']}, '^2(\.[012])?$') AS early "
        f"FROM ({columns['MSH']});"
        "CREATE OR REPLACE TEMP TABLE _hl7_ctx AS SELECT g.gid, g.message, m.site, m.ts, split_part(m.code, '_', 1) AS code, "
        "coalesce(p.id || coalesce('^^^' || p.authority, ''), CASE WHEN m.early THEN p.former END) AS patient_id, "
        "v.visit AS encounter_id FROM _hl7_group g JOIN _hl7_header m USING (message) LEFT JOIN ("
        f"SELECT gid, hl7_id({text['patient']}) AS id, hl7_id({text['authority']}) AS authority, "
        f"hl7_id({text['patient_before_2_3']}) AS former FROM ({columns['PID']})) p ON p.gid = g.pgid LEFT JOIN ("
        f"SELECT gid, arg_min(visit, record) AS visit FROM (SELECT gid, record, hl7_id({text['visit']}) AS visit "
        f"FROM ({columns['PV1']})) GROUP BY gid) v ON v.gid = g.pgid"
    )


def _rows(mapping: dict[str, Any], entry: dict[str, Any], escapes: str) -> str:
    """Return the SELECT of an entry: known columns, canonical columns, and r0, t0, r1 ... of its concepts."""
    segment, found, texts = entry["segment"], used(entry), scalars(entry)
    keyed = entry.get("key")
    visit = Place.of(mapping["context"]["visit"])
    if keyed == "visit":  # its own, should a group have several
        found, texts = [*found, visit], [*texts, visit]
    repeated = {f"all_{i}": Place.of(c["cwe"]).whole for i, c in enumerate(entry["concepts"].values()) if c.get("repeats")}
    own = _fields(f"_hl7_{segment}", (p for p in found if p.segment == segment), ", ".join(["*", *_named(repeated)]))
    joined, joins = "", ""
    for other in sorted({p.segment for p in found} - {segment}):
        foreign = [p for p in found if p.segment == other]
        joined += "".join(f", p_{other}.{name}" for name in sorted({p.name for p in foreign}))
        joins += f" LEFT JOIN ({_fields(f'_hl7_{other}', foreign, 'gid, no')}) p_{other} ON p_{other}.no = s.up_{other} AND p_{other}.gid = s.gid"
    where = [
        f"c.code = {quote(entry['message'])}" if "message" in entry else "",
        f"c.code IS DISTINCT FROM {quote(entry['not_message'])}" if "not_message" in entry else "",
        f"c.message NOT IN (SELECT message FROM _hl7_{entry['unless']})" if "unless" in entry else "",
    ]
    layers = Layers(
        f"SELECT s.* EXCLUDE (message, f, segment), s.record >> {PLACE_BITS} AS message, c.patient_id, c.encounter_id, c.site, c.ts{joined} "
        f"FROM ({own}) s JOIN _hl7_ctx c USING (gid){joins} WHERE {' AND '.join(filter(None, where)) or 'true'}",
        escapes,
    )
    layers.texts(texts)
    selected = {name: name for name in _KNOWN}
    if keyed:
        selected["encounter_id"] = f"hl7_id({visit.text})" if keyed == "visit" else "NULL::VARCHAR"
    for name, column in entry["columns"].items():
        selected[f'"{name}"'] = _column(mapping, name, column)
    for number, concept in enumerate(entry["concepts"].values()):
        raws = [_raw(one) for one in alternatives(concept)]
        selected[f"r{number}"] = f"all_{number}" if concept.get("repeats") else f"coalesce({', '.join(raws)})"
        if "text" in concept:
            selected[f"t{number}"] = Place.of(concept["text"]).text
    if value := entry.get("value"):
        selected |= _value(mapping, value, layers)
        selected[f"r{len(entry['concepts'])}"] = "CASE WHEN value_kind = 'coded' THEN value_data END"
    return f"SELECT {', '.join(_named(selected))} FROM ({layers.sql})"


def _named(columns: Mapping[str, str]) -> list[str]:
    return [f"{sql} AS {name}" for name, sql in columns.items()]


def _column(mapping: dict[str, Any], name: str, found: Any) -> str:
    """Return the SQL of a canonical scalar."""
    sql = f"coalesce({', '.join(place.text for place in places(found))})"
    if isinstance(found, dict) and "map" in found:
        cases = " ".join(f"WHEN {quote(a)} THEN {quote(b)}" for a, b in mapping["maps"][found["map"]].items())
        return f"CASE {sql} {cases}{'' if found.get('only') else f' ELSE {sql}'} END"
    return f"hl7_iso({sql})" if name in _TIMES else sql


def _raw(concept: dict[str, Any]) -> str:
    """Return the SQL of a CWE as the message has it, with the system of codes that can only be of one table."""
    name = Place.of(concept["cwe"]).name
    return _in_system(f"hl7_blank({name})", concept["system"]) if "system" in concept else f"hl7_blank({name})"


def _in_system(raw: str, system: str) -> str:
    return (
        f"CASE length({raw}) - length(replace({raw}, '^', '')) WHEN 0 THEN {raw} || {quote('^^' + system)} "
        f"WHEN 1 THEN {raw} || {quote('^' + system)} ELSE {raw} END"
    )


def _value(mapping: dict[str, Any], value: dict[str, Any], layers: Layers) -> dict[str, str]:
    """Return the value columns of an observation (OBX-2, -5, -6, -7), over layers added for them."""
    kinds = {name: f"({', '.join(map(quote, types))})" for name, types in mapping["value_types"].items()}
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
    layers.add({"value_number": "hl7_number(figure)", "value_plain": f"clean({unescaped('value_data', layers.escapes)})"})
    texts = [f"clean({unescaped(f'value_parts[{i}]', layers.escapes)})" for i in (9, 2, 1)]
    layers.add(
        {
            "value_kind": f"CASE WHEN value_data IS NULL THEN NULL WHEN value_number IS NOT NULL THEN 'number' WHEN {null} THEN 'text' "
            f"WHEN value_type IN {kinds['coded']} THEN 'coded' WHEN value_type IN {kinds['text']} OR value_type IN {kinds['number']} "
            f"OR value_type IN {kinds['structured']} OR value_type = '' THEN 'text' "
            f"WHEN value_type IN {kinds['time']} THEN 'time' ELSE 'other' END",
            "value_parts": f"CASE WHEN value_type IN {kinds['coded']} THEN string_split(value_data, '^') END",
        }
    )

    def bound(number: int, sign: str) -> str:
        pair = f"regexp_extract(reach, {quote(_PAIR)}, {number})"
        single = f"regexp_extract(reach, {quote(sign + _LIMIT)}, 1)"
        return f"CASE WHEN reach IS NOT NULL THEN hl7_number(CASE WHEN starts_with(reach, '{sign}') THEN {single} ELSE {pair} END) END"

    return {
        "value_kind": "value_kind",
        "value_number": "value_number",
        "value_text": f"CASE value_kind WHEN 'number' THEN NULL WHEN 'coded' THEN coalesce({', '.join(texts)}) "
        f"WHEN 'other' THEN left(value_plain, {_OTHER_LENGTH}) ELSE CASE WHEN sn IS NOT NULL THEN replace(value_plain, '^', '') "
        "ELSE value_plain END END",
        "comparator": "CASE WHEN value_number IS NOT NULL AND len(sn) > 1 THEN nullif(nullif(sn[1 + sn_shift], ''), '=') END",
        "unit": f"coalesce({unit_text}, {second})",
        "unit_code": f"CASE WHEN {system} IN ('UCUM', 'ISO+') THEN {unit_text} END",
        "range_low": bound(1, ">"),
        "range_high": bound(2, "<"),
        "value_declared": f"CASE WHEN value_kind = 'text' AND value_type IN {kinds['number']} THEN 'declared' "
        f"WHEN value_kind = 'text' AND value_type IN {kinds['structured']} THEN 'structured' END",
    }


_CWE = (
    "CREATE OR REPLACE TEMP TABLE _hl7_cwe (element VARCHAR, record BIGINT, patient_id VARCHAR, encounter_id VARCHAR, "
    'site VARCHAR, "at" VARCHAR, ordinal INTEGER, r VARCHAR, t VARCHAR)'
)


def _write(con: duckdb.DuckDBPyConnection, table: str, entry: dict[str, Any]) -> None:
    """Insert the rows of ``_hl7_typed`` into the table, and their raw concepts into ``_hl7_cwe``."""
    columns = {name: f'"{name}"' for name in ("record", "patient_id", "encounter_id", "site", *entry["columns"])}
    columns["source_type"] = quote(entry["segment"])
    if keyed := entry.get("key"):
        columns["id"] = "patient_id" if keyed == "patient" else "encounter_id"
    concepts = dict(entry["concepts"])
    if value := entry.get("value"):
        concepts[value["element"]] = {"optional": True}
        columns |= {name: name for name in _VALUES}
    _insert(con, table, columns, "_hl7_typed")
    known = "record, patient_id, encounter_id, site, " + ('"at"' if "at" in entry["columns"] else "NULL")
    rows = []
    for number, (element, concept) in enumerate(concepts.items()):
        text = f"t{number}" if "text" in concept else "NULL"
        raw, ordinal, source = f"r{number}", "1", "_hl7_typed"
        if concept.get("repeats"):
            source = (
                f"(SELECT *, unnest(string_split(r{number}, '~')) AS r, generate_subscripts(string_split(r{number}, '~'), 1) AS i "
                f"FROM _hl7_typed WHERE r{number} <> '')"
            )
            raw, ordinal = (_in_system("r", concept["system"]) if "system" in concept else "r"), "i"
        wanted = ["excluded IS NULL"] if "excluded" in entry["columns"] else []
        if concept.get("optional"):
            wanted.append(f"hl7_blank({'r' if concept.get('repeats') else raw}) IS NOT NULL")
        rows.append(
            f"SELECT {quote(element)}, {known}, {ordinal}, coalesce({raw}, ''), {text} FROM {source} WHERE {' AND '.join(wanted) or 'true'}"
        )
    con.execute(f"INSERT INTO _hl7_cwe {' UNION ALL '.join(rows)}")


def _concepts(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], escapes: str) -> None:
    """Write the concepts and codings of ``_hl7_cwe``; the same CWE stands in many messages and is split once."""
    widest = con.execute("SELECT coalesce(max(length(r) - length(replace(r, '^', ''))), 0) + 1 FROM _hl7_cwe").fetchone()
    width = widest[0] if widest else 1
    codings = [coding for coding in _CODINGS if coding[0] <= width]
    layers = Layers("SELECT r, string_split(r, '^') AS c FROM (SELECT DISTINCT r FROM _hl7_cwe)", escapes)
    nulls = f"({', '.join(map(quote, mapping['null_systems']))})"
    parts = sorted({part for coding in codings for part in coding} | {2, 3, 5, 9})
    codes = {code for code, *_ in codings}
    layers.add({f"c{i}": unescaped(f"c[{i}]", escapes) if i <= width else "NULL::VARCHAR" for i in parts})
    layers.add({f"s{i}": f"clean(c{i})" for i in parts if i not in codes})
    layers.add({f"has_{code}": f"coalesce(trim(c{code}) <> '' AND coalesce(s{s}, '') NOT IN {nulls}, false)" for code, _, s, _ in codings})
    layers.add({f"token_{code}": f"has_{code} AND null_token(c{code})" for code in sorted(codes)})
    con.execute(f"CREATE OR REPLACE TEMP TABLE _hl7_split AS SELECT * EXCLUDE (c) FROM ({layers.sql})")
    tokens = [f"CASE WHEN token_{code} THEN clean(c{code}) END" for code, *_ in codings]
    texts = ["s9", f"CASE WHEN coalesce(s3, '') NOT IN {nulls} THEN s2 END", "s5"]
    names = {name: f'"{name}"' for name in ("element", "record", "ordinal", "patient_id", "encounter_id", "site", "at")}
    own = {
        "text": f"coalesce({', '.join([*texts, 't', *tokens])})",
        "n_codings": " + ".join(f"(has_{code} AND NOT token_{code})::INTEGER" for code, *_ in codings),
        "absent_reason": f"CASE WHEN s3 IN {nulls} THEN CASE lower(trim(c1)) WHEN 'msk' THEN 'masked' ELSE lower(trim(c1)) END END",
    }
    _insert(con, "concept", names | own, "_hl7_cwe JOIN _hl7_split USING (r)")
    position, rows = "1", []
    for code, text, system, version in codings:
        rows.append(
            f'SELECT r, {position} AS "position", s{system} AS "system", s{version} AS version, c{code} AS code, '
            f"s{text} AS display FROM _hl7_split WHERE has_{code}"
        )
        position += f" + has_{code}::INTEGER"
    names |= {name: f'"{name}"' for name in ("position", "system", "version", "code", "display")}
    names["concept"] = "ordinal"
    _insert(con, "coding", names, f"_hl7_cwe JOIN ({' UNION ALL '.join(rows)}) USING (r)")


def _quoted(names: Iterable[str]) -> Iterator[str]:
    return (f'"{name}"' for name in names)


def _insert(con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], source: str) -> None:
    """Insert the columns that the canonical table has; the others of the table stay NULL."""
    names = [name for name in ALL[table].names if name in columns]
    values = ", ".join(columns[name] for name in names)
    con.execute(f'INSERT INTO "{table}" ({", ".join(_quoted(names))}) SELECT {values} FROM {source}')
