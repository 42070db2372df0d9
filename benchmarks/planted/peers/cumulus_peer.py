# ruff: noqa: ARG001 - one signature for all peers
"""cumulus-library-data-metrics: the quality metrics (q_*) of the Cumulus project, on DuckDB."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "Cumulus data metrics"
PACKAGES = ("cumulus-library-data-metrics==10.0.0", "cumulus-library==6.3.7")
FORMATS = ("fhir",)
OPTIONS = "`build --target data_metrics --db-type duckdb`, `output-mode:aggregate`, `min-bucket-size:0`, as in its README"
NOTE = "plain NDJSON; the numerators of its quality metrics (q_*) are read"


def examine(live: Path, reference: Path) -> dict[str, int]:
    """Return the numerators of the quality metrics by resource and field."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "metrics.db"
        options = ["--option", "output-mode:aggregate", "--option", "min-bucket-size:0", "--db-type", "duckdb", "--database", str(database)]
        program = Path(sys.executable).with_name("cumulus-library")
        subprocess.run(
            [program, "build", *options, "--load-ndjson-dir", str(live), "--target", "data_metrics"], check=True, capture_output=True
        )
        con = duckdb.connect(str(database), read_only=True)
        tables = con.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'data_metrics__q_%_summary'"
        ).fetchall()
        found = {}
        for (table,) in tables:
            for row in con.execute(f'SELECT * FROM "{table}"').fetchall():
                if row[1] != "cumulus__all" and row[2]:
                    found[f"{table.removeprefix('data_metrics__').removesuffix('_summary')} {row[0]} {row[1] or ''}".strip()] = int(row[2])
        con.close()
    return found
