"""What OMOP tables mean in the canonical ones, in plain Python: a second opinion on the tabular reader, written from docs/mapping.md and the CDM.

One row at a time, of columns that ``table_oracle`` has read: no SQL, no mapping file.  ``read()`` gives the rows that a reading must give, and its ledger.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ehrready.profile import Frame
from ehrready.tables import POSITION_BITS
from tests.hostile.table_oracle import Column, File, is_null, load

Row = dict[str, Any]
Tables = dict[str, list[Row]]

_VOCABULARY = {"concept": ["concept_id", "vocabulary_id", "concept_code"], "vocabulary": ["vocabulary_id"], "cdm_source": ["cdm_source_name"],
               "concept_relationship": ["concept_id_1", "concept_id_2"], "drug_strength": ["drug_concept_id", "ingredient_concept_id"]}  # fmt: skip
#: Tables of the CDM and the columns that they are known by.
KNOWN = {
    "person": ["person_id"], "death": ["person_id"], "visit_occurrence": ["visit_occurrence_id", "person_id"],
    "condition_occurrence": ["person_id", "condition_concept_id"], "measurement": ["person_id", "measurement_concept_id"],
    "observation": ["person_id", "observation_concept_id"], "drug_exposure": ["person_id", "drug_concept_id"],
    "procedure_occurrence": ["person_id", "procedure_concept_id"], "note": ["note_id", "person_id"], "provider": ["provider_id"],
    "observation_period": ["person_id", "observation_period_start_date"], **_VOCABULARY,
}  # fmt: skip
_SEXES = {"8507": "male", "8532": "female", "8521": "other", "8551": "unknown"}
_SIGNS = {"4171756": "<", "4171754": "<=", "4171755": ">=", "4172704": ">"}


class _Event:
    """Where a table's rows go and what their columns are called."""

    def __init__(self, to: str, name: str, element: str, day: str, *, end: str = "", coded: str = "", text: str = "") -> None:
        self.to, self.id, self.element, self.text = to, f"{name}_id", element, text
        self.at, self.end = ((f"{one}_datetime", f"{one}_date") if one else () for one in (day, end))
        #: pairs of columns: the first that is set is the coding
        self.codings = [[f"{coded}_source_concept_id"], [f"{coded}_concept_id"]] if coded else []

    def columns(self) -> set[str]:
        return {self.id, *self.at, *self.end, *(c for one in self.codings for c in one), self.text, "person_id", "visit_occurrence_id"}


_EVENTS = {
    "condition_occurrence": _Event("condition", "condition_occurrence", "condition.code", "condition_start", end="condition_end", coded="condition", text="condition_source_value"),
    "measurement": _Event("observation", "measurement", "observation.code", "measurement", coded="measurement", text="measurement_source_value"),
    "observation": _Event("observation", "observation", "observation.code", "observation", coded="observation", text="observation_source_value"),
    "drug_exposure": _Event("medication", "drug_exposure", "medication.code", "drug_exposure_start", end="drug_exposure_end", coded="drug", text="drug_source_value"),
    "procedure_occurrence": _Event("procedure", "procedure_occurrence", "procedure.code", "procedure", coded="procedure", text="procedure_source_value"),
    "note": _Event("document", "note", "document.type", "note", text="note_title"),
    "visit_occurrence": _Event("encounter", "visit_occurrence", "encounter.class", "visit_start", end="visit_end", text="visit_source_value"),
}  # fmt: skip
_EVENTS["note"].codings = [["note_class_concept_id", "note_type_concept_id"]]
_EVENTS["visit_occurrence"].codings = [["visit_concept_id"]]
_VALUES = {"value_as_number", "value_source_value", "unit_source_value", "unit_concept_id", "value_as_concept_id"}
#: Columns that are read of each table; all others are measured one by one.
USED = {name: event.columns() for name, event in _EVENTS.items()}
USED["visit_occurrence"] |= {"care_site_id"}
USED["measurement"] |= _VALUES | {"operator_concept_id", "range_low", "range_high"}
USED["observation"] |= _VALUES | {"value_as_string"}
USED["person"] = {"person_id", "care_site_id", "birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth", "gender_concept_id", "gender_source_value",
                  "race_concept_id", "race_source_value", "ethnicity_concept_id", "ethnicity_source_value"}  # fmt: skip
USED["death"] = {"person_id", "death_date", "death_datetime"}


