"""The lines of a block of HL7v2, by their places in its bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.readers.arrays import Integers, integers, numbers, places_of, slices


class Lines:
    """The lines of a block: where each begins and ends."""

    def __init__(self, data: bytes) -> None:
        self.data, self.bytes = data, np.frombuffer(data, np.uint8)
        breaks = places_of(self.bytes, 0x0D).astype(np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])
        self.ends = np.append(breaks, len(data))
        self.escapes = places_of(self.bytes, 0x5C).astype(np.int64)

    def neat(self) -> bool:
        """Say whether no header is in the middle of a line, or behind a byte order mark or spaces (or may be)."""
        if not self.data:
            return True
        first = self.bytes[np.minimum(self.starts, len(self.bytes) - 1)]
        if np.isin(first, (0x20, 0x09, 0xEF)).any():
            return False
        inside = self.escapes[self.escapes >= self.starts[self.of(self.escapes)] + 7]  # MSH|^~ before it does not begin the line
        return not np.logical_and.reduce([self.bytes[inside - 6 + i] == byte for i, byte in enumerate(b"MSH|^~")]).any()

    def prefixes(self) -> tuple[Integers, list[bytes]]:
        """Return the first four bytes of each line as an index into the list of different ones."""
        key = np.zeros(len(self.starts), np.int64)
        for i in range(4 * bool(self.data)):
            at = self.starts + i
            key |= np.where(at < self.ends, self.bytes[np.minimum(at, len(self.bytes) - 1)], 0).astype(np.int64) << 8 * i
        encoded = pc.dictionary_encode(integers(key))
        # no byte of a block in one form is 0
        return numbers(encoded.indices).astype(np.int64), [n.to_bytes(4, "little").rstrip(b"\0") for n in encoded.dictionary.to_pylist()]

    def texts(self, which: Integers, most: int | None = None) -> pa.Array:
        """Return some lines, in any order, or so many bytes of each."""
        starts, ends = self.starts[which], self.ends[which]
        return slices(self.data, starts, ends if most is None else np.minimum(ends, starts + most))

    def of(self, places: Integers) -> Integers:
        """Return the line of each place in the block."""
        return np.searchsorted(self.starts, places, "right") - 1

    def escaped(self, headers: np.typing.NDArray[np.bool_]) -> np.typing.NDArray[np.bool_]:
        """Say which lines have an escape character, beside the one that a header declares."""
        found: np.typing.NDArray[np.bool_] = np.bincount(self.of(self.escapes), minlength=len(self.starts)) > headers
        return found
