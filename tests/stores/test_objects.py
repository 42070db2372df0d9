"""Cloud objects and web servers as sources, against a real object store and a real web server on this machine."""

from __future__ import annotations

import gzip
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ehrready import pipeline
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from tests.helpers.servers import moto
from tests.stores.store_helpers import PROJECT, command, profiled

pytest.importorskip("fsspec", reason="needs ehrready[cloud]")
pytest.importorskip("aiohttp", reason="needs ehrready[cloud]")

LIVE = PROJECT / "sample_data" / "live"
SECRET = "not-a-real-secret"  # noqa: S105 - of a server that lives as long as the tests


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An object store with the sample data in bucket ``export``."""
    from pyarrow.fs import S3FileSystem

    with moto() as url:
        store = S3FileSystem(access_key="key", secret_key=SECRET, endpoint_override=url, region="us-east-1", allow_bucket_creation=True)
        store.create_dir("export")
        for path in sorted(LIVE.rglob("*")):
            if path.is_file():
                with store.open_output_stream(f"export/live/{path.relative_to(LIVE)}", compression=None) as stream:
                    stream.write(path.read_bytes())
        with store.open_output_stream("export/odd/a?b#c %41 [1].ndjson", compression=None) as stream:
            stream.write(b'{"resourceType": "Patient", "id": "1"}\n')
        yield url


@pytest.fixture
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the store and its key as a user does, in the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("form", ["fhir", "hl7v2", "omop"])
def test_s3_same_profile_as_local_files(form: str) -> None:
    assert profiled(f"s3://export/live/{form}") == profiled(LIVE / form)


@pytest.mark.usefixtures("credentials")
def test_s3_one_object_a_prefix_and_a_glob() -> None:
    _, _, files = pipeline.read_profile(["s3://export/live/omop/person.parquet"], Options())
    assert [(str(file.path), file.size) for file in files] == [
        ("s3://export/live/omop/person.parquet", (LIVE / "omop" / "person.parquet").stat().st_size)
    ]
    assert [file.path.name for file in pipeline.read_profile(["s3://export/live/omop/pers"], Options())[2]] == ["person.parquet"]
    _, _, files = pipeline.read_profile(["s3://export/live/omop/[pd]e*.parquet"], Options())
    assert [file.path.name for file in files] == ["death.parquet", "person.parquet"]
    _, ledger, _ = pipeline.read_profile(["s3://export/odd/"], Options())
    assert [(entry.read, entry.status) for entry in ledger.entries.values()] == [(1, "read")]


@pytest.mark.usefixtures("credentials")
def test_s3_compressed_text_and_tables(tmp_path: Path, endpoint: str) -> None:
    from pyarrow.fs import S3FileSystem

    (tmp_path / "person.csv").write_text(
        "person_id,gender_concept_id,year_of_birth,note\n" + "".join(f"{i},8507,1950,é\n" for i in range(40))
    )
    with gzip.open(tmp_path / "measurement.csv.gz", "wt") as stream:
        stream.write("measurement_id,person_id,measurement_concept_id,measurement_date\n1,1,5,2024-01-01\n")
    store = S3FileSystem(access_key="key", secret_key=SECRET, endpoint_override=endpoint, region="us-east-1")
    for path in tmp_path.iterdir():
        with store.open_output_stream(f"export/csv/{path.name}", compression=None) as out:
            out.write(path.read_bytes())
    assert profiled("s3://export/csv/") == profiled(tmp_path)


@pytest.mark.usefixtures("credentials")
def test_s3_nothing_there_is_a_usage_error_of_one_line(tmp_path: Path) -> None:
    for source, says in (
        ("s3://no-such-bucket/x/", "no such bucket"),
        ("s3://export/nothing/here", "does not exist"),
        ("s3://export/live/*.nothing", "does not exist"),
        ("s3://", "name a bucket"),
    ):
        done = command("profile", source, "-o", tmp_path / "p.json")
        assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


def test_s3_without_valid_credentials(tmp_path: Path) -> None:
    with moto(INITIAL_NO_AUTH_ACTION_COUNT="0") as url:
        for key in ("", "WRONGKEY"):
            env = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": key and SECRET, "AWS_REGION": "us-east-1"}
            env |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
            done = command("profile", "s3://export/live/", "-o", tmp_path / "p.json", **env)
            assert (done.returncode, "set AWS_ACCESS_KEY_ID" in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr
            assert SECRET not in done.stderr
            assert "WRONGKEY" not in done.stderr


def test_nobody_listens(tmp_path: Path) -> None:
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    done = command("profile", "s3://export/live/", "-o", tmp_path / "p.json", **env)
    assert (done.returncode, "cannot be reached" in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="set AZURE_STORAGE_ACCOUNT"):
        profiled("abfs://container/x")


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges, as object stores and most servers do; ``plain/`` without."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if self.path.startswith("/private/"):
            self.send_error(403)
        elif wanted and path.is_file() and not self.path.startswith("/plain/"):
            data = path.read_bytes()
            first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(data[first : last + 1])
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.path.startswith("/private/"):
            self.send_error(403)
        else:
            super().do_HEAD()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with the sample data."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(LIVE, folder / "live")
    shutil.copytree(LIVE / "hl7v2", folder / "plain")
    shutil.copy(LIVE / "omop" / "person.parquet", folder / "plain")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["fhir", "omop"])
def test_web_index_page_same_profile_as_local_files(site: str, form: str) -> None:
    assert profiled(f"{site}/live/{form}/") == profiled(LIVE / form)


def test_web_one_file_with_a_signature_that_is_never_shown(site: str, tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    done = command("profile", f"{site}/live/omop/person.parquet?signature={SECRET}", "-o", out, "--show-paths")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stderr + out.read_text()
    assert f"{site}/live/omop/person.parquet" in done.stderr


def test_web_server_without_ranges_streams_text_and_refuses_parquet(site: str) -> None:
    name = next(path.name for path in (LIVE / "hl7v2").iterdir() if path.suffix == ".hl7")
    assert profiled(f"{site}/plain/{name}") == profiled(LIVE / "hl7v2" / name)
    _, ledger, _ = pipeline.read_profile([f"{site}/plain/{name}", f"{site}/plain/person.parquet"], Options())
    assert sorted(entry.status for entry in ledger.entries.values()) == ["read", "unreadable"]


def test_web_mistakes_are_told_in_one_line(site: str, tmp_path: Path) -> None:
    for source, says in (
        (f"{site}/nothing.ndjson", "no such bucket"),
        (f"{site}/private/x.ndjson?token={SECRET}", "access is denied"),
        ("http://127.0.0.1:1/x.ndjson", "cannot be reached"),
        ("http://hospital.example/x.ndjson", "in the clear"),
    ):
        done = command("profile", source, "-o", tmp_path / "p.json")
        assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr
        assert SECRET not in done.stderr


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'ehrready\[cloud\]'"):
        profiled("s3://bucket/key")


def test_local_sources_load_none_of_it(tmp_path: Path) -> None:
    """Who names no such source loads no network library for it."""
    program = (
        "import sys; from ehrready import pipeline; from ehrready.pipeline import Options;"
        f"pipeline.read_profile([{str(LIVE / 'omop' / 'person.parquet')!r}], Options());"
        "print([m for m in ('fsspec', 'aiohttp', 'deltalake', 'pyiceberg', 'adbc_driver_postgresql') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stdout
