"""From files to blocks of text records: bytes are read in blocks, cut at record borders and split in Arrow.

Small files share a block, so that a folder of a thousand one-resource files costs a handful of SQL statements.
Lines whose bytes are not UTF-8 are taken out one by one; their neighbours stay.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.readers.arrays import BATCH_ROWS, integers, places_of, strings
from ehrready.readers.base import Ended, Read, Rejected, SourceFile
from ehrready.readers.json_depth import too_deep
from ehrready.readers.json_stream import BadDocument, Cutter
from ehrready.readers.streams import HEAD_BYTES, STREAM_ERRORS, TooLarge, consumed, open_part, open_stream

#: Bytes read at a time; a longer record makes a longer block.
BLOCK_BYTES = 32 * 1024 * 1024
_FEED, _SPACE = 0x0A, 0x20
#: Parts of a block that are left as they are; many small ones are made one.
MOST_PARTS = 16
#: Bytes of the longest line and of the longest document (decompressed) that are read.
LONGEST_LINE = 256 * 1024 * 1024
LONGEST_DOCUMENT = 1024 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of a document that is cut as it is read: ``shape`` as in ``json_stream.Cutter``; their places count from 1."""

    shape: str
    table: pa.Table


class TooLong(Exception):
    """A document is longer than ``LONGEST_DOCUMENT``."""


