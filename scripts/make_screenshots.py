"""Make the pictures of docs/report.md from the sample data (needs Chromium)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import ehrready  # noqa: E402
from ehrready.reporters import html  # noqa: E402

#: Picture to the element it shows, in a window of 1200 pixels.
PICTURES = {"report-page-one.png": "#one", "report-grid.png": "section:has(.grid)"}


def main() -> None:
    """Write docs/images/*.png."""
    from playwright.sync_api import sync_playwright

    training = ehrready.profile_of(ROOT / "sample_data" / "training" / "fhir", name="training sample")
    card = ehrready.check(ROOT / "sample_data" / "live" / "fhir", against=training, name="live sample")
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as p:
        page_file = Path(place) / "report.html"
        page_file.write_text(html.render(card), encoding="utf-8")
        browser = p.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.goto(page_file.as_uri())
        for name, element in PICTURES.items():
            page.locator(element).first.screenshot(path=folder / name)
        browser.close()


if __name__ == "__main__":
    main()
