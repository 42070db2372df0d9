"""Two short cuts of the FHIR reader give what the long way gives: columns once per different value, and concepts as numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ehrready import concepts, pipeline
from ehrready.engines.duckdb import open_engine
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.readers import blocks, fhir, fhir_sql, leaves
from ehrready.readers.base import Ended, Read, Rejected, SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.fhir_look import mapping
from ehrready.tables import ALL

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"

_codings = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "system": st.sampled_from([SNOMED, LOINC, "urn:x", ""]), "code": st.sampled_from(["44054006", "2345-7", "UNK", " ", "E11.9"]),
            "display": st.sampled_from(["Diabetes", "", "Glucose"]), "version": st.sampled_from(["2024", ""]),
        },
    ),
    max_size=3,
)  # fmt: skip
_concept: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({}, optional={"text": st.sampled_from(["sugar", "unknown", " "]), "coding": _codings}),
    st.sampled_from(["text", None, 5, {"coding": {"code": "2345-7"}}, {"coding": []}]),
)
_times = st.sampled_from(["2024-03-05", "2024-03", "2024", "2024-03-05T10:00:00+02:00", "2024-13-01", " ", 2024, None, "1700-01-01"])
_people = st.sampled_from(
    ["Patient/p1", "Patient/p2", "urn:uuid:p1", "https://x.org/fhir/Patient/p3", "#p", "Group/g", "Patient/", " ", None]
)
_value = st.one_of(
    st.fixed_dictionaries(
        {"valueQuantity": st.fixed_dictionaries({}, optional={
            "value": st.sampled_from([5, -1.5, "7", 1e400, "n/a", 999]), "unit": st.sampled_from(["mg/dL", "", "UNK"]),
            "system": st.just("http://unitsofmeasure.org"), "code": st.sampled_from(["mg/dL", "%"]), "comparator": st.just("<"),
        })}
    ),
    st.fixed_dictionaries({"valueString": st.sampled_from(["5.4", "positive", "> 3 mg/dL", ""])}),
    st.fixed_dictionaries({"valueCodeableConcept": _concept}),
    st.sampled_from([{}, {"valueBoolean": True}, {"valueInteger": 3}, {"dataAbsentReason": {"coding": [{"code": "masked"}]}}]),
)  # fmt: skip


def _resource(kind: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"resourceType": st.just(kind)}, optional={"id": st.sampled_from(["a", "b", "c", "p1", "p2", "e1"]), **more}
    )


_who = {"subject": st.fixed_dictionaries({"reference": _people}), "encounter": st.just({"reference": "Encounter/e1"})}
_status = {"status": st.sampled_from(["final", "entered-in-error", "preliminary", "unknown", None])}
_parts = st.lists(
    st.fixed_dictionaries({}, optional={"code": _concept}).flatmap(lambda part: _value.map(lambda value: {**part, **value})), max_size=3
)
_resources = st.one_of(
    _resource(
        "Patient", birthDate=_times, gender=st.sampled_from(["female", "UNK"]), _birthDate=st.just({"extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}),
        meta=st.sampled_from([{"security": [{"code": "HTEST"}]}, {}]), communication=st.lists(st.fixed_dictionaries({"language": _concept}), max_size=2),
    ),
    _resource("Encounter", **_who, **_status, period=st.fixed_dictionaries({}, optional={"start": _times, "end": _times}), type=st.lists(_concept, max_size=2)),
    _resource("Condition", **_who, code=_concept, onsetDateTime=_times, recordedDate=_times, verificationStatus=_concept, category=st.lists(_concept, max_size=2)),
    _resource("Observation", **_who, **_status, code=_concept, effectiveDateTime=_times, component=_parts, interpretation=st.lists(_concept, max_size=2))
    .flatmap(lambda body: _value.map(lambda value: {**body, **value})),
    _resource("MedicationRequest", **_who, authoredOn=_times, medicationCodeableConcept=_concept),
    _resource("MedicationRequest", **_who, medicationReference=st.sampled_from([{"reference": f"Medication/{i}"} for i in ("a", "b", "none")])),
    _resource("Medication", code=_concept),
    _resource("Procedure", **_who, code=_concept, performedDateTime=_times),
)  # fmt: skip


def _lines(folder: Path, resources: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "export.ndjson").write_text("".join(json.dumps(resource) + "\n" for resource in resources), "utf-8")
    entries = [{"fullUrl": f"urn:uuid:{i}", "resource": resource} for i, resource in enumerate(resources[:5])]
    (folder / "bundle.json").write_bytes(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode())
    return folder


def _tables(folder: Path, *, shared: bool) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of every canonical table, in an order of their own."""
    reader = FhirReader()
    reader.shared = shared
    files = [SourceFile(1, folder / "bundle.json", 1, "fhir", "document"), SourceFile(2, folder / "export.ndjson", 1, "fhir", "ndjson")]
    with open_engine(threads=1) as con:
        for _ in reader.read(files, con):
            pass
        return {name: _rows(con, name) for name in ALL}


