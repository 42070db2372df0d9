"""The whole flow, top to bottom: sources → tables → profile → findings → scorecard.

Nothing here knows a format, a check or an output: readers fill the canonical tables and report events, the ledger
books them, ``measure`` turns tables into integers, ``evaluate`` judges profiles, ``build`` makes the scorecard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrready import contract as contracts
from ehrready import plugins, worklists
from ehrready import rules as packs
from ehrready.contract import rules as contract_rules
from ehrready.errors import EhrreadyError, SourceError, UsageError
from ehrready.evaluate import Finding, evaluate
from ehrready.ledger import Ledger
from ehrready.profile import Profile
from ehrready.readers import chosen
from ehrready.readers.base import Ended, Reader, SourceFile
from ehrready.rules import waivers
from ehrready.scorecard import Scorecard, build

if TYPE_CHECKING:
    from ehrready.resume import Work

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told; ``memory`` is the engine's limit, ``threads`` None means all cores."""

    name: str = "dataset"
    format: str = "auto"
    mapping: str | None = None
    terminology: Path | None = None
    rules: tuple[str, ...] = ()
    validate: str = "sample"
    memory: str = "4GB"
    threads: int | None = None
    engine: str = "duckdb"
    master: str | None = None
    internal: bool = False
    reports: tuple[str, ...] = ()
    waivers: str | None = None
    baseline: str | None = None
    contract: str | None = None
    worklists: str | None = None
    stamp: str | None = None
    resume: str | None = None
    progress: Progress = field(default=lambda stage, done, of: None, compare=False)

    def public(self) -> dict[str, Any]:
        """Return the options that may stand in the scorecard's provenance: no path, no machine."""
        return {"format": self.format, "rules": [Path(r).name for r in self.rules], "internal": self.internal}


def read_profile(
    sources: Sequence[str], options: Options, *, readers: Sequence[Reader] = (), also: Callable[[Any], None] | None = None
) -> tuple[Profile, Ledger, list[SourceFile]]:
    """Read the sources and measure them; raises SourceError when there is nothing to read.

    ``readers`` stand in for those of the options; ``also`` looks at the tables in the locked engine, too, before they go
    (a suite of Great Expectations).
    """
    from ehrready import narrow
    from ehrready import sources as files_of
    from ehrready.engines import duckdb as engine
    from ehrready.measure import measure
    from ehrready.readers.tabular import OmopReader
    from ehrready.resume import resuming
    from ehrready.stores.tables import stage
    from ehrready.terminology.releases import Store

    # a mistake in a pack is told before the long work, not after it
    rules = packs.merged([*(packs.load_all(options.rules) or packs.every(options.mapping)), *_of_contract(options)])
    readers = readers or chosen(options.format, options.mapping, options.validate)
    files = files_of.recognise(files_of.expand(sources), readers, wanted=options.format)
    ledger = Ledger.of(files)
    if all(file.skip for file in files):
        raise SourceError(
            f"nothing was recognised in {len(files)} file{'s' if len(files) > 1 else ''}: give FHIR JSON, HL7v2, or Parquet/CSV; "
            "other tables need --mapping"
        )
    with resuming(options, files) as work, _engine(options, sum(file.size for file in files)) as con:
        staged = files_of.local(files) if options.engine == "spark" else stage(files, readers, engine.folder_of(con), options.progress)
        elements: dict[str, list[str]] = {}
        for reader in readers:
            mine = [file for file in staged if file.format == reader.format and not file.skip]
            if mine:
                if isinstance(reader, OmopReader):  # when nobody but the measures looks at the tables, numbers will do
                    reader.narrow = (
                        options.engine != "spark" and work is None and also is None and _plain(rules) and _all_of(reader, staged)
                    )
                _read(reader, mine, con, ledger, options, work)
                for element, place in reader.source_elements().items():
                    elements.setdefault(element, []).append(place)
        ledger.close(engine.profiled(con))
        if options.engine == "duckdb" and not narrow.there(con):  # then no rule of a user asks the engine, and files are still looked at
            engine.lock(con)  # on Spark a rule's query is one SELECT of canonical tables, as DuckDB parses it
        options.progress("measuring", 0, 1)
        profile = measure(con, ledger, name=options.name, store=Store.open(options.terminology), rules=rules)
        if also is not None:
            also(con)
    profile.source_elements = {element: " | ".join(sorted(set(places))) for element, places in sorted(elements.items())}
    return profile, ledger, files


def _plain(rules: Sequence[packs.Rule]) -> bool:
    """Whether no rule asks the canonical tables itself (those of FHIR's structure have tables of their own)."""
    from ehrready.checks import CHECKS

    return not {rule.check for rule in rules if CHECKS[rule.check].measured} - {"structure-valid", "must-support"}


