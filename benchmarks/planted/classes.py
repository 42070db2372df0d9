# ruff: noqa: ARG001, DTZ001 - one signature for all classes; the population's clock is local
"""The defect classes of the planted benchmark: one small function each.

A function spoils a share of the records of a synthetic population and returns how many it hit.  Its decorator names the
element, the checks that may find it (any of them counts as found) and, for a class whose records can be counted one by
one, the (check, defect) whose numerator must be that number.  ``formats`` are those that can carry the class.
To add a class, write a function.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sample_data.model import Coding, Concept, Encounter, Event, Observation, Patient, Population

from sample_data import codes

T = TypeVar("T", Patient, Encounter, Event, Observation)
ALL = ("fhir", "hl7v2", "omop")
Plant = Callable[[Population, random.Random, float], int]


@dataclass(frozen=True)
class PlantedClass:
    """A class: ``checks`` are the checks one of which must alarm on one of ``elements``; ``exact`` has an exact numerator."""

    name: str
    elements: tuple[str, ...]
    checks: tuple[str, ...]
    plant: Plant
    exact: tuple[str, str] | None = None
    formats: tuple[str, ...] = ALL


CLASSES: dict[str, PlantedClass] = {}


def planted(elements: str, checks: str, exact: tuple[str, str] | None = None, formats: Sequence[str] = ALL) -> Callable[[Plant], Plant]:
    """Register a class under the function's name; elements and checks are separated by blanks."""

    def register(plant: Plant) -> Plant:
        name = plant.__name__.replace("_", "-")
        CLASSES[name] = PlantedClass(name, tuple(elements.split()), tuple(checks.split()), plant, exact, tuple(formats))
        return plant

    return register


def some(rng: random.Random, records: Sequence[T], share: float) -> list[T]:
    """Return a random share of the records (at least one)."""
    return rng.sample(list(records), max(1, round(share * len(records))))


def numeric(pop: Population, unit: str = "") -> list[Observation]:
    """Return the observations with a number (of a unit)."""
    return [o for o in pop.observations if o.number_value is not None and (not unit or o.unit == unit)]


def of_code(pop: Population, code: str) -> list[Observation]:
    """Return the numeric observations of a LOINC code."""
    return [o for o in numeric(pop) if o.analyte.code == code]


def retype(event: Event, system: str, code: str, display: str, *, ref: bool = True) -> None:
    """Give an event one coding only."""
    source = (system, code) if ref else None
    event.concept = Concept(display, [Coding(system, code, display)], source, None, code)


# --- completeness


@planted("patient.birth_date", "present presence-shift", ("present", "missing"))
def birth_date_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Leave the birth date out."""
    picked = some(rng, pop.patients, share)
    for patient in picked:
        patient.birth = None
    return len(picked)


@planted("patient.sex", "present presence-shift allowed-value", ("present", "missing"), ("fhir", "hl7v2"))
def sex_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Leave the administrative sex empty."""
    picked = some(rng, pop.patients, share)
    for patient in picked:
        patient.sex = ""
    return len(picked)


@planted("condition.code", "coded presence-shift", ("coded", "text-only"))
def condition_text_only(pop: Population, rng: random.Random, share: float) -> int:
    """Conditions with a text and no code."""
    return _text_only(some(rng, pop.conditions, share))


@planted("medication.code", "coded presence-shift", ("coded", "text-only"))
def medication_text_only(pop: Population, rng: random.Random, share: float) -> int:
    """Medications with a text and no code."""
    return _text_only(some(rng, pop.medications, share))


@planted("observation.code", "coded presence-shift", ("coded", "text-only"))
def observation_text_only(pop: Population, rng: random.Random, share: float) -> int:
    """Results with a name and no code."""
    return _text_only(some(rng, pop.observations, share))


def _text_only(picked: Sequence[Event]) -> int:
    for event in picked:
        event.concept = Concept(event.concept.text, [], None, None, event.concept.text)
    return len(picked)


@planted("condition.code", "present presence-shift coded")
def condition_null_token(pop: Population, rng: random.Random, share: float) -> int:
    """Conditions that say UNK."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        event.concept = Concept("UNK", [], None, None, "UNK")
    return len(picked)


@planted("procedure.code", "present presence-shift", ("present", "missing"), ("fhir", "hl7v2"))
def procedure_code_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Procedures that do not say what was done."""
    picked = some(rng, pop.procedures, share)
    for event in picked:
        event.concept = Concept("", [], None, None, "")
    return len(picked)


