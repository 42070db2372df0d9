from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.terminology.checkdigits import (
    is_concept_id,
    is_other_sctid,
    mod10_digit,
    verhoeff_digit,
    verhoeff_valid,
)
from ehrready.terminology.grammar import (
    CLASSES,
    NULL_TOKENS,
    classify,
    classify_pairs,
    is_null_token,
    looks_like,
    may_leave,
    resolve_undecided,
)
from ehrready.terminology.shapes import GRAMMARS
from ehrready.terminology.systems import SYSTEMS

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "terminology"


def shared_codes(name: str) -> list[str]:
    path = SHARED / f"{name}.parquet"
    if not path.exists():
        pytest.skip("the shared code tables are not beside this checkout")
    return [str(code) for code in pq.read_table(path, columns=["code"]).column("code").to_pylist()]


# (declared system, code, class, looks_like, repaired)
CASES: list[tuple[str, str | None, str, str | None, str | None]] = [
    # nothing
    ("icd10cm", None, "null-token", None, None),
    ("icd10cm", "", "null-token", None, None),
    ("icd10cm", " unk ", "null-token", None, None),
    ("loinc", "See Note", "null-token", None, None),
    ("cdcrec", "ASKU", "null-token", None, None),
    ("ucum", "N/A", "null-token", None, None),  # valid UCUM, and means something else
    ("hl7:v2-0136", "UNK", "null-token", None, None),
    # ... except where it is a code
    ("hl7:v3-NullFlavor", "UNK", "well-formed", None, None),
    ("hl7:administrative-gender", "unknown", "well-formed", None, None),
    ("mvx", "UNK", "well-formed", None, None),
    ("iso3166", "NA", "well-formed", None, None),  # Namibia
    # ICD-10-CM and its neighbours
    ("icd10cm", "E11.9", "well-formed", None, None),
    ("icd10cm", "QA0.0101", "well-formed", None, None),  # letters in position 2 since FY2026
    ("icd10cm", "S72.001A", "well-formed", None, None),
    ("icd10cm", "E119", "repairable", None, "E11.9"),
    ("icd10cm", "e11.9", "repairable", None, "E11.9"),
    ("icd10cm", "s72001a", "repairable", None, "S72.001A"),
    ("icd10cm", " E11.9\t", "repairable", None, "E11.9"),
    ("icd10cm", "I10.", "repairable", None, "I10"),
    ("icd10cm", "E11.9 Type 2 diabetes mellitus", "repairable", None, "E11.9"),
    ("icd10cm", "E11.9 - Type 2 diabetes", "repairable", None, "E11.9"),
    ("icd10cm", "E119: Type 2 diabetes", "repairable", None, "E11.9"),
    ("icd10cm", "T10 fracture", "free-text", None, None),
    ("icd10cm", "V27.0", "well-formed", None, None),  # ICD-9-CM too: the declared system is believed
    ("icd10cm", "250.00", "other-system", "icd9cm", None),
    ("icd10cm", "E819.0", "other-system", "icd9cm", None),
    ("icd10cm", "0DTJ4ZZ", "other-system", "icd10pcs", None),
    ("icd10cm", "B020ZZZ", "other-system", "icd10pcs", None),
    ("icd10cm", "A17.0\u2020", "other-system", "icd10", None),
    ("icd10cm", "44054006", "other-system", "snomed", None),
    ("icd10cm", "8302-2", "other-system", "loinc", None),
    ("icd10cm", "8302-3", "malformed", None, None),
    ("icd10cm", "chest pain", "free-text", None, None),
    ("icd10cm", "Diabetes", "free-text", None, None),
    ("icd10cm", "Hämophilie", "free-text", None, None),
    ("icd10cm", "CHF", "malformed", None, None),
    ("icd10cm", "12345", "malformed", None, None),
    ("icd10", "S72.001A", "other-system", "icd10cm", None),
    ("icd10", "E119", "repairable", None, "E11.9"),
    ("icd10pcs", "0dtj4zz", "repairable", None, "0DTJ4ZZ"),
    ("icd9cm", "25000", "repairable", None, "250.00"),
    ("icd9cm", "E8190", "repairable", None, "E819.0"),
    ("icd9cm", "39.61", "well-formed", "icd9pcs", None),
    ("icd9cm", "E11.9", "other-system", "icd10cm", None),
    # LOINC and SNOMED CT
    ("loinc", "8302-2", "well-formed", None, None),
    ("loinc", "LA6560-2", "well-formed", None, None),
    ("loinc", "08302-2", "repairable", None, "8302-2"),
    ("loinc", "8302-2^Body height", "repairable", None, "8302-2"),
    ("loinc", "44054006", "other-system", "snomed", None),
    ("loinc", "250.00", "malformed", None, None),  # here it is a number
    ("loinc", "99213", "malformed", None, None),  # a bare short integer may be anybody's
    ("snomed", "44054006", "well-formed", None, None),
    ("snomed", "44054007", "malformed", None, None),
    ("snomed", "44054006.0", "repairable", None, "44054006"),
    ("snomed", "73211009 |Diabetes mellitus|", "repairable", None, "73211009"),
    ("snomed", "128045006:{363698007=56459004}", "well-formed", None, None),
    ("snomed", "2156016", "malformed", "snomed", None),  # a description's identifier
    # medication, vaccines, procedures
    ("rxnorm", "0316052", "repairable", None, "316052"),
    ("rxnorm", "500 mg tablet", "free-text", None, None),
    ("rxnorm", "316052: Simvastatin", "repairable", None, "316052"),
    ("rxnorm", "00047040230", "other-system", "ndc", None),
    ("ndc", "0069-2587-10", "well-formed", None, None),
    ("ndc", "50090-587-10", "well-formed", None, None),
    ("ndc", "00069-2587-10", "well-formed", None, None),
    ("ndc", "00069258710", "well-formed", None, None),
    ("ndc", "*0069-2587-10", "well-formed", None, None),
    ("ndc", "2669", "malformed", None, None),
    ("cvx", "3", "repairable", None, "03"),
    ("cvx", "0140", "repairable", None, "140"),
    ("cvx", "Influenza", "free-text", None, None),
    ("cpt", "J1100", "other-system", "hcpcs", None),
    ("hcpcs", "99213", "well-formed", "cpt", None),
    # units, races, tables, local systems
    ("ucum", "{beats per min}/min", "well-formed", None, None),
    ("ucum", "per cent", "free-text", None, None),
    ("cdcrec", "2106-3", "well-formed", None, None),
    ("cdcrec", "White", "free-text", None, None),
    ("hl7:v3-ActCode", "AMB", "well-formed", None, None),
    ("hl7:v3-ActCode", "AMB ", "repairable", None, "AMB"),
    ("hl7:v3-ActCode", "ambulatory visit", "free-text", None, None),
    ("local", "LAB:1", "well-formed", None, None),
    ("local", "8302-2", "well-formed", "loinc", None),
    ("", "See Image", "free-text", None, None),
    ("", "x" * 65, "malformed", None, None),
]


