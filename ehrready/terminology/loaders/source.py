"""A release file as the user has it: a file, a folder or a zip; its members are read as streams of lines."""

from __future__ import annotations

import csv
import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from ehrready.errors import UsageError

#: A member may not unpack to more than this, nor to more than RATIO times its packed size (once it is large).
MOST_BYTES, RATIO = 40 << 30, 400


class Source:
    """The members of a release, found by name.

    ``system`` and ``wanted`` go into the messages: what was to be read, and what to give instead.
    """

    def __init__(self, path: Path, system: str, wanted: str, progress: Callable[[str, int, int], None], store: Path | None = None) -> None:
        self.path, self.system, self.wanted, self.progress, self.store = path, system, wanted, progress, store
        self.place = path.name
        self._stack = ExitStack()
        self._archive: zipfile.ZipFile | None = None
        self.members: dict[str, int] = {}

    def __enter__(self) -> Source:
        """Open the path and list its members (name → bytes)."""
        try:
            if self.path.is_dir():
                found = sorted(p for p in self.path.rglob("*") if p.is_file() and not p.is_symlink())
                self.members = {str(p.relative_to(self.path)): p.stat().st_size for p in found}
            elif not self.path.is_file():
                raise UsageError(f"terminology add: {self.place} is no file or folder; give {self.wanted}")
            elif zipfile.is_zipfile(self.path):
                self._archive = self._stack.enter_context(zipfile.ZipFile(self.path))
                self.members = {i.filename: i.file_size for i in self._archive.infolist() if not i.is_dir()}
            else:
                self.members = {self.path.name: self.path.stat().st_size}
        except (OSError, zipfile.BadZipFile):
            raise UsageError(f"terminology add: {self.place} cannot be opened; download it again") from None
        if not self.members:
            self.refuse("it is empty")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close whatever is open."""
        self._stack.close()

    def find(self, pattern: str) -> str | None:
        """Return the member whose file name matches, the shortest path first; None when there is none."""
        expression = re.compile(pattern, re.IGNORECASE)
        found = [name for name in self.members if expression.fullmatch(name.replace("\\", "/").rsplit("/", 1)[-1])]
        return min(found, key=lambda name: (name.count("/"), name), default=None)

    def need(self, pattern: str, what: str) -> str:
        """Return the member whose file name matches; raises UsageError saying what is lacking."""
        return self.find(pattern) or self.refuse(f"it has no {what}")

    def open(self, member: str) -> IO[bytes]:
        """Open a member as a stream of bytes, guarded against archives that unpack without end."""
        if self._archive is not None:
            info = self._archive.getinfo(member)
            if info.file_size > MOST_BYTES or (info.file_size > 1 << 28 and info.file_size > RATIO * max(1, info.compress_size)):
                self.refuse(f"{_tail(member)} would unpack to {info.file_size >> 20:,} MB, which no release does")
            try:
                return self._stack.enter_context(self._archive.open(info))
            except (RuntimeError, NotImplementedError, zipfile.BadZipFile):
                self.refuse(f"{_tail(member)} is encrypted or damaged; download it again")
        place = self.path / member if self.path.is_dir() else self.path
        return self._stack.enter_context(place.open("rb"))

    def lines(self, member: str, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
        """Yield (line number, line) of a member; raises UsageError with the line where it is cut or is no text."""
        number, done, of = 0, 0, max(1, self.members[member])
        try:
            for raw in self.open(member):
                number += 1
                done += len(raw)
                if number % 200_000 == 0:
                    self.progress(f"reading {_tail(member)}", done, of)
                yield number, raw.decode(encoding).rstrip("\r\n").removeprefix("\ufeff")
        except (UnicodeDecodeError, EOFError, zlib.error, zipfile.BadZipFile, OSError):
            self.refuse(f"{_tail(member)} breaks off or is no text after line {number}; download it again")

    def rows(self, member: str, separator: str, columns: int, encoding: str = "utf-8") -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, fields) of a member with a fixed number of fields a line; raises UsageError for another number."""
        for number, line in self.lines(member, encoding):
            fields = line.split(separator)
            if len(fields) != columns:
                if not line:
                    continue
                self.wrong(member, number, f"{len(fields)} fields instead of {columns}")
            yield number, fields

    def table(self, member: str, needed: Sequence[str], separator: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
        """Yield (row number, needed columns) of a CSV or TSV member with a header; raises UsageError when a column is lacking."""
        texts = (line for _, line in self.lines(member))
        quoted = separator == ","
        reader = csv.reader(texts, strict=True) if quoted else csv.reader(texts, delimiter=separator, quoting=csv.QUOTE_NONE)
        header = next(reader, [])
        lacking = [name for name in needed if name not in header]
        if lacking:
            self.wrong(member, 1, f"the header has no column {', '.join(lacking)}")
        places = [(name, header.index(name)) for name in needed]
        number = 1
        try:
            for row in reader:
                number += 1
                if len(row) != len(header):
                    if not row:
                        continue
                    self.wrong(member, number, f"{len(row)} fields instead of {len(header)}")
                yield number, {name: row[place] for name, place in places}
        except csv.Error:
            self.wrong(member, number + 1, "a quotation mark is not closed")

    def digest(self, member: str) -> str:
        """Return the SHA-256 of the file as the user has it: of the zip or the single file, else of the member."""
        with (self.path / member if self.path.is_dir() else self.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def wrong(self, member: str, number: int, why: str) -> NoReturn:
        """Refuse the file because of one line."""
        self.refuse(f"{_tail(member)}, line {number}: {why}")

    def refuse(self, why: str) -> NoReturn:
        """Raise UsageError: what is wrong, and what to give instead."""
        raise UsageError(f"terminology add {self.system}: {self.place}: {why}; give {self.wanted}. Nothing was added.")


def _tail(member: str) -> str:
    return member.replace("\\", "/").rsplit("/", 1)[-1]
