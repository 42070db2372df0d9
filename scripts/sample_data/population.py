"""One synthetic population: what happened, before any format is written.

Counts of codes, classes and values are dealt from shuffled decks of fixed size rather than drawn: two
populations of different seeds then share their code mix and value distributions, so that the only
differences between training and live are the planted ones.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, datetime, time, timedelta
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

from . import codes
from .model import Coding, Concept, Encounter, Event, Observation, Patient, Population, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

N_PATIENTS = 400
T = TypeVar("T")


class Drawn(random.Random):
    """A source of randomness that draws instead of dealing decks: what a real sample of a population does."""


def deck(rng: random.Random, weighted: Iterable[tuple[T, int]], total: int) -> list[T]:
    """Return ``total`` items in shares of their weights (largest remainder), shuffled; by chance if ``rng`` is Drawn."""
    items = list(weighted)
    if isinstance(rng, Drawn):
        return rng.choices([item for item, _ in items], [weight for _, weight in items], k=total)
    whole = sum(weight for _, weight in items)
    counts = [total * weight // whole for _, weight in items]
    order = sorted(range(len(items)), key=lambda i: (-(total * items[i][1] % whole), i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    cards = [item for (item, _), count in zip(items, counts, strict=True) for _ in range(count)]
    rng.shuffle(cards)
    return cards


def deal(rng: random.Random, sizes: Sequence[int], cards: Sequence[T]) -> list[list[T]]:
    """Deal the cards into hands of these sizes so that no hand holds a card twice."""
    source = iter(cards)
    hands = [[next(source) for _ in range(size)] for size in sizes]
    for hand in hands:
        for slot in range(len(hand)):
            while hand.count(hand[slot]) > 1:
                other = rng.choice(hands)
                if not other or other is hand:
                    continue
                there = rng.randrange(len(other))
                if other[there] not in hand and hand[slot] not in other:
                    hand[slot], other[there] = other[there], hand[slot]
    return hands


def concept_of(item: codes.Item) -> Concept:
    """Return the clean concept of a catalogue item: one coding, which OMOP knows as source and standard."""
    ref = (item.system, item.code)
    return Concept(item.name, [Coding(item.system, item.code, item.name)], ref, ref, item.code)


def condition_concept(dx: codes.Dx) -> Concept:
    """Return the clean concept of a diagnosis: ICD-10-CM first, SNOMED CT second."""
    return Concept(
        dx.name,
        [Coding("icd10cm", dx.icd10cm, dx.name), Coding("snomed", dx.snomed, dx.snomed_name)],
        ("icd10cm", dx.icd10cm),
        ("snomed", dx.snomed),
        dx.icd10cm,
    )


_GIVEN = ("Alba", "Bryn", "Cato", "Dara", "Enid", "Finn", "Gwen", "Hale", "Iris", "Joss", "Kaye", "Lior")
_FAMILY = ("Testwood", "Mockford", "Sampleton", "Demoville", "Fakenham", "Specimen", "Dummer", "Protoson")


def _patients(rng: random.Random, mark: str, base: int, reference: int, size: int) -> list[Patient]:
    sites = deck(rng, [(site[0], site[3]) for site in codes.SITES], size)
    sexes = deck(rng, [("female", 52), ("male", 48)], size)
    races = deck(rng, [(race[0], race[4]) for race in codes.RACES], size)
    ethnicities = deck(rng, [(one[0], one[4]) for one in codes.ETHNICITIES], size)
    languages = deck(rng, [(one[0], one[2]) for one in codes.LANGUAGES], size)
    ages = deck(rng, [(age, 1) for age in range(22, 87)], size)
    heights = _normal_deck(rng, size, 169, 8)
    return [
        Patient(
            id=f"{mark}{i + 1:04d}",
            number=base + i + 1,
            mrn=f"{base + i + 1:07d}",
            site=sites[i],
            family=f"{rng.choice(_FAMILY)}{base + i + 1}",
            given=rng.choice(_GIVEN),
            birth=date(reference - ages[i], rng.randint(1, 12), rng.randint(1, 28)),
            sex=sexes[i],
            race=races[i],
            ethnicity=ethnicities[i],
            language=languages[i],
            height=round(heights[i]),
        )
        for i in range(size)
    ]


def _normal_deck(rng: random.Random, size: int, mean: float, sd: float) -> list[float]:
    if isinstance(rng, Drawn):
        return [rng.gauss(mean, sd) for _ in range(size)]
    dist = NormalDist(mean, sd)
    cards = [dist.inv_cdf((i + 0.5) / size) for i in range(size)]
    rng.shuffle(cards)
    return cards


def _stay(rng: random.Random, kind: str, day: date) -> tuple[datetime, datetime]:
    if kind == "AMB":
        start = datetime.combine(day, time(rng.randint(8, 16), rng.randint(0, 59), rng.randint(1, 59)))
        return start, start + timedelta(minutes=rng.randint(20, 60), seconds=rng.randint(1, 59))
    start = datetime.combine(day, time(rng.randint(1, 21), rng.randint(0, 59), rng.randint(1, 59)))
    hours = rng.randint(26, 120) if kind == "IMP" else rng.randint(2, 9)
    return start, start + timedelta(hours=hours, minutes=rng.randint(0, 59), seconds=rng.randint(1, 59))


def _encounters(rng: random.Random, patients: list[Patient], mark: str, base: int, first: date, days: int) -> list[Encounter]:
    sizes = deck(rng, [(2, 25), (3, 50), (4, 25)], len(patients))
    kinds = deck(rng, [(kind, row[5]) for kind, row in codes.CLASSES.items()], sum(sizes))
    # Starts are spread evenly over the window and wrap around its end, so that no month is thin.
    starts = [days * i // len(patients) for i in range(len(patients))]
    rng.shuffle(starts)
    found: list[tuple[date, Patient]] = []
    for patient, size, start in zip(patients, sizes, starts, strict=True):
        offset = start
        for _ in range(size):
            found.append((first + timedelta(days=offset % days), patient))
            offset += rng.randint(15, 45)
    encounters = []
    for i, ((day, patient), kind) in enumerate(zip(found, kinds, strict=True)):
        begin, end = _stay(rng, kind, day)
        encounters.append(Encounter(f"{mark}e{i + 1:04d}", base + i + 1, patient, kind, begin, end))
    return encounters


class _Values:
    """Deals numeric values per analyte, and keeps related ones consistent."""

    def __init__(self, rng: random.Random, wanted: Counter[str]) -> None:
        self.decks = {a.code: _normal_deck(rng, wanted[a.code], a.mean, a.sd) for a in codes.ANALYTES if a.unit and wanted[a.code]}

    def group(self, analytes: Sequence[codes.Analyte], patient: Patient) -> dict[str, float]:
        """Return the rounded values of the analytes that were measured together."""
        raw = {a.code: self.decks[a.code].pop() for a in analytes if a.unit}
        if "8302-2" in raw:
            raw["8302-2"] = patient.height
            raw["39156-5"] = raw["29463-7"] / (patient.height / 100) ** 2
        if "8480-6" in raw:  # diastolic follows systolic
            raw["8462-4"] = 14 + raw["8480-6"] / 2 + (raw["8462-4"] - 78) / 2
        if "4544-3" in raw:  # haematocrit follows haemoglobin
            raw["4544-3"] = 2.95 * raw["718-7"] + (raw["4544-3"] - 41) / 4
        if "18262-6" in raw:  # Friedewald
            raw["18262-6"] = max(40.0, raw["2093-3"] - raw["2085-9"] - raw["2571-8"] / 5)
        if "59408-5" in raw:
            raw["59408-5"] = min(100.0, raw["59408-5"])
        return {a.code: round(raw[a.code], a.decimals or None) for a in analytes if a.unit}


def _observations(rng: random.Random, encounters: list[Encounter], mark: str, base: int) -> tuple[list[Observation], list[Report]]:
    analytes = {a.code: a for a in codes.ANALYTES}
    total = len(encounters)
    vitals = deck(rng, [(row[1], row[2]) for row in codes.VITALS], total)
    # weights are per 1,200 encounters, the number of a population of 400
    whole = 3 * N_PATIENTS
    used = sum(row[2] for row in codes.PANELS)
    panels = deck(rng, [*[((p[0], p[1]), p[2]) for p in codes.PANELS], (None, whole - used)], total)
    asked = sum(weight for _, weight in codes.QUESTIONS)
    questions = deck(rng, [*codes.QUESTIONS, ("", whole - asked)], total)
    wanted: Counter[str] = Counter(code for row in vitals for code in row)
    wanted.update(code for row in panels if row for code in row[1])
    wanted.update(questions)
    values = _Values(rng, wanted)
    smoking = deck(rng, [(item, item.weight) for item in codes.SMOKING], wanted["72166-2"])
    employment = deck(rng, codes.EMPLOYMENT, wanted["67875-5"])
    observations: list[Observation] = []
    reports: list[Report] = []

    def add(encounter: Encounter, members: Sequence[str], share: float) -> list[Observation]:
        group = [analytes[code] for code in members]
        numbers = values.group(group, encounter.patient)
        made = []
        for a in group:
            n = len(observations) + 1
            ref = ("loinc", a.code)
            concept = Concept(a.name, [Coding("loinc", a.code, a.name)], ref, ref, a.code)
            made.append(
                Observation(
                    f"{mark}o{n:05d}",
                    base + n,
                    encounter,
                    concept,
                    encounter.moment(share),
                    status="final",
                    analyte=a,
                    number_value=numbers.get(a.code),
                    unit=a.unit or None,
                    answer=smoking.pop() if a.code == "72166-2" else None,
                    text_value=employment.pop() if a.code == "67875-5" else None,
                )
            )
            observations.append(made[-1])
        return made

    for encounter, vital, panel, question in zip(encounters, vitals, panels, questions, strict=True):
        add(encounter, vital, 0.1)
        if question:
            add(encounter, (question,), 0.2)
        if panel:
            results = add(encounter, panel[1], 0.4)
            n = len(reports) + 1
            concept = concept_of(panel[0])
            reports.append(Report(f"{mark}r{n:04d}", base + n, encounter, concept, results[0].at, None, "final", results))
    return observations, reports


def _events(
    rng: random.Random,
    by_patient: list[list[Encounter]],
    letter: str,
    base: int,
    sizes: list[int],
    concepts: Sequence[tuple[codes.Item | codes.Dx, int]],
    share: float,
) -> list[Event]:
    hands = deal(rng, sizes, deck(rng, concepts, sum(sizes)))
    events: list[Event] = []
    for encounters, hand in zip(by_patient, hands, strict=True):
        for item in hand:
            encounter = rng.choice(encounters)
            n = len(events) + 1
            concept = condition_concept(item) if isinstance(item, codes.Dx) else concept_of(item)
            at = encounter.moment(share + rng.random() * 0.1)
            events.append(Event(f"{encounter.id[0]}{letter}{n:04d}", base + n, encounter, concept, at))
    return events


def make_population(
    name: str, seed: int, release: str, first: date, last: date, *, size: int = N_PATIENTS, drawn: bool = False
) -> Population:
    """Return the clean population of one set.

    Args:
        name: ``training`` or ``live``; its first letter starts every id.
        seed: of the only source of randomness.
        release: ICD-10-CM fiscal year of the declared code version.
        first: first day of the window of events.
        last: last day on which a stay may end.
        size: patients.
        drawn: draw from the catalogues at random, so that two populations differ as samples do.
    """
    rng = Drawn(seed) if drawn else random.Random(seed)
    mark, base = name[0], seed * 10_000
    patients = _patients(rng, mark, base, first.year, size)
    encounters = _encounters(rng, patients, mark, base, first, (last - first).days - 5)
    by_patient: list[list[Encounter]] = [[] for _ in patients]
    index = {patient.id: i for i, patient in enumerate(patients)}
    for encounter in encounters:
        by_patient[index[encounter.patient.id]].append(encounter)
    observations, reports = _observations(rng, encounters, mark, base)

    def sizes(*choices: tuple[int, int]) -> list[int]:
        return deck(rng, choices, len(patients))

    def items(catalogue: Sequence[codes.Item]) -> list[tuple[codes.Item | codes.Dx, int]]:
        return [(item, item.weight) for item in catalogue]

    dxs: list[tuple[codes.Item | codes.Dx, int]] = [(dx, dx.weight) for dx in codes.CONDITIONS]
    conditions = _events(rng, by_patient, "c", base, sizes((3, 25), (4, 50), (5, 25)), dxs, 0.2)
    for condition, resolved in zip(conditions, deck(rng, [(True, 20), (False, 80)], len(conditions)), strict=True):
        condition.status = "resolved" if resolved else "active"
        if resolved:
            condition.end = condition.encounter.end + timedelta(days=rng.randint(2, 12), minutes=rng.randint(1, 99))
    medications = _events(rng, by_patient, "m", base, sizes((2, 25), (3, 50), (4, 25)), items(codes.MEDICATIONS), 0.6)
    for event, status in zip(medications, deck(rng, [("active", 70), ("completed", 30)], len(medications)), strict=True):
        event.status = status
    population = Population(
        name=name,
        release=release,
        patients=patients,
        encounters=encounters,
        conditions=conditions,
        observations=observations,
        reports=reports,
        medications=medications,
        procedures=_events(rng, by_patient, "p", base, sizes((0, 25), (1, 50), (2, 25)), items(codes.PROCEDURES), 0.5),
        immunizations=_events(rng, by_patient, "i", base, sizes((0, 25), (1, 50), (2, 25)), items(codes.IMMUNIZATIONS), 0.7),
        allergies=_events(rng, by_patient, "a", base, sizes((0, 60), (1, 30), (2, 10)), items(codes.ALLERGIES), 0.1),
        documents=_events(rng, by_patient, "d", base, sizes((0, 50), (1, 50)), items(codes.DOCUMENTS), 0.85),
    )
    _deaths(rng, population, by_patient, last)
    return population


def _deaths(rng: random.Random, population: Population, by_patient: list[list[Encounter]], last: date) -> None:
    """Let a few die, at least 40 days after their last visit, so that nothing is later than the death."""
    candidates = [
        patient
        for patient, encounters in zip(population.patients, by_patient, strict=True)
        if max(e.end for e in encounters).date() < last - timedelta(days=60)
    ]
    encounters_of = dict(zip((p.id for p in population.patients), by_patient, strict=True))
    for patient in rng.sample(candidates, min(len(candidates), 12 * len(population.patients) // N_PATIENTS)):
        seen = max(e.end for e in encounters_of[patient.id])
        patient.death = seen + timedelta(days=rng.randint(40, 55), hours=rng.randint(1, 9), seconds=rng.randint(1, 59))
