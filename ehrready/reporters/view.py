"""What the report's templates show: ranks, groups, counts and the geometry of bars, from the scorecard alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ehrready.reporters import words
from ehrready.reporters.console import worst

Row = Mapping[str, Any]

#: Checks whose limit is a rise over training; of ``DIFFERENCE`` the interval is that of the difference, too.
RELATIVE = frozenset({"presence-shift", "unseen-codes"})
DIFFERENCE = frozenset({"presence-shift"})
#: Findings on page one, releases on page one, changes named on page one, ledger rows listed one by one, or at all.
FIRST, FEW_RELEASES, FEW_CHANGES, FEW_FILES, MOST_FILES = 5, 5, 3, 50, 500
#: Status of a file that could not be read to its end.
BROKEN = frozenset({"unreadable", "truncated"})

_RANK = {"error": 5, "fail": 4, "warn": 3, "pass": 2, "not-assessed": 1}
_WORTH = {"pass": 1.0, "warn": 0.5, "fail": 0.0}
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_LEFT, _WIDTH = 16, 300  # the bar's track, in units of the SVG's view box


@dataclass(frozen=True, slots=True)
class Bar:
    """The geometry of a finding's bar in view-box units; the words beside it say the same."""

    scale: float
    value: int
    low: int | None
    high: int | None
    limit: int | None
    limit_at: float | None
    trained: int | None

    @staticmethod
    def anchor(x: int) -> str:
        """Return the class (start, middle or end) that keeps a label at ``x`` inside the picture."""
        return "s" if x < _LEFT + 50 else "e" if x > _LEFT + _WIDTH - 50 else "m"


