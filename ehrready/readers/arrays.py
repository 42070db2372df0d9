"""Arrow arrays over NumPy ones and back, without what would import pandas (a second)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

#: Rows per Arrow batch: DuckDB scans the batches of a table in parallel.
BATCH_ROWS = 8192
#: Bytes that are looked at by one call, so that what it makes stays in the cache.
_PIECE = 1 << 18
#: One part in so many of a table is much of it.
MUCH = 4

Integers = np.typing.NDArray[np.int64]


def batched(table: pa.Table, rows: int = BATCH_ROWS) -> pa.Table:
    """Return a table in batches of so many rows: what DuckDB scans in parallel."""
    return pa.Table.from_batches(table.to_batches(max_chunksize=rows), table.schema)


def truths(values: np.typing.NDArray[np.bool_]) -> pa.Array:
    """Return a boolean Arrow array over a NumPy one, without ``pyarrow.array`` (see ``integers``)."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))])


def bits(values: pa.Array) -> np.typing.NDArray[np.bool_]:
    """Return the NumPy array of a boolean Arrow array without nulls."""
    packed = np.frombuffer(values.buffers()[1] or b"", np.uint8)
    return np.unpackbits(packed, count=values.offset + len(values), bitorder="little")[values.offset :].astype(np.bool_)


def integers(values: np.typing.NDArray[np.int64]) -> pa.Array:
    """Return an int64 Arrow array over a NumPy one (``pyarrow.array`` would import pandas: a second)."""
    values = np.ascontiguousarray(values, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def numbers(column: pa.Array | pa.ChunkedArray) -> np.typing.NDArray[Any]:
    """Return the NumPy array of a column of whole numbers without nulls, without ``to_numpy`` (see ``integers``)."""
    parts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        values = np.frombuffer(chunk.buffers()[1] or b"", np.dtype(f"i{column.type.byte_width}"))
        parts.append(values[chunk.offset : chunk.offset + len(chunk)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros(0, np.int64)])


def taken(column: pa.ChunkedArray, places: Integers) -> pa.ChunkedArray:
    """Return some rows of a column, by places in order (``take`` puts the chunks of a column together first: a copy of all texts)."""
    if len(places) == len(column):
        return column
    ends = np.cumsum([0, *map(len, column.chunks)])
    borders = np.searchsorted(places, ends)
    parts = [
        chunk.take(integers(places[a:b] - start))
        for chunk, start, a, b in zip(column.chunks, ends[:-1], borders[:-1], borders[1:], strict=True)
        if b > a
    ]
    return pa.chunked_array(parts, type=column.type)


def chosen_rows(table: pa.Table, chosen: np.typing.NDArray[np.bool_]) -> pa.Table:
    """Return some rows of a table: without a copy where they are all, or much of it in one piece (which keeps the whole alive)."""
    if chosen.all():
        return table
    places = np.flatnonzero(chosen)
    if MUCH * len(places) >= len(table) and places[-1] - places[0] == len(places) - 1:
        return table.slice(int(places[0]), len(places))
    return table.filter(truths(chosen))


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array; a single chunk is not copied."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def strings(values: Sequence[bytes | memoryview]) -> pa.Array:
    """Return a large_binary Arrow array of byte strings, without ``pyarrow.array`` (see ``integers``)."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    data = values[0] if len(values) == 1 else b"".join(values)
    return pa.Array.from_buffers(pa.large_binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(data)])


def slices(data: bytes, starts: Integers, ends: Integers) -> pa.Array:
    """Return slices of UTF-8 bytes as a large_string array; they may not overlap.

    The slices and what lies between them are an array over the same bytes, of which Arrow copies every other one.
    """
    n = len(starts)
    order = None
    if n and (starts[1:] < ends[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    borders = np.zeros(max(2 * n, 1), np.int64)
    borders[0 : 2 * n : 2], borders[1::2] = starts, ends
    whole = pa.Array.from_buffers(pa.large_string(), max(2 * n - 1, 0), [None, pa.py_buffer(borders), pa.py_buffer(data)])
    which = np.arange(0, 2 * n, 2)
    if order is not None:
        taken = np.empty(n, np.int64)
        taken[order] = which
        which = taken
    return whole.take(integers(which))


def places_of(data: np.typing.NDArray[np.uint8], byte: int) -> np.typing.NDArray[Any]:
    """Return where a byte is, in order; in pieces that stay in the processor's cache, as 32-bit numbers where these are enough."""
    kind: type[np.signedinteger[Any]] = np.int32 if len(data) < 2**31 else np.int64
    parts = []
    for start in range(0, len(data), _PIECE):
        found = np.flatnonzero(data[start : start + _PIECE] == byte)
        parts.append(np.add(found, start, dtype=kind, casting="unsafe"))
    return np.concatenate(parts) if parts else np.zeros(0, kind)
