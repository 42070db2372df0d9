"""``ehrready contract``: draft a model contract from training, check the file, and fill the evidence table."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Model contracts: draft, check, evidence table.", no_args_is_help=True)
_File = Annotated[str, typer.Argument(metavar="CONTRACT.yaml", help="A model contract.", show_default=False)]
_Output = Annotated[str, typer.Option("--output", "-o", help="Where to write it (- for stdout).")]


@app.callback()
def root() -> None:
    """Model contracts: draft, check, evidence table."""


@app.command()
def init(
    training: Annotated[str, typer.Option("--from", help="Profile of the training set.", show_default=False)],
    output: _Output = "-",
    model: Annotated[str, typer.Option(help="Name of the model.")] = "my-model",
    version: Annotated[str, typer.Option(help="Version of the model.")] = "0.1.0",
    most: Annotated[int, typer.Option(min=1, max=200, help="Codes of each table.")] = 10,
) -> None:
    """Draft a contract from the training profile: its most frequent codes as features."""
    from ehrready import files, saved
    from ehrready.contract import parser
    from ehrready.contract.draft import draft

    for name, value in (("--model", model), ("--version", version)):
        if not parser.is_name(value):
            from ehrready.errors import UsageError

            raise UsageError(f"{name} must be letters, digits, dot, dash and underscore, at most 63")
    profile, _ = saved.load_profile(training)
    files.write(output, draft(profile, model=model, version=version, most=most).encode())


@app.command()
def lint(contract: _File) -> None:
    """Check a contract: every mistake with its line."""
    from ehrready import contract as contracts

    found = contracts.load(contract)
    typer.echo(f"{found.model} {found.version}: no mistakes (features: {len(found.features)}, outputs: {len(found.outputs)})", err=True)


@app.command()
def evidence(
    contract: _File,
    scorecard: Annotated[
        str, typer.Argument(metavar="SCORECARD.json", help="A scorecard of ehrready check or monitor.", show_default=False)
    ],
    output: _Output = "-",
) -> None:
    """Fill the 31 source attributes of HTI-1 (45 CFR 170.315(b)(11)) and a model card from a contract and a scorecard, as Markdown."""
    from ehrready import contract as contracts
    from ehrready import files, saved
    from ehrready.contract.evidence import markdown
    from ehrready.errors import UsageError

    found, card = contracts.load(contract), saved.load_scorecard(scorecard)
    named = card.document.get("contract")
    if named and named["model"] != found.model:
        raise UsageError("the scorecard is of another model's contract: give the contract that it was checked with")
    files.write(output, markdown(found, card.document).encode())
