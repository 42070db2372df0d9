"""What every command does with its options, settings, progress and outcome.  Human text goes to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ehrready.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from ehrready.options import Options
    from ehrready.scorecard import Scorecard


def console() -> Console:
    """Return the terminal of human text: stderr, plain and 120 wide when piped."""
    from rich.console import Console

    piped = not (sys.stderr and sys.stderr.isatty())
    return Console(stderr=True, highlight=False, width=120 if piped and "COLUMNS" not in os.environ else None)


def say(text: str) -> None:
    """Print one line for people on stderr; names of files and options may hold what a terminal would obey."""
    from ehrready.reporters.console import plain

    typer.echo(plain(text), err=True)


def settings() -> dict[str, Any]:
    """Return the settings file's options; raises UsageError for a mistake in it."""
    from ehrready import config

    return config.load(Path.cwd())


def options(given: dict[str, Any]) -> Options:
    """Return the run's options: the command line, else the settings file, else the defaults."""
    from ehrready.options import Options

    chosen = {**settings(), **{key: value for key, value in given.items() if value is not None and value is not False}}
    known = {
        key: chosen[key]
        for key in (
            "name",
            "format",
            "mapping",
            "memory",
            "threads",
            "engine",
            "master",
            "internal",
            "stamp",
            "terminology",
            "waivers",
            "baseline",
            "validate",
            "contract",
        )
        if key in chosen
    }
    if "terminology" in known:
        known["terminology"] = Path(known["terminology"])
    if "format" in known:
        from ehrready import readers

        readers.chosen(known["format"])
    _check_engine(known.get("engine", "duckdb"), known.get("master"))
    if known.get("validate", "sample") not in {"none", "sample", "all"}:
        raise UsageError("--validate must be one of none, sample, all")
    if "stamp" not in known and os.environ.get("SOURCE_DATE_EPOCH", "").isdigit():
        import datetime as dt

        moment = dt.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), dt.UTC)
        known["stamp"] = moment.isoformat(timespec="seconds")
    return Options(**known, rules=tuple(chosen.get("rules") or ()))


def _check_engine(engine: str, master: str | None) -> None:
    if engine not in {"duckdb", "spark"}:
        raise UsageError("--engine must be duckdb or spark")
    if master is not None and engine != "spark":
        raise UsageError("--master needs --engine spark")
    if engine == "spark":
        from ehrready.engines import spark

        spark.require()


def gate(given: str | None) -> str:
    """Return what fails the gate, from the command line or the settings; checked before the long work starts."""
    gate = str(given or settings().get("fail_on", "error"))
    if gate not in {"error", "warning", "never"}:
        raise UsageError("--fail-on must be one of error, warning, never")
    return gate


def changed(options: Options, **changes: Any) -> Options:
    """Return the options with some fields changed."""
    import dataclasses

    return dataclasses.replace(options, **changes)


def finish(card: Scorecard, targets: dict[str, str | None], fail_on: str, reports: Sequence[str] = ()) -> NoReturn:
    """Write the outputs, print the summary and end with the verdict's exit code."""
    from ehrready.reporters import github

    show(card, write(card, targets, reports))
    taken = "-" in [*targets.values(), *(report.partition("=")[2] for report in reports)]
    for line in github.publish(card, os.environ):
        typer.echo(line, err=taken)  # a runner reads both streams
    raise typer.Exit(card.exit_code(fail_on))


def write(card: Scorecard, targets: dict[str, str | None], reports: Sequence[str] = ()) -> list[str]:
    """Write the outputs that were asked for; returns where they are."""
    from ehrready import outputs

    return outputs.write(card, outputs.chosen(targets, reports))


def show(card: Scorecard, outputs: list[str]) -> None:
    """Print the scorecard's summary, and where the outputs are."""
    from ehrready.reporters import console as reporter

    reporter.render(card, console(), outputs)


def show_paths(paths: Any, wanted: bool) -> None:
    """Print which file number is which path, where it was asked for."""
    if wanted:
        for file in paths:
            say(f"file-{file.number:04d}  {file.path}")


@contextlib.contextmanager
def progress_bar() -> Iterator[Any]:
    """Yield a progress callback: a bar on a terminal, nothing when piped."""
    piped = not (sys.stderr and sys.stderr.isatty())
    # asked first, since it spares the import of Rich until there is something to print; these two make a terminal of anything
    if (piped and not {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys()) or not (terminal := console()).is_terminal:
        yield lambda stage, done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=of)
            bar.update(tasks[stage], completed=done, total=of)

        yield advance
