"""Work done ahead is invisible: it fails silently, ends with the process, and leaves what is asked for later ready."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ehrready import warm
from ehrready.checks import structure
from ehrready.readers.base import SourceFile
from ehrready.reporters import html
from ehrready.rules import load_all, merged
from tests.reporters.pages import card


def _wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "ehrready-warm":
            thread.join(30)


def test_a_job_that_fails_says_nothing_and_the_next_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    warm.start([lambda: done.append("first"), lambda: 1 / 0, lambda: __import__("no_such_module"), lambda: done.append("last")])
    _wait()
    assert done == ["first", "last"]
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_without_the_jobs_that_have_not_begun(tmp_path: Path) -> None:
    late = tmp_path / "late"
    code = f"import pathlib, time\nfrom ehrready import warm\nwarm.start([lambda: time.sleep(0.5), lambda: pathlib.Path({str(late)!r}).touch()])\nraise SystemExit(7)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"", b"")
    assert not late.exists()


def test_the_templates_of_the_report_are_those_that_are_compiled_ahead() -> None:
    html._environment.cache_clear()
    html.prepare()
    ready = set(html._environment().cache.keys())  # type: ignore[union-attr]
    html.render(card())
    assert set(html._environment().cache.keys()) == ready  # type: ignore[union-attr]


def test_models_are_made_ready_of_the_types_that_files_are_named_after() -> None:
    paths = ["Observation.000.ndjson", "1.Patient.ndjson.gz", "bundle.json", "NoSuchType.ndjson"]
    files = [SourceFile(number, Path(name), 1, "fhir") for number, name in enumerate(paths, 1)]
    jobs = structure.ahead(merged(load_all(["fhir-us-core"])), files)
    assert len(jobs) == 1
    assert structure.ahead([], files) == []
    code = (
        "import sys\nfrom ehrready.integrations import fhir_validation as v\nv.prepare('R4B', ['Patient', 'Observation', 'NoSuchType'])\n"
        "print(all(f'fhir.resources.R4B.{name}' in sys.modules for name in ('patient', 'observation')), 'fhir.resources.R4B.encounter' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("True False\n", "")
