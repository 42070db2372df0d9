"""Units and analytes: the shipped tables are sound, nothing odd resolves, conversions agree with pint."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrready import analytes, units
from ehrready.checks.units import swapped
from ehrready.histograms import Histogram, bucket_of, middle
from ehrready.terminology.checkdigits import mod10_digit

DATA = Path(units.__file__).parent / "terminology" / "data"


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_spelling_leads_to_a_unit_and_its_note_is_true() -> None:
    rows = table("unit_synonyms.csv")
    assert len(rows) >= 200
    known = {row["ucum"] for row in table("ucum_units.csv")}
    for row in rows:
        assert row["ucum"] in known, row
        typed, meant = units.parse(row["typed"]), units.resolve(row["ucum"])
        assert meant is not None
        if "meaning" in row["note"]:
            assert typed is not None, row


def test_the_catalogue_is_what_ucumvert_and_pint_say() -> None:
    for row in table("ucum_units.csv"):
        parsed = units.parse(row["ucum"])
        assert parsed is not None, row
        assert parsed.dimension == row["dimension"], row
        assert math.isclose(parsed.factor, float(row["factor"]), rel_tol=1e-9), row
        assert math.isclose(parsed.offset, float(row["offset"]), abs_tol=1e-6), row


@pytest.mark.parametrize(
    ("typed", "ucum"),
    [
        ("mmHg", "mm[Hg]"), ("MMHG", "mm[Hg]"), ("IU/L", "[IU]/L"), ("mEq/L", "meq/L"), ("K/uL", "10*3/uL"), ("x10E3/uL", "10*3/uL"),
        ("10*3/mm3", "10*3/uL"), ("10^9/L", "10*9/L"), ("X10(6)/mcL", "10*6/uL"), ("cells/uL", "{cells}/uL"), ("bpm", "/min"), ("deg F", "[degF]"),
        ("°C", "Cel"), (" mg/dl ", "mg/dL"), ("µmol/L", "umol/L"), ("mcg/mL", "ug/mL"), ("mL/min/1.73 m²", "mL/min/{1.73_m2}"), ("lbs", "[lb_av]"),
        ("mg{creatinine of somebody}", "mg"), ("mg/dL{fasting}", "mg/dL"), ("G/DL", "g/dL"), ("pg/{cell}", "pg"), ("umol/L/min", "umol/L/min"),
    ],
)  # fmt: skip
def test_spellings(typed: str, ucum: str) -> None:
    found = units.resolve(typed)
    assert found is not None
    assert found.ucum == ucum


@pytest.mark.parametrize(
    "typed", ["John Smith", "123456789", "1234567/uL", "mg/dL 5.4", "see note", "mg{", "}", "{", "q" * 500, "é", "\x01masked", "mg//", ""]
)
def test_what_is_no_unit_does_not_resolve_and_does_not_leave(typed: str) -> None:
    assert units.resolve(typed) is None
    assert analytes.shown(typed) == "?unparseable"


@given(text=st.text(max_size=40))
def test_what_leaves_is_a_known_code_without_a_free_annotation(text: str) -> None:
    shown = analytes.shown(text)
    if shown != "?unparseable" and shown not in units.synonyms():
        listed = {row["ucum"] for row in table("ucum_units.csv")}
        assert shown in listed or ("{" not in shown and len(shown) <= 30)


def test_known_units_do_not_import_pint() -> None:
    code = "import sys; from ehrready import units; units.resolve('mmHg'); units.resolve('K/uL'); units.resolve('nonsense unit'); sys.exit('pint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=DATA.parents[2]).returncode == 0


def test_limits_are_sound() -> None:
    rows = table("plausible_limits.csv")
    seen: set[str] = set()
    assert len(rows) >= 100
    for row in rows:
        unit = units.resolve(row["unit"])
        assert unit is not None, row
        assert unit.ucum == row["unit"], row
        assert float(row["low"]) < float(row["high"]), row
        assert row["source"], row
        assert row["property"] in analytes.PROPERTY_DIMENSIONS, row
        for code in row["codes"].split():
            assert mod10_digit(code[:-2]) == code[-1], code
            assert code not in seen, code
            seen.add(code)


@pytest.mark.parametrize(
    ("code", "value", "label", "target", "expected"),
    [
        ("2345-7", 180.16, "mg/dL", "mmol/L", 10.0),
        ("2160-0", 1.0, "mg/dL", "umol/L", 88.4),
        ("2093-3", 38.67, "mg/dL", "mmol/L", 1.0),
        ("1975-2", 1.0, "mg/dL", "umol/L", 17.1),
        ("718-7", 14.0, "g/dL", "g/L", 140.0),
        ("8310-5", 98.6, "[degF]", "Cel", 37.0),
        ("29463-7", 100.0, "kg", "[lb_av]", 220.46),
        ("3094-0", 2.801, "mg/dL", "mmol/L", 1.0),
    ],
)
def test_conversions_by_known_factors(code: str, value: float, label: str, target: str, expected: float) -> None:
    known, source, other = analytes.analyte("loinc", code), units.resolve(label), units.resolve(target)
    assert known is not None
    assert source is not None
    assert other is not None
    found = analytes.convert(value, source, other, known.molar_mass)
    assert found == pytest.approx(expected, rel=2e-3)
    back = analytes.convert(found or 0, other, source, known.molar_mass)
    assert back == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("code", "unit", "cls"),
    [
        ("2345-7", "mg/dL", ""), ("2345-7", "g/L", ""), ("2345-7", "mmol/L", "unit-incommensurable"), ("14749-6", "mmol/L", ""),
        ("2951-2", "mEq/L", ""), ("2345-7", "", "unit-missing"), ("2345-7", "?null-token", "unit-missing"), ("2345-7", "?unparseable", "unit-unparseable"),
        ("1742-6", "IU/L", ""), ("3016-3", "uIU/mL", ""), ("3016-3", "mU/L", ""), ("4544-3", "g/dL", "unit-incommensurable"), ("6690-2", "%", "unit-incommensurable"),
        ("8310-5", "deg F", ""), ("99999-9", "mmol/L", ""), ("6301-6", "ratio", ""), ("2744-1", "pH", ""), ("9318-7", "mg/mmol", ""), ("789-8", "M/uL", ""),
    ],
)  # fmt: skip
def test_unit_classes(code: str, unit: str, cls: str) -> None:
    assert analytes.unit_class("loinc", code, unit) == cls


def cells(values: list[float]) -> Histogram:
    counts: dict[str, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return sorted((middle(bucket), n) for bucket, n in counts.items())


def spread(centre: float, sd: float, n: int = 400) -> list[float]:
    from statistics import NormalDist

    return [NormalDist(centre, sd).inv_cdf((i + 0.5) / n) for i in range(n)]


@pytest.mark.parametrize(
    ("code", "unit", "centre", "sd", "factor", "says"),
    [
        ("2345-7", "mg/dL", 104, 18, 1 / 18.016, "looks like mmol/L under a mg/dL label: ratio 18.0"),
        ("2160-0", "mg/dL", 0.98, 0.2, 88.4, "looks like umol/L under a mg/dL label"),
        ("2093-3", "mg/dL", 185, 22, 1 / 38.67, "looks like mmol/L"),
        ("718-7", "g/dL", 13.9, 1.1, 10, "looks like g/L under a g/dL label: ratio 10"),
        ("29463-7", "kg", 81, 12, 2.2046, "looks like [lb_av] under a kg label: ratio 2.2"),
        ("17861-6", "mg/dL", 9.4, 0.4, 0.2495, "looks like mmol/L"),
        ("3094-0", "mg/dL", 15, 3.5, 2.14, "looks like urea, not urea nitrogen"),
        ("1975-2", "mg/dL", 0.7, 0.17, 17.1, "looks like umol/L"),
    ],
)
def test_a_swap_is_named(code: str, unit: str, centre: float, sd: float, factor: float, says: str) -> None:
    before = spread(centre, sd)
    found = swapped("loinc", code, unit, cells([v * factor for v in before]), cells(before))
    assert found is not None
    assert found[0] == 400
    assert says in found[1]
    assert swapped("loinc", code, unit, cells(before), cells(before)) is None
    assert swapped("loinc", code, unit, cells([v * 1.2 for v in before]), cells(before)) is None


def test_fahrenheit_under_a_celsius_label_is_affine_and_a_mixture_is_counted() -> None:
    before = spread(36.8, 0.35)
    found = swapped("loinc", "8310-5", "Cel", cells([v * 1.8 + 32 for v in before]), cells(before))
    assert found is not None
    assert "looks like [degF] under a Cel label" in found[1]
    glucose = spread(104, 18)
    mixed = [v / 18.016 for v in glucose[::10]] + [v for i, v in enumerate(glucose) if i % 10]
    found = swapped("loinc", "2345-7", "mg/dL", cells(mixed), cells(glucose))
    assert found is not None
    assert 38 <= found[0] <= 40  # the tails of the middle 98 % are not counted
    assert "mmol/L" in found[1]


@given(value=st.floats(1e-300, 1e300), negative=st.booleans())
def test_the_middle_of_a_bucket_is_within_one_percent(value: float, negative: bool) -> None:
    value = -value if negative else value
    assert abs(middle(bucket_of(value)) / value - 1) <= 0.01
