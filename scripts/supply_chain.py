"""Audit the lock and write the bill of materials: known vulnerabilities (pip-audit) and build/sbom.cdx.json (CycloneDX).

Exit 1 for a known vulnerability or an SBOM that could not be made.  Where the advisory database cannot be reached the
audit is said to be not done, and nothing fails: a build without network is no vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def audit(lock: Path) -> int:
    """Run pip-audit over a lock and print one line; returns 1 for a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--require-hashes",
               "--progress-spinner", "off", "--format", "json", "--timeout", "10"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"{lock.name}: NOT AUDITED, the advisory database cannot be reached from here")
        return 0
    audited = [d for d in found if "vulns" in d]
    bad = [(d["name"], d["version"], v["id"]) for d in audited for v in d["vulns"]]
    if not audited:
        print(f"{lock.name}: NOT AUDITED, the advisory database knows none of {len(found)} packages (a mirror without advisories?)")
        return 0
    print(f"{lock.name}: {len(audited)} of {len(found)} packages audited, {len(bad)} known vulnerabilities")
    for name, version, advisory in bad:
        print(f"  {name} {version}: {advisory}")
    return 1 if bad else 0


def sbom(lock: Path, target: Path) -> int:
    """Write the CycloneDX bill of materials of a lock, reproducibly; returns 1 when it could not be made."""
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(lock), "--pyproject", str(ROOT / "pyproject.toml"),
               "--output-reproducible", "--output-format", "JSON", "--output-file", str(target)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        print(f"no SBOM: cyclonedx-py ended with {done.returncode}")
        return 1
    print(f"{target.relative_to(ROOT)}: {len(json.loads(target.read_bytes())['components'])} components")
    return 0


if __name__ == "__main__":
    runtime = ROOT / "requirements.lock"
    sys.exit(audit(runtime) | audit(ROOT / "requirements-dev.lock") | sbom(runtime, ROOT / "build" / "sbom.cdx.json"))
