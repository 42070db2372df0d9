"""The source attributes that a predictive decision support intervention must show, filled from contract and scorecard.

The 31 attributes are those of 45 CFR 170.315(b)(11)(iv)(B) (ONC, HTI-1 final rule, 89 FR 1192, 9 January 2024); the same
answers make up the model card (ehrready.contract.model_card).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ehrready.contract.model import Contract

#: Paragraph of (iv)(B), what it asks for, and the key of the contract's ``card`` that answers it.
ATTRIBUTES: tuple[tuple[str, str, str], ...] = (
    ("1.i", "Name and contact of the developer", "developer"),
    ("1.ii", "Funding of the technical implementation", "funding"),
    ("1.iii", "Value that is produced as an output", "output_value"),
    ("1.iv", "Prediction, classification, recommendation, evaluation, analysis or other", "output_type"),
    ("2.i", "Intended use", "intended_use"),
    ("2.ii", "Intended patient population", "intended_population"),
    ("2.iii", "Intended users", "intended_users"),
    ("2.iv", "Intended role in decisions", "decision_role"),
    ("3.i", "Tasks, situations and populations cautioned against", "out_of_scope"),
    ("3.ii", "Known risks, inappropriate settings and uses, known limitations", "known_risks"),
    ("4.i", "Inclusion and exclusion criteria of the training data", "training_criteria"),
    ("4.ii", "Sensitive variables used as input features", "input_variables"),
    ("4.iii", "Demographic representativeness of the training data", "training_demographics"),
    ("4.iv", "Relevance of the training data to the setting of deployment", "training_relevance"),
    ("5.i", "Approach to ensure that the output is fair", "fairness_approach"),
    ("5.ii", "Approaches to manage, reduce or eliminate bias", "bias_management"),
    ("6.i", "Source, setting or environment of the external validation", "external_validation_setting"),
    ("6.ii", "Party that conducted the external validation", "external_validation_party"),
    ("6.iii", "Demographic representativeness of the external data", "external_validation_demographics"),
    ("6.iv", "Process of the external validation", "external_validation_process"),
    ("7.i", "Validity in test data from the source of training", "validity_internal"),
    ("7.ii", "Fairness in test data from the source of training", "fairness_internal"),
    ("7.iii", "Validity in external data", "validity_external"),
    ("7.iv", "Fairness in external data", "fairness_external"),
    ("7.v", "References to evaluations of use on outcomes", "outcome_evaluations"),
    ("8.i", "Process and frequency by which validity is monitored", "validity_monitoring"),
    ("8.ii", "Validity in local data", ""),
    ("8.iii", "Process and frequency by which fairness is monitored", "fairness_monitoring"),
    ("8.iv", "Fairness in local data", ""),
    ("9.i", "Process and frequency of updates", "update_process"),
    ("9.ii", "Process and frequency of corrections", "correction_process"),
)
NOT_STATED = "not stated in the contract: add card.{key}"
NOT_MEASURED = "not measured: run ehrready monitor with labels"


def rows(contract: Contract, card: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row per attribute: ``paragraph``, ``attribute``, ``answer`` and ``evidence`` (contract, scorecard or none)."""
    known = answers(contract, card)
    return [
        {"paragraph": paragraph, "attribute": attribute, **row([known[paragraph]], NOT_STATED.format(key=key) if key else NOT_MEASURED)}
        for paragraph, attribute, key in ATTRIBUTES
    ]


