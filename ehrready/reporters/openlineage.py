"""An OpenLineage run event with the data-quality facets, for catalogues and lineage servers.

Source: OpenLineage 2-0-2 (RunEvent), DataQualityAssertionsDatasetFacet, DataQualityMetricsInputDatasetFacet.  Without a stamp
(``--stamp`` or SOURCE_DATE_EPOCH) the event has the time 1970-01-01, since the same input gives the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from ehrready.reporters.words import plain

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard

_SPEC = "https://openlineage.io/spec"
_NAMESPACE = "ehrready"


def render(card: Scorecard) -> bytes:
    """Return one RunEvent: COMPLETE, or FAIL where the run cannot tell; each assessed rule on an element is an assertion."""
    d = card.document
    producer = f"urn:ehrready:{d['tool']['version']}"
    subject = d["subject"]
    metrics = {
        "_producer": producer,
        "_schemaURL": f"{_SPEC}/facets/1-0-3/DataQualityMetricsInputDatasetFacet.json#/$defs/DataQualityMetricsInputDatasetFacet",
        "rowCount": subject["records"]["read"],
        "bytes": subject["bytes"],
        "fileCount": subject["files"],
        "columnMetrics": _columns(d),
    }
    assertions = {
        "_producer": producer,
        "_schemaURL": f"{_SPEC}/facets/1-1-0/DataQualityAssertionsDatasetFacet.json#/$defs/DataQualityAssertionsDatasetFacet",
        "assertions": [_assertion(f) for f in d["findings"] if f["status"] in {"pass", "warn", "fail"}],
    }
    event = {
        "eventType": "FAIL" if card.verdict == "cannot-tell" else "COMPLETE",
        "eventTime": d.get("generated_at", "1970-01-01T00:00:00Z"),
        "producer": producer,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:ehrready:{d['provenance']['input_sha256']}:{card.verdict}"))},
        "job": {"namespace": _NAMESPACE, "name": "readiness"},
        "inputs": [
            {
                "namespace": _NAMESPACE,
                "name": plain(subject["name"]),
                "inputFacets": {"dataQualityMetrics": metrics, "dataQualityAssertions": assertions},
            }
        ],
        "outputs": [],
    }
    return orjson.dumps(event, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _columns(d: Mapping[str, Any]) -> dict[str, Any]:
    """Return the missing values of each element whose numbers may be shown."""
    found: dict[str, Any] = {}
    for f in d["findings"]:
        if f["check"] == "present" and f["defect"] == "missing" and not f["group"] and f["numerator"] is not None and f["denominator"]:
            found[f["element"]] = {"nullCount": f["numerator"], "count": f["denominator"]}
    return found


def _assertion(f: Mapping[str, Any]) -> dict[str, Any]:
    name = f["rule"] + (f"/{f['defect']}" if f["defect"] else "") + "".join(f"/{plain(value)}" for value in f["group"].values())
    # a warning and a waived failure do not fail the data set; the scorecard says what they are
    success = not (f["status"] == "fail" and f["severity"] == "error" and not f["waiver"])
    return {"assertion": name, "success": success} | ({"column": f["element"]} if f["element"] else {})
