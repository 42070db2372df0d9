"""Rows of numbers added up per patient by sorting, where the engine would make nearly as many groups as there are rows.

Sorted, what is of one patient and key stands side by side: NumPy sorts five million such pairs in a twentieth of a second, and the engine hashes a row
of as many groups for 60 ns.  Rows come in parts, each of patients of its own, so that the memory does not grow with the rows; what is made of one part may be
added to what is made of the others.  A part is a range of patients' numbers: where rows lie by patient, as exports often have them, the engine skips the
others by the least and greatest number of each block.  Another engine than DuckDB groups by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ehrready.engines.duckdb import LITTLE_MEMORY, memory_of
from ehrready.readers.arrays import numbers

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")
Numbers = np.typing.NDArray[Any]

#: Rows in a part, and with little memory.
AT_ONCE, LITTLE = 1_200_000, 1_000_000
#: Parts that are worked on at once.
_WORKERS = 2
#: Of the rows so many tell where to part them.
_SAMPLE = "5%"
#: Stands in SQL behind a condition on the rows (``n``) of a part.
AMONG = " AND /* of a part */ true"
#: Rows are put in order where each would be looked at for more parts than so many.
_MOST_LOOKS = 4
#: Rows of a block of the engine, which holds the least and the greatest of its numbers.
_BLOCK = 122_880
#: A range of so many numbers is looked up in a table as long as it is.
_RANGE = 1 << 23


class Sorting:
    """Work on parts of rows, which goes on while the engine reads the next part (or the next table)."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._rows = AT_ONCE if memory_of(con) >= LITTLE_MEMORY else LITTLE
        self._pool = ThreadPoolExecutor(_WORKERS)
        self._begun: list[Future[Any]] = []

    def __enter__(self) -> Sorting:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, sql: str, source: str, rows: int, work: Callable[[dict[str, Numbers]], T]) -> list[Future[T]]:
        """Return what ``work`` will have made of the columns of some ``rows`` of the table ``source``, part by part.

        The columns are whole numbers without NULL, one of them ``p``: the patient, 0 where there is none.  The SQL has ``AMONG`` where rows (``n``) are scanned.
        """
        made: list[Future[T]] = []
        for among in parts(self._con, source, rows // self._rows + 1, sampled=self._rows >= LITTLE):
            # where the rows are scanned, since the engine does not bring it there from above
            table = self._con.sql(sql.replace(AMONG, among)).to_arrow_table()
            if made and not table.num_rows:
                continue
            columns = {name: numbers(table.column(name)) for name in table.column_names}
            del table
            wait(self._begun[:-_WORKERS])  # no more parts are held than are worked on, and one
            made.append(self._pool.submit(work, columns))
            self._begun.append(made[-1])
            del columns
        return made


def parts(con: duckdb.DuckDBPyConnection, source: str, n: int, *, sampled: bool = True) -> list[str]:
    """Return conditions on the rows ``n`` of the table ``source``: ``n`` parts of about as many rows, each of patients of its own, and the rows without one.

    A part is a range of patients' numbers.  ``sampled``: some of the rows tell where the borders are, which changes nothing in what is made of all parts.
    """
    if n == 1:
        return [""]
    shares = ", ".join(str(part / n) for part in range(1, n))
    rows = f"(SELECT p FROM {source} USING SAMPLE {_SAMPLE} (system))" if sampled else source
    (borders,) = con.execute(f"SELECT quantile_disc(p, [{shares}]) FROM {rows} WHERE p IS NOT NULL").fetchall()[0]
    ends = sorted(set(borders or ()))
    known = [
        "".join((f" AND n.p > {low}" if low is not None else "", f" AND n.p <= {high}" if high is not None else ""))
        for low, high in zip([None, *ends], [*ends, None], strict=True)
    ]
    return [*(test or " AND n.p IS NOT NULL" for test in known), " AND n.p IS NULL"]


def gather(con: duckdb.DuckDBPyConnection, source: str) -> bool:
    """Put the rows of a large table in the order of their patients where they lie apart, so that each part is not looked for in all of them.

    An export that is ordered by time or by chance would take time with the square of its rows otherwise.  Returns whether it was done.
    """
    (rows,) = con.execute(f"SELECT count(*) FROM {source}").fetchall()[0]
    parts = int(rows) // (AT_ONCE if memory_of(con) >= LITTLE_MEMORY else LITTLE) + 1
    if parts <= _MOST_LOOKS:
        return False
    (share,) = con.execute(
        "SELECT avg(most - least) / nullif(max(most) - min(least), 0) FROM (SELECT min(p)::DOUBLE AS least, max(p)::DOUBLE AS most FROM "
        f"(SELECT p, rowid // {_BLOCK} AS block FROM {source} USING SAMPLE {_SAMPLE} (system)) GROUP BY block)"
    ).fetchall()[0]
    if (share or 0) * parts <= _MOST_LOOKS:
        return False
    con.execute(f"CREATE TABLE gathered AS SELECT * FROM {source} ORDER BY p; DROP TABLE {source}; ALTER TABLE gathered RENAME TO {source}")
    return True


def numbered(keys: Numbers) -> tuple[Numbers, Numbers]:
    """Return the different keys, in order, and of each key its place among them."""
    if not len(keys):
        return keys, keys.astype(np.uint32)
    low, width = int(keys.min()), int(keys.max()) - int(keys.min()) + 1
    if width > _RANGE:
        found, places = np.unique(keys, return_inverse=True)
        return found, places.astype(np.uint32)
    at = keys - keys.dtype.type(low)
    seen = np.zeros(width, np.bool_)
    seen[at] = True
    found = np.flatnonzero(seen)
    places = np.zeros(width, np.uint32)
    places[found] = np.arange(len(found), dtype=np.uint32)
    return found + low, places[at]


def pairs(p: Numbers, keys: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the different pairs of patient and key (none below 0), by patient and then key, and the place of the first row of each among the sorted rows."""
    if not len(p):
        return p, keys, np.zeros(0, np.int64)
    bits, names = int(keys.max()).bit_length(), None
    if int(p.max()).bit_length() + bits > 64:
        names, p = np.unique(p, return_inverse=True)
    kind: type[np.unsignedinteger[Any]] = np.uint32 if int(p.max()).bit_length() + bits <= 32 else np.uint64
    packed: np.typing.NDArray[np.unsignedinteger[Any]] = p.astype(kind)
    packed <<= kind(bits)
    packed |= keys.astype(kind)
    packed.sort()
    first = np.flatnonzero(begins(packed))
    packed = packed[first]
    patients = packed >> kind(bits)
    packed &= kind((1 << bits) - 1)
    return patients if names is None else names[patients], packed, first


def begins(*columns: Numbers) -> np.typing.NDArray[np.bool_]:
    """Return where a row is not as the one before it in some columns."""
    other = np.ones(len(columns[0]), np.bool_)
    if len(other):
        np.not_equal(columns[0][1:], columns[0][:-1], out=other[1:])
        for column in columns[1:]:
            other[1:] |= column[1:] != column[:-1]
    return other
