"""Tasks of Spark read objects of a store, each with the credentials of its own environment."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fsspec", reason="needs ehrready[cloud]")
pytest.importorskip("pyspark", reason="needs PySpark (make spark)")

from ehrready import pipeline
from ehrready.engines import spark
from ehrready.pipeline import Options
from ehrready.readers import parts
from ehrready.stores import opened
from tests.stores.store_helpers import LIVE, Store, profiled

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PART = 100_000
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime")]


@pytest.fixture(scope="module")
def session(s3: Store) -> Iterator[SparkSession]:
    """A session whose workers find the store in their environment, which is that of the JVM when it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_MASTER", raising=False)
        for name, value in s3.env.items():
            patch.setenv(name, value)
        s3.fill()
        with spark._session("local[2,3]", 1) as made:
            made.conf.set("spark.sql.files.maxPartitionBytes", str(PART))  # so that files are cut
            made.conf.set("spark.sql.files.openCostInBytes", "0")
            yield made


@pytest.mark.parametrize("fmt", ["fhir", "hl7v2", "omop"])
def test_objects_give_the_profile_of_local_files(session: SparkSession, fmt: str) -> None:
    profile, ledger, files = pipeline.read_profile([f"s3://export/live/{fmt}"], Options(internal=True, engine="spark"))
    assert profile.to_json() == profiled(LIVE / fmt)
    assert {entry.status for entry in ledger.entries.values()} <= {"read", "reference", "skipped"}
    if fmt != "omop":
        assert max(len(parts.cut(file, PART)) for file in files) > 1


def test_an_object_that_is_another_now_is_not_read_for_the_one_that_was_listed(session: SparkSession, s3: Store) -> None:
    s3.put("export/changing/a.ndjson", b'{"resourceType": "Patient", "id": "1"}\n')
    (path,) = opened("s3://export/changing/a.ndjson", "source 1")
    s3.put("export/changing/a.ndjson", b'{"resourceType": "Patient", "id": "12"}\n')
    there = pickle.loads(pickle.dumps(path))  # noqa: S301 - made a moment ago
    with pytest.raises(OSError, match=r"shorter|changed"):
        there.open().read()
