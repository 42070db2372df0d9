"""Declared releases of code systems, normalised (checks.md 11).

Each system writes its releases in its own way, and feeds write them in several more.  Only a string that is
recognised as a release of its system comes out, rebuilt from its parts; whatever else a version field holds
(a mnemonic, an HL7 version, a name) becomes None.  So what comes out may stand in a report.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from ehrready.terminology.checkdigits import is_concept_id

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DATES = (
    re.compile(r"(?<!\d)(?P<y>\d{4})[-/.]?(?P<m>\d{2})[-/.]?(?P<d>\d{2})(?:T[\d:.+Z-]*)?(?!\d)", re.ASCII),
    re.compile(r"(?<!\d)(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})(?!\d)", re.ASCII),
    re.compile(r"(?<!\d)(?P<m>\d{2})(?P<d>\d{2})(?P<y>\d{4})(?!\d)", re.ASCII),  # RxNorm: MMDDYYYY
    re.compile(r"(?<!\d)(?P<d>\d{1,2})[- ](?P<m>[A-Za-z]{3})[A-Za-z]*[- ](?P<y>\d{4}|\d{2})(?!\d)", re.ASCII),
)
_YEAR = re.compile(r"(?<![\d.])(?:FY ?)?(20\d\d|19[89]\d)(?![\d.])", re.IGNORECASE | re.ASCII)
_QUARTER = re.compile(r"(20\d\d)[-_ ]?Q([1-4])", re.IGNORECASE | re.ASCII)
_SNOMED = re.compile(r"https?://snomed\.info/sct/(\d{6,18})(?:/version/(\d{8}))?/?", re.ASCII)
_INTERNATIONAL = "900000000000207008"
_US = "731000124108"


def _date(text: str, first_year: int) -> date | None:
    """Return the first real calendar date in the text, None if there is none since ``first_year``."""
    for pattern in _DATES:
        for found in pattern.finditer(text):
            month = found["m"]
            year = int(found["y"]) + (2000 if len(found["y"]) == 2 else 0)
            try:
                day = date(year, int(month) if month.isdigit() else _MONTHS.get(month.lower(), 0), int(found["d"]))
            except ValueError:
                continue
            if first_year <= year < 2100:
                return day
    return None


def _fiscal_year(text: str) -> str | None:
    # US fiscal years begin on 1 October: the release of 2025-10-01 is FY2026, and so is its April update.
    day = _date(text, 2013)
    if day is not None:
        return f"FY{day.year + (day.month >= 10)}"
    month = re.search(r"(?<!\d)(20\d\d)-(0[1-9]|1[0-2])(?!\d)", text, re.ASCII)
    if month:
        return f"FY{int(month[1]) + (int(month[2]) >= 10)}"
    short = re.fullmatch(r"FY ?'?(\d\d)", text, re.IGNORECASE | re.ASCII)
    year = _YEAR.search(text)
    value = int(year[1]) if year else 2000 + int(short[1]) if short else 0
    return f"FY{value}" if 2014 <= value < 2100 else None


def _icd9(text: str) -> str | None:
    # CMS numbered the releases: v23 is FY2006, v32 (the last) FY2015.
    version = re.search(r"(?<![\w.])v?(2[3-9]|3[0-2])(?![\w.])", text, re.IGNORECASE | re.ASCII)
    if version:
        return f"FY{1983 + int(version[1])}"
    year = _YEAR.search(text)
    return f"FY{year[1]}" if year and 1980 <= int(year[1]) <= 2015 else None


def _snomed(text: str) -> str | None:
    uri = _SNOMED.fullmatch(text)
    if uri:
        module, day = uri.groups()
        if not is_concept_id(module) or (day and _date(day, 2002) is None):
            return None
        return f"http://snomed.info/sct/{module}" + (f"/version/{day}" if day else "")
    # OHDSI names the editions one after the other, the International one first.
    for part in text.split(";"):
        found = _date(part, 2002)
        if found is not None:
            stamp = f"{found:%Y%m%d}"
            module = _INTERNATIONAL if "internat" in part.lower() else _US if "us edition" in part.lower() else ""
            return f"http://snomed.info/sct/{module}/version/{stamp}" if module else stamp
    return None


def _dated(first_year: int) -> Callable[[str], str | None]:
    def normalise(text: str) -> str | None:
        found = _date(text, first_year)
        return found.isoformat() if found else None

    return normalise


def _pattern(expression: str, form: str = "{}") -> Callable[[str], str | None]:
    # The system's own name and the word "version" may stand before the number, "release" or "edition" behind.
    shape = re.compile(
        rf"(?:[A-Za-z][\w-]*\s+)?(?:v|v\.|ver\.?|version|release|codebook version)?\s*({expression})"
        r"(?:\s+(?:release|edition))?",
        re.IGNORECASE | re.ASCII,
    )

    def normalise(text: str) -> str | None:
        found = shape.fullmatch(text)
        return form.format(found[1]) if found else None

    return normalise


def _year(text: str) -> str | None:
    found = _pattern(r"(?:19[89]|20\d)\d")(text)
    day = _date(text, 1990) if found is None else None
    return found if day is None else str(day.year)


def _hcpcs(text: str) -> str | None:
    day, quarter = _date(text, 2000), _QUARTER.search(text)
    if day is not None:
        return f"{day.year}Q{(day.month + 2) // 3}"
    return f"{quarter[1]}Q{quarter[2]}" if quarter else _year(text)


def _omop(text: str) -> str | None:
    found = re.fullmatch(r"v?(\d\.\d)\s+(\d{2}-[A-Za-z]{3}-\d{2,4})\*?", text, re.ASCII)
    day = _date(found[2], 2010) if found else None
    return f"v{found[1]} {day.isoformat()}" if found and day else None


_RULES: dict[str, Callable[[str], str | None]] = {
    "icd10cm": _fiscal_year,
    "icd10pcs": _fiscal_year,
    "icd9cm": _icd9,
    "icd9pcs": _icd9,
    "icd10": _year,
    "icd10gm": _year,
    "icd10am": _pattern(r"[1-9]|1[0-9]"),
    "icd11": _pattern(r"20[12]\d-(?:0[1-9]|1[0-2])"),
    "loinc": _pattern(r"2\.\d\d"),  # two digits always: 2.5 or 2.5.1 is an HL7 version in the wrong place
    "snomed": _snomed,
    "rxnorm": _dated(2002),
    "rxnorm_ext": _dated(2015),
    "ndc": _dated(2000),
    "cvx": _dated(1999),
    "mvx": _dated(1999),
    "vandf": _dated(2000),
    "dmd": _dated(2003),
    "cpt": _year,
    "cdt": _year,
    "hcpcs": _hcpcs,
    "atc": _year,
    "mesh": _year,
    "opcs4": _pattern(r"4\.\d{1,2}"),
    "meddra": _pattern(r"\d\d\.[01]"),
    "nucc": _pattern(r"\d{1,2}\.[01]"),
    "nci": _pattern(r"\d\d\.\d\d[a-e]"),
    "umls": _pattern(r"20\d\dA[AB]"),
    "ucum": _pattern(r"[12]\.\d(?:\.\d)?"),
    "cdcrec": _pattern(r"1\.[0-9]"),
    "msdrg": _pattern(r"[2-9]\d(?:\.\d)?", "v{}"),
    "omop": _omop,
}
_V2 = _pattern(r"2\.[1-9](?:\.[12])?")
_SEMVER = _pattern(r"\d\.\d{1,2}\.\d{1,2}(?:-[a-z]{3,9}\d?)?")


def normalise_version(key: str, raw: str | None) -> str | None:
    """Return the declared release of a system in its one form, None where it is not recognised as one.

    Args:
        key: The system's key.
        raw: What the source declares: Coding.version, CWE.7, vocabulary_version.

    Returns:
        ``FY2026`` (ICD-10-CM and PCS, ICD-9-CM), ``2.81`` (LOINC), ``http://snomed.info/sct/{module}/version/
        {date}`` or, where the edition is not said, ``20250901`` (SNOMED CT), an ISO date (RxNorm, NDC,
        CVX), a year or a year and quarter (CPT, HCPCS), a version number (others), else None.
    """
    text = (raw or "").strip()
    if not text or len(text) > 300:
        return None
    rule = _RULES.get(key)
    if rule is None and key.startswith("hl7:"):
        return (_V2(text) or _SEMVER(text)) if key.startswith("hl7:v2-") else _SEMVER(text)
    return rule(text) if rule else None
