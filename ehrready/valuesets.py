"""Value sets of administrative codes: FHIR R4 to R5 required bindings, and the HL7v2 tables behind them.

Readers translate HL7v2 codes into FHIR's where the two correspond (mappings/hl7v2.yaml); a code that stays as it was is
right when its own table has it.  OMOP's sexes arrive as FHIR's.
"""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EVENT = "preparation in-progress not-done on-hold stopped completed entered-in-error unknown"
_RESULT_0085 = _set("A B C D F I N O P R S U V W X")
_RESULT_0123 = _set("A C F I K M N O P R S X Y Z")
_ORDER_0038 = _set("A CA CM DC ER HD IP RP SC")

#: Element to the codes that it may hold: ``fhir`` in lower case, ``hl7v2`` in upper case as in its table.
VALUE_SETS: dict[str, dict[str, frozenset[str]]] = {
    # administrative-gender; HL7 table 0001
    "patient.sex": {"fhir": _set("male female other unknown"), "hl7v2": _set("F M O U A N C X")},
    "patient.deceased": {"fhir": _set("true false"), "hl7v2": _set("Y N")},
    # encounter-status R4, R4B and R5
    "encounter.status": {
        "fhir": _set(
            "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown on-hold discharged completed discontinued"
        )
    },
    # observation-status; HL7 table 0085
    "observation.status": {
        "fhir": _set(
            "registered preliminary final amended corrected appended cancelled entered-in-error unknown specimen-in-process cannot-be-obtained"
        ),
        "hl7v2": _RESULT_0085,
    },
    # medicationrequest-, medication-statement-, medication-admin- and medicationdispense-status; HL7 tables 0038 and 0322
    "medication.status": {
        "fhir": _set(
            f"active on-hold ended stopped completed cancelled entered-in-error draft unknown intended not-taken recorded {_EVENT} declined"
        ),
        "hl7v2": _ORDER_0038 | _set("CP RE NA PA"),
    },
    "procedure.status": {"fhir": _set(_EVENT)},
    "immunization.status": {"fhir": _set("completed entered-in-error not-done"), "hl7v2": _set("CP RE NA PA")},
    # diagnostic-report-status; HL7 table 0123
    "report.status": {
        "fhir": _set("registered partial preliminary modified final amended corrected appended cancelled entered-in-error unknown"),
        "hl7v2": _RESULT_0123,
    },
    # document-reference-status; HL7 table 0271
    "document.status": {"fhir": _set("current superseded entered-in-error"), "hl7v2": _set("DI DO IP IN PA AU LA")},
}
