"""The HL7v2 reader: tiny cases, equal forms of one content, blocks, published files."""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml

from ehrready.engines.duckdb import open_engine
from ehrready.readers import hl7v2
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.readers.streams import head
from ehrready.tables import POSITION_BITS
from tests.readers.hl7v2_helpers import CASES, PID, PV1, engine, message, of_text, read

con = engine  # the fixture

_CASES = yaml.safe_load((CASES / "cases.yaml").read_text("utf-8"))

# --- cases -----------------------------------------------------------------------------------------------------


def test_every_case_file_is_described() -> None:
    assert {path.stem for path in CASES.glob("*.hl7")} == set(_CASES["cases"])


@pytest.mark.parametrize("name", sorted(_CASES["cases"]))
def test_case(name: str, con: duckdb.DuckDBPyConnection) -> None:
    expected = _CASES["defaults"] | _CASES["cases"][name]
    path = CASES / f"{name}.hl7"
    assert Hl7v2Reader().recognise(path, head(path)) == "messages"
    found = read(con, [path])
    entry = found.entries[1]
    assert (entry.status, entry.read, entry.declared) == (expected["status"], expected["read"], expected["declared"])
    reasons: dict[str, list[int]] = {}
    for event in found.rejected:
        reasons.setdefault(event.reason, []).append(event.position)
    assert reasons == expected["reasons"]
    values = found.rows("SELECT coalesce(value_number::VARCHAR, value_text) FROM observation ORDER BY record")
    assert [value for (value,) in values] == [str(value) for value in expected["observations"]]
    assert found.row("SELECT count(*) FROM defect WHERE element = 'message.charset'") == (expected["charset"],)


def test_many_small_files_keep_their_own_rows(con: duckdb.DuckDBPyConnection) -> None:
    paths = sorted(CASES.glob("*.hl7"))
    found = read(con, paths)
    for number, path in enumerate(paths, 1):
        expected = _CASES["defaults"] | _CASES["cases"][path.stem]
        entry = found.entries[number]
        assert (path.stem, entry.read, entry.status) == (path.stem, expected["read"], expected["status"])
        (count,) = found.row(f"SELECT count(*) FROM observation WHERE record >> {POSITION_BITS} = {number}")
        assert (path.stem, count) == (path.stem, len(expected["observations"]))


def test_recognise_by_content_then_by_name() -> None:
    reader = Hl7v2Reader()
    for start in (b"MSH|^~\\&|", b"\xef\xbb\xbfMSH|", b"\r\n MSH*", b"\x0bMSH|", b"FHS|", b"BHS|"):
        assert reader.recognise(Path("export.txt"), start) == "messages"
    for start in (b"MSHELL|", b"MSH was high", b"Patient,MSH\r", b"", b'{"resourceType": 1}'):
        assert reader.recognise(Path("export.txt"), start) == ""
    assert reader.recognise(Path("export.hl7"), b"a log\rMSH|") == "messages"
    assert reader.recognise(Path("export.hl7"), b"") == "messages"
    assert reader.recognise(Path("export.hl7"), b"<ORU_R01>") == ""


