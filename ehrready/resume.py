"""A run that can be taken up again: what was read of finished files is kept in a folder until the profile is written.

The files of a format are read in groups, each by an engine of its own, whose tables are then saved as Parquet in a
folder that gets its name only when it is whole.  After an interruption the groups that have one are not read again.
What is kept are patients' records in the clear: the folder is 0700, and goes once the profile is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from ehrready import __version__
from ehrready.errors import SourceError, UsageError
from ehrready.readers.base import Ended, Event, Read, Reader, Rejected, SourceFile
from ehrready.stores.tables import is_table

if TYPE_CHECKING:
    import duckdb

    from ehrready.options import Options

#: Bytes on disk of the files that are read between two savings; a larger file is a group of its own.
GROUP_BYTES = 256 * 1024 * 1024
_HEAD = 65536
_STATE, _LOCK, _EVENTS = "run.json", "lock", "events.json"
#: What waits for the other files in the readers' own tables, as patterns (readers/fhir_sql.py, hl7v2_people.py).
_STAGING = ("alias", "medication_ref", "drug", "fhir_sample", "_hl7_all_*")
_KINDS: dict[str, type[Read] | type[Rejected] | type[Ended]] = {"read": Read, "rejected": Rejected, "ended": Ended}


@contextlib.contextmanager
def resuming(options: Options, files: Sequence[SourceFile]) -> Iterator[Work | None]:
    """Yield the folder of ``--resume``, held against other runs; None without that option."""
    if options.resume is None:
        yield None
        return
    if options.engine == "spark":
        raise UsageError("--resume is for the embedded engine: Spark repeats what fails by itself, leave out one of the two")
    with contextlib.closing(Work(options.resume, files, options)) as work:
        yield work


class Work:
    """The folder of a resumable run; raises UsageError when it cannot be that of this one."""

    def __init__(self, folder: str, files: Sequence[SourceFile], options: Options) -> None:
        self._folder, self._options = Path(folder), options
        self._lock: BinaryIO | None = None
        if any(is_table(file.path) for file in files):
            raise UsageError("--resume works with files: a database may change between two runs, read it in one")
        state = {"what": _what(options), "files": [_fingerprint(file) for file in files]}
        self._make()
        self._hold()
        try:
            self._begin(state)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        if self._lock is not None:
            self._lock.close()

    def _begin(self, state: dict[str, Any]) -> None:
        place = self._folder / _STATE
        if not place.exists():
            _save(place, orjson.dumps(state))
        else:
            _same(orjson.loads(place.read_bytes()), state)

    def _make(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = {each.name for each in self._folder.iterdir()}
            if _STATE not in there and there - {_LOCK, f"{_STATE}.half"}:
                raise UsageError("--resume: the folder is not empty and not that of an interrupted run: give another one")
            self._folder.chmod(0o700)
        except OSError:
            raise UsageError("--resume: the folder cannot be made, or is not yours: give another place") from None

    def _hold(self) -> None:
        """Keep a second run off the folder for as long as this process lives (POSIX)."""
        try:
            import fcntl
        except ImportError:
            return
        self._lock = (self._folder / _LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError("--resume: another run is at work in that folder") from None

    def read(self, reader: Reader, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
        """Read the files as ``reader.read`` does, those of finished groups from what was kept."""
        parts = []
        for group in _groups(files) if hasattr(reader, "stage") else [list(files)]:
            part = self._folder / f"{reader.format}-{group[0].number:06d}"
            if not part.is_dir():
                self._fill(reader, group, files, part)
            parts.append(part)
            yield from _events(part)
        if getattr(reader, "meets", ()) or getattr(reader, "kept", ()):
            for _ in reader.stage([], con, files):  # type: ignore[attr-defined]  # a StagedReader
                pass  # makes the macros and the staging tables that finish() needs
        _load(con, parts)
        if hasattr(reader, "finish"):
            reader.finish(con)

    def _fill(self, reader: Reader, group: Sequence[SourceFile], files: Sequence[SourceFile], part: Path) -> None:
        """Read one group and save its tables and events, whole or not at all."""
        from ehrready.engines import duckdb as engine
        from ehrready.engines.duckdb import quote

        half = part.with_name(f"{part.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        with engine.open_engine(memory=self._options.memory, threads=self._options.threads) as con:
            events = list(reader.stage(group, con, files) if hasattr(reader, "stage") else reader.read(group, con))
            for table in _kept(con, reader):
                con.execute(f'COPY (SELECT * FROM "{table}") TO {quote(str(half.absolute() / f"{table}.parquet"))} (FORMAT parquet)')
        rows = [[next(kind for kind, type_ in _KINDS.items() if isinstance(event, type_)), _fields(event)] for event in events]
        _save(half / _EVENTS, orjson.dumps(rows))
        for file in half.iterdir():
            _sync(file)
        half.rename(part)
        _sync(self._folder)


def _what(options: Options) -> dict[str, Any]:
    """Return what else must be the same for the kept tables to be those of this run."""
    import duckdb

    mapping = options.mapping or ""
    if mapping and Path(mapping).is_file():
        mapping = hashlib.sha256(Path(mapping).read_bytes()).hexdigest()
    return {
        "ehrready": __version__,
        "duckdb": duckdb.__version__,
        "group": GROUP_BYTES,
        "format": options.format,
        "mapping": mapping,
        "validate": options.validate,
    }


def _fingerprint(file: SourceFile) -> str:
    """Return a digest of a file's name, size, time of change and first bytes; ``""`` where it cannot be opened."""
    digest = hashlib.sha256(f"{file.path}\0{file.size}\0{file.format}\0{file.kind}\0{file.skip}\0".encode("utf-8", "surrogateescape"))
    digest.update(str(getattr(file.path, "version", "")).encode())
    with contextlib.suppress(OSError):
        digest.update(str(file.path.stat().st_mtime_ns).encode())
        if not file.skip:
            with file.path.open("rb") as stream:
                digest.update(stream.read(_HEAD))
    return digest.hexdigest()


