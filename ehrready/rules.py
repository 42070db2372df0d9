"""Rule packs: YAML in, validated rules out; every mistake of every pack is reported at once with its place."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from ehrready import resources
from ehrready.checks import CHECKS
from ehrready.errors import UsageError
from ehrready.tables import ELEMENTS

SEVERITIES = ("error", "warning", "info")
MIN_N = 30
_MAX_BYTES = 1_000_000
_PACK_KEYS = {"pack", "version", "title", "formats", "extends", "disable", "rules"}
_RULE_KEYS = {"id", "check", "on", "fail", "warn", "versus_training", "severity", "owner", "why", "fix", "title", "min_n"}
_LIMITS = {"fail": {"max_rate"}, "warn": {"max_rate"}, "versus_training": {"max_rise", "warn_rise"}}


@dataclass(frozen=True, slots=True)
class Rule:
    """A check with its options, limits, severity, owner, why and fix: one entry of a pack."""

    id: str
    check: str
    elements: tuple[str, ...]
    severity: str
    owner: str
    why: str
    fix: str
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    fail: float | None = None
    warn: float | None = None
    max_rise: float | None = None
    warn_rise: float | None = None
    min_n: int = MIN_N
    pack: str = ""


@dataclass(frozen=True, slots=True)
class Pack:
    """A rule pack: ``formats`` says for which formats it is taken without being named."""

    name: str
    version: str
    sha256: str
    title: str
    formats: tuple[str, ...]
    rules: tuple[Rule, ...]


def shipped() -> dict[str, Path]:
    """Return the packs that come with ehrready, by name."""
    return {path.stem: path for path in sorted(resources.folder("rules").glob("*.yaml"))}


def default_packs(formats: Iterable[str]) -> list[Pack]:
    """Return core and the pack of each format that was read."""
    packs = [load(path) for path in shipped().values()]
    seen = set(formats)
    return [pack for pack in packs if pack.name == "core" or seen & set(pack.formats)]


def load_all(names: Sequence[str]) -> list[Pack]:
    """Load packs by shipped name or path; raises UsageError with the mistakes of all of them."""
    problems: list[str] = []
    packs: list[Pack] = []
    for name in names:
        try:
            packs.append(load(_find(name)))
        except UsageError as error:
            problems += error.problems
    owners: dict[str, str] = {}
    for pack in packs:
        for rule in pack.rules:
            if owners.setdefault(rule.id, rule.pack) != rule.pack:
                problems.append(f"rule {rule.id} is in pack {owners[rule.id]} and in pack {rule.pack}: ids are unique, rename one")
    if problems:
        raise UsageError(*problems)
    return packs


def merged(packs: Sequence[Pack]) -> list[Rule]:
    """Return the rules of the packs, each id once (packs may extend the same pack), in pack order."""
    return list({rule.id: rule for pack in packs for rule in pack.rules}.values())


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        if not path.is_file():
            raise UsageError(f"rule pack {path.name}: no such file")
        return path
    packs = shipped()
    if name not in packs:
        raise UsageError(
            f"no rule pack is called {name}{_hint(name, packs)}; shipped: {', '.join(packs)}; else give a path to a .yaml file"
        )
    return packs[name]


def load(path: Path, _chain: tuple[str, ...] = ()) -> Pack:
    """Read and validate one pack; raises UsageError listing every mistake as ``file:line: what and remedy``."""
    data = path.read_bytes()
    place = path.name
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{place}: a rule pack may have at most {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UsageError(f"{place}: YAML aliases are not allowed: write the rule out")
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{place}:{line}: not valid YAML here: check indentation, colons and quotes") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise UsageError(f"{place}:1: not valid YAML in UTF-8") from None
    parser = _Parser(place, path.parent, (*_chain, path.resolve().as_posix()))
    pack = parser.pack(node, hashlib.sha256(data).hexdigest())
    if parser.problems:
        raise UsageError(*parser.problems)
    return pack


class _Parser:
    """Validates a composed YAML document and collects every mistake with its line."""

    def __init__(self, place: str, folder: Path, chain: tuple[str, ...]) -> None:
        self.place, self.folder, self.chain = place, folder, chain
        self.problems: list[str] = []

    def wrong(self, node: yaml.Node | None, text: str) -> None:
        self.problems.append(f"{self.place}:{node.start_mark.line + 1 if node else 1}: {text}")

    def mapping(self, node: yaml.Node, known: Iterable[str], what: str) -> dict[str, yaml.Node]:
        """Return a mapping's value nodes; unknown and repeated keys are mistakes."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} must be a mapping of keys to values")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in found:
                self.wrong(key, f"{what}: the key {name} is there twice")
            elif name not in set(known):
                self.wrong(key, f"{what}: unknown key {name!r}{_hint(name, known)}")
            else:
                found[name] = value
        return found

    def value(self, node: yaml.Node) -> Any:
        return yaml.SafeLoader("").construct_document(node)

    def pack(self, node: yaml.Node | None, digest: str) -> Pack:
        if node is None:
            self.wrong(None, "the pack is empty: it needs pack, version and rules")
            return Pack("", "", digest, "", (), ())
        body = self.mapping(node, _PACK_KEYS, "the pack")
        for key in ("pack", "version", "rules"):
            if key not in body and isinstance(node, yaml.MappingNode):
                self.wrong(node, f"the pack has no {key}")
        name = str(self.value(body["pack"])) if "pack" in body else ""
        rules: dict[str, Rule] = {}
        for rule in self.inherited(body):
            rules[rule.id] = rule
        own: set[str] = set()
        listed = body.get("rules")
        if listed is not None and not isinstance(listed, yaml.SequenceNode):
            self.wrong(listed, "rules must be a list")
        for item in listed.value if isinstance(listed, yaml.SequenceNode) else ():
            found = self.rule(item, name)
            if found is not None:
                if found.id in own:
                    self.wrong(item, f"rule {found.id} is there twice: ids are unique")
                own.add(found.id)
                rules[found.id] = found
        disabled = self.value(body["disable"]) if "disable" in body else []
        for gone in disabled if isinstance(disabled, list) else [disabled]:
            if gone not in rules:
                self.wrong(body.get("disable"), f"disable: no rule {gone!r} to switch off{_hint(str(gone), rules)}")
            rules.pop(gone, None)
        formats = self.value(body["formats"]) if "formats" in body else []
        return Pack(
            name,
            str(self.value(body["version"])) if "version" in body else "",
            digest,
            str(self.value(body["title"])) if "title" in body else "",
            tuple(map(str, formats if isinstance(formats, list) else [formats])),
            tuple(rules.values()),
        )

    def inherited(self, body: dict[str, yaml.Node]) -> list[Rule]:
        if "extends" not in body:
            return []
        names = self.value(body["extends"])
        found: list[Rule] = []
        for name in names if isinstance(names, list) else [names]:
            try:
                beside = self.folder / str(name)
                path = beside if beside.suffix in {".yaml", ".yml"} else _find(str(name))
                if path.resolve().as_posix() in self.chain:
                    self.wrong(body["extends"], f"extends: {name} leads back to this pack: break the cycle")
                    continue
                found += load(path, self.chain).rules
            except UsageError as error:
                self.problems += error.problems
            except OSError:
                self.wrong(body["extends"], f"extends: {name} cannot be read")
        return found

    def rule(self, node: yaml.Node, pack: str) -> Rule | None:
        before = len(self.problems)
        check = None
        if isinstance(node, yaml.MappingNode):
            name = next((str(v.value) for k, v in node.value if k.value == "check"), "")
            check = CHECKS.get(name)
            if not check:
                self.wrong(node, f"unknown check {name!r}{_hint(name, CHECKS)}")
        options = set(check.options) if check else set()
        body = self.mapping(node, {*_RULE_KEYS, *options}, "the rule")
        values = {key: self.value(value) for key, value in body.items()}
        if not isinstance(node, yaml.MappingNode) or check is None:
            return None
        for key in ("id", "severity", "owner", "why", "fix"):
            if not isinstance(values.get(key), str) or not values[key].strip():
                self.wrong(body.get(key, node), f"the rule needs a text for {key}")
        if values.get("severity") not in SEVERITIES and isinstance(values.get("severity"), str):
            self.wrong(body["severity"], f"severity must be one of {', '.join(SEVERITIES)}")
        elements = self.elements(body, values, node, check.whole)
        given = {key: values[key] for key in options & values.keys()}
        for key, value in given.items():
            kind = check.options[key].annotation
            if not _fits(value, kind):
                self.wrong(body[key], f"option {key} of {check.name} must be {_named(kind)}")
        for key, parameter in check.options.items():
            if parameter.default is inspect.Parameter.empty and key not in given:
                self.wrong(node, f"the check {check.name} needs the option {key}")
        limits = self.limits(body)
        if check.decides and limits:
            self.wrong(node, f"{check.name} sets its own limit: use its options instead of fail, warn or versus_training")
        min_n = values.get("min_n", MIN_N)
        if not isinstance(min_n, int) or isinstance(min_n, bool) or min_n < 1:
            self.wrong(body["min_n"], "min_n must be a whole number of at least 1")
        if not check.decides and not limits:
            self.wrong(node, "the rule has no limit: give fail: {max_rate: ...} or warn: {max_rate: ...}")
        if len(self.problems) > before:
            return None
        return Rule(
            values["id"], check.name, elements, values["severity"], values["owner"], values["why"].strip(), values["fix"].strip(),
            str(values.get("title", "")), given, limits.get("fail"), limits.get("warn"), limits.get("versus_training"), limits.get("warn_rise"), min_n, pack,
        )  # fmt: skip

    def limits(self, body: dict[str, yaml.Node]) -> dict[str, float]:
        found: dict[str, float] = {}
        for key, known in _LIMITS.items():
            if key in body:
                for name, node in self.mapping(body[key], known, key).items():
                    value = self.value(node)
                    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                        self.wrong(node, f"{key}.{name} must be a share between 0 and 1")
                    else:
                        found[name if name == "warn_rise" else key] = float(value)
        return found

    def elements(self, body: dict[str, yaml.Node], values: dict[str, Any], node: yaml.Node, whole: bool) -> tuple[str, ...]:
        if whole:
            return ("",)
        wanted = values.get("on")
        patterns = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
            self.wrong(body.get("on", node), "the rule needs on: an element, a list of elements or a glob such as *.code")
            return ()
        found: list[str] = []
        for pattern in patterns:
            matches = fnmatch.filter(ELEMENTS, pattern)
            if not matches:
                self.wrong(body["on"], f"no element matches {pattern!r}{_hint(pattern, ELEMENTS)}")
            found += matches
        return tuple(dict.fromkeys(found))


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _fits(value: Any, kind: Any) -> bool:
    """Is a YAML value of the annotated type of an option?  Knows bool, int, float, str, lists and unions."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if args := get_args(kind):
        return any(_fits(value, arg) for arg in args)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind is type(None) else isinstance(value, kind)


def _named(kind: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    if get_origin(kind) is list:
        return f"a list, each {_named(get_args(kind)[0])}"
    if args := [arg for arg in get_args(kind) if arg is not type(None)]:
        return " or ".join(map(_named, args))
    return names.get(kind, "another type")
