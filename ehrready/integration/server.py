"""Fetches what a FHIR server declares of itself, from the base URL that the user gives; nothing else is asked for or sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ehrready.errors import SourceError, UsageError

if TYPE_CHECKING:
    import urllib3

#: Below the base URL: FHIR R4 http.html#capabilities, SMART App Launch 2.2 conformance.
METADATA, SMART = "metadata", ".well-known/smart-configuration"
_MAX_BYTES = 20_000_000
_SECONDS = 30
#: For all of an answer: one that comes byte by byte never waits long for the next.
_SECONDS_IN_ALL = 60


def fetch(base: str, path: str) -> bytes | None:
    """Return the answer of ``GET [base]/path`` as JSON bytes, None when the server has no such page (404, 401, 403).

    No credentials, no redirect.  Raises UsageError for an address that is none (plain HTTP is taken for this machine alone),
    SourceError when the server cannot be reached, is too slow or answers with something else.
    """
    import urllib3

    try:
        parts = urlsplit(base)
    except ValueError:  # a bracket that is not closed
        parts = urlsplit("")
    local = parts.hostname in {"127.0.0.1", "localhost", "::1"}
    if (
        parts.scheme not in {"https", "http"}
        or not parts.hostname
        or parts.username
        or parts.query
        or parts.fragment
        or (parts.scheme == "http" and not local)
    ):
        raise UsageError("--base must be an https address without a user name, a query or a fragment, such as https://ehr.example/fhir/r4")
    again = urllib3.Retry(
        total=2, backoff_factor=0.2, status_forcelist=(429, 502, 503, 504), redirect=0, raise_on_status=False, raise_on_redirect=False,
        respect_retry_after_header=False,  # it may ask for an hour
    )  # fmt: skip
    accept = "application/fhir+json, application/json" if path == METADATA else "application/json"
    try:
        with urllib3.PoolManager(retries=again, timeout=_SECONDS) as pool:
            answer = pool.request("GET", f"{base.rstrip('/')}/{path}", headers={"Accept": accept}, preload_content=False)
            data = _read(answer)
    except urllib3.exceptions.HTTPError:
        raise SourceError(f"the server could not be reached for {path}: check the address, or save its answer and give the file") from None
    if answer.status in {401, 403, 404, 410} and path != METADATA:
        return None
    if answer.status != 200:
        raise SourceError(f"the server answered {answer.status} for {path}: save the answer that its administrators get, and give the file")
    if data is not None and len(data) > _MAX_BYTES:
        raise SourceError(f"the server's answer for {path} is larger than {_MAX_BYTES:,} bytes: this is no such document")
    if data is None:
        raise SourceError(f"the server took more than {_SECONDS_IN_ALL} seconds for {path}: save its answer, and give the file")
    return data


def _read(answer: urllib3.BaseHTTPResponse) -> bytes | None:
    """Return the answer, or its first bytes where it is too large; None when it does not come to an end in time."""
    end, parts, size = time.monotonic() + _SECONDS_IN_ALL, [], 0
    try:
        while size <= _MAX_BYTES and (part := answer.read1(1 << 16)):
            if time.monotonic() > end:
                return None
            parts.append(part)
            size += len(part)
    finally:
        answer.close()
    return b"".join(parts)
