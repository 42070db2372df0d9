"""Official release files in their own layouts, tiny and hand-made; wrong ones change nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ehrready.cli import app
from ehrready.errors import UsageError
from ehrready.terminology import rollup
from ehrready.terminology.loaders import LAYOUTS, add
from ehrready.terminology.releases import ReleaseTable, Store

ORDER = (
    "00001 A00     0 Cholera                                                      Cholera\n"
    "00002 A000    1 Cholera due to Vibrio cholerae 01, biovar cholerae           Cholera due to Vibrio cholerae 01, biovar cholerae\n"
    "00003 A009    1 Cholera, unspecified                                         Cholera, unspecified\n"
)
PCS = (
    "00001 001     0 Bypass                                                       Central Nervous System and Cranial Nerves, Bypass\n"
    "00002 0016070 1 Bypass Cerebral Ventricle to Nasopharynx                     Bypass Cerebral Ventricle to Nasopharynx with Autol Sub, Open\n"
)
ADDENDA = (
    "Add:         00004 A0100   1 Typhoid fever, unspecified                                   Typhoid fever, unspecified\n"
    "Delete:      00003 A009    1 Cholera, unspecified                                         Cholera, unspecified\n"
    "Revise from: 00002 A000    1 Cholera due to Vibrio cholerae 01, biovar cholerae           Cholera due to Vibrio cholerae 01, biovar cholerae\n"
    "Revise to:   00002 A000    1 Cholera, classical                                           Cholera, classical\n"
)
ICD9 = "0010  Cholera due to vibrio cholerae\n25000 Diabetes mellitus without mention of complication\nV5861 Long-term (current) use of anticoagulants\nE8120 Other motor vehicle traffic accident\n"
LOINC = (
    '"LOINC_NUM","COMPONENT","PROPERTY","TIME_ASPCT","SYSTEM","STATUS","LONG_COMMON_NAME","SHORTNAME","VersionLastChanged","VersionFirstReleased","EXAMPLE_UCUM_UNITS"\n'
    '"2345-7","Glucose","MCnc","Pt","Ser/Plas","ACTIVE","Glucose [Mass/volume] in Serum or Plasma","Glucose SerPl-mCnc","2.73","1.0","mg/dL"\n'
    '"4548-4","Hemoglobin A1c/Hemoglobin.total","MFr","Pt","Bld","ACTIVE","Hemoglobin A1c, total","HbA1c","2.78","2.75","%"\n'
    '"17856-6","Old ""HbA1c""","MFr","Pt","Bld","DEPRECATED","Old HbA1c","Old","2.76","1.0o","%"\n'
)
MAPTO = '"LOINC","MAP_TO","COMMENT"\n"17856-6","4548-4",""\n'
CONCEPTS = (
    "id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n"
    "44054006\t20020131\t1\t900000000000207008\t900000000000074008\n"
    "59621000\t20020131\t1\t900000000000207008\t900000000000074008\n"
    "59621000\t20240301\t0\t731000124108\t900000000000074008\n"
    "38341003\t20240301\t1\t731000124108\t900000000000074008\n"
)
DESCRIPTIONS = (
    "id\teffectiveTime\tactive\tconceptId\tlanguageCode\ttypeId\tterm\tcaseSignificanceId\tmoduleId\n"
    "1\t20020131\t1\t44054006\ten\t900000000000003001\tType 2 diabetes mellitus (disorder)\t900000000000448009\t900000000000207008\n"
    "2\t20020131\t1\t44054006\ten\t900000000000013009\tNIDDM\t900000000000448009\t900000000000207008\n"
    "2\t20240301\t0\t44054006\ten\t900000000000013009\tNIDDM\t900000000000448009\t900000000000207008\n"
)
ASSOCIATIONS = (
    "id\teffectiveTime\tactive\tmoduleId\trefsetId\treferencedComponentId\ttargetComponentId\n"
    "x\t20240301\t1\t731000124108\t900000000000526001\t59621000\t38341003\n"
)
CONSO = (
    "860975|ENG||||||1|860975|860975||RXNORM|SCD|860975|24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet||N|4096|\n"
    "6809|ENG||||||2|6809|6809||RXNORM|IN|6809|metformin||N|4096|\n"
    "1|ENG||||||3|1|1||MMSL|CD|1|not of RxNorm||N||\n"
)
ARCHIVE = "9|A9|old metformin tablet|2019|2019|2019|99|N|ENG|05012019|9||77|RXNORM|SCD|860975|\n"
CUI = "88|20AA_190501F|20AA_200501F|1|6809|\n"
CVX = "08|Hep B, adolescent or pediatric|hepatitis B vaccine, pediatric||Active|False|2010/05/28\n45|Hep B, unspecified|hepatitis B, unspecified||Inactive|False|2020/01/02\n"
CONCEPT_CSV = (
    "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code\tvalid_start_date\tvalid_end_date\tinvalid_reason\n"
    "1\tGlucose\tMeasurement\tLOINC\tLab Test\tS\t2345-7\t19700101\t20991231\t\n"
    "2\tOld glucose\tMeasurement\tLOINC\tLab Test\t\t17856-6\t19700101\t20230915\tU\n"
)
VOCABULARY_CSV = (
    "vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id\nLOINC\tLOINC\t\tLOINC 2.77\t1\n"
)
RELATIONS_CSV = "concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason\n2\t1\tConcept replaced by\t20230915\t20991231\t\n"


