"""The sample data counted independently of its generator, from the bytes in the folder."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "sample_data"
TERMINOLOGY = ROOT.parent / "shared" / "terminology"
MANIFEST: dict[str, Any] = yaml.safe_load((DATA / "MANIFEST.yaml").read_text(encoding="utf-8"))
PLANTED: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in MANIFEST["planted"]}
SETS = ("training", "live")
FORMATS = ("fhir", "hl7v2", "omop")
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"
SHAPE_ICD10 = re.compile(r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?")
SHAPE_ICD9 = re.compile(r"[0-9]{3}\.[0-9]{1,2}")
LOCAL = re.compile(r"LAB[0-9]{3}")


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@cache
def fhir(which: str, kind: str) -> list[dict[str, Any]]:
    (path,) = (DATA / which / "fhir").glob(f"{kind}.ndjson*")
    return [orjson.loads(line) for line in _bytes(path).splitlines()]


@cache
def hl7(which: str) -> list[tuple[str, list[str]]]:
    """Every segment as (message type, fields): field n of the standard is at index n, also in MSH."""
    found = []
    kind = ""
    for path in sorted((DATA / which / "hl7v2").iterdir()):
        for line in _bytes(path).decode().split("\r"):
            fields = line.split("|")
            if fields[0] == "MSH":
                fields.insert(1, "|")
                kind = "^".join(fields[9].split("^")[:2])
            found.append((kind, fields))
    return found


def segments(which: str, name: str) -> Iterator[list[str]]:
    """The fields of every segment of that name, padded so that every field of interest exists."""
    return (fields + [""] * 50 for _, fields in hl7(which) if fields[0] == name)


@cache
def omop(which: str, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(DATA / which / "omop" / f"{table}.parquet").to_pylist()
    return rows


@cache
def concepts(which: str) -> dict[int, dict[str, Any]]:
    return {row["concept_id"]: row for row in omop(which, "concept")}


def loinc_ok(code: str) -> bool:
    """Regenstrief's mod 10 check digit."""
    if not re.fullmatch(r"[0-9]{1,7}-[0-9]", code):
        return False
    body, digit = code.split("-")
    total = sum(sum(divmod(int(n) * (2 - i % 2), 10)) for i, n in enumerate(reversed(body)))
    return (10 - total % 10) % 10 == int(digit)


def snomed_ok(code: str) -> bool:
    """Verhoeff's dihedral check digit, from the group's definition."""
    if not re.fullmatch(r"[1-9][0-9]{5,17}", code):
        return False

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    step = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for i, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(i % 8):
            value = step[value]
        check = times(check, value)
    return check == 0


def text_only(which: str, table: str, source: str | None) -> int:
    prefix = table.partition("_")[0]
    return sum(
        row[f"{prefix}_concept_id"] == 0 and not (source and row[source]) and bool(row[f"{prefix}_source_value"])
        for row in omop(which, table)
    )


def icd_codings(which: str) -> Iterator[str]:
    for row in fhir(which, "Condition"):
        yield from (c["code"] for c in row["code"].get("coding", []) if c["system"] == ICD)


def dg1_codes(which: str) -> Iterator[str]:
    for row in segments(which, "DG1"):
        first = row[3].split("^")
        if first[0]:
            assert first[2] == "I10C"
            yield first[0]


def source_codes(which: str) -> Iterator[str]:
    for row in omop(which, "condition_occurrence"):
        concept = concepts(which)[row["condition_source_concept_id"]]
        if concept["vocabulary_id"] == "ICD10CM":
            yield concept["concept_code"]


def is_words(code: str) -> bool:
    return " " in code or re.fullmatch(r"[a-z]+", code) is not None


@cache
def known() -> frozenset[str]:
    return frozenset(icd_codings("training"))


def is_repairable(code: str) -> bool:
    """A code of training without its dot or in lower case."""
    undotted = code.upper().replace(".", "")
    return code not in known() and undotted in {other.replace(".", "") for other in known()}


def is_new(code: str) -> bool:
    return SHAPE_ICD10.fullmatch(code) is not None and code not in known() and not is_repairable(code)


def obx_codes(which: str) -> Iterator[list[str]]:
    return (row[3].split("^") for row in segments(which, "OBX"))


def loinc_codings(which: str) -> Iterator[dict[str, str]]:
    return (c for row in fhir(which, "Observation") for c in row["code"]["coding"])


def distinct(which: str, segment: str, key: int, value: int) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in segments(which, segment):
        found.setdefault(row[key], set()).add(row[value])
    return found


