"""``ehrready rules``: what is checked, and whether packs are sound."""

from __future__ import annotations

from typing import Annotated

import typer

from ehrready.commands import common
from ehrready.errors import UsageError

app = typer.Typer(help="List, show and check rule packs.", no_args_is_help=True)


@app.command("list")
def rules_list() -> None:
    """List the shipped packs and their rules."""
    from ehrready import rules

    for path in rules.shipped().values():
        pack = rules.load(path)
        extended = f" (extends {', '.join(other.name for other in pack.extends)}; changed and own rules:)" if pack.extends else ""
        typer.echo(f"{pack.name} {pack.version}  {pack.title}{extended}")
        taken = {rule.id: rule for other in pack.extends for rule in other.rules}
        for rule in pack.rules:
            if rule != taken.get(rule.id):
                typer.echo(f"  {rule.id:<36} {rule.severity:<8} {rule.check:<18} {rule.title}")


@app.command("show")
def rules_show(rule_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)]) -> None:
    """Show one rule: what it counts, its limits, why it matters, how to fix it."""
    import difflib

    from ehrready import rules
    from ehrready.checks import CHECKS

    known = {rule.id: rule for path in reversed(rules.shipped().values()) for rule in rules.load(path).rules if rule.pack == path.stem}
    if rule_id not in known:
        close = difflib.get_close_matches(rule_id, known, n=1)
        raise UsageError(
            f"no rule is called {rule_id!r}" + (f" (did you mean {close[0]!r}?)" if close else "") + ": see ehrready rules list"
        )
    rule = known[rule_id]
    limits = [
        ("fail above", rule.limits.fail),
        ("warn above", rule.limits.warn),
        ("fail above training +", rule.limits.max_rise),
        ("warn above training +", rule.limits.warn_rise),
    ]
    lines = [
        f"{rule.id}  ({rule.pack}, {rule.severity}, {rule.owner})",
        rule.title,
        "",
        f"check: {rule.check}" + "".join(f", {key}={value}" for key, value in rule.options.items()),
        f"on: {', '.join(filter(None, rule.elements)) or 'the whole data set'}",
        *(f"{words}: {100 * value:g} %" for words, value in limits if value is not None),
        f"why: {rule.why}",
        f"fix: {rule.fix}",
        "",
        CHECKS[rule.check].help,
    ]
    typer.echo("\n".join(lines))


@app.command("lint")
def rules_lint(files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)]) -> None:
    """Validate rule packs; prints every mistake with file and line."""
    from ehrready import rules

    packs = rules.lint(files)
    common.say(f"{len(packs)} pack(s), {sum(len(pack.rules) for pack in packs)} rules: no mistakes")
