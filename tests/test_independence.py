"""The same records give the same findings, in whatever order of rows and files, with however many threads, under any hash seed."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ehrready
from ehrready.profile import Profile
from tests.helpers.samples import Samples

FORMATS = ("fhir", "hl7v2", "omop")
#: What does not depend on how the records lie in files (names, bytes and places of rejected records do).
KEPT = ("verdict", "verdict_reasons", "score", "coverage", "dimensions", "findings", "releases", "distributions", "training")


def shuffled(source: Path, target: Path, draw: random.Random) -> None:
    """Write the records of a folder in another order, under names that sort in another order."""
    target.mkdir()
    files = sorted(source.iterdir())
    names = draw.sample(range(100, 1000), len(files))
    for file, number in zip(files, names, strict=True):
        if file.suffix == ".parquet":  # a table's name is its file's
            table = pq.read_table(file)
            order = draw.sample(range(table.num_rows), table.num_rows)
            pq.write_table(table.take(pa.array(order, pa.int64())), target / file.name, store_schema=False)
            continue
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if ".ndjson" in file.name:
            lines = data.splitlines(keepends=True)
            draw.shuffle(lines)
            data = b"".join(lines)
        else:
            data = b"".join(_messages(batch, draw) for batch in re.split(rb"(?=BHS\|)", data))
        (target / f"{number}-{file.name.removesuffix('.gz')}").write_bytes(data)


def _messages(batch: bytes, draw: random.Random) -> bytes:
    """Return a batch with its messages in another order between its header and its trailer."""
    header, *messages = re.split(rb"(?<=\r)(?=MSH\|)", batch)
    if not messages:
        return batch
    last, separator, trailer = messages[-1].partition(b"\rBTS|")
    messages[-1] = last + b"\r" if separator else last
    draw.shuffle(messages)
    return header + b"".join(messages) + (b"BTS|" + trailer if separator else b"")


def kept(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in KEPT}


@pytest.fixture(scope="module")
def training(samples: Samples) -> dict[str, Profile]:
    return {name: samples.profile("training", name) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_findings_do_not_depend_on_the_order_of_rows_files_or_threads(
    project: Path, training: dict[str, Profile], tmp_path: Path, name: str
) -> None:
    live = project / "sample_data" / "live" / name
    shuffled(live, tmp_path / "shuffled", random.Random(f"order/{name}"))
    first = ehrready.check(live, against=training[name], threads=1, validate="none", internal=True).document
    second = ehrready.check(tmp_path / "shuffled", against=training[name], threads=2, validate="none", internal=True).document
    assert second["subject"]["records"] == first["subject"]["records"]
    assert kept(dict(second)) == kept(dict(first))


def test_findings_do_not_depend_on_the_hash_seed(project: Path, training: dict[str, Profile], tmp_path: Path) -> None:
    (tmp_path / "training.json").write_bytes(training["omop"].to_json())
    live = project / "sample_data" / "live" / "omop"
    written = []
    for seed in ("0", "4711"):
        out = tmp_path / f"{seed}.json"
        command = [sys.executable, "-m", "ehrready", "check", str(live), "--against", str(tmp_path / "training.json"), "--json", str(out)]
        ran = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        assert ran.returncode == 1, ran.stderr
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0])["findings"]
