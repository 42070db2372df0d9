"""Files as streams of bytes: decompressed by their magic numbers, whole or in part, never without bound."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from ehrready.readers.base import SourceFile

#: Decompressed bytes a reader is shown to recognise a file by.
HEAD_BYTES = 65536
#: A compressed file may expand at most this much (measured: NDJSON of Synthea 12-20, of repeats 200).
MAX_RATIO = 1000
#: ... once it has expanded beyond this size.
MAX_RATIO_FLOOR = 256 * 1024 * 1024
#: What reading a damaged compressed stream raises.
STREAM_ERRORS = (OSError, EOFError, zlib.error, ValueError)


class TooLarge(ValueError):
    """A compressed stream expands beyond ``MAX_RATIO``."""


class _Bounded(io.RawIOBase):
    """A decompressed stream that refuses to expand without bound and gives all it could read before it breaks."""

    def __init__(self, stream: BinaryIO, raw: BinaryIO, size: int) -> None:
        self._stream, self._raw, self._limit, self._seen = stream, raw, max(size * MAX_RATIO, MAX_RATIO_FLOOR), 0
        self._error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, have = [], 0
        while self._error is None and (size < 0 or have < size):
            want = 1 << 20 if size < 0 else min(size - have, 1 << 20)
            try:
                data = self._stream.read1(want) if hasattr(self._stream, "read1") else self._stream.read(want)
            except STREAM_ERRORS as error:
                self._error = error
                break
            if not data:
                break
            parts.append(data)
            have += len(data)
            self._seen += len(data)
            if self._seen > self._limit:
                self._error = TooLarge()
        if self._error is not None and (size < 0 or not parts):  # who asked for everything must hear that it is not
            raise self._error
        return b"".join(parts)

    def close(self) -> None:
        self._stream.close()
        self._raw.close()  # neither decompressor closes what it reads from
        super().close()

    def consumed(self) -> int:
        return self._raw.tell()


def open_stream(path: Path) -> BinaryIO:
    """Open a file for reading, decompressing gzip and Zstandard by their magic numbers, not by the name.

    Raises OSError when it cannot be opened; reading a damaged stream raises one of ``STREAM_ERRORS``.
    """
    raw = path.open("rb")
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, _Bounded(cast(BinaryIO, gzip.GzipFile(fileobj=raw)), raw, path.stat().st_size))
    if magic == b"\x28\xb5\x2f\xfd":
        return cast(BinaryIO, _Bounded(_zstd(raw), raw, path.stat().st_size))
    return raw


class _Part(io.RawIOBase):
    """A part of a file, as a file of its own; ``tell`` counts the bytes of the part that were read."""

    def __init__(self, raw: BinaryIO, start: int, stop: int | None) -> None:
        raw.seek(start)
        self._raw, self._stop, self._seen = raw, None if stop is None else stop - start, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = -1 if self._stop is None else self._stop - self._seen
        data = self._raw.read(left if size < 0 else size if left < 0 else min(size, left))
        self._seen += len(data)
        return data

    def tell(self) -> int:
        return self._seen

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_part(file: SourceFile) -> BinaryIO:
    """Open the part of a file that is to be read (``SourceFile.start``); the whole one as :func:`open_stream` does."""
    if not file.start and file.stop is None:
        return open_stream(file.path)
    return cast(BinaryIO, _Part(file.path.open("rb"), file.start, file.stop))


def consumed(stream: BinaryIO) -> int:
    """Return how many bytes on disk were read of a stream of :func:`open_stream`."""
    return stream.consumed() if isinstance(stream, _Bounded) else stream.tell()


def _zstd(raw: BinaryIO) -> BinaryIO:
    """Return a Zstandard stream that raises on a cut frame (the library's own reader ends quietly)."""
    import zstandard

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self._reset()
            self._buffer = bytearray()
            self._done = False

        def _reset(self) -> None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._open = False

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            while not self._done and (size < 0 or len(self._buffer) < size):
                chunk = raw.read(1 << 16)
                if not chunk:
                    if self._open:
                        raise EOFError
                    self._done = True
                while chunk:
                    try:
                        self._buffer += self._frame.decompress(chunk)
                    except zstandard.ZstdError as error:
                        raise ValueError("zstd") from error
                    self._open = not self._frame.eof
                    chunk = self._frame.unused_data if self._frame.eof else b""
                    if self._frame.eof:
                        self._reset()
            end = len(self._buffer) if size < 0 else size
            data = bytes(self._buffer[:end])
            del self._buffer[:end]
            return data

    return cast(BinaryIO, Stream())


def head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """Return the first ``size`` decompressed bytes; a damaged stream gives what could be read of it."""
    with open_stream(path) as stream:
        try:
            return stream.read(size)
        except STREAM_ERRORS:
            return b""
