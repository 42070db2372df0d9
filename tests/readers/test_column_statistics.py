"""What an unmapped column lacks is counted by shortcuts: they find what cleaning every text finds."""

from __future__ import annotations

import pytest

from ehrready.engines import duckdb as engine
from ehrready.readers.tabular_columns import column_statistics
from ehrready.readers.tabular_files import Column, Relation

_BLANKS = ("", " ", "\t\r\n", "\x01", " \x01 ", '"', "\x00", "\x1f", "\xa0")
_WORDS = (
    "NA",
    "n/a",
    "unk",
    "?",
    "<NULL>",
    "-",
    "#N/A",
    "(null)",
    "\\N",
    "see note",
    "0",
    "12:30",
    "/",
    ":",
    ";",
    "<",
    "x",
    "\u017fee note",
    "!",
    "~",
)


@pytest.mark.parametrize("before", _BLANKS)
def test_empty_cells_and_null_tokens_are_those_of_clean_texts(before: str) -> None:
    texts = [None, *(f"{before}{word}{after}" for word in ("", *_WORDS, "NA" + 50 * " ") for after in ("", *_BLANKS))]
    with engine.open_engine(threads=1) as con:
        con.execute("CREATE TEMP TABLE t AS SELECT unnest(?::VARCHAR[]) c", [texts])
        sql = column_statistics(Relation("t AS s", "1", "1", {"c": Column("c", "VARCHAR", "c")}), ["c"])
        (found,) = con.execute(sql).fetchall()
        plain = "SELECT count(*) FILTER (WHERE clean(c) IS NULL), count(*) FILTER (WHERE strlen(c) <= 40 AND clean(c) IS NOT NULL AND null_token(c)) FROM t"
        assert (found[1], *found[3:]) == (len(texts), *con.execute(plain).fetchall()[0])
