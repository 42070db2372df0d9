"""Servers of ``.venv-servers`` that tests start (make servers)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator


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
