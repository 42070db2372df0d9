"""Which packs a run measures and is judged by: those that are named, else those of what was read; and the contract's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ehrready import rules as packs
from ehrready import sites
from ehrready.checks import CHECKS
from ehrready.errors import UsageError
from ehrready.rules import waivers

if TYPE_CHECKING:
    from ehrready.options import Options
    from ehrready.profile import Profile
    from ehrready.scorecard import Scorecard


def to_measure(options: Options) -> list[packs.Rule]:
    """Return the rules that say what is counted: all that may be asked later; a mistake in a pack is told here."""
    rules = packs.merged([*(packs.load_all(options.rules) or packs.every(options.mapping)), *_of_contract(options)])
    if options.engine == "spark" and sites.to_measure(rules):
        apart = sorted({rule.id for rule in rules if rule.sites and not CHECKS[rule.check].by_state})
        raise UsageError(
            f"limits by site of {', '.join(apart)}: Spark measures sites apart for present and coded only; use --engine duckdb"
        )
    return rules


def to_judge(options: Options, live: Profile) -> list[packs.Pack]:
    """Return the packs to judge by: those that are named, else those of what was read; and what the contract adds."""
    named = packs.load_all(options.rules) if options.rules else packs.default_packs([*live.formats, *filter(None, [options.mapping])])
    if not options.contract:
        return named
    from ehrready import contract as contracts
    from ehrready.contract import rules as contract_rules

    return [*contract_rules.informed(named, contracts.load(options.contract)), *(() if live.only_predictions else _of_contract(options))]


def _of_contract(options: Options) -> list[packs.Pack]:
    """Return the model contract as a rule pack, where one is given."""
    if not options.contract:
        return []
    from ehrready import contract as contracts
    from ehrready.contract import rules as contract_rules

    return [contract_rules.pack(contracts.load(options.contract))]


def naming(card: Scorecard, options: Options) -> Scorecard:
    """Return the scorecard with the model contract's name on it, where one is given."""
    if not options.contract:
        return card
    from ehrready import contract as contracts

    return card.naming(contracts.load(options.contract))


def look_ahead(options: Options) -> None:
    """Find mistakes in waivers and baseline before the long work, not after it."""
    if options.waivers:
        known = {rule.id for rule in packs.merged([*packs.load_all(options.rules), *_of_contract(options)])}
        waivers.load(options.waivers, {*known, *packs.known()}, waivers.today(options.stamp))
    if options.baseline:
        from ehrready.saved import load_scorecard

        load_scorecard(options.baseline)