@planted("observation.value", "present presence-shift", ("present", "missing"))
def value_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Final results without a value."""
    picked = some(rng, pop.observations, share)
    for event in picked:
        event.number_value = event.text_value = event.answer = event.unit = None
    return len(picked)


@planted("observation.unit", "present presence-shift unit-valid", ("present", "missing"))
def unit_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Numbers without a unit."""
    return _unit(some(rng, numeric(pop), share), None)


@planted("observation.unit", "present presence-shift unit-valid", ("present", "null-token"))
def unit_null_token(pop: Population, rng: random.Random, share: float) -> int:
    """Numbers whose unit is the text N/A."""
    return _unit(some(rng, numeric(pop), share), "N/A")


def _unit(picked: Sequence[Observation], unit: str | None) -> int:
    for event in picked:
        event.unit = unit
    return len(picked)


@planted("observation.at", "present presence-shift", ("present", "missing"))
def observation_time_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Results without a time, outside panels: in HL7v2 those within one have the time of their OBR-7, as the standard says."""
    within = {event.id for report in pop.reports for event in report.results}
    return _no_time(some(rng, [event for event in pop.observations if event.id not in within], share))


@planted("procedure.at", "present presence-shift", ("present", "missing"))
def procedure_time_missing(pop: Population, rng: random.Random, share: float) -> int:
    """Procedures without a time."""
    return _no_time(some(rng, pop.procedures, share))


def _no_time(picked: Sequence[Event]) -> int:
    for event in picked:
        event.at = None
    return len(picked)


# --- conformance of codes


@planted("condition.code", "no-free-text presence-shift", ("no-free-text", "free-text"), ("fhir", "hl7v2"))
def words_as_code(pop: Population, rng: random.Random, share: float) -> int:
    """Words in the ICD-10-CM code field."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        event.concept.codings[0].code = event.concept.typed = event.concept.codings[1].display.lower()
        event.concept.source = None
    return len(picked)


@planted("condition.code", "no-free-text presence-shift", ("no-free-text", "repairable"), ("fhir", "hl7v2"))
def dot_missing(pop: Population, rng: random.Random, share: float) -> int:
    """ICD-10-CM codes without the dot."""
    picked = some(rng, [c for c in pop.conditions if "." in c.concept.codings[0].code], share)
    for event in picked:
        event.concept.codings[0].code = event.concept.codings[0].code.replace(".", "")
    return len(picked)


@planted("condition.code", "no-free-text presence-shift", ("no-free-text", "repairable"), ("fhir", "hl7v2"))
def code_with_description(pop: Population, rng: random.Random, share: float) -> int:
    """A code followed by its description in the code field."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        coding = event.concept.codings[0]
        coding.code = f"{coding.code} - {coding.display}"
    return len(picked)


@planted("condition.code", "no-free-text present", ("no-free-text", "null-token"), ("fhir", "hl7v2"))
def null_token_as_code(pop: Population, rng: random.Random, share: float) -> int:
    """UNK in the ICD-10-CM code field beside a right SNOMED CT code."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        event.concept.codings[0].code = "UNK"
    return len(picked)


@planted("observation.code", "no-free-text unseen-codes", ("no-free-text", "malformed"), ("fhir", "hl7v2"))
def loinc_check_digit(pop: Population, rng: random.Random, share: float) -> int:
    """LOINC codes with a wrong check digit."""
    picked = some(rng, pop.observations, share)
    for event in picked:
        number, digit = event.concept.codings[0].code.split("-")
        event.concept.codings[0].code = f"{number}-{(int(digit) + rng.randint(1, 9)) % 10}"
    return len(picked)


