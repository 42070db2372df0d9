"""What a run inside GitHub Actions adds: annotations on the log and the Markdown in the job's summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ehrready.errors import UsageError
from ehrready.reporters import markdown
from ehrready.reporters.console import worst
from ehrready.scorecard import Scorecard

#: GitHub shows ten annotations of each kind per step, and takes a summary of up to 1 MiB.
_MOST, _LARGEST = 10, 1 << 20
_CUT = "\n\nThe summary is cut here: the whole is in the report.\n"


def annotate(card: Scorecard) -> list[str]:
    """Return workflow commands: failing errors, warnings, and waived findings as notices."""
    found: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    for finding in worst(card.document["findings"]):
        if finding["severity"] != "info":
            found[_kind(finding)].append(
                f"::{_kind(finding)} title={_property(finding['title'] or finding['rule'])}::{_data(finding['message'])}"
            )
    if card.verdict == "cannot-tell" and not found["error"]:
        found["error"].append(f"::error title=cannot tell::{_data(' '.join(card.document['verdict_reasons']))}")
    return [line for lines in found.values() for line in lines[:_MOST]]


def publish(card: Scorecard, environ: Mapping[str, str]) -> list[str]:
    """Append the Markdown to the job's summary and return the annotations to print; nothing outside GitHub Actions.

    Raises UsageError when the summary's file cannot be written.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return []
    if summary := environ.get("GITHUB_STEP_SUMMARY"):
        data = markdown.render(card).encode()
        if len(data) > _LARGEST:
            data = data[: _LARGEST - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT.encode()
        try:
            with Path(summary).open("ab") as file:
                file.write(data)
        except OSError:
            raise UsageError("the job's summary (GITHUB_STEP_SUMMARY) cannot be written") from None
    return annotate(card)


def _kind(finding: Mapping[str, Any]) -> str:
    if finding["waiver"]:
        return "notice"
    return "error" if finding["status"] == "error" or (finding["status"], finding["severity"]) == ("fail", "error") else "warning"


def _data(text: str) -> str:
    """Escape a command's message as the runner unescapes it; control characters go."""
    return "".join(c if c.isprintable() else " " for c in text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
