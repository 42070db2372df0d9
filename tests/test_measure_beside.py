"""Measures beside each other: the same bytes as one after the other, and a clean end when one of them fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from ehrready import codings, measure, relations, resources
from ehrready.checks import structure
from ehrready.engines.duckdb import LITTLE_MEMORY, memory_of
from ehrready.pipeline import Options, read_profile

SAMPLE = resources.folder("sample_data") / "live"


@pytest.mark.parametrize("kind", ["fhir", "hl7v2", "omop"])
def test_measures_beside_each_other_count_what_they_count_one_after_the_other(kind: str) -> None:
    roomy: list[bool] = []
    found = [
        read_profile(
            [str(SAMPLE / kind)], Options(internal=True, memory=memory), also=lambda con: roomy.append(memory_of(con) >= LITTLE_MEMORY)
        )[0]
        for memory in ("4GB", "1GB")
    ]
    assert roomy == [True, False]
    assert found[0].to_json() == found[1].to_json()


@pytest.fixture
def patience() -> Iterator[None]:
    """Fail instead of hanging: threads that a test leaves behind are told within ten seconds."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    "place", ["relations.apart", "cells.build", "states.build", "states.measure", "codings.measure", "values.measure", "overlaps.measure"]
)
def test_an_error_in_any_of_them_ends_the_run(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(place)

    module, name = place.split(".")
    monkeypatch.setattr(getattr(measure, module), name, broken)
    with pytest.raises(RuntimeError, match=place):
        read_profile([str(SAMPLE / "fhir")], Options())


@pytest.mark.usefixtures("patience")
def test_an_interruption_ends_what_runs_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(con: Any, **_: Any) -> None:
        con.execute("SELECT count(*) FROM range(100000000) a, range(1000000) b").fetchall()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(relations, "apart", slow)
    monkeypatch.setattr(codings, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_profile([str(SAMPLE / "fhir")], Options())


@pytest.mark.usefixtures("patience")
def test_an_interruption_between_two_statements_ends_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), []

    def slow(con: Any, **_: Any) -> None:
        begun.set()
        time.sleep(0.5)
        try:  # a minute
            ended.append(
                con.execute("SELECT count(*) FROM range(200000) a, range(200000) b WHERE hash(a.range + b.range) % 7 = 1").fetchall()
            )
        except duckdb.Error as error:
            ended.append(type(error))

    def interrupted(*_: Any, **__: Any) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(relations, "apart", slow)
    monkeypatch.setattr(codings, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_profile([str(SAMPLE / "hl7v2")], Options(internal=True))
    assert ended == [duckdb.InterruptException]


def test_a_count_that_cannot_even_begin_is_told_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(structure, "_sample", broken)
    profile = read_profile([str(SAMPLE / "fhir")], Options(internal=True))[0]
    assert {key[3] for key in profile.frames["custom"]} == {"error: the measure crashed (RuntimeError)"}
    assert profile.frames["states"]
    assert b"canary" not in profile.to_json()
