"""One key per code system, whatever a source calls it.

A source names a code system by a FHIR URI, an OID, an HL7 v2 table 0396 mnemonic, an OMOP ``vocabulary_id``
or a spelling of its own; `resolve` turns any of them into one key, and says how sure that is.  The facts
stand in ``data/code_systems.csv`` and, for the systems HL7 itself owns (v2 tables, v3, THO), in
``data/tho_code_systems.csv``; both are made by ``scripts/make_code_systems.py``.

Keys of HL7's own systems are ``hl7:`` and the tail of the canonical URI (``hl7:v2-0203``, ``hl7:v3-ActCode``,
``hl7:observation-category``), of OMOP's own vocabularies ``omop:`` and a slug.  A key is always one that this
package ships (or a four-digit v2 table): it never carries text of the source, so it may stand in a report.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from ehrready.terminology.versions import normalise_version

__all__ = [
    "HOWS",
    "SYSTEMS",
    "Hint",
    "Resolution",
    "System",
    "flavour_group",
    "is_public",
    "normalise_version",
    "resolve",
    "system",
]

#: Where a name comes from: it decides what is the standard's own spelling, and what ``ATC`` means.
Hint = Literal["fhir", "hl7v2", "omop"]

#: How a name was understood, from sure to not at all.
HOWS = ("exact", "alias", "undecided", "local", "unknown-uri", "missing")

_THO = "http://terminology.hl7.org/CodeSystem/"
_FHIR = "http://hl7.org/fhir/"
_V2_OID = "2.16.840.1.113883.12."

# Names that feeds use for one revision of ICD or another: the codes decide (grammar.resolve_undecided).
_ICD10 = ("icd10cm", "icd10")
_ICD9 = ("icd9cm", "icd9pcs", "icd9who")
_UNDECIDED = {
    "i10": _ICD10, "icd10": _ICD10, "10": _ICD10,
    "i9": _ICD9, "icd9": _ICD9, "9": _ICD9, "i9c": ("icd9cm", "icd9pcs"),
}  # fmt: skip

# HL7 v2 mnemonics of v3 and THO systems (table 0396).
_V2_OF_HL7 = {
    "actcode": "hl7:v3-ActCode", "dar": "hl7:data-absent-reason", "edlevel": "hl7:v3-EducationLevel",
    "entitycode": "hl7:v3-EntityCode", "entityhdlg": "hl7:v3-EntityHandling", "nullfl": "hl7:v3-NullFlavor",
    "obsmethod": "hl7:v3-ObservationMethod", "prtcptnmode": "hl7:v3-ParticipationMode",
    "roleclass": "hl7:v3-RoleClass", "rolecode": "hl7:v3-RoleCode",
    "spcu": "hl7:sex-parameter-for-clinical-use", "actrelss": "hl7:v3-ActRelationshipSubset",
    "rspmode": "hl7:v3-ResponseMode",
}  # fmt: skip

_OID = re.compile(r"[0-2](?:\.\d+){2,}", re.ASCII)
_V2_TABLE = re.compile(r"hl7(\d{4})", re.ASCII)
_V2_TAIL = re.compile(r"v2[-/](\d{4})(?:/[\d.]+)?", re.ASCII)
_SNOMED_EDITION = re.compile(r"snomed\.info/x?sct/\d{6,18}(?:/version/\d{6,8})?", re.ASCII)
# Names by which whole families of local systems are known: table 0396's site-defined 99zzz, FHIR's urn:id:,
# and the two vendors' arcs under which every customer has code systems of its own.
_LOCAL = re.compile(
    r"99[ -~]+|urn:(?:id|uuid):.*|(?:urn:oid:)?1\.2\.840\.114350\..*|https?://fhir\.cerner\.com/.+/codeset/.+",
    re.IGNORECASE,
)
_URI = re.compile(r"[a-z][a-z0-9+.-]*:\S.*|www\..+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class System:
    """A code system that this package knows.

    ``canonical_uri`` and ``oid`` are empty where the system has none.  ``public`` says that it is published
    for everybody, so that its well-formed codes single nobody out and may stand in a report (identifiers of
    people and local codes may not).  Systems of one ``flavour_group`` are editions of one another: ICD-10
    and its national modifications, say.
    """

    key: str
    name: str
    canonical_uri: str
    uri_aliases: tuple[str, ...]
    oid: str
    oid_aliases: tuple[str, ...]
    v2_mnemonics: tuple[str, ...]
    v2_aliases: tuple[str, ...]
    omop_vocabulary_ids: tuple[str, ...]
    public: bool
    flavour_group: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a source's name of a code system stands for.

    Args:
        key: The system's key; ``local`` for a site's own system; empty where nothing is known or decided.
        how: One of `HOWS`.  ``exact``: the standard's own name.  ``alias``: an OID, an older URI, another
            spelling or another standard's name.  ``undecided``: the name fits several systems, and their
            codes must be looked at.  ``local``: a site's own name, the way table 0396 asks for or any bare
            word that nobody knows.  ``unknown-uri``: a URI or OID that nobody knows.  ``missing``: no name
            at all.
        candidates: For ``undecided`` the keys it may be, the likeliest in US data first; else empty.
    """

    key: str
    how: str
    candidates: tuple[str, ...] = ()


