"""The HTML report: what a reader, a hostile string, a browser and a printer find in it."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ehrready import rules
from ehrready.evaluate import evaluate
from ehrready.reporters import html, view, words
from ehrready.scorecard import Scorecard, build
from tests.reporters.pages import HOSTILE, Page, card, changed, many, profile, rich

# --- structure


def test_the_verdict_stands_before_the_findings_and_headings_never_skip_a_level() -> None:
    text = html.render(card())
    assert [text.index(f'id="{name}"') for name in ("one", "verdict", "first", "detail", "findings", "ledger", "provenance")] == sorted(
        text.index(f'id="{name}"') for name in ("one", "verdict", "first", "detail", "findings", "ledger", "provenance")
    )
    levels = [int(tag[1]) for tag, _ in Page(text).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_page_one_says_who_what_how_much_and_what_to_do() -> None:
    scorecard = card()
    text = html.render(scorecard)
    page_one = Page(text[text.index("<header") : text.index("</header>")]).prose
    first = next(f for f in scorecard.document["findings"] if f["rule"] == "patient-birth-date-present" and f["status"] == "fail")
    for said in (
        "St Elsewhere", "March 2025", "FHIR", "2,000", "1,000", "Cohort 2023", "Not ready",
        "150 of 1,000 (15.0 %), 150 patients", "Engineering", first["fix"], "FY2026", "FY2024", "not what training used",
    ):  # fmt: skip
        assert said in page_one
    # the reasons name rules by their titles and places in words
    assert scorecard.document["verdict_reasons"][0].startswith(
        "2 requirements failed: patient-birth-date-present, code-coded (condition.code)"
    )
    assert (
        "2 requirements failed: \u201cPatients have a birth date\u201d, \u201cClinical concepts are coded\u201d (condition code)."
        in page_one
    )
    assert text.count('<li>\n<div class="what">') <= view.FIRST


@pytest.mark.parametrize(("verdict", "words"), [(verdict, words[0]) for verdict, words in words.VERDICTS.items()])
def test_every_verdict_has_words_and_stands_in_the_title(verdict: str, words: str) -> None:
    page = Page(html.render(changed(card(), verdict=verdict)))
    assert page.inside("h2")[0] == words
    assert page.inside("title")[0].startswith(f"{words}: St Elsewhere")


def test_without_training_it_says_that_the_data_was_judged_on_its_own() -> None:
    prose = Page(html.render(card(against=False))).prose
    assert "No training profile: judged on its own" in prose
    assert "no training profile" in prose.split("What was not assessed")[1]


def test_required_failures_come_first_then_the_largest() -> None:
    worse = card(missing=40, text_only=300)
    text = html.render(worse)
    ranked = re.findall(r'<div class="what"><a href="#f(\d+)"', text)
    findings = worse.document["findings"]
    keys = [(findings[int(i)]["severity"] != "error", -(findings[int(i)]["numerator"] or 0)) for i in ranked]
    assert len(keys) >= 2
    assert keys == sorted(keys)
    assert findings[int(ranked[0])]["element"] == "condition.code"


def test_the_same_defect_in_the_same_place_is_one_item_to_fix() -> None:
    scorecard = card()
    twins = [
        f
        for f in scorecard.document["findings"]
        if f["element"] == "patient.birth_date" and f["status"] == "fail" and f["severity"] != "info"
    ]
    assert len(twins) == 2  # the limit and the comparison with training
    page_one = html.render(scorecard).split("</header>")[0]
    assert page_one.count("<p>Patient birth date:") == 1
    assert "1 more finding of the same kind here" in Page(page_one).prose


def test_every_open_finding_has_a_card_and_every_other_is_listed_with_its_reason() -> None:
    scorecard = card()
    text = html.render(scorecard)
    statuses = [f["status"] for f in scorecard.document["findings"]]
    opened = [i for i, status in enumerate(statuses) if status in {"fail", "warn", "error"}]
    assert sorted(map(int, re.findall(r'<article class="card [a-z]+" id=f(\d+)>', text))) == opened
    prose = Page(text).prose
    assert f"{statuses.count('pass')} defects looked for and found within the limits" in prose
    for status, said in (("not-applicable", "Does not apply"), ("not-assessed", "Not assessed")):
        results = {(f["rule"], f["element"]) for f in scorecard.document["findings"] if f["status"] == status}
        assert f"{said} ({len(results)})" in prose
    for f in scorecard.document["findings"]:
        if f["status"] == "not-applicable":
            assert f["reason"] in prose


def test_the_grid_adds_up_to_the_dimensions() -> None:
    document = card().document
    names = [row["name"] for row in document["dimensions"]]
    grid = view.grid(document["findings"], names)
    for place, row in enumerate(document["dimensions"]):
        for key, status in (("pass", "pass"), ("warn", "warn"), ("fail", "fail"), ("not_assessed", "not-assessed")):
            assert sum(cells[place].counts[status] for _, cells in grid) == row[key]


def test_a_comparison_draws_its_interval_and_limit_from_the_training_share() -> None:
    found = [f for f in card().document["findings"] if f["check"] == "presence-shift" and f["element"] == "patient.birth_date"]
    f = next(f for f in found if f["defect"] == "missing")
    bar = view.bar(f)
    assert bar is not None
    assert bar.limit_at == pytest.approx(0.02 + f["limit"])
    axis = [16 + round(300 * (0.02 + bound) / bar.scale) for bound in f["interval"]]
    assert [bar.low, bar.high] == axis
    assert view.bar({**f, "training": None}).limit is None  # type: ignore[union-attr]


def test_a_system_whose_release_one_element_states_is_not_called_silent() -> None:
    declared = [{"release": "2.77", "share": 1.0}]
    row: dict[str, Any] = {"element": "observation.code", "system": "loinc", "inferred": None}
    rows: list[dict[str, Any]] = [
        {**row, "declared": declared, "training": {"declared": declared}, "status": "same"},
        {**row, "element": "report.code", "declared": [{"release": None, "share": 1.0}], "training": None, "status": "not-declared"},
    ]
    found = view._systems(rows)
    assert [(r["system"], r["status"], r["seen"], r["trained"]) for r in found] == [("loinc", "same", ["2.77"], ["2.77"])]
    assert view._systems([*rows, {**rows[0], "status": "different"}])[0]["status"] == "different"


def test_a_cell_of_the_grid_scores_what_was_assessed() -> None:
    cell = view.Cell(Counter({"pass": 2, "warn": 1, "fail": 1, "not-assessed": 4}))
    assert (cell.score, cell.coverage, cell.kind) == (62.5, 0.5, "fail")
    assert (view.Cell(Counter({"not-assessed": 1})).score, view.Cell(Counter()).coverage) == (None, None)
    names = [row["name"] for row in card().document["dimensions"]]
    for row, place in zip(card().document["dimensions"], range(len(names)), strict=True):
        counts: Counter[str] = sum((cells[place].counts for _, cells in view.grid(card().document["findings"], names)), Counter())
        whole = view.Cell(counts)
        assert row["score"] == (None if whole.score is None else round(whole.score, 1))
        assert row["coverage"] == (None if whole.coverage is None else round(whole.coverage, 4))


def test_a_card_says_what_is_counted_and_what_the_rule_asks() -> None:
    prose = Page(html.render(card())).prose
    assert "Counted as defect eligible records without the element (defect missing), or holding a null token (null-token)." in " ".join(
        prose.replace("Counted as defect", "Counted as defect ").split()
    )
    assert "rule" in prose.lower()
    assert "fails above 2.0 %" in prose
    assert "needs 30 records to judge" in prose


def test_findings_of_one_rule_share_its_words() -> None:
    scorecard = many(card(), 40)
    text = html.render(scorecard).split('id="findings"')[1].split('id="charts"')[0]
    for why in {f["why"] for f in scorecard.document["findings"]}:
        assert Page(text).prose.count(why) == 1


def test_findings_on_the_same_records_stand_under_their_cause() -> None:
    scorecard = rich()
    findings = scorecard.document["findings"]
    effect = next(i for i, f in enumerate(findings) if f["cause"])
    cause = next(i for i, f in enumerate(findings) if f["id"] == findings[effect]["cause"])
    text = html.render(scorecard)
    start = text.index(f"id=f{cause}>")
    assert start < text.index("<details class=effects>") < text.index(f"id=f{effect}>")
    assert text.count(f"id=f{effect}>") == 1


def test_what_is_waived_is_no_work_and_stands_with_reason_owner_and_end() -> None:
    scorecard = rich()
    number, waived = next((i, f) for i, f in enumerate(scorecard.document["findings"]) if f["waiver"])
    text = html.render(scorecard)
    assert f'"#f{number}"' not in text.split("</header>")[0]
    assert f"#f{number}>" not in text.split('id="work"')[1].split('id="unassessed"')[0]
    prose = Page(text).prose
    assert "known since the moveDr Who2027-01-31" in prose
    assert f"{waived['title']}Failed, waived" in prose.replace(" Failed", "Failed")


def test_page_one_says_what_changed_since_the_baseline() -> None:
    scorecard = rich()
    page_one = Page(html.render(scorecard).split("</header>")[0]).prose
    assert "Since March run (verdict then: Ready)" in page_one
    assert "1 new" in page_one
    assert "1 worse" in page_one
    assert "2 fixed" in page_one
    assert "a thing that is no rule any more" in page_one
    assert "Since" not in Page(html.render(card()).split("</header>")[0]).prose


def test_a_cut_export_is_to_be_sent_again_before_anything_else() -> None:
    row = {**card().document["ledger"][0], "file": "file-0007", "status": "truncated"}
    page_one = Page(html.render(changed(card(), verdict="cannot-tell", ledger=[row])).split("</header>")[0]).prose
    assert "Before anything else: export again what could not be read to its end (file-0007: truncated" in page_one


def test_a_table_that_vanished_is_said_in_words() -> None:
    live, training = profile("Now", 20), profile("Then", 20)
    for key in [key for key in live.frames["states"] if key[0].startswith("condition")]:
        del live.frames["states"][key]
    del live.frames["volume"]["condition", "2025-03"]
    packs = rules.default_packs(live.formats)
    prose = Page(html.render(build(live, training, evaluate(live, training, rules.merged(packs)), packs))).prose
    assert "Condition code: the data has no such records, training had them" in prose
    assert "all: no such record here" in prose
    assert "0 of 0" not in prose


def test_every_owner_has_a_list_of_work_with_next_steps() -> None:
    scorecard = card()
    work = html.render(scorecard).split('id="work"')[1].split('id="unassessed"')[0]
    findings = [f for f in scorecard.document["findings"] if f["status"] in {"fail", "warn"} and f["severity"] != "info"]
    for owner in {f["owner"] for f in findings}:
        assert f">{words.words(owner)} <small>" in work
    for f in findings:
        assert f["fix"] in Page(work).prose or f["rule"].endswith("-as-in-training")


def test_a_scorecard_of_the_first_version_is_rendered_too() -> None:
    document = {k: v for k, v in card().document.items() if k not in {"checks", "rules", "distributions"}}
    assert "Not ready" in Page(html.render(Scorecard(document))).prose


# --- privacy


def test_hidden_numbers_are_shown_as_hidden_and_only_an_internal_report_has_them() -> None:
    hidden, open_ = html.render(card(missing=4, patients=100)), html.render(card(missing=4, patients=100, internal=True))
    assert "<dt>Affected</dt><dd>hidden (&lt;11)</dd>" in hidden
    assert "4 of 100" not in hidden
    assert "do not leave the hospital" not in hidden
    assert "4 of 100" in open_
    assert "Internal report: exact small counts; do not leave the hospital" in Page(open_.split("<h1>")[0]).prose
    subject = {**card().document["subject"], "patients": None}
    assert "<dt>Patients</dt><dd>&lt;11</dd>" in html.render(changed(card(), subject=subject))


# --- hostile strings


def spoiled(value: Any, text: str, path: tuple[str, ...] = ()) -> Any:
    """Replace every string of a document but the closed words that a reporter may rely on."""
    closed = {"verdict", "status", "severity"}
    if isinstance(value, dict):
        # keys of these are data, too
        named = path[-1:] and path[-1] in {"group", "reasons", "options", "waiver"}
        return {(text if named else key): spoiled(item, text, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item, text, path) for item in value]
    kept = path and ((path[-1] in closed and "releases" not in path) or path == ("distributions", "kind"))
    return text if isinstance(value, str) and not kept else value


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_in_any_field_is_text(text: str) -> None:
    document = copy.deepcopy(dict(rich().document))
    document["generated_at"] = "2026-01-01T00:00:00Z"
    document["findings"][0]["group"] = {"site": "site-1"}
    document["findings"][0]["waiver"] = {"reason": "known", "expires": "2027-01-01"}
    worst = next(f for f in document["findings"] if f["status"] == "fail")
    worst |= {"group": {"site": "site-1"}, "reason": "because"}
    document["ledger"][0]["reasons"] = {"truncated": 1}
    document["provenance"]["terminology"] = [{"system": "loinc", "release": "2.77", "sha256": "0"}]
    document["provenance"]["plugins"] = ["extra"]
    clean, dirty = Page(html.render(Scorecard(document))), Page(html.render(Scorecard(spoiled(document, text))))
    allowed = {name for name, _ in clean.tags}
    assert {name for name, _ in dirty.tags} <= allowed
    assert len(dirty.all("script")) == 2
    assert not [name for _, attributes in dirty.tags for name in attributes if name.startswith("on")]
    # all of it is text somewhere, as typed
    assert text.split("\u2028", maxsplit=1)[0] in "".join(t for name, t in dirty.texts if name not in {"script", "style"})
    assert embedded(html.render(Scorecard(spoiled(document, text)))) == spoiled(document, text)


# --- one offline file


def embedded(text: str) -> Any:
    """Return the scorecard that a page carries."""
    found = re.findall(r'<script type="application/json" id="scorecard">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    assert not re.search("[<>&\u2028\u2029]", found[0])
    return json.loads(found[0])


def test_the_scorecard_is_in_the_page_and_the_same_scorecard_gives_the_same_page() -> None:
    scorecard = card()
    text = html.render(scorecard)
    assert embedded(text) == scorecard.document
    assert html.render(Scorecard.from_json(scorecard.to_json())) == text


def test_nothing_is_fetched_and_the_policy_allows_only_what_is_in_the_page() -> None:
    text = html.render(card())
    page = Page(text)
    for _, attributes in page.tags:
        assert not {"src", "srcset", "style", "action", "data", "poster"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|image-set", "".join(page.inside("style")))
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy") or ""
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    for name, blocks in (("style-src", style), ("script-src", script)):
        assert len(blocks) == 1
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"


def test_every_link_in_the_page_leads_somewhere() -> None:
    page = Page(html.render(card()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        wanted = [
            (attributes.get("href") or "#")[1:],
            *(attributes.get("aria-labelledby") or "").split(),
            attributes.get("aria-describedby"),
        ]
        assert {name for name in wanted if name} <= set(ids)


def test_two_hundred_findings_fit_into_half_a_megabyte(project: Path) -> None:
    text = html.render(many(card(), 200))
    assert text.count("<article") == 200
    assert len(text.encode()) <= 400_000
    # the longest real one: a sample's scorecard, with its charts, where every finding failed
    sample = Scorecard.from_json((project / "tests" / "golden" / "scorecard-fhir.json").read_bytes())
    assert len(html.render(many(sample, 200)).encode()) <= 500_000


def test_a_ledger_of_thousands_of_files_is_summed_up() -> None:
    row = card().document["ledger"][0]
    files = [{**row, "file": f"file-{i:04d}", "read": 10, "profiled": 10, "rejected": 0} for i in range(1, 2001)]
    files[1500] |= {"status": "truncated", "profiled": 9, "rejected": 1, "reasons": {"truncated": 1}}
    text = html.render(changed(card(), ledger=files))
    ledger = text[text.index('id="ledger"') : text.index('id="provenance"')]
    assert ledger.count('<th scope="row">') == view.MOST_FILES
    assert "file-1501" in ledger  # the one with trouble is never left out
    assert "20,000 records read = 19,999 profiled + 1 rejected" in Page(ledger).prose
    assert "1,999" in ledger


# --- numbers


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0.0 %"),
        (0.0004, "<0.1 %"),
        (0.0005, "0.1 %"),
        (0.1234, "12.3 %"),
        (0.9994, "99.9 %"),
        (0.9999, ">99.9 %"),
        (1, "100 %"),
        (None, "hidden"),
    ],
)
def test_a_share_never_looks_like_nothing_or_everything_unless_it_is(rate: float | None, text: str) -> None:
    assert words.percent(rate).replace("\u00a0", " ") == text


def test_names_and_sizes_are_written_for_people() -> None:
    assert words.release("http://snomed.info/sct/731000124108/version/20240301") == "US edition 2024-03-01"
    assert words.release("http://snomed.info/sct/731000124108") == "US edition"
    assert words.release("FY2026") == "FY2026"
    assert words.release(None) == "not stated"
    assert words.month("2025-03") == "March 2025"
    assert words.month("2025-13") == "2025-13"
    assert [words.size(n).replace("\u00a0", " ") for n in (999, 1_000, 2_500_000)] == ["999 bytes", "1.0 kB", "2.5 MB"]
    assert (words.plural(1, "file"), words.plural(1_000, "file")) == ("1 file", "1,000 files")


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_contrast_aa_in_light_dark_and_print() -> None:
    style = "".join(Page(html.render(card())).inside("style"))
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 3
    for theme in themes:
        pairs = [(text, "bg") for text in ("ink", "muted", "accent", "fail", "warn", "pass", "none", "error")]
        pairs += [(text, "soft") for text in ("ink", "muted")]
        pairs += [
            (text, f"{name}-bg") for name in ("fail", "warn", "pass", "error") for text in (name, "ink", "pass", "warn", "fail", "none")
        ]
        for text, ground in pairs:
            dark, light = sorted((luminance(theme[text]), luminance(theme[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


@pytest.mark.parametrize(
    ("status", "words"), [("expired", "Expired"), ("exceeded", "Worse than it accepts"), ("unused", "Covers no finding"), ("active", "")]
)
def test_waivers_that_no_longer_hold_stand_in_a_table_of_their_own(status: str, words: str) -> None:
    waiver = {
        "rule": "code-coded", "on": "condition.*", "defect": None, "reason": "known", "owner": "Dr <b>Who</b>",
        "expires": "2026-01-31", "max_rate": None, "status": status, "findings": 0,
    }  # fmt: skip
    text = html.render(changed(card(), waivers=[waiver]))
    assert ('id="stale-waivers"' in text) == bool(words)
    if words:
        table = Page(text[text.index('id="stale-waivers"') : text.index("</table>", text.index('id="stale-waivers"'))]).prose
        for said in (words, "condition.*", "Dr <b>Who</b>", "2026-01-31"):
            assert said in table


def test_what_an_ehr_lacks_is_a_job_for_each_requirement_and_no_matter_of_data() -> None:
    document = copy.deepcopy(dict(card().document))
    one = next(f for f in document["findings"] if f["status"] == "fail" and not f["cause"])
    about = {"dimension": "integration", "element": "", "table": "", "group": {}, "defect": "undeclared"}
    document["findings"] = [
        {**one, **about, "id": f"{n:012d}", "rule": f"lack-{n}", "title": title, "message": "the EHR: 1 of 1 is not declared"}
        for n, title in enumerate(("Bulk Data export is offered", "Outputs can be written back"))
    ]
    document["dimensions"] = [{"name": "integration", "score": 0.0, "coverage": 1.0, "fail": 2, "warn": 0, "pass": 0, "not_assessed": 0}]
    page = Page(html.render(Scorecard(document))).prose
    first = page[page.index("What to fix first") : page.index("Results by table and question")]
    assert all(title in first for title in ("Bulk Data export is offered", "Outputs can be written back"))
    assert "of the same kind here" not in first
    assert first.count("The EHR: 1 of 1 is not declared") == 2
    assert "Versions" not in first
    assert "Whole data set" not in page
