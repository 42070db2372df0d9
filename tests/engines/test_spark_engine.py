"""Spark gives what DuckDB gives, byte for byte: on the sample data, on hostile files, with tasks that die, with own rules."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

pytest.importorskip("pyspark", reason="needs PySpark (make spark)")

from ehrready import pipeline
from ehrready.engines import spark
from ehrready.pipeline import Options
from ehrready.readers.base import Event, SourceFile
from ehrready.readers.fhir import FhirReader

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime")]
_SMALL_SPLITS = {"spark.sql.files.maxPartitionBytes": "2000", "spark.sql.files.openCostInBytes": "0"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session for all tests of the module, as a user's own would be: two tasks at a time, three attempts each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_MASTER", raising=False)
        with spark._session("local[2,3]", 1) as made:
            yield made


def _profiles(sources: Sequence[str], **options: Any) -> list[tuple[bytes, list[dict[str, Any]]]]:
    found = []
    for engine in ("duckdb", "spark"):
        profile, ledger, _ = pipeline.read_profile(sources, Options(internal=True, engine=engine, **options))
        found.append((profile.to_json(), ledger.rows()))
    return found


@pytest.mark.parametrize("part", ["live", "training"])
@pytest.mark.parametrize("fmt", ["fhir", "hl7v2", "omop"])
def test_the_profile_of_the_sample_data_is_the_same(session: SparkSession, project: Path, fmt: str, part: str) -> None:
    duckdb, other = _profiles([str(project / "sample_data" / part / fmt)])
    assert orjson.loads(duckdb[0])["frames"] == orjson.loads(other[0])["frames"]
    assert duckdb == other


def test_hostile_files_in_small_splits(session: SparkSession, tmp_path: Path, project: Path) -> None:
    sample = project / "sample_data" / "live" / "fhir"
    patients = (sample / "Patient.ndjson").read_bytes().splitlines(keepends=True)[:60]
    allergies = (sample / "AllergyIntolerance.ndjson").read_bytes().splitlines(keepends=True)[:40]
    bad = [b'{"resourceType": "Patient", \n', b"[1]\n", b"\n", b'{"id": "x"}\n', b"\xff\xfe\n", b"NaN\n"]
    (tmp_path / "Patient.ndjson").write_bytes(b"".join(patients[:20] + bad + patients[20:] + bad))
    (tmp_path / "Allergy.ndjson").write_bytes(b"".join(allergies)[:-20])
    (tmp_path / "empty.ndjson").write_bytes(b"")
    (tmp_path / "broken.ndjson.gz").write_bytes(b"\x1f\x8b\x08\x00 no gzip")
    (tmp_path / "bundle.json").write_bytes(b'{"resourceType": "Bundle", "entry": [{"resource": ' + patients[0].strip() + b"}, 5]}")
    messages = (project / "sample_data" / "live" / "hl7v2" / "vxu.hl7").read_bytes()[:20_000]
    (tmp_path / "vxu.hl7").write_bytes(messages[:9000] + b"\rMSH|bad\r" + messages[9000:])
    (tmp_path / "labs.csv").write_text("id,value\n1,2\n2,N/A\n3\n", "utf-8")
    for key, value in _SMALL_SPLITS.items():
        session.conf.set(key, value)
    try:
        duckdb, other = _profiles([str(tmp_path)])
    finally:
        for key in _SMALL_SPLITS:
            session.conf.unset(key)
    assert duckdb[1] == other[1]
    assert orjson.loads(duckdb[0])["frames"] == orjson.loads(other[0])["frames"]
    assert {reason for row in other[1] for reason in row["reasons"]} >= {
        "invalid-json",
        "encoding",
        "empty",
        "not-an-object",
        "no-resource-type",
    }


def test_components_are_results_on_both_engines(session: SparkSession, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for i in range(40):
        lines.append({"resourceType": "Patient", "id": f"p{i}"})
        parts = [
            {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": {"value": value, "unit": "mmHg"}}
            for code, value in (("8462-4", 70 + i % 9), ("8480-6", 9000 if i == 3 else 110))
        ]
        body: dict[str, Any] = {
            "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
            "component": parts,
            "effectiveDateTime": "2024-03-05",
        }
        lines.append({"resourceType": "Observation", "id": f"o{i}", "status": "final", "subject": {"reference": f"Patient/p{i}"}, **body})
    (tmp_path / "export.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    duckdb, other = _profiles([str(tmp_path)])
    assert duckdb == other
    frames = orjson.loads(duckdb[0])["frames"]
    assert ["loinc", "8480-6", "number!", 1, 1] in frames["value_kinds"]["rows"]


class _Dying(FhirReader):
    """A reader whose task is killed in the middle, the first time."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def stage(self, files: Sequence[SourceFile], con: Any, among: Sequence[SourceFile] = ()) -> Iterator[Event]:
        for event in super().stage(files, con, among):
            yield event
            if not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_is_killed_is_counted_once(session: SparkSession, tmp_path: Path, project: Path) -> None:
    from pyspark import cloudpickle

    register: Any = cloudpickle.register_pickle_by_value
    register(sys.modules[__name__])  # the workers do not have this test
    source = [str(project / "sample_data" / "live" / "fhir" / name) for name in ("Patient.ndjson", "Immunization.ndjson")]
    expected, ledger, _ = pipeline.read_profile(source, Options(internal=True))
    mark = tmp_path / "killed"
    found, booked, _ = pipeline.read_profile(source, Options(internal=True, engine="spark"), readers=[_Dying(mark)])
    assert mark.exists()
    assert booked.rows() == ledger.rows()
    assert found.to_json() == expected.to_json()


