"""The whole flow, top to bottom: sources → tables → profile → findings → scorecard.

Nothing here knows a format, a check or an output: readers fill the canonical tables and report events, the ledger
books them, ``measure`` turns tables into integers, ``evaluate`` judges profiles, ``build`` makes the scorecard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ehrready import plugins, reading, worklists
from ehrready import rules as packs
from ehrready.engines import opening
from ehrready.evaluate import Finding, evaluate
from ehrready.ledger import Ledger
from ehrready.options import Options
from ehrready.profile import Profile
from ehrready.readers import chosen
from ehrready.readers.base import Reader, SourceFile
from ehrready.rules import chosen as chosen_packs
from ehrready.rules import waivers
from ehrready.saved import load_profile, load_scorecard
from ehrready.scorecard import Scorecard, build
from ehrready.terminology.releases import Store

__all__ = ["Options", "check", "judge", "read_profile"]


def read_profile(
    sources: Sequence[str],
    options: Options,
    *,
    readers: Sequence[Reader] = (),
    also: Callable[[Any], None] | None = None,
    store: Store | None = None,
) -> tuple[Profile, Ledger, list[SourceFile]]:
    """Read the sources and measure them; raises SourceError when there is nothing to read.

    ``readers`` stand in for those of the options; ``also`` looks at the tables in the locked engine, too, before they go
    (a suite of Great Expectations).  ``store`` is that of the options, where the caller has one.
    """
    from ehrready import narrow
    from ehrready import sources as files_of
    from ehrready.engines import duckdb as engine
    from ehrready.measure import measure
    from ehrready.resume import resuming
    from ehrready.stores.tables import stage

    store = store or Store.open(options.terminology)
    with opening(options) as opened, contextlib.ExitStack() as held:
        # a mistake in a pack is told before the long work, not after it
        rules = chosen_packs.to_measure(options)
        readers = readers or chosen(options.format, options.mapping, options.validate)
        files = files_of.recognise(files_of.expand(sources), readers, wanted=options.format)
        if options.engine == "spark":
            files_of.for_workers(files)
        files_of.require(files)
        ledger = Ledger.of(files)
        work = held.enter_context(resuming(options, files))
        con = opened(sum(file.size for file in files))
        staged = files if options.engine == "spark" else stage(files, readers, engine.folder_of(con), options.progress)
        elements: dict[str, list[str]] = {}
        for reader in readers:
            mine = [file for file in staged if file.format == reader.format and not file.skip]
            if mine:
                reading.narrow(reader, staged, rules, alone=options.engine == "duckdb" and work is None and also is None)
                reading.read(reader, mine, con, ledger, options, work)
                for element, place in reader.source_elements().items():
                    elements.setdefault(element, []).append(place)
        ledger.close(engine.profiled(con))
        if options.engine == "duckdb" and not narrow.there(con):  # then no rule of a user asks the engine, and files are still looked at
            engine.lock(con)  # on Spark a rule's query is one SELECT of canonical tables, as DuckDB parses it
        options.progress("measuring", 0, 1)
        profile = measure(con, ledger, name=options.name, store=store, rules=rules, meanwhile=options.meanwhile)
        if also is not None:
            also(con)
    profile.source_elements = {element: " | ".join(sorted(set(places))) for element, places in sorted(elements.items())}
    return profile, ledger, files


def judge(
    live: Profile,
    training: Profile | None,
    options: Options,
    *,
    ledger: Ledger | None = None,
    training_sha256: str | None = None,
    more: tuple[packs.Pack, list[Finding]] | None = None,
    store: Store | None = None,
) -> Scorecard:
    """Evaluate the rules on two profiles: the same code for ``check`` and ``compare``; ``more`` are findings of another's."""
    judged = chosen_packs.to_judge(options, live)
    store = store or Store.open(options.terminology)
    rules, day = packs.merged(judged), waivers.today(options.stamp)
    accepted = waivers.load(options.waivers, {*(rule.id for rule in rules), *packs.known()}, day) if options.waivers else []
    findings = evaluate(live, training, rules, store)
    if more is not None:
        judged, findings = [*judged, more[0]], [*findings, *more[1]]
    card = build(
        live, training, findings, judged, ledger=ledger, store=store, internal=options.internal, options=options.public(),
        stamp=options.stamp, training_sha256=training_sha256, waivers=accepted, day=day, engine=options.engine,
        plugins=[
            *plugins.provenance("checks", {rule.check for rule in rules}),
            *plugins.provenance("readers", set(live.formats)),
            *plugins.provenance("reporters", {report.partition("=")[0] for report in options.reports}),
        ],
    )  # fmt: skip
    card = chosen_packs.naming(card, options)
    return card.against(load_scorecard(options.baseline)) if options.baseline else card


def check(sources: Sequence[str], against: str | None, options: Options) -> tuple[Scorecard, list[SourceFile]]:
    """Read, measure and judge the sources against a saved training profile."""
    training, digest = load_profile(against) if against else (None, None)
    chosen_packs.look_ahead(options)
    lists: dict[str, Any] = {}
    collect = None if options.worklists is None else lambda con: lists.update(worklists.collect(con, training))
    store = Store.open(options.terminology)  # one, since its tables are read when they are first asked for
    profile, ledger, files = read_profile(sources, options, also=collect, store=store)
    if options.worklists is not None:
        worklists.write(options.worklists, lists)
    return judge(profile, training, options, ledger=ledger, training_sha256=digest, store=store), files
