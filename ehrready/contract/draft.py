"""Drafts a contract from the profile of the training set: the codes that its patients have, most frequent first."""

from __future__ import annotations

from ehrready.checks.contract import code_element
from ehrready.profile import Profile
from ehrready.releases import declared
from ehrready.suppression import SMALLEST
from ehrready.tables import TABLES
from ehrready.terminology import systems

#: Tables that features are drafted from, and how many codes of each.
_DRAFTED = [table for table in TABLES if code_element(table)]


def draft(profile: Profile, *, model: str = "my-model", version: str = "0.1.0", most: int = 10) -> str:
    """Return ``contract.yaml`` as text, the ``most`` most frequent codes of each table as features.

    ``required`` is the share of the training patients who have the code, less a tenth of it; codes of fewer than 11 patients
    and codes of no public system are left out.
    """
    patients = profile.patients or 0
    lines = [
        "# A draft from the training profile: keep the features that the model has, name the others, then check with it.",
        'contract: "1.0"',
        f"model: {{name: {model}, version: {version}}}",
        "cohort: {description: the patients of the training set}",
        "features:",
    ]
    found = 0
    for table in _DRAFTED:
        element = code_element(table)
        ranked: list[tuple[int, str, str]] = []
        for (_, system, code), values in profile.rows("codes", element):
            if values[1] is not None and values[1] >= SMALLEST and systems.is_public(system):
                ranked.append((-values[1], system, code))
        units = _units(profile)
        releases = declared(profile, element)
        for minus, system, code in sorted(ranked)[:most]:
            found += 1
            name = f"{table}-{code}".replace("/", "-").replace("^", "-").replace(" ", "-")[:60]
            lines += [f"  - name: {name}", f"    table: {table}", f'    codes: {{{system}: ["{code}"]}}']
            stated = sorted(release for release, (n, _) in releases.get(system, {}).items() if release and n)
            if stated:
                lines.append(f"    releases: {{{system}: [{', '.join(_quoted(r) for r in stated)}]}}")
            if table == "observation" and (mine := units.get((system, code))):
                lines.append(f"    units: [{', '.join(_quoted(u) for u in mine)}]")
            lines.append(f"    required: {round(0.9 * min(1.0, -minus / patients), 3) if patients else 0.0}")
    if not found:
        lines[-1] = "features: []  # the profile shows no code of 11 or more patients: write the features yourself"
    lines += [
        "outputs:",
        "  - {name: risk, kind: score, range: [0, 1], write_back: {resource: RiskAssessment, interactions: [create]}}",
        "label: {name: outcome, delay_days: 30}",
        "deployment: {fhir_version: 4.0.1, smart: backend}",
        "owners:",
        "  - {name: engineering}",
        "  - {name: clinical-informatics}",
        "subgroups: [sex, age]",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _units(profile: Profile) -> dict[tuple[str, str], list[str]]:
    """Return (system, code) to the units, as UCUM where they are known, of at least a tenth of its results in training."""
    from ehrready.units import resolve

    found: dict[tuple[str, str], dict[str, int]] = {}
    for (_, system, code, typed), values in profile.rows("units"):
        unit = resolve(typed)
        if values[0] and unit is not None:
            per = found.setdefault((system, code), {})
            per[unit.ucum] = per.get(unit.ucum, 0) + values[0]
    return {key: sorted(u for u, n in per.items() if n * 10 >= sum(per.values())) for key, per in found.items()}
