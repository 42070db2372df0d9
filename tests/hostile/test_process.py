"""Killed, interrupted, out of disk, without network: whole files or none, one sentence, the same bytes again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(PROJECT)}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ehrready", *map(str, arguments)]


def run(*arguments: str | Path, limit: Callable[[], None] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=ENV | env, preexec_fn=limit)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small export and its scorecard."""
    folder = tmp_path_factory.mktemp("process")
    lines = [json.dumps({"resourceType": "Observation", "id": f"o{i}", "status": "final", "valueString": "x"}) for i in range(300)]
    (folder / "o.ndjson").write_text("\n".join(lines) + "\n")
    assert run("check", folder / "o.ndjson", "--json", folder / "card.json", "--html", folder / "card.html").returncode in {0, 1, 3}
    return folder


@pytest.mark.parametrize("instants", [10, pytest.param(50, marks=pytest.mark.slow)])  # the 50: `make wheel`, or pytest -m slow
def test_kill_leaves_old_or_new_files(instants: int, data: Path, tmp_path: Path) -> None:
    rng = random.Random(8)
    new = {"json": (data / "card.json").read_bytes(), "html": (data / "card.html").read_bytes()}
    old = {"json": b"old json", "html": b"old html"}
    jobs: list[list[str | Path]] = [["render", data / "card.json"], ["check", data / "o.ndjson"]]
    spent = []
    for arguments in jobs:
        started = time.monotonic()
        run(*arguments, "--json", tmp_path / "x.json", "--html", tmp_path / "x.html", TMPDIR=str(tmp_path))
        spent.append(time.monotonic() - started)
    outcomes = set()
    for number in range(instants):
        job = int(number % 5 == 0)  # mostly the one that does nothing but write
        for kind, content in old.items():
            (tmp_path / f"r.{kind}").write_bytes(content)
        process = subprocess.Popen(
            command(*jobs[job], "--json", tmp_path / "r.json", "--html", tmp_path / "r.html"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(spent[job] * rng.uniform(0.2, 1.05))
        process.kill()
        process.wait()
        for kind, before in old.items():
            found = (tmp_path / f"r.{kind}").read_bytes()
            assert found in (before, new[kind]), f"{kind} is neither the old nor the new file after kill {number}"
            outcomes.add(found == new[kind])
    if instants >= 50:
        assert outcomes == {True, False}  # the instants fell on both sides of the writing
    run("check", data / "o.ndjson", TMPDIR=str(tmp_path))
    assert list(tmp_path.glob("ehrready-*")) == []  # swept by the next run


def test_sigint_is_130_and_sigterm_143(data: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        fifo.unlink(missing_ok=True)
        program = (
            "import sys,os,pathlib,time\nfrom ehrready import cli, measure\n"
            f"def slow(*a, **k):\n    pathlib.Path({str(fifo)!r}).touch()\n    time.sleep(60)\n"
            "measure.measure = slow\nsys.argv = ['ehrready', 'check', *sys.argv[1:]]\ncli.main()\n"
        )
        (tmp_path / "old.json").write_text("old")
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(data / "o.ndjson"), "--json", str(tmp_path / "old.json")],
            stderr=subprocess.PIPE, text=True, env=ENV | {"TMPDIR": str(tmp_path)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 # ignored where the tests run in the background
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not fifo.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (folder,) = tmp_path.glob("ehrready-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in stderr
        assert (tmp_path / "old.json").read_text() == "old"
        assert list(tmp_path.glob("ehrready-*")) == []


@pytest.mark.parametrize("place", ["measure.measure", "cells.build", "custom.sql"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_statement_of_the_engine_is_no_internal_error(data: Path, tmp_path: Path, sent: int, code: int, place: str) -> None:
    """The engine raises an error of its own in place of that of the signal."""
    started = tmp_path / "started"
    patch = {
        "measure.measure": "measure.measure = slow",
        "cells.build": "measure.cells.build = slow",
        "custom.sql": "from ehrready.checks import CHECKS\nimport dataclasses\n"
        "CHECKS['must-support'] = dataclasses.replace(CHECKS['must-support'], measured=slow)",
    }[place]
    program = (
        "import sys, pathlib\nfrom ehrready import cli, measure\n"
        f"def slow(con, *a, **k):\n    pathlib.Path({str(started)!r}).touch()\n"
        "    con.execute('SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) % 7 = 1').fetchall()\n"
        f"{patch}\nsys.argv = ['ehrready', 'check', *sys.argv[1:]]\ncli.run()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(data / "o.ndjson"), "--threads", "1"],
        stderr=subprocess.PIPE, text=True, env=ENV | {"TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 # ignored where the tests run in the background
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(sent)
    try:
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert "internal error" not in stderr
    assert list(tmp_path.glob("ehrready-*")) == []


def test_a_full_disk_is_one_sentence_and_the_old_report_stays(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.html"
    report.write_text("old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = run("render", data / "card.json", "--html", report, limit=limit)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].endswith("the disk is full or the file too large; nothing was changed")
    assert report.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_full_disk_while_reading_is_one_sentence(data: Path, tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = run("check", data / "o.ndjson", "--json", tmp_path / "c.json", limit=limit, TMPDIR=str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "disk" in done.stderr
    assert not (tmp_path / "c.json").exists()


def test_too_little_memory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("old")
    sample = PROJECT / "sample_data" / "live"
    for source, memory in ((sample / "fhir", "20MB"), (sample / "omop", "8MB")):
        done = run("profile", source, "-o", tmp_path / "p.json", "--memory", memory, TMPDIR=str(tmp_path))
        assert done.returncode == 3, done.stderr
        assert done.stderr.splitlines()[-1].startswith("ehrready: there is not enough memory"), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert (tmp_path / "p.json").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(tiny: Path, tmp_path: Path) -> None:
    """For tables that are fetched, for what --resume keeps and for the output."""
    sample = PROJECT / "sample_data" / "live"
    database = tmp_path / "omop.db"
    import duckdb

    with duckdb.connect(str(database)) as con:
        con.execute("CREATE TABLE wide AS SELECT i, md5(i::VARCHAR) a, md5((i + 1)::VARCHAR) b FROM range(60000) t(i)")
    runs: list[tuple[list[str | Path], Path]] = [
        ([f"duckdb://{database}", "-o", tmp_path / "p.json"], tiny),
        ([sample / "fhir", "-o", tmp_path / "p.json", "--resume", tiny / "work"], tmp_path),
    ]
    for arguments, temp in runs:
        done = run("profile", *arguments, TMPDIR=str(temp))
        (tiny / "filler").write_bytes(bytes(900 << 10))  # what is kept of the sample data would fit
        assert done.returncode == 3, done.stderr
        assert "disk is full" in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("ehrready:")]) == 1, done.stderr
        assert not (tmp_path / "p.json").exists()
        assert list(temp.glob("ehrready-*")) == []
    shutil.rmtree(tiny / "work")
    (tiny / "old.json").write_text("old")
    with (tiny / "filler").open("wb") as filler, contextlib.suppress(OSError):
        filler.write(bytes(2 << 20))
    done = run("profile", sample / "omop" / "person.parquet", "-o", tiny / "old.json", TMPDIR=str(tmp_path))
    assert (done.returncode, "disk is full" in done.stderr) == (3, True), done.stderr
    assert (tiny / "old.json").read_text() == "old"
    assert sorted(path.name for path in tiny.iterdir()) == ["filler", "old.json"]


def test_dev_full_is_one_sentence(data: Path) -> None:
    for arguments in (["--html", "/dev/full"], ["--json", "/dev/full"]):
        done = run("render", data / "card.json", *arguments)
        assert done.returncode == 3
        assert "disk is full" in done.stderr
    with Path("/dev/full").open("wb") as full:
        piped = subprocess.run(
            command("render", data / "card.json", "--json", "-"), stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=ENV
        )
    assert piped.returncode == 3
    assert "Traceback" not in piped.stderr


def test_a_reader_that_closes_the_pipe_is_no_traceback(data: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{' '.join(command('render', data / 'card.json', '--json', '-'))} | head -c 10"],
        capture_output=True, text=True, check=False, env=ENV,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(("closed", "to_stdout"), [("2>&-", 0), (">&-", 2), (">&- 2>&-", 2)])
def test_a_run_that_is_started_with_a_closed_stream_ends_as_it_should(data: Path, closed: str, to_stdout: int) -> None:
    for arguments, code in ((["render", data / "card.json", "--json", "/dev/null"], 0), (["render", data / "card.json", "--json", "-"], to_stdout),
                            (["--version"], 0), (["nonsense"], 2)):  # fmt: skip
        line = " ".join(command(*arguments))
        done = subprocess.run(["/bin/sh", "-c", f"{line} {closed}"], capture_output=True, text=True, check=False, env=ENV)
        assert done.returncode == code, arguments
        assert "Traceback" not in done.stderr


def test_a_profiler_writes_what_it_saw(tmp_path: Path) -> None:
    watched = [sys.executable, "-m", "cProfile", "-o", str(tmp_path / "seen"), "-m", "ehrready", "--version"]
    assert subprocess.run(watched, capture_output=True, check=False, env=ENV).returncode == 0
    assert (tmp_path / "seen").stat().st_size > 0


def test_the_same_input_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    for number in range(2):
        run(
            "check",
            data / "o.ndjson",
            "--json",
            tmp_path / f"{number}.json",
            "--html",
            tmp_path / f"{number}.html",
            PYTHONHASHSEED=str(number),
        )
    for kind in ("json", "html"):
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes() == (data / f"card.{kind}").read_bytes()


def test_no_network(data: Path, tmp_path: Path) -> None:
    arguments = command("check", data / "o.ndjson", "--json", tmp_path / "c.json")
    if shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0:
        done = subprocess.run(["unshare", "-rn", *arguments], capture_output=True, text=True, check=False, env=ENV)
        assert done.returncode in {0, 1, 3}
        assert (tmp_path / "c.json").read_bytes() == (data / "card.json").read_bytes()
    hook = (
        "import sys\n"
        "def no(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.__new__': raise SystemExit(99)\n"
        "sys.addaudithook(no)\nfrom ehrready import cli\nsys.argv = ['ehrready', *sys.argv[1:]]\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", hook, *arguments[3:]], capture_output=True, text=True, check=False, env=ENV)
    assert done.returncode in {0, 1, 3}, done.stderr


def test_core_dumps_are_off() -> None:
    program = "import resource, sys\nfrom ehrready import cli\nsys.argv = ['ehrready', '--version']\ntry:\n    cli.main()\nexcept SystemExit:\n    print(resource.getrlimit(resource.RLIMIT_CORE))\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENV)
    assert done.stdout.splitlines()[-1] == "(0, 0)"


def test_stale_folders_are_swept_and_living_ones_stay(data: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    stale, alive = tmp_path / f"ehrready-{dead.pid}-x", tmp_path / f"ehrready-{os.getpid()}-x"
    stale.mkdir()
    (stale / "tables.duckdb").write_text("rows")
    alive.mkdir()
    run("check", data / "o.ndjson", TMPDIR=str(tmp_path))
    assert [path.name for path in tmp_path.glob("ehrready-*")] == [alive.name]
