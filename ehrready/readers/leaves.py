"""Columns of records, computed once per different value and not once per record.

The leaves of a record (a resource, a segment) are the values that its columns are made of, ``l0``, ``l1``...  Columns that share leaves
are a group; in a block the same values of a group come again and again (a patient, a day, a unit, the text of a concept), so that
the SQL of the columns runs over the different ones only.  All groups are computed by one statement, side by side.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.readers.arrays import Integers, integers, numbers, one_array

#: Rows up to which a block is computed row by row: finding the different values is not worth it.
FEW = 2048

_ALIAS = re.compile(r"\b[lk](\d+)\b")
_PLACED = re.compile(r"\bg\d+_(l\d+)\b")


def _named(groups: Sequence[tuple[set[str], list[str]]]) -> set[str]:
    return {name for _, names in groups for name in names}


def _leaves_of(sql: str, made_of: Mapping[str, frozenset[str]]) -> set[str]:
    found = {f"l{number}" for number in _ALIAS.findall(sql)}
    return found.union(*(made_of[name] for name in re.findall(r"\w+", sql) if name in made_of)) if made_of else found


def _placed(sql: str, place_of: Mapping[str, int]) -> str:
    return _ALIAS.sub(lambda alias: f"g{place_of[f'l{alias[1]}']}_{alias[0]}", sql)


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns as SQL over leaves, by group: made once per resource type.

    ``groups`` are pairs of leaves and columns; ``ways`` are the SQL of each column, of which the first that gives something counts,
    over a table ``_different`` whose columns are the leaves of each group (``g0_l3``).  SQL over nothing but nulls must give null.
    ``plain`` are the columns that are a leaf as it is, ``further`` SQL over columns.  ``layers`` are steps on the way: SQL over leaves
    and the layers before, with the leaves of each group (``of``: of which leaves each is made).
    """

    groups: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    ways: Mapping[str, Sequence[str]]
    plain: Mapping[str, str]
    further: Mapping[str, str]
    layers: Sequence[Mapping[str, str]]
    made_of: Mapping[str, frozenset[str]]

    @classmethod
    def of(
        cls, columns: Mapping[str, Sequence[str]], terms: Sequence[str] = (), layers: Sequence[Mapping[str, str]] = (), **further: str
    ) -> Columns:
        """Group columns (name to ways as SQL over aliases and names of ``layers``) that share leaves.

        ``further`` columns are SQL over the columns of the table ``t``; ``terms`` are such SQL, too, whose sums by group are the
        columns ``term0``, ``term1``... of the groups.
        """
        plain = {name: ways[0] for name, ways in columns.items() if len(ways) == 1 and re.fullmatch(r"l\d+", ways[0])}
        made_of: dict[str, frozenset[str]] = {}
        for layer in layers:
            made_of |= {name: frozenset(_leaves_of(sql, made_of)) for name, sql in layer.items()}
        of = {name: _leaves_of(" ".join(ways), made_of) for name, ways in columns.items()}
        found: list[tuple[set[str], list[str]]] = []

        def add(leaves: set[str], *names: str) -> None:
            """Add columns to the group of their leaves; groups that turn out to share leaves become one."""
            nonlocal found
            mine, apart = list(names), []
            for group in found:
                if group[0] & leaves or not (group[0] or leaves):
                    leaves, mine = leaves | group[0], [*group[1], *mine]
                else:
                    apart.append(group)
            found = [*apart, (leaves, mine)]

        for name in columns:
            if name not in plain:
                add(of[name], name)
        derived = {**further, **{f"+{n}": sql for n, sql in enumerate(terms)}}
        for name, sql in derived.items():
            used = [column for column in columns if re.search(rf"(?<![\w']){column}(?![\w'])", sql)]
            add(
                set().union(*(of[column] for column in used)),
                *(column for column in used if column in plain and column not in _named(found)),
                name,
            )
        groups = tuple((tuple(sorted(leaves, key=lambda alias: int(alias[1:]))), tuple(names)) for leaves, names in found)
        made: dict[str, str] = {}
        for place, (_, names) in enumerate(groups):
            made |= {name: derived[name] for name in names if name in further}
            if sums := [derived[name] for name in names if name[0] == "+"]:
                made[f"term{place}"] = f"({' + '.join(sums)})::BIGINT"
        groups = tuple(
            (leaves, tuple(n for n in (*names, *([f"term{place}"] if f"term{place}" in made else [])) if n[0] != "+"))
            for place, (leaves, names) in enumerate(groups)
        )
        place_of = {leaf: place for place, (leaves, _) in enumerate(groups) for leaf in leaves}
        used_layers = tuple(
            {name: _placed(sql, place_of) for name, sql in layer.items() if made_of[name] <= place_of.keys()} for layer in layers
        )
        ways = {name: columns[name] for _, names in groups for name in names if name in columns}
        return cls(groups, ways, plain, made, used_layers, made_of)

    def select(self, empty: Collection[str]) -> str:
        """Return the statement that computes the columns of the groups, without the ways that lead to nothing but ``empty`` leaves."""
        parts, cleaned = ["i"], []
        for place, (leaves, names) in enumerate(self.groups):
            used = ""
            for name in names:
                if name in self.further:
                    continue
                ways = [sql for sql in self.ways[name] if not (found := _leaves_of(sql, self.made_of)) or found - set(empty)]
                sql = _ALIAS.sub(lambda alias, place=place: f"g{place}_{alias[0]}", ", ".join(ways))  # type: ignore[misc]
                parts.append(f'{f"coalesce({sql})" if len(ways) > 1 else sql or "NULL::VARCHAR"} AS "{name}"')
                used += sql
            cleaned += [f"clean(g{place}_{leaf}) AS g{place}_k{leaf[1:]}" for leaf in leaves if f"g{place}_k{leaf[1:]}" in used]
        source = f"SELECT {', '.join(['*', *cleaned])} FROM _different"
        for layer in self.layers:
            steps = [
                f"{_PLACED.sub(lambda leaf: 'NULL::VARCHAR' if leaf[1] in empty else leaf[0], sql)} AS {name}"
                for name, sql in layer.items()
            ]
            source = f"SELECT {', '.join(['*', *steps])} FROM ({source})"
        made = f"SELECT {', '.join(parts)} FROM ({source})"
        further = ", ".join(f'{sql} AS "{name}"' for name, sql in self.further.items())
        return f"SELECT t.*, {further} FROM ({made}) t" if further else made


