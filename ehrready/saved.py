"""Documents of earlier runs that a run begins from: profiles and scorecards."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ehrready.errors import UsageError
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard


def load_profile(path: str) -> tuple[Profile, str]:
    """Read a saved profile and its SHA-256; raises UsageError when it is not one."""
    from ehrready import files
    from ehrready.profile_checks import impossible

    place = f"profile {Path(path).name}"
    data = files.read(path, place)
    profile = Profile.from_json(data, place=place)
    parts = [
        (profile.frames, place),
        *((part, f"{place}: site {number}") for number, (_, part) in enumerate(sorted(profile.sites.items()), 1)),
    ]
    if problems := [problem for frames, where in parts for problem in impossible(frames, where)]:
        raise UsageError(*problems)
    return profile, hashlib.sha256(data).hexdigest()


def load_scorecard(path: str) -> Scorecard:
    """Read a saved scorecard; raises UsageError when it is not one."""
    from ehrready import files

    place = f"scorecard {Path(path).name}"
    return Scorecard.from_json(files.read(path, place), place=place)
