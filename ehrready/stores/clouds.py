"""Arrow's file systems for S3, Google and Azure, made from what stands in the environment under the names the clouds' own tools use."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ehrready.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What to set where a store refuses, by the family of its scheme.
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile in ~/.aws), or AWS_NO_SIGN_REQUEST=YES for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS (or log in with gcloud), or CLOUDSDK_AUTH_DISABLE_CREDENTIALS=True for a public bucket",
    "abfs": "set AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING, or log in with az",
    "https": "give a URL that may be read without a login, such as a signed one",
}
#: Where the address of a store may be set that is not the cloud's own.
ENDPOINTS = {
    "s3": ", the endpoint (AWS_ENDPOINT_URL)",
    "gs": ", the endpoint (CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE or STORAGE_EMULATOR_HOST)",
    "abfs": ", the endpoint (AZURE_STORAGE_CONNECTION_STRING)",
}
_YES = frozenset({"YES", "TRUE", "1"})
#: Google's client tries again for this long when a request fails that may yet succeed; and for this long whether anybody answers.
_RETRIES, _FIRST_RETRIES = timedelta(seconds=60), timedelta(seconds=5)
_AZURE_HOST = re.compile(r"([^.]+)(?:\.(?:dfs|blob)(\..+))?")


def connected(family: str, rest: str, place: str) -> tuple[Any, str]:
    """Return the file system of a store (family ``s3``, ``gs`` or ``abfs``) and the path in it; ``place`` is for messages.

    Raises UsageError; what is wrong with a key shows on the first request only.
    """
    return {"s3": _s3, "gs": _google, "abfs": _azure}[family](rest, place)


def _s3(rest: str, _place: str) -> tuple[Any, str]:
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in _YES
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _region(rest.partition("/")[0], endpoint)
    return S3FileSystem(endpoint_override=endpoint, anonymous=anonymous, region=region), rest


def _region(bucket: str, endpoint: str | None) -> str | None:
    """Ask S3 for the region of a bucket; None where nobody says."""
    from pyarrow.fs import resolve_s3_region

    if endpoint is not None or not bucket:
        return None
    try:
        found: str = resolve_s3_region(bucket)
    except OSError:
        return None
    return found


def _google(rest: str, _place: str) -> tuple[Any, str]:
    from pyarrow.fs import GcsFileSystem

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    address = emulator or os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", "")
    options: dict[str, Any] = {}
    if address:
        url = urlsplit(address if "://" in address else f"http://{address}")  # tools give the emulator without a scheme, too
        options |= {"endpoint_override": url.netloc, "scheme": url.scheme}
    if emulator or os.environ.get("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "").upper() in _YES:
        options["anonymous"] = True
    try:
        GcsFileSystem(**options, retry_time_limit=_FIRST_RETRIES).get_file_info(rest.partition("/")[0])
    except OSError as error:
        if "curl error" in str(error).lower():  # no answer; who answers, if only to refuse the bucket, may have the object
            raise
    return GcsFileSystem(**options, retry_time_limit=_RETRIES), rest


def _azure(rest: str, place: str) -> tuple[Any, str]:
    from pyarrow.fs import AzureFileSystem

    container, _, key = rest.partition("/")
    container, _, host = container.partition("@")
    named = _AZURE_HOST.fullmatch(host)
    if host and not named:
        raise UsageError(f"{place}: name the host of the account as account.dfs.core.windows.net")
    settings = _settings(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    theirs = _account(settings)
    account = (
        (named[1] if named else "") or theirs or os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    )
    if not account:
        raise UsageError(f"{place}: {CREDENTIALS['abfs']}")
    if theirs and account != theirs:  # the URL names another account: its keys are not sent there
        settings = {}
    suffix = named[2] if named and named[2] else ""
    options = _azure_address(account, settings, suffix, place) | _azure_key(settings)
    return AzureFileSystem(account, **options), f"{container}/{key}"


def _settings(text: str) -> dict[str, str]:
    """Return a connection string of Azure as what it sets, by lower-case name."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if value.strip()}


def _account(settings: Mapping[str, str]) -> str:
    """Return the account that a connection string is for: one with a signature names it in its endpoint only."""
    url = urlsplit(settings.get("blobendpoint", ""))
    return settings.get("accountname") or url.path.strip("/") or (url.hostname or "").partition(".")[0]


def _azure_address(account: str, settings: Mapping[str, str], suffix: str, place: str) -> dict[str, str]:
    """Return where Azure's blob and data-lake services answer, as Arrow takes it: a suffix of the account's name, or a host of its own."""
    scheme = settings.get("defaultendpointsprotocol", "https")
    suffix = suffix or "." + settings.get("endpointsuffix", "core.windows.net")
    found: dict[str, str] = {}
    for service in ("blob", "dfs"):
        authority, url = f".{service}{suffix}", urlsplit(settings.get(f"{service}endpoint") or settings.get("blobendpoint", ""))
        if url.netloc:
            scheme, authority = url.scheme, url.netloc
            if url.path.strip("/") != account:
                if not authority.startswith(f"{account}."):
                    raise UsageError(f"{place}: the endpoints in AZURE_STORAGE_CONNECTION_STRING must begin or end with the account's name")
                authority = authority.removeprefix(account)
                if not settings.get(f"{service}endpoint"):
                    authority = authority.replace(".blob.", f".{service}.")
        found |= {f"{service}_storage_authority": authority, f"{service}_storage_scheme": scheme}
    return found


def _azure_key(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the key or the signature; neither leaves Arrow to ask Azure's own chain (service principal, managed identity, az)."""
    get = os.environ.get
    own = settings.get("accountkey") or settings.get("sharedaccesssignature")
    key = settings.get("accountkey") if own else get("AZURE_STORAGE_KEY") or get("AZURE_STORAGE_ACCOUNT_KEY")
    if key:
        return {"account_key": key}
    token = settings.get("sharedaccesssignature") if own else get("AZURE_STORAGE_SAS_TOKEN")
    # Arrow puts it behind the URL as it is, and az gives it without the question mark.
    return {"sas_token": "?" + token.removeprefix("?")} if token else {}
