"""A connection to Spark with the part of DuckDB's interface that measures use: they do not know on which engine they run.

Tables are temporary views over cached data frames: a table is computed once, when it is made.  What fails raises DuckDB's
own exception types, without the words of the JVM, which may quote data.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from ehrready.engines import dialect

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_TAGS = itertools.count(1)
_TYPES = {
    "VARCHAR": "string",
    "TEXT": "string",
    "BIGINT": "bigint",
    "INT": "int",
    "INTEGER": "int",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
}
_HIT = "ehrready_hit"


class Failed(duckdb.Error):
    """A statement failed on Spark; the message names the kind of the failure alone."""


class Tables:
    """The temporary tables of a run: their data frames, and how to end them."""

    def __init__(self, session: SparkSession) -> None:
        self.session = session
        self.frames: dict[str, DataFrame] = {}
        _register(session)

    def empty(self, columns: pa.Schema | Sequence[tuple[str, str]]) -> DataFrame:
        """Return a frame without rows, which Spark takes out of every plan; types are Arrow's or Spark's."""
        pairs = [(f.name, _TYPES_OF[f.type]) for f in columns] if isinstance(columns, pa.Schema) else columns
        return self.session.sql("SELECT " + ", ".join(f"CAST(NULL AS {kind}) AS `{name}`" for name, kind in pairs) + " WHERE false")

    def put(self, name: str, frame: DataFrame, *, keep: bool = True) -> None:
        """Let a name stand for a data frame; with ``keep`` it is computed now, and once."""
        frame = _computed(frame) if keep else frame
        # columns of its own: those of a table made of another one keep its columns' numbers, and a join of both is ambiguous
        frame = frame.toDF(*frame.columns)
        frame.createOrReplaceTempView(name)
        self.frames[name] = frame

    def append(self, name: str, frame: DataFrame) -> None:
        """Add rows to a table, which may not be there yet; what was there is not computed again."""
        made = _computed(frame)
        self.put(name, self.frames[name].unionAll(made) if name in self.frames else made, keep=False)

    def drop(self, name: str) -> None:
        """Forget a table."""
        if self.frames.pop(name, None) is not None:
            self.session.catalog.dropTempView(name)

    def clear(self) -> None:
        """Forget all tables, whatever state the session is in."""
        for name in list(self.frames):
            with contextlib.suppress(Exception):
                self.drop(name)


def _register(session: SparkSession) -> None:
    """Let queries call what DuckDB has to answer."""
    from pyspark.sql import functions

    arrow_udf: Any = vars(functions)["arrow_udf"]  # its stub leaves it out

    def ln(values: pa.Array) -> pa.Array:
        return dialect.answer("ln", values)

    def double(values: pa.Array) -> pa.Array:
        return dialect.answer("double", values)

    session.udf.register(dialect.LN, arrow_udf(ln, "double"))
    session.udf.register(dialect.DOUBLE, arrow_udf(double, "double"))


def _computed(frame: DataFrame) -> DataFrame:
    """Compute a frame and forget how: a plan that holds the plans of all tables before it takes longer than the work."""
    with contextlib.suppress(Exception):
        if frame.sparkSession.conf.get("spark.checkpoint.dir", ""):
            return frame.checkpoint()  # on storage that outlives an executor
    return frame.localCheckpoint()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raise what Spark raises as ``Failed``, without its words."""
    try:
        yield
    except (duckdb.Error, KeyboardInterrupt, MemoryError):
        raise
    except dialect.Untranslatable as error:
        raise Failed(str(error)) from None
    except Exception as error:  # noqa: BLE001 - py4j and PySpark raise many types, whose texts quote data
        raise Failed(f"Spark: {kind_of(error)}") from None


def kind_of(error: BaseException) -> str:
    """Return the error class of Spark (``DIVIDE_BY_ZERO``) or else the exception's type."""
    condition = getattr(error, "getCondition", None)
    with contextlib.suppress(Exception):
        if condition is not None and (found := condition()) and re.fullmatch("[A-Z_.0-9]+", str(found)):
            return str(found)
    return type(error).__name__


