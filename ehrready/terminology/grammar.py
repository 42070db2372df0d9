"""What a code looks like: the six classes of checks.md 4, for distinct (system, code) pairs.

Everything here judges by shape and check digit alone; whether a code *exists* needs a code table, which comes
with the release store.  So the rules are conservative: where a text fits the declared system and another
one (V27.0 is an ICD-9-CM and an ICD-10-CM code; ICD-9-CM's E8190 reads like a dot-less E81.90), the
declared system is believed.  Shapes of single systems stand in ``shapes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ehrready.terminology.checkdigits import is_concept_id, is_other_sctid, mod10_digit
from ehrready.terminology.shapes import (
    GRAMMARS,
    ICD10_ONLY_CM,
    icd10cm_shape,
    is_ascii_digits,
)
from ehrready.terminology.systems import flavour_group, is_public

#: The classes; every pair falls in exactly one.
CLASSES = ("null-token", "well-formed", "repairable", "other-system", "free-text", "malformed")

#: Texts that stand for "nothing" (lower case; compare with `is_null_token`).
NULL_TOKENS = frozenset({
    "", '""', "''", "-", "--", "---", ".", "..", "...", "?", "??", "???", "*", "**", "***", "_",
    "__", "unk", "unknown", "na", "n/a", "n.a.", "n.a", "n/k", "null", "(null)", "<null>", "\\n",
    "none", "nil", "nan", "<na>", "#n/a", "#null!", "undefined", "not applicable", "not available",
    "not known", "not recorded", "no information", "no data", "missing", "blank", "tbd", "see note",
    "see notes", "see note.", "see comment", "see comments", "see below", "see report", "see text",
    "see attached",
})  # fmt: skip

# HL7 v3 NullFlavor codes: null where a real code belongs, real codes in the systems that define them.
_NULL_FLAVORS = frozenset({"asku", "nask", "nav", "ni"})
_NULLS_ARE_CODES = frozenset({"hl7:v3-NullFlavor", "hl7:data-absent-reason", "hl7:v2-0532"})

_TOKEN = re.compile(r"[^\s\x00-\x1f\x7f]{1,64}")
_LONGEST = 256  # characters looked at to tell words from a botched code
_SPACE = re.compile(r"\s")
_DIGIT_IN_FIRST_WORD = re.compile(r"\S*\d")
_LETTER = r"[^\W\d_]"
_SEPARATOR = re.compile(rf"[\s:;|^]|-{_LETTER}")
_WORDS = re.compile(rf"{_LETTER}{{2,}}\W*\s|\s\W*{_LETTER}{{2,}}")
_WORD = re.compile(rf"(?:{_LETTER}|['\u2019.,/&()_-])+")
_WORD_NUMBER = re.compile(rf"{_LETTER}{{4,}}[-/]\d{{1,3}}")
_DESCRIBED = re.compile(
    rf"(?P<code>[^\s:;,|^(]+)(?P<sep>\s*[:;|^]\s*|,?\s+[-\u2013\u2014]+\s*|,?\s+)\W*"
    rf"(?P<text>.*{_LETTER}{{3}}.*)",
    re.DOTALL,
)
_DASHED = re.compile(rf"(?P<code>[A-Za-z0-9.]+)(?P<sep>-)(?P<text>{_LETTER}{{3}}.*)", re.DOTALL)
_NOT_A_LEAK = re.compile(r"(?!.*\d{5})[^@^\s]{1,40}")

# Shapes that show another system by themselves.
_LOINC = re.compile(r"[1-9]\d{2,6}-\d", re.ASCII)
_ICD10_DOTTED = re.compile(r"[A-Z](?:\d[0-9AB]|[A-Z]\d)\.[0-9A-Z]{1,4}", re.ASCII)
_ICD10_WHO = re.compile(r"[A-Z]\d\d(?:\.\d{1,2})?[+*!\u2020\u2021]?", re.ASCII)
_ICD9_DOTTED = re.compile(r"\d{3}\.\d{1,2}|V\d\d\.\d{1,2}|E\d{3}\.\d", re.ASCII)
_ICD9_DX = re.compile(r"[\dV]\d\d\.\d{1,2}|E\d{3}(?:\.\d)?|V\d{2,4}|\d{5}", re.ASCII)
_ICD9_FIVE = re.compile(r"(?:\d{3}|V\d\d)\.\d\d|\d{5}", re.ASCII)  # WHO's ICD-9 has four digits at most
_ICD9_PX = re.compile(r"\d\d\.\d{1,2}", re.ASCII)
_NDC = re.compile(r"\d{4}-\d{4}-\d\d|\d{5}-(?:\d{3}-\d\d|\d{4}-\d{1,2})", re.ASCII)
_PCS = re.compile(r"(?=.*[A-Z])(?=.*\d)[0-9BCDFGHX][0-9A-HJ-NP-Z]{5}Z", re.ASCII)
_ATC = re.compile(r"[ABCDGHJLMNPRSV]\d\d[A-Z]{2}\d\d", re.ASCII)
_MORPHOLOGY = re.compile(r"[89]\d{3}/[0-369]", re.ASCII)
_NUCC = re.compile(r"[1-4]\d{2}(?=.{0,5}[A-Z])[0-9A-Z]{6}X", re.ASCII)
_HPO = re.compile(r"HP:\d{7}", re.ASCII)
_RXE = re.compile(r"OMOP\d{3,}", re.ASCII)
_HCPCS = re.compile(r"[A-V]\d{4}", re.ASCII)

# A number with a dot is an ICD-9 code only where diagnoses or procedures belong; elsewhere it is a number.
_CLINICAL_GROUPS = frozenset({"icd10", "icd9", "icd10pcs", "icd11", "snomed", "meddra", "icpc", "read", "opcs4"})
_DRUG_KEYS = frozenset({"rxnorm", "rxnorm_ext", "atc", "unii", "vandf", "ndfrt", "medrt"})


@dataclass(frozen=True, slots=True)
class Classified:
    """The class of one (system, code) pair.

    ``looks_like`` is the key of the system that the code shows: of ``other-system`` always; of
    ``well-formed`` where the declared system stands for several (an ICD-9-CM procedure under the URI that
    diagnoses share, a CPT code under HCPCS) or says nothing (a local or unknown system); of ``malformed``
    only ``snomed``, for the identifier of a description or relationship.  ``repaired`` is the code as it
    should be, of ``repairable``.
    """

    cls: str
    looks_like: str | None = None
    repaired: str | None = None


_NULL = Classified("null-token")
_WELL = Classified("well-formed")
_FREE = Classified("free-text")
_BAD = Classified("malformed")
_NOT_CONCEPT = Classified("malformed", "snomed")
_OTHER: dict[str, Classified] = {}
_HINTED: dict[str, Classified] = {}


def _other(key: str) -> Classified:
    return _OTHER.setdefault(key, Classified("other-system", key))


def _hinted(key: str | None) -> Classified:
    return _HINTED.setdefault(key, Classified("well-formed", key)) if key else _WELL


def is_null_token(text: str | None) -> bool:
    """Whether a text stands for "nothing": None, empty or one of `NULL_TOKENS`, whatever case and padding."""
    return text is None or text.strip().lower() in NULL_TOKENS


def _strong(text: str) -> tuple[str, ...]:
    """Keys that a trimmed upper-case text shows by its shape, the likeliest first."""
    if not 3 <= len(text) <= 18:
        return ()
    if is_ascii_digits(text):
        return ("snomed",) if is_concept_id(text) else ()
    if "-" in text:
        if _LOINC.fullmatch(text) and mod10_digit(text[:-2]) == text[-1]:
            return ("loinc",)
        return ("ndc",) if _NDC.fullmatch(text) else ()
    if "." in text:
        cm = _ICD10_DOTTED.fullmatch(text) and icd10cm_shape(text.replace(".", "", 1))
        shown = {
            "icd10cm": cm,
            "icd10": cm and _ICD10_WHO.fullmatch(text),
            "icd9cm": _ICD9_DOTTED.fullmatch(text),
        }
        return tuple(key for key, found in shown.items() if found)
    for pattern, key in (
        (_PCS, "icd10pcs"), (_ATC, "atc"), (_MORPHOLOGY, "icdo3"), (_NUCC, "nucc"), (_HPO, "hpo"), (_RXE,
    "rxnorm_ext"), ):  # fmt: skip
        if pattern.fullmatch(text):
            return (key,)
    return ()


def looks_like(code: str | None) -> frozenset[str]:
    """Return the keys of the systems that a code shows by itself, whatever system it is declared under.

    Only strong shapes count: a valid check digit (LOINC with at least three digits before it, SNOMED CT
    concepts) or a form that few other things have (dotted ICD, hyphenated NDC, ICD-10-PCS ending in Z, full
    ATC, ...). A random number passes LOINC's check 1 time in 10 and SNOMED CT's 1 in 500: judge batches,
    not single codes. Bare short integers show nothing: they may be RxNorm, CVX, CPT or anybody's.
    """
    return frozenset(_strong((code or "").strip().upper()))


def _rival(key: str, text: str) -> str | None:
    """The one other system that an ill-formed code of system ``key`` belongs to, None if unclear."""
    if key == "snomed" and is_ascii_digits(text):
        return None  # the only strong shape of bare digits is its own
    group = flavour_group(key)
    for found in _strong(text):
        if found != key and (found != "icd9cm" or text[0] in "EV" or group in _CLINICAL_GROUPS):
            return found
    if group == "icd10":
        if key != "icd10cm" and icd10cm_shape(text.replace(".", "", 1)):
            return "icd10cm"
        return "icd10" if key == "icd10cm" and _ICD10_WHO.fullmatch(text) else None
    if key in {"icd10pcs", "cpt", "hcpcs"} and _ICD9_PX.fullmatch(text):
        return "icd9pcs"
    if key == "cpt" and _HCPCS.fullmatch(text):
        return "hcpcs"
    return "ndc" if key in _DRUG_KEYS and len(text) == 11 and is_ascii_digits(text) else None


def _words(text: str) -> Classified:
    """Free text or malformed: words where a code belongs, or a botched code."""
    if _WORDS.search(text) or _WORD_NUMBER.fullmatch(text):
        return _FREE
    return _FREE if _WORD.fullmatch(text) and sum(map(str.isalpha, text)) >= 4 else _BAD


def _described(key: str, text: str) -> str | None:
    """The code of "code followed by its description", None if the text is no such thing."""
    if _SEPARATOR.search(text) is None or _DIGIT_IN_FIRST_WORD.match(text) is None:
        return None
    grammar = GRAMMARS[key]
    for pattern in (_DESCRIBED, _DASHED):
        found = pattern.fullmatch(text)
        if found is None:
            continue
        head, explicit = found["code"], found["sep"].strip(" ,\t\n") != ""
        # "T10 fracture" or "500 mg" are words; "T10: fracture" is a code and its description.
        if not explicit and (grammar.needs_separator or len(head) < 4):
            continue
        code = head if grammar.accepts(head) else grammar.repair(head)
        if code is not None:
            return code
    return None


def _classify_token(key: str, code: str) -> Classified:
    """Systems without a grammar of their own: one token of printable characters is a code."""
    text = code.strip()
    if text.lower() in NULL_TOKENS and key not in _NULLS_ARE_CODES:
        # FHIR's own systems have codes such as `unknown` and `none`, in lower case.
        fhir = key.startswith("hl7:") and not key.startswith(("hl7:v2-", "hl7:v3-"))
        return _WELL if fhir and code.isalpha() and code.islower() else _NULL
    if _TOKEN.fullmatch(code):
        strong = _strong(code.upper()) if key in {"", "local"} else ()
        return _hinted(strong[0] if strong else None)
    if _TOKEN.fullmatch(text):
        return Classified("repairable", None, text)
    text = text[:_LONGEST]
    return _words(text) if _SPACE.search(text) else _BAD


def classify(key: str, code: str | None) -> Classified:
    """Put one (system, code) pair in its class.

    Args:
        key: The resolved key of the declared system; empty for an unknown or undecided one.
        code: The code as the source has it.

    Returns:
        Its one class, in this order of tests: ``well-formed`` in the declared system; ``null-token``;
        ``repairable`` (case, dot, padding, an integer's ``.0``); ``other-system``; ``repairable`` (code
        followed by its description); ``free-text``; ``malformed``.  SNOMED CT descriptions and
        relationships are no codes of a coded field: ``malformed``, with ``looks_like`` saying why.
    """
    grammar = GRAMMARS.get(key)
    if code is None:
        return _NULL
    if grammar is None:
        return _classify_token(key, code)
    if grammar.null_first and is_null_token(code):
        return _NULL
    if grammar.accepts(code):
        return _hinted(grammar.hint(code)) if grammar.hint is not None else _WELL
    text = code.strip()
    lower = text.lower()
    if lower in NULL_TOKENS or lower in _NULL_FLAVORS:
        return _NULL
    text = text[:_LONGEST]
    if _SPACE.search(text) is None:
        repaired = text if text != code and grammar.accepts(text) else grammar.repair(text)
        if repaired is not None:
            return Classified("repairable", None, repaired)
        rival = _rival(key, text.upper())
        if rival is not None:
            return _other(rival)
    repaired = _described(key, text)
    if repaired is not None:
        return Classified("repairable", None, repaired)
    if key == "snomed" and is_ascii_digits(text) and is_other_sctid(text):
        return _NOT_CONCEPT
    return _words(text)


def classify_pairs(pairs: list[tuple[str, str]]) -> list[Classified]:
    """Classify distinct (key, code) pairs, in their order: cost grows with distinct pairs, not with rows."""
    return [classify(key, code) for key, code in pairs]


def may_leave(key: str, code: str) -> bool:
    """Whether a code may stand in a report (design section 8): well-formed, in a recognised public system.

    Systems without a grammar of their own (HL7 tables, minor systems) accept any token, so there a token
    with a run of five digits, an ``@`` or more than 40 characters stays inside; units are never judged
    here.
    """
    if key == "ucum" or not is_public(key) or classify(key, code).cls != "well-formed":
        return False
    return key in GRAMMARS or _NOT_A_LEAK.fullmatch(code) is not None


def _decide_icd10(codes: list[str]) -> str:
    cm = sum(ICD10_ONLY_CM.fullmatch(code) is not None for code in codes)
    shaped = sum(classify("icd10", code).cls in {"well-formed", "repairable"} for code in codes)
    if cm >= 3 and cm >= 0.02 * (cm + shaped):
        return "icd10cm"
    # A fifth of the distinct codes of an ICD-10-CM feed has six or more characters: fifty without are not it.
    return "icd10" if shaped >= 50 and cm <= 0.005 * shaped else ""


def _decide_icd9(codes: list[str], candidates: tuple[str, ...]) -> str:
    diagnoses = sum(_ICD9_DX.fullmatch(code) is not None for code in codes)
    procedures = sum(_ICD9_PX.fullmatch(code) is not None for code in codes)
    american = sum(_ICD9_FIVE.fullmatch(code) is not None for code in codes)
    if diagnoses + procedures < 3:
        return ""
    if procedures >= 0.9 * (diagnoses + procedures):
        return "icd9pcs" if "icd9pcs" in candidates else ""
    if diagnoses < 0.9 * (diagnoses + procedures):
        return ""
    if american >= 3 and american >= 0.02 * diagnoses:
        return "icd9cm"
    if "icd9who" not in candidates:
        return "icd9cm"
    return "icd9who" if diagnoses >= 50 and american == 0 else ""


def resolve_undecided(candidates: tuple[str, ...], codes: Iterable[tuple[str, int]]) -> str:
    """Decide by the codes which of the candidates a name such as ``I10`` or ``ICD-9`` means.

    Args:
        candidates: Keys, as `systems.resolve` gives them.
        codes: Distinct codes with their counts; each distinct code is one vote, so that a single frequent
            code decides nothing.

    Returns:
        The key, or empty where the codes cannot tell.  ICD-10-CM needs three distinct codes that WHO's ICD-10
        cannot have (six or more characters, letters after the first), and 2 % of the votes; WHO's ICD-10 at
        least 50 distinct codes and (almost) none of those.  ICD-9 diagnoses and procedures are told by the
        dot.
    """
    votes = sorted({code.strip().upper() for code, n in codes if n > 0 and not is_null_token(code)})
    ten = [key for key in candidates if flavour_group(key) == "icd10"]
    nine = [key for key in candidates if flavour_group(key) == "icd9"]
    decided = [_decide_icd10(votes)] if ten else []
    decided += [_decide_icd9(votes, candidates)] if nine else []
    named = [key for key in decided if key in candidates]
    return named[0] if len(named) == 1 else ""
