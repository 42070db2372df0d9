"""An object of a store as a path: a stream, ranges for DuckDB, and whether it is still what was listed."""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import stat
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeGuard, cast

if TYPE_CHECKING:
    import duckdb

_BUFFER = 1 << 20
#: Scheme of the names under which DuckDB finds remote files.
MOUNT = "ehrready-remote"


class Access(Protocol):
    """How an object is reached, from any machine: it can be pickled, and asks the store for nothing before it is used."""

    def start(self, ranges: bool) -> BinaryIO:
        """Open the object, for ranges or as a stream."""

    def look(self, listed: tuple[int, str]) -> tuple[int, str]:
        """Return its size and version as they are now; ``listed`` is what they were."""


@dataclass(eq=False)
class RemoteFolder:
    """The objects that share a folder: a reader looks for neighbours of a file there."""

    names: dict[str, RemotePath] = field(default_factory=dict)

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return the objects whose name matches."""
        return [path for name, path in self.names.items() if fnmatch.fnmatchcase(name, pattern)]


class RemotePath:
    """One object, as a path: ``key`` is its name without a query (which may be a signature), ``size`` its bytes.

    ``access`` reaches it in the store.
    """

    def __init__(self, key: str, size: int, version: str, parent: RemoteFolder, access: Access) -> None:
        self.key, self.size, self.version, self.parent, self._access = key, size, version, parent, access
        self.name = PurePosixPath(key).name
        self.suffixes = PurePosixPath(self.name).suffixes
        self.parts = tuple(key.split("/")[2:])
        parent.names[self.name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a task elsewhere have the object, without its neighbours."""
        return RemotePath, (self.key, self.size, self.version, RemoteFolder(), self._access)

    def as_posix(self) -> str:
        """Return what the files of a run are sorted by."""
        return self.key

    def __str__(self) -> str:
        return self.key

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open a stream from the first byte; seeking turns it into reads of ranges.  Raises OSError."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self), _BUFFER))

    def same(self) -> None:
        """Raise OSError if the store has another object under this name than was listed, or none."""
        if self._access.look((self.size, self.version)) != (self.size, self.version):
            raise OSError(errno.ESTALE, "the object changed while it was read")

    def stat(self) -> os.stat_result:
        """Return a regular file of the object's size."""
        return os.stat_result((stat.S_IFREG | 0o400, id(self), 0, 1, 0, 0, self.size, 0, 0, 0))


class _Stream(io.RawIOBase):
    """Bytes of an object: one request from the start on, ranges once somebody seeks.  All errors are OSError with a number.

    Who reads to the end, or opens for ranges, is told when the object is no longer the one that was listed: half of one
    and half of another may look whole.
    """

    def __init__(self, path: RemotePath, *, ranges: bool = False) -> None:
        self._path, self._size, self._at, self._ranges = path, path.size, 0, ranges
        self._inner: BinaryIO | None = None
        self._whole = False

    @staticmethod
    def _guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(errno.EIO, "the remote file cannot be read") from error  # Arrow's; without a number it is taken for bad bytes
        except Exception as error:
            raise OSError(errno.EIO, "the remote file cannot be read") from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        to = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if to != self._at and not self._ranges:
            self._drop()
            self._ranges = True
        if to != self._at and self._inner is not None:
            inner = self._inner
            self._guarded(lambda: inner.seek(to))
        self._at = to
        return to

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            if not self._ranges and not self._whole:
                self._guarded(self._path.same)
                self._whole = True
            return 0
        data: bytes = self._guarded(lambda: self._opened().read(min(len(buffer), self._size - self._at)))
        if not data and len(buffer):
            raise OSError(errno.ESTALE, "the object is shorter than the store said")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _opened(self) -> BinaryIO:
        if self._inner is None:
            if self._ranges:
                self._path.same()
            self._inner = self._path._access.start(self._ranges)
            if self._at:
                self._inner.seek(self._at)
        return self._inner

    def _drop(self) -> None:
        if self._inner is not None:
            self._guarded(self._inner.close)
        self._inner = None

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()


class _Shared(io.RawIOBase):
    """Ranges of an object for the threads of an engine: each has a place of its own, for a seek and its read are two calls."""

    def __init__(self, path: RemotePath) -> None:
        self._stream, self._lock, self._place = _Stream(path, ranges=True), threading.Lock(), threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(getattr(self._place, "at", 0))

    def seek(self, offset: int, _whence: int = io.SEEK_SET) -> int:
        self._place.at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        parts, at = [], self.tell()
        with self._lock:
            self._stream.seek(at)
            while size and (part := self._stream.read(size)):
                parts.append(part)
                size -= len(part)
        data = b"".join(parts)
        self._place.at = at + len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


#: The remote files that engines may read, as long as somebody holds them.
_MOUNTED: weakref.WeakValueDictionary[str, RemotePath] = weakref.WeakValueDictionary()


def is_remote(path: object) -> TypeGuard[RemotePath]:
    """Tell an object of a store from a file of this machine: a ``SourceFile`` holds either as its path."""
    return isinstance(path, RemotePath)


def mounted(path: RemotePath) -> str:
    """Return the name under which DuckDB finds a remote file once ``mount`` was called."""
    name = f"{MOUNT}://{id(path)}"
    _MOUNTED[name] = path
    return name


def mount(con: duckdb.DuckDBPyConnection) -> None:
    """Let an engine read the files that ``mounted`` names, by ranges."""
    import datetime as dt

    from fsspec.spec import AbstractFileSystem

    if con.filesystem_is_registered(MOUNT):
        return

    class Mount(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = MOUNT
        cachable = False

        def open(self, path: str, _mode: str = "rb", **_: Any) -> BinaryIO:
            return cast(BinaryIO, _Shared(_MOUNTED[path]))

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return {"name": path, "size": _MOUNTED[path].size, "type": "file"}

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]

        def modified(self, _path: str) -> dt.datetime:
            return dt.datetime.fromtimestamp(0, dt.UTC)

    con.register_filesystem(Mount())
