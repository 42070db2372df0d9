"""Write the project's tables of code systems: ``ehrready/terminology/data/*.csv``.

``code_systems.csv`` comes from the facts below.  Canonical URIs and OIDs are those of HL7 Terminology (THO,
CC0), of FHIR R4's "Using Codes" pages and of the systems' publishers; mnemonics are HL7 v2 table 0396 and the
spellings that real feeds carry; OMOP names are `vocabulary_id`s of the OHDSI vocabularies.

``tho_code_systems.csv`` lists the code systems that HL7 itself owns (v2 tables, v3, THO).  It is made from a
checkout of the UTG repository, only when one is named:

    python scripts/make_code_systems.py [--utg CHECKOUT]
"""
# ruff: noqa: E501, ISC004 - the tables of facts read better with few, long lines; a test checks the columns

from __future__ import annotations

import argparse
import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "ehrready" / "terminology" / "data"
THO = "http://terminology.hl7.org/CodeSystem/"
HL7 = "2.16.840.1.113883."
COLUMNS = (
    "key", "name", "canonical_uri", "uri_aliases", "oid", "oid_aliases",
    "v2_mnemonics", "v2_aliases", "omop_vocabulary_ids", "public", "flavour_group",
)

# One clinical or administrative system each: key, name, canonical URI, other URIs, OID, other OIDs, table 0396
# mnemonics, spellings seen in the wild, OMOP vocabulary_ids, group of flavours.  `|` separates values.
_Row = tuple[str, str, str, str, str, str, str, str, str, str]
CLINICAL: tuple[_Row, ...] = (
    ("icd9cm", "ICD-9-CM diagnoses", "http://hl7.org/fhir/sid/icd-9-cm",
     f"http://hl7.org/fhir/sid/icd-9-cm/diagnosis|http://hl7.org/fhir/sid/icd-9|{THO}icd9cm",
     HL7 + "6.103", HL7 + "6.2", "I9CDX", "ICD9CM|I9CM|I9M|ICD9DX", "ICD9CM", "icd9"),
    ("icd9pcs", "ICD-9-CM procedures", "", "http://hl7.org/fhir/sid/icd-9-cm/procedure",
     HL7 + "6.104", "", "I9CP", "ICD9PCS|ICD9PROC|ICD9P", "ICD9Proc|ICD9ProcCN", "icd9"),
    ("icd9who", "ICD-9 (WHO)", "", f"{THO}icd9", HL7 + "6.42", "", "", "", "", "icd9"),
    ("icd10cm", "ICD-10-CM", "http://hl7.org/fhir/sid/icd-10-cm",
     f"{THO}icd10CM|http://hl7.org/fhir/sid/icd-10-us|https://www.cdc.gov/nchs/icd/icd-10-cm",
     HL7 + "6.90", "", "I10C", "ICD10CM|I10CM|ICD10DX", "ICD10CM", "icd10"),
    ("icd10pcs", "ICD-10-PCS", "http://www.cms.gov/Medicare/Coding/ICD10",
     f"{THO}icd10PCS|http://hl7.org/fhir/sid/icd-10-pcs", HL7 + "6.4", "", "I10P", "ICD10PCS|ICD10P",
     "ICD10PCS", "icd10pcs"),
    ("icd10", "ICD-10 (WHO)", "http://hl7.org/fhir/sid/icd-10", f"{THO}icd10|{THO}icd10ae",
     HL7 + "6.3", HL7 + "6.3.1", "", "ICD10WHO", "ICD10", "icd10"),
    ("icd10gm", "ICD-10-GM", "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
     "http://fhir.de/CodeSystem/dimdi/icd-10-gm", "", "",
     "I10G2004|I10G2005|I10G2006|" + "|".join(f"ICD10GM{y}" for y in range(2007, 2017)), "ICD10GM|I10G",
     "ICD10GM", "icd10"),
    ("icd10ca", "ICD-10-CA", "http://hl7.org/fhir/sid/icd-10-ca", "", HL7 + "6.94", "", "ICD10CA", "", "",
     "icd10"),
    ("icd10am", "ICD-10-AM", "http://hl7.org/fhir/sid/icd-10-am", "", HL7 + "6.135", "", "ICD10AM", "", "",
     "icd10"),
    ("icd10nl", "ICD-10 (Dutch)", "http://hl7.org/fhir/sid/icd-10-nl", f"{THO}ICD10dut", HL7 + "6.3.2", "", "",
     "", "", "icd10"),
    ("icd10cn", "ICD-10-CN", "", "", "", "", "", "", "ICD10CN", "icd10"),
    ("cim10", "CIM-10 (French ICD-10)", "", "", "", "", "", "", "CIM10", "icd10"),
    ("kcd7", "KCD-7 (Korean ICD-10)", "", "", "", "", "", "", "KCD7", "icd10"),
    ("icd11", "ICD-11 MMS", "http://id.who.int/icd/release/11/mms", "http://id.who.int/icd11/mms", "", "", "",
     "I11|ICD11", "", "icd11"),
    ("icdo3", "ICD-O-3", f"{THO}icd-o-3", f"{THO}icd-o|http://hl7.org/fhir/sid/icd-o-3", HL7 + "6.43.1",
     HL7 + "6.43", "ICDO3", "ICDO|ICDO2", "ICDO3", "icdo"),
    ("icf", "ICF", "http://hl7.org/fhir/sid/icf", "http://hl7.org/fhir/sid/icf-nl", HL7 + "6.254", "", "ICF", "",
     "", "icf"),
    ("loinc", "LOINC", "http://loinc.org", "http://www.loinc.org", HL7 + "6.1", "", "LN", "LOINC|LNC", "LOINC",
     "loinc"),
    ("snomed", "SNOMED CT", "http://snomed.info/sct", "http://ihtsdo.org/snomed-ct",
     HL7 + "6.96", "", "SCT", "SNOMED|SNOMEDCT|SNM-CT|SCT2|SNOMED_CT", "SNOMED|SNOMED Veterinary|Nebraska Lexicon",
     "snomed"),
    ("snomed_rt", "SNOMED RT and earlier", "http://snomed.info/srt", f"{THO}SNM3|{THO}snm", HL7 + "6.51",
     f"{HL7}6.5|{HL7}6.52", "SNM3|SNM|SNT", "SRT|SNOMED-RT|SNMD", "", "snomed_rt"),
    ("rxnorm", "RxNorm", "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/rxnorm",
     HL7 + "6.88", "", "RXNORM", "RXN|RXCUI", "RxNorm", "rxnorm"),
    ("rxnorm_ext", "RxNorm Extension (OHDSI)", "", "", "", "", "", "", "RxNorm Extension", "rxnorm"),
    ("ndc", "NDC", "http://hl7.org/fhir/sid/ndc", "", HL7 + "6.69", "", "NDC", "NDC11|NDC10|NDC9", "NDC", "ndc"),
    ("cvx", "CVX vaccines", "http://hl7.org/fhir/sid/cvx", f"{THO}CVX|{THO}v2-0292", HL7 + "12.292",
     HL7 + "6.59", "CVX", "HL70292", "CVX", "cvx"),
    ("mvx", "MVX vaccine makers", "http://hl7.org/fhir/sid/mvx", f"{THO}MVX|{THO}v2-0227", HL7 + "12.227",
     HL7 + "6.60", "MVX", "HL70227", "", "mvx"),
    ("cpt", "CPT", "http://www.ama-assn.org/go/cpt", f"{THO}C4|{THO}C5", HL7 + "6.12", HL7 + "6.82", "C4|C5",
     "CPT|CPT4|CPT5", "CPT4", "hcpcs"),
    ("hcpcs", "HCPCS Level II", "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
     f"{THO}HCPCS-all-codes|{THO}HCPCS|http://hl7.org/fhir/sid/hcpcs", HL7 + "6.285", HL7 + "6.14", "HCPCS|HPC",
     "HCPCSII", "HCPCS", "hcpcs"),
    ("cdt", "CDT (dental)", "http://www.ada.org/cdt", f"{THO}CD2", HL7 + "6.13", "", "CD2", "", "CDT", "hcpcs"),
    ("ucum", "UCUM", "http://unitsofmeasure.org", "http://www.unitsofmeasure.org", HL7 + "6.8", "", "UCUM", "",
     "UCUM", "ucum"),
    ("atc", "ATC (WHO)", "http://www.whocc.no/atc", "http://fhir.de/CodeSystem/bfarm/atc|"
     "http://fhir.de/CodeSystem/dimdi/atc|https://www.whocc.no/atc_ddd_index", HL7 + "6.73", "", "WC", "WHOATC",
     "ATC", "atc"),
    ("meddra", "MedDRA", "https://www.meddra.org", f"{THO}mdr|{THO}MDRGER", HL7 + "6.163", HL7 + "6.163.4",
     "MEDR", "MDR|MEDDRA", "MedDRA|SMQ", "meddra"),
    ("ndfrt", "NDF-RT", "http://hl7.org/fhir/ndfrt", f"{THO}nciVersionOfNDF-RT", HL7 + "6.209", HL7 + "3.26.1.5",
     "NDFRT", "NDF-RT", "NDFRT", "ndfrt"),
    ("medrt", "MED-RT", "http://va.gov/terminology/medrt", "http://www.nlm.nih.gov/research/umls/MED-RT",
     HL7 + "6.345", "", "", "MED-RT", "MEDRT", "ndfrt"),
    ("unii", "UNII", "http://fdasis.nlm.nih.gov", "", HL7 + "4.9", "", "FDAUNII", "UNII", "", "unii"),
    ("vandf", "VANDF", "http://hl7.org/fhir/sid/vandf", f"{THO}VANDF", HL7 + "6.233", "", "", "VANDF",
     "VA Product|VA Class|VANDF", "vandf"),
    ("cdcrec", "CDC race and ethnicity", f"urn:oid:{HL7}6.238", f"{THO}PHRaceAndEthnicityCDC|{THO}v2-0005|"
     "http://hl7.org/fhir/v2/0005", HL7 + "6.238", HL7 + "12.5", "CDCREC", "HL70005", "", "cdcrec"),
    ("nucc", "NUCC provider taxonomy", "http://nucc.org/provider-taxonomy",
     f"{THO}v3-nuccProviderCodes|{THO}v3-HealthcareProviderTaxonomyHIPAA", HL7 + "6.101", HL7 + "5.53", "HCPT",
     "NUCC", "NUCC", "nucc"),
    ("nubc_rev", "NUBC revenue codes", "https://www.nubc.org/CodeSystem/RevenueCodes", f"{THO}v2-0456",
     HL7 + "6.301.3", HL7 + "12.456", "UB04FL42", "HL70456", "Revenue Code", "nubc_rev"),
    ("msdrg", "MS-DRG", "https://www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/AcuteInpatientPPS/"
     "MS-DRG-Classifications-and-Software", "", "", "", "", "DRG|MSDRG|MS-DRG", "DRG", "drg"),
    ("sopt", "Source of payment typology", "https://nahdo.org/sopt", f"urn:oid:{HL7}3.221.5", HL7 + "3.221.5", "",
     "PHDSCSOPT", "SOPT", "SOPT|PHDSC", "sopt"),
    ("icpc2", "ICPC-2", "http://hl7.org/fhir/sid/icpc-2", f"http://hl7.org/fhir/sid/icpc-1|{THO}icpc",
     HL7 + "6.139", HL7 + "6.138", "IC2", "ICPC2|ICPC-2", "", "icpc"),
    ("opcs4", "OPCS-4", "https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "https://fhir.nhs.uk/Id/opcs-4", "", "", "",
     "OPCS4", "OPCS4", "opcs4"),
    ("read", "Read codes", "http://read.info/readv2", f"http://read.info/ctv3|{THO}read-Codes", HL7 + "6.6",
     f"{HL7}6.29|{HL7}6.28", "RC", "RCV2|RCFB|READ", "Read", "read"),
    ("dmd", "dm+d", "https://dmd.nhs.uk", "http://dmd.nhs.uk", HL7 + "2.1.6.15", "", "", "DM+D", "dm+d", "snomed"),
    ("mesh", "MeSH", "https://www.nlm.nih.gov/mesh", f"{THO}MSH|http://id.nlm.nih.gov/mesh", HL7 + "6.177", "", "",
     "MSH|MESH", "MeSH", "mesh"),
    ("nci", "NCI Thesaurus", "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
     "http://ncithesaurus-stage.nci.nih.gov", HL7 + "3.26.1.1", "", "NCIT", "NCI", "NCIt", "nci"),
    ("umls", "UMLS", f"{THO}umls", "http://www.nlm.nih.gov/research/umls", HL7 + "6.86", "", "UML", "UMLS|CUI", "",
     "umls"),
    ("hpo", "Human Phenotype Ontology", "http://human-phenotype-ontology.org",
     "http://purl.obolibrary.org/obo/hp.owl", HL7 + "6.339", "", "", "HPO|HP", "", "hpo"),
    ("bcp47", "BCP 47 language tags", "urn:ietf:bcp:47", f"{THO}ietf3066|http://tools.ietf.org/html/bcp47",
     HL7 + "6.121", "", "", "BCP47", "", "language"),
    ("iso639", "ISO 639 languages", "http://id.loc.gov/vocabulary/iso639-1",
     f"http://id.loc.gov/vocabulary/iso639-2|{THO}iso639-1|{THO}iso639-2|{THO}iso639-3|urn:iso:std:iso:639",
     "1.0.639.1", f"1.0.639.2|1.0.639.3|{HL7}6.99|{HL7}6.100", "ISO639", "ISO6391|ISO6392|HL70296", "Language",
     "language"),
    ("iso3166", "ISO 3166 countries", "urn:iso:std:iso:3166", f"{THO}v3-iso3166-1|urn:iso:std:iso:3166:-1|"
     f"{THO}iso3166-1edition2alpha2|{THO}iso3166-1edition2alpha3", "1.0.3166.1",
     "1.0.3166.1.2|1.0.3166.1.2.1|1.0.3166.1.2.2|1.0.3166.1.2.3|2.16.1", "ISO3166_1", "ISO3166", "", "country"),
    ("iso3166_2", "ISO 3166-2 subdivisions", "urn:iso:std:iso:3166:-2", f"{THO}iso3166-2", "1.0.3166.2", "2.16.2",
     "ISO3166_2", "", "", "country"),
    ("iso4217", "ISO 4217 currencies", "urn:iso:std:iso:4217", f"{THO}iso4217|{THO}v3-iso4217-HL7", "1.0.4217",
     HL7 + "6.9", "ISO4217", "", "Currency", "currency"),
    ("omop", "OMOP concept_id", "https://fhir-terminology.ohdsi.org", "", "", "", "", "OMOP", "", "omop"),
)

