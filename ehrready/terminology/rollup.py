"""What is above a code: its ICD category, LOINC component or RxNorm ingredient.

A category is the beginning of the code.  Components and ingredients stand in the official files alone, so they are known where the
user has added those (``ehrready terminology add``), and not otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ehrready.terminology.releases import Store

#: Systems whose code begins with its category: what stands before the dot.
CATEGORISED = frozenset({"icd10cm", "icd9cm", "icd10"})
#: System to the attribute of its release table that says what a code is of, and what that is called.
_ATTRIBUTES = {"loinc": ("component", "LOINC component"), "rxnorm": ("ingredient", "RxNorm ingredient")}


def category(code: str) -> str:
    """Return the category of an ICD code.

    >>> category("E11.65"), category("I10")
    ('E11', 'I10')
    """
    return code.partition(".")[0]


def level(system: str) -> str:
    """Return what the level above the codes of a system is called, ``""`` where it has none that is known of."""
    return "ICD category" if system in CATEGORISED else _ATTRIBUTES.get(system, ("", ""))[1]


def above(system: str, codes: list[str], store: Store | None) -> dict[str, str]:
    """Return code to what it is of; codes that nothing is known of are left out, all of them where nothing is loaded."""
    if system in CATEGORISED:
        return {code: category(code) for code in codes}
    table = store.table(system) if store is not None and system in _ATTRIBUTES else None
    if table is None:
        return {}
    key = _ATTRIBUTES[system][0]
    found = {code: table.attribute(int(at), key) for code, at in zip(codes, table.positions(codes), strict=True) if at >= 0}
    return {code: name for code, name in found.items() if name}
