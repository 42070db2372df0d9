"""Sources that are no local files: tables of databases and lakes, objects of cloud stores.

Each is opened only when the user names it, reads only, and hands out what looks like the path of a file
(``TablePath``, ``RemotePath``): readers know nothing of where the bytes come from.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ehrready.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: Scheme of a source to the module that opens it and the part of the program that it needs (an extra).
SCHEMES: dict[str, str] = {
    "duckdb": "duckdb_file",
    "postgresql": "postgres",
    "postgres": "postgres",
    "delta": "lakes",
    "iceberg": "lakes",
    "s3": "objects",
    "gs": "objects",
    "gcs": "objects",
    "abfs": "objects",
    "abfss": "objects",
    "https": "objects",
    "http": "objects",
}


def scheme(source: str) -> str:
    """Return the scheme of a source in lower case, ``""`` for a path."""
    found = _SCHEME.match(source)
    return found[1].lower() if found else ""


def opened(source: str, place: str) -> Sequence[Path]:
    """Return the files or tables of a source with a scheme; ``place`` names the source in messages.

    Raises UsageError: an unknown scheme, a package that is missing, no such place, no credentials.
    """
    kind = scheme(source)
    if kind not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name not in {"postgres", "gcs", "abfss", "http"})
        raise UsageError(f"{place}: unknown kind of source: give a file, a folder, a glob, or one of {known}")
    module = importlib.import_module(f"ehrready.stores.{SCHEMES[kind]}")
    # they quack like pathlib.Path as far as readers ask (SourceFile.path)
    return cast(Sequence[Path], module.opened(kind, source[len(kind) + 3 :], place))


def lake_table(folder: Path) -> Path | None:
    """Return the table whose folder this is (Delta, Iceberg), or None for any other folder."""
    kind = _lake(folder)
    if not kind:
        return None
    from ehrready.stores import lakes

    return cast(Path, lakes.in_folder(folder, kind))


def _lake(folder: Path) -> str:
    try:
        if (folder / "_delta_log").is_dir():
            return "delta"
        metadata = folder / "metadata"
        return "iceberg" if metadata.is_dir() and next(metadata.glob("*.metadata.json"), None) is not None else ""
    except OSError:  # it may not be looked into: who lists it will say so in the ledger
        return ""


def extra(module: str, name: str, place: str) -> Any:
    """Import a package of an extra; raises UsageError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{place}: this kind of source needs another package: pip install 'ehrready[{name}]'") from None
