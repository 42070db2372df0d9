"""The codes of the synthetic population: real codes of public systems, with their weights.

Every ICD-10-CM code is billable in every release from FY2023 to the April 2026 update, apart from
:data:`NEW_CODES`, which are billable from FY2025 or FY2026 on.  LOINC and SNOMED CT codes carry valid check
digits; CVX codes are active.  Concept ids are OHDSI's where they could be verified; the other concepts get a
stand-in id (see :mod:`sample_data.omop`).
"""

from __future__ import annotations

from typing import NamedTuple

#: Canonical system key to the form each format writes: FHIR URI, HL7 table 0396 mnemonic, OMOP vocabulary_id.
SYSTEMS: dict[str, tuple[str, str, str]] = {
    "icd10cm": ("http://hl7.org/fhir/sid/icd-10-cm", "I10C", "ICD10CM"),
    "snomed": ("http://snomed.info/sct", "SCT", "SNOMED"),
    "loinc": ("http://loinc.org", "LN", "LOINC"),
    "rxnorm": ("http://www.nlm.nih.gov/research/umls/rxnorm", "RXNORM", "RxNorm"),
    "cvx": ("http://hl7.org/fhir/sid/cvx", "CVX", "CVX"),
    # A laboratory's own codes, the way each standard names an unregistered system.
    "local": ("urn:uuid:6f1b0a5e-3c74-4c1e-9d0b-2a8e4f7c5d19", "99LAB", "99LAB"),
    # Only in benchmarks/planted: a system that no list knows, and one that the element may not be in.
    "nobody": ("http://codes.example.org/system/problems", "PROBLIST", "Problems"),
    "icd10": ("http://hl7.org/fhir/sid/icd-10", "I10", "ICD10"),
}

#: Declared releases, the same in both sets: FHIR, HL7v2, OMOP ``vocabulary_version``.
RELEASES: dict[str, tuple[str, str, str]] = {
    "snomed": (
        "http://snomed.info/sct/731000124108/version/20240301",
        "20240301",
        "2024-03-01 SNOMED CT US Edition",
    ),
    "loinc": ("2.77", "2.77", "LOINC 2.77"),
    "rxnorm": ("06032024", "06032024", "RxNorm 20240603"),
}


class Dx(NamedTuple):
    """A condition: ICD-10-CM code and name, SNOMED CT concept with OMOP id, old ICD-9-CM code, weight."""

    icd10cm: str
    name: str
    snomed: str
    snomed_name: str
    concept_id: int | None
    icd9cm: str
    weight: int


