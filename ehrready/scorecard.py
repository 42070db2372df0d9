"""The scorecard: verdict, dimensions, findings, releases, ledger and provenance; frozen, and all a reporter sees."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from ehrready import __version__, causes, privacy, scoring, suppression
from ehrready.checks.base import CHECKS, DIMENSIONS, EXTRA_DIMENSIONS
from ehrready.difference import difference
from ehrready.distributions import distributions
from ehrready.errors import Exit, UsageError
from ehrready.evaluate import Finding
from ehrready.ledger import of_profile
from ehrready.panel import panel
from ehrready.production import hiding
from ehrready.production.course import course
from ehrready.profile import Profile, load_document
from ehrready.rules.waivers import Waiver, apply
from ehrready.scorecard_checks import first_problem
from ehrready.scoring import MIN_COVERAGE
from ehrready.wording import message

if TYPE_CHECKING:
    import pandas as pd

    from ehrready.contract import Contract
    from ehrready.ledger import Ledger
    from ehrready.rules import Pack, Rule
    from ehrready.terminology.releases import Store

KIND = "ehrready-scorecard"
SCHEMA_VERSION = "1.0"
VERDICTS = ("ready", "ready-with-conditions", "not-ready", "cannot-tell")

#: What findings of a suite of Great Expectations ask and count (ehrready.integrations.gx_suite).
_SUITE = {
    "question": "Does the expectation of Great Expectations hold?",
    "numerator_text": "records that are not as expected; 1 where an expectation about the table does not hold.",
    "denominator_text": "records that it looks at, nulls apart; 1 where it is about the table.",
}

#: What findings ask and count that come from no check on data.
_FOREIGN = {
    "capability": {
        "question": "Does the EHR declare what the model needs of it?",
        "numerator_text": "capabilities that are needed and not declared.",
        "denominator_text": "capabilities that the model contract needs.",
    }
}


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A finished scorecard; ``document`` is its JSON (design section 6) and must not be changed."""

    document: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        return str(self.document["verdict"])

    def exit_code(self, fail_on: str = "error") -> Exit:
        """Return the exit code of the gate for ``--fail-on error|warning|never``.

        Findings that are waived do not fail it; with a baseline, only those that are new or worse do.
        """
        if self.verdict == "cannot-tell":
            return Exit.CANNOT_TELL
        baseline = self.document.get("baseline")
        counted = {item["id"] for item in [*baseline["new"], *baseline["worse"]]} if baseline else None
        open_ = [f for f in self.document["findings"] if not f["waiver"] and (counted is None or f["id"] in counted)]
        failing = [f for f in open_ if f["status"] == "fail" and f["severity"] == "error"]
        warning = [f for f in open_ if f["status"] in {"fail", "warn"} and f["severity"] != "info"]
        return Exit.FAILED if {"error": failing, "warning": warning, "never": []}[fail_on] else Exit.PASSED

    def to_json(self) -> bytes:
        """Serialise with sorted keys: the same input gives the same bytes."""
        return orjson.dumps(self.document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, place: str = "the scorecard") -> Scorecard:
        """Parse a saved scorecard; raises UsageError for another kind or an unknown major version."""
        document = load_document(data, KIND, SCHEMA_VERSION, place)
        if problem := first_problem(document):
            raise UsageError(f"{place} is cut or was changed ({problem}): write it again with ehrready check")
        return cls(document)

    def against(self, baseline: Scorecard) -> Scorecard:
        """Return the scorecard with what is new, worse and fixed since an earlier one; the gate then fails on new and worse only."""
        changes = difference(baseline.document, self.document)
        keys = ("id", "rule", "title", "element", "group", "defect", "status", "severity", "message")
        lists = {
            name: [{key: f[key] for key in keys} for f in getattr(changes, name)] for name in ("new", "worse", "better", "fixed", "gone")
        }
        count = {name: len(items) for name, items in lists.items()}
        said = f"Since the baseline: {count['new']} new, {count['worse']} worse, {count['better']} better, {count['fixed']} fixed, {count['gone']} no longer assessed."
        old = baseline.document
        since = {"name": old["subject"]["name"], "verdict": old["verdict"], "score": old["score"], "unlike": changes.unlike, **lists}
        return replace(
            self,
            document={**self.document, "verdict_reasons": [*self.document["verdict_reasons"], said, *changes.unlike], "baseline": since},
        )

    def naming(self, contract: Contract) -> Scorecard:
        """Return the scorecard with the model that its contract names, in the verdict's first reason, too."""
        who = f"For the model {contract.model} {contract.version}, by its contract of {len(contract.features)} features."
        reasons = [who, *self.document["verdict_reasons"]]
        return replace(self, document={**self.document, "verdict_reasons": reasons, "contract": contract.public()})

    def to_pandas(self) -> pd.DataFrame:
        """Return the findings as a DataFrame, one row each (imports pandas)."""
        import pandas as pd

        return pd.DataFrame([{k: v for k, v in f.items() if k != "group"} for f in self.document["findings"]])


