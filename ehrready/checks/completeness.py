"""Completeness: is the element there, and is it coded?"""

from __future__ import annotations

from ehrready.checks.base import Outcome, check, skip, state_outcome
from ehrready.profile import Profile


@check("completeness", by_state=True)
def present(profile: Profile, element: str, *, null_tokens: bool = True) -> list[Outcome]:
    """Is the element there in the records to which it applies?

    Absent for a stated reason (FHIR dataAbsentReason, nullFlavor) is no defect; masked values are neither in the
    numerator nor in the denominator; a null token (`UNK`, `N/A`, `-`, HL7v2 `""`) is a defect of its own.

    Numerator: eligible records without the element (defect `missing`), or holding a null token (`null-token`).
    Denominator: records of the table to which the element applies, masked ones apart.

    Options: `null_tokens` (default true): judge null tokens, too.
    """
    outcomes = [state_outcome(profile, element, ("missing",), None)]
    if null_tokens:
        outcomes.append(state_outcome(profile, element, ("null-token",), None))
    found = [outcome for outcome in outcomes if outcome is not None]
    return found or skip("not-applicable", "no records of this table")


@check("completeness", by_state=True)
def coded(profile: Profile, element: str) -> list[Outcome]:
    """Do concepts carry a code, or only text?

    Numerator: concepts with text and no usable coding (`text-only`).
    Denominator: concepts with text or any usable coding; absent concepts are the business of `present`.
    """
    outcome = state_outcome(profile, element, ("text-only",), ("text-only", "coded"))
    if outcome is None:
        return skip("not-applicable", "no records of this table")
    if outcome.of == 0:
        return skip("not-assessed", "no record has this element")
    return [outcome]
