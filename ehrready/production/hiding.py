"""What may be said of predictions: totals of the run, with small cells hidden and the scores in joined buckets.

A saved profile says it, and a scorecard no more than that of the totals: who has both must not work anything out, either.

Months and groups of patients are left out: with them, and the totals, small cells could be worked out.  A folder of runs
(ehrready.production.state) keeps them, and stays where the predictions are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from ehrready.production import LABEL, buckets
from ehrready.production.classes import ANY, people
from ehrready.production.measure import WRONG
from ehrready.profile import Frame, Key, Profile, Values
from ehrready.suppression import SMALLEST, Cell, Suppression, small

_HIDDEN = (None, None, None)
#: Kinds whose denominator is all predictions of the output, classes apart.
_OF_ALL = frozenset(("all", *WRONG, "duplicate", "alert"))


def hide(frames: dict[str, Frame]) -> dict[str, Frame]:
    """Return the frames that predictions are in as they may leave; frames without predictions are empty.

    What is wrong with outputs is known from all predictions less those with a score (class), so where that is a few the number of all
    predictions goes, wherever it stands, and the scores stay: a baseline needs them.
    """
    counts = {key: values for key, values in frames["predictions"].items() if not key[1]}
    scores: Frame = {}
    clusters: Frame = {}
    confusion: Frame = {}
    cells = Suppression()
    cells.frame("predictions", {key: values for key, values in counts.items() if not key[2].startswith("is ")}, 2)
    for output in sorted({key[0] for key in counts}):
        mine = {key[4:]: values for key, values in frames["scores"].items() if key[:4] == (output, "", "all", "")}
        alerts = counts.get((output, "", "alert"), (None, None, None))
        joined = _joined(mine, alerts[0]) if all(None not in values for values in mine.values()) else {}
        scores |= {(output, "", "all", "", *key): values for key, values in joined.items()}
        if joined:
            clusters |= {key: values for key, values in frames["clusters"].items() if key[:4] == (output, "", "all", "")}
        given = {key[4:]: values for key, values in frames["confusion"].items() if key[:4] == (output, "", "all", "")}
        told, kept = _classes(given, {key: v for key, v in frames["clusters"].items() if key[:4] == (output, "", "all", "")})
        confusion |= {(output, "", "all", "", *key): values for key, values in told.items()}
        clusters |= kept
        rows = {key: v for key, v in counts.items() if key[0] == output}
        _tie(cells, output, rows, sum(v[0] or 0 for v in (given or mine).values()), named=bool(told) and told.keys() == given.keys())
    volume = {key: values for key, values in frames["volume"].items() if key[0] == "prediction"}
    cells.frame("volume", volume, 1)
    lost = _close(cells, counts, sum(v[3] or 0 for key, v in frames["ledger"].items() if key[0] == "predictions"))
    rest = {"volume": {**frames["volume"], **cells.kept("volume")}}
    if lost is not None:
        rest["volume"] |= dict.fromkeys(volume, (None, None))
        rest |= _rounded(frames, lost)
        if ("predicted", "") in frames["patients"]:
            rest["patients"] = {**frames["patients"], ("predicted", ""): (None,)}
    return {"predictions": _counts(cells, counts), "scores": scores, "clusters": clusters, "confusion": confusion, "runs": {}, **rest}


def _tie(cells: Suppression, output: str, rows: Frame, valid: int, *, named: bool) -> None:
    """Say what adds up to all predictions of an output: the valid ones, told by scores or classes, and what is wrong with the others.

    ``named``: each class is told by class by true class, too.
    """
    whole = ("predictions", (output, "", "all"))
    parts: list[Cell] = [("predictions", (output, "", kind)) for kind in WRONG]
    classes: list[Cell] = [("predictions", key) for key in rows if key[2].startswith("class ")]
    texts = rows.get((output, "", "uncited"), (None, None, None))[1]
    if valid:
        known = ("@valid", (output,))
        cells.values[known] = (valid,)
        cells.told |= {known, *(classes if named else ())}
        cells.sum(known, classes)
        parts.append(known)
    elif texts is not None:
        cells.values["@texts", (output,)] = (texts,)
        parts.append(("@texts", (output,)))
    elif classes:
        parts += classes
    cells.sum(whole, parts)


def _close(cells: Suppression, counts: Frame, records: int) -> int | None:
    """Hide what gives a small count away; returns how many records to take off before rounding, None where all may be told.

    Outputs of one table have as many predictions, and as many as the ledger has records: none tells what another hides.
    """
    wholes = sorted((values[0] or 0, ("predictions", key)) for key, values in counts.items() if key[2] == "all")
    for (n, one), (m, other) in pairwise(wholes):
        if n == m:
            cells.sum(one, [other])
    ledger = ("@records", ())
    cells.values[ledger] = (records,)
    cells.sum(ledger, [cell for cell in cells.values if cell[0] == "volume"])
    cells.close()
    if not any(cell in cells.hidden for _, cell in wholes):
        return None
    unknown = {
        cell[1][0]: sum(
            counts[key][0] or 0 for key in counts if key[0] == cell[1][0] and key[2] in WRONG and ("predictions", key) in cells.hidden
        )
        for _, cell in wholes
        if cell in cells.hidden
    }
    return max(unknown.values())


def _counts(cells: Suppression, counts: Frame) -> Frame:
    """Return the counts by kind; where the number of all is hidden, nobody else's denominator tells it."""
    hidden: Frame = {}
    for key, (n, of, patients) in counts.items():
        output, kind = key[0], key[2]
        valid = cells.values.get(("@valid", (output,)), (None,))[0]
        told = {"alert": n, "unlabelled": of}.get(kind)  # less than all valid ones by a few: those few are a small cell
        gone = ("predictions", key) in cells.hidden or n is None or small(of) or small(patients) or (of is not None and small(of - n))
        gone = gone or (valid is not None and told is not None and small(valid - told))
        gone = gone or (kind == "uncited" and ("@texts", (output,)) in cells.hidden)
        bare = ("predictions", (output, "", "all")) in cells.hidden and (kind in _OF_ALL or kind.startswith("class "))
        if kind.startswith("is "):
            hidden[key] = (n, of, patients)
        else:
            hidden[key] = _HIDDEN if gone else (n, None if bare else of, patients)
    return hidden


