"""Saved scorecards that were cut, edited or made up: refused with the place, or shown without a crash."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ehrready.errors import UsageError
from ehrready.outputs import OUTPUTS
from ehrready.reporters import console
from ehrready.scorecard import Scorecard
from tests.helpers.cards import rescored

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "scorecard-fhir.json").read_text())

CARD = rescored(GOLDEN | {"findings": GOLDEN["findings"][::9], "distributions": GOLDEN["distributions"][:2], "verdict": "not-ready"})


def _failing(d: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in d["findings"] if f["numerator"])
    return found


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "verdict made ready": (lambda d: d.update(verdict="ready"), "/verdict is ready although its findings and its ledger make it"),
    "verdict unknown": (lambda d: d.update(verdict="fine"), "/verdict is none of"),
    "finding without keys": (lambda d: d["findings"].insert(3, {"id": "x"}), "/findings/3/cause is missing"),
    "finding is text": (lambda d: d["findings"].insert(0, "x"), "/findings/0 is not an object"),
    "numerator beyond": (lambda d: _failing(d).update(numerator=10**9), "the numerator is beyond the denominator"),
    "negative": (lambda d: _failing(d).update(numerator=-1), "/numerator is negative"),
    "rate": (lambda d: _failing(d).update(rate=0.123456), "/rate is not numerator / denominator"),
    "interval": (lambda d: _failing(d).update(interval=[0.9, 0.1]), "/interval is no pair of numbers in order"),
    "status": (lambda d: d["findings"][0].update(status="great"), "/findings/0/status is none of"),
    "severity": (lambda d: d["findings"][0].update(severity="low"), "/findings/0/severity is none of"),
    "title": (lambda d: d["findings"][0].update(title=["x"]), "/findings/0/title is not a text"),
    "true as a count": (lambda d: d["ledger"][0].update(read=True), "/ledger/0/read is not a whole number"),
    "ledger law": (lambda d: d["ledger"][0].update(read=10**9), "/ledger/0: read is not profiled and rejected"),
    "ledger reasons": (lambda d: d["ledger"][0].update(reasons={"empty": 5}), "/ledger/0/reasons do not add up"),
    "records": (lambda d: d["subject"]["records"].update(read=1), "/subject/records: read is not profiled and rejected"),
    "group": (lambda d: d["findings"][0].update(group={"site": {"a": 1}}), "/findings/0/group/* is not a text"),
    "waiver": (lambda d: d["findings"][0].update(waiver={"owner": "me"}), "/findings/0/waiver/reason is missing"),
    "provenance": (lambda d: d["provenance"].pop("rule_packs"), "/provenance/rule_packs is missing"),
    "subject": (lambda d: d.update(subject=None), "/subject is not an object"),
    "releases": (lambda d: d.update(releases=[5]), "/releases/0 is not an object"),
}


@pytest.mark.parametrize("name", sorted(TAMPERED))
def test_a_scorecard_that_was_changed_is_refused_with_the_place(name: str) -> None:
    change, says = TAMPERED[name]
    document = copy.deepcopy(CARD)
    assert Scorecard.from_json(json.dumps(document).encode()).verdict == "not-ready"
    change(document)
    with pytest.raises(UsageError) as caught:
        Scorecard.from_json(json.dumps(document).encode())
    assert says in str(caught.value)
    assert "ehrready check" in str(caught.value)


def _nodes(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, child in children for found in _nodes(child, (*path, key)))]


#: Nodes that the readers of a scorecard rely on; those of charts and of the release panel have tests of their own.
PLACES = [path for path in _nodes(CARD) if path and path[0] not in {"distributions", "releases", "rules", "checks"}]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([{}]),
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.sampled_from(PLACES), ODD, st.booleans())
def test_any_changed_node_is_refused_or_shown(path: tuple[Any, ...], value: Any, drop: bool) -> None:
    document = copy.deepcopy(CARD)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    if drop:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    try:
        card = Scorecard.from_json(json.dumps(document).encode())
    except UsageError:
        return
    for render in OUTPUTS.values():
        assert render(card)
    console.render(card, Console(file=io.StringIO()), [])
    assert card.exit_code() in {0, 1, 3}
