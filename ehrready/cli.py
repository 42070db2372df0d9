"""The command line (design section 5).  Human text goes to stderr; ``-`` means stdout for any output file."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ehrready import __version__
from ehrready.commands import contract as contract_commands
from ehrready.commands import diff, gx, integration, monitor, route, schema, status, terminology
from ehrready.errors import EhrreadyError, Exit, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from ehrready.pipeline import Options
    from ehrready.scorecard import Scorecard

app = typer.Typer(
    name="ehrready",
    help="Tell whether live EHR data (FHIR, HL7v2, Parquet/OMOP) is fit for the model you trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # plain when piped (design section 5), which also spares the import of Rich's Markdown
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
rules_app = typer.Typer(help="List, show and check rule packs.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")
app.add_typer(terminology.app, name="terminology")
app.add_typer(contract_commands.app, name="contract")
app.add_typer(gx.app, name="gx")
app.command("diff")(diff.diff)
app.command("integration")(integration.integration)
app.command("monitor")(monitor.monitor)
app.command("route")(route.route)
app.command("schema")(schema.schema)
app.command("status")(status.status)
rules_app.command("export")(gx.export)

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


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Say the version when asked."""
    if version:
        typer.echo(f"ehrready {__version__}")
        raise typer.Exit(0)


@app.command()
def profile(
    source: Sources,
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the profile (- for stdout).")],
    name: Name = None,
    internal: Internal = False,
    format: Format = None,  # noqa: A002 - the option's name is part of the contract
    mapping: Mapping = None,
    rules: Rules = None,
    contract: ContractFile = None,
    terminology: Terminology = None,
    validate: Validate = None,
    memory: Memory = None,
    threads: Threads = None,
    engine: Engine = None,
    master: Master = None,
    resume: Resume = None,
    show_paths: ShowPaths = False,
) -> None:
    """Measure an export and save its profile: integers only, fit to leave the hospital."""
    from ehrready import files, pipeline, privacy
    from ehrready import resume as resuming
    from ehrready import rules as packs
    from ehrready.ledger import UNREADABLE

    options = _with(_options(locals()), resume=resume)
    if resume and (before := resuming.finished(resume)):
        _say(f"going on with an interrupted run: {before} file(s) were read before")
    with progress_bar() as progress:
        measured, ledger, paths = pipeline.read_profile(source, _with(options, progress=progress))
    _show_paths(paths, show_paths)
    sites = packs.sites(packs.merged(packs.load_all(options.rules)))
    files.write(output, (privacy.without_sites(measured, sites) if options.internal else privacy.hide_profile(measured, sites)).to_json())
    if resume:
        resuming.remove(resume)
    _say(
        f"{measured.total('read'):,} records read, {measured.total('profiled'):,} profiled, {measured.total('rejected'):,} rejected"
        + ("" if output == "-" else f"; wrote {output}")
    )
    broken = [entry.number for entry in ledger.entries.values() if entry.status in UNREADABLE]
    if broken or not measured.total("profiled"):
        _say(f"{len(broken)} data file(s) could not be read to the end: the profile holds what could be read")
        raise typer.Exit(Exit.CANNOT_TELL)


