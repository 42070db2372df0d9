"""``ehrready monitor``, top to bottom: predictions (and records) → profile → earlier runs → findings → scorecard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from ehrready import contract as contracts
from ehrready import pipeline, saved, sources, suppression
from ehrready.errors import UsageError
from ehrready.options import Options
from ehrready.production import accuracy
from ehrready.production import state as runs
from ehrready.profile import Profile
from ehrready.readers import chosen
from ehrready.readers.base import Reader
from ehrready.readers.predictions import PredictionReader
from ehrready.rules import chosen as chosen_packs
from ehrready.rules import waivers
from ehrready.scorecard import Scorecard


def monitor(
    predictions: Sequence[str],
    options: Options,
    *,
    data: Sequence[str] = (),
    against: Sequence[str] = (),
    state: str | None = None,
    validation: bool = False,
    labels: Sequence[str] = (),
) -> tuple[Scorecard, Profile, list[Any], list[str]]:
    """Judge predictions by the contract of ``options``; returns scorecard, profile of this run, files, and what to say about the state.

    ``data`` are the records of the same patients, ``labels`` tables of outcomes that come apart from the predictions, ``against`` saved profiles: of the training data, of the validation's predictions.
    With ``state`` the earlier runs of that folder are judged together with this one, which is kept there afterwards.
    ``validation``: the run is there to save its profile.  Texts that it lacks altogether are then not applicable, unless data, against
    or state are given, which only production has.
    Raises UsageError and SourceError for predictions that cannot be (no patient, a label from the future), naming the row.
    """
    if options.contract is None:
        raise UsageError("monitor needs --contract: it says what the model gives and what was promised")
    training, digest = _training(against)
    earlier = runs.read(state) if state else []
    chosen_packs.look_ahead(options)
    reader = PredictionReader(
        contracts.load(options.contract),
        sources.expand(predictions),
        waivers.today(options.stamp) if options.stamp else None,
        sources.expand(labels) if labels else (),
    )
    readers: list[Reader] = [reader]
    if data:
        offered = chosen(options.format, options.mapping, options.validate)
        readers += [each for each in offered if options.format in {"auto", each.format}]
    profile, ledger, files = pipeline.read_profile([*predictions, *labels, *data], replace(options, format="auto"), readers=readers)
    whole, twice = runs.join(profile, earlier) if earlier else (profile, [])
    lacking: list[str] = []
    if validation and not (data or against or state):
        whole, lacking = _without_texts(whole)
    card = pipeline.judge(whole, training, options, ledger=ledger, training_sha256=digest)
    if state and profile.frames["runs"]:
        runs.keep(state, profile)
    said = [f"{', '.join(twice)}: earlier runs hold other predictions of the same month; these were added to them"] if twice else []
    if reader.outside:
        many = "up to 10" if suppression.small(reader.outside) and not options.internal else f"{reader.outside:,}"
        said.append(f"{many} labels are of times before or after the predictions that were read: not counted")
    if lacking:
        said.append(f"{', '.join(lacking)}: no text among these predictions; taken as a validation, whose profile is saved, and not judged")
    return card, profile, files, said


def _without_texts(profile: Profile) -> tuple[Profile, list[str]]:
    """Return the profile with the texts that it lacks said to be none, and their names."""
    counts = profile.frames["predictions"]
    lacking = sorted(name for name, kind in accuracy.outputs(profile).items() if kind == "text" and (name, "", "all") not in counts)
    told = {
        (key[0], "", f"is {accuracy.NO_TEXT}") if key[0] in lacking and key[2] == "is text" else key: values
        for key, values in counts.items()
    }
    return replace(profile, frames={**profile.frames, "predictions": told}), lacking


def _training(against: Sequence[str]) -> tuple[Profile | None, str | None]:
    """Return the saved profiles as one, and their SHA-256 (of several: that of their digests)."""
    loaded = [saved.load_profile(path) for path in against]
    if not loaded:
        return None, None
    digest = loaded[0][1] if len(loaded) == 1 else hashlib.sha256("".join(d for _, d in loaded).encode()).hexdigest()
    return reduce(Profile.merge, (profile for profile, _ in loaded)), digest
