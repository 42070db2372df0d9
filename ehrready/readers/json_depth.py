"""How deep a JSON text is nested, without parsing it: parsers differ in where they give up, and some crash there."""

from __future__ import annotations

import numpy as np

#: Levels of lists and objects that a record may have; FHIR's deepest real resources have about 20.
MAX_DEPTH = 500

#: A text of so many bytes is sure to have more brackets than levels: they are not counted first.
_LONG = 65_536
#: Brackets as what they add to the depth (an ``int8``), quotes as 2; nothing else is looked at.
_MARKS = bytes(1 if chr(byte) in "{[" else 255 if chr(byte) in "}]" else 2 for byte in range(256))
_REST = bytes(byte for byte in range(256) if byte not in b'"{}[]')


def too_deep(data: bytes) -> bool:
    """Whether valid JSON text is nested deeper than ``MAX_DEPTH``; brackets inside strings do not count."""
    if len(data) < _LONG and data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # in this order: what is left are the quotes of strings
    step = np.frombuffer(data.translate(_MARKS, _REST), np.int8)
    quote = step == 2
    outside = ~(np.bitwise_xor.accumulate(quote) | quote)
    return bool(np.cumsum(step * outside, dtype=np.int32).max(initial=0) > MAX_DEPTH)