VALUES = ("valueQuantity", "valueCodeableConcept", "valueString")
CLASSES = {"fhir": {"AMB", "IMP", "EMER"}, "hl7v2": {"O", "I", "E"}}

Count = dict[str, "Callable[[str], int]"]
DETECTORS: dict[str, Count] = {
    "birth-date-missing": {
        "fhir": lambda w: sum("birthDate" not in row for row in fhir(w, "Patient")),
        "hl7v2": lambda w: sum(values == {""} for values in distinct(w, "PID", 3, 7).values()),
        "omop": lambda w: sum(row["year_of_birth"] is None for row in omop(w, "person")),
    },
    "condition-text-only": {
        "fhir": lambda w: sum(not row["code"].get("coding") for row in fhir(w, "Condition")),
        "hl7v2": lambda w: sum(row[3].startswith("^") and len(row[3]) > 1 for row in segments(w, "DG1")),
        "omop": lambda w: text_only(w, "condition_occurrence", "condition_source_concept_id"),
    },
    "condition-words-as-code": {
        "fhir": lambda w: sum(map(is_words, icd_codings(w))),
        "hl7v2": lambda w: sum(map(is_words, dg1_codes(w))),
        "omop": lambda w: sum(map(is_words, source_codes(w))),
    },
    "condition-code-unformatted": {
        "fhir": lambda w: sum(map(is_repairable, icd_codings(w))),
        "hl7v2": lambda w: sum(map(is_repairable, dg1_codes(w))),
        "omop": lambda w: sum(map(is_repairable, source_codes(w))),
    },
    "observation-loinc-check-digit": {
        "fhir": lambda w: sum(c["system"] == LOINC and not loinc_ok(c["code"]) for c in loinc_codings(w)),
        "hl7v2": lambda w: sum(c[2] == "LN" and not loinc_ok(c[0]) for c in obx_codes(w)),
        "omop": lambda w: sum(row["vocabulary_id"] == "LOINC" and not loinc_ok(row["concept_code"]) for row in omop(w, "concept")),
    },
    "condition-icd9-as-icd10": {
        "fhir": lambda w: sum(SHAPE_ICD9.fullmatch(code) is not None for code in icd_codings(w)),
        "hl7v2": lambda w: sum(SHAPE_ICD9.fullmatch(code) is not None for code in dg1_codes(w)),
        "omop": lambda w: sum(SHAPE_ICD9.fullmatch(code) is not None for code in source_codes(w)),
    },
    "observation-local-code": {
        "fhir": lambda w: sum(LOCAL.fullmatch(c["code"]) is not None for c in loinc_codings(w)),
        "hl7v2": lambda w: sum(LOCAL.fullmatch(c[0]) is not None and c[2] == "99LAB" for c in obx_codes(w)),
        "omop": lambda w: sum(
            concepts(w)[row[f"{table}_source_concept_id"]]["vocabulary_id"] == "99LAB"
            for table in ("measurement", "observation")
            for row in omop(w, table)
        ),
    },
    "medication-system-missing": {
        "fhir": lambda w: sum(
            "system" not in c for row in fhir(w, "MedicationRequest") for c in row["medicationCodeableConcept"]["coding"]
        ),
        "hl7v2": lambda w: sum(len(row[2].split("^")) < 3 or not row[2].split("^")[2] for row in segments(w, "RXE")),
        "omop": lambda w: sum(row["drug_source_concept_id"] == 0 for row in omop(w, "drug_exposure")),
    },
    "observation-unit-null-token": {
        "fhir": lambda w: sum(row.get("valueQuantity", {}).get("unit") == "N/A" for row in fhir(w, "Observation")),
        "hl7v2": lambda w: sum(row[6] == "N/A" for row in segments(w, "OBX")),
        "omop": lambda w: sum(row["unit_source_value"] == "N/A" for row in omop(w, "measurement")),
    },
    "observation-value-missing": {
        "fhir": lambda w: sum(not any(v in row for v in VALUES) for row in fhir(w, "Observation")),
        "hl7v2": lambda w: sum(not row[5] for row in segments(w, "OBX")),
        "omop": lambda w: (
            sum(row["value_as_number"] is None for row in omop(w, "measurement"))
            + sum(not (row["value_as_string"] or row["value_as_concept_id"]) for row in omop(w, "observation"))
        ),
    },
    "condition-new-release": {
        "fhir": lambda w: sum(map(is_new, icd_codings(w))),
        "hl7v2": lambda w: sum(map(is_new, dg1_codes(w))),
        "omop": lambda w: sum(map(is_new, source_codes(w))),
    },
    "procedure-time-missing": {
        "fhir": lambda w: sum("performedDateTime" not in row for row in fhir(w, "Procedure")),
        "hl7v2": lambda w: sum(not row[5] for row in segments(w, "PR1")),
        "omop": lambda w: sum(
            row["procedure_date"] is None and row["procedure_datetime"] is None for row in omop(w, "procedure_occurrence")
        ),
    },
    "encounter-class-words": {
        "fhir": lambda w: sum(row["class"]["code"] not in CLASSES["fhir"] for row in fhir(w, "Encounter")),
        "hl7v2": lambda w: sum(not v <= CLASSES["hl7v2"] for v in distinct(w, "PV1", 19, 2).values()),
        "omop": lambda w: text_only(w, "visit_occurrence", "visit_source_concept_id"),
    },
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", sorted(PLANTED))
def test_live_has_the_planted_count_and_training_none(name: str, form: str) -> None:
    expected = PLANTED[name]["formats"][form]
    assert DETECTORS[name][form]("training") == 0
    assert DETECTORS[name][form]("live") == expected.get("planted", 0)
    assert ("not-carried" in expected) != ("planted" in expected)
    if form == "fhir":
        assert expected["planted"] == round(PLANTED[name]["share"] * PLANTED[name]["eligible"]) > 10


def test_live_declares_one_other_release_than_training() -> None:
    release = MANIFEST["releases"]["condition.code"]
    for which in SETS:
        codings = [c for row in fhir(which, "Condition") for c in row["code"].get("coding", [])]
        versions = Counter(c["version"] for c in codings if c["system"] == ICD)
        diagnoses = Counter(row[3].split("^")[6] for row in segments(which, "DG1") if row[3].count("^") > 1)
        (vocabulary,) = (r for r in omop(which, "vocabulary") if r["vocabulary_id"] == "ICD10CM")
        assert versions == diagnoses
        assert set(versions) == {release[which]}
        assert release[which] in vocabulary["vocabulary_version"]
    counted = {"fhir": len(list(icd_codings("live"))), "hl7v2": len(list(dg1_codes("live")))}
    assert release["codings"] == {**counted, "omop": len(list(source_codes("live")))}


def test_every_detector_belongs_to_a_planted_defect() -> None:
    assert set(DETECTORS) == set(PLANTED)
    assert len(PLANTED) >= 12


def test_the_script_writes_the_committed_data(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "make_sample_data.py"), "--out", str(tmp_path)]
    subprocess.run(script, check=True, env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"})
    made = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(DATA): path for path in DATA.rglob("*") if path.is_file()}
    assert set(made) == set(kept)
    for name, path in made.items():
        if name.suffix == ".parquet":
            assert pq.read_table(path).equals(pq.read_table(kept[name])), name
        elif name.name == "MANIFEST.yaml":
            assert _contents(path) == _contents(kept[name])
        else:
            assert _bytes(path) == _bytes(kept[name]), name


