"""What a profile counts of the rows of the canonical tables, in plain Python: a second opinion on the measures, written from docs/checks.md.

Row by row, with ``dict`` and ``Counter``: no SQL, no combo, no number for a patient.  ``frames()`` gives the frames of records; ``profile_codes`` those of
codings and results.  What a single code or unit means is asked of the package, since only the counting is in question here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ehrready.profile import Frame
from ehrready.tables import CODED, SCALARS, TABLES, table_of
from ehrready.valuesets import VALUE_SETS
from tests.hostile.profile_rows import (
    Records,
    Row,
    Tables,
    absent,
    concept_state,
    first_day,
    is_date,
    last_day,
    moments,
    month,
    person,
    points,
    relation,
    scalar_state,
    token,
    unit_state,
    value_state,
)

_FINAL = {None, "final", "amended", "corrected", "appended"}
_LEFT = {None, "finished", "completed", "discharged"}
_CARE = {"encounter", "observation", "medication", "procedure", "immunization"}
_DATED = _CARE | {"condition", "report", "document"}
_ENDED = {"encounter", "condition", "medication", "procedure"}
GROUPS = ("sex", "age", "race", "ethnicity")
#: An element in a record: patient, site, month, state, record.
Seen = tuple[str | None, str | None, str, str, int]


def _year(at: str | None) -> int | None:
    """Return the year of a time of the last or this century."""
    return int(at[:4]) if at is not None and re.match("(19|20)[0-9]{2}", at) else None


def states_of(known: Records) -> dict[str, list[Seen]]:
    """Return of every element its patient, site, month and state, once for every record (of codes: for every part, too) that it applies to."""
    seen: dict[str, list[Seen]] = defaultdict(list)

    def note(element: str, row: Row, visit: str | None, state: str) -> None:
        seen[element].append((person(row), known.site(row, visit), month(row.get("at")), state, row["record"]))

    for element, (table, column) in SCALARS.items():
        for row in known.rows[table]:
            if element != "encounter.end" or row.get("status") in _LEFT:
                note(element, row, row.get("id") if table == "encounter" else row.get("encounter_id"), scalar_state(row.get(column)))
    for row in [*known.rows["observation"], *(r for r in known.tables.get("component", ()) if r.get("excluded") is None)]:
        if row.get("status") in _FINAL:
            note("observation.value", row, row.get("encounter_id"), value_state(row))
        if row.get("value_kind") == "number":
            note("observation.unit", row, row.get("encounter_id"), unit_state(row))
    for row in known.tables.get("concept", ()):
        element = row["element"]
        if element in CODED and (row["ordinal"] == 1 or element == "observation.code"):
            visit = known.visit_of.get(row["record"]) if table_of(element) == "encounter" else None
            note(element, row, visit if visit is not None else row.get("encounter_id"), concept_state(row))
    return seen


def _states(seen: dict[str, list[Seen]], groups: dict[str | None, dict[str, str]]) -> Frame:
    frame: Frame = {}

    def add(element: str, grouping: str, parts: dict[str, list[Seen]]) -> None:
        for group, rows in parts.items():
            told = moments((who, state) for who, _, _, state, _ in rows)
            told |= moments((who, "*") for who, *_ in rows)
            frame.update({(element, grouping, group, state): values for state, values in told.items()})

    def by(rows: list[Seen], key: Callable[[Seen], str | None]) -> dict[str, list[Seen]]:
        parts: dict[str, list[Seen]] = defaultdict(list)
        for row in rows:
            if (group := key(row)) is not None:
                parts[group].append(row)
        return parts

    for element, rows in seen.items():
        add(element, "all", {"": rows})
        add(element, "month", by(rows, lambda row: row[2] or None))
        add(element, "site", by(rows, lambda row: row[1] or None))
        for name in GROUPS:
            add(element, name, by(rows, lambda row, name=name: groups.get(row[0], {}).get(name, "unknown")))  # type: ignore[misc]
    return frame


def demographic(known: Records, said: dict[str, dict[str, set[str]]]) -> dict[str | None, dict[str, str]]:
    """Return the groups of each patient; ``said`` are the groups that codes of race and ethnicity name."""
    years: dict[str, int] = {}
    for table in set(TABLES) - {"patient", "condition", "allergy"}:
        for row in known.tables.get(table, ()):
            who, year = person(row), _year(row.get("at"))
            if who is not None and year is not None:
                years[who] = max(years.get(who, year), year)
    groups: dict[str | None, dict[str, str]] = {}
    for who, rows in known.patients.items():
        if who is None or absent(who):
            continue
        mine = groups[who] = {}
        words = {"m": "male", "male": "male", "f": "female", "female": "female", "o": "other", "other": "other"}
        if sexes := [words[sex] for row in rows if (sex := (row.get("sex") or "").lower()) in words]:
            mine["sex"] = min(sexes)
        born = [int(b[:4]) for row in rows if (b := row.get("birth_date")) is not None and re.match("(18|19|20)[0-9]{2}", b)]
        if born and who in years and 0 <= (age := years[who] - min(born)) <= 120:
            mine["age"] = next(
                name for end, name in ((18, "00-17"), (45, "18-44"), (65, "45-64"), (85, "65-84"), (121, "85+")) if age < end
            )
        for name in ("race", "ethnicity"):
            if found := said.get(f"patient.{name}", {}).get(who, set()):
                mine[name] = "several" if len(found) > 1 else min(found)
    return groups


def _people(known: Records) -> tuple[Frame, Frame, Frame]:
    """Return volume, patients and history."""
    volume: Frame = {}
    everyone: set[str] = set()
    months: dict[str, list[str]] = defaultdict(list)
    for table, rows in known.rows.items():
        for when, values in moments((person(row), month(row.get("at"))) for row in rows).items():
            volume[table, when] = values[:2]
        for row in rows:
            who, when = person(row), month(row.get("at"))
            if who is not None:
                everyone.add(who)
                if when and table not in {"condition", "allergy", "patient"}:
                    months[who].append(when)
    patients: Frame = {("all", ""): (len(everyone),)}
    first = Counter(min(found) for found in months.values())
    patients |= {("first-month", when): (n,) for when, n in first.items()}
    lengths: Counter[int] = Counter()
    for found in months.values():
        near = [int(m[:4]) * 12 + int(m[5:]) for m in sorted(found) if "1900" <= m < "2100"]
        if near:
            lengths[min(near[-1] - near[0], 120)] += 1
    return volume, patients, {(f"{length:03d}",): (n,) for length, n in lengths.items()}


def _times(known: Records, table: str) -> dict[str, list[tuple[int, str | None, bool]]]:
    """Return the defects of a table's times: record, patient and defect of the records that they apply to."""
    found: dict[str, list[tuple[int, str | None, bool]]] = {}
    for kind, among in (("before-birth", _DATED), ("midnight-only", _DATED), ("after-death", _CARE), ("end-before-start", _ENDED)):
        if table in among:
            found[kind] = []
    for row in known.rows[table]:
        at, end, who, told = row.get("at"), row.get("end"), row.get("patient_id"), (row["record"], person(row))
        if at is not None and len(at) >= 16 and "midnight-only" in found:
            found["midnight-only"].append((*told, at[11:16] == "00:00" and at[17:19] in {"", "00"}))
        if at is None or not is_date(at):
            continue
        if who in known.born and "before-birth" in found:
            found["before-birth"].append((*told, last_day(at) < known.born[who]))
        if who in known.died and "after-death" in found:
            found["after-death"].append((*told, first_day(at) > known.died[who]))
        if "end-before-start" in found and is_date(end) and end is not None and (table != "condition" or at != row.get("recorded_at")):
            both = min(len(at), len(end))
            found["end-before-start"].append((*told, end[:both] < at[:both]))
    return found


