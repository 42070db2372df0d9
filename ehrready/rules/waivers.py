"""Waivers: findings that somebody answers for until a date (``--waivers FILE``).

    waivers:
      - rule: observation-unit-present
        on: observation.*          # element or glob; all of the rule's when left out
        defect: missing            # one of the rule's defects; all when left out
        reason: Units come with the new interface in March.
        owner: engineering
        expires: 2027-03-31        # at most 180 days ahead
        max_rate: 0.2              # fails again above this share

A waived finding keeps its status and its numbers; it no longer decides the verdict.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ehrready.errors import UsageError
from ehrready.rules.document import MAX_BYTES, Document, compose, hint, shown

if TYPE_CHECKING:
    from ehrready.evaluate import Finding

#: A waiver is for a while: one that nobody looks at for longer is a lowered bar.
MAX_DAYS = 180
KEYS = ("rule", "on", "defect", "reason", "owner", "expires", "max_rate")


@dataclass(slots=True)
class Waiver:
    """One waiver; ``place`` is its file and line, ``status`` what became of it: active, expired, exceeded or unused."""

    rule: str
    on: str
    defect: str
    reason: str
    owner: str
    expires: dt.date
    max_rate: float | None
    place: str
    status: str = "unused"
    findings: list[str] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """Return the waiver as it stands in the scorecard."""
        limit = {} if self.max_rate is None else {"max_rate": self.max_rate}
        return {"owner": self.owner, "reason": self.reason, "expires": self.expires.isoformat(), **limit}

    def covers(self, finding: Finding) -> bool:
        """Is the finding one that the waiver is about?"""
        return (
            finding.rule.id == self.rule
            and fnmatch.fnmatchcase(finding.element, self.on)
            and self.defect in {"", finding.outcome.defect}
            and finding.status in {"fail", "warn"}
        )


def today(stamp: str | None) -> dt.date:
    """Return the day that waivers are judged at: the stamp's where it begins with a date, else today (UTC)."""
    try:
        return dt.date.fromisoformat((stamp or "")[:10])
    except ValueError:
        return dt.datetime.now(dt.UTC).date()


def load(path: str, known: Collection[str], day: dt.date) -> list[Waiver]:
    """Read a waiver file; ``known`` are the ids of rules.  Raises UsageError listing every mistake with its line."""
    place = Path(path).name
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        raise UsageError(f"waivers {place}: no such file, or it cannot be read") from None
    parser = _Parser(place)
    node = compose(data, place, "a waiver file")
    found = parser.waivers(node, known, day)
    if parser.problems:
        raise UsageError(*parser.problems)
    return found


class _Parser(Document):
    def waivers(self, node: yaml.Node | None, known: Collection[str], day: dt.date) -> list[Waiver]:
        if node is None:
            self.wrong(None, "the file is empty: it needs waivers, a list")
            return []
        body = self.mapping(node, ("waivers",), "the waiver file")
        if "waivers" not in body and isinstance(node, yaml.MappingNode):
            self.wrong(node, "the file has no waivers: it needs waivers, a list")
        found = [self._waiver(item, known, day) for item in self.items(body.get("waivers"), "waivers")]
        return [waiver for waiver in found if waiver]

    def _waiver(self, node: yaml.Node, known: Collection[str], day: dt.date) -> Waiver | None:
        before = len(self.problems)
        body = self.mapping(node, KEYS, "the waiver")
        if not isinstance(node, yaml.MappingNode):
            return None
        texts = {}
        for key in ("rule", "reason", "owner", "on", "defect"):
            value = self.value(body[key]) if key in body else None
            if (key in body or key in {"rule", "reason", "owner"}) and (not isinstance(value, str) or not value.strip()):
                self.wrong(body.get(key, node), f"the waiver needs a text for {key}")
            texts[key] = str(value or "").strip()
        if texts["rule"] and texts["rule"] not in known:
            self.wrong(body["rule"], f"no rule is called {shown(texts['rule'])}{hint(texts['rule'], known)}: name one rule by its id")
        expires = self._date(body.get("expires"), node, day)
        most = self.value(body["max_rate"]) if "max_rate" in body else None
        if most is not None and (isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1):
            self.wrong(body["max_rate"], "max_rate must be a share between 0 and 1")
        if len(self.problems) > before or expires is None:
            return None
        line = node.start_mark.line + 1
        return Waiver(
            texts["rule"], texts["on"] or "*", texts["defect"], texts["reason"], texts["owner"], expires,
            None if most is None else float(most), f"{self.place}:{line}",
        )  # fmt: skip

    def _date(self, node: yaml.Node | None, waiver: yaml.Node, day: dt.date) -> dt.date | None:
        value = self.value(node) if node is not None else None
        if isinstance(value, str):
            try:
                value = dt.date.fromisoformat(value)
            except ValueError:
                value = None
        if isinstance(value, dt.datetime):
            value = value.date()
        if not isinstance(value, dt.date):
            self.wrong(node or waiver, "the waiver needs expires: a date such as 2027-03-31")
            return None
        if (value - day).days > MAX_DAYS:
            self.wrong(node, f"expires is more than {MAX_DAYS} days ahead: at most {(day + dt.timedelta(days=MAX_DAYS)).isoformat()}")
        return value


def apply(findings: Sequence[Finding], waivers: Sequence[Waiver], day: dt.date) -> list[str]:
    """Waive the findings that a waiver covers, and return what the verdict must say of expired, exceeded and unused ones."""
    said: list[str] = []
    for waiver in waivers:
        covered = [finding for finding in findings if waiver.covers(finding)]
        for finding in covered:
            rate, problem = finding.outcome.rate, ""
            if day > waiver.expires:
                waiver.status, problem = "expired", f"its waiver expired on {waiver.expires.isoformat()}"
            elif waiver.max_rate is not None and (rate is None or rate > waiver.max_rate):
                waiver.status, problem = "exceeded", f"it is beyond the {100 * waiver.max_rate:g} % that its waiver allows"
            else:
                waiver.status = "active" if waiver.status == "unused" else waiver.status
                finding.waiver = waiver.public()
                waiver.findings.append(finding.id)
            if problem and finding.waiver is None:
                finding.reason = f"{finding.reason}; {problem}" if finding.reason else problem
        words = {
            "expired": f"The waiver of {waiver.rule} expired on {waiver.expires.isoformat()}: mend the finding or answer for it anew.",
            "exceeded": f"A finding of {waiver.rule} is worse than its waiver allows.",
            "unused": f"The waiver of {waiver.rule} covers no finding: remove it.",
        }
        if waiver.status in words:
            said.append(words[waiver.status])
    return list(dict.fromkeys(said))