def _contents(path: Path) -> dict[str, Any]:
    """The manifest without what the versions of zlib and PyArrow decide."""
    manifest: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        if entry["path"].endswith((".gz", ".parquet")):
            del entry["bytes"], entry["sha256"]
    return manifest


def test_the_manifest_lists_every_file_as_it_is() -> None:
    listed = {entry["path"]: entry for entry in MANIFEST["files"]}
    there = {path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.is_file()}
    production = yaml.safe_load((DATA / "production" / "MANIFEST.yaml").read_text("utf-8"))
    listed |= {f"production/{entry['path']}": entry for entry in production["files"]}
    assert there == set(listed) | {"MANIFEST.yaml", "README.md", "production/MANIFEST.yaml"}
    for name, entry in listed.items():
        data = (DATA / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), name


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 5_000_000


@pytest.mark.parametrize("which", SETS)
def test_records_by_type_are_as_counted_here(which: str) -> None:
    records = MANIFEST["sets"][which]["records"]
    assert records["fhir"] == {kind: len(fhir(which, kind)) for kind in records["fhir"]}
    assert records["omop"] == {table: len(omop(which, table)) for table in records["omop"]}
    counts = Counter(kind for kind, fields in hl7(which) if fields[0] == "MSH")
    counts.update(fields[0] for _, fields in hl7(which) if fields[0] in records["hl7v2"])
    assert records["hl7v2"] == dict(counts)


