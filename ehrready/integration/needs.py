"""What the contract needs of the EHR, as findings with owner, why and fix: the checklist of an integration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ehrready.checks import Outcome
from ehrready.contract import Contract, Output
from ehrready.contract.model import FHIR_RELEASES, fhir_release
from ehrready.evaluate import Finding
from ehrready.integration.capability import Capability, Resource, Smart
from ehrready.rules import Pack, Rule

CHECK = "capability"
#: What a server instantiates that declares the Bulk Data Access guide as a whole.
_BULK_SERVER = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"
#: Canonical table to the FHIR resource types that may hold it: one of them is enough.
RESOURCES: dict[str, tuple[str, ...]] = {
    "patient": ("Patient",),
    "encounter": ("Encounter",),
    "condition": ("Condition",),
    "observation": ("Observation",),
    "medication": ("MedicationRequest", "MedicationAdministration", "MedicationDispense", "MedicationStatement"),
    "procedure": ("Procedure",),
    "immunization": ("Immunization",),
    "allergy": ("AllergyIntolerance",),
    "report": ("DiagnosticReport",),
    "document": ("DocumentReference",),
}
#: Search parameters by which the facts of a patient in a window are found: no more than what US Core's server SHALL offer (of conditions
#: and immunizations a patient has few, and servers that are certified search them by patient alone).
_BY: dict[str, tuple[str, ...]] = {
    "Patient": ("_id",), "Encounter": ("patient", "date"), "Condition": ("patient",), "Observation": ("patient", "code", "date"),
    "MedicationRequest": ("patient",), "MedicationAdministration": ("patient",), "MedicationDispense": ("patient",),
    "MedicationStatement": ("patient",), "Procedure": ("patient", "date"), "Immunization": ("patient",), "AllergyIntolerance": ("patient",),
    "DiagnosticReport": ("patient", "code", "date"), "DocumentReference": ("patient", "type", "date"),
}  # fmt: skip
#: What no statement tells; each is an open question, with its owner.
QUESTIONS: tuple[tuple[str, str, str], ...] = (
    ("rate", "engineering", "how many requests a minute are allowed, and what happens above that"),
    ("page-size", "engineering", "how many resources a page may have (_count)"),
    ("latency", "engineering", "how long after charting a fact can be read through the API"),
    ("history", "clinical-informatics", "how many years back the API reaches, and what was migrated from earlier systems"),
    ("sandbox", "engineering", "whether sandbox and production run the same version and configuration"),
    ("changes", "engineering", "how changes of versions, codes and build are announced, and how long before"),
    ("writing", "clinical-informatics", "where what the model writes shows in the chart, and who has to approve it"),
    ("licence", "engineering", "what the API, the app registration and the traffic cost"),
)


def findings(contract: Contract, server: Capability, smart: Smart | None, hooks: frozenset[str] | None) -> tuple[Pack, list[Finding]]:
    """Return the checklist; what the documents cannot tell is ``not-assessed`` and, where it is optional to give them, says how.

    A statement of another FHIR release than the contract's is an ``error`` (the verdict: cannot tell), and nothing else is judged by it.
    """
    found = [
        _version(contract, server),
        *_reading(contract, server),
        *_bulk(contract, server),
        *_writing(contract.outputs, server),
        *_profiles(contract, server),
    ]
    if not server.judged:
        unread = "the capability statement is of another FHIR release than the contract's"
        found[1:] = [replace(f, outcome=Outcome("undeclared"), status="not-assessed", reason=unread) for f in found[1:]]
    found += [
        *_hooks(contract.outputs, hooks),
        *_smart(contract, server, smart),
        *(_question(*question) for question in QUESTIONS),
    ]
    name = f"integration {contract.model}"
    return Pack(name, contract.version, contract.sha256, f"EHR integration of {contract.model}", (), tuple(f.rule for f in found)), found


def _finding(
    name: str, title: str, why: str, fix: str, needed: Sequence[str], lacking: Sequence[str], *, owner: str = "engineering", reason: str = "",
    severity: str = "error", status: str = "not-assessed",
) -> Finding:  # fmt: skip
    rule = Rule(f"integration-{name}", CHECK, ("",), severity, owner, why, fix, title, min_n=1, pack="integration")
    if reason:
        return Finding(rule, "integration", "", "", Outcome("undeclared"), status, reason)
    outcome = Outcome("undeclared", len(lacking), len(needed), people=False, detail="; ".join(lacking), partition=rule.id)
    return Finding(rule, "integration", "", "", outcome, "fail" if lacking else "pass")


def _version(contract: Contract, server: Capability) -> Finding:
    wanted = contract.deployment.fhir_version
    reason = "" if server.judged else (
        f"fhirVersion of the capability statement (file-0001) is {_told(server.fhir_version)}, the contract needs {_told(wanted)}; "
        "nothing that it declares was judged"
    )  # fmt: skip
    return _finding(
        "fhir-version", "The server speaks the FHIR release that the model was built on",
        "Elements move between releases of FHIR: a mapping of one reads another wrongly, or not at all.",
        "Give the statement of the endpoint that has the contract's release; or build and test the mapping of the other release, and write it into the contract.",
        [f"FHIR {wanted}"], (), reason=reason, status="error",
    )  # fmt: skip


def _told(version: str) -> str:
    """Return a version by number and name; a text that is none is not repeated."""
    number = re.match(r"\d{1,2}(\.\d{1,2}){1,2}(?![\w.])", version)
    if not number:
        return "no version of FHIR"
    name = {"1.0": "DSTU2", **FHIR_RELEASES}.get(fhir_release(number[0]))
    return number[0] + (f" ({name})" if name else "")


def _reading(contract: Contract, server: Capability) -> Iterator[Finding]:
    tables: dict[str, list[str]] = {"patient": []}
    for feature in contract.features:
        tables.setdefault(feature.table, []).append(feature.name)
    for table, names in sorted(tables.items()):
        least = min((_lacking(name, server.resources.get(name)) for name in RESOURCES[table]), key=lambda found: len(found[1]))
        wanted = (
            f"{len(names)} feature{'s' if len(names) != 1 else ''} of the model {'need' if len(names) != 1 else 'needs'} it"
            if names
            else "every feature needs it"
        )
        yield _finding(
            f"read-{table}", f"The records of {table} can be read: {wanted}",
            "A feature that cannot be asked for by patient and time has to be fetched whole, or is not there when the model runs.",
            "Ask the vendor to enable the interaction and the search parameters for the app, or plan Bulk Data for this resource.",
            *least,
        )  # fmt: skip


def _lacking(name: str, resource: Resource | None) -> tuple[list[str], list[str]]:
    needed = [f"{name} search-type", *(f"{name} search by {parameter}" for parameter in _BY[name])]
    if resource is None:
        return needed, needed
    lacking = [] if "search-type" in resource.interactions else needed[:1]
    absent = [p for p in _BY[name] if p not in resource.parameters and not _otherwise(p, resource)]
    return needed, [*lacking, *(f"{name} search by {p}" for p in absent)]


def _otherwise(parameter: str, resource: Resource) -> bool:
    """Can the same be asked for in another way?"""
    return (parameter == "_id" and "read" in resource.interactions) or (parameter == "patient" and "subject" in resource.parameters)


def _bulk(contract: Contract, server: Capability) -> Iterator[Finding]:
    if not contract.deployment.bulk_export:
        return
    everywhere = [server.operations, *(server.resources[name].operations for name in ("Patient", "Group") if name in server.resources)]
    there = any({"export", "patient-export", "group-export"} & set(names) for names in everywhere)
    there = there or any(_url(guide) == _BULK_SERVER for guide in server.guides)
    yield _finding(
        "bulk-export", "Bulk Data export is offered",
        "Back-filling years of history through single searches takes weeks and hits rate limits.",
        "Ask for $export on Group or Patient (Bulk Data Access IG) and a group of the cohort.",
        ["$export"], [] if there else ["$export on the system, Patient or Group"],
    )  # fmt: skip


def _writing(outputs: Sequence[Output], server: Capability) -> Iterator[Finding]:
    for output in outputs:
        back = output.write_back
        if back.resource:
            declared = server.resources.get(back.resource, Resource()).interactions
            wanted = back.interactions or ("create",)
            yield _finding(
                f"write-{output.name}", f"The output {output.name} can be written back",
                "A score that nobody sees where they work changes nothing.",
                "Ask the vendor to enable the interaction, or take another way to the chart: CDS Hooks, HL7v2 ORU, a flowsheet.",
                [f"{back.resource} {i}" for i in wanted], [f"{back.resource} {i}" for i in wanted if i not in declared], owner=output.owner,
            )  # fmt: skip


def _hooks(outputs: Sequence[Output], hooks: frozenset[str] | None) -> Iterator[Finding]:
    for output in outputs:
        back = output.write_back
        if back.hooks:
            yield _finding(
                f"hooks-{output.name}", f"The CDS Hooks of the output {output.name} are there",
                "The hook decides at which moment of the work the output is seen.",
                "Ask which hooks the EHR fires and register the service with each.",
                [f"hook {hook}" for hook in back.hooks], [f"hook {hook}" for hook in back.hooks if hook not in (hooks or ())], owner=output.owner,
                reason="" if hooks is not None else "no CDS services were given (--cds-services): ask the vendor which hooks are fired",
            )  # fmt: skip


def _smart(contract: Contract, server: Capability, smart: Smart | None) -> Iterator[Finding]:
    need = contract.deployment
    if not need.smart:
        return
    why = "Without an authorisation that the model's service can use nothing can be read, whatever else is declared."
    fix = "Ask for a registration of the app with this flow; backend services need a public key at the vendor's."
    if smart is None:
        declared = "SMART-on-FHIR" in server.security
        reason = "no SMART configuration was given (--smart)" + ("; the statement names SMART-on-FHIR" if declared else "")
        yield _finding("smart", "The way to sign in that the model needs is offered", why, fix, (), (), reason=reason)
        return
    wanted = {
        "backend": [("grant client_credentials", "client_credentials" in smart.grants or "client-confidential-asymmetric" in smart.capabilities),
                    ("private_key_jwt", "private_key_jwt" in smart.methods or "client-confidential-asymmetric" in smart.capabilities),
                    ("token endpoint", smart.token_endpoint)],
        "ehr-launch": [("launch-ehr", "launch-ehr" in smart.capabilities), ("token endpoint", smart.token_endpoint)],
        "standalone": [("launch-standalone", "launch-standalone" in smart.capabilities), ("token endpoint", smart.token_endpoint)],
    }[need.smart]  # fmt: skip
    yield _finding(
        "smart",
        "The way to sign in that the model needs is offered",
        why,
        fix,
        [n for n, _ in wanted],
        [n for n, there in wanted if not there],
    )
    if need.scopes:
        title = "The scopes that the model needs are offered"
        reason = "" if smart.scopes else "the SMART configuration lists no scopes: ask the vendor which are granted"
        lacking = [scope for scope in need.scopes if not _granted(scope, smart.scopes)]
        yield _finding(
            "scopes", title, "A scope that is not granted shows as an empty answer, not as an error.",
            "Ask for the scopes in the registration, and test each with a real request.", need.scopes, lacking, reason=reason,
        )  # fmt: skip


def _granted(scope: str, offered: frozenset[str]) -> bool:
    """Is a scope offered, itself or by a wildcard?  ``.rs`` (SMART 2) and ``.read`` (SMART 1) mean the same here."""
    level, _, rest = scope.partition("/")
    resource, _, rights = rest.partition(".")
    same = {rights, "*", "cruds", *({"rs": ["read"], "read": ["rs"], "cud": ["write"], "write": ["cud"]}.get(rights, []))}
    return scope in offered or any(f"{level}/{r}.{right}" in offered for r in (resource, "*") for right in same)


def _profiles(contract: Contract, server: Capability) -> Iterator[Finding]:
    wanted = contract.deployment.profiles
    if not wanted:
        return
    declared: dict[str, set[str]] = {}
    for canonical in (*server.guides, *(profile for resource in server.resources.values() for profile in resource.profiles)):
        declared.setdefault(_url(canonical), set()).add(canonical.partition("|")[2])
    lacking = [f"profile {profile}{_why_not(declared.get(_url(profile)))}" for profile in wanted if not _declares(profile, declared)]
    yield _finding(
        "profiles", "The profiles that the model's mapping rests on are declared",
        "A profile says which elements a server must fill; without it the mapping rests on hope.",
        "Ask which version of US Core (or the national core) the endpoint is certified for.",
        wanted, lacking, severity="warning",
    )  # fmt: skip


def _url(canonical: str) -> str:
    return canonical.partition("|")[0].rstrip("/")


def _declares(profile: str, declared: Mapping[str, set[str]]) -> bool:
    """Is a profile declared, in the version that is asked for, if one is?"""
    versions, version = declared.get(_url(profile)), profile.partition("|")[2]
    return versions is not None and (not version or version in versions)


def _why_not(versions: set[str] | None) -> str:
    if versions is None:
        return ""
    return " (in another version)" if versions - {""} else " (without a version)"


def _question(name: str, owner: str, text: str) -> Finding:
    return _finding(
        f"ask-{name}", f"Open question: {text}", "No statement tells it, and integrations fail on it.",
        "Ask the vendor and the hospital's interface team; write the answer into the project's plan.", (), (), owner=owner, severity="info",
        reason=f"ask the vendor {text}",
    )  # fmt: skip