@app.command()
def check(
    source: Sources,
    against: Annotated[str | None, typer.Option(help="Profile of the training set.", show_default=False)] = None,
    html: Html = None,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    report: Report = None,
    fail_on: FailOn = None,
    waivers: Waivers = None,
    baseline: Baseline = None,
    worklists: Worklists = None,
    allow_phi: AllowPhi = False,
    name: Name = None,
    internal: Internal = False,
    format: Format = None,  # noqa: A002 - the option's name is part of the contract
    mapping: Mapping = None,
    rules: Rules = None,
    contract: ContractFile = None,
    terminology: Terminology = None,
    validate: Validate = None,
    memory: Memory = None,
    threads: Threads = None,
    engine: Engine = None,
    master: Master = None,
    stamp: Stamp = None,
    show_paths: ShowPaths = False,
) -> None:
    """Read an export, compare it with the training profile and write a readiness scorecard."""
    from ehrready import outputs, pipeline
    from ehrready.worklists import checked

    options = _with(_options(locals()), worklists=checked(worklists, allowed=allow_phi))
    settings = _settings()
    gate = _gate(fail_on)
    outputs.chosen(
        {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, report or ()
    )  # a mistake in an output is told before the long work
    with progress_bar() as progress:
        card, paths = pipeline.check(
            source, against or settings.get("against"), _with(options, progress=progress, reports=tuple(report or ()))
        )
    _show_paths(paths, show_paths)
    if worklists:
        _say("work-lists written: they may identify patients, keep them where such data may be")
    _finish(card, {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, gate, report or ())


@app.command()
def compare(
    live: Annotated[str, typer.Argument(help="Profile of the live data.", show_default=False)],
    training: Annotated[str, typer.Argument(help="Profile of the training set.", show_default=False)],
    html: Html = None,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    report: Report = None,
    fail_on: FailOn = None,
    waivers: Waivers = None,
    baseline: Baseline = None,
    rules: Rules = None,
    contract: ContractFile = None,
    terminology: Terminology = None,
    stamp: Stamp = None,
) -> None:
    """Judge a saved live profile against a training profile: no data needed."""
    from ehrready import pipeline

    gate = _gate(fail_on)
    measured, _ = pipeline.load_profile(live)
    trained, digest = pipeline.load_profile(training)
    options = _with(
        _options(
            {"rules": rules, "terminology": terminology, "stamp": stamp, "waivers": waivers, "baseline": baseline, "contract": contract}
        ),
        internal=measured.internal,
    )
    card = pipeline.judge(measured, trained, options, training_sha256=digest)
    _finish(card, {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, gate, report or ())


@app.command()
def merge(
    profiles: Annotated[list[str], typer.Argument(help="Profiles over disjoint patients.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the merged profile (- for stdout).")],
    name: Name = None,
) -> None:
    """Add profiles of disjoint patients (hospitals, cohorts, months of new patients) into one."""
    from functools import reduce

    from ehrready import files, pipeline, privacy
    from ehrready.profile import Profile

    loaded = [pipeline.load_profile(path)[0] for path in profiles]
    if not all(p.internal for p in loaded):  # exact counts must not hide in a file that says it has none
        loaded = [privacy.hide_profile(p) if p.internal else p for p in loaded]
    merged = reduce(Profile.merge, loaded)
    merged.name = name or loaded[0].name
    files.write(output, merged.to_json())
    _say(f"merged {len(loaded)} profiles; counts of patients are right only when the profiles share no patient")


@app.command()
def render(
    scorecard: Annotated[str, typer.Argument(help="A saved JSON scorecard.", show_default=False)],
    html: Html = None,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    report: Report = None,
) -> None:
    """Write any output again from a saved scorecard."""
    from ehrready import files
    from ehrready.scorecard import Scorecard

    data = files.read(scorecard, f"scorecard {Path(scorecard).name}")
    card = Scorecard.from_json(data, place=f"scorecard {Path(scorecard).name}")
    _print(card, _write(card, {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, report or ()))


@app.command()
def demo(directory: Annotated[Path, typer.Argument(help="Where to leave the reports.")] = Path("ehrready-demo")) -> None:
    """Run the sample data through profile and check in all three formats; leaves reports."""
    from ehrready import demo as demonstration

    with progress_bar() as progress:
        cards = demonstration.run(directory, progress)
    for title, card, outputs in cards:
        _console().rule(title, align="left")
        _print(card, outputs)


@app.command()
def doctor() -> None:
    """Check the installation: Python, libraries, engine, rule packs, sample data, temporary folder."""
    from ehrready import doctor as examination

    console, sound = _console(), True
    for what, state, good in examination.examine():
        sound &= good
        console.print(f"{'ok  ' if good else 'FAIL'}  {what}: {state}", markup=False, highlight=False)
    raise typer.Exit(Exit.PASSED if sound else Exit.USAGE)


@rules_app.command("list")
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


@rules_app.command("show")
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


@rules_app.command("lint")
def rules_lint(files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)]) -> None:
    """Validate rule packs; prints every mistake with file and line."""
    from ehrready import rules

    packs = rules.lint(files)
    _say(f"{len(packs)} pack(s), {sum(len(pack.rules) for pack in packs)} rules: no mistakes")


def _console() -> Console:
    from rich.console import Console

    piped = not sys.stderr.isatty()
    return Console(stderr=True, highlight=False, width=120 if piped and "COLUMNS" not in os.environ else None)


def _say(text: str) -> None:
    """Print one line for people on stderr; names of files and options may hold what a terminal would obey."""
    from ehrready.reporters.console import plain

    typer.echo(plain(text), err=True)


def _settings() -> dict[str, Any]:
    from ehrready import config

    return config.load(Path.cwd())


def _options(given: dict[str, Any]) -> Options:
    """Return the run's options: the command line, else the settings file, else the defaults."""
    from ehrready.pipeline import Options

    chosen = {**_settings(), **{key: value for key, value in given.items() if value is not None and value is not False}}
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


def _gate(given: str | None) -> str:
    """Return what fails the gate, from the command line or the settings; checked before the long work starts."""
    gate = str(given or _settings().get("fail_on", "error"))
    if gate not in {"error", "warning", "never"}:
        raise UsageError("--fail-on must be one of error, warning, never")
    return gate


def _with(options: Options, **changes: Any) -> Options:
    import dataclasses

    return dataclasses.replace(options, **changes)


def _finish(card: Scorecard, targets: dict[str, str | None], fail_on: str, reports: Sequence[str] = ()) -> NoReturn:
    from ehrready.reporters import github

    _print(card, _write(card, targets, reports))
    taken = "-" in [*targets.values(), *(report.partition("=")[2] for report in reports)]
    for line in github.publish(card, os.environ):
        typer.echo(line, err=taken)  # a runner reads both streams
    raise typer.Exit(card.exit_code(fail_on))


def _write(card: Scorecard, targets: dict[str, str | None], reports: Sequence[str] = ()) -> list[str]:
    """Write the outputs that were asked for; returns where they are."""
    from ehrready import outputs

    return outputs.write(card, outputs.chosen(targets, reports))


def _print(card: Scorecard, outputs: list[str]) -> None:
    from ehrready.reporters import console

    console.render(card, _console(), outputs)


def _show_paths(paths: Any, wanted: bool) -> None:
    if wanted:
        for file in paths:
            _say(f"file-{file.number:04d}  {file.path}")


@contextlib.contextmanager
def progress_bar() -> Iterator[Any]:
    """Yield a progress callback: a bar on a terminal, nothing when piped."""
    console = _console()
    if not console.is_terminal:
        yield lambda stage, done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=of)
            bar.update(tasks[stage], completed=done, total=of)

        yield advance


def main() -> None:
    """Run the command line and turn every outcome into an exit code; never a traceback, never a value."""
    if sys.argv[1:] == ["--version"]:  # scripts ask often: the parser need not be built for it
        sys.stdout.write(f"ehrready {__version__}\n")
        sys.exit(Exit.PASSED)
    _no_core_dumps()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(_Terminated()))
    try:
        code = app(standalone_mode=False)
        sys.exit(int(code or 0))
    except EhrreadyError as error:
        for line in str(error).splitlines():
            _say(f"ehrready: {line}")
        sys.exit(error.code)
    except KeyboardInterrupt:
        _say("ehrready: interrupted; nothing was written")
        sys.exit(Exit.INTERRUPTED)
    except _Terminated:
        sys.exit(Exit.TERMINATED)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, no traceback, no value
        _usage(error)
        place = _place(error)
        _say(f"ehrready: internal error ({type(error).__name__} at {place}); no value of the data is shown: please report this line")
        sys.exit(Exit.INTERNAL)


def _no_core_dumps() -> None:
    """Switch core dumps off: one would hold patients' records (POSIX only; elsewhere there are none by default)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Terminated(BaseException):
    """SIGTERM: unwinds the run, so that the temporary folder goes."""


def _usage(error: Exception) -> None:
    """Show a usage error of the argument parser (Click's, whichever module it comes from) and exit 2."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        sys.exit(Exit.USAGE)


def _place(error: BaseException) -> str:
    """Return the innermost module and line of this package, without any value."""
    place, step = "?", error.__traceback__
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        if "ehrready" in path.parts:
            place = f"{path.name}:{step.tb_lineno}"
        step = step.tb_next
    return place
