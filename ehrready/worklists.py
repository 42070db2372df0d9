"""CSV work-lists for a mapping team: terms without a code, codes that training does not have, units that do not fit.

They hold what the source wrote and may identify patients: the one output that may.  Hence ``--allow-phi``, files that only
their owner can read (0600), and no word of them in any other output.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrready import files
from ehrready.errors import UsageError
from ehrready.profile import Profile

if TYPE_CHECKING:
    import duckdb

_PATIENTS = "count(DISTINCT CASE WHEN NOT is_absent(patient_id) THEN patient_id END)"
#: A cell that starts like this is a formula to a spreadsheet (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CODING = ("element", "system", "code", "display", "codings", "patients")

Rows = list[tuple[Any, ...]]


def checked(folder: str | None, *, allowed: bool) -> str | None:
    """Return the folder; raises UsageError without ``--allow-phi``, or when the place is no folder."""
    if folder is None:
        return None
    if not allowed:
        raise UsageError("--worklists writes what the source wrote, which may identify patients: add --allow-phi where that is allowed")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise UsageError("--worklists takes a folder")
    return folder


def collect(con: duckdb.DuckDBPyConnection, training: Profile | None) -> dict[str, tuple[tuple[str, ...], Rows]]:
    """Return file name to its head and rows, the most frequent first; ``con`` holds the measured tables."""
    lists: dict[str, tuple[tuple[str, ...], Rows]] = {
        "uncoded-terms.csv": (
            ("element", "term", "records", "patients"),
            con.execute(
                f'SELECT element, trim("text"), count(*) n, {_PATIENTS} FROM concept WHERE n_codings = 0 AND "text" IS NOT NULL '
                'AND NOT null_token("text") GROUP BY 1, 2 ORDER BY n DESC, 1, 2'
            ).fetchall(),
        ),
        "bad-units.csv": (
            ("system", "code", "unit", "problem", "results", "patients"),
            con.execute(
                "SELECT coalesce(c.key, ''), coalesce(c.code, ''), u, cls, count(*) n, count(DISTINCT r.p) FROM "
                "(SELECT coalesce(u, '') u, * EXCLUDE (u) FROM reading WHERE is_number) r JOIN unit_pair p USING (r, u) LEFT JOIN best_code c USING (r) "
                "WHERE cls <> '' GROUP BY 1, 2, 3, 4 ORDER BY n DESC, 1, 2, 3, 4"
            ).fetchall()
            if con.execute("SELECT 1 FROM observation LIMIT 1").fetchone()
            else [],
        ),
    }
    codings = con.execute(
        "SELECT j.element, coalesce(nullif(j.s, ''), ''), j.c, coalesce(min(g.display), ''), count(*) n, count(DISTINCT g.patient_id), "
        "j.key, j.code FROM judged g JOIN judge j USING (pid) WHERE j.c <> '' GROUP BY j.element, j.s, j.c, j.key, j.code "
        "ORDER BY n DESC, 1, 2, 3"
    ).fetchall()
    # codes of no public system are in no profile, so that training cannot be asked for them
    lists["codes-of-no-public-system.csv"] = (_CODING, [row[:6] for row in codings if not row[7]])
    if training is not None:
        known = set(training.frames["codes"])
        lists["unseen-codes.csv"] = (_CODING, [row[:6] for row in codings if row[7] and (row[0], row[6], row[7]) not in known])
    return lists


def write(folder: str, lists: dict[str, tuple[tuple[str, ...], Rows]]) -> list[str]:
    """Write the lists into the folder (made with 0700), each with 0600; returns the files."""
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        raise UsageError("--worklists: the folder cannot be made: check the place and its permissions") from None
    made = []
    for name, (head, rows) in lists.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)
        target = str(Path(folder) / name)
        files.write(target, text.getvalue().encode("utf-8", "replace"), mode=0o600)
        made.append(target)
    return made


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value
