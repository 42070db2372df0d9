"""Compression and the file system as attack: cut streams, bombs, FIFOs, devices, loops, files that vanish."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ehrready.errors import Exit, UsageError
from ehrready.pipeline import Options, read_profile
from ehrready.readers import blocks, streams
from ehrready.readers.base import FileEntry
from tests.hostile.table_cases import CSV_GOOD

NDJSON = b"".join(json.dumps({"resourceType": "Patient", "id": f"p{i}", "gender": "female"}).encode() + b"\n" for i in range(4000))
HL7 = b"MSH|^~\\&|A|B|||20240102||ADT^A01|1|P|2.5\rPID|1||P1\r" * 3000
CSV = CSV_GOOD + b"".join(b"%d,8507,1980,b%d\n" % (i, i) for i in range(30, 5000))
SOURCES = {
    "Patient.ndjson": NDJSON,
    "m.hl7": HL7,
    "person.csv": CSV,
    "doc.json": b'{"resourceType":"Bundle","entry":[' + b" " * 90_000 + b"]}",
}


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def ehrready(*arguments: str | Path, timeout: int = 120) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ehrready", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=timeout, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def entries_of(folder: Path) -> list[FileEntry]:
    return list(read_profile([str(folder)], Options(threads=2))[1].entries.values())


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zst)])
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_cut_stream_is_never_a_success(name: str, suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = pack(SOURCES[name])
    for place, cut in enumerate([len(packed) - 1, len(packed) - 5, len(packed) // 2, 20, 6]):
        (tmp_path / f"{place}").mkdir()
        (tmp_path / f"{place}" / f"{name}.{suffix}").write_bytes(packed[:cut])
    found = entries_of(tmp_path)
    assert {entry.status for entry in found} <= {"truncated", "unreadable"}
    assert all(set(entry.reasons) & {"truncated", "compression"} for entry in found)
    if name != "doc.json" and suffix == "gz":  # a small Zstandard frame is one block: all or nothing
        assert found[0].profiled > 0  # what was whole before the cut is kept


def test_a_cut_stream_is_exit_3_with_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson.gz").write_bytes(gzip.compress(NDJSON)[:-200])
    done = ehrready("check", tmp_path, "--json", tmp_path / "card.json", "--fail-on", "never")
    card = json.loads((tmp_path / "card.json").read_bytes())
    assert (done.returncode, card["verdict"]) == (Exit.CANNOT_TELL, "cannot-tell")
    assert card["subject"]["records"]["profiled"] > 0
    profile = ehrready("profile", tmp_path / "Patient.ndjson.gz", "-o", tmp_path / "p.json")
    assert profile.returncode == Exit.CANNOT_TELL
    assert "could not be read to the end" in profile.stderr


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_damaged_streams(suffix: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(NDJSON) if suffix == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(NDJSON))
    for place in (30, len(packed) // 2, len(packed) - 3):
        broken = bytearray(packed)
        broken[place] ^= 0x55
        (tmp_path / f"{place}.ndjson.{suffix}").write_bytes(broken)
    (tmp_path / f"tail.ndjson.{suffix}").write_bytes(packed + b"garbage")
    found = entries_of(tmp_path)
    assert {entry.status for entry in found} <= {"truncated", "unreadable"}
    assert {reason for entry in found for reason in entry.reasons} <= {"compression", "truncated", "encoding", "invalid-json"}


def test_several_members_and_frames_are_one_stream(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(NDJSON) * 3)
    (tmp_path / "b.ndjson.zst").write_bytes(zst(NDJSON) * 3)
    assert [(entry.status, entry.profiled) for entry in entries_of(tmp_path)] == [("read", 12_000)] * 2


@pytest.mark.parametrize("name", ["b.ndjson", "b.hl7", "person.csv", "b.json"])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_bombs_stop_at_ratio_and_size(name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_RATIO_FLOOR", 4 * 1024 * 1024)
    monkeypatch.setattr(streams, "MAX_RATIO", 100)
    start = {
        "b.ndjson": b'{"resourceType":"Patient"}\n',
        "b.hl7": HL7[:60],
        "person.csv": CSV_GOOD,
        "b.json": b'{"resourceType":"Bundle","x":"',
    }[name]
    data = start + b" " * 64_000_000
    (tmp_path / f"{name}.{suffix}").write_bytes(gzip.compress(data) if suffix == "gz" else zst(data))
    (entry,) = entries_of(tmp_path)
    assert entry.status in {"truncated", "unreadable"}
    assert "compression" in entry.reasons


def test_a_nested_bomb_is_not_unpacked_twice(tmp_path: Path) -> None:
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(gzip.compress(b"\0" * 10_000_000)))
    (entry,) = entries_of(tmp_path)
    assert entry.profiled == 0


def test_a_bomb_of_the_shipped_limits(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with (tmp_path / "b.ndjson.gz").open("wb") as out:
        out.write(packer.compress(b'{"resourceType":"Patient"}\n'))
        for _ in range(40):
            out.write(packer.compress(b" " * 8_000_000))  # 320 MB
        out.write(packer.flush())
    (entry,) = entries_of(tmp_path)
    assert (entry.status, entry.profiled) == ("truncated", 1)


def test_a_line_beyond_the_limit_is_rejected_and_its_neighbours_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_LINE", 100_000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 30_000)
    line, huge = b'{"resourceType":"Patient"}\n', b'{"resourceType":"Patient","x":"' + b"y" * 500_000
    (tmp_path / "a.ndjson").write_bytes(line * 3 + huge + b'"}\n' + line * 7)
    (tmp_path / "b.ndjson").write_bytes(line * 3 + huge)
    (tmp_path / "c.ndjson").write_bytes(line * 3 + huge[:110_000] + b'"}\n')
    a, b, c = entries_of(tmp_path)
    assert (a.read, a.reasons, a.first_at, a.status) == (11, {"too-large": 1}, {"too-large": 4}, "read")
    assert (b.read, b.reasons) == (4, {"too-large": 1})
    assert c.read == 4


def test_a_document_beyond_the_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_DOCUMENT", 1000)
    for name, size in (("a", 900), ("b", 1100)):
        (tmp_path / f"{name}.json").write_bytes(b'{"resourceType":"Patient","x":"' + b"y" * size + b'"}')
    assert [(entry.status, dict(entry.reasons)) for entry in entries_of(tmp_path)] == [("read", {}), ("unreadable", {"too-large": 1})]


# --- files ----------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_skipped_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_bytes(NDJSON)
    os.mkfifo(tmp_path / "fifo.ndjson")
    (tmp_path / "null.ndjson").symlink_to("/dev/null")
    (tmp_path / "zero.ndjson").symlink_to("/dev/zero")
    (tmp_path / "loop.ndjson").symlink_to(tmp_path / "loop.ndjson")
    (tmp_path / "gone.ndjson").symlink_to(tmp_path / "nowhere")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "dir.ndjson").mkdir()
    done = ehrready("check", tmp_path, "--json", tmp_path / "card.json", "--fail-on", "never", timeout=60)
    card = json.loads((tmp_path / "card.json").read_bytes())
    assert done.returncode == Exit.CANNOT_TELL  # broken links are files that could not be read
    statuses = [(row["status"], next(iter(row["reasons"]), "")) for row in card["ledger"]]
    assert sorted(statuses) == sorted([("read", ""), *[("skipped", "no-file")] * 3, *[("unreadable", "unreadable")] * 2])
    assert card["subject"]["records"]["profiled"] == 4000


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null", "fifo", "loop"])
def test_a_source_that_is_no_file_is_refused_with_a_sentence(source: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = ehrready("check", source if source.startswith("/") else tmp_path / source, timeout=60)
    assert done.returncode == Exit.CANNOT_TELL
    assert len(done.stderr.strip().splitlines()) >= 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may read everything and there is no setpriv")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "Patient.ndjson").write_bytes(NDJSON)
    (folder / "closed.ndjson").write_bytes(NDJSON)
    (folder / "closed.ndjson").chmod(0)
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    for place in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and "pytest" in str(place):
            place.chmod(place.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    done = subprocess.run(
        [*as_nobody, sys.executable, "-m", "ehrready", "check", str(folder), "--json", "-"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": "/nonexistent"},
    )  # fmt: skip
    (folder / "closed").chmod(0o700)
    if done.returncode == 1 and not done.stdout:
        pytest.skip("another user cannot reach this Python")
    card = json.loads(done.stdout)
    assert done.returncode == Exit.CANNOT_TELL
    assert sorted(row["status"] for row in card["ledger"]) == ["read", "unreadable", "unreadable"]


@pytest.mark.parametrize("name", ["Condition.ndjson", "x.hl7", "person.csv", "b.parquet", "doc.json"])
def test_a_file_that_vanishes_or_shrinks_while_it_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ehrready import sources
    from tests.hostile.table_cases import parquet, person

    content = {
        "Condition.ndjson": NDJSON * 2,
        "x.hl7": HL7,
        "person.csv": CSV,
        "b.parquet": parquet(person()),
        "doc.json": NDJSON[:60] + b"\n",
    }
    (tmp_path / "Patient.ndjson").write_bytes(NDJSON)
    victim = tmp_path / name
    recognise = sources.recognise

    def then_vanish(*arguments: object, **options: object) -> object:
        found = recognise(*arguments, **options)  # type: ignore[arg-type]
        change()
        return found

    monkeypatch.setattr(sources, "recognise", then_vanish)
    for what in ("vanish", "shrink", "become a folder"):
        victim.write_bytes(content[name])

        def change(what: str = what) -> None:
            if what == "shrink":
                victim.write_bytes(content[name][: len(content[name]) // 3])
                return
            victim.unlink()
            if what == "become a folder":
                victim.mkdir()

        by_size = {entry.size: entry for entry in entries_of(tmp_path)}
        assert by_size[len(content[name])].status in {"truncated", "unreadable"}, what
        assert by_size[len(NDJSON)].status == "read"
        victim.rmdir() if victim.is_dir() else None


@pytest.mark.parametrize("given", ["../../../../etc/passwd", "/dev/zero", "/etc", "/dev/null", "..", "mapping\0.yaml"])
def test_a_mapping_that_is_no_mapping_file(given: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV_GOOD)
    with pytest.raises(UsageError) as caught:
        read_profile([str(tmp_path)], Options(mapping=given))
    assert "root:" not in str(caught.value)


def test_a_mapping_cannot_name_a_place(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_bytes(CSV_GOOD)
    (tmp_path / "secret.csv").write_bytes(b"id,canary\n1,ZQX\n")
    (tmp_path / "m.yaml").write_text(
        "name: m\nversion: 1.0.0\nrules:\n  - from: ../secret\n    to: patient\n    columns: {id: id}\n", encoding="utf-8"
    )
    try:
        _, ledger, _ = read_profile([str(tmp_path / "data")], Options(mapping=str(tmp_path / "m.yaml")))
    except UsageError:
        return
    assert len(ledger.entries) == 1
