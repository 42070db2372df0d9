"""Write ehrready/terminology/data/ucum_units.csv: the UCUM codes of our tables with dimension, factor and offset.

Run it after a change in unit_synonyms.csv or plausible_limits.csv; tests compare the file with ucumvert and pint.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "ehrready" / "terminology" / "data"
sys.path.insert(0, str(ROOT))

#: Codes that need no spelling of their own in the synonym table.
COMMON = """1 % 10* 10^ mg/dL g/dL ug/dL ng/dL mmol/L umol/L nmol/L pmol/L mol/L mg/L g/L ug/L ng/L pg/L ng/mL pg/mL ug/mL mg/mL
U/L mU/L kU/L U/mL mU/mL uU/mL nmol/mL pmol/mL fmol/L mmol/kg mmol/g umol/g nmol/g umol/mol ng/g pg/g mg/kg g/kg g/g mg/mg ug/ug
g/mol L/L mL/L mL/dL kg m cm mm um nm km g mg ug ng pg fg L dL mL uL nL fL pL s ms us min h d wk mo a Pa kPa hPa MPa bar mbar
K Cel mol mmol umol nmol pmol eq meq ueq eq/L meq/dL ueq/L meq/kg osm/L osm/kg osm mosm J kJ cal kcal W N V mV uV A mA Hz kHz MHz
/s /min /h /d /wk /a /m /cm /mm /mm2 /cm2 /m2 /mm3 /L /dL /mL /uL 10*3/L 10*3/mL 10*4/uL 10*5/uL 10*8/L 10*9/uL 10*6/mL 10*9/mL
mL/min L/min mL/h L/h mL/s L/s uL/h mL/kg mL/kg/h mL/kg/min L/kg mg/kg/h mg/kg/min ug/kg/h ug/kg/min ng/kg/min mg/min mg/h ug/h g/h
mg/d g/d ug/d kg/d mmol/d umol/d meq/d mL/d L/d umol/min nmol/min nmol/s mol/s ug/min kg/m2 g/m2 m2 cm2 mm2 m3 mm3 cm3 m/s cm/s
km/h mm/s mm/h kcal/d kcal/h kcal/kg/d mm[Hg] cm[H2O] [psi] [in_i'Hg] atm deg rad [diop] [lb_av] [oz_av] [in_i] [ft_i] [yd_i] [mi_i]
[stone_av] [gal_us] [foz_us] [pt_us] [cup_us] [tbs_us] [tsp_us] [lb_av]/[in_i]2 [degF] mSv uSv Gy cGy mGy Bq MBq kBq
m[IU] k[IU] [IU]/kg [IU]/h [IU]/d [IU]/g [IU]/dL u[IU]/L k[IU]/L 10*6.[IU] [IU]/mg [CCID_50]/mL [CFU] [CFU]/L [CFU]/g [arb'U]/g
mL/mm[Hg] L/mm[Hg] mm[Hg].min/L mL/cm[H2O] g.m g/cm3 kg/L kg/m3 ug/m3 mg/m3 mm[Hg]/s dB dB[SPL] [MET] [FFU] [BAU]/mL mmol/mmol
umol/mmol nmol/mmol ng/mmol mg/mmol ug/mmol mg/mol g/(8.h) umol/(24.h) nmol/(24.h) ng/(24.h) pmol/(24.h) mosm/(24.h) meq/(24.h)
kg/mol g/L/h nmol/L/h mmol/L/h ug/L/h mmol/min/kPa mL/min/mm[Hg] L/s/kPa kPa/L/s dyn.s/cm5 dyn.s/(cm5.m2) U/g U/kg U/h U/min
U/(24.h) U/d mU/g mU/mg kat ukat ukat/L nkat/L ukat/kg g/m2/d ug/mg{creat}"""


def main() -> None:
    """Parse every code and write the table, sorted by code."""
    from ehrready import units

    with (DATA / "unit_synonyms.csv").open(encoding="utf-8", newline="") as file:
        wanted = {row["ucum"] for row in csv.DictReader(file)} | set(COMMON.split())
    with (DATA / "plausible_limits.csv").open(encoding="utf-8", newline="") as file:
        wanted |= {row["unit"] for row in csv.DictReader(file) if row["unit"]}
    rows = []
    for code in sorted(wanted):
        unit = units.parse(code)
        if unit is None:
            print(f"not UCUM: {code}", file=sys.stderr)
            continue
        rows.append([code, unit.dimension, f"{unit.factor:.12g}", f"{unit.offset:.12g}"])
    with (DATA / "ucum_units.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ucum", "dimension", "factor", "offset"])
        writer.writerows(rows)
    print(len(rows), "units")


if __name__ == "__main__":
    main()
