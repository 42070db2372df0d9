"""The HTML report: what a reader, a hostile string, a browser and a printer find in it."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ehrready import rules
from ehrready.evaluate import evaluate
from ehrready.profile import Profile
from ehrready.reporters import html
from ehrready.scorecard import Scorecard, build

#: Elements that hold no text of their own, and pictures: their text counts with that of the element around them.
VOID = {"meta", "br", "link", "img", "input", "hr", "svg", "use", "path", "symbol", "text"}
HOSTILE = (
    "<img src=x onerror=alert(1)>\"'&",
    "</script><script>alert(1)</script>",
    "{{ 7*7 }}{% raw %}",
    "' onmouseover='alert(1)",
    "</style></title>\u2028<svg onload=alert(1)>",
)


class Page(HTMLParser):
    """Collects what the tests look at: start tags with attributes, text by element, ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def inside(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def prose(self) -> str:
        """The visible text with single spaces."""
        return " ".join("".join(text for name, text in self.texts if name not in {"script", "style"}).split())


def profile(name: str, missing: int, *, text_only: int = 100, release: str = "FY2024", patients: int = 1000) -> Profile:
    """Make a FHIR profile of patients with one condition each; ``missing`` have no birth date."""
    made = Profile(name)
    frames = made.frames

    def states(element: str, **cells: int) -> None:
        made.source_elements[element] = element.replace("patient", "Patient").replace("condition", "Condition")
        for state, n in {"*": patients, **cells}.items():
            frames["states"][element, "all", "", state] = (n, n, n, n)

    frames["ledger"]["fhir", "read", ""] = (2, 123_456, 2 * patients, 2 * patients, 0)
    frames["patients"]["all", ""] = (patients,)
    for table in ("patient", "condition", "encounter"):
        frames["volume"][table, "2025-03"] = (patients, patients)
        states(f"{table}.patient_id", present=patients)
    states("patient.birth_date", present=patients - missing, missing=missing)
    states("condition.code", coded=patients - text_only, **{"text-only": text_only})
    frames["releases"]["condition.code", "icd10cm", release] = (patients - text_only, patients - text_only)
    return made


def card(missing: int = 150, *, against: bool = True, internal: bool = False, **options: Any) -> Scorecard:
    """Judge a live profile with the shipped rules: the way that every scorecard is made."""
    live = profile("St Elsewhere", missing, release="FY2026", **options)
    training = profile("Cohort 2023", 20, text_only=20) if against else None
    packs = rules.default_packs(live.formats)
    return build(live, training, evaluate(live, training, rules.merged(packs)), packs, internal=internal)


def changed(scorecard: Scorecard, **keys: Any) -> Scorecard:
    """Return a copy of a scorecard with other top-level keys."""
    return Scorecard({**copy.deepcopy(dict(scorecard.document)), **keys})


def many(scorecard: Scorecard, count: int) -> Scorecard:
    """Return a scorecard with ``count`` findings, all of them open."""
    bad = [f for f in scorecard.document["findings"] if f["status"] == "fail"]
    return changed(scorecard, findings=[{**bad[i % len(bad)], "id": f"{i:012x}"} for i in range(count)])


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
    for words in (
        "St Elsewhere", "March 2025", "FHIR", "2,000", "1,000", "Cohort 2023", "Not ready",
        "150 of 1,000 (15.0 %), 150 patients", "Engineering", first["fix"], "FY2026", "FY2024", "not what training used",
    ):  # fmt: skip
        assert words in page_one
    for reason in scorecard.document["verdict_reasons"]:
        assert reason.replace("\u00a0", " ") in page_one
    assert text.count('<li>\n<div class="what">') <= html.FIRST


@pytest.mark.parametrize(("verdict", "words"), [(verdict, words[0]) for verdict, words in html.VERDICTS.items()])
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
    assert page_one.count("patient.birth_date:") == 1
    assert "1 more finding of the same kind here" in Page(page_one).prose


def test_every_open_finding_has_a_card_and_every_other_is_listed_with_its_reason() -> None:
    scorecard = card()
    text = html.render(scorecard)
    statuses = [f["status"] for f in scorecard.document["findings"]]
    opened = [i for i, status in enumerate(statuses) if status in {"fail", "warn", "error"}]
    assert sorted(map(int, re.findall(r'<article class="card [a-z]+" id=f(\d+)>', text))) == opened
    prose = Page(text).prose
    assert f"{statuses.count('pass')} defects looked for and found within the limits" in prose
    for status, words in (("not-applicable", "Does not apply"), ("not-assessed", "Not assessed")):
        results = {(f["rule"], f["element"]) for f in scorecard.document["findings"] if f["status"] == status}
        assert f"{words} ({len(results)})" in prose
    for f in scorecard.document["findings"]:
        if f["status"] == "not-applicable":
            assert f["reason"] in prose


def test_the_grid_adds_up_to_the_dimensions() -> None:
    document = card().document
    names = [row["name"] for row in document["dimensions"]]
    grid = html._grid(document["findings"], names)
    for place, row in enumerate(document["dimensions"]):
        for key, status in (("pass", "pass"), ("warn", "warn"), ("fail", "fail"), ("not_assessed", "not-assessed")):
            assert sum(cells[place][status] for _, cells in grid) == row[key]


def test_a_comparison_draws_its_interval_and_limit_from_the_training_share() -> None:
    found = [f for f in card().document["findings"] if f["check"] == "presence-shift" and f["element"] == "patient.birth_date"]
    f = next(f for f in found if f["defect"] == "missing")
    bar = html._bar(f)
    assert bar is not None
    assert bar.limit_at == pytest.approx(0.02 + f["limit"])
    axis = [16 + round(300 * (0.02 + bound) / bar.scale) for bound in f["interval"]]
    assert [bar.low, bar.high] == axis
    assert html._bar({**f, "training": None}).limit is None  # type: ignore[union-attr]


def test_a_system_whose_release_one_element_states_is_not_called_silent() -> None:
    declared = [{"release": "2.77", "share": 1.0}]
    row: dict[str, Any] = {"element": "observation.code", "system": "loinc", "inferred": None}
    rows: list[dict[str, Any]] = [
        {**row, "declared": declared, "training": {"declared": declared}, "status": "same"},
        {**row, "element": "report.code", "declared": [{"release": None, "share": 1.0}], "training": None, "status": "not-declared"},
    ]
    found = html._systems(rows)
    assert [(r["system"], r["status"], r["seen"], r["trained"]) for r in found] == [("loinc", "same", ["2.77"], ["2.77"])]
    assert html._systems([*rows, {**rows[0], "status": "different"}])[0]["status"] == "different"


# --- privacy


def test_hidden_numbers_are_shown_as_hidden_and_only_an_internal_report_has_them() -> None:
    hidden, open_ = html.render(card(missing=4, patients=100)), html.render(card(missing=4, patients=100, internal=True))
    assert "<dt>Size</dt><dd>hidden (&lt;11)</dd>" in hidden
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
    return text if isinstance(value, str) and not (path and path[-1] in closed and "releases" not in path) else value


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_in_any_field_is_text(text: str) -> None:
    document = copy.deepcopy(dict(card().document))
    document["generated_at"] = "2026-01-01T00:00:00Z"
    document["findings"][0]["group"] = {"site": "site-1"}
    document["findings"][0]["waiver"] = {"reason": "known", "expires": "2027-01-01"}
    worst = next(f for f in document["findings"] if f["status"] == "fail")
    worst |= {"group": {"site": "site-1"}, "waiver": {"reason": "known"}, "reason": "because", "cause": "x"}
    document["ledger"][0]["reasons"] = {"truncated": 1}
    document["releases"][0]["inferred"] = {"releases": ["FY2026"], "probability": 0.99, "evidence": ["14 codes"]}
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


def test_two_hundred_findings_fit_into_half_a_megabyte() -> None:
    text = html.render(many(card(), 200))
    assert text.count("<article") == 200
    assert len(text.encode()) <= 500_000


def test_a_ledger_of_thousands_of_files_is_summed_up() -> None:
    row = card().document["ledger"][0]
    files = [{**row, "file": f"file-{i:04d}", "read": 10, "profiled": 10, "rejected": 0} for i in range(1, 2001)]
    files[1500] |= {"status": "truncated", "profiled": 9, "rejected": 1, "reasons": {"truncated": 1}}
    text = html.render(changed(card(), ledger=files))
    ledger = text[text.index('id="ledger"') : text.index('id="provenance"')]
    assert ledger.count('<th scope="row">') == html.MOST_FILES
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
    assert html.percent(rate).replace("\u00a0", " ") == text


def test_names_and_sizes_are_written_for_people() -> None:
    assert html.release("http://snomed.info/sct/731000124108/version/20240301") == "US edition 2024-03-01"
    assert html.release("http://snomed.info/sct/731000124108") == "US edition"
    assert html.release("FY2026") == "FY2026"
    assert html.release(None) == "not stated"
    assert html.month("2025-03") == "March 2025"
    assert html.month("2025-13") == "2025-13"
    assert [html.size(n).replace("\u00a0", " ") for n in (999, 1_000, 2_500_000)] == ["999 bytes", "1.0 kB", "2.5 MB"]
    assert (html.plural(1, "file"), html.plural(1_000, "file")) == ("1 file", "1,000 files")


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


# --- a real browser

Browse = Callable[..., tuple[str, str]]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Return a function that opens a page in headless Chromium with some options: its DOM or file, and its log."""
    program = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (chromium, chromium-browser or google-chrome), which is not installed")

    def run(text: str, *options: str) -> tuple[str, str]:
        page = tmp_path / "page.html"
        page.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000", *options, page.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, done.stderr

    return run


def console(log: str) -> list[str]:
    """Return what a page wrote to the console, policy violations included."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


def network(net_log: Path) -> list[str]:
    """Return the web addresses that the browser asked for, its own housekeeping left out."""
    events = json.loads(net_log.read_text())["events"]
    found = {str(event.get("params", {}).get("url", "")) for event in events}
    own = re.compile(r"https?://([a-z0-9.-]+\.)?(google|googleapis|gstatic|gvt1)\.com[/:]")
    return sorted(address for address in found if re.match("(https?|wss?):", address) and not own.match(address))


def test_the_browser_reports_no_error_and_asks_for_nothing(browse: Browse, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    dom, said = browse(html.render(card()), "--dump-dom", f"--log-net-log={log}")
    assert console(said) == []
    assert network(log) == []
    assert 'id="tools">' in dom  # the script ran: it takes `hidden` off the tools
    assert "Not ready" in dom


def test_the_browser_test_would_see_an_error_and_a_request(browse: Browse, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    text = html.render(card())
    assert console(browse(text.replace("</main>", "<script>1</script></main>"), "--dump-dom")[1])  # against the policy
    loose = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</main>", '<img src="http://report.invalid/x.png"></main>')
    browse(loose, "--dump-dom", f"--log-net-log={log}")
    assert network(log) == ["http://report.invalid/x.png"]


#: The page in a frame, because a headless window is never narrower than 500 pixels.
PROBE = """<!doctype html><body><script>
const frame = document.createElement("iframe");
frame.width = WIDTH; frame.height = 900; frame.style.border = 0;
frame.addEventListener("load", () => {
  const page = frame.contentDocument, tools = page.getElementById("tools"), say = {};
  const seen = () => [...page.querySelectorAll(".card")].filter((c) => c.checkVisibility()).map((c) => c.id);
  say.wide = page.documentElement.scrollWidth; say.window = frame.contentWindow.innerWidth; say.all = seen();
  tools.elements.owner.value = "engineering";
  tools.dispatchEvent(new Event("change"));
  say.owner = seen(); say.shown = page.getElementById("shown").value;
  document.documentElement.textContent = "PROBE" + JSON.stringify(say) + "END";
});
frame.srcdoc = PAGE;
document.body.append(frame);
</script></body>"""


def probe(browse: Browse, scorecard: Scorecard, width: int) -> Any:
    """Run a probe beside the page and return what it saw."""
    page = json.dumps(html.render(scorecard)).replace("</", "<\\/").replace("<!--", "<\\!--")
    dom, _ = browse(PROBE.replace("WIDTH", str(width)).replace("PAGE", page), "--dump-dom", "--window-size=1400,1000")
    found = re.search("PROBE(.*)END", dom)
    assert found, dom[-500:]
    return json.loads(found[1])


def test_the_filter_shows_the_work_of_one_owner(browse: Browse) -> None:
    scorecard = card()
    seen = probe(browse, scorecard, 1280)
    findings = scorecard.document["findings"]
    mine = {i for i in seen["all"] if findings[int(i[1:])]["owner"] == "engineering"}
    assert set(seen["owner"]) == mine
    assert 0 < len(mine) < len(seen["all"])
    assert seen["shown"] == f"{len(mine)} of {len(seen['all'])} findings"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_of_the_screen(browse: Browse, width: int) -> None:
    seen = probe(browse, many(card(), 12), width)  # 320 pixels: reflow, WCAG 2.2 criterion 1.4.10
    assert seen["window"] == width
    assert seen["wide"] <= width


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_can_be_photographed_at_three_widths(browse: Browse, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "page.png"
    browse(html.render(card()), f"--screenshot={picture}", f"--window-size={width},1200")
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == width
    assert len(data) > 20_000  # an empty page is smaller


def test_it_prints_on_a4_and_page_one_is_one_page(browse: Browse, tmp_path: Path) -> None:
    def pages(text: str) -> tuple[int, bytes]:
        paper = tmp_path / "page.pdf"
        browse(text, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
        data = paper.read_bytes()
        return len(re.findall(rb"/Type\s*/Page\b", data)), data

    text = html.render(many(card(), 12))
    start, end = text.index('<main id="detail"'), text.index("</main>")
    count, data = pages(text[:start] + text[end + 7 :].replace("<footer>", "<footer hidden>"))
    assert count == 1
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", data)
    assert box
    assert [round(float(side)) for side in box.groups()] == [595, 842]
    assert pages(text)[0] > 1


def test_axe_finds_no_accessibility_violation(browse: Browse) -> None:
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python, which is not installed")
    source = next(Path(axe.__file__).parent.glob("axe*.js")).read_text(encoding="utf-8").replace("</script", "<\\/script")
    text = re.sub(r"<meta http-equiv[^>]*>", "", html.render(card())).replace("<details", "<details open")
    run = (
        "axe.run().then((r) => { document.documentElement.textContent = 'AXE' + JSON.stringify(r.violations.map((v) => v.id)) + 'END'; });"
    )
    for width in (390, 1280):
        dom, _ = browse(
            text.replace("</body>", f"<script>{source}</script><script>{run}</script></body>"), "--dump-dom", f"--window-size={width},900"
        )
        assert re.findall(r"AXE(.*)END", dom)[-1:] == ["[]"]
