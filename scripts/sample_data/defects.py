"""The planted defects of the live set: one small function each.

A function takes the population and a seeded source of randomness, spoils some records and returns how many.
Its decorator says what the manifest says: the element, the check and the defect class that should find it,
and what each format shows of it.  Defects of one element hit disjoint records, so that every count is exact.
To add one, write a function; the order of the functions is part of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from . import codes
from .model import Coding, Concept, Encounter, Event, Observation, Patient

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .model import Population

R = TypeVar("R", Patient, Encounter, Event, Observation)


@dataclass
class Defect:
    """A planted defect as the manifest lists it.

    ``shows`` maps a format to what it carries when that is not the same everywhere: ``(None, why)`` for a
    format that cannot carry it, ``((check, defect), why)`` for one in which it takes another shape.
    ``also`` is the class under which presence-shift finds the same records, compared with training.
    """

    id: str
    element: str
    check: str
    defect: str
    dimension: str
    share: float
    of: str
    what: str
    plant: Callable[[Population, random.Random, Picker, float], list[str]]
    also: str = ""
    shows: dict[str, tuple[tuple[str, str] | None, str]] = field(default_factory=dict)


class Picker:
    """Picks disjoint records per element, spread evenly over sites and sexes."""

    def __init__(self) -> None:
        self.taken: dict[str, set[str]] = {}

    def pick(self, rng: random.Random, element: str, records: list[R], share: float) -> list[R]:
        """Return ``share`` of the records, none of which an earlier defect of the element took."""
        taken = self.taken.setdefault(element, set())
        free = [record for record in records if record.id not in taken]
        size = round(share * len(records))
        rng.shuffle(free)
        free.sort(key=_stratum)  # stable: random within a stratum
        picked = [free[(2 * i + 1) * len(free) // (2 * size)] for i in range(size)]
        picked.sort(key=lambda record: record.id)
        taken.update(record.id for record in picked)
        return picked


def _stratum(record: Patient | Encounter | Event | Observation) -> tuple[str, str]:
    patient = record if isinstance(record, Patient) else record.patient
    return patient.site, patient.sex


DEFECTS: list[Defect] = []


def _defect(
    id: str,  # noqa: A002 - the manifest's own key
    element: str,
    finds: tuple[str, str],
    dimension: str,
    share: float,
    of: str,
    what: str,
    also: str = "",
    **shows: tuple[tuple[str, str] | None, str],
) -> Callable[[Callable[[Population, random.Random, Picker, float], list[str]]], None]:
    def register(plant: Callable[[Population, random.Random, Picker, float], list[str]]) -> None:
        DEFECTS.append(Defect(id, element, finds[0], finds[1], dimension, share, of, what, plant, also, shows))

    return register


@_defect(
    "birth-date-missing", "patient.birth_date", ("present", "missing"), "completeness", 0.12, "patients",
    "Patients without a birth date.", "missing",
)  # fmt: skip
def _birth_date(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "patient.birth_date", pop.patients, share)
    for patient in picked:
        patient.birth = None
    return [patient.id for patient in picked]


@_defect(
    "condition-text-only", "condition.code", ("coded", "text-only"), "completeness", 0.15, "conditions",
    "Conditions with a text and no coding; in OMOP both concept ids are 0 and the source value is the text.",
    "text-only",
)  # fmt: skip
def _text_only(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "condition.code", pop.conditions, share)
    for event in picked:
        event.concept = Concept(event.concept.text, [], None, None, event.concept.text)
    return [event.id for event in picked]


@_defect(
    "condition-words-as-code", "condition.code", ("no-free-text", "free-text"), "conformance", 0.06,
    "conditions", "Words typed in the ICD-10-CM code field (the SNOMED CT coding beside it stays right).",
    "free-text",
    omop=(None, "source concept 0, but the SNOMED CT concept stands, so the row is coded"),
)  # fmt: skip
def _words(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "condition.code", pop.conditions, share)
    for event in picked:
        words = event.concept.codings[1].display.lower()
        event.concept.codings[0].code = event.concept.typed = words
        event.concept.source = None
    return [event.id for event in picked]


@_defect(
    "condition-code-unformatted", "condition.code", ("no-free-text", "repairable"), "conformance", 0.08,
    "conditions", "ICD-10-CM codes typed without the dot, or in lower case.",
    omop=(None, "the load resolves the code to its concept; only the source value is as typed"),
)  # fmt: skip
def _unformatted(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "condition.code", pop.conditions, share)
    for i, event in enumerate(picked):
        code = event.concept.codings[0].code
        typed = code.lower() if "." not in code or i % 4 == 0 else code.replace(".", "")
        event.concept.codings[0].code = event.concept.typed = typed
    return [event.id for event in picked]


@_defect(
    "observation-loinc-check-digit", "observation.code", ("no-free-text", "malformed"), "conformance", 0.05,
    "observations", "LOINC codes with a wrong check digit.",
    omop=(None, "the row keeps the concept of the right code; only the source value is as typed"),
)  # fmt: skip
def _check_digit(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "observation.code", pop.observations, share)
    for event in picked:
        number, digit = event.concept.codings[0].code.split("-")
        wrong = f"{number}-{(int(digit) + rng.randint(1, 9)) % 10}"
        event.concept.codings[0].code = event.concept.typed = wrong
    return [event.id for event in picked]


@_defect(
    "condition-icd9-as-icd10", "condition.code", ("expected-system", "swapped"), "conformance", 0.05,
    "conditions", "ICD-9-CM codes under the ICD-10-CM system (the SNOMED CT coding beside it stays right); "
    "in OMOP the source concept is a row of vocabulary ICD10CM with the ICD-9-CM code.",
)  # fmt: skip
def _icd9(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    old = {dx.icd10cm: dx.icd9cm for dx in codes.CONDITIONS}
    picked = picker.pick(rng, "condition.code", pop.conditions, share)
    for event in picked:
        code = old[event.concept.codings[0].code]
        event.concept.codings[0].code = event.concept.typed = code
        event.concept.source = ("icd10cm", code)
    return [event.id for event in picked]


@_defect(
    "observation-local-code", "observation.code", ("expected-system", "local"), "conformance", 0.10,
    "observations", "A laboratory's own codes instead of LOINC; in OMOP the standard concept is 0 and the "
    "source concept belongs to the site's own vocabulary 99LAB (concept ids above 2,000,000,000).",
)  # fmt: skip
def _local(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "observation.code", pop.observations, share)
    for event in picked:
        concept = event.concept
        code = local_code(event.analyte)
        event.concept = Concept(concept.text, [Coding("local", code, concept.text)], ("local", code), None, code)
    return [event.id for event in picked]


def local_code(analyte: codes.Analyte) -> str:
    """Return the laboratory's own code of an analyte, such as ``LAB107``."""
    return f"LAB{101 + codes.ANALYTES.index(analyte)}"


