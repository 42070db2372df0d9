from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.terminology.systems import (
    HOWS,
    SYSTEMS,
    Hint,
    flavour_group,
    is_public,
    normalise_version,
    resolve,
    system,
)

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "terminology" / "code_systems.csv"

# Names of the checking table that this package reads differently, with the reason.
DIFFERENT = {
    ("icd9cm", "I9C"): "table 0396 says ICD-9-CM, diagnoses or procedures: undecided",
    ("icd9pcs", "I9C"): "the same",
    ("icd9pcs", "http://hl7.org/fhir/sid/icd-9-cm"): "shared with diagnoses; the code's dot tells",
    ("icd9who", "I9"): "undecided",
    ("icd10", "I10"): "undecided",
    ("cdcrec", "HL70189"): "table 0189 has codes of its own (H, N, U)",
    ("cdcrec", "Race"): "OMOP's races are not the CDC's codes",
    ("cdcrec", "Ethnicity"): "the same",
}


@pytest.mark.parametrize(
    ("raw", "key", "how"),
    [
        ("http://loinc.org", "loinc", "exact"),
        ("LN", "loinc", "exact"),
        ("LOINC", "loinc", "exact"),
        ("https://loinc.org/", "loinc", "alias"),
        ("HTTP://LOINC.ORG", "loinc", "alias"),
        ("http://loinc.org|2.81", "loinc", "alias"),
        ("ln", "loinc", "alias"),
        ("LNC", "loinc", "alias"),
        ("urn:oid:2.16.840.1.113883.6.96", "snomed", "alias"),
        ("URN:OID:2.16.840.1.113883.6.96", "snomed", "alias"),
        ("2.16.840.1.113883.6.96", "snomed", "alias"),
        ("http://snomed.info/sct/731000124108/version/20250901", "snomed", "alias"),
        ("urn:oid:2.16.840.1.113883.6.238", "cdcrec", "exact"),
        ("HL70005", "cdcrec", "alias"),
        ("http://terminology.hl7.org/CodeSystem/v2-0005", "cdcrec", "alias"),
        ("ICD-10-CM", "icd10cm", "alias"),
        ("ICD10GM2012", "icd10gm", "exact"),
        ("HL70203", "hl7:v2-0203", "exact"),
        ("HL70999", "hl7:v2-0999", "exact"),
        ("http://terminology.hl7.org/CodeSystem/v2-0203", "hl7:v2-0203", "exact"),
        ("http://hl7.org/fhir/v2/0203", "hl7:v2-0203", "alias"),
        ("http://terminology.hl7.org/CodeSystem/v2-0360/2.7", "hl7:v2-0360", "alias"),
        ("2.16.840.1.113883.12.203", "hl7:v2-0203", "alias"),
        ("2.16.840.1.113883.12.292", "cvx", "alias"),
        ("http://hl7.org/fhir/v3/ActCode", "hl7:v3-ActCode", "alias"),
        ("urn:oid:2.16.840.1.113883.5.4", "hl7:v3-ActCode", "alias"),
        ("NULLFL", "hl7:v3-NullFlavor", "exact"),
        ("http://hl7.org/fhir/observation-category", "hl7:observation-category", "alias"),
        ("http://hl7.org/fhir/administrative-gender", "hl7:administrative-gender", "exact"),
        ("http://hl7.org/fhir/us/core/CodeSystem/condition-category", "hl7:us-core-condition-category", "exact"),
        ("urn:ietf:bcp:47", "bcp47", "exact"),
        ("urn:iso:std:iso:4217", "iso4217", "exact"),
        ("Gender", "omop:gender", "exact"),
        ("L", "local", "local"),
        ("99LAB", "local", "local"),
        ("urn:id:lab", "local", "local"),
        ("urn:oid:1.2.840.114350.1.13.0.1.7.10", "local", "local"),
        ("XYZ", "local", "local"),
        ("http://hospital.example/codes", "", "unknown-uri"),
        ("http://terminology.hl7.org/CodeSystem/Jane-Doe", "", "unknown-uri"),
        ("urn:oid:2.16.840.1.113883.3.9999", "", "unknown-uri"),
        (None, "", "missing"),
        ("  ", "", "missing"),
        ('""', "", "missing"),
    ],
)
def test_one_key_per_name(raw: str | None, key: str, how: str) -> None:
    found = resolve(raw)
    assert (found.key, found.how, found.candidates) == (key, how, ())


