"""What a row of the canonical tables says, in plain Python: the state of each element, its time, its site, its patient's life (see ``profile_oracle``)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from ehrready.tables import TABLES

Row = dict[str, Any]
Tables = dict[str, list[Row]]

TOKENS = {
    "", "UNK", "UNKNOWN", "NA", "N/A", "N.A.", "NULL", "NONE", "NIL", "NAN", "-", "--", ".", "?", "??", "SEE NOTE", "SEE NOTES", "SEE COMMENT",
    "SEE COMMENTS", "NOT AVAILABLE", "NOT APPLICABLE", "#N/A", "<NULL>", "(NULL)", "\\N",
}  # fmt: skip


def token(value: str | None) -> bool:
    """Say whether a text stands for nothing."""
    return value is not None and value.strip(' \t\r\n"').upper() in TOKENS


def absent(value: str | None) -> bool:
    """Say whether a stated reason for absence stands in a scalar's place."""
    return value is not None and value.startswith("\x01")


def person(row: Row) -> str | None:
    """Return the patient a row names."""
    value: str | None = row.get("patient_id")
    return None if absent(value) else value


def points(value: str | None) -> bool:
    """Say whether a reference points at a record of its own."""
    return value is not None and not absent(value) and not value.startswith("#") and "?" not in value


def scalar_state(value: str | None) -> str:
    """Return the state of a scalar: present, or why it is not (docs/checks.md, conventions)."""
    if value is None:
        return "missing"
    if value == "\x01masked":
        return "masked"
    if absent(value) or value.lower() in {"unknown", "unk"}:
        return "absent-with-reason"
    return "null-token" if token(value) else "present"


def value_state(row: Row) -> str:
    """Return the state of a result's value."""
    if row.get("value_kind") is not None:
        return "null-token" if row["value_kind"] == "text" and token(row.get("value_text")) else "present"
    why = row.get("absent_reason")
    return "missing" if why is None else "masked" if why == "masked" else "absent-with-reason"


def unit_state(row: Row) -> str:
    """Return the state of a number's unit."""
    unit = row["unit"] if row.get("unit") is not None else row.get("unit_code")
    return "missing" if unit is None else "null-token" if token(unit) else "present"


def concept_state(row: Row) -> str:
    """Return the state of a concept."""
    why, text = row.get("absent_reason"), row.get("text")
    if (row.get("n_codings") or 0) > 0:
        return "coded"
    if why == "masked":
        return "masked"
    if why is not None and (text is None or token(text)):
        return "absent-with-reason"
    return "missing" if text is None else "null-token" if token(text) else "text-only"


def month(at: str | None) -> str:
    """Return the month of a time, ``""`` of what has none."""
    return at[:7] if at is not None and re.match("[0-9]{4}-[0-9]{2}", at) else ""


def is_date(value: str | None) -> bool:
    """Say whether a time can be held against others: a year, a month, or a day and more."""
    return value is not None and "1000" <= value <= "9999:" and (len(value) in {4, 7} or len(value) >= 10)


def first_day(value: str) -> str:
    """Return the first day that a date may be."""
    return value[:10] + {4: "-01-01", 7: "-01"}.get(len(value), "")


def last_day(value: str) -> str:
    """Return the last day that a date may be; of a month the 31st, which is behind all others."""
    return value[:10] + {4: "-12-31", 7: "-31"}.get(len(value), "")


def _of_calendar(value: str) -> str:
    """Return the last day that a date may be, one that there is."""
    last = last_day(value)
    return next((found for n in (31, 30, 29, 28) if day(found := f"{value}-{n}")), last) if len(value) == 7 else last


def day(value: str) -> date | None:
    """Return a day of the calendar."""
    try:
        return date(*map(int, value.split("-"))) if re.fullmatch("[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", value) else None
    except ValueError:
        return None


