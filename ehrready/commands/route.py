"""``ehrready route``: the findings of a scorecard to those who mend them."""

from __future__ import annotations

from typing import Annotated

import typer


def route(
    scorecard: Annotated[str, typer.Argument(metavar="SCORECARD.json", help="A saved scorecard.", show_default=False)],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the documents, and of what was sent.", show_default=False)],
    contract: Annotated[
        str | None, typer.Option(metavar="FILE", help="Model contract: its owners have the addresses.", show_default=False)
    ] = None,
    least: Annotated[str, typer.Option("--least", help="error, or warning: the least severity that is routed.")] = "warning",
    send: Annotated[bool, typer.Option("--send", help="Post to the owners' webhooks what was not sent before.")] = False,
) -> None:
    """Write one document and one e-mail text per owner; with --send post what is new, or worse, to their webhooks."""
    import os
    from pathlib import Path

    import orjson

    from ehrready import contract as contracts
    from ehrready import files, routing, saved
    from ehrready.commands import common
    from ehrready.errors import SourceError, UsageError

    if least not in {"error", "warning"}:
        raise UsageError("--least must be error or warning")
    wanted = contracts.load(contract) if contract else None
    if send and wanted is None:
        raise UsageError("--send needs --contract: its owners name the variables that hold the addresses")
    card = saved.load_scorecard(scorecard).document
    if send and card["internal"]:
        raise UsageError("an internal scorecard holds small counts and may not be sent: write it again without --internal")
    documents = routing.route(card, wanted, least)
    owners = {owner.name: owner for owner in wanted.owners} if wanted else {}
    addresses = {name: os.environ.get(owner.webhook, "") for name, owner in owners.items() if owner.webhook}
    if send and (missing := sorted(owners[name].webhook for name in documents if name in addresses and not addresses[name])):
        raise UsageError(f"--send needs the variable{'s' if len(missing) > 1 else ''} {', '.join(missing)}: set the address of the webhook")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    state = routing.load_state(out)
    for owner, document in documents.items():
        stem = str(folder / routing.file_name(owner))
        files.write(f"{stem}.json", orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        files.write(f"{stem}.txt", routing.email(document).encode())
        common.say(f"{owner}: {len(document['findings'])} findings")
    if not send:
        return
    done: list[str] = []
    failed = ""
    for name, document in routing.unsent(documents, state).items():
        if name not in addresses:
            common.say(f"{name}: the contract gives no webhook, nothing was sent")
            continue
        try:
            routing.send(document, owners[name], addresses[name])
        except SourceError as error:
            failed = failed or str(error)
            continue
        done.append(name)
        common.say(f"{name}: sent {len(document['findings'])}")
    routing.save_state(out, routing.told(documents, state, done))  # also what was sent before another failed
    if failed:
        raise SourceError(failed)
