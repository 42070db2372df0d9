"""The canonical tables: the one shape that FHIR, HL7v2 and tabular sources are read into.

Every scalar is kept as the text the source carried (``VARCHAR``), so that a null token, a wrong date or a
reason for absence can still be told apart when it is measured.  Times are ISO 8601 prefixes
(``2024``, ``2024-05``, ``2024-05-03T10:15:00``): the length is the precision.  Local clock time is kept,
offsets are dropped.

Coded elements live in two long tables, ``concept`` (one row per CodeableConcept, also for an absent one, so
that a missing code is a row that can be counted) and ``coding`` (one row per Coding).

``record`` is ``file << 40 | position``: position is the line or message or row number, or, for a resource
inside a Bundle, ``1 << 39`` plus its running number in the file.  In HL7v2 the position is the message number and,
in its lowest 15 bits, the place of the segment in the message: a message has many OBX, and each row is its own.
"""

from __future__ import annotations

import pyarrow as pa

#: A scalar that is absent for a stated reason holds this mark and the reason (``\x01unknown``, ``\x01masked``).
ABSENT = "\x01"

#: How many bits of ``record`` hold the position within the file.
POSITION_BITS = 40
#: Set in the position of a resource that came out of a Bundle.
ENTRY_BIT = 39

_COMMON = [
    ("record", pa.int64()),
    ("id", pa.string()),
    ("patient_id", pa.string()),
    ("encounter_id", pa.string()),
    ("site", pa.string()),
    # the source's own kind of record, within which ids are unique: resource type, segment, table
    ("source_type", pa.string()),
    ("status", pa.string()),
    ("at", pa.string()),
    # why the record is kept out of every denominator: entered-in-error, refuted, test-patient
    ("excluded", pa.string()),
]


def _table(**own: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in [*_COMMON, *own.items()]])


_TEXT = pa.string()

#: Canonical table name to its Arrow schema.
TABLES: dict[str, pa.Schema] = {
    "patient": _table(birth_date=_TEXT, death_date=_TEXT, deceased=_TEXT, sex=_TEXT),
    "encounter": _table(end=_TEXT),
    "condition": _table(end=_TEXT, recorded_at=_TEXT),
    "observation": _table(
        value_kind=_TEXT,  # number, coded, text, boolean, time, components, other; NULL when there is none
        value_number=pa.float64(),
        value_text=_TEXT,
        comparator=_TEXT,
        unit=_TEXT,
        unit_code=_TEXT,
        range_low=pa.float64(),
        range_high=pa.float64(),
        absent_reason=_TEXT,
        # what the source's type says of a value that is no number: declared (a number), structured (HL7v2 SN), else NULL
        value_declared=_TEXT,
    ),
    "medication": _table(end=_TEXT),
    "procedure": _table(end=_TEXT),
    "immunization": _table(),
    "allergy": _table(),
    "report": _table(),
    "document": _table(),
}

#: Results that are parts of a record (FHIR Observation.component): columns of ``observation``, those of the record repeated.
#: They count as results (value, unit, code), never as records.  ``concept`` is the number of the part's code among the
#: concepts of ``observation.code`` in the record: 2 for the first part, since 1 is the record's own.
COMPONENT: pa.Schema = TABLES["observation"].append(pa.field("concept", pa.int32()))

CONCEPT: pa.Schema = pa.schema(
    [
        pa.field("element", pa.string()),  # condition.code
        pa.field("record", pa.int64()),
        pa.field("ordinal", pa.int32()),  # 1 for the first concept of the element in its record
        pa.field("patient_id", pa.string()),
        pa.field("encounter_id", pa.string()),
        pa.field("site", pa.string()),
        pa.field("at", pa.string()),
        pa.field("text", pa.string()),  # CodeableConcept.text, else the first display
        pa.field("n_codings", pa.int32()),  # codings with a code that is no null token
        pa.field("absent_reason", pa.string()),
    ]
)

CODING: pa.Schema = pa.schema(
    [
        pa.field("element", pa.string()),
        pa.field("record", pa.int64()),
        pa.field("patient_id", pa.string()),
        pa.field("encounter_id", pa.string()),
        pa.field("site", pa.string()),
        pa.field("at", pa.string()),
        pa.field("position", pa.int32()),  # 1 for the first coding of its concept
        pa.field("system", pa.string()),  # as the source wrote it: URI, OID, mnemonic, vocabulary_id
        pa.field("version", pa.string()),
        pa.field("code", pa.string()),
        pa.field("display", pa.string()),
        # with element and record it tells which codings are of one concept; 1 where a record has one
        pa.field("concept", pa.int32(), metadata={"default": "1"}),
    ]
)

