"""The house: bounds and locks, what is imported when, what the wheel holds, what the README promises."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ehrready
from ehrready.errors import Exit

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
HEAVY = ("great_expectations", "fhir.resources", "pandas", "pydantic", "duckdb", "numpy")


def _project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


RUNTIME = [Requirement(text) for text in _project()["dependencies"]]
DEV = [Requirement(text) for text in _project()["optional-dependencies"]["dev"]]


def _entries(lock: str) -> list[tuple[Requirement, str]]:
    """Return each requirement of a lock with the text of its hashes."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, _, hashes = line.partition("--hash=")
        found.append((Requirement(requirement), hashes))
    return found


def _locked(lock: str) -> dict[str, set[Version]]:
    """Return the versions of each package in a lock: several where they depend on the Python version."""
    found: dict[str, set[Version]] = {}
    for requirement, _ in _entries(lock):
        version = Version(next(iter(requirement.specifier)).version)
        found.setdefault(canonicalize_name(requirement.name), set()).add(version)
    return found


def _bound(requirement: Requirement, operator: str) -> Version:
    (specifier,) = [each for each in requirement.specifier if each.operator == operator]
    return Version(specifier.version)


@pytest.mark.parametrize("requirement", [*RUNTIME, *DEV], ids=lambda requirement: requirement.name)
def test_every_dependency_is_bounded_around_the_locked_version(requirement: Requirement) -> None:
    assert {each.operator for each in requirement.specifier} == {">=", "<"}
    versions = _locked("requirements-dev.lock")[canonicalize_name(requirement.name)]
    assert _bound(requirement, ">=") <= min(versions)
    assert max(versions) < _bound(requirement, "<")


@pytest.mark.parametrize("requirement", RUNTIME, ids=lambda requirement: requirement.name)
def test_the_lower_bound_is_what_these_tests_run_with(requirement: Requirement) -> None:
    assert _bound(requirement, ">=") == min(_locked("requirements.lock")[canonicalize_name(requirement.name)])
    installed = Version(importlib.metadata.version(requirement.name))
    assert installed in _locked("requirements.lock")[canonicalize_name(requirement.name)]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_by_hash_and_names_no_address(lock: str) -> None:
    entries = _entries(lock)
    assert entries
    for requirement, hashes in entries:
        assert requirement.url is None
        assert [each.operator for each in requirement.specifier] == ["=="], requirement.name
        assert re.match(r"sha256:[0-9a-f]{64}\b", hashes), requirement.name
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^--", text, flags=re.MULTILINE)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_the_locks_agree(lock: str) -> None:
    dev = _locked("requirements-dev.lock")
    for name, versions in _locked(lock).items():
        assert dev[name] == versions, name


def test_the_version_has_one_source() -> None:
    assert "version" in _project()["dynamic"]
    assert importlib.metadata.version("ehrready") == ehrready.__version__


@pytest.mark.parametrize("arguments", [None, "--version", "--help"], ids=["import", "--version", "--help"])
def test_heavy_libraries_are_not_imported_at_start(arguments: str | None, tmp_path: Path) -> None:
    code = [
        "import atexit, sys",
        f"atexit.register(lambda: print('loaded:', *(name for name in {HEAVY} if name in sys.modules)))",
        "from ehrready.cli import main",
    ]
    if arguments is not None:
        code += [f"sys.argv = ['ehrready', {arguments!r}]", "sys.exit(main())"]
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        check=True, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1].rstrip() == "loaded:"
    if arguments == "--version":
        assert ehrready.__version__ in ran.stdout + ran.stderr


