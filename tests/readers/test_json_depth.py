"""Nesting without a parser: the levels that a parser would see."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready.readers import json_depth
from ehrready.readers.json_depth import MAX_DEPTH, too_deep

_documents = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(st.sampled_from('{}[]"\\ aé'), max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(st.sampled_from('{}[]"\\'), max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


def _levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_levels, inner), default=0)


@given(_documents, st.booleans())
def test_levels_are_those_that_a_parser_sees(document: Any, counted: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_depth, "_LONG", 10**6 if counted else 0)
        for most in range(5):
            patch.setattr(json_depth, "MAX_DEPTH", most)
            assert too_deep(json.dumps(document).encode()) == (_levels(document) > most)


@pytest.mark.parametrize("padding", [0, 100_000])
def test_the_limit_is_the_last_level_that_is_read(padding: int) -> None:
    for levels in (MAX_DEPTH, MAX_DEPTH + 1):
        text = b"[" * levels + b'"' + b"x" * padding + b'"' + b"]" * levels
        assert too_deep(text) == (levels > MAX_DEPTH)
