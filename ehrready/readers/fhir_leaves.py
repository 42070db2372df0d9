"""Columns of resources, computed once per different value and not once per resource.

The one parse of a resource (``json_transform``) gives its leaves: the values that columns are made of.  Columns that share leaves
are a group; in a block the same values of a group come again and again (a patient, a day, a unit, the text of a concept), so that
the SQL of the columns runs over the different ones only.  All groups are computed by one statement, side by side.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrready.readers.arrays import Integers, batched, integers, numbers, one_array

#: Rows up to which a block is computed row by row: finding the different values is not worth it.
FEW = 2048

_ALIAS = re.compile(r"\b[lk](\d+)\b")


@dataclass(slots=True)
class Leaves:
    """The leaves of a resource type: the structure that is parsed, and SQL over the parsed ``x`` by alias (``l0``, ``l1``...)."""

    structure: dict[str, Any]
    aliases: dict[str, str] = field(default_factory=dict)

    def of(self, sql: str) -> str:
        """Return the alias of some SQL over ``x`` that gives text."""
        return self.aliases.setdefault(sql, f"l{len(self.aliases)}")

    def at(self, path: str, kind: Any = "VARCHAR") -> str:
        """Return the alias of a dotted path; ``[]`` takes the first element of a list.  ``JSON`` gives the text of what is there."""
        sql = self.sql(path, kind)
        return self.of(f"{sql}::VARCHAR" if kind == "JSON" else sql)

    def clean(self, path: str) -> str:
        """Return the alias (``k0``) of a path's text, trimmed and not empty."""
        return f"k{self.at(path)[1:]}"

    def sql(self, path: str, kind: Any = "VARCHAR") -> str:
        """Add a dotted path to the structure and return its SQL over ``x``."""
        node, sql = self.structure, "x"
        steps = path.split(".")
        for step in steps[:-1]:
            name = step.removesuffix("[]")
            child = node.setdefault(name, [{}] if step.endswith("[]") else {})
            sql += f'."{name}"' + ("[1]" if step.endswith("[]") else "")
            node = child[0] if isinstance(child, list) else child
        node.setdefault(steps[-1], kind)
        return f'{sql}."{steps[-1]}"'


def _named(groups: Sequence[tuple[set[str], list[str]]]) -> set[str]:
    return {name for _, names in groups for name in names}


