"""``ehrready monitor``: what a model gives in production, held against its contract, its validation and the record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def monitor(
    predictions: Annotated[
        list[str], typer.Argument(help="What the model gave: Parquet, CSV or FHIR RiskAssessment files.", show_default=False)
    ],
    contract: Annotated[str, typer.Option(metavar="FILE", help="Model contract (YAML): its outputs and label.", show_default=False)],
    against: Annotated[
        list[str] | None,
        typer.Option(help="Profile of the training set, or of the validation's predictions; may repeat.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Records of the same patients, for input shift and grounding; may repeat.", show_default=False),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Outcomes that come apart from the predictions: Parquet or CSV; may repeat.", show_default=False),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of earlier runs: judged together with this one, which is added.", show_default=False),
    ] = None,
    save_profile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Save this run's profile: the baseline of later runs.", show_default=False)
    ] = None,
    html: Annotated[str | None, typer.Option(help="Write the HTML report here.", show_default=False)] = None,
    json: Annotated[str | None, typer.Option(help="Write the JSON scorecard here.", show_default=False)] = None,
    junit: Annotated[str | None, typer.Option(help="Write JUnit XML here, for a CI server.", show_default=False)] = None,
    sarif: Annotated[str | None, typer.Option(help="Write SARIF 2.1.0 here, for a code-scanning view.", show_default=False)] = None,
    markdown: Annotated[str | None, typer.Option(help="Write Markdown here, for a pull request.", show_default=False)] = None,
    report: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: write the output of that name; may repeat.", show_default=False)
    ] = None,
    fail_on: Annotated[str | None, typer.Option(help="error, warning or never. [default: error]", show_default=False)] = None,
    waivers: Annotated[
        str | None, typer.Option(help="File of waivers: findings somebody answers for until a date.", show_default=False)
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="An earlier JSON scorecard: fail only on what is new or worse.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in outputs. [default: dataset]", show_default=False)] = None,
    internal: Annotated[bool, typer.Option("--internal", help="Keep exact small counts (not for leaving the hospital).")] = False,
    format: Annotated[  # noqa: A002 - the option's name is part of the contract
        str | None, typer.Option(help="Format of --data: auto, fhir, hl7v2, omop or table. [default: auto]", show_default=False)
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="Mapping of the layout of --data.", show_default=False)] = None,
    rules: Annotated[
        list[str] | None, typer.Option(help="Rule pack: a YAML file or a shipped name; may repeat.", show_default=False)
    ] = None,
    terminology: Annotated[Path | None, typer.Option(help="Folder of release tables.", show_default=False)] = None,
    validate: Annotated[str | None, typer.Option(help="FHIR resources of --data whose structure is validated.", show_default=False)] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit of the engine. [default: 4GB]", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Worker threads. [default: all cores]", show_default=False)] = None,
    stamp: Annotated[
        str | None,
        typer.Option(help="Day of the run: label windows that have closed by then count; printed on the scorecard.", show_default=False),
    ] = None,
    show_paths: Annotated[bool, typer.Option("--show-paths", help="Print which file-0001 is which path, on stderr.")] = False,
) -> None:
    """Watch a model in production: drift of inputs and accuracy, impossible outputs, citations that the record does not hold."""
    from ehrready import files, outputs, privacy
    from ehrready.commands import common
    from ehrready.production import run

    given = {key: value for key, value in locals().items() if key not in {"cli", "files", "outputs", "privacy", "run"}}
    options, gate = common.options(given), common.gate(fail_on)
    targets = {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}
    outputs.chosen(targets, report or ())  # a mistake in an output is told before the long work
    with common.progress_bar() as progress:
        card, profile, paths, said = run.monitor(
            predictions,
            common.changed(options, progress=progress, reports=tuple(report or ())),
            data=data or (),
            against=against or (),
            state=state,
            validation=save_profile is not None,
            labels=labels or (),
        )
    common.show_paths(paths, show_paths)
    for line in said:
        common.say(line)
    if save_profile:
        kept = privacy.without_sites(profile) if options.internal else privacy.hide_profile(profile)
        files.write(save_profile, kept.to_json())
    common.finish(card, targets, gate, report or ())
