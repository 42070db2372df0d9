"""How fast is ehrready beside the limit and its peers?  Whole commands, interleaved, on data that this makes itself.

    python -m benchmarks.performance [CASE ...] [--rounds 3] [--data DIR] [--scale 1.0] [--json FILE] [--docs]

Cases: ``fhir bundles hl7v2 omop compare start memory peers`` (default: all but ``peers``, which takes an hour, and ``memory``'s
10 GB, which ``--big`` adds).  A round runs each program of a case once, in turn, so that a slow moment of the machine hits all;
printed are medians and the median of the ratios within a round.  ``--docs`` writes the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN, END = "<!-- benchmarks.performance: begin -->", "<!-- benchmarks.performance: end -->"
#: Megabytes of input at --scale 1; peers get a part that they finish in minutes, and are compared by MB/s.
FHIR_MB, HL7V2_MB = 300, 100
#: Mebibytes that a run at --memory 1GB may take, whatever its input.
MOST_MIB = 1536
PEER_MB = {"fhir.resources": 20, "python-hl7": 10, "hl7apy": 0.5}
PEER_PINS = {"python-hl7": "hl7==0.4.5", "hl7apy": "hl7apy==1.3.5"}


@dataclass(frozen=True)
class Program:
    """A whole command: ``mb`` of input, so that runs on inputs of other sizes can be compared by rate."""

    name: str
    command: tuple[str, ...]
    mb: float
    #: exit codes that are a finished run (a gate may fail)
    fine: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Case:
    """One line of the table: ``mine`` against ``other``, and the goal as a sentence and a bound on the ratio."""

    name: str
    input: str
    mine: Program
    other: Program
    goal: str
    #: the ratio is mine/other in seconds per MB; it should be at most this
    most: float


@dataclass
class Runs:
    """What was measured of one program, a value per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


def run(program: Program) -> tuple[float, float, float]:
    """Run a command; return wall seconds, CPU seconds and the peak memory of its largest process in MB.

    The peak is 0 where it cannot be told: a process that needs less than this one did has this one's peak (it is its copy at first).
    """
    with tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            program.command, stdout=subprocess.DEVNULL, stderr=err, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        if code not in program.fine:
            err.seek(0)
            sys.exit(f"{program.name} ended with {code}: {err.read()[-500:].decode(errors='replace')}")
    peak = usage.ru_maxrss if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else 0
    return wall, usage.ru_utime + usage.ru_stime, peak / 1024


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def _check(folder: Path, out: Path, *more: str, label: str = "ehrready check") -> Program:
    command = (
        sys.executable, "-m", "ehrready", "check", str(folder), "--html", str(out / "r.html"), "--json", str(out / "r.json"), *more,
    )  # fmt: skip
    return Program(label, command, _size(folder), (0, 1))


def _limit(name: str, folder: Path, python: str = sys.executable) -> Program:
    return Program(name, (python, "-m", "benchmarks.performance.limits", name, str(folder)), _size(folder))


def _venv(data: Path, name: str) -> str:
    """Return the Python of an environment that has one peer alone, made on first use."""
    home = data / f"venv-{name}"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", PEER_PINS[name]], check=True)
        (home / "ready").touch()
    return str(home / "bin/python")


def _fhir(data: Path, scale: float, out: Path) -> list[Case]:
    from benchmarks.performance import exports

    folder = exports.fhir(data / f"fhir-{FHIR_MB * scale:g}", FHIR_MB * scale)
    label = f"{_size(folder):.0f} MB mixed FHIR NDJSON"
    return [Case("fhir", label, _check(folder, out), _limit("read-json", folder), "at most 4 × DuckDB's typed read_json (aim: 2 ×)", 4)]


def _bundles(data: Path, scale: float, out: Path) -> list[Case]:
    from benchmarks.performance import exports

    lines = exports.fhir(data / f"fhir-{FHIR_MB * scale:g}", FHIR_MB * scale)
    folder = exports.bundles(data / f"bundles-{FHIR_MB * scale:g}", FHIR_MB * scale)
    return [
        Case(
            "bundles",
            "the same as Bundles",
            _check(folder, out),
            _check(lines, out, label="as NDJSON"),
            "at most 1.5 × itself as NDJSON",
            1.5,
        )
    ]