def _rounded(frames: dict[str, Frame], lost: int) -> dict[str, Frame]:
    """Return the ledger with the records of predictions rounded to tens, as they are without the hidden ones: that number is told already."""
    rows = {key: values for key, values in frames["ledger"].items() if key[0] == "predictions"}
    records = sum(values[3] or 0 for values in rows.values())
    change = max(10, 10 * round((records - lost) / 10)) - records
    if not rows:
        return {}
    most = max(rows, key=lambda key: (rows[key][3] or 0, key))
    change = max(change, -(rows[most][3] or 0))
    declared = {
        key: (values[0], *(max(0, (v or 0) + change) for v in values[1:3]), *values[3:])
        for key, values in frames["declared"].items()
        if key[0] == "predictions"
    }
    files, size, read, profiled, rejected = rows[most]
    ledger = {**frames["ledger"], most: (files, size, (read or 0) + change, (profiled or 0) + change, rejected)}
    return {"ledger": ledger, "declared": {**frames["declared"], **declared}}


def _classes(given: dict[Key, Values], clusters: Frame) -> tuple[dict[Key, Values], Frame]:
    """Return classes by true class with their clusters, where no cell is small; else what was right and wrong of all; else nothing."""
    if not given or any(v is None for values in given.values() for v in values):
        return {}, {}
    if not any(small(people) for _, people in given.values()):
        return given, clusters
    sides: dict[Key, list[Values]] = {}
    for (name, truth), values in given.items():
        sides.setdefault((ANY if name == truth else "", ANY) if truth else (ANY, ""), []).append(values)
    joined: dict[Key, Values] = {key: (sum(v[0] or 0 for v in cells), people(cells)) for key, cells in sides.items()}
    if any(small(patients) for _, patients in joined.values()):
        return {}, {}
    of: dict[Key, list[Values]] = {}
    for key, values in clusters.items():
        of.setdefault((*key[:4], LABEL + ANY if key[4] else ""), []).append(values)
    return joined, {key: (sum(v[0] or 0 for v in cells), people(cells), sum(v[2] or 0 for v in cells)) for key, cells in of.items()}


