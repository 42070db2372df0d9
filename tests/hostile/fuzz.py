"""The longer run of the fuzzers: ``python -m tests.hostile.fuzz --seconds N [--seed S]`` (or ``make fuzz``).

Each round makes files from a new seed and reads them in a process of its own, so that a library that aborts is found too.
A round that fails leaves its files in a folder and ends the run with exit 1; its seed repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.hostile import hl7v2_cases, json_cases, table_cases

ROOT = Path(__file__).parents[2]
FILES = 400


def json_files(seed: int) -> list[bytes]:
    """Return NDJSON with one record in eleven broken: documents cut, spliced and flipped at random."""
    rng = random.Random(seed)
    pool = [line for _, line, _ in json_cases.documents() if len(line) < 5000]
    good = json.dumps(json_cases.RESOURCE).encode()
    files = []
    for _ in range(FILES):
        bad = bytearray(rng.choice(pool) + rng.choice(pool) if rng.random() < 0.3 else rng.choice(pool))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(bad) + 1)
            bad[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4)).replace(b"\n", b"")
        files.append(b"\n".join([good] * 3 + [bytes(bad)] + [good] * 7) + b"\n")
    return files


def hl7v2_files(seed: int) -> list[bytes]:
    """Return mutations of the tiny cases and, where they are there, of the published messages."""
    folders = [ROOT / "tests" / "cases" / "hl7v2", ROOT.parent / "shared" / "data" / "hl7v2"]
    sources = [data for folder in folders for path in sorted(folder.rglob("*.hl7")) if 0 < len(data := path.read_bytes()) < 20_000]
    return list(hl7v2_cases.mutations(sources, FILES, seed))


KINDS: dict[str, Callable[[int], list[bytes]]] = {
    "ndjson": json_files,
    "hl7": hl7v2_files,
    "parquet": lambda seed: list(table_cases.mutations(FILES, seed)),
    "csv": lambda seed: list(table_cases.csv_mutations(FILES // 4, seed)),
}
_READ = (
    "import sys; from ehrready.pipeline import Options, read_profile; "
    "p, l, _ = read_profile([sys.argv[1]], Options(threads=2)); "
    "assert p.total('read') == p.total('profiled') + p.total('rejected'); "
    "assert 'unreadable' not in {e.status for e in l.entries.values()} or sys.argv[2] in ('parquet', 'csv', 'hl7'); print(p.total('read'))"
)
#: Random sources against plain Python: rows and counts, not only that they are read.
_ASK = (
    "import sys; from pathlib import Path; from ehrready.readers import blocks, leaves; from tests.hostile import test_oracles as rows, test_profile_oracle as counts; "
    "folder, seed, n = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4]); "
    "leaves.FEW = (2048, 0, 5)[seed % 3]; blocks.BLOCK_BYTES = (1 << 25, 200_000)[seed % 2]; "
    "asks = {'fhir': lambda: rows.fhir_problems(folder, seed, n, shared=seed % 4 < 2), 'hl7v2': lambda: rows.hl7v2_problems(folder, seed, n, shared=seed % 4 < 2), "
    "'omop': lambda: counts.omop_problems(folder, seed, n), 'csv': lambda: counts.csv_problems(folder, seed, n), 'fhir-counts': lambda: counts.fhir_problems(folder, seed, n), "
    "'hl7v2-counts': lambda: counts.hl7v2_problems(folder, seed, n)}; "
    "problems = asks[sys.argv[3]](); sys.exit(str(problems) if problems else 0)"
)
ORACLES = {"fhir": 3000, "hl7v2": FILES, "omop": 16, "csv": 1000, "fhir-counts": 1200, "hl7v2-counts": FILES}


def _asked(seed: int) -> int:
    """Ask the oracles about sources from a seed; returns the number of their records or files.  Raises SystemExit for a finding."""
    for kind, count in ORACLES.items():
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            call = [sys.executable, "-c", _ASK, folder, str(seed), kind, str(count)]
            done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
        if done.returncode:
            raise SystemExit(f"finding: the oracle of {kind}, seed {seed}\n{done.stderr[-2000:]}")
    return sum(ORACLES.values())


def run(seconds: float, seed: int) -> int:
    """Fuzz for some seconds; returns the number of files that were read.  Raises SystemExit for a finding."""
    end, files = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for kind, make in KINDS.items():
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            for number, data in enumerate(make(seed)):
                (folder / f"{number:05d}.{kind}").write_bytes(data)
                files += 1
            done = subprocess.run(
                [sys.executable, "-c", _READ, str(folder), kind], capture_output=True, text=True, check=False, cwd=ROOT, timeout=600
            )
            if done.returncode:
                raise SystemExit(f"finding: {kind}, seed {seed}, exit {done.returncode}; files in {folder}\n{done.stderr[-2000:]}")
            shutil.rmtree(folder)
        files += _asked(seed)
        seed += 1
    return files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1000)
    given = parser.parse_args()
    sys.stdout.write(f"{run(given.seconds, given.seed):,} files, no finding\n")
