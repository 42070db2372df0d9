"""Delta and Iceberg tables as sources: what their log or catalog says, not the files that lie in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrready import pipeline
from ehrready.errors import SourceError, UsageError
from ehrready.pipeline import Options
from tests.stores.store_helpers import OMOP, TABLES, profiled, sizeless

deltalake = pytest.importorskip("deltalake", reason="needs ehrready[lake]")
pytest.importorskip("pyiceberg", reason="needs ehrready[lake]")


@pytest.fixture(scope="module")
def from_files() -> bytes:
    """The profile of the same tables as Parquet files."""
    return sizeless(OMOP)


def tables() -> dict[str, pa.Table]:
    return {name: pq.read_table(path) for name, path in TABLES.items()}


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Delta tables: every one written in two commits, with rows that were deleted again."""
    folder = tmp_path_factory.mktemp("delta")
    for name, rows in tables().items():
        half = len(rows) // 2
        deltalake.write_deltalake(folder / name, rows.slice(0, half))
        deltalake.write_deltalake(folder / name, rows.slice(half), mode="append")
        first = rows.column(0)[0].as_py()
        if isinstance(first, int) and name != "death":
            deltalake.write_deltalake(
                folder / name, rows.slice(0, 1).set_column(0, rows.field(0), pa.array([-7], rows.field(0).type)), mode="append"
            )
            deltalake.DeltaTable(folder / name).delete(f"{rows.column_names[0]} = -7")
    return folder


def test_delta_same_profile_as_the_parquet_files(delta: Path, from_files: bytes) -> None:
    assert len(list((delta / "person").glob("*.parquet"))) > 1
    assert sizeless(delta) == from_files
    assert sizeless(*(f"delta://{folder}" for folder in delta.iterdir())) == from_files


def test_delta_ledger_version_and_declared_count(delta: Path) -> None:
    _, ledger, files = pipeline.read_profile([f"delta://{delta / 'person'}"], Options())
    assert [(e.read, e.declared, e.status) for e in ledger.entries.values()] == [(400, 400, "read")]
    assert str(files[0].path) == f"delta://{delta / 'person'}"
    _, ledger, _ = pipeline.read_profile([f"delta://{delta / 'person'}?version=0"], Options())
    assert ledger.entries[1].read == 200


def test_delta_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path / "t", pa.table({"a": [1, 2], "b": ["x", "y"]}))
    deltalake.write_deltalake(tmp_path / "t", pa.table({"a": [3], "b": ["z"]}), mode="append")
    next(iter((tmp_path / "t").glob("*.parquet"))).unlink()
    _, ledger, _ = pipeline.read_profile([str(tmp_path)], Options())
    assert [entry.status for entry in ledger.entries.values()] == ["unreadable"]


@pytest.fixture(scope="module")
def iceberg(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An Iceberg catalog on SQLite with the tables in namespace cdm: two snapshots each, deleted rows."""
    from pyiceberg.catalog.sql import SqlCatalog

    folder = tmp_path_factory.mktemp("iceberg")
    catalog = SqlCatalog("hospital", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("cdm")
    for name, rows in tables().items():
        table = catalog.create_table(f"cdm.{name}", schema=rows.schema)
        half = len(rows) // 2
        table.append(rows.slice(0, half))
        table.append(rows.slice(half))
        if name == "person":
            table.append(rows.slice(0, 1).set_column(0, rows.field(0), pa.array([-7], rows.field(0).type)))
            table.delete("person_id = -7")
    return catalog, folder


@pytest.fixture
def configured(iceberg: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the catalog as a user does; pyiceberg reads its configuration once, when it is imported."""
    import pyiceberg.catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setenv("PYICEBERG_CATALOG__HOSPITAL__URI", f"sqlite:///{iceberg[1]}/catalog.db")
    monkeypatch.setattr(pyiceberg.catalog, "_ENV_CONFIG", Config())


@pytest.mark.usefixtures("configured")
def test_iceberg_same_profile_as_the_parquet_files(iceberg: tuple[Any, Path], from_files: bytes) -> None:
    catalog, folder = iceberg
    assert sizeless("iceberg://hospital/cdm") == from_files  # by the catalog
    assert sizeless(folder / "warehouse") == from_files  # folders that are recognised on the way
    assert (
        sizeless(*(f"iceberg://{catalog.load_table(f'cdm.{name}').metadata_location.removeprefix('file://')}" for name in TABLES))
        == from_files
    )


@pytest.mark.usefixtures("configured")
def test_iceberg_one_table_and_the_folder_of_a_table(iceberg: tuple[Any, Path]) -> None:
    _, folder = iceberg
    for source in ("iceberg://hospital/cdm.person", f"iceberg://{folder}/warehouse/cdm/person"):
        _, ledger, _ = pipeline.read_profile([source], Options())
        assert [(e.read, e.declared, e.status) for e in ledger.entries.values()] == [(400, 400, "read")]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("delta://{}", "no Delta table"),
        ("delta://{}?version=x", "whole number"),
        ("iceberg://{}", "no Iceberg table"),
        ("iceberg://no-such-catalog/cdm", "no such catalog"),
        ("oracle://host/db", "unknown kind of source"),
    ],
)
def test_mistakes_are_told(source: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        profiled(source.format(tmp_path))


def test_a_damaged_log_is_told_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "t" / "_delta_log").mkdir(parents=True)
    (tmp_path / "t" / "_delta_log" / "00000000000000000000.json").write_text('{"secret-value"')
    with pytest.raises((UsageError, SourceError), match="log of the Delta table") as caught:
        profiled(tmp_path / "t")
    assert "secret" not in str(caught.value)
