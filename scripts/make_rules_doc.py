"""Write docs/rules.md from the shipped packs and the checks' docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ehrready import rules  # noqa: E402
from ehrready.checks import CHECKS, DIMENSIONS  # noqa: E402
from ehrready.rules.parser import named  # noqa: E402

HEAD = """# Rules reference

Made by `python scripts/make_rules_doc.py` from the packs in `rules/` and the docstrings of the checks; do not edit.
How to write rules of your own: [writing-rules.md](writing-rules.md).
"""


def text() -> str:
    """Return the whole page."""
    parts = [HEAD, "## Packs\n"]
    packs = [rules.load(path) for path in rules.shipped().values()]
    for pack in packs:
        taken = f" Taken without being named for: {', '.join(pack.formats)}." if pack.formats else ""
        taken = " Always taken." if pack.name == "core" else taken
        parts.append(f"- **[{pack.name}](#pack-{pack.name})** {pack.version}: {pack.title}.{taken}")
    seen: set[str] = set()
    for pack in packs:
        inherited = {rule.id for other in pack.extends for rule in other.rules}
        parts += [f"\n## Pack {pack.name}\n", f"{pack.title}. Version {pack.version}."]
        if pack.extends:
            parts.append(f"\nExtends {', '.join(other.name for other in pack.extends)}; changed and own rules:")
        for rule in pack.rules:
            if rule.id in inherited and rule in [r for other in pack.extends for r in other.rules]:
                continue
            parts += _rule(rule, rule.id in seen)
            seen.add(rule.id)
    parts.append("\n## Checks\n\nWhat a rule's `check` may be, by dimension.")
    for dimension in (*DIMENSIONS, *sorted({check.dimension for check in CHECKS.values()} - {*DIMENSIONS})):
        parts.append(f"\n### Dimension {dimension}")
        for name, check in sorted(CHECKS.items()):
            if check.dimension == dimension:
                parts += [f"\n#### `check: {name}`\n", check.help]
                parts += ["", *(f"- `{key}`: {named(p.annotation)}" for key, p in check.options.items())] if check.options else []
    return "\n".join(parts).rstrip() + "\n"


def _rule(rule: rules.Rule, again: bool) -> list[str]:
    limits = [
        ("fails above", rule.limits.fail),
        ("warns above", rule.limits.warn),
        ("fails above training +", rule.limits.max_rise),
        ("warns above training +", rule.limits.warn_rise),
    ]
    said = [f"{words} {100 * value:g} %" for words, value in limits if value is not None]
    heading = f"\n### {rule.id}" + (f" ({rule.pack}, changed)" if again else "") + "\n"
    lines = [heading, f"{rule.title or rule.id}. *{rule.severity}, {rule.owner}; check `{rule.check}`*\n"]
    if elements := list(filter(None, rule.elements)):
        lines.append(f"- on: {', '.join(f'`{e}`' for e in elements)}")
    if rule.options:
        lines.append("- options: " + ", ".join(f"`{key}: {value}`" for key, value in rule.options.items()))
    if said:
        lines.append(f"- {'; '.join(said)}")
    return [*lines, f"- why: {rule.why}", f"- fix: {rule.fix}"]


if __name__ == "__main__":
    (ROOT / "docs" / "rules.md").write_text(text(), "utf-8")
