"""Runs the program with one of its functions made to raise an error whose text is a canary: no traceback may show it.

Usage: python driver.py MODULE:FUNCTION ARGUMENT...   (``-`` breaks nothing, ``leak`` plants a leak, ``sigint`` interrupts)
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

TEXT = "Zqxjvkw0000q"


def main() -> None:
    """Break what is named and run the command line."""
    target, sys.argv = sys.argv[1], ["ehrready", *sys.argv[2:]]
    from ehrready import cli, files

    if target == "leak":
        write = files.write
        files.write = lambda place, data, **options: write(place, data + TEXT.encode(), **options)
    elif target == "sigint":
        from ehrready import measure

        def interrupted(*arguments: object, **options: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        measure.measure = interrupted  # type: ignore[assignment]
    elif target != "-":
        module, _, name = target.partition(":")
        owner: Any = importlib.import_module(module)
        *path, name = name.split(".")
        for step in path:
            owner = getattr(owner, step)

        def breaks(*arguments: object, **options: object) -> None:
            Path(os.environ["EHRREADY_REACHED"]).touch()
            patient = TEXT  # a local value, which a traceback with locals would print
            raise ValueError(f"cannot parse {patient!r}", patient) from KeyError(patient)

        setattr(owner, name, breaks)
    cli.main()


if __name__ == "__main__":
    main()
