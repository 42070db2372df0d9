"""Units: are they there, understood, right for the analyte, and those that the model was trained on?"""

from __future__ import annotations

from collections import defaultdict

from ehrready import analytes
from ehrready import units as ucum
from ehrready.analytes import Analyte
from ehrready.checks.base import Outcome, check, skip
from ehrready.checks.plausibility import relation
from ehrready.histograms import Histogram, by_cell, histograms, quantile
from ehrready.profile import Profile
from ehrready.units import Unit

CLASSES = ("unit-missing", "unit-unparseable", "unit-incommensurable")

#: Units in which an analyte may have been sent under another's label, by dimension of the label.
_USUAL: dict[str, tuple[str, ...]] = {
    "length-3.mass": ("g/dL", "g/L", "mg/dL", "mg/L", "ug/dL", "ug/L", "ng/dL", "ng/L", "mmol/L", "umol/L", "nmol/L", "pmol/L"),
    "length-3.substance": ("mmol/L", "umol/L", "nmol/L", "pmol/L", "g/dL", "mg/dL", "ug/dL", "ng/dL", "ng/L", "ug/L"),
    "temperature": ("Cel", "[degF]"),
    "mass": ("kg", "[lb_av]", "g", "[oz_av]"),
    "length": ("cm", "[in_i]", "m", "[ft_i]"),
    "length-1.mass.time-2": ("mm[Hg]", "kPa"),
    "length-3": ("10*3/uL", "/uL", "10*6/uL"),
    "1": ("%", "1"),
}
#: Confusions that no unit names: urea (60.06 g/mol) reported for its nitrogen (28.01).
_CONFUSED: dict[str, tuple[tuple[str, float], ...]] = {"Urea nitrogen": (("urea, not urea nitrogen", 60.06 / 28.014),)}


@check("conformance")
def unit_valid(profile: Profile, element: str, *, classes: list[str] | None = None, analyte_rate: float = 0.5) -> list[Outcome]:
    """Is the unit one that can be understood, and of the kind that the analyte is measured in?

    A unit is looked up as typed in a table of EHR spellings (`mmHg`, `K/uL`, `mEq/L`), then in UCUM.  Every numeric result
    has at most one of these defects: `unit-missing` (none, or a null token), `unit-unparseable`, `unit-incommensurable`
    (mmol/L for an analyte whose LOINC property is a mass concentration).  `unit-familiar` has the fourth class.

    Numerator: numeric results with the defect.  Denominator: numeric results.
    It fails, too, where one analyte (30 results, 11 patients) has the defect in half of its results or more.

    Options: `classes` (default: all three); `analyte_rate` (default 0.5).
    """
    found = []
    tops: dict[str, list[tuple[float, str]]] = defaultdict(list)
    cells: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(lambda: defaultdict(lambda: (0, 0)))
    for (_, system, code, unit), (n, patients, *_) in profile.rows("units", element):
        if code and n is not None:
            cls = analytes.unit_class(system, code, unit)
            before = cells[system, code][cls]
            cells[system, code][cls] = (before[0] + n, max(before[1], patients or 0))
    for (system, code), counts in cells.items():
        total = sum(n for n, _ in counts.values())
        for cls, (n, patients) in counts.items():
            if cls and total >= 30 and patients > 10 and n >= analyte_rate * total:
                tops[cls].append((n / total, f"{system} {code}"))
    for cls in classes or CLASSES:
        outcome = relation(profile, element, cls, partition=f"{element} classes")
        if outcome is None or not outcome.of:
            continue
        if tops[cls]:
            names = ", ".join(name for _, name in sorted(tops[cls], key=lambda top: (-top[0], top[1]))[:3])
            outcome.detail = f"at least {analyte_rate:.0%} of {names}"
            if outcome.n is not None:
                outcome.status, outcome.limit = "fail", analyte_rate
        found.append(outcome)
    return found or skip("not-applicable", "no numeric result")


