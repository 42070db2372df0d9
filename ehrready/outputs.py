"""The outputs that a scorecard can be written to, by name; all are made before any is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ehrready import files, plugins
from ehrready.errors import UsageError

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard

Render = Callable[["Scorecard"], str | bytes]


def _html(card: Scorecard) -> str:
    from ehrready.reporters import html

    return html.render(card)


def _json(card: Scorecard) -> bytes:
    return card.to_json()


def _junit(card: Scorecard) -> str:
    from ehrready.reporters import junit

    return junit.render(card)


def _sarif(card: Scorecard) -> bytes:
    from ehrready.reporters import sarif

    return sarif.render(card)


def _markdown(card: Scorecard) -> str:
    from ehrready.reporters import markdown

    return markdown.render(card)


def _openlineage(card: Scorecard) -> bytes:
    from ehrready.reporters import openlineage

    return openlineage.render(card)


def _fhir(card: Scorecard) -> bytes:
    from ehrready.reporters import fhir

    return fhir.render(card)


#: Name of an output (its option on the command line, or --report NAME=FILE) to what makes it; each imports what it needs when it is called.
OUTPUTS: dict[str, Render] = {
    "html": _html, "json": _json, "junit": _junit, "sarif": _sarif, "markdown": _markdown, "openlineage": _openlineage, "fhir": _fhir,
}  # fmt: skip


def prepare(targets: Mapping[str, str | None]) -> Callable[[], None]:
    """Return what can be done for judging and the outputs before there is a profile: loading what they need."""

    def work() -> None:
        import rich.console  # noqa: F401 - what the summary is printed with

        from ehrready.reporters import console, github  # noqa: F401
        from ehrready.terminology import fingerprint  # noqa: F401

        if targets.get("html"):
            from ehrready.reporters import html

            html.prepare()

    return work


def chosen(targets: Mapping[str, str | None], reports: Sequence[str] = ()) -> list[tuple[str, str, Render]]:
    """Return (name, target, renderer) of the outputs that were asked for; ``reports`` are ``NAME=FILE`` of other packages.

    Raises UsageError for an unknown name and for more than one output on stdout.
    """
    found = [(name, target, OUTPUTS[name]) for name, target in targets.items() if target]
    for report in reports:
        name, equals, target = report.partition("=")
        if not equals or not target:
            raise UsageError("--report takes NAME=FILE, such as --report junit=report.xml (- for stdout)")
        render = OUTPUTS.get(name) or plugins.load("reporters", name)
        if render is None:
            offered = ", ".join([*OUTPUTS, *plugins.names("reporters")])
            raise UsageError(f"no reporter is called {name[:40]!r}: there are {offered}")
        found.append((name, target, render))
    if sum(target == "-" for _, target, _ in found) > 1:
        raise UsageError("only one output can go to stdout: give the others a file")
    return found


def write(card: Scorecard, wanted: Sequence[tuple[str, str, Render]]) -> list[str]:
    """Make all outputs, then write them; returns the files.  One that cannot be made leaves the others unwritten."""
    made = []
    for name, target, render in wanted:
        try:
            data = render(card)
        except Exception as error:
            if name in OUTPUTS:
                raise
            raise UsageError(f"the reporter {name} failed ({type(error).__name__}): nothing was written") from None
        made.append((target, data.encode() if isinstance(data, str) else data))
    for target, data in made:
        files.write(target, data)
    return [target for target, _ in made if target != "-"]
