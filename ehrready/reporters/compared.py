"""Two scorecards side by side: the document, Markdown and HTML of ``ehrready diff``.

Markdown and HTML are made from the document, so that no two of them can say different things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ehrready import __version__
from ehrready.difference import KINDS, Difference

_NUMBERS = ("status", "severity", "hidden", "numerator", "denominator", "rate", "interval", "message")
_NAMES = ("id", "rule", "title", "element", "group", "defect", "owner")


def to_json(before: Mapping[str, Any], after: Mapping[str, Any], found: Difference) -> dict[str, Any]:
    """Return the comparison as a document (``ehrready schema difference``): per kind the findings, then and now."""
    old, new = ({f["id"]: f for f in d["findings"]} for d in (before, after))
    return {
        "kind": "ehrready-difference",
        "schema_version": "1.0",
        "tool": {"name": "ehrready", "version": __version__},
        "before": _side(before),
        "after": _side(after),
        "unlike": found.unlike,
        **{kind: [_change(f, old.get(f["id"]), new.get(f["id"])) for f in getattr(found, kind)] for kind in KINDS},
    }


def _side(d: Mapping[str, Any]) -> dict[str, Any]:
    subject = d["subject"]
    return {
        **{key: d[key] for key in ("verdict", "score", "coverage")},
        **{key: subject[key] for key in ("name", "patients", "period")},
        "records": subject["records"]["read"],
        "dimensions": {row["name"]: row["score"] for row in d["dimensions"]},
    }


def _change(f: Mapping[str, Any], old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    then, now = ({key: side[key] for key in _NUMBERS} if side else None for side in (old, new))
    reason = (new or {}).get("reason") or (old or {}).get("reason") or ""
    return {key: f[key] for key in _NAMES} | {"reason": reason, "before": then, "after": now}


def message(item: Mapping[str, Any]) -> str:
    """Return what to say of a change: the newer sentence, where there is one."""
    return str((item["after"] or item["before"])["message"])


def heading(d: Mapping[str, Any]) -> str:
    """Return the two verdicts, names and scores in one line."""
    from ehrready.reporters.console import plain

    a, b = d["before"], d["after"]
    return plain(f"{a['verdict']} ({a['name']}) to {b['verdict']} ({b['name']}); score {_score(a)} to {_score(b)}")


def _score(side: Mapping[str, Any]) -> str:
    return "none" if side["score"] is None else f"{side['score']:g}"


def to_markdown(d: Mapping[str, Any]) -> str:
    """Return the comparison as GitHub-flavoured Markdown; every text of the scorecards is escaped."""
    from ehrready.reporters.markdown import escape

    lines = [f"## {escape(heading(d))}", ""]
    lines += [f"- {escape(line)}" for line in d["unlike"]]
    for kind, words in KINDS.items():
        items = d[kind]
        lines += ["", f"### {len(items)} {words}"]
        if items and kind != "same":
            lines += ["", "| rule | owner | before | after | finding |", "|---|---|---|---|---|"]
            lines += [
                f"| {' | '.join(map(escape, (f['rule'], f['owner'], _rate(f['before']), _rate(f['after']), message(f))))} |" for f in items
            ]
    return "\n".join(lines) + "\n"


def _rate(numbers: Mapping[str, Any] | None) -> str:
    from ehrready.reporters.words import percent

    return "-" if numbers is None or numbers["rate"] is None else percent(numbers["rate"])


def to_html(d: Mapping[str, Any]) -> str:
    """Return the comparison as one offline page in the style of the report, without a script."""
    from ehrready.reporters import html

    return html.page("diff.html", {}, d=d, kinds=_listed(d), message=message)


def _listed(d: Mapping[str, Any]) -> list[tuple[str, str, Iterable[Mapping[str, Any]]]]:
    return [(kind, words, d[kind]) for kind, words in KINDS.items()]