@_defect(
    "medication-system-missing", "medication.code", ("expected-system", "missing-system"), "conformance",
    0.08, "medications", "RxNorm codes without their system.",
    omop=(None, "a concept always has a vocabulary"),
)  # fmt: skip
def _no_system(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "medication.code", pop.medications, share)
    for event in picked:
        event.concept.codings[0].system = None
    return [event.id for event in picked]


@_defect(
    "observation-unit-null-token", "observation.unit", ("present", "null-token"), "completeness", 0.10,
    "numeric observations", "The unit of a number is the text N/A.", "missing",
)  # fmt: skip
def _null_unit(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    numeric = [event for event in pop.observations if event.number_value is not None]
    picked = picker.pick(rng, "observation.value", numeric, share)
    for event in picked:
        event.unit = "N/A"
    return [event.id for event in picked]


@_defect(
    "observation-value-missing", "observation.value", ("present", "missing"), "completeness", 0.09,
    "observations", "Final results without a value and without a reason for its absence.", "missing",
)  # fmt: skip
def _no_value(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "observation.value", pop.observations, share)
    for event in picked:
        event.number_value = event.text_value = event.answer = event.unit = None
    return [event.id for event in picked]


@_defect(
    "condition-new-release", "condition.code", ("unseen-codes", "unseen"), "comparability", 0.10,
    "conditions", "ICD-10-CM codes that are new since the release of the training set. The whole live set "
    "declares ICD-10-CM 2026 where training declares 2024, so release-declared reports it too. The new codes "
    "have no SNOMED CT coding: in OMOP their standard concept is 0.",
)  # fmt: skip
def _new_codes(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "condition.code", pop.conditions, share)
    for i, event in enumerate(picked):
        code, name = codes.NEW_CODES[i % len(codes.NEW_CODES)]
        event.concept = Concept(name, [Coding("icd10cm", code, name)], ("icd10cm", code), None, code)
    return [event.id for event in picked]


@_defect(
    "procedure-time-missing", "procedure.at", ("present", "missing"), "completeness", 0.20, "procedures",
    "Procedures without a time (in OMOP both procedure_date and procedure_datetime are null).",
    "missing",
)  # fmt: skip
def _no_time(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "procedure.at", pop.procedures, share)
    for event in picked:
        event.at = None
    return [event.id for event in picked]


@_defect(
    "encounter-class-words", "encounter.class", ("no-free-text", "free-text"), "conformance", 0.10,
    "encounters", "Words in the encounter class instead of a code.", "free-text",
    omop=(("presence-shift", "text-only"), "the words are the source value, the visit concept is 0"),
)  # fmt: skip
def _class_words(pop: Population, rng: random.Random, picker: Picker, share: float) -> list[str]:
    picked = picker.pick(rng, "encounter.class", pop.encounters, share)
    for encounter in picked:
        encounter.words = codes.CLASSES[encounter.kind][4]
    return [encounter.id for encounter in picked]


def plant_all(population: Population, rng: random.Random) -> list[tuple[Defect, list[str]]]:
    """Plant every defect in order; return each with the ids of the records that it hit."""
    picker = Picker()
    return [(defect, defect.plant(population, rng, picker, defect.share)) for defect in DEFECTS]
