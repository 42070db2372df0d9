"""Write the published JSON Schemas that follow from code (ehrready/schemas/): run it after a check's options change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import scripts.document_schemas as documents  # noqa: E402
from ehrready.contract import schema as contract  # noqa: E402
from ehrready.rules import schema  # noqa: E402

#: File name to the schema it holds.
MADE: dict[str, Any] = {
    "contract-1.schema.json": contract.contract_schema,
    "difference-1.schema.json": documents.difference_schema,
    "pack-1.schema.json": schema.pack_schema,
    "profile-1.schema.json": documents.profile_schema,
    "scorecard-1.schema.json": documents.scorecard_schema,
    "waivers-1.schema.json": schema.waiver_schema,
}


def text(name: str) -> str:
    """Return a schema file's text."""
    return json.dumps(MADE[name](), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in MADE:
        (ROOT / "ehrready" / "schemas" / name).write_text(text(name), "utf-8")