def build(
    profile: Profile,
    training: Profile | None,
    findings: list[Finding],
    packs: Sequence[Pack],
    *,
    ledger: Ledger | None = None,
    internal: bool = False,
    options: Mapping[str, Any] | None = None,
    engine: str = "duckdb",
    stamp: str | None = None,
    training_sha256: str | None = None,
    plugins: Sequence[str] = (),
    store: Store | None = None,
    waivers: Sequence[Waiver] = (),
    day: dt.date | None = None,
) -> Scorecard:
    """Put the scorecard together; small cells are hidden unless ``internal``.  ``waivers`` are judged at ``day``."""
    waived = apply(findings, waivers, day) if day else []
    leaving = profile if internal else privacy.hide_profile(profile)
    if not internal:
        privacy.hide_findings(findings, leaving)
    causes.group(findings, profile, training, store)
    units = _units(findings)
    coverage = scoring.coverage(_units([f for f in findings if f.rule.severity == "error"]))
    verdict, reasons = _verdict(profile, training, findings, coverage)
    reasons += waived
    records = None if training is not None and training.only_predictions else training
    digest = hashlib.sha256(leaving.to_json()).hexdigest()
    rows = ledger.rows() if ledger else of_profile(profile)
    document: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ehrready", "version": __version__},
        "verdict": verdict,
        "verdict_reasons": reasons,
        "score": scoring.score(units.values()),
        "coverage": None if coverage is None else round(coverage, 4),
        "internal": internal,
        "subject": _subject(profile if internal else hiding.told(profile, leaving), internal),
        "training": _subject(training, internal) if training else None,
        "dimensions": _dimensions(findings, units),
        "findings": [_finding(f) for f in findings],
        "rules": {f.rule.id: _rule(f.rule) for f in findings},
        "checks": {
            f.rule.check: CHECKS[f.rule.check].words if f.rule.check in CHECKS else _FOREIGN.get(f.rule.check, _SUITE) for f in findings
        },
        "releases": [] if profile.only_predictions else panel(profile, records, store, internal),
        "distributions": [
            *course(profile, training, {f.rule.check: f.rule.options for f in findings}, internal=internal),
            *([] if profile.only_predictions else distributions(leaving if profile.internal else profile, records, internal=internal)),
        ],
        "ledger": rows if internal else hiding.told_rows(rows, profile, leaving),
        "provenance": {
            "rule_packs": [{"name": p.name, "version": p.version, "sha256": p.sha256} for p in packs],
            "terminology": _terminology(profile, store),
            "training_sha256": training_sha256,
            "input_sha256": digest,
            "engine": engine,
            "options": dict(options or {}),
            "plugins": list(plugins),
        },
    }
    if waivers:
        document["waivers"] = [
            {"rule": w.rule, "on": w.on, "defect": w.defect or None, **w.public(), "status": w.status, "findings": w.findings}
            for w in waivers
        ]
    if stamp:
        document["generated_at"] = stamp
    return Scorecard(document)


def _units(findings: Sequence[Finding]) -> dict[tuple[str, str], str]:
    return scoring.units((f.rule.id, f.element, f.status) for f in findings)


def _verdict(profile: Profile, training: Profile | None, findings: Sequence[Finding], coverage: float | None) -> tuple[str, list[str]]:
    """Return the verdict and its reasons, in the order of design section 6."""
    reasons: list[str] = []
    if training is None and not profile.only_predictions and not all(f.dimension in EXTRA_DIMENSIONS for f in findings):
        reasons.append("No training profile was given: this is about the data alone, not about a model.")
    broken = sum(v[0] or 0 for k, v in profile.frames["ledger"].items() if k[1] in {"unreadable", "truncated"})
    stopped = [f for f in findings if f.status == "error"]
    crashed = sorted({f.rule.id for f in stopped if f.rule.check not in _FOREIGN})
    failing = [f for f in findings if f.status == "fail" and not f.waiver]
    waived = _names([f for f in findings if f.waiver])
    errors = _names([f for f in failing if f.rule.severity == "error"])
    warnings = _names(
        [f for f in failing if f.rule.severity == "warning"]
        + [f for f in findings if f.status == "warn" and f.rule.severity != "info" and not f.waiver]
    )
    if broken or stopped or not profile.total("profiled"):
        if broken:
            reasons.insert(0, f"{broken} data file{'s' if broken > 1 else ''} could not be read to the end: see the ledger.")
        if crashed:
            reasons.insert(0, f"A check crashed: {', '.join(crashed)}.")
        reasons[:0] = [f"{f.reason}." for f in stopped if f.rule.check in _FOREIGN]
        if not profile.total("profiled"):
            reasons.insert(0, "No record could be read.")
        return "cannot-tell", reasons
    if waived:
        reasons.insert(
            0,
            f"{len(waived)} waived: {_list(waived)}. Somebody answers for {'them' if len(waived) > 1 else 'it'} until the waiver expires.",
        )
    if errors:
        reasons.insert(0, f"{len(errors)} requirement{'s' if len(errors) > 1 else ''} failed: {_list(errors)}.")
        return "not-ready", reasons
    if coverage is None or coverage < MIN_COVERAGE:
        share = "none" if not coverage else f"{100 * coverage:.0f} %"
        reasons.insert(0, f"Too little could be assessed: {share} of the required rules that apply (at least 80 % are needed).")
        return "cannot-tell", reasons
    left = _names([f for f in findings if scoring.left_out((f.status, f.rule.severity, f.rule.check))])
    if left:
        reasons.insert(
            0, f"Of the model itself this could not be assessed: {_list(left)}. What is known of its data does not make up for it."
        )
        return "cannot-tell", reasons
    if not scoring.knows((f.status, f.rule.severity, f.rule.check) for f in findings):
        reasons.insert(0, "Only that the records can be read was assessed: no required rule knows what is in them.")
        return "cannot-tell", reasons
    if warnings:
        reasons.insert(0, f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}: {_list(warnings)}.")
        return "ready-with-conditions", reasons
    if waived:
        return "ready-with-conditions", reasons
    reasons.insert(0, "Every required rule that applies was assessed or is listed below, and none failed.")
    return "ready", reasons


