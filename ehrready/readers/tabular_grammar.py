"""The grammar of a tabular mapping: YAML text into the objects of tabular_mapping, strictly.

Unknown keys, wrong types and unknown canonical names are reported all together, each with file and line.
Only plain scalars, lists and mappings are taken (no anchors or aliases); a table is a name, never a path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from ehrready.errors import UsageError
from ehrready.readers.tabular_mapping import (
    Coding,
    Concept,
    ConceptCode,
    Const,
    DateTime,
    Expr,
    First,
    Mapped,
    Ref,
    Rule,
    TableMapping,
    Where,
    YearMonthDay,
)
from ehrready.resources import YAML
from ehrready.tables import CODED, TABLES, table_of

#: A mapping file larger than this is refused.
MAX_BYTES = 1 << 20
#: Deeper nesting is refused: the YAML library needs quadratic time for it.
MAX_DEPTH = 40
#: How often one source table may feed one canonical table (PCORnet's VITAL has five measurements a row).
MAX_SLOTS = 8
#: Canonical columns the engine fills itself.
_OWN = frozenset({"record", "value_kind"})
_TEXTS = ("mapping", "version", "title", "source")
_RULE = ("table", "to", "where", "vocabulary", "join", "columns", "concepts")
#: The keys of an expression, by the key that tells its form.
_FORMS = {
    "value": ("value",),
    "date": ("date", "time"),
    "year": ("year", "month", "day"),
    "concept_id": ("concept_id", "vocabulary"),
    "column": ("column", "map", "else"),
}
_NULL = "tag:yaml.org,2002:null"


def parse(path: Path) -> TableMapping:
    """Read and check a mapping file; raises UsageError with every mistake in it, each with file and line."""
    checker = _Checker(path.name)
    mapping = checker.document(path)
    if checker.problems or mapping is None:
        raise UsageError(*(text for _, text in sorted(checker.problems)))
    return mapping


_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


class _Checker:
    """Turns composed YAML nodes into a TableMapping and gathers what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[tuple[int, str]] = []
        self.joins: frozenset[str] = frozenset()

    def problem(self, node: yaml.Node | int, text: str) -> None:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self.problems.append((line, f"{self.file}:{line}: {text}"))

    def unknown(self, node: yaml.Node, what: str, name: str, allowed: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, sorted(allowed), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(allowed))}"
        self.problem(node, f"unknown {what} '{name}'{hint}")

    # -- YAML ---------------------------------------------------------------------------------------------

    def document(self, path: Path) -> TableMapping | None:
        try:
            data = path.read_bytes()
            if len(data) > MAX_BYTES:
                self.problem(1, f"the file is larger than {MAX_BYTES} bytes")
                return None
            text = data.decode("utf-8-sig")
            depth = 0
            for event in yaml.parse(text, Loader=YAML):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > MAX_DEPTH:
                    self.problem(1, f"nested deeper than {MAX_DEPTH} levels")
                    return None
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    self.problem(line, "aliases and anchors are not allowed")
                    return None
            root = yaml.compose(text, Loader=YAML)
        except OSError:
            self.problem(1, "the file could not be read")
        except UnicodeDecodeError:
            self.problem(1, "the file is not UTF-8")
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            self.problem(mark.line + 1 if mark else 1, "this is not valid YAML")
        else:
            if root is None:
                self.problem(1, "the file is empty")
            else:
                return self.mapping(root)
        return None

    def pairs(self, node: yaml.Node, allowed: Iterable[str] | None, what: str) -> _Pairs:
        """Return the entries of a YAML mapping; ``allowed`` None takes any key."""
        found: _Pairs = {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{what} must be a mapping (key: value)")
            return found
        for key, value in node.value:
            name = self.text(key, "a key")
            if name in found:
                self.problem(key, f"'{name}' is given twice")
            elif name is not None and allowed is not None and name not in set(allowed):
                self.unknown(key, f"key in {what}", name, allowed)
            elif name is not None:
                found[name] = (key, value)
        return found

    def text(self, node: yaml.Node, what: str) -> str | None:
        """Return a scalar as it was typed (``NO`` stays ``NO``)."""
        if isinstance(node, yaml.ScalarNode) and node.tag != _NULL:
            return str(node.value)
        self.problem(node, f"{what} must be a text")
        return None

    def texts(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        """Return one scalar or a list of them."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return tuple(text for item in nodes if (text := self.text(item, what)) is not None)

    def name(self, node: yaml.Node, what: str) -> str | None:
        """Return a table name: never a path."""
        name = self.text(node, what)
        if name is not None and (not name or re.search(r"[/\\:\x00-\x1f]|\.\.", name)):
            self.problem(node, f"{what} must be a plain name, not a path")
            return None
        return name.lower() if name is not None else None

    # -- the parts ----------------------------------------------------------------------------------------

    def mapping(self, root: yaml.Node) -> TableMapping | None:
        top = self.pairs(root, (*_TEXTS, "reference", "expects", "tables"), "a mapping file")
        for key in ("mapping", "version", "tables"):
            if key not in top:
                self.problem(root, f"'{key}' is missing")
        texts = {key: self.text(top[key][1], key) for key in _TEXTS if key in top}
        name = texts.get("mapping") or ""
        if "mapping" in top and not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
            self.problem(top["mapping"][1], "'mapping' must be lower-case letters, digits and hyphens")
        expects: dict[str, tuple[str, ...]] = {}
        if "expects" in top:
            for named, listed in self.pairs(top["expects"][1], None, "expects").values():
                if (table := self.name(named, "a table")) is not None:
                    expects[table] = tuple(c.lower() for c in self.texts(listed, "a column"))
        reference: set[str] = set()
        if "reference" in top:
            node = top["reference"][1]
            nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
            reference = {table for item in nodes if (table := self.name(item, "a table")) is not None}
        rules: list[Rule] = []
        if "tables" in top:
            node = top["tables"][1]
            if isinstance(node, yaml.SequenceNode) and node.value:
                for item in node.value:
                    if (rule := self.rule(item, rules)) is not None:
                        rules.append(rule)
            else:
                self.problem(node, "'tables' must be a list of entries")
        return TableMapping(name, texts.get("version") or "", tuple(rules), frozenset(reference), expects)

    def rule(self, node: yaml.Node, before: list[Rule]) -> Rule | None:
        entry = self.pairs(node, _RULE, "an entry of 'tables'")
        for key in ("table", "to"):
            if key not in entry:
                self.problem(node, f"'{key}' is missing in this entry of 'tables'")
        table = self.name(entry["table"][1], "'table'") if "table" in entry else None
        to = self.text(entry["to"][1], "'to'") if "to" in entry else None
        if to is not None and to not in TABLES:
            self.unknown(entry["to"][1], "canonical table", to, TABLES)
            to = None
        joins = self.join(entry["join"][1]) if "join" in entry else {}
        self.joins = frozenset(joins)
        columns = self.columns(entry["columns"][1], to) if "columns" in entry else {}
        concepts = self.concepts(entry["concepts"][1], to) if "concepts" in entry else ()
        where = self.where(entry["where"][1]) if "where" in entry else ()
        vocabulary, negate = self.vocabulary(entry["vocabulary"][1]) if "vocabulary" in entry else ((), False)
        if table is None or to is None:
            return None
        slot = sum(rule.table == table and rule.to == to for rule in before)
        if slot >= MAX_SLOTS:
            self.problem(node, f"more than {MAX_SLOTS} entries from '{table}' to '{to}'")
        return Rule(table, to, slot, columns, concepts, where, vocabulary, negate, joins)

    def join(self, node: yaml.Node) -> dict[str, tuple[tuple[str, str], ...]]:
        joins: dict[str, tuple[tuple[str, str], ...]] = {}
        for key, value in self.pairs(node, None, "'join'").values():
            table = self.name(key, "a joined table")
            on = [
                (theirs.lower(), ours.lower())
                for theirs, (_, item) in self.pairs(value, None, "a join").items()
                if (ours := self.text(item, "a column")) is not None
            ]
            if not on:
                self.problem(key, "a join needs at least one pair 'its column: our column'")
            elif table is not None:
                joins[table] = tuple(on)
        return joins

    def columns(self, node: yaml.Node, to: str | None) -> dict[str, Expr]:
        allowed = [name for name in TABLES[to].names if name not in _OWN] if to else None
        found: dict[str, Expr] = {}
        for name, (_, value) in self.pairs(node, allowed, f"'columns' of {to}").items():
            if (expr := self.expr(value)) is not None:
                found[name] = expr
        return found

    def concepts(self, node: yaml.Node, to: str | None) -> tuple[Concept, ...]:
        allowed = [element for element in CODED if table_of(element) == to] if to else None
        found = []
        for element, (key, value) in self.pairs(node, allowed, f"'concepts' of {to}").items():
            entry = self.pairs(value, ("text", "codings", "cardinality"), f"concept {element}")
            text = self.expr(entry["text"][1]) if "text" in entry else None
            codings: list[Coding] = []
            if "codings" in entry:
                listed = entry["codings"][1]
                if isinstance(listed, yaml.SequenceNode):
                    codings = [c for item in listed.value if (c := self.coding(item)) is not None]
                else:
                    self.problem(listed, "'codings' must be a list")
            if not entry:
                self.problem(key, f"concept {element} needs 'text' or 'codings'")
            cardinality: str | None = "1"
            if "cardinality" in entry:
                cardinality = self.text(entry["cardinality"][1], "'cardinality'")
            if cardinality not in {"1", "0..1", None}:
                self.problem(entry["cardinality"][1], "'cardinality' must be 1 or 0..1")
            found.append(Concept(element, text, tuple(codings), cardinality == "1"))
        return tuple(found)

    def coding(self, node: yaml.Node) -> Coding | None:
        entry = self.pairs(node, ("concept_id", "code", "system", "version", "display"), "a coding")
        if ("concept_id" in entry) == ("code" in entry):
            self.problem(node, "a coding needs either 'concept_id' or 'code'")
            return None
        if "concept_id" in entry:
            for extra in sorted(set(entry) - {"concept_id"}):
                self.problem(entry[extra][0], f"'{extra}' comes from the concept table, not from here")
            value = entry["concept_id"][1]
            nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
            return Coding(tuple(ref for item in nodes if (ref := self.ref(item)) is not None))
        return Coding(
            code=self.expr(entry["code"][1]),
            system=self.constant(entry["system"][1]) if "system" in entry else None,
            version=self.constant(entry["version"][1]) if "version" in entry else None,
            display=self.expr(entry["display"][1]) if "display" in entry else None,
        )

    def constant(self, node: yaml.Node) -> Expr | None:
        """A plain text is meant as it stands; a mapping is an expression."""
        if isinstance(node, yaml.ScalarNode):
            text = self.text(node, "a system or version")
            return Const(text) if text is not None else None
        return self.expr(node)

    def where(self, node: yaml.Node) -> tuple[Where, ...]:
        found = []
        for column, (_, value) in self.pairs(node, None, "'where'").items():
            negate = False
            values: tuple[str, ...] = ()
            if isinstance(value, yaml.MappingNode):
                entry = self.pairs(value, ("not", "present"), f"'where' of {column}")
                if len(entry) != 1:
                    self.problem(value, "give one of 'not' and 'present'")
                elif "not" in entry:
                    negate, values = True, self.texts(entry["not"][1], "a value")
                elif (flag := self.text(entry["present"][1], "'present'")) in {"true", "false"}:
                    negate = flag == "false"
                else:
                    self.problem(value, "'present' must be true or false")
            else:
                values = self.texts(value, "a value")
            found.append(Where(column.lower(), values, negate))
        return tuple(found)

    def vocabulary(self, node: yaml.Node) -> tuple[tuple[str, ...], bool]:
        if isinstance(node, yaml.MappingNode):
            entry = self.pairs(node, ("not",), "'vocabulary'")
            return (self.texts(entry["not"][1], "a vocabulary") if "not" in entry else ()), True
        return self.texts(node, "a vocabulary"), False

    # -- expressions --------------------------------------------------------------------------------------

    def ref(self, node: yaml.Node) -> Ref | None:
        name = self.text(node, "a column")
        if name is None:
            return None
        table, dot, column = name.lower().rpartition(".")
        if dot and table not in self.joins:
            self.unknown(node, "joined table", table, self.joins or ("(this entry has no 'join')",))
            return None
        return Ref(column, table)

    def expr(self, node: yaml.Node) -> Expr | None:
        if isinstance(node, yaml.SequenceNode):
            options = [expr for item in node.value if (expr := self.expr(item)) is not None]
            if not options:
                self.problem(node, "an empty list of columns")
            return First(tuple(options))
        if not isinstance(node, yaml.MappingNode):
            return self.ref(node)
        keys = [str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        form = next((form for form in _FORMS if form in keys), None)
        if form is None:
            self.problem(node, f"give one of: {', '.join(_FORMS)}")
            return None
        entry = self.pairs(node, _FORMS[form], f"an expression with '{form}'")
        if form == "column":
            return self.mapped(entry)
        if form == "value":
            text = self.text(entry["value"][1], "'value'")
            return Const(text) if text is not None else None
        return self.composed(node, form, entry)

    def composed(self, node: yaml.Node, form: str, entry: _Pairs) -> Expr | None:
        """An expression of several columns, or of a concept id."""
        refs = {key: self.ref(value) for key, (_, value) in entry.items() if key != "vocabulary"}
        if form == "concept_id":
            vocabulary = self.text(entry["vocabulary"][1], "'vocabulary'") if "vocabulary" in entry else ""
            ref = refs["concept_id"]
            return ConceptCode(ref, vocabulary or "") if ref is not None else None
        missing = [key for key in _FORMS[form] if key not in entry]
        if missing:
            self.problem(node, f"'{form}' also needs: {', '.join(missing)}")
        found = [ref for key in _FORMS[form] if (ref := refs.get(key)) is not None]
        if len(found) != len(_FORMS[form]):
            return None
        return DateTime(found[0], found[1]) if form == "date" else YearMonthDay(*found)

    def mapped(self, entry: _Pairs) -> Expr | None:
        ref = self.ref(entry["column"][1])
        if ref is None:
            return None
        pairs: list[tuple[str, str | None]] = []
        if "map" in entry:
            for raw, (_, value) in self.pairs(entry["map"][1], None, "'map'").items():
                nothing = isinstance(value, yaml.ScalarNode) and value.tag == _NULL
                pairs.append((raw, None if nothing else self.text(value, "a mapped value")))
        other: Expr | None = ref
        if "else" in entry:
            value = entry["else"][1]
            nothing = isinstance(value, yaml.ScalarNode) and value.tag == _NULL
            other = None if nothing else self.expr(value)
        return Mapped(ref, tuple(pairs), other)
