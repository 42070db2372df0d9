"""What a check is: one function from profiles to outcomes, whose keyword-only arguments are its YAML options.

A *counting* check looks at one profile and returns numbers; the rule's limits decide.  A *comparing* check takes
the live and the training profile and decides itself, because its limit depends on both samples.  Register with
:func:`check`; third parties do so from an entry point in the group ``ehrready.checks``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ehrready import stats
from ehrready.profile import Profile

DIMENSIONS = ("completeness", "conformance", "release", "plausibility", "comparability")
#: Dimensions of what is no data: the EHR it comes from, the model that runs on it. They stand in a scorecard only where there
#: are findings of them.
EXTRA_DIMENSIONS = ("integration", "production")


@dataclass(slots=True)
class Outcome:
    """What a check found for one element, group and defect: ``n`` defects of ``of``; None is a hidden count.

    ``status`` is empty for a counting check (the limits decide) and ``pass``, ``fail``, ``not-assessed`` or
    ``not-applicable`` otherwise; ``reason`` says why it was not assessed.  ``patients`` have the defect,
    ``of_patients`` are all; ``n2``, ``of2``, ``n_of`` are the moments over patients.  ``detail`` is a public text
    for the message; ``p`` and ``family`` are for false-discovery control.  ``cells`` are the rows of the profile that the
    defect consists of (codes, buckets of a histogram) with their counts, where it does: findings on the same cells have
    one cause (ehrready.causes).
    """

    defect: str
    n: int | None = None
    of: int | None = None
    patients: int | None = None
    of_patients: int | None = None
    n2: int | None = None
    of2: int | None = None
    n_of: int | None = None
    status: str = ""
    reason: str = ""
    detail: str = ""
    training: tuple[int, int] | None = None
    training_patients: int | None = None
    few: bool = False  # fewer than 11 patients, where their exact number is not measured
    effect: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    family: str = ""
    group: dict[str, str] = field(default_factory=dict)
    people: bool = True  # False where n counts things that no patient stands behind, such as distinct public codes
    cells: dict[tuple[str, ...], float] = field(default_factory=dict)
    independent: tuple[float, float] | None = None  # effective n of a comparison: here, and of what it is compared with
    partition: str = ""  # findings that share it add up to one denominator (small-cell hiding)

    @property
    def rate(self) -> float | None:
        """``n`` / ``of``; None when either is hidden or nothing was counted."""
        return self.n / self.of if self.n is not None and self.of else None

    @property
    def effective_n(self) -> float:
        """Sample size after the design effect; rows are taken as independent only where moments are missing."""
        if None in (self.n, self.of, self.n2, self.of2, self.n_of):
            return float(min(self.of or 0, self.of_patients or self.of or 0))
        return stats.effective_n(self.n or 0, self.of or 0, self.n2 or 0, self.of2 or 0, self.n_of or 0)


def skip(status: str, reason: str) -> list[Outcome]:
    """Return the one outcome of a check that could not be assessed or does not apply."""
    return [Outcome("", status=status, reason=reason)]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a rule's own measure counted: ``n`` defects of ``of`` records, of so many patients (None: not counted), in a group.

    ``people`` False: no patient stands behind the number; it is 0 or 1 of 1 and says whether something holds of a table.
    """

    n: int
    of: int
    patients: int | None = None
    group: tuple[tuple[str, str], ...] = ()
    people: bool = True


class CannotCount(Exception):
    """A rule's own measure failed; the message is a template that may stand in a report.

    ``status`` is ``not-applicable`` where there is nothing to count, else ``error``.
    """

    def __init__(self, message: str, status: str = "error") -> None:
        self.status = status
        super().__init__(message)


