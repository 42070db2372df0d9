"""RxNorm's RRF files (RxNorm Technical Documentation, section 12): RXNCONSO, RXNREL, RXNATOMARCHIVE, RXNCUI.

A release holds today's concepts; the archive and the CUI history name those that were, and what they were merged into.
RXNREL leads from a drug to its ingredients, by which unseen drugs are rolled up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ehrready.terminology.loaders.build import dated, single
from ehrready.terminology.loaders.source import Source
from ehrready.terminology.releases import ReleaseTable

_CONSO, _REL, _ARCHIVE, _CUI = 19, 17, 17, 6  # fields a line: each ends with a separator
#: Term types that name a concept (ingredients, drugs, packs, brands, groups); others are synonyms and forms.
_NAMES = ("PSN", "SCD", "SBD", "GPCK", "BPCK", "IN", "PIN", "MIN", "BN", "SCDC", "SBDC", "SCDF", "SBDF", "SCDG", "SBDG", "SY", "TMSY")
#: Relations (RELA, of the second concept to the first) that lead towards the ingredients: brand to generic, pack to drug, drug to
#: component, precise or multiple ingredient to ingredient (RxNorm Technical Documentation, appendix 1).
_TOWARDS = frozenset({"has_ingredient", "consists_of", "tradename_of", "contains", "form_of", "has_part"})


def read(source: Source, system: str, release: str) -> list[ReleaseTable]:
    """Return the table of one release, retired concepts included."""
    member = source.need(r"RXNCONSO\.RRF", "RXNCONSO.RRF")
    label, effective = dated("rxnorm", source.path.name, release)
    valid: dict[str, bool] = {}
    names: dict[str, list[tuple[int, str]]] = defaultdict(list)
    ingredients: set[str] = set()
    number = 0
    for number, row in source.rows(member, "|", _CONSO):
        if not row[0].isdigit():
            source.wrong(member, number, "the first field is no RXCUI")
        if row[11] == "RXNORM" and row[12] in _NAMES:
            valid[row[0]] = valid.get(row[0], False) or row[16] not in {"O", "E"}
            names[row[0]].append((_NAMES.index(row[12]), row[14]))
            if row[12] == "IN":
                ingredients.add(row[0])
    if len(valid) < 2:
        source.wrong(member, number, "it holds no RxNorm concepts (SAB RXNORM)")
    merged: dict[str, list[str]] = defaultdict(list)
    archive = source.find(r"RXNATOMARCHIVE\.RRF")
    for _, row in source.rows(archive, "|", _ARCHIVE) if archive else ():
        if row[13] == "RXNORM" and row[12] and row[12] not in valid:
            valid[row[12]] = False
            names[row[12]].append((len(_NAMES), row[2]))
        if row[12] and row[15] and row[15] != row[12]:
            merged[row[12]].append(row[15])
    history = source.find(r"RXNCUI\.RRF")
    for _, row in source.rows(history, "|", _CUI) if history else ():
        valid.setdefault(row[0], False)
        if row[4] and row[4] != row[0]:
            merged[row[0]].append(row[4])
    said = {code: [name for _, name in sorted(terms)] for code, terms in names.items()}
    replaced = {code: sorted(set(targets)) for code, targets in merged.items()}
    found = _ingredients(source, valid, ingredients)
    return [
        single(
            source,
            member,
            system,
            label,
            effective,
            valid,
            names=said,
            replacements=replaced,
            attributes={"ingredient": found} if found else None,
        )
    ]


def _ingredients(source: Source, codes: Iterable[str], ingredients: set[str]) -> dict[str, str]:
    """Return code to the RXCUIs of its ingredients, joined by ``+``; nothing where the release has no RXNREL.RRF."""
    member = source.find(r"RXNREL\.RRF")
    if member is None:
        return {}
    towards: dict[str, set[str]] = defaultdict(set)
    for _, row in source.rows(member, "|", _REL):
        if row[10] == "RXNORM" and row[7] in _TOWARDS and row[0] and row[4]:
            towards[row[4]].add(row[0])
    found = {}
    for code in codes:
        seen, ahead = {code}, [code]
        while ahead:
            more = towards.get(ahead.pop(), set()) - seen
            seen |= more
            ahead += more
        if of := seen & ingredients:
            found[code] = "+".join(sorted(of, key=int))
    return found
