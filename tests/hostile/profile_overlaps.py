"""Which records have which defects together, in plain Python: the frame ``overlaps`` (see ``profile_oracle``)."""

from __future__ import annotations

from collections import Counter, defaultdict

from ehrready import currency, histograms
from ehrready.profile import Frame
from ehrready.tables import CODED, table_of
from tests.hostile.profile_codes import Judged
from tests.hostile.profile_oracle import defects_of, states_of
from tests.hostile.profile_rows import Records, Row

#: Records by table and number, with what is wrong with them.
Wrong = dict[tuple[str, int], set[str]]
_UNFILLED = ("missing", "null-token")
_LACKING = (*_UNFILLED, "text-only")
_CLASSES = {"null-token", "repairable", "other-system", "free-text", "malformed"}


def overlaps(known: Records, judged: Judged, results: list[Row]) -> Frame:
    """Return the pairs of defects of the records of each table."""
    wrong: Wrong = defaultdict(set)
    for element, seen in states_of(known).items():
        for _, _, _, state, record in seen:
            if state in _LACKING:
                wrong[table_of(element), record].add(f"{element} {state}")
    for (element, kind), rows in defects_of(known).items():
        if kind in {"before-birth", "after-death", "end-before-start", "unresolved"}:
            for record, _, bad in rows:
                if bad:
                    wrong[table_of(element), record].add(f"{element} {kind}")
    _of_codings(judged, wrong)
    for one in results:
        mine = wrong["observation", one["row"]["record"]]
        mine |= {f"observation.value {defect}" for defect, kinds in histograms.PARSES.items() if one["kind"] in kinds}
        if one["beyond"]:
            mine.add(f"observation.value {'sentinel' if one['sentinel'] else 'implausible'}")
        if one["number"] and one["cls"]:
            mine.add(f"observation.unit {one['cls']}")
    pairs: Counter[tuple[str, str, str]] = Counter()
    for (table, _), conditions in wrong.items():
        named = set(conditions)
        for condition in conditions:
            element, _, defect = condition.partition(" ")
            for several in (_UNFILLED, _LACKING):
                if defect in several and (element in CODED or several == _UNFILLED):
                    named.add(f"{element} {'|'.join(several)}")
        order = sorted(named)
        pairs.update((table, one, other) for i, one in enumerate(order) for other in order[i:])
    return {key: (n,) for key, n in pairs.items()}


def _of_codings(judged: Judged, wrong: Wrong) -> None:
    concepts: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for row in judged.rows:
        one, element = judged(row), row["element"]
        mine = wrong[table_of(element), row["record"]]
        if one["cls"] in _CLASSES and (one["cls"] in {"free-text", "null-token"} or one["how"] not in {"local", "unknown-uri"}):
            mine.add(f"{element} code-{one['cls']}")
        for name in ("_currency", "_display"):
            if row.get(name) in currency.DEFECTS:
                mine.add(f"{element} {one['key']} {row[name]}")
        concepts[element, row["record"], row.get("concept") or 1].add(one["token"])
    for (element, record, _), tokens in concepts.items():
        if any(token[0] == "!" for token in tokens):
            wrong[table_of(element), record].add(f"{element} system-swapped")
        elif all(token[0] == "?" for token in tokens):
            found = next((defect for defect in ("local", "unknown-uri", "missing-system", "undecided") if f"?{defect}" in tokens), None)
            if found is not None:
                wrong[table_of(element), record].add(f"{element} system-{found}")
