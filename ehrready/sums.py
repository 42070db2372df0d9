"""Which counts of a profile are sums of which others: what must be known to keep a small cell from being worked out.

Within a frame the parts of a known total stand side by side; across frames the same records are counted by month, state,
code, kind of value and unit.  Each function adds the sums of one of these ties to a ``Suppression``.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable

from ehrready import analytes, units
from ehrready.histograms import PARSES, bounds, coarse_of, is_coarse
from ehrready.profile import Frame, Key
from ehrready.suppression import Cell, Part
from ehrready.tables import table_of

Frames = dict[str, Frame]

#: Frames whose rows with the same first keys add up to something known.
GROUPS = (
    ("classes", 1), ("classes", 2), ("codes", 2), ("releases", 2), ("currency", 2), ("displays", 2), ("systems", 1), ("volume", 1),
    ("excluded", 1), ("defects", 1), ("categories", 1), ("types", 1), ("history", 0), ("value_kinds", 2), ("units", 3),
)  # fmt: skip

#: Classes of codings whose code is listed in ``codes`` when its system is public.
LISTED = ("well-formed", "repairable")

#: Canonical tables of FHIR resource types (mappings/fhir.yaml), for which a type's records are a table's, excluded ones included.
_FHIR = {
    "patient": ("Patient",), "encounter": ("Encounter",), "condition": ("Condition",), "observation": ("Observation",),
    "medication": ("MedicationRequest", "MedicationStatement", "MedicationAdministration", "MedicationDispense"),
    "procedure": ("Procedure",), "immunization": ("Immunization",), "allergy": ("AllergyIntolerance",), "report": ("DiagnosticReport",),
    "document": ("DocumentReference",),
}  # fmt: skip


def add(s: Part, frames: Frames) -> None:
    """Add every sum that holds between the counts of a profile."""
    totals = {(name, depth): _groups(s, name, frames[name], depth) for name, depth in GROUPS}
    _states(s, frames["states"])
    _records(s, frames, totals["volume", 1], totals["excluded", 1])
    _codings(s, frames, totals)
    _values(s, frames, totals)
    _people(s, frames["patients"], totals["history", 0])


def _by(frame: Iterable[Key], part: Callable[[Key], Key]) -> dict[Key, list[Key]]:
    found: dict[Key, list[Key]] = defaultdict(list)
    for key in frame:
        found[part(key)].append(key)
    return found


def _groups(s: Part, name: str, frame: Frame, depth: int) -> dict[Key, Cell]:
    """Add a known total for every group of rows with the same first keys; return group to total."""
    groups = _by(frame, lambda key: key[:depth])
    return {group: s.total(f"{name}{depth}", group, ((name, key) for key in keys)) for group, keys in groups.items()}


def _states(s: Part, states: Frame) -> None:
    """The states of a group add up to ``*``; the groups of a grouping to no more than the whole."""
    for group, keys in _by((key for key in states if key[3] != "*"), lambda key: key[:3]).items():
        s.sum(("states", (*group, "*")), (("states", key) for key in keys))
    for (element, _, state), keys in _by((k for k in states if k[1] != "all"), lambda key: (key[0], key[1], key[3])).items():
        s.sum(("states", (element, "all", "", state)), (("states", key) for key in keys))


def _records(s: Part, frames: Frames, volume: dict[Key, Cell], excluded: dict[Key, Cell]) -> None:
    """The records of a table are those of its elements, by month as well, and of its FHIR types."""
    for key in frames["states"]:
        table = table_of(key[0])
        if key[3] == "*" and key[1] == "all" and (table,) in volume:
            s.sum(volume[table,], [("states", key)])
        if key[3] == "*" and key[1] == "month":
            s.sum(("volume", (table, key[2])), [("states", key)])
    # every element of a table tells the size of a group; those that apply to fewer records tell how many fewer
    for keys in _by((key for key in frames["states"] if key[3] == "*"), lambda key: (table_of(key[0]), *key[1:3])).values():
        falling = sorted(keys, key=lambda key: (-(frames["states"][key][0] or 0), key))
        for one, other in itertools.combinations(falling, 2):
            s.sum(("states", one), [("states", other)])
    for element, keys in _by(frames["categories"], lambda key: key[:1]).items():
        s.sum(("states", (*element, "all", "", "present")), (("categories", key) for key in keys if key[1][:1] not in {"", "?"}))
    formats = {key[0] for key in frames["types"]}
    for table, types in _FHIR.items() if formats == {"fhir"} else ():
        kinds = [("types", ("fhir", kind)) for kind in types if ("fhir", kind) in frames["types"]]
        if kinds:
            whole = s.total("fhir", (table,), kinds)
            s.sum(whole, [*([volume[table,]] if (table,) in volume else ()), *([excluded[table,]] if (table,) in excluded else ())])


def _codings(s: Part, frames: Frames, totals: dict[tuple[str, int], dict[Key, Cell]]) -> None:
    """Codes, releases and currency count the codings of a system; sets of systems count the concepts."""
    for (element, system), whole in totals["classes", 2].items():
        for name in ("releases", "currency", "displays"):
            if (element, system) in totals[name, 2]:
                s.sum(whole, [totals[name, 2][element, system]])
        held = [("systems", key) for key in frames["systems"] if key[0] == element and system in key[1].split("+")]
        s.sum(whole, held)
        if (element, system) in totals["codes", 2]:
            shaped = [("classes", key) for key in frames["classes"] if key[:2] == (element, system) and key[3] in LISTED]
            listed = s.total("listed", (element, system), shaped)
            s.sum(listed, [totals["codes", 2][element, system]])
            s.sum(
                whole, [listed, *(("classes", key) for key in frames["classes"] if key[:2] == (element, system) and key[3] not in LISTED)]
            )
    for (element,), whole in totals["systems", 1].items():
        s.sum(whole, [("states", (element, "all", "", "coded"))])


def _values(s: Part, frames: Frames, totals: dict[tuple[str, int], dict[Key, Cell]]) -> None:
    """Results by kind, unit and bucket of one code, and the defects that rules count of them over all codes."""
    kinds, typed, values = frames["value_kinds"], frames["units"], frames["values"]
    for (system, code), whole in totals["value_kinds", 2].items():
        s.sum(("codes", ("observation.code", system, code)), [whole])
    for (system, code), keys in _by(kinds, lambda key: key[:2]).items():
        numbers = [key for key in keys if ":" not in key[2] and key[2].startswith(("number", "comparator"))]
        known = s.total("numbers", (system, code), (("value_kinds", key) for key in numbers))
        unit = totals["units", 3].get(("observation.unit", system, code))
        s.sum(known, [unit] if unit else [])
        s.sum(totals["value_kinds", 2][system, code], [known, *(("value_kinds", key) for key in keys if key not in numbers)])
    for kind, state in (("none", "missing"), ("absent", "absent-with-reason")):
        parts = [("value_kinds", key) for key in kinds if key[2] == kind]
        s.sum(s.total("kind", (kind,), parts), [("states", ("observation.value", "all", "", state))])
    defects = {**PARSES, "implausible": ("number!",)}
    for defect, names in defects.items():
        s.sum(("relations", ("observation.value", defect)), (("value_kinds", key) for key in kinds if key[2] in names))
    for cls, keys in _by(typed, lambda key: (analytes.unit_class(*key[1:]),)).items():
        parts = [("units", key) for key in keys]
        whole = ("relations", ("observation.unit", *cls))
        s.sum(whole if s.has(whole) else s.total("unit-class", cls, parts), parts)
    _buckets(s, typed, kinds, values)


def _buckets(s: Part, numbers: Frame, kinds: Frame, values: Frame) -> None:
    """Fine buckets add up to their coarse one, all of them to the numbers with the unit; those beyond the limits are implausible."""
    resolved = {shown: units.resolve(shown) for shown in {key[3] for key in numbers} if shown and shown[0] != "?"}
    names = {shown: unit.ucum for shown, unit in resolved.items() if unit}
    typed = _by(numbers, lambda key: (key[1], key[2], names.get(key[3], "" if key[3] != "?unparseable" else key[3])))
    beyond: dict[Key, list[Cell]] = defaultdict(list)
    for place, keys in _by(values, lambda key: key[:3]).items():
        coarse = [key for key in keys if is_coarse(key[3])]
        fine = [key for key in keys if not is_coarse(key[3])]
        whole = s.total("typed", place, (("units", key) for key in typed.get(place, ())))
        for width, members in (("coarse", coarse), ("fine", fine)):
            parts = [("values", key) for key in members]
            s.sum(whole, [s.total(width, place, parts)])
        for bucket, members in _by(fine, lambda key: (coarse_of(key[3]),)).items():
            s.sum(("values", (*place, *bucket)), (("values", key) for key in members))
        limits = analytes.limits(place[0], place[1], units.resolve(place[2]) if place[2] else None)
        if limits:
            outside = [key for key in coarse if _outside(key[3], limits)]
            beyond[place[:2]] += [("values", key) for key in outside]
    for place, cells in beyond.items():
        judged = [("value_kinds", key) for key in kinds if key[:2] == place and key[2].startswith("number") and key[2].endswith("!")]
        s.sum(s.total("beyond", place, judged), cells)


def _outside(bucket: str, limits: tuple[float, float]) -> bool:
    if "?" in bucket:
        return False
    low, high = bounds(bucket)
    return high < limits[0] or low > limits[1]


def _people(s: Part, patients: Frame, history: dict[Key, Cell]) -> None:
    """Patients by their first month and by the length of their history are the same people, and of all."""
    first = s.total("first", (), (("patients", key) for key in patients if key[0] == "first-month"))
    s.sum(("patients", ("all", "")), [first])
    if () in history:
        s.sum(first, [history[()]])