def _same(before: Any, now: dict[str, Any]) -> None:
    """Raise UsageError unless the kept state is that of the same files and options."""
    if before["what"] != now["what"]:
        changed = sorted(key for key in now["what"] if before["what"].get(key) != now["what"][key])
        raise UsageError(f"--resume: the interrupted run was made with another {', '.join(changed)}: repeat it so, or give another folder")
    old, new = set(before["files"]), set(now["files"])
    if before["files"] != now["files"]:
        raise UsageError(
            f"--resume: the source is not what it was when the run was interrupted ({len(old - new)} file(s) gone or changed, "
            f"{len(new - old)} new or changed): remove the folder and start again, for what was read of it may be wrong"
        )


def _groups(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Yield the files in groups of GROUP_BYTES."""
    group: list[SourceFile] = []
    size = 0
    for file in files:
        if group and size + file.size > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _kept(con: duckdb.DuckDBPyConnection, reader: Reader) -> list[str]:
    """Return the tables of an engine to keep: the canonical ones and the reader's staging tables, where they have rows."""
    from ehrready.tables import ALL

    wanted = (*ALL, *_STAGING, *getattr(reader, "meets", ()), *getattr(reader, "kept", ()))
    names = [str(name) for (name,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
    kept = [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]
    return [name for name in kept if con.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]


def _load(con: duckdb.DuckDBPyConnection, parts: Sequence[Path]) -> None:
    """Put the kept tables of all groups into the engine of the run."""
    from ehrready.engines.duckdb import quote

    there = {str(name) for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table in sorted({file.stem for part in parts for file in part.glob("*.parquet")}):
        paths = [quote(str(file.absolute())) for part in parts if (file := part / f"{table}.parquet").exists()]
        rows = f"SELECT * FROM read_parquet([{', '.join(paths)}], hive_partitioning = false, union_by_name = true)"
        con.execute(f'INSERT INTO "{table}" BY NAME {rows}' if table in there else f'CREATE TEMP TABLE "{table}" AS {rows}')


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def _events(part: Path) -> Iterator[Event]:
    for kind, fields in orjson.loads((part / _EVENTS).read_bytes()):
        yield _KINDS[kind](**fields)


def _save(place: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    half = place.with_name(f"{place.name}.half")
    try:
        with half.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        half.replace(place)
    except OSError:
        raise SourceError("--resume: the folder cannot be written or its disk is full: what was read stays, make room and repeat") from None


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def finished(folder: str) -> int:
    """Return how many files an interrupted run had finished; 0 when there is none."""
    parts = [part for part in Path(folder).glob("*-*") if part.is_dir() and part.suffix != ".half"]
    return sum(isinstance(event, Ended) for part in parts for event in _events(part))


def remove(folder: str) -> None:
    """Remove the folder of a run whose profile is written; what tells that it is one goes last, should this be interrupted, too."""
    for path in Path(folder).glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
