"""The release panel of the scorecard: per element and system what is declared and inferred, live beside training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ehrready import suppression
from ehrready.profile import Profile
from ehrready.releases import Seen, declared, infer, systems_of

if TYPE_CHECKING:
    from ehrready.terminology.fingerprint import Inference
    from ehrready.terminology.releases import Store


def panel(profile: Profile, training: Profile | None, store: Store | None, internal: bool) -> list[dict[str, Any]]:
    """Return the scorecard's ``releases``: per element and system what is declared and inferred, live beside training."""
    rows = []
    for element in sorted({key[0] for key in profile.frames["releases"]}):
        then = declared(training, element) if training else {}
        for system, releases in sorted(declared(profile, element).items()):
            shown, trained = _shares(releases, internal), _shares(then.get(system, {}), internal)
            live = infer(profile, element, system, store)
            past = infer(training, element, system, store) if training and system in systems_of(training, element) else None
            status = _status(
                live.releases if live else (),
                past.releases if past else (),
                {r["release"] for r in shown} - {None},
                {r["release"] for r in trained} - {None},
            )
            row: dict[str, Any] = {
                "element": element,
                "system": system,
                "declared": shown,
                "inferred": _inferred(live.overall, live.releases) if live else None,
                "strata": [_stratum(live, quarter) for quarter in live.quarters if quarter] if live else [],
                "timeline": [{"release": r.label, "effective": r.effective} for r in live.table.releases if r.effective] if live else [],
                "training": None,
                "status": status,
                "advice": _advice(status, system, live, past),
            }
            if trained or past:
                row["training"] = {"declared": trained, "inferred": _inferred(past.overall, past.releases) if past else None}
            rows.append(row)
    return rows


def _inferred(found: Inference, releases: tuple[str, ...]) -> dict[str, Any]:
    probability = None if found.probability is None else round(found.probability, 4)
    return {
        "releases": list(releases),
        "probability": probability,
        "pattern": found.pattern,
        "evidence": list(found.evidence),
        "reason": found.reason,
    }


def _stratum(seen: Seen, quarter: str) -> dict[str, Any]:
    found = seen.quarters[quarter]
    return {
        "quarter": quarter,
        "releases": list(found.releases),
        "probability": None if found.probability is None else round(found.probability, 4),
    }


def _status(live: tuple[str, ...], past: tuple[str, ...], names: set[str], known: set[str]) -> str:
    """Compare what the codes say where that is sure, else what is declared; releases that only may be the same prove nothing."""
    if live and past and not set(live) & set(past):
        return "different"
    if len(live) == 1 and live == past:
        return "same"
    return "not-declared" if not names else "not-compared" if not known else "same" if names <= known else "different"


def _advice(status: str, system: str, live: Seen | None, past: Seen | None) -> str:
    """Say what to do, in a sentence; empty where there is nothing to do."""
    if live is None:
        return (
            f"Load the releases of {system} with `ehrready terminology add`, so that the codes can be compared with them."
            if system in _LOADABLE
            else ""
        )
    if status == "different" and past is not None and past.releases and live.releases:
        return f"Map the codes that are new since {past.releases[-1]} to the ones training knew, or retrain on data of {live.releases[-1]}."
    if live.overall.pattern == "mixed":
        return "Find out which feed sends which release: quarters of the same data are coded in different ones."
    if live.overall.pattern in {"frozen", "lagging"}:
        return "Ask who maintains the code tables of the source system why they are not updated each year."
    return ""


_LOADABLE = frozenset({"icd10cm", "icd10pcs", "icd9cm", "loinc", "snomed", "rxnorm", "cvx", "hcpcs"})


def _shares(releases: Mapping[str, tuple[int | None, int | None]], internal: bool) -> list[dict[str, Any]]:
    total = sum(n or 0 for n, _ in releases.values())
    # one hidden share could be told from the others: they go together
    hide = any(n is None or (not internal and (suppression.small(patients) or suppression.small(n))) for n, patients in releases.values())
    found = []
    for release, (n, _) in sorted(releases.items()):
        found.append({"release": release or None, "share": None if hide or not total else round((n or 0) / total, 4)})
    return found
