"""What the tests of sources share: the sample data as OMOP tables, and profiles to compare."""

from __future__ import annotations

import copy
import functools
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ehrready import pipeline
from ehrready.pipeline import Options
from ehrready.profile import Profile
from tests.helpers import forked

PROJECT = Path(__file__).parents[2]
OMOP = PROJECT / "sample_data" / "live" / "omop"
TABLES = {path.stem: path for path in sorted(OMOP.glob("*.parquet"))}
LIVE = PROJECT / "sample_data" / "live"
#: Account and key that Azurite has for everybody (its documentation prints them).
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#: Whatever a tool for a cloud might have left in the environment; "" takes it away from a run.
NOTHING = dict.fromkeys(
    (
        "STORAGE_EMULATOR_HOST", "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", "CLOUDSDK_AUTH_DISABLE_CREDENTIALS",
        "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN",
    ),
    "",
)  # fmt: skip


def profiled(*sources: str | Path, **options: Any) -> bytes:
    """Return the exact profile of sources as it is saved; the sample data is read once."""
    return _read(*sources, **options).to_json()


def sizeless(*sources: str | Path, **options: Any) -> bytes:
    """Return the exact profile of sources without the bytes of their files: a table of a database has none."""
    profile = _read(*sources, **options)
    for key, (files, _, *records) in profile.frames["ledger"].items():
        profile.frames["ledger"][key] = (files, 0, *records)
    return profile.to_json()


def _read(*sources: str | Path, **options: Any) -> Profile:
    if not options and all(isinstance(source, Path) and source.is_relative_to(PROJECT / "sample_data") for source in sources):
        return copy.deepcopy(_sample(sources))
    return pipeline.read_profile([str(source) for source in sources], Options(internal=True, memory="1GB", **options))[0]


@functools.cache
def _sample(sources: tuple[Path, ...]) -> Profile:
    return pipeline.read_profile([str(source) for source in sources], Options(internal=True, memory="1GB"))[0]


def command(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return forked.run_text(*arguments, env=env)


@dataclass(frozen=True)
class Store:
    """A server that runs: the scheme of its sources, a file system to put things there, and how a user names it."""

    scheme: str
    system: Any
    env: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, data: bytes) -> None:
        with self.system.open_output_stream(name, compression=None) as stream:
            stream.write(data)

    def fill(self) -> None:
        self.system.create_dir("export")
        for path in sorted(LIVE.rglob("*")):
            if path.is_file():
                self.put(f"export/live/{path.relative_to(LIVE)}", path.read_bytes())


def connection_string(url: str, **more: str) -> str:
    """Return a connection string of Azure for a server at a URL."""
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": ACCOUNT, "BlobEndpoint": f"{url}/{ACCOUNT}", **more}
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)