def _rows(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'"{name}"' for name in ALL[table].names)
    # a record that is kept out has no concepts in either way; what it would say is not asked
    return sorted(con.execute(f'SELECT {columns} FROM "{table}"').fetchall(), key=repr)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_resources, min_size=1, max_size=25))
def test_columns_of_different_values_are_those_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: list[dict[str, Any]]
) -> None:
    folder = _lines(tmp_path / "data", resources)
    monkeypatch.setattr(leaves, "FEW", 10**9)
    rows = _tables(folder, shared=False)
    monkeypatch.setattr(leaves, "FEW", 0)
    assert _tables(folder, shared=False) == rows


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_resources, min_size=1, max_size=25))
def test_concepts_that_are_numbers_are_the_same_rows(tmp_path: Path, resources: list[dict[str, Any]]) -> None:
    folder = _lines(tmp_path / "data", resources)
    assert _tables(folder, shared=True) == _tables(folder, shared=False)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_resources, min_size=1, max_size=25))
def test_concepts_are_the_same_whether_they_wait_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: list[dict[str, Any]]
) -> None:
    folder = _lines(tmp_path / "data", resources)
    waited = _tables(folder, shared=True)
    monkeypatch.setattr(concepts, "MOST_WAITING", 300)
    assert _tables(folder, shared=True) == waited


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_resources, min_size=1, max_size=25))
def test_a_profile_counts_the_same_whether_concepts_are_numbers_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: list[dict[str, Any]]
) -> None:
    folder = _lines(tmp_path / "data", resources)
    monkeypatch.setattr(leaves, "FEW", 3)
    short, _, _ = pipeline.read_profile([str(folder)], Options(internal=True))
    monkeypatch.setattr(leaves, "FEW", 10**9)
    long, _, _ = pipeline.read_profile([str(folder)], Options(internal=True), also=lambda _: None)  # who looks at the tables sees rows
    assert short.to_json() == long.to_json()


