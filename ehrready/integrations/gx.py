"""Great Expectations on canonical tables: any expectation in, two counts out.

Nothing of a result but counts leaves: no failing value is kept, no file is written, no machine is asked, and what GX logs
or shows of its exceptions (they quote the data) is thrown away.  GX is imported on first use: 5-8 CPU seconds.

The expectations for GX users' own Checkpoints are here, too, and are imported when they are named:
``from ehrready.integrations.gx import ExpectColumnValuesToBeValidCodes``.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import importlib.util
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrready.errors import UsageError
from ehrready.integrations import gx_tables

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from ehrready.integrations.gx_expectations import (
        ExpectCodesToBeOfRelease,
        ExpectColumnValuesToBeValidCodes,
        ExpectColumnValuesToHaveNoFreeText,
        ExpectUnitsToBeValidForCode,
    )

__all__ = [
    "Counts",
    "ExpectCodesToBeOfRelease",
    "ExpectColumnValuesToBeValidCodes",
    "ExpectColumnValuesToHaveNoFreeText",
    "ExpectUnitsToBeValidForCode",
    "library",
    "measure_expectation",
]

MISSING = "Great Expectations is not installed: pip install great-expectations"

# COMPLETE is the only format that says which rows were unexpected (their numbers, to count patients by); the values stay out
_FORMAT = {
    "result_format": "COMPLETE",
    "partial_unexpected_count": 0,
    "exclude_unexpected_values": True,
    "include_unexpected_rows": False,
    "return_unexpected_index_query": False,
}
#: Settings of a result or of GX Cloud, which an expectation's arguments may carry and which decide nothing here.
_NOT_ARGUMENTS = ("result_format", "catch_exceptions", "batch_id", "id", "meta", "notes", "rendered_content", "windows", "description")
#: Rows of a frame that is worth collecting at once (0.2 s).
_LARGE = 100_000
#: Expectations about nulls: a value absent for a stated reason is an answer to them.
_NULLS = (
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_be_null",
    "expect_column_proportion_of_non_null_values_to_be_between",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    library()
    return getattr(importlib.import_module("ehrready.integrations.gx_expectations"), name)


@dataclass(frozen=True, slots=True)
class Counts:
    """What an expectation came to: ``n`` unexpected records of ``of`` evaluated; 0 or 1 of 1 for one about the table.

    ``error`` is a template sentence when it could not be evaluated (``n`` and ``of`` are 0 then).  ``success`` is GX's own
    word, which ``mostly`` decides.  ``patients`` have an unexpected record, ``of_patients`` an evaluated one; ``n2``,
    ``of2`` and ``n_of`` are Σn², Σof² and Σn·of over patients, a record without one its own; all None about the table.
    """

    n: int = 0
    of: int = 0
    error: str | None = None
    success: bool | None = None
    patients: int | None = None
    of_patients: int | None = None
    n2: int | None = None
    of2: int | None = None
    n_of: int | None = None
    by_record: bool = True


class _Refused(Exception):
    """An expectation that cannot be evaluated; the message is a template."""


@contextlib.contextmanager
def _without_spark_connect() -> Iterator[None]:
    """Keep Spark Connect from being imported where it cannot work.

    Great Expectations looks for it wherever PySpark is installed.  Without gRPC, and with no file as the main module
    (``python -c``, a worker process), PySpark 4.3 takes that for its own doctests and ends the process with exit code 0.
    """
    name = "pyspark.sql.connect"
    if name in sys.modules or importlib.util.find_spec("grpc") is not None:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's own mark: an ImportError
    try:
        yield
    finally:
        del sys.modules[name]


def library() -> Any:
    """Import Great Expectations, its analytics off, and ehrready's expectations; raises UsageError when it is missing."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings(), _without_spark_connect():
        warnings.filterwarnings("ignore", message="module 'sre_.*' is deprecated", category=DeprecationWarning)
        try:
            gx = importlib.import_module("great_expectations")
        except ImportError:
            raise UsageError(MISSING) from None
        importlib.import_module("ehrready.integrations.gx_expectations")  # registers them by name
    return gx


def measure_expectation(
    con: duckdb.DuckDBPyConnection, table: str, expectation: str, kwargs: Mapping[str, Any], *, parameters: Mapping[str, Any] | None = None
) -> Counts:
    """Run one expectation on a canonical table of the engine and return its counts; never raises for the expectation's sake.

    Args:
        con: The engine, after reading; it may be locked.
        table: A canonical table, ``concept`` or ``coding``; its columns are ``gx_tables.columns(table)``.
        expectation: The type, ``expect_column_values_to_be_in_set`` or ``ExpectColumnValuesToBeInSet``.
        kwargs: Its arguments, as in a suite's JSON.
        parameters: Values of its ``{"$PARAMETER": name}`` arguments.

    Raises:
        UsageError: Great Expectations is not installed.
    """
    library()
    try:
        with _quiet():
            made = _build(table, expectation, kwargs)
            wanted, rows = _wanted(table, made)
            frame, people = gx_tables.frame(con, table, wanted, keep_reasons=_about_nulls(made), rows=rows)
            counts = _counts(made, _validate(made, frame, parameters), frame, people)
            if len(frame) > _LARGE:  # GX's objects refer to one another and so keep the frame
                del frame, people
                gc.collect()
            return counts
    except _Refused as error:
        return Counts(error=str(error))