class Rows:
    """The rows of one file: a cell is asked for by its column's name, in whatever case that stands."""

    def __init__(self, file: File) -> None:
        self.columns: dict[str, Column] = {}
        for place, column in enumerate(file.columns, 1):
            name = column.name.lower() or f"column {place}"
            self.columns[name if name not in self.columns else f"{name} {place}"] = column
        self.places = file.places

    def text(self, i: int, *names: str) -> str | None:
        """Return the first text there is."""
        return next((text for name in names if (column := self.columns.get(name)) and (text := column.text(i)) is not None), None)

    def time(self, i: int, *names: str) -> str | None:
        """Return the first time there is: an ISO 8601 prefix, or what stands there."""
        return next((text for name in names if (column := self.columns.get(name)) and (text := column.time(i)) is not None), None)

    def loose(self, *names: str) -> bool:
        """Say whether a time may be no time: a column of dates or instants holds nothing else."""
        return any(column.kind not in {"date", "time"} or column.clockless for name in names if (column := self.columns.get(name)))

    def concept(self, i: int, *names: str) -> int | None:
        """Return the first concept id there is; 0 is none."""
        return next((n for name in names if (column := self.columns.get(name)) and (n := column.concept_id(i))), None)

    def number(self, i: int, name: str) -> float | None:
        """Return a finite number."""
        return column.number(i) if (column := self.columns.get(name)) else None


class Vocabulary:
    """The concepts and the versions of their vocabularies, from all files of the two tables."""

    def __init__(self, concepts: Sequence[Rows], vocabularies: Sequence[Rows]) -> None:
        self._rows: dict[int, list[tuple[str, str, str | None]]] = defaultdict(list)
        for file in concepts:
            for i in range(len(file.places)):
                key = file.concept(i, "concept_id")
                system, code = file.text(i, "vocabulary_id"), file.text(i, "concept_code")
                if key is not None and system is not None and code is not None:  # else it says nothing of the id
                    self._rows[key].append((system, code, file.text(i, "concept_name")))
        self._versions: dict[str | None, list[str]] = defaultdict(list)
        for file in vocabularies:
            for i in range(len(file.places)):
                if (version := file.text(i, "vocabulary_version")) is not None:
                    self._versions[file.text(i, "vocabulary_id")].append(version)

    def of(self, key: int) -> Row:
        """Return system, version, code and display of a concept; one that no table explains is itself the code."""
        rows = self._rows.get(key)
        if not rows:
            return {"system": "OMOP", "version": min(self._versions.get("OMOP", ()), default=None), "code": str(key), "display": None}
        # said twice: the alphabetically first, as a whole
        system, code, display = min(rows, key=lambda row: (row[0], row[1], row[2] is None, row[2] or ""))
        return {"system": system, "version": min(self._versions.get(system, ()), default=None), "code": code, "display": display}


def _coded(file: Rows, i: int, codings: Sequence[Sequence[str]], words: Vocabulary) -> list[Row]:
    """Return the codings of a row, in order, each once."""
    ids = list(dict.fromkeys(key for names in codings if (key := file.concept(i, *names)) is not None))
    return [words.of(key) for key in ids]


def _concept(found: Tables, element: str, known: Row, text: str | None, codings: list[Row], *, always: bool = True) -> None:
    """Add the rows of a concept."""
    if not always and not codings:
        return
    said = next(
        (one for one in (text, *(c["display"] for c in codings), *(c["code"] for c in codings if is_null(c["code"]))) if one is not None),
        None,
    )
    n = sum(not is_null(c["code"]) for c in codings)
    found["concept"].append({"element": element, **known, "ordinal": 1, "text": said, "n_codings": n, "absent_reason": None})
    for place, coding in enumerate(codings, 1):
        found["coding"].append({"element": element, **known, "position": place, **coding, "concept": 1})


def _bad_time(value: str) -> bool:
    """Say whether a text is no ISO 8601 prefix of a day that there is."""
    if is_null(value):
        return False
    if len(value) < 10:
        return re.fullmatch("[0-9]{4}(-(0[1-9]|1[0-2]))?", value) is None
    found = re.fullmatch("([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T([01][0-9]|2[0-3])(?::([0-5][0-9]))(?::([0-5][0-9]))?)?", value)
    return found is None or not _in_calendar(*map(int, found.groups()[:3]))


