"""Write sample_data/: one synthetic population as FHIR, HL7 v2 and OMOP, training and live.

Usage: ``python scripts/make_sample_data.py [--out FOLDER]``.  The same bytes come out on every run, apart
from the containers of ``.gz`` and ``.parquet`` files, which depend on the versions of zlib and PyArrow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sample_data import build


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "sample_data")
    build.write(parser.parse_args().out)


if __name__ == "__main__":
    main()