@pytest.mark.parametrize(("key", "code", "cls", "like", "repaired"), CASES)
def test_class(key: str, code: str | None, cls: str, like: str | None, repaired: str | None) -> None:
    found = classify(key, code)
    assert (found.cls, found.looks_like, found.repaired) == (cls, like, repaired)


@given(st.sampled_from([*sorted(SYSTEMS), "", "nobody-knows"]), st.text(max_size=30) | st.none())
def test_every_pair_has_exactly_one_class(key: str, code: str | None) -> None:
    found = classify(key, code)
    assert found.cls in CLASSES
    assert (found.repaired is not None) == (found.cls == "repairable")
    assert found.looks_like is not None or found.cls != "other-system"
    assert found.looks_like != key or found.cls == "malformed"
    if found.repaired is not None:
        assert classify(key, found.repaired).cls == "well-formed"
        assert found.repaired != code


@given(st.sampled_from(sorted(GRAMMARS)), st.from_regex(r"[A-Z0-9.\-/ ]{1,12}", fullmatch=True))
def test_repairing_and_rivals_agree_with_the_grammars(key: str, code: str) -> None:
    found = classify(key, code)
    if found.cls == "repairable":
        assert found.repaired is not None
        assert GRAMMARS[key].accepts(found.repaired)
    if found.cls == "other-system":
        assert found.looks_like is not None
        assert not GRAMMARS[key].accepts(code)
        assert GRAMMARS[found.looks_like].accepts(code.strip()) or found.looks_like == "icd10cm"


@pytest.mark.parametrize(("key", "table"), [("icd10cm", "icd10cm_history"), ("icd9cm", "icd9cm_history"), ("cvx", "cvx_2025-10")])
def test_every_published_code_is_well_formed(key: str, table: str) -> None:
    codes = shared_codes(table)
    assert len(codes) > 250
    assert [code for code in codes if classify(key, code).cls != "well-formed"] == []


@pytest.mark.parametrize(("key", "table"), [("icd10cm", "icd10cm_history"), ("icd9cm", "icd9cm_history")])
def test_every_published_code_is_found_again_without_its_dot(key: str, table: str) -> None:
    dotted = [code for code in shared_codes(table) if "." in code]
    assert [code for code in dotted if classify(key, code.replace(".", "")).repaired != code] == []


def test_the_other_revision_is_never_repaired_into_this_one_when_dotted() -> None:
    nine = [code for code in shared_codes("icd9cm_history") if "." in code and code[0] != "V"]
    assert {classify("icd10cm", code).looks_like for code in nine} == {"icd9cm"}
    ten = [code for code in shared_codes("icd10cm_history") if "." in code]
    assert {classify("loinc", code).looks_like for code in ten} == {"icd10cm"}


