"""From bytes to HL7v2 segments: character sets, separators, frames and line ends made one form.

Whole blocks go through ``bytes.translate``; NumPy says where lines are and which line is what.  Only a message that is
special (other separators, bytes that are not UTF-8, line breaks inside a field) is rewritten in Python, into a
message with the standard separators, so that one set of SQL reads them all.
Source: HL7 v2.8.2 chapter 2 (2.5 message construction, 2.7 escapes, 2.10.3 batches, 2.14.9 MSH), MLLP release 1.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.readers.arrays import Integers, numbers, places_of, strings
from ehrready.readers.hl7v2_lines import Lines

#: Every line end and MLLP byte (0x0b, 0x1c) becomes CR; other control bytes become a space: the canonical tables
#: use 0x01 as a mark, this module the others.  Tab stays; ESC is kept for ISO 2022 (``_special``).
ONE_FORM = bytes(0x0D if byte in b"\n\r\x0b\x1c" else 0x20 if byte < 0x20 and byte not in b"\t\x1b" else byte for byte in range(256))
_PIECE, _REPAIRED = b"\x1e", b"\x1d"  # lines of our own, impossible in data of that form
_STANDARD = re.compile(rb"MSH\|\^~\\&#?(\||$)")
#: Where a message begins, in one form.
BORDER = re.compile(rb"(?:^|\r)(?=MSH(?![A-Za-z0-9 \t]))")
#: A message header in the middle of a line: the carriage return before it was lost.
_GLUED = re.compile(rb"(?<![\r\xbf])(?=MSH\|\^~\\&)")
_INDENTED = re.compile(rb"\r[ \t]+(?=MSH(?![A-Za-z0-9 \t]))")
_BLANK, _MARK, _MESSAGE, _BATCH, _SEGMENT, _OTHER, _CHARSET = range(7)
_SEPARATORS = "|^~\\&"
_ESCAPES = dict(zip(_SEPARATORS, "FSRET", strict=True))
_SEQUENCE = r"[FSTREP]|[HN]|\.[^{0}]*|[XZCM][0-9A-Za-z]*"
_LETTERS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", "P": "#"}
#: What stands for an escaped character until a segment is split: a control character, and what it means.
ESCAPED = {chr(0x11 + i): character for i, character in enumerate(_LETTERS.values())}
_BOM = b"\xef\xbb\xbf"
#: MSH-18 (HL7 table 0211) to Python's codecs; 8859/n and Windows pages by pattern.
_CODECS = {
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp_2",
    "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "CNS 11643-1992": "big5",
    "BIG-5": "big5",
}
_PAGES = re.compile(r"(?:ISO[ _-]?)?8859[/ _-]([1-9]|10|11|13|14|15|16)|(?:WINDOWS|CP)[ _-]?(125[0-8])")


class Piece(NamedTuple):
    """Whole messages of one file, in one form (``ONE_FORM``), UTF-8 or not; ``file`` is its number."""

    file: int
    data: bytes


@dataclass(slots=True)
class Block:
    """The segments of some pieces.

    A segment lies in ``data`` between ``starts`` and ``ends``.  All arrays of segments have the same length; ``message`` counts messages
    from 0 in the block, ``place`` the segments of a message from 1, ``kind`` indexes ``kinds`` (``PID``).  A message has its ``piece`` and
    its place in it (from 0).  ``junk`` are pieces with text outside of any message, ``batches`` the batch segments by piece,
    ``bad`` and ``repaired`` messages without usable separators and with bytes that no declared set explains; ``escapes`` are the marks
    (``ESCAPED``) in its segments.
    """

    data: bytes
    starts: Integers
    ends: Integers
    message: Integers
    place: Integers
    kind: Integers
    kinds: list[str]
    piece_of: Integers
    place_in_piece: Integers
    junk: set[int]
    batches: list[tuple[int, str]]
    bad: list[int]
    repaired: Integers
    escapes: str


def border(data: bytes) -> int:
    """Return where the last message of a block in one form begins (at the CR before it), or -1."""
    end = len(data)
    while (found := data.rfind(b"\rMSH", 0, end)) >= 0:
        if found + 4 < len(data) and _separates(data[found + 4 : found + 5]):
            return found
        end = found + 3
    return -1


def split(pieces: Sequence[Piece], wanted: Collection[str]) -> Block:
    """Split pieces into segments, of which the ``wanted`` ones are kept; never fails, whatever the bytes are."""
    lines = _lines(pieces)
    data = lines.data
    codes, prefixes = lines.prefixes()
    what = np.array([_classify(prefix) for prefix in prefixes], np.int8)[codes]
    starts = np.isin(what, (_MARK, _MESSAGE, _BATCH))
    order = np.arange(len(what))
    owner = np.maximum.accumulate(np.where(starts, order, 0))
    inside = (what[owner] == _MESSAGE) & (what != _BLANK)
    message = np.cumsum(what == _MESSAGE) - 1
    piece = np.cumsum(what == _MARK) - 1
    piece_of = piece[what == _MESSAGE]
    repaired = np.unique(message[inside & (what == _CHARSET)])
    inside &= what != _CHARSET
    special = _special(lines, what, inside, message, len(piece_of))
    plain, odd = order[inside & ~special[message]], order[inside & special[message]]
    bad: list[int] = []
    rewritten = list(_rewritten(lines.texts(odd).to_pylist(), message[odd].tolist(), bad)) if len(odd) else []
    kinds = sorted(wanted)
    number = {name: i for i, name in enumerate(kinds)}
    kind_of = np.array([number.get(prefix[:3].decode("latin-1"), -1) for prefix in prefixes], np.int64)
    kind = np.concatenate([kind_of[codes[plain]], np.array([number.get(t[:3], -1) for _, t in rewritten], np.int64)])
    owners = np.concatenate([message[plain], np.array([m for m, _ in rewritten], np.int64)])
    count = np.arange(len(owners))
    place = count - np.maximum.accumulate(np.where(np.diff(owners, prepend=-1) != 0, count, 0)) + 1
    kept = plain[kind[: len(plain)] >= 0]
    marked = np.flatnonzero(lines.escaped(what == _MESSAGE)[kept])
    # segments that are not as they were read lie behind the others
    more = strings([text.encode() for _, text in rewritten if text[:3] in number]).cast(pa.large_string())
    segments, escapes = _marked(pa.concat_arrays([lines.texts(kept[marked]), more]))
    texts = segments.cast(pa.large_binary()).to_pylist()
    borders = len(data) + np.cumsum([0, *map(len, texts)], dtype=np.int64)
    begin, end = (np.concatenate([of[kept], at[len(marked) :]]) for of, at in ((lines.starts, borders[:-1]), (lines.ends, borders[1:])))
    begin[marked], end[marked] = borders[: len(marked)], borders[1 : len(marked) + 1]
    trailers = order[what == _BATCH]
    return Block(
        data=b"".join([data, *texts]) if texts else data,
        starts=begin,
        ends=end,
        message=owners[kind >= 0],
        place=place[kind >= 0],
        kind=kind[kind >= 0],
        kinds=kinds,
        piece_of=piece_of,
        place_in_piece=np.arange(len(piece_of)) - np.searchsorted(piece_of, np.arange(len(pieces)))[piece_of],
        junk=set(np.unique(piece[(what[owner] != _MESSAGE) & np.isin(what, (_SEGMENT, _OTHER))]).tolist()),
        batches=list(zip(piece[trailers].tolist(), lines.texts(trailers).to_pylist(), strict=True)),
        bad=bad,
        repaired=repaired,
        escapes=escapes,
    )


def _lines(pieces: Sequence[Piece]) -> Lines:
    """Join pieces in UTF-8, each after a line that marks its start, every header at the start of a line."""
    lines = Lines(b"\r".join(part for piece in pieces for part in (_PIECE, piece.data)))
    if not lines.neat():
        whole = [_unglued(piece.data) for piece in pieces]
        lines = Lines(_joined(whole))
    try:
        strings([lines.data]).cast(pa.large_string())
    except pa.ArrowInvalid:
        lines = Lines(_joined(b"".join(_repaired(_unglued(piece.data))) for piece in pieces))
    return lines


def _joined(parts: Iterable[bytes]) -> bytes:
    """Join pieces, each after a line that marks its start; byte order marks and spaces before an MSH go."""
    data = b"\r".join(line for part in parts for line in (_PIECE, part)).replace(b"\r" + _BOM, b"\r")
    return _INDENTED.sub(b"\r", data) if b" MSH" in data or b"\tMSH" in data else data


def _unglued(data: bytes) -> bytes:
    """Put a carriage return before message headers that lack one; the text of a field has its separators escaped."""
    headers = data.count(b"MSH|^~\\&")
    if headers <= data.count(b"\rMSH|^~\\&") + data.startswith(b"MSH|^~\\&"):
        return data
    return _GLUED.sub(b"\r", data).removeprefix(b"\r")


def cut(data: bytes) -> int | None:
    """Return where the message that a file ends in the middle of begins; None when nothing says that it was cut.

    A file is cut when its last line has no end and is a piece of a segment's name, an MSH that ends before the message
    type (MSH-9) or an OBX that ends before its status (OBX-11, required since v2.3).  ``data`` is the end of a file
    in one form.  A cut anywhere else does not show.
    """
    start = data.rfind(b"\r") + 1
    line = data[start:]
    if re.fullmatch(rb"M|MS|MSH", line) or (line[:3] == b"MSH" and line.count(line[3:4]) < 9):
        return start
    if not re.fullmatch(rb"[A-Z][A-Z0-9]{0,2}", line) and not (line[:3] == b"OBX" and line.count(line[3:4]) < 11):
        return None
    return max(border(data), 0)


def _separates(mark: bytes) -> bool:
    """Say whether what follows the name of a header segment may be its separator (or nothing follows)."""
    return not mark.isalnum() and mark not in (b" ", b"\t")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _classify(prefix: bytes) -> int:
    """Say what a line is by its first four bytes, as if its separator were the standard one."""
    if not prefix.strip():
        return _BLANK
    if prefix in (_PIECE, _REPAIRED):
        return _MARK if prefix == _PIECE else _CHARSET
    name, separator = prefix[:3], prefix[3:]
    if name == b"MSH" and _separates(separator):
        return _MESSAGE
    if name in (b"FHS", b"BHS", b"BTS", b"FTS") and _separates(separator):
        return _BATCH
    return _SEGMENT if separator == b"|" and re.fullmatch(rb"[A-Z][A-Z0-9]{2}", name) else _OTHER


def _special(
    lines: Lines, what: np.typing.NDArray[np.int8], inside: np.typing.NDArray[np.bool_], message: Integers, n: int
) -> np.typing.NDArray[np.bool_]:
    """Mark the messages that need rewriting: other separators, lines that are no segment, ISO 2022 escapes."""
    special = np.zeros(max(n, 1), np.bool_)
    headers = np.flatnonzero(what == _MESSAGE)
    encoded = lines.texts(headers, 10).cast(pa.large_binary()).dictionary_encode()
    standard = np.array([bool(_STANDARD.match(prefix)) for prefix in encoded.dictionary.to_pylist()], np.bool_)
    if len(headers):
        special[message[headers]] = ~standard[numbers(encoded.indices)]
    special[message[inside & (what == _OTHER)]] = True
    if b"\x1b" in lines.data:
        escaped = np.unique(lines.of(places_of(lines.bytes, 0x1B).astype(np.int64)))
        special[message[escaped[inside[escaped]]]] = True
    return special


def _marked(segments: pa.Array) -> tuple[pa.Array, str]:
    """Put one control character (``ESCAPED``) for every escape of a character; return which ones there are."""
    has = pc.match_substring(segments, "\\")
    found = segments.filter(has)
    sequence = _SEQUENCE.format("\\\\")
    texts = pc.replace_substring_regex(found, rf"\\({sequence})\\", "\x02\\1\x03")
    escapes = ""
    for mark, letter in zip(ESCAPED, _LETTERS, strict=True):
        changed = pc.replace_substring(texts, f"\x02{letter}\x03", mark)
        if not changed.equals(texts):
            escapes, texts = escapes + mark, changed
    for mark in ("\x02", "\x03"):
        texts = pc.replace_substring(texts, mark, "\\")
    return (pc.replace_with_mask(segments, has, texts) if escapes else segments), escapes


def _rewritten(lines: list[str], messages: list[int], bad: list[int]) -> Iterator[tuple[int, str]]:
    """Yield (message, segment) of special messages in the standard form; note the unusable ones in ``bad``."""
    start = 0
    for end in range(1, len(lines) + 1):
        if end < len(lines) and messages[end] == messages[start]:
            continue
        if (segments := _rewrite(lines[start:end])) is None:
            bad.append(messages[start])
        else:
            yield from ((messages[start], segment) for segment in segments)
        start = end


def separators(header: str) -> tuple[str, str, str, str, str] | None:
    """Return the field, component, repetition, escape and subcomponent separators of an MSH segment.

    A separator that MSH-2 leaves out has its default value, or is ``""`` when something else has it.  None when
    they cannot separate: missing, letters, digits, spaces, or one character with two meanings.  MSH-2 with its
    backslash doubled (written by software that escaped it once too often) means the single one.
    """
    mark = header[3:4]
    if not mark or mark.isalnum() or mark.isspace():
        return None
    declared = header[4:].split(mark, 1)[0]
    if declared[2:4] == "\\\\" and len(declared) > 4:
        declared = declared[:3] + declared[4:]
    declared = declared[:4]
    given = [mark, *declared]
    if len(set(given)) < len(given) or any(c.isalnum() or c.isspace() for c in given):
        return None
    rest = ["" if default in given else default for default in _SEPARATORS[len(given) :]]
    first, component, repetition, escape, sub = given + rest
    return first, component, repetition, escape, sub


def _rewrite(lines: list[str]) -> list[str] | None:
    """Return the segments of a message with standard separators and line breaks inside fields as they were."""
    if (used := separators(lines[0])) is None:
        return None
    if any("\x1b" in line for line in lines):
        lines = _iso2022(lines, used[0])
    begins = re.compile(rf"[ \t]*(?!MSH)[A-Z][A-Z0-9]{{2}}{re.escape(used[0])}")
    found = [[lines[0]]]
    for line in lines[1:]:
        if begins.match(line):
            found.append([line.lstrip(" \t")])
        else:
            found[-1].append(line)
    segments = ["\n".join(parts) for parts in found]  # an embedded document has many lines: put together once
    if "".join(used) != _SEPARATORS:
        header = segments[0]
        rest = header[4:].partition(used[0])[2]
        standard = [_translate(segment, used) for segment in [rest, *segments[1:]]]
        return ["MSH|^~\\&|" + standard[0], *standard[1:]]
    return segments


def _translate(text: str, used: tuple[str, str, str, str, str]) -> str:
    """Write a segment with the standard separators; what was data and now would separate is escaped."""
    escape = used[3]
    data = {letter: chr(4 + i) for i, letter in enumerate("FSRET")}  # an escape means the message's own separator
    if escape:
        quoted = re.escape(escape)
        sequence = f"{quoted}({_SEQUENCE.format(quoted)}){quoted}"
        text = re.sub(sequence, lambda found: data.get(found[1], f"\x02{found[1]}\x02"), text)
    meant = {c: f"\x02{letter}\x02" for c, letter in _ESCAPES.items()}
    table = {ord(c): mark for c, mark in meant.items()}
    table |= {ord(c): standard for c, standard in zip(used, _SEPARATORS, strict=True) if c and c != escape}
    if escape:
        table[ord(escape)] = meant.get(escape, escape)
    table |= {ord(mark): meant.get(c, c) for mark, c in zip(data.values(), used, strict=True)}
    return text.translate(table).replace("\x02", "\\")


def _iso2022(lines: list[str], mark: str) -> list[str]:
    """Decode the 7-bit Japanese sets where MSH-18 declares them; other ESC bytes become spaces."""
    if _codec(lines[0].split(mark)) == "iso2022_jp_2":
        lines = [line.encode().decode("iso2022_jp_2", "replace") for line in lines]
    return [line.replace("\x1b", " ") for line in lines]


def _codec(fields: list[str]) -> str | None:
    """Return Python's codec for MSH-18 of a split MSH segment, or None when there is none to try."""
    names = fields[17].upper().split("~") if len(fields) > 17 else []
    for name in (name.strip() for name in names):
        if name in _CODECS:
            return _CODECS[name]
        if page := _PAGES.fullmatch(name):
            return f"iso8859_{page[1]}" if page[1] else f"cp{page[2]}"
    return None


def _repaired(data: bytes) -> Iterator[bytes]:
    """Yield the block with every message in UTF-8, a mark after those that no declared set explains."""
    starts = [0, *(found.end() for found in BORDER.finditer(data) if found.end()), len(data)]
    for start, end in itertools.pairwise(starts):
        part = data[start:end]
        if _is_utf8(part):
            yield part
            continue
        header = part.partition(b"\r")[0].decode("latin-1")
        try:
            yield part.decode(_codec(header.split(header[3:4] or "|")) or "ascii").encode()
        except UnicodeDecodeError:
            yield _western(part).encode() + b"\r" + _REPAIRED + b"\r"


def _western(data: bytes) -> str:
    """Decode bytes of no known set as Windows-1252, and what that lacks as ISO 8859-1."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
