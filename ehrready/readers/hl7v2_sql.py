"""SQL of the HL7v2 reader, generated from mappings/hl7v2.yaml.

A segment is split into fields once, and only the fields that are mapped are split further.  Rows of a block go
to the canonical tables at once; patients and encounters, which many messages describe, wait in staging tables
until every file is read, so that the order of files cannot matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ehrready.engines.duckdb import quote
from ehrready.tables import CODING, CONCEPT, TABLES

#: ``record`` is the message's number in its file and, in its last bits, the segment's place in the message: a
#: message has many rows of a table, and what belongs to one row is found by ``record``.
PLACE_BITS = 15

#: Segments that say whose message it is: they come as context, not as the last one before a row.
CONTEXT = ("MSH", "PID", "PV1")

_TIMES = frozenset({"at", "end", "birth_date", "death_date", "recorded_at"})
_KNOWN = ("record", "patient_id", "encounter_id", "site", "ts", "message")
_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,3})(?:\.(\d{1,2}))?(?:\.(\d{1,2}))?")
#: Identifier, text, system and version of the three codings of a CWE (v2.8.2 chapter 2.A.14).
_CODINGS = ((1, 2, 3, 7), (4, 5, 6, 8), (10, 11, 12, 13))
_NUMBER = r"[+-]?[0-9]*\.?[0-9]+"
_OTHER_LENGTH = 64  # characters kept of a value of a type that is not read (an embedded document may be megabytes)

#: hl7_escape: escapes resolved (v2.8.2 chapter 2.7) except formatting and hexadecimal ones.  hl7_text: the same,
#: trimmed, empty is NULL.  hl7_first: the first repetition.  hl7_blank: a field of separators only is NULL.
#: hl7_id: text, but the HL7 null is no identifier.  hl7_number: a finite number, else NULL.
_MACROS = r"""
CREATE OR REPLACE TEMP MACRO hl7_escape(v) AS CASE WHEN contains(v, '\') THEN
    replace(replace(replace(replace(replace(replace(replace(replace(
        regexp_replace(v, '\\([FSTREP]|[HN]|\.[^\\]*|[XZCM][0-9A-Za-z]*)\\', e'\x02\\1\x03', 'g'),
        e'\x02F\x03', '|'), e'\x02S\x03', '^'), e'\x02T\x03', '&'), e'\x02R\x03', '~'), e'\x02P\x03', '#'),
        e'\x02E\x03', '\'), e'\x02', '\'), e'\x03', '\') ELSE v END;
CREATE OR REPLACE TEMP MACRO hl7_text(v) AS clean(hl7_escape(v));
CREATE OR REPLACE TEMP MACRO hl7_id(v) AS nullif(hl7_text(v), '""');
CREATE OR REPLACE TEMP MACRO hl7_first(v) AS CASE WHEN contains(v, '~') THEN split_part(v, '~', 1) ELSE v END;
CREATE OR REPLACE TEMP MACRO hl7_blank(v) AS CASE WHEN trim(v, ' ^&~') <> '' THEN v END;
CREATE OR REPLACE TEMP MACRO hl7_number(v) AS CASE WHEN NOT contains(v, '_') AND isfinite(try_cast(v AS DOUBLE))
    THEN try_cast(v AS DOUBLE) END;
"""


class Place(NamedTuple):
    """A place such as ``PID-3.4.1``; component and subcomponent are 0 where it names none."""

    segment: str
    field: int
    component: int = 0
    sub: int = 0

    @classmethod
    def of(cls, text: str) -> Place:
        """Parse a place of the mapping; raises ValueError for anything else."""
        if not (match := _PLACE.fullmatch(text)):
            raise ValueError(f"{text} is no place in a segment, such as PID-3.1")
        return cls(match[1], *(int(part or 0) for part in match.groups()[1:]))

    @property
    def name(self) -> str:
        """The SQL column that holds the first repetition of the field."""
        return f"{self.segment}_{self.field}"

    @property
    def whole(self) -> str:
        """The SQL of the field with all its repetitions, in a row whose list of fields is ``f``."""
        return f"f[{self.field + (self.segment != 'MSH')}]"

    def sql(self, row: str = "") -> str:
        """Return the SQL of the place's text, escapes and all, in a row that has the column ``name``."""
        part = _part(row + self.name, "^", self.component or 1)
        return _part(part, "&", self.sub) if self.sub else part


def _part(value: str, separator: str, number: int) -> str:
    if number > 1:
        return f"split_part({value}, '{separator}', {number})"
    return f"CASE WHEN contains({value}, '{separator}') THEN split_part({value}, '{separator}', 1) ELSE {value} END"


def _places(found: Any) -> list[Place]:
    """Return the places of a column's entry: a place, a list of them, or either under ``take``."""
    if isinstance(found, dict):
        found = found["take"]
    return [Place.of(text) for text in ([found] if isinstance(found, str) else found)]


def _alternatives(concept: dict[str, Any]) -> list[dict[str, Any]]:
    return list(concept.get("any", [concept]))


def sources(mapping: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (table, entry) for every segment that fills a table."""
    return [(table, entry) for table, entries in mapping["tables"].items() for entry in entries]


def _used(entry: dict[str, Any]) -> list[Place]:
    """Return every place an entry reads."""
    found = [place for column in entry["columns"].values() for place in _places(column)]
    for concept in entry["concepts"].values():
        for one in _alternatives(concept):
            found += [Place.of(one[key]) for key in ("cwe", "text") if key in one]
    value = entry.get("value", {})
    return found + [Place.of(value[key]) for key in ("type", "data", "unit", "range") if key in value]


def parents(mapping: dict[str, Any]) -> list[str]:
    """Return the segments that rows of other segments look back to (``OBR`` for OBX)."""
    return sorted({p.segment for _, entry in sources(mapping) for p in _used(entry) if p.segment != entry["segment"]})


def segments(mapping: dict[str, Any]) -> list[str]:
    """Return every segment the mapping reads, the context's included."""
    named = {entry["segment"] for _, entry in sources(mapping)} | {e["unless"] for _, e in sources(mapping) if "unless" in e}
    return sorted(named | set(parents(mapping)) | set(CONTEXT))


def prepare(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any]) -> None:
    """Create the macros and clear the staging tables of an earlier reading."""
    con.execute(_MACROS)
    for table, entry in sources(mapping):
        if "key" in entry:
            con.execute(f"DROP TABLE IF EXISTS _hl7_all_{table}")


def extract(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], tables: Mapping[str, pa.Table]) -> None:
    """Move the segments of a block into the canonical and staging tables.

    ``tables`` has a table per segment of the mapping (record, message, gid, no, up_SEG, segment), ``group``
    (gid, message, pgid: the group whose PID counts) and ``repaired`` (message).
    """
    for name, table in tables.items():
        con.register(f"_hl7_{name}", table)
    con.execute(_context(mapping["context"]))
    con.execute(
        "INSERT INTO types SELECT 'hl7v2', CASE WHEN regexp_full_match(kind, '[A-Z0-9]{3}[_^][A-Z0-9]{3}') THEN kind "
        "ELSE 'other' END t, count(*) FROM (SELECT code || coalesce('^' || event, '') AS kind FROM _hl7_context) GROUP BY t"
    )
    con.execute(
        "INSERT INTO defect SELECT 'message.charset', s.record, c.patient_id, 'charset' FROM _hl7_repaired r "
        "JOIN _hl7_MSH s USING (message) JOIN _hl7_ctx c ON c.gid = s.gid"
    )
    for table, entry in sources(mapping):
        if not len(tables[entry["segment"]]):
            continue
        rows = _rows(mapping, table, entry)
        if "key" not in entry:
            con.execute(f"CREATE OR REPLACE TEMP TABLE _hl7_typed AS {rows}")
            _write(con, mapping, table, entry)
        elif con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [f"_hl7_all_{table}"]).fetchone():
            con.execute(f"INSERT INTO _hl7_all_{table} {rows}")
        else:
            con.execute(f"CREATE TEMP TABLE _hl7_all_{table} AS {rows}")
    for name in tables:
        con.unregister(f"_hl7_{name}")


def finish(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any]) -> None:
    """Reduce the staged patients and encounters to one row each and write them."""
    for table, entry in sources(mapping):
        found = con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [f"_hl7_all_{table}"]).fetchone()
        if "key" not in entry or not found:
            continue
        names = [name for (name, *_) in con.execute(f"DESCRIBE _hl7_all_{table}").fetchall() if name not in _KNOWN]
        # the greatest (time, value) of the values there are; a row of its own without the key
        latest = [f'substr(m_{i}, strpos(m_{i}, chr(1)) + 1) AS "{name}"' for i, name in enumerate(["site", *names])]
        greatest = [f'max(ts || chr(1) || "{name}") AS m_{i}' for i, name in enumerate(["site", *names])]
        key = "patient_id" if entry["key"] == "patient" else "encounter_id"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hl7_typed AS SELECT record, patient_id, encounter_id, {', '.join(latest)} FROM ("
            f"SELECT min(record) AS record, patient_id, encounter_id, {', '.join(greatest)} FROM _hl7_all_{table} "
            f"GROUP BY patient_id, encounter_id, CASE WHEN {key} IS NULL THEN message END)"
        )
        _write(con, mapping, table, entry)
        con.execute(f"DROP TABLE _hl7_all_{table}")