def _names(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(f.rule.id + (f" ({f.element})" if f.element and len(f.rule.elements) > 1 else "") for f in findings))


def _list(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _subject(profile: Profile, internal: bool) -> dict[str, Any]:
    patients = profile.patients
    hidden = patients is None or (not internal and suppression.small(patients))
    return {
        "name": profile.name,
        "formats": profile.formats,
        "files": profile.total("files"),
        "bytes": profile.total("bytes"),
        "records": {key: profile.total(key) for key in ("read", "profiled", "rejected")},
        "patients": None if hidden else patients,
        "period": profile.period(),
    }


def _dimensions(findings: Sequence[Finding], units: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    of_rule = {f.rule.id: f.dimension for f in findings}
    grouped: dict[str, list[str]] = defaultdict(list)
    for (rule, _), status in units.items():
        grouped[of_rule[rule]].append(status)
    return [{"name": name, **scoring.tally(grouped[name])} for name in (*DIMENSIONS, *(n for n in EXTRA_DIMENSIONS if n in grouped))]


def _finding(f: Finding) -> dict[str, Any]:
    o = f.outcome
    show = not f.hidden and o.of is not None and o.n is not None
    training = None
    if o.training and o.training[1]:
        training = {"numerator": o.training[0], "denominator": o.training[1], "rate": _r(o.training[0] / o.training[1])}
    return {
        "id": f.id,
        "cause": f.cause,
        "hidden": f.hidden,
        "rule": f.rule.id,
        "check": f.rule.check,
        "title": f.rule.title,
        "pack": f.rule.pack,
        "severity": f.rule.severity,
        "dimension": f.dimension,
        "table": f.element.partition(".")[0],
        "element": f.element,
        "source_element": f.source_element,
        "group": f.group,
        "defect": o.defect,
        "status": f.status,
        "owner": f.rule.owner,
        "numerator": o.n if show else None,
        "denominator": o.of if show else None,
        "rate": _r(o.rate) if show else round(o.rate, 3) if f.rounded and o.rate is not None else None,
        "interval": [_r(o.interval[0]), _r(o.interval[1])] if show and o.interval else None,
        "training": training,
        "limit": _r(f.limit),
        "effect": _r(o.effect) if show and training else None,
        **({"n_effective": [round(n) for n in o.independent]} if show and o.independent else {}),
        "patients": o.patients if show else None,
        "message": message(f),
        "why": f.rule.why,
        "fix": f.rule.fix,
        "reason": f.reason,
        "waiver": f.waiver,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    """Return what a rule asks: its limits (shares of 1), the smallest denominator and the options of its check."""
    limits = rule.limits
    options = {key: _shortened(value) for key, value in rule.options.items()}
    return {"fail": limits.fail, "warn": limits.warn, "max_rise": limits.max_rise, "min_n": rule.min_n, "options": options}


def _shortened(value: Any, most: int = 12) -> Any:
    """Return an option as it stands in the scorecard: of a long list the beginning (the pack, by its SHA-256, has the rest)."""
    if isinstance(value, list) and len(value) > most:
        return [*value[:most], f"and {len(value) - most} more: see the rule pack"]
    return value


def _r(value: float | None) -> float | None:
    """Round to six decimals: enough for a rate, and the same on every machine."""
    return None if value is None else round(value, 6)


def _terminology(profile: Profile, store: Store | None) -> list[dict[str, Any]]:
    """Return the release tables that this scorecard rests on: those measured against, and those of its systems loaded now."""
    rows = {key: {"system": key[0], "release": key[1], "sha256": key[2]} for key, _ in profile.rows("tables")}
    for system in sorted({key[1] for key, _ in profile.rows("codes")}):
        table = store.table(system) if store else None
        for release in table.releases if table else ():
            key = (system, release.label, release.sha256)
            rows[key] = {"system": system, "release": release.label, "sha256": release.sha256}
    return [rows[key] for key in sorted(rows)]
