"""A reporter: one line per status."""

from __future__ import annotations

from collections import Counter

from ehrready.scorecard import Scorecard


def render(card: Scorecard) -> str:
    """Return the verdict and how many findings have which status."""
    tally = Counter(finding["status"] for finding in card.document["findings"])
    return "\n".join([f"verdict {card.verdict}", *(f"{status} {n}" for status, n in sorted(tally.items()))]) + "\n"