def _hl7v2(data: Path, scale: float, out: Path) -> list[Case]:
    from benchmarks.performance import exports

    folder = exports.hl7v2(data / f"hl7v2-{HL7V2_MB * scale:g}", HL7V2_MB * scale)
    goal = "at most 3 × splitting every segment in DuckDB SQL"
    return [Case("hl7v2", f"{_size(folder):.0f} MB HL7v2 batch", _check(folder, out), _limit("split-segments", folder), goal, 3)]


def _omop(data: Path, scale: float, out: Path) -> list[Case]:
    from benchmarks.performance.data import omop

    rows = {"measurements": int(5e6 * scale), "conditions": int(1e6 * scale), "visits": int(1e6 * scale), "persons": int(50_000 * scale)}
    folder = omop(data / f"omop-{scale:g}", **rows)
    label = f"OMOP Parquet, {rows['measurements']:,} measurements, {rows['conditions']:,} conditions, {rows['visits']:,} visits"
    mine = _check(folder, out)
    return [
        Case("omop", label, mine, _limit("summarize", folder), "at most 1 × DuckDB SUMMARIZE (aim: ½)", 1),
        Case("omop-gx", "the same", mine, _limit("great-expectations", folder), "at least 3 × faster than 10 expectations of GX", 1 / 3),
    ]


def _compare(data: Path, scale: float, _: Path) -> list[Case]:
    from benchmarks.performance.data import omop

    profiles = []
    for name, seed in (("live", 11), ("training", 12)):
        folder = omop(
            data / f"million-{name}-{scale:g}", persons=int(1e6 * scale), measurements=int(5e6 * scale), conditions=int(1e6 * scale),
            visits=int(1e6 * scale), seed=seed,
        )  # fmt: skip
        profile = data / f"million-{name}-{scale:g}.profile.json"
        if not profile.exists():
            subprocess.run([sys.executable, "-m", "ehrready", "profile", folder, "-o", profile, "--name", name], check=True, cwd=ROOT)
        profiles.append(str(profile))
    nothing = Program("2 s", (sys.executable, "-c", "import time; time.sleep(2)"), 1)
    mine = Program("ehrready compare", (sys.executable, "-m", "ehrready", "compare", *profiles), 1, (0, 1, 3))
    return [Case("compare", f"two profiles of {int(1e6 * scale):,} patients", mine, nothing, "less than 2 s", 1)]


def _start(_: Path, __: float, ___: Path) -> list[Case]:
    typer = Program("import typer, rich", (sys.executable, "-c", "import typer, rich"), 1)
    return [
        Case(
            "start",
            option,
            Program(f"ehrready {option}", (sys.executable, "-m", "ehrready", option), 1),
            typer,
            "at most 3 × importing typer and rich",
            3,
        )
        for option in ("--version", "--help")
    ]


def _memory(data: Path, scale: float, out: Path, *, big: bool) -> list[Case]:
    """Each size against the one before it: the ratio of seconds per MB tells whether time is linear."""
    from benchmarks.performance import exports

    sizes = [100, 1000, *([10_000] if big else [])]
    folders = [exports.fhir(data / f"fhir-{size * scale:g}", size * scale) for size in sizes]
    programs = [_check(folder, out, "--memory", "1GB", label=f"{size * scale:g} MB") for size, folder in zip(sizes, folders, strict=True)]
    goal = "seconds per MB within 10 %, peak memory below 1.5 GiB"
    return [
        Case("memory", f"{after.name} of FHIR NDJSON at --memory 1GB", after, before, goal, 1.1) for before, after in pairwise(programs)
    ]


def _peers(data: Path, scale: float, out: Path) -> list[Case]:
    from benchmarks.performance import exports

    fhir = exports.fhir(data / f"fhir-{FHIR_MB * scale:g}", FHIR_MB * scale)
    small = exports.fhir(data / f"fhir-{PEER_MB['fhir.resources']:g}", PEER_MB["fhir.resources"])
    feed = exports.hl7v2(data / f"hl7v2-{HL7V2_MB * scale:g}", HL7V2_MB * scale)
    by_rate = " (compared by MB/s)"
    cases = [
        Case("fhir.resources", f"FHIR NDJSON, {_size(small):.0f} MB for the peer{by_rate}", _check(fhir, out), _limit("fhir.resources", small),
             "at least 50 × faster than fhir.resources parsing alone", 1 / 50),
    ]  # fmt: skip
    for name, times in (("python-hl7", 25), ("hl7apy", 400)):
        part = _part(feed, data / f"{name}-sample", PEER_MB[name])
        goal = f"at least {times} × faster than {name} parsing alone"
        peer = _limit(name, part, _venv(data, name))
        cases.append(Case(name, f"HL7v2, {_size(part):g} MB for the peer{by_rate}", _check(feed, out), peer, goal, 1 / times))
    return cases


