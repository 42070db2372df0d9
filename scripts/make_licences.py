"""Write docs/licences.md: what ehrready needs to run, from requirements.lock, with the licence each package declares."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "licences.md"
_HEAD = """# Licences of the dependencies

What `requirements.lock` installs, and the licence that each package's own metadata declares. Made by
`python scripts/make_licences.py`; a test compares it with the lock. ehrready itself is under Apache-2.0.

| package | licence |
|---|---|
"""


def locked() -> list[str]:
    """Return the names of requirements.lock, each once, sorted."""
    text = (ROOT / "requirements.lock").read_text("utf-8")
    return sorted({name.lower() for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text)})


def licence(name: str) -> str:
    """Return the licence of an installed package (PEP 639 expression, classifiers, field), or that it is not installed here."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "(not installed on this platform)"
    if expression := about.get("License-Expression"):
        return str(expression)
    listed = [c.rpartition("::")[2].strip() for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    listed = [c for c in listed if c != "OSI Approved"]
    field = (about.get("License") or "").strip().partition("\n")[0]
    return ", ".join(sorted(listed)) or field[:60] or "(not declared)"


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(f"| {name} | {licence(name)} |\n" for name in locked())


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