def _all_of(reader: Reader, files: Sequence[SourceFile]) -> bool:
    """Whether all files are of one reader."""
    return all(file.format == reader.format for file in files if not file.skip)


def _engine(options: Options, size: int) -> AbstractContextManager[Any]:
    """Open the engine of the options; ``size`` is the number of bytes to read."""
    if options.engine == "spark":
        from ehrready.engines import spark

        return spark.open_engine(master=options.master, size=size, memory=options.memory)
    from ehrready.engines import duckdb as engine

    return engine.open_engine(memory=options.memory, threads=options.threads)


def _read(reader: Reader, files: Sequence[SourceFile], con: Any, ledger: Ledger, options: Options, work: Work | None) -> None:
    """Let one reader fill the tables and book its events.  A reader that crashes leaves its files unreadable."""
    done, progress = 0, options.progress
    if options.engine == "spark":
        from ehrready.engines import spark_read

        progress(f"reading {reader.format}", 0, 1)
        spark_read.read(reader, files, con, ledger, memory=options.memory)
        return
    try:
        for event in work.read(reader, files, con) if work else reader.read(files, con):
            ledger.add(event)
            if isinstance(event, Ended):
                done += 1
                progress(f"reading {reader.format}", done, len(files))
    except (EhrreadyError, MemoryError):
        raise
    except Exception as error:
        from ehrready.engines.duckdb import lacks

        if lacks(error):
            raise  # no fault of the files
        ledger.crashed(reader.format)
        for file in files:
            ledger.add(Ended(file.number, "unreadable"))


def judge(
    live: Profile,
    training: Profile | None,
    options: Options,
    *,
    ledger: Ledger | None = None,
    training_sha256: str | None = None,
    more: tuple[packs.Pack, list[Finding]] | None = None,
) -> Scorecard:
    """Evaluate the rules on two profiles: the same code for ``check`` and ``compare``; ``more`` are findings of another's."""
    from ehrready.terminology.releases import Store

    judged = _packs(options, live)
    store = Store.open(options.terminology)
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
    card = card.naming(contracts.load(options.contract)) if options.contract else card
    return card.against(load_scorecard(options.baseline)) if options.baseline else card


def _packs(options: Options, live: Profile) -> list[packs.Pack]:
    """Return the packs to judge by: those that are named, else those of what was read; and what the contract adds."""
    named = packs.load_all(options.rules) if options.rules else packs.default_packs([*live.formats, *filter(None, [options.mapping])])
    if not options.contract:
        return named
    return [*contract_rules.informed(named, contracts.load(options.contract)), *(() if live.only_predictions else _of_contract(options))]


def _of_contract(options: Options) -> list[packs.Pack]:
    """Return the model contract as a rule pack, where one is given."""
    return [contract_rules.pack(contracts.load(options.contract))] if options.contract else []


def look_ahead(options: Options) -> None:
    """Find mistakes in waivers and baseline before the long work, not after it."""
    if options.waivers:
        known = {rule.id for rule in packs.merged([*packs.load_all(options.rules), *_of_contract(options)])}
        waivers.load(options.waivers, {*known, *packs.known()}, waivers.today(options.stamp))
    if options.baseline:
        load_scorecard(options.baseline)


def load_profile(path: str) -> tuple[Profile, str]:
    """Read a saved profile and its SHA-256; raises UsageError when it is not one."""
    from ehrready import files
    from ehrready.profile_checks import impossible

    place = f"profile {Path(path).name}"
    data = files.read(path, place)
    profile = Profile.from_json(data, place=place)
    if problems := impossible(profile.frames, place):
        raise UsageError(*problems)
    return profile, hashlib.sha256(data).hexdigest()


def load_scorecard(path: str) -> Scorecard:
    """Read a saved scorecard; raises UsageError when it is not one."""
    from ehrready import files

    place = f"scorecard {Path(path).name}"
    return Scorecard.from_json(files.read(path, place), place=place)


def check(sources: Sequence[str], against: str | None, options: Options) -> tuple[Scorecard, list[SourceFile]]:
    """Read, measure and judge the sources against a saved training profile."""
    training, digest = load_profile(against) if against else (None, None)
    look_ahead(options)
    lists: dict[str, Any] = {}
    collect = None if options.worklists is None else lambda con: lists.update(worklists.collect(con, training))
    profile, ledger, files = read_profile(sources, options, also=collect)
    if options.worklists is not None:
        worklists.write(options.worklists, lists)
    return judge(profile, training, options, ledger=ledger, training_sha256=digest), files