def hcpcs(code: str, ended: str = "") -> str:
    return f"{code}00100{3}{'A long description':<80}{'Short':<28}".ljust(268) + f"{'20200101':<8}{'20200101':<8}{ended:<8}".ljust(52)


FILES: dict[str, dict[str, str]] = {
    "icd10cm": {"icd10cm_order_2024.txt": ORDER},
    "icd10pcs": {"icd10pcs_order_2024.txt": PCS},
    "icd9cm": {"CMS32_DESC_LONG_DX.txt": ICD9},
    "loinc": {"LoincTable/Loinc.csv": LOINC, "LoincTable/MapTo.csv": MAPTO},
    "snomed": {
        "Full/Terminology/sct2_Concept_Full_US1000124_20240301.txt": CONCEPTS,
        "Full/Terminology/sct2_Description_Full-en_US1000124_20240301.txt": DESCRIPTIONS,
        "Full/Refset/Content/der2_cRefset_AssociationFull_US1000124_20240301.txt": ASSOCIATIONS,
    },
    "rxnorm": {"rrf/RXNCONSO.RRF": CONSO, "rrf/RXNATOMARCHIVE.RRF": ARCHIVE, "rrf/RXNCUI.RRF": CUI},
    "cvx": {"cvx.txt": CVX},
    "hcpcs": {"HCPC2024_JUL_ANWEB.txt": hcpcs("A0021") + "\n" + hcpcs("J1100", "20240101") + "\n"},
    "athena": {"CONCEPT.csv": CONCEPT_CSV, "VOCABULARY.csv": VOCABULARY_CSV, "CONCEPT_RELATIONSHIP.csv": RELATIONS_CSV},
}
NAMES = {"rxnorm": "RxNorm_full_06032024.zip", "loinc": "Loinc_2.78.zip"}


