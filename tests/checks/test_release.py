"""Releases in findings: two profiles whose codes come from different releases of a made code system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ehrready.checks import CHECKS, Outcome
from ehrready.panel import panel
from ehrready.profile import Profile
from ehrready.terminology.releases import Release, ReleaseTable, Store, save

ELEMENT, SYSTEM = "procedure.code", "icd10pcs"
LABELS = ("FY2022", "FY2023", "FY2024")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """3,000 codes of every release, 150 new in each later one, 60 retired in each, one renamed in the last."""
    codes = np.array([f"0{i:06d}" for i in range(3420)])
    valid = np.ones((3420, 3), dtype=bool)
    for r in (1, 2):
        valid[3000 + 150 * (r - 1) : 3000 + 150 * r, :r] = False
        valid[3300 + 60 * (r - 1) : 3300 + 60 * r, r:] = False
    releases = tuple(
        Release(label, f"{int(label[2:]) - 1}-10-01", int(valid[:, i].sum()), "made.txt", "0" * 64) for i, label in enumerate(LABELS)
    )
    table = ReleaseTable(SYSTEM, releases, codes, valid, None)
    table.lists["names"] = [(f"operation {i}",) for i in range(3420)]
    table.lists["replacements"] = [(codes[0],) if i >= 3300 else () for i in range(3420)]
    table.attributes["renamed"] = ["FY2024" if i == 7 else "" for i in range(3420)]
    save(table, tmp_path / f"{SYSTEM}.parquet")
    return Store.open(tmp_path)


def profile(store: Store, release: int, quarters: tuple[str, ...], *, extra: dict[int, int] | None = None) -> Profile:
    """Return a profile with 30 % of a release's codes, 20 patients each, in every quarter."""
    table = store.table(SYSTEM)
    assert table is not None
    rows = np.flatnonzero(table.valid[:, release])
    chosen = np.random.RandomState(release).choice(rows, int(0.3 * len(rows)), replace=False)
    made = Profile("made")
    for row in {*chosen.tolist(), *(extra or {})}:
        code, n = str(table.codes[row]), (extra or {}).get(row, 20)
        made.frames["codes"][ELEMENT, SYSTEM, code] = (n, n, n, n)
        for quarter in quarters:
            made.frames["quarters"][ELEMENT, SYSTEM, code, quarter] = (1,)
    made.frames["patients"]["all", ""] = (20000,)
    made.frames["releases"][ELEMENT, SYSTEM, "FY2022"] = (20000, 5000)
    made.source_elements[ELEMENT] = "Procedure.code"
    return made


LIVE, PAST = ("2023-Q4", "2024-Q1", "2024-Q2"), ("2022-Q1", "2022-Q2", "2022-Q3")


def run(name: str, *arguments: object) -> dict[str, Outcome]:
    return {outcome.defect: outcome for outcome in CHECKS[name].run(*arguments)}


def test_codes_of_another_release_fail_whatever_is_declared(store: Store) -> None:
    live, training = profile(store, 2, LIVE), profile(store, 0, PAST)
    outcome = run("release-inferred", live, training, ELEMENT, store)["other-release"]
    assert outcome.status == "fail"
    assert "live FY2024, trained on FY2022" in outcome.detail
    assert run("release-inferred", training, training, ELEMENT, store)["other-release"].status == "pass"
    (row,) = panel(live, training, store, internal=True)
    assert (row["status"], row["inferred"]["releases"], row["training"]["inferred"]["releases"]) == ("different", ["FY2024"], ["FY2022"])
    assert [stratum["releases"] for stratum in row["strata"]] == [["FY2024"]] * 3
    assert "retrain on data of FY2024" in row["advice"]


def test_what_is_new_retired_and_renamed_since_training_is_counted(store: Store) -> None:
    live = profile(store, 2, LIVE, extra={3001: 900, 7: 700})
    training = profile(store, 0, PAST, extra={3301: 800})
    table = store.table(SYSTEM)
    assert table is not None
    found = run("codes-since-training", live, training, ELEMENT, store)
    counts = {code: values[0] or 0 for (_, _, code), values in live.rows("codes")}
    new = sum(n for code, n in counts.items() if not table.valid[int(table.positions([code])[0]), 0])
    assert (found["new-since-training"].n, found["new-since-training"].of) == (new, sum(counts.values()))
    assert found["new-since-training"].status == "fail"
    assert "0003001 (900)" in found["new-since-training"].detail
    assert "0003301 → 0000000 (800)" in found["retired-since-training"].detail
    assert found["meaning-changed"].n == 700


def test_a_frozen_feed_is_told_without_training(store: Store) -> None:
    quarters = ("2022-Q1", "2022-Q4", "2023-Q2", "2023-Q4", "2024-Q2")
    outcome = run("release-in-force", profile(store, 0, quarters), ELEMENT, store)["frozen"]
    assert (outcome.n, outcome.of) == (4, 5)
    (kept_up,) = run("release-in-force", profile(store, 2, LIVE), ELEMENT, store).values()
    assert kept_up.n == 0


def test_without_a_table_the_vocabularies_are_compared_and_that_is_said(tmp_path: Path, store: Store) -> None:
    live, training = profile(store, 2, LIVE), profile(store, 0, PAST)
    outcome = run("release-inferred", live, training, ELEMENT, Store.open(tmp_path / "none"))["other-release"]
    assert outcome.status == "not-applicable"
    assert "no release table of icd10pcs is loaded" in outcome.reason
    assert "distinct codes are training's too" in outcome.reason
