"""What a tabular mapping says: per source table, where each canonical column and code comes from.

Mappings are YAML files (omop.yaml, the other shipped layouts, a user's own); tabular_grammar checks them and
makes these objects, docs/mapping.md explains them.  A mapping is data: nothing in it is executed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ehrready.errors import UsageError
from ehrready.tables import ELEMENTS

_FOLDER = Path(__file__).parent / "mappings"
#: Shipped mappings for TableReader, by name.
SHIPPED: tuple[str, ...] = ("clif", "mimic-iv", "pcornet", "synthea-csv")


@dataclass(frozen=True, slots=True)
class Ref:
    """A column of the rule's own table, or of a joined one (``table``)."""

    column: str
    table: str = ""


@dataclass(frozen=True, slots=True)
class Const:
    """A fixed text."""

    value: str


@dataclass(frozen=True, slots=True)
class First:
    """The first of several expressions that is not empty."""

    options: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A column whose values are translated; ``other`` serves values not listed (``None``: nothing)."""

    ref: Ref
    pairs: tuple[tuple[str, str | None], ...]
    other: Expr | None


@dataclass(frozen=True, slots=True)
class DateTime:
    """A date and a time of day from two columns."""

    date: Ref
    time: Ref


@dataclass(frozen=True, slots=True)
class YearMonthDay:
    """A date of three columns, with the precision that is there."""

    year: Ref
    month: Ref
    day: Ref


@dataclass(frozen=True, slots=True)
class ConceptCode:
    """The concept_code behind an OMOP concept_id, where its vocabulary is ``vocabulary`` (empty: any)."""

    ref: Ref
    vocabulary: str = ""


Expr = Ref | Const | First | Mapped | DateTime | YearMonthDay | ConceptCode


@dataclass(frozen=True, slots=True)
class Coding:
    """One coding of a concept: OMOP concept ids (the first that is set), or a code with its system."""

    concept_ids: tuple[Ref, ...] = ()
    code: Expr | None = None
    system: Expr | None = None
    version: Expr | None = None
    display: Expr | None = None


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded element: a row for every record, or (``always`` false) only where it has a coding."""

    element: str
    text: Expr | None
    codings: tuple[Coding, ...]
    always: bool


