"""``ehrready demo``: the shipped synthetic population, training against live, in all three formats."""

from __future__ import annotations

from pathlib import Path

from ehrready import files, pipeline, privacy, resources
from ehrready.pipeline import Options, Progress
from ehrready.reporters import html
from ehrready.scorecard import Scorecard

FORMATS = ("fhir", "hl7v2", "omop")


def run(directory: Path, progress: Progress) -> list[tuple[str, Scorecard, list[str]]]:
    """Profile the training sample and check the live one, per format; returns title, scorecard and files written.

    The live sample carries planted defects, so its verdict is not-ready: that is the demonstration.
    """
    data = resources.folder("sample_data")
    cards = []
    for fmt in FORMATS:
        options = Options(name=f"sample hospital, {fmt} export", progress=progress)
        training, _, _ = pipeline.read_profile([str(data / "training" / fmt)], Options(name=f"training sample, {fmt}", progress=progress))
        saved = directory / f"training-{fmt}.profile.json"
        files.write(str(saved), privacy.hide_profile(training).to_json())
        card, _ = pipeline.check([str(data / "live" / fmt)], str(saved), options)
        report, scorecard = directory / f"report-{fmt}.html", directory / f"scorecard-{fmt}.json"
        files.write(str(report), html.render(card).encode())
        files.write(str(scorecard), card.to_json())
        cards.append((f"demo: {fmt}", card, [str(report), str(scorecard)]))
    return cards
