"""The FHIR reader: every packaging of resources, and what is no resource."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrready import pipeline, resources
from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.options import Options
from ehrready.readers.base import Event, SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.streams import head

PATIENT = {"resourceType": "Patient", "id": "p1", "birthDate": "1970-01-01", "gender": "female"}
CONDITION = {
    "resourceType": "Condition",
    "id": "c1",
    "subject": {"reference": "Patient/p1"},
    "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9", "display": "T2DM"}]},
    "onsetDateTime": "2024-03-05T10:00:00+02:00",
}


def read(folder: Path, *queries: str) -> tuple[Ledger, list[list[tuple[Any, ...]]]]:
    """Read a folder with the FHIR reader; returns the ledger and the rows of the queries."""
    reader, files = FhirReader(), []
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file()), 1):
        kind = reader.recognise(path, head(path))
        files.append(SourceFile(number, path, path.stat().st_size, "fhir" if kind else "", kind, "" if kind else "not-recognised"))
    ledger = Ledger.of(files)
    with open_engine(memory="512MB", threads=1) as con:
        for event in reader.read([file for file in files if file.kind], con):
            ledger.add(event)
        ledger.close()
        return ledger, [con.execute(query).fetchall() for query in queries]


def totals(ledger: Ledger) -> tuple[int, int, dict[str, int]]:
    """Return read, profiled and the reasons over all files."""
    reasons: dict[str, int] = {}
    for entry in ledger.entries.values():
        for reason, n in entry.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + n
    return sum(e.read for e in ledger.entries.values()), sum(e.profiled for e in ledger.entries.values()), reasons


def bundle(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources], **more}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(PATIENT)),
        ("a.json", json.dumps(PATIENT, indent=2)),
        ("a.ndjson", json.dumps(PATIENT) + "\n" + json.dumps(CONDITION)),
        ("a.ndjson", json.dumps(PATIENT) + "\r\n\r\n" + json.dumps(CONDITION) + "\r\n"),
        ("a.json", json.dumps(bundle(PATIENT, CONDITION))),
        ("a.json", json.dumps(bundle(PATIENT, CONDITION), indent=4)),
        ("a.ndjson", json.dumps(bundle(PATIENT)) + "\n" + json.dumps(bundle(CONDITION)) + "\n"),
        ("a.json", json.dumps([PATIENT, CONDITION])),
        ("a.json", json.dumps(bundle(bundle(PATIENT), CONDITION))),
        ("a.json", "\ufeff" + json.dumps(PATIENT)),
        ("export", json.dumps(PATIENT)),
    ],
)
def test_every_packaging_gives_the_same_resources(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    ledger, (patients, conditions) = read(
        tmp_path, "SELECT patient_id, birth_date, sex FROM patient", 'SELECT patient_id, left("at", 19) FROM condition'
    )
    with_condition = "Condition" in content
    assert totals(ledger) == (1 + with_condition, 1 + with_condition, {})
    assert patients == [("p1", "1970-01-01", "female")]
    assert conditions == ([("p1", "2024-03-05T10:00:00")] if with_condition else [])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_files_are_read_by_content_and_a_cut_one_is_truncated(tmp_path: Path, pack: Any) -> None:
    # noise keeps the compressor from folding the lines into nothing, so that half the file is half the lines
    lines = b"".join(orjson.dumps(PATIENT | {"id": f"p{i}", "x": str(hash((i, 7)) ** 5)}) + b"\n" for i in range(20000))
    whole = pack(lines)
    (tmp_path / "whole.ndjson").write_bytes(whole)
    ledger, _ = read(tmp_path)
    assert totals(ledger) == (20000, 20000, {})
    (tmp_path / "whole.ndjson").write_bytes(whole[: len(whole) // 2])
    ledger, _ = read(tmp_path)
    assert ledger.unreadable == 1
    read_, profiled, reasons = totals(ledger)
    assert read_ == profiled + sum(reasons.values())
    assert "truncated" in reasons
    assert profiled > 0


def test_one_bad_line_does_not_touch_its_neighbours(tmp_path: Path) -> None:
    bad = [
        b'{"resourceType":"Patient"',
        b'{"resourceType":"Patient","id":NaN}',
        b'{"resourceType":"Patient",}',
        b"[1]",
        b'"x"',
        b"{}",
        b"\xff\xfe",
    ]
    good = [orjson.dumps(PATIENT | {"id": f"p{i}"}) for i in range(10)]
    for number, line in enumerate(bad):
        (tmp_path / f"f{number}.ndjson").write_bytes(b"\n".join([*good[:3], line, *good[3:]]) + b"\n")
    ledger, (rows,) = read(tmp_path, "SELECT record >> 40 f, count(*) FROM patient GROUP BY 1 ORDER BY 1")
    assert rows == [(number, 10) for number in range(1, len(bad) + 1)]
    assert [next(iter(e.reasons)) for e in ledger.entries.values()] == [
        "invalid-json", "invalid-json", "invalid-json", "not-an-object", "not-an-object", "no-resource-type", "encoding",
    ]  # fmt: skip
    assert all((e.read, e.profiled) == (11, 10) for e in ledger.entries.values())


def test_a_first_line_that_is_broken_does_not_make_the_file_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"resourceType":"Patient",\n' + orjson.dumps(PATIENT) + b"\n")
    (tmp_path / "b.json").write_bytes(b'{"resourceType":"Patient",\n' + orjson.dumps(PATIENT) + b"\n")
    ledger, _ = read(tmp_path)
    assert [(e.read, e.profiled) for e in ledger.entries.values()] == [(2, 1), (2, 1)]


def test_a_bundle_that_is_no_json_does_not_touch_the_others(tmp_path: Path) -> None:
    """Bundles are parsed when they are opened, and not before: what is broken is found then."""
    entries = [{"resource": PATIENT | {"id": f"p{i}"}} for i in range(3)]
    good = json.dumps({"resourceType": "Bundle", "entry": entries})
    texts = {
        "a": good,
        "cut": good[:-30],
        "more": good + " x",
        "comma": good[:-2] + ",]}",
        "nan": good.replace('"resourceType": "Bundle"', '"resourceType": "Bundle", "total": NaN', 1),
        "none": '{"resourceType": "Bundle"}',
        "text": '{"resourceType": "Bundle", "entry": "x"}',
        "lines": f"{good}\n{good}\n{good[:-9]}\n",
        "z": good,
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    ledger, (rows,) = read(tmp_path, "SELECT record >> 40 f, count(*) FROM patient GROUP BY 1 ORDER BY 1")
    files = {name: ledger.entries[number] for number, name in enumerate(sorted(texts), 1)}
    assert {name: (e.read, e.profiled, e.reasons) for name, e in files.items()} == {
        "a": (3, 3, {}),
        "comma": (1, 0, {"invalid-json": 1}),
        "cut": (1, 0, {"invalid-json": 1}),
        "lines": (7, 6, {"invalid-json": 1}),
        "more": (1, 0, {"invalid-json": 1}),
        "nan": (1, 0, {"invalid-json": 1}),
        "none": (0, 0, {}),
        "text": (1, 0, {"not-an-object": 1}),
        "z": (3, 3, {}),
    }
    assert rows == [(1, 3), (4, 6), (9, 3)]
    assert {name for name, e in files.items() if e.status == "unreadable"} == {"comma", "cut", "more", "nan"}


@pytest.mark.parametrize("name", ["a.json", "export"])
def test_lines_of_which_the_first_is_long_are_lines_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    first = CONDITION | {"note": [{"text": "x" * 70_000}]}
    (tmp_path / name).write_text(
        "\n".join([json.dumps(first), json.dumps(PATIENT), '{"resourceType":"Pat', json.dumps(CONDITION)]), "utf-8"
    )
    ledger, (records,) = read(tmp_path, "SELECT record & 1023 FROM condition ORDER BY 1")
    assert totals(ledger) == (4, 3, {"invalid-json": 1})
    assert records == [(1,), (4,)]


def test_files_that_are_not_fhir_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "log.ndjson").write_text('{"exportId":"1","eventId":"kickoff"}\n{"exportId":"1"}\n')
    (tmp_path / "package.json").write_text('{"name":"x","resource":{"resourceType":"Patient"}}')
    (tmp_path / "README.md").write_text("# an export\n")
    (tmp_path / "empty.ndjson").write_text("\n \n")
    ledger, _ = read(tmp_path)
    statuses = {Path(str(n)): (e.status, e.reasons) for n, e in ledger.entries.items()}
    assert [s for s, _ in statuses.values()] == ["skipped", "unreadable", "skipped", "skipped"]
    assert ledger.entries[2].reasons == {"empty": 1}


def test_wrong_types_are_findings_and_not_missing_values(tmp_path: Path) -> None:
    observations: list[dict[str, Any]] = [
        {"valueQuantity": {"value": 5.4, "unit": "mg"}, "code": {"text": "a"}},
        {"valueQuantity": {"value": "5.4", "unit": "mg"}, "code": "glucose"},
        {"valueQuantity": {"value": 7}, "code": {"coding": {"code": "1"}}},
        {"valueString": "SEE NOTE"},
    ]
    lines = [orjson.dumps({"resourceType": "Observation", "id": str(i), **o}) for i, o in enumerate(observations)]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(lines))
    _, (defects, values) = read(
        tmp_path,
        "SELECT element, kind, count(*) FROM defect GROUP BY ALL ORDER BY ALL",
        "SELECT value_kind, value_number FROM observation ORDER BY record",
    )
    assert defects == [("observation.code", "wrong-type", 2), ("observation.value", "wrong-type", 1)]
    assert values == [("number", 5.4), ("text", None), ("number", 7.0), ("text", None)]


def test_a_date_written_as_a_number_is_of_the_wrong_type_and_a_quoted_text_is_not(tmp_path: Path) -> None:
    resources = [
        PATIENT | {"birthDate": 19800101},
        PATIENT | {"birthDate": "1980"},
        {"resourceType": "Observation", "id": "o", "code": {"text": "a"}, "valueString": '"clear" fluid'},
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(map(orjson.dumps, resources)))
    _, (defects,) = read(tmp_path, "SELECT element, kind, count(*) FROM defect GROUP BY ALL")
    assert defects == [("patient.birth_date", "wrong-type", 1)]


def test_a_cut_document_and_a_cut_last_line_are_unreadable(tmp_path: Path) -> None:
    whole = json.dumps(bundle(PATIENT, CONDITION), indent=1)
    (tmp_path / "a.json").write_text(whole[: len(whole) // 2])
    (tmp_path / "b.ndjson").write_text(json.dumps(PATIENT) + "\n" + json.dumps(PATIENT)[:40])
    ledger, _ = read(tmp_path)
    assert [entry.status for entry in ledger.entries.values()] == ["unreadable", "truncated"]


def test_reasons_for_absence_null_flavours_and_exclusions(tmp_path: Path) -> None:
    why = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
    resources = [
        PATIENT | {"id": "p2", "_birthDate": {"extension": [{"url": why, "valueCode": "masked"}]}, "birthDate": None},
        CONDITION | {"code": {"extension": [{"url": why, "valueCode": "unknown"}]}},
        CONDITION | {"code": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "MSK"}]}},
        CONDITION | {"verificationStatus": {"coding": [{"code": "entered-in-error"}]}},
        PATIENT | {"id": "test", "meta": {"security": [{"code": "HTEST"}]}},
        CONDITION | {"subject": {"reference": "Patient/test"}},
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(map(orjson.dumps, resources)))
    _, (births, concepts, excluded) = read(
        tmp_path,
        "SELECT birth_date FROM patient WHERE id = 'p2'",
        "SELECT n_codings, absent_reason FROM concept WHERE element = 'condition.code' ORDER BY record",
        "SELECT excluded, count(*) FROM (SELECT excluded FROM condition UNION ALL SELECT excluded FROM patient) GROUP BY 1 ORDER BY 1 NULLS FIRST",
    )
    assert births == [("\x01masked",)]
    assert concepts == [(0, "unknown"), (0, "masked")]
    assert excluded == [(None, 3), ("entered-in-error", 1), ("test-patient", 2)]


def test_a_source_cannot_forge_the_mark_of_a_stated_absence(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(orjson.dumps(PATIENT | {"birthDate": "\x01masked"}))
    _, (births,) = read(tmp_path, "SELECT birth_date FROM patient")
    assert births == [("masked",)]


def test_medication_references_are_resolved_inside_and_outside(tmp_path: Path) -> None:
    code = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]}
    resources = [
        {"resourceType": "MedicationRequest", "id": "1", "medicationReference": {"reference": "Medication/m1"}},
        {
            "resourceType": "MedicationRequest",
            "id": "2",
            "medicationReference": {"reference": "#m"},
            "contained": [{"resourceType": "Medication", "id": "m", "code": code}],
        },
        {"resourceType": "MedicationRequest", "id": "3", "medicationReference": {"reference": "Medication/gone"}},
        {"resourceType": "Medication", "id": "m1", "code": code},
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(map(orjson.dumps, resources)))
    _, (concepts,) = read(tmp_path, "SELECT n_codings FROM concept WHERE element = 'medication.code' ORDER BY record")
    assert concepts == [(1,), (1,), (0,)]


_LINE = st.one_of(
    st.builds(lambda i: orjson.dumps(PATIENT | {"id": str(i)}), st.integers(0, 9)),
    st.builds(lambda: orjson.dumps(bundle(PATIENT, CONDITION))),
    st.sampled_from(
        [b"", b"  ", b"{", b"[]", b"null", b'{"a":1}', b'{"resourceType":"Patient",}', b"\xff", b'{"resourceType":"X\\ud800"}', b"\x00"]
    ),
    st.binary(max_size=12).filter(lambda b: b"\n" not in b),
)


@settings(max_examples=40)
@given(lines=st.lists(_LINE, max_size=12))
def test_ledger_law_read_is_profiled_plus_rejected(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("law")
    (folder / "a.ndjson").write_bytes(orjson.dumps(PATIENT) + b"\n" + b"\n".join(lines))
    ledger, (rows, types) = read(folder, "SELECT count(*) FROM patient", "SELECT coalesce(sum(n), 0)::BIGINT FROM types")
    read_, profiled, reasons = totals(ledger)
    assert read_ == profiled + sum(reasons.values())
    assert profiled == types[0][0]
    good = 1
    for line in lines:
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(document, dict) and document.get("resourceType") in {"Patient", "Bundle"}:
            good += 1
    assert rows == [(good,)]


def test_records_on_published_data_equal_an_independent_count(shared: Path) -> None:
    for name in ("us_core_examples", "cumulus_etl", "synthea_bundles", "converter_output", "reportstream_elr", "bulk_synthea_10patients"):
        folder = shared / "data" / "fhir_r4" / name
        ledger, (types,) = read(folder, "SELECT type, sum(n)::BIGINT FROM types WHERE type <> 'other' GROUP BY 1")
        expected: dict[str, int] = {}
        for path in sorted(folder.rglob("*")):
            for resource in _resources(path):
                kind = str(resource.get("resourceType", ""))
                if kind:
                    expected[kind] = expected.get(kind, 0) + 1
        assert dict(types) == expected, name
        assert totals(ledger)[0] == sum(expected.values()), name


def _resources(path: Path) -> list[dict[str, Any]]:
    """Walk a file with the json module: resources, Bundles unpacked."""
    text = path.read_text("utf-8-sig")
    try:
        documents = [json.loads(text)]
    except json.JSONDecodeError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    found: list[dict[str, Any]] = []
    while documents:
        document = documents.pop()
        if document.get("resourceType") == "Bundle":
            documents += [e["resource"] for e in document.get("entry", []) if "resource" in e]
        else:
            found.append(document)
    return found


def test_a_statement_that_a_signal_ends_is_no_fault_of_the_files() -> None:
    """The engine raises RuntimeError then, in place of what the handler raised; a reader that crashes makes its files unreadable."""

    class Stopped(FhirReader):
        def read(self, files: Sequence[SourceFile], con: duckdb.DuckDBPyConnection) -> Iterator[Event]:
            raise RuntimeError("Query interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        pipeline.read_profile([str(resources.folder("sample_data") / "live" / "fhir")], Options(), readers=[Stopped()])
