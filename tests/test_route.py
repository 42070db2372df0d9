"""``ehrready route``: findings to their owners, once, over a real local server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ehrready import contract, routing
from ehrready.cli import app
from ehrready.errors import SourceError, UsageError
from tests.helpers.cards import rescored

GOLDEN = Path(__file__).parent / "golden" / "scorecard-fhir.json"
TEXT = (
    'contract: "1.0"\nmodel: {name: renal, version: 1.2.0}\nfeatures:\n  - {name: creatinine, table: observation}\n'
    "owners:\n  - {name: engineering, webhook: ENG_HOOK}\n  - {name: clinical-informatics, webhook: CLIN_HOOK, style: teams}\n"
)


class Server(ThreadingHTTPServer):
    """Takes posts; answers with the statuses it was given, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[int] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Notes path, headers and body of each post."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, dict(self.headers), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("ENG_HOOK", f"{found.address}/secret-eng")
        monkeypatch.setenv("CLIN_HOOK", f"{found.address}/secret-clin")
        yield found
        found.shutdown()


def _run(tmp_path: Path, *more: str, card: Path = GOLDEN) -> Result:
    (tmp_path / "contract.yaml").write_text(TEXT)
    return CliRunner().invoke(
        app, ["route", str(card), "--out", str(tmp_path / "out"), "--contract", str(tmp_path / "contract.yaml"), *more]
    )


def _open(document: dict[str, Any], owner: str) -> list[str]:
    return [
        f["id"] for f in document["findings"]
        if f["owner"] == owner and f["status"] in {"fail", "warn", "error"} and f["severity"] != "info" and not f["waiver"]
    ]  # fmt: skip


def test_each_owner_has_a_document_and_a_text_with_their_findings_alone(tmp_path: Path) -> None:
    assert _run(tmp_path).exit_code == 0
    card = json.loads(GOLDEN.read_text())
    owners = sorted({f["owner"] for f in card["findings"] if _open(card, f["owner"])})
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.json")) == owners
    for owner in owners:
        document = json.loads((tmp_path / "out" / f"{owner}.json").read_text())
        assert sorted(f["id"] for f in document["findings"]) == sorted(_open(card, owner))
        text = (tmp_path / "out" / f"{owner}.txt").read_text()
        assert text.startswith("Subject: ")
        assert text.count("Next step: ") == len(document["findings"])
    assert not (tmp_path / "out" / "sent.json").exists()


def test_what_was_sent_is_not_sent_twice(tmp_path: Path, server: Server) -> None:
    assert _run(tmp_path, "--send").exit_code == 0
    assert sorted(path for path, _, _ in server.posts) == ["/secret-clin", "/secret-eng"]
    by_path = {path: body for path, _, body in server.posts}
    assert by_path["/secret-eng"]["blocks"][0]["text"]["type"] == "plain_text"
    assert by_path["/secret-clin"]["attachments"][0]["content"]["type"] == "AdaptiveCard"
    first = (tmp_path / "out" / "sent.json").read_bytes()
    assert _run(tmp_path, "--send").exit_code == 0
    assert len(server.posts) == 2
    assert (tmp_path / "out" / "sent.json").read_bytes() == first


def test_a_finding_that_went_away_and_came_back_is_sent_again(tmp_path: Path, server: Server) -> None:
    document = json.loads(GOLDEN.read_text())
    gone = next(f for f in document["findings"] if f["id"] == _open(document, "engineering")[0])
    gone["status"] = "pass"
    rescored(document)
    (tmp_path / "fixed.json").write_text(json.dumps(document))
    assert _run(tmp_path, "--send").exit_code == 0
    assert _run(tmp_path, "--send", card=tmp_path / "fixed.json").exit_code == 0
    assert len(server.posts) == 2
    assert _run(tmp_path, "--send").exit_code == 0
    path, _, body = server.posts[-1]
    assert (path, len(server.posts)) == ("/secret-eng", 3)
    assert "1 finding for engineering" in body["text"]


def test_a_server_that_is_busy_is_asked_again_with_the_same_key(tmp_path: Path, server: Server) -> None:
    server.answers = [503, 429]
    assert _run(tmp_path, "--send").exit_code == 0
    assert len(server.posts) == 4
    keys = [headers["Idempotency-Key"] for path, headers, _ in server.posts if path == server.posts[0][0]]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_what_is_not_accepted_is_not_marked_as_sent_and_the_address_stays_secret(tmp_path: Path, server: Server) -> None:
    server.answers = [400]
    failed = _run(tmp_path, "--send")
    assert isinstance(failed.exception, SourceError)
    assert "answered 400" in str(failed.exception)
    assert "secret" not in str(failed.exception) + failed.output
    assert len(server.posts) == 2, "the other owner is told all the same"
    assert _run(tmp_path, "--send").exit_code == 0
    assert [path for path, _, _ in server.posts].count(server.posts[0][0]) == 2
    assert len(server.posts) == 3


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENG_HOOK", "CLIN_HOOK"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/secret")
    failed = _run(tmp_path, "--send")
    assert isinstance(failed.exception, SourceError)
    assert "could not be reached" in str(failed.exception)
    assert "secret" not in str(failed.exception)


@pytest.mark.parametrize("address", ["http://example.org/secret", "ftp://127.0.0.1/secret", "secret"])
def test_an_address_that_is_not_https_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in ("ENG_HOOK", "CLIN_HOOK"):
        monkeypatch.setenv(name, address)
    failed = _run(tmp_path, "--send")
    assert isinstance(failed.exception, UsageError)
    assert "secret" not in str(failed.exception)


def test_a_missing_variable_an_internal_card_or_a_broken_state_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(GOLDEN.read_text()) | {"internal": True}
    (tmp_path / "internal.json").write_text(json.dumps(document))
    assert isinstance(_run(tmp_path, "--send", card=tmp_path / "internal.json").exception, UsageError)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sent.json").write_text("{")
    assert isinstance(_run(tmp_path, "--send").exception, UsageError)
    monkeypatch.delenv("ENG_HOOK")
    refused = _run(tmp_path, "--send")
    assert "ENG_HOOK" in str(refused.exception)
    assert server.posts == []


@pytest.mark.parametrize("style", ["slack", "teams", "pagerduty"])
def test_hostile_texts_stay_one_line_of_text(style: str) -> None:
    card = json.loads(GOLDEN.read_text())
    for f in card["findings"]:
        f["title"] = "a\nBcc: evil@example.org <b>[x](http://evil)"
    documents = routing.route(card, contract.parse(TEXT.encode()))
    for document in documents.values():
        assert not any(line.startswith("Bcc") for line in routing.email(document).splitlines())
        sent = json.dumps(routing.payload(document, style))
        assert "\\n" not in sent
        assert style != "teams" or "](http" not in sent
        assert json.dumps(routing.payload(document, style)) == sent
