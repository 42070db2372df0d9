"""Objects of cloud stores and files on web servers: ``s3://``, ``gs://``, ``abfs://``, ``https://``.

S3, Google and Azure go through Arrow's own file systems, ``https`` through fsspec's.  Credentials come from the
environment, as the clouds' own tools take them.  Objects are streamed; DuckDB reads ranges of remote Parquet
(``remote.mount``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from ehrready.errors import UsageError
from ehrready.stores import clouds, extra
from ehrready.stores.remote import RemoteFolder, RemotePath

_MAGIC = re.compile(r"[*?\[]")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DENIED = (
    "access_denied",
    "denied",
    "forbidden",
    "403",
    "401",
    "base64",  # what Azure's key is written in
    "credential",
    "unauthorized",
    "signature",
    "access_key",
    "permission",
    "token",
)
_ABSENT = ("no_such_bucket", "nosuchbucket", "not found", "404", "does not exist", "no such file", "containernotfound", "notfound")
#: How Arrow tells what Azure and Google answered.
_STATUS = re.compile(r"(?:azure error: \[\w*\] |http_status_code=|http status code: )(\d{3})")


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
    text = str(error).lower()
    told = _STATUS.search(text)
    status = int(told[1]) if told else getattr(error, "status", 0)
    unreached = f"the store cannot be reached: check the name{clouds.ENDPOINTS.get(family, '')} and the network"
    refused = f"access is denied, or there are no credentials: {clouds.CREDENTIALS[family]}"
    absent = "does not exist: there is no such bucket, container, object or page"
    if "network_connection" in text or isinstance(error, ConnectionError) or "cannot connect" in text:
        return unreached
    if status in {401, 403, 404}:  # the text holds names and numbers of requests, too, that look like anything
        return absent if status == 404 else refused
    if isinstance(error, PermissionError) or any(word in text for word in _DENIED):
        return refused
    if isinstance(error, FileNotFoundError) or any(word in text for word in _ABSENT):
        return absent
    return refused if _keyless(family) else unreached


def _keyless(family: str) -> bool:
    """Whether no key for S3 is where its tools look for one: what a store says to a request without one differs."""
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    return family == "s3" and not any(os.environ.get(name) for name in named) and not (Path.home() / ".aws" / "credentials").exists()


def _bucket(family: str, rest: str, place: str) -> list[RemotePath]:
    """List objects of S3, Google or Azure with Arrow's file systems."""
    from pyarrow.fs import FileSelector, FileType

    system, key = clouds.connected(family, rest, place)
    _SYSTEMS[family, rest] = system
    key = key.strip("/")
    if not key or _MAGIC.search(key.partition("/")[0]):
        raise UsageError(f"{place}: name a bucket or container, and what in it is to be read")
    folder = key.rpartition("/")[0] if "/" in key else key
    if _MAGIC.search(key):
        listed = _matching(system, family, key)
    else:
        listed = [system.get_file_info(key)] if "/" in key else _within(system, family, key)
        if listed and listed[0].type == FileType.NotFound:  # no object and no folder: a prefix, or nothing
            listed = [info for info in _within(system, family, folder) if info.path.startswith(key)]
    infos: list[Any] = []
    for info in listed:
        infos += system.get_file_info(FileSelector(info.path, recursive=True)) if info.type == FileType.Directory else [info]
    folders: dict[str, RemoteFolder] = {}
    return [
        RemotePath(
            f"{family}://{info.path}",
            info.size,
            str(info.mtime_ns),
            folders.setdefault(info.path.rpartition("/")[0], RemoteFolder()),
            _InBucket(family, rest, info.path),
        )
        for info in infos
        if info.type == FileType.File
    ]


#: The file systems of the sources (family, rest) of this process.
_SYSTEMS: dict[tuple[str, str], Any] = {}
_WEB = ("https", "")


def _system(family: str, rest: str) -> Any:
    """Return the file system of a source: in a process that did not find it, made of that one's environment."""
    if (family, rest) not in _SYSTEMS:
        _SYSTEMS[family, rest] = clouds.connected(family, rest, "the store")[0]
    return _SYSTEMS[family, rest]


@dataclass(frozen=True, slots=True)
class _InBucket:
    """An object of S3, Google or Azure (remote.Access): the source that it was found by, and its path in the store."""

    family: str
    rest: str
    path: str

    def start(self, ranges: bool) -> BinaryIO:
        system = _system(self.family, self.rest)
        opened = system.open_input_file(self.path) if ranges else system.open_input_stream(self.path, compression=None)
        return cast(BinaryIO, opened)

    def look(self, _listed: tuple[int, str]) -> tuple[int, str]:
        info = _system(self.family, self.rest).get_file_info(self.path)
        return info.size or 0, str(info.mtime_ns)


def _within(system: Any, family: str, folder: str) -> list[Any]:
    """Return what lies in a folder: objects and folders; of Google all objects below, since it lists no folder that nobody made."""
    from pyarrow.fs import FileSelector, FileType

    found = system.get_file_info(FileSelector(folder, recursive=family == "gs"))
    return [info for info in found if info.type == FileType.File] if family == "gs" else list(found)


def _matching(system: Any, family: str, pattern: str) -> list[Any]:
    """Return the objects and folders that match a glob; of Google the objects whose path or folder does."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from fsspec.utils import glob_translate

    if family != "gs":
        return list(system.get_file_info(sorted(ArrowFSWrapper(system).glob(pattern))))
    fixed = pattern[: _MAGIC.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]  # a glob has magic
    matches = re.compile(glob_translate(pattern)).match
    return [
        info
        for info in _within(system, family, fixed)
        if any(matches(str(path)) for path in (PurePosixPath(info.path), *PurePosixPath(info.path).parents))
    ]


def _web(kind: str, rest: str, place: str) -> list[RemotePath]:
    """List files of a web server: one, those that an index page links to, or those of its links that a glob matches."""
    extra("aiohttp", "cloud", place)
    url = f"{kind}://{rest}"
    parts = urlsplit(url)
    if kind == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(f"{place}: http:// would carry the records in the clear: give https://")
    _SYSTEMS.pop(_WEB, None)  # no answer of an earlier source is used
    system = _web_system()
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
        parent = folders.setdefault(bare.rpartition("/")[0], RemoteFolder())

        found.append(RemotePath(bare, int(info["size"]), _web_version(info), parent, _OnTheWeb(each)))
    return found


def _web_system() -> Any:
    """Return the one client of web servers of this process: each has connections of its own."""
    from fsspec.implementations.http import HTTPFileSystem

    if _WEB not in _SYSTEMS:
        _SYSTEMS[_WEB] = HTTPFileSystem(use_listings_cache=False, skip_instance_cache=True)
    return _SYSTEMS[_WEB]


@dataclass(frozen=True, slots=True)
class _OnTheWeb:
    """A file of a web server (remote.Access) by its URL, which may be signed."""

    url: str

    def start(self, ranges: bool) -> BinaryIO:
        system = _web_system()
        return cast(BinaryIO, system.open(self.url) if ranges else system.open(self.url, block_size=0))

    def look(self, listed: tuple[int, str]) -> tuple[int, str]:
        try:
            now = _web_system().info(self.url)
        except FileNotFoundError as error:  # fsspec's, whatever happened
            if getattr(error.__cause__, "status", 0) in {404, 410}:
                raise
            return listed  # a signature that ran out while the file came says nothing about the file
        return int(now.get("size") or 0), _web_version(now)


def _web_version(info: Mapping[str, Any]) -> str:
    """Return what a web server says of a file that is another when the file is."""
    return str(info.get("ETag") or info.get("Last-Modified") or "")


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
