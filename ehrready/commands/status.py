"""``ehrready status``: which stage of the sequence a project's folder has passed."""

from __future__ import annotations

from typing import Annotated

import typer


def status(
    folder: Annotated[str, typer.Argument(help="The project's folder: scorecards (JSON) and contract.yaml.", show_default=False)],
    html: Annotated[str | None, typer.Option(help="Write the page for stakeholders here.", show_default=False)] = None,
    json: Annotated[str | None, typer.Option(help="Write the stages as JSON here.", show_default=False)] = None,
    markdown: Annotated[str | None, typer.Option(help="Write the stages as Markdown here.", show_default=False)] = None,
    name: Annotated[str, typer.Option(help="Name of the project in outputs.")] = "project",
) -> None:
    """Say which stage before the model is passed, blocked, skipped or not begun; exit 0 only when all are passed."""
    import orjson

    from ehrready import files, sequence
    from ehrready.commands import common
    from ehrready.errors import Exit, UsageError
    from ehrready.reporters.console import plain

    document = sequence.status(*sequence.read(folder), name)
    if [html, json, markdown].count("-") > 1:
        raise UsageError("only one output can go to stdout: give the others a file")
    made: list[tuple[str, bytes]] = []  # all are made before any is written
    if html:
        made.append((html, sequence.to_html(document).encode()))
    if json:
        made.append((json, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"))
    if markdown:
        made.append((markdown, sequence.to_markdown(document).encode()))
    for target, data in made:
        files.write(target, data)
    console = common.console()
    for number, row in enumerate(document["stages"], 1):
        console.print(f"{number}. {row['title']}: {sequence.STATUSES[row['status']].lower()}", markup=False, style="bold")
        for text in filter(None, (row["reason"], row["next"])):
            console.print(f"   {plain(text)}", markup=False)
    if not document["ready"]:
        begun = any(row["status"] != "open" for row in document["stages"])
        raise typer.Exit(Exit.FAILED if begun else Exit.CANNOT_TELL)
