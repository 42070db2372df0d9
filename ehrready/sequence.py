"""The sequence as a gate: which stage of a project is passed, blocked, skipped or open, from the scorecards of its folder.

The order is the point: a project that builds the model before production data was profiled is the commonest that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ehrready import __version__, files
from ehrready import contract as contracts
from ehrready.contract import Contract
from ehrready.errors import UsageError
from ehrready.saved import load_scorecard
from ehrready.scorecard import KIND

#: Stage to its title and what to do to pass it.
STAGES: dict[str, tuple[str, str]] = {
    "profile": ("Production data profiled", "Run ehrready check on an export of production and save the scorecard here."),
    "contract": ("Model contract", "Draft contract.yaml with ehrready contract init, and agree on it with clinical informatics."),
    "data": ("Data ready", "Run ehrready check --contract on production data until no requirement fails."),
    "integration": ("EHR integration ready", "Run ehrready integration with the server's CapabilityStatement and the contract."),
    "validation": (
        "Validation in production in place",
        "Run ehrready monitor on the model's predictions, with labels, and save its scorecard here.",
    ),
    "model": ("Model", "Every stage before it has to be passed."),
}
#: Words of a stage's status.
STATUSES = {"passed": "Passed", "blocked": "Blocked", "skipped": "Skipped", "open": "Not begun"}
_MOST_FILES = 1000


@dataclass(frozen=True, slots=True)
class Card:
    """A scorecard of the folder: its file's name, the stage it is of, and its document."""

    name: str
    stage: str
    document: dict[str, Any]


def read(folder: str) -> tuple[list[Card], list[tuple[str, Contract]]]:
    """Return the scorecards and contracts that stand in a folder, by name; raises UsageError when one is cut or wrong."""
    root = Path(folder)
    if not root.is_dir():
        raise UsageError("status needs the project's folder, the one that holds its scorecards and contract.yaml")
    names = sorted(path.name for path in root.iterdir() if path.is_file() and path.suffix in {".json", ".yaml", ".yml"})
    if len(names) > _MOST_FILES:
        raise UsageError(f"the folder holds more than {_MOST_FILES:,} JSON and YAML files: give the project's own folder")
    cards, found = [], []
    for name in names:
        data = files.read(str(root / name), f"file {name}")
        if not name.endswith(".json"):
            if b"contract:" in data and b"features:" in data:
                found.append((name, contracts.parse(data, name)))
        elif _is_scorecard(data, name):
            document = dict(load_scorecard(str(root / name)).document)
            cards.append(Card(name, _stage(document), document))
    return cards, found


def _is_scorecard(data: bytes, name: str) -> bool:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        if KIND.encode() in data:
            raise UsageError(f"scorecard {name} is cut or was changed: write it again, or remove it") from None
        return False
    return isinstance(document, dict) and document.get("kind") == KIND


def _stage(document: dict[str, Any]) -> str:
    dimensions = {f["dimension"] for f in document["findings"]}
    return "validation" if "production" in dimensions else "integration" if dimensions == {"integration"} else "data"


def status(cards: Sequence[Card], found: Sequence[tuple[str, Contract]], name: str = "project") -> dict[str, Any]:
    """Return the stages with status, reason, evidence (file names) and next step; the worst scorecard of a stage counts."""
    contract = found[0][1] if len(found) == 1 else None
    data = [card for card in cards if card.stage == "data"]
    read = [card for card in data if card.document["subject"]["records"]["profiled"]]
    stages: list[dict[str, Any]] = [
        _row(
            "profile",
            "passed" if read else "blocked" if data else "open",
            "" if read else "No record was read." if data else "",
            [c.name for c in read or data],
        ),
        _contract(found),
    ]
    stages += [_judged(stage, [card for card in cards if card.stage == stage], contract) for stage in ("data", "integration", "validation")]
    before = True
    for row in stages:
        # work was done on a stage whose forerunners are not passed: the order was left
        if row["status"] == "passed" and not before:
            row.update(status="blocked", reason="A stage before it is not passed: what was found here may not hold.")
        before = before and row["status"] == "passed"
    begun = [i for i, row in enumerate(stages) if row["status"] != "open"]
    for i, row in enumerate(stages):
        if row["status"] == "open" and begun and i < begun[-1]:
            row.update(status="skipped", reason="A later stage was begun without it.")
    waits = [row["title"] for row in stages if row["status"] != "passed"]
    stages.append(
        _row("model", "passed" if not waits else "blocked" if begun else "open", f"Waits for: {', '.join(waits)}." if waits else "", [])
    )
    return {
        "kind": "ehrready-status",
        "schema_version": "1.0",
        "tool": {"name": "ehrready", "version": __version__},
        "name": name,
        "contract": contract.public() if contract else None,
        "ready": not waits,
        "stages": stages,
    }


