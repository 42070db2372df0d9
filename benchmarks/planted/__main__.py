"""The planted-defect benchmark: what is found, how exactly it is counted, and how often nothing is reported as something.

    python -m benchmarks.planted [--patients 2000] [--shares 0.005 0.02 0.1] [--formats fhir hl7v2 omop] [--json FILE]

Population, training set and defects are synthetic and seeded; the seeds are the benchmark's own.  Every class is planted
alone, in a fresh sample of the population that the training profile was made of.  Prints Markdown.  ``--cache`` keeps the
measured profiles, so that another rule or limit is judged in a minute; a change of what is measured needs a new folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.planted import samples
from benchmarks.planted.samples import SEEDS, TRAINING_PATIENTS

ALARMS = ("fail", "warn", "error")
#: From this size on there are fewer clean samples (``--large``).
LARGE = 10_000


def judged(profile: Any, fmt: str, cache: Path) -> dict[str, Any]:
    """Judge a profile against the training profile of its format; returns the (internal) scorecard's document."""
    from ehrready import api

    return dict(api.compare(profile, samples.training(fmt, cache), internal=True).document)


def one(job: tuple[str, str, float, int, str, Path]) -> dict[str, Any]:
    """Plant one class in one format and say whether it was found, how it was counted, and what else alarmed."""
    from benchmarks.planted.classes import CLASSES

    name, fmt, share, _, _, cache = job
    cls = CLASSES[name]
    profile, hit = samples.of_planted(*job)
    findings = judged(profile, fmt, cache)["findings"]
    found = [
        f for f in findings if f["status"] in ALARMS and f["check"] in cls.checks and (f["element"] in cls.elements or not f["element"])
    ]
    exact = [f for f in findings if cls.exact == (f["check"], f["defect"]) and f["element"] in cls.elements]
    # of the element that alarmed, else of the one with most
    counted = [f["numerator"] for f in sorted(exact, key=lambda f: (f["status"] not in ALARMS, -(f["numerator"] or 0)))]
    return {
        "class": name,
        "format": fmt,
        "share": share,
        "planted": hit,
        "found": bool(found),
        "by": sorted({f["rule"] for f in found}),
        "counted": counted[0] if counted else None,
        "exact": cls.exact is not None,
        "others": sorted({f["rule"] for f in findings if f["status"] in ALARMS and f not in found}),
    }


