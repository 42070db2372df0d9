"""Stores of three clouds that run on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.helpers.servers import azurite, google, moto
from tests.stores.store_helpers import ACCOUNT, KEY, NOTHING, Store, connection_string


@pytest.fixture(scope="module")
def gs() -> Iterator[Store]:
    from pyarrow.fs import GcsFileSystem

    with google() as url:
        system = GcsFileSystem(anonymous=True, endpoint_override=urlsplit(url).netloc, scheme="http", project_id="p")
        store = Store("gs", system, NOTHING | {"STORAGE_EMULATOR_HOST": url})
        store.fill()
        yield store


@pytest.fixture(scope="module")
def abfs() -> Iterator[Store]:
    from pyarrow.fs import AzureFileSystem

    with azurite() as url:
        host = urlsplit(url).netloc
        system = AzureFileSystem(
            ACCOUNT,
            account_key=KEY,
            blob_storage_authority=host,
            dfs_storage_authority=host,
            blob_storage_scheme="http",
            dfs_storage_scheme="http",
        )
        store = Store("abfs", system, NOTHING | {"AZURE_STORAGE_CONNECTION_STRING": connection_string(url, AccountKey=KEY)})
        store.fill()
        yield store


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    from pyarrow.fs import S3FileSystem

    with moto() as url:
        env = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-real", "AWS_REGION": "us-east-1"}
        system = S3FileSystem(
            access_key="key",
            secret_key="not-real",  # noqa: S106 - of a server that lives as long as the tests
            endpoint_override=url,
            region="us-east-1",
            allow_bucket_creation=True,
        )
        system.create_dir("export")
        yield Store("s3", system, env)


def _named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    store: Store = request.getfixturevalue(request.param)
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(params=["gs", "abfs"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Google's store, then Azure's, named in the environment as a user does."""
    return _named(request, monkeypatch)


@pytest.fixture(params=["s3", "gs", "abfs"])
def any_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Each of the stores."""
    return _named(request, monkeypatch)