_PACK = """
pack: own
version: "1.0"
rules:
  - {id: own-late, check: sql, title: Late, severity: warning, owner: engineering, why: Because., fix: Do., fail: {max_rate: 0.01},
     query: "SELECT count(*) FILTER (WHERE length(\\"at\\") < 10) AS n, count(*) AS of, count(DISTINCT patient_id) FILTER (WHERE length(\\"at\\") < 10) AS patients, left(\\"at\\", 4) AS year FROM immunization WHERE excluded IS NULL AND regexp_matches(\\"at\\", '^20[0-9][0-9]') GROUP BY ALL"}
  - {id: own-sex, check: expectation, title: Sex, severity: warning, owner: engineering, why: Because., fix: Do., fail: {max_rate: 0.01},
     expectation: expect_column_values_to_be_in_set, table: patient, kwargs: {column: sex, value_set: [male, female]}}
"""


def test_the_scorecard_is_the_same_but_for_the_engine(session: SparkSession, tmp_path: Path, project: Path) -> None:
    pack = tmp_path / "own.yaml"
    pack.write_text(_PACK, "utf-8")
    source = [str(project / "sample_data" / "live" / "fhir" / name) for name in ("Patient.ndjson", "Immunization.ndjson")]
    cards, lists = [], []
    for engine in ("duckdb", "spark"):
        folder = tmp_path / engine
        options = Options(engine=engine, rules=("core", str(pack)), internal=True, worklists=str(folder))
        card = orjson.loads(pipeline.check(source, None, options)[0].to_json())
        assert card["provenance"].pop("engine") == engine
        cards.append(card)
        lists.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert cards[0] == cards[1]
    own = {f["rule"]: f for f in cards[1]["findings"] if f["pack"] == "own"}
    assert own["own-late"]["status"] in {"pass", "fail"}
    assert own["own-sex"]["status"] in {"pass", "fail"}
    assert lists[0] == lists[1]


def test_a_query_that_spark_cannot_run_is_an_error_of_that_rule(session: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    from ehrready.checks.base import CHECKS, CannotCount

    with spark.open_engine() as con:
        count = CHECKS["sql"].measured
        assert count is not None
        with pytest.raises(CannotCount, match="failed on this data"):
            count(con, {"query": "SELECT list_sum([1]) AS n, count(*) AS of FROM patient"})
        with pytest.raises(CannotCount, match="only the canonical tables"):
            count(con, {"query": "SELECT count(*) AS n, count(*) AS of FROM duckdb_tables()"})
    assert capfd.readouterr() == ("", "")


def test_the_command_leaves_nothing_and_says_nothing(tmp_path: Path, project: Path) -> None:
    """A session of its own: no UI, no log, no word of the JVM, no scratch folder, and the same bytes."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = str(project / "sample_data" / "training" / "fhir" / "Patient.ndjson")
    made = []
    for extra in ([], ["--engine", "spark", "--master", "local[2]"]):
        command = [sys.executable, "-m", "ehrready", "profile", source, "-o", "out.json", *extra]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": str(scratch)})
        assert done.returncode == 0, done.stderr
        made.append(((tmp_path / "out.json").read_bytes(), done.stderr, done.stdout))
    assert made[0] == made[1]
    assert list(scratch.iterdir()) == []
    assert tempfile.gettempdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "scratch"]
