"""An attacker with a saved profile, the documentation and linear algebra: no small cell may be worked out.

The ties between counts are stated here anew, as somebody who reads docs/privacy.md would, and every tie that happens to hold
in the exact counts is given to the attacker, who solves all of them together.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

import ehrready
from ehrready.privacy import hide_profile
from ehrready.profile import FRAMES, Frame, Profile
from ehrready.suppression import small
from tests.helpers.samples import Samples

ROOT = Path(__file__).parents[2]
Cell = tuple[str, tuple[str, ...]]
#: Cells on the one side, cells on the other: equal, or the first side holds more.
Tie = tuple[list[Cell], list[Cell]]


def ties(profile: Profile) -> Iterator[Tie]:
    """Yield what the counts of a profile have to do with each other."""
    f = profile.frames

    places: dict[tuple[str, int, str], set[tuple[str, ...]]] = defaultdict(set)
    for frame, cells in f.items():
        for key in cells:
            for place, text in enumerate(key):
                places[frame, place, text].add(key)

    def rows(frame: str, **wanted: str) -> list[Cell]:
        names = FRAMES[frame][0]
        found = [places[frame, names.index(name), text] for name, text in wanted.items()]
        return [(frame, key) for key in sorted(set.intersection(*found) if found else f[frame])]

    for element in sorted({key[0] for key in f["states"]}):
        table = element.split(".", maxsplit=1)[0]
        whole = rows("states", element=element, grouping="all", state="*")
        yield rows("volume", table=table), whole
        for grouping, group in sorted({key[1:3] for key in f["states"] if key[0] == element}):
            mine = rows("states", element=element, grouping=grouping, group=group)
            star = [cell for cell in mine if cell[1][3] == "*"]
            yield star, [cell for cell in mine if cell[1][3] != "*"]
            if grouping == "month":
                yield rows("volume", table=table, month=group), star
        for grouping in ("month", "site", "sex", "age"):
            for state in sorted({key[3] for key in f["states"] if key[0] == element}):
                yield (
                    rows("states", element=element, grouping="all", state=state),
                    rows("states", element=element, grouping=grouping, state=state),
                )
        for other in sorted({key[0] for key in f["states"] if key[0].startswith(table + ".") and key[0] < element}):
            for grouping, group in sorted({key[1:3] for key in f["states"] if key[0] == element}):
                pair = [rows("states", element=name, grouping=grouping, group=group, state="*") for name in (other, element)]
                yield pair[0], pair[1]
                yield pair[1], pair[0]
    yield from _ties_of_codes(f, rows)


def _ties_of_codes(f: dict[str, Frame], rows: Callable[..., list[Cell]]) -> Iterator[Tie]:
    for element, system in sorted({key[:2] for key in f["classes"]}):
        whole = rows("classes", element=element, system=system)
        for frame in ("releases", "currency", "displays"):
            yield whole, rows(frame, element=element, system=system)
        yield [c for c in whole if c[1][3] in {"well-formed", "repairable"}], rows("codes", element=element, system=system)
        yield whole, [c for c in rows("systems", element=element) if system in c[1][1].split("+")]
        yield rows("systems", element=element), rows("states", element=element, grouping="all", state="coded")
    for system, code in sorted({key[:2] for key in f["value_kinds"]}):
        kinds = rows("value_kinds", system=system, code=code)
        typed = rows("units", system=system, code=code)
        yield rows("codes", element="observation.code", system=system, code=code), kinds
        yield [c for c in kinds if ":" not in c[1][2] and c[1][2].startswith(("number", "comparator"))], typed
        for fine in (True, False):
            buckets = [c for c in rows("values", system=system, code=code) if ("c" in c[1][3]) is not fine]
            yield typed, buckets
    beyond = [c for c in rows("value_kinds") if c[1][2] == "number!"]
    yield [("relations", ("observation.value", "implausible"))], beyond
    yield (
        rows("types", format="fhir", type="Condition"),
        rows("volume", table="condition") + [c for c in rows("excluded") if c[1][0] == "condition"],
    )
    everybody = [c for c in rows("patients") if c[1][0] == "all"]
    first = [c for c in rows("patients") if c[1][0] != "all"]
    yield everybody, first
    yield everybody, rows("history")


def attack(exact: Profile, saved: Profile) -> list[str]:
    """Return the small cells and small differences that follow from what was saved."""

    def n(profile: Profile, cell: Cell) -> int | None:
        return profile.frames[cell[0]].get(cell[1], (None,))[0]

    equations: dict[frozenset[tuple[Cell, int]], dict[Cell, int]] = {}
    found = []
    for left, right in ties(exact):
        cells = [(cell, 1) for cell in left] + [(cell, -1) for cell in right]
        if not left or not right or any(n(exact, cell) is None for cell, _ in cells):
            continue
        rest = sum(sign * (n(exact, cell) or 0) for cell, sign in cells)
        unknown = {cell: sign for cell, sign in cells if n(saved, cell) is None}
        if rest == 0 and unknown:
            equations[frozenset(unknown.items())] = unknown
        elif small(rest) and not unknown:
            found.append(f"{left[0]} holds {rest} more than {right[0]}")
    columns = {cell: i for i, cell in enumerate(sorted({cell for one in equations.values() for cell in one}))}
    if not columns:
        return found
    matrix = np.zeros((len(equations), len(columns)))
    for row, one in enumerate(equations.values()):
        for cell, sign in one.items():
            matrix[row, columns[cell]] += sign
    sizes, vectors = np.linalg.eigh(matrix.T @ matrix)
    free = np.abs(vectors[:, sizes < 1e-7]).max(axis=1, initial=0.0)
    found += [f"{cell} is known" for cell, i in columns.items() if free[i] < 1e-6 and small(n(exact, cell))]
    return found


@pytest.mark.parametrize("side", ["training", "live"])
@pytest.mark.parametrize("source", ["fhir", "hl7v2", "omop"])
def test_no_small_cell_of_the_sample_data_can_be_worked_out(side: str, source: str, samples: Samples) -> None:
    exact = samples.profile(side, source)
    assert attack(exact, hide_profile(exact)) == []


LOINC, ICD = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm"


def _hospital(folder: Path, seed: int) -> Path:
    """Write a small hospital whose counts are around the limit of a small cell everywhere."""
    draw = random.Random(seed)
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    for i in range(draw.randint(12, 60)):
        who = f"p{i}"
        lines["Patient"].append({"resourceType": "Patient", "id": who, "gender": draw.choice(["male", "female", "unknown"]),
                                 "birthDate": draw.choice(["1950-01-01", "1990-01-01"])})  # fmt: skip
        for k in range(draw.randint(0, 4)):
            day = f"2024-0{draw.randint(1, 4)}-11"
            code: dict[str, object] = draw.choice(
                [{"coding": [{"system": ICD, "code": draw.choice(["E11.9", "I10", "e119"])}]}, {"text": "words"}, {}]
            )
            lines["Condition"].append({"resourceType": "Condition", "id": f"{who}c{k}", "subject": {"reference": f"Patient/{who}"}, "code": code,
                                       **({"onsetDateTime": day} if draw.random() < 0.9 else {})})  # fmt: skip
            value = draw.choice([7.0, 7.1, 5.5, 900.0, 90.0])
            result = draw.choice(
                [{"valueQuantity": {"value": value, "unit": draw.choice(["mmol/L", "mg/dL"])}}, {"valueString": "7.1"}, {}]
            )
            lines["Observation"].append(
                {"resourceType": "Observation", "id": f"{who}o{k}", "status": draw.choice(["final", "final", "preliminary"]),
                 "subject": {"reference": f"Patient/{who}"}, "code": {"coding": [{"system": LOINC, "code": draw.choice(["2345-7", "718-7"])}]},
                 "effectiveDateTime": day, **result}  # type: ignore[dict-item]
            )  # fmt: skip
    folder.mkdir()
    for kind, resources in lines.items():
        (folder / f"{kind}.ndjson").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in resources))
    return folder


@pytest.mark.parametrize("seed", range(12))
def test_no_small_cell_of_a_small_hospital_can_be_worked_out(tmp_path: Path, seed: int) -> None:
    exact = ehrready.profile_of(_hospital(tmp_path / "x", seed))
    assert attack(exact, hide_profile(exact)) == []


def test_the_attack_works_on_a_profile_that_only_drops_small_cells(tmp_path: Path) -> None:
    exact = ehrready.profile_of(_hospital(tmp_path / "x", 3))
    naive = Profile(exact.name, False, {
        name: {key: tuple(None for _ in values) if small(values[0]) else values for key, values in frame.items()}
        for name, frame in exact.frames.items()
    })  # fmt: skip
    assert len(attack(exact, naive)) > 5
