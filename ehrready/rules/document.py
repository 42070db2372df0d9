"""A YAML document that people write, read safely: no aliases, a size limit, and every mistake with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from ehrready.errors import UsageError
from ehrready.resources import YAML

MAX_BYTES = 1_000_000
#: YAML collections within collections; PyYAML composes by recursion.
_MAX_DEPTH = 50


def compose(data: bytes, place: str, what: str) -> yaml.Node | None:
    """Return the document's root node (None when empty); raises UsageError for what is no plain YAML of a sane size."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{place}: {what} may have at most {MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, YAML):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{place}:{_line(event)}: YAML aliases are not allowed: write it out")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise UsageError(f"{place}:{_line(event)}: nested deeper than {_MAX_DEPTH} levels")
        return yaml.compose(text, YAML)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{place}:{line}: not valid YAML here: check indentation, colons and quotes") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise UsageError(f"{place}:1: not valid YAML in UTF-8") from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class Document:
    """Collects the mistakes of one document in ``problems``, each as ``file:line: what is wrong and the remedy``."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.problems: list[str] = []
        self._lines: list[tuple[int, str]] = []

    def wrong(self, node: yaml.Node | None, text: str) -> None:
        """Note a mistake at a node; they are listed in the order of their lines."""
        line = node.start_mark.line + 1 if node else 1
        own = {message for _, message in self._lines}
        self._lines.append((line, f"{self.place}:{line}: {text}"))
        others = [problem for problem in self.problems if problem not in own]
        self.problems = [*others, *(message for _, message in sorted(self._lines, key=lambda item: item[0]))]

    def mapping(self, node: yaml.Node, known: Iterable[str], what: str) -> dict[str, yaml.Node]:
        """Return a mapping's value nodes; unknown and repeated keys are mistakes."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} must be a mapping of keys to values")
            return {}
        names = list(known)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in found:
                self.wrong(key, f"{what}: the key {name} is there twice")
            elif name not in names:
                self.wrong(key, f"{what}: unknown key {shown(name)}{hint(name, names)}")
            else:
                found[name] = value
        return found

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """Return the nodes of a list; anything else is a mistake."""
        if node is not None and not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} must be a list")
        return list(node.value) if isinstance(node, yaml.SequenceNode) else []

    def value(self, node: yaml.Node) -> Any:
        """Return a node as Python data; a scalar that YAML cannot make (a date that does not exist) is a mistake and None."""
        try:
            return SafeConstructor().construct_document(node)
        except (yaml.YAMLError, ValueError, OverflowError, TypeError):
            self.wrong(node, "not a value that YAML knows: put it in quotes")
            return None

    def texts(self, node: yaml.Node | None, what: str) -> list[str]:
        """Return a text or a list of texts as a list; anything else is a mistake."""
        if node is None:
            return []
        value = self.value(node)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not found or not all(isinstance(item, str) and item for item in found):
            self.wrong(node, f"{what} must be a text or a list of texts")
            return []
        return found


def shown(name: str) -> str:
    """Return a word of the document as it may stand in a message: short, on one line."""
    return repr(re.sub(r"\s+", " ", name)[:60])


def hint(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` for the closest known word, else nothing."""
    close = difflib.get_close_matches(name[:200], list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
