"""A check: years of the data's period in which a table has no record at all."""

from __future__ import annotations

from ehrready.checks.base import Outcome, check, skip
from ehrready.profile import Profile
from ehrready.tables import table_of


@check("plausibility")
def silent_year(profile: Profile, element: str, *, after: int = 1900) -> list[Outcome]:
    """Is there a year without a single record?

    Numerator: years between the first and the last dated record without any record of the table (`gap-year`).
    Denominator: years between the first and the last dated record, both included.

    Options: `after`: earlier years are left out (default 1900).
    """
    months = {month for (table, month), _ in profile.rows("volume", table_of(element)) if month}
    years = {int(month[:4]) for month in months if int(month[:4]) > after}
    if not years:
        return skip("not-assessed", "no record is dated")
    span = max(years) - min(years) + 1
    return [Outcome("gap-year", span - len(years), span, people=False)]