@given(st.integers(1, 9_999_999).map(str), st.integers(1, 9))
def test_a_wrong_check_digit_is_no_loinc_code(body: str, shift: int) -> None:
    right = mod10_digit(body)
    wrong = str((int(right) + shift) % 10)
    assert classify("loinc", f"{body}-{right}").cls == "well-formed"
    assert classify("loinc", f"{body}-{wrong}").cls == "malformed"


@given(st.integers(1, 10**17 - 1).map(str))
def test_verhoeff_round_trip(body: str) -> None:
    digit = verhoeff_digit(body)
    assert [d for d in "0123456789" if verhoeff_valid(body + d)] == [digit]


@given(st.integers(100_000, 10**17 - 1).map(str), st.data())
def test_verhoeff_finds_every_swap_of_neighbours(body: str, data: st.DataObject) -> None:
    code = body + verhoeff_digit(body)
    place = data.draw(st.integers(0, len(code) - 2))
    swapped = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
    assert swapped == code or not verhoeff_valid(swapped)


def test_partitions_of_snomed_ct() -> None:
    # Published identifiers: concepts (short and long form), a description and a relationship.
    assert all(map(is_concept_id, ("138875005", "44054006", "731000124108", "900000000000207008")))
    assert is_other_sctid("2156016")
    assert not is_concept_id("2156016")
    short = "12345610"  # a long-form partition needs a namespace
    assert not is_concept_id(short + verhoeff_digit(short))


def test_null_tokens_are_lower_case_and_trimmed() -> None:
    assert all(token == token.lower().strip() for token in NULL_TOKENS)
    assert all(map(is_null_token, (None, "", " N/A ", "Null", "UNK", '""', "-", ".", "?", "SEE NOTE", "nan")))
    assert not any(map(is_null_token, ("0", "no", "E11.9", "unknown primary tumour")))


def test_looks_like_knows_strong_shapes_only() -> None:
    assert looks_like("E11.9") == {"icd10cm", "icd10"}
    assert looks_like("S72.001A") == {"icd10cm"}
    assert looks_like("V27.0") == {"icd10cm", "icd10", "icd9cm"}
    assert looks_like("8302-2") == {"loinc"}
    assert looks_like("44054006") == {"snomed"}
    assert looks_like("B02BD01") == {"atc"}
    assert looks_like("0069-2587-10") == {"ndc"}
    for nothing in ("99213", "140", "316052", "E119", "chest pain", "", None):
        assert looks_like(nothing) == frozenset()


def numbered(codes: list[str]) -> Iterator[tuple[str, int]]:
    return ((code, 1 + place % 7) for place, code in enumerate(codes))


def test_icd10_is_decided_by_its_codes() -> None:
    candidates = ("icd10cm", "icd10")
    american = shared_codes("icd10cm_history")[::331]
    who = sorted({code[:5] for code in american if code[1:3].isdigit() and re.fullmatch(r"\w{3}\.\d", code[:5])})
    assert resolve_undecided(candidates, numbered(american)) == "icd10cm"
    assert resolve_undecided(candidates, numbered([c.replace(".", "") for c in american])) == "icd10cm"
    assert len(who) >= 50
    assert resolve_undecided(candidates, numbered(who)) == "icd10"
    assert resolve_undecided(candidates, numbered(who[:20])) == ""
    assert resolve_undecided(candidates, [("S72.001A", 10_000), ("E11.9", 3)]) == ""  # one code decides nothing
    assert resolve_undecided(candidates, []) == ""


def test_icd9_is_decided_by_its_dot() -> None:
    candidates = ("icd9cm", "icd9pcs", "icd9who")
    diagnoses = shared_codes("icd9cm_history")[::97]
    assert resolve_undecided(candidates, numbered(diagnoses)) == "icd9cm"
    assert resolve_undecided(candidates, numbered(["39.61", "36.12", "88.56", "45.23"])) == "icd9pcs"
    assert resolve_undecided(candidates, numbered(["39.61", "250.00", "88.56", "401.9"])) == ""


def test_a_batch_is_its_pairs_in_order() -> None:
    pairs = [(key, code) for key, code, *_ in CASES if code is not None]
    assert classify_pairs(pairs) == [classify(key, code) for key, code in pairs]


def test_what_may_leave() -> None:
    assert may_leave("icd10cm", "E11.9")
    assert may_leave("hl7:v3-ActCode", "AMB")
    for key, code in [
        ("icd10cm", "E119"), ("icd10cm", "chest pain"), ("local", "GLU1"), ("", "GLU1"), ("npi", "1234567893"),
        ("hl7:v2-0203", "MRN00123456"), ("hl7:v2-0203", "jane@example.org"), ("ucum", "JaneDoe"),
    ]:  # fmt: skip
        assert not may_leave(key, code)


def test_a_hostile_text_costs_no_more_than_its_first_characters() -> None:
    for code in ("1 " + "-" * 200_000, "a" * 200_000, "a " * 100_000, "1" * 200_000):
        for key in ("icd10cm", "snomed", "ucum", "hl7:v3-ActCode", ""):
            assert classify(key, code).cls in {"free-text", "malformed", "well-formed"}
