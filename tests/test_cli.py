"""The command line as a user meets it: exit codes, one clear sentence, no traceback, nothing lost."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers import forked


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a process, as a pipeline would."""
    return forked.run_text(*arguments, cwd=cwd, env=environment)


@pytest.fixture
def live(project: Path) -> Path:
    return project / "sample_data" / "live" / "fhir"


@pytest.fixture
def training(project: Path) -> Path:
    return project / "sample_data" / "training" / "fhir"


def test_exit_0_1_and_fail_on(live: Path, training: Path, tmp_path: Path) -> None:
    assert run("check", training, cwd=tmp_path).returncode == 0
    failed = run("check", live, "--json", "card.json", "--html", "card.html", cwd=tmp_path)
    assert failed.returncode == 1
    assert "NOT READY" in failed.stderr
    assert json.loads((tmp_path / "card.json").read_bytes())["verdict"] == "not-ready"
    assert "<html" in (tmp_path / "card.html").read_text("utf-8")
    assert run("check", live, "--fail-on", "never", cwd=tmp_path).returncode == 0


def test_profile_compare_merge_render(live: Path, training: Path, tmp_path: Path) -> None:
    assert run("profile", training, "-o", "t.json", "--name", "train", cwd=tmp_path).returncode == 0
    assert run("profile", live, "-o", "l.json", cwd=tmp_path).returncode == 0
    assert run("compare", "l.json", "t.json", "--json", "c.json", cwd=tmp_path).returncode in {1, 3}
    card = json.loads((tmp_path / "c.json").read_bytes())
    assert card["training"]["name"] == "train"
    merged = run("merge", "l.json", "t.json", "-o", "m.json", cwd=tmp_path)
    assert merged.returncode == 0
    assert "share no patient" in merged.stderr
    assert run("render", "c.json", "--html", "again.html", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again.html").stat().st_size > 1000


def test_stdout_is_only_the_output(training: Path, tmp_path: Path) -> None:
    done = run("check", training, "--json", "-", cwd=tmp_path)
    assert json.loads(done.stdout)["kind"] == "ehrready-scorecard"


@pytest.mark.parametrize(
    ("files", "arguments", "code", "says"),
    [
        ({}, ["check", "nowhere"], 2, "does not exist"),
        ({"x/README.md": "hello"}, ["check", "x"], 3, "nothing was recognised"),
        ({"x/.keep": ""}, ["check", "x"], 3, "nothing was recognised"),
        ({"x/a.ndjson": ""}, ["check", "x"], 3, "CANNOT TELL"),
        ({"x/a.json": '{"resourceType":'}, ["check", "x", "--fail-on", "never"], 3, "CANNOT TELL"),
        ({"x/a.json": '{"resourceType":"Patient"}'}, ["check", "x"], 3, "CANNOT TELL"),
        ({"x/a.ndjson": "{}", "p.json": "{}"}, ["check", "x", "--against", "p.json"], 2, "not an ehrready-profile"),
        ({"r.yaml": "pack: x\n", "x/a.md": ""}, ["profile", "x", "-o", "p", "--rules", "r.yaml"], 2, "the pack has no version"),
        ({"r.yaml": "pack: x\nrules: 3\n"}, ["rules", "lint", "r.yaml"], 2, "r.yaml:2: rules must be a list"),
        ({}, ["rules", "show", "code-codet"], 2, "did you mean 'code-coded'?"),
        ({"ehrready.toml": "nam = 'x'\n", "x/a.ndjson": "{}"}, ["check", "x"], 2, "did you mean 'name'?"),
        ({}, ["check"], 2, "Missing argument"),
        ({"x/a.parquet": "PAR1 nonsense"}, ["check", "x"], 3, "CANNOT TELL"),
        ({"x/a.ndjson": '{"resourceType":"Patient"}'}, ["check", "x", "--memory", "banana"], 2, "--memory must be a size"),
        ({"x/a.ndjson": "{}"}, ["check", "x", "--fail-on", "x"], 2, "--fail-on must be one of"),
        ({"c.json": '{"kind":"ehrready-scorecard","schema_version":"1.0"}'}, ["render", "c.json"], 2, "is cut or was changed"),
        ({"x/a.hl7": "PID|1||42\r"}, ["check", "x"], 3, "CANNOT TELL"),
    ],
)
def test_bad_input_gets_one_sentence_and_its_exit_code(
    tmp_path: Path, files: dict[str, str], arguments: list[str], code: int, says: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_an_empty_folder_is_cannot_tell(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert run("check", "x", cwd=tmp_path).returncode == 3


def test_a_scorecard_is_written_also_when_it_cannot_tell(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"resourceType":"Patient","id":"secret-7"}\n{"broken')
    done = run("check", "a.ndjson", "--json", "c.json", cwd=tmp_path)
    assert done.returncode == 3  # the last line is cut
    card = json.loads((tmp_path / "c.json").read_bytes())
    assert card["ledger"][0]["reasons"] == {"invalid-json": 1}
    assert card["ledger"][0]["first_at"] == {"invalid-json": 2}
    assert "rejected in file-0001 (truncated): invalid-json 1 (first at 2)" in done.stderr
    assert card["subject"]["records"] == {"read": 2, "profiled": 1, "rejected": 1}
    assert "secret-7" not in (tmp_path / "c.json").read_text() + done.stderr


def test_mixed_folder_is_read_whole_and_strangers_are_skipped(project: Path, tmp_path: Path) -> None:
    sample = project / "sample_data" / "training"
    for name in ("fhir", "hl7v2", "omop"):
        (tmp_path / name).symlink_to(sample / name)
    (tmp_path / "README.md").write_text("an export")
    done = run("check", tmp_path / "fhir", tmp_path / "hl7v2", tmp_path / "omop", tmp_path / "README.md", "--json", "-", cwd=tmp_path)
    card = json.loads(done.stdout)
    assert card["subject"]["formats"] == ["fhir", "hl7v2", "omop"]
    assert [row["reasons"] for row in card["ledger"] if row["status"] == "skipped"] == [{"not-recognised": 0}]


def test_data_that_no_required_rule_knows_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "risk.ndjson").write_text("".join(f'{{"resourceType": "RiskAssessment", "id": "{n}"}}\n' for n in range(50)))
    done = run("check", tmp_path / "risk.ndjson", cwd=tmp_path)
    assert done.returncode == 3
    assert "Only that the records can be read was assessed" in " ".join(done.stderr.split())


def test_temporary_folders_are_gone(training: Path, tmp_path: Path) -> None:
    run("check", training, cwd=tmp_path, TMPDIR=str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == []


def test_doctor_finds_the_installation_sound(tmp_path: Path) -> None:
    done = run("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "FAIL" not in done.stderr
