"""From what the user points at to a sorted list of files, each recognised by a reader or skipped with a reason."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehrready import stores
from ehrready.errors import SourceError, UsageError
from ehrready.readers import bulk_manifest
from ehrready.readers.base import Reader, SourceFile
from ehrready.readers.streams import head
from ehrready.stores.remote import is_remote

#: Why a file is no data (ledger status ``skipped``): a closed list, part of the scorecard's interface.
SKIPPED: dict[str, str] = {
    "not-recognised": "no reader recognises the content",
    "hidden-file": "the name starts with a dot or an underscore",
    "unsupported-xml": "XML (FHIR XML, C-CDA) is not read by this version",
    "no-file": "not a regular file",
}


def expand(sources: Sequence[str]) -> list[Path]:
    """Return the files of the sources, sorted by path, each once.

    A source is a file, a folder (walked, links to folders not followed), a glob, or what ehrready.stores opens.
    Raises UsageError for one that does not exist, SourceError when there is not a single file.
    """
    found: set[Path] = set()
    for number, source in enumerate(sources, 1):
        path = Path(source)
        if stores.scheme(source):
            found.update(stores.opened(source, f"source {number}"))
        elif path.is_dir():
            found.update(_walk(path))
        elif path.exists() or path.is_symlink():
            found.add(path)
        elif matches := glob.glob(source, recursive=True):
            for match in map(Path, sorted(matches)):
                found.update(_walk(match) if match.is_dir() else [match])
        else:
            raise UsageError(f"source {number} does not exist: give a file, a folder or a glob that matches something")
    if not found:
        raise SourceError("the source holds no file: point ehrready at the folder that has the export")
    once: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: path.as_posix()):
        # a file named twice, or linked to, is read once
        once.setdefault(_real(path), path)
    return list(once.values())


def _real(path: Any) -> str:
    return os.path.realpath(path) if isinstance(path, Path) else str(path)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are not followed (they may loop).  A lake's table is one."""
    if (table := stores.lake_table(folder)) is not None:
        yield table
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        yield folder  # cannot be listed: it stands in the ledger as unreadable
        return
    for path in inside:
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif not path.is_dir():
            yield path


def for_workers(files: Sequence[SourceFile]) -> None:
    """Raise UsageError unless other machines can read all files, too, before another engine is started for them."""
    if not all(_travels(file.path) for file in files):
        raise UsageError(
            "--engine spark reads files and folders that every worker sees, and objects of cloud stores: leave out --engine for this kind of source"
        )


def _travels(path: object) -> bool:
    return isinstance(path, Path) or is_remote(path)


def recognise(paths: Sequence[Path], readers: Sequence[Reader], *, wanted: str = "auto") -> list[SourceFile]:
    """Number the files and say for each which reader takes it, or why it is no data.

    ``wanted`` restricts to one format (``--format``).  A file that cannot be opened is given to no reader and
    not skipped: the ledger will call it unreadable.
    """
    files = []
    for number, path in enumerate(paths, 1):
        file = SourceFile(number, path, 0)
        try:
            info = path.stat()
            if stat.S_ISDIR(info.st_mode):
                files.append(file)
                continue
            if not stat.S_ISREG(info.st_mode):
                files.append(replace(file, skip="no-file"))
                continue
            file = replace(file, size=info.st_size)
            if path.name.startswith((".", "_")):
                files.append(replace(file, skip="hidden-file"))
                continue
            start = head(path)
        except OSError:
            files.append(file)
            continue
        files.append(_recognise(file, start, readers, wanted))
    return bulk_manifest.declare(files)


def require(files: Sequence[SourceFile]) -> None:
    """Raise SourceError unless some reader takes one of the files, or one cannot be opened (which the ledger tells)."""
    if all(file.skip for file in files):
        raise SourceError(
            f"nothing was recognised in {len(files)} file{'s' if len(files) > 1 else ''}: give FHIR JSON, HL7v2, or Parquet/CSV; "
            "other tables need --mapping"
        )


def _recognise(file: SourceFile, start: bytes, readers: Sequence[Reader], wanted: str) -> SourceFile:
    for reader in readers:
        if wanted in {"auto", reader.format} and (kind := reader.recognise(file.path, start)):
            return replace(file, format=reader.format, kind=kind)
    xml = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
    return replace(file, skip="unsupported-xml" if xml else "not-recognised")
