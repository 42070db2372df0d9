"""Check digits of code systems: LOINC's and the CDC's mod 10, SNOMED CT's Verhoeff."""

from __future__ import annotations

# Verhoeff's dihedral check (Verhoeff 1969; SNOMED CT Technical Implementation Guide, "Check-digit"): D is the
# multiplication of the dihedral group of order 10, the digit at place i from the right is permuted i times.
_D = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)  # fmt: skip
_P1 = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(10))]
    for _ in range(7):
        rows.append(tuple(rows[-1][_P1[digit]] for digit in range(10)))
    return tuple(rows)


_P = _permutations()


def _chunk_tables() -> tuple[dict[str, int], ...]:
    # The group is associative, so three digits are one lookup: the product of their permuted digits, by the
    # place of the last of them and the text of one to three digits.  18 digits are six lookups.
    tables = []
    for place in range(0, 18, 3):
        first, second, third = (_P[(place + i) % 8] for i in range(3))
        table = {str(a): first[a] for a in range(10)}
        table |= {f"{b}{a}": _D[first[a]][second[b]] for b in range(10) for a in range(10)}
        table |= {f"{c}{two}": _D[table[two]][third[c]] for two in [k for k in table if len(k) == 2] for c in range(10)}
        tables.append(table)
    return tuple(tables)


_CHUNKS = _chunk_tables()
_INVERSE = tuple(row.index(0) for row in _D)
_MOD10 = ({str(d): (2 * d - 9 if d > 4 else 2 * d) for d in range(10)}, {str(d): d for d in range(10)})


def verhoeff_valid(digits: str) -> bool:
    """Whether a string of at most 18 ASCII digits, check digit included, passes Verhoeff's check."""
    check = 0
    for table, end in zip(_CHUNKS, range(len(digits), 0, -3), strict=False):
        check = _D[check][table[digits[end - 3 if end > 3 else 0 : end]]]
    return check == 0


def verhoeff_digit(digits: str) -> str:
    """Return the check digit to append to a string of at most 17 ASCII digits."""
    check = 0
    for place, digit in enumerate(reversed(digits), 1):
        check = _D[check][_P[place % 8][int(digit)]]
    return str(_INVERSE[check])


def mod10_digit(digits: str) -> str:
    """Return LOINC's check digit of ASCII digits (LOINC Users' Guide, "Calculating mod 10 check digits").

    From the right, every other digit beginning with the first is doubled and its digits added up: Luhn's sum.
    CDC's race and ethnicity codes carry the same one.
    """
    doubled, plain = _MOD10
    total = sum([doubled[d] for d in digits[::-2]]) + sum([plain[d] for d in digits[-2::-2]])
    return str(-total % 10)


def is_concept_id(text: str) -> bool:
    """Whether ASCII digits are a SNOMED CT concept identifier.

    6 to 18 digits without a leading zero, Verhoeff's check digit last, before it the partition identifier:
    00 for a concept of the International Edition, 10 for an extension's (with a 7-digit namespace, so at
    least 11 digits).
    """
    if not 6 <= len(text) <= 18 or text[0] == "0":
        return False
    partition = text[-3:-1]
    return (partition == "00" or (partition == "10" and len(text) >= 11)) and verhoeff_valid(text)


def is_other_sctid(text: str) -> bool:
    """Whether ASCII digits are a SNOMED CT identifier of a description (x1) or relationship (x2)."""
    if not 6 <= len(text) <= 18 or text[0] == "0":
        return False
    partition = text[-3:-1]
    short = partition in {"01", "02"}
    return (short or (partition in {"11", "12"} and len(text) >= 11)) and verhoeff_valid(text)
