"""Which releases a profile's codes come from, as declared and as the codes themselves tell, per element and system."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ehrready.profile import Profile

if TYPE_CHECKING:
    from ehrready.terminology.fingerprint import Inference
    from ehrready.terminology.releases import ReleaseTable, Store


@dataclass(frozen=True, slots=True)
class Seen:
    """What the distinct codes of one element in one system say: over all dated quarters, and quarter by quarter.

    ``codes`` are all distinct codes of the profile, dated or not; ``positions`` their rows in ``table`` (-1 unknown).
    """

    element: str
    system: str
    table: ReleaseTable
    codes: tuple[str, ...]
    positions: np.ndarray
    overall: Inference
    quarters: dict[str, Inference]

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases in use, in order: of the whole when it is one story, else those of its quarters; () when it cannot tell."""
        if self.overall.pattern in {"single", "interval", "frozen", "re-mapped", "lagging", "tracks-calendar"}:
            return self.overall.releases
        found = {label for quarter in self.quarters.values() if quarter.releases for label in quarter.releases}
        return tuple(release.label for release in self.table.releases if release.label in found)


def systems_of(profile: Profile, element: str) -> list[str]:
    """Return the code systems in which an element has public codes."""
    return sorted({key[1] for key, _ in profile.rows("codes", element)})


def infer(profile: Profile, element: str, system: str, store: Store | None) -> Seen | None:
    """Return what the codes of an element say about their release; None where no release table is loaded."""
    table = store.table(system) if store is not None else None
    if table is None or not any(release.effective for release in table.releases):
        return None
    from ehrready.terminology import fingerprint

    codes = tuple(key[2] for key, _ in profile.rows("codes", element, system))
    positions = table.positions(codes)
    place = dict(zip(codes, positions.tolist(), strict=True))
    by_quarter: dict[str, set[str]] = defaultdict(set)
    for (_, _, code, quarter), _ in profile.rows("quarters", element, system):
        by_quarter[quarter].add(code)
    strata: dict[str, tuple[np.ndarray, int]] = {}
    for quarter, seen in sorted(by_quarter.items()):
        rows = [place.get(code, -1) for code in sorted(seen)]
        strata[quarter] = (np.array([row for row in rows if row >= 0], dtype=np.int64), sum(row < 0 for row in rows))
    undated = set(codes).difference(*by_quarter.values()) if by_quarter else set(codes)
    if not by_quarter:
        strata[""] = (np.array(sorted(place[code] for code in undated if place[code] >= 0), dtype=np.int64), int((positions < 0).sum()))
    labels, effective = ([getattr(table.releases[i], name) for i in table.told] for name in ("label", "effective"))
    overall, quarters = fingerprint.infer_strata(table.lifecycles, labels, effective, strata)
    return Seen(element, system, table, codes, positions, overall, quarters)


def declared(profile: Profile, element: str) -> dict[str, dict[str, tuple[int | None, int | None]]]:
    """Return system → declared release (``""`` for none) → (codings, patients) of an element."""
    found: dict[str, dict[str, tuple[int | None, int | None]]] = {}
    for (_, system, release), (n, patients) in profile.rows("releases", element):
        found.setdefault(system, {})[release] = (n, patients)
    return found
