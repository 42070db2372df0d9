"""Packages that add to ehrready: named, they work and are recorded; not named, they are not even imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "ehrready-census"
STAYS = "".join(f"STAY|{n}|A|female|1970-01-01|{2020 + n % 2 * 3}-05-{n % 28 + 1:02d}|\n" for n in range(60)) + "END|60\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example, installed with pip beside (not into) the environment; returns the environment that sees it."""
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(EXAMPLE),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    )
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(target), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "EHRREADY_TERMINOLOGY": str(target / "none")}


def _run(installed: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ehrready", *arguments], cwd=folder, env=installed, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_example_keeps_the_contracts(installed: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--import-mode=importlib",
        str(EXAMPLE / "tests"),
    ]
    done = subprocess.run(command, cwd=EXAMPLE, env=installed, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_what_is_named_is_used_and_recorded(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ward.census").write_text(STAYS)
    done = _run(
        installed, tmp_path, "check", "ward.census", "--format", "census", "--rules", str(EXAMPLE / "census.yaml"), "--json", "card.json", "--report", "tally=-"
    )  # fmt: skip
    card = json.loads((tmp_path / "card.json").read_text())
    assert done.stdout.startswith(f"verdict {card['verdict']}\n"), done.stderr
    assert card["subject"]["records"] == {"read": 60, "profiled": 60, "rejected": 0}
    found = {f["rule"]: (f["status"], f["numerator"], f["denominator"]) for f in card["findings"]}
    assert found["census-no-silent-year"] == ("fail", 2, 4)
    assert found["census-sex-present"][0] == "pass"
    assert card["provenance"]["plugins"] == [
        "checks:silent-year (ehrready-census 0.1.0)",
        "readers:census (ehrready-census 0.1.0)",
        "reporters:tally (ehrready-census 0.1.0)",
    ]


def test_what_is_not_named_is_not_imported(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"resourceType": "Patient", "id": "1", "gender": "female"}\n')
    code = "import sys; sys.argv = ['ehrready', 'check', 'a.ndjson', '--json', 'c.json']\nfrom ehrready.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\nprint([m for m in sys.modules if 'census' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=installed, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert json.loads((tmp_path / "c.json").read_text())["provenance"]["plugins"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "cencus"], "--format must be one of auto, fhir, hl7v2, omop, table, census"),
        (["--report", "tallly=x"], "no reporter is called 'tallly': there are html, json"),
        (["--report", "tally"], "--report takes NAME=FILE"),
    ],
)
def test_a_name_that_nobody_offers_is_wrong_usage(installed: dict[str, str], tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "ward.census").write_text(STAYS)
    done = _run(installed, tmp_path, "check", "ward.census", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_package_that_cannot_be_loaded_is_one_sentence(installed: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "site" / "broken-1.0.dist-info"
    broken.mkdir(parents=True)
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[ehrready.reporters]\nshatter = nowhere_at_all:render\n")
    (tmp_path / "ward.census").write_text(STAYS)
    environment = {**installed, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), installed["PYTHONPATH"]])}
    done = _run(environment, tmp_path, "check", "ward.census", "--format", "census", "--report", "shatter=-")
    assert done.returncode == 2
    assert "shatter of broken 1.0 cannot be loaded (ModuleNotFoundError)" in done.stderr
    assert "Traceback" not in done.stderr