#: Counts for a rule, of the engine and the rule's options, or a function that counts without the engine.
Measured = Callable[[Any, dict[str, Any]], "list[Counted] | Callable[[], list[Counted]]"]


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check: ``compares`` when it needs a training profile, ``whole`` when it has no element.

    ``decides`` says that it sets the status itself (every comparing check does); else the rule's limits do.
    The function takes, in this order: the profile, the training profile if it ``compares``, the element unless it is
    ``whole``, the store of release tables if it ``looks_up``, and the rule's (id, digest) if it is ``measured``.

    ``by_state``: it reads nothing but the states of an element, which are measured by site, too.  ``measured``: counts
    for a check whose rules say themselves what is to be counted, from the locked engine and the rule's options
    (ehrready.custom).  ``apart``: says whether what ``measured`` does with what it fetched is to be done beside the other measures; it then returns
    a function that counts.  ``may_compare``: it takes the training profile where there is one, else None.  ``lint`` returns what is wrong with the options beyond their types.
    """

    name: str
    dimension: str
    run: Callable[..., list[Outcome]]
    compares: bool
    whole: bool
    looks_up: bool
    decides: bool
    options: dict[str, inspect.Parameter]
    by_state: bool = False
    measured: Measured | None = None
    lint: Callable[[dict[str, Any]], list[str]] | None = None
    may_compare: bool = False
    apart: Callable[[Any], bool] | None = None

    @property
    def by_site(self) -> bool:
        """Whether it can be judged by site: it counts records of an element, and rules do not say how."""
        return not (self.whole or self.decides or self.measured)

    @property
    def help(self) -> str:
        """The docstring: the user's text, with Numerator and Denominator."""
        return inspect.getdoc(self.run) or ""

    @property
    def words(self) -> dict[str, str]:
        """The docstring's question and what it says the numerator and the denominator are, each on one line."""
        found = {"question": self.help.partition("\n\n")[0]}
        for key in ("Numerator", "Denominator"):
            text = re.search(rf"{key}:\s*(.*?)(?=\s*Denominator:|\n\s*\n|$)", self.help, re.DOTALL)
            found[f"{key.lower()}_text"] = text[1] if text else ""
        return {key: " ".join(text.split()) for key, text in found.items()}


CHECKS: dict[str, Check] = {}


def check(
    dimension: str,
    *,
    compares: bool = False,
    whole: bool = False,
    looks_up: bool = False,
    decides: bool = False,
    by_state: bool = False,
    measured: Measured | None = None,
    lint: Callable[[dict[str, Any]], list[str]] | None = None,
    may_compare: bool = False,
    apart: Callable[[Any], bool] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a check; its name with dashes is the ``check`` of a rule."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        name = run.__name__.replace("_", "-")
        parameters = inspect.signature(run, eval_str=True).parameters
        options = {key: p for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if name in CHECKS or dimension not in (*DIMENSIONS, *EXTRA_DIMENSIONS):
            raise ValueError(f"check {name} is registered twice or its dimension is unknown")
        CHECKS[name] = Check(
            name, dimension, run, compares, whole, looks_up, decides or compares or may_compare, options, by_state, measured, lint, may_compare, apart
        )  # fmt: skip
        return run

    return register


def state_outcome(profile: Profile, element: str, defects: tuple[str, ...], universe: tuple[str, ...] | None) -> Outcome | None:
    """Count the records of an element in ``defects`` states among those in ``universe`` (None: all but masked).

    Returns None when no record has the element's table; counts are None when a hidden cell is part of them.
    """
    cells = {key[3]: values for key, values in profile.rows("states", element, "all", "")}
    total = cells.get("*")
    if total is None:
        return None
    zero = (0, 0, 0, 0)
    if universe is None:
        masked = cells.get("masked", zero)
        of, of_patients, of2 = _minus(total[0], masked[0]), total[1], total[2]
    else:
        parts = [cells.get(state, zero) for state in universe]
        of, of2 = _sum([p[0] for p in parts]), None
        of_patients = None if of is None else min(total[1] or 0, _sum([p[1] for p in parts]) or 0)
        # every patient's records are nearly all in the universe: the total's moments are the honest bound
        of2 = total[2]
    found = [cells.get(state, zero) for state in defects]
    return Outcome(
        defects[0],
        _sum([f[0] for f in found]),
        of,
        _most([f[1] for f in found], total[1]),
        of_patients,
        _sum([f[2] for f in found]),
        of2,
        _sum([f[3] for f in found]),
        partition=element,
    )


def _sum(values: list[int | None]) -> int | None:
    return None if any(v is None for v in values) else sum(v or 0 for v in values)


def _minus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


def _most(values: list[int | None], ceiling: int | None) -> int | None:
    """Patients with any of several defects: exact for one, at most the sum and the ceiling for several."""
    total = _sum(values)
    return total if total is None or ceiling is None else min(total, ceiling)
