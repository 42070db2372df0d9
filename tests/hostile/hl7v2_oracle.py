"""What HL7v2 messages mean in the canonical tables, in plain Python: a second opinion on the reader, written from its mapping and from HL7 v2.8.2.

One message at a time, with ``str.split``: no Arrow, no SQL, no block.  ``read()`` gives the rows that a reading must give, without their places.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile.fhir_oracle import _SPACES, is_token

Row = dict[str, Any]
Segment = tuple[str, list[str]]

_NULLS = {"NULLFL", "HL70353"}
_SEX = {"M": "male", "F": "female", "O": "other", "U": "unknown", "A": "other", "N": "other"}
_RESULT = {"F": "final", "P": "preliminary", "C": "corrected", "X": "cancelled", "D": "entered-in-error", "W": "entered-in-error"}
_REPORT = {
    "F": "final",
    "P": "preliminary",
    "C": "corrected",
    "X": "cancelled",
    "A": "partial",
    "I": "registered",
    "O": "registered",
    "S": "registered",
}
_GIVEN = {"CP": "completed", "PA": "completed", "RE": "not-done", "NA": "not-done"}
_ORDER = {"CM": "completed", "IP": "active", "SC": "active", "A": "active", "HD": "on-hold", "DC": "stopped", "CA": "cancelled"}
_TIME = re.compile(
    r"(\d{4}(?:(?:0[1-9]|1[0-2])(?:(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)?)?)?)(?:\.\d{1,4})?(?:[+-]\d{4})?",
    re.ASCII,
)


def one_form(data: bytes) -> str:
    """Return a file's text with carriage returns as its only line ends and spaces for other control characters."""
    text = re.sub("\r\n|[\n\x0b\x1c]", "\r", data.decode().removeprefix("\ufeff"))
    return re.sub("[\x00-\x08\x0c\x0e-\x1a\x1d-\x1f]", " ", text)


#: What stands for an escaped character: as the reader has it, since ties between messages are by value.
_MARKS = {c: chr(0x11 + i) for i, c in enumerate("|^&~\\#")}
_MEANT = {ord(mark): c for c, mark in _MARKS.items()}


def _standard(used: dict[str, str], raw: str) -> str:
    """Return a field in the standard separators, with marks for what its escapes stand for and for data that would separate there."""
    escape, kept = (
        used["escape"],
        dict(zip("FSTREP", [*(used[n] for n in ("field", "component", "sub", "repetition", "escape")), "#"], strict=True)),
    )
    pieces = (
        re.split(rf"({re.escape(escape)}(?:[FSTREP]|[HN]|\.[^{re.escape(escape)}]*|[XZCM][0-9A-Za-z]*){re.escape(escape)})", raw)
        if escape
        else [raw]
    )
    table = {ord(c): mark for c, mark in _MARKS.items() if c not in used.values() and c != "#"}
    table |= {ord(used[n]): c for n, c in {"component": "^", "repetition": "~", "escape": "\\", "sub": "&"}.items() if used[n]}
    found = ""
    for piece in pieces:
        meant = kept.get(piece[1:-1]) if escape and len(piece) == 3 and piece[0] == piece[2] == escape else None
        found += piece.translate(table) if meant is None else _MARKS.get(meant, meant)
    return found


