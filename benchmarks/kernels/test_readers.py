"""The kernels of reading: a block into lines, a long document into elements, a block of FHIR and of HL7v2 into the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ehrready.engines.duckdb import open_engine
from ehrready.readers import hl7v2_split
from ehrready.readers.base import SourceFile
from ehrready.readers.blocks import Blocks
from ehrready.readers.fhir import FhirReader
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.readers.hl7v2_mapping import mapping, segments
from ehrready.readers.json_stream import Cutter

ROWS = 20_000


def observation(n: int) -> dict[str, Any]:
    code = {"system": "http://loinc.org", "code": f"{8000 + n % 50}-6", "display": "Systolic blood pressure"}
    return {
        "resourceType": "Observation", "id": f"o{n}", "status": "final", "subject": {"reference": f"Patient/p{n % 999}"},
        "encounter": {"reference": f"Encounter/e{n % 4999}"}, "effectiveDateTime": "2024-03-05T10:00:00+02:00",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
        "code": {"coding": [code], "text": "Systolic blood pressure"},
        "valueQuantity": {"value": 100 + n % 60, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def ndjson(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    path: Path = tmp_path_factory.mktemp("kernels") / "Observation.ndjson"
    path.write_text("".join(json.dumps(observation(n), separators=(",", ":")) + "\n" for n in range(ROWS)))
    return SourceFile(1, path, path.stat().st_size, "fhir", "ndjson")


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    path: Path = tmp_path_factory.mktemp("kernels") / "oru.hl7"
    obx = "OBX|{i}|NM|{c}-6^Systolic blood pressure^LN||{v}|mm[Hg]^^UCUM|90-140|N|||F|||20240305100000\r"
    path.write_text(
        "".join(
            f"MSH|^~\\&|EHR|LCC|X|QA|20240305100000||ORU^R01|{n}|P|2.5.1\rPID|1||{n % 999}^^^LCC\rPV1|1|I|||||||||||||||||{n}\r"
            f"OBR|1|||24321-2^Panel^LN|||20240305100000\r" + "".join(obx.format(i=i, c=8000 + i, v=100 + n % 60) for i in range(1, 6))
            for n in range(ROWS // 5)
        )
    )
    return SourceFile(1, path, path.stat().st_size, "hl7v2", "messages")


@pytest.fixture
def engine() -> Iterator[Any]:
    with open_engine(memory="1GB") as con:
        yield con


def test_lines_of_a_block(benchmark: Any, ndjson: SourceFile) -> None:
    tables = benchmark(lambda: [item for item in Blocks().lines([ndjson]) if isinstance(item, pa.Table)])
    assert sum(map(len, tables)) == ROWS


def test_elements_of_a_long_document(benchmark: Any) -> None:
    text = json.dumps([observation(n) for n in range(ROWS)], indent=1).encode()
    found = benchmark(lambda: Cutter("elements").feed(text))
    assert len(found) == ROWS


def test_a_block_of_fhir_into_the_tables(benchmark: Any, engine: Any, ndjson: SourceFile) -> None:
    benchmark.pedantic(lambda: list(FhirReader(0).stage([ndjson], engine)), setup=lambda: clear(engine), rounds=5)
    assert engine.execute("SELECT count(*) FROM observation").fetchone() == (ROWS,)


def test_segments_of_a_block(benchmark: Any, messages: SourceFile) -> None:
    piece = hl7v2_split.Piece(1, messages.path.read_bytes())
    block = benchmark(lambda: hl7v2_split.split([piece], segments(mapping())))
    assert len(block.kind) == ROWS // 5 * 9


def test_a_block_of_hl7v2_into_the_tables(benchmark: Any, engine: Any, messages: SourceFile) -> None:
    benchmark.pedantic(lambda: list(Hl7v2Reader().stage([messages], engine)), setup=lambda: clear(engine), rounds=5)
    assert engine.execute("SELECT count(*) FROM observation").fetchone() == (ROWS,)


def clear(engine: Any) -> None:
    """Empty the tables of an earlier round; the staging tables go with them."""
    for name, temporary in engine.execute("SELECT table_name, temporary FROM duckdb_tables() WHERE NOT internal").fetchall():
        engine.execute(f'DROP TABLE "{name}"' if temporary or name.startswith("_") else f'DELETE FROM "{name}"')
