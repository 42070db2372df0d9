"""The profile is a commutative monoid of integers, and its JSON says what it is."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ehrready
from ehrready.errors import UsageError
from ehrready.privacy import hide_profile
from ehrready.profile import FRAMES, Frame, Profile
from ehrready.readers.streams import open_stream
from ehrready.suppression import SMALLEST
from tests.helpers.samples import Samples

_KEY = st.sampled_from(["a", "b", "c"])
_COUNT = st.one_of(st.none(), st.integers(0, 2**40))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    frames: dict[str, Frame] = {}
    for name, (keys, values) in FRAMES.items():
        rows = st.dictionaries(st.tuples(*[_KEY] * len(keys)), st.tuples(*[_COUNT] * len(values)), max_size=3)
        frames[name] = draw(rows)
    parts = draw(st.sampled_from([(), (), ("A", "other-sites"), ("B", "other-sites")]))
    return Profile(frames=frames, sites={site: {name: dict(frame) for name, frame in frames.items()} for site in parts})


@given(a=profiles(), b=profiles(), c=profiles())
def test_merge_is_associative_and_commutative_and_has_a_zero(a: Profile, b: Profile, c: Profile) -> None:
    assert a.merge(b).merge(c).to_json() == a.merge(b.merge(c)).to_json()
    assert a.merge(b).to_json() == b.merge(a).to_json()
    assert a.merge(Profile.zero()).to_json() == a.to_json()


@given(a=profiles())
def test_json_round_trip(a: Profile) -> None:
    assert Profile.from_json(a.to_json()).to_json() == a.to_json()


@functools.cache
def patients() -> dict[str, list[tuple[str, bytes]]]:
    """Return patient id → (file name, line) of the live FHIR sample."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for path in sorted((Path(__file__).parent.parent / "sample_data" / "live" / "fhir").glob("*.ndjson*")):
        with open_stream(path) as stream:
            lines = stream.read().splitlines()
        for line in lines:
            resource = orjson.loads(line)
            reference = resource.get("subject") or resource.get("patient") or {}
            owner = str(reference.get("reference", "")).removeprefix("Patient/")
            owner = resource["id"] if resource.get("resourceType") == "Patient" else owner
            if owner:
                found.setdefault(owner, []).append((path.name.removesuffix(".gz"), line))
    return found


def _profile(folder: Path, lines: Iterator[tuple[str, bytes]]) -> Profile:
    files: dict[str, list[bytes]] = {}
    for name, line in lines:
        files.setdefault(name, []).append(line)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(b"\n".join(content) + b"\n")
    # a sample of each part is no sample of the whole: whole resources are left out
    return ehrready.profile_of(folder, threads=1, validate="none")


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000))
def test_merge_law_profile_of_parts_is_profile_of_the_whole(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    people = patients()
    chosen = sorted(people)[:60]
    left = set(random.Random(seed).sample(chosen, 1 + seed % (len(chosen) - 1)))
    folder = tmp_path_factory.mktemp("merge")
    parts = [
        _profile(folder / str(number), (row for p in members for row in people[p]))
        for number, members in enumerate([sorted(left), [p for p in chosen if p not in left], chosen])
    ]
    merged = parts[0].merge(parts[1])
    for name in FRAMES:
        if name == "ledger":  # files and bytes are those of the files as cut, records must agree
            assert merged.total("read") == parts[2].total("read")
        else:
            assert merged.frames[name] == parts[2].frames[name], name


def test_hidden_counts_absorb() -> None:
    a, b = Profile.zero(), Profile.zero()
    a.frames["volume"]["condition", "2024-01"] = (None, None)
    b.frames["volume"]["condition", "2024-01"] = (50, 40)
    assert a.merge(b).frames["volume"]["condition", "2024-01"] == (None, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "ehrready-scorecard"}, "not an ehrready-profile"),
        ({"schema_version": "9.0"}, "unknown major"),
        ({"frames": {"volume": {"rows": [["a"]]}}}, "frame volume, row 1"),
        ({"frames": {"volume": {"rows": [["a", "b", -1, 2]]}}}, "frame volume, row 1"),
        ({"frames": []}, "frames"),
        ({"name": None}, "name"),
    ],
)
def test_a_broken_profile_is_refused_with_the_place(change: dict[str, object], says: str) -> None:
    document = orjson.loads(Profile.zero().to_json()) | change
    with pytest.raises(UsageError, match=says):
        Profile.from_json(orjson.dumps(document))
    with pytest.raises(UsageError, match="not valid JSON"):
        Profile.from_json(orjson.dumps(document)[:-5])


def test_a_saved_profile_shows_no_small_cell_and_none_can_be_derived(samples: Samples) -> None:
    exact = samples.profile("live", "fhir")
    hidden = hide_profile(exact)
    assert hidden.internal is False
    column = {name: values.index("patients") for name, (_, values) in FRAMES.items() if "patients" in values}
    for name, position in column.items():
        for key, values in hidden.frames[name].items():
            count = values[position]
            assert count is None or not 0 < count < SMALLEST, (name, key)
    # subtraction: the states of an element add up to their total, so a lone hidden one would be known
    groups: dict[tuple[str, ...], list[int | None]] = {}
    for key, values in hidden.frames["states"].items():
        if key[3] != "*":
            groups.setdefault(key[:3], []).append(values[0])
    for key, counts in groups.items():
        assert counts.count(None) != 1 or not any(c for c in counts if c), key
    # rare public codes stay listed, without counts
    assert set(hidden.frames["codes"]) == set(exact.frames["codes"])
