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


_TIMES = [
    "20240305", "20240305101112-0500", "202403", "2024", "20241399", "", "", "2024030510", "now", '""', "18991231", "202403050000", " 20240305 ", "20240305101160.1234+0100",
    "20240305T10", "\u0662\u0660\u0662\u0664", "20240230",
]  # fmt: skip
_CWE = [
    "44054006{c}Diabetes{c}SCT", "E11.9{c}T2D{c}I10C{c}44054006{c}Diab{c}SCT{c}2024{c}2023", "{c}text only", "UNK{c}unknown{c}NULLFL", "MSK{c}m{c}HL70353", "", "", "{c}{c}{c}{c}{c}{c}{c}{c}orig",
    "5", "{c}", "a{e}T{e}b{c}x{e}F{e}y{c}L", "N/A{c}{c}L{c}x{c}y{c}L", "E11.9{c}a{e}.br{e}b{c}I10C{r}I10{c}b{c}I10C", "1{c}2{c}3{c}4{c}5{c}6{c}7{c}8{c}9{c}10{c}11{c}12{c}13", '""', "H",
    "2345-7{s}x{c}Glucose{s}y{c}LN{s}z", "a{e}S{e}b{c}c{e}R{e}d{c}L", "{e}E{e}", "{c}{c}LN", " 5 {c} d {c} LN ", "{e}X41{e}", "e\u0301{c}\U0001f600{c}L", "NULL{c}NULL{c}NULL", "{s}", "{s}{c}{r}{r}x", "K{e}P{e}",
]  # fmt: skip
_VALUES = [
    "5", "-1.5e3", "abc", "<5", "{c}5", "<{c}7.1", "{c}1{c}-{c}2", "", "{c}", "5{r}6", '""', ">={c}10", "1_000", "inf", "UNK", "E11.9{c}T{c}I10C", "a{e}F{e}b", "x" * 80, " 5 ", "+5", ".5", "5.", "0x10",
    "1e400", "-0", "{c}{c}{c}", "={c}5", "<>{c}5", "{c}<{c}5", "1{c}:{c}80", "5 mg", "1,5", "\u0665", "NaN", "{s}5", "5{s}6", "\u00a05", "9" * 400,
]  # fmt: skip


def _drawn(rng: random.Random, marks: dict[str, str], *fields: str | list[str]) -> str:
    """Return a segment of fields that are given or drawn, ``{c}`` and so on replaced by the message's separators."""
    found = [one if isinstance(one, str) else rng.choice(one) for one in fields]
    for name, mark in marks.items():
        found = [one.replace(f"{{{name}}}", mark) for one in found]
    return marks["f"].join(found)


_FIELD, _SEPARATORS_OF = (
    ["|"] * 12 + ["#", "*", "\u00a7", ";"],
    ["^~\\&"] * 12 + ["$%\\@", "^~\\", "^~", "^", ":~\\&", "^~\\&#", "&~\\^", "~^\\&"],
)