@check("comparability", compares=True)
def unit_familiar(profile: Profile, training: Profile, element: str, *, margin: float = 0.01, min_n: int = 30) -> list[Outcome]:
    """Does every analyte come in a unit that training had for it?

    Spellings of one unit are one unit.  Classes, disjoint from those of `unit-valid`: `unit-unfamiliar` (converts, but
    training never had it) and `unit-incommensurable` (does not convert to any that training had, for analytes whose LOINC
    property is not known).

    Numerator: numeric results with the defect.  Denominator: numeric results of analytes with at least `min_n` results
    in training, whose unit is valid.  Alarms at the margin, or where an analyte (`min_n` results, 11 patients) has
    no result left in a unit of training.

    Options: `margin` (default 0.01); `min_n`.
    """
    then = _canonical(training, element)
    seen = {
        name: units
        for name, units in then.items()
        if sum(n or 0 for n, _ in units.values()) >= min_n or any(n is None for n, _ in units.values())
    }
    counts = {"unit-unfamiliar": 0, "unit-incommensurable": 0}
    most = dict.fromkeys(counts, 0)
    tops: dict[str, list[tuple[int, str]]] = {name: [] for name in counts}
    lost: set[str] = set()
    hidden, of = False, 0
    for name, now in _canonical(profile, element).items():
        if name not in seen:
            continue
        total = new = 0
        for code, (n, patients) in now.items():
            if code in seen[name]:
                total += n or 0
                continue
            hidden = hidden or n is None
            if n is None:
                continue
            unit = ucum.resolve(code)
            known = analytes.analyte(*name)
            related = known is not None or any(
                (r := ucum.resolve(other)) and unit and r.dimension == unit.dimension for other in seen[name]
            )
            defect = "unit-unfamiliar" if related else "unit-incommensurable"
            counts[defect] += n
            most[defect] = max(most[defect], patients or 0)
            total, new = total + n, new + n
            if (patients or 0) > 10:
                tops[defect].append((n, f"{name[0]} {name[1]} in {code}"))
                if new >= min_n and new == total:
                    lost.add(defect)
        of += total
    if not of:
        return skip("not-assessed" if hidden else "not-applicable", "no analyte of training with a valid unit")
    out = []
    for defect, n in counts.items():
        names = ", ".join(text for _, text in sorted(tops[defect], key=lambda top: (-top[0], top[1]))[:3])
        alarm = n >= margin * of and of >= min_n
        status = "fail" if alarm or defect in lost else "not-assessed" if hidden or of < min_n else "pass"
        reason = (
            "" if status != "not-assessed" else "a count is hidden (1-10 patients)" if hidden else f"fewer than {min_n} records to judge by"
        )
        out.append(
            Outcome(
                defect,
                n,
                of,
                None,
                status=status,
                reason=reason,
                few=0 < most[defect] < 11,
                limit=margin,
                detail=names,
                partition=f"{element} familiar",
            )
        )
    return out


Name = tuple[str, str]


def _canonical(profile: Profile, element: str) -> dict[Name, dict[str, tuple[int | None, int | None]]]:
    """Return analyte to its valid units and their (n, patients); a hidden count stays None."""
    found: dict[Name, dict[str, tuple[int | None, int | None]]] = defaultdict(dict)
    for (_, system, code, typed), (n, patients, *_) in profile.rows("units", element):
        if code and not analytes.unit_class(system, code, typed) and (unit := ucum.resolve(typed)):
            a, b = found[system, code].get(unit.ucum, (0, 0))
            found[system, code][unit.ucum] = (
                None if n is None or a is None else a + n,
                None if patients is None or b is None else max(b, patients),
            )
    return found


@check("comparability", compares=True)
def unit_swap(
    profile: Profile, training: Profile, element: str, *, tolerance: float = 0.05, min_n: int = 30, min_share: float = 0.02
) -> list[Outcome]:
    """Did the numbers change by a conversion factor while the unit's label stayed?

    Per analyte and unit the median is compared with training's: when it would be training's, within `tolerance`, had the
    results been sent in another usual unit of the analyte (glucose 18.0, creatinine 88.4, cholesterol 38.7, lb/kg 2.2,
    °F/°C), they probably were.  A mixture has two modes that far apart: the share that lies where the other unit
    would put training's middle 98 %, and training has next to nothing.

    Numerator: results that look like another unit (`unit-swapped`).
    Denominator: numeric results of the analytes and units that both profiles have at least `min_n` times.

    Options: `tolerance` (default 0.05); `min_n`; `min_share` (default 0.02): the smallest share of a mixture.
    """
    n, of, most = 0, 0, 0
    tops: list[tuple[int, str]] = []
    cells: dict[tuple[str, ...], float] = {}
    assessed = False
    people = {key[1:]: values[1] for key, values in profile.rows("units", element)}
    for key, (now, then) in _pairs(profile, training).items():
        if sum(c for _, c in now) < min_n or sum(c for _, c in then) < min_n:
            continue
        assessed = True
        of += sum(c for _, c in now)
        swap = swapped(key[0], key[1], key[2], now, then, tolerance=tolerance, min_share=min_share)
        if swap is None:
            continue
        count, text = swap
        n += count
        cells.update(_swapped_cells(key, now, then, count))
        patients = people.get(key) or 0
        most = max(most, patients)
        if patients > 10 and count > 10:
            tops.append((count, f"{key[0]} {key[1]} {text}"))
    if not assessed:
        return skip("not-applicable", "no analyte has enough visible results in the same unit on both sides")
    names = "; ".join(text for _, text in sorted(tops, key=lambda top: (-top[0], top[1]))[:3])
    return [
        Outcome(
            "unit-swapped",
            n,
            of,
            None,
            few=n > 0 and most < 11,
            status="fail" if n else "pass",
            limit=0.0,
            detail=names,
            partition=f"{element} swap",
            cells=cells,
        )
    ]


