"""Evidently: the data drift preset on the code columns, training against live."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "Evidently"
PACKAGES = ("evidently==0.7.23", "pandas==2.3.3")
FORMATS = ("fhir",)
OPTIONS = "`DataDriftPreset()` with its defaults, one table per resource type, the code columns as categorical"
NOTE = "the first coding of each code column as a data frame; pandas below 3, with which it does not start"

_COLUMNS = {
    "Condition": ("code",),
    "Observation": ("code",),
    "MedicationRequest": ("medicationCodeableConcept",),
    "Procedure": ("code",),
    "Encounter": ("class",),
}


def examine(live: Path, reference: Path) -> dict[str, int]:
    """Return an alarm for each column whose drift is detected."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    found = {}
    for kind, columns in _COLUMNS.items():
        frames = []
        for folder in (live, reference):
            resources = [json.loads(line) for line in (folder / f"{kind}.ndjson").read_text(encoding="utf-8").splitlines()]
            frames.append(pd.DataFrame({c: [_code(r.get(c)) for r in resources] for c in columns}))
        data = [Dataset.from_pandas(frame, DataDefinition(categorical_columns=list(columns))) for frame in frames]
        result = Report([DataDriftPreset()]).run(data[0], data[1]).dict()
        for metric in result["metrics"]:
            config = metric.get("config", {})
            column, threshold, value = config.get("column"), config.get("threshold"), metric["value"]
            if column is None or not isinstance(value, int | float):
                continue
            # a distance drifts above its threshold, a p-value below it
            drifts = value < threshold if "p_value" in metric["metric_name"] else value >= threshold
            if drifts:
                found[f"drift of {kind}.{column}"] = 1_000_000_000
    return found


def _code(concept: dict[str, object] | None) -> str:
    codings = (concept or {}).get("coding", [concept] if concept else [])
    first = codings[0] if isinstance(codings, list) and codings else {}
    return str((first or {}).get("code", "none"))