class Message:
    """A message: its separators and segments, each a name and its fields as they are."""

    def __init__(self, lines: list[str]) -> None:
        header = lines[0]
        mark, declared = header[3], header[4:].split(header[3], 1)[0]
        given = [mark, *declared[:4]]
        rest = ["" if default in given else default for default in "|^~\\&"[len(given) :]]
        used = dict(zip(("field", "component", "repetition", "escape", "sub"), given + rest, strict=True))
        texts: list[str] = []
        for line in lines:
            if not texts or re.match(rf"[ \t]*(?!MSH)[A-Z][A-Z0-9]{{2}}{re.escape(mark)}", line):
                texts.append(line.lstrip(" \t"))
            else:
                texts[-1] += "\n" + line
        found = [text.split(mark) for text in texts]
        found[0] = ["MSH", "|", "", *found[0][2:]]
        self.segments: list[Segment] = [(fields[0], [_standard(used, field) for field in fields]) for fields in found]

    def first(self, segment: Segment | None, number: int) -> str:
        """Return the first repetition of a field, ``""`` where there is none."""
        found = segment[1][number] if segment and number < len(segment[1]) else ""
        return found.split("~")[0]

    def part(self, raw: str, component: int = 1, sub: int = 0) -> str:
        """Return a component (or a subcomponent of one)."""
        found = [*raw.split("^"), *[""] * component][component - 1]
        return [*found.split("&"), *[""] * sub][sub - 1] if sub else found

    def plain(self, raw: str) -> str:
        """Return a text with what its escapes stand for; those of formatting stay."""
        return raw.translate(_MEANT)

    def text(self, segment: Segment | None, number: int, component: int = 1, sub: int = 0) -> str | None:
        """Return the text at a place, None for nothing."""
        return clean(self.plain(self.part(self.first(segment, number), component, sub)))

    def blank(self, raw: str) -> bool:
        """Say whether a field is of separators only."""
        return not raw.strip(" ^&~")


def clean(value: str | None) -> str | None:
    """Return a text without what is around it, None for nothing."""
    return ((value or "").strip(" \t\r\n\x01")) or None


def time(value: str | None) -> str | None:
    """Return an ISO 8601 prefix of an HL7v2 time; what is none stays as it is."""
    if value is None or not (found := _TIME.fullmatch(value)):
        return value
    d = found[1]
    if len(d) <= 8:
        return "-".join(part for part in (d[:4], d[4:6], d[6:8]) if part)
    return f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[8:10]}:{d[10:12] or '00'}:{d[12:14] or '00'}"


def number(value: str | None) -> float | None:
    """Return a finite number, None of what is none."""
    try:
        found = float(value) if value and "_" not in value and value.isascii() else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def known(value: str | None) -> str | None:
    """Return an identifier: the HL7 null is none."""
    return None if value == '""' else value


