"""Reading in parts, without Spark: wherever large files are cut, the tables and the ledger are those of one reading."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

pytest.importorskip("pyspark", reason="needs PySpark (make spark)")

from ehrready import sources
from ehrready.engines import duckdb as engine
from ehrready.engines import spark_read
from ehrready.ledger import Ledger
from ehrready.readers import chosen, hl7v2, parts
from ehrready.readers.base import Ended, Reader, SourceFile
from ehrready.tables import ALL

_MESSAGE = "MSH|^~\\&|LAB|SITE{site}|||20240{m}0112||ORU^R01|{n}|P|2.5\r" "PID|1||P{p}^^^A||X^Y||19800{m}01|{sex}\r" "PV1|1|I|||||||||||||||||V{p}\rOBX|1|NM|718-7^Hb^LN||{n}.5|g/dL|||||F\r"  # fmt: skip


def _messages(n: int) -> bytes:
    return "".join(_MESSAGE.format(n=i, p=i % 7, m=1 + i % 9, site=i % 3, sex="MF"[i % 2]) for i in range(n)).encode()


def _lines(n: int) -> bytes:
    found = []
    for i in range(n):
        if i % 11 == 3:
            found.append('{"resourceType": "Observation", "id": ')
        elif i % 11 == 5:
            found.append("")
        elif i % 11 == 7:
            found.append('["no object"]')
        else:
            found.append(
                f'{{"resourceType":"Observation","id":"o{i}","status":"final","subject":{{"reference":"Patient/p{i % 5}"}},'
                f'"code":{{"coding":[{{"system":"http://loinc.org","code":"718-7"}}]}},"valueQuantity":{{"value":{i}.5,"unit":"g/dL"}}}}'
            )
    return "\n".join(found).encode()


def _rows(tables: Iterable[pa.Table]) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for table in tables for row in table.to_pylist()), key=repr)


def _whole(reader: Reader, files: list[SourceFile]) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    ledger = Ledger.of(files)
    with engine.open_engine() as con:
        for event in reader.read(files, con):
            ledger.add(event)
        ledger.close(engine.profiled(con))
        sample = con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'fhir_sample'").fetchall()
        names = [*ALL, "fhir_sample"] if sample else list(ALL)
        return {name: _rows([con.sql(f'SELECT * FROM "{name}"').to_arrow_table()]) for name in names}, ledger.rows()


def _in_parts(reader: Reader, files: list[SourceFile], size: int, buckets: int) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Do what the driver and the tasks do, one after the other in this process."""
    cuts = [parts.cut(file, size) for file in files]
    cuts = [parts.numbered(cut, [parts.survey(p) for p in cut]) if len(cut) > 1 and cut[0].kind == "ndjson" else cut for cut in cuts]
    splits = tuple(map(tuple, parts.grouped([p for cut in cuts for p in cut], size, 0, len({f.kind for f in files}) > 1)))
    job = spark_read.Job(reader, splits, tuple(files), buckets, "1GB")
    rows = [row for number in range(len(splits)) for row in spark_read.stage_split(job, number)]
    random.Random(1).shuffle(rows)
    told = {split: orjson.loads(payload) for split, _, name, payload in rows if not name}
    ledger = Ledger.of(files)
    shifts = spark_read.book(job, told, ledger)
    found: dict[str, list[pa.Table]] = {name: [] for name in ALL}
    for split, _, name, payload in rows:
        if name in ALL:
            found[name].append(spark_read.unpacked(payload, shifts.get(split, 0)))
    assert job.staged is not None
    for bucket in range(buckets):
        mine = [row for row in rows if row[2] in job.staged.meets and row[1] == bucket]
        for _, _, name, payload in spark_read.finish_bucket(job, mine, shifts):
            found[name].append(spark_read.unpacked(payload, 0))
    with engine.open_engine() as con:
        kept = {
            name: [t for s, _, n, p in rows if n == name for t in [spark_read.unpacked(p, shifts.get(s, 0))]] for name in job.staged.kept
        }
        for name, schema in ALL.items():
            if found[name]:
                con.register("_part", pa.concat_tables([table.cast(schema) for table in found[name]]))
                con.execute(f'INSERT INTO "{name}" SELECT * FROM _part')
        for name, tables in kept.items():
            text = next(r["schemas"][name] for r in told.values())
            empty = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(text))).empty_table()
            con.register("_part", pa.concat_tables([empty, *tables]))
            con.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM _part')
        job.staged.resolve(con)
        ledger.close(engine.profiled(con))
        # a count per type and part adds up to the count per type
        con.execute('CREATE OR REPLACE TABLE types AS SELECT format, "type", sum(n)::BIGINT n FROM types GROUP BY ALL')
        con.execute("CREATE OR REPLACE TABLE profiled AS SELECT file, sum(n)::BIGINT n FROM profiled GROUP BY ALL")
        names = [*ALL, *(name for name in job.staged.kept if name == "fhir_sample")]
        return {name: _rows([con.sql(f'SELECT * FROM "{name}"').to_arrow_table()]) for name in names}, ledger.rows()


