"""HL7v2 files broken at random, from published messages: seeded, so that a failure can be replayed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_MARKS = [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1e", b"\x1d", b"\x11\x01", b"\x00\x00", b"\x1b$B", b"\x0b", b"\x1c"]


def _at(data: bytes, at: int, what: bytes) -> bytes:
    return data[:at] + what + data[at:]


def mutate(data: bytes, rng: random.Random) -> bytes:  # noqa: C901 # one case per way to break
    """Break a file in one of the ways that exports break: line ends, headers, separators, escapes, bytes, cuts."""
    at = rng.randrange(len(data)) if data else 0
    ends = [found.start() for found in re.finditer(rb"[\r\n]", data)] or [0]
    end = rng.choice(ends)
    match rng.randrange(17):
        case 0:  # a line end lost
            return data[:end] + data[end + 1 :]
        case 1:  # truncation
            return data[:at]
        case 2:
            return _at(data, at, bytes([rng.randrange(256)]) * rng.randrange(1, 9))
        case 3:  # doubled MSH, with and without a line end
            return data.replace(b"MSH", rng.choice([b"MSHMSH", b"MSH\rMSH", b"MSH|^~\\&|MSH"]), rng.randrange(1, 3))
        case 4:  # odd or clashing separators
            return data.replace(
                b"MSH|^~\\&", b"MSH" + bytes(rng.choices(b"|^~\\&#*A1 \r\x00\xff", k=rng.randrange(7))), rng.randrange(1, 3)
            )
        case 5:
            return _at(data, at, rng.choice(_MARKS))
        case 6:  # wrong escapes
            return _at(data, at, b"\\" + rng.choice([b"", b"F", b"X0", b"E\\F", b".br", b"\\\\", b"Z" * 99, b"H\\N", b"C2842\\"]))
        case 7:
            return _at(data, at, rng.choice([b"^", b"&", b"~", b"|"]) * rng.choice([1, 40, 3000]))
        case 8:
            return data.replace(b"|", rng.choice([b"*", b"||", b"\t", b"a", b"\xc2\xa7"]))
        case 9:
            return re.sub(rb"\r\n?|\n", rng.choice([b"\n", b"\r\n", b"\x1c\r", b"\r\x0b", b"", b"\n\r"]), data, count=rng.randrange(1, 50))
        case 10:
            return data[at:] + data[:at]
        case 11:
            return _at(data, at, b"\r" + rng.choice([b"BTS|x", b"BHS", b"FTS|99999999999", b"PID|", b"MSH", b"msh|", b"A0|"]) + b"\r")
        case 12:
            return data.replace(b"|P|", b"|P|2.5||||||" + rng.choice([b"8859/1", b"ISO IR87", b"8859/99", b"UNICODE UTF-16", b"\x1b$B"]), 1)
        case 13:
            return rng.choice([b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x0b\x0b", b"\x1b$B"]) + data
        case 14:  # no header
            return data.replace(b"MSH", b"", 1)
        case 15:
            return data + data[:at] + data
        case _:
            return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "cp1252", "utf-32", "ascii"]), "replace")


def mutations(sources: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` files, each broken one to three times."""
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(sources)
        for _ in range(rng.randrange(1, 4)):
            data = mutate(data, rng)
        yield data


def framings(data: bytes) -> dict[str, bytes]:
    """Return a file of messages in every framing; ``data`` has one line end, whichever."""
    lines = [line for line in re.split(rb"[\r\n\x0b\x1c]+", data) if line.strip()]
    messages: list[list[bytes]] = []
    for line in lines:
        if line.startswith(b"MSH") or not messages:
            messages.append([])
        messages[-1].append(line)
    mixed = b"".join(line + (b"\r", b"\n", b"\r\n")[i % 3] for i, line in enumerate(lines))
    return {
        "cr": b"\r".join(lines) + b"\r",
        "lf": b"\n".join(lines) + b"\n",
        "crlf": b"\r\n".join(lines) + b"\r\n",
        "mixed": mixed,
        "mllp": b"".join(b"\x0b" + b"\r".join(message) + b"\r\x1c\r" for message in messages),
    }