def _context(context: dict[str, Any]) -> str:
    """Return the SQL of ``_hl7_ctx``: per group (a PID and what follows it) whose record it is."""
    place = {name: _places(found) for name, found in context.items()}
    header = [p for name in ("site", "time", "code", "event", "version") for p in place[name]]

    def fields(segment: str, used: Iterable[Place]) -> str:
        picked = ", ".join(sorted({f"hl7_first({p.whole}) AS {p.name}" for p in used}))
        return f"(SELECT record, message, gid, {picked} FROM (SELECT *, string_split(segment, '|') f FROM _hl7_{segment}))"

    person, authority, before = (place[name][0] for name in ("patient", "authority", "patient_before_2_3"))
    code = f"hl7_text({place['code'][0].sql()})"
    return (
        "CREATE OR REPLACE TEMP TABLE _hl7_context AS SELECT message, "
        f"coalesce({', '.join(f'hl7_id({p.sql()})' for p in place['site'])}) AS site, "
        f"coalesce(hl7_text({place['time'][0].sql()}), '') AS ts, {code} AS code, "
        f"hl7_text({place['event'][0].sql()}) AS event, regexp_matches({place['version'][0].sql()}, '^2(\\.[012])?$') AS early "
        f"FROM {fields('MSH', header)};"
        "CREATE OR REPLACE TEMP TABLE _hl7_ctx AS SELECT g.gid, g.message, m.site, m.ts, split_part(m.code, '_', 1) AS code, "
        "coalesce(p.id || coalesce('^^^' || p.authority, ''), CASE WHEN m.early THEN p.former END) AS patient_id, "
        "v.visit AS encounter_id FROM _hl7_group g JOIN _hl7_context m USING (message) LEFT JOIN ("
        f"SELECT gid, hl7_id({person.sql()}) AS id, hl7_id({authority.sql()}) AS authority, hl7_id({before.sql()}) AS former "
        f"FROM {fields('PID', [person, authority, before])}) p ON p.gid = g.pgid LEFT JOIN ("
        f"SELECT gid, arg_min(visit, record) AS visit FROM (SELECT gid, record, hl7_id({place['visit'][0].sql()}) AS visit "
        f"FROM {fields('PV1', place['visit'])}) GROUP BY gid) v ON v.gid = g.pgid"
    )


