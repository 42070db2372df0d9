"""CMS's ICD-9-CM diagnosis titles (CMS32_DESC_LONG_DX.txt): a code without its dot, blanks, its title, a line each."""

from __future__ import annotations

import re

from ehrready.terminology.loaders.build import single
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import ReleaseTable

_LINE = re.compile(r"(?P<code>\d{3,5}|V\d{2,4}|E\d{3,4}) +(?P<title>(?![0-9A-Z]{3,7} +[01] )\S.*)")  # not a line of an order file


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of one release; versions 23 to 32 are FY2006 to FY2015."""
    member = source.find(r"CMS\d\d_DESC_LONG_DX.*\.txt") or source.need(r".*DX.*\.txt|.*\.txt", "diagnosis titles")
    version = re.search(r"(?:CMS|v)(2[3-9]|3[0-2])", release or member, re.IGNORECASE)
    label, effective = (f"FY{1983 + int(version[1])}", f"{1982 + int(version[1])}-10-01") if version else (release or "unknown", "")
    names: dict[str, list[str]] = {}
    number = 0
    for number, line in source.lines(member, "latin-1"):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            source.wrong(member, number, "no ICD-9-CM code and title")
        code, after = found["code"], 4 if found["code"][0] == "E" else 3
        names[code if len(code) <= after else f"{code[:after]}.{code[after:]}"] = [found["title"].strip()]
    if len(names) < 2:
        source.wrong(member, number, "it holds no codes")
    table = single(source, member, system, label, effective, dict.fromkeys(names, True), names=names)
    table.complete = False  # the titles are those of billable codes: headings are not among them
    return [table]
