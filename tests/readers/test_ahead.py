"""Items made ahead in a thread are those that would have been made without it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator

import pytest

from ehrready.readers.ahead import Behind, ahead


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


def test_pieces_are_written_in_order_and_handed_out_with_their_piece() -> None:
    written: list[int] = []

    def make(n: int) -> int:
        if n == 0:
            time.sleep(0.05)  # the first one takes longer than the next
        return n * 10

    def write(n: int) -> list[str]:
        written.append(n)
        return [f"wrote {n}"]

    with Behind[str](3) as behind:
        given = [behind.then(functools.partial(make, n), lambda m: m + 1, write) for n in range(5)]
        rest = behind.rest()
    assert written == [1, 11, 21, 31, 41]
    assert given == [[], [], [], ["wrote 1"], ["wrote 11"]]
    assert rest == ["wrote 21", "wrote 31", "wrote 41"]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_error_of_a_piece_is_raised_and_ends_the_threads(broken: int) -> None:
    def part(fails: bool, *_: object) -> list[str]:
        if fails:
            raise OSError("gone")
        return []

    def work() -> None:
        with Behind[str](3) as behind:
            first, second, third = (functools.partial(part, broken == n) for n in range(3))
            behind.then(first, second, third)
            behind.rest()

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        work()
    assert threading.active_count() == before
