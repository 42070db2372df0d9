"""What may leave: small cells are hidden on the way out, in findings and in saved profiles (design section 8).

A cell of 1-10 patients is never shown, nor is what it could be derived from: its complement, a lone hidden sibling
of a partition (the next-smallest goes with it), or a denominator that differs from another by a hidden cell
(CMS cell-size policy).  Rules are evaluated on exact counts; this module runs after them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from ehrready import sums
from ehrready.checks import CHECKS
from ehrready.evaluate import Finding
from ehrready.histograms import FINE_HISTOGRAMS, is_coarse, marker_of
from ehrready.production import hiding
from ehrready.profile import FRAMES, Frame, Key, Profile
from ehrready.suppression import SMALLEST, Suppression, small
from ehrready.tables import PARTED, table_of

#: Checks whose denominator is the part of a table that has what they compare.
PARTIAL = (
    "time-plausible",
    "unique",
    "linked",
    "allowed-value",
    "value-parses",
    "value-plausible",
    "unit-valid",
    "expectation",
    "label-known",
)


def hide_findings(findings: list[Finding], leaving: Profile | None = None) -> None:
    """Mark the findings whose numbers may not leave as ``hidden``; the scorecard leaves those numbers out.

    ``leaving`` is the profile as it may leave: what it does not tell of predictions, no finding does.
    """
    families: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    untrained: list[Finding] = []
    for finding in findings:
        trained = finding.outcome.training
        if trained and any(map(small, (trained[0], trained[1], trained[1] - trained[0], finding.outcome.training_patients))):
            finding.outcome.training = finding.outcome.effect = None
            untrained.append(finding)
        if finding.rule.check != "ingest-accounted" and finding.outcome.people and finding.outcome.of is not None:
            finding.hidden = _finding_small(finding)
            families[finding.outcome.partition or finding.element, finding.rule.check].append(finding)
    for members in families.values():
        _hide_siblings(members)
    _hide_sites(findings, untrained)
    # the states of an element tie its rules together: a hidden cell is the difference of two of its denominators,
    # so those that differ from the hidden finding's own are not shown either, only their rates, rounded
    # (defects of times, links and values change no denominator: hiding theirs ties nothing)
    tied = [f for f in findings if f.hidden and not f.rounded and f.outcome.partition in {"", f.element}]
    for element in sorted({f.element for f in tied}):
        # what is about the whole data set has no states: a partition of its own (a feature of the contract) stands apart
        mine = [f for f in findings if f.element == element and f.outcome.of and (element or not f.outcome.partition)]
        whole = {f.outcome.of for f in tied if f.element == element}
        for finding in mine:
            if not finding.hidden and finding.outcome.of not in whole:
                finding.hidden = finding.rounded = True
    # a denominator that lacks a few of the table's records says how many lack the time, link or value
    # (the codes and values of a table count parts of records, too, and may be more than its records)
    # (a site's records are held against its own table)
    most: dict[tuple[str, str, bool], int] = defaultdict(int)
    for finding in findings:
        size = (table_of(finding.element), finding.group.get("site", ""), finding.element in PARTED)
        most[size] = max(most[size], finding.outcome.of or 0)
    for finding in findings:
        of, site = finding.outcome.of or 0, finding.group.get("site", "")
        sizes = [most[table_of(finding.element), part, parted] - of for part in {"", site} for parted in (False, True)]
        if not finding.hidden and finding.rule.check in PARTIAL and any(map(small, sizes)):
            finding.hidden = finding.rounded = True
    _hide_sites(findings, untrained)  # once more: those of the denominators
    _hide_nested(findings)
    if leaving is not None:
        _hide_predictions(findings, leaving.frames["predictions"])


def _hide_sites(findings: list[Finding], untrained: list[Finding]) -> None:
    """Hide what a rule with limits by site tells of the other sites where it hides one: the whole may stand elsewhere.

    The ledger says how many records a file has, a saved profile how many have a defect.  Of a site with a few patients nothing
    is told, of a table with a few patients of the site nothing of that table.  ``untrained`` have lost their numbers of training.
    """
    apart = [f for f in findings if "site" in f.group and CHECKS[f.rule.check].by_site]  # not those that a query groups by site
    few = {(table_of(f.element), f.group["site"]) for f in apart if small(f.outcome.of_patients)}
    few |= {("", f.group["site"]) for f in apart if table_of(f.element) == "patient" and small(f.outcome.of)}
    families: dict[tuple[object, ...], list[Finding]] = defaultdict(list)
    for finding in apart:
        if {("", finding.group["site"]), (table_of(finding.element), finding.group["site"])} & few and finding.outcome.of:
            finding.hidden, finding.rounded = True, False
        others = sorted((k, v) for k, v in finding.group.items() if k != "site")
        families[finding.rule.id, finding.element, finding.outcome.defect, *others].append(finding)
    for members in families.values():
        lost = any(f.hidden and not f.rounded for f in members)
        untold = any(f is other for f in members for other in untrained)
        for finding in members:
            if lost and finding.outcome.of:  # the rate, too: with the number of records, which a profile has, it tells the numerator
                finding.hidden, finding.rounded = True, False
            if untold:
                finding.outcome.training = finding.outcome.effect = None


def _hide_predictions(findings: list[Finding], counts: Frame) -> None:
    """Hide the numbers of predictions that a profile hides; of those that lack the denominator alone only a rate of none is told.

    From a rate and its numerator, which the profile has, the denominator could be worked out.
    """
    lost = {key[0] for key, values in counts.items() if key[2] == "all" and values[0] is None}
    for finding in findings:
        output, check = finding.group.get("output", ""), finding.rule.check
        row = counts.get((output, "", finding.outcome.defect)) if finding.dimension == "production" else None
        if finding.outcome.of is None:
            continue
        if row is not None and row[0] is None:
            finding.hidden, finding.rounded = True, False
        elif (row is not None and row[1] is None) or (check == "ingest-accounted" and lost):
            finding.hidden, finding.rounded = True, finding.outcome.n == 0
        elif check == "score-shift" and output in lost:
            finding.hidden = finding.rounded = True


def _hide_nested(findings: list[Finding]) -> None:
    """Hide one of two features of a contract that ask for the same codes, where their difference is a few patients.

    They differ in unit or window only: who has the one and not the other would be told by subtraction, of all or of a group.
    """
    features = [f for f in findings if f.rule.check in {"feature-available", "feature-by-group"} and f.outcome.n is not None]
    for place, one in enumerate(features):
        for other in features[place + 1 :]:
            same = (
                one.rule.check == other.rule.check
                and one.group == other.group
                and one.rule.options.get("table") == other.rule.options.get("table")
            )
            codes = [f.rule.options.get("codes") or {} for f in (one, other)]
            nested = codes[0] == codes[1] or not all(codes)
            if same and nested and not one.hidden and not other.hidden and small(abs((one.outcome.n or 0) - (other.outcome.n or 0))):
                other.hidden, other.rounded = True, False
    gone = {f"{f.rule.id}-groups" for f in features if f.hidden and f.rule.check == "feature-available"}
    for finding in features:
        if finding.rule.id in gone:  # its groups add up to it
            finding.hidden, finding.rounded = True, False


def _hide_siblings(members: list[Finding]) -> None:
    """Hide next-smallest siblings until what is hidden together is no small cell itself."""
    hidden = [f for f in members if f.hidden]
    others = sorted((f for f in members if not f.hidden and f.outcome.n), key=lambda f: (f.outcome.n or 0, f.id))
    while hidden and others and (len(hidden) == 1 or sum(f.outcome.n or 0 for f in hidden) < SMALLEST):
        others[0].hidden = others[0].rounded = True
        hidden.append(others.pop(0))


def _finding_small(finding: Finding) -> bool:
    outcome = finding.outcome
    n, of = outcome.n or 0, outcome.of or 0
    people = [outcome.patients, outcome.of_patients]
    if outcome.patients is not None and outcome.of_patients is not None:
        # the patients of the complement are not measured: their number is at least the difference
        people.append(outcome.of_patients - outcome.patients)
    return (
        outcome.few
        or small(n)
        or small(of)
        or small(of - n)
        or any(small(count) for count in people[:2])
        or (small(people[-1]) and small(of - n))
    )


def hide_profile(profile: Profile, sites: Collection[str] = ()) -> Profile:
    """Return the profile as it may leave the hospital: small cells are None, rare codes listed without counts.

    ``sites`` are those that the rules name; the others are pooled.
    """
    whole = _alone(profile.frames, sites)
    whole["custom"] = _hide_custom(whole["custom"])
    whole["columns"] = _hide_columns(whole["columns"])
    whole["overlaps"] = {}  # differences of what overlaps would tell small cells; findings are grouped by what is left
    whole |= hiding.hide(whole)
    parts = {site: _alone(part, ()) for site, part in profile.sites.items()}
    cells = Suppression()
    for site, frames in {"": whole, **parts}.items():
        part = cells.part(_mark(site))
        for name in SUMMED:
            values = FRAMES[name][1]
            part.frame(name, frames[name], values.index("patients") if "patients" in values else 0)
        sums.add(part, frames)
    _tie_sites(cells, whole, parts)
    cells.close()
    few = {key for frames in parts.values() for key, row in frames["relations"].items() if row[1] is None}
    for site, frames in {"": whole, **parts}.items():
        part = cells.part(_mark(site))
        frames |= {name: part.kept(name) for name in SUMMED if name not in {"values", "relations"}}
        # a denominator is hidden by itself; that somebody has a value of 7.13 is a value of a patient, so small buckets are
        # left out and marked: the histogram lacks some
        kept, buckets = part.kept("relations"), part.kept("values")
        # (of one site it goes at all sites: the whole's stands)
        frames["relations"] = {
            key: ((None, row[1], None) if kept[key][0] is None else row) if not site or key not in few else (None, None, None)
            for key, row in frames["relations"].items()
        }
        frames["values"] = {key if row[0] is not None else (*key[:3], marker_of(key[3])): row for key, row in buckets.items()}
    return Profile(profile.name, False, whole, dict(profile.source_elements), parts)


def _alone(frames: dict[str, Frame], sites: Collection[str]) -> dict[str, Frame]:
    """Return the frames of the whole or of a site with what is hidden whatever else is known."""
    # in key order: what goes with a small cell depends on the order of the sums, and rows come as the engine's threads made them
    frames = {name: dict(sorted(frame.items())) for name, frame in frames.items()}
    frames["states"] = _pool_sites(frames["states"], sites)
    frames["values"] = _frequent(frames["values"])
    frames["relations"] = _hide_relations(frames["relations"], Profile(frames=frames).tables())
    return frames


def _mark(site: str) -> str:
    return f"\x1f{site}" if site else ""


def _tie_sites(cells: Suppression, whole: dict[str, Frame], parts: dict[str, dict[str, Frame]]) -> None:
    """Say that the records of the sites add up to all records, and that a site's states stand in the whole's, too."""
    for name in SUMMED if parts else ():
        for key in whole[name]:
            there = [(name + _mark(site), key) for site in parts]
            cells.sum((name, key), there)
            if sum((cells.values.get(cell) or (0,))[0] or 0 for cell in there) > (whole[name][key][0] or 0):
                for cell in there:  # patients and stays of several sites: what is not of one is of the others
                    cells.sum((name, key), [cell])
    for site in parts:
        for key in whole["states"]:
            if key[1:3] == ("site", site):
                cells.sum(("states", key), [("states" + _mark(site), (key[0], "all", "", key[3]))])


#: Frames whose counts are tied by sums (ehrready.sums); the others hide theirs by themselves.
SUMMED = (
    "states", "types", "systems", "classes", "codes", "releases", "currency", "displays", "volume", "excluded", "defects", "categories",
    "history", "units", "value_kinds", "values", "patients", "relations",
)  # fmt: skip


def _hide_columns(frame: Frame) -> Frame:
    """Hide small numbers of empty and of filled cells of unmapped columns, whose rows are known from the ledger."""
    hidden: Frame = {}
    for key, (rows, missing, null) in frame.items():
        filled = None if None in (rows, missing, null) else (rows or 0) - (missing or 0) - (null or 0)
        gone = filled is None or any(map(small, (rows, missing, null, filled)))
        hidden[key] = (None if small(rows) else rows, *(((None,) * 2) if gone else (missing, null)))
    return hidden


def _hide_relations(frame: Frame, totals: dict[str, int]) -> Frame:
    """Hide the numerators (and patients) of relations with a small cell on either side.

    A denominator goes, too, where it is small or lacks a few of its table's records (``totals``).
    """
    hidden: Frame = {}
    for key, (n, of, patients) in frame.items():
        few = small(of) or small(totals.get(table_of(key[0]), 0) - (of or 0))
        gone = few or n is None or of is None or any(map(small, (n, patients, of - n)))
        hidden[key] = (None if gone else n, None if few else of, None if gone else patients)
    return hidden


def _frequent(frame: Frame) -> Frame:
    """Keep the fine buckets of the most frequent histograms only: a profile stays at a few MB."""
    sizes: dict[Key, int] = defaultdict(int)
    for key, values in frame.items():
        if is_coarse(key[3]):
            sizes[key[:3]] += values[0] or 0
    kept = set(sorted(sizes, key=lambda key: (-sizes[key], key))[:FINE_HISTOGRAMS])
    if len(kept) == len(sizes):
        return frame
    rest: Frame = {(*key, marker_of("")): (None, None) for key in sizes.keys() - kept}
    return {key: values for key, values in frame.items() if is_coarse(key[3]) or key[:3] in kept} | rest


def _hide_custom(frame: Frame) -> Frame:
    """Hide the small counts of rules' own measures, and those behind which nobody counted the patients."""
    hidden: set[Key] = set()
    groups: dict[Key, list[Key]] = defaultdict(list)
    for key, (n, of, patients, unknown) in frame.items():
        if '"scope":"table"' in key[2]:
            continue  # it says of a table whether something holds
        groups[key[:2]].append(key)
        if n is None or of is None or any(map(small, (n, of, of - n, patients))) or (unknown and n):
            hidden.add(key)
    for members in groups.values():
        _close(frame, members, hidden)
    return {key: (None, None, None, values[3]) if key in hidden else values for key, values in frame.items()}