@dataclass(slots=True)
class Card:
    """A finding with what the page adds: ``more`` counts its twins, ``effects`` are findings on the same records.

    ``anchor`` is ``f`` and its place in the scorecard: the script finds the finding of a card by it, so that ids of
    findings, which are data, stay out of attributes.
    """

    f: Row
    anchor: str
    bar: Bar | None
    more: int = 0
    effects: list[Card] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """How loud it is: error (a crash), fail (required), warn (the rest) or none (waived, for information)."""
        if self.f["waiver"] or self.f["severity"] == "info":
            return "none"
        if self.f["status"] == "error":
            return "error"
        return "fail" if self.f["status"] == "fail" and self.f["severity"] == "error" else "warn"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the grid: results by status, the score (0-100) over the assessed ones and their share."""

    counts: Counter[str]

    @property
    def score(self) -> float | None:
        """100 * (passes + warnings / 2) / assessed; None when nothing was assessed."""
        of = sum(self.counts[status] for status in _WORTH)
        return 100 * sum(worth * self.counts[status] for status, worth in _WORTH.items()) / of if of else None

    @property
    def coverage(self) -> float | None:
        """Assessed / (assessed + not assessed); None when no rule applies."""
        of = sum(self.counts[status] for status in _WORTH)
        return of / (of + self.counts["not-assessed"]) if of + self.counts["not-assessed"] else None

    @property
    def kind(self) -> str:
        """The worst of its results, as the kind of a badge."""
        return next(
            (kind for status, kind in (("fail", "fail"), ("warn", "warn"), ("not-assessed", "none")) if self.counts[status]), "pass"
        )


def view(d: Row) -> dict[str, Any]:
    """Return the names that the templates use beside the scorecard ``d`` itself."""
    findings: Sequence[Row] = d["findings"]
    places = {id(f): n for n, f in enumerate(findings)}
    watched = any(f["dimension"] == "production" for f in findings)
    # information changes no verdict, so it goes last whatever its status; a waived finding needs no work until it expires
    # where a model is watched, what it does goes before what it is fed with
    order = sorted(worst(findings), key=lambda f: (bool(f["waiver"]), f["severity"] == "info", watched and f["dimension"] != "production"))
    cards = [Card(f, f"f{places[id(f)]}", bar(f)) for f in order]
    dimensions = list(dict.fromkeys([*(row["name"] for row in d["dimensions"]), *(f["dimension"] for f in findings)]))
    applies = {f["dimension"] for f in findings if f["status"] != "not-applicable"}
    asked = [name for name in dimensions if name in applies]
    rank = {name: n for n, name in enumerate(dimensions)}
    top = _under_causes(cards)
    systems = _systems(d["releases"])
    work = [card for card in cards if not card.f["waiver"] and card.f["severity"] != "info"]
    return {
        "cards": cards,
        "first": _first(top),
        "reasons": _reasons(d["verdict_reasons"], findings),
        "since": _since(d.get("baseline"), findings, cards),
        "groups": _by_rule(top),
        "production": watched,
        "ehr": bool(findings) and all(f["dimension"] == "integration" for f in findings),
        "owners": sorted({card.f["owner"] for card in cards}),
        "work": [(owner, _by_rule(_once(c for c in work if c.f["owner"] == owner))) for owner in sorted({c.f["owner"] for c in work})],
        "checks": d.get("checks") or {},
        "rules": d.get("rules") or {},
        "passed": _passed(findings, rank),
        "passes": sum(f["status"] == "pass" for f in findings),
        "unassessed": [(status, _by_reason(findings, status)) for status in ("not-assessed", "not-applicable")],
        "stale": [waiver for waiver in d.get("waivers") or () if waiver["status"] != "active"],
        "waived": [card for card in cards if card.f["waiver"]],
        "totals": {key: sum(row[key] for row in d["dimensions"]) for key in ("fail", "warn", "pass", "not_assessed")},
        "required": len(
            {(f["rule"], f["element"]) for f in findings if (f["status"], f["severity"]) == ("fail", "error") and not f["waiver"]}
        ),
        "grid": grid(findings, asked),
        "dimension_names": asked,
        "unasked": [name for name in dimensions if name not in asked],
        "systems": [row for row in systems if row["seen"] or row["trained"]],
        "silent": sorted(row["system"] for row in systems if not (row["seen"] or row["trained"])),
        "few_releases": FEW_RELEASES,
        "advice": list(dict.fromkeys(words.plain(r["advice"]) for r in d["releases"] if r.get("advice"))),
        "ledger": _ledger(d["ledger"]),
        "broken": [row for row in d["ledger"] if row["status"] in BROKEN],
    }


def _under_causes(cards: Sequence[Card]) -> list[Card]:
    """Put findings that hit the same records under the finding that causes them; return those that stand alone."""
    of = {card.f["id"]: card for card in cards}
    alone = []
    for card in cards:
        cause = of.get(card.f["cause"])
        # one step only: a cause that has a cause itself stays where it is
        if cause is not None and cause is not card and cause.f["cause"] in {None, cause.f["id"]}:
            cause.effects.append(card)
        else:
            alone.append(card)
    return alone


def _first(cards: Iterable[Card]) -> list[tuple[Card, list[str]]]:
    """Return what to fix first: a job is a rule, at its worst place, with the other places; no information, nothing waived."""
    jobs = _by_rule(_once(card for card in cards if card.f["severity"] != "info" and not card.f["waiver"]))[:FIRST]
    first = []
    for job in jobs:
        here = {words.inline(job[0].f)}
        others = dict.fromkeys(words.inline(card.f) for card in job[1:])
        first.append((job[0], [name for name in others if name not in here]))
    return first


def _once(cards: Iterable[Card]) -> list[Card]:
    """Return one card for all findings of the same defect in the same place, the worst; ``more`` counts the others."""
    found: dict[tuple[str, str, str], list[Card]] = defaultdict(list)
    for card in cards:
        f = card.f
        group = words.plain(dict(f["group"]))
        # what is about no element has nothing in common but that
        found[f["element"] or f["rule"], "missing" if f["defect"] == "vanished" else f["defect"], group].append(card)
    return [Card(c[0].f, c[0].anchor, c[0].bar, len(c) - 1 + sum(len(one.effects) for one in c)) for c in found.values()]


def _reasons(reasons: Iterable[str], findings: Iterable[Row]) -> list[str]:
    """Write the reasons of the verdict with the titles of rules instead of their ids, and places in words."""
    titles = {f["rule"]: f"\u201c{f['title']}\u201d" for f in findings if f["title"]}
    elements = {f["element"]: words.place(f["element"]).lower() for f in findings if f["element"]}
    known = titles | elements
    written = []
    for reason in reasons:
        text = re.sub(r"[\w.-]*\w", lambda m: known.get(m[0], m[0]), reason)
        for title in titles.values():  # “T” (x), “T” (y) is “T” (x, y)
            twice = re.compile(rf"({re.escape(title)} \([^()]*)\), {re.escape(title)} \(")
            while twice.search(text):
                text = twice.sub(r"\1, ", text)
        written.append(words.tied(text.replace("see the ledger", "see \u201cFiles read\u201d")))
    return written


def _since(baseline: Row | None, findings: Iterable[Row], cards: Iterable[Card]) -> dict[str, Any] | None:
    """Return what changed since the baseline: per kind a list of (text, anchor of its card or none)."""
    if not baseline:
        return None
    known = {f["id"]: f for f in findings}
    anchors = {card.f["id"]: card.anchor for card in cards}

    def line(item: Any) -> tuple[str, str | None]:
        key = item.get("id") if isinstance(item, Mapping) else item
        f = known.get(key) if isinstance(key, str) else None
        f = f or (item if isinstance(item, Mapping) else {})
        text = f.get("title") or f.get("rule") or (f.get("message") if f else key)
        if f.get("element"):
            text = f"{text}: {words.place(f['element']).lower()}" + (f" ({f['defect']})" if f.get("defect") else "")
        return words.plain(text), anchors.get(key) if isinstance(key, str) else None

    kinds = (("new", "fail", "new"), ("worse", "warn", "worse"), ("fixed", "pass", "fixed"))
    return {
        "name": words.plain(baseline.get("name") or "the baseline"),
        "verdict": words.VERDICTS.get(str(baseline.get("verdict")), ("not stated",))[0],
        "kinds": [(kind, word, [line(item) for item in baseline.get(key) or []]) for key, kind, word in kinds],
        "few": FEW_CHANGES,
    }


def bar(f: Row) -> Bar | None:
    """Lay out share, interval, limit and training on one axis of shares; None when the numbers are hidden."""
    if f["hidden"] or f["rate"] is None:
        return None
    trained = f["training"]["rate"] if f["training"] else None
    limit, interval = f["limit"], f["interval"]
    if f["check"] in RELATIVE and limit is not None:
        limit = None if trained is None else trained + limit
    if f["check"] in DIFFERENCE and interval:
        interval = None if trained is None else [trained + bound for bound in interval]
    low, high = interval or (None, None)
    top = max(value for value in (f["rate"], high, limit, trained) if value is not None)
    scale = next((s for s in _SCALES if top <= 0.95 * s), 1.0)

    def at(value: float | None) -> int | None:
        return None if value is None else round(_LEFT + _WIDTH * min(max(value / scale, 0.0), 1.0))

    return Bar(scale, at(f["rate"]) or _LEFT, at(low), at(high), at(limit), limit, at(trained))


def _by_rule(cards: Iterable[Card]) -> list[list[Card]]:
    """Group cards by rule, in the order of their worst: why, fix and the rule's text stand once for all of them."""
    groups: dict[tuple[str, bool], list[Card]] = defaultdict(list)
    for card in cards:
        groups[card.f["rule"], bool(card.f["waiver"])].append(card)
    return list(groups.values())


