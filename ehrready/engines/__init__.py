"""Engines that hold the canonical tables and run the measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ehrready.options import Options


@contextmanager
def opening(options: Options) -> Iterator[Callable[[int], Any]]:
    """Begin to open the engine of the options, and yield what returns its connection, given the number of bytes to read.

    The embedded engine opens beside what is done before it is asked for; what it raises is raised when it is asked for.
    Spark, which cuts what is read by its size, begins then.
    """
    with ExitStack() as leaving:
        if options.engine == "spark":
            from ehrready.engines import spark

            yield lambda size: leaving.enter_context(spark.open_engine(master=options.master, size=size, memory=options.memory))
            return
        from ehrready.engines import duckdb

        begun = leaving.enter_context(_Begun(duckdb.open_engine(memory=options.memory, threads=options.threads, behind=True)))
        yield lambda size: begun.entered.result()


class _Begun:
    """A context that is entered in a thread, and left where this is left."""

    def __init__(self, context: AbstractContextManager[Any]) -> None:
        self._context = context
        self._pool = ThreadPoolExecutor(1)
        self.entered = self._pool.submit(context.__enter__)

    def __enter__(self) -> _Begun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        self._pool.shutdown()
        return None if self.entered.exception() else self._context.__exit__(kind, error, trace)