@pytest.mark.parametrize("kind", ["fhir", "hl7v2", "omop"])
def test_a_whole_check_does_not_import_what_it_does_not_need(kind: str, tmp_path: Path) -> None:
    """Importing pandas costs as much as checking 10 MB, and pyarrow imports it for some of its conveniences."""
    code = (
        "import sys\nfrom ehrready.cli import main\n"
        f"for arguments in (['profile', {str(ROOT / 'sample_data/training' / kind)!r}, '-o', 'p.json'], "
        f"['check', {str(ROOT / 'sample_data/live' / kind)!r}, '--against', 'p.json', '--html', 'c.html', '--json', 'c.json']):\n"
        "    sys.argv = ['ehrready', *arguments]\n    try: main()\n    except SystemExit: pass\n"
        "print('loaded:', *(name for name in ('great_expectations', 'pandas', 'sklearn', 'pyspark') if name in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ran.stdout.splitlines()[-1].rstrip() == "loaded:"
    assert (tmp_path / "c.html").exists()


def _section(title: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", readme, flags=re.MULTILINE | re.DOTALL)
    assert match, f"README.md has no section {title!r}"
    return match.group(1)


@pytest.mark.parametrize(("title", "target"), [("Quick start", "demo"), ("Tests", "test")])
def test_docs_readme_has_one_command_that_is_a_target(title: str, target: str) -> None:
    fenced = re.findall(r"^```\w*\n(.*?)^```$", _section(title), flags=re.MULTILINE | re.DOTALL)
    assert fenced == [f"make {target}\n"]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_docs_ci_runs_the_readme_test_command() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_docs_readme_lists_the_exit_codes() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", _section("Exit codes"), flags=re.MULTILINE)}
    assert listed == {int(code) for code in Exit}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive and, from that alone, the wheel, with the locked hatchling."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and its locked dependencies into an empty environment; return its bin folder."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    install = [str(scripts / "python"), "-m", "pip", "install", "--quiet"]
    lock = str(ROOT / "requirements.lock")
    _run(*install, "--require-hashes", "--only-binary", ":all:", "-r", lock)
    _run(*install, "--no-deps", str(wheel))
    return scripts


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout's reach; fail with what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment)
    assert ran.returncode == 0, f"{command[0]} exited {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
    return ran


def _shipped(folder: str) -> list[Path]:
    """Return the files of a folder of the checkout that belong in the wheel."""
    return [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["rules/*.yaml", "sample_data/**/*"])
def test_the_wheel_holds(wheel: Path, pattern: str) -> None:
    assert list(ROOT.glob(pattern))
    with zipfile.ZipFile(wheel) as archive:
        for path in _shipped(pattern.partition("/")[0]):
            inside = f"ehrready/_data/{path.relative_to(ROOT).as_posix()}"
            assert archive.read(inside) == path.read_bytes(), inside


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = f"ehrready-{ehrready.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ehrready", metadata}
    assert {path.relative_to(ROOT).as_posix() for path in _shipped("ehrready")} <= names


@pytest.mark.slow
def test_the_installed_program_is_complete(installed: Path, tmp_path: Path) -> None:
    _run(str(installed / "python"), "-m", "pip", "check")
    program = str(installed / "ehrready")
    version = _run(program, "--version", cwd=tmp_path)
    assert ehrready.__version__ in version.stdout + version.stderr
    home = _run(str(installed / "python"), "-c", "import ehrready; print(ehrready.__file__)", cwd=tmp_path)
    assert installed.parent in Path(home.stdout.strip()).parents


@pytest.mark.slow
def test_the_installed_program_lists_every_rule(installed: Path, tmp_path: Path) -> None:
    packs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("rules/*.yaml")]
    ids = [rule["id"] for pack in packs for rule in pack["rules"]]
    listed = _run(str(installed / "ehrready"), "rules", "list", cwd=tmp_path)
    assert ids
    assert [rule for rule in ids if rule not in listed.stdout + listed.stderr] == []


@pytest.mark.slow
def test_the_installed_program_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    _run(str(installed / "ehrready"), "demo", "report", cwd=tmp_path)
    assert list((tmp_path / "report").rglob("*.html"))
    documents = [json.loads(path.read_bytes()) for path in (tmp_path / "report").rglob("*.json")]
    verdicts = {document["verdict"] for document in documents if "verdict" in document}
    assert verdicts
    assert verdicts <= {"ready", "ready-with-conditions", "not-ready", "cannot-tell"}