CONDITIONS: tuple[Dx, ...] = (
    Dx("I10", "Essential (primary) hypertension", "59621000", "Essential hypertension", 320128, "401.9", 8),
    Dx("E11.9", "Type 2 diabetes mellitus without complications", "44054006", "Type 2 diabetes mellitus",
       201826, "250.00", 7),
    Dx("E78.5", "Hyperlipidemia, unspecified", "55822004", "Hyperlipidemia", 432867, "272.4", 7),
    Dx("I25.10", "Atherosclerotic heart disease of native coronary artery without angina pectoris",
       "53741008", "Coronary arteriosclerosis", 317576, "414.01", 4),
    Dx("I48.91", "Unspecified atrial fibrillation", "49436004", "Atrial fibrillation", 313217, "427.31", 3),
    Dx("I50.9", "Heart failure, unspecified", "84114007", "Heart failure", 316139, "428.0", 4),
    Dx("I63.9", "Cerebral infarction, unspecified", "230690007", "Cerebrovascular accident", 381316,
       "434.91", 2),
    Dx("J44.9", "Chronic obstructive pulmonary disease, unspecified", "13645005",
       "Chronic obstructive lung disease", None, "491.20", 3),
    Dx("J45.909", "Unspecified asthma, uncomplicated", "195967001", "Asthma", 317009, "493.90", 4),
    Dx("J18.9", "Pneumonia, unspecified organism", "233604007", "Pneumonia", 255848, "482.9", 3),
    Dx("J20.9", "Acute bronchitis, unspecified", "10509002", "Acute bronchitis", 260139, "466.0", 3),
    Dx("J32.9", "Chronic sinusitis, unspecified", "40055000", "Chronic sinusitis", 257012, "473.9", 2),
    Dx("N39.0", "Urinary tract infection, site not specified", "68566005", "Urinary tract infectious disease",
       81902, "599.0", 3),
    Dx("N18.30", "Chronic kidney disease, stage 3 unspecified", "433144002", "Chronic kidney disease stage 3",
       443597, "585.3", 3),
    Dx("N18.4", "Chronic kidney disease, stage 4 (severe)", "431857002", "Chronic kidney disease stage 4",
       443612, "585.4", 2),
    Dx("K21.9", "Gastro-esophageal reflux disease without esophagitis", "235595009",
       "Gastroesophageal reflux disease", 318800, "530.81", 4),
    Dx("K59.00", "Constipation, unspecified", "14760008", "Constipation", 75860, "564.00", 2),
    Dx("K51.90", "Ulcerative colitis, unspecified, without complications", "64766004", "Ulcerative colitis",
       81893, "556.9", 2),
    Dx("M17.11", "Unilateral primary osteoarthritis, right knee", "239873007", "Osteoarthritis of knee",
       4079750, "715.16", 2),
    Dx("M19.90", "Unspecified osteoarthritis, unspecified site", "396275006", "Osteoarthritis", 80180,
       "715.90", 3),
    Dx("M06.9", "Rheumatoid arthritis, unspecified", "69896004", "Rheumatoid arthritis", 80809, "714.0", 2),
    Dx("M10.9", "Gout, unspecified", "90560007", "Gout", 440674, "274.9", 2),
    Dx("M25.50", "Pain in unspecified joint", "57676002", "Joint pain", 77074, "719.40", 2),
    Dx("M79.7", "Fibromyalgia", "203082005", "Fibromyalgia", 40405599, "729.1", 2),
    Dx("M81.0", "Age-related osteoporosis without current pathological fracture", "64859006", "Osteoporosis",
       80502, "733.00", 2),
    Dx("E03.9", "Hypothyroidism, unspecified", "40930008", "Hypothyroidism", 140673, "244.9", 3),
    Dx("E66.9", "Obesity, unspecified", "414916001", "Obesity", None, "278.00", 4),
    Dx("D64.9", "Anemia, unspecified", "271737000", "Anemia", 439777, "285.9", 3),
    Dx("F32.A", "Depression, unspecified", "35489007", "Depressive disorder", None, "296.20", 4),
    Dx("F41.9", "Anxiety disorder, unspecified", "197480006", "Anxiety disorder", None, "300.00", 4),
    Dx("G40.909", "Epilepsy, unspecified, not intractable, without status epilepticus", "84757009",
       "Epilepsy", 380378, "345.90", 2),
    Dx("G47.33", "Obstructive sleep apnea (adult) (pediatric)", "78275009",
       "Obstructive sleep apnea syndrome", None, "327.23", 2),
    Dx("L20.9", "Atopic dermatitis, unspecified", "24079001", "Atopic dermatitis", 133834, "691.8", 2),
    Dx("R05.9", "Cough, unspecified", "49727002", "Cough", 254761, "786.2", 3),
    Dx("R06.00", "Dyspnea, unspecified", "267036007", "Dyspnea", 312437, "786.09", 2),
    Dx("R07.9", "Chest pain, unspecified", "29857009", "Chest pain", None, "786.50", 3),
    Dx("R10.9", "Unspecified abdominal pain", "21522001", "Abdominal pain", None, "789.00", 3),
    Dx("R11.0", "Nausea", "422587007", "Nausea", 31967, "787.02", 2),
    Dx("R50.9", "Fever, unspecified", "386661006", "Fever", 437663, "780.60", 2),
    Dx("R51.9", "Headache, unspecified", "25064002", "Headache", 378253, "784.0", 3),
    Dx("R53.83", "Other fatigue", "84229001", "Fatigue", 4223659, "780.79", 2),
)  # fmt: skip

