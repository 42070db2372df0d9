"""The ledger: per file, read = profiled + rejected, with reasons that add up.

It is built from the readers' events alone and is closed before anything is judged; a file of which no reader
said that it ended is ``unreadable``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ehrready.readers.base import REASONS, Ended, Event, FileEntry, Read, Rejected, SourceFile
from ehrready.tables import ENTRY_BIT

if TYPE_CHECKING:
    from ehrready.profile import Profile

#: Ledger statuses of data that make the verdict ``cannot-tell``.
UNREADABLE = frozenset({"unreadable", "truncated"})


@dataclass(slots=True)
class Ledger:
    """Entries by file number, in the order of the sorted paths."""

    entries: dict[int, FileEntry] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)
    _crashed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, files: Iterable[SourceFile]) -> Ledger:
        """Open a ledger with a row for every file, those that are no data as ``skipped``."""
        ledger = cls()
        for file in files:
            entry = FileEntry(file.number, file.format, file.size, declared=file.declared)
            if file.skip:
                entry.status, entry.skip = "skipped", file.skip
                ledger._ended.add(file.number)
            ledger.entries[file.number] = entry
        return ledger

    def add(self, event: Event) -> None:
        """Book one event of a reader."""
        entry = self.entries[event.file]
        match event:
            case Read(n=n):
                entry.read += n
            case Rejected(position=position, reason=reason, n=n):
                if reason not in REASONS:
                    raise AssertionError(f"reason {reason} is not in the closed list")
                entry.reasons[reason] = entry.reasons.get(reason, 0) + n
                place = position & ((1 << ENTRY_BIT) - 1)
                entry.first_at[reason] = min(place, entry.first_at.get(reason, place))
            case Ended(status=status, declared=declared, bytes=seen):
                entry.bytes = seen if seen is not None else entry.bytes
                if entry.status not in UNREADABLE:  # a file that was found broken stays so
                    entry.status = status
                entry.declared = declared if declared is not None else entry.declared
                self._ended.add(event.file)

    def crashed(self, format_: str) -> None:
        """Take note that a reader crashed: what it has put in the tables is all that was read of its files."""
        self._crashed.add(format_)

    def close(self, profiled: Mapping[int, int] | None = None) -> None:
        """Assert the ledger law on every file; files that never ended are unreadable, short ones truncated.

        ``profiled`` is file number to records in the canonical tables, as the engine counts them: read must be that
        number and the rejected ones.  Bytes read must be the size on disk, or the status says that they are not.
        """
        for number, entry in self.entries.items():
            if number not in self._ended:
                entry.status = "unreadable"
            if entry.status == "read" and entry.bytes is not None and entry.bytes != entry.size:
                entry.status = "truncated"  # it shrank or grew while it was read
            if profiled is not None:
                if entry.format in self._crashed:
                    entry.read = profiled.get(number, 0) + entry.rejected
                if entry.profiled != profiled.get(number, 0):
                    raise AssertionError(f"ledger law broken in file {number}: read is not profiled and rejected")
            if entry.status in UNREADABLE and not entry.read:
                entry.read = 1
                entry.reasons["unreadable"] = 1
            # of a reference table only what could not be read is counted
            if entry.profiled < 0 or (entry.status == "skipped" and entry.read) or (entry.status == "reference" and entry.profiled):
                raise AssertionError(f"ledger law broken in file {number}")

    @property
    def unreadable(self) -> int:
        """How many data files could not be read, or not to their end."""
        return sum(entry.status in UNREADABLE for entry in self.entries.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return the scorecard's ``ledger[]`` rows, without names of files."""
        return [
            {
                "file": f"file-{entry.number:04d}",
                "format": entry.format or "none",
                "status": entry.status,
                "bytes": entry.size,
                "read": entry.read,
                "profiled": entry.profiled,
                "rejected": entry.rejected,
                "declared": entry.declared,
                "first_at": dict(sorted(entry.first_at.items())),
                "reasons": dict(sorted(entry.reasons.items())) or ({entry.skip: 0} if entry.skip else {}),
            }
            for entry in self.entries.values()
        ]


def of_profile(profile: Profile) -> list[dict[str, Any]]:
    """Return the ledger of a saved profile: one row for all files of a format and status."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (fmt, status, reason), (files, size, read, profiled, rejected) in profile.rows("ledger"):
        row = rows.setdefault(
            (fmt, status),
            {"file": "", "format": fmt or "none", "status": status, "bytes": 0, "read": 0, "profiled": 0, "rejected": 0, "declared": None, "first_at": {}, "reasons": {}},
        )  # fmt: skip
        count = int(row["file"].split(" ")[0] or 0) + (files or 0)
        row["file"] = f"{count} files"
        for key, value in (("bytes", size), ("read", read), ("profiled", profiled), ("rejected", rejected)):
            row[key] += value or 0
        if reason:
            row["reasons"][reason] = row["reasons"].get(reason, 0) + (rejected or 0)
    return list(rows.values())
