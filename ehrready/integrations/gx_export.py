"""Rule packs as a Great Expectations suite: what of a rule GX can say, and what it cannot.

The suite is about the columns that ``gx_tables`` gives a canonical table; ``meta.ehrready.table`` says which.  Made
without importing GX.  JSON as GX 1.x saves and loads it: ``ExpectationSuite(**json.load(file))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ehrready.checks import CHECKS
from ehrready.rules import Pack, Rule, merged
from ehrready.tables import CODED, DERIVED, SCALARS
from ehrready.valuesets import VALUE_SETS

#: Severity of a rule to that of an expectation.
SEVERITIES = {"error": "critical", "warning": "warning", "info": "info"}
# ehrready.engines.duckdb.null_token, without UNK and UNKNOWN: those are a reason for absence
_NULLS = r"(?i)^[\s\"]*(na|n/a|n\.a\.|null|none|nil|nan|--?|\.|\?\??|see notes?|see comments?|not available|not applicable|#n/a|<null>|\(null\)|\\n|)[\s\"]*$"
_ENDED = ["finished", "completed", "discharged"]

#: One expectation before its limit: table, type, arguments.
Form = tuple[str, str, dict[str, Any]]


def suite(packs: Sequence[Pack], *, name: str = "", table: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the suite as a JSON document and, one line each, the rules or parts of rules that have no GX form.

    ``table`` keeps the expectations about one canonical table: a suite for one batch.
    """
    expectations: list[dict[str, Any]] = []
    lost: list[str] = []
    for rule in merged(packs):
        forms = [(element, form) for element in rule.elements for form in _forms(rule, element)]
        limits = [(rule.limits.fail, rule.severity), (rule.limits.warn, "warning" if rule.severity != "info" else "info")]
        limited = [(limit, severity) for limit, severity in limits if limit is not None]
        if not forms or not limited:
            compares = CHECKS[rule.check].compares
            lost.append(
                f"{rule.id}: {rule.check} {'compares with training' if compares else 'is no expectation about a column'}; no form in Great Expectations"
            )
            continue
        without = sorted({element for element in rule.elements if element not in {named for named, _ in forms}})
        if without:
            lost.append(f"{rule.id}: no form in Great Expectations for {', '.join(without)}")
        if rule.limits.max_rise is not None or rule.limits.warn_rise is not None:
            lost.append(f"{rule.id}: only its absolute limit; the comparison with training has no form in Great Expectations")
        expectations += [
            _expectation(rule, element, form, limit, severity)
            for element, form in forms
            for limit, severity in limited
            if not table or form[0] == table
        ]
    named = name or "-".join(["ehrready", *(pack.name for pack in packs), *([table] if table else [])])
    packs_meta = [{"name": pack.name, "version": pack.version, "sha256": pack.sha256} for pack in packs]
    return {
        "name": named,
        "expectations": expectations,
        "suite_parameters": {},
        "meta": {"ehrready": {"packs": packs_meta}},
        "notes": None,
    }, lost


def _expectation(rule: Rule, element: str, form: Form, limit: float, severity: str) -> dict[str, Any]:
    table, kind, kwargs = form
    mostly = round(1 - limit, 12)
    return {
        "type": kind,
        "kwargs": {**kwargs, "mostly": int(mostly) if mostly in {0, 1} else mostly},
        "description": f"{rule.title or rule.id}: {element}",
        "severity": SEVERITIES[severity],
        "notes": [f"Why: {rule.why}", f"Fix: {rule.fix}"],
        "meta": {"ehrready": {"rule": rule.id, "pack": rule.pack, "table": table, "element": element}},
    }


def _is(column: str, value: object, operator: str = "==") -> dict[str, Any]:
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": value}


def _all(*conditions: dict[str, Any]) -> dict[str, Any]:
    return conditions[0] if len(conditions) == 1 else {"type": "and", "conditions": list(conditions)}