#: ICD-10-CM codes first billable in FY2025 or FY2026: absent from any set coded under FY2024 or before.
NEW_CODES: tuple[tuple[str, str], ...] = (
    ("E11.A", "Type 2 diabetes mellitus without complications in remission"),  # FY2026
    ("E66.811", "Obesity, class 1"),  # FY2025
    ("E66.812", "Obesity, class 2"),  # FY2025
    ("E66.813", "Obesity, class 3"),  # FY2025
    ("E78.019", "Familial hypercholesterolemia, unspecified"),  # FY2026
    ("G35.A", "Relapsing-remitting multiple sclerosis"),  # FY2026
    ("Z59.71", "Insufficient health insurance coverage"),  # FY2025
    ("Z86.0101", "Personal history of adenomatous and serrated colon polyps"),  # FY2025
)


class Item(NamedTuple):
    """A code of one system with its name, OMOP concept id where verified, weight and (allergies) HL7 type."""

    system: str
    code: str
    name: str
    concept_id: int | None
    weight: int = 1
    kind: str = ""


MEDICATIONS: tuple[Item, ...] = (
    Item("rxnorm", "314076", "lisinopril 10 MG Oral Tablet", 19080128, 6),
    Item("rxnorm", "860975", "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet", 40163924, 6),
    Item("rxnorm", "312961", "simvastatin 20 MG Oral Tablet", 1539411, 4),
    Item("rxnorm", "259255", "atorvastatin 80 MG Oral Tablet", 1545959, 4),
    Item("rxnorm", "197361", "amlodipine 5 MG Oral Tablet", 1332419, 4),
    Item("rxnorm", "310798", "hydrochlorothiazide 25 MG Oral Tablet", 19078106, 4),
    Item("rxnorm", "309362", "clopidogrel 75 MG Oral Tablet", 19075601, 3),
    Item("rxnorm", "855332", "warfarin sodium 5 MG Oral Tablet", 40163554, 3),
    Item("rxnorm", "313988", "furosemide 40 MG Oral Tablet", 957136, 3),
    Item("rxnorm", "745679", "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler", 1154615, 3),
    Item("rxnorm", "966222", "levothyroxine sodium 0.075 MG Oral Tablet", 40174880, 3),
    Item("rxnorm", "979492", "losartan potassium 50 MG Oral Tablet", 40185304, 3),
    Item("rxnorm", "243670", "aspirin 81 MG Oral Tablet", 19059056, 4),
    Item("rxnorm", "310965", "ibuprofen 200 MG Oral Tablet", 19078461, 3),
    Item("rxnorm", "313782", "acetaminophen 325 MG Oral Tablet", 1127433, 3),
    Item("rxnorm", "312938", "sertraline 100 MG Oral Tablet", 739207, 3),
    Item("rxnorm", "312617", "prednisone 5 MG Oral Tablet", 1551192, 2),
    Item("rxnorm", "1014678", "cetirizine hydrochloride 10 MG Oral Tablet", 40228214, 2),
    Item("rxnorm", "997223", "donepezil hydrochloride 10 MG Oral Tablet", 40223768, 2),
    Item("rxnorm", "310325", "ferrous sulfate 325 MG Oral Tablet", 19077344, 2),
)