def defects_of(known: Records) -> dict[tuple[str, str], list[tuple[int, str | None, bool]]]:
    """Return the defects of times and references: element and kind to record, patient and defect of the records that they apply to."""
    found: dict[tuple[str, str], list[tuple[int, str | None, bool]]] = {}
    for table in known.filled:
        rows = known.rows[table]
        for kind, times in _times(known, table).items():
            found[f"{table}.at", kind] = times
        if "patient" in known.filled and table != "patient":
            found[f"{table}.patient_id", "unresolved"] = [
                (r["record"], person(r), r["patient_id"] not in known.patients) for r in rows if points(r.get("patient_id"))
            ]
        if "encounter" in known.filled and table not in {"patient", "encounter"}:
            found[f"{table}.encounter_id", "unresolved"] = [
                (r["record"], person(r), r["encounter_id"] not in known.visits) for r in rows if points(r.get("encounter_id"))
            ]
            among = [(r, known.patients_of(r.get("encounter_id"))) for r in rows if points(r.get("patient_id"))]
            found[f"{table}.encounter_id", "several-patients"] = [
                (r["record"], person(r), r["patient_id"] not in of) for r, of in among if of
            ]
    return found


def _ids(known: Records) -> Frame:
    frame: Frame = {}
    for table, rows in known.rows.items():
        named: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            if row.get("id") is not None and row["source_type"] not in {"PID", "PV1"}:
                named[row["source_type"], row["id"]].append(row)
        if named:
            twice = [found for found in named.values() if len(found) > 1]
            people = {person(row) for found in twice for row in found} - {None}
            frame[f"{table}.id", "duplicate-id"] = (sum(len(f) - 1 for f in twice), sum(map(len, named.values())), len(people))
    if known.rows["encounter"]:
        whose: dict[str, set[str]] = defaultdict(set)
        for row in known.rows["encounter"]:
            if row.get("id") is not None and (who := person(row)) is not None:
                whose[row["id"]].add(who)
        several = [*whose.values()]
        shared = [of for of in several if len(of) > 1]
        frame["encounter.id", "several-patients"] = (len(shared), len(several), len({min(of) for of in shared}))
    return frame


