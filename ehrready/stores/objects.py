"""Objects of cloud stores and files on web servers: ``s3://``, ``gs://``, ``abfs://``, ``https://``.

S3, Google and Azure go through Arrow's own file systems, ``https`` through fsspec's.  Credentials come from the
environment, as the clouds' own tools take them.  Objects are streamed; DuckDB reads ranges of remote Parquet
through ``mount``.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, cast
from urllib.parse import unquote, urlsplit

from ehrready.errors import UsageError
from ehrready.stores import extra

if TYPE_CHECKING:
    import duckdb

_MAGIC = re.compile(r"[*?\[]")
_BUFFER = 1 << 20
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Scheme of the names under which DuckDB finds remote files.
MOUNT = "ehrready-remote"

_UNREACHED = "the store cannot be reached: check the name, the endpoint (AWS_ENDPOINT_URL) and the network"
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile in ~/.aws), or AWS_NO_SIGN_REQUEST=YES for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS (or log in with gcloud)",
    "abfs": "set AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or log in with az",
    "https": "give a URL that may be read without a login, such as a signed one",
}


@dataclass(eq=False)
class RemoteFolder:
    """The objects that share a folder: a reader looks for neighbours of a file there."""

    names: dict[str, RemotePath] = field(default_factory=dict)

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return the objects whose name matches."""
        return [path for name, path in self.names.items() if fnmatch.fnmatchcase(name, pattern)]


class RemotePath:
    """One object, as a path: ``key`` is its name without a query (which may be a signature), ``size`` its bytes."""

    def __init__(self, key: str, size: int, version: str, parent: RemoteFolder, start: Callable[[bool], BinaryIO]) -> None:
        self.key, self.size, self.version, self.parent, self._start = key, size, version, parent, start
        self.name = PurePosixPath(key).name
        self.suffixes = PurePosixPath(self.name).suffixes
        self.parts = tuple(key.split("/")[2:])
        parent.names[self.name] = self

    def as_posix(self) -> str:
        """Return what the files of a run are sorted by."""
        return self.key

    def __str__(self) -> str:
        return self.key

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open a stream from the first byte; seeking turns it into reads of ranges.  Raises OSError."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self._start, self.size), _BUFFER))

    def stat(self) -> os.stat_result:
        """Return a regular file of the object's size."""
        return os.stat_result((stat.S_IFREG | 0o400, id(self), 0, 1, 0, 0, self.size, 0, 0, 0))


