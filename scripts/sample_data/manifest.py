"""MANIFEST.yaml and README.md of the sample data."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from .defects import Defect
    from .model import Population

README = """\
# Sample data

One **synthetic** population in three formats, twice. Nobody in it is real: names, numbers, dates and values
are made by a seeded script, so there is no PHI. Use it to try `ehrready`, and as the input of its tests.

| folder | what | patients | events |
|---|---|---|---|
| `training/` | what the model was trained on: no defects | 400 | 2023-01 to 2024-12 |
| `live/` | what the hospital sends now, with planted defects | 400 others | 2025-10 to 2026-06 |

Each holds the same records as `fhir/` (R4 bulk NDJSON, some files gzipped), `hl7v2/` (v2.7 batch files, CR
line ends, some gzipped) and `omop/` (CDM 5.4 Parquet with its vocabulary tables).

- `production/` is a made-up model on these patients: its contract, the statements of two synthetic vendors (A offers all that the contract
  needs, B no search by code, no write-back, no export and no sign-in for a program), its predictions in validation and in three months of
  production, generated summaries with citations, and a manifest of what is planted there (`ehrready integration`, `ehrready monitor`).
- `MANIFEST.yaml` lists every file with size and SHA-256, the records by type, and every planted defect: the
  element, how many records in each format, and the check and defect class that must find it.
- `live/fhir/log.ndjson` is the log of a bulk export, not data: a reader must skip it and say so.
- OMOP carries no diagnostic reports and no allergies (see the manifest). Concept ids are OHDSI's where they
  could be verified; ids from 1,000,000,001 are stand-ins, ids from 2,000,000,001 are a site's own concepts.
- In HL7v2, vital signs and questions are OBX segments of the visit's ADT message; laboratory results are ORU.

Make it again: `python scripts/make_sample_data.py`. The content is the same on every run; the containers of
`.gz` and `.parquet` files may differ with another version of zlib or PyArrow.

Code systems: ICD-10-CM and ICD-9-CM (NCHS/CMS, public domain), CVX (CDC), RxNorm (NLM). LOINC codes and names
are copyright Regenstrief Institute, Inc., and used under the LOINC licence (https://loinc.org/license/). A
few SNOMED CT concepts are examples; SNOMED CT is copyright SNOMED International and needs a licence in
production.
"""

#: Not-carried reasons per format and record type, for the parity of counts.
NOT_CARRIED = {
    "omop": {
        "DiagnosticReport": "the CDM has no table for it",
        "AllergyIntolerance": "the CDM files them under observation; left out to keep its counts in parity",
    },
    "hl7v2": {"encounter.type": "PV1 has no field of that meaning"},
}


def count(path: str, content: bytes | pa.Table) -> dict[str, int]:
    """Return the records of a file by type: resources, messages and their main segments, or rows."""
    name = path.rsplit("/", maxsplit=1)[1].partition(".")[0]
    if isinstance(content, pa.Table):
        return {name: content.num_rows}
    if "/fhir/" in path:
        return {} if name == "log" else {name: content.count(b"\n")}
    counts: Counter[str] = Counter()
    for line in content.split(b"\r"):
        if line.startswith(b"MSH"):
            counts["^".join(line.decode().split("|")[8].split("^")[:2])] += 1
        elif line[:3] in {b"DG1", b"PR1", b"AL1", b"OBR", b"OBX", b"RXE", b"RXA", b"TXA"}:
            counts[line[:3].decode()] += 1
    return dict(sorted(counts.items()))


_REFERENCE = ("concept", "vocabulary", "cdm_source", "location", "care_site")


def _role(path: str) -> str:
    if path.endswith("log.ndjson"):
        return "not data: the log of a bulk export"
    name = path.rsplit("/", 1)[1].removesuffix(".parquet")
    return "reference" if name in _REFERENCE else "data"


def _planted(defect: Defect, hit: list[str], totals: dict[str, int]) -> dict[str, Any]:
    formats: dict[str, Any] = {}
    for name in ("fhir", "hl7v2", "omop"):
        finds, why = defect.shows.get(name, ((defect.check, defect.defect), ""))
        if finds is None:
            formats[name] = {"not-carried": why}
            continue
        formats[name] = {"planted": len(hit)}
        if defect.also and finds == (defect.check, defect.defect):
            formats[name]["also"] = {"check": "presence-shift", "defect": defect.also}
        if why:
            formats[name] |= {"check": finds[0], "defect": finds[1], "why": why}
    return {
        "id": defect.id,
        "element": defect.element,
        "check": defect.check,
        "defect": defect.defect,
        "dimension": defect.dimension,
        "what": defect.what,
        "share": defect.share,
        "of": defect.of,
        "eligible": totals[defect.of],
        "formats": formats,
    }


def _releases(populations: tuple[Population, Population]) -> dict[str, Any]:
    """Return the one release that differs between the sets, and how many live codings declare it."""
    training, live = populations
    declared = {
        "fhir": sum(coding.system == "icd10cm" for e in live.conditions for coding in e.concept.codings),
        "omop": sum(e.concept.source is not None for e in live.conditions),
    }
    return {
        "system": "icd10cm",
        "training": training.release,
        "live": live.release,
        "check": "release-declared",
        "defect": "other-release",
        "codings": {"fhir": declared["fhir"], "hl7v2": declared["fhir"], "omop": declared["omop"]},
    }


def render(
    out: Path,
    populations: tuple[Population, Population],
    written: dict[str, bytes | pa.Table],
    planted: list[tuple[Defect, list[str]]],
    seeds: dict[str, int],
) -> str:
    """Return MANIFEST.yaml; sizes and hashes are of the files that stand in ``out``."""
    files = []
    sets: dict[str, Any] = {}
    for population in populations:
        sets[population.name] = {
            "patients": len(population.patients),
            "icd10cm_release": population.release,
            "records": {"fhir": Counter(), "hl7v2": Counter(), "omop": Counter()},
        }
    for path, content in written.items():
        stored = (out / path).read_bytes()
        records = count(path, content)
        entry = {
            "path": path,
            "role": _role(path),
            "bytes": len(stored),
            "sha256": hashlib.sha256(stored).hexdigest(),
            "records": records,
        }
        files.append(entry)
        name, kind, _ = path.split("/")
        sets[name]["records"][kind].update(records)
    for one in sets.values():
        one["records"] = {kind: dict(sorted(counts.items())) for kind, counts in one["records"].items()}
    live = populations[1]
    totals = {
        "patients": len(live.patients),
        "encounters": len(live.encounters),
        "conditions": len(live.conditions),
        "observations": len(live.observations),
        "numeric observations": sum(1 for event in live.observations if event.analyte.unit),
        "medications": len(live.medications),
        "procedures": len(live.procedures),
    }
    content = {
        "manifest_version": 1,
        "synthetic": "made by scripts/make_sample_data.py; no patient is real",
        "seeds": seeds,
        "sets": sets,
        "not_carried": NOT_CARRIED,
        "releases": {"condition.code": _releases(populations)},
        "planted": [_planted(defect, hit, totals) for defect, hit in planted],
        "files": files,
    }
    text: str = yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
    return text
