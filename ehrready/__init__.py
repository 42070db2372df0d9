"""ehrready tells a team whether live EHR data is fit for the model they trained.

The public Python interface is :func:`check`, :func:`profile_of` and :func:`compare`; everything else may
change between minor versions.  Heavy libraries are imported only when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ehrready.api import check as check
    from ehrready.api import compare as compare
    from ehrready.api import profile_of as profile_of

__all__ = ["__version__", "check", "compare", "profile_of"]


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use, so that ``ehrready --version`` stays fast (PEP 562)."""
    if name in {"check", "compare", "profile_of"}:
        from ehrready import api

        return getattr(api, name)
    raise AttributeError(name)
