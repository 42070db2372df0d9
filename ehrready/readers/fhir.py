"""The FHIR reader: NDJSON, Bundles of every type, single resources and arrays of them.

A record is a resource; a Bundle is unpacked into its entries and is no record itself.  Blocks of text go to
DuckDB as Arrow tables; validity, unpacking and extraction are SQL generated from mappings/fhir.yaml.
DuckDB's JSON parser is lenient (trailing commas, NaN, Infinity): what might use that is parsed again strictly.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import yaml

from ehrready.engines.duckdb import quote
from ehrready.readers import fhir_sql
from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.readers.blocks import HEAD_BYTES, STREAM_ERRORS, Blocks, integers, open_stream
from ehrready.readers.json_depth import MANY_OPENINGS, too_deep
from ehrready.tables import ENTRY_BIT, POSITION_BITS

_SUFFIX = re.compile(r"\.(ndjson|jsonl|json)(\.gz|\.zst)?$", re.IGNORECASE)
_LINES = re.compile(r"\.(ndjson|jsonl)(\.gz|\.zst)?$", re.IGNORECASE)
_FIRST = re.compile(rb'\s*\{\s*"resourceType"')
_LENIENT = r",\s*[}\]]|[,:\[]\s*-?(?i:nan|inf)"
#: What is looked at again one by one: a document says itself (``Blocks.deep``) whether it is nested too deep.
_LOOK_AGAIN = {"ndjson": f"{_LENIENT}|{MANY_OPENINGS}", "document": _LENIENT}


@functools.cache
def mapping() -> dict[str, Any]:
    """Return mappings/fhir.yaml: canonical table to its types, columns and concepts."""
    text = (Path(__file__).parent / "mappings" / "fhir.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@functools.cache
def resource_types() -> tuple[str, ...]:
    """Return the resource types of STU3 to R5: a type outside this list may be anything and is counted as ``other``."""
    return tuple((Path(__file__).parent / "mappings" / "fhir_types.txt").read_text("utf-8").split())


#: Resources of each type that are kept whole unless ``--validate`` says otherwise.
SAMPLE = 100


class FhirReader:
    """Reader of FHIR R4 JSON; R4B, R5 and STU3 where the element names agree.

    ``sample`` resources of each type are kept whole, until the engine closes, for checks of their structure (None: all).
    """

    format = "fhir"
    meets: Mapping[str, tuple[str, ...]] = {"medication_ref": ("coalesce(ref, '')",), "drug": ("id", "url")}
    kept: tuple[str, ...] = ("alias", "fhir_sample")

    def __init__(self, sample: int | None = SAMPLE) -> None:
        self.sample = sample

    def recognise(self, path: Path, head: bytes) -> str:
        """Return ``ndjson`` or ``document``, or ``""`` for a file that is not FHIR JSON.

        A file named .json or .ndjson that is not valid JSON is claimed, so that it is rejected and not skipped;
        valid JSON objects without any resourceType (an export log, a package.json) are not FHIR.
        """
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        named = bool(_SUFFIX.search(path.name))
        lines = bool(_LINES.search(path.name))
        if not start or start[:1] not in b"{[":
            return ("ndjson" if lines else "document") if named else ""
        first, newline, _ = start.partition(b"\n")
        one = _strict(first)
        if lines or (isinstance(one, dict) and newline):
            kind = "document" if one is None and len(first.strip()) == 1 else "ndjson"
            if isinstance(one, dict):
                return kind if b'"resourceType"' in head else ""
            return kind if named or b'"resourceType"' in head else ""
        if b'"resourceType"' not in head and len(head) >= HEAD_BYTES:
            return ""
        whole = _strict(start) if len(head) < HEAD_BYTES else _whole(path, start)
        if whole is None:
            return "document" if named or b'"resourceType"' in head else ""
        return "document" if any(isinstance(r, dict) and "resourceType" in r for r in _resources(whole)) else ""

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables; yields the events of the ledger."""
        yield from self.stage(files, con)
        self.finish(con)

    def stage(
        self,
        files: Sequence[SourceFile],
        con: duckdb.DuckDBPyConnection,
        among: Sequence[SourceFile] = (),  # noqa: ARG002 - no file needs another one here
    ) -> Iterator[Event]:
        """Read some of the files; what needs the others waits in staging tables."""
        self._entries: dict[int, int] = {}
        fhir_sql.prepare(con)
        con.execute("CREATE OR REPLACE TEMP TABLE fhir_sample (record BIGINT, type VARCHAR, place BIGINT, text VARCHAR)")
        for kind in ("ndjson", "document"):
            chosen = [file for file in files if file.kind == kind]
            blocks = Blocks()
            for item in blocks.lines(chosen) if kind == "ndjson" else blocks.documents(chosen):
                if isinstance(item, pa.Table):
                    yield from self._block(con, item, kind, blocks)
                else:
                    yield item

    def finish(self, con: duckdb.DuckDBPyConnection) -> None:
        """Resolve what needs all files."""
        fhir_sql.finish(con)
        if self.sample is not None:  # parts that were read apart have a sample each
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{_first(self.sample)}")

    def resolve(self, con: duckdb.DuckDBPyConnection) -> None:
        """Resolve what needs all tables, and keep of all samples the one that a single reading would keep."""
        fhir_sql.resolve(con)
        if self.sample is not None:
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{_first(self.sample)}")

    def source_elements(self) -> dict[str, str]:
        """Return canonical element to FHIR path, e.g. ``condition.code`` to ``Condition.code``."""
        return fhir_sql.source_elements(mapping())

    def _block(self, con: duckdb.DuckDBPyConnection, table: pa.Table, kind: str, blocks: Blocks) -> Iterator[Event]:
        """Read one block of lines or documents into the canonical tables."""
        con.register("_arrow", table)
        con.execute(
            "CREATE OR REPLACE TEMP TABLE block AS SELECT file, pos, text, NULL::VARCHAR AS url, json_valid(text) AS ok, "
            f"regexp_matches(text, {quote(_LOOK_AGAIN[kind])}) AS lenient, left(ltrim(text), 1) AS first FROM _arrow"
        )
        con.unregister("_arrow")
        if blocks.deep:
            con.execute(f"UPDATE block SET lenient = true WHERE file IN ({', '.join(map(str, sorted(blocks.deep)))})")
        opening = "'{', '['" if kind == "document" else "'{'"
        bad = con.execute(
            "SELECT file, pos, CASE WHEN NOT ok OR lenient THEN text END, ok FROM block "
            f"WHERE NOT ok OR lenient OR first NOT IN ({opening}) ORDER BY 1, 2"
        ).fetchall()
        wrong: list[tuple[int, int]] = []
        for file, pos, text, ok in bad:
            deep = text is not None and (file in blocks.deep or too_deep(text.encode()))
            if text is not None and (not ok or deep or _strict(text.encode()) is None):
                rescued = list(self._rescue(con, file, text)) if kind == "document" else []
                yield from rescued or [Rejected(file, pos, "too-deep" if ok and deep else "invalid-json")]
                if kind == "document" and not rescued:
                    yield Ended(file, "unreadable")
                elif kind == "ndjson" and not ok and blocks.unfinished.get(file) == pos:
                    yield Ended(file, "truncated")
            elif text is None or text.lstrip()[:1] not in opening:
                yield Rejected(file, pos, "not-an-object")
            else:
                continue
            wrong.append((file, pos))
        _drop(con, "block", wrong)
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE resource AS SELECT file, (file::BIGINT << {POSITION_BITS}) + pos AS record, "
            "text, url, json_extract_string(text, '$.resourceType') AS type FROM block WHERE first = '{'"
        )
        if kind == "document":
            yield from self._array(con)
        yield from self._unpack(con)
        yield from self._typed(con)
        self._keep(con)
        fhir_sql.extract(con, mapping())

    def _keep(self, con: duckdb.DuckDBPyConnection) -> None:
        """Keep whole resources for checks of their structure: of each type those that come first in a fixed shuffle of places."""
        if self.sample == 0:
            return
        first = "" if self.sample is None else _first(self.sample)
        place = f"((record % 1000003) * 7919 + (record >> {POSITION_BITS}) * 104729) % 1000003"
        con.execute(f"INSERT INTO fhir_sample SELECT record, type, {place} AS place, text FROM resource{first}")
        if self.sample is not None:
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{first}")

    def _rescue(self, con: duckdb.DuckDBPyConnection, file: int, text: str) -> Iterator[Event]:
        """Read a broken document as lines when it turns out to be NDJSON with a bad first line."""
        lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        deep = {n for n, line in lines if too_deep(line.encode())}
        good = [(n, line) for n, line in lines if n not in deep and isinstance(_strict(line.encode()), dict)]
        if not any('"resourceType"' in line for _, line in good):
            return
        numbers = {n for n, _ in good}
        yield Read(file, len(lines) - 1)
        yield from (Rejected(file, n, "too-deep" if n in deep else "invalid-json") for n, _ in lines if n not in numbers)
        con.executemany("INSERT INTO block VALUES (?, ?, ?, NULL, true, false, '{')", [(file, n, line) for n, line in good if n > 1])

    def _array(self, con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Unpack documents that are arrays of resources."""
        con.execute(
            "CREATE OR REPLACE TEMP TABLE entry AS SELECT file, NULL::VARCHAR AS url, e AS text, pos AS up, i FROM ("
            "SELECT file, pos, unnest(list) e, generate_subscripts(list, 1) i FROM (SELECT file, pos, "
            "from_json(text, '[\"JSON\"]') list FROM block WHERE first = '[')) ORDER BY ALL"
        )
        for file, n in con.execute("SELECT file, count(*) FROM block WHERE first = '[' GROUP BY 1 ORDER BY 1").fetchall():
            yield Read(file, -n)
        yield from self._enter(con)

    def _unpack(self, con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Replace Bundles by their entries' resources until none is left."""
        while True:
            bundles = con.execute(
                "SELECT file, record, coalesce(json_type(text, '$.entry'), 'NULL') FROM resource WHERE type = 'Bundle' ORDER BY 2"
            ).fetchall()
            if not bundles:
                return
            for file, record, kind in bundles:
                if kind in {"ARRAY", "NULL"}:
                    yield Read(file, -1)
                else:
                    yield Rejected(file, record & ((1 << POSITION_BITS) - 1), "not-an-object")
            con.execute(
                "CREATE OR REPLACE TEMP TABLE entry AS SELECT file, json_extract_string(e, '$.fullUrl') AS url, "
                "json_extract(e, '$.resource') AS text, record AS up, i FROM (SELECT file, record, unnest(list) e, "
                "generate_subscripts(list, 1) i FROM (SELECT file, record, from_json(json_extract(text, '$.entry'), "
                "'[\"JSON\"]') list FROM resource WHERE type = 'Bundle')) WHERE json_type(e, '$.resource') IS NOT NULL"
            )
            con.execute("DELETE FROM resource WHERE type = 'Bundle'")
            yield from self._enter(con)

    def _enter(self, con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Number the entries of each file and append those that are objects to ``resource``."""
        counts = con.execute("SELECT file, count(*) FROM entry GROUP BY 1 ORDER BY 1").fetchall()
        bases = [(file, self._entries.get(file, 0)) for file, _ in counts]
        con.execute("CREATE OR REPLACE TEMP TABLE base (file INTEGER, base BIGINT)")
        if bases:
            con.executemany("INSERT INTO base VALUES (?, ?)", bases)
        con.execute(
            "CREATE OR REPLACE TEMP TABLE entered AS SELECT file, (file::BIGINT << "
            f"{POSITION_BITS}) + (1::BIGINT << {ENTRY_BIT}) + base + row_number() OVER (PARTITION BY file ORDER BY up, i) AS record, "
            "text, url, json_extract_string(text, '$.resourceType') AS type, json_type(text) AS kind FROM entry JOIN base USING (file)"
        )
        for file, n in counts:
            self._entries[file] = self._entries.get(file, 0) + n
            yield Read(file, n)
        yield from (
            Rejected(file, record & ((1 << POSITION_BITS) - 1), "not-an-object")
            for file, record in con.execute("SELECT file, record FROM entered WHERE kind IS DISTINCT FROM 'OBJECT' ORDER BY 2").fetchall()
        )
        con.execute("INSERT INTO resource SELECT file, record, text, url, type FROM entered WHERE kind = 'OBJECT'")

    def _typed(self, con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Reject objects without a resourceType and count the others by type."""
        for file, record in con.execute("SELECT file, record FROM resource WHERE coalesce(type, '') = '' ORDER BY 2").fetchall():
            yield Rejected(file, record & ((1 << POSITION_BITS) - 1), "no-resource-type")
        con.execute("DELETE FROM resource WHERE coalesce(type, '') = ''")
        con.execute(
            f"INSERT INTO types SELECT 'fhir', CASE WHEN type IN ({', '.join(map(quote, resource_types()))}) THEN type "
            "ELSE 'other' END, count(*) FROM resource GROUP BY ALL"
        )
        con.execute("INSERT INTO profiled SELECT file, count(*) FROM resource GROUP BY file")


def _first(sample: int) -> str:
    return f" QUALIFY row_number() OVER (PARTITION BY type ORDER BY place, record) <= {sample}"


def _whole(path: Path, start: bytes) -> Any:
    """Parse a document longer than its head, unless its first property already says that it is FHIR."""
    if _FIRST.match(start):
        return {"resourceType": ""}
    try:
        with open_stream(path) as stream:
            return _strict(stream.read().removeprefix(b"\xef\xbb\xbf"))
    except STREAM_ERRORS:
        return None


def _resources(document: Any) -> list[Any]:
    return document if isinstance(document, list) else [document]


def _strict(data: bytes) -> Any:
    """Parse JSON strictly; None when it is not valid (or is ``null``)."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _drop(con: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[int, int]]) -> None:
    """Delete rows by (file, pos)."""
    if rows:
        keys = pa.Table.from_arrays([integers(np.array(column)) for column in zip(*rows, strict=True)], names=["file", "pos"])
        con.register("_drop", keys)
        con.execute(f"DELETE FROM {table} USING _drop WHERE {table}.file = _drop.file AND {table}.pos = _drop.pos")
        con.unregister("_drop")
