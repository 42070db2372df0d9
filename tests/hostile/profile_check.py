"""A profile of random sources against plain Python: the frames of the measures and those of ``profile_oracle`` and ``profile_codes`` over the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ehrready.engines.duckdb import open_engine
from ehrready.ledger import Ledger
from ehrready.measure import measure
from ehrready.profile import Frame
from ehrready.readers.base import SourceFile
from ehrready.readers.fhir import FhirReader
from ehrready.readers.hl7v2 import Hl7v2Reader
from ehrready.tables import ALL
from ehrready.terminology.releases import Store
from tests.hostile import profile_codes, profile_oracle, profile_overlaps, profile_rows
from tests.hostile.profile_rows import Tables

#: Frames that the oracles tell.
NAMES = (
    "states", "volume", "patients", "history", "categories", "excluded", "defects", "classes", "codes", "systems", "releases", "quarters", "currency",
    "displays", "tables", "value_kinds", "units", "values", "relations", "overlaps",
)  # fmt: skip


def rows_of(con: Any) -> Tables:
    """Return the rows of the canonical tables."""
    found: Tables = {}
    for name in ALL:
        columns = ALL[name].names
        listed = ", ".join(f'"{column}"' for column in columns)
        found[name] = [dict(zip(columns, row, strict=True)) for row in con.execute(f'SELECT {listed} FROM "{name}"').fetchall()]
    return found


def wanted(tables: Tables) -> dict[str, Frame]:
    """Return the frames that these rows should give."""
    store = Store.open(None)
    judged = profile_codes.Judged(tables, store)
    frames = profile_oracle.frames(tables, judged.groups())
    known = profile_rows.Records(tables)
    frames |= profile_codes.of_codings(known, judged, store)
    frames |= {"value_kinds": {}, "units": {}, "values": {}}
    results: list[profile_rows.Row] = []
    if tables.get("observation"):
        results = profile_codes.results(known, judged)
        values = profile_codes.of_values(results)
        relations = values.pop("relations")
        if not known.rows["observation"]:
            relations = {key: row for key, row in relations.items() if key[0] != "observation.code"}
        frames |= values
        frames["relations"] |= relations
    return frames | {"overlaps": profile_overlaps.overlaps(known, judged, results)}


def problems(reader: FhirReader | Hl7v2Reader, files: Sequence[SourceFile]) -> dict[str, Any]:
    """Read files, with concepts as rows and as numbers; returns what of the two profiles is not as plain Python counts it over the rows."""
    found: dict[str, Any] = {}
    frames: dict[str, Frame] = {}
    for shared in (False, True):
        reader.shared = shared
        ledger = Ledger.of(files)
        with open_engine(threads=1) as con:
            for event in reader.read(files, con):
                ledger.add(event)
            ledger.close()
            frames = frames or wanted(rows_of(con))
            profile = measure(con, ledger, store=Store.open(None))
        found |= {f"{name} ({shared})": rows for name, rows in profile_oracle.differences(profile.frames, frames, NAMES).items()}
    return found