def _rows(mapping: dict[str, Any], table: str, entry: dict[str, Any]) -> str:
    """Return the SELECT of an entry: known columns, canonical columns, and r0, t0, r1 ... of its concepts."""
    segment, used = entry["segment"], _used(entry)
    own = sorted({p for p in used if p.segment == segment})
    joins, picked = "", [f"hl7_first({p.whole}) AS {p.name}" for p in {p.name: p for p in own}.values()]
    for other in sorted({p.segment for p in used} - {segment}):
        needed = {p.name: p for p in used if p.segment == other}.values()
        fields = ", ".join(f"hl7_first({p.whole}) AS {p.name}" for p in needed)
        joins += (
            f" LEFT JOIN (SELECT gid, no, {fields} FROM (SELECT gid, no, string_split(segment, '|') f FROM _hl7_{other})) "
            f"AS p_{other} ON p_{other}.no = s.up_{other} AND p_{other}.gid = s.gid"
        )
        picked += [f"p_{other}.{p.name}" for p in needed]
    visit = Place.of(mapping["context"]["visit"])
    encounter = "encounter_id"
    if entry.get("key") == "visit":  # its own, should a group have several
        picked.append(f"hl7_first({visit.whole}) AS {visit.name}")
        encounter = f"hl7_id({visit.sql()})"
    elif entry.get("key") == "patient":
        encounter = "NULL::VARCHAR"
    selected = [f"{encounter if name == 'encounter_id' else name} AS {name}" for name in _KNOWN]
    for name in TABLES[table].names:
        if name in entry["columns"]:
            selected.append(f'{_column(mapping, name, entry["columns"][name])} AS "{name}"')
    for number, concept in enumerate(entry["concepts"].values()):
        if concept.get("repeats"):
            place = Place.of(concept["cwe"])
            picked.append(f"{place.whole} AS all_{number}")
            selected.append(f"hl7_blank(all_{number}) AS r{number}")
        else:
            raws = [_raw(one) for one in _alternatives(concept)]
            selected.append(f"{raws[0] if len(raws) == 1 else 'coalesce(' + ', '.join(raws) + ')'} AS r{number}")
        if "text" in concept:
            selected.append(f"hl7_text({Place.of(concept['text']).sql()}) AS t{number}")
    if "value" in entry:
        selected += _value(mapping, entry["value"], len(entry["concepts"]))
    where = []
    if "message" in entry:
        where.append(f"c.code = {quote(entry['message'])}")
    if "not_message" in entry:
        where.append(f"c.code IS DISTINCT FROM {quote(entry['not_message'])}")
    if "unless" in entry:
        where.append(f"c.message NOT IN (SELECT message FROM _hl7_{entry['unless']})")
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    return (
        f"SELECT {', '.join(selected)} FROM (SELECT s.record, c.patient_id, c.encounter_id, c.site, c.ts, "
        f"s.record >> {PLACE_BITS} AS message, {', '.join(picked)} FROM (SELECT *, string_split(segment, '|') f FROM _hl7_{segment}) s "
        f"JOIN _hl7_ctx c USING (gid){joins}{condition})"
    )


