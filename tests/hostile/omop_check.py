"""OMOP exports read by the reader and by plain Python (``omop_oracle``, ``profile_oracle``): the same rows, ledger and profile, whichever way was taken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ehrready import narrow
from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.measure import measure
from ehrready.readers.base import Reader, SourceFile
from ehrready.readers.tabular import OmopReader, TableReader
from ehrready.sources import expand, recognise
from ehrready.tables import ALL
from ehrready.terminology.releases import Store
from tests.hostile import omop_oracle, profile_check, profile_oracle
from tests.hostile.profile_rows import Tables

#: What is held against the oracle as sums: a file's columns may come in one row or in several.
_SUMS = {"types": (("format", "type"), ("n",)), "generic_column": (("table", "column", "kind"), ("rows", "missing", "null_token"))}
_NOT_ROWS = {"profiled", *_SUMS}


def problems(folder: Path, *, short: bool) -> dict[str, Any]:
    """Read an export, by the narrow way if it may be (``short``); returns what is not as the oracle says."""
    readers: list[Reader] = [OmopReader(), TableReader()]
    files: list[SourceFile] = recognise(expand([str(folder)]), readers)
    wanted, told = omop_oracle.read([file.path for file in files])
    found: dict[str, Any] = {}
    ledger = Ledger.of(files)
    with open_engine(threads=1) as con:
        for reader in readers:
            mine = [file for file in files if file.format == reader.format]
            if isinstance(reader, OmopReader):
                reader.narrow = short and len(mine) == len(files)
            for event in reader.read(mine, con) if mine else ():
                ledger.add(event)
        ledger.close()
        entries = [(e.status, e.read, e.rejected, e.reasons) for e in ledger.entries.values()]
        if entries != told:
            found["ledger"] = [
                (files[i].path.name, one, other) for i, (one, other) in enumerate(zip(entries, told, strict=True)) if one != other
            ]
        rows = profile_check.rows_of(con)
        if not narrow.there(con):
            found |= _rows(rows, wanted)
        found |= _sums(rows, wanted)
        if not (found and not narrow.there(con)):  # else the rows are not those that were meant
            profile = measure(con, ledger, store=Store.open(None))
            frames = profile_check.wanted(wanted) | omop_oracle.frames(wanted)
            found |= profile_oracle.differences(profile.frames, frames, (*profile_check.NAMES, "types", "columns"))
    return found


def _rows(rows: Tables, wanted: Tables) -> dict[str, Any]:
    """Return, for each canonical table that is not as wanted, some rows that are lacking and some that are too many."""
    found = {}
    for table in ALL.keys() - _NOT_ROWS:
        names = ALL[table].names
        one = Counter(repr({name: row.get(name) for name in names}) for row in rows.get(table, ()))
        other = Counter(repr({name: row.get(name) for name in names}) for row in wanted.get(table, ()))
        if one != other:
            found[table] = ("lacking", [*(other - one)][:2], "too many", [*(one - other)][:2])
    return found


def _sums(rows: Tables, wanted: Tables) -> dict[str, Any]:
    found = {}
    for table, (keys, values) in _SUMS.items():
        one, other = ({*omop_oracle.counted(rows_of, keys, values)} for rows_of in (rows[table], wanted[table]))
        if one != other:
            found[table] = (sorted(other - one)[:3], sorted(one - other)[:3])
    return found