def _close(cells: Frame, parts: list[Key], hidden: set[Key]) -> None:
    """Hide next-smallest counts of a rule's groups until the hidden ones are at least two and no small cell together."""
    one = Suppression()
    one.frame("custom", {key: cells[key] for key in parts}, 2)
    one.hidden |= {("custom", key) for key in parts if key in hidden}
    one.total("custom", (), (("custom", key) for key in parts))
    one.close()
    hidden |= {key for _, key in one.hidden if key}


def without_sites(profile: Profile, sites: Collection[str] = ()) -> Profile:
    """Return an internal profile fit for saving: exact counts, the hospital's own site codes pooled."""
    whole, *parts = (
        dict(frames) | {"states": _pool_sites(frames["states"], sites), "values": _frequent(frames["values"])}
        for frames in (profile.frames, *profile.sites.values())
    )
    return Profile(profile.name, profile.internal, whole, dict(profile.source_elements), dict(zip(profile.sites, parts, strict=True)))


def _pool_sites(states: Frame, named: Collection[str] = ()) -> Frame:
    """Pool the sites, whose names are the hospital's own, under ``other-sites``."""
    pooled: Frame = {}
    for key, values in states.items():
        place = (key[0], "site", "other-sites", key[3]) if key[1] == "site" and key[2] not in named else key
        before: Iterable[int | None] = pooled.get(place, (0,) * len(values))
        pooled[place] = tuple(None if a is None or b is None else a + b for a, b in zip(before, values, strict=True))
    return pooled
