"""Where the rule packs and the sample data are: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from ehrready.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the folder ``rules`` or ``sample_data``; raises UsageError when the installation lacks it."""
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise UsageError(f"this installation has no {name} folder: install ehrready again")
