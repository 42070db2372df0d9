"""The command line (design section 5).  Human text goes to stderr; ``-`` means stdout for any output file."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from functools import partial, reduce
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ehrready import __version__
from ehrready.commands import common, diff, gx, integration, monitor, route, schema, status, terminology
from ehrready.commands import contract as contract_commands
from ehrready.commands import rules as rule_commands
from ehrready.commands.options import (
    AllowPhi,
    Baseline,
    ContractFile,
    Engine,
    FailOn,
    Format,
    Html,
    Internal,
    Json,
    Junit,
    Mapping,
    Markdown,
    Master,
    Memory,
    Name,
    Report,
    Resume,
    Rules,
    Sarif,
    ShowPaths,
    Sources,
    Stamp,
    Terminology,
    Threads,
    Validate,
    Waivers,
    Worklists,
)
from ehrready.errors import EhrreadyError, Exit

app = typer.Typer(
    name="ehrready",
    help="Tell whether live EHR data (FHIR, HL7v2, Parquet/OMOP) is fit for the model you trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # plain when piped (design section 5), which also spares the import of Rich's Markdown
    rich_markup_mode="rich" if sys.stdout and sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rule_commands.app, name="rules")
app.add_typer(terminology.app, name="terminology")
app.add_typer(contract_commands.app, name="contract")
app.add_typer(gx.app, name="gx")
app.command("diff")(diff.diff)
app.command("integration")(integration.integration)
app.command("monitor")(monitor.monitor)
app.command("route")(route.route)
app.command("schema")(schema.schema)
app.command("status")(status.status)
rule_commands.app.command("export")(gx.export)


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

    options = common.changed(common.options(locals()), resume=resume)
    if resume and (before := resuming.finished(resume)):
        common.say(f"going on with an interrupted run: {before} file(s) were read before")
    with common.progress_bar() as progress:
        measured, ledger, paths = pipeline.read_profile(source, common.changed(options, progress=progress))
    common.show_paths(paths, show_paths)
    sites = packs.sites(packs.merged(packs.load_all(options.rules)))
    files.write(output, (privacy.without_sites(measured, sites) if options.internal else privacy.hide_profile(measured, sites)).to_json())
    if resume:
        resuming.remove(resume)
    common.say(
        f"{measured.total('read'):,} records read, {measured.total('profiled'):,} profiled, {measured.total('rejected'):,} rejected"
        + ("" if output == "-" else f"; wrote {output}")
    )
    broken = [entry.number for entry in ledger.entries.values() if entry.status in UNREADABLE]
    if broken or not measured.total("profiled"):
        common.say(f"{len(broken)} data file(s) could not be read to the end: the profile holds what could be read")
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

    options = common.changed(common.options(locals()), worklists=checked(worklists, allowed=allow_phi))
    settings = common.settings()
    gate = common.gate(fail_on)
    targets = {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}
    outputs.chosen(targets, report or ())  # a mistake in an output is told before the long work
    with common.progress_bar() as progress:
        more = {"progress": progress, "reports": tuple(report or ()), "meanwhile": outputs.prepare(targets)}
        card, paths = pipeline.check(source, against or settings.get("against"), common.changed(options, **more))
    common.show_paths(paths, show_paths)
    if worklists:
        common.say("work-lists written: they may identify patients, keep them where such data may be")
    common.finish(card, targets, gate, report or ())


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
    from ehrready import pipeline, saved

    gate = common.gate(fail_on)
    measured, _ = saved.load_profile(live)
    trained, digest = saved.load_profile(training)
    options = common.changed(
        common.options(
            {"rules": rules, "terminology": terminology, "stamp": stamp, "waivers": waivers, "baseline": baseline, "contract": contract}
        ),
        internal=measured.internal,
    )
    card = pipeline.judge(measured, trained, options, training_sha256=digest)
    common.finish(card, {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, gate, report or ())


@app.command()
def merge(
    profiles: Annotated[list[str], typer.Argument(help="Profiles over disjoint patients.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the merged profile (- for stdout).")],
    name: Name = None,
) -> None:
    """Add profiles of disjoint patients (hospitals, cohorts, months of new patients) into one."""
    from ehrready import files, privacy, saved
    from ehrready.profile import Profile

    loaded = [saved.load_profile(path)[0] for path in profiles]
    if not all(p.internal for p in loaded):  # exact counts must not hide in a file that says it has none
        loaded = [privacy.hide_profile(p) if p.internal else p for p in loaded]
    merged = reduce(Profile.merge, loaded)
    merged.name = name or loaded[0].name
    files.write(output, merged.to_json())
    common.say(f"merged {len(loaded)} profiles; counts of patients are right only when the profiles share no patient")


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
    common.show(card, common.write(card, {"html": html, "json": json, "junit": junit, "sarif": sarif, "markdown": markdown}, report or ()))


@app.command()
def demo(directory: Annotated[Path, typer.Argument(help="Where to leave the reports.")] = Path("ehrready-demo")) -> None:
    """Run the sample data through profile and check in all three formats; leaves reports."""
    from ehrready import demo as demonstration

    with common.progress_bar() as progress:
        cards = demonstration.run(directory, progress)
    for title, card, outputs in cards:
        common.console().rule(title, align="left")
        common.show(card, outputs)


@app.command()
def doctor() -> None:
    """Check the installation: Python, libraries, engine, rule packs, sample data, temporary folder."""
    from ehrready import doctor as examination

    console, sound = common.console(), True
    for what, state, good in examination.examine():
        sound &= good
        console.print(f"{'ok  ' if good else 'FAIL'}  {what}: {state}", markup=False, highlight=False)
    raise typer.Exit(Exit.PASSED if sound else Exit.USAGE)


def main() -> None:
    """Run the command line and turn every outcome into an exit code; never a traceback, never a value."""
    _no_core_dumps()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no algebra is done: NumPy's other threads would only spin
    sys.setswitchinterval(0.0005)  # seconds, not 0.005: what hands a statement to the engine waits for what computes in Python
    gc.set_threshold(200_000, 20, 20)  # a run makes few cycles and many objects: looking through them was a tenth of a short one
    if sys.argv[1:] == ["--version"]:  # scripts ask often: the parser need not be built for it
        typer.echo(f"ehrready {__version__}")
        sys.exit(Exit.PASSED)
    told: list[Exit] = []  # the engine says RuntimeError of a statement that a signal ends
    _heed(told)
    try:
        code = app(standalone_mode=False)
        sys.exit(int(code or 0))
    except EhrreadyError as error:
        for line in str(error).splitlines():
            common.say(f"ehrready: {line}")
        sys.exit(error.code)
    except KeyboardInterrupt:
        common.say("ehrready: interrupted; nothing was written")
        sys.exit(Exit.INTERRUPTED)
    except _Terminated:
        sys.exit(Exit.TERMINATED)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, no traceback, no value
        if told:
            if told[0] is Exit.INTERRUPTED:
                common.say("ehrready: interrupted; nothing was written")
            sys.exit(told[0])
        _usage(error)
        place = _place(error)
        common.say(f"ehrready: internal error ({type(error).__name__} at {place}); no value of the data is shown: please report this line")
        sys.exit(Exit.INTERNAL)


def run() -> NoReturn:
    """Run the command line and end the process with its exit code.

    What is registered for the end is run; Python's looking for cycles then takes a tenth of a second, to free what goes anyway.
    """
    try:
        main()
    except SystemExit as exit_:
        atexit._run_exitfuncs()  # as Python does; nothing public does it
        watched = sys.getprofile() or sys.gettrace()  # by a profiler, which writes what it saw behind this
        if isinstance(exit_.code, int) and not watched and _flushed():
            os._exit(exit_.code)
        raise
    sys.exit(Exit.INTERNAL)


def _flushed() -> bool:
    """Say whether all that was printed is out; what failed, Python itself tells."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # the process was started with it closed
                stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _no_core_dumps() -> None:
    """Switch core dumps off: one would hold patients' records (POSIX only; elsewhere there are none by default)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _heed(told: list[Exit]) -> None:
    """Let SIGTERM and SIGINT (unless it is ignored, as in the background) unwind the run; ``told`` is the exit code of what came."""

    def stop(code: Exit, error: type[BaseException], *_: object) -> None:
        told.append(code)
        raise error

    signal.signal(signal.SIGTERM, partial(stop, Exit.TERMINATED, _Terminated))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, partial(stop, Exit.INTERRUPTED, KeyboardInterrupt))


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
