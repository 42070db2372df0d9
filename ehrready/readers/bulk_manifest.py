"""The manifest of a FHIR Bulk Data export: how many resources each file should hold.

Source: FHIR Bulk Data Access 2.0, "Complete Status": ``output[]`` of ``type``, ``url`` and optionally ``count``.
A manifest that cannot be trusted to be one (too large, another shape) is no manifest; nothing in it is followed:
of a URL only the last part of its path is compared with the names of the files beside the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from ehrready.readers.base import SourceFile
from ehrready.readers.streams import STREAM_ERRORS, open_stream

#: Bytes of the longest manifest that is looked at.
LONGEST = 16 * 1024 * 1024
#: The largest count that is believed: a lying one must not overflow anything.
MOST = 10**12


def declare(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files with the counts that manifests among the skipped ones declare.

    The manifest itself gets the sum of the counts of files that are not there.
    """
    found = list(files)
    places = {(file.path.parent, file.path.name): i for i, file in enumerate(found)}
    for i, file in enumerate(files):
        if file.skip != "not-recognised" or ".json" not in file.path.suffixes or file.size > LONGEST:
            continue
        absent = 0
        for name, count in _outputs(file):
            names = (name, f"{name}.gz", f"{name}.zst", name.removesuffix(".gz"))
            place = next((at for each in names if (at := places.get((file.path.parent, each))) is not None), None)
            if place is None:
                absent += count
            elif not found[place].skip:
                found[place] = replace(found[place], declared=(found[place].declared or 0) + count)
        if absent:
            found[i] = replace(file, declared=absent)
    return found


def _outputs(file: SourceFile) -> list[tuple[str, int]]:
    """Return (file name, count) of a manifest's outputs; empty when it is none."""
    try:
        with open_stream(file.path) as stream:
            document: Any = orjson.loads(stream.read(LONGEST + 1))
    except (*STREAM_ERRORS, orjson.JSONDecodeError):
        return []
    if not isinstance(document, dict) or not isinstance(document.get("output"), list) or "transactionTime" not in document:
        return []
    outputs = []
    for row in document["output"]:
        if not isinstance(row, dict):
            continue
        url, count = row.get("url"), row.get("count")
        if isinstance(url, str) and isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MOST:
            try:
                name = unquote(urlsplit(url).path.rpartition("/")[2])
            except ValueError:
                continue
            outputs.append((name, count))
    return outputs