def _pairs(profile: Profile, training: Profile) -> dict[tuple[str, ...], tuple[Histogram, Histogram]]:
    """Return the histograms that both profiles show, fine ones before coarse ones."""
    found: dict[tuple[str, ...], tuple[Histogram, Histogram]] = {}
    for coarse in (False, True):
        live, trained = histograms(profile, coarse=coarse), histograms(training, coarse=coarse)
        for key, cells in live.items():
            before = trained.get(key)
            if cells and before and key not in found:
                found[key] = (cells, before)
    return dict(sorted(found.items()))


def _swapped_cells(key: tuple[str, ...], live: Histogram, training: Histogram, count: int) -> dict[tuple[str, ...], float]:
    """Return the coarse cells that are another unit's: all of them, or of a mixture those where training has next to nothing."""
    total, before = sum(n for _, n in live), sum(n for _, n in training)
    mine, theirs = (by_cell(key, cells) for cells in (live, training))
    return mine if count == total else {cell: n for cell, n in mine.items() if theirs.get(cell, 0.0) <= 0.002 * before}


def swapped(
    system: str, code: str, unit: str, live: Histogram, training: Histogram, *, tolerance: float = 0.05, min_share: float = 0.02
) -> tuple[int, str] | None:
    """Say whether results under one label look like another unit: (results, "looks like mmol/L under a mg/dL label: ratio 18.0").

    ``live`` and ``training`` are cells (value, n) in rising order of one code and unit.  None when nothing looks swapped.
    """
    label = ucum.resolve(unit) if unit else None
    if label is None or not live or not training:
        return None
    known = analytes.analyte(system, code)
    centre, median = quantile(training, 0.5), quantile(live, 0.5)
    total = sum(n for _, n in live)
    for name, other in _others(label, known):
        expected = other(centre)
        if expected is None or expected * centre <= 0 or median * expected <= 0:
            continue
        factor = max(expected / centre, centre / expected)
        if factor < 1.5:
            continue
        ratio = max(median / centre, centre / median)
        if abs(median / expected - 1) <= tolerance:
            return total, f"looks like {name} under a {unit} label: ratio {ratio:.1f}"
    for name, other in _others(label, known):
        if mixed := _mixed(other, live, training, min_share):
            return mixed, f"holds about {mixed / total:.0%} that look like {name} under a {unit} label"
    return None


def _others(label: Unit, known: Analyte | None) -> list[tuple[str, Converter]]:
    """Return the other usual units with what a number under the label becomes in them."""
    mass = known.molar_mass if known else 0.0
    found: list[tuple[str, Converter]] = []
    for code in _USUAL.get(label.dimension, ()):
        target = ucum.resolve(code)
        if (
            target is not None
            and target.ucum != label.ucum
            and (target.factor, target.offset, target.dimension) != (label.factor, label.offset, label.dimension)
        ):
            found.append((code, Converter(label, target, mass)))
    for name, factor in _CONFUSED.get(known.name, ()) if known else ():
        found.append((name, Converter(label, Unit(name, label.dimension, label.factor / factor), 0.0)))
    return found


class Converter:
    """Turns a number under one unit's label into the number it would be in another; None where they do not convert."""

    def __init__(self, label: Unit, target: Unit, molar_mass: float) -> None:
        self.label, self.target, self.molar_mass = label, target, molar_mass

    def __call__(self, value: float) -> float | None:
        """Return the converted number."""
        return analytes.convert(value, self.label, self.target, self.molar_mass)


def _mixed(other: Converter, live: Histogram, training: Histogram, min_share: float) -> int:
    """Return how many live results lie where the other unit would put training's middle 98 %; 0 where the two overlap."""
    low, high = quantile(training, 0.01), quantile(training, 0.99)
    there = sorted(value for value in (other(low), other(high)) if value is not None)
    if len(there) < 2 or low <= 0 or there[0] <= 0 or not (there[1] < low / 1.1 or there[0] > high * 1.1):
        return 0

    def inside(cells: Histogram) -> int:
        return sum(n for value, n in cells if there[0] <= value <= there[1])

    total, before = sum(n for _, n in live), sum(n for _, n in training)
    count = inside(live)
    return count if count > 10 and count >= min_share * total and inside(training) <= 0.002 * before else 0
