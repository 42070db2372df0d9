"""What stands in the way of Spark is told in one sentence, with exit 2 and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from ehrready import pipeline
from ehrready.errors import UsageError
from ehrready.options import Options

pytest.importorskip("pyspark", reason="needs PySpark (make spark)")

_WITHOUT = "import sys; sys.modules[{0!r}] = None; from ehrready.cli import main; main()"


def _run(tmp_path: Path, *arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "a.ndjson").write_text('{"resourceType":"Patient","id":"p"}\n', "utf-8")
    program = ["-c", code] if code else ["-m", "ehrready"]
    command = [sys.executable, *program, "profile", "a.ndjson", "-o", "out.json", *arguments]
    env = {name: value for name, value in os.environ.items() if name not in {"JAVA_HOME", "SPARK_MASTER"}} | environment
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert not (tmp_path / "out.json").exists()
    return done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "flink"), "--engine must be duckdb or spark"),
        (("--master", "local[2]"), "--master needs --engine spark"),
        (("--engine", "spark", "--master", "nonsense"), "Spark master"),
        (("--engine", "spark", "--resume", "work"), "--resume is for the embedded engine"),
        (("--engine", "spark", "--master", "spark://127.0.0.1:1"), "Spark master cannot be reached"),
    ],
)
def test_wrong_engine_or_master(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = _run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_database_is_no_source_for_spark(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "live.duckdb")) as con:
        con.execute("CREATE TABLE person (person_id INTEGER, gender_concept_id INTEGER, year_of_birth INTEGER)")
    with pytest.raises(UsageError, match="leave out --engine for this kind of source"):
        pipeline.read_profile([f"duckdb://{tmp_path / 'live.duckdb'}"], Options(engine="spark"))


def test_the_master_of_the_environment_is_used(tmp_path: Path) -> None:
    done = _run(tmp_path, "--engine", "spark", SPARK_MASTER="spark://127.0.0.1:1")
    assert done.returncode == 2
    assert "Spark master" in done.stderr


def test_no_java(tmp_path: Path) -> None:
    done = _run(tmp_path, "--engine", "spark", PATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "needs Java 17" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["pyspark", "sqlglot"])
def test_no_pyspark(tmp_path: Path, package: str) -> None:
    done = _run(tmp_path, "--engine", "spark", code=_WITHOUT.format(package))
    assert done.returncode == 2, done.stderr
    assert 'pip install "ehrready[spark]"' in done.stderr
