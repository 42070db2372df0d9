"""The checks: one module per dimension; importing this package registers them."""

from ehrready.checks import (
    accuracy,
    comparability,
    completeness,
    conformance,
    contract,
    custom,
    mix,
    plausibility,
    production,
    release,
    shift,
    site,
    structure,
    units,
    volume,
)
from ehrready.checks.base import CHECKS, DIMENSIONS, Check, Outcome, check

__all__ = [
    "CHECKS",
    "DIMENSIONS",
    "Check",
    "Outcome",
    "accuracy",
    "check",
    "comparability",
    "completeness",
    "conformance",
    "contract",
    "custom",
    "mix",
    "plausibility",
    "production",
    "release",
    "shift",
    "site",
    "structure",
    "units",
    "volume",
]
