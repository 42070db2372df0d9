"""Reading on Spark: the same readers, one task per split, each with a DuckDB of its own.

A task returns its tables as Arrow, its events and what waits for other files, all in the rows of one data frame that is
computed once (``spark_tables``): Spark keeps the output of one attempt of a task, so a task that fails, is killed or runs
twice is counted once.  What waits is put in buckets by its keys, and the reader's own ``finish`` runs on each bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow as pa

from ehrready.engines import duckdb as engine
from ehrready.errors import EhrreadyError
from ehrready.ledger import Ledger
from ehrready.readers import hl7v2, parts
from ehrready.readers.base import Ended, Event, Read, Reader, Rejected, SourceFile, StagedReader
from ehrready.readers.hl7v2_sql import PLACE_BITS
from ehrready.tables import ALL, ENTRY_BIT, POSITION_BITS

if TYPE_CHECKING:
    import duckdb

    from ehrready.engines.spark_tables import Connection

_CHUNK_ROWS = 65_536
_RAW = "split bigint, bucket bigint, name string, payload binary"
_RAW_SCHEMA = pa.schema([("split", pa.int64()), ("bucket", pa.int64()), ("name", pa.string()), ("payload", pa.binary())])
_EVENTS, _RAW_TABLE = "", "ehrready_raw"
_KINDS: dict[str, Callable[..., Event]] = {"Read": Read, "Rejected": Rejected, "Ended": Ended}


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a reading is told; ``memory`` is the limit of each task's DuckDB."""

    reader: Reader
    splits: tuple[tuple[SourceFile, ...], ...]
    among: tuple[SourceFile, ...]
    buckets: int
    memory: str

    @property
    def staged(self) -> StagedReader | None:
        """The reader, when its files may be read apart."""
        return cast("StagedReader", self.reader) if hasattr(self.reader, "stage") else None


def read(reader: Reader, files: Sequence[SourceFile], con: Connection, ledger: Ledger, *, memory: str) -> None:
    """Let one reader fill the tables of ``con`` on Spark, and book its events."""
    session = con.session
    size = _bytes(session.conf.get("spark.sql.files.maxPartitionBytes") or "128MB")
    cost = _bytes(session.conf.get("spark.sql.files.openCostInBytes") or "4MB")
    staged = hasattr(reader, "stage")
    splits = _splits(con, files, size, cost) if staged else (tuple(files),)
    most = int(session.conf.get("spark.sql.shuffle.partitions") or "200")
    job = Job(reader, splits, tuple(files), max(1, min(most, len(splits))), memory)

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from _quietly(map(_row, stage_split(job, number)))

    con.tables.put(_RAW_TABLE, session.range(0, len(splits), 1, len(splits)).mapInArrow(task, _RAW))
    told = {row[0]: orjson.loads(row[1]) for row in con.execute(f"SELECT split, payload FROM {_RAW_TABLE} WHERE name = ''").fetchall()}
    if len(told) != len(splits):
        raise AssertionError("a split has not reported")
    shifts = book(job, told, ledger)
    names = {name for report in told.values() for name in report["tables"]}
    _unpack(con, shifts, names & ALL.keys(), _canonical)
    if job.staged is not None:
        schemas = {
            name: pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(text))) for r in told.values() for name, text in r["schemas"].items()
        }
        _finish(con, job, shifts, names, schemas)
    con.tables.drop(_RAW_TABLE)


# --- splits ----------------------------------------------------------------------------------------------------------


def _splits(con: Connection, files: Sequence[SourceFile], size: int, cost: int) -> tuple[tuple[SourceFile, ...], ...]:
    cuts = [parts.cut(file, size) for file in files]
    if lines := [part for cut in cuts if len(cut) > 1 and cut[0].kind == "ndjson" for part in cut]:
        found = _survey(con, lines)
        cuts = [parts.numbered(cut, [found[part] for part in cut]) if cut[0] in found else cut for cut in cuts]
    apart = len({file.kind for file in files}) > 1
    return tuple(map(tuple, parts.grouped([part for cut in cuts for part in cut], size, cost, apart)))


