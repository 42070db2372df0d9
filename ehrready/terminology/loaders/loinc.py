"""LOINC: ``Loinc.csv`` (LOINC Users' Guide, appendix A) and ``MapTo.csv``.

One file tells the life of every code: VersionFirstReleased, STATUS and VersionLastChanged.  A deprecated term's last
change is its deprecation.  So one file makes a table of all releases up to its own.
"""

from __future__ import annotations

import re

import numpy as np

from ehrready.terminology.grammar import classify
from ehrready.terminology.loaders.build import annotated
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import Release, ReleaseTable

_COLUMNS = (
    "LOINC_NUM",
    "COMPONENT",
    "PROPERTY",
    "STATUS",
    "LONG_COMMON_NAME",
    "SHORTNAME",
    "VersionLastChanged",
    "VersionFirstReleased",
    "EXAMPLE_UCUM_UNITS",
)
#: Months in which releases came out (release notes of the Regenstrief Institute); older and unlisted ones are undated.
_DATES = {
    "2.64": "2018-06-15", "2.65": "2018-12-14", "2.66": "2019-06-15", "2.67": "2019-12-13", "2.68": "2020-06-17", "2.69": "2020-12-15",
    "2.70": "2021-06-09", "2.71": "2021-08-25", "2.72": "2022-02-16", "2.73": "2022-08-08", "2.74": "2023-02-15", "2.75": "2023-08-15",
    "2.76": "2023-09-18", "2.77": "2024-02-27", "2.78": "2024-08-06", "2.79": "2025-01-14", "2.80": "2025-02-26", "2.81": "2025-08-12",
}  # fmt: skip


def _version(text: str) -> tuple[int, ...]:
    """Return a version to compare by: 1.0b < 2.8 < 2.64."""
    return tuple(int(part) for part in re.findall(r"\d+", text)) or (0,)


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return a table of every release up to the file's own that dates are known of, and of that one."""
    member = source.need(r"loinc\.csv", "Loinc.csv")
    life: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {}
    names: dict[str, list[str]] = {}
    attributes: dict[str, dict[str, str]] = {"property": {}, "units": {}, "component": {}}
    newest: tuple[int, ...] = (0,)
    for number, row in source.table(member, _COLUMNS):
        code = row["LOINC_NUM"]
        if classify("loinc", code).cls != "well-formed":
            source.wrong(member, number, "LOINC_NUM is no LOINC code")
        changed = _version(row["VersionLastChanged"])
        newest = max(newest, changed)
        life[code] = (_version(row["VersionFirstReleased"]), changed if row["STATUS"] == "DEPRECATED" else None)
        names[code] = [name for name in (row["LONG_COMMON_NAME"], row["SHORTNAME"], row["COMPONENT"]) if name]
        for key, column in (("property", "PROPERTY"), ("units", "EXAMPLE_UCUM_UNITS"), ("component", "COMPONENT")):
            attributes[key][code] = row[column]
    if len(life) < 2:
        source.wrong(member, 2, "it holds no codes")
    said = re.search(r"(?<!\d)(\d\.\d{1,3})(?!\d)", release or source.path.name)
    own = said[1] if said else ".".join(map(str, newest))
    labels = sorted({*(label for label in _DATES if _version(label) <= _version(own)), own}, key=_version)
    codes = sorted(life)
    valid = np.zeros((len(codes), len(labels)), dtype=bool)
    for i, code in enumerate(codes):
        first, gone = life[code]
        valid[i] = [first <= _version(label) and (gone is None or _version(label) < gone) for label in labels]
    digest = source.digest(member)
    releases = tuple(
        Release(label, _DATES.get(label, ""), int(valid[:, i].sum()), source.path.name, digest) for i, label in enumerate(labels)
    )
    replaced: dict[str, list[str]] = {}
    mapped = source.find(r"mapto\.csv")
    for _, row in source.table(mapped, ("LOINC", "MAP_TO")) if mapped else ():
        replaced.setdefault(row["LOINC"], []).append(row["MAP_TO"])
    return [annotated(ReleaseTable(system, releases, np.array(codes, dtype=np.str_), valid, None), names, replaced, attributes)]