@pytest.mark.parametrize(
    ("raw", "hint", "key", "how"),
    [
        ("ATC", "hl7v2", "atcc", "exact"),  # American Type Culture Collection
        ("ATC", "omop", "atc", "exact"),
        ("WC", "hl7v2", "atc", "exact"),
        ("ICD10", "omop", "icd10", "exact"),
        ("ICD10", "hl7v2", "", "undecided"),
        ("Race", "omop", "omop:race", "exact"),
        ("Race", "hl7v2", "local", "local"),
        ("LN", "fhir", "loinc", "alias"),
        ("http://loinc.org", "hl7v2", "loinc", "alias"),
        ("None", "omop", "", "missing"),
        ("None", "hl7v2", "local", "local"),
    ],
)
def test_the_source_decides_what_is_exact(raw: str, hint: Hint, key: str, how: str) -> None:
    assert (resolve(raw, hint).key, resolve(raw, hint).how) == (key, how)


@pytest.mark.parametrize("raw", ["I10", "ICD-10", "ICD10", "icd 10", "I9", "ICD-9", "ICD9", "I9C"])
def test_a_bare_revision_stays_undecided(raw: str) -> None:
    found = resolve(raw)
    assert (found.key, found.how) == ("", "undecided")
    assert len(found.candidates) > 1
    assert all(key in SYSTEMS for key in found.candidates)


@given(st.text() | st.none(), st.sampled_from([None, "fhir", "hl7v2", "omop"]))
def test_resolve_takes_any_text_and_never_gives_it_back(raw: str | None, hint: Hint | None) -> None:
    found = resolve(raw, hint)
    assert found.how in HOWS
    assert found.key in SYSTEMS or found.key == "" or re.fullmatch(r"hl7:v2-\d{4}", found.key)


@given(st.from_regex(r"(http://terminology\.hl7\.org/CodeSystem/|urn:oid:2\.16\.840\.)[\w.-]{0,60}", fullmatch=True))
def test_a_made_up_address_under_a_known_root_gives_no_new_key(raw: str) -> None:
    found = resolve(raw)
    assert found.key == "" or found.key in SYSTEMS or re.fullmatch(r"hl7:v2-[0-9]{4}", found.key)


def test_every_name_in_the_table_leads_to_its_system() -> None:
    for key, known in SYSTEMS.items():
        uris = [u for u in (known.canonical_uri, *known.uri_aliases) if u]
        assert all(resolve(uri).key == key for uri in uris), key
        assert all(resolve(f"urn:oid:{oid}").key == key for oid in (known.oid, *known.oid_aliases) if oid), key
        assert all(resolve(name, "omop").key == key for name in known.omop_vocabulary_ids), key
        assert all(resolve(name, "hl7v2").key == key for name in known.v2_mnemonics), key


def test_no_uri_or_oid_belongs_to_two_systems() -> None:
    seen: dict[str, str] = {}
    for key, known in SYSTEMS.items():
        for name in {known.canonical_uri, *known.uri_aliases, known.oid, *known.oid_aliases} - {""}:
            assert seen.setdefault(name, key) == key, name


def test_flavours_and_public_systems() -> None:
    assert {flavour_group(k) for k in ("icd10", "icd10cm", "icd10gm", "icd10am", "kcd7")} == {"icd10"}
    assert flavour_group("loinc") == "loinc"
    assert flavour_group("nobody-knows") == "nobody-knows"
    assert is_public("icd10cm")
    assert is_public("hl7:v2-0999")
    assert not any(map(is_public, ("local", "", "npi", "ssn", "nobody-knows")))
    with pytest.raises(KeyError):
        system("nobody-knows")


def test_the_shipped_table_is_what_the_script_writes() -> None:
    rows = runpy.run_path(str(ROOT / "scripts" / "make_code_systems.py"))["code_system_rows"]()
    shipped = ROOT / "ehrready" / "terminology" / "data" / "code_systems.csv"
    with shipped.open(encoding="utf-8", newline="") as lines:
        assert list(csv.DictReader(lines)) == rows