def _survey(con: Connection, lines: list[SourceFile]) -> dict[SourceFile, parts.Lines]:
    """Count the lines of parts, so that each task can number its own."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                try:
                    found = parts.survey(lines[number])
                except OSError:
                    found = parts.Lines(0, True, False)  # one task will say that it cannot be read
                yield pa.RecordBatch.from_pydict(
                    {"part": [number], "feeds": [found.feeds], "bundle": [found.bundle], "blank": [found.blank]}
                )

    frame = con.session.range(0, len(lines), 1, len(lines)).mapInArrow(task, "part bigint, feeds bigint, bundle boolean, blank boolean")
    con.tables.put("ehrready_survey", frame)
    rows = con.execute("SELECT part, feeds, bundle, blank FROM ehrready_survey").fetchall()
    con.tables.drop("ehrready_survey")
    return {lines[number]: parts.Lines(*found) for number, *found in rows}


def _bytes(text: str) -> int:
    number = text.lower().removesuffix("b").strip()
    power = "kmgt".find(number[-1:]) + 1
    return int(float(number[:-1] if power else number) * 1024**power)


# --- in a task -------------------------------------------------------------------------------------------------------


class TaskFailed(RuntimeError):
    """A task failed; the message names the kind of the failure, since Spark writes it into its logs."""


def _quietly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass batches on, and failures without their words, which may quote data."""
    try:
        yield from batches
    except GeneratorExit:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is: no text of it may reach a log
        told = str(error) if isinstance(error, EhrreadyError) else engine.lacks(error)
        raise TaskFailed(told or type(error).__name__) from None


def _row(row: tuple[int, int, str, bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(_RAW_SCHEMA.names, row, strict=True))], _RAW_SCHEMA)


