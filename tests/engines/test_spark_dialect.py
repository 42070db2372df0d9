"""DuckDB's SQL as Spark SQL: what sqlglot does not know, and that every measure can be translated at all."""

from __future__ import annotations

import pytest

pytest.importorskip("sqlglot", reason="needs sqlglot (make spark)")

from ehrready.engines import dialect


def _spark(text: str) -> str:
    (tree,) = dialect.statements(text)
    return dialect.spark(tree)


@pytest.mark.parametrize(
    ("duckdb", "parts"),
    [
        ("SELECT is_absent(a) FROM t", ["STARTSWITH((a), '\\001')"]),
        ("SELECT null_token(clean(a)) FROM t", ["UPPER(TRIM(", "NULLIF(TRIM("]),
        ("SELECT regexp_matches(a, '^x$') FROM t", ["a RLIKE '(?d)^x\\\\z'"]),
        ("SELECT regexp_full_match(a, '[a$]\\s') FROM t", ["^(?:[a$][\\\\t\\\\n\\\\f\\\\r ])\\\\z"]),
        ("SELECT any_value(a) FROM t", ["MIN(a)"]),
        ("SELECT left(a, 4)::INTEGER FROM t", ["TRY_CAST(LEFT(a, 4) AS INT)"]),
        ("SELECT t.* EXCLUDE (a) FROM t", ["t.* EXCEPT (a)"]),
        ("SELECT a, row_number() OVER () r FROM t", ["ROW_NUMBER() OVER (ORDER BY a"]),
        ("SELECT date_part('year', age(a, b)) FROM t", ["YEAR(a) - YEAR(b)", "'MMdd'"]),
        ("WITH c AS MATERIALIZED (SELECT 1 AS a FROM t) SELECT a FROM c", ["WITH c AS (SELECT"]),
    ],
)
def test_what_is_rewritten(duckdb: str, parts: list[str]) -> None:
    made = _spark(duckdb)
    for part in parts:
        assert part in made


@pytest.mark.parametrize("text", ["SELECT regexp_matches(a, b) FROM t", "SELECT 'x' x, row_number() OVER () FROM t", "SELECT FROM WHERE"])
def test_what_has_no_translation_is_said(text: str) -> None:
    with pytest.raises(dialect.Untranslatable):
        _spark(text)
