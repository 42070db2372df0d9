"""The mapping of HL7v2 to the canonical tables (mappings/hl7v2.yaml) and the places in segments it speaks of."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

from ehrready import resources

#: Segments that say whose message it is: they come as context, not as the last one before a row.
CONTEXT = ("MSH", "PID", "PV1")

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,3})(?:\.(\d{1,2}))?(?:\.(\d{1,2}))?")


@functools.cache
def mapping() -> dict[str, Any]:
    """Return mappings/hl7v2.yaml: where each canonical column comes from."""
    loaded: dict[str, Any] = resources.data(Path(__file__).parent / "mappings" / "hl7v2.yaml")
    return loaded


class Place(NamedTuple):
    """A place such as ``PID-3.4.1``; component and subcomponent are 0 where it names none."""

    segment: str
    field: int
    component: int = 0
    sub: int = 0

    @classmethod
    def of(cls, text: str) -> Place:
        """Parse a place of the mapping; raises ValueError for anything else."""
        if not (match := _PLACE.fullmatch(text)):
            raise ValueError(f"{text} is no place in a segment, such as PID-3.1")
        return cls(match[1], *(int(part or 0) for part in match.groups()[1:]))

    @property
    def name(self) -> str:
        """The SQL column that holds the first repetition of the field."""
        return f"{self.segment}_{self.field}"

    @property
    def text(self) -> str:
        """The SQL column that holds the place's text: trimmed, escapes resolved, empty is NULL."""
        return f"{self.segment}_{self.field}_{self.component or 1}_{self.sub}"

    @property
    def part(self) -> str:
        """The SQL of the component or subcomponent in a row that has the column ``name``."""
        sql = _part(self.name, "^", self.component or 1)
        return _part(sql, "&", self.sub) if self.sub else sql


def _part(value: str, separator: str, number: int) -> str:
    return f"split_part({value}, '{separator}', {number})" if number > 1 else f"hl7_part({value}, '{separator}')"


def places(found: Any) -> list[Place]:
    """Return the places of a column's entry: a place, a list of them, or either under ``take``."""
    if isinstance(found, dict):
        found = found["take"]
    return [Place.of(text) for text in ([found] if isinstance(found, str) else found)]


def alternatives(concept: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields a coded element may be in; the first one that is not empty counts."""
    return list(concept.get("any", [concept]))


def sources(mapping: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (table, entry) for every segment that fills a table."""
    return [(table, entry) for table, entries in mapping["tables"].items() for entry in entries]


def scalars(entry: dict[str, Any]) -> list[Place]:
    """Return the places an entry reads as texts."""
    found = [place for column in entry["columns"].values() for place in places(column)]
    found += [Place.of(concept["text"]) for concept in entry["concepts"].values() if "text" in concept]
    if value := entry.get("value"):
        unit = Place.of(value["unit"])
        found += [Place.of(value["type"]), Place.of(value["range"])]
        found += [unit._replace(component=i) for i in (1, 2, 3)]
    return found


def used(entry: dict[str, Any]) -> list[Place]:
    """Return every place an entry reads."""
    concepts = [one for concept in entry["concepts"].values() for one in alternatives(concept)]
    values = [entry["value"]["data"]] if "value" in entry else []
    return scalars(entry) + [Place.of(text) for text in [*(one["cwe"] for one in concepts), *values]]


def parents(mapping: dict[str, Any]) -> list[str]:
    """Return the segments that rows of other segments look back to (``OBR`` for OBX)."""
    return sorted({p.segment for _, entry in sources(mapping) for p in used(entry) if p.segment != entry["segment"]})


def segments(mapping: dict[str, Any]) -> list[str]:
    """Return every segment the mapping reads, the context's included."""
    named = {entry["segment"] for _, entry in sources(mapping)} | {e["unless"] for _, e in sources(mapping) if "unless" in e}
    return sorted(named | set(parents(mapping)) | set(CONTEXT))


def source_elements(mapping: dict[str, Any]) -> dict[str, str]:
    """Return canonical element to its place in a message, of the first segment that fills the table."""
    found: dict[str, str] = {}
    context = {name: places(place)[0] for name, place in mapping["context"].items()}
    for table, entry in sources(mapping):
        own = {f"{table}.{name}": places(column)[0] for name, column in entry["columns"].items()}
        for element, concept in entry["concepts"].items():
            own[element] = Place.of(alternatives(concept)[0]["cwe"])
        if value := entry.get("value"):
            own |= {f"{table}.value": Place.of(value["data"]), f"{table}.unit": Place.of(value["unit"])}
            own[value["element"]] = Place.of(value["data"])
        own |= {f"{table}.patient_id": context["patient"], f"{table}.site": context["site"]}
        if table != "patient":
            own[f"{table}.encounter_id"] = context["visit"]
        if key := entry.get("key"):
            own[f"{table}.id"] = context[key]
        for element, place in own.items():
            found.setdefault(element, f"{place.segment}-{place.field}")
    return dict(sorted(found.items()))