def _in_calendar(year: int, month: int, day: int) -> bool:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= month <= 12 and 1 <= day <= (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _noted(found: Tables, row: Row, name: str, table: str) -> None:
    value = row.get(name)
    if value is not None and _bad_time(value):
        found["defect"].append(
            {"element": f"{table}.{name}", "record": row["record"], "patient_id": row.get("patient_id"), "kind": "bad-time"}
        )


def _event(found: Tables, name: str, file: Rows, i: int, record: int, words: Vocabulary) -> None:
    """Add the rows of one row of a table of events."""
    event = _EVENTS[name]
    codings = _coded(file, i, event.codings, words)
    vaccine = name == "drug_exposure" and any(coding["system"] == "CVX" for coding in codings)
    to = "immunization" if vaccine else event.to
    row: Row = {"record": record, "source_type": name, "id": file.text(i, event.id), "patient_id": file.text(i, "person_id"),
                "encounter_id": file.text(i, "visit_occurrence_id"), "at": file.time(i, *event.at)}  # fmt: skip
    if event.end and not vaccine:
        row["end"] = file.time(i, *event.end)
    if name == "visit_occurrence":
        row["site"] = file.text(i, "care_site_id")
    for column, names in (("at", event.at), ("end", event.end)):
        if column in row and file.loose(*names):
            _noted(found, row, column, to)
    known = {column: row.get(column) for column in ("record", "patient_id", "encounter_id", "site", "at")}
    if to == "observation":
        row |= _result(found, name, file, i, words, known)
    found[to].append(row)
    _concept(found, "immunization.code" if vaccine else event.element, known, file.text(i, event.text), codings)


def _result(found: Tables, name: str, file: Rows, i: int, words: Vocabulary, known: Row) -> Row:
    """Return the columns of a result; adds its coded value and what is wrong with its number."""
    number, raw = file.number(i, "value_as_number"), file.text(i, "value_as_number")
    text = file.text(i, *(["value_as_string"] if name == "observation" else []), "value_source_value")
    coded = _coded(file, i, [["value_as_concept_id"]], words)
    unit = file.concept(i, "unit_concept_id")
    meant = words.of(unit) if unit is not None else {"system": None, "code": None}
    row: Row = {
        "value_number": number, "value_text": None if number is not None else raw if raw is not None else text,
        "value_declared": "declared" if number is None and raw is not None else None, "unit_code": meant["code"] if meant["system"] == "UCUM" else None,
    }  # fmt: skip
    row["value_kind"] = "number" if number is not None else "coded" if coded else "text" if row["value_text"] is not None else None
    said = file.text(i, "unit_source_value")
    row["unit"] = said if said is not None else meant["code"]
    if name == "measurement":
        row["comparator"] = _SIGNS.get(file.text(i, "operator_concept_id") or "")
        row |= {column: file.number(i, column) for column in ("range_low", "range_high")}
    if number is None and raw is not None and not is_null(raw) and file.columns["value_as_number"].kind not in {"integer", "number"}:
        found["defect"].append(
            {"element": "observation.value", "record": known["record"], "patient_id": known["patient_id"], "kind": "wrong-type"}
        )
    _concept(found, "observation.value_code", known, text, coded, always=False)
    return row


def _person(found: Tables, file: Rows, i: int, record: int, words: Vocabulary, deaths: dict[str, Row]) -> None:
    """Add the rows of a person."""
    who = file.text(i, "person_id")
    born = file.time(i, "birth_datetime")
    if born is None and (year := file.text(i, "year_of_birth")) is not None:
        month, day = file.text(i, "month_of_birth"), file.text(i, "day_of_birth")
        born = "-".join([year, *(part.rjust(2, "0") for part in ([month] if month is not None else []) + ([day] if month is not None and day is not None else []))])  # fmt: skip
    sex = _SEXES.get(file.text(i, "gender_concept_id") or "")
    death = deaths.get(who or "", {})
    row: Row = {
        "record": record, "source_type": "person", "id": who, "patient_id": who, "site": file.text(i, "care_site_id"), "birth_date": born[:10] if born and born[10:11] == "T" else born,
        "death_date": death.get("death_datetime") if death.get("death_datetime") is not None else death.get("death_date"),
        "sex": sex if sex is not None else file.text(i, "gender_source_value"),
    }  # fmt: skip
    if file.loose("birth_datetime") or "year_of_birth" in file.columns:
        _noted(found, row, "birth_date", "patient")
    if deaths:
        _noted(found, row, "death_date", "patient")
    found["patient"].append(row)
    known = {column: row.get(column) for column in ("record", "patient_id", "encounter_id", "site", "at")}
    for name in ("race", "ethnicity"):
        codings = _coded(file, i, [[f"{name}_concept_id"]], words)
        _concept(found, f"patient.{name}", known, file.text(i, f"{name}_source_value"), codings)


def _dead(files: Sequence[Rows]) -> dict[str, Row]:
    """Return the day of death by person; of several rows the alphabetically first values."""
    found: dict[str, Row] = {}
    for file in files:
        for i in range(len(file.places)):
            mine = found.setdefault(file.text(i, "person_id") or "\0", {})
            for name in ("death_datetime", "death_date"):
                column = file.columns.get(name)
                value = column.iso(i) if column else None
                if value is not None:
                    mine[name] = min(value, mine.get(name, value))
    return found


def table_of(path: Path, columns: Sequence[str]) -> tuple[str, bool]:
    """Return the name of the table that a file is, and whether the CDM has such a table of these columns."""
    name = re.sub(r"([-_.][0-9]+)+$", "", re.sub(r"\.(parquet|csv|tsv)(\.gz)?$", "", path.name.lower()))
    return name, name in KNOWN and {column.lower() for column in columns}.issuperset(KNOWN[name])


def read(paths: Sequence[Path]) -> tuple[Tables, list[tuple[str, int, int, dict[str, int]]]]:
    """Return the rows of the canonical tables, and per file (status, read, rejected, reasons); ``paths`` are the sorted files of an export."""
    found: Tables = defaultdict(list)
    files = [(number, path, load(path)) for number, path in enumerate(paths, 1)]
    by_table: dict[str, list[tuple[int, Rows]]] = defaultdict(list)
    ledger = []
    tables = [table_of(path, [column.name for column in file.columns]) for _, path, file in files]
    unknown = sorted({name for name, known in tables if not known})
    for (number, _, file), (name, known) in zip(files, tables, strict=True):
        rows = Rows(file)
        rejected = sum(file.rejected.values())
        if known:
            by_table[name].append((number, rows))
        if known and name in _VOCABULARY:
            ledger.append(("reference", rejected if name in {"concept", "vocabulary"} else 0, rejected, dict(file.rejected)))
        else:
            ledger.append(("read", len(file.places) + rejected, rejected, dict(file.rejected)))
            _count(found, name if known else "", name if known else f"table-{unknown.index(name) + 1:02d}", rows)
    words = Vocabulary(*([rows for _, rows in by_table[name]] for name in ("concept", "vocabulary")))
    deaths = _dead([rows for _, rows in by_table["death"]])
    joined = bool(by_table["death"])
    for name, members in by_table.items():
        for number, rows in members:
            for i, place in enumerate(rows.places):
                record = number << POSITION_BITS | place
                if name == "person":
                    _person(found, rows, i, record, words, deaths if joined else {})
                elif name in _EVENTS:
                    _event(found, name, rows, i, record, words)
    return found, ledger


def _count(found: Tables, table: str, shown: str, rows: Rows) -> None:
    """Count a file's rows and the cells of columns that nothing is made of."""
    found["types"].append({"format": "omop" if table else "table", "type": shown, "n": len(rows.places)})
    for name, column in rows.columns.items():
        if name not in USED.get(table, ()):
            texts = [(column.empty(i), column.kind == "text" and is_null(column.text(i) or "x")) for i in range(len(rows.places))]
            found["generic_column"].append({"table": shown, "column": name, "kind": column.kind, "rows": len(texts), "missing": sum(e for e, _ in texts),
                                            "null_token": sum(n for _, n in texts)})  # fmt: skip


def frames(tables: Tables) -> dict[str, Frame]:
    """Return the frames of the tables and of the columns that nothing is made of, whose names do not leave."""
    types: Frame = {(one, name): (int(n),) for one, name, n in counted(tables["types"], ("format", "type"), ("n",))}
    columns: Frame = {}
    names: dict[str, list[str]] = defaultdict(list)
    for row in tables["generic_column"]:
        names[row["table"]].append(row["column"])
    for table, column, kind, *numbers in counted(tables["generic_column"], ("table", "column", "kind"), ("rows", "missing", "null_token")):
        place = sorted({*names[table]}).index(column) + 1
        columns[table, f"column-{place:02d}", kind] = tuple(map(int, numbers))
    return {"types": types, "columns": columns}


def counted(rows: Sequence[Row], keys: Sequence[str], values: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the sums of some values by some keys, as text."""
    sums: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        sums[tuple(str(row[key]) for key in keys)].update({value: row[value] for value in values})
    for key, numbers in sums.items():
        yield (*key, *(str(numbers[value]) for value in values))
