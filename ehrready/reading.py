"""One reader fills the canonical tables; its events go into the ledger, however it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ehrready import sites
from ehrready.errors import EhrreadyError
from ehrready.ledger import Ledger
from ehrready.options import Options
from ehrready.readers.base import Ended, Reader, SourceFile

if TYPE_CHECKING:
    from ehrready.resume import Work
    from ehrready.rules import Rule


def read(reader: Reader, files: Sequence[SourceFile], con: Any, ledger: Ledger, options: Options, work: Work | None) -> None:
    """Let one reader fill the tables and book its events.  A reader that crashes leaves its files unreadable."""
    done, progress = 0, options.progress
    if options.engine == "spark":
        from ehrready.engines import spark_read

        progress(f"reading {reader.format}", 0, 1)
        spark_read.read(reader, files, con, ledger, memory=options.memory)
        return
    try:
        for event in work.read(reader, files, con) if work else reader.read(files, con):
            ledger.add(event)
            if isinstance(event, Ended):
                done += 1
                progress(f"reading {reader.format}", done, len(files))
    except (EhrreadyError, MemoryError):
        raise
    except Exception as error:
        from ehrready.engines.duckdb import lacks, stopped

        if lacks(error) or stopped(error):
            raise  # no fault of the files
        ledger.crashed(reader.format)
        for file in files:
            ledger.add(Ended(file.number, "unreadable"))


def narrow(reader: Reader, files: Sequence[SourceFile], rules: Sequence[Rule], *, alone: bool) -> None:
    """Let records be numbers where nobody but the measures looks at them and no other format is read: OMOP's whole, FHIR's and HL7v2's concepts.

    ``alone``: nothing else reads the canonical tables in this run.  No rule may ask them itself (those of FHIR's structure
    have tables of their own).
    """
    from ehrready.checks import CHECKS
    from ehrready.readers.fhir import FhirReader
    from ehrready.readers.hl7v2 import Hl7v2Reader
    from ehrready.readers.tabular import OmopReader

    plain = not {rule.check for rule in rules if CHECKS[rule.check].measured} - {"structure-valid", "must-support"}
    plain &= not sites.to_measure(rules)
    plain &= alone and all(file.format == reader.format for file in files if not file.skip)
    if isinstance(reader, OmopReader):
        reader.narrow = plain
    if isinstance(reader, FhirReader | Hl7v2Reader):
        reader.shared = plain
