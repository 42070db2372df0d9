"""The engine for what one machine cannot hold: an existing Spark cluster, or the cores of this machine.

A session that is there (Databricks, ``spark-submit``, a notebook) is used as it is; otherwise one is started, without a UI
and without a log, and for a local master bound to this machine.  Its scratch folder is 0700 and goes with the run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrready.engines import duckdb
from ehrready.engines.duckdb import sweep
from ehrready.errors import SourceError, UsageError
from ehrready.tables import ALL

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ehrready.engines.spark_tables import Connection

MISSING = 'the Spark engine needs PySpark and sqlglot: pip install "ehrready[spark]"'
NO_JAVA = "the Spark engine needs Java 17 or later: install a Java runtime (such as openjdk-17-jre-headless), or set JAVA_HOME"
NO_MASTER = "the Spark master cannot be reached or is no Spark master: give --master local[*], spark://HOST:PORT, yarn or k8s://URL"
#: Up to this many bytes compiling a query costs more than running it as it is.
_SMALL = 1 << 30
_SECONDS = 5
#: Settings for little data: no compiling, no re-planning, one partition.
SMALL = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
}


def require() -> None:
    """Raise UsageError when PySpark or sqlglot is not installed."""
    try:
        import pyspark  # noqa: F401
        import sqlglot  # noqa: F401
    except ImportError:
        raise UsageError(MISSING) from None


@contextlib.contextmanager
def open_engine(*, master: str | None = None, size: int = 0, memory: str = "4GB") -> Iterator[Connection]:
    """Yield a connection with the canonical tables, empty; raises UsageError without Java, PySpark or a master.

    ``master`` is Spark's URL of the cluster (default: the active session's, ``SPARK_MASTER``, else ``local[*]``), ``size``
    the bytes to be read, ``memory`` the limit of a local master's JVM.
    """
    require()
    from ehrready.engines.spark_tables import Connection, Failed, Tables, kind_of

    with warnings.catch_warnings(), _unlogged(), _session(master, size, memory) as session:
        # frames of pandas are never made of values here but by Great Expectations, from Arrow
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
        tables = Tables(session)
        try:
            for name, schema in ALL.items():
                tables.put(name, tables.empty(schema), keep=False)
            yield Connection(tables)
        except Failed as error:
            raise SourceError(f"a Spark job failed ({str(error).removeprefix('Spark: ')}): look into the logs of the cluster") from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"pyspark", "py4j"}:
                raise
            for lack in (duckdb.NO_ROOM, duckdb.NO_MEMORY):  # what a task said, in our own words
                if lack in str(error):
                    raise SourceError(f"on a worker {lack}") from None
            raise SourceError(f"a Spark job failed ({kind_of(error)}): look into the logs of the cluster") from None
        finally:
            tables.clear()


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep PySpark from writing its exceptions, which quote queries and data, to stderr."""
    from pyspark.logger import PySparkLogger

    loggers = [PySparkLogger.getLogger(name) for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextlib.contextmanager
def _session(master: str | None, size: int, memory: str = "4GB") -> Iterator[SparkSession]:
    """Yield the active session's sibling, or a session of our own that ends here."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active.newSession() if hasattr(active, "newSession") else active
        return
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit has chosen the master
    url = master or os.environ.get("SPARK_MASTER") or (None if submitted or "SPARK_REMOTE" in os.environ else "local[*]")
    if url is not None:
        _look_at(url)
    root = Path(tempfile.gettempdir())
    sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=f"ehrready-{os.getpid()}-", dir=root))
    try:
        session = _start(url, folder, size, memory)
        try:
            yield session
        finally:
            with contextlib.suppress(Exception):
                session.stop()
            _end_gateway()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _look_at(url: str) -> None:
    """Raise UsageError for a master that nobody can reach, before Spark tries for minutes."""
    if not re.fullmatch(r"local(\[(\*|\d+)(,\s*\d+)?\])?|local-cluster\[.+\]|spark://.+|yarn|k8s://.+", url):
        raise UsageError(NO_MASTER)
    if not (shutil.which("java") or (Path(os.environ.get("JAVA_HOME", "/nowhere")) / "bin" / "java").exists()):
        raise UsageError(NO_JAVA)
    if not url.startswith("spark://"):
        return
    for place in url.removeprefix("spark://").split(","):
        host, _, port = place.rpartition(":")
        with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=_SECONDS):
            return
    raise UsageError(NO_MASTER)


def _start(url: str | None, folder: Path, size: int, memory: str) -> SparkSession:
    """Start a session of our own."""
    from pyspark.sql import SparkSession

    quiet = folder / "log4j2.properties"
    quiet.write_text("rootLogger.level = off\n", "utf-8")
    java = f"-Dlog4j2.configurationFile={quiet} -Djava.io.tmpdir={folder} -Dderby.system.home={folder}"
    local = url is not None and url.startswith("local")
    settings: dict[str, str] = {
        "spark.app.name": "ehrready",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.log.level": "OFF",
        "spark.python.worker.faulthandler.enabled": "false",
        "spark.sql.ui.explainMode": "simple",
        "spark.sql.maxPlanStringLength": "0",
    }
    if local:
        cores = re.search(r"\[(\d+)", url or "")
        settings |= {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": str(folder),
            "spark.driver.memory": f"{_megabytes(memory)}m",
            "spark.sql.shuffle.partitions": cores[1] if cores else str(os.cpu_count() or 1),
        }
        if 0 < size < _SMALL:
            java += " -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
            settings |= SMALL
    settings["spark.driver.extraJavaOptions"] = java
    builder = SparkSession.builder
    if url is not None:
        builder = builder.master(url)
    for key, value in settings.items():
        # what spark-submit or spark-defaults.conf says goes before, where it is no matter of privacy
        builder = builder.config(key, value)
    if local:
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    try:
        with _silent():
            session = builder.getOrCreate()
            with contextlib.suppress(Exception):
                session.sparkContext.setLogLevel("OFF")
            return session
    except Exception as error:  # noqa: BLE001 - PySpark and py4j raise many types, whose texts are not for people
        raise UsageError(NO_JAVA if "JAVA_GATEWAY" in str(error) or isinstance(error, FileNotFoundError) else NO_MASTER) from None


def _megabytes(memory: str) -> int:
    """Return a size such as 4GB or 512MiB in MiB, at least what Spark starts with; raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)I?B\s*", memory.upper())
    if not match:
        raise UsageError("--memory must be a size such as 4GB or 512MB")
    return max(512, int(float(match[1]) * 1024 ** ("KMGT".find(match[2] or "K") - 1)))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Start the JVM without a terminal: it and the Python workers that it starts keep what they have at their start."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _end_gateway() -> None:
    """End the JVM that we started, so that nothing of it outlives the run."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway
    if gateway is None or "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    process = getattr(gateway, "proc", None)
    with contextlib.suppress(Exception):
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    if process is not None:
        with contextlib.suppress(Exception):
            process.stdin.close()  # the JVM ends when its standard input does
            process.wait(timeout=20)
