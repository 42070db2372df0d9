"""The leaves of a FHIR resource: the structure that its one parse gives, and the aliases of what columns are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Leaves:
    """The leaves of a resource type: the structure that is parsed, and SQL over the parsed ``x`` by alias (``l0``, ``l1``...)."""

    structure: dict[str, Any]
    aliases: dict[str, str] = field(default_factory=dict)

    def of(self, sql: str) -> str:
        """Return the alias of some SQL over ``x`` that gives text."""
        return self.aliases.setdefault(sql, f"l{len(self.aliases)}")

    def at(self, path: str, kind: Any = "VARCHAR") -> str:
        """Return the alias of a dotted path; ``[]`` takes the first element of a list.  ``JSON`` gives the text of what is there."""
        sql = self.sql(path, kind)
        return self.of(f"{sql}::VARCHAR" if kind == "JSON" else sql)

    def clean(self, path: str) -> str:
        """Return the alias (``k0``) of a path's text, trimmed and not empty."""
        return f"k{self.at(path)[1:]}"

    def sql(self, path: str, kind: Any = "VARCHAR") -> str:
        """Add a dotted path to the structure and return its SQL over ``x``."""
        node, sql = self.structure, "x"
        steps = path.split(".")
        for step in steps[:-1]:
            name = step.removesuffix("[]")
            child = node.setdefault(name, [{}] if step.endswith("[]") else {})
            sql += f'."{name}"' + ("[1]" if step.endswith("[]") else "")
            node = child[0] if isinstance(child, list) else child
        node.setdefault(steps[-1], kind)
        return f'{sql}."{steps[-1]}"'