@dataclass(frozen=True, slots=True)
class Where:
    """Keep the rows whose column is (``negate``: is not) one of ``values``; no values: is filled."""

    column: str
    values: tuple[str, ...]
    negate: bool


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the rows of one source table become rows of one canonical table.

    ``vocabulary`` keeps the rows with (``vocabulary_negate``: without) a coding of these OMOP vocabularies.
    ``joins`` maps a lookup table to pairs (its column, our column).  ``slot`` numbers the rules that share
    both tables.
    """

    table: str
    to: str
    slot: int
    columns: Mapping[str, Expr]
    concepts: tuple[Concept, ...]
    where: tuple[Where, ...] = ()
    vocabulary: tuple[str, ...] = ()
    vocabulary_negate: bool = False
    joins: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableMapping:
    """A whole mapping file: ``expects`` maps a known table to the columns it must have to be recognised."""

    name: str
    version: str
    rules: tuple[Rule, ...]
    reference: frozenset[str]
    expects: Mapping[str, tuple[str, ...]]

    @property
    def tables(self) -> frozenset[str]:
        """All table names the mapping knows, mapped or not."""
        joined = {table for rule in self.rules for table in rule.joins}
        return frozenset({*self.expects, *self.reference, *joined, *(rule.table for rule in self.rules)})

    def used(self, table: str) -> frozenset[str]:
        """The columns of a source table that some rule reads."""
        names: set[str] = set()
        for rule in self.rules:
            refs = list(rule_refs(rule))
            names |= {ref.column for ref in refs if (ref.table or rule.table) == table}
            if rule.table == table:
                names |= {where.column for where in rule.where}
                names |= {ours for pairs in rule.joins.values() for _, ours in pairs}
            names |= {theirs for theirs, _ in rule.joins.get(table, ())}
        return frozenset(names)

    def looked_up(self, table: str) -> frozenset[str] | None:
        """The columns read of a reference table (none, for most); None for a table of records: all of it is read."""
        return self.used(table) | LOOKED_UP.get(table, frozenset()) if table in self.reference else None

    def source_elements(self) -> dict[str, str]:
        """Map each canonical element that a rule fills to ``table.column``, several joined by ``, ``."""
        found: dict[str, list[str]] = {}
        for rule in self.rules:
            pairs: list[tuple[str, list[Expr]]] = []
            pairs += [(f"{rule.to}.{name}", [expr]) for name, expr in rule.columns.items()]
            values = [rule.columns[n] for n in ("value_number", "value_text") if n in rule.columns]
            pairs += [("observation.value", values)] if rule.to == "observation" else []
            pairs += [(concept.element, list(_concept_exprs(concept))) for concept in rule.concepts]
            for element, exprs in pairs:
                ref = next((ref for expr in exprs for ref in refs_of(expr)), None)
                if element in ELEMENTS and ref is not None:
                    place = f"{ref.table or rule.table}.{ref.column}"
                    if place not in found.setdefault(element, []):
                        found[element].append(place)
        return {element: ", ".join(found[element]) for element in sorted(found)}


#: What concept ids are resolved with (ehrready.readers.tabular_lookup): table to columns.
LOOKED_UP = {
    "concept": frozenset({"concept_id", "vocabulary_id", "concept_code", "concept_name"}),
    "vocabulary": frozenset({"vocabulary_id", "vocabulary_version"}),
}
#: The mapping of tables nobody mapped.
NONE = TableMapping("none", "", (), frozenset(), {})


def _concept_exprs(concept: Concept) -> Iterable[Expr]:
    """The expressions of a concept, the most telling first: its last coding (OMOP: the standard concept)."""
    for coding in reversed(concept.codings):
        yield from coding.concept_ids
        yield from (e for e in (coding.code, coding.system, coding.version, coding.display) if e is not None)
    if concept.text is not None:
        yield concept.text


def rule_refs(rule: Rule) -> Iterable[Ref]:
    """Yield every column a rule's expressions read."""
    for expr in rule.columns.values():
        yield from refs_of(expr)
    for concept in rule.concepts:
        for expr in _concept_exprs(concept):
            yield from refs_of(expr)


def refs_of(expr: Expr) -> Iterable[Ref]:
    """Yield the columns an expression reads, in order."""
    match expr:
        case Ref():
            yield expr
        case First(options=options):
            for option in options:
                yield from refs_of(option)
        case Mapped(ref=ref, other=other):
            yield ref
            if other is not None and other != ref:
                yield from refs_of(other)
        case DateTime(date=date, time=time):
            yield from (date, time)
        case YearMonthDay(year=year, month=month, day=day):
            yield from (year, month, day)
        case ConceptCode(ref=ref):
            yield ref
        case Const():
            pass


@functools.cache
def shipped(name: str) -> TableMapping:
    """Return a mapping that comes with the package (``omop`` or one of ``SHIPPED``)."""
    return load(_FOLDER / f"{name}.yaml")


def find(mapping: Path | str) -> TableMapping:
    """Return the mapping of ``--mapping``: the name of a shipped one, or the path of a YAML file.

    Raises UsageError with every mistake in the file.
    """
    if str(mapping) in SHIPPED:
        return shipped(str(mapping))
    path = Path(mapping)
    if not path.is_file():
        known = ", ".join(SHIPPED)
        raise UsageError(f"--mapping: no such file, and not one of the mappings that come with it ({known})")
    return load(path)


def load(path: Path) -> TableMapping:
    """Read and check a mapping file; raises UsageError with every mistake in it, each with file and line."""
    from ehrready.readers.tabular_grammar import parse

    return parse(path)
