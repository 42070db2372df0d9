"""The FHIR reader: NDJSON, Bundles of every type, single resources and arrays of them.

A record is a resource; a Bundle is unpacked into its entries and is no record itself.  Blocks of text go to
DuckDB as Arrow tables; validity, unpacking and extraction are SQL generated from mappings/fhir.yaml.
DuckDB's JSON parser is lenient (trailing commas, NaN, Infinity): what might use that is parsed again strictly.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from ehrready import concepts
from ehrready.engines.duckdb import LITTLE_MEMORY, memory_of, quote
from ehrready.readers import blocks as blocks_of
from ehrready.readers import fhir_bundles, fhir_resolve, fhir_sql
from ehrready.readers.ahead import Behind, ahead
from ehrready.readers.arrays import Integers, chosen_rows, integers, numbers, strings, taken
from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.readers.blocks import BLOCK_BYTES, Blocks, Elements
from ehrready.readers.fhir_concepts import PARSE, layout
from ehrready.readers.fhir_look import Facts, are_odd, extracted, mapping, scan
from ehrready.readers.json_depth import too_deep
from ehrready.readers.streams import HEAD_BYTES, STREAM_ERRORS, open_stream
from ehrready.tables import ENTRY_BIT, POSITION_BITS

_SUFFIX = re.compile(r"\.(ndjson|jsonl|json)(\.gz|\.zst)?$", re.IGNORECASE)
_LINES = re.compile(r"\.(ndjson|jsonl)(\.gz|\.zst)?$", re.IGNORECASE)
_FIRST = re.compile(rb'\s*\{\s*"resourceType"')
_POSITION = (1 << POSITION_BITS) - 1


@functools.cache
def resource_types() -> tuple[str, ...]:
    """Return the resource types of STU3 to R5: a type outside this list may be anything and is counted as ``other``."""
    return tuple((Path(__file__).parent / "mappings" / "fhir_types.txt").read_text("utf-8").split())


#: Blocks of resources that wait for more of their type before they are extracted.
MOST_WAITING = 2
#: With little memory for the engine, blocks are smaller by this factor.
SMALLER = 2
#: Resources of each type that are kept whole unless ``--validate`` says otherwise.
SAMPLE = 100


class FhirReader:
    """Reader of FHIR R4 JSON; R4B, R5 and STU3 where the element names agree.

    ``sample`` resources of each type are kept whole, until the engine closes, for checks of their structure (None: all).
    """

    format = "fhir"
    meets: Mapping[str, tuple[str, ...]] = {"medication_ref": ("coalesce(ref, '')",), "drug": ("id", "url")}
    kept: tuple[str, ...] = ("alias", "fhir_sample")
    #: whether nothing but this reader fills the tables of this run: then concepts stay numbers (ehrready.concepts)
    shared = False

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
        self._waiting: dict[str, list[pa.Table]] = {}  # resources by type that are not extracted yet
        self._best: dict[str, Integers] = {}  # per type the places of the sample so far
        self._wording = concepts.Wording(PARSE)
        fhir_sql.prepare(con, mapping(), shared=self.shared)
        con.execute("CREATE OR REPLACE TEMP TABLE fhir_sample (record BIGINT, type VARCHAR, place BIGINT, text VARCHAR)")
        # what looks at blocks, what parses them and what computes columns have connections of their own: the tables are written on the first one meanwhile
        with contextlib.ExitStack() as stack:
            looking, self._parsing, self._telling = (stack.enter_context(contextlib.closing(con.cursor())) for _ in range(3))
            self._behind = stack.enter_context(Behind[Event](3))
            size = blocks_of.BLOCK_BYTES // (SMALLER if memory_of(con) < LITTLE_MEMORY else 1)
            for kind in ("ndjson", "document"):
                chosen = [file for file in files if file.kind == kind]
                blocks = Blocks(size)
                for item in ahead(blocks.lines(chosen) if kind == "ndjson" else blocks.documents(chosen), 2):
                    if isinstance(item, pa.Table):
                        yield from self._block(looking, item, kind, blocks)
                    elif isinstance(item, Elements):
                        yield from self._elements(looking, item, blocks)
                    else:
                        yield item
                    yield from self._flush(con, blocks, MOST_WAITING * size)
                yield from self._flush(con, blocks, -1)
                yield from self._behind.rest()
        self._wording.write(con, rest=True)
        if self.sample:
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{_first(self.sample)}")
        if not self.shared:
            concepts.expand(con, layout(mapping()))

    def finish(self, con: duckdb.DuckDBPyConnection) -> None:
        """Resolve what needs all files."""
        fhir_resolve.medications(con, self._wording if self.shared else None)
        fhir_resolve.resolve(con, () if self.shared else ("concept", "coding"), mapping() if self.shared else ())
        if self.shared:
            concepts.share(con, layout(mapping()))
        if self.sample is not None:  # parts that were read apart have a sample each
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{_first(self.sample)}")

    def resolve(self, con: duckdb.DuckDBPyConnection) -> None:
        """Resolve what needs all tables, and keep of all samples the one that a single reading would keep."""
        fhir_resolve.resolve(con)
        if self.sample is not None:
            con.execute(f"CREATE OR REPLACE TEMP TABLE fhir_sample AS SELECT * FROM fhir_sample{_first(self.sample)}")

    def source_elements(self) -> dict[str, str]:
        """Return canonical element to FHIR path, e.g. ``condition.code`` to ``Condition.code``."""
        return fhir_sql.source_elements(mapping())

    def _block(self, con: duckdb.DuckDBPyConnection, table: pa.Table, kind: str, blocks: Blocks) -> Iterator[Event]:
        """Read one block of lines or documents into the canonical tables."""
        facts = scan(con, table, "lines" if kind == "ndjson" else "documents")
        files, places = (numbers(table.column(name)) for name in ("file", "pos"))
        odd = facts.odd | np.isin(files, list(blocks.deep)) if blocks.deep else facts.odd
        records = (files << POSITION_BITS) + places
        opening = "{[" if kind == "document" else "{"
        bundles, opened = np.zeros(len(table), np.bool_), None
        if kind == "document" and "Bundle" in facts.kinds:
            bundles = facts.ok & ~odd & (facts.kind == facts.kinds.index("Bundle"))
            opened = fhir_bundles.entries(con, _rows(records, None, table.column("text"), bundles))
            facts.ok[np.isin(records, opened.broken)] = False
        good = facts.ok & np.isin(facts.first, list(opening))
        rescued: list[tuple[int, int, str]] = []
        for i, text in _texts(table.column("text"), ~good | odd):
            file, pos, ok = int(files[i]), int(places[i]), bool(facts.ok[i])
            deep = (odd[i] or not ok) and (file in blocks.deep or too_deep(text.encode()))
            if not ok or deep or (odd[i] and _strict(text.encode()) is None):
                found = _rescue(file, text) if kind == "document" else None
                yield from found[0] if found else [Rejected(file, pos, "too-deep" if ok and deep else "invalid-json")]
                rescued += found[1] if found else []
                if kind == "document" and not found:
                    yield Ended(file, "unreadable")
                elif kind == "ndjson" and not ok and blocks.unfinished.get(file) == pos:
                    yield Ended(file, "truncated")
                good[i] = False
            elif not good[i]:
                yield Rejected(file, pos, "not-an-object")
        groups: dict[str, list[pa.Table]] = {}
        _group(groups, facts, records, None, table.column("text"), good & ~bundles & (facts.first == "{"))
        if rescued:
            more = pa.Table.from_arrays([strings([line.encode() for *_, line in rescued]).cast(pa.large_string())], names=["text"])
            lines = np.array([(file << POSITION_BITS) + n for file, n, _ in rescued])
            _group(groups, scan(con, more, "documents"), lines, None, more.column("text"))
        if kind == "document" and (arrays := good & (facts.first == "[")).any():
            listed = fhir_bundles.arrays(con, _rows(records, None, table.column("text"), arrays))
            yield from (Read(file, -1) for file in files[arrays].tolist())
            yield from self._enter(con, listed, groups)
        if opened is not None:
            yield from self._opened(con, opened, groups)
        yield from self._resources(con, groups, blocks)

    def _elements(self, con: duckdb.DuckDBPyConnection, elements: Elements, blocks: Blocks) -> Iterator[Event]:
        """Read entries or elements of a document that is read in pieces, each as a Bundle or a list of its own."""
        table = elements.table
        files, places, text = numbers(table.column("file")), numbers(table.column("pos")), table.column("text")
        odd = are_odd(con, table)
        bad = np.array([i for i, line in _texts(text, odd) if too_deep(line.encode()) or _strict(line.encode()) is None], np.int64)
        for i in bad.tolist():
            yield from _broken_element(int(files[i]), int(places[i]), "too-deep" if too_deep(text[i].as_py().encode()) else "invalid-json")
        good = np.isin(np.arange(len(table)), bad, invert=True)
        records = (files << POSITION_BITS) + places
        rows = _rows(records, None, text, good)
        opened = (
            fhir_bundles.entries(con, rows, "'{\"entry\":[' || text || ']}'")
            if elements.shape == "entries"
            else fhir_bundles.arrays(con, rows, "'[' || text || ']'")
        )
        for record in opened.broken:
            yield from _broken_element(record >> POSITION_BITS, record & _POSITION, "invalid-json")
        groups: dict[str, list[pa.Table]] = {}
        yield from self._enter(con, opened, groups)
        yield from self._resources(con, groups, blocks)

    def _resources(self, con: duckdb.DuckDBPyConnection, groups: dict[str, list[pa.Table]], blocks: Blocks) -> Iterator[Event]:
        """Extract resources by type; Bundles are unpacked until none is left."""
        while bundles := groups.pop("Bundle", None):
            opened = fhir_bundles.entries(con, pa.concat_tables(bundles))
            for record in opened.broken:
                yield from self._invalid(record, blocks)
            yield from self._opened(con, opened, groups)
        for name, tables in groups.items():
            self._waiting.setdefault(name, []).extend(tables)

    def _opened(self, con: duckdb.DuckDBPyConnection, opened: fhir_bundles.Opened, groups: dict[str, list[pa.Table]]) -> Iterator[Event]:
        """Count the entries of Bundles in place of these, and add them to the groups."""
        for record in opened.unlike:
            yield Rejected(record >> POSITION_BITS, record & _POSITION, "not-an-object")
        for record in opened.opened:
            yield Read(record >> POSITION_BITS, -1)
        yield from self._enter(con, opened, groups)

    def _flush(self, con: duckdb.DuckDBPyConnection, blocks: Blocks, most: int) -> Iterator[Event]:
        """Extract types, the largest first, until no more than ``most`` bytes wait.

        In Bundles and mixed files each block has a little of every type, and a statement costs as much for a few rows as for many.
        """
        sizes = {name: sum(table.nbytes for table in tables) for name, tables in self._waiting.items()}
        total = sum(sizes.values())
        for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
            if total <= most:
                return
            total -= sizes[name]
            rows = pa.concat_tables(self._waiting.pop(name))
            yield from self._behind.then(
                functools.partial(self._parse, name, rows), self._tell, functools.partial(self._write, con, name, rows, blocks)
            )

    def _enter(self, con: duckdb.DuckDBPyConnection, opened: fhir_bundles.Opened, groups: dict[str, list[pa.Table]]) -> Iterator[Event]:
        """Number the entries of each file and add those that are objects to the groups."""
        if not len(opened.up):
            return
        files = opened.up >> POSITION_BITS
        numbers = np.zeros(len(files), np.int64)
        for file in np.unique(files).tolist():
            base, mine = self._entries.get(file, 0), np.flatnonzero(files == file)
            order = mine[np.lexsort((opened.number[mine], opened.up[mine]))]
            numbers[order] = base + np.arange(1, len(mine) + 1)
            self._entries[file] = base + len(mine)
            yield Read(file, len(mine))
        records = (files << POSITION_BITS) + (1 << ENTRY_BIT) + numbers
        facts = scan(con, opened.table, "entries")
        objects = facts.first == "{"
        for record in np.sort(records[~objects]).tolist():
            yield Rejected(record >> POSITION_BITS, record & _POSITION, "not-an-object")
        _group(groups, facts, records, opened.table.column("url"), opened.table.column("text"), objects)

    def _invalid(self, record: int, blocks: Blocks) -> Iterator[Event]:
        """Reject a line that turned out to be no JSON when it was extracted."""
        file, pos = record >> POSITION_BITS, record & _POSITION
        yield Rejected(file, pos, "invalid-json")
        if blocks.unfinished.get(file) == pos:
            yield Ended(file, "truncated")

    def _parse(self, name: str, rows: pa.Table) -> fhir_sql.Leafed | None:
        """Parse the resources of one type, beside those of others; None for types that are not mapped."""
        if name not in extracted() or name in {"Bundle", "Medication"}:
            return None
        return fhir_sql.parse(self._parsing, mapping(), name, rows, shared=self.shared)

    def _tell(self, found: fhir_sql.Leafed | None) -> fhir_sql.Parsed | None:
        """Compute the columns of parsed resources, beside the parsing of others."""
        return fhir_sql.columns(self._telling, found) if found else None

    def _write(
        self, con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, blocks: Blocks, parsed: fhir_sql.Parsed | None
    ) -> Iterator[Event]:
        """Write the resources of one type; those without a type are rejected."""
        records = numbers(rows.column("record"))
        if not name:
            yield from (Rejected(record >> POSITION_BITS, record & _POSITION, "no-resource-type") for record in np.sort(records).tolist())
            return
        broken = parsed.broken if parsed else fhir_sql.drugs(con, rows) if name == "Medication" else []
        for record in broken:
            yield from self._invalid(record, blocks)
        if broken:
            keep = np.isin(records, broken, invert=True)
            rows, records = chosen_rows(rows, keep), records[keep]
        if parsed:
            fhir_sql.write(con, parsed, rows, self._wording)
        if len(rows):
            con.execute("INSERT INTO types VALUES ('fhir', ?, ?)", [name if name in resource_types() else "other", len(rows)])
            counts = zip(*(part.tolist() for part in np.unique(records >> POSITION_BITS, return_counts=True)), strict=True)
            con.execute(f"INSERT INTO profiled VALUES {', '.join(f'({file}, {n})' for file, n in counts)}")  # a statement for many files
            self._keep(con, name, rows, records)

    def _keep(self, con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, records: Integers) -> None:
        """Keep whole resources for checks of their structure: of each type those that come first in a fixed shuffle of places."""
        if self.sample == 0:
            return
        place = ((records % 1000003) * 7919 + (records >> POSITION_BITS) * 104729) % 1000003
        chosen = np.arange(len(records))
        if self.sample is not None:
            best = self._best.get(name, np.zeros(0, np.int64))
            if len(best) == self.sample:
                chosen = np.flatnonzero(place <= best[-1])
            chosen = np.sort(chosen[np.lexsort((records[chosen], place[chosen]))][: self.sample])
            self._best[name] = np.sort(np.concatenate([best, place[chosen]]))[: self.sample]
        if len(chosen):
            kept = pa.Table.from_arrays(
                [integers(records[chosen]), integers(place[chosen]), taken(rows.column("text"), chosen)],
                names=["record", "place", "text"],
            )
            con.register("_kept", kept)
            con.execute(f"INSERT INTO fhir_sample SELECT record, {quote(name)}, place, rtrim(text, ' \t\r\n') FROM _kept")
            con.unregister("_kept")


def _broken_element(file: int, place: int, reason: str) -> Iterator[Event]:
    """Reject an element of a document that is read in pieces: the document is not what it should be."""
    yield from (Read(file, 1), Rejected(file, place, reason), Ended(file, "truncated"))


def _texts(column: pa.ChunkedArray, chosen: np.typing.NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    """Yield the chosen texts and their places in the column."""
    places = np.flatnonzero(chosen)
    yield from zip(places.tolist(), taken(column, places).to_pylist(), strict=True)


def _rows(records: Integers, urls: pa.ChunkedArray | None, texts: pa.ChunkedArray, chosen: np.typing.NDArray[np.bool_]) -> pa.Table:
    """Return the chosen rows as (record, url, text)."""
    url = pa.nulls(len(records), pa.large_string()) if urls is None else urls
    table = pa.Table.from_arrays([integers(records), url, texts], names=["record", "url", "text"])
    return chosen_rows(table, chosen)


def _group(
    groups: dict[str, list[pa.Table]],
    facts: Facts,
    records: Integers,
    urls: pa.ChunkedArray | None,
    texts: pa.ChunkedArray,
    chosen: np.typing.NDArray[np.bool_] | None = None,
) -> None:
    """Add the chosen rows to the groups of their resource types."""
    for number, name in enumerate(facts.kinds):
        mine = facts.kind == number if chosen is None else (facts.kind == number) & chosen
        if mine.any():
            groups.setdefault(name, []).append(_rows(records, urls, texts, mine))


def _rescue(file: int, text: str) -> tuple[list[Event], list[tuple[int, int, str]]] | None:
    """Read a broken document as lines when it turns out to be NDJSON with a first line that is bad or longer than a head: its events and good lines."""
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    deep = {n for n, line in lines if too_deep(line.encode())}
    good = [(n, line) for n, line in lines if n not in deep and isinstance(_strict(line.encode()), dict)]
    if not any('"resourceType"' in line for _, line in good):
        return None
    numbers = {n for n, _ in good}
    bad: list[Event] = [Rejected(file, n, "too-deep" if n in deep else "invalid-json") for n, _ in lines if n not in numbers]
    return [Read(file, len(lines) - 1), *bad], [(file, n, line) for n, line in good]


def _first(sample: int) -> str:
    return f" QUALIFY row_number() OVER (PARTITION BY type ORDER BY place, record) <= {sample}"


def _whole(path: Path, start: bytes) -> Any:
    """Parse a document longer than its head, unless its first property already says that it is FHIR."""
    if _FIRST.match(start):
        return {"resourceType": ""}
    try:
        with open_stream(path) as stream:
            data = stream.read(BLOCK_BYTES + 1)
        # a longer one is not parsed to see what it is
        return {"resourceType": ""} if len(data) > BLOCK_BYTES else _strict(data.removeprefix(b"\xef\xbb\xbf"))
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
