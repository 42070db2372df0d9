"""What the sample data measures as, made once for all tests of a run: each gets an object of its own.

Tests of reading, of threads, orders and options read for themselves; this is for tests of what comes after.
"""

from __future__ import annotations

import fcntl
import pickle
from pathlib import Path

from ehrready import pipeline
from ehrready.ledger import Ledger
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard

DATA = Path(__file__).resolve().parents[2] / "sample_data"


class Samples:
    """The measured sample data; ``folder`` is where the workers of one run of the tests keep it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept = folder, dict[str, bytes]()

    def read(self, side: str, form: str) -> tuple[Profile, Ledger]:
        """Return the exact profile and the ledger of ``training`` or ``live`` in a format."""
        name = f"{side}-{form}"
        if name not in self._kept:
            with (self._folder / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                path = self._folder / name
                if not path.exists():
                    made = pipeline.read_profile([str(DATA / side / form)], Options())[:2]
                    path.with_suffix(".part").write_bytes(pickle.dumps(made))
                    path.with_suffix(".part").rename(path)
                self._kept[name] = path.read_bytes()
        profile, ledger = pickle.loads(self._kept[name])  # noqa: S301 - written by these tests
        assert isinstance(profile, Profile)
        assert isinstance(ledger, Ledger)
        return profile, ledger

    def profile(self, side: str, form: str) -> Profile:
        """Return the exact profile of one side of the sample in a format."""
        return self.read(side, form)[0]

    def card(self, side: str, form: str, against: Profile | None = None, **options: object) -> Scorecard:
        """Return the scorecard that ``ehrready.check`` gives, with options of judging alone."""
        profile, ledger = self.read(side, form)
        return pipeline.judge(profile, against, Options(**options), ledger=ledger)  # type: ignore[arg-type]
