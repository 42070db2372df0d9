"""Scorecards to render, and a reader of the pages made of them."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

from ehrready import rules
from ehrready.evaluate import evaluate
from ehrready.profile import Profile
from ehrready.scorecard import Scorecard, build

#: Elements that hold no text of their own, and pictures: their text counts with that of the element around them.
VOID = {"meta", "br", "link", "img", "input", "hr", "svg", "use", "path", "symbol", "text"}
HOSTILE = (
    "<img src=x onerror=alert(1)>\"'&",
    "</script><script>alert(1)</script>",
    "{{ 7*7 }}{% raw %}",
    "' onmouseover='alert(1)",
    "</style></title>\u2028<svg onload=alert(1)>",
)


class Page(HTMLParser):
    """Collects what the tests look at: start tags with attributes, text by element, ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def inside(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def prose(self) -> str:
        """The visible text with single spaces."""
        return " ".join("".join(text for name, text in self.texts if name not in {"script", "style"}).split())


def profile(name: str, missing: int, *, text_only: int = 100, release: str = "FY2024", patients: int = 1000) -> Profile:
    """Make a FHIR profile of patients with one condition each; ``missing`` have no birth date."""
    made = Profile(name)
    frames = made.frames

    def states(element: str, **cells: int) -> None:
        made.source_elements[element] = element.replace("patient", "Patient").replace("condition", "Condition")
        for state, n in {"*": patients, **cells}.items():
            frames["states"][element, "all", "", state] = (n, n, n, n)

    frames["ledger"]["fhir", "read", ""] = (2, 123_456, 2 * patients, 2 * patients, 0)
    frames["patients"]["all", ""] = (patients,)
    for table in ("patient", "condition", "encounter"):
        frames["volume"][table, "2025-03"] = (patients, patients)
        states(f"{table}.patient_id", present=patients)
    states("patient.birth_date", present=patients - missing, missing=missing)
    states("condition.code", coded=patients - text_only, **{"text-only": text_only})
    frames["releases"]["condition.code", "icd10cm", release] = (patients - text_only, patients - text_only)
    return made


def card(missing: int = 150, *, against: bool = True, internal: bool = False, **options: Any) -> Scorecard:
    """Judge a live profile with the shipped rules: the way that every scorecard is made."""
    live = profile("St Elsewhere", missing, release="FY2026", **options)
    training = profile("Cohort 2023", 20, text_only=20) if against else None
    packs = rules.default_packs(live.formats)
    return build(live, training, evaluate(live, training, rules.merged(packs)), packs, internal=internal)


def changed(scorecard: Scorecard, **keys: Any) -> Scorecard:
    """Return a copy of a scorecard with other top-level keys."""
    return Scorecard({**copy.deepcopy(dict(scorecard.document)), **keys})


def many(scorecard: Scorecard, count: int) -> Scorecard:
    """Return a scorecard with ``count`` findings, all of them open."""
    bad = [f for f in scorecard.document["findings"] if f["status"] == "fail"]
    return changed(scorecard, findings=[{**bad[i % len(bad)], "id": f"{i:012x}"} for i in range(count)])


def rich(**options: Any) -> Scorecard:
    """Return a scorecard with everything a page can show: months, codes, values, releases read from codes, causes, waivers, a baseline."""
    scorecard = card(**options)
    document = copy.deepcopy(dict(scorecard.document))
    opened = [f for f in document["findings"] if f["status"] == "fail"]
    opened[1]["cause"] = opened[0]["id"]
    opened[-1]["waiver"] = {"reason": "known since the move", "owner": "Dr Who", "expires": "2027-01-31"}
    passed = next(f for f in document["findings"] if f["status"] == "pass")
    document["baseline"] = {"name": "March run", "verdict": "ready", "new": [opened[0]["id"]], "worse": [{"id": opened[2]["id"]}],
                            "fixed": [passed["id"], {"message": "a thing that is no rule any more"}]}  # fmt: skip
    months = [f"{year}-{month:02d}" for year in (2023, 2025) for month in range(1, 13)]
    document["distributions"] = [
        {"kind": "volume-by-month", "table": "condition", "series": [
            *({"month": m, "live": None if m == "2025-07" else 90 * (m > "2024"), "training": 60 * (m < "2024")} for m in months),
            {"month": None, "live": 14, "training": 0}]},
        {"kind": "missing-by-month", "element": "condition.code",
         "series": [{"month": m, "live": 0.12 if m > "2024" else None, "training": 0.01 if m < "2024" else None} for m in months]},
        {"kind": "code-mix", "element": "condition.code", "system": "icd10cm", "other": {"live_share": 0.5, "training_share": 0.8},
         "rows": [{"code": "E11.A", "live_share": 0.3, "training_share": 0.0}, {"code": "I10", "live_share": 0.2, "training_share": 0.2}]},
        {"kind": "code-mix", "element": "report.code", "system": "loinc", "other": {"live_share": 0.0, "training_share": 0.0},
         "rows": [{"code": "4548-4", "live_share": 1.0, "training_share": 1.0}]},
        {"kind": "value", "element": "observation.value", "system": "loinc", "code": "2345-7", "unit": "mg/dL", "display": "Glucose",
         "buckets": [{"low": None, "high": 50, "live_share": 0.1, "training_share": 0.0},
                     {"low": 50, "high": 100, "live_share": 0.4, "training_share": 0.6},
                     {"low": 100, "high": None, "live_share": 0.5, "training_share": None}]},
        {"kind": "of-a-later-version", "anything": 1},
    ]  # fmt: skip
    release = document["releases"][0]
    release["inferred"] = {
        "releases": ["FY2025", "FY2026"],
        "probability": 0.97,
        "pattern": "tracks the calendar",
        "evidence": ["14 codes first valid in FY2026"],
    }
    release["training"]["inferred"] = {"releases": ["FY2024"], "probability": 0.995, "pattern": "frozen", "evidence": []}
    release["strata"] = [{"quarter": "2025-Q3", "releases": ["FY2025"]}, {"quarter": "2025-Q4", "releases": ["FY2026"]}]
    release["advice"] = "Map the codes new in FY2025 and FY2026 back to FY2024."
    return Scorecard(document)
