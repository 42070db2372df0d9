"""The JSON Schema of rule packs and of waiver files, from the checks' own signatures: editors complete and check them."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_origin

from ehrready.checks import CHECKS, DIMENSIONS
from ehrready.checks.base import Check
from ehrready.rules import waivers
from ehrready.rules.document import MAX_BYTES
from ehrready.rules.model import MIN_N, SEVERITIES
from ehrready.rules.parser import LIMITS, TEXTS
from ehrready.tables import ELEMENTS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string", "minLength": 1}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_SAID = {
    "id": "Stable name of the rule; never reused.",
    "severity": "error fails the gate, warning is a condition, info changes nothing.",
    "owner": "Who mends it: engineering, clinical-informatics, or a word of your own.",
    "why": "Why it matters to a model.",
    "fix": "What to do next.",
    "title": "What holds when the rule passes.",
}


def pack_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a rule pack of major version 1."""
    names = {"type": "string", "minLength": 1}
    texts = {"anyOf": [names, {"type": "array", "items": names, "minItems": 1}]}
    options = {key: _type(p.annotation) for check in CHECKS.values() for key, p in check.options.items()}
    return {
        "$schema": _DIALECT,
        "$id": "urn:ehrready:schema:pack:1",
        "title": "ehrready rule pack",
        "description": f"Rules for ehrready --rules FILE. At most {MAX_BYTES:,} bytes, without YAML aliases.",
        "type": "object",
        "additionalProperties": False,
        "required": ["pack", "version"],
        "anyOf": [{"required": ["rules"]}, {"required": ["extends"]}],
        "properties": {
            "pack": {**_TEXT, "description": "Name of the pack."},
            "version": {"type": ["string", "number"], "description": "Version of the pack, such as 1.0.0."},
            "title": {**_TEXT, "description": "What the pack is for."},
            "formats": {**texts, "description": "Formats for which the pack is taken without being named (shipped packs)."},
            "extends": {**texts, "description": "Packs whose rules this one takes: shipped names, or files beside it."},
            "disable": {**texts, "description": "Rules of the extended packs to switch off: ids or globs."},
            "overrides": {
                "type": "array",
                "items": {"$ref": "#/$defs/override"},
                "description": "Changes to rules that are there, in this order.",
            },
            "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}, "description": "The pack's own rules."},
        },
        "$defs": {
            "on": {**texts, "description": "An element, a list of elements, or a glob such as *.code.", "examples": list(ELEMENTS)},
            "limits": _limits(),
            "override": {
                "type": "object",
                "additionalProperties": False,
                "required": ["rules"],
                "properties": {
                    **options,
                    **{key: _text(key) for key in TEXTS if key != "id"},
                    **_shared(),
                    "rules": {**texts, "description": "Rules to change: ids or globs."},
                    "site": {**_TEXT, "description": "The limits are for this site only (checks that count records of an element)."},
                },
            },
            "rule": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in sorted(CHECKS)]},
            **{name: _rule(check) for name, check in sorted(CHECKS.items())},
        },
    }


def waiver_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a waiver file of major version 1."""
    said = {
        "rule": {**_TEXT, "description": "Id of the rule."},
        "on": {**_TEXT, "description": "Element or glob; all elements of the rule when left out."},
        "defect": {**_TEXT, "description": "One defect of the rule; all when left out."},
        "reason": {**_TEXT, "description": "Why the finding is accepted for a while."},
        "owner": {**_TEXT, "description": "Who answers for it."},
        "expires": {"type": "string", "format": "date", "description": f"Last day, at most {waivers.MAX_DAYS} days ahead."},
        "max_rate": {**_SHARE, "description": "The finding fails again above this share."},
    }
    one = {"type": "object", "additionalProperties": False, "required": ["rule", "reason", "owner", "expires"], "properties": said}
    return {
        "$schema": _DIALECT,
        "$id": "urn:ehrready:schema:waivers:1",
        "title": "ehrready waivers",
        "type": "object",
        "additionalProperties": False,
        "required": ["waivers"],
        "properties": {"waivers": {"type": "array", "items": one}},
    }


def _limits() -> dict[str, Any]:
    said = {"fail": "Fails above this share.", "warn": "Warns above this share.", "versus_training": "Rise over training."}
    return {
        key: {"type": "object", "additionalProperties": False, "description": said[key], "properties": dict.fromkeys(names, _SHARE)}
        for key, names in LIMITS.items()
    }


def _shared() -> dict[str, Any]:
    return {
        "on": {"$ref": "#/$defs/on"},
        "min_n": {"type": "integer", "minimum": 1, "default": MIN_N, "description": "Fewer records are not-assessed."},
        **{key: {"$ref": f"#/$defs/limits/{key}"} for key in LIMITS},
    }


def _text(key: str) -> dict[str, Any]:
    return {**_TEXT, "description": _SAID[key], **({"enum": list(SEVERITIES)} if key == "severity" else {})}


def _rule(check: Check) -> dict[str, Any]:
    """Return the schema of the rules of one check."""
    shared = {key: value for key, value in _shared().items() if not (key in LIMITS and check.decides) and not (key == "on" and check.whole)}
    options = {key: _type(p.annotation) for key, p in check.options.items()}
    if "dimension" in options:
        options["dimension"] = {"enum": list(DIMENSIONS)}
    needed = [key for key, p in check.options.items() if p.default is inspect.Parameter.empty]
    return {
        "type": "object",
        "description": check.help,
        "additionalProperties": False,
        "required": ["id", "check", "severity", "owner", "why", "fix", *([] if check.whole else ["on"]), *needed],
        "properties": {"check": {"const": check.name}, **{key: _text(key) for key in TEXTS}, **shared, **options},
    }


def _type(kind: Any) -> dict[str, Any]:
    """Return the schema of an option's annotated type."""
    if get_origin(kind) is list:
        return {"type": "array", "items": _type(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object"}
    if args := get_args(kind):
        return {"anyOf": [_type(arg) for arg in args]}
    names = {float: "number", int: "integer", str: "string", bool: "boolean", type(None): "null"}
    return {"type": names[kind]}
