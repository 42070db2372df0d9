"""Settings from ``ehrready.toml`` or ``[tool.ehrready]`` in pyproject.toml; the command line wins."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from ehrready.errors import UsageError

#: Setting name to its type; the names are those of the command line's options.
SETTINGS: dict[str, type] = {
    "name": str,
    "format": str,
    "mapping": str,
    "rules": list,
    "terminology": str,
    "memory": str,
    "threads": int,
    "engine": str,
    "master": str,
    "internal": bool,
    "fail_on": str,
    "against": str,
    "waivers": str,
    "validate": str,
    "baseline": str,
    "contract": str,
}


def load(folder: Path) -> dict[str, Any]:
    """Return the settings of a folder, empty when there are none; raises UsageError listing every mistake."""
    for name, section in (("ehrready.toml", None), ("pyproject.toml", "ehrready")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
            raise UsageError(f"{name}: not valid TOML") from None
        if section:
            document = document.get("tool", {}).get(section, {})
        if document:
            return _checked(document, name)
    return {}


def _checked(document: dict[str, Any], place: str) -> dict[str, Any]:
    problems, settings = [], {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in SETTINGS:
            close = difflib.get_close_matches(name, SETTINGS, n=1)
            problems.append(f"{place}: unknown setting {key!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
        elif not isinstance(value, SETTINGS[name]) or (SETTINGS[name] is int and isinstance(value, bool)):
            problems.append(f"{place}: {key} must be of type {SETTINGS[name].__name__}")
        else:
            settings[name] = value
    if problems:
        raise UsageError(*problems)
    return settings
