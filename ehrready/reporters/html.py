"""The HTML report: one offline page made from the scorecard alone, verdict first, readable without its script.

The templates beside this module hold the words and the order; this module computes what they show (ranks, groups,
counts, the geometry of the bars).  Autoescape is on, an undefined name is an error, and the page's Content Security
Policy allows nothing but the one style sheet and the one script in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from ehrready.reporters.console import worst

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard

Row = Mapping[str, Any]

#: Verdict → its words and what they mean to the reader.
VERDICTS = {
    "ready": ("Ready", "Every requirement that could be assessed is met."),
    "ready-with-conditions": (
        "Ready with conditions",
        "No requirement failed, but the warnings need a decision before a model runs on this data.",
    ),
    "not-ready": ("Not ready", "A model should not run on this data until the failed requirements are fixed."),
    "cannot-tell": ("Cannot tell", "Too little could be read or assessed for a verdict. This is not a pass."),
}
#: Status → words for a badge.
STATUSES = {
    "error": "Check crashed",
    "fail": "Failed",
    "warn": "Warning",
    "pass": "Passed",
    "not-assessed": "Not assessed",
    "not-applicable": "Does not apply",
}
SEVERITIES = {"error": "required", "warning": "advised", "info": "for information"}
FORMATS = {"fhir": "FHIR", "hl7v2": "HL7 v2", "omop": "OMOP", "table": "tables"}
RELEASES = {
    "different": ("warn", "not what training used"),
    "not-declared": ("none", "not stated"),
    "not-compared": ("none", "nothing to compare with"),
    "same": ("pass", "as in training"),
}
#: Checks whose limit is a rise over training; of ``DIFFERENCE`` the interval is that of the difference, too.
RELATIVE = frozenset({"presence-shift", "unseen-codes"})
DIFFERENCE = frozenset({"presence-shift"})
#: Findings on page one, releases on page one, ledger rows listed one by one, ledger rows listed at all.
FIRST, FEW_RELEASES, FEW_FILES, MOST_FILES = 5, 5, 50, 500

_RANK = {"error": 5, "fail": 4, "warn": 3, "pass": 2, "not-assessed": 1}
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_EDITIONS = {"900000000000207008": "International edition", "731000124108": "US edition"}
_LEFT, _WIDTH = 16, 300  # the bar's track, in units of the SVG's view box


def render(scorecard: Scorecard) -> str:
    """Return the report as one HTML page; the same scorecard gives the same text."""
    d = scorecard.document
    environment = _environment()
    style, script = (environment.get_template(name).render() for name in ("report.css", "report.js"))
    policy = f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html").render(d=d, policy=policy, **_view(d))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ehrready.reporters", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `tojson` writes <, >, & and ' as \u escapes, and ASCII only, so that nothing can end the script element
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": True}
    environment.filters |= {
        "num": number, "pct": percent, "points": points, "month": month, "size": size, "plain": plain, "plural": plural, "words": words, "release": release, "tied": tied
    }  # fmt: skip
    environment.globals |= {
        "VERDICTS": VERDICTS, "STATUSES": STATUSES, "SEVERITIES": SEVERITIES, "FORMATS": FORMATS, "release_words": release_words
    }  # fmt: skip
    return environment


def _sha256(text: str) -> str:
    """Return a CSP source expression for an inline element with this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --- how numbers and names are written


def number(value: float | None) -> str:
    """Write a count with thousands separators; None is a hidden one."""
    return "<11" if value is None else f"{value:,}"


def percent(rate: float | None) -> str:
    """Write a share of 1 with one decimal; what is not quite nothing or everything never looks like it."""
    if rate is None:
        return "hidden"
    if 0 < rate < 0.0005:
        return "<0.1\u00a0%"
    if rate >= 0.9995:
        return "100\u00a0%" if rate >= 1 else ">99.9\u00a0%"
    return f"{100 * rate:.1f}\u00a0%"


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")


def month(value: str | None) -> str:
    """Write ``2025-03`` as March 2025; anything else stays as it is."""
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", value or "")
    return f"{_MONTHS[int(found[2]) - 1]} {found[1]}" if found else str(value or "unknown")


def release(value: str | None) -> str:
    """Write a release for people: the edition URI of SNOMED CT becomes its edition and date, the rest stays."""
    found = re.fullmatch(r"http://snomed\.info/sct/(\d{6,18})(?:/version/(\d{4})(\d\d)(\d\d))?", value or "")
    if not found:
        return value or "not stated"
    edition = _EDITIONS.get(found[1], f"edition {found[1]}")
    return f"{edition} {found[2]}-{found[3]}-{found[4]}" if found[2] else edition


def size(value: int) -> str:
    """Write a number of bytes in the largest decimal unit that leaves at least 1."""
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= width:
            return f"{value / width:.1f}\u00a0{unit}"
    return f"{value}\u00a0bytes"


def plain(value: Any) -> str:
    """Write a JSON value as text: lists with commas, objects as JSON."""
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def words(name: str) -> str:
    """Write an owner's name as words: ``clinical-informatics`` is Clinical informatics."""
    return name[:1].upper() + name[1:].replace("-", " ")


