"""Peers on the same files: other tools from the Python registry, each in an environment of its own.

A peer is one module here: ``PACKAGES`` (pinned), ``FORMATS`` it reads, ``OPTIONS`` (what its own documentation recommends, in
words), ``NOTE`` (what had to be done to the files) and ``examine(live, reference)``, which runs in that environment, with
folders of FHIR NDJSON, and returns how many things of each kind the tool complains about; a tool that decides about a column or a
data set returns ``ALARM`` for it.

A class counts as found where a kind has at least half the planted number more than in the same population without the defect (or
an alarm that is not there without it): no peer is asked to have a threshold for what it merely counts.  Alarms on fresh samples
are the kinds that a tool complains about although nothing was planted.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ALARM = 1_000_000_000
#: Seconds that a peer may take for one data set.
LIMIT = 1800


def peers() -> dict[str, ModuleType]:
    """Return the peers by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.endswith("_peer"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def environment(peer: ModuleType, root: Path) -> Path | str:
    """Make the environment of a peer; returns its Python, or why there is none."""
    folder = root / peer.__name__.rpartition(".")[2]
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, check=False)
        if made.returncode == 0:
            command = [str(python), "-m", "pip", "install", "-q", *peer.PACKAGES]
            made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            return f"cannot be installed (pip ended with {made.returncode})"
        done.touch()
    return python


def examine(name: str, python: Path, live: Path, reference: Path) -> dict[str, int] | str:
    """Run a peer on a data set in its environment; returns its counts by kind, or why there are none."""
    module = peers()[name].__file__
    command = [str(python), str(Path(__file__).with_name("__main__.py")), str(module), str(live), str(reference)]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False, cwd=live.parent)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT} s"
    if ran.returncode:
        return f"ended with {ran.returncode}: {ran.stderr.decode(errors='replace').strip().splitlines()[-1:]}"
    return {str(kind): int(n) for kind, n in json.loads(ran.stdout.splitlines()[-1]).items()}


def verdict(found: dict[str, int], without: dict[str, int], planted: int) -> list[str]:
    """Return the kinds by which a class was found."""
    return sorted(kind for kind, n in found.items() if n - without.get(kind, 0) >= max(1, planted / 2))


def results(
    names: list[str], classes: list[str], patients: int, share: float, seeds: str, clean: int, cache: Path, environments: Path
) -> Iterator[dict[str, Any]]:
    """Yield a result per peer and class, and one per clean sample; kept in the cache."""
    from benchmarks.planted import samples
    from benchmarks.planted.classes import CLASSES

    live, _, first = samples.SEEDS[seeds]
    reference = _files(cache, f"training-{patients}", lambda: samples.population(samples.TRAINING_SEED, patients, "training"))
    plain = _files(cache, f"live-{live}-{patients}", lambda: samples.population(live, patients))
    for name in names:
        peer = peers()[name]
        python = environment(peer, environments)
        if isinstance(python, str):
            yield {"peer": name, "failed": python}
            continue
        without = _kept(cache, name, f"plain-{patients}-{seeds}", python, plain, reference)
        if isinstance(without, str):
            yield {"peer": name, "failed": without}
            continue
        for i in range(clean):
            folder = _files(cache, f"clean-{first + i}-{patients}", lambda i=i: samples.population(first + i, patients))
            fresh = _kept(cache, name, f"clean-{patients}-{seeds}-{i}", python, folder, reference)
            yield {
                "peer": name,
                "clean": i,
                "alarms": sorted(fresh) if isinstance(fresh, dict) else [],
                "failed": fresh if isinstance(fresh, str) else "",
            }
        for cls in classes:
            if "fhir" not in CLASSES[cls].formats:
                continue
            pop, hit = samples.planted(cls, share, patients, seeds, cache)
            folder = _files(cache, f"{cls}-{share:g}-{patients}-{seeds}", lambda pop=pop: pop)
            found = _kept(cache, name, f"{cls}-{share:g}-{patients}-{seeds}", python, folder, reference)
            by = verdict(found, without, hit) if isinstance(found, dict) else []
            yield {
                "peer": name,
                "class": cls,
                "planted": hit,
                "found": bool(by),
                "by": by,
                "failed": found if isinstance(found, str) else "",
            }


def _files(cache: Path, name: str, make: Any) -> Path:
    """Return a folder of plain NDJSON of a population."""
    import gzip

    from benchmarks.planted import samples

    folder = cache / "peer-files" / name
    if not (folder / ".done").exists():
        samples.write(make(), "fhir", folder)
        for packed in folder.glob("*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        (folder / ".done").touch()
    return folder


def _kept(cache: Path, name: str, what: str, python: Path, live: Path, reference: Path) -> dict[str, int] | str:
    """Run a peer, or return what it said before."""
    kept = cache / "peer-results" / f"{name}-{what}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(examine(name, python, live, reference)), encoding="utf-8")
    found: dict[str, int] | str = json.loads(kept.read_text(encoding="utf-8"))
    return found


def report(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the tables in Markdown."""
    shown = peers()
    failed = {row["peer"]: row["failed"] for row in rows if "class" not in row and "clean" not in row}
    names = list(dict.fromkeys(row["peer"] for row in rows))
    yield "| peer | version | options | what had to be done | classes found | kinds that it complains about on clean samples |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        mine = [row for row in rows if row["peer"] == name and "class" in row and not row["failed"]]
        clean = sorted({kind for row in rows if row["peer"] == name and "clean" in row for kind in row["alarms"]})
        cell = failed.get(name) or f"{sum(row['found'] for row in mine)} of {len(mine)}"
        peer = shown[name]
        yield f"| {peer.NAME} | {', '.join(peer.PACKAGES)} | {peer.OPTIONS} | {peer.NOTE} | {cell} | {len(clean)}: {', '.join(clean[:6]) or 'none'} |"
    yield ""
    run = [name for name in names if name not in failed]
    yield "| class | " + " | ".join(shown[name].NAME for name in run) + " |"
    yield "|---|" + "---|" * len(run)
    cells = {(row["class"], row["peer"]): row for row in rows if "class" in row}
    for cls in dict.fromkeys(row["class"] for row in rows if "class" in row):
        marks = []
        for name in run:
            row = cells.get((cls, name))
            marks.append("" if row is None else "failed" if row["failed"] else "yes" if row["found"] else "no")
        yield f"| {cls} | " + " | ".join(marks) + " |"
