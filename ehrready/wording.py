"""Sentences for findings: templates filled with counts and public names, never with values of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ehrready.evaluate import Finding

#: What a defect means, to be read after "n of N ...".
DEFECTS: dict[str, str] = {
    "missing": "are missing",
    "null-token": "hold a null token such as UNK or N/A",
    "text-only": "have text but no code",
    "rejected": "could not be read",
    "not-as-declared": "are lacking, or more, than the files declare",
    "free-text": "have words where a code belongs",
    "malformed": "break the grammar or check digit of their code system",
    "repairable": "are written in another form than the code system's (case, dot, padding)",
    "other-system": "are codes of another system than the one they are labelled with",
    "swapped": "are labelled with one code system and hold another's codes",
    "flavour": "are in another national edition of the code system",
    "local": "are in a local code system only",
    "unknown-uri": "are in a code system nobody knows",
    "missing-system": "do not say their code system",
    "undecided": "name a code system that may be one of several",
    "unexpected": "are in a code system the model was not built for",
    "wrong-type": "are of another type than the format says",
    "other-release": "are of a release the model was not trained on",
    "retired": "are codes that were retired before they were used",
    "not-yet-valid": "are codes that did not exist yet when they were used",
    "header": "are headings of a chapter or category, not codes to be used on a record",
    "unknown": "are in no release of their code system",
    "differs": "have a text that says something else than the code",
    "frozen": "come from a release that has been replaced since",
    "lagging": "come from the release before the one in force",
    "re-mapped": "come from a release later than their date",
    "mixed": "come from another release than the one in force",
    "new-since-training": "did not exist in the release the model was trained on",
    "meaning-changed": "mean something else than in the release the model was trained on",
    "retired-since-training": "of training no longer exist in today's release",
    "code-mix": "would have to carry another code to restore training's proportions",
    "category-mix": "would have to be of another ICD category to restore training's proportions",
    "shifted": "are of analytes whose values are distributed otherwise than in training",
    "tail": "lie beyond nearly all values of training",
    "code-volume": "are used less or more often per patient than in training",
    "no-longer-seen": "of training are codes that the live data has no more",
    "site-vanished": "of training send nothing any more",
    "gap-month": "have fewer than half the patients of their neighbours",
    "volume": "are more or fewer than training's rate would give",
    "short-history": "have a shorter history than the look-back",
    "subgroup-gap": "of one group of patients lack the element",
    "unseen": "are codes that training never saw",
    "unit-missing": "have no unit",
    "unit-unparseable": "have a unit that neither UCUM nor the table of spellings knows",
    "unit-incommensurable": "have a unit of another kind than the analyte is measured in",
    "unit-unfamiliar": "are in a unit that training did not have for the analyte",
    "unit-swapped": "look like another unit than their label says",
    "number-in-text": "are numbers inside a text",
    "comparator-in-text": "are numbers with a comparator inside a text",
    "ratio-in-text": "are ratios or ranges inside a text",
    "text-in-number": "are words, or no finite number, in a field for numbers",
    "implausible": "lie outside physiological limits",
    "sentinel": "are a sentinel such as 9999 or -1",
    "future": "lie after the last month of the export",
    "before-birth": "lie before the patient's birth",
    "after-death": "lie more than 30 days after the patient's death",
    "end-before-start": "end before they start",
    "midnight-only": "are at midnight sharp",
    "duplicate-id": "repeat the id of another record",
    "duplicate-record": "repeat another record under another id",
    "near-duplicate": "repeat the patient, code, time and value of another record",
    "unresolved": "point to a record that was not exported",
    "several-patients": "are shared by several patients",
    "not-allowed": "are not in their value set",
    "counted": "are counted by the rule's own measure",
    "vanished": "lack the element that training had",
    "not-as-expected": "are not as expected",
    "unavailable": "lack the feature",
    "undeclared": "are not declared",
    "not-a-number": "are no number",
    "below-range": "lie below the range of the contract",
    "above-range": "lie above the range of the contract",
    "unknown-class": "are a class that the contract does not know",
    "duplicate": "are logged more than once",
    "unlabelled": "have no outcome though it is final by now",
    "unmatched-label": "belong to no prediction",
    "score-mix": "would have to be others to restore the proportions",
    "alert": "alert",
    "ungrounded-code": "cite a code that the patient's record does not hold",
    "ungrounded-value": "cite a value that the patient's record does not hold",
    "ungrounded-medication": "cite a medication that the patient's record does not hold",
    "ungrounded-date": "cite a date on which the patient's record has nothing",
    "uncited": "cite nothing",
    **dict.fromkeys(
        ("auroc", "auprc", "brier", "calibration-slope", "calibration-intercept", "ece", "accuracy", "balanced-accuracy"),
        "are worse than in validation",
    ),
}

#: What is counted, per check.
_NOUNS = {
    "no-free-text": "codings",
    "expected-system": "coded concepts",
    "release-declared": "codings",
    "release-inferred": "distinct codes",
    "release-in-force": "quarters",
    "code-current": "codings",
    "code-mix-shift": "codings",
    "code-volume-shift": "codes",
    "codes-no-longer-seen": "codings",
    "volume-gap": "months",
    "site-vanished": "sites",
    "lookback": "patients",
    "display-agrees": "codings",
    "codes-since-training": "codings",
    "unseen-codes": "codings",
    "unit-valid": "numeric results",
    "unit-familiar": "numeric results",
    "unit-swap": "numeric results",
    "value-parses": "results",
    "value-plausible": "numeric results",
    "time-plausible": "times",
    "linked": "references",
    "capability": "needed capabilities",
    "feature-available": "patients",
    "feature-by-group": "patients",
    "output-valid": "predictions",
    "label-known": "predictions",
    "score-shift": "predictions",
    "alert-share": "predictions",
    "grounded": "citations",
    "text-cited": "generated texts",
    "accuracy-drift": "groups",
}


def message(finding: Finding) -> str:
    """Return one sentence: element, count, share, defect, and training or the limit for comparison."""
    o, place = finding.outcome, finding.element or ("the EHR" if finding.rule.check == "capability" else "all records")
    if finding.status in {"not-assessed", "not-applicable", "error"}:
        return f"{place}: {finding.reason}"
    phrase = DEFECTS.get(o.defect, o.defect)
    noun = "labels" if finding.outcome.defect == "unmatched-label" else _NOUNS.get(finding.rule.check, "records")
    if o.defect == "table-not-as-expected":
        return f"{place}: the table is {'' if finding.status == 'pass' else 'not '}as expected"
    if o.of == 0 and o.defect == "vanished":
        return f"{place}: the data has no such records, training had them"
    if finding.rule.check == "accuracy-drift":
        return f"{place}: {o.detail} ({o.n:,} of {o.of:,} groups are worse beyond the noise)"
    if finding.rounded and o.rate is not None:
        return f"{place}: about {_percent(o.rate)} of {noun} {phrase} (exact counts are hidden for a neighbouring small cell)"
    if finding.hidden or o.n is None or o.of is None or o.rate is None:
        text = f"{place}: some {noun} {phrase} (a number is hidden: fewer than 11 patients)"
        return text if finding.status != "pass" else f"{place}: within the limit (a number is hidden: fewer than 11 patients)"
    text = f"{place}: {o.n:,} of {o.of:,} {noun} ({_percent(o.rate)}) {phrase}"
    if o.training and o.training[1] and finding.rule.check in {"presence-shift", "unseen-codes"}:
        text += f"; training {_percent(o.training[0] / o.training[1])}"
    if finding.limit is not None and finding.status != "pass":
        text += f"; limit {'+' if finding.rule.check in {'presence-shift', 'unseen-codes'} else ''}{_percent(finding.limit)}"
    if o.detail and (finding.status != "pass" or finding.rule.check == "feature-available"):
        text += f"; {o.detail}"
    return text


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %" if rate >= 0.0005 or rate == 0 else "<0.1 %"
