"""The release store: which codes each release of a code system has, and what it calls them.

A table is one Parquet file per system: a row per code, and per release one bit that says whether the release has the
code (``valid``) and whether it may stand on a bill (``billable``).  Names, replacements and attributes are columns that
are read only when they are asked for.  The tables that ship with the package (docs/terminology.md says where each comes
from) lie beneath those that the user adds from the official files; of a release that both have, the user's is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrready.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from ehrready.terminology.lifecycles import Lifecycles

#: Environment variable that names the folder of the user's tables, instead of the platform's data folder.
VARIABLE = "EHRREADY_TERMINOLOGY"
SUFFIX = ".parquet"
_SHIPPED = "data/releases"
_SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class Release:
    """One release of one code system.

    ``label`` is as ``normalise_version`` writes it, ``effective`` the ISO date from which it is in force (``""`` when
    unknown), ``source`` the name of the file it was read from or ``shipped``, ``sha256`` that file's digest.
    """

    label: str
    effective: str
    n_codes: int
    source: str
    sha256: str


@dataclass
class ReleaseTable:
    """The releases of one system, in order of their dates, and its codes, sorted.

    ``valid`` and ``billable`` are bool arrays of shape (codes, releases); ``billable`` is None where the system has no
    such notion.  ``complete`` is False when codes are known to be lacking: an unknown code is then not called wrong.
    ``lists`` holds the columns ``names`` (latest first) and ``replacements``, ``attributes`` one text per code and key.
    """

    system: str
    releases: tuple[Release, ...]
    codes: np.ndarray
    valid: np.ndarray
    billable: np.ndarray | None
    complete: bool = True
    path: Path | None = None
    lists: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    _held: dict[str, pa.Array] = field(default_factory=dict, repr=False)

    def positions(self, codes: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return the row of each code, -1 where the table does not have it."""
        wanted = np.asarray(codes, dtype=np.str_)
        if not len(self.codes) or not len(wanted):
            return np.full(len(wanted), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where(self.codes[at] == wanted, at, -1).astype(np.int64)

    def in_force(self, date: str) -> int:
        """Return the index of the release in force at an ISO date or prefix of one, -1 before the first."""
        found = [i for i, r in enumerate(self.releases) if r.effective and r.effective[: len(date)] <= date]
        return found[-1] if found else -1

    @cached_property
    def told(self) -> tuple[int, ...]:
        """Return the indices of the releases that codes can tell: they have a date, and codes."""
        return tuple(i for i, release in enumerate(self.releases) if release.effective and release.n_codes)

    @cached_property
    def lifecycles(self) -> Lifecycles:
        """Return the codes grouped by those of these releases in which they are in use; headings are no use of a release's codes."""
        from ehrready.terminology.lifecycles import lifecycles

        return lifecycles((self.valid if self.billable is None else self.billable)[:, list(self.told)])

    @cached_property
    def has_names(self) -> bool:
        """Are the names of the codes loaded?"""
        return "names" in self.lists or "names" in self._columns

    def names(self, position: int) -> tuple[str, ...]:
        """Return the names of the code in this row, the latest first; () when none are loaded."""
        return self._list("names", position)

    def replacements(self, position: int) -> tuple[str, ...]:
        """Return the codes that the releases name as this one's replacement."""
        return self._list("replacements", position)

    def attribute(self, position: int, key: str) -> str:
        """Return an attribute of the code in this row (LOINC's ``property``), ``""`` when there is none."""
        if key not in self.attributes:
            self.attributes[key] = [value or "" for value in self._read(key).to_pylist()] if key in self._columns else []
        values = self.attributes[key]
        return values[position] if values else ""

    def _list(self, column: str, position: int) -> tuple[str, ...]:
        if column in self.lists:
            rows = self.lists[column]
            return rows[position] if rows else ()
        if column not in self._columns:
            return ()
        if column not in self._held:  # of 98,000 codes a run asks for the names of those it has seen
            self._held[column] = self._read(column)
        return tuple(self._held[column][position].as_py() or ())

    @cached_property
    def _columns(self) -> frozenset[str]:
        if self.path is None:
            return frozenset()
        import pyarrow.parquet as pq

        return frozenset(pq.read_schema(self.path).names)

    def _read(self, column: str) -> pa.Array:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path).read(columns=[column]).column(0).combine_chunks()


