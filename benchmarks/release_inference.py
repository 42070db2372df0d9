"""How often is the release right?  Simulated feeds from the real history of ICD-10-CM (docs/terminology-inference.md).

    python -m benchmarks.release_inference [--runs 60] [--terminology ../shared/terminology] [--json FILE]

A feed uses codes by a Zipf law over the billable codes of its release, in another order of popularity in every run; new
codes are taken up with a rate of their own; some codes are noise.  The shape parameters of
the method were set on FY2017, FY2019, FY2022 and FY2024; what is printed are the other years.  Seeded; prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ehrready.terminology import fingerprint

ROOT = Path(__file__).resolve().parent.parent
EVALUATED = ("FY2018", "FY2020", "FY2021", "FY2023", "FY2025", "FY2026")
SIZES, NOISES, ADOPTIONS = (100, 500, 1000, 2000, 5000, 20000), (0.0, 0.005, 0.02), (0.1, 0.5, 1.0)
SHAPES = {"zipf": 1.07, "flat": 0.6, "steep": 1.5}


class History:
    """The billable codes of every release: ``valid`` bool[codes, releases]."""

    def __init__(self, folder: Path) -> None:
        rows = pq.read_table(folder / "icd10cm_history.parquet", columns=["code", "billable_mask"]).to_pydict()
        with (folder / "icd10cm_releases.csv").open(encoding="utf-8") as stream:
            releases = list(csv.DictReader(stream))
        mask = np.array(rows["billable_mask"], dtype=np.int64)
        valid = (mask[:, None] >> np.arange(len(releases)) & 1).astype(bool)
        some = valid.any(axis=1)
        self.valid, self.codes = valid[some], np.array(rows["code"])[some]
        self.labels = [row["label"] for row in releases]
        self.effective = [row["effective"] for row in releases]
        self.table = fingerprint.prepare(self.valid, self.labels)
        self.born = self.valid.argmax(axis=1)
        self.when = np.array([int(day[:4]) + int(day[5:7]) / 12 for day in self.effective])

    def sample(
        self,
        rng: np.random.Generator,
        release: int,
        n: int,
        *,
        noise: float,
        adoption: float,
        shape: float,
        chapter: str = "",
        harsh: bool = False,
    ) -> tuple[np.ndarray, int]:
        """Return the rows of ``n`` distinct codes as a feed in this release shows them, and how many are in no release.

        A share ``noise`` of the codes is wrong: half of them in no release, half any code there ever was; if ``harsh``, any
        code that this release does not have.
        """
        weight = -shape * np.log(rng.permutation(len(self.codes)) + 1.0)
        age = self.when[release] - self.when[self.born]
        weight[(self.born > 0) & (age < 0.99)] += np.log(adoption)
        weight[(self.born > 0) & (age >= 0.99) & (age < 1.99)] += 0.5 * np.log(adoption)
        allowed = self.valid[:, release] & (np.char.startswith(self.codes, chapter) if chapter else True)
        wrong = int(rng.binomial(n, noise))
        unknown = int(rng.binomial(wrong, 0.5))
        key = np.where(allowed, weight + rng.gumbel(size=len(weight)), -np.inf)
        take = min(n - wrong, int(allowed.sum()))
        seen = np.argpartition(-key, max(take - 1, 0))[:take]
        others = np.flatnonzero(~self.valid[:, release]) if harsh else np.arange(len(self.codes))
        return np.concatenate([seen, rng.choice(others, min(wrong - unknown, len(others)), replace=False)]), unknown


def year(label: str) -> str:
    """Return the fiscal year of a label."""
    return label[:6]


def judged(found: fingerprint.Inference, truth: str) -> dict[str, bool]:
    """Say whether the likeliest year is right, whether one year was stated, and whether that was wrong."""
    years = {year(label) for label in found.releases}
    sure = len(years) == 1 and found.pattern in {"single", "interval"}
    return {
        "right": year(found.best) == truth,
        "sure": sure,
        "wrong_sure": sure and truth not in years,
        "covered": not years or truth in years,
    }


def cell(history: History, runs: int, seed: int, **how: Any) -> dict[str, float]:
    """Return the shares of right, sure, wrong-and-sure and covering statements over the runs."""
    results = []
    for i in range(runs):
        label = EVALUATED[i % len(EVALUATED)]
        rng = np.random.default_rng([seed, i])
        seen, unknown = history.sample(rng, history.labels.index(label), **how)
        results.append(judged(fingerprint.infer(history.table, history.labels, seen, unknown), label))
    return {name: sum(r[name] for r in results) / runs for name in results[0]}


def feed(history: History, rng: np.random.Generator, pattern: str, n: int) -> tuple[dict[str, tuple[np.ndarray, int]], set[str]]:
    """Return three years of quarters of a feed that behaves like this, and the patterns that describe it."""
    quarters = [f"{y}-Q{q}" for y in (2022, 2023, 2024) for q in (1, 2, 3, 4)]
    strata = {}
    for quarter in quarters:
        middle = f"{quarter[:4]}-{3 * int(quarter[-1]) - 1:02d}-15"
        force = max(i for i, day in enumerate(history.effective) if day <= middle)
        fixed = {"frozen": "FY2021", "re-mapped": "FY2026"}.get(pattern)
        if pattern == "lagging":
            before = f"FY{int(year(history.labels[force])[2:]) - 1}"
            used = max(i for i, label in enumerate(history.labels) if year(label) == before)
        else:
            used = history.labels.index(fixed) if fixed else force
        strata[quarter] = history.sample(rng, used, n, noise=0.005, adoption=1.0, shape=SHAPES["zipf"])
    accepted = {"tracks-calendar": {"tracks-calendar"}, "frozen": {"frozen"}, "re-mapped": {"re-mapped"}, "lagging": {"lagging"}}[pattern]
    return strata, accepted


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--terminology", type=Path, default=ROOT.parent / "shared" / "terminology")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    history = History(given.terminology)
    lines = [
        "| distinct codes | noise | use of new codes | likeliest year right | one year stated | stated and wrong |",
        "|---|---|---|---|---|---|",
    ]
    cells = []
    start = time.process_time()
    for n in SIZES:
        for noise in NOISES:
            for adoption in ADOPTIONS:
                found = cell(history, given.runs, 1, n=n, noise=noise, adoption=adoption, shape=SHAPES["zipf"])
                cells.append({"n": n, "noise": noise, "adoption": adoption, **found})
                lines.append(
                    f"| {n:,} | {100 * noise:g} % | {adoption:g} | {found['right']:.2f} | {found['sure']:.2f} | {found['wrong_sure']:.3f} |"
                )
    each = (time.process_time() - start) / (len(cells) * given.runs)
    wrong = sum(c["wrong_sure"] for c in cells) / len(cells)
    lines += [
        "",
        f"Wrong and sure over all {len(cells) * given.runs:,} runs: {100 * wrong:.2f} %. CPU milliseconds a run, sampling included: {1000 * each:.0f}.",
    ]
    lines += [
        "",
        "| other feeds, 2,000 codes, 0.5 % noise | likeliest year right | one year stated | stated and wrong |",
        "|---|---|---|---|",
    ]
    for name, how in (
        ("flat use", {"shape": SHAPES["flat"]}),
        ("steep use", {"shape": SHAPES["steep"]}),
        ("obstetrics only", {"shape": SHAPES["zipf"], "chapter": "O"}),
        ("psychiatry only", {"shape": SHAPES["zipf"], "chapter": "F"}),
        ("all noise from other releases", {"shape": SHAPES["zipf"], "harsh": True}),
        ("4 % of it", {"shape": SHAPES["zipf"], "noise": 0.04, "harsh": True}),
    ):
        found = cell(history, given.runs, 2, **{"n": 2000, "noise": 0.005, "adoption": 1.0, **how})
        lines.append(f"| {name} | {found['right']:.2f} | {found['sure']:.2f} | {found['wrong_sure']:.3f} |")
    lines += ["", "| three years of quarters, 1,000 codes each | pattern named | another pattern named | left open |", "|---|---|---|---|"]
    patterns = {}
    for pattern in ("tracks-calendar", "frozen", "lagging", "re-mapped"):
        named = other = 0
        for i in range(max(1, given.runs // 3)):
            strata, accepted = feed(history, np.random.default_rng([3, i]), pattern, 1000)
            found_pattern = fingerprint.infer_strata(history.table, history.labels, history.effective, strata)[0].pattern
            named += found_pattern in accepted
            other += found_pattern in {"tracks-calendar", "frozen", "lagging", "re-mapped"} - accepted
        runs = max(1, given.runs // 3)
        patterns[pattern] = {"named": named / runs, "other": other / runs}
        lines.append(f"| {pattern} | {named / runs:.2f} | {other / runs:.2f} | {(runs - named - other) / runs:.2f} |")
    print("\n".join(lines))
    if given.json:
        given.json.write_text(json.dumps({"cells": cells, "patterns": patterns}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
