"""What every test stands on: the project's folders, a quiet terminal, no network, unhurried Hypothesis."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.samples import Samples

ROOT = Path(__file__).resolve().parent.parent

# No deadline: a slow machine is no defect. The counterexample is printed so that it can be replayed anywhere.
# EHRREADY_EXAMPLES=1000 looks longer.
settings.register_profile("ehrready", deadline=None, print_blob=True, max_examples=int(os.environ.get("EHRREADY_EXAMPLES", "30")))
settings.load_profile("ehrready")
# What the tests start compiles the package once, not in every process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _no_network(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse to look up or reach another machine, for Python code in this process."""
    if event == "socket.connect" and isinstance(address := arguments[1], tuple):
        host = address[0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in {"127.0.0.1", "::1", "localhost", None}:
        raise PermissionError("ehrready reaches no network: a test tried to")


sys.addaudithook(_no_network)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Same width and no colour wherever the tests run; no clock and no release tables from outside."""
    monkeypatch.setenv("EHRREADY_TERMINOLOGY", str(tmp_path_factory.getbasetemp() / "no-terminology"))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("FORCE_COLOR", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Return the measured sample data, which the workers of one run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "samples"
    folder.mkdir(exist_ok=True)
    return Samples(folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of published data beside the checkout; skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data" / "MANIFEST.csv").is_file():
        pytest.skip("needs ../shared/data (published data), which is not beside this checkout")
    return folder