def _part(feed: Path, folder: Path, megabytes: float) -> Path:
    """Return a folder with evenly drawn messages of the feed, up to the size: it begins with one kind of message only."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "feed.hl7"
    if not target.exists():
        messages = (feed / "feed.hl7").read_bytes().partition(b"BTS|")[0].split(b"MSH|")[1:]
        step = max(1, int(sum(map(len, messages)) / (megabytes * 1e6)))
        target.write_bytes(b"".join(b"MSH|" + message for message in messages[::step]))
    return folder


def measure(cases: list[Case], rounds: int) -> list[dict[str, Any]]:
    """Run the cases; returns a row each."""
    rows = []
    for case in cases:
        mine, other = Runs(), Runs()
        for _ in range(rounds):
            for program, runs in ((case.mine, mine), (case.other, other)):
                wall, cpu, rss = run(program)
                runs.wall.append(wall)
                runs.cpu.append(cpu)
                runs.rss.append(rss)
        per_mb = case.other.mb / case.mine.mb
        ratio = statistics.median(a / b * per_mb for a, b in zip(mine.wall, other.wall, strict=True))
        cpu_ratio = statistics.median(a / b * per_mb for a, b in zip(mine.cpu, other.cpu, strict=True))
        row = {
            "case": case.name, "input": case.input, "goal": case.goal, "other": case.other.name, "rounds": rounds,
            "wall": statistics.median(mine.wall), "other_wall": statistics.median(other.wall), "cpu": statistics.median(mine.cpu),
            "other_cpu": statistics.median(other.cpu), "ratio": ratio, "cpu_ratio": cpu_ratio, "most": case.most, "mb": case.mine.mb,
            "mb_per_s": case.mine.mb / statistics.median(mine.wall), "peak_mb": max(mine.rss), "reached": ratio <= case.most and (case.name != "memory" or max(mine.rss) <= MOST_MIB),
        }  # fmt: skip
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| input | goal | ratio, wall (CPU) | reached | ehrready: wall s, CPU s | the other: wall s, CPU s | MB/s | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = f"{row['mb_per_s']:.0f}" if row["mb"] > 1 else ""
        peak = f"{row['peak_mb']:.0f}" if row["peak_mb"] else ""
        lines.append(
            f"| {row['input']} | {row['goal']} | {_times(row['ratio'])} ({_times(row['cpu_ratio'])}) | {'yes' if row['reached'] else '**no**'} "
            f"| {row['wall']:.2f}, {row['cpu']:.2f} | {row['other']}: {row['other_wall']:.2f}, {row['other_cpu']:.2f} | {rate} | {peak} |"
        )
    return "\n".join(lines)


def _environment() -> str:
    from importlib.metadata import version

    names = ("duckdb", "pyarrow", "numpy", "great-expectations", "fhir.resources")
    peers = ", ".join(PEER_PINS.values())
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in names)}; peers: {peers}"


def main() -> None:
    """Read the arguments, run, print."""
    cases: dict[str, Callable[[Path, float, Path], list[Case]]] = {
        "fhir": _fhir, "bundles": _bundles, "hl7v2": _hl7v2, "omop": _omop, "compare": _compare, "start": _start, "peers": _peers,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", default=[name for name in [*cases, "memory"] if name != "peers"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes that the goals are about")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "performance", help="where the data is kept between runs")
    parser.add_argument("--big", action="store_true", help="memory: also 10 GB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.case:
            if name == "memory":
                found = _memory(given.data, given.scale, Path(scratch), big=given.big)
            elif name in cases:
                found = cases[name](given.data, given.scale, Path(scratch))
            else:
                parser.error(f"no case is called {name}: {', '.join([*cases, 'memory'])}")
            rows += measure(found, given.rounds)
    text = f"{table(rows)}\n\n{_environment()}; medians of {given.rounds} rounds."
    print(text)
    if given.json:
        given.json.write_text(json.dumps({"environment": _environment(), "rows": rows}, indent=1) + "\n", "utf-8")
    if given.docs:
        page = ROOT / "docs" / "performance.md"
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
