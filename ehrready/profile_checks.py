"""Is a saved profile possible at all?  It comes from elsewhere: counts that are huge or contradict each other are refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ehrready.profile import FRAMES

if TYPE_CHECKING:
    from ehrready.profile import Frame

#: The largest count that is believed: adding a thousand profiles of it stays within 64 bits.
LARGEST = 2**53


def impossible(frames: dict[str, Frame], place: str) -> list[str]:
    """Return one sentence per frame that cannot be: more patients than records, parts beyond their total, a broken ledger."""
    problems = [f"{place}: frame {name} has {what}: write the profile again with ehrready" for name, what in _problems(frames)]
    return list(dict.fromkeys(problems))


def _problems(frames: dict[str, Frame]) -> Iterator[tuple[str, str]]:
    for name, frame in frames.items():
        columns = FRAMES[name][1]
        if any(value is not None and value > LARGEST for values in frame.values() for value in values):
            yield name, "a count too large to be one"
        if "n" in columns and "patients" in columns:
            n, patients = columns.index("n"), columns.index("patients")
            # of an id on two patients one record is too many, and both are concerned
            shared = {key for key in frame if name == "relations" and key[1] == "duplicate-id"}
            if any((v[patients] or 0) > (v[n] or 0) * (2 if key in shared else 1) for key, v in frame.items() if v[n] is not None):
                yield name, "more patients than records"
        if "n" in columns and "of" in columns:
            n, of = columns.index("n"), columns.index("of")
            if any((values[n] or 0) > (values[of] or 0) for values in frame.values() if values[of] is not None):
                yield name, "more defects than records"
    files: dict[tuple[str, ...], int] = defaultdict(int)
    for key, (_, _, read, profiled, rejected) in frames["ledger"].items():
        files[key[:2]] += (read or 0) - (profiled or 0) - (rejected or 0)
    if any(files.values()):
        yield "ledger", "records read that are neither profiled nor rejected"
    parts: dict[tuple[str, ...], int] = defaultdict(int)
    for key, values in frames["states"].items():
        if key[3] != "*":
            parts[key[:3]] += values[0] or 0
    for group, total in parts.items():
        whole = frames["states"].get((*group, "*"), (total,))[0]
        if whole is not None and total > whole:
            yield "states", "parts that are more than their total"
