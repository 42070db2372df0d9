"""Does a document fit its published JSON Schema?  Told with a JSON pointer, and never with a value of the document.

Reads the keywords that our own schemas use (``KEYWORDS``; a test holds them and the answers against jsonschema).  Turned
down: jsonschema itself, which takes longer to import than a scorecard to render (docs/decisions.md).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import orjson

Schema = Mapping[str, Any]

KEYWORDS = frozenset(
    "$schema $id $defs $ref title description type enum const pattern minimum maximum required properties additionalProperties "
    "items prefixItems minItems anyOf allOf if then".split()
)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float), "null": (type(None),),
}  # fmt: skip
_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}


@functools.cache
def schema(name: str) -> Schema:
    """Return a published schema of major version 1, such as ``scorecard``."""
    found: Schema = orjson.loads((resources.files("ehrready") / "schemas" / f"{name}-1.schema.json").read_bytes())
    return found


def first_problem(document: Any, name: str) -> str:
    """Return where and why a document does not fit a schema, or ``""``.  A whole number written as 1.0 does not fit."""
    root = schema(name)
    return next(_problems(document, root, root, ""), "")


def _problems(value: Any, s: Schema, root: Schema, place: str) -> Iterator[str]:
    if "$ref" in s:
        yield from _problems(value, root["$defs"][s["$ref"].removeprefix("#/$defs/")], root, place)
    if "type" in s:
        kinds = [s["type"]] if isinstance(s["type"], str) else s["type"]
        if not any(isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds):
            yield f"{place or '/'} is not {' or '.join(_NAMES[kind] for kind in kinds)}"
            return
    if ("enum" in s and value not in s["enum"]) or ("const" in s and value != s["const"]):
        yield f"{place} is none of {', '.join(s['enum'])}" if "enum" in s else f"{place} is not what stands there in every such document"
    if isinstance(value, str) and "pattern" in s and not re.search(s["pattern"], value):
        yield f"{place} is not written as it should be"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in s and value < s["minimum"]:
            yield f"{place} is {'negative' if s['minimum'] == 0 else 'too small'}"
        if "maximum" in s and value > s["maximum"]:
            yield f"{place} is larger than {s['maximum']}"
    if isinstance(value, dict):
        yield from _object(value, s, root, place)
    if isinstance(value, list):
        yield from _array(value, s, root, place)
    if "anyOf" in s and not any(_fits(value, one, root) for one in s["anyOf"]):
        yield next(_problems(value, s["anyOf"][0], root, place))
    for one in s.get("allOf", ()):
        yield from _problems(value, one, root, place)
    if "if" in s and _fits(value, s["if"], root):
        yield from _problems(value, s["then"], root, place)


def _object(value: dict[str, Any], s: Schema, root: Schema, place: str) -> Iterator[str]:
    known = s.get("properties", {})
    for key in s.get("required", ()):
        if key not in value:
            yield f"{place}/{key} is missing"
    for key, one in known.items():
        if key in value:
            yield from _problems(value[key], one, root, f"{place}/{key}")
    others = s.get("additionalProperties", True)
    if others is not True:
        for key in value.keys() - known.keys():
            yield from _problems(value[key], others, root, f"{place}/*")  # the key is not ours to repeat


def _array(value: list[Any], s: Schema, root: Schema, place: str) -> Iterator[str]:
    first = s.get("prefixItems", ())
    if len(value) < s.get("minItems", 0) or (s.get("items") is False and len(value) > len(first)):
        yield f"{place} has not {len(first)} entries"
        return
    for i, (item, one) in enumerate(zip(value, first, strict=False)):
        yield from _problems(item, one, root, f"{place}/{i}")
    if s.get("items"):
        for i, item in enumerate(value[len(first) :], len(first)):
            yield from _problems(item, s["items"], root, f"{place}/{i}")


def _fits(value: Any, s: Schema, root: Schema) -> bool:
    return next(_problems(value, s, root, ""), None) is None