# Recognised, but read as plain tokens: key, name, URI(s, the first canonical), OID(s), mnemonics (0396 or the
# wild), OMOP vocabulary_ids.
MINOR: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("dcm", "DICOM controlled terminology", "http://dicom.nema.org/resources/ontology/DCM|"
     "http://dicom.nema.org/medical/dicom", "1.2.840.10008.2.16.4", "DCM", ""),
    ("dicom_uid", "DICOM UIDs", "http://dicom.nema.org/resources/ontology/DCMUID", "1.2.840.10008.2.6.1", "DCL", ""),
    ("mdc", "ISO/IEEE 11073 devices", "urn:iso:std:iso:11073:10101", HL7 + "6.24", "MDC", ""),
    ("hgnc", "HGNC genes", "http://www.genenames.org/geneId|http://www.genenames.org", HL7 + "6.281",
     "HGNC-Symb|HGNC", ""),
    ("hgvs", "HGVS", "http://varnomen.hgvs.org", HL7 + "6.282", "HGVS.c|HGVS.g|HGVS.p", ""),
    ("clinvar", "ClinVar", "http://www.ncbi.nlm.nih.gov/clinvar", HL7 + "6.319", "CLINVAR-V", "ClinVar"),
    ("dbsnp", "dbSNP", "http://www.ncbi.nlm.nih.gov/projects/SNP", HL7 + "6.284", "", ""),
    ("refseq", "NCBI RefSeq", "http://www.ncbi.nlm.nih.gov/refseq", HL7 + "6.280",
     "refSeq-G|RefSeq-P|refSeq-T|LRG-RefSeq", ""),
    ("ensembl", "Ensembl", "http://www.ensembl.org", "", "ensembl-G|Ensembl-P|ensembl-T", ""),
    ("cosmic", "COSMIC", "http://cancer.sanger.ac.uk/cancergenome/projects/cosmic", "",
     "COSMIC-Smpl|COSMIC-Strc", ""),
    ("iscn", "ISCN", "https://iscn.karger.com", HL7 + "6.299", "ISCN", ""),
    ("medgen", "MedGen", "https://www.ncbi.nlm.nih.gov/medgen", "", "Medgen-Dis", ""),
    ("orphanet", "Orphanet", "https://www.orpha.net|http://www.orpha.net", "1.3.6.1.4.1.12559.11.10.1.3.1.44.5",
     "", ""),
    ("mime", "MIME media types", "http://www.iana.org/assignments/media-types|urn:ietf:bcp:13", HL7 + "6.10",
     "MEDIATYPE", ""),
    ("m49", "UN M49 areas", "http://unstats.un.org/unsd/methods/m49/m49.htm", "", "", ""),
    ("usps", "USPS states", "https://www.usps.com", HL7 + "6.350", "USPS", ""),
    ("fips5", "FIPS 5-2 states", f"{THO}FIPS52", HL7 + "6.92", "FIPS5_2", ""),
    ("fips6", "FIPS 6-4 counties", f"{THO}FIPS64", HL7 + "6.93", "FIPS6_4", ""),
    ("fips55", "FIPS 55-3 places", "", "", "FIPS55_3", ""),
    ("naics", "NAICS industries", f"{THO}naics", HL7 + "6.85", "NAICS", ""),
    ("sic", "SIC industries", "", "", "SIC", ""),
    ("soc", "SOC occupations", f"{THO}soc", HL7 + "6.243", "SOC", ""),
    ("cdcodh", "Occupational Data for Health", f"{THO}PHOccupationalDataForHealthODH",
     "2.16.840.1.114222.4.5.327", "CDCODH", ""),
    ("cdc_industry", "CDC census industry", "", "", "CDCINDUSTRY2010", ""),
    ("cdc_occupation", "CDC census occupation", "", "", "CDCOCCUPATION2010", ""),
    ("phinvads", "CDC PHIN vocabulary", "https://phinvads.cdc.gov/vads/ViewCodeSystem.action?"
     "id=2.16.840.1.114222.4.5.274", "2.16.840.1.114222.4.5.274", "CDCPHINVS", ""),
    ("phin_question", "CDC PHIN questions", "", "2.16.840.1.114222.4.5.232", "PHINQUESTION", ""),
    ("nnd", "CDC notifiable events", "", "2.16.840.1.114222.4.5.277", "NND", ""),
    ("phlip_test", "CDC PHLIP lab tests", "", "", "PLT", ""),
    ("phlip_result", "CDC PHLIP lab results", "", "", "PLR", ""),
    ("cdcobs", "CDC BioSense observations", "", "", "CDCOBS", ""),
    ("cdc_ed_acuity", "CDC ED acuity", "", "", "CDCEDACUITY", ""),
    ("cdcnhsn", "CDC NHSN", "https://www.cdc.gov/nhsn/cdaportal/terminology/codesystem/cdcnhsn.html|"
     f"{THO}cdcNHSN", HL7 + "6.277", "CDCNHSN", ""),
    ("hsloc", "NHSN healthcare service locations", "https://www.cdc.gov/nhsn/cdaportal/terminology/codesystem/"
     f"hsloc.html|{THO}hsloc", HL7 + "6.259", "HSLOC", ""),
    ("vis", "CDC vaccine information statements", "https://www.cdc.gov/vaccines/hcp/vis/index.html", "",
     "VIS|cdcgs1vis", ""),
    ("cdc_analyte", "CDC analyte codes", f"{THO}CDCA", HL7 + "6.57", "CDCA", ""),
    ("cdc_method", "CDC method codes", f"{THO}CDCM", HL7 + "6.58", "CDCM", ""),
    ("cdc_surveillance", "CDC surveillance codes", f"{THO}CDS", HL7 + "6.79", "CDS", ""),
    ("nubc_discharge", "NUBC discharge status", "https://www.nubc.org/CodeSystem/PatDischargeStatus|"
     "http://www.nubc.org/patient-discharge", HL7 + "6.301.5", "UB04FL17", "UB04 Pt dis status"),
    ("nubc_origin", "NUBC point of origin", "https://www.nubc.org/CodeSystem/PointOfOrigin", "", "UB04FL15",
     "UB04 Point of Origin"),
    ("nubc_admit_type", "NUBC type of admission", "https://www.nubc.org/CodeSystem/PriorityTypeOfAdmitOrVisit", "",
     "UB04FL14", "UB04 Pri Typ of Adm"),
    ("nubc_bill", "NUBC type of bill", "https://www.nubc.org/CodeSystem/TypeOfBill", "", "", "UB04 Typ bill"),
    ("nubc_poa", "Present on admission", "https://www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/"
     "HospitalAcqCond/Coding|https://www.nubc.org/CodeSystem/PresentOnAdmissionIndicator", HL7 + "6.301.11",
     "UB04FL67", ""),
    ("nubc_occurrence", "NUBC occurrence codes", "", HL7 + "6.301.7", "UB04FL31", ""),
    ("nubc_span", "NUBC occurrence spans", "", HL7 + "6.301.8", "UB04FL35", ""),
    ("nubc_value", "NUBC value codes", "https://www.nubc.org/CodeSystem/ValueCodesAndAmounts", HL7 + "6.301.6",
     "UB04FL39", ""),
    ("nubc", "NUBC codes", "", HL7 + "6.301", "NUBC", ""),
    ("place_of_service", "CMS place of service", "https://www.cms.gov/Medicare/Coding/place-of-service-codes/"
     f"Place_of_Service_Code_Set|{THO}POS", f"{HL7}15.5|{HL7}6.50", "POS", "CMS Place of Service|Place of Service"),
    ("cms_hcc", "CMS-HCC", f"{THO}cmshcc", HL7 + "6.349", "CMSHCC", ""),
    ("hipps", "HIPPS", "https://www.cms.gov/Medicare/Medicare-Fee-for-Service-Payment/ProspMedicareFeeSvcPmtGen/"
     "HIPPSCodes", "", "", ""),
    ("apc", "CMS APC", "", "", "APC", "APC"),
    ("aprdrg", "APR-DRG", "http://uri.hddaccess.com/cs/aprdrg", "", "APRDRG|APR-DRG", ""),
    ("x12", "ASC X12 code lists", "https://codesystem.x12.org|https://x12.org/codes/claim-adjustment-reason-codes|"
     "https://x12.org/codes/service-type-codes|https://x12.org/codes/remittance-advice-remark-codes|"
     "https://codesystem.x12.org/005010/98", HL7 + "6.255", "", ""),
    ("ihe_format", "IHE format codes", "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode|"
     "http://ihe.net/fhir/ValueSet/IHE.FormatCode.codesystem", "1.3.6.1.4.1.19376.1.2.3", "", ""),
    ("ihe_law", "IHE laboratory workflow", "", "", "IHELAW", ""),
    ("iso2955", "ISO 2955 units", "", "", "ISO|ISO+|ANS+", ""),
    ("isbt128", "ISBT 128", "https://www.isbt128.org/uri", f"{HL7}6.18|{HL7}6.18.2.6", "IBT|IBT0001", ""),
    ("cas", "CAS registry", f"{THO}CAS|http://www.cas.org", HL7 + "6.61", "CAS", ""),
    ("gtin", "GS1 GTIN", "https://www.gs1.org/gtin|urn:oid:2.51.1.1", "2.51.1.1", "GS1UDI|UPC", ""),
    ("pzn", "PZN (German medicines)", "http://fhir.de/CodeSystem/ifa/pzn", "1.2.276.0.76.4.6", "PZN", ""),
    ("ask", "ASK (German substances)", "http://fhir.de/CodeSystem/ask", "", "", ""),
    ("ops", "OPS (German procedures)", "http://fhir.de/CodeSystem/bfarm/ops|http://fhir.de/CodeSystem/dimdi/ops",
     "", "O301|O3012004|O3012005|O3012006|" + "|".join(f"OPS{y}" for y in range(2007, 2017)), "OPS"),
    ("alphaid", "Alpha-ID (German diagnoses)", "http://fhir.de/CodeSystem/bfarm/alpha-id", "",
     "|".join(f"ALPHAID{y}" for y in range(2006, 2017)), ""),
    ("gdrg", "G-DRG", "", "", "|".join(f"GDRG{y}" for y in range(2004, 2010)), ""),
    ("cci", "CCI (Canadian procedures)", "http://cihi.ca/fhir/CodeSystem/cihi-cci", HL7 + "6.95", "", ""),
    ("ccam", "CCAM (French procedures)", "", "", "", "CCAM"),
    ("edi", "EDI (Korean procedures)", "", "", "", "EDI"),
    ("amt", "Australian Medicines Terminology", "", "", "AMTv2", "AMT"),
    ("atcc", "American Type Culture Collection", "", "", "ATC", ""),
    ("cap_ecc", "CAP electronic cancer checklists", "http://cap.org/eCC", "", "CAPECC", ""),
    ("ccc", "Clinical Care Classification", f"{THO}CCC", HL7 + "6.236", "CCC", ""),
    ("nanda", "NANDA-I", f"{THO}nanda|http://www.nanda.org", HL7 + "6.20", "NDA", ""),
    ("nic", "Nursing Interventions Classification", f"{THO}nic", HL7 + "6.15", "NIC", ""),
    ("omaha", "Omaha System", f"{THO}oms", HL7 + "6.98", "OHA", ""),
    ("gpi", "Medi-Span GPI", f"{THO}MGPI", HL7 + "6.68", "MGPI|GPI", "GPI"),
    ("medispan_dx", "Medi-Span diagnoses", "", "", "MDDX", ""),
    ("fdb_drug", "First Databank drugs", f"{THO}FDDC", HL7 + "6.64", "FDDC", ""),
    ("fdb_dx", "First Databank diagnoses", f"{THO}FDDX", HL7 + "6.63", "FDDX", "Indication"),
    ("gcn", "First Databank GCN_SEQNO", "", "", "GCN", "GCN_SEQNO"),
    ("fdb_etc", "First Databank ETC", "", "", "", "ETC"),
    ("multum", "Multum", f"{THO}multum|http://www.cerner.com/multum", HL7 + "6.27", "MMSL", "Multum"),
    ("w_drug", "WHO drug record", "", "", "W1|W2|W4", ""),
    ("costart", "COSTART", f"{THO}CST", HL7 + "6.62", "CST", ""),
    ("who_art", "WHO-ART", f"{THO}art", HL7 + "6.74", "ART", ""),
    ("acr", "ACR findings", f"{THO}ACR", HL7 + "6.76", "ACR", ""),
    ("as4", "ASTM E1238/E1467", f"{THO}AS4|{THO}AS4E", f"{HL7}6.30|{HL7}6.78", "AS4|AS4E", ""),
    ("euclides", "EUCLIDES", f"{THO}euclides|{THO}E5|{THO}E6|{THO}E7",
     f"{HL7}6.34|{HL7}6.35|{HL7}6.36|{HL7}6.37", "E|E5|E6|E7", ""),
    ("iupac_component", "IUPAC/IFCC components", f"{THO}IUPC", HL7 + "6.47", "IUPC", ""),
    ("iupac_property", "IUPAC/IFCC properties", f"{THO}IUPP", HL7 + "6.46", "IUPP", ""),
    ("jlac10", "JLAC10 (Japanese laboratory)", "", "", "JC10|JC8", ""),
    ("hot", "HOT (Japanese medicines)", "", "", "HOT", ""),
    ("jj1017", "JJ1017 (Japanese imaging)", "", "", "JJ1017", ""),
    ("icsd", "ICSD sleep disorders", "", "", "ICSD", ""),
    ("nip", "CDC immunisation tables", "", "",
     "NIP001|NIP002|NIP004|NIP007|NIP008|NIP009|NIP010", ""),
    ("ciel", "CIEL", "http://openconceptlab.org/orgs/CIEL/sources/CIEL", "", "", "CIEL"),
    ("hemonc", "HemOnc", "", "", "", "HemOnc"),
    ("naaccr", "NAACCR", "", "", "", "NAACCR"),
    ("oncotree", "OncoTree", "", "", "", "OncoTree"),
    ("ephmra", "EphMRA ATC", "", "", "", "EphMRA ATC"),
    ("nfc", "EphMRA NFC", "", "", "", "NFC"),
    ("spl", "FDA SPL", "", "", "", "SPL"),
    ("gemscript", "Gemscript", "", "", "", "Gemscript"),
    ("multilex", "Multilex", "", "", "", "Multilex"),
    ("oxmis", "OXMIS", "", "", "", "OXMIS"),
    ("bdpm", "BDPM", "", "", "", "BDPM"),
    ("dpd", "Health Canada DPD", "http://hl7.org/fhir/NamingSystem/ca-hc-din", HL7 + "5.1105", "", "DPD"),
    ("abms", "ABMS specialties", "", "", "", "ABMS"),
    ("cms_specialty", "Medicare specialties", "", "", "", "Medicare Specialty|Specialty"),
    ("hes_specialty", "NHS specialties", "", "", "", "HES Specialty"),
    ("pcornet", "PCORnet", "", "", "", "PCORNet"),
    ("ppi", "All of Us PPI", "", "", "", "PPI"),
    ("us_census", "US Census regions", "", "", "", "US Census"),
)

