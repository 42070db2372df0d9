"""The JSON Schemas (draft 2020-12) of the documents that ehrready writes: scorecard, profile, difference.

Objects are open: a minor version may add keys.  Types, enums and bounds are strict: a reader may rely on them.
``ehrready.document_checks`` reads the same keywords; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from ehrready.checks.base import DIMENSIONS, EXTRA_DIMENSIONS
from ehrready.difference import KINDS
from ehrready.profile import FRAMES, PRESENCE
from ehrready.profile import KIND as PROFILE
from ehrready.profile_checks import LARGEST
from ehrready.readers.base import REASONS
from ehrready.reporters.words import RELEASES
from ehrready.rules.model import SEVERITIES
from ehrready.scorecard import KIND as SCORECARD
from ehrready.scorecard import VERDICTS
from ehrready.scorecard_checks import STATUSES

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHA256 = "^[0-9a-f]{64}$"
_MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"


def scorecard_schema() -> Schema:
    """Return the schema of a scorecard of major version 1."""
    d = _document(
        SCORECARD,
        "scorecard",
        "What ehrready check and ehrready compare say of a data set (design section 6). null is a number that is hidden or does not exist, never nought.",
    )
    d["properties"] |= {
        "generated_at": _text("When it was made; only with --stamp or SOURCE_DATE_EPOCH."),
        "verdict": _enum(VERDICTS, "May the model be used on this data? Decided by findings, never by the score."),
        "verdict_reasons": _list(_text("A sentence."), "Why, the weightiest reason first."),
        "score": _number("Average over what was assessed: 0 to 100. It decides nothing.", 0, 100, null=True),
        "coverage": _share("Share of the required rules that apply that were assessed; null where none applies.", null=True),
        "internal": _flag("Exact small counts are in it: not for leaving the hospital."),
        "subject": {"$ref": "#/$defs/subject", "description": "The data that was judged."},
        "training": _or_null("subject", "The training profile; null where none was given."),
        "dimensions": _list({"$ref": "#/$defs/dimension"}, "Results by kind of question, in units of a rule on an element."),
        "findings": _list({"$ref": "#/$defs/finding"}, "One per rule, element, group and defect, passes included."),
        "rules": _map({"$ref": "#/$defs/rule"}, "Rule id to what it asks."),
        "checks": _map({"$ref": "#/$defs/check"}, "Check name to what it asks and counts, in words."),
        "releases": _list({"$ref": "#/$defs/release"}, "Code-system releases by element and system, live beside training."),
        "distributions": _list({"$ref": "#/$defs/distribution"}, "What the charts show."),
        "ledger": _list({"$ref": "#/$defs/file"}, "Every file (or, of a saved profile, all files of a format and status)."),
        "contract": {"$ref": "#/$defs/contract"},
        "waivers": _list({"$ref": "#/$defs/waiver"}, "The waivers that were given and what became of them."),
        "baseline": {"$ref": "#/$defs/baseline", "description": "What changed since an earlier scorecard; only with --baseline."},
        "provenance": {"$ref": "#/$defs/provenance", "description": "What the verdict rests on."},
    }
    d["required"] += [
        key
        for key in d["properties"]
        if key not in {*d["required"], "generated_at", "waivers", "contract", "baseline", "distributions", "rules", "checks"}
    ]
    d["$defs"] = {
        "subject": _subject(),
        "dimension": _object(
            "The results of one kind of question.",
            {
                "name": _enum((*DIMENSIONS, *EXTRA_DIMENSIONS), "The kind of question."),
                "score": _number("0 to 100 over the assessed units; null where there is none.", 0, 100, null=True),
                "coverage": _share("Assessed units of those that apply; null where none applies.", null=True),
                **{key: _count(f"Units that are {key.replace('_', ' ')}.") for key in ("pass", "warn", "fail", "not_assessed")},
            },
        ),
        "finding": _finding(),
        "rule": _object(
            "The limits and options of a rule.",
            {
                "fail": _number("Fails above this share.", null=True),
                "warn": _number("Warns above this share.", null=True),
                "max_rise": _number("Fails above training's share plus this.", null=True),
                "min_n": _count("Fewer records are not assessed."),
                "options": {"type": "object", "description": "Options of the check."},
            },
        ),
        "check": _object(
            "What a check asks, in words.",
            {
                "question": _text("What it asks."),
                "numerator_text": _text("What is counted."),
                "denominator_text": _text("Out of what."),
            },
        ),
        **_releases(),
        **_distributions(),
        "file": _file(),
        "contract": _object(
            "The model contract that the data was held against.",
            {
                "model": _text("Name of the model."),
                "version": _text("Version of the model."),
                "sha256": _text("Digest of the contract file.", pattern="^[0-9a-f]{64}$"),
                "features": _list(_text("Name of a feature."), "The features that the model needs."),
            },
        ),
        "waiver": _object(
            "A waiver.",
            {
                "rule": _text("Id of the rule."),
                "on": _text("Element or glob."),
                "defect": _text("The defect; null for all.", null=True),
                **_waived(),
                "status": _enum(("active", "expired", "exceeded", "unused"), "What became of it."),
                "findings": _list(_text("Id of a finding."), "The findings that it covers."),
            },
            optional=("max_rate",),
        ),
        "baseline": _object(
            "The changes since an earlier scorecard.",
            {
                "name": _text("Name of the data set then."),
                "verdict": _enum(VERDICTS, "The verdict then."),
                "score": _number("The score then.", 0, 100, null=True),
                "unlike": _list(_text("A sentence."), "Why the two can be compared in part only."),
                **{kind: _list({"$ref": "#/$defs/change"}, f"Findings: {words}.") for kind, words in KINDS.items() if kind != "same"},
            },
        ),
        "change": _object("A finding, in short.", {"id": _text("Id of the finding.")}),
        "provenance": _provenance(),
    }
    return d


def profile_schema() -> Schema:
    """Return the schema of a profile of major version 1; one definition per frame."""
    d = _document(
        PROFILE, "profile", "The measures of one data set: integers under text keys, no value of a patient (docs/design.md section 1)."
    )
    d["properties"] |= {
        "name": _text("The user's name of the data set, never a path."),
        "internal": _flag("Exact small counts are in it: not for leaving the hospital."),
        "source_elements": _map(_text("The same place in the user's format."), "Element to where it came from."),
        "frames": {
            "type": "object",
            "description": "Name of a frame to its rows; a frame of a later minor version may be there, too.",
            "properties": {name: {"$ref": f"#/$defs/{name}"} for name in FRAMES},
        },
    }
    d["required"] = list(d["properties"])
    d["properties"]["sites"] = _map(
        {**d["properties"]["frames"], "description": "The frames of one part."},
        "Parts of the records, where rules have limits by site: each named site, and other-sites for the rest.",
    )
    d["$defs"] = {name: _frame(name) for name in FRAMES}
    return d


def difference_schema() -> Schema:
    """Return the schema of what ``ehrready diff --json`` writes, major version 1."""
    d = _document("ehrready-difference", "difference", "What changed between two scorecards (ehrready diff).")
    d["properties"] |= {
        "before": {"$ref": "#/$defs/side", "description": "The earlier scorecard."},
        "after": {"$ref": "#/$defs/side", "description": "The later scorecard."},
        "unlike": _list(_text("A sentence."), "Why the two can be compared in part only."),
        **{kind: _list({"$ref": "#/$defs/change"}, f"Findings: {words}.") for kind, words in KINDS.items()},
    }
    d["required"] = list(d["properties"])
    d["$defs"] = {
        "side": _object("One of the two scorecards.", {
            "name": _text("Name of the data set."),
            "verdict": _enum(VERDICTS, "Its verdict."),
            "score": _number("Its score.", 0, 100, null=True),
            "coverage": _share("Its coverage.", null=True),
            "patients": _count("Patients; null is hidden.", null=True),
            "records": _count("Records read."),
            "period": _period(),
            "dimensions": _map(_number("Score.", 0, 100, null=True), "Dimension to its score."),
        }),
        "change": _object("A finding and what became of it.", {
            "id": _text("Id of the finding."),
            "rule": _text("Id of the rule."),
            "title": _text("Title of the rule."),
            "element": _text("Element; empty is the whole data set."),
            "group": _map(_text("Its value."), "Group, such as a code system."),
            "defect": _text("What is counted."),
            "owner": _text("Who mends it."),
            "reason": _text("Why it is listed here."),
            "before": _or_null("numbers", "In the earlier scorecard; null where it has no such finding."),
            "after": _or_null("numbers", "In the later scorecard; null where it has no such finding."),
        }),
        "numbers": _object("The finding in one of the two.", {
            "status": _enum(STATUSES, "Its status."),
            "severity": _enum(SEVERITIES, "Severity of its rule."),
            "hidden": _flag("Its numbers are hidden."),
            "numerator": _count("Defects.", null=True),
            "denominator": _count("Out of.", null=True),
            "rate": _number("Share.", 0, null=True),
            "interval": _interval(),
            "message": _text("What was found, in a sentence."),
        }),
    }  # fmt: skip
    return d


def _subject() -> Schema:
    return _object(
        "A data set.",
        {
            "name": _text("The user's name of it, never a path."),
            "formats": _list(_text("Format."), "Formats that were read."),
            "files": _count("Files."),
            "bytes": _count("Bytes of the files."),
            "records": _object(
                "The ledger's totals: read = profiled + rejected.",
                {key: _count(f"Records {key}.") for key in ("read", "profiled", "rejected")},
            ),
            "patients": _count("Distinct patients; null when hidden.", null=True),
            "period": _period(),
        },
    )


def _finding() -> Schema:
    counts = {"numerator": _count("Defects."), "denominator": _count("Out of."), "rate": _number("Numerator / denominator.", 0)}
    return _object(
        "The result of one rule on one element, group and defect; the numerator always counts the defect.",
        {
            "id": _text("The same rule, element, group and defect have the same id in every run."),
            "cause": _text("Id of the finding that causes this one.", null=True),
            "hidden": _flag("Its numbers are left out: a cell of 1-10 patients, or one that gives such a cell away."),
            "rule": _text("Id of the rule."),
            "check": _text("Name of the check."),
            "title": _text("Title of the rule."),
            "pack": _text("Pack of the rule."),
            "severity": _enum(SEVERITIES, "error decides the verdict, warning makes conditions, info changes nothing."),
            "dimension": _enum((*DIMENSIONS, *EXTRA_DIMENSIONS), "The kind of question."),
            "table": _text("Canonical table; empty is the whole data set."),
            "element": _text("Canonical element; empty is the whole data set."),
            "source_element": _text("The same place in the user's format."),
            "group": _map(_text("Its value."), "Group, such as a code system; empty is everybody."),
            "defect": _text("What is counted; empty where nothing was."),
            "status": _enum(
                STATUSES,
                "The last three are never a pass: not-assessed, not-applicable, error (the check crashed, or met a document that it cannot judge).",
            ),
            "owner": _text("Who mends it."),
            "numerator": _count("Defects; null when hidden or not assessed.", null=True),
            "denominator": _count("Out of; null when hidden or not assessed.", null=True),
            "rate": _number("Numerator / denominator; rounded where only that may be shown.", 0, null=True),
            "interval": _interval(),
            "training": {
                "anyOf": [_object("Training's numbers.", counts), {"type": "null"}],
                "description": "The same counts in training; null without.",
            },
            "limit": _number("The limit that decided: a share, or a rise over training.", null=True),
            "effect": _number("Rate minus training's.", null=True),
            "n_effective": {
                "type": "array",
                "prefixItems": [_count("Of the live data, or of the group."), _count("Of training, or of the others.")],
                "items": False,
                "minItems": 2,
                "description": "Of a comparison whose numbers are shown: as many independent records (patients, months) as the data is worth, here and in what it is compared with.",
            },
            "patients": _count("Patients with the defect.", null=True),
            "message": _text("What was found, in a sentence."),
            "why": _text("Why it matters to a model."),
            "fix": _text("What to do next."),
            "reason": _text("Why it was not assessed, or what else to know."),
            "waiver": {
                "anyOf": [_object("The waiver.", _waived(), optional=("max_rate",)), {"type": "null"}],
                "description": "The waiver that covers it.",
            },
        },
        optional=("n_effective",),
    )


def _waived() -> Schema:
    return {
        "owner": _text("Who answers for it."),
        "reason": _text("Why it is accepted for a while."),
        "expires": _text("Last day.", pattern=r"^\d{4}-\d\d-\d\d$"),
        "max_rate": _share("It fails again above this share."),
    }


def _releases() -> Schema:
    declared = _list({"$ref": "#/$defs/declared"}, "Releases that the data names.")
    return {
        "release": _object(
            "The releases of one code system in one element.",
            {
                "element": _text("Canonical element."),
                "system": _text("Canonical key of the code system."),
                "declared": declared,
                "inferred": _or_null("inferred", "What the codes themselves say; null without a release table."),
                "training": {
                    "anyOf": [
                        _object("Training's.", {"declared": declared, "inferred": _or_null("inferred", "What training's codes say.")}),
                        {"type": "null"},
                    ],
                    "description": "The same of training; null without.",
                },
                "status": _enum(RELEASES, "Live against training."),
                "advice": _text("What to do; empty where there is nothing to do."),
                "strata": _list(
                    _object(
                        "A calendar quarter.",
                        {
                            "quarter": _text("Such as 2025-Q4."),
                            "releases": _list(_text("Release."), "Releases that its codes fit."),
                            "probability": _share("Of these releases.", null=True),
                        },
                    ),
                    "Releases by quarter of service.",
                ),
                "timeline": _list(
                    _object("A release.", {"release": _text("Its name."), "effective": _text("First day in force.")}),
                    "Releases of the loaded table.",
                ),
            },
            optional=("advice", "strata", "timeline"),
        ),
        "declared": _object(
            "A release that the data names.",
            {"release": _text("Null: none is named.", null=True), "share": _share("Of the codings; null when hidden.", null=True)},
        ),
        "inferred": _object(
            "What distinct codes say of their release.",
            {
                "releases": _list(_text("Release."), "Releases that the codes fit."),
                "probability": _share("Of these releases.", null=True),
                "pattern": _text("How they run against the calendar."),
                "evidence": _list(_text("A sentence."), "On what this rests."),
                "reason": _text("Why it cannot be told."),
            },
        ),
    }


def _distributions() -> Schema:
    """Return the shapes of ehrready/distributions.py; a kind of a later version may be there, too."""
    kinds = {
        "volume-by-month": {"table": _text("Canonical table."), "series": _series(_count("Records; null is hidden.", null=True))},
        "missing-by-month": {"element": _text("Canonical element."), "series": _series(_share("Share of records without it; null is hidden.", null=True))},
        "code-mix": {
            "element": _text("Canonical element."),
            "system": _text("Code system."),
            "rows": _list(_object("A code.", {"code": _text("A public code."), **_shares()}), "Codes whose shares differ most."),
            "other": _object("All other codes together.", _shares()),
        },
        "accuracy-by-month": {
            **_figured(),
            "series": _list(_object("A month.", {"month": {**_text("Month."), "pattern": _MONTH}, **_figure(null=True)}), "In calendar order."),
        },
        "accuracy-by-group": {
            **_figured(),
            "rows": _list(_object("A group.", {"by": _text("all, sex or age."), "group": _text("The group; empty is everybody."), **_figure()}), "Everybody first."),
        },
        "production-by-month": {
            "output": _text("Output of the contract."),
            "measure": _text("What the share is of: a defect of production, or alert."),
            "expected": _share("Share that was agreed; null without.", null=True),
            "series": _list(_object("A month.", {"month": {**_text("Month."), "pattern": _MONTH}, "share": _share("Null: hidden, or too few.", null=True)}), "In calendar order."),
        },
        "value": {
            "element": _text("Canonical element."),
            "system": _text("Code system."),
            "code": _text("The analyte's code."),
            "unit": _text("Unit of the bounds."),
            "display": _text("The analyte's name."),
            "buckets": _list(
                _object("Results between two bounds.", {"low": _number("Null: everything below.", null=True), "high": _number("Null: everything above.", null=True), **_shares()}),
                "Buckets in rising order.",
            ),
        },
    }  # fmt: skip
    rules = [{"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{kind}"}} for kind in kinds]
    said = {"kind": _text(f"{', '.join(kinds)}; a reader leaves out a kind that it does not know.")}
    found = {kind: _object(f"Live beside training: {kind}.", keys, optional=("display",)) for kind, keys in kinds.items()}
    return {"distribution": {**_object("Live data beside training.", said), "allOf": rules}, **found}


def _figured() -> Schema:
    return {
        "output": _text("Output of the contract."),
        "metric": _text("auroc, auprc, brier, calibration_slope, calibration_intercept or ece."),
        "baseline": _number("In validation; null without.", null=True),
    }


def _figure(*, null: bool = False) -> Schema:
    return {
        key: _number(words, null=null)
        for key, words in (("value", "The metric."), ("low", "Of its 95 % interval."), ("high", "Of its 95 % interval."))
    }


def _series(value: Schema) -> Schema:
    keys = {"month": {**_text("Null: without a date.", null=True), "pattern": _MONTH}, "live": value, "training": value}
    return _list(_object("A month.", keys), "In calendar order.")


def _shares() -> Schema:
    return {"live_share": _share("Share in the live data."), "training_share": _share("Share in training; null without.", null=True)}


def _file() -> Schema:
    return _object(
        "read = profiled + rejected, and the reasons add up to rejected (of a reference table only what was rejected counts).",
        {
            "file": _text("file-0001, or a number of files; never a name."),
            "format": _text("Format; none where it was not recognised."),
            "status": _enum(("read", "skipped", "reference", "truncated", "unreadable"), "What became of it."),
            **{
                key: _count(f"{key.capitalize()}{' of it' if key == 'bytes' else ' records'}.")
                for key in ("bytes", "read", "profiled", "rejected")
            },
            "declared": _count("Records that the source says there are; null where it does not say.", null=True),
            "first_at": _map(_count("Line, message or row."), "Reason to its first place."),
            "reasons": _map(_count("Records."), f"Reason to records: {', '.join(sorted(REASONS))}; of a skipped file why, with 0."),
        },
    )


def _provenance() -> Schema:
    sha = _text("SHA-256.", pattern=_SHA256)
    pack = {"name": _text("Name."), "version": _text("Version."), "sha256": _text("SHA-256; empty where it is no file.")}
    return _object(
        "What the verdict rests on.",
        {
            "rule_packs": _list(_object("A rule pack.", pack), "Rule packs."),
            "terminology": _list(
                _object(
                    "A release table.",
                    {"system": _text("Code system."), "release": _text("Release."), "sha256": _text("SHA-256 of its file.")},
                ),
                "Release tables.",
            ),
            "training_sha256": {**_text("SHA-256 of the training profile; null without.", null=True), "pattern": _SHA256},
            "input_sha256": {**sha, "description": "SHA-256 of the profile as it may leave."},
            "engine": _text("Engine."),
            "options": {"type": "object", "description": "Options of the run that may be shown: no path, no machine."},
            "plugins": _list(_text("Name and version."), "Other packages that had a part in it."),
        },
    )


def _frame(name: str) -> Schema:
    keys, values = FRAMES[name]
    what = "1: it is there" if name in PRESENCE else "null is hidden (1-10 patients)"
    cells = [_text(f"Key: {key}.") for key in keys] + [_count(f"{value}; {what}.", null=True) for value in values]
    rows = {
        "type": "array",
        "prefixItems": cells,
        "items": False,
        "minItems": len(cells),
        "description": f"{', '.join(keys)}, then {', '.join(values)}.",
    }
    return _object(
        f"Frame {name}: {', '.join(values)} by {', '.join(keys)}.",
        {
            "keys": {"const": list(keys), "description": "Names of the keys."},
            "values": {"const": list(values), "description": "Names of the integers."},
            "rows": _list(rows, "A row per key; no key twice."),
        },
    )


# --- building blocks


def _document(kind: str, name: str, said: str) -> Schema:
    keys: Schema = {
        "kind": {"const": kind, "description": "The kind of document."},
        "schema_version": _text("1.x: a minor version adds keys, a major one changes them.", pattern=r"^1\.\d+$"),
        "tool": _object("What wrote it.", {"name": _text("ehrready."), "version": _text("Its version.")}),
    }
    return {
        "$schema": _DIALECT,
        "$id": f"urn:ehrready:schema:{name}:1",
        "title": f"ehrready {name}",
        "description": said,
        "type": "object",
        "additionalProperties": True,
        "required": list(keys),
        "properties": keys,
    }


def _object(said: str, keys: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "description": said, "required": [key for key in keys if key not in optional], "properties": keys}


def _map(value: Schema, said: str) -> Schema:
    return {"type": "object", "description": said, "additionalProperties": value}


def _list(item: Schema, said: str) -> Schema:
    return {"type": "array", "description": said, "items": item}


def _text(said: str, *, null: bool = False, pattern: str = "") -> Schema:
    return {"type": ["string", "null"] if null else "string", "description": said, **({"pattern": pattern} if pattern else {})}


def _flag(said: str) -> Schema:
    return {"type": "boolean", "description": said}


def _enum(values: Any, said: str) -> Schema:
    return {"enum": list(values), "description": said}


def _count(said: str, *, null: bool = False) -> Schema:
    return {"type": ["integer", "null"] if null else "integer", "minimum": 0, "maximum": LARGEST, "description": said}


def _number(said: str, least: float | None = None, most: float | None = None, *, null: bool = False) -> Schema:
    bounds = {key: value for key, value in (("minimum", least), ("maximum", most)) if value is not None}
    return {"type": ["number", "null"] if null else "number", **bounds, "description": said}


def _share(said: str, *, null: bool = False) -> Schema:
    return _number(said, 0, 1, null=null)


def _interval() -> Schema:
    bound = _number("Bound.")
    said = (
        "95 % interval of the rate (of the difference to training or to everybody, where the rule compares); null when hidden or unknown."
    )
    return {"type": ["array", "null"], "prefixItems": [bound, bound], "items": False, "minItems": 2, "description": said}


def _period() -> Schema:
    month = {**_text("A month; null without dated events.", null=True), "pattern": _MONTH}
    return _object("First and last month of dated events.", {"start": month, "end": month})


def _or_null(name: str, said: str) -> Schema:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}], "description": said}