PROCEDURES: tuple[Item, ...] = (
    Item("snomed", "430193006", "Medication reconciliation", 4326177, 2),
    Item("snomed", "73761001", "Colonoscopy", 4249893),
    Item("snomed", "399208008", "Plain chest X-ray", 4163872, 2),
    Item("snomed", "40701008", "Echocardiography", 4230911),
    Item("snomed", "274474001", "Bone immobilization", 4170947),
    Item("snomed", "288086009", "Suture open wound", 4125906),
    Item("snomed", "312681000", "Bone density scan", 4195803),
    Item("snomed", "710841007", "Assessment of anxiety", 46272472),
    Item("snomed", "228557008", "Cognitive and behavioral therapy", 4043071),
    Item("snomed", "11816003", "Diet education", 4041982),
    Item("snomed", "225323000", "Smoking cessation education", 4021160),
    Item("snomed", "182836005", "Review of medication", 4057411),
)

IMMUNIZATIONS: tuple[Item, ...] = (
    Item("cvx", "140", "Influenza, split virus, trivalent, injectable, preservative free", 40213154, 3),
    Item("cvx", "133", "pneumococcal conjugate vaccine, 13 valent", 40213198),
    Item("cvx", "33", "pneumococcal polysaccharide vaccine, 23 valent", 40213201),
    Item("cvx", "113", "tetanus and diphtheria toxoids, adsorbed, preservative free, for adult use",
         40213227),
    Item("cvx", "115", "tetanus toxoid, reduced diphtheria toxoid, and acellular pertussis vaccine, adsorbed",
         40213230),
    Item("cvx", "43", "hepatitis B vaccine, adult dosage", 40213306),
    Item("cvx", "52", "hepatitis A vaccine, adult dosage", 40213296),
    Item("cvx", "21", "varicella virus vaccine", 40213251),
    Item("cvx", "03", "measles, mumps and rubella virus vaccine", None),
    Item("cvx", "187", "zoster vaccine recombinant", None),
)  # fmt: skip

#: ``kind`` is HL7 table 0127: DA drug, FA food, EA environmental allergy.
ALLERGIES: tuple[Item, ...] = (
    Item("rxnorm", "7980", "penicillin G", 1728416, 1, "DA"),
    Item("rxnorm", "1191", "aspirin", 1112807, 1, "DA"),
    Item("rxnorm", "2670", "codeine", None, 1, "DA"),
    Item("snomed", "111088007", "Latex", None, 1, "EA"),
    Item("snomed", "762952008", "Peanut", None, 1, "FA"),
    Item("snomed", "735029006", "Shellfish", None, 1, "FA"),
)

DOCUMENTS: tuple[Item, ...] = (
    Item("loinc", "34133-9", "Summarization of episode note", None),
    Item("loinc", "18842-5", "Discharge summary", None),
    Item("loinc", "11506-3", "Progress note", None),
    Item("loinc", "11488-4", "Consult note", None),
)


class Analyte(NamedTuple):
    """A LOINC observation: UCUM unit, mean, spread, decimals, reference range, OMOP concept id."""

    code: str
    name: str
    unit: str
    mean: float
    sd: float
    decimals: int
    low: float | None
    high: float | None
    concept_id: int
    category: str = "laboratory"


_VITAL = "vital-signs"
_SOCIAL = "social-history"

