"""What a run needs later, made ready while the engine works: a thread imports modules and compiles templates.

DuckDB lets go of Python's lock while it plans and runs a statement, and on little data leaves a core idle.  Nothing here is
needed: what fails fails once more where it is used, and is told there; nothing is printed, and nothing depends on how far it came.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

Job = Callable[[], object]


def start(jobs: Iterable[Job]) -> None:
    """Do the jobs, one after the other, in a thread; the process does not wait for those that have not begun when it ends."""
    if waiting := tuple(jobs):
        threading.Thread(target=_work, args=(waiting,), name="ehrready-warm").start()


def _work(jobs: tuple[Job, ...]) -> None:
    for job in jobs:
        if not threading.main_thread().is_alive():
            break
        with contextlib.suppress(Exception):
            job()
