"""A minefield of JSON: each document as line 4 of 11; ten good neighbours are profiled, the bad one has its reason."""

from __future__ import annotations

import json
from pathlib import Path

from ehrready.pipeline import Options, read_profile
from ehrready.readers.base import FileEntry
from tests.hostile.json_cases import Document, documents, oracle

EVERY = list(documents())
JSON_REASONS = {"encoding", "invalid-json", "not-an-object", "no-resource-type", "too-deep", "too-large"}


def neighbours(number: int) -> list[bytes]:
    """Return ten good records."""
    return [
        json.dumps({"resourceType": "Observation", "id": f"n{number}-{i}", "status": "final", "valueString": "fine"}).encode()
        for i in range(10)
    ]


def write(folder: Path, cases: list[Document]) -> None:
    """Write each document as line 4 of 11 of its own file, named so that the files sort in this order."""
    for number, (_, line, _) in enumerate(cases, 1):
        lines = neighbours(number)
        (folder / f"{number:05d}.ndjson").write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]) + b"\n")


def ledger_of(folder: Path) -> dict[int, FileEntry]:
    """Read a folder as FHIR and return the ledger's entries."""
    return read_profile([str(folder)], Options(format="fhir", threads=2))[1].entries


def problem(entry: FileEntry, verdict: str) -> str:
    """Say what is wrong with a file's ledger entry, or ``""``."""
    if entry.status != "read" or entry.read != 11:
        return f"status {entry.status}, {entry.read} read"
    if entry.profiled == 11 and verdict in {"good", "either"}:
        return ""
    if entry.profiled == 10 and verdict in {"bad", "either"}:
        (reason,) = entry.reasons
        return "" if reason in JSON_REASONS and entry.first_at == {reason: 4} else f"rejected as {reason} at {entry.first_at}"
    return f"{entry.profiled} profiled, rejected {entry.reasons}"


def test_the_minefield_is_large_and_its_verdicts_are_those_of_another_parser() -> None:
    assert len(EVERY) >= 500
    assert len({name for name, _, _ in EVERY}) == len(EVERY)
    assert not [name for name, line, _ in EVERY if b"\n" in line]
    # Python's parser gives up on depth, and an entry that is no list is FHIR's business
    apart = {name for name, _, _ in EVERY if "deep" in name or "100000" in name or "bundle" in name}
    wrong = [name for name, line, verdict in EVERY if name not in apart and verdict != "either" and oracle(line) != (verdict == "good")]
    assert wrong == []


def test_every_document_as_line_4_of_11(tmp_path: Path) -> None:
    write(tmp_path, EVERY)
    entries = ledger_of(tmp_path)
    assert set(entries) == set(range(1, len(EVERY) + 1))
    problems = {name: found for number, (name, _, verdict) in enumerate(EVERY, 1) if (found := problem(entries[number], verdict))}
    assert problems == {}
    assert {reason for entry in entries.values() for reason in entry.reasons} >= {
        "encoding", "invalid-json", "not-an-object", "no-resource-type", "too-deep",
    }  # fmt: skip
