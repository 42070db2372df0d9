"""Laws of merging: the profile of today's files and yesterday's, merged, against one reading of both (docs/incremental.md)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from ehrready import pipeline
from ehrready.pipeline import Options
from ehrready.profile import FRAMES, Frame, Profile
from tests.hostile import omop_cases

LIVE = Path(__file__).parents[1] / "sample_data" / "live"
#: The part that is left out: a third of the patients is enough for every kind of record, and for counts that differ between the parts.
NOBODY = 2
#: Frames whose counts need records of other files: a patient's birth date, a visit that is referred to (also beside another defect), a second copy.
JOINED = {"relations", "history", "custom", "patients", "overlaps"}


def profiled(*sources: Path) -> Profile:
    return pipeline.read_profile([str(source) for source in sources], Options(internal=True, memory="1GB", validate="all"))[0]


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def fhir(folder: Path, part: Callable[[str, int], int]) -> None:
    """Write the lines of the sample data, each to the part that ``part`` says of its patient and number."""
    for path in [*sorted((LIVE / "fhir").glob("[A-NPQ]*.ndjson*")), LIVE / "fhir" / "Observation.ndjson.gz"]:
        parts: dict[int, list[str]] = {0: [], 1: [], NOBODY: []}
        for number, line in enumerate(content(path).decode().splitlines()):
            found = re.search(r'"(?:subject|patient)":\{"reference":"Patient/(\w+)"', line) or re.search(r'"id":"(\w+)"', line)
            assert found is not None
            parts[part(found[1], number)].append(line)
        for day, lines in sorted(parts.items())[:NOBODY]:
            (folder / str(day)).mkdir(exist_ok=True, parents=True)
            (folder / str(day) / path.name.removesuffix(".gz")).write_text("".join(f"{line}\n" for line in lines))


def hl7v2(folder: Path, part: Callable[[str, int], int]) -> None:
    for path in sorted((LIVE / "hl7v2").glob("[amorv]*")):
        parts: dict[int, list[str]] = {0: [], 1: [], NOBODY: []}
        text = content(path).decode().replace("\n", "\r")
        for number, message in enumerate(re.findall(r"MSH\|.*?(?=MSH\||BTS\||FTS\||$)", text, re.DOTALL)):
            found = re.search(r"\rPID\|[^|]*\|[^|]*\|([^|^~]*)", message)
            parts[part(found[1] if found else "", number)].append(message.strip("\r"))
        for day, messages in sorted(parts.items())[:NOBODY]:
            (folder / str(day)).mkdir(exist_ok=True, parents=True)
            (folder / str(day) / path.name.removesuffix(".gz")).write_text("\r".join(messages) + "\r")


def omop(folder: Path, part: Callable[[str, int], int], source: Path = LIVE / "omop") -> None:
    with duckdb.connect() as con:
        con.create_function("part", part, ["VARCHAR", "BIGINT"], "BIGINT")
        for path in sorted(source.glob("*.parquet")):
            names = {row[0].lower() for row in con.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}
            for day in (0, 1):
                (folder / str(day)).mkdir(exist_ok=True, parents=True)
                where = f"WHERE part(coalesce(person_id::VARCHAR, ''), file_row_number) = {day}" if "person_id" in names else ""
                if where or path.stem in {"concept", "vocabulary"}:
                    rows = f"SELECT * EXCLUDE (file_row_number) FROM read_parquet('{path}', file_row_number = true) {where}"
                    con.execute(f"COPY ({rows}) TO '{folder / str(day) / path.name}' (FORMAT parquet)")


def frames(profile: Profile) -> dict[str, Frame]:
    """Return the frames without what tells how many files the records came in."""
    found = {name: dict(frame) for name, frame in profile.frames.items()}
    found["ledger"] = {key: (*values[2:],) for key, values in found["ledger"].items() if key[1] != "reference"}
    found["declared"] = {key: values[1:] for key, values in found["declared"].items()}
    return found


def records(profile: Profile) -> dict[str, Frame]:
    """Return the counts of records alone, of all patients together: what no other file can change."""
    found = {}
    for name, frame in frames(profile).items():
        if name in JOINED:
            continue
        places = [
            i for i, value in enumerate(FRAMES[name][1]) if value not in {"patients", "n2", "n_of", "files", "bytes", "unknown_patients"}
        ]
        if name in {"ledger", "declared"}:
            places = list(range(len(next(iter(frame.values()), ()))))
        found[name] = {
            key: tuple(values[i] for i in places)
            for key, values in frame.items()
            if "grouping" not in FRAMES[name][0] or not key[FRAMES[name][0].index("grouping")]
        }
    return found


def differing(one: dict[str, Frame], other: dict[str, Frame]) -> dict[str, object]:
    return {name: sorted(set(one[name].items()) ^ set(other[name].items()), key=str)[:6] for name in one if one[name] != other[name]}


WRITERS = {"fhir": fhir, "hl7v2": hl7v2, "omop": omop}


@pytest.mark.parametrize("form", WRITERS)
def test_patients_apart_everything_adds_up(form: str, tmp_path: Path) -> None:
    """Parts that share no patient: the merged profile is that of one reading in every number."""
    WRITERS[form](tmp_path, lambda patient, number: {0: 0, 1: 1}.get(sum(patient.encode()) % 6, NOBODY))
    whole = profiled(tmp_path)
    merged = profiled(tmp_path / "0").merge(profiled(tmp_path / "1"))
    assert differing(frames(merged), frames(whole)) == {}
    assert len(whole.frames["states"]) > 50


@pytest.mark.parametrize("form", ["fhir", "omop"])
def test_patients_shared_every_record_is_counted_once(form: str, tmp_path: Path) -> None:
    """Parts that share patients (today's records and yesterday's): every count of records holds, those of patients may be too high."""
    WRITERS[form](tmp_path, lambda patient, number: NOBODY if sum(patient.encode()) % 3 else (number // 3) % 2)
    whole = profiled(tmp_path)
    merged = profiled(tmp_path / "0").merge(profiled(tmp_path / "1"))
    assert differing(records(merged), records(whole)) == {}
    for name in ("volume", "codes", "states"):
        place = FRAMES[name][1].index("patients")
        for key, values in whole.frames[name].items():
            if "grouping" in FRAMES[name][0] and key[FRAMES[name][0].index("grouping")]:
                continue
            assert (merged.frames[name][key][place] or 0) >= (values[place] or 0), (name, key)


@pytest.mark.parametrize("seed", [1, 4])
def test_rows_of_any_export_apart_every_record_is_counted_once(seed: int, tmp_path: Path) -> None:
    """Nasty OMOP, its rows dealt out: what is counted of records is the sum; a code's quarter may come from its encounter, in the other part."""
    export = omop_cases.Maker(seed, tame=True).write(tmp_path / "export")
    omop(tmp_path / "parts", lambda patient, number: (number * 7 // 3) % 2, export)
    whole = records(profiled(tmp_path / "parts"))
    parts = [profiled(tmp_path / "parts" / str(day)) for day in (0, 1)]
    merged, turned = records(parts[0].merge(parts[1])), records(parts[1].merge(parts[0]))
    assert merged == turned
    for found in (whole, merged):
        del found["quarters"]
    assert differing(merged, whole) == {}
    assert sum(parts[0].tables().values()) > 0 < sum(parts[1].tables().values())
