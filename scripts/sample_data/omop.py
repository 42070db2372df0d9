"""OMOP CDM 5.4 Parquet tables of a population.

Measurements are the numeric observations, ``observation`` the others; immunizations stand in
``drug_exposure`` beside the prescriptions, with CVX concepts.  The CDM has no table for diagnostic reports;
allergies are left out too, because in the CDM they would be rows of ``observation``.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import codes
from .omop_vocabulary import Vocabulary

if TYPE_CHECKING:
    from .model import Event, Observation, Population

Rows = list[dict[str, Any]]

#: CDM 5.4 columns per table, in the specification's order: i integer, n number, s text, d date, t datetime.
COLUMNS: dict[str, str] = {
    "person": (
        "person_id:i gender_concept_id:i year_of_birth:i month_of_birth:i day_of_birth:i "
        "birth_datetime:t race_concept_id:i ethnicity_concept_id:i location_id:i provider_id:i "
        "care_site_id:i person_source_value:s gender_source_value:s gender_source_concept_id:i "
        "race_source_value:s race_source_concept_id:i ethnicity_source_value:s "
        "ethnicity_source_concept_id:i"
    ),
    "observation_period": (
        "observation_period_id:i person_id:i observation_period_start_date:d observation_period_end_date:d period_type_concept_id:i"
    ),
    "visit_occurrence": (
        "visit_occurrence_id:i person_id:i visit_concept_id:i visit_start_date:d "
        "visit_start_datetime:t visit_end_date:d visit_end_datetime:t visit_type_concept_id:i "
        "provider_id:i care_site_id:i visit_source_value:s visit_source_concept_id:i "
        "admitted_from_concept_id:i admitted_from_source_value:s discharged_to_concept_id:i "
        "discharged_to_source_value:s preceding_visit_occurrence_id:i"
    ),
    "condition_occurrence": (
        "condition_occurrence_id:i person_id:i condition_concept_id:i condition_start_date:d "
        "condition_start_datetime:t condition_end_date:d condition_end_datetime:t "
        "condition_type_concept_id:i condition_status_concept_id:i stop_reason:s provider_id:i "
        "visit_occurrence_id:i visit_detail_id:i condition_source_value:s "
        "condition_source_concept_id:i condition_status_source_value:s"
    ),
    "drug_exposure": (
        "drug_exposure_id:i person_id:i drug_concept_id:i drug_exposure_start_date:d "
        "drug_exposure_start_datetime:t drug_exposure_end_date:d drug_exposure_end_datetime:t "
        "verbatim_end_date:d drug_type_concept_id:i stop_reason:s refills:i quantity:n days_supply:i "
        "sig:s route_concept_id:i lot_number:s provider_id:i visit_occurrence_id:i visit_detail_id:i "
        "drug_source_value:s drug_source_concept_id:i route_source_value:s dose_unit_source_value:s"
    ),
    "procedure_occurrence": (
        "procedure_occurrence_id:i person_id:i procedure_concept_id:i procedure_date:d "
        "procedure_datetime:t procedure_end_date:d procedure_end_datetime:t "
        "procedure_type_concept_id:i modifier_concept_id:i quantity:i provider_id:i "
        "visit_occurrence_id:i visit_detail_id:i procedure_source_value:s "
        "procedure_source_concept_id:i modifier_source_value:s"
    ),
    "measurement": (
        "measurement_id:i person_id:i measurement_concept_id:i measurement_date:d "
        "measurement_datetime:t measurement_time:s measurement_type_concept_id:i "
        "operator_concept_id:i value_as_number:n value_as_concept_id:i unit_concept_id:i range_low:n "
        "range_high:n provider_id:i visit_occurrence_id:i visit_detail_id:i "
        "measurement_source_value:s measurement_source_concept_id:i unit_source_value:s "
        "unit_source_concept_id:i value_source_value:s measurement_event_id:i "
        "meas_event_field_concept_id:i"
    ),
    "observation": (
        "observation_id:i person_id:i observation_concept_id:i observation_date:d "
        "observation_datetime:t observation_type_concept_id:i value_as_number:n value_as_string:s "
        "value_as_concept_id:i qualifier_concept_id:i unit_concept_id:i provider_id:i "
        "visit_occurrence_id:i visit_detail_id:i observation_source_value:s "
        "observation_source_concept_id:i unit_source_value:s qualifier_source_value:s "
        "value_source_value:s observation_event_id:i obs_event_field_concept_id:i"
    ),
    "death": (
        "person_id:i death_date:d death_datetime:t death_type_concept_id:i cause_concept_id:i "
        "cause_source_value:s cause_source_concept_id:i"
    ),
    "note": (
        "note_id:i person_id:i note_date:d note_datetime:t note_type_concept_id:i "
        "note_class_concept_id:i note_title:s note_text:s encoding_concept_id:i language_concept_id:i "
        "provider_id:i visit_occurrence_id:i visit_detail_id:i note_source_value:s note_event_id:i "
        "note_event_field_concept_id:i"
    ),
    "location": (
        "location_id:i address_1:s address_2:s city:s state:s zip:s county:s location_source_value:s "
        "country_concept_id:i country_source_value:s latitude:n longitude:n"
    ),
    "care_site": (
        "care_site_id:i care_site_name:s place_of_service_concept_id:i location_id:i "
        "care_site_source_value:s place_of_service_source_value:s"
    ),
    "cdm_source": (
        "cdm_source_name:s cdm_source_abbreviation:s cdm_holder:s source_description:s "
        "source_documentation_reference:s cdm_etl_reference:s source_release_date:d "
        "cdm_release_date:d cdm_version:s cdm_version_concept_id:i vocabulary_version:s"
    ),
}

_KINDS = {"i": pa.int32(), "n": pa.float64(), "s": pa.string(), "d": pa.date32(), "t": pa.timestamp("us")}


def _table(name: str, rows: Rows) -> pa.Table:
    columns = [part.split(":") for part in COLUMNS[name].split()]
    unknown = {key for row in rows for key in row} - {column for column, _ in columns}
    if unknown:
        raise ValueError(f"no such column in {name}: {sorted(unknown)}")
    schema = pa.schema([(column, _KINDS[kind]) for column, kind in columns])
    return pa.Table.from_pylist(rows, schema)


def _base(event: Event) -> dict[str, Any]:
    return {"person_id": event.patient.number, "visit_occurrence_id": event.encounter.number}


def _persons(pop: Population) -> Rows:
    rows: Rows = []
    for p in pop.patients:
        race = next(row for row in codes.RACES if row[0] == p.race)
        ethnicity = next(row for row in codes.ETHNICITIES if row[0] == p.ethnicity)
        site = next(row for row in codes.SITES if row[0] == p.site)
        row = {
            "person_id": p.number,
            "gender_concept_id": {"female": 8532, "male": 8507}.get(p.sex, 0),
            "race_concept_id": race[3],
            "ethnicity_concept_id": ethnicity[3],
            "location_id": site[2],
            "care_site_id": site[2],
            "person_source_value": p.mrn,
            "gender_source_value": p.sex,
            "gender_source_concept_id": 0,
            "race_source_value": race[1],
            "race_source_concept_id": 0,
            "ethnicity_source_value": ethnicity[1],
            "ethnicity_source_concept_id": 0,
        }
        if p.birth:
            row |= {
                "year_of_birth": p.birth.year,
                "month_of_birth": p.birth.month,
                "day_of_birth": p.birth.day,
            }
        rows.append(row)
    return rows


def _visits(pop: Population) -> Rows:
    care_sites = {site[0]: site[2] for site in codes.SITES}
    return [
        {
            "visit_occurrence_id": e.number,
            "person_id": e.patient.number,
            "visit_concept_id": 0 if e.words else codes.CLASSES[e.kind][2],
            "visit_start_date": e.start.date(),
            "visit_start_datetime": e.start,
            "visit_end_date": e.end.date(),
            "visit_end_datetime": e.end,
            "visit_type_concept_id": 32817,
            "care_site_id": care_sites[e.patient.site],
            "visit_source_value": e.words or e.kind,
            "visit_source_concept_id": 0,
        }
        for e in pop.encounters
    ]


def _periods(pop: Population) -> Rows:
    spans: dict[int, tuple[date, date]] = {}
    for e in pop.encounters:
        first, last = spans.get(e.patient.number, (e.start.date(), e.end.date()))
        spans[e.patient.number] = (min(first, e.start.date()), max(last, e.end.date()))
    return [
        {
            "observation_period_id": i,
            "person_id": person,
            "observation_period_start_date": first,
            "observation_period_end_date": last,
            "period_type_concept_id": 32882,
        }
        for i, (person, (first, last)) in enumerate(sorted(spans.items()), 1)
    ]


def _conditions(pop: Population, vocabulary: Vocabulary) -> Rows:
    return [
        {
            **_base(event),
            "condition_occurrence_id": event.number,
            "condition_concept_id": vocabulary.id_of(event.concept.standard),
            "condition_start_date": event.at.date() if event.at else None,
            "condition_start_datetime": event.at,
            "condition_end_date": event.end.date() if event.end else None,
            "condition_end_datetime": event.end,
            "condition_type_concept_id": 32817,
            "condition_source_value": event.concept.typed,
            "condition_source_concept_id": vocabulary.id_of(event.concept.source),
        }
        for event in pop.conditions
    ]


def _drugs(pop: Population, vocabulary: Vocabulary) -> Rows:
    rows: Rows = []
    # Prescriptions keep their numbers, immunizations follow them.
    shift = len(pop.medications)
    kinds = [(event, event.number, 32838, 30) for event in pop.medications]
    kinds += [(event, event.number + shift, 32818, 1) for event in pop.immunizations]
    for event, number, kind, days in kinds:
        row = {
            **_base(event),
            "drug_exposure_id": number,
            "drug_concept_id": vocabulary.id_of(event.concept.standard),
            "drug_type_concept_id": kind,
            "days_supply": days,
            "drug_source_value": event.concept.typed,
            "drug_source_concept_id": vocabulary.id_of(event.concept.source),
        }
        if event.at:
            row |= {
                "drug_exposure_start_date": event.at.date(),
                "drug_exposure_start_datetime": event.at,
                "drug_exposure_end_date": event.at.date() + timedelta(days=days - 1),
            }
        rows.append(row)
    return rows


def _procedures(pop: Population, vocabulary: Vocabulary) -> Rows:
    return [
        {
            **_base(event),
            "procedure_occurrence_id": event.number,
            "procedure_concept_id": vocabulary.id_of(event.concept.standard),
            "procedure_date": event.at.date() if event.at else None,
            "procedure_datetime": event.at,
            "procedure_type_concept_id": 32817,
            "procedure_source_value": event.concept.typed,
            "procedure_source_concept_id": vocabulary.id_of(event.concept.source),
        }
        for event in pop.procedures
    ]


def _measurement(event: Observation, vocabulary: Vocabulary) -> dict[str, Any]:
    a = event.analyte
    return {
        **_base(event),
        "measurement_id": event.number,
        "measurement_concept_id": vocabulary.id_of(event.concept.standard),
        "measurement_date": event.at.date() if event.at else None,
        "measurement_datetime": event.at,
        "measurement_type_concept_id": 32856 if a.category == "laboratory" else 32817,
        "value_as_number": event.number_value,
        "unit_concept_id": None if event.unit is None else vocabulary.units.get(event.unit, 0),
        "range_low": None if event.number_value is None else a.low,
        "range_high": None if event.number_value is None else a.high,
        "measurement_source_value": event.concept.typed,
        "measurement_source_concept_id": vocabulary.id_of(event.concept.source),
        "unit_source_value": event.unit,
        "value_source_value": None if event.number_value is None else str(event.number_value),
    }


def _observation(event: Observation, vocabulary: Vocabulary) -> dict[str, Any]:
    answer = event.answer
    return {
        **_base(event),
        "observation_id": event.number,
        "observation_concept_id": vocabulary.id_of(event.concept.standard),
        "observation_date": event.at.date() if event.at else None,
        "observation_datetime": event.at,
        "observation_type_concept_id": 32817,
        "value_as_string": event.text_value,
        "value_as_concept_id": vocabulary.id_of((answer.system, answer.code)) if answer else None,
        "observation_source_value": event.concept.typed,
        "observation_source_concept_id": vocabulary.id_of(event.concept.source),
        "value_source_value": answer.name if answer else event.text_value,
    }


def _deaths(pop: Population) -> Rows:
    return [
        {
            "person_id": p.number,
            "death_date": p.death.date(),
            "death_datetime": p.death,
            "death_type_concept_id": 32817,
        }
        for p in pop.patients
        if p.death
    ]


def _notes(pop: Population, vocabulary: Vocabulary) -> Rows:
    return [
        {
            **_base(event),
            "note_id": event.number,
            "note_date": event.at.date() if event.at else None,
            "note_datetime": event.at,
            "note_type_concept_id": 32831,
            "note_class_concept_id": vocabulary.id_of(event.concept.standard),
            "note_title": event.concept.text,
            "note_text": "Synthetic note.",
            "encoding_concept_id": 0,
            "language_concept_id": 0,
            "note_source_value": event.concept.typed,
        }
        for event in pop.documents
    ]


def files(pop: Population) -> dict[str, pa.Table]:
    """Return file name to table."""
    vocabulary = Vocabulary(pop)
    released = date(2025, 1, 15) if pop.name == "training" else date(2026, 7, 10)
    source = {
        "cdm_source_name": "Synthetic sample population",
        "cdm_source_abbreviation": "SAMPLE",
        "cdm_holder": "ehrready",
        "source_description": "Synthetic; no patient is real",
        "source_release_date": released,
        "cdm_release_date": released,
        "cdm_version": "v5.4.0",
        "cdm_version_concept_id": 756265,
        "vocabulary_version": vocabulary.bundle,
    }
    rows: dict[str, Rows] = {
        "person": _persons(pop),
        "observation_period": _periods(pop),
        "visit_occurrence": _visits(pop),
        "condition_occurrence": _conditions(pop, vocabulary),
        "drug_exposure": _drugs(pop, vocabulary),
        "procedure_occurrence": _procedures(pop, vocabulary),
        "measurement": [_measurement(e, vocabulary) for e in pop.observations if e.analyte.unit],
        "observation": [_observation(e, vocabulary) for e in pop.observations if not e.analyte.unit],
        "death": _deaths(pop),
        "note": _notes(pop, vocabulary),
        "location": [{"location_id": s[2], "location_source_value": s[0]} for s in codes.SITES],
        "care_site": [
            {
                "care_site_id": s[2],
                "care_site_name": s[1],
                "location_id": s[2],
                "care_site_source_value": s[0],
            }
            for s in codes.SITES
        ],
        "cdm_source": [source],
    }
    used = {
        value for table in rows.values() for row in table for key, value in row.items() if key.endswith("_concept_id") and value is not None
    }
    tables = {name: _table(name, table) for name, table in rows.items()}
    tables["concept"] = vocabulary.concept_table(used)
    tables["vocabulary"] = vocabulary.vocabulary_table(used)
    return {f"{name}.parquet": table for name, table in tables.items()}
