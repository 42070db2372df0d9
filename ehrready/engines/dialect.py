"""DuckDB's SQL as Spark SQL: measures are written once, in DuckDB's dialect, and translated as syntax trees.

sqlglot knows both dialects; here is what it does not know, or what the engines understand differently: the macros that
measures share, regular expressions (RE2 against Java), windows without an order, lenient casts, ages.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import sqlglot
from sqlglot import exp

from ehrready.engines.duckdb import MACROS

_MACRO = re.compile(r"CREATE MACRO (\w+)\(([^)]*)\) AS (.*?);\n", re.DOTALL)
#: Casts that fail on text of another form where DuckDB's TRY_CAST gives NULL; a filter may run after the cast in Spark.
_LENIENT = (exp.DataType.Type.INT, exp.DataType.Type.BIGINT, exp.DataType.Type.DOUBLE, exp.DataType.Type.DATE)


_SHORT = 32_767
#: Functions that DuckDB answers on both engines: a logarithm's last digit decides a bucket.
LN, DOUBLE = "ehrready_ln", "ehrready_double"
_ANSWERS = {"ln": "CASE WHEN x > 0 THEN ln(x) END", "double": "TRY_CAST(x AS DOUBLE)"}


def answer(name: str, value: Any) -> Any:
    """Let DuckDB answer one of its functions: for a Python number, or for an Arrow array of them."""
    import duckdb
    import pyarrow as pa

    if not isinstance(value, pa.Array):
        return answer(name, pa.array([value])).to_pylist()[0]
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("_values", pa.table({"x": value}))
        con.execute("SET preserve_insertion_order = true")
        made = con.sql(f"SELECT {_ANSWERS[name]} AS y FROM _values").to_arrow_table().column("y").combine_chunks()
        return made.chunk(0) if isinstance(made, pa.ChunkedArray) else made


class Untranslatable(ValueError):
    """A statement has no form in Spark SQL (the message holds no value of the data)."""


def statements(text: str) -> list[exp.Expr]:
    """Parse statements of DuckDB's dialect, with our macros expanded; raises Untranslatable."""
    from sqlglot.errors import SqlglotError

    try:
        parsed = [tree for tree in sqlglot.parse(text, read="duckdb") if tree is not None]
    except SqlglotError:
        raise Untranslatable("the statement is not in the part of DuckDB's SQL that is translated") from None
    return [_each(tree, _expanded) for tree in parsed]


def spark(tree: exp.Expr) -> str:
    """Return a query as Spark SQL."""
    return str(_each(tree.copy(), _rewritten).sql(dialect="spark"))


def parse_spark(text: str) -> exp.Expr:
    """Parse Spark SQL of our own."""
    return sqlglot.parse_one(text, read="spark")


