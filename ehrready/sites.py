"""One site's part of a profile, as far as the profile keeps sites apart: the states of its elements (frame ``states``)."""

from __future__ import annotations

from collections.abc import Sequence

from ehrready.profile import Frame, Profile, Values

#: Why a rule by site has nothing to judge.
NO_RECORDS = "no records of this table"


def only(profile: Profile, element: str, site: str) -> Profile:
    """Return the profile as if it held a site's records of an element only; its other frames are left empty."""
    return _view(profile, {(element, "all", "", key[3]): values for key, values in profile.rows("states", element, "site", site)})


def others(profile: Profile, element: str, sites: Sequence[str]) -> Profile:
    """Return the profile as if it held the records of an element that are of none of the sites.

    Records and moments are differences.  Patients seen at several sites make the difference of patients a lower bound.
    """
    rest: Frame = {}
    for key, values in profile.rows("states", element, "all", ""):
        gone = [profile.frames["states"].get((element, "site", site, key[3]), (0, 0, 0, 0)) for site in sites]
        rest[key] = _minus(values, gone)
    return _view(profile, rest)


def _minus(values: Values, gone: Sequence[Values]) -> Values:
    if any(value is None for row in (values, *gone) for value in row):
        return tuple(None for _ in values)
    left = [max((value or 0) - sum(row[i] or 0 for row in gone), 0) for i, value in enumerate(values)]
    left[1] = max(left[1], 1) if left[0] else 0
    return tuple(left)


def _view(profile: Profile, states: Frame) -> Profile:
    frames = {name: dict(frame) if name in {"ledger", "volume"} else {} for name, frame in profile.frames.items()}
    frames["states"] = states
    return Profile(profile.name, profile.internal, frames, profile.source_elements)