def _categories(known: Records) -> Frame:
    frame: Frame = {}
    for element, sets in VALUE_SETS.items():
        table, _, column = element.partition(".")
        found: list[tuple[str | None, str]] = []
        for row in known.rows[table]:
            value, own = row.get(column), sets.get("hl7v2", sets["fhir"])
            if value is None:
                name = ""
            elif absent(value):
                name = "?absent"
            elif token(value) and value.lower() != "unknown":
                name = "?null-token"
            elif value.lower() in sets["fhir"]:
                name = value.lower()
            else:
                name = value.upper() if len(row["source_type"]) == 3 and value.upper() in own else "?other"
            found.append((person(row), name))
        frame |= {(element, name): values[:2] for name, values in moments(found).items()}
    return frame


def frames(tables: Tables, said: dict[str, dict[str, set[str]]]) -> dict[str, Frame]:
    """Return the frames of records, their states and relations; ``said`` as in ``demographic``."""
    known = Records(tables)
    volume, patients, history = _people(known)
    relations: Frame = {key: relation((who, bad) for _, who, bad in rows) for key, rows in defects_of(known).items()}
    kept_out = [
        (person(row), (table, row["excluded"])) for table in TABLES for row in tables.get(table, ()) if row.get("excluded") is not None
    ]
    noticed = [(person(row), (row["element"], row["kind"])) for row in tables.get("defect", ())]
    return {
        "states": _states(states_of(known), demographic(known, said)),
        "volume": volume,
        "patients": patients,
        "history": history,
        "relations": {**relations, **_ids(known)},
        "categories": _categories(known),
        "excluded": {key: values[:2] for key, values in moments(kept_out).items()},
        "defects": {key: values[:2] for key, values in moments(noticed).items()},
    }


def differences(found: dict[str, Frame], wanted: dict[str, Frame], names: Sequence[str] = ()) -> dict[str, Any]:
    """Return of each frame some rows that are not as wanted: key to what was found and what was wanted."""
    problems: dict[str, Any] = {}
    for name in names or wanted:
        one, other = found[name], wanted[name]
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        if keys:
            problems[name] = (len(keys), {key: (one.get(key), other.get(key)) for key in keys[:4]})
    return problems