def snake(name: str) -> str:
    """Return the snake case of an expectation's name, which is how suites write it."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", apart).lower()


def _build(table: str, name: str, kwargs: Mapping[str, Any]) -> Any:
    """Make the expectation; refuses what is unknown, does not fit, or could leave the table."""
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

    if table not in gx_tables.NAMES:
        raise _Refused(f"no table is called {table!r}{_hint(table, gx_tables.NAMES)}: there are {', '.join(gx_tables.NAMES)}")
    try:
        kind = get_expectation_impl(snake(name))
    except ExpectationNotFoundError:
        known = [one for one in list_registered_expectation_implementations() if one]
        raise _Refused(f"Great Expectations has no expectation {name[:100]!r}{_hint(snake(name), known)}") from None
    if any("query" in field for field in kind.__fields__):
        raise _Refused(f"{snake(name)} needs a database: write it as a rule with check: sql")
    given = {key: value for key, value in kwargs.items() if key not in _NOT_ARGUMENTS}
    if foreign := sorted(set(given) - set(kind.__fields__)):
        raise _Refused(f"{snake(name)} has no argument {foreign[0][:100]!r}{_hint(foreign[0], kind.__fields__)}")
    if not _about_columns(kind):
        for key in _columns_of(given):
            _column(table, key)
    _safe(table, given)
    try:
        return kind(**given)
    except Exception as error:  # noqa: BLE001 - its text quotes the arguments
        places = sorted({str(one["loc"][0]) for one in error.errors()}) if hasattr(error, "errors") else []
        named = ", ".join(place for place in places if place in kind.__fields__) or "see its documentation"
        raise _Refused(f"the arguments of {snake(name)} do not fit: {named}") from None


def _columns_of(given: Mapping[str, Any]) -> list[str]:
    """Return the columns that the arguments name."""
    single = [value for key, value in given.items() if key in {"column", "column_A", "column_B", "code_column", "system_column"}]
    several = given.get("column_list") or []
    return [value for value in (*single, *(several if isinstance(several, list | tuple) else [])) if isinstance(value, str)]


def _column(table: str, name: str) -> None:
    known = gx_tables.columns(table)
    if name not in known:
        raise _Refused(f"the table {table} has no column {name[:100]!r}{_hint(name, known)}: it has {', '.join(known)}")


def _conditions(condition: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the kind (``""``: none) and the column of each part of a row condition, given as an object or as JSON."""
    parts = [] if condition is None else [condition]
    while parts:
        part = parts.pop()
        part = part.dict() if hasattr(part, "dict") else part
        if not isinstance(part, Mapping):
            yield "", None
            continue
        column = part.get("column")
        yield str(part.get("type", "")), str(column.get("name") if isinstance(column, Mapping) else column) if column is not None else None
        inner = part.get("conditions") or []
        parts += inner if isinstance(inner, list | tuple) else [inner]


def _safe(table: str, given: Mapping[str, Any]) -> None:
    """Refuse conditions that are program text for pandas, and schemas that are fetched from elsewhere."""
    for kind, column in _conditions(given.get("row_condition")):
        if kind not in {"comparison", "nullity", "and", "or"}:
            raise _Refused("row_condition must be a condition object (comparison, nullity, and, or), no text")
        if column is not None:
            _column(table, column)
    schema = [given.get("json_schema")]
    while schema:
        part = schema.pop()
        if isinstance(part, Mapping):
            if any(key in {"$ref", "$dynamicRef", "$recursiveRef"} and not str(value).startswith("#") for key, value in part.items()):
                raise _Refused("json_schema may refer to its own parts only ($ref: '#/...')")
            schema += part.values()
        elif isinstance(part, list | tuple):
            schema += part


def _about_columns(kind: Any) -> bool:
    """Is it an expectation about which columns there are, for which a wrong name is an answer?"""
    return str(kind.expectation_type).startswith(("expect_table", "expect_column_to_exist"))


def _about_nulls(made: Any) -> bool:
    return made.expectation_type in _NULLS


def _maps(made: Any) -> bool:
    """Is it an expectation about records?"""
    kinds = _kinds()
    return isinstance(made, kinds.ColumnMapExpectation | kinds.ColumnPairMapExpectation | kinds.MulticolumnMapExpectation)


def _kinds() -> Any:
    return importlib.import_module("great_expectations.expectations.expectation")


