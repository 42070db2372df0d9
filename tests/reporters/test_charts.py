"""Charts and the time line: geometry that says what the numbers say, words for those who do not see it."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from ehrready.reporters import html
from ehrready.reporters.charts import Picture, charts
from ehrready.reporters.timeline import starts, timelines
from tests.reporters.pages import Page, rich


def path(picture: Picture, cls: str) -> str:
    return "".join(d for name, d in picture.marks if name == cls)


def drawn(*distributions: dict[str, Any]) -> list[Picture]:
    return [picture for group in charts(distributions) for picture in [*group.pictures, *group.quiet]]


def volume(*series: tuple[str | None, int | None, int | None]) -> dict[str, Any]:
    return {
        "kind": "volume-by-month",
        "table": "condition",
        "series": [dict(zip(("month", "live", "training"), row, strict=True)) for row in series],
    }


def test_bars_are_as_high_as_their_numbers_and_a_hidden_one_is_a_dash() -> None:
    (picture,) = drawn(volume(("2025-01", 100, None), ("2025-02", 50, None), ("2025-03", None, None), ("2025-04", 0, None)))
    tops = [int(y) for y in re.findall(r"M\d+ 100V(\d+)H", path(picture, "live area"))]
    assert tops == [16, 58]  # the axis is 84 high
    assert path(picture, "live unknown").count("M") == 1
    assert "training" not in " ".join(cls for cls, _ in picture.marks)
    assert [list(row) for row in picture.rows] == [["2025-01", "100"], ["2025-02", "50"], ["2025-03", "<11"], ["2025-04", "0"]]


def test_a_gap_between_the_months_is_marked_and_months_keep_their_order() -> None:
    (picture,) = drawn(volume(("2023-01", 0, 10), ("2023-02", 0, 10), ("2025-06", 20, 0)))
    assert path(picture, "cut")
    places = [int(x) for x in re.findall(r"M(\d+) 100V", path(picture, "training area") + path(picture, "live area"))]
    assert places == sorted(places)
    assert not path(drawn(volume(("2023-12", 9, 1), ("2024-01", 9, 1)))[0], "cut")


def test_sides_that_are_far_apart_have_each_their_own_scale_and_it_says_so() -> None:
    (picture,) = drawn(volume(("2025-01", 1000, 0), ("2023-01", 0, 20)))
    assert "1,000 here, 20 in training" in picture.note
    assert set(re.findall(r"100V(\d+)H", path(picture, "live area") + path(picture, "training area"))) == {"16"}


def test_records_without_a_date_are_told_in_words() -> None:
    (picture,) = drawn(volume(("2025-01", 10, None), (None, 14, None)))
    assert picture.note == "14 here have no date."
    assert picture.rows[-1][0] == "without a date"


def test_a_code_mix_draws_both_sides_and_says_how_much_differs() -> None:
    mix = {"kind": "code-mix", "element": "condition.code", "system": "icd10cm", "other": {"live_share": 0.5, "training_share": 0.7},
           "rows": [{"code": "E11.A", "live_share": 0.3, "training_share": 0.1}, {"code": "I10", "live_share": 0.2, "training_share": 0.2}]}  # fmt: skip
    (picture,) = drawn(mix)
    assert "20 % of the mix differs" in picture.note.replace("\u00a0", " ")
    assert path(picture, "live points").count("M") == path(picture, "training points").count("M") == 2
    assert path(picture, "link").count("M") == 1  # where they agree there is nothing to link
    live, training = (int(re.findall(r"M(\d+) 20", path(picture, f"{side} points"))[0]) for side in ("live", "training"))
    assert live > training
    alike = {**mix, "rows": [mix["rows"][1]], "other": {"live_share": 0.8, "training_share": 0.8}}  # type: ignore[index]
    assert [len(group.quiet) for group in charts([alike])] == [1]
    alone = {
        **mix,
        "other": {"live_share": 0.5, "training_share": None},
        "rows": [{"code": "I10", "live_share": 0.5, "training_share": None}],
    }
    assert not path(drawn(alone)[0], "training points")


def test_a_hidden_share_of_values_is_a_gap() -> None:
    buckets = [{"low": low, "high": low + 1, "live_share": share, "training_share": None} for low, share in ((0, 0.5), (1, None), (2, 0.5))]
    (picture,) = drawn(
        {"kind": "value", "element": "observation.value", "system": "loinc", "code": "2345-7", "unit": "mg/dL", "buckets": buckets}
    )
    assert path(picture, "live step").count("M") == 2
    assert [row[1].replace("\u00a0", " ") for row in picture.rows] == ["50 %", "hidden", "50 %"]


def test_a_kind_of_a_later_version_is_left_out() -> None:
    assert charts([{"kind": "hologram"}]) == []


def test_every_picture_in_the_page_has_a_title_a_description_and_its_numbers() -> None:
    text = html.render(rich())
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 6
    for figure in figures:
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", figure)
        assert len(Page(figure).all("tr")) >= 2


# --- releases


@pytest.mark.parametrize(
    ("release", "day"),
    [
        ("FY2026", date(2025, 10, 1)),
        ("2024-06-03", date(2024, 6, 3)),
        ("http://snomed.info/sct/731000124108/version/20240301", date(2024, 3, 1)),
        ("2.77", None),
        ("2024-13-45", None),
    ],
)
def test_a_release_starts_when_its_name_says(release: str, day: date | None) -> None:
    assert starts(release) == day


def row(declared: list[str], trained: list[str], **more: Any) -> dict[str, Any]:
    shares = [[{"release": r, "share": 1.0} for r in releases] for releases in (declared, trained)]
    return {"element": "condition.code", "system": "icd10cm", "declared": shares[0], "inferred": None,
            "training": {"declared": shares[1]}, "status": "different", **more}  # fmt: skip


def test_training_and_live_stand_side_by_side_on_the_calendar() -> None:
    (line,) = timelines([row(["FY2026"], ["FY2024"])])
    (trained,) = (int(x) + 5 for x in re.findall(r"M(\d+) ", path(line.picture, "training points")))
    (live,) = map(int, re.findall(r"M(\d+) ", path(line.picture, "live points")))
    assert trained < live
    labels = [text for *_, text in line.picture.labels]
    assert {"FY2024", "FY2025", "FY2026"} <= set(labels)  # the year between is on the axis, too
    assert "Training, as declared: FY2024; Here, as declared: FY2026." in line.picture.desc


def test_one_release_that_all_declare_needs_no_picture() -> None:
    assert timelines([row(["FY2026"], ["FY2026"])]) == []
    inferred = {"releases": ["FY2026"], "probability": 0.99, "pattern": "frozen", "evidence": ["14 codes"]}
    (line,) = timelines([row(["FY2026"], ["FY2026"], inferred=inferred)])
    assert [text.replace("\u00a0", " ") for text in line.evidence] == [
        "Condition code: FY2026, probability 99.0 %, stays at a release that has been replaced.",
        "14 codes",
    ]


def test_releases_without_a_date_stand_in_the_order_of_their_numbers() -> None:
    (line,) = timelines([row(["2.9", "2.77"], ["2.8"])])
    assert [text for *_, text in line.picture.labels if text.startswith("2.")] == ["2.8", "2.9", "2.77"]
    assert "In order of release" in line.picture.note


@pytest.mark.parametrize(
    "strata",
    [
        {"2025-Q4": ["FY2026"], "2025-Q3": ["FY2025"]},
        [{"quarter": "2025-Q4", "releases": ["FY2026"]}, {"quarter": "2025-Q3", "releases": ["FY2025"]}],
    ],
)
def test_quarters_have_a_lane_each(strata: Any) -> None:
    (line,) = timelines([row(["FY2026"], ["FY2024"], strata=strata)])
    lanes = [text for *_, text in line.picture.labels if text.startswith("Here, 20")]
    assert lanes == ["Here, 2025-Q3", "Here, 2025-Q4"]


def test_the_scorecard_own_calendar_dates_releases_whose_name_has_no_date() -> None:
    calendar = [
        {"release": "2.76", "effective": "2023-09-01"},
        {"release": "2.77", "effective": "2024-02-27"},
        {"release": "2.78", "effective": "2024-08-06"},
        {"release": "2.80", "effective": "x"},
    ]
    (line,) = timelines([row(["2.78"], ["2.76"], timeline=calendar)])
    assert [text for *_, text in line.picture.labels if text.startswith("2.")] == ["2.76", "2.77", "2.78"]
    assert line.picture.note == ""


def test_codes_that_fit_both_do_not_hide_that_the_data_declares_another_release() -> None:
    inferred = {"releases": ["FY2024", "FY2025"], "probability": 0.99, "pattern": "interval", "evidence": []}
    (line,) = timelines([row(["FY2026"], ["FY2024"], inferred=inferred, status="same")])
    assert (line.kind, line.words) == ("warn", "declared otherwise, the codes fit both")
    (line,) = timelines([row(["FY2024"], ["FY2024"], inferred=inferred, status="same")])
    assert line.kind == "pass"
