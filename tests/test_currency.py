"""Codes judged at their date: a table of four releases, every class, the grace, and the edges of what a table knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.currency import CLASSES, agrees, class_of
from ehrready.terminology.releases import Release, ReleaseTable

CODES = ["A00", "A00.0", "B01", "C02", "D03"]
#               header  always   retired in the third, new in the third, new in the last
VALID = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=bool)
BILLABLE = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=bool)
DATES = ("2020-10-01", "2021-10-01", "2022-10-01", "2023-10-01")


def table(complete: bool = True) -> ReleaseTable:
    releases = tuple(Release(f"FY{day[:4]}", day, int(VALID[:, i].sum()), "made", "0" * 64) for i, day in enumerate(DATES))
    return ReleaseTable("icd10cm", releases, np.array(CODES), VALID, BILLABLE, complete=complete)


def judged(code: str, month: str, *, complete: bool = True) -> str:
    made = table(complete)
    return CLASSES[int(class_of(made, made.positions([code]), np.array([month]))[0])]


@pytest.mark.parametrize(
    ("code", "month", "expected"),
    [
        ("A00.0", "2021-03", "current"),
        ("A00", "2021-03", "header"),
        ("B01", "2022-09", "current"),
        ("B01", "2022-12", "current"),  # within 90 days of the release that retired it
        ("B01", "2023-02", "retired"),
        ("C02", "2022-09", "not-yet-valid"),
        ("C02", "2022-10", "current"),
        ("Z99", "2022-10", "unknown"),
        ("A00.0", "", "undated"),
        ("A00.0", "2019-01", "current"),  # the first release has it, and codes are rarely new just then
        ("C02", "2019-01", "outside"),
        ("D03", "2025-06", "current"),
        ("B01", "2025-06", "outside"),  # it may have come back: the table does not know
        ("Z99", "2025-06", "outside"),
    ],
)
def test_a_code_is_judged_by_the_releases_in_force_at_its_date(code: str, month: str, expected: str) -> None:
    assert judged(code, month) == expected


def test_unknown_is_not_wrong_where_the_table_is_incomplete() -> None:
    assert judged("Z99", "2022-10", complete=False) == "unlisted"


def test_a_table_without_dates_says_nothing_about_dates() -> None:
    releases = (Release("unknown", "", 5, "made", "0" * 64),)
    made = ReleaseTable("loinc", releases, np.array(CODES), VALID[:, :1], None, complete=True)
    found = class_of(made, made.positions(["A00.0", "A00.0"]), np.array(["2022-01", ""]))
    assert [CLASSES[i] for i in found] == ["outside", "undated"]


@given(
    st.lists(
        st.tuples(st.sampled_from([*CODES, "Z99"]), st.sampled_from(["", "2019-05", "2021-01", "2022-10", "2023-04", "2026-01"])),
        min_size=1,
    )
)
def test_the_class_of_a_pair_does_not_depend_on_its_neighbours(pairs: list[tuple[str, str]]) -> None:
    made = table()
    together = class_of(made, made.positions([code for code, _ in pairs]), np.array([month for _, month in pairs]))
    assert [CLASSES[i] for i in together] == [judged(code, month) for code, month in pairs]


@pytest.mark.parametrize(
    ("display", "names", "same"),
    [
        ("Essential (primary) hypertension", ("Essential (primary) hypertension",), True),
        ("essential hypertension", ("Essential (primary) hypertension",), True),
        ("HYPERTENSION, ESSENTIAL", ("Essential (primary) hypertension",), True),
        ("Type 2 diabetes mellitus", ("Essential (primary) hypertension",), False),
        ("Diabetes", ("Essential (primary) hypertension", "Type 2 diabetes mellitus without complications"), True),
        ("Broken leg", ("Type 2 diabetes mellitus without complications",), False),
    ],
)
def test_a_display_agrees_by_its_words(display: str, names: tuple[str, ...], same: bool) -> None:
    assert agrees(display, names) is same
