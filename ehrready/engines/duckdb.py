"""The embedded engine: one DuckDB database in memory, whose tables go to a temporary folder where memory is short.

The folder is removed however the run ends.  Nothing is downloaded: extensions are never installed or auto-loaded.  After the sources are read the engine is
locked, so that no rule can reach a file or the network (design section 4).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import duckdb

from ehrready.errors import SourceError, UsageError
from ehrready.tables import ABSENT, ALL, ddl

_PREFIX = "ehrready-"
#: What to do when the engine cannot write its temporary files.
NO_ROOM = "the temporary folder cannot be written or its disk is full: set TMPDIR to a place with room for the export"
NO_MEMORY = "there is not enough memory for this source: give more with --memory, or use fewer --threads; nothing was written"
#: Of the memory that a run is given the engine has all but so many bytes, and at least this share.
BESIDE, ENGINE_SHARE = 400 * 1024**2, 0.75
#: With less than this for the engine (bytes), less is done at once.
LITTLE_MEMORY = 2 * 1024**3
_STALE_SECONDS = 7 * 24 * 3600


def quote(text: str) -> str:
    """Return ``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


#: Macros that readers and measures share.  ``clean``: trimmed (also of the
#: mark of a stated absence, which a source may not forge), empty is NULL.  ``iso``: an ISO 8601 prefix
#: without offset.  ``hl7_iso``: the same from HL7v2 ``YYYY[MM[DD[HH[MM[SS]]]]]``; what is
#: out of range (month 13, hour 25) stays as it is and so has no month; ``hl7_digits``: its digits, NULL of what is none.
MACROS = f"""
CREATE MACRO clean(v) AS nullif(trim(v, e' \\t\\r\\n' || chr(1)), '');
CREATE MACRO absent(reason) AS {quote(ABSENT)} || reason;
CREATE MACRO is_absent(v) AS starts_with(v, {quote(ABSENT)});
CREATE MACRO iso(v) AS CASE
    WHEN length(v) <= 10 THEN v
    ELSE replace(left(v, 19), ' ', 'T') END;
CREATE MACRO _digits_iso(d) AS CASE length(d)
    WHEN 4 THEN d
    WHEN 6 THEN d[1:4] || '-' || d[5:6]
    WHEN 8 THEN d[1:4] || '-' || d[5:6] || '-' || d[7:8]
    ELSE d[1:4] || '-' || d[5:6] || '-' || d[7:8] || 'T' || d[9:10] || ':' || rpad(d[11:12], 2, '0')
      || ':' || rpad(d[13:14], 2, '0') END;
CREATE MACRO hl7_digits(v) AS nullif(regexp_extract(v, '^(\\d{{4}}(?:(?:0[1-9]|1[0-2])(?:(?:0[1-9]|[12]\\d|3[01])(?:(?:[01]\\d|2[0-3])(?:[0-5]\\d(?:[0-5]\\d|60)?)?)?)?)?)(?:\\.\\d{{1,4}})?(?:[+-]\\d{{4}})?$', 1), '');
CREATE MACRO hl7_iso(v) AS coalesce(_digits_iso(hl7_digits(v)), v);
CREATE MACRO null_token(v) AS upper(trim(v, e' \\t\\r\\n""')) IN
    ('', 'UNK', 'UNKNOWN', 'NA', 'N/A', 'N.A.', 'NULL', 'NONE', 'NIL', 'NAN', '-', '--', '.', '?', '??', 'SEE NOTE', 'SEE NOTES',
     'SEE COMMENT', 'SEE COMMENTS', 'NOT AVAILABLE', 'NOT APPLICABLE', '#N/A', '<NULL>', '(NULL)', '\\N');
"""
_TOKENS = re.findall("'([^']*)'", MACROS[MACROS.index("CREATE MACRO null_token(v)") :].partition(" IN")[2])
_MARK = "\x1f"
#: The same of two of them, for the engine here.  ``null_token`` is one search in a text: DuckDB makes a join of a long list after
#: ``IN``, computed for every row, also where a CASE does not come to it, and for every row instead of every entry of a dictionary.
#: Constants are written out: a macro is planned anew wherever it stands, and joining its constants was a third of that.
_WRITTEN_OUT = f"""
CREATE OR REPLACE MACRO null_token(v) AS
    contains({quote(_MARK.join(["", *_TOKENS, ""]))}, '{_MARK}' || upper(trim(v, e' \\t\\r\\n"')) || '{_MARK}') AND NOT contains(v, '{_MARK}');
CREATE OR REPLACE MACRO clean(v) AS nullif(trim(v, ' \t\r\n{ABSENT}'), '');
"""


