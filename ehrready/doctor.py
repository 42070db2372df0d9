"""``ehrready doctor``: is the installation sound?"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import tempfile
from collections.abc import Iterator

from ehrready.errors import EhrreadyError

_LIBRARIES = (
    "duckdb",
    "pyarrow",
    "pandas",
    "orjson",
    "typer",
    "rich",
    "jinja2",
    "PyYAML",
    "fhir.resources",
    "great-expectations",
    "zstandard",
)


def examine() -> Iterator[tuple[str, str, bool]]:
    """Yield (what, state, is it sound) per thing examined."""
    yield "python", platform.python_version(), (3, 11) <= sys.version_info[:2] <= (3, 14)
    for name in _LIBRARIES:
        try:
            yield name, importlib.metadata.version(name), True
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed: install ehrready again", False
    yield _engine()
    yield _packs()
    yield _samples()
    with tempfile.TemporaryDirectory(prefix="ehrready-doctor-"):
        yield "temporary folder", "writable", True


def _engine() -> tuple[str, str, bool]:
    from ehrready.engines.duckdb import lock, open_engine

    with open_engine(memory="256MB") as con:
        lock(con)
        con.execute("INSERT INTO types VALUES ('a', 'b', 1)")
        row = con.execute("SELECT sum(n) FROM types").fetchone()
    return "engine", "opens, locks and counts", row == (1,)


def _packs() -> tuple[str, str, bool]:
    from ehrready import rules

    try:
        packs = [rules.load(path) for path in rules.shipped().values()]
    except EhrreadyError as error:
        return "rule packs", str(error), False
    return "rule packs", ", ".join(f"{p.name} {p.version} ({len(p.rules)})" for p in packs), True


def _samples() -> tuple[str, str, bool]:
    from ehrready import resources

    try:
        count = sum(1 for path in resources.folder("sample_data").rglob("*") if path.is_file())
    except EhrreadyError as error:
        return "sample data", str(error), False
    return "sample data", f"{count} files", count > 0
