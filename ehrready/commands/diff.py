"""``ehrready diff``: two scorecards side by side, by what became of their findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ehrready.difference import Difference

#: Kinds of change in the order in which they are told, and their headings.
KINDS = {
    "new": "new",
    "worse": "worse",
    "gone": "no longer assessed",
    "better": "better, still failing",
    "same": "as before",
    "fixed": "fixed",
}
_SHOWN = ("rule", "title", "element", "group", "defect", "status", "severity", "owner", "numerator", "denominator", "rate", "message")


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD.scorecard.json", help="The earlier scorecard.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW.scorecard.json", help="The later scorecard.", show_default=False)],
    markdown: Annotated[str | None, typer.Option(help="Write the comparison as Markdown here.", show_default=False)] = None,
    json: Annotated[str | None, typer.Option(help="Write the comparison as JSON here.", show_default=False)] = None,
) -> None:
    """Say what is new, worse, better, fixed and no longer assessed between two scorecards."""
    import orjson

    from ehrready import cli, files, pipeline
    from ehrready.difference import difference
    from ehrready.errors import UsageError
    from ehrready.reporters.console import plain

    before, after = pipeline.load_scorecard(old).document, pipeline.load_scorecard(new).document
    found = difference(before, after)
    if markdown == "-" and json == "-":
        raise UsageError("only one output can go to stdout: give the others a file")
    if markdown:
        files.write(markdown, to_markdown(before, after, found).encode())
    if json:
        files.write(json, orjson.dumps(to_json(before, after, found), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    console = cli._console()
    console.print(_heading(before, after), markup=False, style="bold")
    for line in found.unlike:
        console.print(f"  {plain(line)}", markup=False)
    for kind, words in KINDS.items():
        items = getattr(found, kind)
        console.print(f"{len(items):>5}  {words}", markup=False)
        for item in items if kind != "same" else ():
            console.print(f"         {plain(item['rule'])}  {plain(item['message'])}", markup=False)


def to_json(before: Any, after: Any, found: Difference) -> dict[str, Any]:
    """Return the comparison as a document: per kind the findings, newest first where they are in both."""
    sides = {
        name: {"name": d["subject"]["name"], "verdict": d["verdict"], "score": d["score"]} for name, d in (("old", before), ("new", after))
    }
    kinds = {kind: [{"id": f["id"], **{key: f[key] for key in _SHOWN}} for f in getattr(found, kind)] for kind in KINDS}
    return {"kind": "ehrready-difference", "schema_version": "1.0", **sides, "unlike": found.unlike, **kinds}


def to_markdown(before: Any, after: Any, found: Difference) -> str:
    """Return the comparison as GitHub-flavoured Markdown; every text of the scorecards is escaped."""
    from ehrready.reporters.markdown import escape

    lines = [f"## {escape(_heading(before, after))}", ""]
    lines += [f"- {escape(line)}" for line in found.unlike]
    for kind, words in KINDS.items():
        items = getattr(found, kind)
        lines += ["", f"### {len(items)} {words}"]
        if items and kind != "same":
            lines += ["", "| rule | owner | finding |", "|---|---|---|"]
            lines += [f"| {escape(f['rule'])} | {escape(f['owner'])} | {escape(f['message'])} |" for f in items]
    return "\n".join(lines) + "\n"


def _heading(before: Any, after: Any) -> str:
    from ehrready.reporters.console import plain

    score = f"score {_score(before)} to {_score(after)}"
    return plain(f"{before['verdict']} ({before['subject']['name']}) to {after['verdict']} ({after['subject']['name']}); {score}")


def _score(document: Any) -> str:
    return "none" if document["score"] is None else f"{document['score']:g}"
