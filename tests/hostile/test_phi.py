"""Canaries in every place that a patient or a site fills: none may be in any output, however the run ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers import forked
from tests.hostile.canary import EXPORTS, MARK, Mint, forms, hits

DRIVER = Path(__file__).parent / "driver.py"
#: One function per stage of the program: each is made to raise an error that quotes a patient.
CALL_SITES = [
    "ehrready.sources:expand", "ehrready.sources:recognise", "ehrready.sources:head", "ehrready.readers.streams:open_stream",
    "ehrready.readers.fhir:FhirReader.read", "ehrready.readers.fhir:FhirReader.recognise", "ehrready.readers.fhir:_strict",
    "ehrready.readers.fhir_sql:parse", "ehrready.readers.fhir_sql:write", "ehrready.readers.fhir_resolve:resolve", "ehrready.readers.leaves:Columns.select",
    "ehrready.concepts:prepare", "ehrready.concepts:share",
    "ehrready.engines.duckdb:open_engine", "ehrready.engines.duckdb:lock", "ehrready.engines.duckdb:profiled",
    "ehrready.ledger:Ledger.add", "ehrready.ledger:Ledger.close", "ehrready.measure:measure", "ehrready.codings:measure",
    "ehrready.pipeline:judge", "ehrready.pipeline:evaluate", "ehrready.pipeline:build", "ehrready.checks.base:Outcome.__init__",
    "ehrready.privacy:hide_findings", "ehrready.privacy:hide_profile", "ehrready.reporters.html:render",
    "ehrready.reporters.console:render", "ehrready.scorecard:Scorecard.to_json", "ehrready.files:write", "ehrready.rules:load_all",
]  # fmt: skip


def run(target: str, *arguments: str | Path, cwd: Path, temporary: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    env = {"EHRREADY_REACHED": str(cwd / "reached")} | ({"TMPDIR": str(temporary)} if temporary else {})
    return forked.run(target, *arguments, cwd=cwd, script=DRIVER, env=env)


def outputs(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, its name as part of its content."""
    return {path.name: path.name.encode() + b"\n" + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mint]:
    folder, mint = tmp_path_factory.mktemp("exports"), Mint()
    for name, make in EXPORTS.items():
        make(folder / name, mint)
    assert len(mint.places) > 400
    return folder, mint


def test_the_detector_sees_every_form() -> None:
    for name, form in forms().items():
        assert hits(b"some text " + form + b" more text"), name
    assert hits(b"nothing here") == []
    assert MARK.encode() not in forms(MARK)["reversed"]


@pytest.mark.parametrize("internal", [[], ["--internal"]], ids=["default", "internal"])
@pytest.mark.parametrize("name", [*EXPORTS, "all"])
def test_no_canary_in_any_output(name: str, internal: list[str], exports: tuple[Path, Mint], tmp_path: Path) -> None:
    folder = exports[0] if name == "all" else exports[0] / name
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    profile = run("-", "profile", folder, "-o", out / "p.json", *internal, cwd=tmp_path, temporary=temporary)
    check = run(
        "-", "check", folder, "--against", out / "p.json", "--json", out / "c.json", "--html", out / "c.html",
        "--junit", out / "c.xml", "--sarif", out / "c.sarif", "--markdown", out / "c.md", *internal, "--fail-on", "never",
        cwd=tmp_path, temporary=temporary,
    )  # fmt: skip
    compare = run("-", "compare", out / "p.json", out / "p.json", "--json", out / "d.json", "--html", out / "d.html", cwd=tmp_path)
    diff = run("-", "diff", out / "c.json", out / "d.json", "--json", out / "e.json", "--html", out / "e.html", cwd=tmp_path)
    assert diff.returncode == 0
    assert {profile.returncode, check.returncode} <= {0, 3}
    assert compare.returncode in {0, 1, 3}
    found = outputs(out) | {
        "stdout": profile.stdout + check.stdout + compare.stdout + diff.stdout,
        "stderr": profile.stderr + check.stderr + compare.stderr + diff.stderr,
    }
    assert {"p.json", "c.json", "c.html", "d.json", "d.html"} <= found.keys()
    assert {name: found_in for name, data in found.items() if (found_in := hits(data))} == {}
    assert list(temporary.iterdir()) == []


def test_a_planted_leak_is_found(exports: tuple[Path, Mint], tmp_path: Path) -> None:
    run("leak", "profile", exports[0] / "omop", "-o", tmp_path / "out" / "p.json", cwd=tmp_path)
    assert hits(outputs(tmp_path / "out")["p.json"])


@pytest.mark.parametrize("site", CALL_SITES)
def test_a_crash_anywhere_shows_no_value(site: str, exports: tuple[Path, Mint], tmp_path: Path) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    done = run(site, "check", exports[0] / "fhir", "--json", out / "c.json", "--html", out / "c.html", cwd=tmp_path, temporary=temporary)
    assert (tmp_path / "reached").exists()
    assert done.returncode in {3, 70}
    assert b"Traceback" not in done.stderr
    found = outputs(tmp_path / "out") | {"stdout": done.stdout, "stderr": done.stderr}
    assert {name: found_in for name, data in found.items() if (found_in := hits(data))} == {}
    assert list(temporary.iterdir()) == []


def test_an_interrupted_run_shows_no_value(exports: tuple[Path, Mint], tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    done = run("sigint", "check", exports[0] / "hl7v2", "--json", tmp_path / "out" / "c.json", cwd=tmp_path, temporary=tmp_path / "tmp")
    assert done.returncode == 130
    assert hits(done.stdout + done.stderr) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "out").exists()
