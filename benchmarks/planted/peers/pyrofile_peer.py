# ruff: noqa: ARG001 - one signature for all peers
"""pyrofile-validator: FHIR validation of structure, references and rules."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

NAME = "Pyrofile"
PACKAGES = ("pyrofile-validator==0.3.0",)
FORMATS = ("fhir",)
OPTIONS = "`folder`, its native backend and defaults (its packages and profiles would have to be downloaded)"
NOTE = "a Bundle per patient with fullUrl"


def examine(live: Path, reference: Path) -> dict[str, int]:
    """Count issues by severity, code and resource type."""
    patients: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(live.glob("*.ndjson")):
        for line in file.read_text(encoding="utf-8").splitlines():
            resource = json.loads(line)
            kind = resource.get("resourceType")
            who = (
                f"Patient/{resource['id']}"
                if kind == "Patient"
                else (resource.get("subject") or resource.get("patient") or {}).get("reference")
            )
            if kind and who:
                patients[who].append(resource)
    with tempfile.TemporaryDirectory() as folder:
        bundles = Path(folder) / "bundles"
        bundles.mkdir()
        for i, resources in enumerate(patients.values()):
            entries = [{"fullUrl": f"http://example.org/{r['resourceType']}/{r['id']}", "resource": r} for r in resources]
            (bundles / f"{i}.json").write_text(
                json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), encoding="utf-8"
            )
        out = Path(folder) / "report.json"
        program = Path(sys.executable).with_name("pyrofile")
        subprocess.run([program, "folder", str(bundles), "--json-output", str(out)], check=False, capture_output=True, cwd=folder)
        issues = json.loads(out.read_text(encoding="utf-8"))["issues"]
    return dict(Counter(f"{issue['severity']} {issue['code']} {issue['resourceType'] or ''}".strip() for issue in issues))