# Systems of person or device identifiers: recognised by name, but their "codes" single somebody out.
IDENTIFIERS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("npi", "National Provider Identifier", "http://hl7.org/fhir/sid/us-npi", HL7 + "4.6", "NPI", ""),
    ("upin", "UPIN", "", HL7 + "4.8", "UPIN", ""),
    ("udi", "Unique device identifiers", "http://hl7.org/fhir/NamingSystem/fda-udi", HL7 + "3.3719",
     "FDAUDI|HIBUDI|ICCUDI", ""),
    ("uri", "URIs and UUIDs", "urn:ietf:rfc:3986", "", "", ""),
    ("ssn", "US social security number", "http://hl7.org/fhir/sid/us-ssn", HL7 + "4.1", "SS", ""),
)

# OMOP's own vocabularies: concepts that OHDSI made, with ids that no other system has.
OMOP_OWN = (
    "Gender", "Race", "Ethnicity", "Visit", "Visit Type", "Type Concept", "Condition Type", "Drug Type",
    "Procedure Type", "Observation Type", "Death Type", "Device Type", "Meas Type", "Measurement Type", "Note Type",
    "Obs Period Type", "Specimen Type", "Cost", "Cost Type", "Cohort", "Cohort Type", "Concept Class", "Condition Status",
    "Domain", "Episode", "Episode Type", "Metadata", "OMOP Extension", "OMOP Genomic", "OMOP Invest Drug", "Plan",
    "Plan Stop Reason", "Relationship", "Sponsor", "Supplier", "Vocabulary", "CDM", "Cancer Modifier", "Provider",
)