def _leaves_of(sql: str) -> set[str]:
    return {f"l{number}" for number in _ALIAS.findall(sql)}


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns as SQL over leaves, by group: made once per resource type.

    ``groups`` are pairs of leaves and columns; ``ways`` are the SQL of each column, of which the first that gives something counts,
    over a table ``_different`` whose columns are the leaves of each group (``g0_l3``).  SQL over nothing but nulls must give null.
    ``plain`` are the columns that are a leaf as it is, ``further`` SQL over columns.
    """

    groups: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    ways: Mapping[str, Sequence[str]]
    plain: Mapping[str, str]
    further: Mapping[str, str]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], terms: Sequence[str] = (), **further: str) -> Columns:
        """Group columns (name to ways as SQL over aliases) that share leaves.

        ``further`` columns are SQL over the columns of the table ``t``; ``terms`` are such SQL, too, whose sums by group are the
        columns ``term0``, ``term1``... of the groups.
        """
        plain = {name: ways[0] for name, ways in columns.items() if len(ways) == 1 and re.fullmatch(r"l\d+", ways[0])}
        of = {name: _leaves_of(" ".join(ways)) for name, ways in columns.items()}
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
        return cls(groups, {name: columns[name] for _, names in groups for name in names if name in columns}, plain, made)

    def select(self, empty: Collection[str]) -> str:
        """Return the statement that computes the columns of the groups, without the ways that lead to nothing but ``empty`` leaves."""
        parts, cleaned = ["i"], []
        for place, (leaves, names) in enumerate(self.groups):
            used = ""
            for name in names:
                if name in self.further:
                    continue
                ways = [sql for sql in self.ways[name] if not (found := _leaves_of(sql)) or found - set(empty)]
                sql = _ALIAS.sub(lambda alias, place=place: f"g{place}_{alias[0]}", ", ".join(ways))  # type: ignore[misc]
                parts.append(f'{f"coalesce({sql})" if len(ways) > 1 else sql or "NULL::VARCHAR"} AS "{name}"')
                used += sql
            cleaned += [f"clean(g{place}_{leaf}) AS g{place}_k{leaf[1:]}" for leaf in leaves if f"g{place}_k{leaf[1:]}" in used]
        made = f"SELECT {', '.join(parts)} FROM (SELECT {', '.join(['*', *cleaned])} FROM _different)"
        further = ", ".join(f'{sql} AS "{name}"' for name, sql in self.further.items())
        return f"SELECT t.*, {further} FROM ({made}) t" if further else made


@dataclass(frozen=True, slots=True)
class Told:
    """What the columns of a block are: the different values of each, and which of them each row has (None: its own).

    ``computed`` are the columns of the groups, padded with nulls to the same length.
    """

    computed: pa.Table
    columns: Mapping[str, tuple[pa.Array, Integers | None]]

    def different(self, name: str) -> tuple[pa.Array, Integers]:
        """Return the different values of a column (one of them may be null) and, for each row, which one it has."""
        values, places = self.columns[name]
        encoded = pc.dictionary_encode(values, null_encoding="encode")
        which = numbers(encoded.indices).astype(np.int64)
        return encoded.dictionary, which if places is None else which[places]

    def some(self, name: str) -> bool:
        """Say whether any row has a value."""
        values, _ = self.columns[name]
        return bool(values.null_count < len(values))

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
    """Compute the columns of a block from its leaves."""
    n = len(leaves)
    whole = {name: one_array(leaves.column(name)) for name in leaves.column_names}
    parts: list[tuple[Integers | None, Integers | None]] = []
    for wanted, _ in columns.groups:
        parts.append((None, None) if n <= FEW and wanted else _different([whole[alias] for alias in wanted], n))
    most = max((n if first is None else len(first) for _, first in parts), default=0)
    given, names = [integers(np.arange(most))], ["i"]
    for place, ((wanted, _), (_, first)) in enumerate(zip(columns.groups, parts, strict=True)):
        taken = None if first is None else integers(first)
        for alias in wanted:
            given.append(_padded(whole[alias] if taken is None else whole[alias].take(taken), most))
            names.append(f"g{place}_{alias}")
    con.register("_different", batched(pa.Table.from_arrays(given, names=names)))
    found = con.sql(columns.select({name for name, values in whole.items() if values.null_count == n})).to_arrow_table()
    con.unregister("_different")
    order = numbers(found.column("i"))
    if (order[1:] < order[:-1]).any():
        found = found.take(integers(np.argsort(order)))
    told: dict[str, tuple[pa.Array, Integers | None]] = {name: (whole[alias], None) for name, alias in columns.plain.items()}
    for (_, made), (which, first) in zip(columns.groups, parts, strict=True):
        for name in made:
            values = one_array(found.column(name))
            told[name] = (values if first is None else values.slice(0, len(first)), which)
    return Told(found, told)


def side_by_side(columns: Mapping[str, pa.Array]) -> pa.Table:
    """Return columns of different lengths as one table, padded with nulls."""
    most = max((len(column) for column in columns.values()), default=0)
    return pa.Table.from_arrays([_padded(column, most) for column in columns.values()], names=list(columns))


def _different(columns: Sequence[pa.Array], n: int) -> tuple[Integers, Integers]:
    """Return, for each row, which of the different rows of some columns it is, and where each of these comes first."""
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
        if column.null_count < n:
            encoded = pc.dictionary_encode(column, null_encoding="encode")
            if len(encoded.dictionary) > 1:
                yield numbers(encoded.indices).astype(np.int64), len(encoded.dictionary)


def _padded(column: pa.Array, most: int) -> pa.Array:
    return column if len(column) == most else pa.concat_arrays([column, pa.nulls(most - len(column), column.type)])
