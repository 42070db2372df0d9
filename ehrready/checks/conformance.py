"""Conformance: does what is there follow its format, grammar and code system?"""

from __future__ import annotations

import difflib
from collections import defaultdict
from typing import Any

from ehrready.checks.base import Outcome, check, skip
from ehrready.checks.plausibility import relations
from ehrready.profile import Profile, Values
from ehrready.terminology import systems as terminology

_CLASSES = ("null-token", "repairable", "other-system", "free-text", "malformed")
#: Defects of ``expected-system`` in the order in which a concept is given one.
SYSTEM_DEFECTS = ("swapped", "flavour", "local", "unknown-uri", "missing-system", "undecided", "unexpected")


@check("conformance", whole=True)
def ingest_accounted(profile: Profile) -> list[Outcome]:
    """Could every record be read?

    Numerator: records rejected, with their reasons in the ledger (`rejected`); where files declare how many records
    they hold (Bulk Data manifest, BTS/FTS, Parquet footer), records that are lacking or beyond that (`not-as-declared`).
    Denominator: records read (profiled + rejected); records declared or read, whichever is more.
    """
    read = profile.total("read")
    if not read:
        return skip("not-assessed", "nothing was read")
    reasons: dict[str, int] = defaultdict(int)
    for (_, _, reason), values in profile.rows("ledger"):
        reasons[reason] += values[4] or 0
    detail = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()) if n)
    found = [Outcome("rejected", profile.total("rejected"), read, detail=detail)]
    rows = list(profile.frames["declared"].values())
    if rows:
        lacking, beyond = (sum(values[column] or 0 for values in rows) for column in (3, 4))
        of = sum(max(values[1] or 0, values[2] or 0) for values in rows)
        detail = f"{lacking} lacking, {beyond} beyond the declared counts"
        found += [Outcome("not-as-declared", lacking + beyond, of, detail=detail)] if of else []
    return found


@check("conformance")
def no_free_text(profile: Profile, element: str, *, classes: list[str] | None = None) -> list[Outcome]:
    """Is what stands in the code field a code of its system?

    Every distinct (system, code) falls in exactly one class: `well-formed`, `null-token`, `repairable` (case, missing
    dot, padding, a code followed by its description), `other-system` (another system's grammar and check digit),
    `free-text` (words where a code belongs) or `malformed` (check digits of LOINC and SNOMED CT included).

    Numerator: codings of a defect class, each class a defect of its own.
    Denominator: codings of the element with a recognised or absent system; codings of local and unknown systems
    have no grammar and are the business of `expected-system`.

    Options: `classes`: the defect classes to judge (default: all five).
    """
    parts: dict[str, list[Values]] = defaultdict(list)
    for (_, _, how, cls), values in profile.rows("classes", element):
        if how not in {"local", "unknown-uri"} or cls in {"free-text", "null-token"}:
            parts[cls].append(values)
    every = [values for cells in parts.values() for values in cells]
    if not every:
        return skip("not-applicable", "no coding of this element with a recognised code system")
    of = _total(every, 0)
    of2 = _total(every, 2)
    outcomes = []
    for cls in classes or _CLASSES:
        cells = parts.get(cls, [])
        outcomes.append(
            Outcome(
                cls, _total(cells, 0), of, _total(cells, 1), None, _total(cells, 2), of2, _total(cells, 3), partition=f"{element} codings"
            )
        )
    return outcomes


def _lint_systems(options: dict[str, Any]) -> list[str]:
    known = [*terminology.SYSTEMS, "local"]
    wrong = [key for key in options["systems"] if key not in known]
    close = {key: difflib.get_close_matches(key, known, n=1) for key in wrong}
    return [f"systems: no code system {key!r}" + (f" (did you mean {close[key][0]!r}?)" if close[key] else "") for key in wrong]


