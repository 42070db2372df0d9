"""``ehrready schema``: the JSON Schemas of the files that people and programs exchange with ehrready."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from ehrready.errors import UsageError


def names() -> list[str]:
    """Return what there is a schema of, such as ``pack``."""
    folder = resources.files("ehrready") / "schemas"
    return sorted(path.name.partition("-")[0] for path in folder.iterdir() if path.name.endswith(".schema.json"))


def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help="pack or waivers.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write it (- for stdout).")] = "-",
) -> None:
    """Print the JSON Schema of a kind of file, for editors and validators."""
    from ehrready import files

    folder = resources.files("ehrready") / "schemas"
    found = [path for path in folder.iterdir() if path.name.partition("-")[0] == name and path.name.endswith(".schema.json")]
    if not found:
        raise UsageError(f"there is no schema of {name[:40]!r}: there are {', '.join(names())}")
    files.write(output, max(found, key=lambda path: path.name).read_bytes())
