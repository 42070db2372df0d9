"""Reads a CapabilityStatement, a SMART configuration and CDS Hooks services into what can be asked of them.

Sources: FHIR CapabilityStatement (http://hl7.org/fhir/R4/capabilitystatement.html, and the same page of STU3 and R5), SMART App Launch 2.2 conformance
(.well-known/smart-configuration), CDS Hooks 2.0 discovery.  Texts of the statement are never kept: only codes of FHIR and URLs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ehrready import files
from ehrready.contract.model import fhir_release
from ehrready.errors import UsageError

_MAX_BYTES = 20_000_000
#: Where SMART App Launch 1.0 had a server put its endpoints.
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


@dataclass(frozen=True, slots=True)
class Resource:
    """What a server declares of one resource type; ``profiles`` are canonical URLs, with ``|version`` where it is told."""

    interactions: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Capability:
    """A server's CapabilityStatement: resources by type, operations of the system, security services, guides.

    ``judged``: it is of the FHIR release that was asked for; what one of another release declares is not read, and all is empty.
    """

    fhir_version: str
    kind: str
    size: int
    resources: dict[str, Resource] = field(default_factory=dict)
    operations: frozenset[str] = frozenset()
    security: frozenset[str] = frozenset()
    guides: frozenset[str] = frozenset()
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Smart:
    """A SMART configuration: capabilities, grants, ways for a client to prove who it is, scopes."""

    capabilities: frozenset[str]
    grants: frozenset[str]
    methods: frozenset[str]
    scopes: frozenset[str]
    token_endpoint: bool


def capability(path: str, wanted: str) -> Capability:
    """Read a CapabilityStatement of the FHIR version ``wanted``; raises UsageError when it is none, or not in the shape that FHIR gives it."""
    place = f"capability statement {Path(path).name}"
    return parse_capability(files.read(path, place), place, wanted)


def parse_capability(data: bytes, place: str, wanted: str) -> Capability:
    """Return what a CapabilityStatement's bytes declare; raises UsageError as :func:`capability` does."""
    document = _document(data, place)
    kind = document.get("resourceType")
    if kind not in {"CapabilityStatement", "Conformance"}:  # DSTU2 called it Conformance
        raise UsageError(f"{place}: resourceType must be CapabilityStatement")
    version = document.get("fhirVersion")
    if not isinstance(version, str):
        raise UsageError(f"{place}: fhirVersion is missing: ask the vendor for the whole statement (GET [base]/metadata)")
    if fhir_release(version) != fhir_release(wanted):
        return Capability(version, str(document.get("kind")), len(data), judged=False)
    if document.get("kind") == "requirements":
        raise UsageError(
            f"{place}: kind is requirements, what a guide asks of servers: give the server's own statement (GET [base]/metadata)"
        )
    if kind == "Conformance":
        raise UsageError(f"{place}: resourceType must be CapabilityStatement: Conformance is of DSTU2")
    found: dict[str, Resource] = {}
    operations: set[str] = set()
    security: set[str] = set()
    for rest in _objects(document.get("rest"), f"{place}: rest"):
        if rest.get("mode") not in ("server", None):  # a tuple: what is no text may have no hash
            continue
        operations |= _operations(rest, place)
        secured = rest.get("security") or {}
        if not isinstance(secured, dict):
            raise UsageError(f"{place}: rest.security must be an object")
        for service in _objects(secured.get("service"), f"{place}: rest.security.service"):
            security |= {
                c["code"] for c in _objects(service.get("coding"), f"{place}: security.service.coding") if isinstance(c.get("code"), str)
            }
        if any(
            extension.get("url") == _OAUTH_URIS for extension in _objects(secured.get("extension"), f"{place}: rest.security.extension")
        ):
            security.add("SMART-on-FHIR")
        for item in _objects(rest.get("resource"), f"{place}: rest.resource"):
            name = item.get("type")
            if isinstance(name, str):
                before = found.get(name, Resource())  # some servers list a type once more, in a second rest
                found[name] = Resource(
                    before.interactions | _texts(item.get("interaction"), "code", f"{place}: interaction"),
                    before.parameters | _texts(item.get("searchParam"), "name", f"{place}: searchParam"),
                    before.profiles
                    | _strings(item.get("supportedProfile"), f"{place}: supportedProfile")
                    | _canonical(item.get("profile")),
                    before.operations | _operations(item, place),
                )
    guides = _strings(document.get("instantiates"), f"{place}: instantiates") | _strings(
        document.get("implementationGuide"), f"{place}: implementationGuide"
    )
    if isinstance(document.get("profile"), list):  # STU3: the profiles of the whole server
        guides = guides.union(*map(_canonical, document["profile"]))
    return Capability(
        version, str(document.get("kind")), len(data), found, frozenset(operations), frozenset(security), guides,
    )  # fmt: skip


