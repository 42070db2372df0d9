"""What a reader is: it turns the files of one format into canonical tables and a stream of events.

Good records go straight into the canonical tables of the connection it is given (SQL ``INSERT``: no record
passes through Python).  What could not be read is a value in the stream it yields, never an exception, so
that it cannot be forgotten: the ledger is built from that stream alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import duckdb

#: Reasons a record may be rejected for: a closed list, part of the scorecard's interface.
REASONS: dict[str, str] = {
    "empty": "the file holds no data",
    "truncated": "the file ends in the middle of a record or of its compressed stream",
    "unreadable": "the file could not be opened or read",
    "encoding": "the bytes are not valid in the character set of the record",
    "invalid-json": "the record is not valid JSON (RFC 8259)",
    "not-an-object": "the record is JSON but not an object",
    "no-resource-type": "the object has no resourceType",
    "too-deep": "the record is nested deeper than 500 levels",
    "too-large": "the record or file is larger than the limit",
    "no-msh": "segments without a message header before them",
    "bad-msh": "the message header does not declare usable separators",
    "invalid-parquet": "the file is not a readable Parquet file",
    "invalid-csv": "the row does not fit the table's header",
    "compression": "the compressed stream is damaged or expands beyond the limit",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source: ``number`` is its place in the sorted list, ``format`` what was recognised.

    ``kind`` refines the format for the reader (``ndjson``, ``document``, an OMOP table name); ``skip`` is the
    reason why it is no data (then no reader sees it) and ``size`` its length in bytes on disk.
    ``path`` may be no ``pathlib.Path`` but what quacks like one (ehrready.stores: an object of a cloud store): ``name``,
    ``suffixes``, ``parent``, ``parts``, ``as_posix()``, ``stat()`` and ``open("rb")`` are all that may be asked of it.
    """

    number: int
    path: Path
    size: int
    format: str = ""
    kind: str = ""
    skip: str = ""
    #: records it should hold, as another file (a Bulk Data manifest) says; of the manifest itself: of files that are not there
    declared: int | None = None
    #: the part of the file that is to be read: bytes from ``start`` to before ``stop``, cut at the borders of records, and
    #: the number of its first line; of one file that is read by several tasks
    start: int = 0
    stop: int | None = None
    first: int = 1


@dataclass(frozen=True, slots=True)
class Rejected:
    """``n`` records of a file that could not be read: where the first one is, and why (a key of REASONS)."""

    file: int
    position: int
    reason: str
    n: int = 1


@dataclass(frozen=True, slots=True)
class Read:
    """``n`` records of a file were met; those not rejected are in the canonical tables.  May repeat per file."""

    file: int
    n: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A file was read to its end: ``status`` is ``read``, ``reference``, ``truncated`` or ``unreadable``.

    ``declared`` is the number of records that the file itself says it has, ``bytes`` how many bytes on disk were read.
    """

    file: int
    status: str = "read"
    declared: int | None = None
    bytes: int | None = None
    #: what a part of a file tells the one who joins the parts, in the reader's own words
    state: str = ""


Event = Read | Rejected | Ended


class Reader(Protocol):
    """The interface of a reader; register one as an entry point in the group ``ehrready.readers``."""

    #: name of the format, as in ``--format`` and in the ledger
    format: str

    def recognise(self, path: Path, head: bytes) -> str:
        """Return the ``kind`` of a file from its name and first (decompressed) 64 KiB, or ``""`` if not mine."""
        ...

    def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Fill the canonical tables of ``con`` from the files, yielding events in file order."""
        ...

    def source_elements(self) -> dict[str, str]:
        """Map canonical element names to the same place in the user's format (``condition.code`` → ``DG1-3``)."""
        ...


class StagedReader(Reader, Protocol):
    """A reader whose files may be read apart: ``read`` is ``stage``, on one or many connections, and ``finish``.

    ``stage`` leaves what waits for the other files in staging tables of its own; ``finish`` does what needs all of them.
    On several machines ``finish`` runs per bucket of keys, on the rows of ``meets`` alone, and ``resolve`` once, on all tables.
    """

    #: staging table → SQL of its keys: rows of equal keys must meet in one ``finish``
    meets: Mapping[str, tuple[str, ...]]
    #: staging tables that ``resolve`` reads as they are
    kept: tuple[str, ...]

    def stage(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection, among: Sequence[SourceFile] = ()) -> Iterator[Event]:
        """Fill the canonical and staging tables from some files, yielding events; ``among`` are all files of the reader."""
        ...

    def finish(self, con: duckdb.DuckDBPyConnection) -> None:
        """Do what needs all files: resolve references, reduce what many records describe to one row."""
        ...

    def resolve(self, con: duckdb.DuckDBPyConnection) -> None:
        """Do the part of ``finish`` that changes canonical tables, in SQL that runs on either engine."""
        ...


@dataclass(slots=True)
class FileEntry:
    """One row of the ledger: all counts are records."""

    number: int
    format: str
    size: int
    status: str = "read"
    read: int = 0
    declared: int | None = None
    bytes: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    #: reason → where its first record is: line, message, row, or entry of a Bundle; 0 for the file as a whole
    first_at: dict[str, int] = field(default_factory=dict)
    skip: str = ""

    @property
    def rejected(self) -> int:
        """Records rejected, the sum of the reasons."""
        return sum(self.reasons.values())

    @property
    def profiled(self) -> int:
        """Records read and not rejected."""
        return self.read - self.rejected
