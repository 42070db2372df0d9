"""What can go wrong, as types, and the exit code of each (design section 5).

A message is a template plus a locator (a file number, a line, an option).  It never carries a value of the
data and never the text of another library's exception: those quote what they could not parse.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; they are an API and are never reused."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    CANNOT_TELL = 3
    INTERNAL = 70
    INTERRUPTED = 130
    TERMINATED = 143


class EhrreadyError(Exception):
    """Base of the errors that the command line turns into one sentence and an exit code."""

    code: Exit = Exit.INTERNAL


class UsageError(EhrreadyError):
    """Wrong usage, rule pack, waiver, profile or scorecard: exit 2.

    ``problems`` holds every mistake found, one sentence each, with its place; the message is all of them.
    """

    code = Exit.USAGE

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SourceError(EhrreadyError):
    """The source as a whole cannot be judged (not there, empty, nothing recognised): exit 3."""

    code = Exit.CANNOT_TELL