def answers(contract: Contract, card: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return by paragraph what the contract says to an attribute, and what the scorecard saw; either may be empty."""
    stated, measured = _stated(contract), _measured(card)
    return {
        paragraph: (joined([contract.card.get(key, ""), stated.get(paragraph, "")]), measured.get(paragraph, ""))
        for paragraph, _, key in ATTRIBUTES
    }


def row(known: Sequence[tuple[str, str]], empty: str) -> dict[str, str]:
    """Return the ``answer`` and its ``evidence`` from pairs of what the contract says and the scorecard saw; ``empty`` where nothing does."""
    said, seen = joined([pair[0] for pair in known]), joined([pair[1] for pair in known])
    evidence = " and ".join(name for name, text in (("contract", said), ("scorecard", seen)) if text) or "none"
    return {"answer": joined([said, seen]) or empty, "evidence": evidence}


def joined(texts: Sequence[str]) -> str:
    """Return sentences as one text; what is empty is left out."""
    return ". ".join(text.rstrip(".") for text in texts if text)


def markdown(contract: Contract, card: Mapping[str, Any]) -> str:
    """Return the table and the model card as Markdown, with how many attributes are answered."""
    from ehrready.contract import model_card

    table = rows(contract, card)
    answered = sum(row["evidence"] != "none" for row in table)
    lines = [
        f"# Source attributes of {_cell(contract.model)} {_cell(contract.version)}",
        "",
        f"{answered} of {len(table)} attributes of 45 CFR 170.315(b)(11)(iv)(B) are answered, from the model contract "
        f"(sha256 `{contract.sha256[:12]}`) and the scorecard of {_cell(str(card['subject']['name']))} (verdict: {card['verdict']}).",
        "",
        "| (iv)(B) | Source attribute | Answer | Evidence |",
        "|---|---|---|---|",
        *(f"| {row['paragraph']} | {row['attribute']} | {_cell(row['answer'])} | {row['evidence']} |" for row in table),
        "",
        "## Model card",
        "",
        "The same answers and what else contract and scorecard tell, under the headings of Mitchell et al., Model Cards for Model Reporting (FAT* 2019).",
        "",
        "| Section | What | Answer | Evidence |",
        "|---|---|---|---|",
        *(
            f"| {row['section']} | {row['attribute']} | {_cell(row['answer'])} | {row['evidence']} |"
            for row in model_card.rows(contract, card)
        ),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text as one Markdown table cell that is shown as text, never as markup."""
    for char in "\\`*_[]<>|#":
        text = text.replace(char, "\\" + char if char not in "<>" else {"<": "&lt;", ">": "&gt;"}[char])
    return " ".join(text.split())


def _stated(contract: Contract) -> dict[str, str]:
    """Return what the rest of the contract says to an attribute, by paragraph."""
    found: dict[str, str] = {}
    kinds = ", ".join(f"{output.name} ({output.kind})" for output in contract.outputs)
    if kinds:
        found["1.iii"] = f"Outputs: {kinds}"
    if contract.cohort.description or contract.cohort.min_age is not None or contract.cohort.max_age is not None:
        ages = [
            f"{word} {age}" for word, age in (("from age", contract.cohort.min_age), ("to age", contract.cohort.max_age)) if age is not None
        ]
        found["2.ii"] = "Cohort: " + ", ".join([*([contract.cohort.description] if contract.cohort.description else []), *ages])
    return found


def _measured(card: Mapping[str, Any]) -> dict[str, str]:
    """Return what the scorecard can say to an attribute, by paragraph."""
    found: dict[str, str] = {}
    if training := card.get("training"):
        patients = "a hidden number of" if training["patients"] is None else f"{training['patients']:,}"
        found["4.iii"] = f"Training profile: {patients} patients"
        shift = [f for f in card["findings"] if f["dimension"] == "comparability" and f["status"] in {"pass", "fail", "warn"}]
        alarms = sum(f["status"] != "pass" for f in shift)
        found["4.iv"] = f"{alarms} of {len(shift)} comparisons of the live data with training alarm"
    available = [f for f in card["findings"] if f["check"] == "feature-available"]
    if available:
        ready = sum(f["status"] == "pass" for f in available)
        found["4.iv"] = ". ".join(filter(None, [found.get("4.iv", ""), f"{ready} of {len(available)} features are available as required"]))
    groups = [f for f in card["findings"] if f["check"] == "feature-by-group" and f["status"] in {"pass", "fail"}]
    if groups:
        gaps = sum(f["status"] == "fail" for f in groups)
        found["5.ii"] = f"{gaps} of {len(groups)} features are less available to a group of patients"
    local = [f for f in card["findings"] if f["dimension"] == "production" and f["status"] in {"pass", "fail", "warn"}]
    if local:
        alarms = sum(f["status"] != "pass" for f in local)
        found["8.ii"] = f"{alarms} of {len(local)} measures of production alarm"
    return found