def _column(mapping: dict[str, Any], name: str, found: Any) -> str:
    """Return the SQL of a canonical scalar."""
    texts = [f"hl7_text({place.sql()})" for place in _places(found)]
    sql = texts[0] if len(texts) == 1 else f"coalesce({', '.join(texts)})"
    if isinstance(found, dict) and "map" in found:
        cases = " ".join(f"WHEN {quote(a)} THEN {quote(b)}" for a, b in mapping["maps"][found["map"]].items())
        sql = f"CASE {sql} {cases}{'' if found.get('only') else f' ELSE {sql}'} END"
    return f"hl7_iso({sql})" if name in _TIMES else sql


def _raw(concept: dict[str, Any]) -> str:
    """Return the SQL of a CWE as the message has it, with the system of codes that can only be of one table."""
    name = f"hl7_blank({Place.of(concept['cwe']).name})"
    if "system" not in concept:
        return name
    return _in_system(name, concept["system"])


def _in_system(raw: str, system: str) -> str:
    return (
        f"CASE length({raw}) - length(replace({raw}, '^', '')) WHEN 0 THEN {raw} || {quote('^^' + system)} "
        f"WHEN 1 THEN {raw} || {quote('^' + system)} ELSE {raw} END"
    )


def _value(mapping: dict[str, Any], value: dict[str, Any], number: int) -> list[str]:
    """Return the value columns of an observation (OBX-2, -5, -6, -7) and the raw coded value ``r<number>``."""
    kinds = {name: ", ".join(map(quote, types)) for name, types in mapping["value_types"].items()}
    kind = f"upper(trim({Place.of(value['type']).sql()}))"
    data, unit = f"hl7_blank({Place.of(value['data']).name})", Place.of(value["unit"])
    reach = f"hl7_text({Place.of(value['range']).sql()})"
    # SN: comparator, number, separator, second number: a range or ratio is no number (v2.8.2 chapter 2.A.70)
    sn = [f"trim(split_part({data}, '^', {i}))" for i in range(1, 5)]
    signs = "('', '<', '>', '<=', '>=', '=', '<>')"
    structured = (
        f"CASE WHEN NOT contains({data}, '^') THEN hl7_number({data}) "
        f"WHEN {sn[0]} IN {signs} AND {sn[2]} = '' AND {sn[3]} = '' THEN hl7_number({sn[1]}) "
        f"WHEN {sn[0]} = '' AND {sn[1]} IN {signs} AND {sn[3]} = '' THEN hl7_number({sn[2]}) END"
    )
    figure = f"CASE WHEN {kind} IN ({kinds['number']}) THEN hl7_number({data}) WHEN {kind} IN ({kinds['structured']}) THEN {structured} END"
    sign = f"nullif(CASE WHEN {sn[0]} = '' THEN {sn[1]} ELSE {sn[0]} END, '=')"
    coded = f"{kind} IN ({kinds['coded']}) AND trim({data}) <> '\"\"'"

    def bound(mark: str, pair: str) -> str:
        forms = (rf"^{mark}=?\s*({_NUMBER})(?:\s.*)?$", rf"^{pair}(?:\s.*)?$")
        texts = [f"regexp_extract({reach}, {quote(form)}, 1)" for form in forms]
        return f"CASE WHEN {reach} IS NOT NULL THEN coalesce({', '.join(f'hl7_number({text})' for text in texts)}) END"

    low, high = bound(">", rf"({_NUMBER})\s*-\s*{_NUMBER}"), bound("<", rf"{_NUMBER}\s*-\s*({_NUMBER})")
    return [
        f"CASE WHEN {data} IS NULL THEN NULL WHEN ({figure}) IS NOT NULL THEN 'number' WHEN {coded} THEN 'coded' "
        f"WHEN coalesce({kind}, '') IN ('', {kinds['number']}, {kinds['structured']}, {kinds['text']}) OR trim({data}) = '\"\"' THEN 'text' "
        f"WHEN {kind} IN ({kinds['time']}) THEN 'time' ELSE 'other' END AS value_kind",
        f"{figure} AS value_number",
        f"CASE WHEN ({figure}) IS NOT NULL THEN NULL WHEN {coded} THEN coalesce(hl7_text(split_part({data}, '^', 9)), "
        f"hl7_text(split_part({data}, '^', 2)), hl7_text(split_part({data}, '^', 1))) "
        f"WHEN {kind} IN ({kinds['structured']}) THEN hl7_text(replace({data}, '^', '')) "
        f"WHEN coalesce({kind}, '') IN ('', {kinds['number']}, {kinds['text']}, {kinds['time']}) THEN hl7_text({data}) "
        f"ELSE left(hl7_text({data}), {_OTHER_LENGTH}) END AS value_text",
        f"CASE WHEN {kind} IN ({kinds['structured']}) AND ({figure}) IS NOT NULL AND contains({data}, '^') AND {sign} IN {signs} "
        f"THEN nullif({sign}, '') END AS comparator",
        f"coalesce(hl7_text({unit.sql()}), hl7_text({unit._replace(component=2).sql()})) AS unit",
        f"CASE WHEN trim({unit._replace(component=3).sql()}) IN ('UCUM', 'ISO+') THEN hl7_text({unit.sql()}) END AS unit_code",
        f"{low} AS range_low",
        f"{high} AS range_high",
        f"CASE WHEN {coded} THEN {data} END AS r{number}",
    ]


