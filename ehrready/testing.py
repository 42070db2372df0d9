"""Contract tests for what other packages add: a reader, a check, a reporter (entry points; design section 3).

Each function raises AssertionError saying which promise is broken.  Call them from your own tests::

    from ehrready import testing

    def test_reader(): testing.reader(CensusReader(), {"ward.census": GOOD}, records=3, damaged={"cut.census": CUT})
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ehrready import pipeline, resources
from ehrready.checks.base import CHECKS, Outcome
from ehrready.errors import EhrreadyError
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.readers import builtin
from ehrready.readers.base import REASONS, Reader
from ehrready.scorecard import Scorecard
from ehrready.tables import ELEMENTS

_STATUSES = {"", "pass", "warn", "fail", "not-assessed", "not-applicable", "error"}


def reader(made: Reader, files: Mapping[str, bytes], *, records: int, damaged: Mapping[str, bytes] | None = None) -> Profile:
    """Hold a reader to its contract and return the profile of ``files``.

    ``files`` (name to bytes) are sound and hold ``records`` records; ``damaged`` hold at least one bad one each.  Read =
    profiled + rejected per file; every file cut anywhere, and every damaged one, is booked and never an exception; the
    same files give the same bytes; no other format's files are taken; elements have canonical names.
    """
    _hold(made.format not in {known.format for known in builtin()}, "the format's name is taken: choose another")
    unknown = {element for element in made.source_elements() if not element.endswith((".site", ".excluded"))} - set(ELEMENTS) - _columns()
    _hold(not unknown, f"source_elements names what is no element: {sorted(unknown)}")
    _others(made)
    profile, ledger = _read(made, files)
    _hold(profile.total("read") == records, f"{profile.total('read')} records were read, {records} are there")
    _hold(profile.total("rejected") == 0, "a record of a sound file was rejected")
    _hold({entry.status for entry in ledger.entries.values()} == {"read"}, "a sound file was not read to its end")
    _hold(profile.to_json() == _read(made, dict(reversed(list(files.items()))))[0].to_json(), "the same files gave another profile")
    for name, data in (damaged or {}).items():
        broken, booked = _read(made, {name: data})
        entry = booked.entries[1]
        _hold(entry.rejected or entry.status in {"truncated", "unreadable"}, f"{name}: nothing was rejected and the file counts as whole")
        _hold(set(entry.reasons) <= set(REASONS), f"{name}: reasons outside the closed list")
        _hold(broken.total("read") == broken.total("profiled") + broken.total("rejected"), f"{name}: the ledger does not add up")
    for name, data in files.items():
        for part in range(1, 8):
            cut, _ = _read(made, {name: data[: len(data) * part // 8]})
            _hold(cut.total("read") == cut.total("profiled") + cut.total("rejected"), f"{name}: cut, the ledger does not add up")
            _hold(cut.total("profiled") <= profile.total("profiled"), f"{name}: cut, it holds more records than whole")
    return profile


def check(name: str, profiles: Iterable[Profile] = (), **options: Any) -> list[Outcome]:
    """Hold a registered check to its contract on sample data and ``profiles``; returns the outcomes of the last one.

    Its docstring states numerator and denominator; it gives outcomes with 0 <= n <= of and known statuses on full and empty
    profiles, the same twice, and leaves the profiles as they were.
    """
    tested = CHECKS[name]
    words = tested.words
    _hold(words["numerator_text"], "the docstring has no Numerator:")
    _hold(words["denominator_text"], "the docstring has no Denominator:")
    _hold(tested.measured is None, "a measured check needs data: test it through ehrready.check")
    found: list[Outcome] = []
    for profile in [Profile.zero(), _sample(), *profiles]:
        before = profile.to_json()
        elements = [""] if tested.whole else sorted({*ELEMENTS} & {*profile.source_elements}) or ["condition.code"]
        for element in elements:
            arguments: list[Any] = [profile, *([_sample()] if tested.compares else []), *([] if tested.whole else [element])]
            arguments += [None] if tested.looks_up else []
            found = tested.run(*arguments, **options)
            _hold(found == tested.run(*arguments, **options), f"{name} is not the same twice on {element}")
            for outcome in found:
                _hold(outcome.status in _STATUSES, f"{name}: {outcome.status} is no status")
                _hold(outcome.status in {"", "pass", "warn", "fail"} or outcome.reason, f"{name}: {outcome.status} without a reason")
                _hold(outcome.n is None or outcome.of is None or 0 <= outcome.n <= outcome.of, f"{name}: n is not within of")
        _hold(profile.to_json() == before, f"{name} changed the profile")
    return found


def reporter(render: Callable[[Scorecard], str | bytes]) -> bytes:
    """Hold a reporter to its contract on a ready, a failing and an empty scorecard; returns its output for the failing one.

    It gives text or bytes, the same twice, changes nothing, and stands texts that are markup elsewhere.
    """
    training = _sample()
    live = pipeline.read_profile([str(resources.folder("sample_data") / "live" / "fhir")], Options())[0]
    cards = [pipeline.judge(training, training, Options()), pipeline.judge(Profile.zero(), None, Options())]
    cards.append(pipeline.judge(live, training, Options()))
    hostile = copy.deepcopy(dict(cards[-1].document))
    hostile["subject"]["name"] = "<script>alert(1)</script>\x1b[31m\n::error::=cmd|'|"
    made = b""
    for card in [Scorecard(hostile), *cards]:
        before = card.to_json()
        first, second = render(card), render(card)
        _hold(isinstance(first, str | bytes), "a reporter returns text or bytes")
        _hold(first == second, "the same scorecard gave another output")
        _hold(card.to_json() == before, "the reporter changed the scorecard")
        made = first.encode() if isinstance(first, str) else first
        _hold(made, "the output is empty")
    return made


def _hold(promise: object, broken: str) -> None:
    """Raise AssertionError when a promise is broken; an assert statement would vanish under ``python -O``."""
    if not promise:
        raise AssertionError(broken)


def _columns() -> set[str]:
    from ehrready.tables import TABLES

    return {f"{table}.{column}" for table, schema in TABLES.items() for column in schema.names}


def _sample() -> Profile:
    return pipeline.read_profile([str(resources.folder("sample_data") / "training" / "fhir")], Options())[0]


def _read(made: Reader, files: Mapping[str, bytes]) -> tuple[Profile, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        try:
            profile, ledger, _ = pipeline.read_profile([folder], Options(format=made.format), readers=[made])
        except EhrreadyError:  # nothing recognised: an answer, too
            return Profile.zero(), None
        return profile, ledger


def _others(made: Reader) -> None:
    """Does the reader leave other formats alone?"""
    for path in sorted(resources.folder("sample_data").rglob("*")):
        if path.is_file() and path.suffix != ".py":
            _hold(not made.recognise(path, path.read_bytes()[:65536]), f"the reader takes a file of another format ({path.suffix})")
    _hold(not made.recognise(Path("empty"), b""), "the reader takes an empty file")
