"""Comparability of where the data is from: a hospital of training that sends nothing any more."""

from __future__ import annotations

from ehrready import sites
from ehrready.checks.base import Outcome, check, skip
from ehrready.profile import Frame, Profile


@check("comparability", compares=True, whole=True)
def site_vanished(profile: Profile, training: Profile) -> list[Outcome]:
    """Do all sites of training send?

    Sites are known by name only where rules with limits by site name them, in both profiles; all others are pooled.  What
    alarms in the comparison with the whole of training and would not in that with the other sites alone stands beneath this finding.

    Numerator: named sites of training without a record in the live data (`site-vanished`).
    Denominator: named sites of training.
    """
    named = [site for site, part in sorted(training.sites.items()) if site != sites.OTHERS and records(part)]
    if not named:
        return skip("not-applicable", "training keeps no sites apart: rules with limits by site name them")
    if unknown := [site for site in named if site not in profile.sites]:
        return skip("not-assessed", f"the live profile does not keep these sites apart: {', '.join(unknown)}")
    gone = [site for site in named if not records(profile.sites[site])]
    return [
        Outcome(
            "site-vanished", len(gone), len(named), people=False, status="fail" if gone else "pass", limit=0.0,
            effect=len(gone) / len(named), training=(0, len(named)), detail=", ".join(gone),
        )
    ]  # fmt: skip


def records(part: dict[str, Frame]) -> bool:
    """Has a site's part any record?  A hidden number is one."""
    return any(values[0] != 0 for values in part["volume"].values())


def without(training: Profile, profile: Profile) -> Profile | None:
    """Return training as if it had never had the sites that send nothing any more; None where none has gone."""
    gone = [
        site
        for site, part in training.sites.items()
        if site != sites.OTHERS and records(part) and site in profile.sites and not records(profile.sites[site])
    ]
    return sites.without(training, gone) if gone and sites.OTHERS in training.sites else None
