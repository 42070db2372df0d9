"""Puts the sample data together: both populations, the planted defects, the files and the manifest."""

from __future__ import annotations

import gzip
import random
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from . import defects, fhir, hl7v2, manifest, omop, production
from .population import make_population

if TYPE_CHECKING:
    from pathlib import Path

    from .model import Population

#: Seeds of the training set, the live set and the planted defects.
SEEDS = {"training": 101, "live": 202, "defects": 303}


def populations() -> tuple[Population, Population, list[tuple[defects.Defect, list[str]]]]:
    """Return the training population, the spoilt live population, and what was planted."""
    training = make_population("training", SEEDS["training"], "2024", date(2023, 1, 1), date(2024, 12, 31))
    live = make_population("live", SEEDS["live"], "2026", date(2025, 10, 1), date(2026, 6, 30))
    return training, live, defects.plant_all(live, random.Random(SEEDS["defects"]))


def _store(path: Path, content: bytes | pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, path, compression="zstd", compression_level=9, store_schema=False)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content, 9, mtime=0))
    else:
        path.write_bytes(content)


def write(out: Path) -> None:
    """Write the data folders, README.md and MANIFEST.yaml into ``out``; nothing else there is touched."""
    training, live, planted = populations()
    written: dict[str, bytes | pa.Table] = {}
    for population in (training, live):
        for name, make in (("fhir", fhir.files), ("hl7v2", hl7v2.files), ("omop", omop.files)):
            for file, content in make(population).items():
                written[f"{population.name}/{name}/{file}"] = content
    for path, content in written.items():
        _store(out / path, content)
    production.write(out / "production", training, live)
    (out / "README.md").write_text(manifest.README, encoding="utf-8")
    text = manifest.render(out, (training, live), written, planted, SEEDS)
    (out / "MANIFEST.yaml").write_text(text, encoding="utf-8")
