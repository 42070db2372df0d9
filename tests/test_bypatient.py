"""Rows sorted by patient and key: the pairs there are, in any range of numbers; and parts of the rows, which add up to the whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ehrready import bypatient, pipeline, sorted_terms
from ehrready.engines.duckdb import open_engine
from ehrready.options import Options
from tests.hostile.omop_cases import Maker


@pytest.mark.parametrize("patients", [1, 40, 2**31 - 1, 2**33, 2**62])
@pytest.mark.parametrize("keys", [1, 7, 2**31 - 1])
def test_pairs_are_those_there_are(patients: int, keys: int) -> None:
    random = np.random.RandomState(patients % 1000 + keys % 1000)
    p = random.randint(0, patients, 500, dtype=np.int64)
    key = random.choice([0, keys // 2, keys - 1], 500)
    p[::3] = p[0]
    found_p, found_key, first = bypatient.pairs(p, key)
    n = np.diff(first, append=len(p))
    counted = Counter(zip(p.tolist(), key.tolist(), strict=True))
    assert dict(zip(zip(found_p.tolist(), found_key.tolist(), strict=True), n.tolist(), strict=True)) == counted
    assert list(zip(found_p.tolist(), found_key.tolist(), strict=True)) == sorted(counted)


def test_no_rows_are_no_pairs() -> None:
    none = np.zeros(0, np.int32)
    assert [len(column) for column in (*bypatient.pairs(none, none), *bypatient.numbered(none), bypatient.begins(none))] == [0] * 6


@pytest.mark.parametrize("keys", [[3], [5, -1, 5, 2**30], [-(2**31), 2**31 - 1, 0], [2**62, 0, 2**62], [7, 8, 8, 9]])
def test_keys_are_numbered_in_order(keys: list[int]) -> None:
    found, places = bypatient.numbered(np.array(keys))
    assert found.tolist() == sorted(set(keys))
    assert found[places].tolist() == keys


@pytest.mark.parametrize("group", [[0, 0, 1, 2, 2], [2, -1, 0, 1, 0], [-1] * 5])
def test_terms_are_added_up_by_group_with_the_moments_over_patients(group: list[int]) -> None:
    """Groups 0 and 1 are within the same; a coding without a patient (0) is its own cluster."""
    random = np.random.RandomState(len(set(group)))
    p, q = random.randint(0, 6, 200), random.randint(0, 5, 200)
    patients, terms, first = bypatient.pairs(p, q)
    n = np.diff(first, append=len(p)).astype(np.float64)
    names, within = [("a",), ("b",), ("c",)], [1, 1, 2]
    one = sorted_terms.Grouping("codes", names, np.array(group), np.array(within), 4)
    own = Counter((a, group[b]) for a, b in zip(p.tolist(), q.tolist(), strict=True) if group[b] >= 0)
    all_within = Counter[tuple[int, int]]()
    for (a, g), many in own.items():
        all_within[a, within[g]] += many
    expected = [[0] * 4 for _ in names]
    for (a, g), many in own.items():
        for place, value in enumerate((many, a > 0, many * many if a else many, many * all_within[a, within[g]] if a else many)):
            expected[g][place] += int(value)
    assert sorted_terms.moments(one, patients, terms, n).tolist() == expected


def test_parts_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Maker(5, tame=True).write(tmp_path)
    whole = pipeline.read_profile([str(folder)], Options(internal=True))[0]
    asked: list[int] = []
    work = bypatient.Sorting.begin

    def noted(self, sql, source, rows, of_part):  # type: ignore[no-untyped-def]
        made = work(self, sql, source, rows, of_part)
        asked.append(len(made))
        return made

    monkeypatch.setattr(bypatient, "AT_ONCE", 20)
    monkeypatch.setattr(bypatient.Sorting, "begin", noted)
    assert pipeline.read_profile([str(folder)], Options(internal=True))[0].to_json() == whole.to_json()
    assert asked
    assert all(parts > 2 for parts in asked)


@pytest.mark.parametrize(("order", "gathered"), [("i", False), ("hash(i)", True)])
def test_rows_that_lie_apart_are_put_in_order_of_their_patients(order: str, gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bypatient, "AT_ONCE", 100)
    monkeypatch.setattr(bypatient, "_BLOCK", 50)
    monkeypatch.setattr(bypatient, "_SAMPLE", "100%")
    with open_engine(threads=1) as con:
        con.execute(f"CREATE TEMP TABLE wide AS SELECT nullif(i // 9, 3) AS p, 'row ' || i AS t FROM range(2000) r(i) ORDER BY {order}")
        before = con.execute("SELECT * FROM wide ORDER BY t").fetchall()
        assert bypatient.gather(con, "wide") is gathered
        assert con.execute("SELECT * FROM wide ORDER BY t").fetchall() == before
        patients = [p for (p,) in con.execute("SELECT p FROM wide WHERE p IS NOT NULL ORDER BY rowid").fetchall()]
        assert patients == sorted(patients)


def test_few_rows_stay_where_they_are() -> None:
    with open_engine(threads=1) as con:
        con.execute("CREATE TEMP TABLE few AS SELECT hash(i) % 100 AS p FROM range(1000) r(i)")
        assert not bypatient.gather(con, "few")


def test_a_profile_does_not_depend_on_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Maker(6, tame=True).write(tmp_path)
    whole = pipeline.read_profile([str(folder)], Options(internal=True))[0]
    done: list[bool] = []
    gather = bypatient.gather
    monkeypatch.setattr(bypatient, "AT_ONCE", 20)
    monkeypatch.setattr(bypatient, "_SAMPLE", "100%")
    monkeypatch.setattr(bypatient, "gather", lambda con, source: done.append(gather(con, source)))
    assert pipeline.read_profile([str(folder)], Options(internal=True))[0].to_json() == whole.to_json()
    assert any(done)
