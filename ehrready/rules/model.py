"""What a rule and a pack are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

SEVERITIES = ("error", "warning", "info")
MIN_N = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of 1 above which a rule fails or warns: absolute, or as a rise over training."""

    fail: float | None = None
    warn: float | None = None
    max_rise: float | None = None
    warn_rise: float | None = None

    def changed(self, other: Limits) -> Limits:
        """Return these limits with those that ``other`` sets."""
        names = ("fail", "warn", "max_rise", "warn_rise")
        return Limits(*(getattr(other, name) if getattr(other, name) is not None else getattr(self, name) for name in names))


@dataclass(frozen=True, slots=True)
class Rule:
    """A check with its options, limits, severity, owner, why and fix: one entry of a pack.

    ``sites`` are limits of their own for named sites.  A rule whose elements an override treats differently comes in
    several parts with one id and distinct ``elements``.
    """

    id: str
    check: str
    elements: tuple[str, ...]
    severity: str
    owner: str
    why: str
    fix: str
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    min_n: int = MIN_N
    pack: str = ""
    sites: tuple[tuple[str, Limits], ...] = ()

    @property
    def digest(self) -> str:
        """A hash of the check and its options: a measure made for other options is another measure."""
        return hashlib.sha256(orjson.dumps([self.check, self.options], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Pack:
    """A rule pack: ``formats`` says for which formats it is taken without being named; ``disabled`` what it switches off."""

    name: str
    version: str
    sha256: str
    title: str
    formats: tuple[str, ...]
    rules: tuple[Rule, ...]
    disabled: tuple[str, ...] = ()
    extends: tuple[Pack, ...] = ()
