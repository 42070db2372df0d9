"""What a profile counts of codings and results, in plain Python: the rest of ``profile_oracle``.

Codings are counted one by one, results one by one; distinct codes, units and releases are judged by the package.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ehrready import analytes, codings, currency, histograms, units
from ehrready.profile import Frame
from ehrready.terminology import grammar, systems
from ehrready.terminology.releases import Store
from tests.hostile.profile_rows import Records, Row, Tables, moments, person, relation, token

_RACES = {"1002-5": "american-indian", "2028-9": "asian", "2054-5": "black", "2076-8": "pacific-islander", "2106-3": "white", "2131-1": "other",
          "2135-2": "hispanic", "2186-5": "not-hispanic"}  # fmt: skip
_OMOP = {"1": "american-indian", "2": "asian", "3": "black", "4": "pacific-islander", "5": "white", "Hispanic": "hispanic", "Not Hispanic": "not-hispanic"}  # fmt: skip
_SPACE = "[ \\t\\n\\f\\r]*"
_NUMBER = "[+-]?(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
_TAIL = _SPACE + "([%a-zA-Z\u00b5\u03bc\u00b0/\\[][^ ]{0,19})?"
_SIGN = "(?:<=?|>=?|\u2264|\u2265)"
#: What a text looks like, the first that fits.
_SHAPES = {
    "number": _NUMBER,
    "non-finite": "[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?",
    "ratio": f"{_SIGN}?{_SPACE}{_NUMBER}{_SPACE}[:/]{_SPACE}{_NUMBER}",
    "number-with-unit": _NUMBER + _TAIL,
    "comparator": f"{_SIGN}{_SPACE}{_NUMBER}{_TAIL}",
    "range": f"{_NUMBER}{_SPACE}(?:-|\u2013|~|to){_SPACE}{_NUMBER}",
}
_SENTINELS = {-9999, -999, -99, -9, -1, 0, 99, 99.9, 999, 999.9, 9999, 9999.9, 99999, 999999, 9999999, 99999999}


class Judged:
    """The codings of the rows, each with what was found of it: ``key``, ``how``, ``cls``, ``code`` (public), ``token``."""

    def __init__(self, tables: Tables, store: Store | None) -> None:
        self.rows: list[Row] = tables.get("coding", [])
        pairs = Counter((row["element"], row.get("system") or "", row.get("code") or "") for row in self.rows)
        order = sorted(pairs)
        undecided: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        for element, system, code in order:
            if systems.resolve(system or None).how == "undecided":
                undecided[element, system].append((code, pairs[element, system, code]))
        keys = []
        for element, system, _ in order:
            found = systems.resolve(system or None)
            keys.append(found.key if found.how != "undecided" else grammar.resolve_undecided(found.candidates, undecided[element, system]))
        classified = grammar.classify_pairs([(key, code) for key, (_, _, code) in zip(keys, order, strict=True)])
        other = codings._mislabelled(keys, [code for _, _, code in order], classified, store)
        self.of: dict[tuple[str, str, str], dict[str, str]] = {}
        for i, (element, system, code) in enumerate(order):
            how, key, cls, looks = systems.resolve(system or None).how, keys[i], classified[i].cls, classified[i].looks_like
            if i in other:
                cls, looks = "other-system", other[i]
            shown = codings.HL7 if key.partition(":")[0] in {"hl7", "fhir", "v2", "v3", "hl7v2_table"} else key
            public = systems.is_public(key) and cls in {"well-formed", "repairable"} and shown != codings.HL7
            if cls == "other-system" and looks:
                said = f"!{looks}"
            elif how in {"exact", "alias"} or (how == "undecided" and key):
                said = shown
            else:
                said = {"missing": "?missing-system", "local": "?local", "undecided": "?undecided"}.get(how, "?unknown-uri")
            repaired = classified[i].repaired if i not in other else None
            self.of[element, system, code] = {
                "key": shown if not said.startswith("?") else said[1:], "how": how, "cls": cls, "token": said,
                "code": (repaired or code.strip()) if public else "",
            }  # fmt: skip

    def __call__(self, row: Row) -> dict[str, str]:
        return self.of[row["element"], row.get("system") or "", row.get("code") or ""]

    def groups(self) -> dict[str, dict[str, set[str]]]:
        """Return the groups that codes of race and ethnicity name, by element and patient."""
        found: dict[str, dict[str, set[str]]] = {"patient.race": defaultdict(set), "patient.ethnicity": defaultdict(set)}
        for row in self.rows:
            one, who = self(row), person(row)
            if row["element"] not in found or who is None:
                continue
            name = _RACES.get(one["code"]) if one["key"] == "cdcrec" else None
            name = _OMOP.get(one["code"].split(".")[0]) if one["key"] in {"omop:race", "omop:ethnicity"} else name
            if name is not None:
                found[row["element"]][who].add(name)
        return found


def _within(rows: Sequence[tuple[str | None, tuple[str, ...]]], depth: int) -> Frame:
    """Count (patient, key), the moments within the first keys."""
    parts: dict[tuple[str, ...], list[tuple[str | None, tuple[str, ...]]]] = defaultdict(list)
    for who, key in rows:
        parts[key[:depth]].append((who, key))
    return {key: values for part in parts.values() for key, values in moments(part).items()}


def of_codings(known: Records, judged: Judged, store: Store | None) -> dict[str, Frame]:
    """Return the frames about codings."""
    recorded = {row["record"]: row.get("recorded_at") for row in known.tables.get("condition", ())}
    classes, codes, releases, dated, displays = [], [], [], [], []
    quarters: Frame = {}
    concepts: dict[tuple[str, int, int], list[Row]] = defaultdict(list)
    loaded = {key: table for key in currency.RELEASED if store is not None and (table := store.table(key)) is not None}
    used: set[str] = set()
    for row in judged.rows:
        one, who, element = judged(row), person(row), row["element"]
        concepts[element, row["record"], row.get("concept") or 1].append(row)
        classes.append((who, (element, one["key"], one["how"], one["cls"])))
        if one["code"]:
            codes.append((who, (element, one["key"], one["code"])))
        if not one["token"].startswith("?") and one["key"] != codings.HL7:
            version = row.get("version") or ""
            releases.append((who, (element, one["key"], (systems.normalise_version(one["key"], version) or "other") if version else "")))
        if not one["code"] or one["key"] not in currency.RELEASED:
            continue
        when = known.used(element, row, recorded)
        if when:
            quarters[element, one["key"], one["code"], f"{when[:4]}-Q{(int(when[5:]) + 2) // 3}"] = (1,)
        if (table := loaded.get(one["key"])) is None:
            continue
        used.add(one["key"])
        position = table.positions([one["code"]])
        cls = currency.CLASSES[int(currency.class_of(table, position, np.array([when], dtype=np.str_))[0])]
        dated.append((who, (element, one["key"], cls)))
        row["_currency"] = cls
        if table.has_names and (display := (row.get("display") or "").strip(" ")):
            names = table.names(int(position[0])) if position[0] >= 0 else ()
            cls = "unlisted" if not names else "agrees" if currency.agrees(display.lower(), names) else "differs"
            displays.append((who, (element, one["key"], cls)))
            row["_display"] = cls
    together = []
    for (element, _, _), rows in concepts.items():
        said = "+".join(sorted({judged(row)["token"] for row in rows}))
        together.append((min((who for row in rows if (who := person(row)) is not None), default=None), (element, said)))
    counted = _within(releases, 1)
    return {
        "classes": _within(classes, 1), "codes": _within(codes, 2), "systems": _within(together, 1),
        "releases": {key: values[:2] for key, values in counted.items()}, "quarters": quarters,
        "currency": _within(dated, 2), "displays": _within(displays, 2),
        "tables": {(r_of, r.label, r.sha256): (1,) for r_of in used for r in loaded[r_of].releases},
    }  # fmt: skip


def shape(text: str) -> str:
    """Return what a text that is no null token looks like."""
    found = next((name for name, pattern in _SHAPES.items() if re.fullmatch(pattern, text)), "words")
    if found == "number":
        try:
            return "number" if math.isfinite(float(text)) else "non-finite"
        except ValueError:
            return "number"
    if found == "number-with-unit":
        tail = (re.fullmatch(_NUMBER + _TAIL, text) or [""] * 2)[1]
        return found if tail and units.listed(tail) else "words"
    return found


def kind(row: Row) -> str:
    """Return the kind of a result's value."""
    said = row.get("value_kind")
    if said == "number":
        return "number" if row.get("comparator") is None else "comparator"
    if said == "text":
        text = (row.get("value_text") or "").strip(' "').replace("\u2212", "-")
        return "null-token" if token(text) else f"{row.get('value_declared') or 'text'}:{shape(text)}"
    if said is None:
        return "none" if row.get("absent_reason") is None else "absent"
    return str(said)


