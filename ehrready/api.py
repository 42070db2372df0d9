"""The Python interface: the same as the command line, returning objects."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

from ehrready import pipeline
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


def profile_of(sources: Paths, **options: object) -> Profile:
    """Measure sources and return their exact (internal) profile.

    ``options`` are the fields of :class:`ehrready.options.Options`.  Raises ehrready.errors.EhrreadyError.
    """
    return pipeline.read_profile(_paths(sources), Options(**options))[0]  # type: ignore[arg-type]


def check(sources: Paths, *, against: str | PathLike[str] | Profile | None = None, **options: object) -> Scorecard:
    """Check sources against a training profile (an object or a saved file) and return the scorecard."""
    chosen = Options(**options)  # type: ignore[arg-type]
    if against is not None and not isinstance(against, Profile):
        return pipeline.check(_paths(sources), fspath(against), chosen)[0]
    measured, ledger, _ = pipeline.read_profile(_paths(sources), chosen)
    return pipeline.judge(measured, against, chosen, ledger=ledger)


def compare(live: Profile, training: Profile, **options: object) -> Scorecard:
    """Judge a live profile against a training profile and return the scorecard."""
    return pipeline.judge(live, training, Options(**{"internal": live.internal, **options}))  # type: ignore[arg-type]


def _paths(sources: Paths) -> list[str]:
    given = [sources] if isinstance(sources, str | PathLike) else list(sources)
    return [fspath(path) for path in given]
