"""PostgreSQL as a source, against a real server that the tests start and stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrready import pipeline
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from tests.stores.store_helpers import OMOP, TABLES, command, profiled, sizeless

dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi", reason="needs ehrready[postgres]")

SECRET = "correct-horse-battery"  # noqa: S105 - of a server that lives as long as the tests


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    return Path(found).parent if found else max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@dataclass
class Server:
    """A running server: ``url`` is of the user ``reader`` who may only read, ``admin`` of the superuser."""

    port: int

    @property
    def url(self) -> str:
        return f"postgresql://reader@127.0.0.1:{self.port}/ehr"

    @property
    def admin(self) -> str:
        return f"postgresql://postgres:{SECRET}@127.0.0.1:{self.port}/ehr"

    def run(self, *statements: str) -> None:
        with dbapi.connect(self.admin, autocommit=True) as con, con.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def load(self, table: str, rows: pa.Table, schema: str = "cdm") -> None:
        with dbapi.connect(self.admin) as con:
            with con.cursor() as cursor:
                cursor.adbc_ingest(table, rows, mode="create", db_schema_name=schema)
            con.commit()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a server in a folder of its own, as a user who is not root (initdb refuses root)."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL's server programs (initdb, pg_ctl)")
    as_user: list[str] = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv") or subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
            pytest.skip("runs as root, and there is no user postgres (or no setpriv) to start the server as")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        password = folder / "password"
        password.write_text(SECRET)
        if as_user:
            for path in (folder, password):
                shutil.chown(path, "postgres", "postgres")
        data, log = folder / "data", folder / "log"
        env = os.environ | {"LC_ALL": "C.UTF-8"}

        def tool(name: str, *arguments: str) -> None:
            done = subprocess.run(
                [*as_user, str(binaries / name), *arguments],
                cwd=folder,
                env=env,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert done.returncode == 0, (name, done.stdout, log.read_text() if log.exists() else "")

        tool("initdb", "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        # -l: the server must not hold the pipe that its output is read from
        tool("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-o", options, "start")
        try:
            with dbapi.connect(f"postgresql://postgres:{SECRET}@127.0.0.1:{port}/postgres", autocommit=True) as con, con.cursor() as cursor:
                cursor.execute("CREATE DATABASE ehr")
            made = Server(port)
            made.run("CREATE SCHEMA cdm", f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'", "GRANT USAGE ON SCHEMA cdm TO reader")
            for name, path in TABLES.items():
                made.load(name, pq.read_table(path))
            made.run("GRANT SELECT ON ALL TABLES IN SCHEMA cdm TO reader")
            yield made
        finally:
            tool("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def from_files() -> bytes:
    """The profile of the same tables as Parquet files."""
    return sizeless(OMOP)


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")


def test_same_profile_as_the_parquet_files(server: Server, from_files: bytes) -> None:
    assert sizeless(server.url) == from_files


def test_ledger_has_a_row_for_each_table_and_what_the_server_counts(server: Server) -> None:
    profile, ledger, files = pipeline.read_profile([server.url], Options())
    assert len(ledger.entries) == len(TABLES)
    assert profile.frames["declared"]["omop",][1:] == (10776, 10776, 0, 0)
    assert all(str(file.path) == f"postgresql://127.0.0.1:{server.port}/ehr: cdm.{file.path.name[:-8]}" for file in files)


def test_types_of_every_kind_and_unmapped_tables(server: Server) -> None:
    server.run(
        "CREATE SCHEMA IF NOT EXISTS other",
        "CREATE DOMAIN other.mrn AS text",
        """CREATE TABLE other.kinds (a bool, b int2, c numeric(10,0), d numeric(30,0), e numeric, f_id numeric, g money, h uuid,
           i jsonb, j int[], k date, l timestamptz, m time, n bytea, o interval, p other.mrn, q timestamp, r "char", s char(5))""",
        """INSERT INTO other.kinds SELECT true, 1, 2, 123456789012345678901234567890, 1.5, 123456789012345678901, '12.5', gen_random_uuid(),
           '{}', '{1,2}', 'infinity', now(), '10:11', 'x', '1 day', 'A1', '-infinity', 'x', 'ab' FROM generate_series(1, 3)""",
        "CREATE TABLE other.parted (id int, day date) PARTITION BY RANGE (day)",
        "CREATE TABLE other.parted_1 PARTITION OF other.parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
        "INSERT INTO other.parted VALUES (1, '2020-05-05')",
        "CREATE VIEW other.seen AS SELECT count(*) AS n FROM other.kinds",
        "CREATE TABLE other.empty (a int)",
        'CREATE TABLE other."we/ird ""name" ("a ""b" int)',
        "GRANT USAGE ON SCHEMA other TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA other TO reader",
    )
    try:
        profile, ledger, _ = pipeline.read_profile([f"{server.url}?schema=other"], Options(internal=True))
        assert sorted(entry.read for entry in ledger.entries.values()) == [0, 0, 1, 1, 3]
        assert {entry.status for entry in ledger.entries.values()} == {"read"}
        kinds = [(key[2], values) for key, values in profile.frames["columns"].items() if values[0] == 3]
        counted = {kind: [other for other, _ in kinds].count(kind) for kind, _ in kinds}
        assert counted == {"boolean": 1, "integer": 2, "text": 10, "binary": 1, "number": 1, "date": 1, "time": 3}
        assert sum(values[1] or 0 for _, values in kinds) == 6  # the infinite days are missing
        # with the other schema there, all tables of both are read
        both = pipeline.read_profile([server.url], Options())[1]
        assert len(both.entries) == len(TABLES) + 5
    finally:
        server.run("DROP SCHEMA other CASCADE")


def test_a_table_that_may_not_be_read_leaves_the_others(server: Server) -> None:
    server.run("REVOKE SELECT ON cdm.note FROM reader")
    try:
        profile, ledger, files = pipeline.read_profile([server.url], Options())
    finally:
        server.run("GRANT SELECT ON cdm.note TO reader")
    status = {file.path.name: ledger.entries[file.number].status for file in files}
    assert [name for name, state in status.items() if state == "unreadable"] == ["note.parquet"]
    assert profile.total("profiled") == 10776 - 200


def test_tables_fit_each_other_while_rows_come_in(server: Server, from_files: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are committed after the tables were listed are in none of them."""
    from ehrready.stores import tables

    fetch = tables._fetch
    seen: list[int] = []

    def meanwhile(*arguments: Any) -> None:
        if not seen:
            server.run("INSERT INTO cdm.death SELECT * FROM cdm.death", "INSERT INTO cdm.note SELECT * FROM cdm.note")
        seen.append(1)
        fetch(*arguments)

    monkeypatch.setattr(tables, "_fetch", meanwhile)
    try:
        assert sizeless(server.url) == from_files
    finally:
        monkeypatch.undo()
        for table, rows in (("death", 12), ("note", 200)):
            server.run(f"DELETE FROM cdm.{table} WHERE ctid NOT IN (SELECT ctid FROM cdm.{table} ORDER BY ctid LIMIT {rows})")


