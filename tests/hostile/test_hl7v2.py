"""HL7v2: every framing counts the same, and 5,000 broken files are read or rejected without a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ehrready.pipeline import Options, read_profile
from ehrready.profile import Profile
from ehrready.readers import hl7v2
from ehrready.readers.base import FileEntry
from tests.hostile.hl7v2_cases import framings, mutations

MUTATIONS, SEED = 5000, 8


@pytest.fixture(scope="module")
def published(shared: Path) -> list[bytes]:
    """The published messages that are not huge."""
    files = sorted((shared / "data" / "hl7v2").rglob("*.hl7"))
    return [data for path in files if 0 < len(data := path.read_bytes()) < 20_000 and b"MSH" in data]


def profile_of(folder: Path, files: list[bytes]) -> tuple[Profile, dict[int, FileEntry]]:
    """Profile files, which are written into a new folder."""
    folder.mkdir()
    for number, data in enumerate(files, 1):
        (folder / f"{number:05d}.hl7").write_bytes(data)
    profile, ledger, _ = read_profile([str(folder)], Options(format="hl7v2", threads=2))
    return profile, ledger.entries


def test_every_framing_gives_the_same_profile(published: list[bytes], tmp_path: Path) -> None:
    forms = [framings(data) for data in published]
    assert len(forms) > 200
    found = {}
    for name in forms[0]:
        profile, entries = profile_of(tmp_path / name, [form[name] for form in forms])
        frames = {key: frame for key, frame in profile.frames.items() if key != "ledger"}
        found[name] = (frames, [(entry.read, entry.reasons) for entry in entries.values()])
    assert found["cr"][0]["types"]
    assert [name for name, each in found.items() if each != found["cr"]] == []


def test_mutations_are_read_or_rejected(published: list[bytes], tmp_path: Path) -> None:
    files = list(mutations(published, MUTATIONS, SEED))
    profile, entries = profile_of(tmp_path / "m", files)
    assert len(entries) == MUTATIONS
    # the ledger law itself is asserted by the program: a breach would have raised
    read, rejected = profile.total("read"), profile.total("rejected")
    assert read == profile.total("profiled") + rejected == sum(entry.read for entry in entries.values())
    assert {entry.status for entry in entries.values()} <= {"read", "truncated", "unreadable"}
    assert 0 < rejected < read / 2
    assert all(entry.read for entry in entries.values())


def test_a_reader_that_crashes_still_keeps_the_law(published: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ehrready.readers import hl7v2_write

    def breaks(*arguments: object) -> None:
        raise RuntimeError("a value of a patient")

    monkeypatch.setattr(hl7v2_write, "finish", breaks)
    profile, entries = profile_of(tmp_path / "m", published[:5])
    assert {entry.status for entry in entries.values()} == {"unreadable"}
    assert profile.total("read") == profile.total("profiled") + profile.total("rejected")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("subcomponents", b"OBX|1|ST|1^a^L||" + b"&x" * 200_000),
        ("field", b"OBX|1|ST|1^a^L||" + b"y" * 5_000_000),
        ("components", b"OBX|1|CWE|" + b"x^" * 200_000 + b"||1"),
        ("repetitions", b"PID|1||" + b"A~" * 200_000),
        ("segments", b"\r".join([b"OBX|1|NM|1^a^L||1"] * 50_000)),
        ("escapes", b"OBX|1|ST|1^a^L||" + b"\\F\\" * 200_000),
        ("open-escapes", b"OBX|1|ST|1^a^L||" + b"\\X" * 200_000),
        # an embedded document with line breaks: each line a part of the field before it
        ("lines", b"OBX|1|ED|1^a^L||^a^b^Base64^" + b"QUJD" * 19 + (b"\r\n" + b"QUJD" * 19) * 200_000 + b"||||||F"),
        ("nul", b"OBX|1|ST|1^a^L||" + b"\x00" * 1_000_000),
    ],
)
def test_extremes(name: str, body: bytes, tmp_path: Path) -> None:
    head = b"MSH|^~\\&|A|B|||20240102||ORU^R01|1|P|2.5\r"
    _, entries = profile_of(tmp_path / name, [head + body + b"\r" + head + b"PID|1||P1\r"])
    assert (entries[1].read, entries[1].rejected, entries[1].status) == (2, 0, "read")


@pytest.mark.parametrize("block", [None, 600_000])
def test_no_two_segments_are_one_record_however_many_a_message_has(
    block: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block:
        monkeypatch.setattr(hl7v2, "BLOCK_BYTES", block)
    head = "MSH|^~\\&|A|B|||20240102||ORU^R01|1|P|2.5\rPID|1||P1\r"
    codes = ("2345-7", "718-7", "2951-2")
    result = "OBX|1|NM|{}^x^LN||{}|mg/dL|||||F\r".format
    long = head + "".join(result(codes[i % 3], i) for i in range(70_000)) + "DG1|1||E11.9^x^I10C||2024||||||||||||||2025\r" * 40
    short = head + result(codes[0], 1)
    (tmp_path / "a.hl7").write_text(short + long + short * 3 + long + short)
    (tmp_path / "b.hl7").write_text(short)
    counts = []

    def count(con: Any) -> None:
        counts.extend(con.execute("SELECT count(*), count(DISTINCT record) FROM observation").fetchall())

    profile, _, _ = read_profile([str(tmp_path)], Options(internal=True), also=count)
    assert counts == [(140_006, 140_006)]
    assert profile.frames["codes"]["condition.code", "icd10cm", "E11.9"][0] == 80
    assert {key[2]: values[0] for key, values in profile.frames["units"].items()} == {"2345-7": 46_674, "718-7": 46_666, "2951-2": 46_666}
