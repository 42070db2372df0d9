"""What results hold, the same in every format: kinds, units, histograms, limits; planted counts come back exactly."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ehrready
from ehrready import pipeline, values
from ehrready.engines.duckdb import MACROS
from ehrready.histograms import GAMMA, PARSES, bounds, bucket_of, coarse_of, histograms, is_coarse, middle
from ehrready.options import Options
from ehrready.privacy import hide_profile
from ehrready.profile import Frame, Profile
from ehrready.suppression import SMALLEST, small
from tests.helpers.samples import Samples

GLUCOSE = "2345-7"

#: A result as its source has it: (text, unit), or (number, unit).
Result = tuple[str | float | None, str]

#: Texts that people and machines put where a number belongs, and what they are.
HOSTILE = {
    "5.4": "number", "5,4": "number", "\u22125.4": "number", "1e5": "number", ".5": "number", "1,234,567": "number",
    "5.4 mg": "number-with-unit", "5.4mg/dL": "number-with-unit", "98 %": "number-with-unit",
    ">100": "comparator", "<0.01": "comparator", "\u226560": "comparator", "<= 3.5 mg/dL": "comparator",
    "1:64": "ratio", "120/80": "ratio", "0-2": "range", "5 to 10": "range", "1e400": "non-finite", "Infinity": "non-finite",
    "hemolyzed": "words", "2A": "words", "3rd": "words", "1+": "words", "12 May 2020": "words", "2020-01-05": "words", "5.4 see comment": "words",
    "SEE NOTE": "", "NaN": "", "N/A": "", "-": "",
}  # fmt: skip


def fhir(folder: Path, results: list[Result], code: str = GLUCOSE) -> Path:
    """Write a FHIR export: one result a patient."""
    folder.mkdir()
    lines = []
    for i, (value, unit) in enumerate(results):
        body: dict[str, object] = {"resourceType": "Observation", "id": f"o{i}", "status": "final", "subject": {"reference": f"Patient/p{i}"},
                                   "effectiveDateTime": f"2024-03-05T10:{i % 60:02d}:00", "code": {"coding": [{"system": "http://loinc.org", "code": code}]}}  # fmt: skip
        if isinstance(value, str):
            body["valueString"] = value
        elif value is not None:
            body["valueQuantity"] = {"value": value} | ({"unit": unit} if unit else {})
        lines.append(orjson.dumps(body))
    (folder / "Observation.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def hl7v2(folder: Path, results: list[Result], code: str = GLUCOSE, kind: str = "ST") -> Path:
    """Write an HL7v2 feed: a message a patient; texts under the type ``kind``."""
    folder.mkdir()
    messages = []
    for i, (value, unit) in enumerate(results):
        typed = kind if isinstance(value, str) else "NM"
        text = "" if value is None else str(value)
        messages.append(
            "\r".join(
                [
                    f"MSH|^~\\&|LAB|H|||20240305||ORU^R01|{i}|P|2.5.1",
                    f"PID|1||p{i}^^^H",
                    f"OBR|1|||{code}^x^LN|||202403051000",
                    f"OBX|1|{typed}|{code}^x^LN||{text}|{unit}|||||F|||202403051{i % 6}00",
                    "",
                ]
            )
        )
    (folder / "oru.hl7").write_text("".join(messages), encoding="utf-8")
    return folder


def omop(folder: Path, results: list[Result], code: str = GLUCOSE) -> Path:
    """Write OMOP tables as CSV; a text is the source value of a row without a number."""
    folder.mkdir()
    with (folder / "concept.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept", "concept_code"]
        )
        writer.writerow([3004501, "x", "Measurement", "LOINC", "Lab Test", "S", code])
    with (folder / "measurement.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "measurement_id",
                "person_id",
                "measurement_concept_id",
                "measurement_date",
                "measurement_datetime",
                "value_as_number",
                "unit_source_value",
                "value_source_value",
            ]
        )
        for i, (value, unit) in enumerate(results):
            number = value if isinstance(value, float) else None
            writer.writerow([i, i, 3004501, "2024-03-05", "2024-03-05 10:00:00", number, unit, value if isinstance(value, str) else None])
    return folder


WRITERS = {"fhir": fhir, "hl7v2": hl7v2, "omop": omop}


@pytest.mark.parametrize("name", WRITERS)
def test_hostile_texts_are_told_apart_and_counted_exactly_in_every_format(tmp_path: Path, name: str) -> None:
    results: list[Result] = [(text, "") for n, text in enumerate(HOSTILE) for _ in range(n % 4 + 1)]
    results += [(float(i), "mg/dL") for i in range(70, 100)]
    frames = ehrready.profile_of(WRITERS[name](tmp_path / name, results)).frames
    expected = Counter(f"text:{HOSTILE[str(v)]}" if HOSTILE[str(v)] else "null-token" for v, _ in results if isinstance(v, str))
    found = {kind: n for (_, code, kind), (n, _) in frames["value_kinds"].items() if code == GLUCOSE and not kind.startswith("number")}
    assert found == expected
    of = sum(n for kind, n in expected.items() if kind != "null-token") + 30
    planted = {defect: sum(expected[kind] for kind in kinds) for defect, kinds in PARSES.items()}
    for defect, n in planted.items():
        assert frames["relations"]["observation.value", defect] == (n, of, n), defect
    assert sum(planted.values()) + expected["text:words"] + 30 == of


def test_words_in_a_number_field_are_their_own_defect(tmp_path: Path) -> None:
    results: list[Result] = [*[("hemolyzed", "mg/dL")] * 3, *[("5.4", "mg/dL")] * 40, *[("<5", "mg/dL")] * 2]
    frame = ehrready.profile_of(hl7v2(tmp_path / "h", results, kind="NM")).frames["relations"]
    assert frame["observation.value", "text-in-number"] == (3, 45, 3)
    assert frame["observation.value", "comparator-in-text"] == (2, 45, 2)
    structured: list[Result] = [("^1^:^64", ""), ("^5^-^10", ""), ("<^5", "mg/dL")]
    frames = ehrready.profile_of(hl7v2(tmp_path / "s", structured, kind="SN")).frames
    assert [v for k, v in frames["relations"].items() if k[1] in PARSES] == [(0, 3, 0)] * 4


@pytest.mark.parametrize("name", WRITERS)
def test_units_limits_and_sentinels_are_counted_exactly_in_every_format(tmp_path: Path, name: str) -> None:
    results: list[Result] = [(float(80 + i % 60), "mg/dL") for i in range(100)]
    results += [(5.5, "mmol/L")] * 3 + [(90.0, "zorkmids")] * 4 + [(91.0, "")] * 5 + [(92.0, "N/A")] * 6 + [(93.0, "mg%")] * 7
    results += [(5000.0, "mg/dL")] * 2 + [(9999.0, "mg/dL")] * 8 + [(-1.0, "mg/dL")] * 9 + [(400.0, "mmol/L")]
    frames = ehrready.profile_of(WRITERS[name](tmp_path / name, results)).frames
    relations = frames["relations"]
    of = len(results)
    assert relations["observation.unit", "unit-incommensurable"] == (4, of, 4)
    assert relations["observation.unit", "unit-unparseable"] == (4, of, 4)
    assert relations["observation.unit", "unit-missing"] == (11, of, 11)
    judged = of - 4 - 11
    assert relations["observation.value", "implausible"] == (3, judged, 3)  # 400 mmol/L are 7200 mg/dL
    assert relations["observation.value", "sentinel"] == (17, judged, 17)
    units = {unit: n for (_, _, code, unit), (n, *_) in frames["units"].items() if code == GLUCOSE}
    assert units == {"mg/dL": 119, "mg%": 7, "mmol/L": 4, "?unparseable": 4, "": 5, "?null-token": 6}
    fine = dict.fromkeys(("mg/dL", "mmol/L", "", "?unparseable"), 0)
    coarse = dict(fine)
    for (_, _, unit, bucket), (n, _) in frames["values"].items():
        (coarse if is_coarse(bucket) else fine)[unit] += n or 0
    assert fine == coarse == {"mg/dL": 126, "mmol/L": 4, "": 11, "?unparseable": 4}


def test_a_sentinel_is_learnt_where_no_limit_knows_the_analyte(tmp_path: Path) -> None:
    numbers: list[Result] = [(20.0 + i % 60, "mg/dL") for i in range(300)]
    for value, alarms in ((9999.0, True), (99.0, False)):
        folder = fhir(tmp_path / f"v{value:.0f}", [*numbers, *[(value, "mg/dL")] * 15], code="13056-7")
        card = ehrready.check(folder, internal=True).document
        found = next(f for f in card["findings"] if f["rule"] == "value-plausible")
        assert (found["status"] == "fail") is alarms, value
        if alarms:
            assert (found["defect"], found["numerator"], found["denominator"]) == ("sentinel", 15, 315)


def test_the_engine_and_python_agree_on_buckets() -> None:
    numbers = [0.0, 1.0, 1.02, -5.4, 1e-300, 1e300, 98.6, 7.35, -0.0]
    con = duckdb.connect()
    con.execute(MACROS)
    for value in numbers:
        row = con.execute(f"SELECT CASE WHEN ? <> 0 THEN ceil(ln(abs(?)) / ln({GAMMA}))::INTEGER END", [value, value]).fetchone()
        expected = bucket_of(value).removeprefix("neg:")
        assert row is not None
        assert str(row[0] if row[0] is not None else "zero") == expected, value


@given(value=st.floats(1e-9, 1e12), sign=st.sampled_from([1, -1]))
def test_buckets_nest_and_hold_their_values(value: float, sign: int) -> None:
    bucket = bucket_of(sign * value)
    for name in (bucket, coarse_of(bucket)):
        low, high = bounds(name)
        assert low - abs(low) * 1e-9 <= sign * value <= high + abs(high) * 1e-9
    assert math.copysign(1, middle(bucket)) == sign


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.one_of(st.text(alphabet="0123456789.,-+eE<>:/ %amgdL", max_size=12), st.text(max_size=8)), min_size=1, max_size=40)
)
def test_every_text_has_exactly_one_kind(texts: list[str]) -> None:
    con = duckdb.connect()
    con.execute(MACROS)
    con.execute("CREATE TABLE x (value_kind VARCHAR, comparator VARCHAR, value_declared VARCHAR, absent_reason VARCHAR, t VARCHAR)")
    con.executemany("INSERT INTO x VALUES ('text', NULL, NULL, NULL, ?)", [[text] for text in texts])
    kinds = [row[0] for row in con.execute(f"SELECT {values.kind('t')} FROM x").fetchall()]
    every = [kind for kinds in PARSES.values() for kind in kinds]
    assert len(every) == len(set(every))
    for kind in kinds:
        assert kind == "null-token" or kind in every or kind == "text:words", kind


def test_formats_agree_on_the_new_frames(samples: Samples) -> None:
    found = [samples.profile("training", name).frames for name in ("fhir", "hl7v2", "omop")]
    for frame in ("units", "values"):
        assert found[0][frame] == found[1][frame] == found[2][frame]
    kinds = [{key: v for key, v in frames["value_kinds"].items() if key[2].startswith("number")} for frames in found]
    assert kinds[0] == kinds[1] == kinds[2]


UNITS = st.sampled_from(["mg/dL", "mmol/L", "?unparseable", "", "?null-token", "g/L"])


@given(cells=st.dictionaries(st.tuples(st.sampled_from([GLUCOSE, "2160-0", "718-7"]), UNITS), st.integers(1, 60), min_size=1))
def test_no_saved_unit_count_gives_a_small_cell_away(cells: dict[tuple[str, str], int]) -> None:
    frame: Frame = {("observation.unit", "loinc", code, unit): (n, n, n, n) for (code, unit), n in cells.items()}
    profile = Profile.zero()
    profile.frames["units"] = frame
    hidden = hide_profile(profile).frames["units"]
    from ehrready.analytes import unit_class

    for group in (lambda key: key[2], lambda key: unit_class(*key[1:])):
        for name in {group(key) for key in frame}:
            _not_derivable(frame, hidden, [key for key in frame if group(key) == name])


@given(counts=st.dictionaries(st.integers(1, 40), st.integers(1, 60), min_size=1))
def test_no_saved_histogram_gives_a_small_bucket_away(counts: dict[int, int]) -> None:
    profile = Profile.zero()
    frame = profile.frames["values"]
    for b, n in counts.items():
        for bucket in (str(b), coarse_of(str(b))):
            old = frame.get(("loinc", GLUCOSE, "mg/dL", bucket), (0, 0))[0] or 0
            frame["loinc", GLUCOSE, "mg/dL", bucket] = (old + n, old + n)
    saved = hide_profile(profile).frames["values"]
    assert not any(small(n) for n, _ in saved.values())
    hidden: Frame = {key: saved.get(key, (None, None)) for key in frame}
    fine = [key for key in frame if not is_coarse(key[3])]
    coarse = [key for key in frame if is_coarse(key[3])]
    shown = [c for c in coarse if hidden[c][0] is not None]
    for parts in (fine, coarse, *([k for k in fine if coarse_of(k[3]) == c[3]] for c in shown)):
        _not_derivable(frame, hidden, list(parts))


def _not_derivable(exact: Frame, hidden: Frame, parts: list[tuple[str, ...]]) -> None:
    gone = [key for key in parts if hidden[key][0] is None]
    assert all(not small(exact[key][0]) for key in parts if key not in gone)
    rest = [key for key in parts if key not in gone and exact[key][0]]
    if gone and rest:
        assert len(gone) > 1
        assert sum(exact[key][0] or 0 for key in gone) >= SMALLEST


def test_saved_profiles_of_a_hospital_hold_no_small_bucket_and_no_typed_unit(tmp_path: Path) -> None:
    results: list[Result] = [(float(80 + i % 7), "mg/dL") for i in range(200)]
    results += [(3.1, "mg/dL{ZQXCANARY}")] * 20 + [(4.2, "ZQXCANARY")] * 20
    exact = ehrready.profile_of(fhir(tmp_path / "x", results))
    saved = hide_profile(exact)
    assert b"ZQXCANARY" not in saved.to_json() + exact.to_json()
    assert histograms(saved)["loinc", GLUCOSE, "mg/dL"] is not None or any(k[3] == "?hidden" for k in saved.frames["values"])
    assert not any(small(v) for row in saved.frames["values"].values() for v in row)


def test_the_largest_and_the_smallest_numbers_have_a_bucket(tmp_path: Path) -> None:
    lines = [
        {
            "resourceType": "Observation",
            "id": str(i),
            "subject": {"reference": "Patient/p"},
            "code": {"coding": [{"system": "http://loinc.org", "code": GLUCOSE}]},
            "valueQuantity": {"value": value, "unit": "mg/dL"},
        }
        for i, value in enumerate((1.7e308, -1e300, 5e-324, 1.0))
    ]
    (tmp_path / "export.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    profile, _, _ = pipeline.read_profile([str(tmp_path)], Options(internal=True))
    coarse = [key for key in profile.frames["values"] if is_coarse(key[3])]
    assert sum(row[0] or 0 for key, row in profile.frames["values"].items() if not is_coarse(key[3])) == len(coarse) == 4
