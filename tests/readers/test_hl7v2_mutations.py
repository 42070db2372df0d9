"""HL7v2 files broken at random: read or rejected, never a failure; the counts always add up."""

from __future__ import annotations

import random
import re
from pathlib import Path

import duckdb
import pytest

from ehrready.engines.duckdb import open_engine
from ehrready.tables import POSITION_BITS
from tests.readers.hl7v2_helpers import CASES, PID, engine, message, of_text, read

con = engine  # the fixture


def _mutate(data: bytes, rng: random.Random) -> bytes:
    """Break a file in one of the ways that exports break."""
    at = rng.randrange(len(data)) if data else 0
    ends = [found.start() for found in re.finditer(rb"\r", data)] or [0]
    end = rng.choice(ends)
    match rng.randrange(15):
        case 0:
            return data[:end] + data[end + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + bytes([rng.randrange(256)]) * rng.randrange(1, 9) + data[at:]
        case 3:
            return data.replace(b"MSH", b"MSHMSH" if rng.random() < 0.5 else b"MSH\rMSH", rng.randrange(1, 3))
        case 4:
            return data.replace(
                b"MSH|^~\\&", b"MSH" + bytes(rng.choices(b"|^~\\&#*A1 \r\x00\xff", k=rng.randrange(7))), rng.randrange(1, 3)
            )
        case 5:
            return data[:at] + rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1e", b"\x1d", b"\x11\x01", b"\x00\x00"]) + data[at:]
        case 6:
            return data[:at] + b"\\" + rng.choice([b"", b"F", b"X0", b"E\\F", b".br", b"\\\\", b"Z" * 99]) + data[at:]
        case 7:
            return data[:at] + rng.choice([b"^", b"&", b"~", b"|"]) * rng.choice([1, 40, 3000]) + data[at:]
        case 8:
            return data.replace(b"|", rng.choice([b"*", b"||", b"\t", b"a", b"\xc2\xa7"]))
        case 9:
            return data.replace(b"\r", rng.choice([b"\n", b"\r\n", b"\x1c\r", b"\r\x0b", b""]), rng.randrange(1, 50))
        case 10:
            return data[at:] + data[:at]
        case 11:
            return (
                data[:at] + b"\r" + rng.choice([b"BTS|x", b"BHS", b"FTS|99999999999", b"PID|", b"MSH", b"msh|", b"A0|"]) + b"\r" + data[at:]
            )
        case 12:
            return data.replace(b"|P|", b"|P|2.5||||||" + rng.choice([b"8859/1", b"ISO IR87", b"8859/99", b"UNICODE UTF-16", b"\x1b$B"]), 1)
        case 13:
            return rng.choice([b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x0b\x0b", b"\x1b$B"]) + data
        case _:
            return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "cp1252", "utf-32", "ascii"]), "replace")


@pytest.mark.parametrize("seed", range(3))
def test_mutations_are_read_or_rejected_and_never_fail(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)  # a seed, so that a failure can be replayed
    sources = [path.read_bytes() for path in sorted(CASES.glob("*.hl7"))]
    paths = []
    for number in range(150):
        data = rng.choice(sources)
        for _ in range(rng.randrange(1, 4)):
            data = _mutate(data, rng)
        paths.append(tmp_path / f"{number:03d}.hl7")
        paths[-1].write_bytes(data)
    good = tmp_path / "zz.hl7"
    good.write_bytes((CASES / "two_messages.hl7").read_bytes())
    paths.append(good)
    with open_engine(threads=2) as con:
        together = read(con, paths)
        counts = dict(together.rows(f"SELECT record >> {POSITION_BITS}, count(*) FROM observation GROUP BY 1"))
        for number, entry in together.entries.items():
            assert entry.profiled >= 0
            assert entry.read > 0 or entry.status == "read"
            assert counts.get(number, 0) == 0 or entry.profiled > 0
        assert (together.entries[len(paths)].read, together.entries[len(paths)].rejected, counts[len(paths)]) == (2, 0, 2)
        (types,) = together.row("SELECT sum(n) FROM types")
        assert types == sum(entry.profiled for entry in together.entries.values())


def test_extreme_fields(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    found = of_text(
        tmp_path,
        con,
        message(
            PID,
            "OBX|1|ST|1^a^L||" + "&x" * 200_000,
            "OBX|2|CWE|" + "x^" * 200_000 + "||1^a^L",
            "OBX|3|ST|1^a^L||" + "y" * 5_000_000,
            "OBX|4|NM|1^a^L||" + "9" * 5000,
            *["OBX|5|NM|1^a^L||1"] * 40_000,
        ),
        message(PID, "OBX|1|NM|1^a^L||2"),
    )
    assert found.entries[1].read == 2
    assert found.row("SELECT count(*) FROM observation") == (40_005,)
    assert found.rows("SELECT value_kind, length(value_text) FROM observation WHERE length(value_text) > 999 ORDER BY 2") == [
        ("text", 5000),
        ("text", 400_000),
        ("text", 5_000_000),
    ]