def _both_ways(folder: Path, resources: list[tuple[str, dict[str, Any]]]) -> Profile:
    """Return the profile of a Bundle of (fullUrl, resource), the same bytes both ways."""
    entries = [{"fullUrl": url, "resource": resource} for url, resource in resources]
    (folder / "bundle.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    short, _, _ = pipeline.read_profile([str(folder)], Options(internal=True))
    long, _, _ = pipeline.read_profile([str(folder)], Options(internal=True), also=lambda _: None)
    assert short.to_json() == long.to_json()
    return short


@pytest.mark.parametrize(
    ("url", "id_", "counts"),
    [
        ("https://x.org/Patient?identifier=1", "p1", True),
        ("urn:uuid:1", "p1", True),
        ("urn:uuid:1", "NA", False),
        ("urn:uuid:1", "#p", True),
    ],
)
def test_states_are_those_of_the_id_that_a_url_stands_for(tmp_path: Path, url: str, id_: str, counts: bool) -> None:
    condition = {"resourceType": "Condition", "id": "c", "subject": {"reference": url}}
    found = _both_ways(tmp_path, [(url, {"resourceType": "Patient", "id": id_}), ("urn:uuid:9", condition)]).frames
    assert found["relations"]["condition.patient_id", "unresolved"] == (0, int(id_ != "#p"), 0)
    assert (("condition.patient_id", "all", "", "present") in found["states"]) == counts


def test_what_an_encounter_says_of_itself_is_where_the_encounter_is(tmp_path: Path) -> None:
    """Two with one id, of which the second does not say where: class and record are of the first one's site in either way."""
    coded: dict[str, Any] = {
        "resourceType": "Encounter",
        "id": "e",
        "class": {"system": "x", "code": "AMB"},
        "subject": {"reference": "Patient/p"},
    }
    resources: list[dict[str, Any]] = [
        {**coded, "serviceProvider": {"reference": "Organization/far"}},
        coded,
        {"resourceType": "Patient", "id": "p"},
    ]
    states = _both_ways(tmp_path, [(f"urn:uuid:{i}", resource) for i, resource in enumerate(resources)]).frames["states"]
    assert states["encounter.class", "site", "far", "*"][0] == states["encounter.status", "site", "far", "*"][0] == 2


@pytest.mark.parametrize("first", [True, False])
def test_a_null_among_resources_is_no_object_and_no_reason_to_lose_the_others(tmp_path: Path, first: bool) -> None:
    resources = [None, {"resourceType": "Patient", "id": "p"}, {"resourceType": "Foo"}]
    (tmp_path / "a.json").write_bytes(orjson.dumps(resources if first else resources[::-1]))
    _, ledger, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    (row,) = ledger.rows()
    assert (row["status"], row["read"], row["profiled"], row["reasons"]) == ("read", 3, 2, {"not-an-object": 1})


def _forms() -> Iterator[Any]:
    for table, entry in mapping().items():
        for kind in entry["types"]:
            for urls in (False, True):
                yield fhir_sql._form(table, kind, urls, True)


def test_nothing_comes_of_nothing() -> None:
    """Columns leave out the ways whose leaves are all null: each of them must give null then."""
    with open_engine(threads=1) as con:
        fhir_sql.prepare(con, mapping(), shared=True)
        asked = 0
        for form in _forms():
            for name, ways in form.columns.ways.items():
                for way in ways:
                    used = leaves._leaves_of(way, {})
                    if not used:
                        continue
                    given_ = ", ".join(f"NULL::VARCHAR AS {leaf}, NULL::VARCHAR AS k{leaf[1:]}" for leaf in sorted(used))
                    assert con.execute(f"SELECT {way} FROM (SELECT {given_})").fetchall() == [(None,)], (form.kind, name)
                    asked += 1
    assert asked > 100


def test_the_same_text_may_get_another_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that are remembered are bounded: what is forgotten is numbered anew, and counted as one."""
    from ehrready import concepts

    lines = [
        {"resourceType": "Condition", "id": f"c{i}", "subject": {"reference": "Patient/p"}, "code": {"coding": [{"system": SNOMED, "code": str(10**7 + i % 7)}]}}
        for i in range(300)
    ]  # fmt: skip
    (tmp_path / "a.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines[:150]))
    (tmp_path / "b.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines[150:]))
    expected, _, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    monkeypatch.setattr(concepts, "MOST_KNOWN", 0)
    monkeypatch.setattr(fhir, "MOST_WAITING", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    found, _, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    assert found.to_json() == expected.to_json()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(
            [
                b"",
                b"a",
                b" b ",
                b"long enough to cross a block",
                "\u00e9".encode(),
                b"\xff",
                b"\t",
                b"c\r",
                b"d\v",
                b"\fe",
                b"f\f\r",
                b"g\v ",
            ]
        ),
        max_size=12,
    ),
    st.booleans(),
    st.integers(1, 40),
)
def test_lines_are_those_of_the_file_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[bytes], ended: bool, size: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    (tmp_path / "x").write_bytes(data)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    found, read, rejected = [], 0, []
    for item in blocks.Blocks().lines([SourceFile(1, tmp_path / "x", len(data), "fhir", "ndjson")]):
        match item:
            case Read(_, n):
                read += n
            case Rejected(_, place, reason, _):
                rejected.append((place, reason))
            case Ended():
                pass
            case table:
                found += list(zip(table.column("pos").to_pylist(), table.column("text").to_pylist(), strict=True))
    numbered = [(n, line.strip(b" \t\r\x0b\x0c")) for n, line in enumerate(data.split(b"\n"), 1)]
    good = [(n, line.decode()) for n, line in numbered if line and b"\xff" not in line]
    bad = [(n, "encoding") for n, line in numbered if b"\xff" in line]
    # what JSON takes for white space may stand behind a text: lines are not copied to cut it off
    assert [(n, text.rstrip(" \t\r\n")) for n, text in found] == good
    assert rejected == (bad if data.strip() else [(0, "empty")])
    assert read == len(good) + len(rejected)


def test_no_table_has_more_coded_elements_than_columns_of_numbers() -> None:
    from ehrready import concepts

    assert max(len(entry["concepts"]) for entry in mapping().values()) == concepts.MOST