def told(profile: Profile, leaving: Profile) -> Profile:
    """Return a profile with the numbers of records and of patients with predictions as they may leave."""
    people = {
        key: leaving.frames["patients"].get(key, v) if key == ("predicted", "") else v for key, v in profile.frames["patients"].items()
    }
    return replace(profile, frames={**profile.frames, "ledger": leaving.frames["ledger"], "patients": people})


def told_rows(rows: list[dict[str, Any]], profile: Profile, leaving: Profile) -> list[dict[str, Any]]:
    """Return a scorecard's ledger with the numbers of predictions as they may leave: the largest file takes what rounding changes."""
    change = leaving.total("profiled") - profile.total("profiled")
    if not change:
        return rows
    most = max((row for row in rows if row["format"] == "predictions"), key=lambda row: row["profiled"])
    declared = None if most["declared"] is None else max(0, most["declared"] + change)
    other = {**most, "read": most["read"] + change, "profiled": most["profiled"] + change, "declared": declared}
    return [other if row is most else row for row in rows]


def _joined(cells: dict[Key, Values], alerts: int | None) -> dict[Key, Values]:
    """Join neighbouring buckets until no label has 1-10 patients in one; what alerts and what does not stay apart where that is so.

    Returns nothing where even all buckets together hide somebody.
    """
    order = sorted({key[0] for key in cells}, key=buckets.bounds)
    labels = sorted({key[1] for key in cells})
    at = {bucket: [cells.get((bucket, label), (0, 0)) for label in labels] for bucket in order}
    cut = _threshold([sum(n or 0 for n, _ in at[bucket]) for bucket in order], alerts)
    runs = [order[:cut], order[cut:]] if cut else [order]
    parts = [_parts(run, at) for run in runs]
    if any(part is None for part in parts):
        parts = [_parts(order, at)]
    found: dict[Key, Values] = {}
    for group in (group for part in parts if part for group in part):
        sizes = [sum(n or 0 for n, _ in at[bucket]) for bucket in group]
        mean = sum(buckets.middle(b) * n for b, n in zip(group, sizes, strict=True)) / max(1, sum(sizes))
        index = min(group, key=lambda b: (abs(buckets.middle(b) - mean), buckets.bounds(b))).rpartition("~")[2]
        name = group[0] if len(group) == 1 else f"{buckets.bounds(group[0])[0]:g}~{buckets.bounds(group[-1])[1]:g}~{index}"
        for i, label in enumerate(labels):
            n, people = sum(at[b][i][0] or 0 for b in group), sum(at[b][i][1] or 0 for b in group)
            if n:
                found[name, label] = (n, min(n, people))
    return found


def _threshold(sizes: list[int], alerts: int | None) -> int:
    """Return how many buckets lie below the threshold, from the number of alerts; 0 where that is not told by them."""
    above = 0
    for place in range(len(sizes) - 1, 0, -1):
        above += sizes[place]
        if above == alerts:
            return place
    return 0


def _parts(order: list[str], at: dict[str, list[Values]]) -> list[list[str]] | None:
    """Return neighbouring buckets joined into groups that hide nobody; None where all of them together still do.

    A patient may be in several buckets: of a group at least as many are counted as are in its fullest bucket.
    """

    def safe(group: list[str]) -> bool:
        columns = zip(*(at[bucket] for bucket in group), strict=True)
        return all(
            not any(n for n, _ in column) or max(people or 0 for _, people in column) >= SMALLEST or _many(column) for column in columns
        )

    def _many(column: tuple[Values, ...]) -> bool:
        # one prediction each: then patients add up
        return all(n == people for n, people in column) and sum(n or 0 for n, _ in column) >= SMALLEST

    groups: list[list[str]] = []
    now: list[str] = []
    for bucket in order:
        now = [*now, bucket]
        if safe(now):
            groups.append(now)
            now = []
    while now and groups:
        now = [*groups.pop(), *now]
        if safe(now):
            groups.append(now)
            now = []
    return None if now else groups
