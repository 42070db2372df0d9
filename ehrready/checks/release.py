"""Release: which version of a code system the data says it is in (what the codes themselves say comes with 11-13)."""

from __future__ import annotations

from ehrready.checks.base import Outcome, check, skip
from ehrready.profile import Profile


@check("release", compares=True)
def release_declared(profile: Profile, training: Profile, element: str, *, max_rate: float = 0.02, min_n: int = 30) -> list[Outcome]:
    """Does the data declare the code-system releases that the model was trained on?

    Declared releases are Coding.version, CWE-7/8 and the OMOP vocabulary version, normalised (`FY2026`, `2.81`).

    Numerator: codings that declare a release of their system which training never declared (`other-release`).
    Denominator: codings of systems for which training declared a release, that declare one.

    Options: `max_rate` (default 0.02): share of codings that may declare another release; `min_n`: how many must
    declare one at all.
    """
    live, trained = declared(profile, element), declared(training, element)
    n = of = patients = 0
    train_of = 0
    news: list[str] = []
    for system, releases in live.items():
        known = {release for release in trained.get(system, {}) if release}
        if not known:
            continue
        train_of += sum(n or 0 for release, (n, _) in trained[system].items() if release)
        for release, (count, people) in releases.items():
            if not release:
                continue
            if count is None or people is None:
                return skip("not-assessed", "a count is hidden (1-10 patients)")
            of += count
            if release not in known:
                n += count
                patients = max(patients, people)
                news.append(f"{system} {release} (trained on {', '.join(sorted(known))})")
    if not of:
        any_trained = any(release for releases in trained.values() for release in releases)
        return skip("not-assessed" if any_trained and live else "not-applicable", "no release is declared on both sides")
    if of < min_n:
        return skip("not-assessed", f"fewer than {min_n} codings declare a release")
    rate = n / of
    return [
        Outcome(
            "other-release", n, of, patients, status="fail" if rate > max_rate else "pass", limit=max_rate, effect=rate,
            training=(0, train_of), detail="; ".join(sorted(news)),
        )
    ]  # fmt: skip


def declared(profile: Profile, element: str) -> dict[str, dict[str, tuple[int | None, int | None]]]:
    """Return system → declared release (``""`` for none) → (codings, patients) of an element."""
    found: dict[str, dict[str, tuple[int | None, int | None]]] = {}
    for (_, system, release), (n, patients) in profile.rows("releases", element):
        found.setdefault(system, {})[release] = (n, patients)
    return found