def _write(con: duckdb.DuckDBPyConnection, mapping: dict[str, Any], table: str, entry: dict[str, Any]) -> None:
    """Insert the rows of ``_hl7_typed`` into the table, and their concepts and codings."""
    columns = {name: f'"{name}"' for name in ("record", "patient_id", "encounter_id", "site", *entry["columns"])}
    if entry.get("key"):
        columns["id"] = "patient_id" if entry["key"] == "patient" else "encounter_id"
    concepts = dict(entry["concepts"])
    if "value" in entry:
        concepts[entry["value"]["element"]] = {"optional": True}
        values = ("value_kind", "value_number", "value_text", "comparator", "unit", "unit_code", "range_low", "range_high")
        columns.update({name: name for name in values})
    _insert(con, table, columns, "_hl7_typed")
    known = "record, patient_id, encounter_id, site, " + ('"at"' if "at" in entry["columns"] else 'NULL::VARCHAR AS "at"')
    kept = "excluded IS NULL" if "excluded" in entry["columns"] else "true"
    nulls = ", ".join(map(quote, mapping["null_systems"]))
    for number, (element, concept) in enumerate(concepts.items()):
        text = f"t{number}" if "text" in concept else "NULL::VARCHAR"
        ordinal, raw = "1", f"r{number}"
        source = f"SELECT *, {ordinal} AS ordinal, {raw} AS r FROM _hl7_typed"
        if concept.get("repeats"):
            source = (
                f"SELECT * EXCLUDE (r), {_in_system('r', concept['system']) if 'system' in concept else 'r'} AS r FROM (SELECT *, "
                f"unnest(string_split(r{number}, '~')) AS r, generate_subscripts(string_split(r{number}, '~'), 1) AS ordinal "
                f"FROM _hl7_typed WHERE r{number} IS NOT NULL)"
            )
        wanted = f"{kept} AND hl7_blank(r) IS NOT NULL" if concept.get("optional") else kept
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE _hl7_cwe AS SELECT *, {', '.join(_there(i, nulls) for i in range(len(_CODINGS)))} "
            f"FROM (SELECT {known}, ordinal, string_split(r, '^') AS c, {text} AS t FROM ({source}) WHERE {wanted})"
        )
        _concepts(con, element, nulls)


