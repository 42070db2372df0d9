"""``ehrready diff``: two scorecards side by side, by what became of their findings."""

from __future__ import annotations

from typing import Annotated

import typer


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD.scorecard.json", help="The earlier scorecard.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW.scorecard.json", help="The later scorecard.", show_default=False)],
    markdown: Annotated[str | None, typer.Option(help="Write the comparison as Markdown here.", show_default=False)] = None,
    html: Annotated[str | None, typer.Option(help="Write the comparison as an HTML page here.", show_default=False)] = None,
    json: Annotated[str | None, typer.Option(help="Write the comparison as JSON here.", show_default=False)] = None,
) -> None:
    """Say what is new, worse, better, fixed and no longer assessed between two scorecards."""
    import orjson

    from ehrready import files, saved
    from ehrready.commands import common
    from ehrready.difference import KINDS, difference
    from ehrready.errors import UsageError
    from ehrready.reporters import compared
    from ehrready.reporters.console import plain

    before, after = saved.load_scorecard(old).document, saved.load_scorecard(new).document
    document = compared.to_json(before, after, difference(before, after))
    if [markdown, html, json].count("-") > 1:
        raise UsageError("only one output can go to stdout: give the others a file")
    made: list[tuple[str, bytes]] = []  # all are made before any is written
    if markdown:
        made.append((markdown, compared.to_markdown(document).encode()))
    if html:
        made.append((html, compared.to_html(document).encode()))
    if json:
        made.append((json, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"))
    for target, data in made:
        files.write(target, data)
    console = common.console()
    console.print(compared.heading(document), markup=False, style="bold")
    for line in document["unlike"]:
        console.print(f"  {plain(line)}", markup=False)
    for kind, words in KINDS.items():
        items = document[kind]
        console.print(f"{len(items):>5}  {words}", markup=False)
        for item in items if kind != "same" else ():
            console.print(f"         {plain(item['rule'])}  {plain(compared.message(item))}", markup=False)