def test_compressed_and_cut(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    data = gzip.compress((CASES / "two_messages.hl7").read_bytes())
    whole, cut = tmp_path / "a.hl7.gz", tmp_path / "b.hl7.gz"
    whole.write_bytes(data)
    cut.write_bytes(data[:-12])
    found = read(con, [whole, cut])
    assert (found.entries[1].status, found.entries[1].read, found.entries[1].rejected) == ("read", 2, 0)
    assert found.entries[2].status in {"truncated", "unreadable"}
    assert found.entries[2].reasons == {"truncated": 1}


# --- one content, many forms -----------------------------------------------------------------------------------


def _forms(content: bytes) -> dict[str, bytes]:
    """Return the same messages (CR line ends) in every framing."""
    lines = content.split(b"\r")
    mixed = b"".join(line + (b"\r", b"\n", b"\r\n")[i % 3] for i, line in enumerate(lines[:-1]))
    frames = [b"\x0bMSH" + part + b"\x1c\r" for part in content.split(b"MSH|^") for part in [b"|^" + part] if part != b"|^"]
    return {
        "cr": content,
        "lf": content.replace(b"\r", b"\n"),
        "crlf": content.replace(b"\r", b"\r\n"),
        "mixed": mixed,
        "mllp": b"".join(frames),
        "bom": b"\xef\xbb\xbf" + content,
        "blank-lines": content.replace(b"\r", b"\r\r"),
        "no-last-end": content.rstrip(b"\r"),
        "utf-16": content.decode().encode("utf-16"),
    }


@pytest.mark.parametrize("form", ["lf", "crlf", "mixed", "mllp", "bom", "blank-lines", "no-last-end", "utf-16"])
def test_forms_of_one_content_give_the_same_tables(form: str, tmp_path: Path, shared: Path) -> None:
    content = b"".join(
        re.sub(rb"[\r\n]+", b"\r", (shared / "data" / "hl7v2" / "fhir_converter" / name).read_bytes().removeprefix(b"\xef\xbb\xbf")) + b"\r"
        for name in ("ORU-R01-01.hl7", "ADT-A01-01.hl7", "MDM-T05-01.hl7")
    ).replace(b"\r\r", b"\r")
    found = []
    for name in ("cr", form):
        path = tmp_path / f"{name}.hl7"
        path.write_bytes(_forms(content)[name])
        with open_engine(threads=2) as con:
            tables = read(con, [path])
            found.append((tables.entries[1].read, tables.entries[1].rejected, tables.everything()))
    assert found[0][0] == 3
    assert found[0] == found[1]


def test_other_separators_give_the_same_tables(tmp_path: Path) -> None:
    segments = message(PID, PV1, "OBX|1|ST|1^{}^L^2^b^M||{}|mg&ml|||||F", "NTE|1||x")
    # what separates in one is data in the other; an escape means the separator of its own message
    content = "".join(segment + "\r" for segment in segments)
    plain = content.format(r"A\T\B \S\ \F\ x*y:z", r"1 \E\ 2 \R\ /E/ \.br\ .")
    other = content.translate(str.maketrans("|^~\\&", "*:;/+")).format("A&B ^ | x/F/y/S/z", r"1 \ 2 ~ /E/E/E/ /.br/ .")
    found = []
    for name, text in (("plain", plain), ("other", other)):
        path = tmp_path / f"{name}.hl7"
        path.write_text(text, "utf-8", newline="")
        with open_engine(threads=2) as con:
            found.append(read(con, [path]).everything())
    assert found[0] == found[1]
    assert any("'A&B ^ | x*y:z'" in row for row in found[0]["concept"])


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    early = message("PID|1||P1||||19800101|F", "PV1|1|E|||||||||||||||||V1", time="20240101")
    late = message("PID|1||P1||||19810101|", "PV1|1|I|||||||||||||||||V1", time="20240301")
    tie = message("PID|1||P1||||19800505|M", "PV1|1|O|||||||||||||||||V1", time="20240301")
    found = []
    for order in ([early, late, tie], [tie, late, early]):
        paths = []
        for i, one in enumerate(order):
            paths.append(tmp_path / f"{i}.hl7")
            paths[-1].write_text("\r".join(one), "utf-8", newline="")
        with open_engine(threads=2) as con:
            tables = read(con, paths)
            found.append(
                (
                    tables.rows("SELECT id, birth_date, sex FROM patient"),
                    tables.rows("SELECT code FROM coding WHERE element = 'encounter.class'"),
                )
            )
    # the last value by MSH-7; of two at the same time the greater; an empty one takes nothing away
    assert found[0] == found[1] == ([("P1", "1981-01-01", "male")], [("O",)])


# --- blocks ----------------------------------------------------------------------------------------------------


def test_blocks_cut_at_messages_give_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.hl7"
    path.write_bytes(
        b"FHS|^~\\&\rBHS|^~\\&\r"
        + b"".join((CASES / f"{name}.hl7").read_bytes() for name in ["plain", "multiline_value", "latin1_undeclared"] * 4)
        + b"BTS|12\r"
    )
    found = []
    for size in (1 << 25, 1000, 77):
        monkeypatch.setattr(hl7v2, "BLOCK_BYTES", size)
        with open_engine(threads=2) as con:
            tables = read(con, [path])
            found.append((tables.entries, {name: rows for name, rows in tables.everything().items() if name not in {"types", "profiled"}}))
            assert tables.row("SELECT sum(n) FROM types") == (12,)
    assert found[0] == found[1] == found[2]
    assert (found[0][0][1].read, found[0][0][1].declared) == (12, 12)


def test_a_message_beyond_the_limit_is_passed_over(tmp_path: Path, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hl7v2, "BLOCK_BYTES", 500)
    monkeypatch.setattr(hl7v2, "LONGEST_MESSAGE", 3000)
    long = message(PID, "OBX|1|ED|1||" + "A" * 9000)
    found = of_text(tmp_path, con, message(PID, "OBX|1|NM|1||1"), long, message(PID, "OBX|1|NM|1||3"))
    assert found.entries[1].reasons == {"too-large": 1}
    assert found.entries[1].read == 3
    assert [(event.position, event.reason) for event in found.rejected] == [(2, "too-large")]
    assert found.rows("SELECT value_number FROM observation ORDER BY 1") == [(1.0,), (3.0,)]


# --- published files -------------------------------------------------------------------------------------------


def _segments(data: bytes) -> Iterator[list[list[str]]]:
    """Split a file in the plainest way: yield messages as lists of fields.  Standard separators only."""
    found: list[list[str]] | None = None
    for line in re.split(r"[\r\n\x0b\x1c]+", data.decode("utf-8-sig")):
        if line.startswith("MSH|"):
            if found is not None:
                yield found
            found = []
        if line[:4] in {"FHS|", "BHS|", "BTS|", "FTS|"} or found is None:
            continue
        if re.match(r"[A-Z][A-Z0-9]{2}\|", line):
            found.append(line.split("|"))
        elif line and found:
            found[-1][-1] += "\n" + line
    if found is not None:
        yield found


def _plain(text: str) -> str:
    for escape, character in (("\\T\\", "&"), ("\\S\\", "^"), ("\\R\\", "~"), ("\\F\\", "|"), ("\\E\\", "\\")):
        text = text.replace(escape, character)
    return text


def test_published_files_against_a_plain_splitter(shared: Path, con: duckdb.DuckDBPyConnection) -> None:
    folder = shared / "data"
    with (folder / "MANIFEST.csv").open(encoding="utf-8", newline="") as stream:
        listed = {row["file"]: int(row["n_resources_messages_rows"]) for row in csv.DictReader(stream) if row["format"] == "hl7v2"}
    paths = [folder / name for name in sorted(listed)]
    found = read(con, paths)
    tables = {"OBX": "observation", "DG1": "condition", "OBR": "report", "PR1": "procedure", "AL1": "allergy", "TXA": "document"}
    counted = {
        segment: dict(found.rows(f"SELECT record >> {POSITION_BITS}, count(*) FROM {table} GROUP BY 1"))
        for segment, table in tables.items()
    }
    codes: Counter[tuple[str, str | None]] = Counter()
    values: Counter[float] = Counter()
    for number, path in enumerate(paths, 1):
        messages = list(_segments(path.read_bytes()))
        entry = found.entries[number]
        assert (path.name, entry.read, entry.rejected) == (path.name, listed[path.relative_to(folder).as_posix()], 0)
        assert len(messages) == entry.profiled
        kinds = Counter(fields[0] for one in messages for fields in one)
        for segment in tables:
            assert (path.name, segment, counted[segment].get(number, 0)) == (path.name, segment, kinds[segment])
        for fields in (fields for one in messages for fields in one if fields[0] == "OBX"):
            parts = [*(fields[3].split("~")[0].split("^") if len(fields) > 3 else []), "", "", ""]
            withdrawn = len(fields) > 11 and fields[11].split("^")[0] in {"W", "D"}
            if parts[0].strip() and not withdrawn:
                codes[_plain(parts[0]), _plain(parts[2]).strip() or None] += 1
            if len(fields) > 5 and fields[2] == "NM" and re.fullmatch(r"\s*[+-]?\d*\.?\d+\s*", fields[5].split("~")[0]):
                values[float(fields[5].split("~")[0])] += 1
    read_codes = found.rows("SELECT code, system FROM coding WHERE element = 'observation.code' AND position = 1")
    # a message whose first alternative is empty has its second one in position 1
    assert not codes - Counter(read_codes)
    joined = found.rows("SELECT value_number FROM observation WHERE value_number IS NOT NULL AND comparator IS NULL")
    assert not values - Counter(value for (value,) in joined)
    assert all(math.isfinite(value) for (value,) in joined)