def test_nothing_is_written(server: Server) -> None:
    server.run(
        "CREATE SCHEMA sly",
        "CREATE TABLE sly.target (a int)",
        "CREATE FUNCTION sly.grow() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO sly.target VALUES (1) RETURNING a'",
        "CREATE VIEW sly.person AS SELECT sly.grow() AS person_id",
    )
    try:
        _, ledger, _ = pipeline.read_profile([f"{server.admin}?schema=sly"], Options())
        assert sorted(entry.status for entry in ledger.entries.values()) == ["read", "unreadable"]
        with dbapi.connect(server.admin) as con, con.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sly.target")
            assert cursor.fetchone() == (0,)
    finally:
        server.run("DROP SCHEMA sly CASCADE")


def test_login_refused_and_no_server_are_usage_errors_without_secrets(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    wrong = server.url.replace("reader@", "reader:wrong-secret@")
    for url, says, env in (
        (server.url, "PGPASSWORD", {"PGPASSWORD": ""}),
        (wrong, "PGPASSWORD", {}),
        (server.url.replace("/ehr", "/none"), "no such database", {}),
        ("postgresql://reader@127.0.0.1:1/ehr", "cannot be reached", {}),
        (f"{server.url}?schema=nowhere", "schemas named", {}),
    ):
        done = command("profile", url, "-o", out, **env)
        assert (done.returncode, says in done.stderr) == (2, True), (url, done.stderr)
        assert "secret" not in done.stderr
        assert SECRET not in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = command("profile", wrong.replace("wrong-secret", SECRET), "-o", out, "--show-paths")
    assert done.returncode == 0
    assert SECRET not in done.stderr + out.read_text()


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    with pytest.raises(UsageError, match=r"pip install 'ehrready\[postgres\]'"):
        profiled("postgresql://nobody@127.0.0.1:1/x")


def test_no_server_of_the_test_is_left(server: Server) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))):
        pass  # it is up now; the fixture asserts that it stops