def message(rng: random.Random) -> str:
    """Return a message of segments in any number and order, with separators of its own now and then."""
    field, declared = rng.choice(_FIELD), rng.choice(_SEPARATORS_OF)
    given = [field, *declared[:4]]
    if len(set(given)) < len(given):
        field = "|"
        given[0] = field
    rest = ["" if default in given else default for default in "|^~\\&"[len(given) :]]
    marks = dict(zip("fcres", given + rest, strict=True))
    empty = [""]

    def of(*fields: str | list[str]) -> str:
        return _drawn(rng, marks, *fields)

    version = ["2.5.1", "2.2", "2", "", "2.3", "2.10"]
    header = of("MSH", declared, ["EHR", "", "A{e}F{e}B"], ["LCC", "FAC{s}x{c}1", "", '""', "\u00c9"], "", "", _TIMES, "",
                ["ADT{c}A01{c}ADT_A01", "ORU{c}R01", "VXU{c}V04", "VXU_V04", "RDE{c}O11", "", "xx{c}yy", "ORU"], "1", "P", version)  # fmt: skip
    makers = {
        "PID": lambda: of("PID", "1", ["", "OLD1"], ["P1{c}{c}{c}AUTH{s}1.2{c}MR", "P1", "P2{c}{c}{c}AUTH{r}P3", "", '""', "P{e}T{e}4", " P1 ", "\u00c9{c}{c}{c}"], "", "", "", _TIMES,
                          ["M", "F", "X", "", "m", '""'], "", _CWE, *empty * 4, _CWE, *empty * 6, _CWE, *empty * 6, _TIMES, ["Y", "N", "", "x"]),
        "PV1": lambda: of("PV1", "1", ["I", "O{c}x{c}L", "", "E{c}", "{c}"], "", ["", "R", "A{c}b"], *empty * 13, ["", "T", "X{c}y{c}Z"], ["V1", "V2", "V1{c}{c}{c}A", "", '""'], *empty * 24,
                          _TIMES, _TIMES),
        "OBX": lambda: of("OBX", "1", ["NM", "NM", "SN", "SN", "CE", "CWE", "ST", "DT", "ED", "", "nm", "TX"], _CWE, "", _VALUES,
                          ["mg/dL{c}mg{c}UCUM", "%", "{c}pct", "", "x{c}{c}ISO+", "UNK{c}{c}UCUM", "\u00b5g"], ["3.5-5", "<10", ">=2", "", "a-b", "-1--2", "< 5 mg", "5 - 6 x"],
                          ["H", "", "H{r}L", "N{c}n{c}HL70078", "{r}L", "{c}{c}{r}X{c}{c}z"], "", "", ["F", "P", "D", "W", "", "f"], "", "", _TIMES),
        "OBR": lambda: of("OBR", "1", "", "", _CWE, "", "", _TIMES, *empty * 14, _TIMES, "", "", ["F", "P", "", "S"]),
        "DG1": lambda: of("DG1", "1", "", _CWE, ["", "words", "w{e}F{e}x"], _TIMES, *empty * 13, _TIMES),
        "RXE": lambda: of("RXE", ["{c}{c}{c}20240305", "", "{c}{c}{c}x"], _CWE),
        "RXO": lambda: of("RXO", _CWE),
        "RXA": lambda: of("RXA", "0", "1", _TIMES, _TIMES, _CWE, *empty * 14, ["CP", "NA", "", "x"]),
        "ORC": lambda: of("ORC", "NW", "", "", "", ["CM", "IP", ""], "", "", "", _TIMES, *empty * 5, _TIMES),
        "PR1": lambda: of("PR1", "1", "", _CWE, ["", "words"], _TIMES),
        "AL1": lambda: of("AL1", "1", "DA", _CWE, "", "", _TIMES),
        "TXA": lambda: of("TXA", "1", _CWE, "", _TIMES, "", _TIMES, *empty * 10, ["AU", ""]),
        "NTE": lambda: of("NTE", "1", "", ["a{e}F{e}b", "x{e}.br{e}y", "{e}", ""]),
        "ZZ1": lambda: of("ZZ1", "x"),
    }  # fmt: skip
    order = [
        *(["PID"] * rng.choice([0, 1, 1, 1, 1])),
        *(["PV1"] * rng.choice([0, 1, 1])),
        *rng.choices([*makers, "OBX", "OBX", "OBX"], k=rng.randrange(9)),
    ]
    segments = [header, *(makers[name]() for name in order)]
    if rng.random() < 0.1:
        segments.insert(
            rng.randrange(1, len(segments) + 1),
            rng.choice(["words", "OBX", "PID", f" OBX{field}1", f"obx{field}1", "", " ", f"OB{field}1", "MSHX"]),
        )
    end = rng.choice(["\r", "\r", "\r", "\n", "\r\n"])
    text = end.join(segments) + end
    return f"\x0b{text}\x1c\r" if rng.random() < 0.1 else text


def texts(seed: int, count: int) -> list[str]:
    """Return files of some messages, in batches or not, with text between them now and then."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        text = "".join(message(rng) for _ in range(rng.choice([1, 1, 2, 5])))
        match rng.randrange(12):
            case 0:
                text = f"FHS|^~\\&\rBHS|^~\\&\r{text}BTS|{text.count('MSH')}\rFTS|1\r"
            case 1:
                text = f"junk\r{text}"
            case 2:
                text = f"\ufeff\r\n{text}"
            case 3:
                text += "MSH|||\r"
        found.append(text)
    return found