@dataclass(frozen=True, slots=True)
class Told:
    """What the columns of a block are: the different values of each, and which of them each row has (None: its own).

    ``computed`` are the columns of the groups, padded with nulls to the same length.
    """

    computed: pa.Table
    columns: Mapping[str, tuple[pa.Array | pa.ChunkedArray, Integers | None]]

    def different(self, name: str) -> tuple[pa.Array, Integers]:
        """Return the different values of a column (one of them may be null) and, for each row, which one it has."""
        values, places = self.columns[name]
        encoded = _encoded(values)
        which = numbers(encoded.indices).astype(np.int64)
        return encoded.dictionary, which if places is None else which[places]

    def some(self, name: str) -> bool:
        """Say whether any row has a value."""
        values, _ = self.columns[name]
        return bool(values.null_count < len(values))

    def numbers(self, name: str, rows: int) -> Integers:
        """Return, for each row, what a column of whole numbers has."""
        values, places = self.columns[name]
        found: Integers = numbers(values).astype(np.int64)
        return found[:rows] if places is None else found[places]

    def sum(self, rows: int) -> Integers:
        """Return, for each row, the sum of the terms of all groups."""
        total = np.zeros(rows, np.int64)
        for name, (values, places) in self.columns.items():
            if name.startswith("term"):
                total += numbers(values) if places is None else numbers(values)[places]
        return total

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return columns with a value per row."""
        taken: dict[int, pa.Array] = {}
        columns = []
        for name in names:
            values, places = self.columns[name]
            if places is not None:
                index = taken.setdefault(id(places), integers(places))
                values = pa.DictionaryArray.from_arrays(index.cast(pa.int32()), values)
            columns.append(values)
        return pa.Table.from_arrays(columns, names=list(names))


def tell(con: duckdb.DuckDBPyConnection, columns: Columns, leaves: pa.Table) -> Told:
    """Compute the columns of a block from its leaves: texts, or dictionaries of texts whose indices are not null."""
    n = len(leaves)
    empty = {name for name in leaves.column_names if leaves.column(name).null_count == n}
    # what no group needs stays in the chunks it came in: most of the bytes
    whole = {
        alias: one_array(leaves.column(alias)) if n <= FEW or alias in empty else _encoded(leaves.column(alias))
        for wanted, _ in columns.groups
        for alias in wanted
    }
    parts: list[tuple[Integers | None, Integers | None]] = []
    for wanted, _ in columns.groups:
        parts.append((None, None) if n <= FEW and wanted else alike([whole[alias] for alias in wanted], n))
    most = max((n if first is None else len(first) for _, first in parts), default=0)
    given, names = [integers(np.arange(most))], ["i"]
    for place, ((wanted, _), (_, first)) in enumerate(zip(columns.groups, parts, strict=True)):
        taken = None if first is None else integers(first)
        for alias in wanted:
            given.append(_padded(plain(whole[alias] if taken is None else whole[alias].take(taken)), most))
            names.append(f"g{place}_{alias}")
    # in one piece, for one thread: others look at the next block and write the one before, and each would plan for itself
    con.register("_different", pa.Table.from_arrays(given, names=names))
    found = con.sql(columns.select(empty)).to_arrow_table()
    con.unregister("_different")
    order = numbers(found.column("i"))
    if (order[1:] < order[:-1]).any():
        found = found.take(integers(np.argsort(order)))
    told = {name: _parted(whole[alias] if alias in whole else leaves.column(alias)) for name, alias in columns.plain.items()}
    for (_, made), (which, first) in zip(columns.groups, parts, strict=True):
        for name in made:
            values = one_array(found.column(name))
            told[name] = (values if first is None else values.slice(0, len(first)), which)
    return Told(found, told)


def side_by_side(columns: Mapping[str, pa.Array]) -> pa.Table:
    """Return columns of different lengths as one table, padded with nulls."""
    most = max((len(column) for column in columns.values()), default=0)
    return pa.Table.from_arrays([_padded(column, most) for column in columns.values()], names=list(columns))


def alike(columns: Sequence[pa.Array], n: int) -> tuple[Integers, Integers]:
    """Return, for each row, which of the different rows of some columns it is, and where each of these comes first.

    A dictionary column may have values of no row: these are numbered, too, and their place is 0.
    """
    codes, size = np.zeros(n, np.int64), 1
    for which, k in _coded(columns, n):
        if size == 1:
            codes, size = which, k
        else:
            pairs = pc.dictionary_encode(integers(codes * k + which))
            codes, size = numbers(pairs.indices).astype(np.int64), len(pairs.dictionary)
    first = np.zeros(size, np.int64)
    first[codes[::-1]] = np.arange(n)[::-1]
    return codes, first


def _coded(columns: Sequence[pa.Array], n: int) -> Iterator[tuple[Integers, int]]:
    """Yield the numbers of the different values of each column that has several, and how many these are."""
    for column in columns:
        if pa.types.is_dictionary(column.type):
            if len(column.dictionary) > 1:
                yield numbers(column.indices).astype(np.int64), len(column.dictionary)
        elif column.null_count < n:
            encoded = pc.dictionary_encode(column, null_encoding="encode")
            if len(encoded.dictionary) > 1:
                yield numbers(encoded.indices).astype(np.int64), len(encoded.dictionary)


def _encoded(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one dictionary whose indices are not null; its texts are not copied into one piece first."""
    if pa.types.is_dictionary(column.type):
        return one_array(column)
    if isinstance(column, pa.Array):
        return pc.dictionary_encode(column, null_encoding="encode")
    chunks = pc.dictionary_encode(column, null_encoding="encode").chunks  # one dictionary, of the values of all chunks
    return pa.DictionaryArray.from_arrays(pa.concat_arrays([chunk.indices for chunk in chunks]), chunks[-1].dictionary)


def plain(column: pa.Array) -> pa.Array:
    """Return a column with a value per row, which may be a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _parted(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array | pa.ChunkedArray, Integers | None]:
    if not pa.types.is_dictionary(column.type):
        return column, None
    whole = one_array(column)
    return whole.dictionary, numbers(whole.indices).astype(np.int64)


def _padded(column: pa.Array, most: int) -> pa.Array:
    return column if len(column) == most else pa.concat_arrays([column, pa.nulls(most - len(column), column.type)])
