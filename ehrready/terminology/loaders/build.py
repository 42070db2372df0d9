"""What the loaders share: a table from what a release file says about each code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import Release, ReleaseTable
from ehrready.terminology.versions import normalise_version


def single(
    source: Source,
    member: str,
    system: str,
    label: str,
    effective: str,
    valid: Mapping[str, bool],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    replacements: Mapping[str, Sequence[str]] | None = None,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
) -> ReleaseTable:
    """Return a table of one release: code → is it active in it."""
    codes = sorted(valid)
    bits = np.array([[valid[code]] for code in codes], dtype=bool).reshape(len(codes), 1)
    release = Release(label, effective, int(bits.sum()), source.path.name, source.digest(member))
    return annotated(ReleaseTable(system, (release,), np.array(codes, dtype=np.str_), bits, None), names, replacements, attributes)


def annotated(
    table: ReleaseTable,
    names: Mapping[str, Sequence[str]] | None = None,
    replacements: Mapping[str, Sequence[str]] | None = None,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
) -> ReleaseTable:
    """Put names, replacements and attributes beside a table's codes."""
    codes = table.codes.tolist()
    for column, found in (("names", names), ("replacements", replacements)):
        if found:
            table.lists[column] = [tuple(dict.fromkeys(found.get(code, ()))) for code in codes]
    for key, values in (attributes or {}).items():
        table.attributes[key] = [values.get(code, "") for code in codes]
    return table


def dated(system: str, text: str, release: str) -> tuple[str, str]:
    """Return (label, effective date) of a release from ``--release`` or from a file name; ("unknown", "") when neither says it."""
    label = normalise_version(system, release) if release else None
    if release and label is None:
        label = release
    if label is None:
        found = re.search(r"(?<!\d)(\d{8})(?!\d)|(?<!\d)(\d+\.\d{2})(?!\d)|(20\d\d-\d\d-\d\d)", text)
        label = normalise_version(system, found[0]) if found else None
    day = re.search(r"(20\d\d|19\d\d)-?(\d\d)-?(\d\d)$", label or "")
    return label or "unknown", f"{day[1]}-{day[2]}-{day[3]}" if day else ""