@check("conformance", lint=_lint_systems)
def expected_system(profile: Profile, element: str, *, systems: list[str]) -> list[Outcome]:
    """Is the element coded in a system that the model can use?

    A concept with a coding that is labelled with one system and holds another's code is `swapped`.  Any other is right
    as soon as one of its codings is in an expected system, under whatever URI, OID or mnemonic, and has else exactly
    one of these defects: `flavour`
    (another national edition, ICD-10 for ICD-10-CM), `local`, `unknown-uri`, `missing-system`, `undecided` (`I10`
    whose content does not tell) or `unexpected` (a known system that was not asked for).

    Numerator: concepts with the defect.  Denominator: concepts with at least one coding.

    Options: `systems`: keys of the expected code systems (column `key` of ehrready/terminology/data/code_systems.csv);
    `local` where a model was built on local codes.
    """
    wanted = set(systems)
    flavours = {group for key in wanted if (group := terminology.flavour_group(key))}
    cells: dict[str, list[Values]] = defaultdict(list)
    rows = list(profile.rows("systems", element))
    if not rows:
        return skip("not-applicable", "no coding of this element")
    for (_, tokens), values in rows:
        cells[_system_defect(set(tokens.split("+")), wanted, flavours)].append(values)
    every = [values for _, values in rows]
    of, of2 = _total(every, 0), _total(every, 2)
    return [
        Outcome(
            d,
            _total(cells[d], 0),
            of,
            _total(cells[d], 1),
            None,
            _total(cells[d], 2),
            of2,
            _total(cells[d], 3),
            partition=f"{element} systems",
        )
        for d in SYSTEM_DEFECTS
    ]


def _system_defect(tokens: set[str], wanted: set[str], flavours: set[str]) -> str:
    """Return the one defect of a concept whose codings gave these tokens, ``""`` when an expected system is there."""
    if any(token[0] == "!" for token in tokens):
        return "swapped"  # also beside a right coding: whoever picks the mislabelled one is misled
    if tokens & wanted or ("local" in wanted and "?local" in tokens):
        return ""
    known = {token for token in tokens if token[0] != "?"}
    if any(terminology.flavour_group(key) in flavours for key in known):
        return "flavour"
    for defect in ("local", "unknown-uri", "missing-system", "undecided"):
        if f"?{defect}" in tokens:
            return defect
    return "unexpected"


@check("conformance")
def well_typed(profile: Profile, element: str) -> list[Outcome]:
    """Is the element of the type that its format says (an object, a number not written as a string, a list)?

    Numerator: records in which the reader met the element as another type (`wrong-type`).
    Denominator: records of the table.
    """
    total = dict(profile.rows("states", element, "all", "")).get((element, "all", "", "*"))
    if total is None:
        return skip("not-applicable", "no records of this table")
    n, patients = profile.frames["defects"].get((element, "wrong-type"), (0, 0))
    return [Outcome("wrong-type", n, total[0], patients, total[1])]


@check("conformance")
def value_parses(profile: Profile, element: str, *, defects: list[str] | None = None) -> list[Outcome]:
    """Are numbers sent as numbers?

    Numerator: results whose text is a number, with or without a unit (`number-in-text`: `5.4`, `5,4`, `5.4 mg`), a number
    with a comparator (`comparator-in-text`: `>100`, `<0.01`), a ratio or range (`ratio-in-text`: `1:64`, `0-2`; not where
    HL7v2 types it as structured numeric), and results that a field for numbers holds words in, or no finite number
    (`text-in-number`: `hemolyzed`).  Each result has at most one defect; null tokens are the business of `present`.
    Denominator: results that are a number or a text.

    Options: `defects` (default: all four).
    """
    kinds = defects or ["number-in-text", "comparator-in-text", "ratio-in-text", "text-in-number"]
    return relations(profile, element, kinds, "no result is a number or a text")


@check("conformance")
def allowed_value(profile: Profile, element: str) -> list[Outcome]:
    """Is an administrative code (sex, status, vital status) one of its value set?

    Value sets: FHIR's required bindings and the HL7v2 tables behind them (ehrready/valuesets.py).

    Numerator: records whose code is none of the value set (`not-allowed`).
    Denominator: records that have the element, absent ones and null tokens apart.
    """
    cells = {value: counts for (_, value), counts in profile.rows("categories", element) if value not in {"", "?absent", "?null-token"}}
    if not cells:
        return skip("not-applicable", "no record has this element")
    n, patients = cells.get("?other", (0, 0))
    return [Outcome("not-allowed", n, _total(list(cells.values()), 0), patients, partition=f"{element} values")]


def _total(cells: list[Values], column: int) -> int | None:
    return None if any(values[column] is None for values in cells) else sum(values[column] or 0 for values in cells)
