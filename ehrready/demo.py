"""``ehrready demo``: the shipped synthetic population, training against live, in all three formats, and a model on it."""

from __future__ import annotations

from pathlib import Path

from ehrready import files, pipeline, privacy, resources, sequence
from ehrready.options import Options, Progress
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
    return cards + _model(directory, data, progress)


def _model(directory: Path, data: Path, progress: Progress) -> list[tuple[str, Scorecard, list[str]]]:
    """Judge a made-up model by its contract: two vendors' EHRs, three months of predictions; then say where the project stands."""
    from ehrready.commands.integration import judged
    from ehrready.production import run as production

    folder = data / "production"
    contract = directory / "contract.yaml"
    files.write(str(contract), (folder / "contract.yaml").read_bytes())
    made: list[tuple[str, Scorecard]] = [
        (f"integration-vendor-{vendor}", judged(str(contract), str(folder / f"vendor-{vendor}-metadata.json"), name=f"synthetic EHR {vendor.upper()}",
                                               smart=str(folder / f"vendor-{vendor}-smart.json")))
        for vendor in ("a", "b")
    ]  # fmt: skip
    baseline = directory / "validation.profile.json"
    named = Options(name="validation of the sample model", contract=str(contract), progress=progress)
    _, validation, _, _ = production.monitor([str(folder / "validation.csv.gz")], named)
    files.write(str(baseline), privacy.hide_profile(validation).to_json())
    options = Options(name="sample model in production", contract=str(contract), stamp="2026-07-01", progress=progress)
    predictions = [str(folder / "predictions.csv.gz"), str(folder / "notes.csv.gz")]
    against = [str(directory / "training-fhir.profile.json"), str(baseline)]
    made.append(("monitor", production.monitor(predictions, options, data=[str(data / "live" / "fhir")], against=against)[0]))
    cards = []
    for name, card in made:
        outputs = [(directory / f"report-{name}.html", html.render(card).encode()), (directory / f"scorecard-{name}.json", card.to_json())]
        for path, content in outputs:
            files.write(str(path), content)
        cards.append((f"demo: {name}", card, [str(path) for path, _ in outputs]))
    document = sequence.status(*sequence.read(str(directory)), "sample project")
    files.write(str(directory / "status.html"), sequence.to_html(document).encode())
    return cards
