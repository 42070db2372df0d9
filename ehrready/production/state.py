"""The folder of runs: one exact profile each, joined month by month.

A month of predictions is known by a digest of its patients and times.  The same predictions read again, perhaps with labels that
have come since, take the place of the earlier ones; other predictions of the same month are added.
"""

from __future__ import annotations

import hashlib
from functools import reduce
from pathlib import Path

from ehrready import files
from ehrready.errors import UsageError
from ehrready.production import accuracy
from ehrready.profile import PRODUCTION, Frame, Key, Profile, Values
from ehrready.profile_checks import impossible

_PATTERN = "run-*.profile.json"
#: Frames with a month in their key.
_COUNTED = ("predictions", "scores", "clusters", "confusion")


def name(profile: Profile) -> str:
    """Return the file name of a run: the same predictions have the same, whatever labels they have."""
    text = " ".join("/".join(key) for key in sorted(profile.frames["runs"]))
    return f"run-{hashlib.sha256(text.encode()).hexdigest()[:12]}.profile.json"


def own(profile: Profile) -> Profile:
    """Return the part of a profile that is about predictions."""
    kept = Profile(profile.name, profile.internal)
    for frame in PRODUCTION:
        kept.frames[frame] = dict(profile.frames[frame])
    kept.frames["volume"] = {key: values for key, values in profile.frames["volume"].items() if key[0] == "prediction"}
    kept.frames["ledger"] = {key: values for key, values in profile.frames["ledger"].items() if key[0] == "predictions"}
    kept.frames["patients"] = {key: values for key, values in profile.frames["patients"].items() if key[0] == "predicted"}
    return kept


def read(folder: str) -> list[Profile]:
    """Return the runs of a folder, by name; raises UsageError for one that is broken, or hides counts."""
    root = Path(folder)
    if root.exists() and not root.is_dir():
        raise UsageError("--state needs a folder: give one for this model alone")
    found = []
    for path in sorted(root.glob(_PATTERN)) if root.exists() else ():
        place = f"state {path.name}"
        profile = Profile.from_json(files.read(str(path), place), place=place)
        problems = impossible(profile.frames, place)
        if not profile.internal or not profile.frames["runs"]:
            problems.append(f"{place}: it is no run that ehrready monitor left there: take it out of the folder")
        if problems:
            raise UsageError(*problems)
        found.append(profile)
    return found


def keep(folder: str, profile: Profile) -> None:
    """Write a run into the folder: exact counts, for nobody but the owner of the file."""
    root = Path(folder)
    if not root.exists():
        root.mkdir(parents=True, mode=0o700)
    files.write(str(root / name(profile)), own(profile).to_json(), mode=0o600)


def join(profile: Profile, earlier: list[Profile]) -> tuple[Profile, list[str]]:
    """Return the profile with the predictions of earlier runs, and the months in which others were added to what is there.

    Raises UsageError where an earlier run was made by a contract with other outputs.
    """
    mine = name(profile)
    runs = [own(profile), *(run for run in earlier if name(run) != mine)]
    kinds = accuracy.outputs(profile)
    for run in runs:
        if any(kinds.get(output, kind) != kind for output, kind in accuracy.outputs(run).items()):
            raise UsageError("the state holds runs of outputs of another kind or range: give a folder for this contract alone")
    owner: dict[Key, int] = {}
    for place, run in enumerate(runs):
        for key in run.frames["runs"]:
            # this run first; else the one that knows most labels
            if key not in owner or (owner[key] > 0 and _labels(run, key[0]) > _labels(runs[owner[key]], key[0])):
                owner[key] = place
    parts = [_months(run, {key for key, place in owner.items() if place == i}) for i, run in enumerate(runs)]
    parts = [part for part in parts if part.frames["runs"]]
    if len(parts) == 1:
        return profile, []
    whole = _summed(reduce(Profile.merge, (_without_totals(part) for part in parts)))
    frames = dict(profile.frames) | {frame: whole.frames[frame] for frame in PRODUCTION}
    frames["volume"] = {key: v for key, v in profile.frames["volume"].items() if key[0] != "prediction"} | whole.frames["volume"]
    people = sum(part.frames["patients"].get(("predicted", ""), (0,))[0] or 0 for part in parts)
    frames["patients"] = dict(profile.frames["patients"]) | {("predicted", ""): (people,)}
    seen = [key[0] for key in owner]
    return Profile(profile.name, profile.internal, frames, dict(profile.source_elements)), sorted({m for m in seen if seen.count(m) > 1})


def _labels(run: Profile, month: str) -> int:
    return sum(v[0] or 0 for k, v in run.frames["clusters"].items() if k[1] == month and k[2] == "all" and k[4])


def _months(run: Profile, kept: set[Key]) -> Profile:
    """Return a run with those months only that are its own; all of it where it keeps them all."""
    if kept == set(run.frames["runs"]):
        return run
    months = {month for month, _ in kept}
    part = Profile(run.name, run.internal, {name: dict(frame) for name, frame in run.frames.items()})
    for frame in _COUNTED:
        part.frames[frame] = {key: v for key, v in run.frames[frame].items() if key[1] in months or _is_kind(frame, key)}
    part.frames["runs"] = {key: v for key, v in run.frames["runs"].items() if key in kept}
    part.frames["volume"] = {key: v for key, v in run.frames["volume"].items() if key[1] in months}
    return part


def _is_kind(frame: str, key: Key) -> bool:
    return frame == "predictions" and key[2].startswith("is ")


def _without_totals(run: Profile) -> Profile:
    part = Profile(run.name, run.internal, dict(run.frames))
    for frame in _COUNTED:
        part.frames[frame] = {key: v for key, v in run.frames[frame].items() if key[1] or _is_kind(frame, key)}
    return part


def _summed(whole: Profile) -> Profile:
    """Add the rows of all months together.

    Who recurs in several months is not known: as patients of a count stand those of its fullest month, the fewest there can be,
    and clusters are those within the months.
    """
    counts: Frame = {key: (1, 1, 0) if _is_kind("predictions", key) else v for key, v in whole.frames["predictions"].items()}
    whole.frames["predictions"] = counts
    for frame in _COUNTED:
        totals: Frame = {}
        for key, values in whole.frames[frame].items():
            if _is_kind(frame, key):
                continue
            place = (key[0], "", *key[2:])
            before = totals.get(place, (0,) * len(values))
            totals[place] = _plus(before, values, 2 if frame == "predictions" else None)
        whole.frames[frame] |= totals
    return whole


def _plus(a: Values, b: Values, most: int | None) -> Values:
    return tuple(max(x or 0, y or 0) if i == most else (x or 0) + (y or 0) for i, (x, y) in enumerate(zip(a, b, strict=True)))
