"""Engines that hold the canonical tables and run the measures."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ehrready.options import Options


def open_engine(options: Options, size: int) -> AbstractContextManager[Any]:
    """Open the engine of the options; ``size`` is the number of bytes to read."""
    if options.engine == "spark":
        from ehrready.engines import spark

        return spark.open_engine(master=options.master, size=size, memory=options.memory)
    from ehrready.engines import duckdb

    return duckdb.open_engine(memory=options.memory, threads=options.threads, behind=True)
