"""Seeded FHIR and HL7v2 exports of any size: a drawn population, repeated under new identifiers.

The patients are those of the planted-defect benchmark's generator; a copy differs from the next in every identifier, so that
patients, encounters and records grow with the size as in a real export.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

#: Patients of the population that is repeated (about 11 MB of NDJSON, 6 MB of HL7v2).
BASE_PATIENTS = 1000
SEED = 60201
#: Patients in one Bundle of ``bundles``: about 0.5 MB, as an export by patient list has them.
PER_BUNDLE = 50

_MARK = b"@@"
_TYPES = rb"(?:Patient|Encounter|Observation|Condition|MedicationRequest|Medication|Procedure|DiagnosticReport)"


def _population() -> Any:
    from benchmarks.planted.samples import population

    return population(SEED, BASE_PATIENTS)


def _base(fmt: str) -> dict[str, bytes]:
    """Return the files of the base population, decompressed."""
    from benchmarks.planted.samples import write
    from ehrready.readers.streams import open_stream

    with tempfile.TemporaryDirectory() as folder:
        write(_population(), fmt, Path(folder))
        out = {}
        for path in sorted(Path(folder).iterdir()):
            with open_stream(path) as stream:
                out[path.name.removesuffix(".gz")] = stream.read()
        return out


def _fhir_templates() -> dict[str, bytes]:
    """Return NDJSON by file with a mark in front of every identifier that a copy must change."""
    files = {}
    for name, data in _base("fhir").items():
        if name.startswith(("Organization", "log")):
            continue  # hospitals do not grow with the patients
        marked = re.sub(rb'("resourceType":"\w+","id":")', rb"\1" + _MARK, data)
        marked = re.sub(rb'("reference":"' + _TYPES + rb"/)", rb"\1" + _MARK, marked)
        files[name] = marked
    return files


def _copies(templates: dict[str, bytes], megabytes: float) -> Iterator[bytes]:
    """Yield the prefix of each copy until the size is reached."""
    size, number = 0, 0
    step = sum(map(len, templates.values()))
    while size < megabytes * 1e6:
        yield b"c%d-" % number
        size, number = size + step, number + 1


def fhir(folder: Path, megabytes: float) -> Path:
    """Write NDJSON, a file per resource type as Bulk Data exports have it; a folder that is complete is left as it is."""
    if (folder / "DONE").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    templates = _fhir_templates()
    prefixes = list(_copies(templates, megabytes))
    for name, data in templates.items():
        with (folder / name).open("wb") as out:
            for prefix in prefixes:
                out.write(data.replace(_MARK, prefix))
    (folder / "DONE").touch()
    return folder


def bundles(folder: Path, megabytes: float) -> Path:
    """Write the resources of :func:`fhir` as collection Bundles of ``PER_BUNDLE`` patients each."""
    if (folder / "DONE").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    templates = _fhir_templates()
    by_patient: dict[str, list[bytes]] = {}
    for data in templates.values():
        for line in data.splitlines():
            resource = orjson.loads(line)
            who = resource.get("subject") or resource.get("patient") or {"reference": f"Patient/{resource['id']}"}
            by_patient.setdefault(who["reference"], []).append(line)
    patients = [by_patient[key] for key in sorted(by_patient)]
    parts = []
    for start in range(0, len(patients), PER_BUNDLE):
        entries = b",".join(b'{"resource":' + line + b"}" for lines in patients[start : start + PER_BUNDLE] for line in lines)
        parts.append(b'{"resourceType":"Bundle","type":"collection","entry":[' + entries + b"]}")
    for copy, prefix in enumerate(_copies(templates, megabytes)):
        for number, part in enumerate(parts):
            (folder / f"bundle-{copy:04d}-{number:02d}.json").write_bytes(part.replace(_MARK, prefix))
    (folder / "DONE").touch()
    return folder


def _hl7v2_template() -> bytes:
    """Return messages of every kind, with a mark in front of the identifiers, segments ended by CR."""
    ids = {b"MSH": (9,), b"PID": (3,), b"PV1": (19,), b"OBR": (2, 3), b"ORC": (2, 3), b"TXA": (12,)}
    out = []
    for data in _base("hl7v2").values():
        for segment in re.split(rb"[\r\n]+", data):
            fields = segment.split(b"|")
            if fields[0] in {b"FHS", b"BHS", b"BTS", b"FTS", b""}:
                continue
            for place in ids.get(fields[0], ()):
                if len(fields) > place and fields[place]:
                    fields[place] = _MARK + fields[place]
            out.append(b"|".join(fields))
    return b"\r".join(out) + b"\r"


def hl7v2(folder: Path, megabytes: float) -> Path:
    """Write one batch file of ADT, ORU, RDE, VXU and MDM messages; a folder that is complete is left as it is."""
    if (folder / "DONE").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    template = _hl7v2_template()
    messages = 0
    with (folder / "feed.hl7").open("wb") as out:
        out.write(b"FHS|^~\\&|EHR||EHRREADY|QA\rBHS|^~\\&|EHR||EHRREADY|QA\r")
        for prefix in _copies({"all": template}, megabytes):
            out.write(template.replace(_MARK, prefix))
            messages += template.count(b"MSH|")
        out.write(b"BTS|%d\rFTS|1\r" % messages)
    (folder / "DONE").touch()
    return folder