class _Stream(io.RawIOBase):
    """Bytes of an object: one request from the start on, ranges once somebody seeks.  All errors are OSError."""

    def __init__(self, start: Callable[[bool], BinaryIO], size: int, *, ranges: bool = False) -> None:
        self._start, self._size, self._at, self._ranges = start, size, 0, ranges
        self._inner: BinaryIO | None = None

    @staticmethod
    def _guarded(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError:
            raise
        except Exception as error:
            raise OSError("the remote file cannot be read") from error

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
            return 0
        data: bytes = self._guarded(lambda: self._opened().read(min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _opened(self) -> BinaryIO:
        if self._inner is None:
            self._inner = self._start(self._ranges)
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
        self._stream, self._lock, self._place = _Stream(path._start, path.size, ranges=True), threading.Lock(), threading.local()

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


def opened(kind: str, rest: str, place: str) -> Sequence[RemotePath]:
    """Return the objects of a source: one, those below a prefix, or those that a glob matches; sorted by name.

    Raises UsageError: a package is missing, no such bucket or object, no credentials.
    """
    extra("fsspec", "cloud", place)
    family = {"gcs": "gs", "abfss": "abfs", "http": "https"}.get(kind, kind)
    try:
        found = _web(kind, rest, place) if family == "https" else _bucket(family, rest, place)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - Arrow, aiohttp and fsspec raise errors of many kinds; none is shown
        raise UsageError(f"{place}: {_why(error, family)}") from None
    if not found:
        raise UsageError(f"{place} does not exist: no object has that name, lies below that prefix or matches that glob")
    return sorted(found, key=lambda path: path.key)


def _why(error: Exception, family: str) -> str:
    """Return a sentence for what a store said (its text is looked at, never shown)."""
    error = error.__cause__ if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception) else error  # fsspec's
    text, status = str(error).lower(), getattr(error, "status", 0)
    if "network_connection" in text or isinstance(error, ConnectionError) or "cannot connect" in text:
        return _UNREACHED
    denied = (
        "access_denied",
        "denied",
        "forbidden",
        "403",
        "401",
        "credential",
        "unauthorized",
        "signature",
        "access_key",
        "permission",
        "token",
    )
    absent = ("no_such_bucket", "nosuchbucket", "not found", "404", "does not exist", "containernotfound", "notfound")
    if status in {401, 403} or isinstance(error, PermissionError) or any(word in text for word in denied):
        return f"access is denied, or there are no credentials: {_CREDENTIALS[family]}"
    if status == 404 or isinstance(error, FileNotFoundError) or any(word in text for word in absent):
        return "does not exist: there is no such bucket, container, object or page"
    return f"access is denied, or there are no credentials: {_CREDENTIALS[family]}" if _keyless(family) else _UNREACHED


def _keyless(family: str) -> bool:
    """Whether no key for S3 is where its tools look for one: what a store says to a request without one differs."""
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    return family == "s3" and not any(os.environ.get(name) for name in named) and not (Path.home() / ".aws" / "credentials").exists()


def _bucket(family: str, rest: str, place: str) -> list[RemotePath]:
    """List objects of S3, Google or Azure with Arrow's file systems."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSelector, FileType

    system, key = {"s3": _s3, "gs": _google, "abfs": _azure}[family](rest, place)
    key = key.strip("/")
    if not key:
        raise UsageError(f"{place}: name a bucket or container, and what in it is to be read")
    folder = key.rpartition("/")[0] if "/" in key else key
    if _MAGIC.search(key):
        listed = system.get_file_info(sorted(ArrowFSWrapper(system).glob(key)))
    else:
        listed = [system.get_file_info(key)] if "/" in key else system.get_file_info(FileSelector(key))
        if listed and listed[0].type == FileType.NotFound:  # no object and no folder: a prefix, or nothing
            listed = [info for info in system.get_file_info(FileSelector(folder)) if info.path.startswith(key)]
    infos: list[Any] = []
    for info in listed:
        infos += system.get_file_info(FileSelector(info.path, recursive=True)) if info.type == FileType.Directory else [info]
    folders: dict[str, RemoteFolder] = {}

    def start(path: str) -> Callable[[bool], BinaryIO]:
        return lambda ranges: system.open_input_file(path) if ranges else system.open_input_stream(path, compression=None)

    return [
        RemotePath(
            f"{family}://{info.path}",
            info.size,
            str(info.mtime_ns),
            folders.setdefault(info.path.rpartition("/")[0], RemoteFolder()),
            start(info.path),
        )
        for info in infos
        if info.type == FileType.File
    ]


def _s3(rest: str, _place: str) -> tuple[Any, str]:
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in {"YES", "TRUE", "1"}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _region(rest.partition("/")[0], endpoint)
    return S3FileSystem(endpoint_override=endpoint, anonymous=anonymous, region=region), rest


def _region(bucket: str, endpoint: str | None) -> str | None:
    """Ask S3 for the region of a bucket; None where nobody says."""
    from pyarrow.fs import resolve_s3_region

    if endpoint is not None or not bucket:
        return None
    try:
        found: str = resolve_s3_region(bucket)
    except OSError:
        return None
    return found


def _google(rest: str, _place: str) -> tuple[Any, str]:
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    limit = timedelta(seconds=60)
    emulator = urlsplit(os.environ.get("STORAGE_EMULATOR_HOST", ""))
    if emulator.netloc:
        return GcsFileSystem(anonymous=True, endpoint_override=emulator.netloc, scheme=emulator.scheme, retry_time_limit=limit), rest
    return GcsFileSystem(retry_time_limit=limit), rest


def _azure(rest: str, place: str) -> tuple[Any, str]:
    from pyarrow.fs import AzureFileSystem

    container, _, key = rest.partition("/")
    container, _, host = container.partition("@")
    environment = os.environ.get
    account = host.partition(".")[0] or environment("AZURE_STORAGE_ACCOUNT") or environment("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise UsageError(f"{place}: {_CREDENTIALS['abfs']}")
    key_or_token: dict[str, str | None] = {"account_key": environment("AZURE_STORAGE_KEY") or environment("AZURE_STORAGE_ACCOUNT_KEY")}
    if not key_or_token["account_key"]:
        key_or_token = {"sas_token": environment("AZURE_STORAGE_SAS_TOKEN")}
    return AzureFileSystem(account, **key_or_token), f"{container}/{key}"


def _web(kind: str, rest: str, place: str) -> list[RemotePath]:
    """List files of a web server: one, those that an index page links to, or those of its links that a glob matches."""
    extra("aiohttp", "cloud", place)
    from fsspec.implementations.http import HTTPFileSystem

    url = f"{kind}://{rest}"
    parts = urlsplit(url)
    if kind == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(f"{place}: http:// would carry the records in the clear: give https://")
    system = HTTPFileSystem(use_listings_cache=False, skip_instance_cache=True)
    path = url.partition("?")[0]
    if _MAGIC.search(path):
        base = path[: _MAGIC.search(path).start()].rpartition("/")[0] + "/"  # type: ignore[union-attr]  # it was just found
        urls: Iterable[str] = (u for u in system.glob(path) if u.startswith(base))
    elif path.endswith("/"):
        urls = _below(system, path)
    else:
        urls = [url]
    folders: dict[str, RemoteFolder] = {}
    found = []
    for each in urls:
        info = system.info(each)
        if info.get("size") is None:
            raise UsageError(f"{place}: the server does not say how long a file is: download it and give the copy")
        bare = unquote(each.partition("?")[0])
        user = urlsplit(bare).netloc.rpartition("@")[0]
        bare = bare.replace(f"{user}@", "", 1) if user else bare
        version = str(info.get("ETag") or info.get("Last-Modified") or "")
        parent = folders.setdefault(bare.rpartition("/")[0], RemoteFolder())

        def start(ranges: bool, each: str = each) -> BinaryIO:
            return cast(BinaryIO, system.open(each) if ranges else system.open(each, block_size=0))

        found.append(RemotePath(bare, int(info["size"]), version, parent, start))
    return found


def _below(system: Any, folder: str, depth: int = 8) -> list[str]:
    """Return what an index page links to below itself, and the pages below; links elsewhere are not followed."""
    found = []
    for link in sorted(system.ls(folder, detail=False)):
        if not link.startswith(folder) or link == folder or "?" in link:
            continue
        if not link.endswith("/"):
            found.append(link)
        elif depth:
            found += _below(system, link, depth - 1)
    return found


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