def _same(folder: Path, size: int, buckets: int = 3, most: int | None = None) -> None:
    readers = chosen("auto")
    files = sources.recognise(sources.expand([str(folder)]), readers)
    for reader in readers:
        mine = [file for file in files if file.format == reader.format and not file.skip]
        if not mine:
            continue
        expected, ledger = _whole(reader, mine)
        expected["types"] = _summed(expected["types"])
        expected["profiled"] = _summed(expected["profiled"])
        found, booked = _in_parts(reader, mine, size, buckets)
        assert booked == ledger
        for name, rows in expected.items():
            assert found[name] == rows, name
        if most is not None:
            assert max(len(parts.cut(file, size)) for file in mine) >= most


def _summed(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    sums: dict[tuple[Any, ...], int] = {}
    for *key, n in rows:
        sums[tuple(key)] = sums.get(tuple(key), 0) + int(n)
    return sorted(((*key, n) for key, n in sums.items()), key=repr)


@pytest.mark.parametrize("size", [300, 1200])
def test_ndjson_is_cut_at_lines_and_numbered_as_one_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.ndjson").write_bytes(_lines(34))
    (tmp_path / "b.ndjson").write_bytes(b"\xef\xbb\xbf" + _lines(12) + b'\n{"resourceType": "Obser')  # cut, with a byte order mark
    _same(tmp_path, size, most=4)


def test_a_file_of_bundles_is_read_by_one_task(tmp_path: Path) -> None:
    entry = '{"fullUrl": "urn:x:{n}", "resource": {"resourceType": "Patient", "id": "p{n}"}}'
    bundle = '{"resourceType": "Bundle", "type": "collection", "entry": [%s]}'
    text = "\n".join(bundle % ",".join(entry.replace("{n}", str(10 * i + j)) for j in range(3)) for i in range(20))
    text += "\n" + '{"resourceType":"Observation","subject":{"reference":"urn:x:11"}}'
    (tmp_path / "bundles.ndjson").write_text(text, "utf-8")
    _same(tmp_path, 200)
    file = SourceFile(1, tmp_path / "bundles.ndjson", (tmp_path / "bundles.ndjson").stat().st_size, "fhir", "ndjson")
    cut = parts.cut(file, 200)
    assert len(cut) > 2
    assert parts.numbered(cut, [parts.survey(part) for part in cut]) == [file]


def test_medications_in_another_split_are_found(tmp_path: Path) -> None:
    drug = (
        '{"resourceType":"Medication","id":"m%d","code":{"coding":[{"system":"http://www.nlm.nih.gov/research/umls/rxnorm","code":"%d"}]}}'
    )
    order = '{"resourceType":"MedicationRequest","id":"r%d","subject":{"reference":"Patient/p"},"medicationReference":{"reference":"Medication/m%d"}}'
    (tmp_path / "Medication.ndjson").write_text("\n".join(drug % (i, 1000 + i) for i in range(40)), "utf-8")
    (tmp_path / "MedicationRequest.ndjson").write_text("\n".join(order % (i, i % 45) for i in range(90)), "utf-8")
    _same(tmp_path, 700, buckets=4, most=3)


def test_records_of_test_patients_in_other_splits_are_excluded(tmp_path: Path) -> None:
    patients = [
        '{"resourceType":"Patient","id":"p0","meta":{"security":[{"code":"HTEST"}]}}',
        *(f'{{"resourceType":"Patient","id":"p{i}"}}' for i in range(1, 5)),
    ]
    (tmp_path / "Patient.ndjson").write_text("\n".join(patients), "utf-8")
    (tmp_path / "Observation.ndjson").write_bytes(_lines(60))
    _same(tmp_path, 1500)


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b""), (b"FHS|^~\\&|A\rBHS|^~\\&|A\r", b"BTS|60\rFTS|1\r"), (b"BHS|^~\\&|A\r", b""), (b"junk\r", b"")]
)
def test_hl7v2_is_cut_at_messages_and_numbered_as_one_file(tmp_path: Path, before: bytes, after: bytes) -> None:
    (tmp_path / "oru.hl7").write_bytes(before + _messages(60) + after)
    _same(tmp_path, 900, most=4)


