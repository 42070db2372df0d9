"""The grammars of single code systems: which texts are codes of them, and how a botched one is repaired."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ehrready.terminology.checkdigits import is_concept_id, mod10_digit

Accepts = Callable[[str], bool]
Repair = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Grammar:
    """How the codes of one system look.

    ``accepts`` says whether a text is well-formed as it stands; ``repair`` turns a trimmed, ill-formed text into the code that it
    most likely was meant to be, or None.  With ``needs_separator`` a code is told from the first word of
    a sentence only by a colon, dash or bar behind it (a bare integer or a short word proves nothing).  With
    ``null_first`` the null tokens would pass as codes and are tested before.  ``hint`` names another system
    that shares the declared one's name, where the code shows it.
    """

    accepts: Accepts
    repair: Repair
    needs_separator: bool = False
    null_first: bool = False
    hint: Callable[[str], str | None] | None = None


def is_ascii_digits(text: str) -> bool:
    """Whether a text is ASCII digits only: ``str.isdigit`` accepts superscripts and other scripts too."""
    return text.isascii() and text.isdigit()


def _regex(expression: str) -> Accepts:
    fullmatch = re.compile(expression, re.ASCII).fullmatch

    def accepts(text: str) -> bool:
        return fullmatch(text) is not None

    return accepts


def _repairs(accepts: Accepts, *edits: Callable[[str], str]) -> Repair:
    """Try the upper-case text as it is, then each edit of it; the first accepted one wins."""

    def repair(text: str) -> str | None:
        plain = text.upper()
        if plain != text and accepts(plain):
            return plain
        for edit in edits:
            edited = edit(plain)
            if edited != plain and accepts(edited):
                return edited
        return None

    return repair


def _dot_after(place: int) -> Callable[[str], str]:
    def edit(text: str) -> str:
        # The dot is missing, or it is the last character (a three-character code with a dot left over).
        bare = text.rstrip(".")
        return bare if len(bare) <= place or "." in bare else f"{bare[:place]}.{bare[place:]}"

    return edit


def _unpad(text: str) -> str:
    return text.lstrip("0")


def _integer(text: str) -> str:
    # What a spreadsheet or a float column makes of an integer.
    return text.removesuffix(".0")


def _pad(width: int) -> Callable[[str], str]:
    def edit(text: str) -> str:
        bare = text.removesuffix(".0")
        return bare.lstrip("0").zfill(width) if is_ascii_digits(bare) else text

    return edit


# Every shape in the code tables of FY2016 to FY2027, without the dot: 9 a digit, X the placeholder, A
# another letter.  Position 2 holds letters since FY2026 (QA0.1).
_CM_SHAPES = frozenset({
    "A99", "A9A", "AA9", "A999", "A99A", "A99X", "A9A9", "AA99", "A9999", "A999A", "A999X", "A99A9",
    "A99AA", "A99AX", "A99X9", "A9A99", "AA999", "A99999", "A9999A", "A999A9", "A999AA", "A999X9",
    "A999XA", "A99A99", "A99AX9", "A99X99", "A9A999", "AA9999", "A999999", "A99999A", "A9999A9",
    "A9999AA", "A9999X9", "A9999XA", "A999A9A", "A999AAA", "A999AXA", "A999X99", "A999X9A", "A999XAA",
    "A999XX9", "A999XXA", "A99A999", "A99A99A", "A99A9XA", "A99AX9A", "A99AXX9", "A99XXXA", "A9A9999",
    "A9A99X9", "A9A9XX9", "AA99999",
})  # fmt: skip
_CM_TABLE = str.maketrans("0123456789ABCDEFGHIJKLMNOPQRSTUVWYZ", "9" * 10 + "A" * 25)

#: Codes (dotted or not) that ICD-10-CM can have and WHO's ICD-10 cannot: letters after the first, six or
#: more characters.
ICD10_ONLY_CM = re.compile(r"[A-Z]\d[0-9AB]\.?(?:[0-9A-Z]{3,4}|(?=\d?[A-Z])[0-9A-Z]{1,2})|[A-Z]\d[AB](?:\.?[0-9A-Z]{1,4})?", re.ASCII)

# Looser than the shapes: the code tables grow every year, and a declared, dotted code deserves the doubt.
_icd10cm = _regex(r"[A-Z](?:\d[0-9A-Z]|[A-Z]\d)\.[0-9A-Z]{1,4}|[A-Z](?:\d[0-9AB]|[A-C]\d)")


def icd10cm_shape(nodot: str) -> bool:
    """Whether an upper-case text without dot has a shape that occurs in the ICD-10-CM code tables."""
    if not 3 <= len(nodot) <= 7 or not nodot.isascii() or not "A" <= nodot[0] <= "Z":
        return False
    # No seventh character is a Z; ICD-10-PCS codes mostly end in one.
    return "A" + nodot[1:].translate(_CM_TABLE) in _CM_SHAPES and not (len(nodot) == 7 and nodot[6] == "Z")


def _icd10cm_edit(text: str) -> str:
    bare = text.rstrip(".")
    return bare if len(bare) <= 3 or not icd10cm_shape(bare) else f"{bare[:3]}.{bare[3:]}"


_icd10 = _regex(r"[A-Z]\d\d(?:\.(?:\d{1,2}|-))?[+*!†‡]?")
_icd10_national = _regex(r"[A-Z]\d\d(?:\.(?:\d{1,3}|-))?[+*!†‡]?")
_icd10_loose = _regex(r"[A-Z]\d\d(?:\.[0-9A-Za-z+*-]{1,6})?[+*]?")
_icd9cm_dx = _regex(r"(?:\d{3}|V\d\d)(?:\.\d{1,2})?|E\d{3}(?:\.\d)?")
_icd9_px = _regex(r"\d\d(?:\.\d{1,2})?")
_icd9_px_dotted = _regex(r"\d\d\.\d{1,2}")
_icd9who = _regex(r"\d{3}(?:\.\d)?|[EV]\d{2,3}(?:\.\d)?")
_icd10pcs = _regex(r"[0-9BCDFGHX][0-9A-HJ-NP-Z]{6}")
_loinc_shape = re.compile(r"\d{1,7}-\d|L[AGLP]\d{1,7}-\d", re.ASCII).fullmatch
_cdcrec_shape = _regex(r"[12]\d{3}-\d|[RE]\d(?:\.\d\d(?:\.\d{3}(?:\.\d{3})?)?)?")
_rxnorm = _regex(r"[1-9]\d{0,7}")
_cvx = _regex(r"0[1-9]|[1-9]\d{1,2}")
_hcpcs_only = _regex(r"[A-V]\d{4}")
_cpt = _regex(r"\d{5}|\d{4}[AFMTU]")
_ndc = _regex(
    r"\d{10,11}|\d{4}-\d{4}-\d\d|\d{5}-\d{3}-\d\d|\d{5}-\d{4}-\d{1,2}"  # 4-4-2, 5-3-2, 5-4-1, 5-4-2
    r"|[\d*]\d{4}-?[\d*]\d{3}-?[\d*]\d"  # an asterisk for the zero that was put in
)
_expression = re.compile(r"\d{6,18}(?:\s*\|[^|]*\|)?\s*[+:](?:[\d\s:+,=(){}]|\|[^|]*\|)+", re.ASCII).fullmatch


def _loinc(text: str) -> bool:
    # Answers (LA), answer lists (LL), parts (LP) and groups (LG) have check digits too, but their rule is not
    # published: the shape decides.
    if _loinc_shape(text) is None:
        return False
    return text[0] == "L" or (text[0] != "0" and mod10_digit(text[:-2]) == text[-1])


def _cdcrec(text: str) -> bool:
    return _cdcrec_shape(text) and (text[0] in "RE" or mod10_digit(text[:4]) == text[5])


def _snomed(text: str) -> bool:
    if text.isdigit():
        return text.isascii() and is_concept_id(text)
    # Post-coordinated expressions: every identifier in them must be one.
    if _expression(text) is None:
        return False
    return all(is_concept_id(found) for found in re.findall(r"\d+", re.sub(r"\|[^|]*\|", "", text)))


def _icd9cm(text: str) -> bool:
    # One FHIR URI covers diagnoses and procedures; the dot tells them apart.
    return _icd9cm_dx(text) or _icd9_px_dotted(text)


def _icd9_dot(text: str) -> str:
    bare = text.rstrip(".")
    return bare if "." in bare else _dot_after(4 if bare[:1] == "E" else 3)(bare)


def _icd9px_dot(text: str) -> str:
    whole, dot, rest = text.rstrip(".").partition(".")
    return f"{whole.zfill(2)}.{rest}" if dot else _dot_after(2)(whole)


def _rxnorm_edit(text: str) -> str:
    # Ten and eleven digits are an NDC with its leading zeros, not a padded RxCUI.
    bare = text.removesuffix(".0")
    return bare.lstrip("0") if len(bare) <= 9 else bare


def _hint_icd9(text: str) -> str | None:
    return "icd9pcs" if text[2:3] == "." else None


def _hint_hcpcs(text: str) -> str | None:
    return None if "A" <= text[0] <= "V" else "cpt"


def _plain(expression: str, *edits: Callable[[str], str], needs_separator: bool = False) -> Grammar:
    accepts = _regex(expression)
    return Grammar(accepts, _repairs(accepts, *edits), needs_separator)


def _trimmed(expression: str) -> Grammar:
    """Case matters or carries no meaning: only the padding can be repaired."""
    return Grammar(_regex(expression), lambda _: None, needs_separator=True, null_first=True)


_ucum = _trimmed(r"(?:[!-z|~]|\{[!-z|~ ]*\})+")

#: The grammars, by system key; systems that are not here take any single token for a code.
GRAMMARS: dict[str, Grammar] = {
    "icd10cm": Grammar(_icd10cm, _repairs(_icd10cm, _icd10cm_edit)),
    "icd10pcs": Grammar(_icd10pcs, _repairs(_icd10pcs)),
    "icd10": Grammar(_icd10, _repairs(_icd10, _dot_after(3))),
    **{key: Grammar(_icd10_national, _repairs(_icd10_national, _dot_after(3))) for key in ("icd10gm", "icd10ca", "icd10am")},
    **{key: Grammar(_icd10_loose, _repairs(_icd10_loose)) for key in ("icd10nl", "icd10cn", "cim10", "kcd7")},
    "icd9cm": Grammar(_icd9cm, _repairs(_icd9cm, _icd9_dot), hint=_hint_icd9),
    "icd9pcs": Grammar(_icd9_px, _repairs(_icd9_px, _icd9px_dot)),
    "icd9who": Grammar(_icd9who, _repairs(_icd9who, _icd9_dot)),
    "icd11": _plain(r"(?:[0-9A-HJ-NP-Z]{4}(?:\.[0-9A-HJ-NP-Z]{1,3})?)(?:[&/][0-9A-HJ-NP-Z.]+)*"),
    "icdo3": _plain(r"C\d\d(?:\.\d)?|(?:M-?)?\d{4}/[0-369]\d?(?:-C\d\d\.\d)?", _dot_after(3)),
    "icf": _plain(r"[BSDE]\d{1,5}(?:[.+]\d{1,3})?"),
    "icpc2": _plain(r"[A-Z]\d\d"),
    "opcs4": _plain(r"[A-Z]\d\d(?:\.\d)?", _dot_after(3)),
    "loinc": Grammar(_loinc, _repairs(_loinc, _unpad)),
    "snomed": Grammar(_snomed, _repairs(_snomed, _integer, _unpad)),
    "dmd": Grammar(_snomed, _repairs(_snomed, _integer, _unpad)),
    "snomed_rt": _plain(r"[A-Z][0-9A-Z]?-[0-9A-Z]{3,6}"),
    "rxnorm": Grammar(_rxnorm, _repairs(_rxnorm, _rxnorm_edit), needs_separator=True),
    "rxnorm_ext": _plain(r"OMOP\d{1,8}"),
    "ndc": Grammar(_ndc, _repairs(_ndc, _integer), needs_separator=True),
    "cvx": Grammar(_cvx, _repairs(_cvx, _pad(2)), needs_separator=True),
    "mvx": _plain(r"[A-Z]{2,4}", needs_separator=True),
    "cpt": Grammar(_cpt, _repairs(_cpt, _integer), needs_separator=True),
    # HCPCS Level I is CPT, and many feeds send both under one name.
    "hcpcs": Grammar(lambda t: _hcpcs_only(t) or _cpt(t), _repairs(_hcpcs_only), hint=_hint_hcpcs),
    "cdt": _plain(r"D\d{4}"),
    "ucum": _ucum,
    "atc": _plain(r"[ABCDGHJLMNPRSV](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?"),
    "meddra": _plain(r"[1-9]\d{7}", _integer, needs_separator=True),
    "unii": _plain(r"[0-9A-Z]{10}", needs_separator=True),
    "mesh": _plain(r"[CDQ]\d{6}(?:\d{3})?"),
    "nci": _plain(r"C\d{3,7}"),
    "umls": _plain(r"C\d{7}"),
    "hpo": _plain(r"HP:\d{7}"),
    "ndfrt": _plain(r"N\d{10}"),
    "vandf": _plain(r"\d{7}|[A-Z]{2}\d{3}", needs_separator=True),
    "read": _trimmed(r"[0-9A-Za-z]{1,5}\.{0,4}|[0-9A-Za-z]{5}[0-9A-Za-z]{2}"),
    "cdcrec": Grammar(_cdcrec, _repairs(_cdcrec)),
    "nucc": _plain(r"\d{2}[0-9A-Z]{7}X"),
    "nubc_rev": _plain(r"\d{4}", _pad(4), needs_separator=True),
    "msdrg": _plain(r"\d{3}", _pad(3), needs_separator=True),
    "sopt": _plain(r"[1-9]\d{0,5}", _integer, needs_separator=True),
    "omop": _plain(r"0|[1-9]\d{0,9}", _integer, needs_separator=True),
    "bcp47": _trimmed(r"(?!unk|nul)[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*"),
    "iso639": _trimmed(r"(?!unk|nul)[A-Za-z]{2,3}"),
    "iso3166": _plain(r"(?!UNK)[A-Z]{2,3}|\d{3}", needs_separator=True),
    "iso4217": _plain(r"(?!UNK|NAN)[A-Z]{3}", needs_separator=True),
    "hsloc": _plain(r"\d{4}-\d"),
    "dicom_uid": _plain(r"[12](?:\.\d+){4,}"),
}