def _there(coding: int, nulls: str) -> str:
    """Return the SQL that says whether a CWE has its n-th coding: a code, of a system that is not one of reasons."""
    code, _, system, _ = _CODINGS[coding]
    return f"coalesce(trim(c[{code}]) <> '' AND coalesce(c[{system}], '') NOT IN ({nulls}), false) AS has_{coding}"


def _concepts(con: duckdb.DuckDBPyConnection, element: str, nulls: str) -> None:
    """Write the concepts and codings of ``_hl7_cwe``."""
    usable = " + ".join(f"(has_{i} AND NOT null_token(hl7_escape(c[{k[0]}])))::INTEGER" for i, k in enumerate(_CODINGS))
    reason = f"CASE WHEN c[3] IN ({nulls}) THEN lower(hl7_text(c[1])) END"
    names = {name: f'"{name}"' for name in ("record", "ordinal", "patient_id", "encounter_id", "site", "at")}
    names["element"] = quote(element)
    texts = [f"hl7_text(c[{i}])" for i in (9, 2, 5)]
    texts[1] = f"CASE WHEN coalesce(c[3], '') NOT IN ({nulls}) THEN {texts[1]} END"
    tokens = [f"CASE WHEN has_{i} AND null_token(hl7_escape(c[{k[0]}])) THEN hl7_text(c[{k[0]}]) END" for i, k in enumerate(_CODINGS[:2])]
    own = {
        "text": f"coalesce({', '.join([*texts, 't', *tokens])})",
        "n_codings": usable,
        "absent_reason": f"CASE WHEN {reason} = 'msk' THEN 'masked' ELSE {reason} END",
    }
    _insert(con, "concept", names | own, "_hl7_cwe")
    before = "1"
    rows = []
    for i, (code, text, system, version) in enumerate(_CODINGS):
        coding = {
            "concept": "ordinal",
            "position": before,
            "system": f"hl7_text(c[{system}])",
            "version": f"hl7_text(c[{version}])",
            "code": f"hl7_escape(c[{code}])",
            "display": f"hl7_text(c[{text}])",
        }
        columns = [(names | coding).get(name, "NULL") for name in CODING.names]
        rows.append(f"SELECT {', '.join(columns)} FROM _hl7_cwe WHERE has_{i}")
        before += f" + has_{i}::INTEGER"
    con.execute(f"INSERT INTO coding ({', '.join(quoted(CODING.names))}) {' UNION ALL '.join(rows)}")


def quoted(names: Iterable[str]) -> list[str]:
    """Return the names as SQL identifiers."""
    return [f'"{name}"' for name in names]


def _insert(con: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str], source: str) -> None:
    """Insert the columns that the canonical table has; the others of the table stay NULL."""
    names = [name for name in (CONCEPT if table == "concept" else TABLES[table]).names if name in columns]
    values = ", ".join(columns[name] for name in names)
    con.execute(f'INSERT INTO "{table}" ({", ".join(quoted(names))}) SELECT {values} FROM {source}')


def source_elements(mapping: dict[str, Any]) -> dict[str, str]:
    """Return canonical element to its place in a message, of the first segment that fills the table."""
    found: dict[str, str] = {}
    context = {name: _places(place)[0] for name, place in mapping["context"].items()}
    for table, entry in sources(mapping):
        places = {f"{table}.{name}": _places(column)[0] for name, column in entry["columns"].items()}
        for element, concept in entry["concepts"].items():
            places[element] = Place.of(_alternatives(concept)[0]["cwe"])
        if value := entry.get("value"):
            places |= {f"{table}.value": Place.of(value["data"]), f"{table}.unit": Place.of(value["unit"])}
            places[value["element"]] = Place.of(value["data"])
        places |= {f"{table}.patient_id": context["patient"], f"{table}.site": context["site"]}
        if table != "patient":
            places[f"{table}.encounter_id"] = context["visit"]
        if key := entry.get("key"):
            places[f"{table}.id"] = context[key]
        for element, place in places.items():
            found.setdefault(element, f"{place.segment}-{place.field}")
    return dict(sorted(found.items()))
