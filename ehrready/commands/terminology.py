"""``ehrready terminology``: the release tables at hand, and adding official release files to them, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Code-system releases: list them, add official files.", no_args_is_help=True)
Directory = Annotated[
    Path | None, typer.Option("--terminology", help="Folder of release tables. [default: the user's data folder]", show_default=False)
]


@app.command("list")
def list_releases(terminology: Directory = None) -> None:
    """List system, release, codes, source file and its SHA-256."""
    from ehrready.terminology.releases import Store

    for row in Store.open(terminology).describe():
        typer.echo(
            f"{row['system']:<10} {row['release']:<18} {row['effective'] or '-':<11} {row['codes']:>8,}  {row['source']:<28} {row['sha256']}"
        )


@app.command()
def releases(system: Annotated[str, typer.Argument(show_default=False)], terminology: Directory = None) -> None:
    """Show a system's releases: since when, how many codes, how many are new and gone."""
    import difflib

    from ehrready.errors import UsageError
    from ehrready.terminology.releases import Store

    store = Store.open(terminology)
    table = store.table(system)
    if table is None:
        close = difflib.get_close_matches(system, store.systems(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"no release of {system!r} is loaded{hint}: add one with ehrready terminology add, see ehrready terminology list")
    for i, release in enumerate(table.releases):
        new = int((table.valid[:, i] & ~table.valid[:, i - 1]).sum()) if i else 0
        gone = int((~table.valid[:, i] & table.valid[:, i - 1]).sum()) if i else 0
        typer.echo(
            f"{release.label:<18} {release.effective or '-':<11} {release.n_codes:>8,} codes" + (f"  {new:>+6,} {-gone:>+6,}" if i else "")
        )


@app.command()
def add(
    system: Annotated[str, typer.Argument(help="icd10cm icd10pcs icd9cm loinc snomed rxnorm cvx hcpcs athena", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The official file, its folder or its zip.", show_default=False)],
    release: Annotated[str, typer.Option(help="The release, where neither the file nor its name says it.", show_default=False)] = "",
    terminology: Directory = None,
) -> None:
    """Add a release from the official files; nothing is downloaded, a wrong file changes nothing."""
    from ehrready.commands.common import progress_bar
    from ehrready.terminology import loaders
    from ehrready.terminology.releases import Store

    directory = Store.open(terminology).directory
    assert directory is not None  # noqa: S101 - open() always names one
    with progress_bar() as progress:
        tables = loaders.add(system, file, directory, release=release, progress=progress)
    for table in tables:
        last = table.releases[-1]
        typer.echo(f"added {table.system} {last.label}: {len(table.codes):,} codes in {len(table.releases)} release(s)", err=True)
        if last.label == "unknown":
            typer.echo("ehrready: neither the file nor its name says its release: stored as unknown; give --release to name it", err=True)
