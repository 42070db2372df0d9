"""The model card (Mitchell et al., Model Cards for Model Reporting, FAT* 2019), filled from contract and scorecard.

Its questions that HTI-1 asks, too, have the answers of the source attributes (ehrready.contract.evidence): nothing is told twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrready.contract.evidence import NOT_MEASURED, NOT_STATED, answers, joined, row
from ehrready.contract.model import Contract

#: Section, what it asks for, paragraphs of HTI-1 that answer it, and the key of the contract's ``card`` to add where nothing does
#: (none: it is measured, or stands elsewhere in the contract).
QUESTIONS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("Model details", "Name and version", (), ""),
    ("Model details", "Developer", ("1.i",), "developer"),
    ("Model details", "Date", (), "model_date"),
    ("Model details", "Type", ("1.iv", "1.iii"), "output_type"),
    ("Model details", "Features", ("4.ii",), "input_variables"),
    ("Model details", "Licence", (), "licence"),
    ("Intended use", "Primary uses", ("2.i", "2.iv"), "intended_use"),
    ("Intended use", "Primary users", ("2.iii",), "intended_users"),
    ("Intended use", "Out of scope", ("3.i",), "out_of_scope"),
    ("Factors", "Population and groups that are relevant", ("2.ii",), "intended_population"),
    ("Factors", "Groups that were evaluated", (), ""),
    ("Metrics", "Performance measures", (), ""),
    ("Metrics", "Decision thresholds", (), ""),
    ("Metrics", "Uncertainty", (), ""),
    ("Evaluation data", "Data sets", ("6.i", "6.ii", "6.iii"), "external_validation_setting"),
    ("Evaluation data", "Process", ("6.iv",), "external_validation_process"),
    ("Training data", "Data set and its criteria", ("4.i", "4.iii"), "training_criteria"),
    ("Training data", "Relevance to the setting", ("4.iv",), "training_relevance"),
    ("Quantitative analyses", "Results in all", ("7.i", "7.iii", "8.ii"), "validity_internal"),
    ("Quantitative analyses", "Results by group", ("7.ii", "7.iv"), "fairness_internal"),
    ("Ethical considerations", "Risks and harms", (), "ethical_considerations"),
    ("Ethical considerations", "Fairness and bias", ("5.i", "5.ii"), "fairness_approach"),
    ("Caveats and recommendations", "Known limitations", ("3.ii",), "known_risks"),
    ("Caveats and recommendations", "Monitoring, updates and corrections", ("8.i", "8.iii", "9.i", "9.ii"), "update_process"),
)
_MOST = 20


def rows(contract: Contract, card: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row per question: ``section``, ``attribute``, ``answer`` and ``evidence`` (contract, scorecard or none)."""
    known, stated, measured = answers(contract, card), _stated(contract), _measured(card)
    found = []
    for section, attribute, paragraphs, key in QUESTIONS:
        own = "" if paragraphs else contract.card.get(key, "")
        pairs = [*(known[p] for p in paragraphs), (joined([own, stated.get(attribute, "")]), measured.get(attribute, ""))]
        empty = NOT_STATED.format(key=key) if key else _EMPTY.get(attribute, NOT_MEASURED)
        found.append({"section": section, "attribute": attribute, **row(pairs, empty)})
    return found


#: What to do about a question without an answer that is no free text.
_EMPTY = {"Decision thresholds": "not stated in the contract: add threshold to outputs"}


def _stated(contract: Contract) -> dict[str, str]:
    """Return what stands in the contract outside its free texts, by question."""
    features = [f"{feature.name} ({feature.table})" for feature in contract.features]
    rest = f" and {len(features) - _MOST} more" if len(features) > _MOST else ""
    thresholds = [
        f"{output.name}: alerts from {output.threshold:g}"
        + ("" if output.alert_share is None else f", expected of {100 * output.alert_share:g} %")
        for output in contract.outputs
        if output.threshold is not None
    ]
    return {
        "Name and version": f"{contract.model} {contract.version}",
        "Features": ", ".join(features[:_MOST]) + rest,
        "Population and groups that are relevant": f"Groups that are compared: {', '.join(contract.subgroups)}"
        if contract.subgroups
        else "",
        "Decision thresholds": "; ".join(thresholds),
        "Results in all": _figures("Validation", contract.label.baseline),
    }


def _figures(name: str, figures: Mapping[str, float]) -> str:
    return f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in sorted(figures.items())) if figures else ""


def _measured(card: Mapping[str, Any]) -> dict[str, str]:
    """Return what the scorecard can say to a question; of groups only what its reports show."""
    from ehrready.checks.accuracy import NAMES  # brings NumPy

    subject = card["subject"]
    patients = "" if subject["patients"] is None else f", {subject['patients']:,} patients"
    period = subject["period"]
    when = f", {period['start']} to {period['end']}" if period and period["start"] else ""
    found = {
        "Data sets": f"Scorecard of {subject['name']}{patients}{when}",
        "Known limitations": f"Verdict: {card['verdict']}. {card['verdict_reasons'][1 if 'contract' in card else 0]}",
    }
    judged = [f for f in card["findings"] if f["check"] == "accuracy-drift" and f["status"] in {"pass", "fail", "warn"}]
    if judged:
        found["Results in all"] = joined([f["message"].partition(": ")[2] for f in judged])
    of_group = [d for d in card["distributions"] if d["kind"] == "accuracy-by-group"]
    if of_group:
        groups = dict.fromkeys(f"{row['by']} {row['group']}" for d in of_group for row in d["rows"] if row["by"] != "all")
        found["Groups that were evaluated"] = ", ".join(groups)
        found["Results by group"] = joined([_by_group(d) for d in of_group])
    metrics = dict.fromkeys(NAMES[d["metric"]] for d in card["distributions"] if d["kind"].startswith("accuracy-by"))
    if metrics:
        found["Performance measures"] = ", ".join(metrics)
        found["Uncertainty"] = "95 % intervals of a seeded bootstrap in which the patient is the cluster"
    return found


def _by_group(drawn: Mapping[str, Any]) -> str:
    from ehrready.checks.accuracy import NAMES

    figures = [f"{row['group'] or 'all'} {row['value']} ({row['low']} to {row['high']})" for row in drawn["rows"]]
    return f"{drawn['output']}, {NAMES[drawn['metric']]}: {', '.join(figures)}"
