"""The program in a process of its own, without its imports each time: a server has made them and forks for every run.

A run has its own arguments, folder, environment, output and exit code, as one that is started anew has; what has to be in place
before Python starts (PYTHONHASHSEED, PYTHONPATH, limits) needs ``subprocess``.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What nearly every run imports; nothing of it starts a thread or reads the environment.
IMPORTS = (
    "ehrready.cli", "ehrready.pipeline", "ehrready.measure", "ehrready.scorecard", "ehrready.sources", "ehrready.resume", "ehrready.saved",
    "ehrready.readers.fhir", "ehrready.readers.hl7v2", "ehrready.readers.tabular", "ehrready.readers.tabular_grammar",
    "ehrready.readers.tabular_narrow", "ehrready.stores.tables", "ehrready.terminology.releases", "ehrready.terminology.fingerprint",
    "ehrready.terminology.lifecycles", "ehrready.integrations.fhir_validation", "ehrready.outputs", "ehrready.profile_checks",
    "ehrready.reporters.html", "ehrready.reporters.console", "ehrready.reporters.junit", "ehrready.reporters.markdown",
    "ehrready.reporters.sarif", "pyarrow.parquet", "jinja2", "jsonschema", "numpy.random", "rich.console", "platformdirs",
    *(f"fhir.resources.R4B.{name}" for name in (
        "allergyintolerance", "attachment", "bundle", "codeableconcept", "condition", "diagnosticreport", "documentreference", "encounter",
        "immunization", "medicationrequest", "observation", "organization", "patient", "procedure", "quantity", "riskassessment",
    )),
)  # fmt: skip


def run(
    *arguments: str | Path, cwd: Path | None = None, script: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the program (or a ``script`` that runs it); output is bytes.

    ``env`` goes over the environment of the tests; what is empty there is taken away.
    """
    environment = {key: value for key, value in (os.environ | (env or {})).items() if value}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        argv = list(map(str, arguments))
        order = {"argv": argv, "cwd": str(cwd or Path.cwd()), "script": script and str(script), "env": environment}
        paths = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({**order, "out": paths}).encode() + b"\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def run_text(*arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program; output is text."""
    done = run(*arguments, cwd=cwd, env=env)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    """Start the server of this process of tests; it ends when its input does."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-u", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=ROOT)
    atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.wait(10)
    server.stdout.close()


def _become(order: dict[str, Any]) -> int:
    """Be the run in a fork; returns its exit code."""
    for fd, path in enumerate([os.devnull, *order["out"]]):
        opened = os.open(path, os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, fd)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None
    os.chdir(order["cwd"])
    sys.argv = [order["script"] or "ehrready", *order["argv"]]
    try:
        if order["script"]:
            runpy.run_path(order["script"], run_name="__main__")
        else:
            runpy.run_module("ehrready", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """End as an interpreter does, but for taking apart every module."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    importlib.import_module("ehrready.units").parse("kg.m2/s3")  # reads the definitions of units
    gc.collect()
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        child = os.fork()
        if child == 0:
            _end(_become(json.loads(line)))
        _, status = os.waitpid(child, 0)
        sys.stdout.buffer.write(b"%d\n" % os.waitstatus_to_exitcode(status))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
    _end(0)