def _or_null(column: str, values: list[str]) -> dict[str, Any]:
    return {"type": "or", "conditions": [{"type": "nullity", "column": {"name": column}, "is_null": True}, _is(column, values, "IN")]}


def _forms(rule: Rule, element: str) -> Iterator[Form]:
    maker = _MAKERS.get(rule.check)
    if maker is not None:
        yield from maker(rule, element)


def _counted(element: str) -> list[dict[str, Any]]:
    """Return the conditions for the concepts of an element that count: the first of each record, and the parts of an Observation."""
    return [_is("element", element), *([] if element == "observation.code" else [_is("ordinal", 1)])]


def _states(element: str, defects: Sequence[str]) -> Iterator[Form]:
    """Yield one expectation per state that is a defect."""
    if element in CODED:
        table, column, condition = "concept", "state", {"row_condition": _all(*_counted(element))}
    else:
        table, column, condition = "observation", f"{element.partition('.')[2]}_state", {}
    for defect in defects:
        yield table, "expect_column_values_to_not_be_in_set", {"column": column, "value_set": [defect], **condition}


def _present(rule: Rule, element: str) -> Iterator[Form]:
    tokens = bool(rule.options.get("null_tokens", True))
    if element in CODED or element in DERIVED:
        yield from _states(element, ["missing", "null-token"] if tokens else ["missing"])
    elif element in SCALARS:
        table, column = SCALARS[element]
        condition = {"row_condition": _or_null("status", _ENDED)} if element == "encounter.end" else {}
        yield table, "expect_column_values_to_not_be_null", {"column": column, **condition}
        if tokens:
            yield table, "expect_column_values_to_not_match_regex", {"column": column, "regex": _NULLS, **condition}


def _coded(_: Rule, element: str) -> Iterator[Form]:
    condition = _all(*_counted(element), _is("state", ["text-only", "coded"], "IN"))
    yield "concept", "expect_column_values_to_be_in_set", {"column": "state", "value_set": ["coded"], "row_condition": condition}


def _no_free_text(rule: Rule, element: str) -> Iterator[Form]:
    for one in rule.options.get("classes") or ["null-token", "repairable", "other-system", "free-text", "malformed"]:
        yield (
            "coding",
            "expect_column_values_to_have_no_free_text",
            {"column": "code", "system_column": "system", "classes": [one], "row_condition": _is("element", element)},
        )


def _allowed_value(_: Rule, element: str) -> Iterator[Form]:
    if element in VALUE_SETS and element in SCALARS:
        table, column = SCALARS[element]
        values = sorted(set().union(*VALUE_SETS[element].values()))
        yield table, "expect_column_values_to_be_in_set", {"column": column, "value_set": values}


def _unit_valid(rule: Rule, element: str) -> Iterator[Form]:
    condition = {"row_condition": _is("value_kind", "number")}
    for one in rule.options.get("classes") or ["unit-missing", "unit-unparseable", "unit-incommensurable"]:
        if one == "unit-missing":
            yield from _states(element, ["missing", "null-token"])
        else:
            kwargs = {"column": "any_unit", "code_column": "code", "system_column": "code_system", "defects": [one]}
            yield "observation", "expect_units_to_be_valid_for_code", {**kwargs, **condition}


def _unique(_: Rule, element: str) -> Iterator[Form]:
    table, column = element.split(".", 1)
    if column == "id":
        # in HL7v2 patients and visits are made one per key by the reader; their ids are keys of several records
        condition = _is("source_type", ["PID", "PV1"], "NOT_IN")
        kwargs = {"column_list": ["source_type", "id"], "ignore_row_if": "any_value_is_missing", "row_condition": condition}
        yield table, "expect_compound_columns_to_be_unique", kwargs


_MAKERS: dict[str, Callable[[Rule, str], Iterator[Form]]] = {
    "present": _present,
    "coded": _coded,
    "no-free-text": _no_free_text,
    "allowed-value": _allowed_value,
    "unit-valid": _unit_valid,
    "unique": _unique,
}
