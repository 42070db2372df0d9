"""Saved profiles and scorecards as attack: huge, lying, odd or hostile ones are refused with a sentence; text is never markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ehrready
from ehrready.errors import UsageError
from ehrready.privacy import hide_profile
from ehrready.profile import Profile
from ehrready.reporters import console, html
from ehrready.saved import load_profile
from ehrready.scorecard import Scorecard
from tests.helpers.samples import Samples


@pytest.fixture(scope="module")
def profile(samples: Samples) -> dict[str, Any]:
    document: dict[str, Any] = samples.profile("live", "fhir").as_dict()
    return document


@pytest.fixture(scope="module")
def card(samples: Samples) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(samples.card("live", "fhir").to_json())
    return document


def _first(document: dict[str, Any], frame: str) -> list[Any]:
    row: list[Any] = document["frames"][frame]["rows"][0]
    return row


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "huge count": lambda d: _first(d, "states").__setitem__(4, 2**60),
    "beyond 64 bits": lambda d: _first(d, "states").__setitem__(4, 10**40),
    "negative": lambda d: _first(d, "states").__setitem__(4, -1),
    "fraction": lambda d: _first(d, "states").__setitem__(4, 0.5),
    "true": lambda d: _first(d, "states").__setitem__(4, True),
    "text": lambda d: _first(d, "states").__setitem__(4, "12"),
    "patients beyond records": lambda d: _first(d, "states").__setitem__(5, 10**9),
    "defects beyond records": lambda d: _first(d, "relations").__setitem__(2, 10**9),
    "parts beyond total": lambda d: [row.__setitem__(4, 1) for row in d["frames"]["states"]["rows"] if row[3] == "*"],
    "ledger law": lambda d: _first(d, "ledger").__setitem__(5, 10**9),
    "twice": lambda d: d["frames"]["states"]["rows"].append(_first(d, "states")),
    "key is a list": lambda d: _first(d, "codes").__setitem__(2, ["x"]),
    "rows are no list": lambda d: d["frames"]["codes"].__setitem__("rows", {"a": 1}),
    "frame is null": lambda d: d["frames"].__setitem__("codes", None),
    "frames is a list": lambda d: d.__setitem__("frames", []),
    "kind": lambda d: d.__setitem__("kind", "ehrready-scorecard"),
    "major version": lambda d: d.__setitem__("schema_version", "99.0"),
    "version is a list": lambda d: d.__setitem__("schema_version", [1]),
    "internal is text": lambda d: d.__setitem__("internal", "no"),
    "name is a list": lambda d: d.__setitem__("name", ["x"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_profile_is_refused(lie: str, profile: dict[str, Any], tmp_path: Path) -> None:
    saved = tmp_path / "p.json"
    saved.write_text(json.dumps(profile))
    document = json.loads(saved.read_bytes())
    assert load_profile(str(saved))[0].frames["states"]
    LIES[lie](document)
    saved.write_text(json.dumps(document))
    with pytest.raises(UsageError):
        load_profile(str(saved))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"kind":"ehrready-profile"}', b'{"kind":"ehrready-profile","schema_version":"1.0"}'],
)
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        Profile.from_json(data)
    with pytest.raises(UsageError):
        Scorecard.from_json(data)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "a\0b", "nowhere"])
def test_a_profile_that_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        load_profile(path)


def test_a_default_profile_is_possible(profile: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(hide_profile(Profile.from_json(json.dumps(profile).encode())).to_json())
    assert load_profile(str(tmp_path / "p.json"))[0].frames["states"]


HOSTILE = [
    "<script>alert(1)</script>", "</style><script>x</script>", '" onload="x', "'><img src=x onerror=x>", "{{7*7}}", "{% x %}", "javascript:x",
    "https://evil.example/x.js", "\x1b[31mred\x1b]0;title\x07", "[bold red]x[/]", "[link=https://evil.example]x[/link]", "::error::x",
    "=1+1", "@SUM(A1)", "\u202egnp", "]]>", "<!--", "&lt;", "%s%n", "\r\n::set-output name=x::y",
]  # fmt: skip


def _poison(value: Any, text: str) -> Any:
    """Put a hostile string in every free-text place of a scorecard (those that a rule pack, option or profile names)."""
    if isinstance(value, dict):
        free = {"title", "why", "fix", "message", "reason", "name", "owner", "source_element", "system", "release", "pack", "element"}
        return {k: text if k in free and isinstance(v, str) else _poison(v, text) for k, v in value.items()}
    return [_poison(v, text) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_never_markup_or_an_escape(text: str, card: dict[str, Any], tmp_path: Path) -> None:
    dimensions = card["dimensions"]
    poisoned = _poison(json.loads(json.dumps(card)), text) | {"dimensions": dimensions}
    page = html.render(Scorecard(poisoned))
    clean = html.render(Scorecard(card))
    for tag in ("<script", "<img", "<iframe", "<link", "<object", "<base", "<meta", "onerror=x>", "<!--"):
        assert page.lower().count(tag) == clean.lower().count(tag), tag
    assert "Content-Security-Policy" in page
    for attribute in ('src="http', "src='http", 'href="http', "url(http"):
        assert page.count(attribute) == clean.count(attribute) == 0
    out = Console(record=True, file=(tmp_path / "x").open("w"), force_terminal=False, width=120)
    console.render(Scorecard(poisoned), out, [])
    shown = out.export_text(clear=False, styles=True)
    assert "\x1b]0" not in shown
    assert "\x1b[31mred" not in shown
    out.file.close()
    assert json.loads(Scorecard(poisoned).to_json())["findings"]


def test_an_id_on_two_patients_is_possible(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"resourceType": "Patient", "id": f"p{i}"} for i in range(40)]
    lines += [
        {"resourceType": "Condition", "id": f"c{i // 2}", "subject": {"reference": f"Patient/p{i}"}, "code": {"text": "x"}}
        for i in range(40)
    ]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, lines)))
    profile = ehrready.profile_of(tmp_path / "a.ndjson", internal=True)
    assert profile.frames["relations"]["condition.id", "duplicate-id"] == (20, 40, 40)
    (tmp_path / "p.json").write_bytes(profile.to_json())
    assert load_profile(str(tmp_path / "p.json"))[0].frames["relations"] == profile.frames["relations"]
