"""``ehrready gx run``: a user's own suite in the scorecard; ``ehrready rules export``: the rule packs as a suite."""

from __future__ import annotations

import json as codec
from pathlib import Path
from typing import Annotated

import typer

from ehrready.commands import options as shared

app = typer.Typer(help="Great Expectations: run your own suite on an export.", no_args_is_help=True)
Table = Annotated[str | None, typer.Option(help="Canonical table of expectations that name none.", show_default=False)]


@app.callback()
def root() -> None:
    """Great Expectations: run your own suite on an export."""


@app.command()
def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE.json", help="A suite as Great Expectations 1.x saves it.", show_default=False)],
    source: Annotated[list[str], typer.Argument(help="Files, folders or globs of an export.", show_default=False)],
    table: Table = None,
    against: Annotated[str | None, typer.Option(help="Profile of the training set.", show_default=False)] = None,
    html: shared.Html = None,
    json: shared.Json = None,
    fail_on: shared.FailOn = None,
    name: shared.Name = None,
    internal: shared.Internal = False,
    format: Annotated[  # noqa: A002 - the option's name is part of the contract
        str | None, typer.Option(help="auto, fhir, hl7v2, omop or table. [default: auto]", show_default=False)
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="Mapping of a tabular layout.", show_default=False)] = None,
    rules: Annotated[list[str] | None, typer.Option(help="Rule pack beside the suite; may repeat.", show_default=False)] = None,
    terminology: Annotated[Path | None, typer.Option(help="Folder of release tables.", show_default=False)] = None,
    memory: shared.Memory = None,
    threads: shared.Threads = None,
    stamp: Annotated[str | None, typer.Option(help="Time to print on the scorecard.", show_default=False)] = None,
    show_paths: shared.ShowPaths = False,
) -> None:
    """Check an export as ehrready check does, and run a Great Expectations suite on its canonical tables, too."""
    from ehrready import pipeline, saved
    from ehrready.commands import common
    from ehrready.integrations import gx, gx_suite

    options = common.options(locals())
    settings = common.settings()
    gate = common.gate(fail_on)
    mine = gx_suite.read(suite, table=table or "")
    gx.library()  # told before the long work when it is missing
    trained = against or settings.get("against")
    training, digest = saved.load_profile(trained) if trained else (None, None)
    with common.progress_bar() as progress:
        options = common.changed(options, progress=progress)
        profile, ledger, paths = pipeline.read_profile(source, options, also=lambda con: mine.run(con, options.terminology))
    card = pipeline.judge(profile, training, options, ledger=ledger, training_sha256=digest, more=(mine.pack(), mine.findings))
    common.show_paths(paths, show_paths)
    common.finish(card, {"html": html, "json": json}, gate)


def export(
    packs: Annotated[
        list[str] | None, typer.Argument(metavar="[PACK]...", help="Shipped names or YAML files. [default: core]", show_default=False)
    ] = None,
    to: Annotated[str, typer.Option("--to", help="gx: a suite of Great Expectations 1.x.")] = "gx",
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the suite (- for stdout).")] = "-",
    table: Annotated[str | None, typer.Option(help="Only the expectations about this canonical table.", show_default=False)] = None,
) -> None:
    """Write rule packs as a Great Expectations suite; what has no form there is listed on stderr."""
    from ehrready import files, rules
    from ehrready.commands import common
    from ehrready.errors import UsageError
    from ehrready.integrations import gx_export, gx_tables

    if to != "gx":
        raise UsageError("--to must be gx")
    if table is not None and table not in gx_tables.NAMES:
        raise UsageError(f"--table must be one of {', '.join(gx_tables.NAMES)}")
    document, lost = gx_export.suite(rules.load_all(packs or ["core"]), table=table or "")
    if not document["expectations"]:
        raise UsageError("none of these rules has a form in Great Expectations" + (f" about the table {table}" if table else ""))
    files.write(output, codec.dumps(document, indent=2, sort_keys=True).encode() + b"\n")
    for line in lost:
        common.say(line)
