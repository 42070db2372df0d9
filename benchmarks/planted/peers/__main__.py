"""Runs one peer's ``examine`` in the peer's own environment; prints its counts as JSON on the last line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

module, live, reference = sys.argv[1:]
sys.path.pop(0)  # this folder: a peer's module may have the name of its package
spec = importlib.util.spec_from_file_location("peer", module)
if spec is None or spec.loader is None:
    raise SystemExit(f"{module} is no module")
peer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peer)
print("\n" + json.dumps(peer.examine(Path(live), Path(reference))))
