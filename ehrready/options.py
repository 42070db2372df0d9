"""What a run is told: the fields that the command line, the settings file and the Python interface fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: (stage, done, of): told while a run goes on.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told; ``memory`` is the engine's limit, ``threads`` None means all cores."""

    name: str = "dataset"
    format: str = "auto"
    mapping: str | None = None
    terminology: Path | None = None
    rules: tuple[str, ...] = ()
    validate: str = "sample"
    memory: str = "4GB"
    threads: int | None = None
    engine: str = "duckdb"
    master: str | None = None
    internal: bool = False
    reports: tuple[str, ...] = ()
    waivers: str | None = None
    baseline: str | None = None
    contract: str | None = None
    worklists: str | None = None
    stamp: str | None = None
    resume: str | None = None
    #: done beside measuring, when Python is idle: what the outputs need (``outputs.prepare``)
    meanwhile: Callable[[], None] | None = field(default=None, compare=False)
    progress: Progress = field(default=lambda stage, done, of: None, compare=False)

    def public(self) -> dict[str, Any]:
        """Return the options that may stand in the scorecard's provenance: no path, no machine."""
        return {"format": self.format, "rules": [Path(r).name for r in self.rules], "internal": self.internal}
