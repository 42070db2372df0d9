"""A small FHIR R4B server that stores, reads and searches: ``python fhir_server.py PORT [--without TYPE.what ...]`` (in .venv-servers).

FHIRStarter makes its CapabilityStatement from the interactions that are registered; nothing here writes one.  ``--without
Observation.date`` leaves a search parameter out, ``--without RiskAssessment.create`` an interaction.
"""

from __future__ import annotations

import argparse
import inspect
import os
from typing import Any

os.environ["FHIR_SEQUENCE"] = "R4B"

import uvicorn
from fhir.resources.R4B.bundle import Bundle, BundleEntry
from fhir.resources.R4B.condition import Condition
from fhir.resources.R4B.encounter import Encounter
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.riskassessment import RiskAssessment
from fhirstarter import FHIRProvider, FHIRStarter, InteractionContext
from fhirstarter.exceptions import FHIRResourceNotFoundError

#: Resource type to its search parameters, and where each finds its text.
SEARCHED: dict[Any, dict[str, str]] = {
    Patient: {"family": "name"},
    Encounter: {"patient": "subject", "date": "period"},
    Condition: {"patient": "subject", "code": "code"},
    Observation: {"patient": "subject", "code": "code", "date": "effectiveDateTime"},
    RiskAssessment: {"patient": "subject"},
}
STORED: dict[str, dict[str, Any]] = {kind.get_resource_type(): {} for kind in SEARCHED}


def serve(kind: Any, without: set[str]) -> FHIRProvider:
    """Return the interactions of a resource type."""
    provider, name = FHIRProvider(), kind.get_resource_type()
    stored = STORED[name]

    async def read(context: InteractionContext, id_: str) -> Any:
        if id_ not in stored:
            raise FHIRResourceNotFoundError
        return stored[id_]

    async def create(context: InteractionContext, resource: Any) -> str:
        number = str(len(stored) + 1)
        stored[number] = resource.model_copy(update={"id": number})
        return number

    read.__annotations__["return"] = create.__annotations__["resource"] = kind
    for interaction, handler in (("read", read), ("create", create), ("search_type", _search(name, SEARCHED[kind], without))):
        if f"{name}.{interaction.partition('_')[0]}" not in without:
            getattr(provider, interaction)(kind)(handler)
    return provider


def _search(name: str, parameters: dict[str, str], without: set[str]) -> Any:
    """Return a search handler: the framework declares the parameters of its signature, so it has those that are wanted."""
    wanted = [parameter for parameter in parameters if f"{name}.{parameter}" not in without]

    async def search(context: InteractionContext, **given: str | None) -> Any:
        hits = [
            resource
            for resource in STORED[name].values()
            if all(value is None or _holds(resource, parameters[key], value) for key, value in given.items())
        ]
        return Bundle(type="searchset", total=len(hits), entry=[BundleEntry(resource=hit) for hit in hits])

    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    search.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("context", keyword, annotation=InteractionContext),
            *(inspect.Parameter(each, keyword, annotation=str | None) for each in wanted),
        ]
    )
    return search


def _holds(resource: Any, element: str, value: str) -> bool:
    return value in str(resource.model_dump().get(element))


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--without", nargs="*", default=[])
    given = parser.parse_args()
    app = FHIRStarter()
    app.add_providers(*(serve(kind, set(given.without)) for kind in SEARCHED))

    async def smart() -> dict[str, Any]:
        return {
            "token_endpoint": f"http://127.0.0.1:{given.port}/token",
            "capabilities": ["client-confidential-asymmetric", "permission-v2"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "scopes_supported": ["system/*.rs"],
        }

    app.get("/.well-known/smart-configuration")(smart)

    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