def _passed(findings: Iterable[Row], rank: Mapping[str, int]) -> list[list[tuple[Row, list[str]]]]:
    """Return per rule and limit its elements that passed: the first finding and what was found, defect by defect."""
    units: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for f in findings:
        if f["status"] == "pass":
            units[f["rule"], f["element"]].append(f)
    rules: dict[tuple[int, str, float | None], list[tuple[Row, list[str]]]] = defaultdict(list)
    for members in units.values():
        f = members[0]
        found = [f"{one['defect'] or 'defects'} {words.percent(one['rate'])}" for one in members if one["rate"] != 0]
        rules[rank[f["dimension"]], f["rule"], f["limit"]].append((f, found or ["none"]))
    return [rules[key] for key in sorted(rules, key=lambda key: (key[0], key[1], key[2] or 0.0))]


def _by_reason(findings: Iterable[Row], status: str) -> list[tuple[str, list[tuple[Row, str]]]]:
    """Group the results of a status by reason, most frequent first: a finding and the defects of its rule and element.

    A count in the reason makes no group of its own.
    """
    groups: dict[str, dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for f in findings:
        if f["status"] == status:
            reason = re.sub(r" \([\d,]+\)$", "", f["reason"] or "no reason given")
            groups[reason][f["rule"], f["element"]].append(f)
    results = {
        reason: [(members[0], ", ".join(f["defect"] for f in members if f["defect"])) for members in units.values()]
        for reason, units in groups.items()
    }
    return sorted(results.items(), key=lambda item: (-len(item[1]), item[0]))


def grid(findings: Iterable[Row], dimensions: Sequence[str]) -> list[tuple[str, list[Cell]]]:
    """Return (table, a cell per dimension); a rule on an element counts once, with its worst status."""
    units: dict[tuple[str, str, str, str], str] = {}
    for f in findings:
        key = (f["table"], f["dimension"], f["rule"], f["element"])
        if _RANK.get(f["status"], 0) > _RANK.get(units.get(key, ""), 0):
            units[key] = f["status"]
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (table, dimension, _, _), status in units.items():
        cells[table, dimension]["not-assessed" if status == "error" else status] += 1
    return [(table, [Cell(cells[table, name]) for name in dimensions]) for table in sorted({key[0] for key in units})]


def _systems(releases: Iterable[Row]) -> list[dict[str, Any]]:
    """Sum the releases up by code system: seen, trained on and the most alarming status.

    An element that states no release says nothing about a system whose release another element states.
    """
    grouped: dict[str, list[Row]] = defaultdict(list)
    for r in releases:
        grouped[r["system"]].append(r)
    rows = []
    for system, members in grouped.items():
        stated = [r["status"] for r in members if r["status"] != "not-declared"]
        status = min(stated or ["not-declared"], key=_alarm)
        seen = {s["release"] for r in members for s in r["declared"] if s["release"]}
        trained = {s["release"] for r in members if r["training"] for s in r["training"].get("declared") or () if s["release"]}
        kind, text = words.release_words(status, seen, trained)
        rows.append({"system": system, "status": status, "seen": sorted(seen), "trained": sorted(trained), "kind": kind, "words": text})
    return sorted(rows, key=lambda row: (row["status"] == "not-declared", _alarm(row["status"]), row["system"]))


def _alarm(status: str) -> int:
    """Rank a release status, the most alarming first."""
    return list(words.RELEASES).index(status) if status in words.RELEASES else -1


def _ledger(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the ledger for people: a summary by status, format and reason, and the files, troubled ones first."""
    columns = ("bytes", "read", "profiled", "rejected")
    summary: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        why = ", ".join(sorted(row["reasons"]))
        sums = summary.setdefault((row["status"], row["format"], why), [0] * 5)
        for n, value in enumerate((1, *(row[c] for c in columns))):
            sums[n] += value
    troubled = sorted(rows, key=lambda row: (row["status"] not in BROKEN, not row["rejected"]))
    return {
        "summary": sorted(summary.items()) if len(rows) > FEW_FILES else [],
        "files": rows if len(rows) <= MOST_FILES else troubled[:MOST_FILES],
        "left_out": max(0, len(rows) - MOST_FILES),
        "totals": [sum(row[c] for row in rows) for c in columns],
    }
