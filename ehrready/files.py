"""Writing outputs: whole or not at all, and ``-`` for stdout."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path

from ehrready.errors import SourceError, UsageError

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
#: Bytes of the largest profile or scorecard that is read.
LARGEST = 1 << 30


def read(path: str, what: str) -> bytes:
    """Return a saved document; raises UsageError when it cannot be read, is no regular file or is larger than LARGEST."""
    place = Path(path)
    try:
        if place.is_file() and place.stat().st_size <= LARGEST:
            return place.read_bytes()
    except (OSError, ValueError):
        pass
    raise UsageError(f"{what}: cannot be read, is no regular file or is larger than 1 GB")


def write(target: str, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to a file atomically (temporary file beside it, fsync, rename), or to stdout for ``-``.

    Raises UsageError when the place cannot be written, SourceError when the disk is full; an old file stays intact.
    """
    if target == "-":
        if sys.stdout is None:  # the process was started with it closed
            raise UsageError("an output could not be written: stdout is closed")
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # what is still buffered must not fail once more when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno in _FULL:
                raise SourceError("an output could not be written: the disk is full or the file too large; stdout is cut") from None
            raise UsageError("an output could not be written: stdout was closed by its reader") from None
        return
    path = Path(target)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a device such as /dev/null cannot be replaced
            path.write_bytes(data)
            return
        handle, temporary = tempfile.mkstemp(prefix=".ehrready-", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if error.errno in _FULL:
            raise SourceError("an output could not be written: the disk is full or the file too large; nothing was changed") from None
        raise UsageError("an output could not be written: check the folder and its permissions") from None