def packed(folder: Path, system: str, files: dict[str, str] | None = None) -> Path:
    """Return a zip of a system's files."""
    path = folder / NAMES.get(system, f"{system}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files or FILES[system]).items():
            archive.writestr(name, text)
    return path


def added(tmp_path: Path, system: str, key: str = "") -> ReleaseTable:
    add(system, packed(tmp_path, system), tmp_path / "store")
    from ehrready.terminology.releases import load

    return load(tmp_path / "store" / f"{key or system}.parquet")


def state(table: ReleaseTable) -> dict[str, list[bool]]:
    return dict(zip(table.codes.tolist(), table.valid.tolist(), strict=True))


def test_icd10cm_order_file(tmp_path: Path) -> None:
    table = added(tmp_path, "icd10cm")
    assert state(table) == {"A00": [True], "A00.0": [True], "A00.9": [True]}
    assert table.billable is not None
    assert table.billable[:, 0].tolist() == [False, True, True]
    assert table.names(1) == ("Cholera due to Vibrio cholerae 01, biovar cholerae",)


def test_the_release_comes_from_the_files_own_name_or_the_option(tmp_path: Path) -> None:
    for name, release, label, effective in (
        ("icd10cm_order_2024.txt", "", "FY2024", "2023-10-01"),
        ("icd10cm-order-April-2025.txt", "", "FY2025 Apr update", "2025-04-01"),
        ("list.txt", "2023", "FY2023", "2022-10-01"),
        ("list.txt", "", "unknown", ""),
    ):
        path = tmp_path / name
        path.write_text(ORDER)
        (table,) = add("icd10cm", path, tmp_path / f"store-{label}", release=release)
        assert (table.releases[0].label, table.releases[0].effective) == (label, effective)
        assert table.releases[0].source == name


def test_addenda_are_applied_to_the_release_before_them(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (tmp_path / "icd10pcs_order_2024.txt").write_text(PCS)
    add("icd10pcs", tmp_path / "icd10pcs_order_2024.txt", store)
    (tmp_path / "icd10pcs_order_addenda_2025.txt").write_text(
        "Add:         00003 0016071 1 Bypass Cerebral Ventricle to Mastoid                         Bypass Cerebral Ventricle to Mastoid Sinus\n"
        "Delete:      00002 0016070 1 Bypass Cerebral Ventricle to Nasopharynx                     Bypass Cerebral Ventricle to Nasopharynx\n"
    )
    add("icd10pcs", tmp_path / "icd10pcs_order_addenda_2025.txt", store)
    table = Store.open(store).table("icd10pcs")
    assert table is not None
    assert [r.label for r in table.releases] == ["FY2024", "FY2025"]
    assert state(table) == {"001": [True, True], "0016070": [True, False], "0016071": [False, True]}


def test_addenda_of_the_next_year_fit_the_shipped_table(tmp_path: Path) -> None:
    (tmp_path / "icd10cm_order_addenda_2027.txt").write_text(ADDENDA)
    add("icd10cm", tmp_path / "icd10cm_order_addenda_2027.txt", tmp_path / "store")
    table = Store.open(tmp_path / "store").table("icd10cm")
    assert table is not None
    assert [r.label for r in table.releases][-2:] == ["FY2026", "FY2027"]
    place = dict(zip(table.codes.tolist(), table.valid[:, -2:].tolist(), strict=True))
    assert place["A00.9"] == [True, False]
    assert place["A01.00"] == [True, True]
    assert table.releases[-1].n_codes == table.releases[-2].n_codes - 1


def test_icd9(tmp_path: Path) -> None:
    table = added(tmp_path, "icd9cm")
    assert table.codes.tolist() == ["001.0", "250.00", "E812.0", "V58.61"]
    assert (table.releases[0].label, table.releases[0].effective) == ("FY2015", "2014-10-01")


def test_loinc_tells_the_life_of_every_code(tmp_path: Path) -> None:
    table = added(tmp_path, "loinc")
    labels = [r.label for r in table.releases]
    assert labels[-1] == "2.78"
    life = {code: [label for label, v in zip(labels, row, strict=True) if v] for code, row in state(table).items()}
    assert life["4548-4"] == ["2.75", "2.76", "2.77", "2.78"]
    assert life["17856-6"][-1] == "2.75"
    at = table.positions(["17856-6", "2345-7"])
    assert table.replacements(int(at[0])) == ("4548-4",)
    assert table.attribute(int(at[1]), "property") == "MCnc"
    assert table.names(int(at[1]))[0] == "Glucose [Mass/volume] in Serum or Plasma"


def test_snomed_full_tells_every_release(tmp_path: Path) -> None:
    table = added(tmp_path, "snomed")
    assert [r.label for r in table.releases] == [f"http://snomed.info/sct/731000124108/version/{t}" for t in ("20020131", "20240301")]
    assert state(table) == {"38341003": [False, True], "44054006": [True, True], "59621000": [True, False]}
    at = table.positions(["59621000", "44054006"])
    assert table.replacements(int(at[0])) == ("38341003",)
    assert table.names(int(at[1])) == ("Type 2 diabetes mellitus (disorder)",)  # the inactive term is gone


def test_rxnorm_with_its_retired_concepts(tmp_path: Path) -> None:
    table = added(tmp_path, "rxnorm")
    assert (table.releases[0].label, table.releases[0].effective) == ("2024-06-03", "2024-06-03")
    assert state(table) == {"6809": [True], "77": [False], "860975": [True], "88": [False]}
    assert [table.replacements(int(i)) for i in table.positions(["77", "88"])] == [("860975",), ("6809",)]


REL = "".join(
    f"{one}||CUI|RO|{two}||CUI|{said}|||{by}||||N||\n"
    for one, two, said, by in (
        ("860974", "860975", "consists_of", "RXNORM"),  # the drug consists of its component, the component has the ingredient
        ("6809", "860974", "has_ingredient", "RXNORM"),
        ("860975", "6809", "ingredient_of", "RXNORM"),
        ("6809", "860978", "tradename_of", "MMSL"),  # not RxNorm's own
    )
)


def test_rxnorm_drugs_have_their_ingredients_where_the_release_tells(tmp_path: Path) -> None:
    conso = (
        CONSO + "860974|ENG||||||4|860974|860974||RXNORM|SCDC|860974|metformin hydrochloride 500 MG||N|4096|\n"
        "860978|ENG||||||5|860978|860978||RXNORM|SBD|860978|a brand||N|4096|\n"
    )
    add("rxnorm", packed(tmp_path, "rxnorm", {"RXNCONSO.RRF": conso, "RXNREL.RRF": REL}), tmp_path / "store")
    drugs = ["860975", "860974", "6809", "860978", "1"]
    assert rollup.above("rxnorm", drugs, Store(tmp_path / "store")) == dict.fromkeys(drugs[:3], "6809")
    add("rxnorm", packed(tmp_path, "rxnorm"), tmp_path / "other")  # without relations
    assert rollup.above("rxnorm", drugs, Store(tmp_path / "other")) == {}


def test_cvx_hcpcs_and_athena(tmp_path: Path) -> None:
    assert state(added(tmp_path, "cvx")) == {"08": [True], "45": [False]}
    table = added(tmp_path, "hcpcs")
    assert (table.releases[0].label, table.releases[0].effective) == ("2024Q3", "2024-07-01")
    assert state(table) == {"A0021": [True], "J1100": [False]}
    loinc = added(tmp_path, "athena", "loinc")
    assert loinc.replacements(int(loinc.positions(["17856-6"])[0])) == ("2345-7",)
    assert loinc.complete is False


OTHER = {
    "icd10cm": PCS,
    "icd10pcs": ORDER,
    "loinc": CONCEPTS,
    "snomed": LOINC,
    "rxnorm": CVX,
    "cvx": CONSO,
    "hcpcs": ORDER,
    "icd9cm": ORDER,
    "athena": LOINC,
}


@pytest.mark.parametrize("system", LAYOUTS)
@pytest.mark.parametrize("damage", ["other-system", "cut", "empty", "binary"])
def test_a_wrong_file_is_refused_with_its_line_and_changes_nothing(tmp_path: Path, system: str, damage: str) -> None:
    store = tmp_path / "store"
    add(system, packed(tmp_path, system), store)
    before = {path.name: path.read_bytes() for path in store.glob("*.parquet")}
    main = max(FILES[system], key=lambda name: "onc" in name.lower() or "conso" in name.lower())
    text = FILES[system][main]
    wrong = {"other-system": OTHER[system], "cut": text[: len(text) - 60], "empty": "", "binary": "\x00\x01PAR1" * 9}[damage]
    if damage == "cut" and system in {"icd10cm", "icd10pcs", "icd9cm", "athena", "snomed", "cvx"}:
        wrong = text.rstrip("\n").rsplit("\n", 1)[0] + "\n" + text.rstrip("\n").rsplit("\n", 1)[1][:3]
    with pytest.raises(UsageError, match="Nothing was added") as caught:
        add(system, packed(tmp_path, system, {**FILES[system], main: wrong}), store)
    assert damage == "empty" or "line" in str(caught.value) or "has no" in str(caught.value)
    assert {path.name: path.read_bytes() for path in store.glob("*.parquet")} == before


def test_a_cut_zip_and_a_bomb_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, "icd10cm", {"icd10cm_order_2024.txt": ORDER * 2000})
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UsageError):
        add("icd10cm", tmp_path / "cut.zip", tmp_path / "store")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("Loinc.csv", "w") as stream:
        for _ in range(300):
            stream.write(b"\x00" * (1 << 20))
    with pytest.raises(UsageError, match="would unpack to"):
        add("loinc", tmp_path / "bomb.zip", tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.parquet"))


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(ORDER)
    run = CliRunner()
    store = ["--terminology", str(tmp_path / "store")]
    done = run.invoke(app, ["terminology", "add", "icd10cm", str(tmp_path / "list.txt"), *store])
    assert done.exit_code == 0
    assert "stored as unknown; give --release" in done.stderr
    listed = run.invoke(app, ["terminology", "list", *store]).stdout
    assert "list.txt" in listed
    assert len(listed.splitlines()[0].split()[-1]) == 64  # SHA-256
    shown = run.invoke(app, ["terminology", "releases", "icd10cm", *store]).stdout
    assert "FY2026" in shown
    for arguments, says in (
        (["add", "icd10", "x"], "did you mean 'icd10cm'"),
        (["releases", "loink"], "did you mean"),
        (["add", "loinc", "absent"], "no file or folder"),
    ):
        failed = run.invoke(app, ["terminology", *arguments, *(store if arguments[0] != "releases" else [])])
        assert failed.exit_code != 0
        assert isinstance(failed.exception, UsageError) or says in failed.stderr
        assert says in str(failed.exception) or arguments[0] == "releases"
