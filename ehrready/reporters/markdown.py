"""GitHub-flavoured Markdown for pull requests and job summaries; every text of the scorecard is shown, never obeyed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ehrready.reporters.console import plain, worst
from ehrready.scorecard import Scorecard

_VERDICTS = {
    "ready": "Ready",
    "ready-with-conditions": "Ready, with conditions",
    "not-ready": "Not ready",
    "cannot-tell": "Cannot tell",
}
_FIRST = 5
#: Characters that mean nothing to Markdown, to its extensions, or to HTML.
_HARMLESS = " .,:;/'%+-()"


def escape(text: object) -> str:
    """Return text as Markdown that shows it and nothing else.

    What could mean something becomes a numeric reference, which Markdown takes for text; ``@``, ``#`` and the colon of an
    address get a word joiner as well, since GitHub looks for mentions, issues and links in the rendered text.
    """
    joined = plain(str(text)).replace("@", "@\u2060").replace("#", "#\u2060").replace("://", ":\u2060//").replace("www.", "www\u2060.")
    return "".join(c if c.isalnum() or c in _HARMLESS else f"&#{ord(c)};" for c in joined)


def render(card: Scorecard) -> str:
    """Return the scorecard as Markdown: verdict, reasons, what to fix first, dimensions, releases, and what was not assessed."""
    d = card.document
    subject, records = d["subject"], d["subject"]["records"]
    score = "no score" if d["score"] is None else f"score {d['score']:g} of 100"
    coverage = (
        "none of the required rules assessed" if d["coverage"] is None else f"{100 * d['coverage']:.0f} % of the required rules assessed"
    )
    patients = "fewer than 11" if subject["patients"] is None else f"{subject['patients']:,}"
    lines = [
        f"## {_VERDICTS[card.verdict]}: {escape(subject['name'])}",
        "",
        f"{score}; {coverage}; {records['read']:,} records read, {records['rejected']:,} rejected; {patients} patients"
        + (f"; compared with {escape(d['training']['name'])}" if d["training"] else "; without a training profile"),
        "",
        *(f"- {escape(reason)}" for reason in d["verdict_reasons"]),
    ]
    if d["internal"]:
        lines.append("- Internal: exact small counts are shown. Not for leaving the hospital.")
    lines += [*_first(d), *_since(d), *_dimensions(d), *_releases(d), *_waivers(d), *_unassessed(d), *_provenance(d)]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def _first(d: Mapping[str, Any]) -> list[str]:
    open_ = [f for f in worst(d["findings"]) if not f["waiver"] and f["severity"] != "info"]
    rows = [(escape(f["severity"]), escape(f["message"]), escape(f["owner"]), escape(f["fix"])) for f in open_[:_FIRST]]
    more = [f"\nand {len(open_) - _FIRST} more"] if len(open_) > _FIRST else []
    return ["", "### Fix first", "", *_table(("severity", "finding", "owner", "next step"), rows), *more] if rows else []


def _since(d: Mapping[str, Any]) -> list[str]:
    baseline = d.get("baseline")
    if not baseline:
        return []
    words = {"new": "new", "worse": "worse", "fixed": "fixed", "gone": "no longer assessed"}
    lines = ["", f"### Since {escape(baseline['name'])}", ""]
    for key, word in words.items():
        items = baseline.get(key) or []
        lines.append(f"- {len(items)} {word}" + "".join(f"\n  - {escape(item['message'])}" for item in items[:_FIRST]))
    return lines


def _dimensions(d: Mapping[str, Any]) -> list[str]:
    def cell(row: Mapping[str, Any]) -> list[object]:
        score = "" if row["score"] is None else f"{row['score']:g}"
        return [escape(row["name"]), score, row["pass"], row["warn"], row["fail"], row["not_assessed"]]

    head = ("dimension", "score", "pass", "warn", "fail", "not assessed")
    return ["", "### Dimensions", "", *_table(head, [cell(row) for row in d["dimensions"]])]


def _releases(d: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in d["releases"]:
        trained = row["training"] or {}
        learnt = _inferred(trained) or _declared(trained)
        seen = _inferred(row) or "not told by the codes"
        rows.append([escape(v) for v in (row["element"], row["system"], _declared(row) or "none", seen, learnt)])
    return ["", "### Releases", "", *_table(("element", "system", "declared", "in the data", "trained on"), rows)] if rows else []


def _declared(row: Mapping[str, Any]) -> str:
    return ", ".join(share["release"] or "not declared" for share in row.get("declared") or [])


def _inferred(row: Mapping[str, Any]) -> str:
    return ", ".join((row.get("inferred") or {}).get("releases") or [])


def _waivers(d: Mapping[str, Any]) -> list[str]:
    rows = [[escape(w[key]) for key in ("rule", "status", "owner", "expires", "reason")] for w in d.get("waivers") or []]
    return ["", "### Waivers", "", *_table(("rule", "status", "owner", "expires", "reason"), rows)] if rows else []


def _unassessed(d: Mapping[str, Any]) -> list[str]:
    reasons: dict[str, set[str]] = defaultdict(set)
    for f in d["findings"]:
        if f["status"] in {"not-assessed", "error"}:
            reasons[f["reason"] or "no reason stated"].add(f["rule"])
    if not reasons:
        return []
    rows = [f"- {escape(reason)}: {', '.join(map(escape, sorted(rules)))}" for reason, rules in sorted(reasons.items())]
    return ["", f"<details><summary>Not assessed, and why ({len(rows)})</summary>", "", *rows, "", "</details>"]


def _provenance(d: Mapping[str, Any]) -> list[str]:
    packs = ", ".join(f"{escape(p['name'])} {escape(p['version'])}" for p in d["provenance"]["rule_packs"])
    return ["", f"ehrready {escape(d['tool']['version'])}; rules {packs}; input {escape(d['provenance']['input_sha256'][:12])}"]
