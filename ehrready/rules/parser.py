"""Parses one pack; every mistake is noted with its line, so that all of them can be mended at once."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from ehrready import plugins
from ehrready.checks import CHECKS
from ehrready.checks.base import Check
from ehrready.errors import UsageError
from ehrready.rules.document import Document, hint, shown
from ehrready.rules.model import MIN_N, SEVERITIES, Limits, Pack, Rule
from ehrready.sites import OTHERS
from ehrready.tables import ELEMENTS

PACK_KEYS = ("pack", "version", "title", "formats", "extends", "disable", "overrides", "rules")
#: Texts of a rule; all but the title are required.
TEXTS = ("id", "severity", "owner", "why", "fix", "title")
LIMITS = {"fail": ("max_rate",), "warn": ("max_rate",), "versus_training": ("max_rise", "warn_rise")}
RULE_KEYS = ("check", "on", "min_n", *TEXTS, *LIMITS)
OVERRIDE_KEYS = ("rules", "on", "site", "min_n", *(key for key in TEXTS if key != "id"), *LIMITS)
#: A pack may extend packs that extend packs, to this depth.
_MAX_EXTENDS = 10

Load = Callable[[str, Path, tuple[str, ...]], Pack]


class CycleError(Exception):
    """A pack extends itself, directly or through others."""


class PackParser(Document):
    """Turns a composed pack into rules; ``load`` loads a pack that this one extends."""

    def __init__(self, place: str, folder: Path, chain: tuple[str, ...], load: Load) -> None:
        super().__init__(place)
        self.folder, self.chain, self.load = folder, chain, load

    def pack(self, node: yaml.Node | None, data: bytes) -> Pack:
        """Return the pack; it is worth something only when ``problems`` is empty."""
        digest = hashlib.sha256(data).hexdigest()
        if node is None:
            self.wrong(None, "the pack is empty: it needs pack, version and rules")
            return Pack("", "", digest, "", (), ())
        body = self.mapping(node, PACK_KEYS, "the pack")
        for key in ("pack", "version"):
            if key not in body and isinstance(node, yaml.MappingNode):
                self.wrong(node, f"the pack has no {key}")
        if isinstance(node, yaml.MappingNode) and not {"rules", "extends"} & body.keys():
            self.wrong(node, "the pack has no rules and extends none")
        name, version, title = (self._text(body.get(key)) for key in ("pack", "version", "title"))
        extended = self._extended(body.get("extends"))
        rules: dict[str, list[Rule]] = {}
        for rule in (rule for pack in extended for rule in pack.rules):
            parts = rules.setdefault(rule.id, [])
            if rule not in parts:
                parts.append(rule)
        own: set[str] = set()
        for item in self.items(body.get("rules"), "rules"):
            found = self._rule(item, name)
            if found is not None:
                if found.id in own:
                    self.wrong(item, f"rule {found.id} is there twice: ids are unique")
                own.add(found.id)
                rules[found.id] = [found]
        disabled = self._disabled(body.get("disable"), rules)
        for item in self.items(body.get("overrides"), "overrides"):
            self._override(item, rules)
        return Pack(
            name, version, digest, title, tuple(self.texts(body.get("formats"), "formats")),
            tuple(part for parts in rules.values() for part in parts), tuple(disabled), tuple(extended),
        )  # fmt: skip

    def _text(self, node: yaml.Node | None) -> str:
        return str(self.value(node)).strip() if node is not None else ""

    def _extended(self, node: yaml.Node | None) -> list[Pack]:
        found: list[Pack] = []
        for name in self.texts(node, "extends"):
            if len(self.chain) > _MAX_EXTENDS:
                self.wrong(node, f"extends: more than {_MAX_EXTENDS} packs deep: name them side by side")
                return found
            try:
                found.append(self.load(name, self.folder, self.chain))
            except CycleError:
                self.wrong(node, f"extends: {shown(name)} leads back to this pack: break the cycle")
            except UsageError as error:
                self.problems += error.problems
            except OSError:
                self.wrong(node, f"extends: {shown(name)} cannot be read")
        return found

    def _disabled(self, node: yaml.Node | None, rules: dict[str, list[Rule]]) -> list[str]:
        gone: list[str] = []
        for pattern in self.texts(node, "disable"):
            matches = fnmatch.filter(rules, pattern)
            if not matches:
                self.wrong(node, f"disable: no rule {shown(pattern)} to switch off{hint(pattern, rules)}")
            for name in matches:
                del rules[name]
            gone += matches
        return gone

    def _rule(self, node: yaml.Node, pack: str) -> Rule | None:
        before = len(self.problems)
        check = None
        if isinstance(node, yaml.MappingNode):
            at, name = next(((v, str(v.value)) for k, v in node.value if k.value == "check"), (node, ""))
            check = CHECKS.get(name) or plugins.check(name)
            if not check:
                self.wrong(at, f"unknown check {shown(name)}{hint(name, [*CHECKS, *plugins.names('checks')])}")
        body = self.mapping(node, (*RULE_KEYS, *(check.options if check else ())), "the rule")
        if not isinstance(node, yaml.MappingNode) or check is None:
            return None
        texts = {key: self._required(key, body, node) for key in TEXTS if key != "title"}
        if texts["severity"] and texts["severity"] not in SEVERITIES:
            self.wrong(body["severity"], f"severity must be one of {', '.join(SEVERITIES)}{hint(texts['severity'], SEVERITIES)}")
        elements = self._elements(body.get("on"), node, check)
        options = self._options(body, check)
        for key, parameter in check.options.items():
            if parameter.default is inspect.Parameter.empty and key not in body:
                self.wrong(node, f"the check {check.name} needs the option {key}")
        limits = self._limits(body)
        if check.decides and limits != Limits():
            self.wrong(node, f"{check.name} sets its own limit: use its options instead of fail, warn or versus_training")
        if not check.decides and not LIMITS.keys() & body.keys():
            self.wrong(node, "the rule has no limit: give fail: {max_rate: ...} or warn: {max_rate: ...}")
        min_n = self._min_n(body.get("min_n"))
        for problem in check.lint(options) if check.lint and len(self.problems) == before else ():
            self.wrong(node, problem)
        if len(self.problems) > before:
            return None
        return Rule(
            texts["id"], check.name, elements, texts["severity"], texts["owner"], texts["why"], texts["fix"],
            self._text(body.get("title")), options, limits, min_n or MIN_N, pack,
        )  # fmt: skip

    def _required(self, key: str, body: dict[str, yaml.Node], node: yaml.Node) -> str:
        value = self.value(body[key]) if key in body else None
        if not isinstance(value, str) or not value.strip():
            self.wrong(body.get(key, node), f"the rule needs a text for {key}")
            return ""
        return value.strip()

    def _options(self, body: dict[str, yaml.Node], check: Check) -> dict[str, Any]:
        given = {key: self.value(body[key]) for key in check.options if key in body}
        for key, value in given.items():
            if not _fits(value, check.options[key].annotation):
                self.wrong(body[key], f"option {key} of {check.name} must be {named(check.options[key].annotation)}")
        return given

    def _min_n(self, node: yaml.Node | None) -> int | None:
        if node is None:
            return None
        value = self.value(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.wrong(node, "min_n must be a whole number of at least 1")
            return None
        return value

    def _limits(self, body: dict[str, yaml.Node]) -> Limits:
        found: dict[str, float] = {}
        for key, known in LIMITS.items():
            if key in body:
                for name, node in self.mapping(body[key], known, key).items():
                    value = self.value(node)
                    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                        self.wrong(node, f"{key}.{name} must be a share between 0 and 1")
                    else:
                        found[key if name == "max_rate" else name] = float(value)
        return Limits(**found)

    def _elements(self, on: yaml.Node | None, node: yaml.Node, check: Check) -> tuple[str, ...]:
        if check.whole:
            if on is not None:
                self.wrong(on, f"{check.name} is about the whole data set: leave on out")
            return ("",)
        if on is None:
            self.wrong(node, "the rule needs on: an element, a list of elements or a glob such as *.code")
        return self._matching(on, ELEMENTS)

    def _matching(self, on: yaml.Node | None, known: Iterable[str]) -> tuple[str, ...]:
        names = list(known)
        found: list[str] = []
        for pattern in self.texts(on, "on"):
            matches = fnmatch.filter(names, pattern)
            if not matches:
                self.wrong(on, f"no element matches {shown(pattern)}{hint(pattern, names)}")
            found += matches
        return tuple(dict.fromkeys(found))

    def _override(self, node: yaml.Node, rules: dict[str, list[Rule]]) -> None:
        """Change rules that are there: by id, by element, limits also by site."""
        before = len(self.problems)
        names = {str(v.value) for k, v in getattr(node, "value", ()) if k.value == "rules"}
        targets: list[str] = []
        head = {str(k.value): v for k, v in node.value} if isinstance(node, yaml.MappingNode) else {}
        patterns = self.texts(head.get("rules"), "rules")
        if not names:
            self.wrong(node, "the override needs rules: an id, a list of ids or a glob such as *-present")
        for pattern in patterns:
            matches = fnmatch.filter(rules, pattern)
            if not matches:
                self.wrong(head["rules"], f"overrides: no rule {shown(pattern)}{hint(pattern, rules)}")
            targets += matches
        targets = list(dict.fromkeys(targets))
        checks = list({part.check: CHECKS[part.check] for name in targets for part in rules[name]}.values())
        shared = [key for key in (checks[0].options if checks else ()) if all(key in check.options for check in checks)]
        body = self.mapping(node, (*OVERRIDE_KEYS, *shared), "the override")
        if len(self.problems) > before:
            return
        on = self._matching(body["on"], {e for name in targets for part in rules[name] for e in part.elements}) if "on" in body else None
        limits, changes = self._limits(body), self._changes(body)
        options = {key: value for check in checks for key, value in self._options(body, check).items()}
        deciding = sorted(check.name for check in checks if check.decides)
        if deciding and limits != Limits():
            self.wrong(node, f"{', '.join(deciding)} sets its own limit: use its options instead of fail, warn or versus_training")
        site = self._text(body.get("site"))
        if "site" in body:
            pooled = sorted(check.name for check in checks if not check.by_site)
            if pooled:
                able = ", ".join(sorted(name for name, check in CHECKS.items() if check.by_site))
                self.wrong(body["site"], f"{', '.join(pooled)} cannot be judged by site ({able} can)")
            if site == OTHERS:
                self.wrong(body["site"], f"{OTHERS} are the sites without limits of their own: give the override without site")
            if not site or changes or options or limits == Limits():
                self.wrong(body["site"], "a site has a name and limits of its own (fail, warn, versus_training) and nothing else")
        elif limits == Limits() and not changes and not options:
            self.wrong(node, "the override changes nothing: give fail, warn, versus_training, severity, owner, min_n or an option")
        if len(self.problems) > before:
            return
        for name in targets:
            rules[name] = [new for part in rules[name] for new in _changed(part, on, limits, changes, options, site)]

    def _changes(self, body: dict[str, yaml.Node]) -> dict[str, Any]:
        found: dict[str, Any] = {key: self._required(key, body, body[key]) for key in TEXTS if key in body}
        if found.get("severity", SEVERITIES[0]) not in SEVERITIES:
            self.wrong(body["severity"], f"severity must be one of {', '.join(SEVERITIES)}{hint(found['severity'], SEVERITIES)}")
        if (min_n := self._min_n(body.get("min_n"))) is not None:
            found["min_n"] = min_n
        return found


def _changed(
    part: Rule, on: tuple[str, ...] | None, limits: Limits, changes: dict[str, Any], options: dict[str, Any], site: str
) -> list[Rule]:
    """Return a rule's part as the override leaves it: split in two where only some of its elements are meant."""
    meant = tuple(e for e in part.elements if on is None or e in on)
    rest = tuple(e for e in part.elements if e not in meant)
    if not meant:
        return [part]
    new = dataclasses.replace(part, elements=meant)
    if site:
        before = dict(part.sites).get(site, part.limits)
        new = dataclasses.replace(new, sites=tuple(sorted({**dict(part.sites), site: before.changed(limits)}.items())))
    else:
        new = dataclasses.replace(new, limits=part.limits.changed(limits), options={**part.options, **options}, **changes)
    return [new, *([dataclasses.replace(part, elements=rest)] if rest else [])]


def _fits(value: Any, kind: Any) -> bool:
    """Is a YAML value of the annotated type of an option?  Knows bool, int, float, str, lists, mappings and unions."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if args := get_args(kind):
        return any(_fits(value, arg) for arg in args)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind is type(None) else isinstance(value, kind)


def named(kind: Any) -> str:
    """Return the type of an option in words."""
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    if get_origin(kind) is list:
        return f"a list, each {named(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "a mapping"
    if args := [arg for arg in get_args(kind) if arg is not type(None)]:
        return " or ".join(map(named, args))
    return names.get(kind, "another type")