# Code systems of FHIR itself (canonical http://hl7.org/fhir/<tail>) that turn up in coded elements.
FHIR_CORE = (
    "administrative-gender", "allergy-intolerance-category", "allergy-intolerance-criticality",
    "allergy-intolerance-type", "appointmentstatus", "bundle-type", "care-plan-activity-status", "composition-status",
    "concept-map-relationship", "contact-point-system", "contact-point-use", "contract-asset-type",
    "contract-legalstate", "contract-security-classification", "days-of-week", "device-status", "diagnostic-report-status",
    "document-reference-status", "encounter-location-status", "encounter-state", "encounter-status", "episode-of-care-status",
    "event-status", "explanationofbenefit-status", "eligibilityrequest-purpose", "encounter-class", "event-timing",
    "flag-status", "fm-status", "goal-status", "group-type", "identifier-use", "imagingstudy-status", "immunization-status",
    "issue-severity", "issue-type", "item-type", "link-type", "list-mode", "list-status", "location-mode", "location-status",
    "marital-status", "medication-statement-status", "medicationrequest-intent", "medicationrequest-status", "name-use",
    "narrative-status", "observation-status", "payeetype", "procedure-status", "questionnaire-answers-status",
    "questionnaire-item-control", "reaction-event-severity", "request-intent", "request-priority", "request-status",
    "resource-types", "slotstatus", "specimen-status", "substance-status", "supplydelivery-status",
    "supplyrequest-status", "task-intent", "task-status", "timing-abbreviation", "version-algorithm", "vision-eye-codes",
)