def test_names_of_the_checking_table() -> None:
    if not SHARED.exists():
        pytest.skip("the shared checking tables are not beside this checkout")
    wrong = []
    with SHARED.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            key = row["key"]
            if key in {"hl7v2_table", "local"}:  # patterns, tested above
                continue
            oids = [o for o in (row["oid"], *row["oid_aliases"].split("|")) if o and "*" not in o]
            uris = [u.split(" ")[0] for u in (row["canonical_uri"], *row["uri_aliases"].split("|")) if u]
            mnemonics = [m.split(" ")[0] for m in (row["v2_0396"], *row["v2_aliases_seen"].split("|")) if m]
            names: list[tuple[str, Hint | None]] = [(n, None) for n in oids + uris]
            names += [(n, "hl7v2") for n in mnemonics] + [(n, "omop") for n in row["omop_vocabulary_id"].split("|") if n]
            for name, hint in names:
                found = resolve(name, hint)
                decided = found.key == key or (found.how == "undecided" and key in found.candidates)
                if not decided and (key, name) not in DIFFERENT and not (key == "atc" and name == "ATC"):
                    wrong.append((key, name, found))
    assert wrong == []


@pytest.mark.parametrize(
    ("key", "raw", "release"),
    [
        ("icd10cm", "2026", "FY2026"),
        ("icd10cm", "FY2026", "FY2026"),
        ("icd10cm", "FY26", "FY2026"),
        ("icd10cm", "2025-10-01", "FY2026"),
        ("icd10cm", "20251001", "FY2026"),
        ("icd10cm", "2026-04-01", "FY2026"),
        ("icd10cm", "10/01/2025", "FY2026"),
        ("icd10cm", "ICD10CM FY2019 code descriptions", "FY2019"),
        ("icd10pcs", "ICD10PCS 2019", "FY2019"),
        ("icd9cm", "ICD9CM v32 master descriptions", "FY2015"),
        ("loinc", "LOINC 2.81", "2.81"),
        ("loinc", "v2.81", "2.81"),
        ("snomed", "http://snomed.info/sct/731000124108/version/20250901",
         "http://snomed.info/sct/731000124108/version/20250901"),
        ("snomed", "http://snomed.info/sct/731000124108", "http://snomed.info/sct/731000124108"),
        ("snomed", "2024-02-01 SNOMED CT International Edition; 2023-09-01 SNOMED CT US Edition",
         "http://snomed.info/sct/900000000000207008/version/20240201"),
        ("snomed", "Snomed Release 20180731", "20180731"),
        ("rxnorm", "RxNorm 20181203", "2018-12-03"),
        ("rxnorm", "12032018", "2018-12-03"),
        ("cvx", "CVX code set 31-JUL-17", "2017-07-31"),
        ("hcpcs", "20180101 Alpha Numeric HCPCS File", "2018Q1"),
        ("ucum", "Version 1.8.2", "1.8.2"),
        ("hl7:v2-0136", "2.5.1", "2.5.1"),
        ("omop", "v5.0 18-JAN-19", "v5.0 2019-01-18"),
    ],
)  # fmt: skip
def test_declared_releases_in_one_form(key: str, raw: str, release: str) -> None:
    assert normalise_version(key, raw) == release
    assert normalise_version(key, f" {raw} ") == release


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("icd10cm", "I10"), ("icd10cm", "2.5.1"), ("icd10cm", "http://hl7.org/fhir/sid/icd-10-cm"),
        ("icd10cm", "1949-03-02"), ("loinc", "2.5.1"), ("loinc", "2.5"), ("loinc", "L"), ("loinc", "Jane Doe"),
        ("snomed", "L"), ("snomed", "http://snomed.info/sct/731000124109"), ("snomed", "20181399"),
        ("rxnorm", "19490302"), ("local", "2.81"), ("", "2026"), ("loinc", None), ("loinc", ""), ("loinc", "2.81" * 99),
    ],
)  # fmt: skip
def test_what_is_no_release_stays_inside(key: str, raw: str | None) -> None:
    assert normalise_version(key, raw) is None


@given(st.sampled_from(sorted(SYSTEMS)), st.text(max_size=40))
def test_a_release_holds_nothing_but_a_release(key: str, raw: str) -> None:
    release = normalise_version(key, raw)
    assert release is None or re.fullmatch(r"(http://snomed\.info/sct/)?[\w.\- /]{1,60}", release, re.ASCII)
