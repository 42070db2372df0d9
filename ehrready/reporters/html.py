"""The HTML report: one offline page made from the scorecard alone, verdict first, readable without its script.

The templates beside this module hold the words and the order, ``view`` computes what they show, ``charts`` and
``timeline`` draw, ``words`` writes numbers and names.  Autoescape is on, an undefined name is an error, and the page's
Content Security Policy allows nothing but the one style sheet and the one script in it, by their hashes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jinja2

from ehrready.reporters import charts, timeline, words
from ehrready.reporters.view import view
from ehrready.reporters.words import VERDICTS

if TYPE_CHECKING:
    from ehrready.scorecard import Scorecard

__all__ = ["VERDICTS", "render"]

_FILTERS = (
    "number", "percent", "whole", "points", "month", "release", "size", "plain", "words", "tied", "plural", "table", "where", "inline", "system", "sentence", "gist", "ticks"
)  # fmt: skip

#: Templates of other pages.
_OTHERS = ("diff.html", "status.html")


def render(scorecard: Scorecard) -> str:
    """Return the report as one HTML page; the same scorecard gives the same text."""
    d = scorecard.document
    figures = {"charts": charts.charts(d.get("distributions") or []), "lines": timeline.timelines(d["releases"])}
    return page("report.html", view(d), d=d, **figures)


def page(template: str, names: Mapping[str, Any], **more: Any) -> str:
    """Return a page whose Content Security Policy allows nothing but its own style sheet and script."""
    environment = _environment()
    style, script = (environment.get_template(name).render() for name in ("report.css", "report.js"))
    policy = f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(policy=policy, **names, **more)


def prepare() -> None:
    """Compile the templates of the report, which :func:`render` else does."""
    environment = _environment()
    for name in (name for name in environment.list_templates() if name not in _OTHERS):
        environment.get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ehrready.reporters", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `tojson` writes <, >, & and ' as \u escapes, and ASCII only, so that nothing can end the script element
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": True}
    environment.filters |= {name: getattr(words, name) for name in _FILTERS}
    environment.globals |= {
        "VERDICTS": VERDICTS, "STATUSES": words.STATUSES, "SEVERITIES": words.SEVERITIES, "FORMATS": words.FORMATS,
        "DIMENSIONS": words.DIMENSIONS, "release_words": words.release_words,
    }  # fmt: skip
    return environment


def _sha256(text: str) -> str:
    """Return a CSP source expression for an inline element with this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