class Blocks:
    """Text records of many files as Arrow tables ``(file, pos int64; text large_string)``.

    Iterate over :meth:`lines` for line-delimited files or :meth:`documents` for one record a file; both yield
    tables and, between them, the events of the ledger (``Read`` counts what is in the tables and rejected
    here; the caller adds rejections of its own).  ``size``: bytes that are read at a time, instead of ``BLOCK_BYTES``.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size or BLOCK_BYTES
        self._parts: list[pa.Table] = []
        self._bytes = 0
        #: file → its last line, where that has no line feed: if it is broken, the file was cut
        self.unfinished: dict[int, int] = {}
        #: documents nested too deep
        self.deep: set[int] = set()

    def _push(self, file: int, first: int, data: bytes | memoryview, events: list[Read | Rejected | Ended]) -> int:
        """Split ``data`` (whole lines) and append its non-blank lines; book them as read.  Returns its line feeds."""
        try:
            lines, feeds = _lines(data)
            positions = integers(np.arange(first, first + len(lines)))
        except pa.ArrowInvalid:
            good: list[bytes] = []
            numbers: list[int] = []
            feeds = bytes(data).count(b"\n")
            for offset, line in enumerate(bytes(data).split(b"\n")):
                try:
                    line.decode("utf-8")
                    good.append(line)
                    numbers.append(first + offset)
                except UnicodeDecodeError:
                    events.append(Read(file, 1))
                    events.append(Rejected(file, first + offset, "encoding"))
            lines = strings(good).cast(pa.large_string())
            positions = integers(np.array(numbers))
        if _padded(lines):
            lines = pc.utf8_trim(lines, " \t\r\n\x0b\x0c")
            keep = pc.binary_length(lines).cast(pa.bool_())  # no scalar: pyarrow.scalar imports pandas too
            lines, positions = lines.filter(keep), positions.filter(keep)
        self._append(file, positions, lines, len(data), events)
        return feeds

    def _append(self, file: int, pos: pa.Array, text: pa.Array, size: int, events: list[Read | Rejected | Ended]) -> None:
        if len(text):
            events.append(Read(file, len(text)))
            files = integers(np.full(len(text), file))
            self._parts.append(pa.Table.from_arrays([files, pos, text], names=["file", "pos", "text"]))
            self._bytes += size

    def _flush(self, least: int) -> pa.Table | None:
        if not self._parts or self._bytes < least:
            return None
        table = pa.concat_tables(self._parts)
        table = table.combine_chunks() if len(self._parts) > MOST_PARTS else table
        self._parts, self._bytes = [], 0
        return pa.Table.from_batches(table.to_batches(max_chunksize=BATCH_ROWS), table.schema)

    def lines(self, files: list[SourceFile]) -> Iterator[pa.Table | Read | Rejected | Ended]:
        """Yield the lines of line-delimited files; blank lines are no records."""
        for file in files:
            events: list[Read | Rejected | Ended] = []
            seen, line, rest, skipping = bool(file.start), file.first, b"", False
            status, size = "read", None
            try:
                with open_part(file) as stream:
                    while True:
                        data = stream.read(self._size)
                        if not seen and data.startswith(_BOM):
                            data = data[3:]
                        seen = seen or bool(data[:HEAD_BYTES].strip() or data.strip())
                        if not data and rest.strip():
                            self.unfinished[file.number] = line
                        end = not data
                        if skipping and not end:  # what is left of a line that is too long
                            _, found, data = data.partition(b"\n")
                            skipping, line = not found, line + len(found)
                        block, rest = _cut(rest, data)
                        if len(rest) > LONGEST_LINE:
                            events += _too_long(file.number, line, block)
                            rest, skipping = b"", True
                        elif skipping:
                            rest = b""
                        for part in block:
                            line += self._push(file.number, line, part, events)
                        yield from events
                        events = []
                        if (table := self._flush(self._size)) is not None:
                            yield table
                        if end:
                            size = consumed(stream)
                            break
            except STREAM_ERRORS as error:
                yield from _broken(file.number, line, error, seen)
                status = "truncated" if seen else "unreadable"
            else:
                if not seen:
                    yield from _empty(file.number)
            yield Ended(file.number, status if seen else "unreadable", bytes=size)
        if (table := self._flush(0)) is not None:
            yield table

    def documents(self, files: list[SourceFile]) -> Iterator[pa.Table | Elements | Read | Rejected | Ended]:
        """Yield each file as one record at position 1; a Bundle or list longer than a block as its elements."""
        for file in files:
            events: list[Read | Rejected | Ended] = []
            status, size, cutter = "read", None, None
            try:
                with open_stream(file.path) as stream:
                    data = stream.read(min(BLOCK_BYTES, LONGEST_DOCUMENT) + 1).removeprefix(_BOM)
                    if len(data) > BLOCK_BYTES and (cutter := Cutter.of(data)):
                        yield from self._elements(file.number, cutter, data, stream)
                        continue
                    data += stream.read(max(LONGEST_DOCUMENT + 1 - len(data), 0))
                    more = stream.read(1)  # a broken stream says so to who reads on
                    size = consumed(stream)
                if more:
                    raise TooLong
                data.decode("utf-8")
            except TooLong:
                events += [Read(file.number, 1), Rejected(file.number, 1, "too-large")]
                status = "unreadable"
            except UnicodeDecodeError:
                events += [Read(file.number, 1), Rejected(file.number, 1, "encoding")]
                status = "unreadable"
            except STREAM_ERRORS as error:
                events += _broken(file.number, 1, error, False)
                status = "unreadable"
            else:
                if data.strip():
                    if too_deep(data):
                        self.deep.add(file.number)
                    row = strings([data]).cast(pa.large_string())
                    self._append(file.number, integers(np.array([1])), row, len(data), events)
                else:
                    events += _empty(file.number)
                    status = "unreadable"
            yield from events
            yield Ended(file.number, status, bytes=size)
            if (table := self._flush(self._size)) is not None:
                yield table
        if (table := self._flush(0)) is not None:
            yield table

    def _elements(self, file: int, cutter: Cutter, data: bytes, stream: BinaryIO) -> Iterator[Elements | Read | Rejected | Ended]:
        """Yield the elements of a long document; what comes before a break is read, the break is one rejected record."""
        done, reason, lost = 0, "", 0
        try:
            while data:
                found = cutter.feed(data)
                good = [(place, text) for place, text in enumerate(found, done + 1) if _is_text(text)] if not _are_text(found) else None
                texts = found if good is None else [text for _, text in good]
                places = np.arange(done + 1, done + 1 + len(found)) if good is None else np.array([place for place, _ in good], np.int64)
                done += len(found)
                if len(texts) < len(found):
                    lost += len(found) - len(texts)
                    yield Read(file, len(found) - len(texts))
                    yield Rejected(
                        file, int(np.setdiff1d(np.arange(done - len(found) + 1, done + 1), places)[0]), "encoding", len(found) - len(texts)
                    )
                if texts:
                    columns = [integers(np.full(len(texts), file)), integers(places), strings(texts).cast(pa.large_string())]
                    yield Elements(cutter.shape, pa.Table.from_arrays(columns, names=["file", "pos", "text"]))
                if len(cutter.pending) > LONGEST_LINE:
                    reason = "too-large"
                    break
                data = stream.read(self._size)
            else:
                others = cutter.finish()
                reason = "truncated" if others is None else ""
                if others:
                    yield from (Read(file, others), Rejected(file, cutter.other, "not-an-object", others))
        except BadDocument:
            reason = "invalid-json"
        except STREAM_ERRORS as error:
            yield from _broken(file, done + 1, error, True)
            yield Ended(file, "truncated", bytes=consumed(stream))
            return
        if reason:
            yield from (Read(file, 1), Rejected(file, done + 1, reason))
        yield Ended(file, "truncated" if reason or lost else "read", bytes=consumed(stream))


def _lines(data: bytes | memoryview) -> tuple[pa.Array, int]:
    """Return the lines of a text without copying it, each with its line feed (white space to JSON), and how many line feeds there are.

    Raises pyarrow.ArrowInvalid for what is not UTF-8.
    """
    strings([data]).cast(pa.large_string())
    values = np.frombuffer(data, np.uint8)
    feeds = places_of(values, _FEED)
    end = [len(values)] if len(values) and values[-1] != _FEED else []
    borders = np.concatenate([[0], feeds.astype(np.int64) + 1, end], dtype=np.int64, casting="unsafe")
    return pa.Array.from_buffers(pa.large_string(), len(borders) - 1, [None, pa.py_buffer(borders), pa.py_buffer(data)]), len(feeds)


def _padded(lines: pa.Array) -> bool:
    """Say whether a line of an Arrow array of large strings is blank, or begins or ends with what JSON does not take for white space."""
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, np.int64)[lines.offset : lines.offset + len(lines) + 1]
    starts, ends = ends[:-1], ends[1:]
    some = ends > starts
    if not some.all():
        return True
    text = np.frombuffer(data, np.uint8)
    last = text[np.maximum(ends - 1 - (text[ends - 1] == _FEED), starts)]
    # behind a vertical tab or a form feed may be a carriage return or spaces
    return bool((text[starts] <= _SPACE).any() or ((last <= _SPACE).any() and any(len(places_of(text, byte)) for byte in (0x0B, 0x0C))))


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _are_text(texts: list[bytes]) -> bool:
    """Say whether all are UTF-8; many at once, without a Python string of each."""
    try:
        strings(texts).cast(pa.large_string()) if texts else None
    except pa.ArrowInvalid:
        return False
    return True


def _cut(before: bytes, data: bytes) -> tuple[list[bytes | memoryview], bytes]:
    """Cut what was read behind the rest of a block after its last line feed: whole lines and the rest; without data that is all.

    The first line, which began in ``before``, is apart: nothing else is copied.
    """
    if not data:
        return [before] if before else [], b""
    end = data.rfind(b"\n") + 1
    if not end:
        return [], before + data
    first = data.find(b"\n") + 1 if before else 0
    return [part for part in (before + data[:first], memoryview(data)[first:end]) if part], data[end:]


def _too_long(file: int, line: int, block: Sequence[bytes | memoryview]) -> list[Read | Rejected | Ended]:
    """Return the events of a line longer than LONGEST_LINE, behind a block of whole lines."""
    return [Read(file, 1), Rejected(file, line + sum(bytes(part).count(b"\n") for part in block), "too-large")]


def _empty(file: int) -> list[Read | Rejected | Ended]:
    return [Read(file, 1), Rejected(file, 0, "empty")]


def _broken(file: int, line: int, error: BaseException, seen: bool) -> list[Read | Rejected | Ended]:
    """Return the events for a stream that broke: one rejected record, for what was lost after ``line``."""
    if isinstance(error, TooLarge):
        reason = "compression"
    elif isinstance(error, EOFError):
        reason = "truncated"
    elif isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        reason = "unreadable"
    else:
        reason = "compression"
    return [Read(file, 1), Rejected(file, line if seen else 0, reason)]
