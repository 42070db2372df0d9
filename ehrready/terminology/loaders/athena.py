"""An OHDSI Athena vocabulary download: CONCEPT.csv, VOCABULARY.csv, CONCEPT_RELATIONSHIP.csv (tab separated).

Concepts carry the dates between which they are valid, so that one download makes a table of the days on which at least
``STEP`` concepts of a vocabulary began or ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from ehrready.terminology import systems
from ehrready.terminology.loaders.build import annotated
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import Release, ReleaseTable

_CONCEPT = ("concept_id", "concept_name", "vocabulary_id", "concept_code", "valid_start_date", "valid_end_date", "invalid_reason")
#: Concepts that must begin or end on a day for it to count as a release; at most MOST days, the busiest.
STEP, MOST = 20, 80
_REPLACED = {"Concept replaced by", "Maps to"}


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:  # noqa: ARG001 - one signature for all layouts
    """Return a table for every vocabulary of the download that is a code system with releases."""
    member = source.need(r"concept\.csv", "CONCEPT.csv")
    versions = source.need(r"vocabulary\.csv", "VOCABULARY.csv")
    keys: dict[str, str | None] = {}
    for _, row in source.table(versions, ("vocabulary_id", "vocabulary_version"), "\t"):
        keys[row["vocabulary_id"]] = systems.resolve(row["vocabulary_id"], hint="omop").key
    spans: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    ids: dict[str, tuple[str, str]] = {}
    number = 1
    for number, row in source.table(member, _CONCEPT, "\t"):
        key = keys.get(row["vocabulary_id"])
        if not key or not systems.is_public(key) or key.startswith(("omop", "hl7")):
            continue
        start, end = (_day(row[name]) for name in ("valid_start_date", "valid_end_date"))
        if not start or not end:
            source.wrong(member, number, "valid_start_date or valid_end_date is no date")
        spans[key][row["concept_code"]] = (start, end if row["invalid_reason"] else "9999-12-31")
        names[key][row["concept_code"]].append(row["concept_name"])
        ids[row["concept_id"]] = (key, row["concept_code"])
    if not spans:
        source.wrong(member, number, "it holds no vocabulary that is known here")
    replaced: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    related = source.find(r"concept_relationship\.csv")
    for _, row in source.table(related, ("concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"), "\t") if related else ():
        a, b = ids.get(row["concept_id_1"]), ids.get(row["concept_id_2"])
        if a and b and a[0] == b[0] and a != b and row["relationship_id"] in _REPLACED and not row["invalid_reason"]:
            replaced[a[0]][a[1]].append(b[1])
    digest = source.digest(member)
    return [annotated(_table(source, key, spans[key], digest), names[key], replaced[key]) for key in sorted(spans)]


def _table(source: Source, key: str, spans: dict[str, tuple[str, str]], digest: str) -> ReleaseTable:
    changes = Counter(day for span in spans.values() for day in span if "1971" < day < "2099")
    busy = sorted(changes, key=lambda day: (-changes[day], day))[:MOST]
    days = sorted(day for day in busy if changes[day] >= STEP) or [min(start for start, _ in spans.values())]
    codes = sorted(spans)
    starts, ends = (np.array([spans[code][i] for code in codes]) for i in (0, 1))
    valid = np.stack([(starts <= day) & (ends > day) for day in days], axis=1)
    releases = tuple(Release(day, day, int(valid[:, i].sum()), source.path.name, digest) for i, day in enumerate(days))
    return ReleaseTable(key, releases, np.array(codes, dtype=np.str_), valid, None, complete=False)


def _day(text: str) -> str:
    """Return an ISO date from Athena's YYYYMMDD or YYYY-MM-DD, ``""`` for anything else."""
    digits = text.replace("-", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdigit() else ""
