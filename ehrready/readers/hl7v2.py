"""The HL7v2 reader: messages of versions 2.1 to 2.8, one or many a file, in batches or MLLP frames.

A record is a message.  Blocks of messages are split into segments (``hl7v2_split``), whose fields become columns (``hl7v2_rows``) by SQL
generated from mappings/hl7v2.yaml (``hl7v2_sql``); small files share a block.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np

from ehrready import concepts
from ehrready.readers import hl7v2_concepts, hl7v2_mapping, hl7v2_people, hl7v2_rows, hl7v2_split, hl7v2_write
from ehrready.readers.ahead import Behind, ahead
from ehrready.readers.arrays import Integers
from ehrready.readers.base import Ended, Event, Read, Rejected, SourceFile
from ehrready.readers.blocks import BLOCK_BYTES
from ehrready.readers.hl7v2_mapping import mapping
from ehrready.readers.hl7v2_sql import PLACE_BITS
from ehrready.readers.streams import STREAM_ERRORS, consumed, open_part
from ehrready.tables import ENTRY_BIT, POSITION_BITS

#: Bytes of the longest message that is read.
LONGEST_MESSAGE = 256 * 1024 * 1024

_SUFFIX = re.compile(r"\.(hl7|hl7v2|er7|oru|adt|orm|omg|oml|mdm|vxu|siu|dft|bar|rde|mllp)(\.gz|\.zst)?$", re.IGNORECASE)
_START = re.compile(rb"(MSH|FHS|BHS)[^A-Za-z0-9\s]")
_WIDE = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_WIDE_START = re.compile(rb"(?:M\0S\0H\0|[FB]\0H\0S\0)|(\0M\0S\0H|\0[FB]\0H\0S)")
_LEADING = b"\xef\xbb\xbf\r \t"


@dataclass(slots=True)
class _File:
    """What is known of a file while it is read: messages so far, declared counts, text outside of messages."""

    number: int
    messages: int = 0
    further: int = 0  # numbers that long messages take beside their own (``_records``)
    junk: bool = False
    headers: int = 0
    batches: list[int] = field(default_factory=list)
    whole: int | None = None
    opened: bool = False
    closed: bool = False
    part: bool = False  # of a file that others read, too

    def declare(self, line: str) -> None:
        """Take note of a batch segment (BHS, BTS, FTS; FHS says nothing)."""
        name, count = line[:3], line[4:].split(line[3:4] or "|", 1)[0].strip()
        self.headers += name == "BHS"
        self.opened |= name in {"BHS", "FHS"}
        self.closed |= name in {"BTS", "FTS"}
        if count.isascii() and count.isdigit() and len(count) < 10:
            if name == "BTS":
                self.batches.append(int(count))
            elif name == "FTS":
                self.whole = int(count)

    def join(self, state: str) -> None:
        """Add what another part of the file has declared (``state``; nothing of a part that could not be read)."""
        if not state:
            return
        headers, batches, whole, opened, closed, _ = json.loads(state)
        self.headers += headers
        self.batches += batches
        self.whole = self.whole if whole is None else whole
        self.opened |= opened
        self.closed |= closed

    @property
    def state(self) -> str:
        """What a part of a file has declared, for the one who joins the parts."""
        return json.dumps([self.headers, self.batches, self.whole, self.opened, self.closed, self.further])

    @property
    def declared(self) -> int | None:
        """Messages as BTS-1 says; FTS-1 counts batches, unless there are none (v2.8.2 chapter 2.14.2, 2.14.5)."""
        if self.batches:
            return sum(self.batches) if len(self.batches) >= self.headers else None
        return None if self.headers else self.whole


@dataclass(slots=True)
class _End:
    """The end of a file: its status, and the reason why its last, cut message (if any) is rejected."""

    file: int
    status: str = "read"
    reason: str = ""
    bytes: int | None = None
    inside: bool = False  # the file ends in an open MLLP frame


class Hl7v2Reader:
    """Reader of HL7v2 messages in the vertical-bar encoding (ER7)."""

    format = "hl7v2"
    kept: tuple[str, ...] = ()
    #: whether nothing but this reader fills the tables of this run: then concepts stay numbers (ehrready.concepts)
    shared = False

    def recognise(self, path: Path, head: bytes) -> str:
        """Return ``messages`` for a file that starts with MSH, FHS or BHS, or is named like HL7v2 (``.hl7``).

        A file named so is claimed whatever it holds, except XML and JSON: then it is rejected and not skipped.
        """
        start = head.translate(hl7v2_split.ONE_FORM).lstrip(_LEADING)
        codec = _wide(head)
        wide = head[: len(head) // 2 * 2].decode(codec, "replace").lstrip("\ufeff\r\n\t \x0b").encode() if codec else b""
        if _START.match(start) or _START.match(wide):
            return "messages"
        return "messages" if _SUFFIX.search(path.name) and start[:1] not in (b"<", b"{", b"[") else ""

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
        """Read some of the files; patients and encounters wait in staging tables."""
        self._wording = concepts.Wording(hl7v2_concepts.PARSE)
        hl7v2_write.prepare(con, shared=self.shared)
        waiting: list[hl7v2_split.Piece | _End] = []
        known = {file.number: _File(file.number, part=bool(file.start) or file.stop is not None) for file in files}
        size = 0
        # what computes rows has a connection of its own: those of the block before are written on the first one meanwhile
        with contextlib.closing(con.cursor()) as computing, Behind[Event]() as behind:
            rows = hl7v2_rows.Extraction(computing, shared=self.shared)
            for item in ahead((item for file in files for item in _pieces(file)), 2):
                waiting.append(item)
                size += len(item.data) if isinstance(item, hl7v2_split.Piece) else 0
                if 2 * size >= BLOCK_BYTES:
                    yield from self._block(con, waiting, known, rows, behind)
                    waiting, size = [], 0
            yield from self._block(con, waiting, known, rows, behind)
            yield from behind.then(rows.rest, functools.partial(self._write, con, []))
            yield from behind.rest()
        self._wording.write(con, rest=True)
        if not self.shared:
            concepts.expand(con, hl7v2_concepts.layout())

    def _block(
        self,
        con: duckdb.DuckDBPyConnection,
        waiting: Sequence[hl7v2_split.Piece | _End],
        known: dict[int, _File],
        rows: hl7v2_rows.Extraction,
        behind: Behind[Event],
    ) -> Iterator[Event]:
        """Read the waiting pieces; their rows are computed and written beside the reading of the next ones."""
        pieces = [item for item in waiting if isinstance(item, hl7v2_split.Piece)]
        block = hl7v2_split.split(pieces, hl7v2_mapping.segments(mapping()))
        further = _further(block)
        events, bases = _events(waiting, block, further, known)
        files = np.array([piece.file for piece in pieces], np.int64)
        record = _records(block, files, np.array(bases, np.int64), further)
        segments = hl7v2_rows.Segments(block, record)
        yield from behind.then(functools.partial(rows.block, segments), functools.partial(self._write, con, events))

    def _write(self, con: duckdb.DuckDBPyConnection, events: list[Event], found: hl7v2_rows.Found) -> Iterator[Event]:
        """Write what a block says; its events are told then."""
        hl7v2_write.write(con, found, self._wording)
        yield from events

    @property
    def meets(self) -> Mapping[str, tuple[str, ...]]:
        """Return the staging tables of patients and visits, which many messages describe, and their keys."""
        return hl7v2_people.meets()

    def resolve(self, con: duckdb.DuckDBPyConnection) -> None:
        """Nothing is left to do when patients and visits are written."""

    def finish(self, con: duckdb.DuckDBPyConnection) -> None:
        """Reduce the staged patients and encounters to one row each."""
        hl7v2_write.finish(con, self._wording, shared=self.shared)

    def source_elements(self) -> dict[str, str]:
        """Return canonical element to field, e.g. ``condition.code`` to ``DG1-3``."""
        return hl7v2_mapping.source_elements(mapping())


def _wide(start: bytes) -> str:
    """Return the codec of a UTF-16 file, or ``""``."""
    if start[:2] in _WIDE:
        return _WIDE[start[:2]]
    if match := _WIDE_START.match(start):
        return "utf-16-be" if match[1] else "utf-16-le"
    return ""


def _chunks(stream: BinaryIO, end: _End) -> Iterator[bytes]:
    """Yield the bytes of a file in one form (``hl7v2_split.ONE_FORM``) and, but for old 8-bit sets, in UTF-8.

    Notes in ``end`` whether a file of MLLP frames ends inside of one.
    """
    data = stream.read(BLOCK_BYTES)
    framed = data[:1] == b"\x0b"
    if codec := _wide(data):
        decoder = codecs.getincrementaldecoder(codec)("replace")
        while data:
            yield decoder.decode(data).removeprefix("\ufeff").encode().translate(hl7v2_split.ONE_FORM)
            data = stream.read(BLOCK_BYTES)
        data = decoder.decode(b"", True).encode()
    while data:
        if framed and (mark := max(data.rfind(b"\x0b"), data.rfind(b"\x1c"))) >= 0:
            end.inside = data[mark] == 0x0B
        yield data.translate(hl7v2_split.ONE_FORM)
        data = stream.read(BLOCK_BYTES)


def _pieces(file: SourceFile) -> Iterator[hl7v2_split.Piece | _End]:
    """Yield a file in pieces cut before an MSH, then how it ended."""
    end = _End(file.number)
    rest, skipping, empty = b"", False, True
    try:
        with open_part(file) as stream:
            for chunk in _chunks(stream, end):
                data = rest + chunk
                if empty:
                    data = data.lstrip(_LEADING)
                    empty = not data
                if skipping:
                    if not (found := hl7v2_split.BORDER.search(data)):
                        rest = data[-4:]
                        continue
                    data, skipping = data[found.end() :], False
                if (cut := hl7v2_split.border(data)) > 0:
                    yield hl7v2_split.Piece(file.number, data[:cut])
                rest = data[max(cut, 0) :]
                if len(rest) > LONGEST_MESSAGE:
                    yield _End(file.number, "", "too-large")
                    rest, skipping = b"", True
            end.bytes = consumed(stream)
    except STREAM_ERRORS as error:
        end.reason = _reason(error)
        end.status = "unreadable" if empty else "truncated"
    else:
        if empty:
            end.status, end.reason = "unreadable", "empty"
        elif not skipping:
            lost = max(hl7v2_split.border(rest), 0) if end.inside else hl7v2_split.cut(rest)
            if lost is not None:
                end.status, end.reason, rest = "truncated", "truncated", rest[:lost]
            yield hl7v2_split.Piece(file.number, rest)
    yield end


def _reason(error: BaseException) -> str:
    """Return the reason code of a stream that broke; the message that it broke in is lost."""
    if isinstance(error, EOFError):
        return "truncated"
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return "unreadable"
    return "compression"


def _events(
    waiting: Sequence[hl7v2_split.Piece | _End], block: hl7v2_split.Block, further: Integers, known: dict[int, _File]
) -> tuple[list[Event], list[int]]:
    """Return the events of the waiting pieces in the order of the files, and the numbers of messages of the file before each piece."""
    counts = np.bincount(block.piece_of, minlength=len(waiting)).tolist()
    more = np.bincount(block.piece_of, further, minlength=len(waiting)).astype(np.int64).tolist()
    pieces = [item for item in waiting if isinstance(item, hl7v2_split.Piece)]
    for piece, line in block.batches:
        known[pieces[piece].file].declare(line)
    bad: dict[int, list[int]] = {}
    for message in sorted(block.bad):
        bad.setdefault(int(block.piece_of[message]), []).append(int(block.place_in_piece[message]))
    events: list[Event] = []
    bases: list[int] = []
    for item in waiting:
        file = known[item.file]
        if isinstance(item, _End):
            events += _ended(item, file)
            continue
        number = len(bases)
        bases.append(file.messages + file.further)
        if number in block.junk and not file.junk:
            file.junk = True
            events += [Read(file.number, 1), Rejected(file.number, 0, "no-msh")]
        if counts[number]:
            events.append(Read(file.number, counts[number]))
        events += [Rejected(file.number, file.messages + place + 1, "bad-msh") for place in bad.get(number, [])]
        file.messages += counts[number]
        file.further += more[number]
    return events, bases


def _ended(end: _End, file: _File) -> list[Event]:
    """Return the events of a file's end, or (status ``""``) of a message that was passed over."""
    events: list[Event] = []
    if end.reason:
        lost = 0 if end.status == "unreadable" else file.messages + 1
        events += [Read(file.number, 1), Rejected(file.number, lost, end.reason)]
        file.messages += 1
    if end.status:
        if file.part:
            events.append(Ended(file.number, end.status, None, end.bytes, file.state))
        else:
            events.append(_closed(file, end.status, end.bytes))
    return events


