"""Mappings: the grammar says what is wrong and where, and the shipped layouts fill the canonical tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ehrready.errors import UsageError
from ehrready.readers.tabular import TableReader
from ehrready.readers.tabular_mapping import SHIPPED, load, shipped
from ehrready.tables import ELEMENTS
from tests.readers.tabular_helpers import reading

HEAD = "mapping: mine\nversion: 1.0.0\ntables:\n"


def problems(path: Path, text: str) -> list[str]:
    """Return the mistakes found in a mapping, without the file's name."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load(path)
    return [problem.removeprefix(f"{path.name}:") for problem in caught.value.problems]


def test_all_mistakes_are_reported_with_their_lines(tmp_path: Path) -> None:
    text = """mapping: My Layout
version: 1.0.0
colour: red
tables:
  - table: labs
    to: observations
  - table: ../../etc/passwd
    to: condition
    columns:
      att: day
      at: {date: day}
      id: other.key
    concepts:
      condition.cod: {text: term}
      condition.code:
        cardinality: many
        codings:
          - {system: LOINC}
          - {concept_id: a, code: b}
    where: {kind: {nott: x}}
  - to: patient
"""
    assert problems(tmp_path / "m.yaml", text) == [
        "1: 'mapping' must be lower-case letters, digits and hyphens",
        "3: unknown key in a mapping file 'colour'; known: expects, mapping, reference, source, tables, title, version",
        "6: unknown canonical table 'observations'; did you mean 'observation'?",
        "7: 'table' must be a plain name, not a path",
        "10: unknown key in 'columns' of condition 'att'; did you mean 'at'?",
        "11: 'date' also needs: time",
        "12: unknown joined table 'other'; known: (this entry has no 'join')",
        "14: unknown key in 'concepts' of condition 'condition.cod'; did you mean 'condition.code'?",
        "16: 'cardinality' must be 1 or 0..1",
        "18: a coding needs either 'concept_id' or 'code'",
        "19: a coding needs either 'concept_id' or 'code'",
        "20: give one of 'not' and 'present'",
        "20: unknown key in 'where' of kind 'nott'; did you mean 'not'?",
        "21: 'table' is missing in this entry of 'tables'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: the file is empty"),
        ("- a\n- b\n", "1: a mapping file must be a mapping (key: value)"),
        ("mapping: [\n", "2: this is not valid YAML"),
        ("mapping: &a x\nversion: *a\ntables: []\n", "1: aliases and anchors are not allowed"),
        ("mapping: x\nmapping: y\nversion: 1\ntables: [{table: a, to: patient}]", "2: 'mapping' is given twice"),
        ("mapping: x\nversion: 1\ntables: []\n", "3: 'tables' must be a list of entries"),
        (HEAD + "  - {table: C:\\x, to: patient}", "4: 'table' must be a plain name, not a path"),
        (HEAD + "  - {table: a, to: patient, columns: {record: x}}", "4: unknown key in 'columns' of patient 'record'"),
        ("[" * 100_000, "1: nested deeper than 40 levels"),
        ("x: !!python/object/apply:os.system [ls]\n", "1: unknown key in a mapping file 'x'"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems(tmp_path / "m.yaml", text)), problems(tmp_path / "m.yaml", text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_bytes(b"mapping: \xff\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(tmp_path / "m.yaml")
    with pytest.raises(UsageError, match=r"no such file.*clif, mimic-iv"):
        TableReader("mimic")


@pytest.mark.parametrize("name", [*SHIPPED, "omop"])
def test_shipped_mappings_are_valid(name: str) -> None:
    mapping = shipped(name)
    assert mapping.name == name
    assert mapping.source_elements().keys() <= set(ELEMENTS)
    assert all(rule.table in mapping.expects for rule in mapping.rules)


def files(folder: Path, **tables: str) -> list[Path]:
    """Write CSV tables, one line a row."""
    paths = []
    for name, text in tables.items():
        path = folder / f"{name}.csv"
        path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


CODINGS = "SELECT element, position, system, code, display FROM coding ORDER BY ALL"


def test_expressions(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        HEAD
        + """
  - table: visits
    to: encounter
    where: {kind: [a, b], void: {not: [Y]}, person: {present: true}}
    columns:
      id: [number, other]
      patient_id: person
      site: {value: "O'Hare"}
      status: {column: state, map: {F: finished, X: null}, else: state2}
      at: {date: day, time: clock}
      end: {year: y, month: m, day: d}
      excluded: {column: test, map: {"1": test-patient}, else: null}
    concepts:
      encounter.class:
        codings:
          - {code: class, system: {column: scheme, map: {"10": TEN}, else: null}, version: "2020", display: label.name}
        text: {value: a visit}
    join:
      label: {class: class, scheme: scheme}
""",
        encoding="utf-8",
    )
    paths = files(
        tmp_path,
        visits="""kind,void,person,number,other,state,state2,day,clock,y,m,d,class,scheme,test
            a,N,p1,1,9,F,,2020-05-06,07:08:09,2020,5,7,AMB,10,0
            b,,p2,,8,X,,20200506,,2020,5,,IMP,11,0
            a,Y,p3,3,,F,,2020-05-06,,2020,,7,AMB,10,0
            c,N,p4,4,,F,,2020-05-06,,2020,,7,AMB,10,0
            a,N,,5,,F,,2020-05-06,,2020,,7,AMB,10,0
            a,N,p6,6,,Q,back,6.5.2020,25,,5,6,NA,10,1
            a,N,p7,7,,,gone,2020-05-06T07:08:09Z,,2020,,7,NA,10,0""",
        label="class,scheme,name\nAMB,10,ambulatory\nAMB,10,zweite\nAMB,11,other\nIMP,12,none",
    )
    with reading(paths, TableReader(tmp_path / "m.yaml")) as run:
        assert run.ledger["visits.csv"]["profiled"] == 7
        columns = 'id, patient_id, site, status, "at", "end", excluded'
        assert run.rows(f"SELECT {columns} FROM encounter ORDER BY patient_id") == [
            ("1", "p1", "O'Hare", "finished", "2020-05-06T07:08:09", "2020-05-07", None),
            ("8", "p2", "O'Hare", None, "2020-05-06", "2020-05", None),
            ("6", "p6", "O'Hare", "back", "6.5.2020", None, "test-patient"),
            ("7", "p7", "O'Hare", "gone", "2020-05-06T07:08:09", "2020", None),
        ]
        assert run.rows(CODINGS) == [
            ("encounter.class", 1, "TEN", "AMB", "ambulatory"),
            ("encounter.class", 1, "TEN", "NA", None),
            ("encounter.class", 1, None, "IMP", None),
        ]
        concepts = "SELECT patient_id, text, n_codings FROM concept ORDER BY 1"
        assert run.rows(concepts) == [("p1", "a visit", 1), ("p2", "a visit", 1), ("p7", "a visit", 0)]
        assert run.rows("SELECT element, kind, patient_id FROM defect") == [("encounter.at", "bad-time", "p6")]


def test_tables_may_also_be_parts_and_unknown_ones_are_generic(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(HEAD + "  - {table: pat, to: patient, columns: {id: key}}", encoding="utf-8")
    (tmp_path / "pat").mkdir()
    paths = [*files(tmp_path / "pat", part_1="key\nx\ny", part_2="KEY\nz"), *files(tmp_path, other="a,b\n1,2")]
    with reading(paths, TableReader(tmp_path / "m.yaml")) as run:
        assert run.rows("SELECT id FROM patient ORDER BY 1") == [("x",), ("y",), ("z",)]
        assert run.rows("SELECT type, n FROM types ORDER BY 1") == [("pat", 3), ("table-01", 1)]


def test_mimic_iv(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        patients="subject_id,gender,anchor_age,anchor_year,dod\n10,F,50,2180,2185-01-02",
        admissions="subject_id,hadm_id,admittime,dischtime,admission_type,language,race\n"
        "10,20,2180-05-06 22:23:00,2180-05-07 17:15:00,URGENT,ENGLISH,WHITE",
        diagnoses_icd="subject_id,hadm_id,seq_num,icd_code,icd_version\n10,20,1,5723,9\n10,20,2,K766,10",
        d_icd_diagnoses="icd_code,icd_version,long_title\n5723,9,Portal hypertension\nK766,10,Portal hypertension",
        labevents="labevent_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom,ref_range_lower,ref_range_upper\n"
        "1,10,20,50931,2180-05-06 22:25:00,95,95,mg/dL,70,105\n2,10,,51464,2180-05-06 22:25:00,NEG,,,,",
        d_labitems="itemid,label,fluid,category\n50931,Glucose,Blood,Chemistry\n51464,Bilirubin,Urine,Hematology",
        prescriptions="subject_id,hadm_id,pharmacy_id,starttime,stoptime,drug,ndc\n"
        "10,20,5,2180-05-07 00:00:00,2180-05-07 22:00:00,Furosemide,51079007320\n10,20,6,,,Sodium Chloride,0",
    )
    with reading(paths, TableReader("mimic-iv")) as run:
        assert run.rows("SELECT id, sex, death_date, birth_date FROM patient") == [("10", "female", "2185-01-02", None)]
        assert run.rows('SELECT encounter_id, "at" FROM condition') == [("20", "2180-05-06T22:23:00")] * 2
        values = "SELECT value_kind, value_number, value_text, unit, range_high FROM observation ORDER BY id"
        assert run.rows(values) == [("number", 95.0, None, "mg/dL", 105.0), ("text", None, "NEG", None, None)]
        labs = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-labitems"
        assert run.rows(CODINGS) == [
            ("condition.code", 1, "ICD10CM", "K766", "Portal hypertension"),
            ("condition.code", 1, "ICD9CM", "5723", "Portal hypertension"),
            ("medication.code", 1, "NDC", "51079007320", None),
            ("observation.code", 1, labs, "50931", "Glucose"),
            ("observation.code", 1, labs, "51464", "Bilirubin"),
        ]
        texts = "SELECT element, text, n_codings FROM concept WHERE n_codings = 0 ORDER BY ALL"
        assert run.rows(texts) == [
            ("encounter.class", "URGENT", 0),
            ("medication.code", "Sodium Chloride", 0),
            ("patient.language", "ENGLISH", 0),
            ("patient.race", "WHITE", 0),
        ]
        assert run.ledger["d_labitems.csv"]["status"] == "reference"


def test_pcornet(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        DEMOGRAPHIC="PATID,BIRTH_DATE,SEX,RACE,HISPANIC\np,1950-01-02,F,05,N",
        DEATH="PATID,DEATH_DATE\np,2020-02-03",
        ENCOUNTER="ENCOUNTERID,PATID,ADMIT_DATE,ADMIT_TIME,ENC_TYPE,FACILITYID\ne,p,2019-01-02,03:04,IP,f",
        DIAGNOSIS="DIAGNOSISID,PATID,ENCOUNTERID,DX,DX_TYPE,DX_DATE\n1,p,e,E11.9,10,2019-01-02\n2,p,e,250.00,09,\n3,p,e,zucker,OT,",
        LAB_RESULT_CM="LAB_RESULT_CM_ID,PATID,LAB_LOINC,SPECIMEN_DATE,SPECIMEN_TIME,RESULT_NUM,RESULT_MODIFIER,RESULT_UNIT,RAW_LAB_NAME\n"
        "1,p,4548-4,2019-01-02,10:20,5.5,LT,%,HbA1c\n2,p,,2019-01-02,,7,EQ,NI,Sugar",
        VITAL="VITALID,PATID,MEASURE_DATE,MEASURE_TIME,HT,WT,SYSTOLIC,DIASTOLIC\nv,p,2019-01-02,10:20,70,,120,80",
        IMMUNIZATION="IMMUNIZATIONID,PATID,VX_CODE,VX_CODE_TYPE,VX_ADMIN_DATE\ni,p,207,CX,2021-02-03",
    )
    with reading(paths, TableReader("pcornet")) as run:
        assert run.rows("SELECT id, sex, birth_date, death_date FROM patient") == [("p", "female", "1950-01-02", "2020-02-03")]
        assert run.rows('SELECT site, "at" FROM encounter') == [("f", "2019-01-02T03:04")]
        values = 'SELECT id, value_number, comparator, unit, "at" FROM observation ORDER BY id, value_number'
        assert run.rows(values) == [
            ("1", 5.5, "<", "%", "2019-01-02T10:20"),
            ("2", 7.0, None, None, "2019-01-02"),
            ("v", 70.0, None, "[in_i]", "2019-01-02T10:20"),
            ("v", 80.0, None, "mm[Hg]", "2019-01-02T10:20"),
            ("v", 120.0, None, "mm[Hg]", "2019-01-02T10:20"),
        ]
        # the measurements of one VITAL row are records of their own
        assert run.one("SELECT count(DISTINCT record) FROM observation") == 5
        assert run.one("SELECT count(*) FROM observation JOIN coding USING (record) WHERE value_number = 80 AND code = '8462-4'") == 1
        systems = "SELECT system, code FROM coding WHERE element IN ('condition.code', 'immunization.code') ORDER BY ALL"
        assert run.rows(systems) == [("CVX", "207"), ("ICD10CM", "E11.9"), ("ICD9CM", "250.00"), (None, "zucker")]


def test_clif(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        clif_patient="patient_id,sex_category,race_category,birth_date\np,Male,white,1950-01-02",
        clif_hospitalization="patient_id,hospitalization_id,admission_dttm\np,h,2024-01-02 03:04:05+00:00",
        clif_labs="hospitalization_id,lab_collect_dttm,lab_category,lab_name,lab_value,lab_value_numeric,reference_unit,lab_loinc_code\n"
        "h,2024-01-02 03:04:05+00:00,sodium,NA (ISTAT),140,140,mmol/L,2951-2\nh,,lactate,Lactate,<0.3,,mmol/L,",
        clif_vitals="hospitalization_id,recorded_dttm,vital_category,vital_value\nh,2024-01-02 03:04:05+00:00,temp_c,37.5",
        clif_hospital_diagnosis="hospitalization_id,diagnosis_code,diagnosis_code_format\nh,I10,icd10cm",
    )
    with reading(paths, TableReader("clif")) as run:
        assert {row["format"] for row in run.ledger.values()} == {"table"}
        values = 'SELECT patient_id, value_kind, value_number, value_text, unit, "at" FROM observation ORDER BY 3 NULLS LAST'
        assert run.rows(values) == [
            ("p", "number", 37.5, None, "Cel", "2024-01-02T03:04:05"),
            ("p", "number", 140.0, None, "mmol/L", "2024-01-02T03:04:05"),
            ("p", "text", None, "<0.3", "mmol/L", None),
        ]
        codes = "SELECT position, system, code FROM coding WHERE element = 'observation.code' ORDER BY ALL"
        own = "CLIF mCIDE"
        assert run.rows(codes) == [(1, own, "lactate"), (1, own, "temp_c"), (1, "LOINC", "2951-2"), (2, own, "sodium")]
        assert run.rows('SELECT patient_id, "at" FROM condition') == [("p", "2024-01-02T03:04:05")]


def test_synthea_csv(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        patients="Id,BIRTHDATE,DEATHDATE,RACE,ETHNICITY,GENDER\np,1950-01-02,,white,nonhispanic,F",
        observations="DATE,PATIENT,ENCOUNTER,CATEGORY,CODE,DESCRIPTION,VALUE,UNITS,TYPE\n"
        "2011-05-13T12:58:08Z,p,e,vital-signs,8302-2,Body Height,175.7,cm,numeric\n"
        "2011-05-13T12:58:08Z,p,e,survey,72166-2,Smoking,Never smoker,,text",
        conditions="START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION\n2001-05-01,,p,e,40055000,Chronic sinusitis",
    )
    with reading(paths, TableReader("synthea-csv")) as run:
        values = 'SELECT value_kind, value_number, value_text, unit, "at" FROM observation ORDER BY 1'
        assert run.rows(values) == [
            ("number", 175.7, None, "cm", "2011-05-13T12:58:08"),
            ("text", None, "Never smoker", None, "2011-05-13T12:58:08"),
        ]
        assert run.rows("SELECT count(*) FROM defect") == [(0,)]
        codes = "SELECT system, code, display FROM coding WHERE element = 'condition.code'"
        assert run.rows(codes) == [("http://snomed.info/sct", "40055000", "Chronic sinusitis")]
