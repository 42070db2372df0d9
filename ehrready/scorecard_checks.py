"""Is a saved scorecard one that ehrready wrote?  It comes from elsewhere: cut, edited or contradictory ones are refused with the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TEXT, _COUNT = (str,), (int,)
_SHARE = (int, float)
STATUSES = ("pass", "warn", "fail", "not-assessed", "not-applicable", "error")
SEVERITIES = ("error", "warning", "info")

#: Key to its types, by part of the document; None in the types means that null may stand there.
_TOP: dict[str, tuple[Any, ...]] = {
    "verdict": _TEXT, "verdict_reasons": (list,), "score": (*_SHARE, None), "coverage": (*_SHARE, None), "internal": (bool,),
    "subject": (dict,), "training": (dict, None), "dimensions": (list,), "findings": (list,), "rules": (dict,), "checks": (dict,),
    "releases": (list,), "ledger": (list,), "provenance": (dict,), "tool": (dict,),
}  # fmt: skip
_FINDING: dict[str, tuple[Any, ...]] = {
    "id": _TEXT, "hidden": (bool,), "rule": _TEXT, "check": _TEXT, "title": _TEXT, "pack": _TEXT, "severity": _TEXT, "dimension": _TEXT,
    "table": _TEXT, "element": _TEXT, "source_element": _TEXT, "group": (dict,), "defect": _TEXT, "status": _TEXT, "owner": _TEXT,
    "numerator": (*_COUNT, None), "denominator": (*_COUNT, None), "rate": (*_SHARE, None), "interval": (list, None), "training": (dict, None),
    "limit": (*_SHARE, None), "effect": (*_SHARE, None), "patients": (*_COUNT, None), "message": _TEXT, "why": _TEXT, "fix": _TEXT,
    "reason": _TEXT, "waiver": (dict, None),
}  # fmt: skip
_LEDGER: dict[str, tuple[Any, ...]] = {
    "file": _TEXT, "format": _TEXT, "status": _TEXT, "bytes": _COUNT, "read": _COUNT, "profiled": _COUNT, "rejected": _COUNT, "reasons": (dict,),
}  # fmt: skip
_DIMENSION: dict[str, tuple[Any, ...]] = {
    "name": _TEXT, "score": (*_SHARE, None), "coverage": (*_SHARE, None), "pass": _COUNT, "warn": _COUNT, "fail": _COUNT, "not_assessed": _COUNT,
}  # fmt: skip
_SUBJECT: dict[str, tuple[Any, ...]] = {
    "name": _TEXT,
    "formats": (list,),
    "records": (dict,),
    "patients": (*_COUNT, None),
    "period": (dict,),
}
_RECORDS: dict[str, tuple[Any, ...]] = {"read": _COUNT, "profiled": _COUNT, "rejected": _COUNT}
_WAIVER: dict[str, tuple[Any, ...]] = {"owner": _TEXT, "reason": _TEXT, "expires": _TEXT}
_PROVENANCE: dict[str, tuple[Any, ...]] = {"rule_packs": (list,), "terminology": (list,), "input_sha256": _TEXT, "plugins": (list,)}
_PACK: dict[str, tuple[Any, ...]] = {"name": _TEXT, "version": _TEXT, "sha256": _TEXT}
_RELEASE: dict[str, tuple[Any, ...]] = {
    "element": _TEXT,
    "system": _TEXT,
    "declared": (list,),
    "inferred": (dict, None),
    "training": (dict, None),
    "status": _TEXT,
}


def first_problem(d: Mapping[str, Any]) -> str:
    """Return where and why a document cannot be a scorecard (a JSON pointer and a reason), or ``""``."""
    return next(_problems(d), "")


def _problems(d: Mapping[str, Any]) -> Iterator[str]:
    yield from _shape(d, _TOP, "")
    yield from _shape(d["tool"], {"name": _TEXT, "version": _TEXT}, "/tool")
    for side in ("subject", "training"):
        if d[side] is not None:
            yield from _shape(d[side], _SUBJECT, f"/{side}")
            yield from _shape(d[side]["records"], _RECORDS, f"/{side}/records")
    yield from _shape(d["provenance"], _PROVENANCE, "/provenance")
    for i, pack in enumerate(d["provenance"]["rule_packs"]):
        yield from _shape(pack, _PACK, f"/provenance/rule_packs/{i}")
    for i, table in enumerate(d["provenance"]["terminology"]):
        yield from _shape(table, {"system": _TEXT, "release": _TEXT, "sha256": _TEXT}, f"/provenance/terminology/{i}")
    yield from (f"/subject/formats/{i} is no text" for i, name in enumerate(d["subject"]["formats"]) if not isinstance(name, str))
    yield from (f"/provenance/plugins/{i} is no text" for i, name in enumerate(d["provenance"]["plugins"]) if not isinstance(name, str))
    yield from (f"/verdict_reasons/{i} is no text" for i, reason in enumerate(d["verdict_reasons"]) if not isinstance(reason, str))
    for name, keys in (("dimensions", _DIMENSION), ("ledger", _LEDGER), ("releases", _RELEASE), ("findings", _FINDING)):
        for i, row in enumerate(d[name]):
            yield from _shape(row, keys, f"/{name}/{i}")
    for i, finding in enumerate(d["findings"]):
        yield from _finding(finding, f"/findings/{i}")
    for i, row in enumerate(d["ledger"]):
        if row["read"] != row["profiled"] + row["rejected"] and row["status"] != "reference":
            yield f"/ledger/{i}: read is not profiled and rejected"
        if not all(isinstance(n, int) for n in row["reasons"].values()) or sum(row["reasons"].values()) != row["rejected"]:
            yield f"/ledger/{i}/reasons do not add up to rejected"
    yield from _verdict(d)


def _shape(node: Any, keys: Mapping[str, tuple[Any, ...]], place: str) -> Iterator[str]:
    """Check that a node is an object with these keys of these types; whole numbers are not negative."""
    if not isinstance(node, Mapping):
        yield f"{place or '/'} is no object"
        return
    for key, kinds in keys.items():
        value = node.get(key)
        types = tuple(kind for kind in kinds if kind is not None)
        if key not in node:
            yield f"{place}/{key} is missing"
        elif value is None:
            if None not in kinds:
                yield f"{place}/{key} is null"
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield f"{place}/{key} is of another type"
        elif kinds[0] is int and value < 0 and float not in kinds:
            yield f"{place}/{key} is negative"


def _finding(f: Mapping[str, Any], place: str) -> Iterator[str]:
    if f["status"] not in STATUSES:
        yield f"{place}/status is not one of {', '.join(STATUSES)}"
    if f["severity"] not in SEVERITIES:
        yield f"{place}/severity is not one of {', '.join(SEVERITIES)}"
    n, of, rate, interval = f["numerator"], f["denominator"], f["rate"], f["interval"]
    if n is not None and of is not None:
        if n > of and f["status"] in {"pass", "warn", "fail"} and f["check"] != "volume-shift":
            yield f"{place}: the numerator is beyond the denominator"
        elif of and rate is not None and abs(rate - n / of) > 1e-3:
            yield f"{place}/rate is not numerator / denominator"
    if interval is not None and not (
        len(interval) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in interval) and interval[0] <= interval[1]
    ):
        yield f"{place}/interval is no pair of numbers in order"
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in f["group"].items()):
        yield f"{place}/group holds something else than texts"
    if f["waiver"] is not None:
        yield from _shape(f["waiver"], _WAIVER, f"{place}/waiver")
    if f["training"] is not None:
        yield from _shape(f["training"], {"numerator": _COUNT, "denominator": _COUNT, "rate": _SHARE}, f"{place}/training")


def _verdict(d: Mapping[str, Any]) -> Iterator[str]:
    """A verdict that its own findings contradict was changed by hand."""
    live = [f for f in d["findings"] if not f["waiver"] and f["severity"] != "info"]
    failing = any((f["status"], f["severity"]) == ("fail", "error") for f in live)
    crashed = any(f["status"] == "error" for f in d["findings"])
    verdict = d["verdict"]
    if verdict in {"ready", "ready-with-conditions"} and (failing or crashed):
        yield f"/verdict is {verdict} although a required rule {'crashed' if crashed else 'failed'}"
    if verdict == "ready" and any(f["status"] in {"fail", "warn"} for f in live):
        yield "/verdict is ready although a rule failed or warned"
    if verdict == "not-ready" and not failing:
        yield "/verdict is not-ready although no required rule failed"
    records = d["subject"]["records"]
    if records["read"] != records["profiled"] + records["rejected"]:
        yield "/subject/records: read is not profiled and rejected"
