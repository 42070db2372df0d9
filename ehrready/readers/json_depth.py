"""How deep a JSON text is nested, without parsing it: parsers differ in where they give up, and some crash there."""

from __future__ import annotations

import numpy as np

#: Levels of lists and objects that a record may have; FHIR's deepest real resources have about 20.
MAX_DEPTH = 500

_REST = bytes(byte for byte in range(256) if byte not in b'"{}[]')


def too_deep(data: bytes) -> bool:
    """Whether valid JSON text is nested deeper than ``MAX_DEPTH``; brackets inside strings do not count."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # in this order: what is left are the quotes of strings
    marks = np.frombuffer(data.translate(None, _REST), np.uint8)
    quote = marks == 34
    inside = np.bitwise_xor.accumulate(quote)
    step = np.where((marks == 123) | (marks == 91), 1, -1)
    step[quote | inside] = 0
    return bool(np.cumsum(step).max(initial=0) > MAX_DEPTH)