def smart(path: str) -> Smart:
    """Read a SMART configuration; raises UsageError when it is none."""
    place = f"SMART configuration {Path(path).name}"
    return parse_smart(files.read(path, place), place)


def parse_smart(data: bytes, place: str) -> Smart:
    """Return what a SMART configuration's bytes offer; raises UsageError as :func:`smart` does."""
    document = _document(data, place)
    if not {"token_endpoint", "authorization_endpoint", "capabilities"} & document.keys():
        raise UsageError(f"{place}: neither capabilities nor endpoints: give [base]/.well-known/smart-configuration")
    return Smart(
        _strings(document.get("capabilities"), f"{place}: capabilities"),
        _strings(document.get("grant_types_supported"), f"{place}: grant_types_supported"),
        _strings(document.get("token_endpoint_auth_methods_supported"), f"{place}: token_endpoint_auth_methods_supported"),
        _strings(document.get("scopes_supported"), f"{place}: scopes_supported"),
        isinstance(document.get("token_endpoint"), str),
    )


def hooks(path: str) -> frozenset[str]:
    """Read the hooks of a CDS Hooks discovery document; raises UsageError when it is none."""
    place = f"CDS services {Path(path).name}"
    document = _document(files.read(path, place), place)
    if "services" not in document:
        raise UsageError(f"{place}: no services: give the answer of [base]/cds-services")
    return _texts(document["services"], "hook", f"{place}: services")


def _document(data: bytes, place: str) -> dict[str, Any]:
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{place}: more than {_MAX_BYTES:,} bytes: this is no such document")
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{place}:{error.lineno}: not JSON: save the server's answer as it came (Accept: application/json)") from None
    if not isinstance(document, dict):
        raise UsageError(f"{place}: must be a JSON object")
    return document


def _objects(value: Any, place: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UsageError(f"{place} must be a list of objects")
    return value


def _strings(value: Any, place: str) -> frozenset[str]:
    """Return a list of texts as a set; a text by itself, as some servers write it, is a list of one."""
    if isinstance(value, str):
        return frozenset([value])
    if value is not None and (not isinstance(value, list) or not all(isinstance(item, str) for item in value)):
        raise UsageError(f"{place} must be a list of texts")
    return frozenset(value or ())


def _canonical(value: Any) -> frozenset[str]:
    """Return a canonical, which STU3 wraps in a Reference, as a set."""
    url = value.get("reference") if isinstance(value, dict) else value
    return frozenset([url]) if isinstance(url, str) else frozenset()


def _texts(value: Any, key: str, place: str) -> frozenset[str]:
    return frozenset(item[key] for item in _objects(value, place) if isinstance(item.get(key), str))


def _operations(item: dict[str, Any], place: str) -> set[str]:
    """Return the operations by name, and by what stands last in their definition: servers name them as they like."""
    found = _objects(item.get("operation"), f"{place}: operation")
    named = {op["name"].lstrip("$") for op in found if isinstance(op.get("name"), str)}
    return named | {url.partition("|")[0].rpartition("/")[2] for op in found for url in _canonical(op.get("definition"))}