def moments(rows: Iterable[tuple[str | None, Any]], totals: Counter[str | None] | None = None) -> dict[Any, tuple[int, int, int, int]]:
    """Return of (patient, what) for each what: rows, patients, Σn² and Σn·of over patients; a row of nobody is its own patient."""
    counts = Counter(rows)
    if totals is None:
        totals = Counter()
        for (who, _), n in counts.items():
            totals[who] += n
    found: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (who, what), n in counts.items():
        row = found[what]
        row[0] += n
        row[1] += who is not None
        row[2] += n if who is None else n * n
        row[3] += n if who is None else n * totals[who]
    return {what: (row[0], row[1], row[2], row[3]) for what, row in found.items()}


def relation(rows: Iterable[tuple[str | None, bool]]) -> tuple[int, int, int]:
    """Return n of ``of`` and the patients of (patient, defect)."""
    rows = list(rows)
    return sum(bad for _, bad in rows), len(rows), len({who for who, bad in rows if bad} - {None})


class Records:
    """The rows of all tables and what they know of each other: sites, lives, encounters."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.rows = {table: [row for row in tables.get(table, ()) if row.get("excluded") is None] for table in TABLES}
        self.filled = [table for table in TABLES if self.rows[table]]
        self.patients: dict[str | None, list[Row]] = defaultdict(list)
        for row in tables.get("patient", ()):
            if row.get("patient_id") is not None:
                self.patients[row["patient_id"]].append(row)
        self.visits: dict[str | None, list[Row]] = defaultdict(list)
        for row in tables.get("encounter", ()):
            if row.get("id") is not None:
                self.visits[row["id"]].append(row)
        self.born, self.died = self._lives()
        #: the rows of a record's concepts by table and record
        self.visit_of = {row["record"]: row.get("id") for row in tables.get("encounter", ())}

    def _lives(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the day before birth and the 30th after death by patient."""
        born: dict[str, list[date]] = defaultdict(list)
        died: dict[str, list[date]] = defaultdict(list)
        for row in self.rows["patient"]:
            who = person(row)
            for name, bound, days in (("birth_date", first_day, born), ("death_date", _of_calendar, died)):
                value = row.get(name)
                if who is not None and value is not None and is_date(value) and (one := day(bound(value))) is not None:
                    days[who].append(one)
        return (
            {who: (min(days) - timedelta(1)).isoformat() for who, days in born.items()},
            {who: (min(max(days), date.max - timedelta(30)) + timedelta(30)).isoformat() for who, days in died.items()},
        )

    def site(self, row: Row, visit: str | None) -> str | None:
        """Return where a record is: what it says itself, else its encounter, else its patient."""
        stays = [one["site"] for one in self.visits.get(visit, ()) if one.get("site") is not None]
        homes = [one["site"] for one in self.patients.get(row.get("patient_id"), ()) if one.get("site") is not None]
        own: str | None = row.get("site")
        return own if own is not None else next((min(sites) for sites in (stays, homes) if sites), None)

    def patients_of(self, visit: str | None) -> set[str]:
        """Return whom an encounter is of."""
        return {who for row in self.visits.get(visit, ()) if (who := person(row)) is not None}

    def used(self, element: str, row: Row, recorded: dict[int, str | None]) -> str:
        """Return the month in which a code was chosen: diagnoses and procedures at discharge, all else when it happens."""
        times = [row.get("at")]
        if element in {"condition.code", "procedure.code"}:
            ends = [end for v in self.visits.get(row.get("encounter_id"), ()) if (end := _ended(v)) is not None]
            times = [max(ends) if ends else None, recorded.get(row["record"]) if element == "condition.code" else None, *times]
        used = next((time for time in times if time is not None), None)
        return used[:7] if used is not None and re.match("[0-9]{4}-(0[1-9]|1[0-2])", used) else ""


def _ended(visit: Row) -> str | None:
    end: str | None = visit.get("end")
    at: str | None = visit.get("at")
    return at if end is None or absent(end) else end
