"""Licences, audit and security pages that fit the lock and the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_docs_licences_name_every_locked_package(project: Path) -> None:
    lock = (project / "requirements.lock").read_text("utf-8")
    locked = {name.lower() for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", lock)}
    listed = re.findall(r"(?m)^\| ([a-z0-9._-]+) \| (.+) \|$", (project / "docs" / "licences.md").read_text("utf-8"))
    rows = dict(listed[1:] if listed[0][0] == "package" else listed)
    assert rows.keys() == locked, "run: python scripts/make_licences.py"
    assert [name for name, licence in rows.items() if "not declared" in licence or re.search(r"\bA?GPL", licence)] == []


def test_docs_security_page_names_tests_that_exist(project: Path) -> None:
    names = set(re.findall(r"test_\w+\.py", (project / "SECURITY.md").read_text("utf-8")))
    assert len(names) >= 8
    assert sorted(name for name in names if not list((project / "tests").rglob(name))) == []


def test_docs_privacy_page_has_the_18_classes(project: Path) -> None:
    text = (project / "docs" / "privacy.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| ([A-R]) [^|]+\|([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|$", text)
    assert [row[0] for row in rows] == list("ABCDEFGHIJKLMNOPQR")
    assert all(cell.strip() for row in rows for cell in row)


def test_an_audit_without_the_database_says_so_and_does_not_fail(project: Path, tmp_path: Path) -> None:
    (tmp_path / "pip_audit.py").write_text("import sys; sys.exit('no connection')")
    (tmp_path / "cyclonedx_py.py").write_text("import sys; open(sys.argv[-1], 'w').write('{\"components\": []}')")
    program = (
        f"import sys, pathlib; sys.path.insert(0, {str(project / 'scripts')!r}); import supply_chain; "
        "sys.exit(supply_chain.audit(pathlib.Path('requirements.lock')))"
    )
    env = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=project, env=env)
    assert (done.returncode, "NOT AUDITED" in done.stdout) == (0, True)
    (tmp_path / "pip_audit.py").write_text('print(\'{"dependencies": [{"name": "x", "version": "1", "vulns": [{"id": "CVE-1"}]}]}\')')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=project, env=env)
    assert (done.returncode, "CVE-1" in done.stdout) == (1, True)
