# ruff: noqa: ARG001 - one signature for all peers
"""aimedicalcoding: codes that are missing, local or broken, document by document."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

NAME = "aimedicalcoding"
PACKAGES = ("aimedicalcoding==0.3.17",)
FORMATS = ("fhir",)
OPTIONS = "`extract_gaps` with its defaults (all five systems), as in its quick start"
NOTE = "a Bundle per patient; AllergyIntolerance.category left out, at which it crashes"


def examine(live: Path, reference: Path) -> dict[str, int]:
    """Count gaps by pattern and missing system."""
    from aimedicalcoding import extract_gaps

    patients: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(live.glob("*.ndjson")):
        for line in file.read_text(encoding="utf-8").splitlines():
            resource = json.loads(line)
            kind = resource.get("resourceType")
            if kind == "AllergyIntolerance":
                resource.pop("category", None)
            who = (
                f"Patient/{resource['id']}"
                if kind == "Patient"
                else (resource.get("subject") or resource.get("patient") or {}).get("reference")
            )
            if kind and who:
                patients[who].append(resource)
    found: Counter[str] = Counter()
    for resources in patients.values():
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}
        found.update(f"{gap['pattern']} {gap['target']['system']}" for gap in extract_gaps(json.dumps(bundle).encode()).gaps)
    return dict(found)
