"""What a model contract holds; see :mod:`ehrready.contract.parser` for the YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What a feature makes of the facts in its window.
AGGREGATIONS = ("latest", "first", "mean", "median", "min", "max", "sum", "count", "any", "trend")
#: What a column of a table of predictions may be; an output's ``columns`` name those that are called otherwise.
COLUMNS = ("patient", "time", "score", "class", "label", "label_time", "text", "citations", "sex", "age")
#: FHIR releases that the readers know, by the major and minor number of their versions (http://hl7.org/fhir/directory.html).
FHIR_RELEASES = {"3.0": "STU3", "4.0": "R4", "4.3": "R4B", "5.0": "R5"}
#: What an output is (45 CFR 170.315(b)(11)(iv)(B)(1)(iv) calls it the type of output).
OUTPUT_KINDS = ("score", "class", "text")


def fhir_release(version: str) -> str:
    """Return the major and minor number of a FHIR version: 4.0.0 and 4.0.1 are one release (R4), 4.3.0 is another (R4B)."""
    return ".".join(version.split(".")[:2])


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of the model.

    ``table`` is a canonical table; ``codes`` maps a code-system key (LOINC, SNOMED, ICD10CM, RXNORM ...) to the
    accepted codes, where ``*`` at the end stands for any continuation and a lone ``*`` for the whole system; empty: any coded
    record. ``units`` are UCUM codes; empty: any.  ``window_days``: the fact lies within so many days before the patient's
    last dated record; 0: at any time.  ``required``: share of the cohort (0 to 1) that must have it.
    """

    name: str
    table: str
    codes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    releases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    window_days: int = 0
    aggregation: str = "latest"
    required: float = 0.9
    severity: str = "error"
    owner: str = "clinical-informatics"


@dataclass(frozen=True, slots=True)
class Cohort:
    """Whom the model is for: ages in years at the last dated record, and tables that each patient must have a record in."""

    description: str = ""
    min_age: int | None = None
    max_age: int | None = None
    having: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteBack:
    """How an output goes back to the EHR: a FHIR resource type and interactions (create, update), or CDS Hooks."""

    resource: str = ""
    interactions: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One output: ``low`` to ``high`` is the range that is clinically possible (score), ``classes`` the labels (class).

    ``threshold`` is the least score that alerts, ``alert_share`` the share of predictions that is expected to; ``columns``
    maps what a table of predictions holds (COLUMNS) to the names of its columns.
    """

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()
    threshold: float | None = None
    alert_share: float | None = None
    columns: dict[str, str] = field(default_factory=dict)
    write_back: WriteBack = field(default_factory=WriteBack)
    owner: str = "clinical-informatics"


@dataclass(frozen=True, slots=True)
class Label:
    """What the score is held against: ``delay_days`` pass before a label is final; ``baseline`` are validation figures.

    ``baseline`` keys: auroc, auprc, brier, calibration_slope, calibration_intercept, ece; of classes accuracy, balanced_accuracy (each a number).
    """

    name: str = ""
    delay_days: int = 0
    positive: str = "1"
    baseline: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the EHR must offer: FHIR version, Bulk Data export, SMART access, profiles, paging and rate."""

    fhir_version: str = "4.0.1"
    bulk_export: bool = False
    smart: str = ""  # backend, ehr-launch, standalone or nothing
    scopes: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    page_size: int | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Who findings go to; ``webhook`` is the name of an environment variable that holds the address, never the address."""

    name: str
    email: str = ""
    webhook: str = ""
    style: str = "slack"  # slack, teams or pagerduty


@dataclass(frozen=True, slots=True)
class Contract:
    """A whole contract; ``sha256`` is that of the file, ``card`` the free texts of a model card by key."""

    model: str
    version: str
    sha256: str
    features: tuple[Feature, ...]
    outputs: tuple[Output, ...] = ()
    cohort: Cohort = field(default_factory=Cohort)
    label: Label = field(default_factory=Label)
    deployment: Deployment = field(default_factory=Deployment)
    owners: tuple[Owner, ...] = ()
    subgroups: tuple[str, ...] = ()  # sex, age
    lookback_days: int = 0
    card: dict[str, str] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """Return what stands in the scorecard: names and the digest, no code lists."""
        return {"model": self.model, "version": self.version, "sha256": self.sha256, "features": [f.name for f in self.features]}
