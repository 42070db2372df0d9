"""The first look at resources: which rows are JSON, may use a leniency of the parser or are nested too deep, and of what type they are.

Most rows begin as others do and have nothing odd: they are found by comparing bytes.  The others are looked at by the engine.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready import resources
from ehrready.engines.duckdb import quote
from ehrready.readers.arrays import BATCH_ROWS, Integers, batched, bits, integers, numbers, one_array, taken
from ehrready.readers.json_depth import MAX_DEPTH

_OPENING = re.compile(r'\{"resourceType":"([A-Za-z]+)"')
#: Rows of a batch that may be of no type that is extracted before the rest is looked at by the engine.
MOST_OPENINGS = 8
#: Patterns of what only a lenient parser takes; apart, each is found by its first character, many times faster than as one.
_LENIENT = (r",\s*(?:[}\]]|-?(?i:nan|inf))", r":\s*-?(?i:nan|inf)", r"\[\s*-?(?i:nan|inf)")
_MAY_BE_LENIENT = " OR ".join(f"regexp_matches(text, {quote(pattern)})" for pattern in _LENIENT)
_MAY_BE_DEEP = f"(strlen(text) > {2 * MAX_DEPTH} AND strlen(text) - strlen(replace(replace(text, '{{', ''), '[', '')) > {MAX_DEPTH})"


@functools.cache
def mapping() -> dict[str, Any]:
    """Return mappings/fhir.yaml: canonical table to its types, columns and concepts."""
    loaded: dict[str, Any] = resources.data(Path(__file__).parent / "mappings" / "fhir.yaml")
    return loaded


@functools.cache
def extracted() -> frozenset[str]:
    """Return the resource types that are parsed when they are extracted."""
    return frozenset(kind for entry in mapping().values() for kind in entry["types"]) | {"Medication", "Bundle"}


@dataclass(slots=True)
class Facts:
    """What a first look says of each row: ``kind`` indexes ``kinds`` (resource types, ``""`` for none)."""

    kind: Integers
    kinds: list[str]
    ok: np.typing.NDArray[np.bool_]
    odd: np.typing.NDArray[np.bool_]
    first: np.typing.NDArray[np.str_]


def scan(con: duckdb.DuckDBPyConnection, table: pa.Table, trust: str) -> Facts:
    """Look at each row once: is it JSON, may it use a leniency of the parser, what type of resource is it.

    ``trust``: ``documents`` are parsed here, but for Bundles; these and ``lines`` of a type that is extracted are parsed then, and only then;
    ``entries`` come out of the parser.  Rows that begin as others do and have nothing odd are not looked at more closely.
    """
    n = len(table)
    facts = Facts(np.zeros(n, np.int64), [""], np.ones(n, np.bool_), np.zeros(n, np.bool_), np.full(n, "{"))
    if trust == "documents":
        closely = np.arange(n)
    else:
        facts.odd[:] = are_odd(con, table) if trust == "lines" else False
        facts.kinds, facts.kind = _openings(table.column("text"))
        closely = np.flatnonzero((facts.kind < 0) | facts.odd)
    if not len(closely):
        return facts
    numbered = pa.Table.from_arrays([integers(np.arange(len(closely))), taken(table.column("text"), closely)], names=["i", "text"])
    con.register("scanned", batched(numbered, 1 if trust == "documents" and table.nbytes > n * 65536 else BATCH_ROWS))
    valid = {
        "entries": "true",
        "documents": "CASE WHEN head = 'Bundle' THEN true ELSE coalesce(json_valid(text), false) END",
        "lines": f"CASE WHEN head IN ({', '.join(map(quote, sorted(extracted())))}) THEN true ELSE coalesce(json_valid(text), false) END",
    }[trust]
    odd = _MAY_BE_LENIENT if trust == "documents" else "false"
    found = con.sql(
        "SELECT i, CASE WHEN head <> '' THEN head WHEN starts_with(said, '\"') THEN json_extract_string(said, '$') ELSE '' END AS kind, "
        f"ok::TINYINT AS ok, ({odd})::TINYINT AS odd, first FROM (SELECT *, CASE WHEN head = '' AND ok AND first = '{{' "
        # as JSON: a number or a list is no name of a type
        f"THEN json_extract(text, '$.resourceType') END::VARCHAR AS said FROM (SELECT *, {valid} AS ok FROM (SELECT i, text, "
        "coalesce(left(ltrim(text), 1), '') AS first, coalesce(regexp_extract(left(text, 80), "
        """'^\\{\\s*"resourceType"\\s*:\\s*"([A-Za-z]+)"', 1), '') AS head FROM scanned)))"""
    ).to_arrow_table()
    con.unregister("scanned")
    kinds, kind = _coded(found.column("kind"))
    firsts, first = _coded(found.column("first"))
    places = closely[numbers(found.column("i"))]
    facts.kind[places] = kind + len(facts.kinds)
    facts.kinds = [*facts.kinds, *kinds]
    facts.ok[places] = numbers(found.column("ok")).astype(np.bool_)
    facts.odd[places] |= numbers(found.column("odd")).astype(np.bool_)
    facts.first[places] = np.array([*firsts, ""], np.str_)[first]
    return facts


def _openings(column: pa.ChunkedArray) -> tuple[list[str], Integers]:
    """Return the types that rows say at their very beginning, and for each row which of them it says; -1 where it does not.

    Only types that are extracted count.  Types are found by looking at rows one by one, the rows of each at once.
    """
    kinds: list[str] = []
    found = []
    for chunk in column.chunks:
        kind, left, tries = np.full(len(chunk), -1), np.arange(len(chunk)), MOST_OPENINGS
        while len(left) and tries:
            opening = _OPENING.match(chunk[int(left[0])].as_py()[:80])
            if opening is None or opening[1] not in extracted():
                left, tries = left[1:], tries - 1
                continue
            kinds = kinds if opening[1] in kinds else [*kinds, opening[1]]
            kind[bits(pc.starts_with(chunk, opening[0]))] = kinds.index(opening[1])
            left = left[kind[left] < 0]
        found.append(kind)
    return kinds, np.concatenate(found) if found else np.zeros(0, np.int64)


def are_odd(con: duckdb.DuckDBPyConnection, table: pa.Table) -> np.typing.NDArray[np.bool_]:
    """Say which texts may use a leniency of the parser or be nested too deep."""
    numbered = pa.Table.from_arrays([integers(np.arange(len(table))), table.column("text")], names=["i", "text"])
    con.register("scanned", batched(numbered))
    found = con.execute(f"SELECT i FROM scanned WHERE {_MAY_BE_LENIENT} OR {_MAY_BE_DEEP}").fetchall()
    con.unregister("scanned")
    return np.isin(np.arange(len(table)), [i for (i,) in found])


def _coded(column: pa.ChunkedArray) -> tuple[list[str], Integers]:
    """Return the different texts of a column and, for each row, which one it is."""
    encoded = one_array(column).dictionary_encode()
    return encoded.dictionary.to_pylist(), numbers(encoded.indices).astype(np.int64)