def stage_split(job: Job, number: int) -> Iterator[tuple[int, int, str, bytes]]:
    """Read one split and yield (split, bucket, table, payload); the events come last, in a row without a name."""
    files, staged = job.splits[number], job.staged
    report: dict[str, Any] = {"events": [], "tables": {}, "schemas": {}, "crashed": False}
    with engine.open_engine(memory=job.memory, threads=1) as con:
        try:
            for event in staged.stage(files, con, job.among) if staged else job.reader.read(files, con):
                report["events"].append([type(event).__name__, *astuple(event)])
        except (EhrreadyError, MemoryError):
            raise
        except Exception as error:
            if engine.lacks(error):
                raise
            report["crashed"] = True
        there = {row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        for name in ALL:
            for table in _chunks(con, f'SELECT * FROM "{name}"'):
                report["tables"][name] = report["tables"].get(name, 0) + table.num_rows
                yield number, 0, name, _packed(table)
        for name in (*staged.kept, *staged.meets) if staged else ():
            if name not in there:
                continue
            report["schemas"][name] = con.sql(f'SELECT * FROM "{name}" LIMIT 0').to_arrow_table().schema.serialize().to_pybytes().hex()
            keys: tuple[str | None, ...] = staged.meets.get(name, (None,)) if staged else (None,)
            for place, key in enumerate(keys):
                for bucket in range(job.buckets if key else 1):
                    # a row that meets others under two keys is in two buckets
                    where = f" WHERE {key} IS NOT NULL AND hash({key}) % {job.buckets} = {bucket}" if key else ""
                    where += "".join(f" AND ({key}) IS DISTINCT FROM ({other}) AND ({other} IS NULL OR hash({other}) % {job.buckets} <> {bucket})"
                                     for other in keys[:place])  # fmt: skip
                    for table in _chunks(con, f'SELECT * FROM "{name}"{where}'):
                        report["tables"][name] = report["tables"].get(name, 0) + table.num_rows
                        yield number, bucket, name, _packed(table)
    yield number, 0, _EVENTS, orjson.dumps(report)


def _chunks(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    con.execute("SELECT 1").fetchall()  # a reader may have left a result that it did not read to its end
    for batch in con.sql(query).to_arrow_reader(_CHUNK_ROWS):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return cast(bytes, sink.getvalue().to_pybytes())


def unpacked(payload: bytes, shift: int) -> pa.Table:
    """Return a table of a payload, its records numbered on from those of the parts before it."""
    table = pa.ipc.open_stream(payload).read_all()
    if not shift or "record" not in table.column_names:
        return table
    import numpy as np

    mask = (1 << ENTRY_BIT) - 1
    record = table.column("record").to_numpy().astype(np.int64)
    moved = (record >> POSITION_BITS << POSITION_BITS) | ((record + (shift << PLACE_BITS)) & mask)
    for name, values in (("record", moved), ("message", moved >> PLACE_BITS)):
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, pa.chunked_array([pa.array(values)]))
    return table


# --- on the driver ---------------------------------------------------------------------------------------------------


def book(job: Job, told: Mapping[int, dict[str, Any]], ledger: Ledger) -> dict[int, int]:
    """Book the events of all splits as one reading would; returns by how many numbers a split's records are moved."""
    shifts: dict[int, int] = {}
    cut: dict[int, _Cut] = {}
    for number, files in enumerate(job.splits):
        events = [_KINDS[kind](*values) for kind, *values in told[number]["events"]]
        if told[number]["crashed"]:
            ledger.crashed(job.reader.format)
            events += [Ended(file.number, "unreadable") for file in files]
        if files[0].start or files[0].stop is not None:
            file = cut.setdefault(files[0].number, _Cut(files[0].kind == "messages"))
            shifts[number] = file.messages + file.further
            events = list(file.events(events))
        for event in events:
            ledger.add(event)
    for file in cut.values():
        if file.ends:
            ledger.add(hl7v2.ended(file.ends))
    return shifts


@dataclass(slots=True)
class _Cut:
    """What is known of a file that is read in parts, one after the other."""

    numbers: bool  # its records are numbered by the parts before (messages), not by a count of lines beforehand
    messages: int = 0
    further: int = 0  # numbers that long messages took beside their own
    bytes: int = 0
    junk: bool = False
    ends: list[Ended] = field(default_factory=list)

    def events(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events of the next part, as if the file were read in one go."""
        before = self.messages
        for event in events:
            match event:
                case Rejected(reason="no-msh"):  # told once a file
                    yield Read(event.file, -1) if self.junk else event
                    self.messages -= self.numbers
                    self.junk = True
                case Rejected():
                    yield replace(event, position=event.position + before) if event.position else event
                case Read(n=n):
                    self.messages += n if self.numbers else 0
                    yield event
                case Ended() if self.numbers:
                    self.further += hl7v2.further(event)
                    self.ends.append(event)
                case Ended():
                    self.bytes += event.bytes or 0
                    yield replace(event, bytes=None if event.bytes is None else self.bytes)


def _canonical(name: str) -> pa.Schema:
    return ALL[name]


def _unpack(con: Connection, shifts: Mapping[int, int], names: Iterable[str], schema_of: Callable[[str], pa.Schema]) -> None:
    """Append the payloads of some tables to the tables of the run."""
    from pyspark.sql.pandas.types import from_arrow_schema

    for name in sorted(names):
        schema = _plain(schema_of(name))

        def task(batches: Iterator[pa.RecordBatch], schema: pa.Schema = schema) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for split, payload in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    yield from unpacked(payload, shifts.get(split, 0)).cast(schema).to_batches()

        raw = con.tables.frames[_RAW_TABLE]
        frame = raw.where(raw["name"] == name).select("split", "payload").mapInArrow(task, from_arrow_schema(schema))
        con.tables.append(name, frame)


def _finish(con: Connection, job: Job, shifts: Mapping[int, int], names: set[str], schemas: Mapping[str, pa.Schema]) -> None:
    """Run the reader's ``finish`` on every bucket of what waits, and ``resolve`` on all tables."""
    reader = job.staged
    if reader is None:
        return
    waiting = sorted(names & set(reader.meets))
    if waiting:

        def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            rows = (tuple(row.values()) for batch in batches for row in batch.to_pylist())
            yield from _quietly(map(_row, finish_bucket(job, rows, shifts)))

        raw = con.tables.frames[_RAW_TABLE]
        mine = raw.where(raw["name"].isin(waiting)).repartition(job.buckets, "bucket")
        done = mine.mapInArrow(task, _RAW)
        before = con.tables.frames[_RAW_TABLE]
        con.tables.put("ehrready_finished", done)
        made = {row[0] for row in con.execute("SELECT DISTINCT name FROM ehrready_finished").fetchall()}
        con.tables.put(_RAW_TABLE, con.tables.frames["ehrready_finished"], keep=False)
        _unpack(con, {}, made, _canonical)
        con.tables.put(_RAW_TABLE, before, keep=False)
        con.tables.drop("ehrready_finished")
    for name in reader.kept:
        if name in schemas:
            con.tables.drop(name)
            _unpack(con, shifts, [name], schemas.__getitem__)
    reader.resolve(cast("duckdb.DuckDBPyConnection", con))
    for name in reader.kept:
        if name != "fhir_sample":
            con.tables.drop(name)


def finish_bucket(
    job: Job, rows: Iterable[tuple[int, int, str, bytes]], shifts: Mapping[int, int]
) -> Iterator[tuple[int, int, str, bytes]]:
    """Let the reader finish what waits in one partition."""
    reader = job.staged
    if reader is None:
        raise AssertionError("only a reader that stages has something to finish")
    with engine.open_engine(memory=job.memory, threads=1) as con:
        for _ in reader.stage((), con):
            pass  # makes the macros and staging tables
        any_rows = False
        for split, _, name, payload in rows:
            any_rows = True
            con.register("_payload", unpacked(payload, shifts.get(split, 0)))
            there = con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchone()
            con.execute(
                f'INSERT INTO "{name}" SELECT * FROM _payload' if there else f'CREATE TEMP TABLE "{name}" AS SELECT * FROM _payload'
            )
            con.unregister("_payload")
        if not any_rows:
            return
        reader.finish(con)
        for name in ALL:
            for table in _chunks(con, f'SELECT * FROM "{name}"'):
                yield 0, 0, name, _packed(table)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema in types that Spark has."""
    text = (pa.large_string(), pa.string_view())
    return pa.schema([pa.field(f.name, pa.string() if f.type in text else f.type) for f in schema])
