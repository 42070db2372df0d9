"""A DuckDB file as a source: the same profile as from Parquet files, and nothing beyond the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ehrready import pipeline
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from tests.stores.store_helpers import OMOP, TABLES, command, profiled, sizeless


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample data in schema cdm, an unmapped table in main."""
    path = tmp_path_factory.mktemp("duckdb") / "omop.db"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE SCHEMA cdm")
        for name, file in TABLES.items():
            con.execute(f"CREATE TABLE cdm.{name} AS SELECT * FROM '{file}'")
        con.execute(
            "CREATE TABLE notes_index AS SELECT 1 AS a, 'x' AS b, 5::HUGEINT AS h, uuid() AS u, INTERVAL 1 DAY AS i, 'a'::ENUM('a') AS e"
        )
        con.execute("CREATE TABLE person_20240101 AS SELECT * FROM cdm.person")  # a copy is no second person table
    return path


def test_same_profile_as_the_parquet_files(database: Path) -> None:
    assert sizeless(f"duckdb://{database}?schema=cdm") == sizeless(OMOP)


def test_unmapped_tables_get_column_measures(database: Path) -> None:
    profile, ledger, _ = pipeline.read_profile([f"duckdb://{database}"], Options())
    kinds = {key[2]: values for key, values in profile.frames["columns"].items() if values[0] == 1}
    assert set(kinds) == {"integer", "text", "number"}  # HUGEINT as a decimal; UUID, INTERVAL and ENUM as text
    assert profile.frames["types"]["omop", "person"] == (400,)
    assert all(entry.declared == entry.read for entry in ledger.entries.values() if entry.status == "read")


def test_views_reach_nothing_outside_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    with duckdb.connect(str(tmp_path / "v.db")) as con:
        con.execute(f"CREATE VIEW person AS SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")
        con.execute("CREATE TABLE t AS SELECT 1 AS a")
    profile, ledger, _ = pipeline.read_profile([f"duckdb://{tmp_path / 'v.db'}"], Options())
    assert sorted(entry.status for entry in ledger.entries.values()) == ["read", "unreadable"]
    assert profile.total("profiled") == 1


@pytest.mark.parametrize(
    ("tail", "says"),
    [("?schema=nowhere", "schemas named"), ("?shema=cdm", "unknown parameter"), (".missing", "no such DuckDB file")],
)
def test_mistakes_are_told(database: Path, tail: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        profiled(f"duckdb://{database}{tail}")


def test_a_table_in_two_schemas_must_be_chosen(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "two.db")) as con:
        con.execute("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.person (x INT); CREATE TABLE b.PERSON (x INT)")
    with pytest.raises(UsageError, match="more than one schema"):
        profiled(f"duckdb://{tmp_path / 'two.db'}")


def test_open_elsewhere_or_no_database(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    program = f"import duckdb, sys; con = duckdb.connect({str(path)!r}); con.execute('CREATE TABLE t (a INT)'); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "up\n"
        done = command("profile", f"duckdb://{path}", "-o", tmp_path / "p.json")
        writer.communicate("")
    assert (done.returncode, "another process" in done.stderr) == (2, True), done.stderr
    (tmp_path / "no.db").write_text("this is no database, and long enough to be looked at by its magic number" * 100)
    done = command("profile", f"duckdb://{tmp_path / 'no.db'}", "-o", tmp_path / "p.json")
    assert (done.returncode, "check that it is one" in done.stderr, "no database" in done.stderr) == (2, True, False), done.stderr
    assert not (tmp_path / "p.json").exists()