#: What a reader noticed about an element that the tables cannot show: ``wrong-type``, ``bad-time``, ``charset``.
DEFECT: pa.Schema = pa.schema(
    [
        pa.field("element", pa.string()),
        pa.field("record", pa.int64()),
        pa.field("patient_id", pa.string()),
        pa.field("kind", pa.string()),
    ]
)

#: Records by the source's own type (resource type, message type, table), mapped or not.
TYPES: pa.Schema = pa.schema([pa.field("format", pa.string()), pa.field("type", pa.string()), pa.field("n", pa.int64())])

#: Records of each file (its number) that are in the tables, as the engine counts them: what the ledger law is held against.
PROFILED: pa.Schema = pa.schema([pa.field("file", pa.int64()), pa.field("n", pa.int64())])

#: Columns of tabular files that no mapping covers: rows, empty cells and null tokens, per column.
COLUMNS: pa.Schema = pa.schema(
    [
        pa.field("table", pa.string()),
        pa.field("column", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("missing", pa.int64()),
        pa.field("null_token", pa.int64()),
    ]
)

#: Every table a reader writes to.
ALL: dict[str, pa.Schema] = {
    **TABLES,
    "component": COMPONENT,
    "concept": CONCEPT,
    "coding": CODING,
    "defect": DEFECT,
    "types": TYPES,
    "profiled": PROFILED,
    "generic_column": COLUMNS,
}

#: Scalar elements that ``present`` measures, and the column each lives in.
SCALARS: dict[str, tuple[str, str]] = {
    f"{table}.{name}": (table, column)
    for table, pairs in {
        "patient": [("birth_date", "birth_date"), ("sex", "sex"), ("id", "id")],
        "encounter": [("at", "at"), ("end", "end"), ("status", "status"), ("patient_id", "patient_id")],
        "condition": [("at", "at"), ("patient_id", "patient_id"), ("encounter_id", "encounter_id")],
        "observation": [
            ("at", "at"),
            ("status", "status"),
            ("patient_id", "patient_id"),
            ("encounter_id", "encounter_id"),
        ],
        "medication": [("at", "at"), ("status", "status"), ("patient_id", "patient_id")],
        "procedure": [("at", "at"), ("status", "status"), ("patient_id", "patient_id")],
        "immunization": [("at", "at"), ("status", "status"), ("patient_id", "patient_id")],
        "allergy": [("patient_id", "patient_id")],
        "report": [("at", "at"), ("status", "status"), ("patient_id", "patient_id")],
        "document": [("at", "at"), ("status", "status"), ("patient_id", "patient_id")],
    }.items()
    for name, column in pairs
}

#: Elements whose state takes more than one column: measured by their own SQL in ehrready.measure.
DERIVED: tuple[str, ...] = ("observation.value", "observation.unit")

#: Elements that parts of a record have, too (the table ``component``): they may be counted more often than there are records.
PARTED: tuple[str, ...] = (*DERIVED, "observation.code")

#: Coded elements, in canonical order.
CODED: tuple[str, ...] = (
    "patient.race",
    "patient.ethnicity",
    "patient.language",
    "encounter.class",
    "encounter.type",
    "condition.code",
    "condition.category",
    "condition.clinical_status",
    "condition.verification_status",
    "observation.code",
    "observation.category",
    "observation.interpretation",
    "observation.value_code",
    "observation.component",
    "medication.code",
    "procedure.code",
    "immunization.code",
    "allergy.code",
    "report.code",
    "report.category",
    "document.type",
)

#: Elements that only relations are measured of: identity, links and administrative codes.
RELATED: tuple[str, ...] = (
    *(f"{table}.id" for table in TABLES),
    *(f"{table}.encounter_id" for table in TABLES if table not in {"patient", "encounter"}),
    "patient.deceased",
)

#: What a model gives, where its predictions are read (ehrready.readers.predictions): no table of the record.
PREDICTED: tuple[str, ...] = ("prediction.output", "prediction.score", "prediction.label", "prediction.citation")

#: All element names a rule may be about.
ELEMENTS: tuple[str, ...] = tuple(sorted({*SCALARS, *DERIVED, *CODED, *RELATED, *PREDICTED}))


def table_of(element: str) -> str:
    """Return the canonical table of an element name (``condition`` for ``condition.code``)."""
    return element.partition(".")[0]


def ddl(name: str) -> str:
    """Return the ``CREATE TABLE`` statement of a canonical table in DuckDB's dialect."""
    types = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.int32(): "INTEGER", pa.float64(): "DOUBLE"}
    columns = ", ".join(
        f'"{field.name}" {types[field.type]}' + (f" DEFAULT {field.metadata[b'default'].decode()}" if field.metadata else "")
        for field in ALL[name]
    )
    return f'CREATE TABLE "{name}" ({columns})'
