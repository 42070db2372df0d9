"""A user's own Great Expectations suite, run on the canonical tables and merged into the scorecard as findings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ehrready import files
from ehrready.checks import Outcome
from ehrready.errors import UsageError
from ehrready.evaluate import Finding
from ehrready.integrations import gx, gx_tables
from ehrready.rules import Limits, Pack, Rule
from ehrready.tables import ELEMENTS

if TYPE_CHECKING:
    import duckdb

_MAX_BYTES = 10_000_000
_SEVERITIES = {"critical": "error", "warning": "warning", "info": "info"}


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of a suite: its number, type, arguments, table and severity; what its notes say."""

    number: int
    type: str
    kwargs: dict[str, Any]
    table: str
    severity: str
    title: str = ""
    notes: str = ""


@dataclass(slots=True)
class Suite:
    """A suite as read: its name fit for rule ids, its file's SHA-256, its expectations and parameters."""

    name: str
    sha256: str
    expectations: list[Expectation]
    parameters: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def run(self, con: duckdb.DuckDBPyConnection, terminology: Path | None = None) -> None:
        """Run every expectation on its table of the engine; the findings are in ``findings``."""
        gx.library()
        self.findings = [self._finding(con, one, terminology) for one in self.expectations]

    def pack(self) -> Pack:
        """Return the suite as the pack that its findings come from, for the scorecard's provenance."""
        return Pack(f"gx-{self.name}", "", self.sha256, "", (), tuple(finding.rule for finding in self.findings))

    def _finding(self, con: duckdb.DuckDBPyConnection, one: Expectation, terminology: Path | None) -> Finding:
        kwargs = dict(one.kwargs)
        if terminology is not None and gx.snake(one.type) == "expect_codes_to_be_of_release":
            kwargs.setdefault("terminology", str(terminology))
        counts = gx.measure_expectation(con, one.table, one.type, kwargs, parameters=self.parameters)
        column = one.kwargs.get("column") or one.kwargs.get("column_A")
        known = isinstance(column, str) and column in gx_tables.columns(one.table)
        element = f"{one.table}.{column}" if known else one.table
        kind = re.sub(r"[^a-z0-9_]+", "-", gx.snake(one.type))[:100]
        mostly = one.kwargs.get("mostly", 1)
        limit = round(1 - mostly, 12) if counts.by_record and isinstance(mostly, int | float) and not isinstance(mostly, bool) else None
        rule = Rule(
            f"gx-{self.name}-{one.number}-{kind}", "expectation", (element,), _SEVERITIES[one.severity], "engineering",
            one.notes or "A suite of Great Expectations expects it.",
            "Look at the records behind it in Great Expectations, or correct the suite.",
            one.title or kind.replace("_", " "), limits=Limits(fail=limit), pack=f"gx-{self.name}", min_n=1,
        )  # fmt: skip
        defect = "not-as-expected" if counts.by_record else "table-not-as-expected"
        outcome = Outcome(
            defect, counts.n, counts.of, counts.patients, counts.of_patients, counts.n2, counts.of2, counts.n_of,
            people=counts.by_record, partition=rule.id, detail=_about(one.kwargs.get("row_condition")),
        )  # fmt: skip
        status, reason = ("pass" if counts.success else "fail"), ""
        if counts.error:
            status, reason, outcome = "error", counts.error, Outcome(defect)
        elif counts.by_record and not counts.of:
            empty = not con.execute(f'SELECT 1 FROM "{one.table}" LIMIT 1').fetchall()
            status, reason = (
                ("not-applicable", f"the data has no {one.table} records") if empty else ("not-assessed", "no record to judge by")
            )
        elif counts.by_record and (counts.patients is None or counts.of_patients is None):
            outcome.few = True  # how many patients stand behind the counts is not known: they are not shown
        if status in {"pass", "fail"} and counts.by_record:
            from ehrready import stats

            outcome.interval = stats.wilson(counts.n / counts.of * outcome.effective_n, outcome.effective_n)
        return Finding(rule, "conformance", element, "", outcome, status, reason, limit)


def _about(condition: Any) -> str:
    """Say which element of ``concept`` or ``coding`` a condition chooses; other conditions may name values and are not shown."""
    parts = [condition]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            column = part.get("column")
            chosen = part.get("parameter") if isinstance(column, Mapping) and column.get("name") == "element" else None
            if chosen in ELEMENTS and part.get("operator") == "==":
                return f"where the element is {chosen}"
            inner = part.get("conditions") if part.get("type") == "and" else None
            parts += inner if isinstance(inner, list) else []
    return ""


def read(path: str, *, table: str = "") -> Suite:
    """Read a suite as GX 1.x saves it; ``table`` is for expectations that name none in ``meta.ehrready.table``.

    Raises UsageError with every mistake; one that only GX can find is a finding of status ``error`` later.
    """
    place = f"suite {Path(path).name}"
    data = files.read(path, place)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{place}: a suite may have at most {_MAX_BYTES} bytes")
    if table and table not in gx_tables.NAMES:
        raise UsageError(f"--table must be one of {', '.join(gx_tables.NAMES)}")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise UsageError(f"{place}: not valid JSON in UTF-8") from None
    entries = document.get("expectations") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{place}: not a suite of Great Expectations 1.x: it needs name and a list of expectations")
    if not isinstance(document.get("name"), str):
        old = "expectation_suite_name" in document
        raise UsageError(f"{place}: {'a suite of Great Expectations 0.x: save it again with 1.x' if old else 'the suite has no name'}")
    problems: list[str] = []
    found = [_entry(entry, number, table, f"{place}, expectation {number}", problems) for number, entry in enumerate(entries, 1)]
    if problems:
        raise UsageError(*problems)
    parameters = document.get("suite_parameters")
    slug = re.sub(r"[^a-z0-9]+", "-", document["name"].lower()).strip("-")[:40] or "suite"
    return Suite(slug, hashlib.sha256(data).hexdigest(), found, dict(parameters) if isinstance(parameters, dict) else {})


def _entry(entry: Any, number: int, table: str, place: str, problems: list[str]) -> Expectation:
    body: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    kind, kwargs, meta = body.get("type"), body.get("kwargs", {}), body.get("meta") or {}
    if not isinstance(kind, str) or not isinstance(kwargs, dict):
        old = "expectation_type" in body
        problems.append(f"{place}: {'of Great Expectations 0.x: save it again with 1.x' if old else 'it needs a type and kwargs'}")
        kind, kwargs = "", {}
    ours = meta.get("ehrready") if isinstance(meta, dict) else None
    named = (ours.get("table") if isinstance(ours, dict) else None) or table
    if not named:
        problems.append(f"{place}: no table: give --table, or meta: {{'ehrready': {{'table': 'condition'}}}}")
    elif named not in gx_tables.NAMES:
        problems.append(f"{place}: meta.ehrready.table must be one of {', '.join(gx_tables.NAMES)}")
        named = "patient"
    severity = body.get("severity") or "critical"
    if not isinstance(severity, str) or severity not in _SEVERITIES:
        problems.append(f"{place}: severity must be one of {', '.join(_SEVERITIES)}")
        severity = "critical"
    notes = body.get("notes")
    text = " ".join(note for note in notes if isinstance(note, str)) if isinstance(notes, list) else notes
    title = body.get("description")
    return Expectation(
        number, kind, kwargs, str(named), str(severity), title if isinstance(title, str) else "", text if isinstance(text, str) else ""
    )
