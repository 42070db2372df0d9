"""Items made ahead in a thread are those that would have been made without it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ehrready.readers.ahead import ahead


def test_items_come_in_order_and_an_error_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("gone")

    source = ahead(items())
    seen = [next(source) for _ in range(5)]
    with pytest.raises(OSError, match="gone"):
        next(source)
    assert seen == [0, 1, 2, 3, 4]


def test_no_more_than_asked_for_is_made_ahead_and_stopping_early_ends_the_thread() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    before = threading.active_count()
    source = ahead(items(), 2)
    assert next(source) == 0
    source.close()
    assert threading.active_count() == before
    assert len(made) <= 5
