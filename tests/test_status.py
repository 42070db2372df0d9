"""``ehrready status``: the sequence of stages, from the scorecards of a folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ehrready import contract, sequence
from ehrready.cli import app
from ehrready.errors import UsageError
from tests.helpers.cards import rescored

GOLDEN = Path(__file__).parent / "golden" / "scorecard-fhir.json"
TEXT = 'contract: "1.0"\nmodel: {name: renal, version: 1.2.0}\nfeatures:\n  - {name: creatinine, table: observation}\n'
STATEMENT = {
    "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "kind": "instance",
    "rest": [{"mode": "server", "resource": [
        {"type": "Patient", "interaction": [{"code": "read"}, {"code": "search-type"}]},
        {"type": "Observation", "interaction": [{"code": "search-type"}], "searchParam": [{"name": n} for n in ("patient", "code", "date")]},
    ]}],
}  # fmt: skip


def _card(*, ready: bool, named: str | None) -> dict[str, Any]:
    document = copy.deepcopy(json.loads(GOLDEN.read_text()))
    if ready:
        for finding in document["findings"]:
            if finding["status"] in {"fail", "warn"}:
                finding["status"] = "pass"
    if named:
        document["contract"] = {"model": "renal", "version": "1.2.0", "sha256": named, "features": ["creatinine"]}
    rescored(document)
    document["verdict"] = "ready" if ready else "not-ready"
    return dict(document)


def _project(tmp_path: Path, **what: Any) -> dict[str, str]:
    """Write a project's folder and return stage → status."""
    digest = contract.parse(TEXT.encode()).sha256
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    if what.get("contract", True):
        (folder / "contract.yaml").write_text(TEXT)
    if "data" in what:
        (folder / "data.json").write_text(json.dumps(_card(ready=what["data"], named=what.get("named", digest))))
    if "server" in what:
        (tmp_path / "metadata.json").write_text(json.dumps(what["server"]))
        (tmp_path / "contract.yaml").write_text(TEXT)
        CliRunner().invoke(
            app, ["integration", "--capability", str(tmp_path / "metadata.json"), "--contract", str(tmp_path / "contract.yaml"), "--json", str(folder / "ehr.json")]
        )  # fmt: skip
    document = sequence.status(*sequence.read(str(folder)))
    assert document["stages"][-1]["status"] != "passed", "no project is ready without a validation in production"
    return {row["stage"]: row["status"] for row in document["stages"]}


def test_an_empty_folder_has_not_begun(tmp_path: Path) -> None:
    assert set(_project(tmp_path, contract=False).values()) == {"open"}
    done = CliRunner().invoke(app, ["status", str(tmp_path / "project")])
    assert done.exit_code == 3


def test_a_contract_before_any_production_data_skips_a_stage(tmp_path: Path) -> None:
    found = _project(tmp_path)
    assert (found["profile"], found["contract"], found["data"], found["model"]) == ("skipped", "blocked", "open", "blocked")


def test_data_that_is_not_ready_blocks_and_what_comes_after_does_not_count(tmp_path: Path) -> None:
    found = _project(tmp_path, data=False, server=STATEMENT)
    assert found == {
        "profile": "passed", "contract": "passed", "data": "blocked", "integration": "blocked", "validation": "open", "model": "blocked",
    }  # fmt: skip


def test_ready_data_and_a_ready_ehr_wait_for_the_validation_only(tmp_path: Path) -> None:
    found = _project(tmp_path, data=True, server=STATEMENT)
    assert [found[s] for s in ("profile", "contract", "data", "integration", "validation", "model")] == ["passed"] * 4 + ["open", "blocked"]


def test_an_ehr_that_lacks_something_blocks(tmp_path: Path) -> None:
    assert _project(tmp_path, data=True, server={**STATEMENT, "rest": []})["integration"] == "blocked"


@pytest.mark.parametrize(("named", "status"), [("0" * 64, "blocked"), (None, "open")])
def test_a_scorecard_of_another_contract_proves_nothing(tmp_path: Path, named: str | None, status: str) -> None:
    assert _project(tmp_path, data=True, named=named)["data"] == status


def test_two_contracts_block(tmp_path: Path) -> None:
    _project(tmp_path, data=True)
    (tmp_path / "project" / "old.yaml").write_text(TEXT.replace("1.2.0", "1.1.0"))
    assert _project(tmp_path, data=True)["contract"] == "blocked"


def test_the_worst_scorecard_of_a_stage_counts(tmp_path: Path) -> None:
    _project(tmp_path, data=True)
    folder = tmp_path / "project"
    (folder / "a.json").write_text(json.dumps(_card(ready=False, named=contract.parse(TEXT.encode()).sha256)))
    stages = {row["stage"]: row for row in sequence.status(*sequence.read(str(folder)))["stages"]}
    assert (stages["data"]["status"], stages["data"]["evidence"]) == ("blocked", ["a.json"])


def test_a_cut_scorecard_is_refused_and_other_files_are_left_alone(tmp_path: Path) -> None:
    _project(tmp_path, data=True)
    folder = tmp_path / "project"
    for name, text in (("x.json", "{"), ("y.json", "[1]"), ("z.yaml", "a: 1"), ("n.txt", "ehrready-scorecard")):
        (folder / name).write_text(text)
    assert sequence.status(*sequence.read(str(folder)))["stages"][2]["status"] == "passed"
    (folder / "x.json").write_text((folder / "data.json").read_text()[:-100])
    with pytest.raises(UsageError, match=r"x\.json is cut"):
        sequence.read(str(folder))
    with pytest.raises(UsageError, match="folder"):
        sequence.read(str(folder / "nothing"))


def test_every_output_says_the_same_and_names_stay_texts(tmp_path: Path) -> None:
    _project(tmp_path, data=True, server=STATEMENT)
    folder = tmp_path / "project"
    (folder / "data.json").rename(folder / "<b>data.json")
    arguments = ["status", str(folder), "--name", "<script>x</script>"]
    for kind in ("html", "json", "markdown"):
        arguments += [f"--{kind}", str(tmp_path / f"status.{kind}")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    document = json.loads((tmp_path / "status.json").read_text())
    page, text = (tmp_path / "status.html").read_text(), (tmp_path / "status.markdown").read_text()
    for row in document["stages"]:
        assert row["title"] in page
        assert row["title"] in text
        assert row["title"] in done.output
    assert "<script" not in page
    assert "<b>data" not in page + text