def _tuple(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split("|") if part)


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (files("ehrready.terminology") / "data" / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _hl7(tail: str, oids: tuple[str, ...] = ()) -> System:
    key = "hl7:" + tail
    return System(key, f"HL7 {tail}", _THO + tail, (), oids[0] if oids else "", oids[1:], (), (), (), True, key)


def _load() -> dict[str, System]:
    systems: dict[str, System] = {}
    taken: set[str] = set()
    for row in _rows("code_systems.csv"):
        systems[row["key"]] = System(
            row["key"], row["name"], row["canonical_uri"], _tuple(row["uri_aliases"]), row["oid"],
            _tuple(row["oid_aliases"]), _tuple(row["v2_mnemonics"]), _tuple(row["v2_aliases"]),
            _tuple(row["omop_vocabulary_ids"]), row["public"] == "yes", row["flavour_group"],
        )  # fmt: skip
        taken.update((row["canonical_uri"], *_tuple(row["uri_aliases"]), row["oid"], *_tuple(row["oid_aliases"])))
    for row in _rows("tho_code_systems.csv"):
        # What the first table claims as an alias (CDC race codes are v2 table 0005) is no system of its own.
        if _THO + row["tail"] not in taken:
            oids = tuple(oid for oid in _tuple(row["oids"]) if oid not in taken)
            systems.setdefault("hl7:" + row["tail"], _hl7(row["tail"], oids))
    return systems


#: Every system this package knows, by key, in the order of the tables.
SYSTEMS: Mapping[str, System] = MappingProxyType(_load())


def _fold_uri(uri: str) -> str:
    """Scheme, ``www.``, case and a trailing slash or hash do not tell code systems apart."""
    return re.sub(r"^https?://(?:www\.)?", "", uri.lower()).rstrip("/#")


def _fold_name(name: str) -> str:
    """``ICD-10-CM``, ``icd10cm`` and ``ICD 10 CM`` are one spelling."""
    return re.sub(r"[\s_.\-/]+", "", name.lower())


class _Index:
    """The names of all systems, by the form in which they are looked up."""

    def __init__(self) -> None:
        self.uri: dict[str, str] = {}
        self.oid: dict[str, str] = {}
        self.v2: dict[str, str] = {}
        self.omop: dict[str, str] = {}
        self.word: dict[str, str] = {}
        self.folded_uri: dict[str, str] = {}
        self.folded_omop: dict[str, str] = {}
        for key, known in SYSTEMS.items():
            for uri in (known.canonical_uri, *known.uri_aliases):
                self.folded_uri.setdefault(_fold_uri(uri), key)
            self.uri.setdefault(known.canonical_uri, key)
            for oid in (known.oid, *known.oid_aliases):
                self.oid.setdefault(oid, key)
            for mnemonic in known.v2_mnemonics:
                self.v2.setdefault(mnemonic, key)
            for word in (*known.v2_mnemonics, *known.v2_aliases):
                self.word.setdefault(_fold_name(word), key)
            for vocabulary in known.omop_vocabulary_ids:
                self.omop.setdefault(vocabulary, key)
                self.folded_omop.setdefault(_fold_name(vocabulary), key)
        self.word.update(_V2_OF_HL7)
        self.v2.update((name.upper(), key) for name, key in _V2_OF_HL7.items())
        for table in (self.uri, self.oid, self.folded_uri):
            table.pop("", None)
        # STU3 and earlier served the systems of THO under FHIR's own address.
        for key in [key for key in SYSTEMS if key.startswith("hl7:")]:
            self.folded_uri.setdefault(_fold_uri(_FHIR + key[4:]), key)
            self.folded_uri.setdefault(_fold_uri(_FHIR + key[4:].replace("v3-", "v3/", 1)), key)


@cache
def _index() -> _Index:
    """Return the names, put together when the first one is looked up."""
    return _Index()


def _by_uri(text: str) -> str:
    """Key of a URI or OID, empty if nobody knows it."""
    names = _index()
    oid = re.sub(r"^(?:urn:)?oid:", "", text, flags=re.IGNORECASE).rstrip(".")
    if _OID.fullmatch(oid):
        found = names.oid.get(oid, "")
        table = oid.removeprefix(_V2_OID)
        return found or (f"hl7:v2-{int(table):04d}" if table != oid and len(table) <= 4 and table.isdigit() else "")
    # `|1.0` is FHIR's way to pin a version in a canonical; editions of SNOMED CT are URIs of their own.
    folded = _fold_uri(text.partition("|")[0].strip())
    if folded in names.folded_uri:
        return names.folded_uri[folded]
    if _SNOMED_EDITION.fullmatch(folded):
        return "snomed"
    for base in (_fold_uri(_THO), _fold_uri(_FHIR)):
        table_match = _V2_TAIL.fullmatch(folded.removeprefix(base + "/"))
        if table_match:
            return names.folded_uri.get(f"{_fold_uri(_THO)}/v2-{table_match[1]}", f"hl7:v2-{table_match[1]}")
    return ""


def _by_word(text: str, hint: Hint | None) -> tuple[str, bool]:
    """Key of a mnemonic or vocabulary_id, empty if nobody knows it; whether it is its exact spelling."""
    names = _index()
    # OMOP first unless the source is HL7 v2: table 0396's ATC is a cell collection, OMOP's the WHO
    # classification.
    if hint != "hl7v2" and text in names.omop:
        return names.omop[text], True
    if text in names.v2:
        return names.v2[text], True
    folded = _fold_name(text)
    table = _V2_TABLE.fullmatch(folded)
    if folded in names.word:
        return names.word[folded], False
    if table:
        return _by_uri(f"{_THO}v2-{table[1]}"), True
    if hint != "hl7v2" and folded in names.folded_omop:
        return names.folded_omop[folded], False
    return "", False


def resolve(system_raw: str | None, hint: Hint | None = None) -> Resolution:
    """Say which code system a source means; never raises.

    Args:
        system_raw: The name as the source has it: Coding.system, CWE.3, vocabulary_id.
        hint: The kind of source.  With it, only that standard's own form of name is ``exact`` (a URI in
            FHIR, a table 0396 mnemonic in HL7 v2, a vocabulary_id in OMOP); without it, all three are.

    Returns:
        The `Resolution`; see there for what each ``how`` means.
    """
    # No name of a code system is that long; a hostile one must not fill the cache.
    text = (system_raw or "").strip()
    return _resolve(text, hint) if len(text) <= 1_000 else Resolution("", "unknown-uri")


@lru_cache(maxsize=16_384)
def _resolve(text: str, hint: Hint | None) -> Resolution:
    names = _index()
    if not text or text == '""' or (text == "None" and hint != "hl7v2"):  # OMOP's vocabulary of concept 0
        return Resolution("", "missing")
    if _LOCAL.fullmatch(text):
        return Resolution("local", "local")
    if _URI.fullmatch(text) or _OID.fullmatch(text):
        key = _by_uri(text)
        exact = text in names.uri and hint in {None, "fhir"}
        return Resolution(key, "exact" if exact else "alias") if key else Resolution("", "unknown-uri")
    folded = _fold_name(text)
    if folded in _UNDECIDED and not (hint == "omop" and text in names.omop):
        return Resolution("", "undecided", _UNDECIDED[folded])
    key, exact = _by_word(text, hint)
    if not key or key == "local":
        return Resolution("local", "local")
    if exact and hint is not None:
        own = {
            "fhir": False,
            "hl7v2": text not in names.omop or text in names.v2,
            "omop": text in names.omop,
        }
        exact = own[hint]
    return Resolution(key, "exact" if exact else "alias")


def system(key: str) -> System:
    """Return the record of a key; KeyError for a key that `resolve` cannot return."""
    if key not in SYSTEMS and _V2_TAIL.fullmatch(key.removeprefix("hl7:")):
        return _hl7(key.removeprefix("hl7:"))  # a user-defined v2 table
    return SYSTEMS[key]


def is_public(key: str) -> bool:
    """Whether the system is published for everybody; False for local, unknown and identifier systems."""
    try:
        return system(key).public
    except KeyError:
        return False


def flavour_group(key: str) -> str:
    """Return the group of editions a key belongs to (``icd10`` for ``icd10cm``); a loner is its own group."""
    try:
        return system(key).flavour_group
    except KeyError:
        return key
