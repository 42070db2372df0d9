"""Write docs/reliability.md: what the hostile files of tests/hostile do to the readers, counted by running them.

Needs ../shared for the HL7v2 figures (``python scripts/make_reliability.py``, from the project's folder).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ehrready.pipeline import Options, read_profile  # noqa: E402
from ehrready.profile import Profile  # noqa: E402
from ehrready.readers.base import FileEntry  # noqa: E402
from tests.hostile import canary, hl7v2_cases, json_cases, table_cases  # noqa: E402
from tests.hostile.test_phi import CALL_SITES  # noqa: E402

SEED = 8


def read(files: Sequence[tuple[str, bytes]]) -> tuple[Profile, list[FileEntry]]:
    """Profile files; the ledger law is asserted by the program on the way."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in files:
            (Path(name) / file).write_bytes(data)
        profile, ledger, _ = read_profile([name], Options(threads=2))
    return profile, list(ledger.entries.values())


def line(what: str, profile: Profile, entries: Sequence[FileEntry]) -> str:
    """Return a row of the table."""
    reasons: Counter[str] = Counter()
    for entry in entries:
        reasons.update(entry.reasons)
    statuses = Counter(entry.status for entry in entries)
    shown = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    state = ", ".join(f"{status} {n:,}" for status, n in sorted(statuses.items()))
    return (
        f"| {what} | {len(entries):,} | {profile.total('read'):,} | {profile.total('profiled'):,} | {profile.total('rejected'):,} | "
        f"{shown or '-'} | {state} |\n"
    )


def main() -> None:
    """Run every generator and write the page."""
    documents = list(json_cases.documents(SEED))
    good = b'{"resourceType":"Observation","id":"n"}'
    ndjson = [(f"{i:05d}.ndjson", b"\n".join([good] * 3 + [bad] + [good] * 7) + b"\n") for i, (_, bad, _) in enumerate(documents)]
    profile, entries = read(ndjson)
    kept = sum(entry.profiled >= 10 for entry in entries)
    rows = [line("malformed or odd JSON, as line 4 of 11", profile, entries)]
    shared = sorted((ROOT.parent / "shared" / "data" / "hl7v2").rglob("*.hl7"))
    sources = [data for path in shared if 0 < len(data := path.read_bytes()) < 20_000 and b"MSH" in data]
    mutated = [(f"{i:05d}.hl7", data) for i, data in enumerate(hl7v2_cases.mutations(sources, 5000, SEED))]
    rows.append(line("mutated HL7v2 files", *read(mutated)))
    rows.append(line("damaged Parquet files", *read([(f"{name}.parquet", data) for name, (data, _) in table_cases.damaged().items()])))
    rows.append(line("mutated Parquet files", *read([(f"{i:05d}.parquet", d) for i, d in enumerate(table_cases.mutations(2000, SEED))])))
    rows.append(line("mutated CSV files", *read([(f"{i:05d}.csv", d) for i, d in enumerate(table_cases.csv_mutations(300, SEED))])))
    forms = [hl7v2_cases.framings(data) for data in sources]
    counts = {
        name: read([(f"{i:05d}.hl7", form[name]) for i, form in enumerate(forms)])[0].total("profiled")
        for name in (forms[0] if forms else ())
    }
    mint = canary.Mint()
    with tempfile.TemporaryDirectory() as name:
        for each, make in canary.EXPORTS.items():
            make(Path(name) / each, mint)
    page = f"""# Reliability in figures

Made by `python scripts/make_reliability.py` (seed {SEED}); the tests in `tests/hostile/` assert the same.
In every run the program itself asserts the ledger law: records read = profiled + rejected, per file, where profiled is
what the engine counts in its tables and not what the reader says. No run below crashed or hung.

| files | number | records read | profiled | rejected | reasons | status of the files |
|---|---|---|---|---|---|---|
{"".join(rows)}
- JSON: in {kept:,} of {len(entries):,} files all ten good neighbours were profiled.
- HL7v2 framing, {len(forms):,} published files: messages profiled with {", ".join(f"{name} {n:,}" for name, n in counts.items())}.
- Canaries: {len(mint.places):,} numbered tokens in three formats, looked for in {len(canary.forms())} forms; the tests fail for any hit in any
  output, on success, with a crash injected at each of {len(CALL_SITES)} places, and on SIGINT. Two tests prove that the detector detects.
- Kill -9: the default test run kills at 10 seeded instants, `pytest -m slow` at 50.

Longer runs: `make fuzz` (ten minutes; `SECONDS=N` for another time), which reads every batch in a process of its own.
"""
    (ROOT / "docs" / "reliability.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
