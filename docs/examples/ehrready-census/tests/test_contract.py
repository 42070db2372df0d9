"""The package keeps ehrready's contracts."""

from __future__ import annotations

from ehrready_census import check, reporter
from ehrready_census.reader import CensusReader

from ehrready import testing

GOOD = b"STAY|1|A|female|1970-01-01|2023-05-01|2023-05-04\nSTAY|2|A|male|1960-01-01|2024-05-01|\nEND|2\n"
BAD = b"STAY|1|A|female|1970-01-01|2023-05-01|2023-05-04\nnot a stay\nEND|2\n"


def test_reader() -> None:
    profile = testing.reader(CensusReader(), {"a.census": GOOD, "b.census": b"END|0\n"}, records=2, damaged={"bad.census": BAD})
    assert profile.tables() == {"patient": 2, "encounter": 2}


def test_check() -> None:
    assert check.silent_year
    testing.check("silent-year")


def test_reporter() -> None:
    assert b"verdict not-ready" in testing.reporter(reporter.render)
