"""`check` gives a true scorecard for every folder of published data that nobody here wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import ehrready

FOLDERS = [
    *[f"fhir_r4/{n}" for n in ("azure_uscore7", "bulk_from_bundles", "bulk_synthea_10patients", "converter_output", "cumulus_etl",
                               "cumulus_library", "reportstream_elr", "synthea_bundles", "us_core_examples", "validator_cases")],
    "hl7v2/fhir_converter", "hl7v2/linuxforhealth", "hl7v2/reportstream",
    "omop/gibleed_5.3", "omop/synthea27nj_5.4",
]  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_records_read_are_those_of_the_manifest_and_the_ledger_adds_up(shared: Path, folder: str) -> None:
    card = ehrready.check(shared / "data" / folder).document
    records = card["subject"]["records"]
    assert records["read"] == records["profiled"] + records["rejected"] == sum(row["read"] for row in card["ledger"])
    for row in card["ledger"]:
        assert row["rejected"] == sum(row["reasons"].values())
        assert row["read"] == row["profiled"] + row["rejected"]
    with (shared / "data" / "MANIFEST.csv").open(newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["file"].startswith(folder + "/")]
    skipped = {"json-log", "json"}
    reference = {"concept", "concept_ancestor", "concept_class", "concept_relationship", "concept_synonym", "domain", "relationship",
                 "vocabulary", "drug_strength", "source_to_concept_map", "cdm_source", "metadata", "cohort_definition"}  # fmt: skip
    wanted = sum(
        int(r["n_resources_messages_rows"] or 0)
        for r in rows
        if r["format"] not in skipped and not (folder.startswith("omop") and Path(r["file"]).stem in reference)
    )
    if folder == "fhir_r4/validator_cases":
        # the manifest counts 16 CDS Hooks and SMART Health Card files as resources; they have no resourceType
        assert [row["status"] for row in card["ledger"]].count("skipped") == 16
        assert records["rejected"] == 7
        assert [row["status"] for row in card["ledger"]].count("unreadable") == 7  # the broken JSON documents
        assert card["verdict"] == "cannot-tell"
    else:
        assert records["read"] == wanted
    assert card["verdict"] in {"ready", "ready-with-conditions", "not-ready", "cannot-tell"}