def concept(m: Message, raw: str, system: str | None = None, beside: str | None = None) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return (text, codings, reason) of a CWE and (position, system, version, code, display) of its codings."""
    parts = [m.plain(part) for part in (raw.split("^"))] if not m.blank(raw) else [""]
    if system and not m.blank(raw) and len(parts) < 3:
        parts = [*parts, *[""] * (2 - len(parts)), system]
    c = ["", *parts, *[""] * 14]
    reasons, n = None, 0
    rows: list[tuple[Any, ...]] = []
    tokens: list[str | None] = []
    for code, words, of, version in ((1, 2, 3, 7), (4, 5, 6, 8), (10, 11, 12, 13)):
        if not c[code].strip(" ") or clean(c[of]) in _NULLS:
            continue
        rows.append((len(rows) + 1, clean(c[of]), clean(c[version]), c[code], clean(c[words])))
        if is_token(c[code]):
            tokens.append(clean(c[code]))
        else:
            n += 1
    if clean(c[3]) in _NULLS:
        reasons = c[1].strip(" ").lower()
        reasons = "masked" if reasons == "msk" else reasons
    said = [clean(c[9]), None if clean(c[3]) in _NULLS else clean(c[2]), clean(c[5]), clean(beside), *tokens]
    return (next((t for t in said if t), None), n, reasons), rows


def value_of(m: Message, obx: Segment) -> Row:
    """Return the value columns of an OBX."""
    kind, raw = (m.text(obx, 2) or "").upper(), m.first(obx, 5)
    unit, second, system = (m.text(obx, 6, i) for i in (1, 2, 3))
    row: Row = {"unit": unit or second, "unit_code": unit if system in {"UCUM", "ISO+"} else None, "value_kind": None, "value_number": None,
                "value_text": None, "comparator": None, "value_declared": None}  # fmt: skip
    row["range_low"], row["range_high"] = _range(m.text(obx, 7))
    if m.blank(raw):
        return row
    figure, comparator, parts = None, None, [part.strip(_SPACES) for part in raw.split("^")]
    if kind == "NM":
        figure = raw
    elif kind == "SN":
        signs = {"", "<", ">", "<=", ">=", "=", "<>"}
        shift = int(len(parts) > 1 and parts[0] == "" and parts[1] in signs - {""})
        s = [*parts[shift:], "", "", ""]
        if len(parts) == 1:
            figure = parts[0]
        elif s[0] in signs and s[2] == "" and (len(parts) < 4 or parts[3] == ""):
            figure, comparator = s[1], s[0]
    row["value_number"] = number(figure.strip(" ")) if figure else None
    plain = clean(m.plain(raw))
    if row["value_number"] is not None:
        row |= {"value_kind": "number", "comparator": comparator if comparator not in {"", "="} else None}
    elif raw.strip(" ") == '""' or kind in {"ST", "TX", "FT", "NM", "SN", ""}:
        row |= {"value_kind": "text", "value_text": (plain or "").replace("^", "") or None if kind == "SN" else plain}
        row["value_declared"] = {"NM": "declared", "SN": "structured"}.get(kind)
    elif kind in {"CE", "CWE", "CNE", "CF"}:
        said = [clean(m.plain(m.part(raw, i))) for i in (9, 2, 1)]
        row |= {"value_kind": "coded", "value_text": next((t for t in said if t), None)}
    elif kind in {"DT", "TM", "TS", "DTM"}:
        row |= {"value_kind": "time", "value_text": plain}
    else:
        row |= {"value_kind": "other", "value_text": (plain or "")[:64] or None}
    return row


def _range(reach: str | None) -> tuple[float | None, float | None]:
    figure = r"([+-]?[0-9]*\.?[0-9]+)"
    pair = re.match(rf"{figure}\s*-\s*{figure}(?:\s.*)?$", reach or "")
    single = re.match(rf"([<>])=?\s*{figure}(?:\s.*)?$", reach or "")
    low = number(single[2]) if single and single[1] == ">" else number(pair[1]) if pair else None
    high = number(single[2]) if single and single[1] == "<" else number(pair[2]) if pair else None
    return low, high


def messages(text: str) -> tuple[list[Message], Counter[str]]:
    """Return the messages of a text in one form that have separators, and how many records are rejected and why."""
    found: list[list[str]] = []
    inside, rejected = False, Counter[str]()
    for line in text.split("\r"):
        if re.match(r"MSH(?![^\W_]|[ \t])", line):
            found.append([line])
            inside = True
        elif re.match(r"(FHS|BHS|BTS|FTS)(?![^\W_]|[ \t])", line):
            inside = False
        elif line.strip() and inside:
            found[-1].append(line)
        elif line.strip():
            rejected["no-msh"] = 1
    good = [Message(lines) for lines in found if _separates(lines[0])]
    rejected["bad-msh"] = len(found) - len(good)
    return good, +rejected


def _separates(header: str) -> bool:
    given = header[3:4] + header[4:].split(header[3:4] or "|", 1)[0][:4]
    return bool(given) and len(set(given)) == len(given) and not any(c.isalnum() or c.isspace() for c in given)


def read(texts: Sequence[str]) -> tuple[dict[str, list[Row]], Counter[str], Counter[str]]:
    """Return the rows of the tables for some files, the messages by type and what is rejected."""
    tables: dict[str, list[Row]] = {name: [] for name in ("patient", "encounter", "concept", "coding")}
    types = Counter[str]()
    people: dict[str, dict[Any, list[Row]]] = {"patient": {}, "encounter": {}}
    found: list[Message] = []
    rejected = Counter[str]()
    for text in texts:
        good, bad = messages(text)
        found += good
        rejected += bad
    for i, m in enumerate(found):
        header = m.segments[0]
        code, event = m.text(header, 9), m.text(header, 9, 2)
        kind = "^".join(part for part in (code, event) if part) if code else ""
        types[kind if re.fullmatch("[A-Z0-9]{3}[_^][A-Z0-9]{3}", kind) else "other"] += 1
        for table, row in _rows(m, (code or "").split("_")[0]):
            if table in people:
                key = row["id"] if row["id"] is not None else i
                # a visit is one of its patient
                people[table].setdefault((row.get("patient_id"), row["encounter_id"], key), []).append(row)
            else:
                tables.setdefault(table, []).append(row)
                _coded(tables, m, row)
    for table, groups in people.items():
        for rows in groups.values():
            last = {
                name: max(((r["ts"] or "", r[name]) for r in rows if r[name] is not None), default=("", None))[1]
                for name in rows[0]
                if name not in {"ts", "c"}
            }
            latest = {}
            for element in rows[0]["c"]:
                said = [(r["ts"] or "", r["c"][element]) for r in rows if r["c"][element] is not None]
                latest[element] = max(said, default=("", None))[1]
            tables[table].append(last)
            for element, raw in latest.items():
                _add(tables, element, last, 1, concept(_STANDARD, raw or ""), optional=element == "encounter.type" and not raw)
    return tables, types, rejected


_STANDARD = Message(["MSH|^~\\&|"])


def _coded(tables: dict[str, list[Row]], m: Message, row: Row) -> None:
    if row.get("excluded"):
        row.pop("c")
        return
    for element, (raw, system, beside) in row.pop("c").items():
        if element == "observation.interpretation":
            each = raw.split("~")
            for ordinal, one in enumerate(each, 1):
                if not m.blank(one):
                    _add(tables, element, row, ordinal, concept(m, one, system))
        else:
            _add(tables, element, row, 1, concept(m, raw, system, beside), optional=element == "observation.value_code" and not raw)


def _add(tables: dict[str, list[Row]], element: str, row: Row, ordinal: int, made: Any, *, optional: bool = False) -> None:
    if optional:
        return
    (said, n, why), rows = made
    about = {name: row.get(name) for name in ("patient_id", "encounter_id", "site", "at")}
    tables["concept"].append({"element": element, **about, "ordinal": ordinal, "text": said, "n_codings": n, "absent_reason": why})
    for position, system, version, code, display in rows:
        tables["coding"].append({"element": element, **about, "position": position, "system": system, "version": version, "code": code,
                                 "display": display, "concept": ordinal})  # fmt: skip


def _said(m: Message, segment: Segment, number: int) -> str | None:
    raw = m.first(segment, number)
    return None if m.blank(raw) else raw


def _rows(m: Message, code: str) -> Iterator[tuple[str, Row]]:  # noqa: C901 # one case per segment
    """Yield (table, row) of a message's segments."""
    header, names = m.segments[0], [name for name, _ in m.segments]
    early = re.fullmatch(r"2(\.[012])?", m.text(header, 12) or "")
    site = known(m.text(header, 4)) or known(m.text(header, 3))
    groups = [0] * len(m.segments)
    for i, name in enumerate(names[1:], 1):
        groups[i] = groups[i - 1] + (name == "PID")
    whose: dict[int, str | None] = {}
    visits: dict[int, str] = {}
    for (name, fields), group in zip(m.segments, groups, strict=True):
        segment = (name, fields)
        if name == "PID":
            identifier, authority = known(m.text(segment, 3)), known(m.text(segment, 3, 4, 1))
            former = known(m.text(segment, 2)) if early else None
            whose[group] = identifier + (f"^^^{authority}" if authority else "") if identifier else former
        if name == "PV1" and (visit := known(m.text(segment, 19))):
            visits.setdefault(group, visit)
    if 1 in whose:  # what stands before the first PID is of its patient
        whose[0] = whose[1]
        visits[0] = visits.get(1, "")
    last: dict[str, tuple[int, Segment]] = {}
    for i, segment in enumerate(m.segments):
        name, group = segment[0], groups[i]
        last[name] = (group, segment)

        def before(other: str, group: int = group) -> Segment | None:
            found = last.get(other)
            return found[1] if found and found[0] == group else None

        def said(*places: tuple[Segment | None, int], component: int = 1) -> str | None:
            return next((t for s, n in places if (t := m.text(s, n, component)) is not None), None)

        own: Row = {"patient_id": whose.get(group), "encounter_id": visits.get(group) or None, "site": site, "source_type": name}
        orc, obr, s = before("ORC"), before("OBR"), segment
        if name == "PID":
            sex, dead = m.text(s, 8), m.text(s, 30)
            yield "patient", {**own, "encounter_id": None, "id": own["patient_id"], "ts": m.text(header, 7), "birth_date": time(m.text(s, 7)),
                              "death_date": time(m.text(s, 29)), "deceased": {"Y": "true", "N": "false"}.get(dead or "", dead), "sex": _SEX.get(sex or "", sex),
                              "c": {f"patient.{e}": _said(m, s, n) for e, n in (("race", 10), ("ethnicity", 22), ("language", 15))}}  # fmt: skip
        elif name == "PV1":
            visit = known(m.text(s, 19))
            kinds = [_with(_said(m, s, n), system) for n, system in ((4, "HL70007"), (18, "HL70018"))]
            yield "encounter", {**own, "encounter_id": visit, "id": visit, "ts": m.text(header, 7), "at": time(m.text(s, 44)), "end": time(m.text(s, 45)),
                                "c": {"encounter.class": _with(_said(m, s, 2), "HL70004"), "encounter.type": kinds[0] or kinds[1]}}  # fmt: skip
        elif name == "DG1":
            yield (
                "condition",
                {
                    **own,
                    "at": time(m.text(s, 5)),
                    "recorded_at": time(m.text(s, 19)),
                    "c": {"condition.code": (m.first(s, 3), None, m.text(s, 4))},
                },
            )
        elif name == "OBX":
            status = m.text(s, 11)
            value = value_of(m, s)
            raw = m.first(s, 5) if value["value_kind"] == "coded" else ""
            flags = s[1][8] if len(s[1]) > 8 else ""
            yield "observation", {**own, **value, "status": _RESULT.get(status or "", status), "at": time(said((s, 14), (obr, 7))),
                                  "excluded": "entered-in-error" if status in {"D", "W"} else None,
                                  "c": {"observation.code": (m.first(s, 3), None, None), "observation.interpretation": (flags, "HL70078", None),
                                        "observation.value_code": (raw, None, None)}}  # fmt: skip
        elif name == "OBR":
            status = m.text(s, 25)
            yield (
                "report",
                {
                    **own,
                    "status": _REPORT.get(status or "", status),
                    "at": time(said((s, 7), (s, 22))),
                    "c": {"report.code": (m.first(s, 4), None, None)},
                },
            )
        elif name in {"RXE", "RXO"}:
            if name == "RXO" and "RXE" in names:
                continue
            status = m.text(orc, 5)
            at = said((orc, 15), (orc, 9))
            at = (m.text(s, 1, 4) or at) if name == "RXE" else at
            yield (
                "medication",
                {
                    **own,
                    "status": _ORDER.get(status or "", status),
                    "at": time(at),
                    "c": {"medication.code": (m.first(s, 2 if name == "RXE" else 1), None, None)},
                },
            )
        elif name == "RXA":
            status = m.text(s, 20)
            row: Row = {**own, "status": _GIVEN.get(status or "", status)}
            if code == "VXU":
                yield "immunization", {**row, "at": time(m.text(s, 3)), "c": {"immunization.code": (m.first(s, 5), None, None)}}
            else:
                yield (
                    "medication",
                    {
                        **row,
                        "at": time(said((s, 3), (orc, 9))),
                        "end": time(m.text(s, 4)),
                        "c": {"medication.code": (m.first(s, 5), None, None)},
                    },
                )
        elif name == "PR1":
            yield "procedure", {**own, "at": time(m.text(s, 5)), "c": {"procedure.code": (m.first(s, 3), None, m.text(s, 4))}}
        elif name == "AL1":
            yield "allergy", {**own, "at": time(m.text(s, 6)), "c": {"allergy.code": (m.first(s, 3), None, None)}}
        elif name == "TXA":
            yield (
                "document",
                {
                    **own,
                    "status": m.text(s, 17),
                    "at": time(said((s, 4), (s, 6))),
                    "c": {"document.type": (m.first(s, 2), "HL70270", None)},
                },
            )


def _with(raw: str | None, system: str) -> str | None:
    return raw if raw is None or raw.count("^") > 1 else raw + "^" * (2 - raw.count("^")) + system
