"""The packs that come with ehrready, run on data of their format."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from ehrready import pipeline, resources, rules
from ehrready.pipeline import Options
from ehrready.rules import schema

ROOT = Path(__file__).parents[2]
SAMPLES = resources.folder("sample_data")


def _script(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _yaml_1_2(text: str) -> object:
    """Load a pack as editors do: in YAML 1.2 the key ``on`` is a text, in PyYAML's 1.1 it is true."""

    def mended(value: object) -> object:
        if isinstance(value, dict):
            return {"on" if key is True else key: mended(item) for key, item in value.items()}
        return [mended(item) for item in value] if isinstance(value, list) else value

    return mended(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("pack", "source"),
    [
        ("hl7v2-elr", "hl7v2"),
        ("hl7v2-adt", "hl7v2"),
        ("fhir-us-core", "fhir"),
        ("ml-training", "fhir"),
        ("ml-training", "omop"),
        ("omop", "omop"),
    ],
)
def test_a_named_pack_judges_data_of_its_format(pack: str, source: str) -> None:
    folder = next(path for path in sorted(SAMPLES.rglob("*")) if path.is_dir() and path.name == source and "training" in path.as_posix())
    card, _ = pipeline.check([str(folder)], None, Options(rules=(pack,)))
    own = {f["rule"]: f["status"] for f in card.document["findings"] if f["pack"] == pack}
    assert own
    assert "error" not in {f["status"] for f in card.document["findings"]}
    assert {"pass", "warn", "fail"} & set(own.values()), own
    assert {p["name"] for p in card.document["provenance"]["rule_packs"]} == {pack}


def test_tables_read_with_a_mapping_are_judged_by_the_pack_of_that_name(tmp_path: Path) -> None:
    rows = "\n".join(f"{n},2024-01-0{n % 9 + 1},F,05,N,1970-01-01" for n in range(50))
    (tmp_path / "demographic.csv").write_text(f"PATID,x,SEX,RACE,HISPANIC,BIRTH_DATE\n{rows}\n")
    card, _ = pipeline.check([str(tmp_path)], None, Options(mapping="pcornet"))
    assert {p["name"] for p in card.document["provenance"]["rule_packs"]} == {"pcornet"}
    assert {f["status"] for f in card.document["findings"] if f["rule"] == "pcornet-race-ethnicity-present"} == {"pass"}


@pytest.mark.parametrize("name", sorted(rules.shipped()))
def test_the_published_schema_takes_the_shipped_packs(name: str) -> None:
    document = _yaml_1_2(rules.shipped()[name].read_text("utf-8"))
    found = list(jsonschema.Draft202012Validator(schema.pack_schema()).iter_errors(document))
    assert not found, found[0].message


@pytest.mark.parametrize(
    "text",
    [
        "{pack: a, version: 1.0.0}",
        "{pack: a, version: 1.0.0, rules: [{id: x, check: nothing, severity: error, owner: o, why: w, fix: f}]}",
        "{pack: a, version: 1.0.0, rules: [{id: x, check: coded, on: a, severity: fatal, owner: o, why: w, fix: f}]}",
        "{pack: a, version: 1.0.0, rules: [{id: x, check: coded, on: a, colour: red, severity: error, owner: o, why: w, fix: f}]}",
        "{pack: a, version: 1.0.0, rules: [{id: x, check: coded, on: a, fail: {max_rate: 2}, severity: error, owner: o, why: w, fix: f}]}",
    ],
)
def test_the_published_schema_finds_what_lint_finds(text: str) -> None:
    assert list(jsonschema.Draft202012Validator(schema.pack_schema()).iter_errors(_yaml_1_2(text)))


def test_docs_schemas_and_rules_reference_are_current() -> None:
    schemas = _script("make_schemas")
    for name in schemas.MADE:  # type: ignore[attr-defined]
        path = ROOT / "ehrready" / "schemas" / name
        assert path.read_text("utf-8") == schemas.text(name), f"run scripts/make_schemas.py: {name} is stale"  # type: ignore[attr-defined]
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text("utf-8")))
    page = _script("make_rules_doc").text()  # type: ignore[attr-defined]
    assert (ROOT / "docs" / "rules.md").read_text("utf-8") == page, "run scripts/make_rules_doc.py"
