"""The records of a population, before any format is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from . import codes

Ref = tuple[str, str]


@dataclass
class Coding:
    """One coding as the source writes it; ``system`` is a key of :data:`codes.SYSTEMS` or None."""

    system: str | None
    code: str
    display: str


@dataclass
class Concept:
    """A coded element: text, codings, and what the OMOP load makes of it.

    ``source`` and ``standard`` name the (system, code) behind OMOP's source and standard concept ids (None is
    concept id 0); ``typed`` is the source value.
    """

    text: str
    codings: list[Coding]
    source: Ref | None
    standard: Ref | None
    typed: str


@dataclass
class Patient:
    """A patient; ``birth`` is None where the defect of a missing birth date was planted."""

    id: str
    number: int
    mrn: str
    site: str
    family: str
    given: str
    birth: date | None
    sex: str
    race: str
    ethnicity: str
    language: str
    height: int
    death: datetime | None = None


@dataclass
class Encounter:
    """A visit; ``words`` are typed in the class field where that defect was planted."""

    id: str
    number: int
    patient: Patient
    kind: str
    start: datetime
    end: datetime
    words: str | None = None

    def moment(self, share: float) -> datetime:
        """Return the time at this share (0 to 1) of the stay, in whole seconds."""
        return self.start + timedelta(seconds=int((self.end - self.start).total_seconds() * share))


@dataclass
class Event:
    """What conditions, medications, procedures, immunizations, allergies and documents have in common."""

    id: str
    number: int
    encounter: Encounter
    concept: Concept
    at: datetime | None
    end: datetime | None = None
    status: str = "completed"

    @property
    def patient(self) -> Patient:
        """The patient of the event's encounter."""
        return self.encounter.patient


@dataclass
class Observation(Event):
    """A result: a number with unit, a coded answer, a text, or nothing where that defect was planted."""

    analyte: codes.Analyte = codes.ANALYTES[0]
    number_value: float | None = None
    text_value: str | None = None
    answer: codes.Item | None = None
    unit: str | None = None


@dataclass
class Report(Event):
    """A laboratory report over its observations."""

    results: list[Observation] = field(default_factory=list)


@dataclass
class Population:
    """All records of one set; ``release`` is the ICD-10-CM fiscal year that its codes are declared in."""

    name: str
    release: str
    patients: list[Patient]
    encounters: list[Encounter]
    conditions: list[Event]
    observations: list[Observation]
    reports: list[Report]
    medications: list[Event]
    procedures: list[Event]
    immunizations: list[Event]
    allergies: list[Event]
    documents: list[Event]
