"""SNOMED CT release files, RF2 (Release File Specification 5.1): concepts, descriptions, historical associations.

Full files hold every state a component ever had, so that one of them makes a table of all releases; a Snapshot makes one.
"""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from ehrready.terminology.checkdigits import is_concept_id
from ehrready.terminology.loaders.build import annotated
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import Release, ReleaseTable

_CONCEPT = ("id", "effectiveTime", "active", "moduleId", "definitionStatusId")
_MODEL, _CORE = "900000000000012004", "900000000000207008"
#: SAME AS and REPLACED BY association reference sets.
_REPLACING = {"900000000000527005", "900000000000526001"}
_ACTIVE = "1"


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of all releases in Full files, of the one release of Snapshot files."""
    full = source.find(r"sct2_Concept_Full_.*\.txt")
    member = full or source.need(r"(x?sct2_Concept_Snapshot_.*|sct2_Concept_.*)\.txt", "sct2_Concept file")
    kind = "Full" if full else "Snapshot"
    states: dict[str, tuple[int, ...]] = {}  # concept → its states, 2 · effectiveTime + active
    modules: dict[str, str] = {}
    number = 0
    for number, row in source.table(member, _CONCEPT, "\t"):
        if not row["effectiveTime"].isdigit() or len(row["effectiveTime"]) != 8 or row["active"] not in "01":
            source.wrong(member, number, "effectiveTime or active is not as in RF2")
        if not is_concept_id(row["id"]):
            source.wrong(member, number, "id is no SNOMED CT concept identifier")
        states[row["id"]] = (*states.get(row["id"], ()), 2 * int(row["effectiveTime"]) + (row["active"] == _ACTIVE))
        if row["effectiveTime"] >= modules.get(row["moduleId"], ""):
            modules[row["moduleId"]] = row["effectiveTime"]
    if len(states) < 2:
        source.wrong(member, number, "it holds no concepts")
    edition = max((m for m in modules if m not in {_MODEL, _CORE}), key=lambda m: (modules[m], m), default=_CORE)
    times = sorted({str(state // 2) for rows in states.values() for state in rows}) if full else [_own(source, states, release)]
    codes = sorted(states)
    valid = _states(codes, states, times) if full else np.array([[states[code][-1] % 2] for code in codes], dtype=bool)
    digest = source.digest(member)
    releases = tuple(
        Release(
            f"http://snomed.info/sct/{edition}/version/{t}", f"{t[:4]}-{t[4:6]}-{t[6:]}", int(valid[:, i].sum()), source.path.name, digest
        )
        for i, t in enumerate(times)
    )
    table = ReleaseTable(system, releases, np.array(codes, dtype=np.str_), valid, None)
    return [annotated(table, _names(source, kind), _associations(source, kind))]


def _own(source: Source, states: dict[str, tuple[int, ...]], release: str) -> str:
    found = re.search(r"(20\d{6})", release or source.path.name)
    return found[1] if found else str(max(state // 2 for rows in states.values() for state in rows))


def _states(codes: list[str], states: dict[str, tuple[int, ...]], times: list[str]) -> np.ndarray:
    """Return which concept is active at which time: its latest state at or before it."""
    place = {time: i for i, time in enumerate(times)}
    valid = np.zeros((len(codes), len(times)), dtype=bool)
    for i, code in enumerate(codes):
        for state in sorted(states[code]):
            valid[i, place[str(state // 2)] :] = state % 2
    return valid


def _names(source: Source, kind: str) -> dict[str, list[str]]:
    """Return concept → its active English terms.

    A Snapshot, which a release carries beside its Full files, is read once.  Full files hold every state in any order: a
    first pass keeps a number per term (its latest state), a second one the terms that are active, so that memory grows
    with what is kept and not with the file.
    """
    found: dict[str, list[str]] = defaultdict(list)
    snapshot = source.find(r"sct2_Description_Snapshot-en.*\.txt") or source.find(r"sct2_Description_Snapshot.*\.txt")
    member = snapshot or source.find(rf"sct2_Description_{kind}-en.*\.txt") or source.find(rf"sct2_Description_{kind}.*\.txt")
    if member is None:
        return found
    latest: dict[int, int] = {}
    if not snapshot:
        for _, row in source.table(member, ("id", "effectiveTime", "active"), "\t"):
            key, state = int(row["id"]), 2 * int(row["effectiveTime"]) + (row["active"] == _ACTIVE)
            if state > latest.get(key, 0):
                latest[key] = state
    for _, row in source.table(member, ("id", "effectiveTime", "active", "conceptId", "languageCode", "term"), "\t"):
        if row["active"] != _ACTIVE or not row["languageCode"].startswith("en"):
            continue
        if snapshot or latest[int(row["id"])] == 2 * int(row["effectiveTime"]) + 1:
            found[row["conceptId"]].append(row["term"])
    return found


def _associations(source: Source, kind: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    member = source.find(rf"der2_cRefset_Association(Reference)?{kind}_.*\.txt")
    columns = ("active", "refsetId", "referencedComponentId", "targetComponentId")
    for _, row in source.table(member, columns, "\t") if member else ():
        if row["active"] == _ACTIVE and row["refsetId"] in _REPLACING:
            found[row["referencedComponentId"]].append(row["targetComponentId"])
    return {code: sorted(set(targets)) for code, targets in found.items()}