# Code systems of HL7's implementation guides, by the guide's path under http://hl7.org/fhir/.
GUIDES = {
    "us/core/CodeSystem/": (
        "us-core-category", "us-core-tags", "us-core-documentreference-category",
        "us-core-provenance-participant-type", "condition-category", "careplan-category",
    ),
    "us/carin-bb/CodeSystem/": (
        "C4BBIdentifierType", "C4BBAdjudication", "C4BBAdjudicationDiscriminator", "C4BBClaimDiagnosisType",
        "C4BBClaimCareTeamRole", "C4BBInstitutionalClaimSubType", "C4BBPayerAdjudicationStatus",
        "C4BBSupportingInfoType", "C4BBRelatedClaimRelationshipCodes", "C4BBClaimProcedureType",
    ),
    "uv/ips/CodeSystem/": ("absent-unknown-uv-ips",),
    "uv/genomics-reporting/CodeSystem/": ("tbd-codes-cs", "genetic-therapeutic-implications-cs"),
}


def code_system_rows() -> list[dict[str, str]]:
    """Return the rows of code_systems.csv, in the order of the literals above."""
    rows = [dict(zip(COLUMNS, (*r[:9], "yes", r[9]), strict=True)) for r in CLINICAL]
    for public, table in (("yes", MINOR), ("no", IDENTIFIERS)):
        for key, name, uris, oids, v2, omop in table:
            uri, _, more_uris = uris.partition("|")
            oid, _, more_oids = oids.partition("|")
            rows.append(dict(zip(COLUMNS, (key, name, uri, more_uris, oid, more_oids, v2, "", omop, public, key),
                                 strict=True)))
    for name in OMOP_OWN:
        key = "omop:" + name.lower().replace(" ", "-")
        rows.append(dict.fromkeys(COLUMNS, "") | {
            "key": key, "name": f"OMOP {name}", "omop_vocabulary_ids": name, "public": "yes", "flavour_group": key})
    guides = [("http://hl7.org/fhir/" + path, tail) for path, tails in GUIDES.items() for tail in tails]
    for base, tail in [("http://hl7.org/fhir/", t) for t in FHIR_CORE] + guides:
        # US Core reuses a THO name for a system of its own; the key then carries the guide.
        key = "hl7:" + (f"us-core-{tail}" if tail in {"condition-category", "careplan-category"} else tail)
        rows.append(dict.fromkeys(COLUMNS, "") | {
            "key": key, "name": f"HL7 {key[4:]}", "canonical_uri": base + tail, "public": "yes", "flavour_group": key})
    rows.append(dict.fromkeys(COLUMNS, "") | {
        "key": "local", "name": "Local codes", "v2_mnemonics": "L", "v2_aliases": "LB|LOCAL", "public": "no",
        "flavour_group": "local"})
    return rows


