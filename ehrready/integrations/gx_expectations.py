"""Expectations about codes and units, for a Great Expectations user's own Checkpoint.  Importing this imports GX (5-8 s).

Each judges the distinct values of a pandas batch by ehrready's own terminology and counts rows.  Nulls are passed over,
as by every column map expectation.  SQL and Spark batches have no metric here: hand GX a data frame.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Optional, Union

import numpy as np
import pandas as pd
from great_expectations.compatibility import pydantic
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.core.suite_parameters import SuiteParameterDict
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metrics import ColumnMapMetricProvider
from great_expectations.expectations.metrics.metric_provider import metric_partial
from great_expectations.render.renderer_configuration import RendererValueType

from ehrready import analytes
from ehrready.terminology import grammar, systems
from ehrready.terminology.releases import Store
from ehrready.terminology.versions import normalise_version

#: Classes of codes that ExpectColumnValuesToHaveNoFreeText may count.
CLASSES = grammar.CLASSES
#: Defects of units that ExpectUnitsToBeValidForCode may count.
UNIT_DEFECTS = ("unit-missing", "unit-unparseable", "unit-incommensurable")
_GOOD = ("well-formed", "repairable")

# GX's own fields take a reference to a suite parameter wherever they take a text
_Text = Union[str, SuiteParameterDict]  # noqa: UP007 - GX's models are of pydantic 1, which evaluates this at run time
_Texts = Union[list[str], SuiteParameterDict]  # noqa: UP007
_MaybeText = Optional[_Text]  # noqa: UP045


def _per_distinct(frame: pd.DataFrame, judge: Callable[[list[tuple[str, ...]]], Sequence[bool]]) -> np.ndarray:
    """Judge each distinct row of a frame once; returns a verdict per row.  A null is the empty text."""
    texts = frame.astype(object).where(frame.notna(), "").astype(str)
    numbers = texts.groupby(list(texts.columns), sort=False).ngroup().to_numpy()
    distinct = list(texts.drop_duplicates().itertuples(index=False, name=None))
    return np.asarray(judge(distinct), dtype=bool)[numbers] if distinct else np.zeros(0, dtype=bool)


def _pairs(frame: pd.DataFrame, column: str, system: str | None, system_column: str | None) -> pd.DataFrame:
    """Return the code and its system, one row per row, as the columns ``0`` and ``1``."""
    if system_column is not None and system_column not in frame.columns:
        raise GreatExpectationsError("the batch has no column of the name that system_column gives")
    named = frame[system_column] if system_column is not None else pd.Series(system or "", index=frame.index)
    return pd.DataFrame({"0": frame[column], "1": named}, index=frame.index)


def _classified(pairs: Iterable[tuple[str, ...]]) -> list[tuple[str, grammar.Classified]]:
    """Return the key of the system and the class of each distinct (code, system as written) pair."""
    listed = list(pairs)
    found = {name: systems.resolve(name) for name in {pair[1] for pair in listed}}
    keys = {name: resolution.key for name, resolution in found.items()}
    for name, resolution in found.items():
        if resolution.how == "undecided":
            keys[name] = grammar.resolve_undecided(resolution.candidates, [(pair[0], 1) for pair in listed if pair[1] == name])
    return [(keys[pair[1]], grammar.classify(keys[pair[1]], pair[0])) for pair in listed]


def _valid(frame: pd.DataFrame, column: str, *, system: str | None = None, system_column: str | None = None) -> np.ndarray:
    def judge(distinct: list[tuple[str, ...]]) -> list[bool]:
        return [systems.is_public(key) and made.cls == "well-formed" for key, made in _classified(distinct)]

    return _per_distinct(_pairs(frame, column, system, system_column), judge)


def _no_text(
    frame: pd.DataFrame, column: str, *, system: str | None = None, system_column: str | None = None, classes: list[str] | None = None
) -> np.ndarray:
    bad = set(classes or ["free-text"])
    return _per_distinct(
        _pairs(frame, column, system, system_column), lambda distinct: [made.cls not in bad for _, made in _classified(distinct)]
    )


@functools.lru_cache(maxsize=8)
def _store(terminology: str | None) -> Store:
    return Store.open(Path(terminology) if terminology else None)


def _of_release(frame: pd.DataFrame, column: str, *, system: str, release: str, terminology: str | None = None) -> np.ndarray:
    key = systems.resolve(system).key
    table = _store(terminology).table(key)
    labels = [one.label for one in table.releases] if table else []
    label = release if release in labels else normalise_version(key, release)
    if table is None or label not in labels:
        raise GreatExpectationsError(
            f"no such release of {key} is loaded (loaded: {', '.join(labels) or 'none'}): see ehrready terminology"
        )
    at = labels.index(label)

    def judge(distinct: list[tuple[str, ...]]) -> list[bool]:
        made = [grammar.classify(key, code) for (code,) in distinct]
        positions = table.positions([one.repaired or code.strip() for one, (code,) in zip(made, distinct, strict=True)])
        # a table that lacks codes calls no unknown code wrong
        known = [bool(table.valid[p, at]) if p >= 0 else not table.complete for p in positions.tolist()]
        return [one.cls in _GOOD and good for one, good in zip(made, known, strict=True)]

    return _per_distinct(frame[[column]], judge)


def _units(
    frame: pd.DataFrame,
    column: str,
    *,
    code_column: str,
    system: str | None = None,
    system_column: str | None = None,
    defects: list[str] | None = None,
) -> np.ndarray:
    if code_column not in frame.columns:
        raise GreatExpectationsError("the batch has no column of the name that code_column gives")
    pairs = _pairs(frame, code_column, system if system or system_column else "loinc", system_column)
    pairs["2"] = frame[column]
    bad = set(defects or UNIT_DEFECTS)

    def judge(distinct: list[tuple[str, ...]]) -> list[bool]:
        found = []
        for (key, made), (code, _, unit) in zip(_classified(distinct), distinct, strict=True):
            shown = "" if grammar.is_null_token(unit) else analytes.shown(unit)
            found.append(analytes.unit_class(key, made.repaired or code.strip(), shown) not in bad)
        return found

    return _per_distinct(pairs, judge)


def _condition(judge: Callable[..., np.ndarray]) -> Any:
    """Make the metric function of a judgement on the non-null rows of a column, with the other columns at hand."""

    def unexpected(
        cls: Any,
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> tuple[pd.Series, dict[str, Any], dict[str, Any]]:
        del cls, metrics, runtime_configuration
        frame, compute, accessor = execution_engine.get_compute_domain(
            domain_kwargs=metric_domain_kwargs, domain_type=MetricDomainTypes.COLUMN
        )
        column = accessor["column"]
        if column not in frame.columns:
            raise GreatExpectationsError("the batch has no column of the name that column gives")
        rows = frame[frame[column].notnull()]
        given = {key: value for key, value in metric_value_kwargs.items() if value is not None}
        return ~pd.Series(judge(rows, column, **given), index=rows.index, dtype=bool), compute, accessor

    kind = MetricPartialFunctionTypes.MAP_CONDITION_SERIES
    return metric_partial(engine=PandasExecutionEngine, partial_fn_type=kind, domain_type=MetricDomainTypes.COLUMN)(unexpected)


class ValidCodeMetric(ColumnMapMetricProvider):  # type: ignore[misc] # GX is not followed
    """Is the code well-formed in a recognised public code system?"""

    condition_metric_name = "column_values.ehrready_valid_code"
    condition_value_keys = ("system", "system_column")
    _pandas = _condition(_valid)


class NoFreeTextMetric(ColumnMapMetricProvider):  # type: ignore[misc]
    """Is the code in none of the classes that are counted as words?"""

    condition_metric_name = "column_values.ehrready_no_free_text"
    condition_value_keys = ("system", "system_column", "classes")
    _pandas = _condition(_no_text)


class OfReleaseMetric(ColumnMapMetricProvider):  # type: ignore[misc]
    """Has the release the code?"""

    condition_metric_name = "column_values.ehrready_of_release"
    condition_value_keys = ("system", "release", "terminology")
    _pandas = _condition(_of_release)


class ValidUnitMetric(ColumnMapMetricProvider):  # type: ignore[misc]
    """Is the unit understood and of the kind that the code is measured in?"""

    condition_metric_name = "column_values.ehrready_valid_unit"
    condition_value_keys = ("code_column", "system", "system_column", "defects")
    _pandas = _condition(_units)


class _Ours(ColumnMapExpectation):  # type: ignore[misc]
    """What the four have in common: their sentence in Data Docs."""

    words: ClassVar[str] = ""
    library_metadata: ClassVar[dict[str, Any]] = {"maturity": "production", "tags": ["ehrready"], "contributors": [], "requirements": []}

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: Any) -> Any:
        for name in ("column", *cls.success_keys):
            value = (renderer_configuration.kwargs or {}).get(name)
            if value is not None:
                kind = RendererValueType.NUMBER if name == "mostly" else RendererValueType.STRING
                renderer_configuration.add_param(name=name, param_type=kind, value=value)
        renderer_configuration.template_str = f"$column {cls.words}"
        mostly = (renderer_configuration.kwargs or {}).get("mostly")
        if isinstance(mostly, int | float) and mostly < 1:
            renderer_configuration = cls._add_mostly_pct_param(renderer_configuration=renderer_configuration)
            renderer_configuration.template_str += ", at least $mostly_pct % of the time."
        else:
            renderer_configuration.template_str += "."
        return renderer_configuration

    @pydantic.root_validator(skip_on_failure=True)  # type: ignore[untyped-decorator]
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N805 - pydantic 1 hands the class
        system = values.get("system")
        if isinstance(system, str) and systems.resolve(system).how in {"unknown-uri", "local", "missing"}:
            raise ValueError("system names no code system that ehrready knows")
        for key, known in (("classes", CLASSES), ("defects", UNIT_DEFECTS)):
            if isinstance(values.get(key), list) and not set(values[key]) <= set(known):
                raise ValueError(f"{key} may be {', '.join(known)}")
        return values


def _one_system(values: dict[str, Any]) -> dict[str, Any]:
    if (values.get("system") is None) == (values.get("system_column") is None):
        raise ValueError("give either system or system_column")
    return values


class ExpectColumnValuesToBeValidCodes(_Ours):
    """Expect every code to be well-formed (grammar and check digit) in its public code system.

    Args:
        column: The codes.
        system: Their one code system, by any name: a FHIR URI, an OID, an HL7v2 mnemonic, an OMOP vocabulary_id.
        system_column: Else the column that says each code's system.  A row whose system is missing, local or unknown is
            unexpected: nobody can say that its code is valid.
        mostly: The share of codes that must be valid.
    """

    system: _MaybeText = None
    system_column: _MaybeText = None
    map_metric = ValidCodeMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("mostly", "system", "system_column")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "system", "system_column")
    words: ClassVar[str] = "codes must be well-formed in their code system"
    _one = pydantic.root_validator(skip_on_failure=True, allow_reuse=True)(lambda cls, values: _one_system(values))


class ExpectColumnValuesToHaveNoFreeText(_Ours):
    """Expect codes where codes belong, and no words.

    Args:
        column: The codes.
        system: Their one code system, by any name.
        system_column: Else the column that says each code's system; with neither, words are told by their look alone.
        classes: What counts as unexpected: ``free-text`` (default), ``malformed``, ``null-token``, ``repairable``,
            ``other-system``.
        mostly: The share of codes that must be none of these.
    """

    system: _MaybeText = None
    system_column: _MaybeText = None
    classes: Optional[_Texts] = None  # noqa: UP045 - see _Text
    map_metric = NoFreeTextMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("mostly", "system", "system_column", "classes")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "system", "system_column", "classes")
    words: ClassVar[str] = "must hold codes, no words"


class ExpectCodesToBeOfRelease(_Ours):
    """Expect every code to be in one release of its code system.

    Args:
        column: The codes, all of one system.
        system: The code system, by any name.
        release: The release, as ``ehrready terminology list`` names it (``FY2024``) or as feeds write it.
        terminology: The folder of release tables; default as for every ehrready command.
        mostly: The share of codes that must be of the release.
    """

    system: _Text
    release: _Text
    terminology: Optional[str] = None  # noqa: UP045
    map_metric = OfReleaseMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("mostly", "system", "release", "terminology")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "system", "release")
    words: ClassVar[str] = "codes must be of $system $release"


class ExpectUnitsToBeValidForCode(_Ours):
    """Expect every unit to be UCUM or a known spelling of it, and of the kind that its code is measured in.

    Args:
        column: The units.
        code_column: The codes of what was measured.
        system: The codes' one system, by any name; default LOINC.
        system_column: Else the column that says each code's system.
        defects: What counts as unexpected: ``unit-missing`` (a null token; nulls are passed over), ``unit-unparseable``,
            ``unit-incommensurable``; default all.
        mostly: The share of units that must be valid.
    """

    code_column: str
    system: _MaybeText = None
    system_column: _MaybeText = None
    defects: Optional[_Texts] = None  # noqa: UP045
    map_metric = ValidUnitMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("mostly", "code_column", "system", "system_column", "defects")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "code_column")
    words: ClassVar[str] = "units must be valid for the code in $code_column"