@planted("condition.code", "no-free-text unseen-codes", ("no-free-text", "malformed"), ("fhir", "hl7v2"))
def snomed_check_digit(pop: Population, rng: random.Random, share: float) -> int:
    """SNOMED CT codes with a wrong last digit."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        code = event.concept.codings[1].code
        event.concept.codings[1].code = code[:-1] + str((int(code[-1]) + rng.randint(1, 9)) % 10)
    return len(picked)


@planted("medication.code", "no-free-text presence-shift", ("no-free-text", "free-text"), ("fhir", "hl7v2"))
def drug_name_as_code(pop: Population, rng: random.Random, share: float) -> int:
    """Drug names where the RxNorm code belongs."""
    picked = some(rng, pop.medications, share)
    for event in picked:
        # some displays begin with a number ("24 HR ..."), which has the form of a code
        event.concept.codings[0].code = max(
            event.concept.codings[0].display.lower().split(" "), key=lambda word: (word.isalpha(), len(word))
        )
    return len(picked)


@planted("encounter.class", "no-free-text presence-shift")
def class_in_words(pop: Population, rng: random.Random, share: float) -> int:
    """Words instead of an encounter class."""
    picked = some(rng, pop.encounters, share)
    for encounter in picked:
        encounter.words = codes.CLASSES[encounter.kind][4]
    return len(picked)


@planted("condition.code", "expected-system", ("expected-system", "swapped"))
def icd9_as_icd10(pop: Population, rng: random.Random, share: float) -> int:
    """ICD-9-CM codes labelled ICD-10-CM."""
    old = {dx.icd10cm: dx.icd9cm for dx in codes.CONDITIONS}
    picked = some(rng, pop.conditions, share)
    for event in picked:
        code = old[event.concept.codings[0].code]
        event.concept.codings[0].code = event.concept.typed = code
        event.concept.source = ("icd10cm", code)
    return len(picked)


@planted("condition.code", "expected-system no-free-text", ("expected-system", "swapped"), ("fhir", "hl7v2"))
def snomed_as_icd10(pop: Population, rng: random.Random, share: float) -> int:
    """SNOMED CT codes labelled ICD-10-CM."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        event.concept.codings[0].code = event.concept.codings[1].code
    return len(picked)


@planted("condition.code", "expected-system no-free-text code-current", None, ("fhir", "hl7v2"))
def icd9_v_codes_as_icd10(pop: Population, rng: random.Random, share: float) -> int:
    """ICD-9-CM V codes, which have the shape of ICD-10-CM codes, labelled ICD-10-CM."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        event.concept.codings[0].code = rng.choice(["V58.61", "V15.82", "V76.12", "V58.69", "V10.3"])
    return len(picked)


@planted("observation.code", "expected-system", ("expected-system", "local"))
def local_code(pop: Population, rng: random.Random, share: float) -> int:
    """A laboratory's own codes instead of LOINC."""
    picked = some(rng, pop.observations, share)
    for event in picked:
        retype(event, "local", f"LAB{101 + codes.ANALYTES.index(event.analyte)}", event.concept.text)
    return len(picked)


@planted("condition.code", "expected-system", ("expected-system", "unknown-uri"), ("fhir",))
def unknown_system(pop: Population, rng: random.Random, share: float) -> int:
    """Codes of a system nobody knows."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        retype(event, "nobody", f"P{event.number % 400}", event.concept.text)
    return len(picked)


@planted("medication.code", "expected-system", ("expected-system", "missing-system"), ("fhir", "hl7v2"))
def system_missing(pop: Population, rng: random.Random, share: float) -> int:
    """RxNorm codes without their system."""
    picked = some(rng, pop.medications, share)
    for event in picked:
        event.concept.codings[0].system = None
    return len(picked)


# --- releases


@planted("condition.code", "unseen-codes codes-since-training code-current code-mix-shift")
def codes_of_a_newer_release(pop: Population, rng: random.Random, share: float) -> int:
    """Codes that are new since training's release."""
    picked = some(rng, pop.conditions, share)
    for i, event in enumerate(picked):
        code, name = codes.NEW_CODES[i % len(codes.NEW_CODES)]
        retype(event, "icd10cm", code, name)
    return len(picked)