def tied(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\u00a0%")


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 finding, 2 findings."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- what the templates show


@dataclass(frozen=True, slots=True)
class Bar:
    """The geometry of a finding's bar in view-box units; ``text`` names it (the table beside it has the rest)."""

    scale: float
    value: int
    low: int | None
    high: int | None
    limit: int | None
    limit_at: float | None
    trained: int | None
    text: str

    @staticmethod
    def anchor(x: int) -> str:
        """Return the class (start, middle or end) that keeps a label at ``x`` inside the picture."""
        return "s" if x < _LEFT + 50 else "e" if x > _LEFT + _WIDTH - 50 else "m"


@dataclass(frozen=True, slots=True)
class Card:
    """A finding with what the page adds: ``more`` counts its twins, ``anchor`` is ``f`` and its place in the scorecard.

    The script finds the finding of a card by that place; finding ids stay out of attributes.
    """

    f: Row
    anchor: str
    bar: Bar | None
    more: int = 0


def _view(d: Row) -> dict[str, Any]:
    findings: Sequence[Row] = d["findings"]
    places = {id(f): place for place, f in enumerate(findings)}
    # information changes no verdict, so it goes last whatever its status
    order = sorted(worst(findings), key=lambda f: f["severity"] == "info")
    cards = [Card(f, f"f{places[id(f)]}", _bar(f)) for f in order]
    dimensions = list(dict.fromkeys([*(row["name"] for row in d["dimensions"]), *(f["dimension"] for f in findings)]))
    groups = [
        (status, dimension, members)
        for status in ("error", "fail", "warn")
        for dimension in dimensions
        if (members := [c for c in cards if (c.f["status"], c.f["dimension"]) == (status, dimension)])
    ]
    systems = _systems(d["releases"])
    rank = {name: place for place, name in enumerate(dimensions)}
    return {
        "cards": cards,
        "first": _first(cards),
        "groups": groups,
        "anchors": {card.f["id"]: card.anchor for card in cards},
        "owners": sorted({card.f["owner"] for card in cards}),
        "passed": sorted((f for f in findings if f["status"] == "pass"), key=lambda f: (rank[f["dimension"]], f["element"], f["rule"])),
        "unassessed": [(status, _by_reason(findings, status)) for status in ("not-assessed", "not-applicable")],
        "waived": [card for card in cards if card.f["waiver"]],
        "totals": {key: sum(row[key] for row in d["dimensions"]) for key in ("fail", "warn", "pass", "not_assessed")},
        "required": len({(f["rule"], f["element"]) for f in findings if (f["status"], f["severity"]) == ("fail", "error")}),
        "grid": _grid(findings, dimensions),
        "dimension_names": dimensions,
        "systems": [row for row in systems if row["seen"] or row["trained"]],
        "silent": sorted(row["system"] for row in systems if not (row["seen"] or row["trained"])),
        "few_releases": FEW_RELEASES,
        "ledger": _ledger(d["ledger"]),
    }


def _first(cards: Iterable[Card]) -> list[Card]:
    """Return what to fix first: one card for all findings of the same defect in the same place, information left out."""
    places: dict[tuple[str, str], list[Card]] = defaultdict(list)
    for card in cards:
        f = card.f
        if f["severity"] != "info" and f["cause"] in {None, f["id"]}:
            places[f["element"], "missing" if f["defect"] == "vanished" else f["defect"]].append(card)
    return [Card(c[0].f, c[0].anchor, c[0].bar, len(c) - 1) for c in list(places.values())[:FIRST]]


def _bar(f: Row) -> Bar | None:
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

    text = percent(f["rate"])
    text += f", limit {percent(limit)}" if limit is not None else ""
    text += f", training {percent(trained)}" if trained is not None else ""
    return Bar(scale, at(f["rate"]) or _LEFT, at(low), at(high), at(limit), limit, at(trained), text)


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


def _grid(findings: Iterable[Row], dimensions: Sequence[str]) -> list[tuple[str, list[Counter[str]]]]:
    """Return (table, per dimension a count of statuses); a rule on an element counts once, with its worst status."""
    units: dict[tuple[str, str, str, str], str] = {}
    for f in findings:
        key = (f["table"], f["dimension"], f["rule"], f["element"])
        if _RANK.get(f["status"], 0) > _RANK.get(units.get(key, ""), 0):
            units[key] = f["status"]
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (table, dimension, _, _), status in units.items():
        cells[table, dimension]["not-assessed" if status == "error" else status] += 1
    return [(table, [cells[table, name] for name in dimensions]) for table in sorted({key[0] for key in units})]


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
        trained = {s["release"] for r in members if r["training"] for s in r["training"]["declared"] if s["release"]}
        kind, text = release_words(status)
        rows.append({"system": system, "status": status, "seen": sorted(seen), "trained": sorted(trained), "kind": kind, "words": text})
    return sorted(rows, key=lambda row: (row["status"] == "not-declared", _alarm(row["status"]), row["system"]))


def release_words(status: str) -> tuple[str, str]:
    """Return the badge of a release status, its kind and words; a status of a later version speaks for itself."""
    return RELEASES.get(status, ("none", status))


def _alarm(status: str) -> int:
    """Rank a release status, the most alarming first."""
    return list(RELEASES).index(status) if status in RELEASES else -1


def _ledger(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the ledger for people: a summary by status, format and reason, and the files, troubled ones first."""
    columns = ("bytes", "read", "profiled", "rejected")
    summary: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        why = ", ".join(sorted(row["reasons"]))
        sums = summary.setdefault((row["status"], row["format"], why), [0] * 5)
        for place, value in enumerate((1, *(row[c] for c in columns))):
            sums[place] += value
    troubled = sorted(rows, key=lambda row: (row["status"] not in {"unreadable", "truncated"}, not row["rejected"]))
    return {
        "summary": sorted(summary.items()) if len(rows) > FEW_FILES else [],
        "files": rows if len(rows) <= MOST_FILES else troubled[:MOST_FILES],
        "left_out": max(0, len(rows) - MOST_FILES),
        "totals": [sum(row[c] for row in rows) for c in columns],
    }
