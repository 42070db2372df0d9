"""The report in a real browser: what it shows, asks for, complains about and prints, at three widths and on paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ehrready import sequence
from ehrready.difference import difference
from ehrready.reporters import compared, html
from ehrready.scorecard import Scorecard
from tests.reporters.pages import card, many, rich

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (360, 820, 1440)
#: What CSS leaves of an element: a folded-away part is in the layout, but not rendered.
VISIBLE = "e => e.checkVisibility({contentVisibilityAuto: true})"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the system's Chromium once; no download, no network."""
    program = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (chromium, chromium-browser or google-chrome), which is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        yield started
        started.close()


Show = Callable[..., "Page"]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Return a function that opens a page; what it logged and asked for is in ``page.said``, a list."""
    contexts = []

    def opened(content: Scorecard | str, width: int = 1440, *, anchor: str = "", **options: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(content if isinstance(content, str) else html.render(content), encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.split("#")[0] == file.as_uri() else said.append(request.url))
        page.goto(file.as_uri() + anchor)
        page.said = said  # type: ignore[attr-defined]
        return page

    yield opened
    for context in contexts:
        context.close()


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_says_nothing_asks_for_nothing_fits_the_screen_and_can_be_photographed(
    show: Show, tmp_path: Path, width: int, scheme: str
) -> None:
    page = show(rich(), width, color_scheme=scheme)
    unfold(page)
    assert page.said == []  # type: ignore[attr-defined]
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    picture = page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert int.from_bytes(picture[16:20], "big") == width
    assert len(picture) > 50_000  # an empty page is smaller
    assert page.locator("#tools").is_visible()  # the script ran


def test_there_is_no_web_address_in_the_page_that_could_be_fetched() -> None:
    text = html.render(rich())
    assert not re.search(
        r"""(?:src|href|action|url|@import)\s*[=(]?\s*["']?\s*(?:https?:)?//""", text.split('<script type="application/json"')[0]
    )


def test_the_browser_test_would_see_an_error_and_a_request(show: Show) -> None:
    text = html.render(card())
    page = show(text.replace("</main>", "<script>1</script></main>"))
    assert any("Content Security Policy" in line for line in page.said)  # type: ignore[attr-defined]
    loose = re.sub(r"<meta http-equiv[^>]*>", "", text)
    page = show(loose.replace("</main>", '<img alt="" src="http://report.invalid/x.png"></main>'))
    assert "http://report.invalid/x.png" in page.said  # type: ignore[attr-defined]


def test_it_reflows_at_320_pixels(show: Show) -> None:
    page = show(many(rich(), 12), 320)  # WCAG 2.2 criterion 1.4.10
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_everything_can_be_read_without_the_script(show: Show) -> None:
    page = show(rich(), 820, java_script_enabled=False)
    assert page.locator("#tools").is_hidden()
    findings = rich().document["findings"]
    opened = [f for f in findings if f["status"] in {"fail", "warn"}]
    page.locator("details.effects > summary").click()
    cards = page.locator(".card")
    assert cards.count() == len(opened)
    assert all(cards.nth(i).is_visible() for i in range(cards.count()))
    page.locator(".chart summary").first.click()
    assert page.locator(".chart details[open] td").first.is_visible()


def test_the_filter_shows_the_work_of_one_owner_and_the_order_changes(show: Show) -> None:
    scorecard = card()
    page = show(scorecard)
    findings = scorecard.document["findings"]
    every = page.eval_on_selector_all(".card", "all => all.map((e) => e.id)")
    page.select_option("select[name=owner]", "engineering")
    seen = page.eval_on_selector_all(".card", "all => all.filter((e) => e.checkVisibility()).map((e) => e.id)")
    mine = {i for i in every if findings[int(i[1:])]["owner"] == "engineering"}
    numbers = {f["id"]: f"f{n}" for n, f in enumerate(findings)}
    causes = {numbers[findings[int(i[1:])]["cause"]] for i in mine if findings[int(i[1:])]["cause"]}  # what they stand under
    assert set(seen) == mine | causes
    assert 0 < len(mine) < len(every)
    assert page.locator("#shown").text_content() == f"{len(mine)} of {len(every)} findings"
    page.select_option("select[name=owner]", "")
    page.select_option("select[name=order]", "element")
    elements = [
        findings[int(i[1:])]["element"] for i in page.eval_on_selector_all(".group", "all => all.map((e) => e.querySelector('.card').id)")
    ]
    assert elements == sorted(elements)
    assert page.locator("#shown").text_content() == f"{len(every)} findings"


def test_a_finding_under_another_is_found_by_the_filter_and_by_its_link(show: Show) -> None:
    scorecard = rich()
    number, f = next((i, f) for i, f in enumerate(scorecard.document["findings"]) if f["cause"])
    page = show(scorecard, anchor=f"#f{number}")
    assert page.locator(f"#f{number}").is_visible()
    page.select_option("select[name=owner]", f["owner"])
    assert page.locator(f"#f{number}").is_visible()


def test_the_keyboard_reaches_the_filters_and_what_is_folded_away(show: Show) -> None:
    page = show(card(), 820)
    reached: list[str] = []
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.tagName"))
    assert reached[0] == "A"  # the skip link
    for name in ("status", "severity", "owner", "order", "print-work", "SUMMARY"):
        assert name in reached
    page.locator("summary").first.focus()
    assert page.locator("details").first.get_attribute("open") is None
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    # where the focus is can be seen
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_accessibility_violation(show: Show, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python, which is not installed")
    source = next(Path(axe.__file__).parent.glob("axe*.js")).read_text(encoding="utf-8")
    before, after = card(against=False).document, rich().document
    changes = compared.to_html(compared.to_json(before, after, difference(before, after)))
    stages = sequence.to_html(sequence.status([sequence.Card("a-rather-long-name.scorecard.json", "data", dict(before))], []))
    pages = (
        (rich(), 360),
        (rich(internal=True), 1440),
        (card(against=False), 820),
        (changes, 360),
        (changes, 1440),
        (stages, 360),
        (stages, 1440),
    )
    for content, width in pages:
        page = show(content, width, color_scheme=scheme)
        assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        assert page.said == []  # type: ignore[attr-defined]
        unfold(page)
        page.evaluate(source)
        found = page.evaluate("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html)]))")
        assert found == []


# --- paper


def pdf_pages(data: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", data))


def test_page_one_is_one_a4_page(show: Show) -> None:
    text = html.render(many(rich(), 12))
    start, end = text.index('<main id="detail"'), text.index("</main>")
    alone = show(text[:start] + text[end + 7 :].replace("<footer>", "<footer hidden>"))
    data = alone.pdf(prefer_css_page_size=True)
    assert pdf_pages(data) == 1
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", data)
    assert box
    assert [round(float(side)) for side in box.groups()] == [595, 842]
    assert pdf_pages(show(text).pdf(prefer_css_page_size=True)) > 1


def test_what_is_folded_away_on_the_screen_is_on_the_paper(show: Show, tmp_path: Path) -> None:
    scorecard = rich()
    page = show(scorecard, java_script_enabled=False)  # by the style sheet alone
    page.emulate_media(media="print")
    shut = page.locator("details:not([open]):not(.data) > :not(summary)")
    assert shut.count() > 5
    assert page.locator("details:not([open]):not(.data) > :not(summary)").evaluate_all(f"all => all.every({VISIBLE})")
    assert page.locator(".data table").first.is_hidden()  # the picture has them
    said = paper(page, tmp_path)
    f = next(f for f in scorecard.document["findings"] if f["cause"])
    for words in (
        f["message"].split(": ", 1)[1],
        f["why"],
        "Counted as defect",
        "14 codes first valid in FY2026",
        scorecard.document["ledger"][0]["file"],
    ):
        assert words in said


def test_the_work_of_one_owner_prints_alone(show: Show, tmp_path: Path) -> None:
    page = show(card(), anchor="#work-2", java_script_enabled=False)
    page.emulate_media(media="print")
    assert page.locator("#work-2").is_visible()
    for other in ("#one", "#work-1", "#findings", "#ledger", "footer"):
        assert page.locator(other).is_hidden()
    said = paper(page, tmp_path)
    assert said.startswith("Engineering")
    assert "Clinical informatics" not in said
    assert pdf_pages(page.pdf(prefer_css_page_size=True)) == 1


def paper(page: Page, folder: Path) -> str:
    """Return the text of the printed page with single spaces; skip where poppler's pdftotext is not installed."""
    if not shutil.which("pdftotext"):
        pytest.skip("needs pdftotext (poppler-utils) to read the PDF, which is not installed")
    page.pdf(path=folder / "page.pdf", prefer_css_page_size=True)
    done = subprocess.run(["pdftotext", "-raw", folder / "page.pdf", "-"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.replace("\u00a0", " ").split())
