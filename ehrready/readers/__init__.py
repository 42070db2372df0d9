"""Readers: one module per format, each a mapping (data, in mappings/) and a small engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ehrready.readers.base import Reader


#: Formats that ``--format`` knows without another package.
FORMATS = ("auto", "fhir", "hl7v2", "omop", "table")


def chosen(format_: str, mapping: str | None = None, validate: str = "sample") -> list[Reader]:
    """Return the readers for ``--format``: the built-in ones, or another package's; raises UsageError when nobody offers it."""
    if format_ in FORMATS:
        return builtin(mapping, validate)
    from ehrready import plugins
    from ehrready.errors import UsageError

    found = plugins.reader(format_)
    if found is None:
        offered = ", ".join([*FORMATS, *plugins.names("readers")])
        raise UsageError(f"--format must be one of {offered}")
    return [found]


def builtin(mapping: str | None = None, validate: str = "sample") -> list[Reader]:
    """Return the readers in the order in which they are asked whether a file is theirs.

    ``validate``: how many whole FHIR resources are kept for checks of their structure, ``none``, a ``sample`` or ``all``.

    ``mapping`` names a tabular layout (a shipped name or a YAML file); its tables go before OMOP's.
    """
    from ehrready.readers.fhir import SAMPLE, FhirReader
    from ehrready.readers.hl7v2 import Hl7v2Reader
    from ehrready.readers.tabular import OmopReader, TableReader

    fhir = FhirReader({"none": 0, "sample": SAMPLE, "all": None}[validate])
    if mapping:
        return [fhir, Hl7v2Reader(), TableReader(Path(mapping)), OmopReader()]
    return [fhir, Hl7v2Reader(), OmopReader(), TableReader(None)]
