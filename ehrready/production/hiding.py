"""What a saved profile may say of predictions: totals of the run, with small cells hidden and the scores in joined buckets.

Months and groups of patients are left out: with them, and the totals, small cells could be worked out.  A folder of runs
(ehrready.production.state) keeps them, and stays where the predictions are.
"""

from __future__ import annotations

from ehrready.production import LABEL, buckets
from ehrready.production.classes import ANY, people
from ehrready.production.measure import WRONG
from ehrready.profile import Frame, Key, Values
from ehrready.suppression import SMALLEST, Suppression, small

_HIDDEN = (None, None, None)


def hide(frames: dict[str, Frame]) -> dict[str, Frame]:
    """Return the frames of production as they may leave; frames without predictions are empty."""
    counts = {key: values for key, values in frames["predictions"].items() if not key[1]}
    scores: Frame = {}
    clusters: Frame = {}
    confusion: Frame = {}
    for output in sorted({key[0] for key in counts}):
        mine = {key[4:]: values for key, values in frames["scores"].items() if key[:4] == (output, "", "all", "")}
        alerts = counts.get((output, "", "alert"), (None, None, None))
        joined = _joined(mine, alerts[0]) if all(None not in values for values in mine.values()) else {}
        scores |= {(output, "", "all", "", *key): values for key, values in joined.items()}
        if joined:
            clusters |= {key: values for key, values in frames["clusters"].items() if key[:4] == (output, "", "all", "")}
        rows = {key: v for key, v in counts.items() if key[0] == output}
        given = {key[4:]: values for key, values in frames["confusion"].items() if key[:4] == (output, "", "all", "")}
        told, kept = _classes(given, {key: v for key, v in frames["clusters"].items() if key[:4] == (output, "", "all", "")}, rows)
        confusion |= {(output, "", "all", "", *key): values for key, values in told.items()}
        clusters |= kept
        valid = sum(v[0] or 0 for v in (told or mine).values())
        counts |= _counts(output, rows, valid, named=told.keys() == given.keys())
    return {"predictions": counts, "scores": scores, "clusters": clusters, "confusion": confusion, "runs": {}}


def _classes(given: dict[Key, Values], clusters: Frame, rows: Frame) -> tuple[dict[Key, Values], Frame]:
    """Return classes by true class with their clusters, where no cell is small; else what was right and wrong of all; else nothing.

    What the sum of them lacks to all predictions would tell how many were missing or impossible: it must not be small, either.
    """
    total = sum(values[0] or 0 for values in given.values())
    everything = next((v[0] for key, v in rows.items() if key[2] == "all"), None)
    if not given or everything is None or small(everything - total) or any(v is None for values in given.values() for v in values):
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


def _counts(output: str, rows: Frame, valid: int, *, named: bool) -> Frame:
    """Hide small counts and complements; what is wrong with outputs and the valid ones add up to all.  ``named``: classes are told by others."""
    cells = Suppression()
    cells.frame("predictions", {key: values for key, values in rows.items() if not key[2].startswith("is ")}, 2)
    cells.sum(
        ("predictions", (output, "", "all")),
        [("predictions", (output, "", kind)) for kind in WRONG] + ([cells.total("valid", (), [])] if not valid else []),
    )
    if valid:
        cells.values["@valid", ()] = (valid,)
        cells.sum(("predictions", (output, "", "all")), [("@valid", ()), *(("predictions", (output, "", kind)) for kind in WRONG)])
    classes = [("predictions", key) for key in rows if key[2].startswith("class ")]
    if classes and not named:
        cells.total("classes", (), classes)
        cells.sum(("predictions", (output, "", "all")), [*classes, *(("predictions", (output, "", kind)) for kind in WRONG)])
    cells.close()
    kept = cells.kept("predictions")
    hidden: Frame = {}
    for key, (n, of, patients) in rows.items():
        gone = not key[2].startswith("is ") and (
            kept[key][0] is None or n is None or of is None or small(of) or small(of - n) or small(patients)
        )
        hidden[key] = _HIDDEN if gone else (n, of, patients)
    return hidden


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