def _closed(file: _File, status: str, size: int | None) -> Ended:
    unclosed = status == "read" and file.opened and not file.closed  # a batch without trailer
    return Ended(file.number, "truncated" if unclosed else status, file.declared, size)


def ended(parts: Sequence[Ended]) -> Ended:
    """Return how a file ended that was read in parts."""
    file = _File(parts[0].file)
    for part in parts:
        file.join(part.state)
    worst = next((status for status in ("unreadable", "truncated") if any(part.status == status for part in parts)), "read")
    return _closed(file, worst, sum(part.bytes or 0 for part in parts))


def further(part: Ended) -> int:
    """Return how many numbers long messages of a part took beside their own."""
    return int(json.loads(part.state)[-1]) if part.state else 0


def _further(block: hl7v2_split.Block) -> Integers:
    """Return of each message how many numbers it takes beside its own: one with more segments than a place can tell apart takes the next ones, too."""
    more = np.zeros(len(block.piece_of), np.int64)
    pages = block.place >> PLACE_BITS
    if pages.any():
        np.maximum.at(more, block.message, pages)
    return more


def _records(block: hl7v2_split.Block, files: Integers, bases: Integers, further: Integers) -> Integers:
    """Return the record of each segment: its file, message and place; ``bases`` are the numbers given in the file before each piece."""
    number = bases[block.piece_of] + block.place_in_piece + 1
    if further.any():
        before = np.cumsum(further) - further
        number += before - before[np.searchsorted(block.piece_of, block.piece_of)]
    position = ((number[block.message] + (block.place >> PLACE_BITS)) << PLACE_BITS) | (block.place & ((1 << PLACE_BITS) - 1))
    return (files[block.piece_of] << POSITION_BITS)[block.message] | (position & ((1 << ENTRY_BIT) - 1))
