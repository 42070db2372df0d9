"""From judged predictions (ehrready.readers.predictions) to the frames of a profile: counts, histograms of scores, clusters.

Rows of month "" are of the whole run, so that a patient counts once in it; those of a month are what further runs are joined by.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ehrready.engines.duckdb import quote
from ehrready.production import LABEL, grounding
from ehrready.profile import Frame

if TYPE_CHECKING:
    import duckdb

#: What can be wrong with an output itself; each excludes the others.
WRONG = ("missing", "not-a-number", "below-range", "above-range", "unknown-class")
_SEX = "CASE sex WHEN 'm' THEN 'male' WHEN 'male' THEN 'male' WHEN 'f' THEN 'female' WHEN 'female' THEN 'female' WHEN 'o' THEN 'other' WHEN 'other' THEN 'other' END"
_AGE = (
    "CASE WHEN age < 0 OR age > 120 THEN NULL WHEN age < 18 THEN '00-17' WHEN age < 45 THEN '18-44' WHEN age < 65 THEN '45-64' "
    "WHEN age < 85 THEN '65-84' WHEN age >= 85 THEN '85+' END"
)


def measure(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], *, records: bool = True) -> None:
    """Fill the frames of production from the reader's tables; ``demographic`` and ``judged`` are those of the records, where there are any."""
    if not records:
        con.execute("CREATE TEMP TABLE demographic (patient_id VARCHAR, sex VARCHAR, age VARCHAR)")
    con.execute(
        "CREATE TEMP TABLE predicted AS SELECT p.* EXCLUDE (sex, age), coalesce(p.sex_said, d.sex, 'unknown') AS sex, coalesce(p.age_said, d.age, 'unknown') AS age "
        f"FROM (SELECT *, {_SEX} AS sex_said, {_AGE} AS age_said FROM prediction) p LEFT JOIN demographic d USING (patient_id)"
    )
    _kinds(con, frames["predictions"])
    count(con, frames["predictions"], "label_given", "output", {"unmatched-label": ("true", "NOT matched")})
    _scores(con, frames)
    _classes(con, frames)
    grounding.measure(con, frames["predictions"], records=records)
    for month, n, patients in con.execute(
        "SELECT month, count(DISTINCT record), count(DISTINCT patient_id) FROM predicted GROUP BY 1"
    ).fetchall():
        frames["volume"]["prediction", month] = (n, patients)
    row = con.execute("SELECT count(DISTINCT patient_id) FROM predicted").fetchone()
    frames["patients"]["predicted", ""] = (int(row[0]) if row else 0,)
    if not frames["patients"].get(("all", ""), (0,))[0]:
        frames["patients"].pop(("all", ""), None)
    # which predictions of a month were read: an order-free digest of their patients and times
    rows = con.execute(
        "SELECT month, count(*), bit_xor(md5_number(output || chr(31) || patient_id || chr(31) || made))::VARCHAR FROM predicted WHERE NOT again GROUP BY 1"
    ).fetchall()
    for month, n, digest in rows:
        frames["runs"][month, hashlib.sha256(f"{n} {digest}".encode()).hexdigest()[:16]] = (1,)


def _kinds(con: duckdb.DuckDBPyConnection, frame: Frame) -> None:
    """Count predictions by kind: what is wrong, what is there twice, what alerts, what has no label though its window has closed."""
    closed = "wrong IS NULL AND kind <> 'text' AND label <> 'open'"
    kinds = {
        "all": ("true", "true"),
        **{wrong: ("true", f"coalesce(wrong, '') = {quote(wrong)}") for wrong in WRONG},
        "duplicate": ("true", "again"),
        "alert": ("alert IS NOT NULL OR wrong IS NOT NULL", "coalesce(alert, false)"),
        "unlabelled": (closed, "label IN ('unlabelled', 'unknown')"),
        "uncited": ("kind = 'text' AND texts", "NOT cites"),
    }
    count(con, frame, "predicted", "output", kinds)
    alerting = {row[0] for row in con.execute("SELECT DISTINCT output FROM predicted WHERE alert IS NOT NULL").fetchall()}
    for key in [key for key in frame if key[2] == "alert" and key[0] not in alerting]:
        del frame[key]
    for output, kind, low, high in con.execute("SELECT output, kind, low, high FROM promised").fetchall():
        frame[output, "", f"is {kind}" + (f" {low:g} {high:g}" if kind == "score" else "")] = (1, 1, 0)
    for output, month, name, n, people in con.execute(
        "SELECT output, m, class, count(*), count(DISTINCT patient_id) FROM (SELECT *, unnest(['', month]) m FROM predicted WHERE class IS NOT NULL) GROUP BY 1, 2, 3"
    ).fetchall():
        frame[output, month, f"class {name}"] = (int(n), int(frame[output, month, "all"][0] or 0), int(people))


def count(con: duckdb.DuckDBPyConnection, frame: Frame, source: str, output: str, kinds: dict[str, tuple[str, str]]) -> None:
    """Add per output, month and kind: n with their patients, of those in the kind's universe; ``kinds`` is name to (universe, test)."""
    parts = ", ".join(
        f"count(*) FILTER (({universe}) AND ({test})), count(*) FILTER ({universe}), count(DISTINCT patient_id) FILTER (({universe}) AND ({test}))"
        for universe, test in kinds.values()
    )
    for place in ("''", "month"):
        for row in con.execute(f"SELECT {output}, {place} m, {parts} FROM {source} GROUP BY ALL").fetchall():
            for i, kind in enumerate(kinds):
                n, of, people = row[2 + 3 * i : 5 + 3 * i]
                if of:
                    frame[row[0], row[1], kind] = (int(n), int(of), int(people))


def _scores(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count scores by bucket and label, and the clusters that patients make, by month and group of patients."""
    _groups(con, frames, "scores", "bucket", "CASE WHEN label IN ('0', '1') THEN label ELSE '' END")


def _classes(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame]) -> None:
    """Count classes by what it was, and the clusters that patients make, by month and group of patients."""
    _groups(con, frames, "confusion", "class", f"CASE WHEN starts_with(label, '{LABEL}') THEN label ELSE '' END")
    frames["confusion"] = {(*key[:5], key[5].removeprefix(LABEL)): values for key, values in frames["confusion"].items()}


def _groups(con: duckdb.DuckDBPyConnection, frames: dict[str, Frame], frame: str, given: str, label: str) -> None:
    """Count what was given by label into a frame, and the clusters."""
    for place in ("''", "month"):
        for grouping in ("all", "sex", "age"):
            group = "''" if grouping == "all" else grouping
            source = f"(SELECT output, {place} m, {group} g, {given} x, {label} y, patient_id FROM predicted WHERE {given} IS NOT NULL)"
            for output, m, g, x, y, n, people in con.execute(
                f"SELECT output, m, g, x, y, count(*), count(DISTINCT patient_id) FROM {source} GROUP BY ALL"
            ).fetchall():
                frames[frame][output, m, grouping, g, x, y] = (int(n), int(people))
            for output, m, g, y, n, people, n2 in con.execute(
                f"SELECT output, m, g, y, sum(k), count(*), sum(k * k) FROM (SELECT output, m, g, y, patient_id, count(*) k FROM {source} GROUP BY ALL) GROUP BY ALL"
            ).fetchall():
                frames["clusters"][output, m, grouping, g, y] = (int(n), int(people), int(n2))
