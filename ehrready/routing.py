"""Findings to those who mend them: one document, one e-mail text and one webhook payload per owner.

What is sent is a part of the scorecard, which shows nothing that may not leave; no other file is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from ehrready import __version__, files
from ehrready.contract import Contract, Owner
from ehrready.errors import SourceError, UsageError

KIND = "ehrready-routing"
_STATE = "sent.json"
_ORDER = {"fail": 2, "error": 2, "warn": 1}
_KEYS = (
    "id",
    "rule",
    "title",
    "element",
    "group",
    "defect",
    "status",
    "severity",
    "message",
    "why",
    "fix",
    "numerator",
    "denominator",
    "patients",
)
#: Findings that a chat message lists; the others are counted.
_LISTED = 10
_SECONDS = 10
_TRIES = 4


def route(card: Mapping[str, Any], contract: Contract | None, least: str = "warning") -> dict[str, dict[str, Any]]:
    """Return owner → document of the open findings of at least a severity (``error`` or ``warning``), worst first.

    Waived findings and passes belong to nobody's work; an owner without a finding has no document.
    """
    wanted = {"error"} if least == "error" else {"error", "warning"}
    found: dict[str, dict[str, Any]] = {}
    for f in card["findings"]:
        if f["status"] in _ORDER and f["severity"] in wanted and not f["waiver"]:
            found.setdefault(f["owner"], {"findings": []})["findings"].append({key: f[key] for key in _KEYS})
    for owner, document in found.items():
        document["findings"].sort(key=lambda f: (-_ORDER[f["status"]], f["severity"] != "error", -(f["patients"] or 0), f["id"]))
        document |= {
            "kind": KIND,
            "schema_version": "1.0",
            "tool": {"name": "ehrready", "version": __version__},
            "owner": owner,
            "subject": card["subject"]["name"],
            "verdict": card["verdict"],
            "model": f"{contract.model} {contract.version}" if contract else None,
        }
    return dict(sorted(found.items()))


def unsent(documents: Mapping[str, dict[str, Any]], state: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Return the documents with the findings that their owners were not told of, or that have become worse since."""
    news = {}
    for owner, document in documents.items():
        told = state.get(owner, {})
        left = [f for f in document["findings"] if _ORDER[f["status"]] > _ORDER.get(told.get(f["id"], ""), 0)]
        if left:
            news[owner] = {**document, "findings": left}
    return news


