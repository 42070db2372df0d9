"""CMS's HCPCS Level II contractor file (ANWEB): fixed width, 320 columns (HCPC2024_recordlayout.txt).

Code in columns 1-5, sequence in 6-10, record identifier in 11 (3 a procedure, 4 its next line, 7 and 8 modifiers), long
description in 12-91, short one in 92-119, code added in 269-276, action effective in 277-284, terminated in 285-292.
"""

from __future__ import annotations

import re

from ehrready.terminology.loaders.build import dated, single
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import ReleaseTable

_MONTHS = {"jan": 1, "apr": 2, "jul": 3, "oct": 4}


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of one quarterly release; terminated codes are retired."""
    member = source.find(r"HCPC.*ANWEB.*\.txt") or source.need(r".*\.txt", "ANWEB file")
    valid: dict[str, bool] = {}
    names: dict[str, list[str]] = {}
    number = 0
    for number, line in source.lines(member, "latin-1"):
        if not line.strip():
            continue
        code, kind = line[:5].strip(), line[10:11]
        if len(line) < (276 if kind in "37" else 91) or kind not in "3478" or not line[5:10].strip().isdigit():
            source.wrong(member, number, "no line of the HCPCS contractor file (320 columns)")
        if kind == "3":
            if not re.fullmatch(r"[A-V]\d{4}", code):
                source.wrong(member, number, "no HCPCS Level II code")
            valid[code] = not line[284:292].strip()
            names[code] = [line[11:91].strip(), line[91:119].strip()]
        elif kind == "4" and code in names:
            names[code][0] += f" {line[11:91].strip()}"
    if len(valid) < 2:
        source.wrong(member, number, "it holds no codes")
    label, effective = dated("hcpcs", member, release)
    found = re.search(r"(20\d\d)_?(jan|apr|jul|oct)", member, re.IGNORECASE)
    if found and not release:
        quarter = _MONTHS[found[2].lower()]
        label, effective = f"{found[1]}Q{quarter}", f"{found[1]}-{3 * quarter - 2:02d}-01"
    return [single(source, member, system, label, effective, valid, names={c: [n for n in t if n] for c, t in names.items()})]
