"""What may leave: small cells are hidden on the way out, in findings and in saved profiles (design section 8).

A cell of 1-10 patients is never shown, nor is what it could be derived from: its complement, a lone hidden sibling
of a partition (the next-smallest goes with it), or a denominator that differs from another by a hidden cell
(CMS cell-size policy).  Rules are evaluated on exact counts; this module runs after them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from ehrready.evaluate import Finding
from ehrready.profile import FRAMES, Frame, Key, Profile, Values

SMALLEST = 11


def small(count: int | None) -> bool:
    """Is this a number of patients (or records) that may not be shown?"""
    return count is not None and 0 < count < SMALLEST


def hide_findings(findings: list[Finding]) -> None:
    """Mark the findings whose numbers may not leave as ``hidden``; ``shown`` below leaves their numbers out."""
    families: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        trained = finding.outcome.training
        if trained and any(map(small, (trained[0], trained[1], trained[1] - trained[0]))):
            finding.outcome.training = finding.outcome.effect = None
        if finding.rule.check != "ingest-accounted" and finding.outcome.of is not None:
            finding.hidden = _finding_small(finding)
            families[finding.outcome.partition or finding.element, finding.rule.check].append(finding)
    for members in families.values():
        hidden = [f for f in members if f.hidden]
        if len(hidden) == 1:
            others = [f for f in members if not f.hidden and f.outcome.n]
            if others:
                min(others, key=lambda f: (f.outcome.n or 0, f.id)).hidden = True
    # the states of an element tie its rules together: a hidden one takes the other denominators with it
    elements = {f.element for f in findings if f.hidden}
    for element in elements:
        mine = [f for f in findings if f.element == element and f.outcome.of]
        largest = max((f.outcome.of or 0 for f in mine), default=0)
        for finding in mine:
            if not finding.hidden and small(largest - (finding.outcome.of or 0)):
                finding.hidden = True


def _finding_small(finding: Finding) -> bool:
    outcome = finding.outcome
    n, of = outcome.n or 0, outcome.of or 0
    people = [outcome.patients, outcome.of_patients]
    if outcome.patients is not None and outcome.of_patients is not None:
        # the patients of the complement are not measured: their number is at least the difference
        people.append(outcome.of_patients - outcome.patients)
    return small(n) or small(of) or small(of - n) or any(small(count) for count in people[:2]) or (small(people[-1]) and small(of - n))


def hide_profile(profile: Profile) -> Profile:
    """Return the profile as it may leave the hospital: small cells are None, rare codes listed without counts."""
    frames: dict[str, Frame] = {name: dict(frame) for name, frame in profile.frames.items()}
    frames["states"] = _pool_sites(frames["states"])
    totals = frames["states"]
    by_state: dict[Key, Frame] = defaultdict(dict)
    for key, values in totals.items():
        by_state[key[:3]][key] = values
    frames["states"] = {}
    for members in by_state.values():
        frames["states"].update(_hide_group(members, lambda key: key[3] == "*"))
    for name, depth in (("systems", 1), ("classes", 1), ("codes", 2), ("releases", 2), ("volume", 1), ("excluded", 1), ("defects", 1)):
        groups: dict[Key, Frame] = defaultdict(dict)
        for key, values in frames[name].items():
            groups[key[:depth]][key] = values
        frames[name] = {}
        for members in groups.values():
            frames[name].update(_hide_group(members, lambda key: False, _patients_column(name)))
    frames["patients"] = _hide_group(frames["patients"], lambda key: key[0] == "all", 0)
    return Profile(profile.name, False, frames, dict(profile.source_elements))


def _patients_column(frame: str) -> int:
    return FRAMES[frame][1].index("patients")


def _hide_group(members: Frame, is_total: Callable[[Key], bool], patients: int = 1) -> Frame:
    """Hide the small cells of a group whose cells add up to a known total, and a lone one's next-smallest sibling."""

    def cell_small(values: Values) -> bool:
        return any(small(values[i]) for i in {0, patients})

    hidden = {key for key, values in members.items() if cell_small(values)}
    parts = {key: values for key, values in members.items() if not is_total(key)}
    lone = [key for key in hidden if key in parts]
    if len(lone) == 1:
        rest = [key for key, values in parts.items() if key not in hidden and values[0]]
        if rest:
            hidden.add(min(rest, key=lambda key: (parts[key][0] or 0, key)))
    return {key: tuple(None for _ in values) if key in hidden else values for key, values in members.items()}


def _pool_sites(states: Frame) -> Frame:
    """Pool the sites, whose names are the hospital's own, under ``other-sites``."""
    pooled: Frame = {}
    for key, values in states.items():
        place = (key[0], "site", "other-sites", key[3]) if key[1] == "site" else key
        before: Iterable[int | None] = pooled.get(place, (0,) * len(values))
        pooled[place] = tuple(None if a is None or b is None else a + b for a, b in zip(before, values, strict=True))
    return pooled