@pytest.mark.parametrize("which", SETS)
def test_the_three_formats_hold_the_same_records(which: str) -> None:
    f, v, o = (MANIFEST["sets"][which]["records"][form] for form in FORMATS)
    assert f["Patient"] == len(distinct(which, "PID", 3, 7)) == o["person"] == 400
    assert f["Encounter"] == len(distinct(which, "PV1", 19, 2)) == o["visit_occurrence"]
    assert f["Condition"] == v["DG1"] == o["condition_occurrence"]
    assert f["Observation"] == v["OBX"] == o["measurement"] + o["observation"]
    assert f["MedicationRequest"] == v["RXE"]
    assert f["Immunization"] == v["RXA"] == o["drug_exposure"] - v["RXE"]
    assert f["Procedure"] == v["PR1"] == o["procedure_occurrence"]
    assert (f["AllergyIntolerance"], f["DiagnosticReport"]) == (v["AL1"], v["OBR"])
    assert f["DocumentReference"] == v["TXA"] == o["note"]


@pytest.mark.parametrize("which", SETS)
def test_the_three_formats_hold_the_same_codes_values_and_times(which: str) -> None:
    typed = Counter(icd_codings(which))
    assert typed == Counter(dg1_codes(which))
    onsets = Counter(row["onsetDateTime"][:19] for row in fhir(which, "Condition"))
    starts = Counter(row["condition_start_datetime"].isoformat() for row in omop(which, "condition_occurrence"))
    assert onsets == starts == Counter(_iso(row[5]) for row in segments(which, "DG1"))
    rows = omop(which, "measurement") + omop(which, "observation")
    codes = Counter(c["code"] for c in loinc_codings(which))
    assert codes == Counter(c[0] for c in obx_codes(which))
    assert codes == Counter(row.get("measurement_source_value") or row["observation_source_value"] for row in rows)
    quantities = (row["valueQuantity"] for row in fhir(which, "Observation") if "valueQuantity" in row)
    values = Counter((float(q["value"]), q["unit"]) for q in quantities)
    numeric = (row for row in segments(which, "OBX") if row[2] == "NM" and row[5])
    assert values == Counter((float(row[5]), row[6].split("^")[0]) for row in numeric)
    measured = (row for row in omop(which, "measurement") if row["value_as_number"] is not None)
    assert values == Counter((row["value_as_number"], row["unit_source_value"]) for row in measured)
    drugs = Counter(r["medicationCodeableConcept"]["coding"][0]["code"] for r in fhir(which, "MedicationRequest"))
    assert drugs == Counter(row[2].split("^")[0] for row in segments(which, "RXE"))


def _iso(time: str) -> str:
    return f"{time[:4]}-{time[4:6]}-{time[6:8]}T{time[8:10]}:{time[10:12]}:{time[12:14]}"


def test_check_digits_and_codes_of_both_sets() -> None:
    for which in SETS:
        for row in omop(which, "concept"):
            ok = {"SNOMED": snomed_ok, "LOINC": loinc_ok}.get(row["vocabulary_id"], bool)
            assert ok(row["concept_code"]), row
        for kind in ("Procedure", "Condition", "AllergyIntolerance"):
            for coding in (c for row in fhir(which, kind) for c in row["code"].get("coding", [])):
                assert coding["system"] != "http://snomed.info/sct" or snomed_ok(coding["code"])


def test_live_has_no_code_that_training_lacks_but_the_planted_ones() -> None:
    planted = [code for code in icd_codings("live") if is_words(code) or SHAPE_ICD9.fullmatch(code)]
    planted += [code for code in icd_codings("live") if is_repairable(code) or is_new(code)]
    assert set(icd_codings("live")) - set(planted) == set(icd_codings("training"))
    for kind, element in (
        ("MedicationRequest", "medicationCodeableConcept"),
        ("Immunization", "vaccineCode"),
    ):
        seen = {which: {row[element]["coding"][0]["code"] for row in fhir(which, kind)} for which in SETS}
        assert seen["live"] == seen["training"]
    fewest = min(Counter(icd_codings("training")).values())
    assert fewest >= 20


def test_patients_are_disjoint() -> None:
    assert not set(distinct("training", "PID", 3, 7)) & set(distinct("live", "PID", 3, 7))
    for kind in MANIFEST["sets"]["live"]["records"]["fhir"]:
        if kind != "Organization":
            assert not {r["id"] for r in fhir("training", kind)} & {r["id"] for r in fhir("live", kind)}


