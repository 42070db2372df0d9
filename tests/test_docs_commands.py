"""Every command that a page of the documentation tells people to run is run, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.helpers import forked

ROOT = Path(__file__).parents[1]
PAGES = ("tutorial.md", "formats.md", "cli.md", "contract.md", "integration.md", "monitoring.md", "routing.md", "incremental.md")
_BLOCK = re.compile(r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)


def _steps(page: str) -> list[tuple[str, int]]:
    """Return (command, exit code) in order; files of the page stand as ("file NAME", text)."""
    found: list[tuple[str, int]] = []
    for block in _BLOCK.finditer(page):
        if block["kind"] != "sh":
            continue
        for line in block["body"].splitlines():
            if line.startswith("# exit "):
                found[-1] = (found[-1][0], int(line.removeprefix("# exit ")))
            elif line:
                found.append((line, 0))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_docs_commands_run(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / name).read_text("utf-8")
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    for block in _BLOCK.finditer(page):
        if block["title"] and "/" not in block["title"]:
            (tmp_path / block["title"]).write_text(block["body"], encoding="utf-8")
    steps = _steps(page)
    assert steps
    for command, code in steps:
        program, *arguments = shlex.split(command)
        assert program == "ehrready"
        done = forked.run_text(*arguments, cwd=tmp_path)
        assert done.returncode == code, f"{command}\n{done.stderr}"


def test_docs_name_every_command_and_option_that_is_run_by_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    told = "".join((ROOT / "docs" / name).read_text("utf-8") for name in PAGES)
    assert {"profile", "check", "diff", "merge", "render", "schema", "doctor"} <= set(re.findall(r"ehrready (\w+)", told))
    assert "docs/tutorial.md" in readme
