"""``ehrready monitor``: what a model gives in production, held against its contract, its validation and the record."""

from __future__ import annotations

from typing import Annotated

import typer

from ehrready.commands import options as shared


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
    html: shared.Html = None,
    json: shared.Json = None,
    junit: shared.Junit = None,
    sarif: shared.Sarif = None,
    markdown: shared.Markdown = None,
    report: shared.Report = None,
    fail_on: shared.FailOn = None,
    waivers: shared.Waivers = None,
    baseline: shared.Baseline = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in outputs. [default: dataset]", show_default=False)] = None,
    internal: shared.Internal = False,
    format: Annotated[  # noqa: A002 - the option's name is part of the contract
        str | None, typer.Option(help="Format of --data: auto, fhir, hl7v2, omop or table. [default: auto]", show_default=False)
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="Mapping of the layout of --data.", show_default=False)] = None,
    rules: shared.Rules = None,
    terminology: shared.Terminology = None,
    validate: Annotated[str | None, typer.Option(help="FHIR resources of --data whose structure is validated.", show_default=False)] = None,
    memory: shared.Memory = None,
    threads: shared.Threads = None,
    stamp: Annotated[
        str | None,
        typer.Option(help="Day of the run: label windows that have closed by then count; printed on the scorecard.", show_default=False),
    ] = None,
    show_paths: shared.ShowPaths = False,
) -> None:
    """Watch a model in production: drift of inputs and accuracy, impossible outputs, citations that the record does not hold."""
    given = dict(locals())
    from ehrready import files, outputs, privacy
    from ehrready.commands import common
    from ehrready.production import run

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
