"""Options that several commands take, each with its help, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[str], typer.Argument(help="Files, folders, globs or URLs (postgresql://, s3://, ...) of an export.", show_default=False)
]
Name = Annotated[str | None, typer.Option(help="Name of the data set in outputs. [default: dataset]", show_default=False)]
Format = Annotated[str | None, typer.Option(help="auto, fhir, hl7v2, omop or table. [default: auto]", show_default=False)]
Mapping = Annotated[str | None, typer.Option(help="Mapping of a tabular layout: a YAML file or a shipped name.", show_default=False)]
Rules = Annotated[list[str] | None, typer.Option(help="Rule pack: a YAML file or a shipped name; may repeat.", show_default=False)]
Terminology = Annotated[Path | None, typer.Option(help="Folder of release tables. [default: the user's data folder]", show_default=False)]
Validate = Annotated[
    str | None, typer.Option(help="FHIR resources whose structure is validated: none, sample or all. [default: sample]", show_default=False)
]
Memory = Annotated[str | None, typer.Option(help="Memory limit of the engine. [default: 4GB]", show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help="Worker threads. [default: all cores]", show_default=False)]
Engine = Annotated[str | None, typer.Option(help="duckdb or spark. [default: duckdb]", show_default=False)]
Master = Annotated[
    str | None,
    typer.Option(help="Spark's master URL. [default: the running session's, $SPARK_MASTER, else local[*]]", show_default=False),
]
Internal = Annotated[bool, typer.Option("--internal", help="Keep exact small counts (not for leaving the hospital).")]
Html = Annotated[str | None, typer.Option(help="Write the HTML report here.", show_default=False)]
Json = Annotated[str | None, typer.Option(help="Write the JSON scorecard here.", show_default=False)]
ContractFile = Annotated[
    str | None, typer.Option("--contract", help="Model contract (YAML): what the model needs of the data.", show_default=False)
]
Waivers = Annotated[str | None, typer.Option(help="File of waivers: findings somebody answers for until a date.", show_default=False)]
Baseline = Annotated[str | None, typer.Option(help="An earlier JSON scorecard: fail only on what is new or worse.", show_default=False)]
Junit = Annotated[str | None, typer.Option(help="Write JUnit XML here, for a CI server.", show_default=False)]
Sarif = Annotated[str | None, typer.Option(help="Write SARIF 2.1.0 here, for a code-scanning view.", show_default=False)]
Markdown = Annotated[str | None, typer.Option(help="Write Markdown here, for a pull request.", show_default=False)]
Report = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FILE: write the output of that name, also of another package; may repeat.", show_default=False),
]
Worklists = Annotated[
    str | None,
    typer.Option(help="Write CSV lists of uncoded terms, unseen codes and bad units here; needs --allow-phi.", show_default=False),
]
AllowPhi = Annotated[bool, typer.Option("--allow-phi", help="Let --worklists hold what the source wrote, which may identify patients.")]
FailOn = Annotated[str | None, typer.Option(help="error, warning or never. [default: error]", show_default=False)]
Stamp = Annotated[
    str | None, typer.Option(help="Time to print on the scorecard (none by default: same input, same bytes).", show_default=False)
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Keep what was read of finished files in this folder, and go on from there after an interruption. It holds patients' "
        "records in the clear (mode 0700), and is removed when the profile is written.",
        show_default=False,
    ),
]
ShowPaths = Annotated[bool, typer.Option("--show-paths", help="Print which file-0001 is which path, on stderr.")]