def is_full(error: BaseException) -> bool:
    """Whether the engine failed because it could not write (its text is looked at, never shown)."""
    words = ("could not write", "no space left", "file too large", "disk quota", "failed to offload", "could not truncate")
    return isinstance(error, duckdb.Error) and any(word in str(error).lower() for word in words)


def lacks(error: BaseException) -> str:
    """Return what a run lacked, memory or room on disk, as a sentence; ``""`` for an error of another kind."""
    if is_full(error):
        return NO_ROOM
    return NO_MEMORY if isinstance(error, MemoryError | duckdb.OutOfMemoryException) else ""


def sweep(root: Path) -> None:
    """Remove temporary folders that earlier runs left behind and whose process is gone."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name.split("-")[1])
            # without /proc nobody can be asked: a folder untouched for a week is taken for left behind
            young = time.time() - folder.stat().st_mtime < _STALE_SECONDS
            alive = Path(f"/proc/{pid}").exists() if Path("/proc").is_dir() else young
            if not alive:
                shutil.rmtree(folder, ignore_errors=True)


def _connect(config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(":memory:", config=config)
    except (duckdb.InvalidInputException, duckdb.ParserException):
        raise UsageError("--memory must be a size such as 4GB or 512MB, --threads a whole number") from None


def is_duckdb(con: object) -> bool:
    """Say whether measures run in DuckDB itself and not in an engine that takes its place."""
    return isinstance(con, duckdb.DuckDBPyConnection)


def stopped(error: BaseException) -> bool:
    """Say whether a signal ended a statement: the engine then raises this in place of what the signal's handler raised."""
    return type(error) is RuntimeError and str(error) == "Query interrupted"


def memory_of(con: duckdb.DuckDBPyConnection) -> int:
    """Return the engine's memory limit in bytes."""
    number, unit = con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
    return int(float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit))


def _leave_room(con: duckdb.DuckDBPyConnection) -> None:
    """Take from the engine's limit what blocks of text and Python need beside it."""
    whole = memory_of(con)
    con.execute(f"SET memory_limit = '{max(int(whole * ENGINE_SHARE), whole - BESIDE)} bytes'")


@contextlib.contextmanager
def open_engine(*, memory: str = "4GB", threads: int | None = None, behind: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the canonical tables, empty.

    ``memory`` is for the engine and what is read beside it (``4GB``, ``512MiB``), ``threads`` are its workers (default: all cores).
    The folder is 0700 and removed on leaving.  ``behind``: unless an error is on its way, that goes on beside what follows, and is done
    before the process ends: giving back a gigabyte of memory takes longer than judging what was in it.
    """
    root = Path(tempfile.gettempdir())
    sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
    with contextlib.ExitStack() as leaving:
        leaving.callback(shutil.rmtree, folder, ignore_errors=True)
        con = _connect(
            config={
                "memory_limit": memory,
                "threads": threads or os.cpu_count() or 1,
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        leaving.callback(con.close)
        try:
            _leave_room(con)
            prepare(con)
            yield con
        except (duckdb.Error, MemoryError) as error:
            if lack := lacks(error):
                raise SourceError(lack) from None
            raise
        if behind:
            thread = threading.Thread(target=leaving.pop_all().close)
            thread.start()
            atexit.register(thread.join)


@contextlib.contextmanager
def beside(con: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], None]) -> Iterator[None]:
    """Do some work on another connection while the body runs, whose end awaits it; with little memory, before it.

    Temporary tables are a connection's own.
    """
    if memory_of(con) < LITTLE_MEMORY:
        work(con)
        yield
        return
    with con.cursor() as other, ThreadPoolExecutor(1) as thread:
        begun = thread.submit(work, other)
        try:
            yield
            begun.result()
        except BaseException:
            # nobody waits for what it does; between two statements there is nothing to interrupt, so it is tried until it has ended
            while wait([begun], 0.05).not_done:
                other.interrupt()
            raise


def folder_of(con: duckdb.DuckDBPyConnection) -> Path:
    """Return the engine's own folder: private, and gone when the engine is."""
    return Path(con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]).parent


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the macros and the canonical tables, empty."""
    con.execute("PRAGMA disable_checkpoint_on_shutdown")  # the database is thrown away, not tidied up
    # one transaction: each would be written to the disk by itself
    con.execute("BEGIN")
    con.execute(MACROS + _WRITTEN_OUT)
    for name in ALL:
        con.execute(ddl(name))
    con.execute("COMMIT")


def profiled(con: duckdb.DuckDBPyConnection) -> dict[int, int]:
    """Return file number to records in the tables, as the readers' statements counted them."""
    return {int(file): int(n) for file, n in con.execute("SELECT file, sum(n) FROM profiled GROUP BY file ORDER BY file").fetchall()}


def lock(con: duckdb.DuckDBPyConnection) -> None:
    """Cut the engine off from files and the network for the rest of the run."""
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
