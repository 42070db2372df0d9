"""The vocabulary tables of the OMOP samples: only the concepts that the records use."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from . import codes, defects

if TYPE_CHECKING:
    from .model import Population, Ref

#: First stand-in id for a concept of a public vocabulary whose OHDSI id was not verified.
STAND_IN = 1_000_000_001
#: First id of a site's own concept, as OHDSI reserves them.
LOCAL = 2_000_000_001

#: Type concepts: how a record came about.
TYPES = {
    32817: ("EHR", "OMOP4976890"),
    32818: ("EHR administration record", "OMOP4976891"),
    32831: ("EHR note", "OMOP4976904"),
    32838: ("EHR prescription", "OMOP4976911"),
    32856: ("Lab", "OMOP4976929"),
    32882: ("Standard algorithm from EHR", "OMOP4976955"),
}


class Row(NamedTuple):
    """A row of ``concept`` without its dates."""

    concept_id: int
    name: str
    domain: str
    vocabulary: str
    concept_class: str
    standard: str | None
    code: str


def _public() -> list[tuple[str, str, str, str, str, str | None, int | None]]:
    """Return (system, code, name, domain, class, standard, verified id) of every public code in use."""
    rows: list[tuple[str, str, str, str, str, str | None, int | None]] = []
    for dx in codes.CONDITIONS:
        rows.append(("icd10cm", dx.icd10cm, dx.name, "Condition", "ICD10 code", None, None))
        rows.append(("snomed", dx.snomed, dx.snomed_name, "Condition", "Clinical Finding", "S", dx.concept_id))
    for code, name in codes.NEW_CODES:
        rows.append(("icd10cm", code, name, "Condition", "ICD10 code", None, None))
    # Defect: ICD-9-CM codes that the site's own mapping table filed under ICD10CM.
    rows += [("icd10cm", d.icd9cm, d.name, "Condition", "ICD10 code", None, None) for d in codes.CONDITIONS]
    for catalogue, domain, kind in (
        (codes.MEDICATIONS, "Drug", "Clinical Drug"),
        (codes.PROCEDURES, "Procedure", "Procedure"),
        (codes.IMMUNIZATIONS, "Drug", "CVX"),
        (codes.DOCUMENTS, "Note", "Doc Kind"),
        (codes.SMOKING, "Observation", "Clinical Finding"),
    ):
        rows += [(i.system, i.code, i.name, domain, kind, "S", i.concept_id) for i in catalogue]
    for a in codes.ANALYTES:
        domain = "Measurement" if a.unit else "Observation"
        kind = "Lab Test" if a.category == "laboratory" else "Clinical Observation"
        rows.append(("loinc", a.code, a.name, domain, kind, "S", a.concept_id))
    return rows


def _fixed() -> list[Row]:
    """Return the concepts without a code system of their own: people, visits, units, types."""
    rows = [
        Row(0, "No matching concept", "Metadata", "None", "Undefined", None, "No matching concept"),
        Row(8507, "MALE", "Gender", "Gender", "Gender", "S", "M"),
        Row(8532, "FEMALE", "Gender", "Gender", "Gender", "S", "F"),
    ]
    rows += [Row(race[3], race[1], "Race", "Race", "Race", "S", race[2]) for race in codes.RACES]
    rows += [Row(e[3], e[1], "Ethnicity", "Ethnicity", "Ethnicity", "S", e[2]) for e in codes.ETHNICITIES]
    rows += [Row(c[2], c[3], "Visit", "Visit", "Visit", "S", c[1]) for c in codes.CLASSES.values()]
    rows += [Row(i, n[0], "Type Concept", "Type Concept", "Type Concept", "S", n[1]) for i, n in TYPES.items()]
    rows += [Row(concept_id, name, "Unit", "UCUM", "Unit", "S", unit) for unit, (name, concept_id) in codes.UNITS.items() if concept_id]
    return rows


class Vocabulary:
    """Concept ids by (system, code), and the ``concept`` and ``vocabulary`` tables of one set."""

    def __init__(self, pop: Population) -> None:
        self.release = pop.release
        self.rows = _fixed()
        self.ids: dict[Ref, int] = {}
        stand_in = STAND_IN
        for system, code, name, domain, kind, standard, verified in _public():
            if (system, code) in self.ids:
                continue
            concept_id = verified
            if concept_id is None:
                concept_id, stand_in = stand_in, stand_in + 1
            self.ids[system, code] = concept_id
            vocabulary = codes.SYSTEMS[system][2]
            self.rows.append(Row(concept_id, name, domain, vocabulary, kind, standard, code))
        for i, analyte in enumerate(codes.ANALYTES):
            code = defects.local_code(analyte)
            self.ids["local", code] = LOCAL + i
            self.rows.append(Row(LOCAL + i, analyte.name, "Measurement", "99LAB", "Lab Test", None, code))
        self.units = {unit: concept_id for unit, (_, concept_id) in codes.UNITS.items() if concept_id}

    def id_of(self, ref: Ref | None) -> int:
        """Return the concept id of a (system, code), 0 for None; a code of no catalogue gets the next stand-in."""
        if ref is None:
            return 0
        if ref not in self.ids:
            self.ids[ref] = 1 + max(row.concept_id for row in self.rows if row.concept_id < LOCAL)
            self.rows.append(Row(self.ids[ref], ref[1], "Metadata", codes.SYSTEMS[ref[0]][2], "Undefined", None, ref[1]))
        return self.ids[ref]

    def concept_table(self, used: set[int]) -> pa.Table:
        """Return ``concept`` with the rows that the records use."""
        rows = sorted(row for row in self.rows if row.concept_id in used | {0})
        end = date(2099, 12, 31)
        return pa.table(
            {
                "concept_id": pa.array([r.concept_id for r in rows], pa.int32()),
                "concept_name": [r.name for r in rows],
                "domain_id": [r.domain for r in rows],
                "vocabulary_id": [r.vocabulary for r in rows],
                "concept_class_id": [r.concept_class for r in rows],
                "standard_concept": pa.array([r.standard for r in rows], pa.string()),
                "concept_code": [r.code for r in rows],
                "valid_start_date": pa.array([date(1970, 1, 1)] * len(rows), pa.date32()),
                "valid_end_date": pa.array([end] * len(rows), pa.date32()),
                "invalid_reason": pa.array([None] * len(rows), pa.string()),
            }
        )

    @property
    def bundle(self) -> str:
        """The release of the whole vocabulary bundle, as Athena names it."""
        return {"2024": "v5.0 29-FEB-24", "2026": "v5.0 27-FEB-26"}[self.release]

    def vocabulary_table(self, used: set[int]) -> pa.Table:
        """Return ``vocabulary`` with the declared version of every vocabulary in use."""
        versions: dict[str, str | None] = {
            "None": self.bundle,
            "ICD10CM": f"ICD10CM FY{self.release} code descriptions",
            **{codes.SYSTEMS[key][2]: release[2] for key, release in codes.RELEASES.items()},
        }
        names = sorted({row.vocabulary for row in self.rows if row.concept_id in used | {0}})
        return pa.table(
            {
                "vocabulary_id": names,
                "vocabulary_name": [f"{name} (sample)" for name in names],
                "vocabulary_reference": ["OMOP generated"] * len(names),
                "vocabulary_version": pa.array([versions.get(name) for name in names], pa.string()),
                "vocabulary_concept_id": pa.array([0] * len(names), pa.int32()),
            }
        )