ANALYTES: tuple[Analyte, ...] = (
    Analyte("8480-6", "Systolic blood pressure", "mm[Hg]", 128, 13, 0, None, None, 3004249, _VITAL),
    Analyte("8462-4", "Diastolic blood pressure", "mm[Hg]", 78, 8, 0, None, None, 3012888, _VITAL),
    Analyte("8867-4", "Heart rate", "/min", 76, 10, 0, None, None, 3027018, _VITAL),
    Analyte("9279-1", "Respiratory rate", "/min", 16, 1.5, 0, None, None, 3024171, _VITAL),
    Analyte("8310-5", "Body temperature", "Cel", 36.8, 0.35, 1, None, None, 3020891, _VITAL),
    Analyte("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%", 96.5, 1.1, 0, None, None,
            40762499, _VITAL),
    Analyte("29463-7", "Body weight", "kg", 81, 12, 1, None, None, 3025315, _VITAL),
    Analyte("8302-2", "Body height", "cm", 169, 8, 0, None, None, 3036277, _VITAL),
    Analyte("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", 28, 4, 1, None, None, 3038553, _VITAL),
    Analyte("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 104, 18, 0, 70, 99, 3004501),
    Analyte("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.98, 0.2, 2, 0.6, 1.3,
            3016723),
    Analyte("3094-0", "Urea nitrogen [Mass/volume] in Serum or Plasma", "mg/dL", 15, 3.5, 0, 7, 20, 3013682),
    Analyte("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 139.5, 2.2, 0, 135, 145, 3019550),
    Analyte("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 4.2, 0.35, 1, 3.5, 5.1,
            3023103),
    Analyte("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", 185, 22, 0, None, 200,
            3027114),
    Analyte("2571-8", "Triglyceride [Mass/volume] in Serum or Plasma", "mg/dL", 130, 28, 0, None, 150,
            3022192),
    Analyte("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", 52, 8, 0, 40, None,
            3007070),
    Analyte("18262-6", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by Direct assay", "mg/dL", 107,
            20, 0, None, 130, 3009966),
    Analyte("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", 7.2, 1.4, 1, 4.5, 11,
            3000905),
    Analyte("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 13.9, 1.1, 1, 12, 17, 3000963),
    Analyte("4544-3", "Hematocrit [Volume Fraction] of Blood by Automated count", "%", 41, 3.5, 1, 36, 50,
            3023314),
    Analyte("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", 245, 42, 0, 150, 400,
            3024929),
    Analyte("789-8", "Erythrocytes [#/volume] in Blood by Automated count", "10*6/uL", 4.7, 0.4, 2, 4, 5.9,
            3020416),
    Analyte("1742-6", "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 28, 7,
            0, 7, 56, 3006923),
    Analyte("1920-8", "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 25,
            6, 0, 10, 40, 3013721),
    Analyte("6768-6", "Alkaline phosphatase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 78, 16, 0,
            44, 147, 3035995),
    Analyte("1975-2", "Bilirubin.total [Mass/volume] in Serum or Plasma", "mg/dL", 0.7, 0.17, 1, 0.1, 1.2,
            3024128),
    Analyte("1751-7", "Albumin [Mass/volume] in Serum or Plasma", "g/dL", 4.2, 0.3, 1, 3.5, 5, 3024561),
    Analyte("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 6.4, 0.8, 1, 4, 5.6, 3004410),
    Analyte("3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", "m[IU]/L", 2.1, 0.5, 2, 0.4, 4.5,
            3009201),
    Analyte("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", "mg/L", 4, 1.1, 1, None, 5,
            3020460),
    Analyte("72514-3", "Pain severity - 0-10 verbal numeric rating [Score] - Reported", "{score}", 4, 1.3, 0,
            None, None, 43055141, _VITAL),
    Analyte("72166-2", "Tobacco smoking status", "", 0, 0, 0, None, None, 43054909, _SOCIAL),
    Analyte("67875-5", "Employment status - current", "", 0, 0, 0, None, None, 40770471, _SOCIAL),
)  # fmt: skip

#: Vital signs, laboratory panels and questions of an encounter: what is taken together, and how often.
VITALS = (
    ("bp", ("8480-6", "8462-4"), 35),
    ("pulse", ("8867-4", "9279-1"), 25),
    ("temperature", ("8310-5", "59408-5"), 20),
    ("body", ("29463-7", "8302-2", "39156-5"), 20),
)
PANELS: tuple[tuple[Item, tuple[str, ...], int], ...] = (
    (Item("loinc", "24321-2", "Basic metabolic 2000 panel - Serum or Plasma", 3022035),
     ("2345-7", "2160-0", "3094-0", "2951-2", "2823-3"), 120),
    (Item("loinc", "58410-2", "CBC panel - Blood by Automated count", 40761511),
     ("6690-2", "718-7", "4544-3", "777-3", "789-8"), 100),
    (Item("loinc", "57698-3", "Lipid panel with direct LDL - Serum or Plasma", 40760809),
     ("2093-3", "2571-8", "2085-9", "18262-6"), 80),
    (Item("loinc", "24325-3", "Hepatic function 2000 panel - Serum or Plasma", None),
     ("1742-6", "1920-8", "6768-6", "1975-2", "1751-7"), 70),
    (Item("loinc", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", 3004410), ("4548-4",), 70),
    (Item("loinc", "3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", 3009201), ("3016-3",), 50),
    (Item("loinc", "1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", 3020460),
     ("1988-5",), 50),
)  # fmt: skip
QUESTIONS = (("72166-2", 160), ("67875-5", 100), ("72514-3", 120))

SMOKING: tuple[Item, ...] = (
    Item("snomed", "266919005", "Never smoked tobacco", None, 55),
    Item("snomed", "8517006", "Ex-smoker", None, 28),
    Item("snomed", "449868002", "Smokes tobacco daily", 42709996, 17),
)
EMPLOYMENT = (("Full-time employment", 50), ("Part-time employment", 20), ("Retired", 30))

#: UCUM code to the name and concept id of OMOP's Unit domain (None: no verified id).
UNITS: dict[str, tuple[str, int | None]] = {
    "mm[Hg]": ("millimeter mercury column", 8876),
    "/min": ("per minute", 8541),
    "Cel": ("degree Celsius", 586323),
    "%": ("percent", 8554),
    "kg": ("kilogram", 9529),
    "cm": ("centimeter", 8582),
    "kg/m2": ("kilogram per square meter", 9531),
    "mg/dL": ("milligram per deciliter", 8840),
    "mmol/L": ("millimole per liter", 8753),
    "10*3/uL": ("thousand per microliter", 8848),
    "10*6/uL": ("million per microliter", 8815),
    "g/dL": ("gram per deciliter", 8713),
    "U/L": ("unit per liter", 8645),
    "m[IU]/L": ("milli-international unit per liter", 9040),
    "mg/L": ("milligram per liter", 8751),
    "{score}": ("score", 44777566),
}

#: CDC race and ethnicity codes with OMOP's concept of the same meaning: name, OMOP code, concept id, weight.
RACES = (
    ("2106-3", "White", "5", 8527, 70),
    ("2054-5", "Black or African American", "3", 8516, 18),
    ("2028-9", "Asian", "2", 8515, 12),
)
ETHNICITIES = (
    ("2186-5", "Not Hispanic or Latino", "Not Hispanic", 38003564, 82),
    ("2135-2", "Hispanic or Latino", "Hispanic", 38003563, 18),
)
LANGUAGES = (("en", "English", 85), ("es", "Spanish", 15))

#: Encounter class: FHIR v3-ActCode, HL7 table 0004, OMOP Visit code, concept id, name, words, weight.
CLASSES: dict[str, tuple[str, str, int, str, str, int]] = {
    "AMB": ("O", "OP", 9202, "Outpatient Visit", "Outpatient clinic", 65),
    "IMP": ("I", "IP", 9201, "Inpatient Visit", "Inpatient ward", 20),
    "EMER": ("E", "ER", 9203, "Emergency Room Visit", "Emergency dept", 15),
}
ENCOUNTER_TYPES = {
    "AMB": ("185345009", "Encounter for symptom"),
    "IMP": ("32485007", "Hospital admission"),
    "EMER": ("50849002", "Emergency room admission"),
}

#: Sites: id (MSH-4, Organization.id), name, OMOP care_site_id, weight.
SITES = (("NGH", "Northfield General Hospital", 1, 60), ("LCC", "Lakeside Community Clinic", 2, 40))
