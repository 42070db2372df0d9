"""Hostile Parquet and CSV files: broken footers, wrong types, absurd counts, odd nesting; seeded mutations of good ones."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def person(rows: int = 50) -> pa.Table:
    """Return an OMOP person table."""
    return pa.table(
        {
            "person_id": pa.array(range(rows), pa.int64()),
            "gender_concept_id": pa.array([8507] * rows, pa.int32()),
            "year_of_birth": pa.array([1980] * rows, pa.int32()),
            "gender_source_value": pa.array([f"v{i % 7}" for i in range(rows)]),
        }
    )


def nested(rows: int = 20) -> pa.Table:
    """Return a table of lists, structs, maps, decimals and times."""
    return pa.table(
        {
            "lists": pa.array([[[i], []] for i in range(rows)]),
            "structs": pa.array([{"a": {"b": i, "c": None}} for i in range(rows)]),
            "maps": pa.array([[("k", i)] for i in range(rows)], pa.map_(pa.string(), pa.int64())),
            "decimals": pa.array([Decimal("1.5")] * rows, pa.decimal128(38, 10)),
            "times": pa.array(list(range(rows)), pa.timestamp("ns")),
            "bytes": pa.array([b"\xff\x00"] * rows),
            "nothing": pa.array([None] * rows, pa.null()),
        }
    )


def damaged() -> dict[str, tuple[bytes, str]]:
    """Return name → (Parquet bytes, reason) of files that must be rejected whole."""
    good = parquet(person())
    length = struct.unpack("<I", good[-8:-4])[0]
    footer = len(good) - 8 - length
    return {
        "empty": (b"", "empty"),
        "magic-only": (b"PAR1", "invalid-parquet"),
        "two-magics": (b"PAR1PAR1", "invalid-parquet"),
        "text": (b"person_id,x\n1,2\n", "invalid-parquet"),
        "cut-half": (good[: len(good) // 2], "truncated"),
        "cut-last-byte": (good[:-1], "truncated"),
        "no-footer": (good[:footer], "truncated"),
        "footer-length-0": (good[:-8] + struct.pack("<I", 0) + b"PAR1", "invalid-parquet"),
        "footer-length-huge": (good[:-8] + struct.pack("<I", 0xFFFFFFFF) + b"PAR1", "invalid-parquet"),
        "footer-length-negative": (good[:-8] + struct.pack("<i", -1) + b"PAR1", "invalid-parquet"),
        "footer-zeros": (good[:footer] + b"\0" * length + good[-8:], "invalid-parquet"),
        "footer-ones": (good[:footer] + b"\xff" * length + good[-8:], "invalid-parquet"),
        "pages-zeroed": (good[:4] + b"\0" * (footer - 4) + good[footer:], "invalid-parquet"),
        "pages-gone": (good[:4] + good[footer:], "invalid-parquet"),
        "encrypted-magic": (good[:-4] + b"PARE", "truncated"),
        "no-columns": (parquet(pa.table({})), "invalid-parquet"),
        "nul": (b"\0" * 4096, "invalid-parquet"),
    }


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Yield good Parquet files with a few bytes changed, cut out or put in; mostly in the footer."""
    rng = random.Random(seed)
    goods = [
        parquet(person(), compression=codec, use_dictionary=dictionary, data_page_version=version)
        for codec in ("none", "snappy", "gzip", "zstd")
        for dictionary in (True, False)
        for version in ("1.0", "2.0")
    ]
    goods += [parquet(nested()), parquet(person(5000), row_group_size=100), parquet(person(0)), parquet(person(), write_statistics=False)]
    for _ in range(count):
        data = bytearray(rng.choice(goods))
        footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            at = rng.randrange(footer, len(data) - 8) if rng.random() < 0.7 else rng.randrange(4, len(data))
            match rng.randrange(5):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    data[at : at + rng.randrange(1, 9)] = rng.choice([b"\xff", b"\x00", b"\x7f"]) * rng.randrange(1, 9)
                case 3:
                    del data[at : at + rng.randrange(1, 20)]
                case _:
                    data[at:at] = rng.randbytes(rng.randrange(1, 12))
            if len(data) < 64:
                break
        yield bytes(data)


CSV_GOOD = b"person_id,gender_concept_id,year_of_birth,name\n" + b"".join(b"%d,8507,1980,a%d\n" % (i, i) for i in range(30))


def csv_mutations(count: int, seed: int) -> Iterator[bytes]:
    """Yield broken delimited text."""
    rng = random.Random(seed)
    pieces = [b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\\", b"'", b"\t", b";", b'"\n', b"=1+1", b"\xef\xbb\xbf"]
    for _ in range(count):
        data = bytearray(CSV_GOOD)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at:at] = rng.choice(pieces) * rng.choice([1, 1, 2, 500])
                case 1:
                    del data[at : at + rng.randrange(1, 40)]
                case 2:
                    data[at : at + 1] = rng.choice(pieces)
                case _:
                    data = data[:at] or data
        yield bytes(data).decode("latin-1").encode("utf-16") if rng.random() < 0.05 else bytes(data)