def results(known: Records, judged: Judged) -> list[Row]:
    """Return what is read of each result: its code, unit, kind, number, and whether that is beyond the limits."""
    best: dict[tuple[int, int], list[tuple[int, str, str]]] = defaultdict(list)
    ranks = {"loinc": 0, "snomed": 1}
    for row in judged.rows:
        said = judged(row)
        if row["element"] == "observation.code" and said["code"]:
            best[row["record"], row.get("concept") or 1].append((ranks.get(said["key"], 2), said["key"], said["code"]))
    parts = [row for row in known.tables.get("component", ()) if row.get("excluded") is None]
    found = []
    for row in [*known.rows["observation"], *parts]:
        _, system, code = min(best.get((row["record"], row.get("concept") or 1), [(3, "other", "")]))
        written = row.get("unit_code")
        typed = written if written is not None and not token(written) else row.get("unit")
        typed = typed or ""
        shown = "?null-token" if typed and token(typed) else analytes.shown(typed) if typed.strip() else ""
        unit = units.resolve(shown) if shown and shown[0] != "?" else None
        one: Row = {
            "row": row, "who": person(row), "code": (system, code), "kind": kind(row), "shown": shown,
            "canonical": unit.ucum if unit else shown if shown == "?unparseable" else "",
            "cls": analytes.unit_class(system if code else None, code or None, shown),  # type: ignore[arg-type]
            "clock": None if "concept" in row else _clock(row.get("at")),
        }  # fmt: skip
        one["number"] = one["kind"] in {"number", "comparator"}
        one["v"] = v = row["value_number"] + 0.0 if one["kind"] == "number" else None  # 0 is no less than -0
        limits = analytes.limits(system, code, unit) if code and (unit or shown == "") else None
        one["judged"] = limits is not None and v is not None
        one["beyond"] = (
            limits is not None and v is not None and (v < limits[0] - abs(limits[0]) * 1e-9 or v > limits[1] + abs(limits[1]) * 1e-9)
        )
        one["sentinel"] = v is not None and v in _SENTINELS
        found.append(one)
    return found