@pytest.mark.parametrize("which", SETS)
def test_references_resolve_and_ids_are_unique(which: str) -> None:
    kinds = list(MANIFEST["sets"][which]["records"]["fhir"])
    ids = [f"{kind}/{row['id']}" for kind in kinds for row in fhir(which, kind)]
    assert len(ids) == len(set(ids))
    text = b"".join(orjson.dumps(row) for kind in kinds for row in fhir(which, kind)).decode()
    assert set(re.findall(r'"reference":"([^"]+)"', text)) <= set(ids)
    visits = {row["visit_occurrence_id"]: row["person_id"] for row in omop(which, "visit_occurrence")}
    for table in (
        "condition_occurrence",
        "drug_exposure",
        "measurement",
        "observation",
        "procedure_occurrence",
    ):
        rows = omop(which, table)
        assert len({next(iter(row.values())) for row in rows}) == len(rows)
        assert all(visits[row["visit_occurrence_id"]] == row["person_id"] for row in rows)
        used = {v for row in rows for k, v in row.items() if k.endswith("_concept_id") and v is not None}
        assert used <= set(concepts(which))


@pytest.mark.parametrize("which", SETS)
def test_hl7_repeats_agree_and_batches_add_up(which: str) -> None:
    for value in (5, 7, 8, 10, 15, 22, 29):
        assert all(len(values) == 1 for values in distinct(which, "PID", 3, value).values()), value
    assert all(len(values) == 1 for values in distinct(which, "PV1", 19, 2).values())
    assert all(len(values - {""}) == 1 for values in distinct(which, "PV1", 19, 45).values())
    declared = sum(int(row[1]) for row in segments(which, "BTS"))
    assert declared == sum(1 for _ in segments(which, "MSH"))
    for path in (DATA / which / "hl7v2").iterdir():
        assert b"\n" not in _bytes(path)


@pytest.mark.parametrize("which", SETS)
def test_times_are_plausible(which: str) -> None:
    lives = {row["id"]: (row.get("birthDate", ""), row.get("deceasedDateTime", "9")) for row in fhir(which, "Patient")}
    window = {"training": ("2023-01-01", "2025-01-01"), "live": ("2025-10-01", "2026-07-01")}[which]
    for kind in ("Encounter", "Condition", "Observation", "MedicationRequest", "Procedure", "Immunization"):
        for row in fhir(which, kind):
            birth, death = lives[(row.get("subject") or row["patient"])["reference"].removeprefix("Patient/")]
            times = re.findall(r"\d{4}-\d\d-\d\dT[\d:]+", orjson.dumps(row).decode())
            assert times or kind == "Procedure"
            assert all(birth < time < death and not time.endswith("T00:00:00") for time in times)
            at = row.get("effectiveDateTime") or row.get("onsetDateTime") or row.get("period", {}).get("start")
            assert at is None or window[0] <= at < window[1]
            period = row.get("period") or {
                "start": row.get("onsetDateTime"),
                "end": row.get("abatementDateTime"),
            }
            assert period["end"] is None or period["start"] < period["end"]


def test_training_and_live_share_their_mix_where_nothing_is_planted() -> None:
    codes = {w: Counter(r["vaccineCode"]["coding"][0]["code"] for r in fhir(w, "Immunization")) for w in SETS}
    assert codes["training"] == codes["live"]
    reports = {w: Counter(r["code"]["coding"][0]["code"] for r in fhir(w, "DiagnosticReport")) for w in SETS}
    assert reports["training"] == reports["live"]


@pytest.mark.skipif(not TERMINOLOGY.is_dir(), reason="the shared terminology tables are not on this machine")
def test_condition_codes_are_billable_in_the_releases_that_are_declared() -> None:
    releases = (TERMINOLOGY / "icd10cm_releases.csv").read_text(encoding="utf-8").splitlines()[1:]
    bit = {line.split(",")[3]: int(line.split(",")[1]) for line in releases}
    table = pq.read_table(TERMINOLOGY / "icd10cm_history.parquet", columns=["code", "billable_mask"])
    masks = dict(zip(table["code"].to_pylist(), table["billable_mask"].to_pylist(), strict=True))
    for code in set(icd_codings("training")):
        assert all(masks[code] >> i & 1 for i in range(bit["FY2023"], bit["FY2026 Apr update"] + 1)), code
    for code in filter(is_new, icd_codings("live")):
        assert masks[code] >> bit["FY2026"] & 1, code
        assert not masks[code] >> bit["FY2024 Apr update"] & 1, code
    old = set(pq.read_table(TERMINOLOGY / "icd9cm_history.parquet", columns=["code"])["code"].to_pylist())
    assert {code for code in icd_codings("live") if SHAPE_ICD9.fullmatch(code)} <= old
