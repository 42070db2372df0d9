"""Counts that rules define themselves (``check: sql`` and the like), measured in the locked engine before they are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import orjson

from ehrready.checks.base import CHECKS, CannotCount, Counted, Outcome, skip
from ehrready.engines.duckdb import stopped
from ehrready.profile import Frame, Profile

if TYPE_CHECKING:
    import duckdb

    from ehrready.rules import Rule


#: Key of a group that says that a count is about a table, not about patients.
SCOPE = "scope"


#: Counts under way, by a rule's id and digest.
Begun = Mapping[tuple[str, str], "Future[list[Counted]]"]


def begin(con: duckdb.DuckDBPyConnection, rules: Iterable[Rule], beside: Executor) -> Begun:
    """Start what counts without the engine (``Check.apart``), beside the measures that group and count in it."""
    begun: dict[tuple[str, str], Future[list[Counted]]] = {}
    for rule in rules:
        check = CHECKS[rule.check]
        if check.measured and check.apart:
            try:
                if check.apart(con):
                    begun[rule.id, rule.digest] = beside.submit(_counted, check.measured(con, rule.options))
            except Exception as error:  # what fails here fails again when its turn comes, and is told then
                if stopped(error):
                    raise
    return begun


def _counted(found: list[Counted] | Callable[[], list[Counted]]) -> list[Counted]:
    return found() if callable(found) else found


def measure(con: duckdb.DuckDBPyConnection, rules: Iterable[Rule], begun: Begun) -> Frame:
    """Count what the rules ask for; one that fails is a row with its reason, and the others are counted all the same."""
    frame: Frame = {}
    for rule in rules:
        count, under_way = CHECKS[rule.check].measured, begun.get((rule.id, rule.digest))
        if count is None:
            continue
        try:
            for row in under_way.result() if under_way else _counted(count(con, rule.options)):
                about = {} if row.people else {SCOPE: "table"}
                group = orjson.dumps(dict(row.group) | about, option=orjson.OPT_SORT_KEYS).decode()
                key, before = (rule.id, rule.digest, group, ""), frame.get((rule.id, rule.digest, group, ""), (0, 0, 0, 0))
                new = (row.n, row.of, row.patients or 0, int(row.patients is None))
                frame[key] = tuple((a or 0) + b for a, b in zip(before, new, strict=True))
        except CannotCount as error:
            frame[rule.id, rule.digest, "{}", f"{error.status}: {error}"] = (0, 0, 0, 0)
        except Exception as error:
            if stopped(error):
                raise
            # a result of its own; its text may quote data
            frame[rule.id, rule.digest, "{}", f"error: the measure crashed ({type(error).__name__})"] = (0, 0, 0, 0)
    return frame


def outcomes(profile: Profile, key: tuple[str, str]) -> list[Outcome]:
    """Return the outcomes of a rule from what was counted for it under its (id, digest)."""
    rows = list(profile.rows("custom", *key))
    if not rows and not profile.frames["custom"]:
        return skip("not-assessed", "the profile was made without this rule: name its pack with --rules when profiling")
    if not rows:
        return skip("not-assessed", "the profile was made with other rules, or with other options of this one: profile it again")
    failed = sorted({row[0][3] for row in rows if row[0][3]})
    if failed:
        status, _, reason = failed[0].partition(": ")
        return skip(status if status in {"error", "not-applicable"} else "error", reason)
    found = []
    for (_, _, group, _), (n, of, patients, unknown) in rows:
        # whose records they are is not known: their number may be a single patient's
        few = bool(unknown and n)
        about = orjson.loads(group)
        outcome = Outcome("counted", n, of, None if unknown else patients, group=about, few=few)
        if about.pop(SCOPE, None):
            outcome.people, outcome.few, outcome.patients, outcome.status = False, False, None, "fail" if n else "pass"
        found.append(outcome)
    return found
