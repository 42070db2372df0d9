"""``ehrready integration``: what the EHR declares, held against what the model contract needs of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehrready.commands import options as shared

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard


def integration(
    contract: Annotated[str, typer.Option(metavar="FILE", help="Model contract (YAML).", show_default=False)],
    capability: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The server's CapabilityStatement (GET [base]/metadata) as JSON; or its base address, as --base.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="URL", help="FHIR base address: metadata and SMART configuration are fetched.", show_default=False)
    ] = None,
    smart: Annotated[
        str | None, typer.Option(metavar="FILE", help="The server's .well-known/smart-configuration as JSON.", show_default=False)
    ] = None,
    cds_services: Annotated[
        str | None, typer.Option(metavar="FILE", help="The answer of [base]/cds-services as JSON.", show_default=False)
    ] = None,
    html: shared.Html = None,
    json: shared.Json = None,
    junit: shared.Junit = None,
    markdown: shared.Markdown = None,
    fail_on: shared.FailOn = None,
    name: Annotated[str | None, typer.Option(help="Name of the EHR in outputs. [default: EHR]", show_default=False)] = None,
    stamp: Annotated[str | None, typer.Option(help="Time to print on the scorecard.", show_default=False)] = None,
) -> None:
    """Hold an EHR's CapabilityStatement against the model contract: a checklist with owners and open questions."""
    from ehrready.commands import common
    from ehrready.errors import UsageError

    gate = common.gate(fail_on)
    if capability and base is None and capability.startswith(("https://", "http://")):
        capability, base = None, capability
    if (capability is None) == (base is None):
        raise UsageError("give --capability FILE or --base URL, one of them")
    card = judged(contract, capability, base=base, smart=smart, cds_services=cds_services, name=name, stamp=stamp)
    common.finish(card, {"html": html, "json": json, "junit": junit, "markdown": markdown}, gate)


def judged(
    contract: str, capability: str | None, *, base: str | None = None, smart: str | None = None, cds_services: str | None = None,
    name: str | None = None, stamp: str | None = None,
) -> Scorecard:  # fmt: skip
    """Return the checklist of an EHR as a scorecard; the options are those of the command.

    Raises UsageError for a document that is none, SourceError where a server cannot be asked.
    """
    from ehrready import contract as contracts
    from ehrready.integration import capability as documents
    from ehrready.integration import needs
    from ehrready.integration import server as fetcher
    from ehrready.ledger import Ledger
    from ehrready.measure import ledger_frame
    from ehrready.profile import Profile
    from ehrready.readers.base import Ended, Read, SourceFile
    from ehrready.scorecard import build

    wanted = contracts.load(contract)
    signing = documents.smart(smart) if smart else None
    if base is None:
        server = documents.capability(str(capability), wanted.deployment.fhir_version)
    else:
        data = fetcher.fetch(base, fetcher.METADATA)
        server = documents.parse_capability(data or b"", "the server's metadata", wanted.deployment.fhir_version)
        if signing is None and (found := fetcher.fetch(base, fetcher.SMART)) is not None:
            signing = documents.parse_smart(found, "the server's SMART configuration")
    pack, findings = needs.findings(wanted, server, signing, documents.hooks(cds_services) if cds_services else None)
    ledger = Ledger.of([SourceFile(1, Path(capability or "metadata"), server.size, "fhir", "capability")])
    for event in (Read(1, 1), Ended(1)):
        ledger.add(event)
    ledger.close({1: 1})
    profile = Profile(name or "EHR")
    profile.frames["ledger"] = ledger_frame(ledger)
    return build(profile, None, findings, [pack], ledger=ledger, stamp=stamp).naming(wanted)