def told(
    documents: Mapping[str, dict[str, Any]], state: Mapping[str, Mapping[str, str]], owners: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return the state after ``owners`` were told: what is mended is forgotten, so that it is told again when it comes back."""
    after: dict[str, dict[str, str]] = {}
    for owner, document in documents.items():
        before = state.get(owner, {})
        here = {f["id"]: f["status"] for f in document["findings"]}
        kept = here if owner in owners else {key: before[key] for key in here if key in before}
        if kept:
            after[owner] = dict(sorted(kept.items()))
    return after


def email(document: Mapping[str, Any]) -> str:
    """Return an e-mail as plain text, its subject in the first line."""
    n = len(document["findings"])
    lines = [f"Subject: {_line(document['subject'])}: {n} finding{'s' if n > 1 else ''} for {_line(document['owner'])}", ""]
    if document["model"]:
        lines += [f"For the model {document['model']}; the data's verdict is {document['verdict']}.", ""]
    for i, f in enumerate(document["findings"], 1):
        lines += [
            f"{i}. {_line(f['title'])} ({f['status']}, {f['severity']})",
            f"   {_line(f['message'])}",
            f"   Next step: {_line(f['fix'])}",
            "",
        ]
    return "\n".join(lines)


def payload(document: Mapping[str, Any], style: str) -> dict[str, Any]:
    """Return the body for a webhook of Slack (blocks), Teams (Adaptive Card) or PagerDuty (Events API v2).

    Sources: Slack Block Kit; Microsoft Teams workflows webhook, Adaptive Card 1.4; PagerDuty Events API v2.
    """
    n = len(document["findings"])
    head = f"{_line(document['subject'])}: {document['verdict']}, {n} finding{'s' if n > 1 else ''} for {_line(document['owner'])}"
    lines = [f"{_line(f['title'])}: {_line(f['message'])}" for f in document["findings"][:_LISTED]]
    if n > _LISTED:
        lines.append(f"and {n - _LISTED} more")
    if style == "pagerduty":
        worst = "critical" if any(f["severity"] == "error" for f in document["findings"]) else "warning"
        return {
            "event_action": "trigger",
            "dedup_key": fingerprint(document),
            "payload": {"summary": head[:1024], "source": "ehrready", "severity": worst, "custom_details": {"findings": lines}},
        }
    if style == "teams":
        texts = [{"type": "TextBlock", "text": _plain(text), "wrap": True} for text in (head, *lines)]
        content = {"type": "AdaptiveCard", "version": "1.4", "body": texts}
        return {"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": content}]}
    blocks = [{"type": "section", "text": {"type": "plain_text", "text": text[:3000]}} for text in (head, *lines)]
    return {"text": head, "blocks": blocks}


def fingerprint(document: Mapping[str, Any]) -> str:
    """Return what a receiver can tell a repeated message by: owner, findings and their status."""
    parts = [document["owner"], document["subject"], *(f"{f['id']}={f['status']}" for f in document["findings"])]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def send(document: Mapping[str, Any], owner: Owner, address: str) -> None:
    """Post a payload, with retries; raises SourceError when it was not accepted, UsageError for an address that is none.

    The address never stands in a message.  Plain HTTP is taken for this machine alone.
    """
    import urllib3

    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}):
        raise UsageError(f"the variable {owner.webhook} must hold an https address")
    again = urllib3.Retry(
        total=_TRIES,
        backoff_factor=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        redirect=0,
        raise_on_status=False,
    )
    body = orjson.dumps(payload(document, owner.style), option=orjson.OPT_SORT_KEYS)
    headers = {"Content-Type": "application/json", "Idempotency-Key": fingerprint(document)}
    try:
        with urllib3.PoolManager(retries=again, timeout=_SECONDS) as pool:
            answer = pool.request("POST", address, body=body, headers=headers)
    except urllib3.exceptions.HTTPError:
        raise SourceError(f"the webhook of {owner.name} could not be reached: nothing was marked as sent, run it again") from None
    if not 200 <= answer.status < 300:
        raise SourceError(f"the webhook of {owner.name} answered {answer.status}: nothing was marked as sent; check {owner.webhook}")


def load_state(folder: str) -> dict[str, dict[str, str]]:
    """Return owner → finding → status that was sent; raises UsageError when the file is no such state."""
    path = Path(folder) / _STATE
    if not path.exists():
        return {}
    try:
        document = orjson.loads(files.read(str(path), f"state {_STATE}"))
        if document["kind"] != f"{KIND}-state":
            raise ValueError
        return {str(owner): {str(k): str(v) for k, v in sent.items()} for owner, sent in document["sent"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{_STATE} is cut or was changed: remove it, and every open finding is sent once more") from None


def save_state(folder: str, state: Mapping[str, Mapping[str, str]]) -> None:
    """Write the state; the same state gives the same bytes."""
    document = {"kind": f"{KIND}-state", "schema_version": "1.0", "sent": state}
    files.write(str(Path(folder) / _STATE), orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def file_name(owner: str) -> str:
    """Return an owner's name as it may be a file's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", owner)[:60].strip("-") or "owner"


def _line(text: str) -> str:
    """Return a text on one line: no owner, name or title starts a line, or a header, of its own."""
    return " ".join(str(text).split())


def _plain(text: str) -> str:
    """Escape what Adaptive Cards take for Markdown."""
    return re.sub(r"([\\`*_\[\]()#>])", r"\\\1", text)
