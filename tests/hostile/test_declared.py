"""Counts that files declare, of themselves or of others, are compared with what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ehrready

PATIENTS = "".join(json.dumps({"resourceType": "Patient", "id": f"p{i}"}) + "\n" for i in range(40))


def found(folder: Path, **options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the finding about declared counts (or an empty one) and the ledger."""
    document = ehrready.check(folder, **options).document
    (finding,) = [f for f in document["findings"] if f["defect"] == "not-as-declared"] or [{}]
    return finding, document["ledger"]


def manifest(folder: Path, counts: dict[str, Any]) -> None:
    output = [{"type": "Patient", "url": f"https://host/x/{name}?a=1", "count": n} for name, n in counts.items()]
    (folder / "manifest.json").write_text(json.dumps({"transactionTime": "2024-01-01T00:00:00Z", "request": "x", "output": output}))


@pytest.mark.parametrize(
    ("counts", "numerator", "status"),
    [
        ({"Patient.ndjson": 40}, 0, "pass"),
        ({"Patient.ndjson": 50}, 10, "fail"),
        ({"Patient.ndjson": 38}, 2, "fail"),
        ({"Patient.ndjson": 40, "Condition.ndjson": 7}, 7, "fail"),
    ],
)
def test_bulk_manifest(counts: dict[str, int], numerator: int, status: str, tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_text(PATIENTS)
    manifest(tmp_path, counts)
    finding, ledger = found(tmp_path)
    assert (finding["numerator"], finding["status"]) == (numerator, status)
    assert ledger[0]["declared"] == counts["Patient.ndjson"]


@pytest.mark.parametrize("count", [-1, 1e3, True, "40", 10**30, None, [1]])
def test_a_lying_manifest_is_none(count: object, tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_text(PATIENTS)
    manifest(tmp_path, {"../../../etc/Patient.ndjson": 3, "Patient.ndjson": count} if count is None else {"Patient.ndjson": count})
    finding, _ = found(tmp_path)
    assert finding == {} or finding["numerator"] == 37


def test_hl7v2_trailer_and_parquet_footer(tmp_path: Path) -> None:
    message = "MSH|^~\\&|A|B|||20240102||ADT^A01|1|P|2.5\rPID|1||P1\r"
    (tmp_path / "a.hl7").write_text("BHS|^~\\&\r" + message * 3 + "BTS|5\r")
    pq.write_table(pa.table({"x": list(range(20))}), tmp_path / "b.parquet")
    finding, ledger = found(tmp_path)
    assert (finding["numerator"], finding["denominator"], finding["status"]) == (2, 25, "fail")
    assert [row["declared"] for row in ledger] == [5, 20]


def test_bad_rows_of_a_lookup_table_are_counted(tmp_path: Path) -> None:
    person = "person_id,gender_concept_id,year_of_birth\n" + "".join(f"{i},8507,1980\n" for i in range(30))
    (tmp_path / "person.csv").write_text(person)
    (tmp_path / "concept.csv").write_text("concept_id,concept_name,vocabulary_id,concept_code\n8507,MALE,Gender,M\n1,2\n8532,F,Gender,F\n")
    document = ehrready.check(tmp_path).document
    (row,) = [row for row in document["ledger"] if row["status"] == "reference"]
    assert (row["read"], row["rejected"], row["profiled"], row["reasons"], row["first_at"]) == (
        1, 1, 0, {"invalid-csv": 1}, {"invalid-csv": 2},
    )  # fmt: skip