def load(path: Path) -> ReleaseTable:
    """Read a table; names and attributes stay in the file until they are asked for.  Raises UsageError for a broken file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        about = json.loads((file.schema_arrow.metadata or {})[b"ehrready"])
        if about["schema"] != _SCHEMA:
            raise KeyError
        held = set(file.schema_arrow.names)
        found = file.read(columns=["code", "valid", *(["billable"] if "billable" in held else [])])
        releases = tuple(Release(**release) for release in about["releases"])
        codes = np.array(found.column("code").to_pylist(), dtype=np.str_)
        bits = [_unpack(found.column(name), len(releases)) for name in ("valid", "billable") if name in found.column_names]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        raise UsageError(
            f"release table {path.name}: not readable; remove it and add the release again with ehrready terminology add"
        ) from None
    return ReleaseTable(about["system"], releases, codes, bits[0], bits[1] if len(bits) > 1 else None, about["complete"], path)


def save(table: ReleaseTable, path: Path) -> None:
    """Write a table, whole or not at all: a temporary file in the same folder, then a rename."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ehrready.readers.arrays import strings

    def texts(values: Sequence[str]) -> pa.Array:
        return strings([value.encode() for value in values]).cast(pa.string())

    columns: dict[str, pa.Array] = {"code": texts(table.codes.tolist()), "valid": _pack(table.valid)}
    if table.billable is not None:
        columns["billable"] = _pack(table.billable)
    for name in ("names", "replacements"):
        rows = [table._list(name, i) for i in range(len(table.codes))]
        if any(rows):
            offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
            flat = texts([value for row in rows for value in row])
            columns[name] = pa.ListArray.from_arrays(
                pa.Array.from_buffers(pa.int32(), len(offsets), [None, pa.py_buffer(offsets.tobytes())]), flat
            )
    keys = sorted({*table.attributes, *(table._columns - {"code", "valid", "billable", "names", "replacements"})})
    for key in keys:
        columns[key] = texts([table.attribute(i, key) for i in range(len(table.codes))])
    about = {"schema": _SCHEMA, "system": table.system, "complete": table.complete, "releases": [asdict(r) for r in table.releases]}
    made = pa.Table.from_arrays(list(columns.values()), names=list(columns)).replace_schema_metadata({"ehrready": json.dumps(about)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with temporary.open("xb") as stream:
            temporary.chmod(0o600)
            pq.write_table(made, stream, compression="zstd", compression_level=15, use_dictionary=["valid", "billable"], store_schema=True)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _pack(bits: np.ndarray) -> Any:
    import pyarrow as pa

    packed = np.packbits(bits, axis=1, bitorder="little")
    width = packed.shape[1]
    return pa.Array.from_buffers(pa.binary(width), len(packed), [None, pa.py_buffer(np.ascontiguousarray(packed).tobytes())])


def _unpack(column: Any, releases: int) -> np.ndarray:
    chunk = column.combine_chunks()
    chunk = chunk.chunk(0) if hasattr(chunk, "chunk") else chunk
    if hasattr(chunk, "dictionary"):
        chunk = chunk.dictionary_decode()
    width = chunk.type.byte_width
    packed = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[chunk.offset * width : (chunk.offset + len(chunk)) * width].reshape(
        len(chunk), width
    )
    return np.unpackbits(packed, axis=1, bitorder="little", count=releases).astype(bool)


def merge(below: ReleaseTable, above: ReleaseTable) -> ReleaseTable:
    """Return both tables' releases as one table; of a label that both have, ``above`` counts."""
    labels = {release.label for release in above.releases}
    kept = [i for i, release in enumerate(below.releases) if release.label not in labels]
    pairs = [(r, above, i) for i, r in enumerate(above.releases)] + [(below.releases[i], below, i) for i in kept]
    pairs.sort(key=lambda pair: (pair[0].effective or "9999", pair[0].label))
    codes = np.union1d(above.codes, below.codes)
    rows = {id(t): t.positions(codes) for t in (above, below)}

    def bits(which: str) -> np.ndarray:
        made = np.zeros((len(codes), len(pairs)), dtype=bool)
        for column, (_, table, i) in enumerate(pairs):
            at = rows[id(table)]
            held = getattr(table, which)
            held = table.valid if held is None else held
            made[:, column] = (at >= 0) & held[np.maximum(at, 0), i]
        return made

    billable = bits("billable") if above.billable is not None or below.billable is not None else None
    merged = ReleaseTable(above.system, tuple(r for r, _, _ in pairs), codes, bits("valid"), billable, above.complete and below.complete)
    for column in ("names", "replacements"):
        both = []
        for at_above, at_below in zip(rows[id(above)], rows[id(below)], strict=True):
            first = above._list(column, int(at_above)) if at_above >= 0 else ()
            second = below._list(column, int(at_below)) if at_below >= 0 else ()
            both.append((*first, *(value for value in second if value not in first)))
        merged.lists[column] = both
    for key in sorted(
        {*above.attributes, *above._columns, *below.attributes, *below._columns} - {"code", "valid", "billable", "names", "replacements"}
    ):
        values = []
        for at_above, at_below in zip(rows[id(above)], rows[id(below)], strict=True):
            first_value = above.attribute(int(at_above), key) if at_above >= 0 else ""
            values.append(first_value or (below.attribute(int(at_below), key) if at_below >= 0 else ""))
        merged.attributes[key] = values
    return merged


class Store:
    """The release tables at hand: the user's folder over the shipped ones, read when they are asked for."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._tables: dict[str, ReleaseTable | None] = {}

    @classmethod
    def open(cls, directory: Path | None = None) -> Store:
        """Open the folder given, else the one of ``EHRREADY_TERMINOLOGY``, else the platform's data folder."""
        if directory is None:
            named = os.environ.get(VARIABLE)
            if named:
                return cls(Path(named))
            from platformdirs import user_data_path

            return cls(user_data_path("ehrready", appauthor=False) / "terminology")
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"--terminology {directory.name}: not a folder; give the folder that ehrready terminology add fills")
        return cls(directory)

    def systems(self) -> list[str]:
        """Return the systems with a table."""
        own = {path.name.removesuffix(SUFFIX) for path in self._own()}
        return sorted(own | {name.removesuffix(SUFFIX) for name in _shipped()})

    def table(self, system: str) -> ReleaseTable | None:
        """Return a system's table, None when none is loaded."""
        if system not in self._tables:
            shipped, own = _shipped().get(system + SUFFIX), {path.name: path for path in self._own()}.get(system + SUFFIX)
            below, above = (load(path) if path else None for path in (shipped, own))
            self._tables[system] = merge(below, above) if below and above else above or below
        return self._tables[system]

    def describe(self) -> list[dict[str, Any]]:
        """Return one row per release: system, release, effective, codes, source, sha256."""
        rows = []
        for system in self.systems():
            table = self.table(system)
            for r in table.releases if table else ():
                rows.append(
                    {
                        "system": system,
                        "release": r.label,
                        "effective": r.effective,
                        "codes": r.n_codes,
                        "source": r.source,
                        "sha256": r.sha256,
                    }
                )
        return rows

    def _own(self) -> list[Path]:
        if self.directory is None or not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def _shipped() -> dict[str, Path]:
    folder = Path(str(files("ehrready.terminology"))) / _SHIPPED
    return {path.name: path for path in sorted(folder.glob(f"*{SUFFIX}"))} if folder.is_dir() else {}
