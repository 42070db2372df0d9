"""The embedded engine: what it may use, and where it is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ehrready.engines import opening
from ehrready.engines.duckdb import folder_of, memory_of, open_engine
from ehrready.errors import SourceError, UsageError
from ehrready.options import Options

MB = 10**6


@pytest.mark.parametrize(
    ("given", "least", "most"), [("1GB", 740 * MB, 760 * MB), ("4GB", 3500 * MB, 3600 * MB), ("512MB", 375 * MB, 390 * MB)]
)
def test_the_engine_leaves_room_for_what_is_read_beside_it(given: str, least: int, most: int) -> None:
    with open_engine(memory=given, threads=1) as con:
        assert least < memory_of(con) < most


def test_tables_go_to_a_private_folder_when_memory_is_short_and_the_folder_goes() -> None:
    with open_engine(memory="60MB", threads=1) as con:
        folder = folder_of(con)
        assert folder.parent == Path(tempfile.gettempdir())
        assert folder.stat().st_mode & 0o777 == 0o700
        con.execute("CREATE TABLE wide AS SELECT i, hash(i)::VARCHAR || repeat('x', 80) AS t FROM range(1000000) r(i)")
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > 10 * MB
        assert con.execute("SELECT count(*), count(DISTINCT t[1:8]) > 0 FROM wide").fetchall() == [(1_000_000, True)]
    assert not folder.exists()


def test_what_is_left_behind_goes_before_the_process_ends() -> None:
    code = (
        "from ehrready.engines.duckdb import folder_of, open_engine\n"
        "with open_engine(threads=1, behind=True) as con:\n"
        "    con.execute('CREATE TABLE many AS SELECT i FROM range(3000000) r(i)')\n"
        "    print(folder_of(con))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert Path(done.stdout.strip()).name.startswith("ehrready-")
    assert not Path(done.stdout.strip()).exists()
    assert done.stderr == ""


def test_an_error_leaves_nothing_behind() -> None:
    folders: list[Path] = []

    def fail() -> None:
        with open_engine(threads=1, behind=True) as con:
            folders.append(folder_of(con))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not folders[0].exists()


def test_a_cursor_sees_the_tables() -> None:
    """Rules, suites and readers ask on connections of their own."""
    with open_engine(threads=1) as con:
        con.execute("INSERT INTO patient (record, patient_id) VALUES (1, 'p')")
        assert con.cursor().execute("SELECT patient_id FROM patient").fetchall() == [("p",)]


def test_an_engine_that_opens_beside_other_work_is_the_same() -> None:
    with opening(Options(threads=1)) as opened:
        con = opened(0)
        con.execute("INSERT INTO patient (record, patient_id) VALUES (1, 'p')")
        assert opened(0) is con
        folder = folder_of(con)
        assert folder.stat().st_mode & 0o777 == 0o700
    for thread in threading.enumerate():  # it goes beside what follows
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(10)
    assert not folder.exists()


def test_what_opening_raises_is_raised_where_the_engine_is_asked_for() -> None:
    with opening(Options(memory="much")) as opened, pytest.raises(UsageError, match="--memory"):
        opened(0)


@pytest.mark.parametrize("asked", [True, False])
def test_a_mistake_beside_the_opening_is_told_and_leaves_nothing(asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        with opening(Options(threads=1)) as opened:
            if asked:
                opened(0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_memory_that_is_short_is_one_sentence() -> None:
    with pytest.raises(SourceError, match="not enough memory"), opening(Options(threads=1, memory="60MB")) as opened:
        opened(0).execute("SET temp_directory = ''; CREATE TABLE wide AS SELECT repeat(i::VARCHAR, 90) AS t FROM range(3000000) r(i)")