def tho_rows(checkout: Path) -> list[tuple[str, str]]:
    """Return (tail of the canonical URI, OIDs) of every HL7-owned code system in a UTG checkout."""
    namespace = {"f": "http://hl7.org/fhir"}
    found: dict[str, set[str]] = {}
    for path in sorted((checkout / "input" / "sourceOfTruth").rglob("codeSystems/**/*.xml")):
        root = ET.parse(path).getroot()  # noqa: S314 - see the import
        url = root.find("f:url", namespace)
        if not root.tag.endswith("}CodeSystem") or url is None or not url.get("value", "").startswith(THO):
            continue
        oids = {v.get("value", "").removeprefix("urn:oid:") for v in root.findall("f:identifier/f:value", namespace)}
        tail = url.get("value", "").removeprefix(THO)
        found.setdefault(tail, set()).update(o for o in oids if re.fullmatch(r"[012](\.\d+)+", o))
    return [(tail, "|".join(sorted(oids))) for tail, oids in sorted(found.items())]


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utg", type=Path, help="checkout of HL7's UTG repository")
    utg = parser.parse_args().utg
    DATA.mkdir(exist_ok=True)
    with (DATA / "code_systems.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(code_system_rows())
    if utg is not None:
        with (DATA / "tho_code_systems.csv").open("w", newline="", encoding="utf-8") as out:
            table = csv.writer(out, lineterminator="\n")
            table.writerow(("tail", "oids"))
            table.writerows(tho_rows(utg))


if __name__ == "__main__":
    main()
