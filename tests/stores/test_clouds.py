"""Google's and Azure's storage as sources, against real servers on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from ehrready import pipeline
from ehrready.errors import UsageError
from ehrready.pipeline import Options
from ehrready.stores import clouds
from tests.stores.store_helpers import ACCOUNT, KEY, LIVE, NOTHING, Store, command, connection_string, profiled

pytest.importorskip("fsspec", reason="needs ehrready[cloud]")


def _signature(permissions: str) -> str:
    """Return a shared access signature as ``az storage account generate-sas`` prints it, without a question mark."""
    version, until = "2022-11-02", "2099-01-01T00:00:00Z"
    text = "\n".join([ACCOUNT, permissions, "b", "sco", "", until, "", "", version, "", ""])
    signed = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    return f"sv={version}&ss=b&srt=sco&sp={permissions}&se={quote(until, safe='')}&sig={quote(signed, safe='')}"


@pytest.mark.parametrize("form", ["fhir", "hl7v2", "omop"])
def test_same_profile_as_local_files(cloud: Store, form: str) -> None:
    assert profiled(f"{cloud.scheme}://export/live/{form}") == profiled(LIVE / form)


def _names(source: str) -> list[str]:
    return [file.path.name for file in pipeline.read_profile([source], Options())[2]]


def test_one_object_a_prefix_a_glob_and_odd_names(cloud: Store) -> None:
    base = f"{cloud.scheme}://export/live"
    assert _names(f"{base}/omop/person.parquet") == ["person.parquet"]
    assert _names(f"{base}/omop/pers") == ["person.parquet"]
    assert _names(f"{base}/omop/[pd]e*.parquet") == ["death.parquet", "person.parquet"]
    cloud.put("export/odd/a?b#c %41 [1].ndjson", b'{"resourceType": "Patient", "id": "1"}\n')
    _, ledger, _ = pipeline.read_profile([f"{cloud.scheme}://export/odd/"], Options())
    assert [(entry.read, entry.status) for entry in ledger.entries.values()] == [(1, "read")]


def test_a_whole_bucket_and_folders_by_prefix_and_glob(cloud: Store) -> None:
    """Google has no folders to list, but what the names of the objects say."""
    cloud.system.create_dir("tree")
    for place in ("a/x/1.ndjson", "a/y/2.ndjson", "b/x/3.ndjson"):
        cloud.put(f"tree/{place}", b'{"resourceType": "Patient", "id": "1"}\n')
    base = f"{cloud.scheme}://tree"
    assert _names(base) == ["1.ndjson", "2.ndjson", "3.ndjson"]
    assert _names(f"{base}/a/") == ["1.ndjson", "2.ndjson"]
    assert _names(f"{base}/*/x") == ["1.ndjson", "3.ndjson"]
    assert _names(f"{base}/**/2.*") == ["2.ndjson"]


def test_nothing_there_is_a_usage_error_of_one_line(cloud: Store, tmp_path: Path) -> None:
    for rest, says in (
        ("no-such-bucket/x/", "no such bucket"),
        ("no-such-bucket", "no such bucket"),
        ("export/nothing/here", "does not exist"),
        ("export/live/*.nothing", "does not exist"),
        ("", "name a bucket"),
        ("*/x", "name a bucket"),
    ):
        done = command("profile", f"{cloud.scheme}://{rest}", "-o", tmp_path / "p.json", **cloud.env)
        assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), (rest, done.stderr)


def _refused(source: str, tmp_path: Path, says: str, *secrets: str, **env: str) -> None:
    done = command("profile", source, "-o", tmp_path / "p.json", **NOTHING | {"HOME": str(tmp_path)} | env)
    assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr
    assert [secret for secret in secrets if secret in done.stderr] == []


def test_azure_with_wrong_credentials(abfs: Store, tmp_path: Path) -> None:
    url = f"http://{abfs.env['AZURE_STORAGE_CONNECTION_STRING'].split('http://')[1].split('/')[0]}"
    wrong = "AAAA" + KEY[4:]
    bad = _signature("rl")[:-8]
    for more, secret in (
        ({"AccountKey": wrong}, wrong[4:20]),
        ({"AccountKey": "not*base64"}, "not*base64"),
        ({"SharedAccessSignature": bad}, bad[-20:]),
    ):
        _refused(
            "abfs://export/live/omop",
            tmp_path,
            "access is denied",
            secret,
            KEY,
            AZURE_STORAGE_CONNECTION_STRING=connection_string(url, **more),
        )
    other = connection_string(url, AccountKey=KEY).replace(ACCOUNT, "nobodys")
    _refused("abfs://export/live/omop", tmp_path, "no such bucket", KEY, AZURE_STORAGE_CONNECTION_STRING=other)


def test_azure_signatures_with_and_without_a_question_mark(abfs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://{abfs.env['AZURE_STORAGE_CONNECTION_STRING'].split('http://')[1].split('/')[0]}"
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)
    for token in (_signature("rl"), "?" + _signature("rl")):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection_string(url, SharedAccessSignature=token))
        assert profiled("abfs://export/live/omop") == profiled(LIVE / "omop")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection_string(url, AccountName=""))  # the account is in the endpoint
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
        assert _names("abfs://export/live/omop/person.parquet") == ["person.parquet"]


def test_azure_signature_that_may_list_and_not_read_is_exit_3(abfs: Store, tmp_path: Path) -> None:
    url = f"http://{abfs.env['AZURE_STORAGE_CONNECTION_STRING'].split('http://')[1].split('/')[0]}"
    token = _signature("l")
    env = NOTHING | {"AZURE_STORAGE_CONNECTION_STRING": connection_string(url, SharedAccessSignature=token)}
    done = command("profile", "abfs://export/live/omop", "-o", tmp_path / "p.json", **env)
    assert (done.returncode, "15 data file(s) could not be read to the end" in done.stderr) == (3, True), done.stderr
    assert token[-20:] not in done.stderr + (tmp_path / "p.json").read_text()


def test_azure_where_nobody_listens(tmp_path: Path) -> None:
    connection = connection_string("http://127.0.0.1:1", AccountKey=KEY)
    _refused("abfs://export/live/", tmp_path, "cannot be reached", KEY, AZURE_STORAGE_CONNECTION_STRING=connection)


def test_google_that_nobody_answers_for(tmp_path: Path) -> None:
    _refused("gs://export/live/", tmp_path, "cannot be reached", STORAGE_EMULATOR_HOST="http://127.0.0.1:1")


def test_google_with_credentials_that_are_none(tmp_path: Path) -> None:
    account = {"type": "service_account", "project_id": "p", "private_key_id": "1", "client_email": "a@p.example", "client_id": "1"}
    (tmp_path / "key.json").write_text(json.dumps({**account, "private_key": "VERYSECRET", "token_uri": "http://127.0.0.1:1/"}))
    (tmp_path / "garbage.json").write_text("VERYSECRET")
    for name in ("key.json", "garbage.json", "nothing.json"):
        _refused("gs://export/live/", tmp_path, "access is denied", "VERYSECRET", GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / name))


def test_google_public_bucket_and_an_address_of_ones_own(gs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = gs.env["STORAGE_EMULATOR_HOST"]
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", urlsplit(url).netloc)  # as Go's tools take it
    assert _names("gs://export/live/omop/person.parquet") == ["person.parquet"]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "")
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", f"{url}/storage/v1/")
    monkeypatch.setenv("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "True")
    assert _names("gs://export/live/omop/person.parquet") == ["person.parquet"]


@pytest.mark.parametrize(
    ("connection", "source", "account", "blob", "dfs"),
    [
        ("AccountName=acct;AccountKey=aw==;EndpointSuffix=core.chinacloudapi.cn", "c/x", "acct", ".blob.core.chinacloudapi.cn", ".dfs.core.chinacloudapi.cn"),
        ("BlobEndpoint=https://acct.privatelink.blob.core.windows.net/;SharedAccessSignature=sig", "c/x", "acct",
         ".privatelink.blob.core.windows.net", ".privatelink.dfs.core.windows.net"),
        ("AccountName=other;AccountKey=aw==;EndpointSuffix=x.example", "c@acct.dfs.core.usgovcloudapi.net/x", "acct",
         ".blob.core.usgovcloudapi.net", ".dfs.core.usgovcloudapi.net"),
        ("", "c@acct.blob.core.windows.net/x", "acct", ".blob.core.windows.net", ".dfs.core.windows.net"),
    ],
)  # fmt: skip
def test_azure_accounts_in_other_clouds(
    monkeypatch: pytest.MonkeyPatch, connection: str, source: str, account: str, blob: str, dfs: str
) -> None:
    """What Arrow is asked for: there is no such cloud here."""
    import pyarrow.fs

    asked: dict[str, Any] = {}
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    monkeypatch.setattr(pyarrow.fs, "AzureFileSystem", lambda account, **options: asked.update(options, account=account))
    assert clouds.connected("abfs", source, source)[1] == "c/x"
    assert (asked["account"], asked["blob_storage_authority"], asked["dfs_storage_authority"]) == (account, blob, dfs)
    assert {asked["blob_storage_scheme"], asked["dfs_storage_scheme"]} == {"https"}
    assert ("account_key" in asked) == ("AccountName=acct" in connection), "a key goes to its own account only"


def test_azure_hosts_that_name_no_account_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"account\.dfs\.core\.windows\.net"):
        clouds.connected("abfs", "c@storage.hospital.example/x", "abfs://c@storage.hospital.example/x")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acct;AccountKey=aw==;BlobEndpoint=https://blobs.hospital.example")
    with pytest.raises(UsageError, match="begin or end with the account's name"):
        clouds.connected("abfs", "c/x", "abfs://c/x")
