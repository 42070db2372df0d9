"""Reads ``contract.yaml``; every mistake is told at once, each with its line and the remedy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from ehrready import files
from ehrready.contract.model import (
    AGGREGATIONS,
    COLUMNS,
    FHIR_RELEASES,
    OUTPUT_KINDS,
    Cohort,
    Contract,
    Deployment,
    Feature,
    Label,
    Output,
    Owner,
    WriteBack,
    fhir_release,
)
from ehrready.errors import UsageError
from ehrready.rules.document import Document, compose, hint, shown
from ehrready.rules.model import SEVERITIES
from ehrready.tables import TABLES
from ehrready.terminology import systems

VERSION = "1.0"
KEYS = ("contract", "model", "cohort", "features", "outputs", "label", "deployment", "owners", "subgroups", "lookback_days", "card")
FEATURE_KEYS = ("name", "table", "codes", "releases", "units", "window_days", "aggregation", "required", "severity", "owner")
OUTPUT_KEYS = ("name", "kind", "range", "classes", "threshold", "alert_share", "columns", "write_back", "owner")
DEPLOYMENT_KEYS = ("fhir_version", "bulk_export", "smart", "scopes", "profiles", "page_size", "requests_per_minute")
#: Figures of the validation that a run is held against.
BASELINES = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "ece", "accuracy", "balanced_accuracy")
SMART = ("backend", "ehr-launch", "standalone")
SUBGROUPS = ("sex", "age")
STYLES = ("slack", "teams", "pagerduty")
INTERACTIONS = ("read", "search-type", "create", "update", "patch")
#: Free texts of the evidence table and the model card (ehrready.contract.evidence, ehrready.contract.model_card).
CARD_KEYS = (
    "developer", "funding", "output_value", "output_type", "intended_use", "intended_population", "intended_users", "decision_role",
    "out_of_scope", "known_risks", "training_criteria", "input_variables", "training_demographics", "training_relevance",
    "fairness_approach", "bias_management", "external_validation_setting", "external_validation_party",
    "external_validation_demographics", "external_validation_process", "validity_internal", "fairness_internal",
    "validity_external", "fairness_external", "outcome_evaluations", "validity_monitoring", "fairness_monitoring",
    "update_process", "correction_process", "model_date", "licence", "ethical_considerations",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST_FEATURES = 2000


def load(path: str) -> Contract:
    """Read and validate a contract; raises UsageError listing every mistake as ``file:line: what and remedy``."""
    name = Path(path).name
    return parse(files.read(path, f"contract {name}"), name)


def parse(data: bytes, place: str = "contract.yaml") -> Contract:
    """Return the contract that the YAML holds; raises UsageError with every mistake."""
    node = compose(data, place, "a contract")
    parser = _Parser(place)
    found = parser.contract(node, hashlib.sha256(data).hexdigest())
    if parser.problems or found is None:
        raise UsageError(*parser.problems)
    return found


def is_name(text: str) -> bool:
    """Whether a text may be the name of a model, feature, output or owner."""
    return bool(_NAME.fullmatch(text))


class _Parser(Document):
    """Turns a composed contract into dataclasses; what it returns is worth something only without ``problems``."""

    def contract(self, node: yaml.Node | None, digest: str) -> Contract | None:
        if node is None:
            self.wrong(None, "the contract is empty: it needs contract, model and features")
            return None
        body = self.mapping(node, KEYS, "the contract")
        if not isinstance(node, yaml.MappingNode):
            return None
        for key in ("contract", "model", "features"):
            if key not in body:
                self.wrong(node, f"the contract has no {key}")
        if "contract" in body and str(self.value(body["contract"])).partition(".")[0] != VERSION.partition(".")[0]:
            self.wrong(body["contract"], f"contract is the version of this format: {VERSION}")
        model = self._part(body.get("model"), ("name", "version"), "model")
        names = {key: self._name(model.get(key), body["model"], f"model.{key}") for key in ("name", "version")} if "model" in body else {}
        features = [self._feature(item) for item in self.items(body.get("features"), "features")]
        if "features" in body and not features:
            self.wrong(body["features"], "the contract needs at least one feature")
        if len(features) > _MOST_FEATURES:
            self.wrong(body["features"], f"a contract may have at most {_MOST_FEATURES:,} features")
        outputs = [self._output(item) for item in self.items(body.get("outputs"), "outputs")]
        owners = [self._owner(item) for item in self.items(body.get("owners"), "owners")]
        for what, items in (("feature", features), ("output", outputs), ("owner", owners)):
            self._unique(node, what, [item.name for item in items])
        return Contract(
            names.get("name", ""), names.get("version", ""), digest, tuple(features), tuple(outputs),
            self._cohort(body.get("cohort")), self._label(body.get("label")), self._deployment(body.get("deployment")), tuple(owners),
            self._choices(body.get("subgroups"), SUBGROUPS, "subgroups"),
            self._whole(body.get("lookback_days"), "lookback_days") or 0, self._card(body.get("card")),
        )  # fmt: skip

    def _unique(self, node: yaml.Node, what: str, names: list[str]) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong(node, f"two {what}s are called {shown(name)}: names are unique")

    def _feature(self, node: yaml.Node) -> Feature:
        body = self._part(node, FEATURE_KEYS, "the feature")
        name, table = self._name(body.get("name"), node, "name"), self._choice(body.get("table"), TABLES, "table", node)
        units = self.texts(body.get("units"), "units")
        if units and table != "observation":
            self.wrong(body["units"], "only features of the table observation have units")
        if table in {"patient", "encounter"} and "codes" in body:
            self.wrong(body["codes"], f"the table {table} has no code of its own: leave codes out")
        return Feature(
            name, table, self._by_system(body.get("codes"), "codes"), self._by_system(body.get("releases"), "releases"), tuple(units),
            self._whole(body.get("window_days"), "window_days") or 0,
            self._choice(body.get("aggregation"), AGGREGATIONS, "aggregation") or "latest",
            self._share(body.get("required"), "required", 0.9),
            self._choice(body.get("severity"), SEVERITIES, "severity") or "error",
            self._text(body.get("owner"), "owner") or "clinical-informatics",
        )  # fmt: skip

    def _by_system(self, node: yaml.Node | None, what: str) -> dict[str, tuple[str, ...]]:
        """Return code-system key to texts; the names may be any that a source may use for the system."""
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.wrong(node, f"{what} must be a mapping of a code system to a list, such as LOINC: ['2160-0']")
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for key, value in node.value:
            resolved = systems.resolve(str(key.value))
            if resolved.candidates:
                several = " or ".join(systems.system(name).name for name in resolved.candidates)
                self.wrong(key, f"{what}: {shown(str(key.value))} may be {several}: name the one that is meant")
            elif resolved.how not in {"exact", "alias"} and key.value != "local":
                names = [
                    name for system in systems.SYSTEMS.values() for name in (system.name, *system.v2_mnemonics, *system.omop_vocabulary_ids)
                ]
                self.wrong(key, f"{what}: unknown code system {shown(str(key.value))}{hint(str(key.value), names)}")
            found[resolved.key or str(key.value)] = tuple(self.texts(value, f"{what}.{str(key.value)[:40]}"))
        return found

    def _output(self, node: yaml.Node) -> Output:
        body = self._part(node, OUTPUT_KEYS, "the output")
        name, kind = self._name(body.get("name"), node, "name"), self._choice(body.get("kind"), OUTPUT_KINDS, "kind", node)
        low, high = self._range(body.get("range"))
        classes = self.texts(body.get("classes"), "classes")
        if kind == "score" and low is None:
            self.wrong(node, "a score needs range: [lowest, highest], what is clinically possible")
        if kind == "class" and not classes:
            self.wrong(node, "a class needs classes: the labels that the model may give")
        back = self._part(body.get("write_back"), ("resource", "interactions", "hooks"), "write_back")
        return Output(
            name, kind, low, high, tuple(classes), self._threshold(body.get("threshold"), low, high),
            self._share(body["alert_share"], "alert_share", 0.0) if "alert_share" in body else None,
            {key: self._text(value, f"columns.{key}") for key, value in self._part(body.get("columns"), COLUMNS, "columns").items()},
            WriteBack(
                self._resource(back.get("resource")),
                self._choices(back.get("interactions"), INTERACTIONS, "interactions"),
                tuple(self.texts(back.get("hooks"), "hooks")),
            ),
            self._text(body.get("owner"), "owner") or "clinical-informatics",
        )  # fmt: skip

    def _resource(self, node: yaml.Node | None) -> str:
        from ehrready.readers.fhir import resource_types  # not before it is needed: it brings the readers' libraries

        name = "" if node is None else self._text(node, "resource")
        if name and name not in resource_types():
            self.wrong(node, f"resource {shown(name)} is no resource type of FHIR{hint(name, resource_types())}")
        return name

    def _threshold(self, node: yaml.Node | None, low: float | None, high: float | None) -> float | None:
        value = self._number(node, "threshold")
        if value is not None and low is not None and high is not None and not low <= value <= high:
            self.wrong(node, "threshold must lie in the range")
        return value

    def _range(self, node: yaml.Node | None) -> tuple[float | None, float | None]:
        if node is None:
            return None, None
        value = self.value(node)
        if not isinstance(value, list) or len(value) != 2 or not all(_number(v) for v in value) or not value[0] < value[1]:
            self.wrong(node, "range must be two numbers, the lower first: [0, 1]")
            return None, None
        return float(value[0]), float(value[1])

    def _cohort(self, node: yaml.Node | None) -> Cohort:
        body = self._part(node, ("description", "min_age", "max_age", "having"), "cohort")
        return Cohort(
            self._text(body.get("description"), "description"), self._whole(body.get("min_age"), "min_age"),
            self._whole(body.get("max_age"), "max_age"), self._choices(body.get("having"), TABLES, "having"),
        )  # fmt: skip

    def _label(self, node: yaml.Node | None) -> Label:
        body = self._part(node, ("name", "delay_days", "positive", "baseline"), "label")
        baseline = self._part(body.get("baseline"), BASELINES, "baseline")
        numbers = {key: self._number(value, f"baseline.{key}") for key, value in baseline.items()}
        positive = str(self.value(body["positive"])) if "positive" in body else "1"
        return Label(
            self._text(body.get("name"), "name"), self._whole(body.get("delay_days"), "delay_days") or 0, positive,
            {key: value for key, value in numbers.items() if value is not None},
        )  # fmt: skip

    def _deployment(self, node: yaml.Node | None) -> Deployment:
        body = self._part(node, DEPLOYMENT_KEYS, "deployment")
        bulk = self.value(body["bulk_export"]) if "bulk_export" in body else False
        if not isinstance(bulk, bool):
            self.wrong(body["bulk_export"], "bulk_export must be true or false")
        return Deployment(
            self._fhir(body.get("fhir_version")), bool(bulk), self._choice(body.get("smart"), SMART, "smart"),
            tuple(self.texts(body.get("scopes"), "scopes")), tuple(self.texts(body.get("profiles"), "profiles")),
            self._whole(body.get("page_size"), "page_size"), self._whole(body.get("requests_per_minute"), "requests_per_minute"),
        )  # fmt: skip

    def _fhir(self, node: yaml.Node | None) -> str:
        version = self._text(node, "fhir_version") or "4.0.1"
        if fhir_release(version) not in FHIR_RELEASES:
            known = ", ".join(f"{number}.x ({name})" for number, name in FHIR_RELEASES.items())
            self.wrong(node, f"fhir_version is {shown(version)}, and must be a version of {known}")
        return version

    def _owner(self, node: yaml.Node) -> Owner:
        body = self._part(node, ("name", "email", "webhook", "style"), "the owner")
        webhook = self._text(body.get("webhook"), "webhook")
        if webhook and not re.fullmatch("[A-Z][A-Z0-9_]{0,62}", webhook):
            self.wrong(body["webhook"], "webhook is the name of an environment variable that holds the address: an address is a secret")
        return Owner(
            self._name(body.get("name"), node, "name"), self._text(body.get("email"), "email"), webhook,
            self._choice(body.get("style"), STYLES, "style") or "slack",
        )  # fmt: skip

    def _card(self, node: yaml.Node | None) -> dict[str, str]:
        return {key: self._text(value, f"card.{key}") for key, value in self._part(node, CARD_KEYS, "card").items()}

    def _part(self, node: yaml.Node | None, known: Iterable[str], what: str) -> dict[str, yaml.Node]:
        return {} if node is None else self.mapping(node, known, what)

    def _text(self, node: yaml.Node | None, what: str) -> str:
        value = "" if node is None else self.value(node)
        if not isinstance(value, str) or (node is not None and not value.strip()):
            self.wrong(node, f"{what} must be a text: put it in quotes")
            return ""
        return " ".join(value.split())

    def _name(self, node: yaml.Node | None, parent: yaml.Node, what: str) -> str:
        value = str(getattr(node, "value", ""))
        if node is None or not _NAME.fullmatch(value):
            self.wrong(node or parent, f"{what} is needed: letters, digits, dot, dash and underscore, at most 63")
        return value

    def _choice(self, node: yaml.Node | None, known: Iterable[str], what: str, parent: yaml.Node | None = None) -> str:
        names = list(known)
        value = "" if node is None else self.value(node)
        if (node is not None or parent is not None) and value not in names:
            self.wrong(node or parent, f"{what} must be one of {', '.join(names)}{hint(str(value), names)}")
            return ""
        return str(value)

    def _choices(self, node: yaml.Node | None, known: Iterable[str], what: str) -> tuple[str, ...]:
        names, values = list(known), self.texts(node, what)
        for value in values:
            if value not in names:
                self.wrong(node, f"{what}: {shown(value)} is none of {', '.join(names)}{hint(value, names)}")
        return tuple(values)

    def _checked(self, node: yaml.Node | None, what: str, fits: Callable[[Any], bool], words: str) -> Any:
        value = None if node is None else self.value(node)
        if node is not None and not fits(value):
            self.wrong(node, f"{what} must be {words}")
            return None
        return value

    def _whole(self, node: yaml.Node | None, what: str) -> int | None:
        value = self._checked(
            node, what, lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 100_000, "a whole number of at least 0"
        )
        return None if value is None else int(value)

    def _number(self, node: yaml.Node | None, what: str) -> float | None:
        value = self._checked(node, what, _number, "a number")
        return None if value is None else float(value)

    def _share(self, node: yaml.Node | None, what: str, default: float) -> float:
        value = self._checked(node, what, lambda v: _number(v) and 0 <= v <= 1, "a share between 0 and 1")
        return default if value is None else float(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
