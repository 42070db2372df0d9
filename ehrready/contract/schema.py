"""The published JSON Schema of ``contract.yaml``: editors complete and check with it, the parser has the last word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ehrready.contract import parser
from ehrready.contract.model import AGGREGATIONS, COLUMNS, OUTPUT_KINDS
from ehrready.rules.model import SEVERITIES
from ehrready.tables import TABLES

_NAME = {"type": ["string", "number"], "description": "Letters, digits, dot, dash, underscore; at most 63."}
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 100_000}


def contract_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12)."""
    feature = _object(
        {
            "name": _NAME,
            "table": _enum(TABLES),
            "codes": _by_system("Accepted codes by code system; * at the end: any continuation."),
            "releases": _by_system("Accepted releases by code system, such as ICD-10-CM: [FY2025]."),
            "units": {**_TEXTS, "description": "Accepted UCUM units."},
            "window_days": {**_WHOLE, "description": "Days before the patient's last dated record; 0: at any time."},
            "aggregation": _enum(AGGREGATIONS),
            "required": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of the cohort that must have it."},
            "severity": _enum(SEVERITIES),
            "owner": _TEXT,
        },
        ("name", "table"),
    )
    output = _object(
        {
            "name": _NAME,
            "kind": _enum(OUTPUT_KINDS),
            "range": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            "classes": _TEXTS,
            "threshold": {"type": "number", "description": "The least score that alerts."},
            "alert_share": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of predictions that is expected to alert."},
            "columns": {
                **_object(dict.fromkeys(COLUMNS, _TEXT)),
                "description": "Columns of the table of predictions that are called otherwise.",
            },
            "write_back": _object({"resource": _TEXT, "interactions": _several(parser.INTERACTIONS), "hooks": _TEXTS}),
            "owner": _TEXT,
        },
        ("name", "kind"),
    )
    deployment = {
        "fhir_version": _TEXT,
        "bulk_export": {"type": "boolean"},
        "smart": _enum(parser.SMART),
        "scopes": _TEXTS,
        "profiles": _TEXTS,
        "page_size": _WHOLE,
        "requests_per_minute": _WHOLE,
    }
    cohort = {"description": _TEXT, "min_age": _WHOLE, "max_age": _WHOLE, "having": _several(TABLES)}
    label = {
        "name": _TEXT,
        "delay_days": _WHOLE,
        "positive": {"type": ["string", "number", "boolean"]},
        "baseline": _object({key: {"type": "number"} for key in parser.BASELINES}),
    }
    owner = {
        "name": _NAME,
        "email": _TEXT,
        "webhook": {
            "type": "string",
            "pattern": "^[A-Z][A-Z0-9_]{0,62}$",
            "description": "An environment variable that holds the address.",
        },
        "style": _enum(parser.STYLES),
    }
    found = _object(
        {
            "contract": {"type": ["string", "number"], "description": f"Version of this format: {parser.VERSION}."},
            "model": _object({"name": _NAME, "version": _NAME}, ("name", "version")),
            "cohort": _object(cohort),
            "features": {"type": "array", "items": feature, "minItems": 1},
            "outputs": {"type": "array", "items": output},
            "label": _object(label),
            "deployment": _object(deployment),
            "owners": {"type": "array", "items": _object(owner, ("name",))},
            "subgroups": _several(parser.SUBGROUPS),
            "lookback_days": _WHOLE,
            "card": _object(dict.fromkeys(parser.CARD_KEYS, _TEXT)),
        },
        ("contract", "model", "features"),
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ehrready model contract", **found}


def _object(properties: dict[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": list(required)} if required else found


def _enum(values: Iterable[str]) -> dict[str, Any]:
    return {"enum": list(values)}


def _several(values: Iterable[str]) -> dict[str, Any]:
    return {"anyOf": [_enum(values), {"type": "array", "items": _enum(values), "minItems": 1}]}


def _by_system(words: str) -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "additionalProperties": _TEXTS, "description": words}