def _clock(at: str | None) -> str | None:
    return at if at is not None and len(at) >= 16 and at[11:16] != "00:00" else None


def of_values(found: list[Row]) -> dict[str, Frame]:
    """Return the frames about results, and their rows of ``relations``."""
    kinds, typed, buckets = [], [], []
    for one in found:
        told = one["kind"]
        if one["sentinel"]:
            told = f"number={one['v']:.9g}"
        kinds.append((one["who"], (*one["code"], told + "!" * one["beyond"])))
        if one["number"]:
            typed.append((one["who"], ("observation.unit", *one["code"], one["shown"])))
        if one["v"] is not None and one["code"][1]:
            bucket = histograms.bucket_of(one["v"])
            buckets += [(one["who"], (*one["code"], one["canonical"], width)) for width in (bucket, histograms.coarse_of(bucket))]
    relations: Frame = {}
    numbers = [one for one in found if one["number"]]
    parsed = [one for one in found if one["number"] or ":" in one["kind"]]
    for defect, names in histograms.PARSES.items():
        relations["observation.value", defect] = relation((one["who"], one["kind"] in names) for one in parsed)
    judged = [one for one in numbers if one["judged"]]
    relations["observation.value", "implausible"] = relation((one["who"], one["beyond"] and not one["sentinel"]) for one in judged)
    relations["observation.value", "sentinel"] = relation((one["who"], one["beyond"] and one["sentinel"]) for one in judged)
    for cls in ("unit-missing", "unit-unparseable", "unit-incommensurable"):
        relations["observation.unit", cls] = relation((one["who"], one["cls"] == cls) for one in numbers)
    relations |= _copies(found)
    return {
        "value_kinds": {key: values[:2] for key, values in moments(kinds).items()}, "units": dict(moments(typed)),
        "values": {key: values[:2] for key, values in moments(buckets).items()}, "relations": relations,
    }  # fmt: skip


def _copies(found: list[Row]) -> Frame:
    """Count surplus results: the same number of a patient, code and time of day."""
    timed = [one for one in found if one["clock"] is not None and one["v"] is not None and one["who"] is not None and one["code"][1]]
    same: dict[Any, dict[Any, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for one in timed:
        row = one["row"]
        own = tuple(row.get(name) for name in ("encounter_id", "status", "unit", "unit_code", "range_low", "range_high"))
        name = row["record"] if row.get("id") is None else f"{row['source_type']} {row['id']}"  # under one id it is a duplicate-id
        same[one["who"], one["code"], one["clock"], one["v"]][own].add(name)
    copies = [(key[0], len(names) - 1) for key, variants in same.items() for names in variants.values()]
    near = [(key[0], len(variants) - 1) for key, variants in same.items()]
    return {
        ("observation.code", name): (sum(n for _, n in rows), len(timed), len({who for who, n in rows if n}))
        for name, rows in (("duplicate-record", copies), ("near-duplicate", near))
    }
