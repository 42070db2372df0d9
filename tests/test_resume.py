"""A run that is taken up again gives the bytes of one that was never interrupted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from ehrready import pipeline, resume
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from ehrready.readers.hl7v2 import Hl7v2Reader
from tests.hostile import omop_cases

PROJECT = Path(__file__).parents[1]
LIVE = PROJECT / "sample_data" / "live"
#: The command line, saving after every file.
PROGRAM = "from ehrready import resume; resume.GROUP_BYTES = 1; from ehrready.cli import main; main()"


@pytest.fixture
def each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every file."""
    monkeypatch.setattr(resume, "GROUP_BYTES", 1)


def profiled(*sources: Path, folder: Path | None = None, **options: str) -> bytes:
    chosen = Options(internal=True, memory="1GB", resume=str(folder) if folder else None, **options)  # type: ignore[arg-type]
    return pipeline.read_profile([str(source) for source in sources], chosen)[0].to_json()


def export(folder: Path) -> Path:
    """An export whose files need each other: references, URLs of Bundles, patients told by many messages, rejects."""
    folder.mkdir()

    def lines(name: str, *resources: dict[str, Any]) -> None:
        (folder / name).write_bytes(b"\n".join(orjson.dumps(resource) for resource in resources) + b"\n")

    people: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": f"p{i}", "birthDate": "1960-01-02", "gender": "male"} for i in range(40)
    ]
    people[0]["meta"] = {"security": [{"code": "HTEST"}]}
    lines("1.ndjson", *people)
    drug = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "197361"}]}
    lines("2.ndjson", *({"resourceType": "Medication", "id": f"m{i}", "code": drug} for i in range(3)))
    for name, base in (("3.ndjson", 0), ("4.ndjson", 1000)):
        lines(
            name,
            *(
                {
                    "resourceType": "MedicationRequest",
                    "id": f"r{base + i}",
                    "status": "active",
                    "subject": {"reference": f"Patient/p{i % 40}"},
                    "authoredOn": "2024-03-04",
                    "medicationReference": {"reference": f"Medication/m{i % 3}"},
                }
                for i in range(150)
            ),
        )
    entry = [{"fullUrl": "urn:uuid:abc", "resource": {"resourceType": "Patient", "id": "q1", "birthDate": "1950-01-01"}}]
    (folder / "5.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entry}))
    condition = {"resourceType": "Condition", "subject": {"reference": "urn:uuid:abc"}, "onsetDateTime": "2024-01-01"}
    (folder / "6.json").write_bytes(orjson.dumps(condition))
    (folder / "7.ndjson").write_text('{"resourceType": "Patient", "id": "x"}\n{broken\n')
    message = "MSH|^~\\&|A|{site}|||2024010{n}||ADT^A01|{n}|P|2.5\rPID|1||77^^^H||DOE^J||19500101|{sex}\rPV1|1|I|||||||||||||||||V1\r"
    (folder / "8.hl7").write_text(message.format(site="S1", n=1, sex="M"))
    (folder / "9.hl7").write_text(message.format(site="S2", n=2, sex="F"))
    (folder / "table.csv").write_text("a,b\n1,x\n2,y\n3\n")
    return folder


@pytest.mark.usefixtures("each")
def test_one_file_at_a_time_is_the_same_profile(tmp_path: Path) -> None:
    """The law: groups of files read apart and put together are one reading."""
    source = export(tmp_path / "export")
    assert profiled(source, folder=tmp_path / "work") == profiled(source)
    assert sorted(path.name for path in (tmp_path / "work").glob("*-*"))[:2] == ["fhir-000001", "fhir-000002"]


@pytest.mark.usefixtures("each")
def test_tables_one_at_a_time_are_the_same_profile(tmp_path: Path) -> None:
    omop = PROJECT / "sample_data" / "live" / "omop"
    tables = [omop / f"{name}.parquet" for name in ("concept", "death", "measurement", "person", "visit_occurrence", "vocabulary")]
    (tmp_path / "other.csv").write_text("a,b\n1,x\n2,\n")
    assert profiled(*tables, tmp_path / "other.csv", folder=tmp_path / "work") == profiled(*tables, tmp_path / "other.csv")
    assert len(list((tmp_path / "work").glob("omop-*"))) == 6


@pytest.mark.usefixtures("each")
@pytest.mark.parametrize("seed", [3, 8])
def test_any_export_that_is_interrupted_is_the_same_profile(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMOP Parquet is read the short way in one go, and the long way in groups."""
    source, work, rng = omop_cases.Maker(seed, tame=True).write(tmp_path / "export"), tmp_path / "work", random.Random(seed)
    files = sorted(source.iterdir())
    for path in set(files) - set(rng.sample(files, min(len(files), 6))):
        path.unlink()
    (source / "table.csv").write_text("a,b\n1,x\nUNK,\n3\n")
    fill, left = resume.Work._fill, [rng.randrange(1, 5)]

    def interrupted(self: resume.Work, *given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        fill(self, *given)

    monkeypatch.setattr(resume.Work, "_fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profiled(source, folder=work)
    monkeypatch.setattr(resume.Work, "_fill", fill)
    assert profiled(source, folder=work) == profiled(source)


@pytest.mark.usefixtures("each")
def test_finished_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, work = export(tmp_path / "export"), tmp_path / "work"
    read: list[str] = []
    stage = Hl7v2Reader.stage

    def failing(self: Hl7v2Reader, files, con, among=()):  # type: ignore[no-untyped-def]
        read.extend(file.path.name for file in files)
        if "9.hl7" in read:
            raise KeyboardInterrupt
        return stage(self, files, con, among)

    monkeypatch.setattr(Hl7v2Reader, "stage", failing)
    with pytest.raises(KeyboardInterrupt):
        profiled(source, folder=work)
    monkeypatch.setattr(Hl7v2Reader, "stage", stage)
    assert read == ["8.hl7", "9.hl7"]
    assert resume.finished(str(work)) == 8
    kept = {path.name: path.stat().st_ino for path in work.glob("*-0*") if path.suffix != ".half"}
    assert profiled(source, folder=work) == profiled(source)
    assert kept.items() <= {path.name: path.stat().st_ino for path in work.glob("*-0*")}.items()


def test_a_removal_that_is_interrupted_leaves_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "fhir-000001").mkdir(parents=True)
    (work / "run.json").write_text("{}")
    removed: list[str] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: removed.append(Path(path).name))
    resume.remove(str(work))
    assert removed == ["fhir-000001", "work"]  # what tells that it is a run's folder is there until nothing else is


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_instants(kills: int, tmp_path: Path) -> None:
    rng, source, work, out = random.Random(kills), export(tmp_path / "export"), tmp_path / "work", tmp_path / "out.json"
    arguments = [sys.executable, "-c", PROGRAM, "profile", str(source), "-o", str(out), "--internal", "--resume", str(work)]
    env = os.environ | {"PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path)}
    started = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=env)
    spent = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    expected, killed = out.read_bytes(), 0
    out.unlink()
    assert not work.exists()  # removed when the profile is written
    while killed < kills:
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as process:
            time.sleep(spent * rng.uniform(0.2, 0.9))
            process.send_signal(signal.SIGKILL)
        killed += 1
        if out.exists():  # it was faster: what is written is whole, whether the process had ended or was about to
            assert out.read_bytes() == expected
            break
        assert process.returncode != 0
        assert not work.exists() or work.stat().st_mode & 0o777 == 0o700
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected
    assert not work.exists()


@pytest.mark.usefixtures("each")
def test_another_source_or_other_options_are_refused(tmp_path: Path) -> None:
    source, work = export(tmp_path / "export"), tmp_path / "work"
    profiled(source, folder=work)
    with pytest.raises(UsageError, match="made with another validate"):
        profiled(source, folder=work, validate="none")
    (source / "1.ndjson").write_text((source / "1.ndjson").read_text().replace("1960", "1961"))  # same size
    with pytest.raises(UsageError, match=r"1 file\(s\) gone or changed, 1 new or changed"):
        profiled(source, folder=work)
    (source / "2.ndjson").unlink()
    (source / "10.ndjson").write_text('{"resourceType": "Patient", "id": "z"}\n')
    with pytest.raises(UsageError, match=r"2 file\(s\) gone or changed, 2 new or changed"):
        profiled(source, folder=work)


def test_folders_that_are_not_its_own_stay(tmp_path: Path) -> None:
    source = export(tmp_path / "export")
    with pytest.raises(UsageError, match="not empty"):
        profiled(source, folder=source)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made"):
        profiled(source, folder=tmp_path / "file")
    assert (source / "1.ndjson").exists()
    assert (source.stat().st_mode & 0o777) == 0o755  # its mode is not touched either


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    source, work = export(tmp_path / "export"), tmp_path / "work"
    with resume.resuming(Options(resume=str(work)), []), pytest.raises(UsageError, match="another run"):
        profiled(source, folder=work)


def test_databases_are_refused(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "x.db")) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS a")
    options = Options(resume=str(tmp_path / "work"))
    with pytest.raises(UsageError, match="works with files"):
        pipeline.read_profile([f"duckdb://{tmp_path / 'x.db'}"], options)
