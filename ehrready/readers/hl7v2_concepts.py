"""SQL of coded elements in HL7v2: each different text of a CWE has a number and is split once (ehrready.concepts).

The text is that of the field, with the text of the field beside it (DG1-4) behind a mark, or all repetitions of a field that repeats.
Source: HL7 v2.8.2 chapter 2.A.14.
"""

from __future__ import annotations

from typing import Any

from ehrready.concepts import Numbered
from ehrready.engines.duckdb import quote
from ehrready.readers.hl7v2_mapping import mapping, sources
from ehrready.readers.hl7v2_split import ESCAPED

#: Identifier, text, system and version of the three codings of a CWE.
_CODINGS = ((1, 2, 3, 7), (4, 5, 6, 8), (10, 11, 12, 13))
#: What stands before the text beside a CWE: no segment has it (``hl7v2_split.ONE_FORM``).
BESIDE = "chr(2)"


def unescaped(sql: str, escapes: str) -> str:
    """Return the SQL of a text with what its escapes stand for (``hl7v2_split.ESCAPED``)."""
    for mark in escapes:
        sql = f"replace({sql}, chr({ord(mark)}), {quote(ESCAPED[mark])})"
    return sql


def named(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the coded elements of an entry with what the mapping says of each, that of a coded value the last one."""
    value = entry.get("value")
    return dict(entry["concepts"]) | ({value["element"]: {"optional": True}} if value else {})


def layout(tables: tuple[str, ...] = ()) -> list[Numbered]:
    """Return the columns of numbers of each table (or of some), in the order of the mapping."""
    found: dict[tuple[str, str], Numbered] = {}
    for table, entry in sources(mapping()):
        for number, (element, concept) in enumerate(named(entry).items()):
            if not tables or table in tables:
                found.setdefault((table, element), Numbered(table, element, f"x{number}", bool(concept.get("optional"))))
    return list(found.values())


def _parse() -> tuple[str, ...]:
    nulls = f"({', '.join(map(quote, mapping()['null_systems']))})"
    parts = sorted({part for coding in _CODINGS for part in coding} | {9})
    codes = [code for code, *_ in _CODINGS]
    marks = "".join(ESCAPED)
    sql = "SELECT x, ordinal, t, string_split(r, '^') AS c FROM _hl7_cwe"
    split = [f"{unescaped(f'c[{i}]', marks)} AS c{i}" for i in parts]
    sql = f"SELECT x, ordinal, t, {', '.join(split)} FROM ({sql})"
    for layer in (
        [f"clean(c{i}) AS s{i}" for i in parts if i not in codes],
        [f"coalesce(trim(c{code}) <> '' AND coalesce(s{s}, '') NOT IN {nulls}, false) AS has_{code}" for code, _, s, _ in _CODINGS],
        [f"has_{code} AND null_token(c{code}) AS token_{code}" for code in codes],
    ):
        sql = f"SELECT *, {', '.join(layer)} FROM ({sql})"
    tokens = [f"CASE WHEN token_{code} THEN clean(c{code}) END" for code in codes]
    texts = ["s9", f"CASE WHEN coalesce(s3, '') NOT IN {nulls} THEN s2 END", "s5", "t", *tokens]
    said = " + ".join(f"(has_{code} AND NOT token_{code})::INTEGER" for code in codes)
    reason = f"CASE WHEN s3 IN {nulls} THEN CASE lower(trim(c1)) WHEN 'msk' THEN 'masked' ELSE lower(trim(c1)) END END"
    position, rows = "1", []
    for code, text, system, version in _CODINGS:
        rows.append(f"SELECT x, ordinal, {position}, s{system}, s{version}, c{code}, s{text} FROM _hl7_split WHERE has_{code}")
        position += f" + has_{code}::INTEGER"
    return (
        f"CREATE OR REPLACE TEMP TABLE _hl7_cwe AS SELECT x, 1 AS ordinal, split_part(raw, {BESIDE}, 1) AS r, nullif(split_part(raw, {BESIDE}, 2), '') AS t "
        "FROM _new WHERE NOT listed UNION ALL SELECT x, i, r, NULL FROM (SELECT x, unnest(list) AS r, generate_subscripts(list, 1) AS i FROM "
        "(SELECT x, string_split(raw, '~') AS list FROM _new WHERE listed)) WHERE hl7_blank(r) IS NOT NULL",
        f"CREATE OR REPLACE TEMP TABLE _hl7_split AS {sql}",
        f"INSERT INTO concept_text SELECT x, ordinal, coalesce({', '.join(texts)}), {said}, {reason} FROM _hl7_split",
        f"INSERT INTO concept_coding {' UNION ALL '.join(rows)}",
    )


#: What makes rows of new numbers (``ehrready.concepts.Wording``).
PARSE = _parse()
