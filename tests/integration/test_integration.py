"""The EHR against the contract: shapes of several vendors, hostile statements, open questions."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ehrready import document_checks
from ehrready.cli import app
from ehrready.errors import SourceError, UsageError
from ehrready.integration import capability as documents
from ehrready.integration import needs, server

TEXT = """contract: "1.0"
model: {name: renal, version: 1.2.0}
features:
  - {name: creatinine, table: observation}
  - {name: diuretics, table: medication}
outputs:
  - {name: risk, kind: score, range: [0, 1], write_back: {resource: RiskAssessment, interactions: [create], hooks: [patient-view]}}
deployment:
  fhir_version: 4.0.1
  bulk_export: true
  smart: backend
  scopes: [system/Observation.rs]
  profiles: ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]
"""


def _resource(name: str, parameters: list[str], interactions: tuple[str, ...] = ("read", "search-type"), **more: Any) -> dict[str, Any]:
    return {
        "type": name,
        "interaction": [{"code": c} for c in interactions],
        "searchParam": [{"name": p, "type": "token"} for p in parameters],
        **more,
    }


def _statement(**changes: Any) -> dict[str, Any]:
    """A statement that offers all that the contract needs."""
    rest = {
        "mode": "server",
        "security": {"service": [{"coding": [{"code": "SMART-on-FHIR"}]}]},
        "operation": [{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}],
        "resource": [
            _resource("Patient", ["_id", "name"]),
            _resource(
                "Observation", ["patient", "code", "date", "category"],
                supportedProfile=["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab|6.1.0"],
            ),
            _resource("MedicationRequest", ["patient", "status"]),
            _resource("RiskAssessment", ["patient"], ("read", "create")),
        ],
    }  # fmt: skip
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "kind": "instance",
        "status": "active",
        "rest": [rest],
        **changes,
    }


SMART = {
    "token_endpoint": "https://ehr.example/token", "capabilities": ["client-confidential-asymmetric"], "grant_types_supported": ["client_credentials"],
    "token_endpoint_auth_methods_supported": ["private_key_jwt"], "scopes_supported": ["system/*.read"],
}  # fmt: skip
HOOKS = {"services": [{"hook": "patient-view", "id": "x", "description": "d"}]}


def _run(tmp_path: Path, statement: Any, smart: Any = SMART, hooks: Any = HOOKS, text: str = TEXT) -> tuple[dict[str, Any], int]:
    (tmp_path / "contract.yaml").write_text(text)
    (tmp_path / "metadata.json").write_text(statement if isinstance(statement, str) else json.dumps(statement))
    out = tmp_path / "card.json"
    arguments = [
        "integration",
        "--capability",
        str(tmp_path / "metadata.json"),
        "--contract",
        str(tmp_path / "contract.yaml"),
        "--json",
        str(out),
    ]
    for name, document in (("--smart", smart), ("--cds-services", hooks)):
        if document is not None:
            path = tmp_path / f"{name[2:]}.json"
            path.write_text(json.dumps(document))
            arguments += [name, str(path)]
    arguments += ["--html", str(tmp_path / "card.html"), "--markdown", str(tmp_path / "card.md"), "--junit", str(tmp_path / "card.xml")]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, UsageError):
        raise done.exception
    return json.loads(out.read_text()), done.exit_code


def _statuses(document: dict[str, Any]) -> dict[str, str]:
    return {f["rule"].removeprefix("integration-"): f["status"] for f in document["findings"] if f["severity"] != "info"}


def test_an_ehr_that_offers_everything_is_ready_and_the_questions_stay_open(tmp_path: Path) -> None:
    document, code = _run(tmp_path, _statement())
    assert set(_statuses(document).values()) == {"pass"}
    assert (document["verdict"], code, document["coverage"]) == ("ready", 0, 1.0)
    questions = [f for f in document["findings"] if f["rule"].startswith("integration-ask-")]
    assert len(questions) == len(needs.QUESTIONS)
    assert all(f["status"] == "not-assessed" and f["reason"].startswith("ask the vendor") for f in questions)
    assert document_checks.first_problem(document, "scorecard") == ""
    assert [d["name"] for d in document["dimensions"]][-1] == "integration"
    assert "renal 1.2.0" in document["verdict_reasons"][0]
    page = (tmp_path / "card.html").read_text()
    assert "does this EHR offer what the model needs?" in page
    assert "judged on its own" not in page


def _without(kind: str) -> dict[str, Any]:
    statement = _statement()
    (rest,) = statement["rest"]
    by_name = {r["type"]: r for r in rest["resource"]}
    if kind == "read-observation":
        by_name["Observation"]["searchParam"] = [{"name": "patient"}]
    elif kind == "read-medication":
        rest["resource"] = [r for r in rest["resource"] if r["type"] != "MedicationRequest"]
    elif kind == "bulk-export":
        rest["operation"] = []
    elif kind == "write-risk":
        by_name["RiskAssessment"]["interaction"] = [{"code": "read"}]
    elif kind == "profiles":
        by_name["Observation"]["supportedProfile"] = []
    return statement


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("read-observation", (2, 4)),
        ("read-medication", (2, 2)),
        ("bulk-export", (1, 1)),
        ("write-risk", (1, 1)),
        ("profiles", (1, 1)),
    ],
)
def test_each_capability_that_is_not_declared_is_found_alone(tmp_path: Path, kind: str, counts: tuple[int, int]) -> None:
    document, code = _run(tmp_path, _without(kind))
    statuses = _statuses(document)
    assert {rule for rule, status in statuses.items() if status != "pass"} == {kind}
    (finding,) = [f for f in document["findings"] if f["rule"] == f"integration-{kind}"]
    assert (finding["numerator"], finding["denominator"]) == counts
    assert code == (0 if kind == "profiles" else 1)
    assert document["verdict"] == ("ready-with-conditions" if kind == "profiles" else "not-ready")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (_statement(fhirVersion="3.0.2"), "3.0.2 (STU3)"), (_statement(fhirVersion="5.0.0"), "5.0.0 (R5)"), (_statement(fhirVersion="4.3.0"), "4.3.0 (R4B)"),
        ({"resourceType": "Conformance", "fhirVersion": "1.0.2", "rest": {}}, "1.0.2 (DSTU2)"),
        (_statement(fhirVersion="Canary 4.0"), "no version of FHIR"),
    ],
)  # fmt: skip
def test_a_statement_of_another_fhir_release_cannot_be_judged(tmp_path: Path, statement: dict[str, Any], told: str) -> None:
    document, code = _run(tmp_path, statement)
    assert (document["verdict"], code) == ("cannot-tell", 3)
    (finding,) = [f for f in document["findings"] if f["rule"] == "integration-fhir-version"]
    assert (finding["status"], finding["owner"]) == ("error", "engineering")
    said = f"fhirVersion of the capability statement (file-0001) is {told}, the contract needs 4.0.1 (R4)"
    assert said in finding["message"]
    assert said in document["verdict_reasons"][1]
    # what it declares is not read by the rules of another release, and is no pass
    statuses = _statuses(document)
    assert {rule for rule, status in statuses.items() if status == "pass"} == {"smart", "scopes", "hooks-risk"}
    assert "Canary" not in json.dumps(document)
    assert document_checks.first_problem(document, "scorecard") == ""
    assert "Could not be judged" in (tmp_path / "card.html").read_text()


def test_the_release_that_the_contract_names_is_the_one_that_is_read(tmp_path: Path) -> None:
    statement = _statement(fhirVersion="3.0.2")
    observation = statement["rest"][0]["resource"][1]
    observation["profile"] = {"reference": observation.pop("supportedProfile")[0]}  # as STU3 writes it
    document, code = _run(tmp_path, statement, text=TEXT.replace("4.0.1", "3.0.2"))
    assert (set(_statuses(document).values()), code) == ({"pass"}, 0)
    statement["profile"] = [observation.pop("profile")]
    assert _statuses(_run(tmp_path, statement, text=TEXT.replace("4.0.1", "3.0.2"))[0])["profiles"] == "pass"


def test_a_contract_of_no_fhir_release_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"contract.yaml:9: fhir_version is '1.0.2', and must be a version of 3.0.x \(STU3\), 4.0.x \(R4\)"
    ):
        _run(tmp_path, _statement(), text=TEXT.replace("4.0.1", "1.0.2"))


def test_shapes_of_published_statements_are_understood(tmp_path: Path) -> None:
    statement = _statement(
        fhirVersion="4.0.0", kind="capability", instantiates=["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]
    )
    (rest,) = statement["rest"]
    rest["security"] = {  # the endpoints as an extension, another service named
        "extension": [{"url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris", "extension": [{"url": "token", "valueUri": "https://x"}]}],
        "service": [{"coding": [{"code": "OAuth"}]}, {"text": "OAuth2"}],
    }  # fmt: skip
    rest["operation"] = []
    patient, observation, medication, risk = rest["resource"]
    patient["searchParam"] = [{"name": "family"}]  # read serves for _id
    observation["searchParam"][0]["name"] = "subject"
    observation["supportedProfile"] = observation["supportedProfile"][0]  # a text by itself
    observation["interaction"] = [{"code": "read"}]
    statement["rest"].append(
        {"mode": "server", "resource": [_resource("Observation", [], ("search-type",))]}
    )  # once more, in a second rest
    statement["rest"].append({"mode": "client", "resource": [_resource("RiskAssessment", [], ("delete",))]})
    medication["profile"], risk["interaction"] = {"reference": "x"}, [{"code": "create", "documentation": "d"}, {}]
    assert set(_statuses(_run(tmp_path, statement)[0]).values()) == {"pass"}
    document, _ = _run(tmp_path, statement, None)
    (finding,) = [f for f in document["findings"] if f["rule"] == "integration-smart"]
    assert finding["reason"].endswith("the statement names SMART-on-FHIR")
    # what only another party is asked for is not what the server offers
    risk["interaction"] = [{"code": "read"}]
    statement["rest"][2]["resource"] = [_resource("RiskAssessment", [], ("create",))]
    assert _statuses(_run(tmp_path, statement)[0])["write-risk"] == "fail"


@pytest.mark.parametrize(
    "operation",
    [
        {"name": "export", "definition": "https://ehr.example/OperationDefinition/GroupExport"},
        {"name": "$export"},
        {"name": "bulk", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export|1.0.1"},
        {"name": "group-export", "definition": {"reference": "OperationDefinition/g"}},
    ],
)
def test_bulk_export_is_known_by_name_or_definition(tmp_path: Path, operation: dict[str, Any]) -> None:
    statement = _without("bulk-export")
    assert _statuses(_run(tmp_path, statement)[0])["bulk-export"] == "fail"
    statement["rest"][0]["resource"].append({"type": "Group", "operation": [operation]})
    assert _statuses(_run(tmp_path, statement)[0])["bulk-export"] == "pass"


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        ("|6.1.0", "pass", ""),
        ("|3.1.1", "fail", "us-core-observation-lab|3.1.1 (in another version)"),
        ("", "pass", ""),
        ("-x|1", "fail", "lab-x|1"),
    ],
)
def test_a_profile_is_held_against_the_version_that_the_contract_names(tmp_path: Path, wanted: str, status: str, said: str) -> None:
    text = TEXT.replace("us-core-observation-lab", f"us-core-observation-lab{wanted}")
    document, _ = _run(tmp_path, _statement(), text=text)
    (finding,) = [f for f in document["findings"] if f["rule"] == "integration-profiles"]
    assert finding["status"] == status
    assert said in finding["message"]
    unversioned = _statement()
    unversioned["rest"][0]["resource"][1]["supportedProfile"] = ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]
    assert _statuses(_run(tmp_path, unversioned, text=text)[0])["profiles"] == ("fail" if wanted else "pass")


def test_another_resource_may_hold_the_medication(tmp_path: Path) -> None:
    statement = _without("read-medication")
    statement["rest"][0]["resource"].append(_resource("MedicationAdministration", ["patient"]))
    assert _statuses(_run(tmp_path, statement)[0])["read-medication"] == "pass"


@pytest.mark.parametrize(
    ("smart", "rule"),
    [
        ({**SMART, "grant_types_supported": ["authorization_code"], "capabilities": ["launch-ehr"]}, "smart"),
        ({**SMART, "scopes_supported": ["patient/*.read"]}, "scopes"),
    ],
)
def test_what_sign_in_does_not_offer_is_found(tmp_path: Path, smart: dict[str, Any], rule: str) -> None:
    assert _statuses(_run(tmp_path, _statement(), smart)[0])[rule] == "fail"


@pytest.mark.parametrize(
    ("offered", "granted"),
    [
        ("system/Observation.rs", True),
        ("system/*.read", True),
        ("system/*.*", True),
        ("system/Patient.rs", False),
        ("user/*.rs", False),
        ("system/Observation.cud", False),
    ],
)
def test_scopes_are_granted_by_wildcards_of_both_versions(offered: str, granted: bool) -> None:
    assert needs._granted("system/Observation.rs", frozenset([offered])) is granted


def test_what_nobody_gave_cannot_be_told_and_is_no_pass(tmp_path: Path) -> None:
    document, code = _run(tmp_path, _statement(), None, None)
    statuses = _statuses(document)
    assert (statuses["smart"], statuses["hooks-risk"]) == ("not-assessed", "not-assessed")
    assert (document["verdict"], code) == ("cannot-tell", 3)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("{", "not JSON"), ("[]", "must be a JSON object"), ({"resourceType": "Patient"}, "must be CapabilityStatement"),
        ({"resourceType": "Conformance"}, "fhirVersion is missing"), ({"resourceType": "Conformance", "fhirVersion": "4.0.1"}, "Conformance is of DSTU2"), ({"resourceType": "CapabilityStatement"}, "fhirVersion is missing"),
        (_statement(rest={}), "rest must be a list"), (_statement(rest=[{"mode": "server", "resource": ["Patient"]}]), "rest.resource must be a list"),
        (_statement(rest=[{"security": []}, {"security": ["x"]}]), "rest.security must be an object"), (_statement(instantiates={}), "instantiates must be a list"),
        (_statement(kind="requirements"), "kind is requirements"),
    ],
)  # fmt: skip
def test_what_is_no_statement_is_refused_in_a_sentence(tmp_path: Path, statement: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _run(tmp_path, statement)


def test_texts_of_the_statement_stand_in_no_output(tmp_path: Path) -> None:
    hostile = "<script>Canary</script>"
    statement = _statement(software={"name": hostile}, publisher=hostile, description=hostile, url=hostile)
    statement["rest"][0]["documentation"] = hostile
    statement["rest"][0]["resource"].append(_resource(hostile, [hostile], (hostile,)))
    _run(tmp_path, statement)
    for path in tmp_path.glob("card.*"):
        assert "Canary" not in path.read_text(), path.name


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["rest", "resource", "security", "service", "type", "interaction", "operation", "name", "code"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@example([{"mode": ["server"], "resource": []}])
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rest: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "metadata.json"
    path.write_text(json.dumps(_statement(rest=rest)))
    try:
        found = documents.capability(str(path), "4.0.1")
    except UsageError as refused:
        assert "metadata.json" in str(refused)  # noqa: PT017 - either answer is right
    else:
        assert found.fhir_version == "4.0.1"


class _Fhir(BaseHTTPRequestHandler):
    """A web server that serves what a FHIR server declares, and notes what it was asked (one that runs: test_real_server.py)."""

    pages: ClassVar[dict[str, tuple[int, bytes]]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []
    at_once, wait = 1 << 20, 0.0

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        status, body = self.pages.get(self.path, (404, b"{}"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        if status == 503:
            self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked may have gone
            for place in range(0, len(body), self.at_once):
                time.sleep(self.wait)
                self.wfile.write(body[place : place + self.at_once])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def base() -> Iterator[str]:
    _Fhir.pages, _Fhir.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fhir) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}/fhir"
        found.shutdown()


def _fetch(tmp_path: Path, base: str, option: str = "--base") -> dict[str, str]:
    (tmp_path / "contract.yaml").write_text(TEXT.replace(", hooks: [patient-view]", ""))
    out = tmp_path / "card.json"
    done = CliRunner().invoke(app, ["integration", option, base, "--contract", str(tmp_path / "contract.yaml"), "--json", str(out)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return _statuses(json.loads(out.read_text()))


def test_a_server_is_asked_for_what_it_declares_and_nothing_else(tmp_path: Path, base: str) -> None:
    _Fhir.pages = {
        "/fhir/metadata": (200, json.dumps(_statement()).encode()),
        "/fhir/.well-known/smart-configuration": (200, json.dumps(SMART).encode()),
    }
    assert set(_fetch(tmp_path, base + "/").values()) == {"pass"}
    assert _Fhir.asked == [("/fhir/metadata", None), ("/fhir/.well-known/smart-configuration", None)]


def test_an_address_as_the_capability_is_the_base(tmp_path: Path, base: str) -> None:
    _Fhir.pages = {"/fhir/metadata": (200, json.dumps(_statement()).encode())}
    assert _fetch(tmp_path, base, "--capability")["read-observation"] == "pass"
    assert [path for path, _ in _Fhir.asked] == ["/fhir/metadata", "/fhir/.well-known/smart-configuration"]


def test_a_server_without_smart_configuration_leaves_it_open(tmp_path: Path, base: str) -> None:
    _Fhir.pages = {"/fhir/metadata": (200, json.dumps(_statement()).encode())}
    assert _fetch(tmp_path, base)["smart"] == "not-assessed"


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path: Path, base: str) -> None:
    _Fhir.pages = {"/fhir/metadata": (503, b"")}
    begun = time.monotonic()
    with pytest.raises(SourceError, match="answered 503"):
        _fetch(tmp_path, base)
    assert (len(_Fhir.asked), time.monotonic() - begun < 30) == (3, True)


def test_an_answer_that_comes_byte_by_byte_is_given_up(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _Fhir.pages = {"/fhir/metadata": (200, json.dumps(_statement()).encode())}
    monkeypatch.setattr(_Fhir, "at_once", 1)
    monkeypatch.setattr(_Fhir, "wait", 0.05)
    monkeypatch.setattr(server, "_SECONDS_IN_ALL", 1)
    with pytest.raises(SourceError, match="took more than 1 seconds for metadata"):
        _fetch(tmp_path, base)


@pytest.mark.parametrize(("status", "error"), [(500, SourceError), (404, SourceError), (302, SourceError), (200, UsageError)])
def test_a_server_that_answers_something_else_is_told_in_a_sentence(tmp_path: Path, base: str, status: int, error: type[Exception]) -> None:
    _Fhir.pages = {"/fhir/metadata": (status, b"<html>"), "/elsewhere": (200, json.dumps(_statement()).encode())}
    with pytest.raises(error, match=str(status) if status != 200 else "not JSON"):
        _fetch(tmp_path, base)


@pytest.mark.parametrize(
    "address",
    [
        "http://ehr.example/fhir",
        "file:///etc/passwd",
        "https://me:secret@ehr.example/fhir",
        "ehr.example",
        "https://[ehr.example/fhir",
        "https://ehr.example/fhir#r4",
    ],
)
def test_an_address_that_is_not_https_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="--base must be an https address") as raised:
        _fetch(tmp_path, address)
    assert "secret" not in str(raised.value)
