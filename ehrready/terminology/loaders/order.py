"""CMS/NCHS order files of ICD-10-CM and ICD-10-PCS, and their addenda.

Order file (icd10OrderFiles.pdf of CMS): order number in columns 1-5, code in 7-13, header or billable flag in 15, short
title in 17-76, long title from 78.  Addenda have ``Add:``, ``Delete:`` or ``Revise from:``/``Revise to:`` before such a line.
"""

from __future__ import annotations

import re

import numpy as np

from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import Release, ReleaseTable, Store

_LINE = re.compile(r"(?P<number>\d{5,6}) (?P<code>[0-9A-Z]{3,7}) *(?P<flag>[01]) (?P<short>.{0,60})(?: (?P<long>.*))?")
_ADDENDUM = re.compile(r"(?P<what>Add|Delete|Revise from|Revise to|No change):?\s+(?P<rest>\d{5,6} .*)", re.IGNORECASE)
_CM = re.compile(r"[A-Z][0-9A-Z]{2,6}")
_NAME = re.compile(
    r"(?P<month>jan|apr|oct)[a-z]*[-_ ](?:\d{1,2}[-_ ])?(?P<year1>20\d\d)|(?P<year2>20\d\d)(?:[-_ ](?P<month2>jan|apr|oct))?", re.IGNORECASE
)
_STARTS = {"jan": "01-01", "apr": "04-01", "oct": "10-01"}


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of one release; addenda are applied to the release before them, which must be loaded."""
    label, effective = named(source.path.name, release) or named(source.place, release) or ("unknown", "")
    addenda = source.find(rf".*{system}.*order.*addenda.*\.txt")
    member = source.find(rf"{system}.*order(?!.*addenda).*\.txt")
    if member is None and addenda is None and len(source.members) == 1:
        member = next(iter(source.members))
    if label == "unknown" and (member or addenda):
        label, effective = named((member or addenda or "").rsplit("/", 1)[-1], release) or (release or label, effective)
    if member is None:
        if addenda is None:
            source.refuse(f"it has no {system} order file")
        codes = _amended(source, addenda, system, label)
        member = addenda
    else:
        codes = _listed(source, member, system)
    return [made(system, codes, Release(label, effective, len(codes), source.path.name, source.digest(member)))]


def _listed(source: Source, member: str, system: str) -> dict[str, tuple[bool, str]]:
    codes: dict[str, tuple[bool, str]] = {}
    before = number = 0
    for number, line in source.lines(member):
        if not line.strip():
            continue
        addendum = _ADDENDUM.fullmatch(line)
        if addendum:
            return _amended(source, member, system, "")
        found = _LINE.fullmatch(line)
        if found is None:
            source.wrong(member, number, "this is no line of an order file (order number, code, flag, titles)")
        _same_system(source, member, number, system, found["code"])
        if int(found["number"]) != before + 1:
            source.wrong(member, number, f"order number {int(found['number'])} follows {before}: lines are missing")
        before = int(found["number"])
        codes[dotted(system, found["code"])] = (found["flag"] == "1", (found["long"] or found["short"]).strip())
    if len(codes) < 2:
        source.wrong(member, number, "it holds no codes")
    return codes


def _same_system(source: Source, member: str, number: int, system: str, code: str) -> None:
    fits = (_CM.fullmatch(code) and code[1] in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") if system == "icd10cm" else len(code) in {3, 7}
    if not fits or (system == "icd10cm" and len(code) == 7 and not code[0].isalpha()):
        source.wrong(member, number, f"a code of another system than {system}")


def _amended(source: Source, member: str, system: str, label: str) -> dict[str, tuple[bool, str]]:
    """Apply addenda to the newest release in the store that is older than they are."""
    table = Store.open(source.store).table(system)
    older = [i for i, r in enumerate(table.releases) if r.effective and r.label[:6] < (label or "FY9999")[:6]] if table else []
    if table is None or not older:
        source.refuse("addenda need the release before them in the store: add its order file first")
    base = older[-1]
    codes = {
        str(code): (bool(table.billable[i, base]) if table.billable is not None else True, (table.names(i) or ("",))[0])
        for i, code in enumerate(table.codes)
        if table.valid[i, base]
    }
    for number, line in source.lines(member):
        if not line.strip():
            continue
        found = _ADDENDUM.fullmatch(line)
        row = _LINE.fullmatch(found["rest"]) if found else None
        if found is None or row is None:
            source.wrong(member, number, "this is no line of addenda (Add:, Delete:, Revise from:, Revise to:)")
        code = dotted(system, row["code"])
        if found["what"].lower() in {"delete", "revise from"}:
            codes.pop(code, None)
        else:
            codes[code] = (row["flag"] == "1", (row["long"] or row["short"]).strip())
    return codes


def dotted(system: str, code: str) -> str:
    """Return a code as its system writes it: ICD-10-CM with the dot, ICD-10-PCS without."""
    return code if system == "icd10pcs" or len(code) <= 3 else f"{code[:3]}.{code[3:]}"


def named(name: str, release: str) -> tuple[str, str] | None:
    """Return (label, effective date) from ``--release`` or a file name: 2026, FY2026, April-2025, Jan-2021."""
    found = _NAME.search(release or name)
    if found is None:
        return (release, "") if release else None
    year = int(found["year1"] or found["year2"])
    month = (found["month"] or found["month2"] or "oct").lower()
    if month == "oct":
        return (f"FY{year}", f"{year - 1}-10-01") if not found["month"] else (f"FY{year + 1}", f"{year}-10-01")
    return f"FY{year} {month.capitalize()} update", f"{year}-{_STARTS[month]}"


def made(system: str, codes: dict[str, tuple[bool, str]], release: Release) -> ReleaseTable:
    """Return the table of one release from code → (billable, name)."""
    listed = sorted(codes)
    billable = np.array([[codes[code][0]] for code in listed], dtype=bool).reshape(len(listed), 1)
    table = ReleaseTable(system, (release,), np.array(listed, dtype=np.str_), np.ones((len(listed), 1), dtype=bool), billable)
    table.lists["names"] = [(codes[code][1],) if codes[code][1] else () for code in listed]
    return table
