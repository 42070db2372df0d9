"""Complementary suppression: which counts go with the small ones, so that no known sum gives them away.

Cells are counts under a name; a *sum* says that some cells are disjoint parts of another.  What a whole holds beyond its
parts is a cell, too, though nobody writes it: its difference is as small as any.  Cells that stand in several frames of a
profile are tied by sums like those within a frame, so that one closure holds for all (Willenborg and de Waal, Elements of
Statistical Disclosure Control, 2001, ch. 4; CMS cell-size policy).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from ehrready.profile import Frame, Key, Values

SMALLEST = 11

#: The name of a frame and a key of it; a ``@`` frame holds totals that are known but stand nowhere.
Cell = tuple[str, Key]


def small(count: int | None) -> bool:
    """Is this a number of patients (or records) that may not be shown?"""
    return count is not None and 0 < count < SMALLEST


@dataclass(frozen=True, slots=True)
class Sum:
    """A whole and its disjoint parts; ``rest`` is what the whole holds beyond them."""

    whole: Cell
    parts: tuple[Cell, ...]
    rest: int


class Suppression:
    """Cells, the sums that tie them, and those that are hidden.

    A count of None was hidden before: it stays so, and nothing is concluded from sums that it is the whole of.
    """

    def __init__(self) -> None:
        """Start without cells."""
        self.values: dict[Cell, Values] = {}
        self.hidden: set[Cell] = set()
        self.told: set[Cell] = set()  # written elsewhere: hiding them here would hide nothing
        self._people: dict[str, int] = {}
        self._frames: dict[str, Frame] = {}
        self._sums: list[Sum] = []
        self._of: dict[Cell, list[int]] = defaultdict(list)

    def frame(self, name: str, cells: Frame, people: int) -> None:
        """Take in a frame; ``people`` is the place of the patients among its values (0 where nothing else is counted)."""
        self._people[name] = people
        self._frames[name] = cells
        for key, values in cells.items():
            self.values[name, key] = values
            if values[0] is None or any(small(values[i]) for i in {0, people}):
                self.hidden.add((name, key))

    def total(self, name: str, key: Key, parts: Iterable[Cell]) -> Cell:
        """Make a known total of parts that nothing else belongs to, and return its cell."""
        whole = (f"@{name}", key)
        members = tuple(parts)
        self.values[whole] = (sum(self.values[part][0] or 0 for part in members),)
        if small(self.values[whole][0]):
            self.hidden.add(whole)
        self.sum(whole, members)
        return whole

    def sum(self, whole: Cell, parts: Iterable[Cell]) -> None:
        """Say that the whole holds its parts, and perhaps more; a whole that is absent or less than its parts says nothing."""
        values = self.values
        members = [part for part in parts if part in values]
        n = values.get(whole, (None,))[0]
        if n is None or not members:
            return
        rest = n - sum([values[part][0] or 0 for part in members])
        if rest < 0 and any(values[part][0] is None for part in members):
            rest = 0
        if rest < 0 or rest >= SMALLEST:
            return  # parts behind so large a rest cannot be told, whatever else is known (see _close)
        for cell in (whole, *members):
            self._of[cell].append(len(self._sums))
        self._sums.append(Sum(whole, tuple(sorted(members)), rest))

    def close(self) -> None:
        """Hide further cells until no sum gives a small one away."""
        queue = deque(range(len(self._sums)))  # in order, so that the same counts hide the same cells
        waiting = set(queue)
        while queue:
            number = queue.popleft()
            waiting.discard(number)
            for cell in self._close(self._sums[number]):
                self.hidden.add(cell)
                fresh = [other for other in self._of[cell] if other != number and other not in waiting]
                queue.extend(fresh)
                waiting.update(fresh)

    def _close(self, one: Sum) -> list[Cell]:
        """Return what must go for one sum: unknown parts are none, or at least two and together no small cell."""
        gone = [part for part in one.parts if part in self.hidden]
        unknown = len(gone) + (one.rest > 0)
        whole_known = one.whole not in self.hidden
        if whole_known and not unknown:
            return []
        free = [part for part in one.parts if part not in self.hidden and part not in self.told]
        # beside what is told elsewhere even a part that is none keeps a hidden whole from being added up
        zeros = not whole_known and len(free) + len(gone) < len(one.parts)
        shown = sorted(((self._n(part), part) for part in free if zeros or self._n(part)), key=lambda part: (not part[0], part))
        added: list[Cell] = []
        while (unknown == 0 and not whole_known) or (whole_known and unknown and self._alone(gone, one.rest)):
            if not shown:
                if whole_known:
                    added.append(one.whole)
                break
            part = shown.pop(0)[1]
            gone.append(part)
            added.append(part)
            unknown += 1
        return added

    def _alone(self, gone: list[Cell], rest: int) -> bool:
        """Do these hidden parts, and what is beyond the parts, add up to something that may not be known?"""
        if not gone:
            return small(rest)
        if len(gone) == 1 and not rest:
            return True
        few = sum(self._n(cell) for cell in gone) + rest < SMALLEST
        return few or (not rest and all(cell[0] in self._people for cell in gone) and self._patients(gone) < SMALLEST)

    def _n(self, cell: Cell) -> int:
        return self.values[cell][0] or 0

    def _patients(self, cells: list[Cell]) -> int:
        return sum(self.values[cell][self._people[cell[0]]] or 0 for cell in cells)

    def part(self, mark: str) -> Part:
        """Return the door through which the frames of a part of the data come in, beside those of the whole."""
        return Part(self, mark)

    def kept(self, name: str) -> Frame:
        """Return a frame as it may leave: hidden rows hold None."""
        return {
            key: tuple(None for _ in values) if (name, key) in self.hidden else self.values[name, key]
            for key, values in self._frames.get(name, {}).items()
        }


class Part:
    """A :class:`Suppression` whose cells bear a mark in the names of their frames: one site's cells beside those of all."""

    def __init__(self, cells: Suppression, mark: str) -> None:
        """``mark`` is put behind every name; ``""`` is the whole."""
        self._cells, self._mark = cells, mark

    def _there(self, cell: Cell) -> Cell:
        return cell[0] + self._mark, cell[1]

    def has(self, cell: Cell) -> bool:
        """Whether the cell is there."""
        return self._there(cell) in self._cells.values

    def frame(self, name: str, cells: Frame, people: int) -> None:
        """Take in a frame, see :meth:`Suppression.frame`."""
        self._cells.frame(name + self._mark, cells, people)

    def total(self, name: str, key: Key, parts: Iterable[Cell]) -> Cell:
        """Make a known total, see :meth:`Suppression.total`."""
        self._cells.total(name + self._mark, key, map(self._there, parts))
        return f"@{name}", key

    def sum(self, whole: Cell, parts: Iterable[Cell]) -> None:
        """Say that the whole holds its parts, see :meth:`Suppression.sum`."""
        self._cells.sum(self._there(whole), map(self._there, parts))

    def kept(self, name: str) -> Frame:
        """Return a frame as it may leave."""
        return self._cells.kept(name + self._mark)