def _row(stage: str, state: str, reason: str, evidence: Sequence[str]) -> dict[str, Any]:
    title, step = STAGES[stage]
    return {
        "stage": stage,
        "title": title,
        "status": state,
        "reason": reason,
        "evidence": list(evidence),
        "next": "" if state == "passed" else step,
    }


def _contract(found: Sequence[tuple[str, Contract]]) -> dict[str, Any]:
    names = [name for name, _ in found]
    if len(found) > 1:
        return _row("contract", "blocked", "There are several contracts: a project has one model, keep its contract only.", names)
    return _row("contract", "passed" if found else "open", "", names)


def _judged(stage: str, cards: Sequence[Card], contract: Contract | None) -> dict[str, Any]:
    """Judge a stage by its scorecards that name the contract; those of another contract, or of none, prove nothing for it."""
    mine = [card for card in cards if contract and (card.document.get("contract") or {}).get("sha256") == contract.sha256]
    if not cards or (not mine and stage == "data" and not any(card.document.get("contract") for card in cards)):
        return _row(stage, "open", "No scorecard was made with a contract." if cards else "", [])
    if not mine:
        return _row(stage, "blocked", "Its scorecards were made with another contract than the one here.", [card.name for card in cards])
    failing = [card for card in mine if card.document["verdict"] in {"not-ready", "cannot-tell"}]
    if failing:
        said = ", ".join(f"{card.name} is {card.document['verdict']}" for card in failing)
        return _row(stage, "blocked", f"{said}.", [card.name for card in failing])
    judged = {f["check"] for card in mine for f in card.document["findings"] if f["status"] in {"pass", "warn", "fail"}}
    if stage == "validation" and not judged & {"accuracy-drift", "grounded"}:
        why = "Neither accuracy nor grounding was judged: labels with a baseline, or records to hold citations against, are missing."
        return _row(stage, "blocked", why, [card.name for card in mine])
    if stage == "validation" and contract and "grounded" not in judged and any(output.kind == "text" for output in contract.outputs):
        why = "The contract names generated text, and no citation was held against the records."
        return _row(stage, "blocked", why, [card.name for card in mine])
    limited = [card.name for card in mine if card.document["verdict"] != "ready"]
    return _row(stage, "passed", f"With conditions: {', '.join(limited)}." if limited else "", [card.name for card in mine])


def to_markdown(document: dict[str, Any]) -> str:
    """Return the stages as a Markdown table; names of files are escaped."""
    from ehrready.reporters.markdown import escape

    lines = [f"## {escape(document['name'])}: {'ready for the model' if document['ready'] else 'not ready for the model'}", ""]
    lines += ["| | Stage | Status | Why | Evidence | Next step |", "|---|---|---|---|---|---|"]
    for i, row in enumerate(document["stages"], 1):
        cells = (row["title"], STATUSES[row["status"]], row["reason"], ", ".join(row["evidence"]), row["next"])
        lines.append(f"| {i} | {' | '.join(map(escape, cells))} |")
    return "\n".join(lines) + "\n"


def to_html(document: dict[str, Any]) -> str:
    """Return the stages as one offline page in the style of the report, without a script."""
    from ehrready.reporters import html

    return html.page("status.html", {}, d=document, statuses=STATUSES)
