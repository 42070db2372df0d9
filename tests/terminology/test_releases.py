"""The release store: what ships is the official lists, tables round-trip and merge, a broken file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ehrready.errors import UsageError
from ehrready.terminology.releases import Release, ReleaseTable, Store, load, merge, save

#: Bit of each shipped release in the verification table (the last list of the fiscal year that a package carries).
BITS = {"FY2019": 3, "FY2020": 4, "FY2021": 7, "FY2022": 9, "FY2023": 11, "FY2024": 12, "FY2025": 14, "FY2026": 17}


def made(labels: tuple[str, ...], codes: dict[str, str], names: dict[str, tuple[str, ...]] | None = None) -> ReleaseTable:
    """Return a table from code → the digits of the releases that have it."""
    listed = sorted(codes)
    valid = np.array([[str(i) in codes[code] for i in range(len(labels))] for code in listed], dtype=bool)
    releases = tuple(
        Release(label, f"{label[2:]}-10-01", int(valid[:, i].sum()), "made.txt", f"{i}" * 64) for i, label in enumerate(labels)
    )
    table = ReleaseTable("icd10cm", releases, np.array(listed), valid, valid.copy())
    if names:
        table.lists["names"] = [names.get(code, ()) for code in listed]
    return table


@pytest.mark.parametrize("label", BITS)
def test_a_shipped_release_is_the_official_list(shared: Path, label: str) -> None:
    table = Store.open().table("icd10cm")
    assert table is not None
    column = [release.label for release in table.releases].index(label)
    truth = pq.read_table(shared / "terminology" / "icd10cm_history.parquet", columns=["code", "release_mask", "billable_mask"]).to_pydict()
    for bits, name in ((table.valid, "release_mask"), (table.billable, "billable_mask")):
        assert bits is not None
        official = {code for code, mask in zip(truth["code"], truth[name], strict=True) if mask >> BITS[label] & 1}
        assert set(table.codes[bits[:, column]].tolist()) == official
        assert table.releases[column].n_codes == len(official) or name == "billable_mask"


def test_the_shipped_icd9_codes_are_the_last_official_ones(shared: Path) -> None:
    table = Store.open().table("icd9cm")
    assert table is not None
    assert table.billable is not None
    truth = pq.read_table(shared / "terminology" / "icd9cm_history.parquet", columns=["code", "billable"]).to_pydict()
    official = {code for code, billable in zip(truth["code"], truth["billable"], strict=True) if billable}
    assert set(table.codes[table.billable[:, 0]].tolist()) == official
    assert not table.valid[:, 1].any()  # withdrawn on 1 October 2015


def test_positions_and_names_of_the_shipped_table() -> None:
    table = Store.open().table("icd10cm")
    assert table is not None
    found = table.positions(["E11.9", "nonsense", "A00", ""])
    assert (found >= 0).tolist() == [True, False, True, False]
    assert table.names(int(found[0])) == ("Type 2 diabetes mellitus without complications",)
    assert table.in_force("2024-10-01") == [r.label for r in table.releases].index("FY2025")
    assert table.in_force("2015") == -1


def test_a_table_round_trips_with_names_replacements_and_attributes(tmp_path: Path) -> None:
    table = made(("FY2024", "FY2025"), {"A00": "01", "B01": "0", "C02": "1"}, {"B01": ("first", "second")})
    table.lists["replacements"] = [(), ("C02",), ()]
    table.attributes["property"] = ["MCnc", "", "SCnc"]
    save(table, tmp_path / "icd10cm.parquet")
    again = load(tmp_path / "icd10cm.parquet")
    assert again.releases == table.releases
    assert again.codes.tolist() == ["A00", "B01", "C02"]
    assert (again.valid == table.valid).all()
    assert [again.names(i) for i in range(3)] == [(), ("first", "second"), ()]
    assert again.replacements(1) == ("C02",)
    assert [again.attribute(i, "property") for i in range(3)] == ["MCnc", "", "SCnc"]
    assert (tmp_path / "icd10cm.parquet").stat().st_mode & 0o777 == 0o600


def test_a_users_release_lies_over_the_shipped_one(tmp_path: Path) -> None:
    below = made(("FY2023", "FY2024"), {"A00": "01", "B01": "0"}, {"A00": ("old name",)})
    above = made(("FY2024", "FY2025"), {"A00": "01", "D03": "01"}, {"A00": ("new name",)})
    both = merge(below, above)
    assert [r.label for r in both.releases] == ["FY2023", "FY2024", "FY2025"]
    assert dict(zip(both.codes.tolist(), both.valid.tolist(), strict=True)) == {
        "A00": [True, True, True], "B01": [True, False, False], "D03": [False, True, True],
    }  # fmt: skip
    assert both.names(0) == ("new name", "old name")
    save(above, tmp_path / "icd10cm.parquet")
    merged = Store.open(tmp_path).table("icd10cm")
    assert merged is not None
    assert [r.source for r in merged.releases if r.label == "FY2024"] == ["made.txt"]
    assert "FY2019" in {r.label for r in merged.releases}


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_broken_table_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "loinc.parquet"
    save(made(("FY2024",), {"A00": "0"}), path)
    data = path.read_bytes()
    if damage == "other":
        pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"not parquet")
    with pytest.raises(UsageError, match="add the release again"):
        Store.open(tmp_path).table("loinc")


def test_a_failed_save_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "icd10cm.parquet"
    save(made(("FY2024",), {"A00": "0"}), path)
    before = path.read_bytes()
    broken = made(("FY2025",), {"A00": "0"})
    broken.lists["names"] = [("\ud800",)]  # no UTF-8
    with pytest.raises(UnicodeEncodeError):
        save(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["icd10cm.parquet"]
