"""Parts of large files that several tasks read: byte ranges cut where a record begins.

Only plain files of lines (NDJSON) and of messages (HL7v2) can be cut; a compressed file, a Bundle, a CSV or a Parquet file is
read by one task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from ehrready.readers.base import SourceFile

_CHUNK = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_WIDE = (b"\xff\xfe", b"\xfe\xff")
#: A message begins at the MSH after a line end, or at the byte that opens its MLLP frame.
_MESSAGE = re.compile(rb"(?:\x0b|(?<=[\r\n\x1c]))(?=MSH\|\^~\\&)")
_AHEAD = 16
#: Not every web server gives parts of a file.
_WEB = ("http://", "https://")
_BUNDLE = b'"Bundle"'


@dataclass(frozen=True, slots=True)
class Lines:
    """What a part holds: line feeds, whether a line may be a Bundle, whether there is anything but white space."""

    feeds: int
    bundle: bool
    blank: bool


def cut(file: SourceFile, size: int) -> list[SourceFile]:
    """Return the parts of a file, each of about ``size`` bytes; the file itself when it is small or cannot be cut."""
    if file.kind not in {"ndjson", "messages"} or file.size < 2 * size or str(file.path).startswith(_WEB):
        return [file]
    try:
        with file.path.open("rb") as raw:
            head = raw.read(4)
            if head.startswith(_COMPRESSED) or head[:2] in _WIDE or b"\0" in head:
                return [file]
            starts = [0]
            for wanted in range(size, file.size - size // 2, size):
                if wanted > starts[-1]:
                    raw.seek(wanted - 1)
                    border = _border(raw, wanted - 1, lines=file.kind == "ndjson")
                    if border is None or border >= file.size:
                        break
                    starts.append(border)
    except OSError:
        return [file]
    stops = [*starts[1:], None]
    return [replace(file, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)] if len(starts) > 1 else [file]


def _border(raw: BinaryIO, at: int, *, lines: bool) -> int | None:
    """Return where the first record begins behind the stream's place ``at``."""
    data = b""
    while chunk := raw.read(_CHUNK):
        data += chunk
        if lines:
            if (found := data.find(b"\n")) >= 0:
                return at + found + 1
            at, data = at + len(data), b""
        else:
            if match := _MESSAGE.search(data):
                return at + match.start()
            at, data = at + max(len(data) - _AHEAD, 0), data[-_AHEAD:]
    return None


def survey(part: SourceFile) -> Lines:
    """Count what :func:`numbered` has to know of a part of an NDJSON file; raises OSError."""
    feeds, bundle, blank, tail = 0, False, True, b""
    with part.path.open("rb") as raw:
        raw.seek(part.start)
        left = (part.size if part.stop is None else part.stop) - part.start
        while left > 0 and (data := raw.read(min(16 * _CHUNK, left))):
            left -= len(data)
            feeds += data.count(b"\n")
            bundle = bundle or _BUNDLE in tail + data
            blank = blank and not data.strip()
            tail = data[-len(_BUNDLE) :]
    return Lines(feeds, bundle, blank)


def numbered(parts: Sequence[SourceFile], found: Sequence[Lines]) -> list[SourceFile]:
    """Return the parts of one file with the number of their first line; the file whole where its numbers cannot be told apart.

    Entries of Bundles are numbered through the file, and a file that begins with nothing may be empty.
    """
    if any(lines.bundle for lines in found) or found[0].blank:
        return [replace(parts[0], start=0, stop=None)]
    first, made = 1, []
    for part, lines in zip(parts, found, strict=True):
        made.append(replace(part, first=first))
        first += lines.feeds
    return made


def grouped(files: Sequence[SourceFile], size: int, cost: int, apart: bool) -> Iterator[list[SourceFile]]:
    """Yield files and parts in groups of about ``size`` bytes, a file counting ``cost`` more; ``apart`` keeps kinds apart."""
    group: list[SourceFile] = []
    have = 0
    for file in files:
        mine = (file.size if file.stop is None else file.stop) - file.start + cost
        alone = any(one.start or one.stop is not None for one in (file, *group[:1]))
        if group and (alone or have + mine > size or (apart and file.kind != group[0].kind)):
            yield group
            group, have = [], 0
        group.append(file)
        have += mine
    if group:
        yield group
