"""Delta tables (``delta://PATH`` or a folder with ``_delta_log``) and Iceberg tables (``iceberg://...``).

The table as it stands in its log or metadata is read, not the files in its folder: those may hold rows that were
deleted or replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from ehrready.errors import SourceError, UsageError
from ehrready.stores import extra
from ehrready.stores.duckdb_file import once
from ehrready.stores.tables import Store, TablePath, parameters, plain


def opened(kind: str, rest: str, place: str) -> Sequence[TablePath]:
    """Return the table of a ``delta://`` source, the table or tables of an ``iceberg://`` one."""
    if kind == "delta":
        path, given = parameters(rest, ("version",), place)
        version = given.get("version")
        if version is not None and not version.isdigit():
            raise UsageError(f"{place}: version must be a whole number")
        return [_delta(Path(unquote(path)), place, int(version) if version is not None else None)]
    path, _ = parameters(rest, (), place)
    path = unquote(path)
    if path.startswith("/") or Path(path).exists():
        return [_iceberg_static(Path(path), place)]
    return _catalog(path, place)


def in_folder(folder: Path, kind: str) -> TablePath:
    """Return the table whose folder was met on the way (ehrready.stores.lake_folder)."""
    place = "a folder of the source"
    return _delta(folder, place, None) if kind == "delta" else _iceberg_static(folder, place)


def _delta(folder: Path, place: str, version: int | None) -> TablePath:
    lake = extra("deltalake", "lake", f"{place} is a Delta table")
    if not (folder / "_delta_log").is_dir():
        raise UsageError(f"{place}: there is no Delta table: give the folder that holds _delta_log")
    try:
        table = lake.DeltaTable(str(folder.absolute()), version=version)
    except Exception:  # noqa: BLE001 - the library has no base class for what may be wrong with a log
        raise UsageError(
            f"{place}: the log of the Delta table cannot be read" + (" at that version" if version is not None else "")
        ) from None
    try:
        dataset = table.to_pyarrow_dataset()
    except Exception:  # noqa: BLE001 - as above
        raise SourceError(
            f"{place}: the Delta table uses a feature that is not read here (deletion vectors, column mapping): "
            "purge it (REORG TABLE ... APPLY (PURGE)), or write a copy without it"
        ) from None

    def pull(names: Sequence[str] | None) -> Iterable[pa.RecordBatch]:
        if names is not None and not names:
            return ()
        reader: Iterable[pa.RecordBatch] = dataset.scanner(columns=names).to_reader()
        return reader

    def rows() -> int | None:
        # as the log's statistics say, where every file has them
        counts = pa.table(table.get_add_actions(flatten=True)).column("num_records")
        return None if counts.null_count else sum(counts.to_pylist())

    return TablePath(Store(lambda: None), f"delta://{folder}", _name(folder), plain(dataset.schema), pull, rows)


def _name(folder: Path) -> str:
    return folder.absolute().name


def _iceberg_static(path: Path, place: str) -> TablePath:
    """Return the Iceberg table of a folder or of one of its metadata files."""
    tables = extra("pyiceberg.table", "lake", f"{place} is an Iceberg table")
    if path.is_dir():
        path = _newest(path)
    if not path.is_file():
        raise UsageError(f"{place}: there is no Iceberg table: give its folder, or a file metadata/*.metadata.json")
    try:
        table = tables.StaticTable.from_metadata(str(path.absolute()))
    except Exception:  # noqa: BLE001 - the library raises its own, pydantic's and the file system's errors
        raise UsageError(f"{place}: the metadata of the Iceberg table cannot be read") from None
    folder = path.absolute().parent
    return _iceberg(Store(lambda: None), table, f"iceberg://{path}", (folder.parent if folder.name == "metadata" else folder).name)


def _newest(folder: Path) -> Path:
    """Return the current metadata file of a table's folder: the one that the hint names, else the highest number."""
    metadata = folder / "metadata"
    hint = metadata / "version-hint.text"
    if hint.is_file():
        said = hint.read_text("utf-8", "replace").strip()
        for name in (f"v{said}.metadata.json", f"{said}.metadata.json", said):
            if (metadata / name).is_file():
                return metadata / name

    def number(path: Path) -> tuple[int, str]:
        digits = path.name.removeprefix("v").split("-")[0].split(".")[0]
        return (int(digits) if digits.isdigit() else -1, path.name)

    return max(metadata.glob("*.metadata.json"), key=number, default=folder / "metadata")


def _catalog(path: str, place: str) -> Sequence[TablePath]:
    """Return tables of a catalog of pyiceberg's own configuration: ``catalog[/namespace[.table]]``."""
    catalogs = extra("pyiceberg.catalog", "lake", place)
    name, _, inside = path.strip("/").partition("/")
    try:
        catalog = catalogs.load_catalog(name)
    except Exception:  # noqa: BLE001 - the library raises its own, pydantic's and the driver's errors
        raise UsageError(
            f"{place}: pyiceberg knows no such catalog, or cannot reach it: name it in ~/.pyiceberg.yaml or PYICEBERG_CATALOG__* "
            "variables, or give the path of a table"
        ) from None
    store = Store(lambda: None)
    try:
        if "." in inside and catalog.table_exists(inside):
            found = [tuple(inside.split("."))]
        else:
            namespaces = [tuple(inside.split("."))] if inside else catalog.list_namespaces()
            found = [identifier for namespace in namespaces for identifier in catalog.list_tables(namespace)]
        for identifier in sorted(found):
            _iceberg(store, catalog.load_table(identifier), f"iceberg://{name}/{'.'.join(identifier)}", identifier[-1])
    except Exception:  # noqa: BLE001 - as above
        raise UsageError(f"{place}: the catalog has no such namespace or table, or one of its tables cannot be read") from None
    if not found:
        raise UsageError(f"{place}: the catalog holds no table there")
    return once(store, place)


def _iceberg(store: Store, table: Any, label: str, name: str) -> TablePath:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    def pull(names: Sequence[str] | None) -> Iterable[pa.RecordBatch]:
        if names is not None and not names:
            return ()
        reader: Iterable[pa.RecordBatch] = table.scan(selected_fields=tuple(names) if names else ("*",)).to_arrow_batch_reader()
        return reader

    def rows() -> int:
        return int(table.scan().count())

    schema = plain(schema_to_pyarrow(table.schema(), include_field_ids=False))
    return TablePath(store, label, name, schema, pull, rows)