def test_hl7v2_with_bad_headers_junk_and_a_cut_message(tmp_path: Path) -> None:
    good = _messages(20).replace(b"MSH|^~\\&|LAB|SITE1", b"MSHaaaaaa|LAB|SITE1", 1)
    (tmp_path / "a.hl7").write_bytes(good + b"BTS|20\rtext outside\r" + _messages(10) + b"FTS|1\rmore text\r" + _messages(3)[:-30])
    framed = b"".join(b"\x0b" + _messages(1) + b"\x1c\r" for _ in range(16))
    (tmp_path / "b.hl7").write_bytes(framed + b"\x0b" + _messages(1)[:90])
    (tmp_path / "c.hl7").write_bytes(_messages(12).replace(b"\r", b"\r\n").replace(b"X^Y", b"M\xfcller^Y"))
    _same(tmp_path, 700, most=3)


def test_hl7v2_with_a_message_of_more_segments_than_a_record_number_has_places(tmp_path: Path) -> None:
    head, first, rest = _messages(8).partition(b"MSH")
    assert not head
    long = first + rest + first + b"|^~\\&|LAB|SITE1|||20240102||ORU^R01|9|P|2.5\rPID|1||P1\r"
    long += b"".join(b"OBX|1|NM|718-7^x^LN||%d|g/dL|||||F\r" % i for i in range(33_000))
    (tmp_path / "a.hl7").write_bytes(long + _messages(8))
    _same(tmp_path, 600_000, most=2)


def test_a_file_whose_one_part_could_not_be_read_is_unreadable() -> None:
    read = Ended(1, "read", None, 5, json.dumps([1, [3], None, True, True, 2]))
    assert hl7v2.ended([read, Ended(1, "unreadable")]) == Ended(1, "unreadable", 3, 5)
    assert [hl7v2.further(part) for part in (read, Ended(1, "unreadable"))] == [2, 0]


def test_tables_are_read_by_file_with_their_lookup_tables(tmp_path: Path, project: Path) -> None:
    _same(project / "sample_data" / "live" / "omop", 20_000)
    (tmp_path / "labs.csv").write_text("id,value\n1,2\n2,N/A\n", "utf-8")
    (tmp_path / "notes.csv").write_text("id,text\n1,a\n2,\nbroken\n", "utf-8")
    (tmp_path / "empty.csv").write_bytes(b"")
    _same(tmp_path, 5)


@pytest.mark.parametrize("content", [b"", b"\n" * 5000, b"x" * 5000])
def test_files_of_one_line_or_of_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(content)
    (tmp_path / "b.hl7").write_bytes(content)
    _same(tmp_path, 100)


def test_cuts_cover_the_file_and_compressed_ones_are_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(_lines(100))
    file = SourceFile(1, path, path.stat().st_size, "fhir", "ndjson")
    cut = parts.cut(file, 500)
    assert [part.stop for part in cut[:-1]] == [part.start for part in cut[1:]]
    assert cut[0].start == 0
    assert cut[-1].stop is None
    data = path.read_bytes()
    assert all(data[part.start - 1 : part.start] == b"\n" for part in cut[1:])
    path.write_bytes(b"\x1f\x8b" + bytes(5000))
    assert parts.cut(file, 500) == [file]
    assert parts.cut(replace(file, kind="document"), 500) == [replace(file, kind="document")]
