"""Delimited text made from a seed: quotes where they belong and where not, blanks, line ends, marks of encodings, rows that are too short or too long."""

from __future__ import annotations

import random

_CELLS = [
    "",
    "a",
    "1",
    "2024-03-05",
    "x y",
    "\u00e9",
    " lead",
    "trail ",
    '""',
    '"a"',
    '"a{d}b"',
    '"a{e}b"',
    '"a""b"',
    '"\u00e9"',
    "'s'",
    "\\N",
    "#c",
    '"  "',
    "\u00a0",
    ' "a"',
]
_BAD = ['a"b', '"a"b', '"open', 'cl"', '"', '"""', "\0", "a{e}b", "{d}", "\r", "\udcff", '"a\udce9"', "x\u2028y", "\x0b", "\x1c", "\x85"]
_NAMES = ["a", "b", '"c"', "d e", "A", '"x{d}y"', "\u00e9", ' "q"']


def delimited(seed: int) -> bytes:
    """Return a table of one to four columns as delimited text."""
    rng = random.Random(seed)
    mark, end, width, bad = (
        rng.choice(",,\t;|"),
        rng.choice(["\n", "\n", "\r\n"]),
        rng.choice([1, 2, 2, 3, 4]),
        rng.choice([0, 0, 0.02, 0.1, 0.3]),
    )
    lines = [mark.join(rng.choice(_NAMES).format(d=mark, e=end) if rng.random() < 0.2 else f"c{i}" for i in range(width))]
    for _ in range(rng.choice([0, 1, 3, 10, 40])):
        n = width + (rng.choice([-1, 1, 2]) if rng.random() < bad else 0)
        cells = [
            (rng.choice(_BAD) if rng.random() < bad else rng.choice(_CELLS)).replace("{d}", mark).replace("{e}", end) for _ in range(n)
        ]
        lines.append(mark.join(cells) + (mark * rng.choice([0, 1, 2]) if rng.random() < bad else ""))
        if rng.random() < 0.03:
            lines.append(rng.choice(["", "", " "]))
    text = end.join(lines) + rng.choice([end, end, "", end + end])
    match rng.choice(["utf-8", "utf-8", "utf-8", "mark", "utf-16", "latin-1"]):
        case "mark":
            return b"\xef\xbb\xbf" + text.encode("utf-8", "surrogateescape")
        case "utf-16":
            return text.encode("utf-16", "replace")
        case "latin-1":
            return text.replace("\u2028", "?").encode("latin-1", "surrogateescape")
    return text.encode("utf-8", "surrogateescape")