def _each(tree: exp.Expr, change: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """Change every node of a tree, children before parents (sqlglot's own ``transform`` skips the children of a new node)."""
    root = tree
    for node in reversed(list(tree.walk())):
        if (new := change(node)) is not node:
            if node is root:
                root = new
            else:
                node.replace(new)
    return root


@functools.cache
def _macros() -> dict[str, tuple[list[str], exp.Expr]]:
    found = {}
    for name, parameters, body in _MACRO.findall(MACROS):
        names = [parameter.strip() for parameter in parameters.split(",")]
        found[name.lower()] = (names, sqlglot.parse_one(body, read="duckdb"))
    return found


def _expanded(node: exp.Expr) -> exp.Expr:
    """Put the body of a macro in the place of its call."""
    if not isinstance(node, exp.Anonymous) or (macro := _macros().get(node.name.lower())) is None:
        return node
    names, body = macro
    given = dict(zip(names, node.expressions, strict=True))

    def fill(part: exp.Expr) -> exp.Expr:
        if isinstance(part, exp.Column) and not part.table and part.name in given:
            return exp.Paren(this=given[part.name].copy())
        return part

    return exp.Paren(this=_each(_each(body.copy(), fill), _expanded))


def _rewritten(node: exp.Expr) -> exp.Expr:
    """Return a node as Spark understands it."""
    for kind, rewrite in _REWRITES:
        if isinstance(node, kind):
            return rewrite(node)
    return node


def _window(node: exp.Expr) -> exp.Expr:
    # any order will do, but a task that is run again must number its rows as before
    if isinstance(node.this, exp.RowNumber) and node.args.get("order") is None:
        select = node.find_ancestor(exp.Select)
        columns = [c for c in (select.expressions if select else []) if isinstance(c, exp.Column)]
        if not columns:
            raise Untranslatable("row_number() needs an ORDER BY, or plain columns beside it")
        node.set("order", exp.Order(expressions=[exp.Ordered(this=column.copy()) for column in columns]))
    return node


def _ignore_nulls(node: exp.Expr) -> exp.Expr:
    # the first value that is met depends on the order of rows; the least does not, and NULLs are passed over by both
    return node.this if isinstance(node.this, exp.Min) else node


def _any_value(node: exp.Expr) -> exp.Expr:
    return exp.Min(this=node.this)


def _common(node: exp.Expr) -> exp.Expr:
    node.set("materialized", None)  # a hint that Spark does not know
    return node


def _cast(node: exp.Expr) -> exp.Expr:
    if type(node) is exp.Cast and node.to.this in _LENIENT:
        return exp.TryCast(this=node.this, to=node.to, safe=True)
    return node


def _number(node: exp.Expr) -> exp.Expr:
    # DuckDB multiplies in 64 bits where it must; Spark takes the type of the literal
    long = node.is_int and isinstance(node, exp.Literal) and int(node.name) > _SHORT
    return exp.Cast(this=node.copy(), to=exp.DataType.build("BIGINT")) if long else node


def _logarithm(node: exp.Expr) -> exp.Expr:
    if isinstance(node.this, exp.Literal):
        return exp.Literal.number(repr(answer("ln", float(node.this.name))) + "D")
    return exp.Anonymous(this=LN, expressions=[exp.Cast(this=node.this, to=exp.DataType.build("DOUBLE"))])


def _double(node: exp.Expr) -> exp.Expr:
    # what is a number in a text is for DuckDB to say: 1_000, 1e400 and 1d differ
    if not isinstance(node, exp.TryCast) or node.to.this != exp.DataType.Type.DOUBLE:
        return node
    return exp.Anonymous(this=DOUBLE, expressions=[exp.Cast(this=node.this, to=exp.DataType.build("TEXT"))])


def _star(node: exp.Expr) -> exp.Expr:
    """Write ``* REPLACE (x AS a)`` as ``* EXCEPT (a), x AS a``."""
    replaced = node.args.get("replace") or node.args.get("replace_")
    select = node.find_ancestor(exp.Select)
    if not replaced or select is None:
        return node
    aliases = [alias.copy() for alias in replaced]
    except_ = [exp.column(alias.alias).this for alias in aliases]
    node.set("replace", None)
    node.set("except_", [*(node.args.get("except_") or []), *except_])
    for alias in aliases:
        select.append("expressions", alias)
    return node


def _regexp(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.RegexpFullMatch):
        pattern = _literal(node.expression)
        return exp.RegexpLike(this=node.this, expression=exp.Literal.string(_java(rf"^(?:{pattern})$")))
    node.set("expression", exp.Literal.string(_java(_literal(node.expression))))
    return node


def _literal(node: Any) -> str:
    if isinstance(node, exp.Literal) and node.is_string:
        return str(node.this)
    raise Untranslatable("a regular expression must be a literal")


def _java(pattern: str) -> str:
    """Return a pattern of RE2 for Java: the dollar sign is the end of the text, a dot anything but a line feed, white space has no VT."""
    out, inside, i = [], False, 0
    flags = "(?d)"
    if pattern.startswith("(?i)"):
        flags, pattern = "(?diu)", pattern[4:]
    while i < len(pattern):
        c = pattern[i]
        if c == "\\":
            pair = pattern[i : i + 2]
            out.append({r"\s": r"\t\n\f\r " if inside else r"[\t\n\f\r ]"}.get(pair, pair))
            i += 2
            continue
        if c == "[":
            out.append(r"\[" if inside else c)
            inside = True
        elif c == "]":
            inside = False
            out.append(c)
        elif c == "$" and not inside:
            out.append(r"\z")
        elif c == "&" and inside:
            out.append(r"\&")
        else:
            out.append(c)
        i += 1
    return flags + "".join(out)


def _anonymous(node: exp.Expr) -> exp.Expr:
    name, args = node.name.lower(), node.expressions
    if name == "isfinite":
        return sqlglot.parse_one(f"abs({args[0].sql(dialect='spark')}) < double('Infinity')", read="spark")
    if name == "date_part" and len(args) == 2:
        return _date_part(node, args)
    return node


def _date_part(node: exp.Expr, args: list[exp.Expr]) -> exp.Expr:
    """Return whole years between two dates, as DuckDB's ``age`` counts them."""
    inner = args[1]
    if (
        _literal(args[0]).lower() != "year"
        or not isinstance(inner, exp.Anonymous)
        or inner.name.lower() != "age"
        or len(inner.expressions) != 2
    ):
        return node
    late, early = (part.sql(dialect="spark") for part in inner.expressions)

    def years(a: str, b: str) -> str:
        return f"(year({a}) - year({b}) - CASE WHEN date_format({a}, 'MMdd') < date_format({b}, 'MMdd') THEN 1 ELSE 0 END)"

    return sqlglot.parse_one(f"CASE WHEN {late} >= {early} THEN {years(late, early)} ELSE -{years(early, late)} END", read="spark")


_REWRITES: tuple[tuple[Any, Callable[[Any], exp.Expr]], ...] = (
    (exp.Window, _window),
    (exp.AnyValue, _any_value),
    (exp.IgnoreNulls, _ignore_nulls),
    (exp.CTE, _common),
    (exp.Ln, _logarithm),
    (exp.TryCast, _double),
    (exp.Cast, _cast),
    (exp.Literal, _number),
    (exp.Star, _star),
    ((exp.RegexpLike, exp.RegexpExtract, exp.RegexpFullMatch), _regexp),
    (exp.Anonymous, _anonymous),
)