def clean(job: tuple[int, int, str, Path]) -> dict[str, Any]:
    """Check a fresh sample of the training population: every alarm is false."""
    seed, patients, fmt, cache = job
    document = judged(samples.of_clean(seed, patients, fmt, cache), fmt, cache)
    units: dict[tuple[str, str], str] = {}
    for f in document["findings"]:
        if f["status"] in ("pass", *ALARMS):
            key = (f["rule"], f["element"])
            units[key] = "alarm" if f["status"] in ALARMS or units.get(key) == "alarm" else "pass"
    return {
        "seed": seed,
        "patients": patients,
        "format": fmt,
        "assessed": len(units),
        "alarms": sorted(" ".join(k) for k, v in units.items() if v == "alarm"),
        "verdict": document["verdict"],
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def report(results: list[dict[str, Any]], cleans: list[dict[str, Any]], patients: int) -> str:
    """Return the tables in Markdown."""
    lines = [f"Planted in {patients:,} patients, training on {TRAINING_PATIENTS:,}; recall by class:", ""]
    formats = sorted({r["format"] for r in results})
    shares = sorted({r["share"] for r in results})
    columns = [(fmt, share) for fmt in formats for share in shares]
    rows = []
    for name in dict.fromkeys(r["class"] for r in results):
        cells = []
        for fmt, share in columns:
            hit = [r for r in results if (r["class"], r["format"], r["share"]) == (name, fmt, share)]
            exact = hit and hit[0]["exact"]
            mark = "yes" if hit and hit[0]["found"] else "**no**"
            error = f" ({hit[0]['counted']} of {hit[0]['planted']})" if exact and hit[0]["counted"] != hit[0]["planted"] else ""
            cells.append(mark + error if hit else "")
        rows.append([name, *cells])
    lines += _table(["class", *(f"{fmt} {100 * share:g} %" for fmt, share in columns)], rows)
    lines += ["", "Recall and exact counts:", ""]
    rows = []
    for fmt, share in columns:
        mine = [r for r in results if (r["format"], r["share"]) == (fmt, share)]
        countable = [r for r in mine if r["exact"]]
        right = sum(r["counted"] == r["planted"] for r in countable)
        rows.append([f"{fmt} {100 * share:g} %", f"{sum(r['found'] for r in mine)} of {len(mine)}", f"{right} of {len(countable)}"])
    lines += _table(["", "classes found", "numerators equal to the planted count"], rows)
    if cleans:
        lines += ["", "Fresh samples of the training population, nothing planted:", ""]
        rows = []
        for fmt in sorted({c["format"] for c in cleans}):
            for size in sorted({c["patients"] for c in cleans}):
                mine = [c for c in cleans if (c["format"], c["patients"]) == (fmt, size)]
                alarms, assessed = sum(len(c["alarms"]) for c in mine), sum(c["assessed"] for c in mine)
                worst = ", ".join(sorted({c["verdict"] for c in mine}))
                which = ", ".join(sorted({a for c in mine for a in c["alarms"]}))
                rows.append([fmt, f"{size:,}", len(mine), f"{100 * alarms / max(1, assessed):.2f}", worst, which])
        lines += _table(["format", "patients", "samples", "false alarms per 100 assessed rules", "verdicts", "which"], rows)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.005, 0.02, 0.1])
    parser.add_argument("--formats", nargs="+", default=["fhir", "hl7v2", "omop"])
    parser.add_argument("--classes", nargs="*", default=[])
    parser.add_argument("--clean", type=int, nargs="*", default=[300, 3000, 20000], help="sizes of the clean samples")
    parser.add_argument("--samples", type=int, default=5, help="clean samples per size and format")
    parser.add_argument("--large", type=int, default=1, help="the same, from 10,000 patients on")
    parser.add_argument("--seeds", choices=sorted(SEEDS), default="held-out")
    parser.add_argument(
        "--peers", nargs="*", help="run other tools instead, in environments made for them (default: all that benchmarks/planted/peers has)"
    )
    parser.add_argument("--environments", type=Path, help="where the environments of peers are kept")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    from benchmarks.planted.classes import CLASSES

    if given.peers is not None:
        _compare(given)
        return
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.processes) as pool:
        cache = given.cache or Path(folder)
        list(pool.map(samples.training, given.formats, [cache] * len(given.formats)))
        sizes = [(size, i) for size in given.clean for i in range(given.samples if size < LARGE else given.large)]
        first = SEEDS[given.seeds][2]
        cleans = list(pool.map(clean, [(first + i, size, fmt, cache) for size, i in sizes for fmt in given.formats]))
        jobs = [
            (name, fmt, share, given.patients, given.seeds, cache)
            for share in given.shares
            for fmt in given.formats
            for name in given.classes or CLASSES
            if fmt in CLASSES[name].formats
        ]
        results = list(pool.map(one, jobs))
    text = report(results, cleans, given.patients)
    print(text)
    if given.json:
        given.json.write_text(json.dumps({"planted": results, "clean": cleans}, indent=1) + "\n", encoding="utf-8")


def _compare(given: argparse.Namespace) -> None:
    """Run the peers on the same files and print their tables."""
    from benchmarks.planted import peers
    from benchmarks.planted.classes import CLASSES

    with tempfile.TemporaryDirectory() as folder:
        cache = given.cache or Path(folder)
        rows = list(
            peers.results(
                given.peers or list(peers.peers()), given.classes or list(CLASSES), given.patients, given.shares[0], given.seeds,
                given.samples, cache, given.environments or cache / "environments",
            )
        )  # fmt: skip
    print("\n".join(peers.report(rows)))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
