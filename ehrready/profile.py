"""The profile: every measure of one data set as integers under text keys; a commutative monoid.

A profile is a set of *frames*.  A frame maps a tuple of text keys to a tuple of integers; adding two profiles
adds the integers key by key (``merge``), and ``Profile.zero()`` is the neutral element.  ``None`` stands for a
count that is hidden (1-10 patients) and absorbs whatever is added to it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ehrready import __version__
from ehrready.errors import UsageError

KIND = "ehrready-profile"
SCHEMA_VERSION = "1.0"

Key = tuple[str, ...]
Values = tuple[int | None, ...]
Frame = dict[Key, Values]

#: Frame name to (names of its keys, names of its values).  ``n`` counts records (concepts, codings), ``patients``
#: distinct patients; ``n2`` and ``n_of`` are the sums over patients of n² and n·of (design effect).
FRAMES: dict[str, tuple[Key, Key]] = {
    "ledger": (("format", "status", "reason"), ("files", "bytes", "read", "profiled", "rejected")),
    # files with a declared count (Bulk Data manifest, BTS/FTS, Parquet footer): read of them, lacking and beyond it
    "declared": (("format",), ("files", "declared", "read", "lacking", "beyond")),
    "patients": (("group", "value"), ("patients",)),
    "types": (("format", "type"), ("n",)),
    "volume": (("table", "month"), ("n", "patients")),
    "excluded": (("table", "reason"), ("n", "patients")),
    "states": (("element", "grouping", "group", "state"), ("n", "patients", "n2", "n_of")),
    "systems": (("element", "tokens"), ("n", "patients", "n2", "n_of")),
    "classes": (("element", "system", "how", "class"), ("n", "patients", "n2", "n_of")),
    "codes": (("element", "system", "code"), ("n", "patients", "n2", "n_of")),
    "releases": (("element", "system", "release"), ("n", "patients")),
    "quarters": (("element", "system", "code", "quarter"), ("seen",)),
    "currency": (("element", "system", "class"), ("n", "patients", "n2", "n_of")),
    "displays": (("element", "system", "class"), ("n", "patients", "n2", "n_of")),
    "tables": (("system", "release", "sha256"), ("seen",)),
    "defects": (("element", "kind"), ("n", "patients")),
    "history": (("months",), ("patients",)),
    # results by code and unit, as typed where a table or UCUM knows it (else pooled), and their log-bucket histograms
    "units": (("element", "system", "code", "unit"), ("n", "patients", "n2", "n_of")),
    "values": (("system", "code", "unit", "bucket"), ("n", "patients")),
    "value_kinds": (("system", "code", "kind"), ("n", "patients")),
    # record-level defects of values, units, times, identity and references, each with its own denominator
    "relations": (("element", "kind"), ("n", "of", "patients")),
    "categories": (("element", "value"), ("n", "patients")),
    # records with two defects at once; a pair of the same counts the records that have it (ehrready.overlaps)
    "overlaps": (("table", "one", "other"), ("n",)),
    # what rules themselves count (check: sql and the like), under the rule's id and the digest of its options; group is
    # JSON, status a reason why nothing could be counted
    "custom": (("rule", "digest", "group", "status"), ("n", "of", "patients", "unknown_patients")),
    "columns": (("table", "column", "kind"), ("rows", "missing", "null_token")),
    # what a model gave (ehrready.production): counts of predictions and citations by kind, scores by bucket and label, the
    # clusters that patients make of them, and which predictions of a month were read; month "" is the whole run
    "predictions": (("output", "month", "kind"), ("n", "of", "patients")),
    "scores": (("output", "month", "grouping", "group", "bucket", "label"), ("n", "patients")),
    "clusters": (("output", "month", "grouping", "group", "label"), ("n", "patients", "n2")),
    # of outputs that are classes: what was given by what it was, empty where no label tells
    "confusion": (("output", "month", "grouping", "group", "class", "label"), ("n", "patients")),
    "runs": (("month", "digest"), ("seen",)),
}

#: Frames that a profile has only where predictions were read.
PRODUCTION = ("predictions", "scores", "clusters", "confusion", "runs")

#: Frames that say *that*, not how many: their 1 is merged by the maximum.  ``quarters`` lists the public codes seen in
#: a calendar quarter (enough to tell their release, without a count); ``tables`` the release tables measured against.
PRESENCE = ("quarters", "tables", "runs")


def empty() -> dict[str, Frame]:
    """Return every frame, without a row."""
    return {name: {} for name in FRAMES}


@dataclass(slots=True)
class Profile:
    """The measures of one data set.  ``name`` is the user's word for it, never a path.

    ``sites`` are frames of parts of the records: of each site that a rule names, and of the others together.  They are there
    only where a rule has limits by site for more than the states of an element (ehrready.sites).
    """

    name: str = "dataset"
    internal: bool = True
    frames: dict[str, Frame] = field(default_factory=empty)
    source_elements: dict[str, str] = field(default_factory=dict)
    sites: dict[str, dict[str, Frame]] = field(default_factory=dict)
    _order: dict[str, tuple[Frame, list[Key]]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def zero(cls, name: str = "dataset") -> Profile:
        """Return the neutral element of merging."""
        return cls(name=name)

    def merge(self, other: Profile) -> Profile:
        """Return the profile of both data sets, which must share no patient; a hidden count stays hidden.

        Sites stay apart only where both keep the same ones apart (or one of them has read nothing).
        """
        frames = merged(self.frames, other.frames)
        if self.sites.keys() == other.sites.keys():
            sites = {site: merged(part, other.sites[site]) for site, part in self.sites.items()}
        else:
            full = [profile for profile in (self, other) if profile.sites or any(profile.frames.values())]
            sites = dict(full[0].sites) if len(full) == 1 else {}
        elements = dict(other.source_elements)
        for element, place in self.source_elements.items():
            known = {*elements.get(element, place).split(" | "), *place.split(" | ")}
            elements[element] = " | ".join(sorted(known))
        return Profile(self.name, self.internal and other.internal, frames, elements, sites)

    def rows(self, frame: str, *prefix: str) -> Iterator[tuple[Key, Values]]:
        """Yield the rows of a frame whose key starts with ``prefix``, in key order."""
        table, wanted = self.frames[frame], len(prefix)
        keys = self._sorted(frame)
        for key in keys[bisect_left(keys, prefix) :] if wanted else keys:
            if key[:wanted] != prefix:
                break
            yield key, table[key]

    def _sorted(self, frame: str) -> list[Key]:
        """Return a frame's keys in order: checks ask for rows thousands of times, so they are sorted once until the frame changes."""
        table = self.frames[frame]
        known = self._order.get(frame)
        if known is None or known[0] is not table or len(known[1]) != len(table):
            known = self._order[frame] = (table, sorted(table))
        return known[1]

    @property
    def formats(self) -> list[str]:
        """Formats that were read."""
        return sorted({key[0] for key in self.frames["ledger"] if key[1] not in {"skipped", "reference"}} - {""})

    @property
    def only_predictions(self) -> bool:
        """Whether predictions were read and no records."""
        return self.formats == ["predictions"]

    @property
    def patients(self) -> int | None:
        """Distinct patients of the records, else of the predictions; None when hidden."""
        people = self.frames["patients"]
        return people.get(("all", ""), people.get(("predicted", ""), (0,)))[0]

    def total(self, value: str) -> int:
        """Return a total of the ledger: files, bytes, read, profiled or rejected."""
        column = FRAMES["ledger"][1].index(value)
        return sum(values[column] or 0 for values in self.frames["ledger"].values())

    def tables(self) -> dict[str, int]:
        """Return canonical table to its records, excluded ones left out; tables without a record are absent."""
        found: dict[str, int] = {}
        for (table, _), (n, _) in self.frames["volume"].items():
            found[table] = found.get(table, 0) + (n or 0)
        return found

    def has(self, table: str) -> bool:
        """Whether a canonical table has a record that is not kept out."""
        return next(self.rows("volume", table), None) is not None

    def period(self) -> dict[str, str | None]:
        """Return the first and last month of dated events (conditions apart: their onset may lie decades back)."""
        months = sorted(
            {m for (t, m), _ in self.frames["volume"].items() if t not in {"condition", "patient", "allergy"} and "1900" < m < "2100"}
        )
        return {"start": months[0] if months else None, "end": months[-1] if months else None}

    def to_json(self) -> bytes:
        """Serialise: keys sorted, so that the same measures give the same bytes."""
        return orjson.dumps(self.as_dict(), option=orjson.OPT_SORT_KEYS) + b"\n"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document (design section 1)."""
        return {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "ehrready", "version": __version__},
            "name": self.name,
            "internal": self.internal,
            "source_elements": self.source_elements,
            "frames": _written(self.frames),
            **({"sites": {site: _written(part) for site, part in sorted(self.sites.items())}} if self.sites else {}),
        }

    @classmethod
    def from_json(cls, data: bytes, *, place: str = "the profile") -> Profile:
        """Parse a profile; raises UsageError for another kind, an unknown major version or a broken shape."""
        document = load_document(data, KIND, SCHEMA_VERSION, place)
        problems: list[str] = []
        given, parts = document.get("frames"), document.get("sites", {})
        frames = _read(given, place, problems)
        sites = {}
        for number, (site, part) in enumerate(sorted(parts.items()) if isinstance(parts, dict) else (), 1):
            sites[str(site)] = _read(part, f"{place}: site {number}", problems)
        elements, name, internal = document.get("source_elements"), document.get("name"), document.get("internal")
        nodes = [given, elements, parts, *(parts.values() if isinstance(parts, dict) else ())]
        if not all(isinstance(node, dict) for node in nodes) or not isinstance(name, str) or not isinstance(internal, bool):
            problems.append(f"{place}: name, internal, source_elements, sites or frames is missing or of another type")
        if problems:
            raise UsageError(*problems)
        return cls(str(name), bool(internal), frames, {str(k): str(v) for k, v in (elements or {}).items()}, sites)


def merged(one: dict[str, Frame], other: dict[str, Frame]) -> dict[str, Frame]:
    """Add up frames key by key."""
    frames = {name: dict(frame) for name, frame in one.items()}
    for name, frame in other.items():
        mine = frames[name]
        for key, values in frame.items():
            mine[key] = values if key not in mine else _most(mine[key], values) if name in PRESENCE else _add(mine[key], values)
    return frames


def _written(frames: dict[str, Frame]) -> dict[str, Any]:
    return {
        name: {"keys": FRAMES[name][0], "values": FRAMES[name][1], "rows": [[*k, *v] for k, v in sorted(frame.items())]}
        for name, frame in frames.items()
        if frame or name not in PRODUCTION
    }


def _read(given: Any, place: str, problems: list[str]) -> dict[str, Frame]:
    """Parse the frames of a document, and note what is wrong with them."""
    frames = empty()
    for name, body in given.items() if isinstance(given, dict) else ():
        if name not in FRAMES:
            continue  # a later minor version may know more
        keys, values = FRAMES[name]
        rows = body.get("rows") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            problems.append(f"{place}: frame {name} has no rows")
            continue
        for number, row in enumerate(rows, 1):
            if not _is_row(row, len(keys), len(values)):
                problems.append(f"{place}: frame {name}, row {number}: expected {len(keys)} texts and {len(values)} counts")
                break
            key = tuple(row[: len(keys)])
            if key in frames[name]:
                problems.append(f"{place}: frame {name}, row {number}: its key stands there twice")
                break
            frames[name][key] = tuple(row[len(keys) :])
    return frames


def _is_row(row: Any, keys: int, values: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == keys + values
        and all(isinstance(key, str) for key in row[:keys])
        and all(v is None or (isinstance(v, int) and not isinstance(v, bool) and v >= 0) for v in row[keys:])
    )


def _add(a: Values, b: Values) -> Values:
    return tuple(None if x is None or y is None else x + y for x, y in zip(a, b, strict=True))


def _most(a: Values, b: Values) -> Values:
    return tuple(None if x is None or y is None else max(x, y) for x, y in zip(a, b, strict=True))


def load_document(data: bytes, kind: str, version: str, place: str) -> dict[str, Any]:
    """Parse one of our JSON documents and check its kind and major version; raises UsageError."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise UsageError(f"{place} is not valid JSON: write it again with ehrready") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise UsageError(f"{place} is not an {kind} document: give one that ehrready wrote")
    given = str(document.get("schema_version"))
    if given.partition(".")[0] != version.partition(".")[0]:
        raise UsageError(f"{place} has an unknown major schema version: this version of ehrready reads {version.partition('.')[0]}.x")
    return document
