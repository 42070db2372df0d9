"""What the tests of sources share: the sample data as OMOP tables, and profiles to compare."""

from __future__ import annotations

import copy
import functools
import subprocess
from pathlib import Path
from typing import Any

from ehrready import pipeline
from ehrready.pipeline import Options
from ehrready.profile import Profile
from tests.helpers import forked

PROJECT = Path(__file__).parents[2]
OMOP = PROJECT / "sample_data" / "live" / "omop"
TABLES = {path.stem: path for path in sorted(OMOP.glob("*.parquet"))}


def profiled(*sources: str | Path, **options: Any) -> bytes:
    """Return the exact profile of sources as it is saved; the sample data is read once."""
    return _read(*sources, **options).to_json()


def sizeless(*sources: str | Path, **options: Any) -> bytes:
    """Return the exact profile of sources without the bytes of their files: a table of a database has none."""
    profile = _read(*sources, **options)
    for key, (files, _, *records) in profile.frames["ledger"].items():
        profile.frames["ledger"][key] = (files, 0, *records)
    return profile.to_json()


def _read(*sources: str | Path, **options: Any) -> Profile:
    if not options and all(isinstance(source, Path) and source.is_relative_to(PROJECT / "sample_data") for source in sources):
        return copy.deepcopy(_sample(sources))
    return pipeline.read_profile([str(source) for source in sources], Options(internal=True, memory="1GB", **options))[0]


@functools.cache
def _sample(sources: tuple[Path, ...]) -> Profile:
    return pipeline.read_profile([str(source) for source in sources], Options(internal=True, memory="1GB"))[0]


def command(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return forked.run_text(*arguments, env=env)
