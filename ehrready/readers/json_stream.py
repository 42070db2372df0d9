"""A JSON document larger than a block, cut into its elements as it is read: a Bundle's entries, a list's resources.

Nothing is parsed here.  NumPy finds quotes and brackets and adds them up to a depth; what lies between the borders of the
elements (the rest of the document, each element a mark in it) is kept and parsed strictly at the end, so that a document
is never taken for valid because its elements are.  Elements of a list that are neither objects nor lists stay there and are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import orjson

_MARKS = np.zeros(256, np.bool_)
_MARKS[list(b'"{}[]')] = True
_QUOTE, _BACKSLASH, _LIST, _CLOSE = ord('"'), ord("\\"), ord("["), (ord("}"), ord("]"))
_ENTRY = re.compile(rb'"entry"\s*:\s*$')
_BUNDLE = re.compile(rb'"resourceType"\s*:\s*"Bundle"')
#: The beginning of an entry that only a Bundle has (Bundle.entry; another resource with an ``entry`` is List, whose entries have an ``item``).
_OWN_ENTRY = re.compile(rb'\s*:\s*\[\s*\{\s*"(?:fullUrl|link|re(?:quest|source|sponse)|search)"\s*:')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SPACE = b" \t\r\n"
#: Stands for an element in the rest of a document: no byte of JSON, so that nothing in it is taken for one.
_ELEMENT = b"\x01"
_PAIR = _ELEMENT + b","
#: Backslashes before a quote that are counted one by one; more than these are looked for at once.
_FEW_BACKSLASHES = 16
#: What begins an element of a list that is neither an object nor a list.
_OTHER = re.compile(rb"[^\x01\[\], \t\r\n]")
#: Bytes of the rest of a document (its shell) that are kept.
_LONGEST_SHELL = 64 * 1024 * 1024


class BadDocument(Exception):
    """The document is no valid JSON, or more of it than ``_LONGEST_SHELL`` is outside of its elements."""


@dataclass(slots=True)
class Cutter:
    """Cuts a document that comes in pieces; ``shape`` is ``entries`` of a Bundle or the ``elements`` of a list."""

    shape: str
    shell: bytes = b""
    pending: bytes = b""  # what is read of an element that is still open
    depth: int = 0
    quoted: bool = False
    escaped: bool = False  # the last byte was a backslash that escapes
    inside: bool = False  # in the list of elements
    seen: int = field(default=0)  # lists of elements so far
    given: int = 0  # elements that were returned
    other: int = 0  # where the first element is (from 1) that is neither an object nor a list; 0: none so far

    @classmethod
    def of(cls, start: bytes) -> Cutter | None:
        """Return a cutter for a document that begins so, or None where its elements cannot be told before its end."""
        first = start.lstrip()[:1]
        if first == b"[":
            return cls("elements")
        head, found, after = start.partition(b'"entry"')
        if first != b"{" or not found:
            return None
        # keys may be sorted: then the type comes after the entries, and is looked at in the end
        return cls("entries") if _BUNDLE.search(head) or (_OWN_ENTRY.match(after) and _is_outermost(head)) else None

    @property
    def level(self) -> int:
        """How deep the list of elements is."""
        return 1 if self.shape == "elements" else 2

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece; returns the objects and lists among the elements that end in it.

        Raises BadDocument when too much is outside of them.
        """
        buffer = self.pending + data
        view = np.frombuffer(buffer, np.uint8)
        starts, ends, lists = self._borders(view, len(self.pending), buffer)
        self.pending = b""
        opened = len(starts) > len(ends)  # the last one goes on in the next piece
        cut = int(starts[-1]) if opened else len(buffer)
        whole = starts[: len(ends)]
        step = np.zeros(cut + 1, np.int8)
        step[whole + 1] += 1  # the first byte of an element stays, as its place
        step[ends + 1] -= 1
        keep = np.cumsum(step[:cut], dtype=np.int8) == 0
        rest = view[:cut].copy()
        rest[whole] = _ELEMENT[0]
        shell = rest[keep].tobytes()
        if shell.count(_ELEMENT) > len(whole):  # one of its own
            raise BadDocument
        if self.shape == "elements" and not self.other and (match := _OTHER.search(shell)):
            self.other = self.given + shell.count(_ELEMENT, 0, match.start()) + 1
        self.given += len(whole)
        self.pending = buffer[cut:] if opened else b""
        if not lists and self.inside:  # between elements there may be commas and spaces: a run of them is kept as its first two
            bare = shell.translate(None, _SPACE)
            if not bare.translate(None, _PAIR):  # else spaces may be what tells two values apart
                shell = bare or shell[:1]
            pair = shell[:2]
            if pair in (_PAIR, _PAIR[::-1]) and shell == (pair * (len(shell) // 2 + 1))[: len(shell)]:
                shell = pair[: 2 - len(shell) % 2]
        self.shell += shell
        if len(self.shell) > _LONGEST_SHELL:
            raise BadDocument
        return [buffer[a : b + 1] for a, b in zip(whole.tolist(), ends.tolist(), strict=True)]

    def _borders(self, view: np.typing.NDArray[np.uint8], known: int, buffer: bytes) -> tuple[_Places, _Places, bool]:
        """Return where elements start and end in the buffer, of which the first ``known`` bytes were looked at before."""
        new = view[known:]
        at = np.flatnonzero(_MARKS[new])
        mark = new[at]
        quotes = at[mark == _QUOTE]
        real = ~self._escapes(new, quotes)
        flips = np.zeros(len(at), np.uint8)
        flips[mark == _QUOTE] = real
        parity = (np.cumsum(flips, dtype=np.uint8) + self.quoted) & 1
        outside = (mark != _QUOTE) & (parity == 0)
        at, mark = at[outside] + known, mark[outside]
        closing = (mark == _CLOSE[0]) | (mark == _CLOSE[1])
        depth = self.depth + np.cumsum(np.where(closing, -1, 1))
        if len(parity):
            self.quoted = bool(parity[-1])
        level, inside = self.level, np.zeros(len(at), np.bool_)
        borders = np.flatnonzero((~closing & (depth == level) & (mark == _LIST)) | (closing & (depth == level - 1)))
        begin = 0 if self.inside else -1
        for i in borders.tolist():
            if closing[i]:
                if begin >= 0:
                    inside[begin:i] = True
                begin = -1
            elif self.shape == "elements" or (self.seen == 0 and self._is_entry(buffer, int(at[i]), known)):
                begin, self.seen = i + 1, self.seen + 1
        if begin >= 0:
            inside[begin:] = True
        self.inside = begin >= 0
        if len(depth):
            self.depth = int(depth[-1])
        starts, ends = at[inside & ~closing & (depth == level + 1)], at[inside & closing & (depth == level)]
        if known:  # the element that was open
            starts = np.concatenate([np.zeros(1, np.int64), starts])
        return starts, ends, bool(len(borders))

    def _is_entry(self, buffer: bytes, at: int, known: int) -> bool:
        before = buffer[max(at - 256, 0) : at]
        if at - known < 256 and not known:
            before = self.shell[-256:] + before
        return _ENTRY.search(before) is not None

    def _escapes(self, view: np.typing.NDArray[np.uint8], quotes: _Places) -> np.typing.NDArray[np.bool_]:
        """Say which quotes are escaped: after an odd number of backslashes."""
        count = np.zeros(len(quotes), np.int64)
        active = np.arange(len(quotes))
        place = quotes - 1
        for _ in range(_FEW_BACKSLASHES):
            active = active[(place[active] >= 0) & (view[np.maximum(place[active], 0)] == _BACKSLASH)]
            count[active] += 1
            place[active] -= 1
        for i in active.tolist():  # behind a long run
            start = int(quotes[i - 1]) + 1 if i else 0
            others = np.flatnonzero(view[start : quotes[i]] != _BACKSLASH)
            place[i] = start + int(others[-1]) if len(others) else start - 1
            count[i] = quotes[i] - 1 - place[i]
        odd: np.typing.NDArray[np.bool_] = count % 2 == 1
        if self.escaped and len(quotes):
            odd[0] ^= place[0] < 0  # its backslashes go back into the piece before
        tail = len(view.tobytes().rstrip(b"\\"))
        self.escaped = bool((len(view) - tail) % 2) ^ (self.escaped and tail == 0)
        return odd

    def finish(self) -> int | None:
        """Return how many elements of a whole list are neither objects nor lists, None of a document that is cut.

        Raises BadDocument when it is whole and no JSON.
        """
        if self.depth > 0 or self.quoted or self.pending:
            return None
        try:
            rest = orjson.loads(self.shell.replace(_ELEMENT, b"{}"))
        except orjson.JSONDecodeError:
            raise BadDocument from None
        if self.shape == "entries":
            if rest.get("resourceType") != "Bundle":
                raise BadDocument
            return 0
        return sum(not isinstance(one, dict) for one in rest)


_Places = np.typing.NDArray[np.int64]


def _is_outermost(head: bytes) -> bool:
    """Say whether what follows is a property of the document itself and of nothing in it."""
    outside = _STRING.sub(b"", head)
    return b'"' not in outside and outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]") == 1
