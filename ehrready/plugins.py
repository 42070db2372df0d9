"""Checks, readers and reporters of other packages: entry points, imported only when a user names one (design section 3).

A package offers them in its metadata, under the groups of ``GROUPS``.  That it is installed changes nothing; naming one
(``check: NAME`` in a pack, ``--format NAME``, ``--report NAME=FILE``) imports it, and the scorecard's provenance says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ehrready.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ehrready.checks.base import Check
    from ehrready.readers.base import Reader

#: Kind to entry point group.
GROUPS = {"checks": "ehrready.checks", "readers": "ehrready.readers", "reporters": "ehrready.reporters"}

_loaded: dict[tuple[str, str], Any] = {}


def names(kind: str) -> list[str]:
    """Return what is offered, without importing any of it."""
    return sorted({point.name for point in _points(kind)})


def load(kind: str, name: str) -> Any:
    """Import what an entry point offers; None when nobody offers it.

    Raises UsageError when two packages offer the name or the import fails; that failure's text is not shown.
    """
    points = [point for point in _points(kind) if point.name == name]
    if not points:
        return None
    if len({_origin(point) for point in points}) > 1:
        raise UsageError(f"{name} is offered by {' and '.join(sorted(_origin(p) for p in points))}: uninstall one of them")
    if (kind, name) not in _loaded:
        try:
            _loaded[kind, name] = points[0].load()
        except Exception as error:  # noqa: BLE001 - other people's code, whatever it raises
            raise UsageError(f"{name} of {_origin(points[0])} cannot be loaded ({type(error).__name__}): reinstall or update it") from None
    return _loaded[kind, name]


def check(name: str) -> Check | None:
    """Return the check that a package offers under a name; None when nobody does."""
    from ehrready.checks.base import CHECKS

    if load("checks", name) is None:
        return None
    if name not in CHECKS:
        raise UsageError(f"the entry point {name} registers no check of that name: the package must be mended")
    return CHECKS[name]


def reader(name: str) -> Reader | None:
    """Return a reader that a package offers for ``--format NAME``; None when nobody does."""
    made = load("readers", name)
    if made is None:
        return None
    found: Reader = made() if callable(made) else made
    if getattr(found, "format", None) != name:
        raise UsageError(f"the reader {name} calls its format otherwise: the package must be mended")
    return found


def provenance(kind: str, used: set[str]) -> list[str]:
    """Return ``kind:name (package version)`` of those of ``used`` that were loaded, sorted."""
    if not _loaded:
        return []  # looking through the metadata of every installed package takes a while
    return sorted(
        f"{kind}:{point.name} ({_origin(point)})" for point in _points(kind) if point.name in used and (kind, point.name) in _loaded
    )


def _points(kind: str) -> list[EntryPoint]:
    from importlib import metadata  # brings the parser of e-mail

    return list(metadata.entry_points(group=GROUPS[kind]))


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