class Connection:
    """One cursor over the tables: ``execute`` a statement of DuckDB's dialect, ``fetch`` its rows."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._frame: DataFrame | None = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self._names: list[str] = []
        self._tag = f"ehrready-{next(_TAGS)}"
        self._stopped = False

    @property
    def session(self) -> SparkSession:
        """The Spark session behind it."""
        return self.tables.session

    # --- what measures call -------------------------------------------------------------------------------------

    def execute(self, text: str, parameters: Sequence[Any] | None = None) -> Connection:
        """Run statements; those that read no table are answered by DuckDB itself (``json_serialize_sql``)."""
        self._frame, self._rows, self._names = None, iter(()), []
        if parameters is not None:
            with duckdb.connect() as con:
                found = con.execute(text, parameters)
                self._names = [column[0] for column in found.description or ()]
                self._rows = iter(found.fetchall())
            return self
        with _told():
            for tree in dialect.statements(text):
                self._run(tree)
        return self

    def executemany(self, text: str, rows: Sequence[Sequence[Any]]) -> Connection:
        """Insert rows: ``INSERT INTO t VALUES (?, ...)``."""
        with _told():
            (tree,) = dialect.statements(text)
            name = _name(tree.this)
            schema = self.tables.frames[name].schema
            if rows:
                more = self.session.createDataFrame([tuple(row) for row in rows], schema)
                self.tables.put(name, self.tables.frames[name].unionAll(more), keep=False)
        return self

    def register(self, name: str, table: pa.Table) -> Connection:
        """Let a small Arrow table be read under a name."""
        with _told():
            plain = pa.table({n: _plain(table.column(n)) for n in table.column_names})
            frame = self.session.createDataFrame(plain) if table.num_rows else self.tables.empty(plain.schema)
            self.tables.put(name, frame, keep=False)
        return self

    def unregister(self, name: str) -> Connection:
        """Forget a registered table."""
        self.tables.drop(name)
        return self

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that were not fetched yet."""
        return list(self._started())

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None."""
        return next(self._started(), None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """Return at most so many of the next rows."""
        if self._frame is not None:
            self._frame = self._frame.limit(size)
        return list(itertools.islice(self._started(), size))

    def fetchnumpy(self) -> dict[str, Any]:
        """Return the rows as a NumPy array per column."""
        import numpy as np

        rows = self.fetchall()
        return {name: np.array([row[i] for row in rows], dtype=object) for i, name in enumerate(self._names)}

    def sql(self, text: str) -> Connection:
        """Run a query (DuckDB's relation is this cursor here)."""
        return self.execute(text)

    def to_arrow_table(self) -> pa.Table:
        """Return the rows as an Arrow table."""
        frame, self._frame = self._frame, None
        if frame is None:
            raise Failed("there is no result")
        with _told():
            return frame.toArrow()

    @property
    def description(self) -> list[tuple[str, ...]]:
        """Names of the result's columns, as in DB-API."""
        return [(name,) for name in self._names]

    def cursor(self) -> Connection:
        """Return another cursor over the same tables."""
        return Connection(self.tables)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the result; the tables stay."""
        self._frame, self._rows = None, iter(())

    def interrupt(self) -> None:
        """Stop the statement that runs on this cursor."""
        self._stopped = True
        with contextlib.suppress(Exception):
            self.session.interruptTag(self._tag)

    def extract_statements(self, text: str) -> list[Any]:
        """Parse statements as DuckDB does."""
        with duckdb.connect() as con:
            return con.extract_statements(text)

    # --- how it is done -----------------------------------------------------------------------------------------

    def _started(self) -> Iterator[tuple[Any, ...]]:
        """Return the rows of the last query; the work is done on the first call."""
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self.session.addTag(self._tag)
            try:
                with _told():
                    self._rows = iter([tuple(row) for row in frame.collect()])
            except Failed:
                if self._stopped:
                    raise duckdb.InterruptException("interrupted") from None
                raise
            finally:
                with contextlib.suppress(Exception):  # of a JVM that is gone: what ended it is told
                    self.session.removeTag(self._tag)
        return self._rows

    def _query(self, tree: exp.Expr) -> DataFrame:
        for function in tree.find_all(exp.Table):
            if isinstance(function.this, exp.Anonymous) and function.this.name.lower() == "duckdb_tables":
                names = ", ".join(f"('{name}')" for name in sorted(self.tables.frames)) or "('')"
                function.replace(dialect.parse_spark(f"(SELECT * FROM VALUES {names} AS d(table_name)) AS d"))
        return self.session.sql(dialect.spark(tree))

    def _run(self, tree: exp.Expr) -> None:
        if isinstance(tree, exp.Create):
            self._create(tree)
        elif isinstance(tree, exp.Insert):
            self._insert(tree)
        elif isinstance(tree, exp.Update):
            self._update(tree)
        elif isinstance(tree, exp.Delete):
            self._delete(tree)
        elif isinstance(tree, exp.Drop):
            self.tables.drop(_name(tree.this))
        elif isinstance(tree, exp.Query):
            self._frame = self._query(tree)
            self._names = list(self._frame.columns)
        else:
            raise dialect.Untranslatable("this kind of statement does not run on Spark")

    def _create(self, tree: exp.Create) -> None:
        name = _name(tree.this)
        if tree.expression is not None:
            self.tables.put(name, self._query(tree.expression), keep=tree.kind != "VIEW")
            return
        columns = [(column.name, column.args["kind"].sql(dialect="duckdb").upper()) for column in tree.this.expressions]
        self.tables.put(name, self.tables.empty([(column, _TYPES[kind]) for column, kind in columns]), keep=False)

    def _insert(self, tree: exp.Insert) -> None:
        name = _name(tree.this)
        frame = self.tables.frames[name]
        given = [column.name for column in tree.this.expressions] if isinstance(tree.this, exp.Schema) else frame.columns
        source = tree.expression
        if isinstance(source, exp.Values):
            source = dialect.parse_spark(f"SELECT * FROM {source.sql(dialect='spark')} AS v")
        more = self._query(source).toDF(*given)
        missing = ", ".join(
            f"`{field.name}`" if field.name in given else f"CAST(NULL AS {field.dataType.simpleString()}) AS `{field.name}`"
            for field in frame.schema
        )
        self.tables.append(name, more.selectExpr(*_split(missing)) if list(given) != frame.columns else more)

    def _update(self, tree: exp.Update) -> None:
        name = _name(tree.this)
        target = tree.this.copy()
        source, where = tree.args.get("from_") or tree.args.get("from"), tree.args.get("where")
        changed = {assignment.this.name: assignment.expression for assignment in tree.expressions}
        hit = exp.column(_HIT) if source is not None else (where.this if where else exp.true())
        selected: list[exp.Expr] = []
        for column in self.tables.frames[name].columns:
            old = exp.column(column, table=target.alias_or_name, quoted=True)
            new = exp.Case(ifs=[exp.If(this=hit.copy(), true=changed[column].copy())], default=old) if column in changed else old
            selected.append(exp.alias_(new, column, quoted=True))
        query = exp.select(*selected).from_(target)
        if source is not None:
            # the source has one row a key, so that a join changes no number of rows
            other = source.this
            marked = exp.select(exp.Star(), exp.alias_(exp.true(), _HIT)).from_(other.copy()).subquery(other.alias_or_name)
            query = query.join(marked, on=where.this.copy() if where else exp.true(), join_type="left")
        self.tables.put(name, self._query(query))

    def _delete(self, tree: exp.Delete) -> None:
        name = _name(tree.this)
        where = tree.args.get("where")
        kept = exp.not_(exp.func("coalesce", where.this.copy(), exp.false())) if where else exp.false()
        self.tables.put(name, self._query(exp.select("*").from_(tree.this.copy()).where(kept)))


def _name(node: exp.Expr) -> str:
    """Return the name of a table in a statement that makes or changes it."""
    found = node.this if isinstance(node, exp.Schema) else node
    return str(found.name)


def _split(columns: str) -> list[str]:
    return columns.split(", ")


_TYPES_OF = {pa.string(): "string", pa.int64(): "bigint", pa.int32(): "int", pa.float64(): "double", pa.bool_(): "boolean"}


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in a type that every Spark has."""
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type) else column
