"""Documents that are cut as they are read give what they give when they are read whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.readers import blocks
from ehrready.readers.base import SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.json_stream import BadDocument, Cutter

_TEXT = st.text(alphabet='ab{}[]"\\,: é\n', max_size=8)
_VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
)
_ELEMENT = st.dictionaries(_TEXT, _VALUE, max_size=3) | st.lists(_VALUE, max_size=2)


def cut(text: bytes, size: int) -> tuple[list[Any], bool]:
    """Feed a document in pieces of a size; returns its elements, parsed, and whether it was whole."""
    cutter = Cutter.of(text)
    assert cutter is not None
    found = [element for start in range(0, len(text), size) for element in cutter.feed(text[start : start + size])]
    return [orjson.loads(element) for element in found], cutter.finish() is not None


@given(
    elements=st.lists(_ELEMENT | st.none() | _TEXT, max_size=6),
    before=_VALUE,
    after=_VALUE,
    size=st.integers(1, 60),
    indent=st.sampled_from([None, 2]),
)
@settings(deadline=None)
def test_elements_are_those_of_a_parser_wherever_the_pieces_end(
    elements: list[Any], before: Any, after: Any, size: int, indent: int | None
) -> None:
    wanted = [element for element in elements if isinstance(element, dict | list)]
    bundle = {"resourceType": "Bundle", "link": [before], "entry": elements, "signature": [after]}
    assert cut(json.dumps(bundle, indent=indent, ensure_ascii=False).encode(), size) == (wanted, True)
    assert cut(json.dumps(elements, indent=indent).encode(), size) == (wanted, True)


@given(elements=st.lists(_ELEMENT, max_size=4), before=_VALUE, size=st.integers(1, 60), indent=st.sampled_from([None, 2]))
@settings(deadline=None)
def test_the_type_may_come_after_the_entries(elements: list[Any], before: Any, size: int, indent: int | None) -> None:
    entries = [{"fullUrl": "urn:uuid:1"}, *elements]
    bundle = {"a": before, "entry": entries, "resourceType": "Bundle"}
    assert cut(json.dumps(bundle, indent=indent, ensure_ascii=False).encode(), size) == (entries, True)


@pytest.mark.parametrize(
    "text",
    [
        b'{"contained":[{"resourceType":"List","entry":[{"item":{}}]}],"resourceType":"List"}',
        b'{"entry":[{"item":{}}],"resourceType":"List"}',
        b'{"parameter":[{"resource":{"entry":[{"fullUrl":"a"}],"resourceType":"Bundle"}}],"resourceType":"Parameters"}',
        b'{"a":"\\"","b":[{"entry":[{"fullUrl":"a"}]}]}',
        b'{"a":"entry","resourceType":"Bundle","entry":[]}',
    ],
)
def test_what_may_be_no_bundle_is_not_cut(text: bytes) -> None:
    assert Cutter.of(text) is None


def test_a_document_with_entries_that_is_no_bundle_in_the_end_is_not_whole() -> None:
    with pytest.raises(BadDocument):
        cut(b'{"entry":[{"fullUrl":"a"}],"resourceType":"List"}', 9)


@given(elements=st.lists(_ELEMENT, min_size=1, max_size=4), size=st.integers(1, 60), data=st.data())
@settings(deadline=None)
def test_a_cut_document_is_never_whole(elements: list[Any], size: int, data: st.DataObject) -> None:
    text = json.dumps({"resourceType": "Bundle", "entry": elements}).encode()
    found, whole = cut(text[: data.draw(st.integers(text.index(b"[") + 1, len(text) - 1))], size)
    assert not whole
    assert found == elements[: len(found)]


@pytest.mark.parametrize(
    "text",
    [b'[{"a":1},,{"a":2}]', b'[{"a":1} {"a":2}]', b'[{"a":1},]', b'[{"a":1}]x', b"[{}]]", b'[{"a":1},{"a":2} "x"]', b'[{},1 2,{}]', b"[{},\x01]", b'[{},"a\x01"]',
     b"[\x01,{}]"]
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_document_is_not_valid_because_its_elements_are(text: bytes, size: int) -> None:
    with pytest.raises(BadDocument):
        cut(text, size)


@pytest.mark.parametrize("size", [7, 100, 1 << 20])
def test_quotes_behind_many_backslashes_are_escaped_or_not(size: int) -> None:
    texts = ["\\" * n + end for n in (0, 1, 15, 16, 17, 40, 300) for end in ("", '"', '"x', '"\\')]
    elements = [{"text": text, text: [text]} for text in texts]
    assert cut(json.dumps(elements).encode(), size) == (elements, True)


def test_a_text_of_backslashes_takes_no_time() -> None:
    elements = [{"text": "\\" * 6_000_000}] * 3  # a step for each of them would take minutes
    assert cut(json.dumps(elements).encode(), 1 << 25) == (elements, True)


def read(path: Path) -> tuple[dict[str, Any], list[list[tuple[Any, ...]]]]:
    """Read one document; returns its row of the ledger and the rows of the tables."""
    files = [SourceFile(1, path, path.stat().st_size, "fhir", "document")]
    ledger = Ledger.of(files)
    with open_engine(memory="512MB", threads=1) as con:
        for event in FhirReader().read(files, con):
            ledger.add(event)
        ledger.close()
        return ledger.rows()[0], [
            con.execute(f"SELECT * FROM {t} ORDER BY ALL").fetchall() for t in ("patient", "condition", "concept", "coding", "defect")
        ]


def resource(n: int) -> dict[str, Any]:
    if n % 3 == 0:
        return {"resourceType": "Patient", "id": f"p{n}", "birthDate": "1970-01-01"}
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": f"E1{n % 7}"}], "text": 'a "quoted" {text} \\'}
    return {
        "resourceType": "Condition",
        "id": f"c{n}",
        "subject": {"reference": f"urn:uuid:{n // 3 * 3}"},
        "code": code if n % 5 else "none",
    }


ENTRIES: list[Any] = [
    *({"fullUrl": f"urn:uuid:{n}", "resource": resource(n)} for n in range(40)),
    {"request": {"method": "DELETE"}}, {"resource": None}, {"resource": 5}, None, 7,
    {"resource": {"id": "typeless"}},
    # last: what is in it is numbered after the entries read so far
    {"resource": {"resourceType": "Bundle", "entry": [{"resource": resource(41)}, {"resource": resource(42)}]}},
]  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "document",
    [
        {"resourceType": "Bundle", "type": "batch", "entry": ENTRIES},
        {"entry": ENTRIES, "resourceType": "Bundle", "type": "batch"},
        [e["resource"] for e in ENTRIES[:40]],
        # last: what stands behind them is numbered without them
        [*(e["resource"] for e in ENTRIES[:40]), {"id": "typeless"}, None, "a, [b] {c}", [], 0, True, 1.5],
    ],
    ids=["bundle", "sorted", "list", "list-of-others"],
)
def test_a_long_document_reads_as_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Any, indent: int | None, packed: bool
) -> None:
    text = json.dumps(document, indent=indent).encode()
    path = tmp_path / ("a.json.gz" if packed else "a.json")
    path.write_bytes(gzip.compress(text) if packed else text)
    whole = read(path)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    assert read(path) == whole
    assert whole[0]["profiled"] >= 40


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: len(text) * 2 // 3], "truncated"),
        (lambda text: text.replace(b'"c20"', b'"c20",,'), "invalid-json"),
        (lambda text: text.replace(b'"c20"', b'"c20\xff"'), "encoding"),
        (lambda text: text.replace(b'"c20"', b"NaN"), "invalid-json"),
        (lambda text: text.replace(b'"c20"', b"[" * 600 + b"]" * 600), "too-deep"),
        (lambda text: text + b"}", "invalid-json"),
    ],
)
def test_a_break_in_a_long_document_is_told_and_what_came_before_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, reason: str
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    path = tmp_path / "a.json"
    path.write_bytes(change(json.dumps([resource(n) for n in range(40)]).encode()))
    row, (patients, *_) = read(path)
    assert row["reasons"] == {reason: 1}
    assert row["status"] == "truncated"
    assert row["read"] == row["profiled"] + 1
    assert 7 <= len(patients) <= 14
