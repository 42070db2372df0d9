"""CDC's CVX list, ``cvx.txt``: code | short description | full name | notes | status | non-vaccine | last updated."""

from __future__ import annotations

from ehrready.terminology.loaders.build import dated, single
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import ReleaseTable

_STATUS = {"active", "inactive", "non-us", "never active", "pending"}


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of one release; inactive codes are retired, codes never active were never valid."""
    member = source.find(r"cvx.*\.txt") or source.need(r".*\.txt", "cvx.txt")
    valid, names, newest = {}, {}, ""
    number = 0
    for number, line in source.lines(member, "latin-1"):
        fields = [field.strip() for field in line.split("|")]
        if not line.strip():
            continue
        if len(fields) < 6 or not fields[0].isdigit() or fields[4].lower() not in _STATUS:
            source.wrong(member, number, "no CVX line (code|short|full name|notes|status|non-vaccine|updated)")
        code = fields[0].zfill(2)
        valid[code] = fields[4].lower() in {"active", "non-us"}
        names[code] = [name for name in (fields[2], fields[1]) if name]
        day = fields[6] if len(fields) > 6 else ""
        parts = day.replace("-", "/").split("/")
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            newest = max(
                newest,
                f"{parts[2]}-{int(parts[0]):02d}-{int(parts[1]):02d}"
                if len(parts[2]) == 4
                else f"{parts[0]}-{int(parts[1]):02d}-{int(parts[2]):02d}",
            )
    if len(valid) < 2:
        source.wrong(member, number, "it holds no codes")
    label, effective = dated("cvx", source.path.name, release)
    if label == "unknown" and newest:
        label = effective = newest
    return [single(source, member, system, label, effective, valid, names=names)]
