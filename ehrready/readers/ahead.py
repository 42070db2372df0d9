"""Work side by side: blocks are read ahead of the engine, and written behind what looks at the next one.

Reading, unpacking and splitting, and the engine itself, let go of Python's lock.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _End:
    """Nothing more comes, but for an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[T], most: int = 1) -> Generator[T, None, None]:
    """Yield the items, which a thread makes: at most ``most`` wait, beside the one in its hands.

    An error of theirs is raised here, in its place.  Who stops early ends the thread.
    """
    ready: queue.Queue[T | _End] = queue.Queue(most)
    stop = threading.Event()

    def put(item: T | _End) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                break

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_End(None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            put(_End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


class Behind(Generic[T]):
    """Does pieces of work in threads beside what makes the next piece: a context, whose end awaits the last one.

    A piece has several ``parts``, each with a thread of its own: while the last part of one is done, others are at an earlier part.  What a
    piece gives is handed out when the ``MOST``-th after it is started, so that everything comes in the same order in every run.
    """

    #: pieces that may be in work when another one is started
    MOST = 2

    def __init__(self, parts: int = 2) -> None:
        self._threads = [ThreadPoolExecutor(1) for _ in range(parts)]
        self._waiting: deque[Future[Iterable[T]]] = deque()

    def __enter__(self) -> Behind[T]:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)

    def then(self, first: Callable[[], Any], *others: Callable[[Any], Any]) -> list[T]:
        """Start a piece: each of its parts is given what the one before made, and the last gives the events.

        Returns what the pieces gave that must end before; an error of theirs is raised.
        """
        found = self._ended(self.MOST)
        made = self._threads[0].submit(first)
        for thread, part in zip(self._threads[1:-1], others[:-1], strict=True):
            made = thread.submit(_after, made, part)
        self._waiting.append(self._threads[-1].submit(lambda: list(others[-1](made.result()))))
        return found

    def rest(self) -> list[T]:
        """Await all pieces and return what they gave."""
        return self._ended(0)

    def _ended(self, left: int) -> list[T]:
        found: list[T] = []
        while len(self._waiting) > left:
            found += self._waiting.popleft().result()
        return found


def _after(before: Future[Any], part: Callable[[Any], Any]) -> Any:
    return part(before.result())
