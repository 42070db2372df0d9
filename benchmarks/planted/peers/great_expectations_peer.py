"""Great Expectations: the expectations that come to mind first, learnt from training where they need values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "Great Expectations"
PACKAGES = ("great-expectations==1.24.1",)
FORMATS = ("fhir",)
OPTIONS = (
    "not null and in the set of training's codes, units and statuses (`mostly=0.99`), unique ids, numbers between training's smallest and "
    "largest, a mean within a tenth of training's; per resource type"
)
NOTE = "a data frame per resource type"

_COLUMNS = {
    "Patient": {"sex": "gender", "birth": "birthDate"},
    "Condition": {"code": "code"},
    "Observation": {"code": "code", "at": "effectiveDateTime"},
    "MedicationRequest": {"code": "medicationCodeableConcept", "at": "authoredOn", "status": "status"},
    "Procedure": {"code": "code", "at": "performedDateTime"},
    "Encounter": {"code": "class", "status": "status"},
}


def examine(live: Path, reference: Path) -> dict[str, int]:
    """Return an alarm for each expectation that is not met."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    found = {}
    context = gx.get_context(mode="ephemeral")
    source = context.data_sources.add_pandas("pandas")
    for kind, columns in _COLUMNS.items():
        now, then = (_frame(folder, kind, columns) for folder in (live, reference))
        batch = source.add_dataframe_asset(kind).add_batch_definition_whole_dataframe("all").get_batch({"dataframe": now})
        wanted: list[tuple[str, Any]] = [("unique id", gxe.ExpectColumnValuesToBeUnique(column="id"))]
        for column in columns:
            wanted.append((f"not null {column}", gxe.ExpectColumnValuesToNotBeNull(column=column, mostly=0.99)))
            if column in {"code", "sex", "status"}:
                known = sorted(then[column].dropna().unique())
                wanted.append((f"in set {column}", gxe.ExpectColumnValuesToBeInSet(column=column, value_set=known, mostly=0.99)))
        if kind == "Observation":
            wanted.append(("not null value", gxe.ExpectColumnValuesToNotBeNull(column="value", mostly=0.99)))
            units = sorted(then["unit"].dropna().unique())
            wanted.append(("in set unit", gxe.ExpectColumnValuesToBeInSet(column="unit", value_set=units, mostly=0.99)))
        for name, expectation in wanted:
            if not batch.validate(expectation).success:
                found[f"{kind} {name}"] = 1_000_000_000
        if kind == "Observation":
            for code, part in then.dropna(subset=["number"]).groupby("code"):
                mine = now[now["code"] == code]
                if len(part) < 30 or not len(mine):
                    continue
                asset = (
                    source.add_dataframe_asset(f"code {code}").add_batch_definition_whole_dataframe("all").get_batch({"dataframe": mine})
                )
                low, high, mean = part["number"].min(), part["number"].max(), part["number"].mean()
                for name, expectation in (
                    ("range", gxe.ExpectColumnValuesToBeBetween(column="number", min_value=low, max_value=high, mostly=0.99)),
                    ("mean", gxe.ExpectColumnMeanToBeBetween(column="number", min_value=0.9 * mean, max_value=1.1 * mean)),
                ):
                    if not asset.validate(expectation).success:
                        found[f"Observation {name} of {code}"] = 1_000_000_000
    return found


def _frame(folder: Path, kind: str, columns: dict[str, str]) -> Any:
    import pandas as pd

    rows = []
    for line in (folder / f"{kind}.ndjson").read_text(encoding="utf-8").splitlines():
        resource = json.loads(line)
        row = {"id": resource.get("id")}
        for column, place in columns.items():
            value = resource.get(place)
            if isinstance(value, dict):
                codings = value.get("coding", [value])
                value = codings[0].get("code") if codings else None
            row[column] = value
        if kind == "Observation":
            quantity = resource.get("valueQuantity", {})
            row["number"], row["unit"] = quantity.get("value"), quantity.get("unit")
            row["value"] = next((str(v) for k, v in resource.items() if k.startswith("value")), None)
            if not quantity:
                row["unit"] = None
        rows.append(row)
    return pd.DataFrame(rows, columns=["id", *columns, *(["number", "unit", "value"] if kind == "Observation" else [])])
