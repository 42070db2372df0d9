"""Reads official release files into release tables: one module per layout, one way in (:func:`add`).

The file, folder or zip is read as a stream; nothing is unpacked to disk.  A file that is not what it is said to be raises
UsageError with the line and the remedy, and the store stays as it was.
"""

from __future__ import annotations

import difflib
import fcntl
from collections.abc import Callable
from pathlib import Path

from ehrready.errors import UsageError
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import SUFFIX, ReleaseTable, load, merge, save

Progress = Callable[[str, int, int], None]

#: What ``terminology add`` takes: key → (module, what to give).
LAYOUTS: dict[str, tuple[str, str]] = {
    "icd10cm": ("order", "the order file or addenda of CMS/NCHS (icd10cm_order_2026.txt), its folder or zip"),
    "icd10pcs": ("order", "the order file of CMS (icd10pcs_order_2026.txt), its folder or zip"),
    "icd9cm": ("icd9", "the diagnosis titles of CMS (CMS32_DESC_LONG_DX.txt), their folder or zip"),
    "loinc": ("loinc", "Loinc.csv, or the folder or zip of a LOINC release (MapTo.csv is read too)"),
    "snomed": ("snomed", "the folder or zip of an RF2 release, Full or Snapshot"),
    "rxnorm": ("rxnorm", "the folder or zip of a full RxNorm release (RXNCONSO.RRF, RXNATOMARCHIVE.RRF, RXNCUI.RRF)"),
    "cvx": ("cvx", "cvx.txt of CDC"),
    "hcpcs": ("hcpcs", "the ANWEB file of CMS, its folder or zip"),
    "athena": ("athena", "the folder or zip of an OHDSI Athena download (CONCEPT.csv, VOCABULARY.csv)"),
}


def add(
    system: str, path: Path, directory: Path, *, release: str = "", progress: Progress = lambda stage, done, of: None
) -> list[ReleaseTable]:
    """Read ``path`` as a release of ``system`` and add it to the store in ``directory``; returns what was added.

    Raises UsageError for an unknown system, another layout or system, a cut file; the store is then unchanged.
    """
    if system not in LAYOUTS:
        close = difflib.get_close_matches(system.lower(), LAYOUTS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"terminology add: unknown system {system!r}{hint} (known: {', '.join(LAYOUTS)})")
    from importlib import import_module

    layout = import_module(f"ehrready.terminology.loaders.{LAYOUTS[system][0]}")
    with Source(path, system, LAYOUTS[system][1], progress, directory) as source:
        tables: list[ReleaseTable] = layout.read(source, system, release)
    _store(tables, directory)
    return tables


def _store(tables: list[ReleaseTable], directory: Path) -> None:
    """Write the tables, one writer at a time; of several, either all are ready or none is written."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ready = []
            for table in tables:
                place = directory / f"{table.system}{SUFFIX}"
                ready.append((merge(load(place), table) if place.is_file() else table, place))
            for table, place in ready:
                save(table, place)
    except OSError:
        raise UsageError("terminology add: the store's folder cannot be written; give another with --terminology DIR") from None