def _wanted(table: str, made: Any) -> tuple[list[str], bool]:
    """Return the columns that the expectation needs (those it names, or all) and whether it needs rows."""
    known = gx_tables.columns(table)
    if str(made.expectation_type).startswith("expect_table_row_count"):
        return ["record"], True
    if _about_columns(made) or not {"column", "column_A", "column_list"} & set(made.__fields__):
        return list(known), not _about_columns(made)
    named = set(_columns_of(made.configuration.kwargs))
    named |= {column for _, column in _conditions(made.configuration.kwargs.get("row_condition")) if column is not None}
    return [name for name in known if name in named] or list(known), True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence GX: what it logs, warns of and prints may quote values."""
    logger = logging.getLogger("great_expectations")
    before = logger.disabled, logger.propagate, list(logger.handlers), logger.level
    logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled, logger.propagate, logger.handlers, level = before
        logger.setLevel(level)


def _validate(made: Any, frame: pd.DataFrame, parameters: Mapping[str, Any] | None) -> Any:
    """Return GX's result, from a context of its own that leaves the caller's in place."""
    import great_expectations as gx
    from great_expectations.data_context.data_context.context_factory import project_manager
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
    from great_expectations.exceptions.exceptions import DataContextRequiredError

    try:
        before = project_manager.get_current_project()
    except DataContextRequiredError:
        before = None
    try:
        settings = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),  # get_context's own default makes a folder for Data Docs
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        )
        context = gx.get_context(mode="ephemeral", project_config=settings)
        asset = context.data_sources.add_pandas("ehrready").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
        return batch.validate(made, result_format=dict(_FORMAT), expectation_parameters=dict(parameters or {}))
    except Exception as error:  # noqa: BLE001 - a result of its own; its text may quote data
        raise _Refused(_crashed(made, type(error).__name__)) from None
    finally:
        project_manager.set_project(before)


def _crashed(made: Any, kind: str = "") -> str:
    named = f" ({kind})" if kind else ""
    return (
        f"{made.expectation_type} crashed on this table{named}: check that its arguments fit the column's type and that they are all given"
    )


def _counts(made: Any, result: Any, frame: pd.DataFrame, people: np.ndarray) -> Counts:
    info = result.exception_info or {}
    raised = info.get("raised_exception", False) or any(isinstance(one, Mapping) and one.get("raised_exception") for one in info.values())
    if raised or result.success is None:
        raise _Refused(_crashed(made))
    found, success = result.result or {}, bool(result.success)
    if not _maps(made) or "unexpected_count" not in found:
        return Counts(int(not success), 1, success=success, by_record=False)
    n, of = int(found["unexpected_count"]), int(found["element_count"]) - int(found.get("missing_count") or 0)
    rows, bad = _evaluated(made, frame), np.asarray(found.get("unexpected_index_list") or [], dtype=np.int64)
    if len(rows) != of or len(bad) != n:  # GX counted otherwise: no patients rather than wrong ones
        return Counts(n, of, success=success)
    return Counts(n, of, None, success, *_moments(people[rows], people[bad]))


def _evaluated(made: Any, frame: pd.DataFrame) -> np.ndarray:
    """Return the numbers of the rows that an expectation about records looks at."""
    from great_expectations.execution_engine import PandasExecutionEngine

    kwargs = made.configuration.kwargs
    rows = frame
    if made.row_condition is not None:
        condition = made.row_condition
        if isinstance(condition, Mapping):
            from great_expectations.expectations.row_conditions import deserialize_row_condition

            condition = deserialize_row_condition(condition)
        rows = rows.query(PandasExecutionEngine().condition_to_filter_clause(condition))
    names = _columns_of({key: kwargs.get(key) for key in ("column", "column_A", "column_B", "column_list")})
    if hasattr(made, "column"):
        how = "" if _about_nulls(made) else "any"
    else:
        ignored = str(getattr(made.ignore_row_if, "value", made.ignore_row_if))
        how = {"both_values_are_missing": "all", "all_values_are_missing": "all", "neither": "", "never": ""}.get(ignored, "any")
    absent = rows[names].isna()
    passed = absent.all(axis=1) if how == "all" else absent.any(axis=1) if how else np.zeros(len(rows), dtype=bool)
    return np.asarray(rows.index[~passed], dtype=np.int64)


def _moments(all_of: np.ndarray, bad: np.ndarray) -> tuple[int, int, int, int, int]:
    """Return patients with an unexpected record, patients with an evaluated one, Σn², Σof² and Σn·of."""
    size = int(max(all_of.max(initial=-1), bad.max(initial=-1))) + 1
    of, n = (np.bincount(rows[rows >= 0], minlength=size).astype(object) for rows in (all_of, bad))
    alone, bad_alone = int((all_of < 0).sum()), int((bad < 0).sum())
    return (
        int((n > 0).sum()),
        int((of > 0).sum()),
        int((n * n).sum()) + bad_alone,
        int((of * of).sum()) + alone,
        int((n * of).sum()) + bad_alone,
    )


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
