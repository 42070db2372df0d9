"""From the segments of a block to the columns of rows: fields by place in the block's bytes, and what belongs to what by number.

A PID begins a group of its message: its patient and visit are those of what follows it, and of what stands between the header and the first PID.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa

from ehrready import cells
from ehrready.readers import hl7v2_sql
from ehrready.readers.arrays import Integers, bits, integers, numbers, one_array, places_of, slices, truths
from ehrready.readers.hl7v2_split import Block
from ehrready.readers.hl7v2_sql import Form, Leaf
from ehrready.readers.leaves import Told, plain, tell

#: Segments of one kind that are enough for statements of their own; fewer wait for those of the next blocks.
MANY = 32768
_MISSING = cells.DIGIT["missing"]


class Segments:
    """The segments of a block by kind, the fields of each found when they are asked for; ``record`` is of each segment."""

    def __init__(self, block: Block, record: Integers) -> None:
        self.block, self.record = block, record
        self._marks = places_of(np.frombuffer(block.data, np.uint8), 0x7C)
        self._first = np.searchsorted(self._marks, block.starts.astype(self._marks.dtype))
        self._last = np.empty_like(self._first)
        self._last[:-1] = self._first[1:]
        # where the next line is not the next segment
        apart = np.flatnonzero(np.append(block.starts[1:] != block.ends[:-1] + 1, [True])[: len(block.kind)])
        self._last[apart] = np.searchsorted(self._marks, block.ends[apart].astype(self._marks.dtype))
        kinds = {name: i for i, name in enumerate(block.kinds)}
        self.rows = {name: np.flatnonzero(block.kind == i) for name, i in kinds.items()}
        header, person = block.kind == kinds["MSH"], block.kind == kinds["PID"]
        starts = header | person
        self.group = np.cumsum(starts) - 1
        message = block.message[starts]
        # a header's group is that of the person behind it
        of = np.arange(len(message))
        of[:-1] += header[starts][:-1] & (message[1:] == message[:-1])
        self.person_of = of
        self.header = (np.cumsum(header) - 1)[starts]
        self.person = np.where(person[starts], (np.cumsum(person) - 1)[starts], -1)[of]

    def field(self, segment: str, number: int) -> pa.Array:
        """Return a field of all segments of a kind, ``""`` where one is too short; nulls where all are empty."""
        rows = self.rows[segment]
        n = number - (segment == "MSH")
        before, behind = self._first[rows] + n - 1, self._last[rows]
        last = len(self._marks) - 1
        ends = self.block.ends[rows]
        start = np.where(before < behind, self._marks[np.minimum(before, last)] + 1, ends)
        end = np.where(before + 1 < behind, self._marks[np.minimum(before + 1, last)], ends)
        return slices(self.block.data, start, end) if (start < end).any() else pa.nulls(len(rows), pa.large_string())

    def parent(self, segment: str, rows: Integers) -> Integers:
        """Return, for some segments, the number of the last segment of a kind before each in its group, or -1."""
        places = self.rows[segment]
        found = np.searchsorted(places, rows) - 1
        if not len(places):
            return found
        same = self.group[places[np.maximum(found, 0)]] == self.group[rows]
        return np.where(same, found, -1)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one form, computed and not written: ``typed`` are its columns, ``texts`` the different ones of its coded elements."""

    form: Form
    typed: pa.Table
    texts: dict[str, tuple[pa.Array, Integers]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Patients or visits of a block, with the column that is their key, as dictionaries."""

    table: str
    key: str
    columns: dict[str, pa.Array]
    record: Integers


@dataclass(slots=True)
class Found:
    """What a block says: rows to write, patients and visits, messages by type and by file, the repaired ones (record, patient)."""

    rows: list[Rows] = field(default_factory=list)
    people: list[Waiting] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    messages: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    repaired: pa.Table | None = None


@dataclass(slots=True)
class _Few:
    leaves: list[pa.Table] = field(default_factory=list)
    escapes: str = ""

    @property
    def rows(self) -> int:
        return sum(map(len, self.leaves))


class Extraction:
    """Computes the rows of blocks, with a connection of its own; ``shared``: with states and months as numbers."""

    def __init__(self, con: duckdb.DuckDBPyConnection, *, shared: bool) -> None:
        self._con, self._shared = con, shared
        self._waiting = [_Few() for _ in hl7v2_sql.entries()]
        self._standing: dict[str, Integers] = {}  # by group of the block, the state of a reference (cells.standing)

    def block(self, segments: Segments) -> Found:
        """Compute what a block says."""
        found, block, record = Found(), segments.block, segments.record
        if not len(block.kind):
            return found
        headers = segments.rows["MSH"]
        form = hl7v2_sql.header(block.escapes)
        said = tell(self._con, form.columns, _table(form, lambda leaf: segments.field(*leaf)))
        found.messages = record[headers]
        kinds, which = said.different("kind")
        found.types = dict(
            zip((kind or "other" for kind in kinds.to_pylist()), np.bincount(which, minlength=len(kinds)).tolist(), strict=True)
        )
        context = self._people(found, segments, said)
        if len(block.repaired):
            rows = headers[np.isin(block.message[headers], block.repaired)]
            patients = _taken(context["patient_id"], segments.group[rows]).dictionary_decode()
            found.repaired = pa.Table.from_arrays([integers(record[rows]), patients], names=["record", "patient_id"])
        codes = context.pop("code")
        for number, (_, entry) in enumerate(hl7v2_sql.entries()):
            rows = segments.rows[entry["segment"]]
            keep = np.ones(len(rows), np.bool_)
            for name, wanted in (("message", True), ("not_message", False)):
                if name in entry and len(rows):
                    different = np.array([code == entry[name] for code in codes[0].to_pylist()], np.bool_)
                    keep &= different[codes[1][segments.group[rows]]] == wanted
            if "unless" in entry:
                keep &= ~np.isin(block.message[rows], block.message[segments.rows[entry["unless"]]])
            if keep.any():
                self._add(found, number, segments, context, rows, keep)
        return found

    def rest(self) -> Found:
        """Compute the rows that still wait."""
        found = Found()
        for number, waiting in enumerate(self._waiting):
            if waiting.leaves:
                self._compute(found, number, waiting.leaves, waiting.escapes)
                self._waiting[number] = _Few()
        return found

    def _people(self, found: Found, segments: Segments, said: Told) -> dict[str, tuple[pa.Array, Integers]]:
        """Compute patients and visits; returns, by group, which of the different sites, codes, patients and visits it has."""
        context = {name: _at(said, name, segments.header) for name in ("site", "code", "ts")}
        early = _at(said, "early", segments.header)
        for number, (table, entry) in enumerate(hl7v2_sql.people()):
            rows = segments.rows[entry["segment"]]
            group = segments.group[rows]
            form = hl7v2_sql.person(number, segments.block.escapes)

            def leaf(what: Leaf, group: Integers = group) -> pa.Array:
                return _taken(early, group) if isinstance(what, str) else segments.field(*what)

            told = tell(self._con, form.columns, _table(form, leaf)) if len(rows) else None
            own = "patient_id" if entry["key"] == "patient" else "encounter_id"
            if told is None:
                context[own] = (pa.nulls(1, pa.large_string()), np.zeros(len(segments.header), np.int64))
                self._standing[own] = np.full(len(segments.header), _MISSING)
                continue
            of = segments.person
            if entry["key"] == "visit":  # the first one of a group that is stated
                values, which = told.different(own)
                stated = np.flatnonzero(~are_null(values)[which])
                first = np.full(len(segments.header), -1)
                first[group[stated][::-1]] = stated[::-1]
                of = first[segments.person_of]
            context[own] = _at(told, own, of)
            self._standing[own] = np.where(of < 0, _MISSING, told.numbers("standing", len(rows))[of])
            columns = {own: coded(*told.different(own))}
            other = {"patient_id", "encounter_id"} - {own}
            columns |= {n: _taken(context[n], group) if n in context and entry["key"] == "visit" else _nulls(len(rows)) for n in other}
            columns |= {"site": _taken(context["site"], group), "ts": _taken(context["ts"], group)}
            columns |= {name: coded(*told.different(name)) for name in form.names}
            found.people.append(Waiting(table, own, columns, segments.record[rows]))
        return context

    def _add(
        self,
        found: Found,
        number: int,
        segments: Segments,
        context: dict[str, tuple[pa.Array, Integers]],
        rows: Integers,
        keep: np.typing.NDArray[np.bool_],
    ) -> None:
        """Compute the rows of an entry, or let them wait."""
        form = hl7v2_sql.form(number, segments.block.escapes, self._shared)
        segment = form.entry["segment"]

        def leaf(what: Leaf) -> pa.Array:
            if isinstance(what, str):
                return _taken(context[what], segments.group[rows])
            if what[0] == segment:
                return segments.field(*what)
            parents = segments.parent(what[0], rows)
            if not (parents >= 0).any():
                return pa.nulls(len(rows), pa.large_string())
            encoded = segments.field(*what).dictionary_encode()
            values = pa.concat_arrays([encoded.dictionary, pa.nulls(1, pa.large_string())])
            return coded(values, np.where(parents < 0, len(values) - 1, numbers(encoded.indices)[np.maximum(parents, 0)]))

        word = np.zeros(len(rows), np.int64)
        for name, (digit, real) in cells.of_references(form.table).items():
            standing = self._standing[name][segments.group[rows]]
            word += standing % len(cells.STATES) * digit + standing // len(cells.STATES) * real
        leaves = _table(form, leaf).append_column("record", integers(segments.record[rows])).append_column("word", integers(word))
        if not keep.all():
            leaves = leaves.filter(truths(keep))
        waiting = self._waiting[number]
        if not waiting.leaves and len(leaves) >= MANY:
            self._compute(found, number, [leaves], segments.block.escapes)
            return
        waiting.leaves.append(pa.Table.from_arrays([_text(column) for column in leaves.columns], names=leaves.column_names))
        waiting.escapes = "".join(sorted({*waiting.escapes, *segments.block.escapes}))
        if waiting.rows >= MANY:
            self._compute(found, number, waiting.leaves, waiting.escapes)
            self._waiting[number] = _Few()

    def _compute(self, found: Found, number: int, parts: Sequence[pa.Table], escapes: str) -> None:
        form, leaves = hl7v2_sql.form(number, escapes, self._shared), pa.concat_tables(parts)
        told = tell(self._con, form.columns, leaves)
        typed = told.table(form.names).append_column("record", leaves.column("record"))
        if self._shared:
            typed = typed.append_column("word", integers(told.sum(len(typed)) + numbers(leaves.column("word"))))
        found.rows.append(Rows(form, typed, {x: told.different(column) for x, column, _ in form.elements}))


def _table(form: Form, leaf: Callable[[Leaf], pa.Array]) -> pa.Table:
    """Return the leaves of a form, each made by ``leaf``."""
    return pa.Table.from_arrays([leaf(what) for what in form.leaves], names=[f"l{i}" for i in range(len(form.leaves))])


def _at(told: Told, name: str, rows: Integers) -> tuple[pa.Array, Integers]:
    """Return the different values of a column and which of them some rows have; row -1 has none."""
    values, which = told.different(name)
    values = pa.concat_arrays([values, pa.nulls(1, values.type)])
    return values, np.where(rows < 0, len(values) - 1, which[np.maximum(rows, 0)])


def _taken(column: tuple[pa.Array, Integers], rows: Integers) -> pa.Array:
    values, which = column
    return coded(values, which[rows])


def coded(values: pa.Array, which: Integers) -> pa.Array:
    """Return a dictionary column."""
    return pa.DictionaryArray.from_arrays(integers(which).cast(pa.int32()), values)


def _nulls(n: int) -> pa.Array:
    return coded(pa.nulls(1, pa.large_string()), np.zeros(n, np.int64))


def are_null(values: pa.Array) -> np.typing.NDArray[np.bool_]:
    """Say which values are null."""
    return bits(values.is_null())


def _text(column: pa.ChunkedArray) -> pa.Array:
    whole = plain(one_array(column))
    return whole if whole.type == pa.int64() else whole.cast(pa.large_string())