@planted("condition.code", "code-current", ("code-current", "header"))
def retired_codes(pop: Population, rng: random.Random, share: float) -> int:
    """ICD-10-CM codes that were split on 1 October 2020, 2021 or 2022 at the latest: headings since, retired for use."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        retype(event, "icd10cm", rng.choice(["N18.3", "R51", "R05", "F32.8", "M54.5"]), event.concept.text)
        if event.concept.codings[0].code == "F32.8":
            retype(event, "icd10cm", "G11.1", event.concept.text)
    return len(picked)


@planted("condition.code", "code-current", ("code-current", "header"))
def header_codes(pop: Population, rng: random.Random, share: float) -> int:
    """Categories that may not be billed."""
    picked = some(rng, [c for c in pop.conditions if "." in c.concept.codings[0].code], share)
    for event in picked:
        coding = event.concept.codings[0]
        retype(event, "icd10cm", coding.code.split(".")[0], coding.display)
    return len(picked)


@planted("condition.code", "code-current unseen-codes", ("code-current", "unknown"))
def made_up_codes(pop: Population, rng: random.Random, share: float) -> int:
    """Well-formed codes that no release ever had."""
    picked = some(rng, pop.conditions, share)
    for event in picked:
        retype(event, "icd10cm", rng.choice(["I10.9", "E11.99", "J44.99", "K21.99", "R50.99"]), event.concept.text)
    return len(picked)


@planted("condition.code", "display-agrees", None, ("fhir", "hl7v2"))
def displays_of_the_neighbour(pop: Population, rng: random.Random, share: float) -> int:
    """Displays shifted by a row against the codes."""
    picked = some(rng, pop.conditions, share)
    names = [dx.name for dx in codes.CONDITIONS]
    for event in picked:
        coding = event.concept.codings[0]
        if coding.display in names:
            coding.display = names[(names.index(coding.display) + 7) % len(names)]
    return len(picked)


# --- units and values


@planted("observation.unit observation.value", "unit-valid", None)
def unit_of_no_system(pop: Population, rng: random.Random, share: float) -> int:
    """Units that nobody can parse."""
    return _unit(some(rng, numeric(pop), share), "mgs per dcl")


@planted("observation.unit observation.value", "unit-valid", None)
def unit_of_another_property(pop: Population, rng: random.Random, share: float) -> int:
    """A mass concentration labelled with a unit of activity."""
    return _unit(some(rng, numeric(pop, "mg/dL"), min(1.0, 4 * share)), "U/L")


@planted("observation.value", "value-parses presence-shift value-shift present", None, ("hl7v2",))
def numbers_in_text(pop: Population, rng: random.Random, share: float) -> int:
    """Numbers with words around them where a number belongs."""
    picked = some(rng, numeric(pop), share)
    for event in picked:
        event.text_value, event.number_value, event.unit = f"{event.number_value} approx.", None, None
    return len(picked)


@planted("observation.value", "value-plausible value-shift", None)
def values_times_a_thousand(pop: Population, rng: random.Random, share: float) -> int:
    """Values with a lost decimal point."""
    picked = some(rng, [o for o in numeric(pop) if o.analyte.category == "laboratory"], share)
    for event in picked:
        event.number_value = (event.number_value or 0) * 1000
    return len(picked)


@planted("observation.value", "value-plausible value-shift", None)
def sentinel_values(pop: Population, rng: random.Random, share: float) -> int:
    """9999 where the analyser had no result."""
    picked = some(rng, numeric(pop), share)
    for event in picked:
        event.number_value = 9999
    return len(picked)


@planted("observation.value observation.unit", "unit-swap value-shift value-plausible", None)
def silent_unit_change(pop: Population, rng: random.Random, share: float) -> int:
    """Glucose in mmol/L under a mg/dL label, for ten times the share of the glucose results."""
    picked = some(rng, of_code(pop, "2345-7"), min(1.0, 10 * share))
    for event in picked:
        event.number_value = round((event.number_value or 0) / 18.016, 1)
    return len(picked)


@planted("observation.value", "value-shift", None)
def recalibrated_analyser(pop: Population, rng: random.Random, share: float) -> int:
    """Glucose a fifth higher in ten times the share of results."""
    picked = some(rng, of_code(pop, "2345-7"), min(1.0, 10 * share))
    for event in picked:
        event.number_value = round((event.number_value or 0) * 1.2)
    return len(picked)


# --- time and identity


@planted("observation.at encounter.at condition.at procedure.at", "time-plausible", ("time-plausible", "future"))
def in_the_future(pop: Population, rng: random.Random, share: float) -> int:
    """Results dated years ahead."""
    picked = some(rng, pop.observations, share)
    for event in picked:
        event.at = datetime(2063, 4, 5, 11, 12, 13)
    return len(picked)


@planted("observation.at procedure.at encounter.at condition.at", "time-plausible", ("time-plausible", "before-birth"))
def before_birth(pop: Population, rng: random.Random, share: float) -> int:
    """Procedures before the patient was born."""
    picked = some(rng, pop.procedures, share)
    for event in picked:
        event.at = datetime(1901, 2, 3, 4, 5, 6)
    return len(picked)


@planted("observation.at procedure.at encounter.at condition.at medication.at", "time-plausible", None)
def after_death(pop: Population, rng: random.Random, share: float) -> int:
    """Patients who died before their records."""
    picked = some(rng, pop.patients, share)
    first = {e.patient.id: e.start for e in sorted(pop.encounters, key=lambda e: e.start, reverse=True)}
    for patient in picked:
        patient.death = first.get(patient.id, datetime(2023, 1, 1)) - timedelta(days=200)
    return len(picked)


@planted("encounter.end encounter.at encounter.period", "time-plausible", ("time-plausible", "end-before-start"))
def ends_before_it_starts(pop: Population, rng: random.Random, share: float) -> int:
    """Encounters whose end is before their start."""
    picked = some(rng, pop.encounters, share)
    for encounter in picked:
        encounter.end = encounter.start - timedelta(days=3)
    return len(picked)


@planted("condition.id observation.id condition observation observation.code condition.code", "unique", None)
def records_twice(pop: Population, rng: random.Random, share: float) -> int:
    """Results sent twice under the same id."""
    picked = some(rng, pop.observations, share)
    pop.observations.extend(copy.copy(event) for event in picked)
    return len(picked)


@planted("observation.id observation observation.code", "unique", None, ("fhir", "omop"))
def records_twice_under_new_ids(pop: Population, rng: random.Random, share: float) -> int:
    """The same result under another id."""
    picked = some(rng, pop.observations, share)
    for i, event in enumerate(picked):
        again = copy.copy(event)
        again.id, again.number = f"{event.id}-again", event.number + 50_000_000 + i
        pop.observations.append(again)
    return len(picked)


@planted(
    "condition.patient_id observation.patient_id procedure.patient_id encounter.patient_id condition.encounter_id observation.encounter_id "
    "medication.patient_id",
    "linked",
    None,
    ("fhir", "omop"),
)
def patients_not_exported(pop: Population, rng: random.Random, share: float) -> int:
    """Patients whose records are there, but not they."""
    gone = {patient.id for patient in some(rng, pop.patients, share)}
    pop.patients[:] = [patient for patient in pop.patients if patient.id not in gone]
    return len(gone)


@planted(
    "condition.encounter_id observation.encounter_id procedure.encounter_id medication.encounter_id",
    "linked present presence-shift",
    None,
    ("fhir", "omop"),
)
def encounters_not_exported(pop: Population, rng: random.Random, share: float) -> int:
    """Encounters that records refer to and that are not there."""
    gone = {encounter.id for encounter in some(rng, pop.encounters, share)}
    pop.encounters[:] = [encounter for encounter in pop.encounters if encounter.id not in gone]
    return len(gone)


@planted("patient.sex", "allowed-value", None, ("fhir", "hl7v2"))
def sex_of_no_code_set(pop: Population, rng: random.Random, share: float) -> int:
    """An administrative sex outside its value set."""
    picked = some(rng, pop.patients, share)
    for patient in picked:
        patient.sex = "7"
    return len(picked)


@planted("condition.status condition.clinical_status medication.status", "allowed-value no-free-text", None, ("fhir",))
def status_of_no_code_set(pop: Population, rng: random.Random, share: float) -> int:
    """A medication status outside its value set."""
    picked = some(rng, pop.medications, share)
    for event in picked:
        event.status = "running"
    return len(picked)


# --- against training


@planted("condition.code", "code-mix-shift", None)
def another_code_mix(pop: Population, rng: random.Random, share: float) -> int:
    """Five times the share of conditions become hypertension."""
    dx = codes.CONDITIONS[0]
    picked = some(rng, pop.conditions, min(1.0, 5 * share))
    for event in picked:
        event.concept = Concept(
            dx.name,
            [Coding("icd10cm", dx.icd10cm, dx.name), Coding("snomed", dx.snomed, dx.snomed_name)],
            ("icd10cm", dx.icd10cm),
            ("snomed", dx.snomed),
            dx.icd10cm,
        )
    return len(picked)


@planted("observation.code", "code-mix-shift code-volume-shift codes-no-longer-seen volume-shift presence-shift", None)
def a_panel_stops(pop: Population, rng: random.Random, share: float) -> int:
    """Most glucose results are not sent any more."""
    drop = {event.id for event in some(rng, of_code(pop, "2345-7"), min(1.0, 40 * share))}
    pop.observations[:] = [event for event in pop.observations if event.id not in drop]
    for report in pop.reports:
        report.results[:] = [event for event in report.results if event.id not in drop]
    return len(drop)


@planted("observation.at medication.at encounter.at", "volume-gap volume-shift", None, ("fhir", "omop"))
def a_silent_month(pop: Population, rng: random.Random, share: float) -> int:
    """No prescriptions for a month (whatever the share)."""
    before = len(pop.medications)
    pop.medications[:] = [event for event in pop.medications if event.at is None or (event.at.year, event.at.month) != (2023, 9)]
    return before - len(pop.medications)


@planted("observation.value", "subgroup-gap", None, ("fhir", "omop"))
def missing_in_one_group(pop: Population, rng: random.Random, share: float) -> int:
    """Values missing in ten times the share of the results of Asian patients, and of nobody else."""
    group = [event for event in pop.observations if event.patient.race == "2028-9"]
    picked = some(rng, group, min(1.0, 10 * share))
    for event in picked:
        event.number_value = event.text_value = event.answer = event.unit = None
    return len(picked)
