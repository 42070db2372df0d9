"""Objects of stores that vanish or change while they are read, against real servers on this machine."""

from __future__ import annotations

import collections
import http.server
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from ehrready.stores import objects
from tests.helpers import forked
from tests.stores.store_helpers import KEY, LIVE, Store

pytest.importorskip("fsspec", reason="needs ehrready[cloud]")

PATIENT = b'{"resourceType": "Patient", "id": "%07d", "gender": "female"}\n'
MANY = b"".join(PATIENT % i for i in range(60_000))


@pytest.mark.parametrize("change", ["gone", "shorter", "longer", "other"])
def test_an_object_that_changes_between_listing_and_reading_is_told(any_store: Store, change: str) -> None:
    """Whole records before and after: without a look nobody would see it."""
    any_store.put("export/change/p.ndjson", MANY)
    (path,) = objects.opened(any_store.scheme, "export/change/", "x")
    with path.open() as stream:
        assert stream.read() == MANY
    time.sleep(1.1)  # S3 and Azure tell the time of a change in whole seconds
    if change == "gone":
        any_store.system.delete_file("export/change/p.ndjson")
    else:
        any_store.put("export/change/p.ndjson", {"shorter": MANY[: len(MANY) // 2], "longer": MANY * 2, "other": MANY[::-1]}[change])
    with path.open() as stream, pytest.raises(OSError, match=r".") as told:
        collections.deque(iter(partial(stream.read, 1 << 20), b""), maxlen=0)
    assert told.value.errno is not None


#: Runs the program; when the objects were listed, or a Parquet file was found whole, the object that is named first changes.
_DRIVER = """
import runpy, sys
from ehrready.readers.tabular_files import Sandbox
from ehrready.stores import clouds, objects

when, family, name, data = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)

def change():
    store = clouds.connected(family, "", "")[0]
    if not data:
        return store.delete_file(name)
    with open(data, "rb") as copy, store.open_output_stream(name, compression=None) as stream:
        stream.write(copy.read())

def then_changed(call):
    def changed(*arguments):
        found = call(*arguments)
        change()
        return found
    return changed

if when == "listed":
    objects.opened = then_changed(objects.opened)
else:
    Sandbox.columns = then_changed(Sandbox.columns)
runpy.run_module("ehrready", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("when", "name", "data"),
    [
        ("listed", "p.ndjson", ""),
        ("listed", "p.ndjson", "shorter"),
        ("listed", "person.parquet", ""),
        ("listed", "person.parquet", "shorter"),
        ("found whole", "person.parquet", ""),
        ("found whole", "person.parquet", "shorter"),
    ],
)
def test_a_run_whose_object_vanishes_or_changes_is_exit_3(any_store: Store, tmp_path: Path, when: str, name: str, data: str) -> None:
    person = LIVE / "omop" / "person.parquet"
    any_store.put(f"export/run/{name}", person.read_bytes() if name == person.name else MANY)
    copy = tmp_path / "copy"
    copy.write_bytes((LIVE / "omop" / "death.parquet").read_bytes() if name == person.name else MANY[: len(MANY) // 2])
    (tmp_path / "driver.py").write_text(_DRIVER)
    source = f"{any_store.scheme}://export/run/{name}"
    driven = (when, any_store.scheme, f"export/run/{name}", copy if data else "", "profile", source, "-o", tmp_path / "p.json")
    done = forked.run(*driven, script=tmp_path / "driver.py", env=any_store.env)
    said = done.stderr.decode()
    assert (done.returncode, "1 data file(s) could not be read to the end" in said) == (3, True), said
    assert "Traceback" not in said
    for secret in (KEY, "not-real"):
        assert secret not in said


def test_a_file_of_a_web_server_that_changes_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.ndjson").write_bytes(MANY)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            (path,) = objects.opened("http", f"127.0.0.1:{server.server_address[1]}/p.ndjson", "x")
            with path.open() as stream:
                assert stream.read() == MANY
            for change in (MANY[: len(MANY) // 2], MANY * 2, None):
                (tmp_path / "p.ndjson").write_bytes(change) if change else (tmp_path / "p.ndjson").unlink()
                with path.open() as stream, pytest.raises(OSError, match=r".") as told:
                    collections.deque(iter(partial(stream.read, 1 << 20), b""), maxlen=0)
                assert told.value.errno is not None
        finally:
            server.shutdown()
