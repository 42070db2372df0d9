"""The console summary: verdict, reasons, the worst findings, where the report is.  Fits one screen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape as _escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from ehrready.scorecard import Scorecard

_VERDICTS = {
    "ready": ("green", "READY"),
    "ready-with-conditions": ("yellow", "READY WITH CONDITIONS"),
    "not-ready": ("red", "NOT READY"),
    "cannot-tell": ("magenta", "CANNOT TELL"),
}
_RANK = {"error": 0, "fail": 1, "warn": 2}
_SEVERITY = {"error": 0, "warning": 1, "info": 2}
_STYLE = {"error": "magenta", "fail": "red", "warn": "yellow"}


#: Control characters and those that turn the direction of text: a terminal would obey them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return text that a terminal and a CI log only show: no control characters, no workflow command (``::name::``)."""
    return _CONTROL.sub(" ", text).replace("::", ": :")


def escape(text: str) -> str:
    """Return plain text (:func:`plain`) that Rich takes for no markup."""
    return _escape(plain(text))


def worst(findings: Sequence[Mapping[str, Any]], most: int | None = None) -> list[Mapping[str, Any]]:
    """Return the findings to act on, worst first: crashed, failed, warned; errors before warnings; largest first."""
    open_ = [f for f in findings if f["status"] in _RANK]
    order = sorted(
        open_, key=lambda f: (_RANK[f["status"]], _SEVERITY[f["severity"]], -(f["numerator"] or 0), f["rule"], f["element"], f["defect"])
    )
    return order[:most]


def render(scorecard: Scorecard, console: Console, outputs: Sequence[str] = ()) -> None:
    """Print the summary; ``outputs`` are the files that were written."""
    d = scorecard.document
    style, words = _VERDICTS[d["verdict"]]
    subject, records = d["subject"], d["subject"]["records"]
    patients = "fewer than 11" if subject["patients"] is None else f"{subject['patients']:,}"
    against = f"against {d['training']['name']}" if d["training"] else "on its own (no training profile)"
    console.print(f"[bold {style}]{words}[/]  {escape(str(subject['name']))}, {escape(against)}")
    period = " to ".join(dict.fromkeys(m for m in subject["period"].values() if m))
    console.print(
        f"  {records['read']:,} records read, {records['profiled']:,} profiled, {records['rejected']:,} rejected; {patients} patients"
        f"{'; ' + escape(period) if period else ''}; {escape(', '.join(subject['formats'])) or 'no data'}"
    )
    for reason in d["verdict_reasons"]:
        console.print(f"  {escape(reason)}")
    coverage = "none" if d["coverage"] is None else f"{100 * d['coverage']:.0f} %"
    score = "-" if d["score"] is None else f"{d['score']:.0f}"
    console.print(f"  required rules assessed: {coverage}; score {score} of 100")
    # what somebody answers for, and what is only information, waits in the report
    work = [f for f in worst(d["findings"]) if not f["waiver"] and f["severity"] != "info"]
    heads = {f["id"] for f in work if not f["cause"]}
    rows = [f for f in work if f["cause"] not in heads][:5]
    if rows:
        told = 0
        table = Table(box=None, pad_edge=False, show_header=True, header_style="bold", padding=(0, 2, 0, 0))
        for name in ("", "what to fix first", "owner"):
            table.add_column(name, overflow="fold")
        for f in rows:
            mark = f"[{_STYLE[f['status']]}]{f['status'] if f['severity'] == 'error' else f['severity']}[/]"
            table.add_row(mark, escape(f["message"]), escape(f["owner"]))
            same = [other for other in work if other["cause"] == f["id"]]
            told += 1 + len(same)
            for other in same[:2]:
                table.add_row(
                    "", f"  same records: {escape(other['rule'])}, {escape(other['message'])}", escape(other["owner"]), style="dim"
                )
            if len(same) > 2:
                table.add_row("", f"  same records: {len(same) - 2} more", "", style="dim")
        console.print(table)
        if more := len(work) - told:
            console.print(f"  and {more} more in the report")
    for row in [row for row in d["ledger"] if row["rejected"]][:3]:
        reasons = ", ".join(
            f"{reason} {n:,}" + (f" (first at {row['first_at'][reason]:,})" if row["first_at"].get(reason) else "")
            for reason, n in row["reasons"].items()
        )
        console.print(f"  rejected in {escape(row['file'])} ({escape(row['status'])}): {escape(reasons)}")
    for path in outputs:
        console.print(f"wrote {escape(path)}", soft_wrap=True)
