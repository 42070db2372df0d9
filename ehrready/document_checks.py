"""Does a document fit its published JSON Schema?  Told with a JSON pointer, and never with a value of the document."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

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
def validator(name: str) -> Draft202012Validator:
    """Return the validator of a published schema of major version 1, such as ``scorecard``."""
    import jsonschema

    schema = orjson.loads((resources.files("ehrready") / "schemas" / f"{name}-1.schema.json").read_bytes())
    # a count is written 1 and never 1.0, though JSON Schema takes both for whole numbers
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: isinstance(v, int) and not isinstance(v, bool))
    strict = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    found: Draft202012Validator = strict(schema)
    return found


def first_problem(document: Any, name: str) -> str:
    """Return where and why a document does not fit a schema (a JSON pointer and a reason), or ``""``."""
    error = next(validator(name).iter_errors(document), None)
    return "" if error is None else _words(error)


def _words(error: ValidationError) -> str:
    while error.validator == "anyOf" and error.context:  # the first choice is the full one, the others say null
        error = error.context[0]
    # the keys of open maps may be anything and are not ours to repeat
    path, rule = list(error.absolute_path), list(error.absolute_schema_path)
    if "additionalProperties" in rule:
        path[-1:] = ["*"] if isinstance(path[-1], str) else path[-1:]
    place = "".join(f"/{step}" for step in path)
    allowed: Any = error.validator_value
    if error.validator == "required":
        held: Any = error.instance
        missing = next((key for key in allowed if key not in held), "a key")
        return f"{place}/{missing} is missing"
    if error.validator == "type":
        kinds = [allowed] if isinstance(allowed, str) else allowed
        return f"{place or '/'} is not {' or '.join(_NAMES[kind] for kind in kinds)}"
    if error.validator == "enum":
        return f"{place} is none of {', '.join(map(str, allowed))}"
    if error.validator == "minimum":
        return f"{place} is {'negative' if allowed == 0 else 'too small'}"
    if error.validator == "maximum":
        return f"{place} is larger than {allowed}"
    return f"{place} is not written as it should be"
