"""Sentences on the limits of results, computed from the results."""

from __future__ import annotations

from collections import Counter

from ohmformer.study.noise_labels import ROLES
from ohmformer.study.results.spec import RoleNoise, StudyResults
from ohmformer.study.store.old_code import words

TRUSTED = 0.5
"""The model of write noise is meant for γσ up to about this value; beyond, it is extrapolated."""


def caveats(results: StudyResults) -> list[str]:
    """Sentences on the limits of the results; an empty list where nothing needs saying."""
    return [
        sentence
        for sentence in (*_kept(results), _extrapolation(results), _left_out(results), *_notes(results))
        if sentence
    ]


def _kept(results: StudyResults) -> list[str]:
    """A sentence on the points of each former code whose results the user kept."""
    counts = Counter(words(point.old_code) for point in results.points if point.old_code is not None)
    total = len(results.points)
    return [
        f"Kept from other code than the present one: {count} of {total} points ({code})."
        for code, count in counts.items()
    ]


def _extrapolation(results: StudyResults) -> str:
    """Sentence on the number of points beyond the range of the model of write noise; empty if there are none."""
    strengths = [_gamma_sigmas(point.write_noise) for point in results.points]
    beyond = sum(max(strength.values()) > TRUSTED for strength in strengths)
    if not beyond:
        return ""
    strongest = {role: max(strength[role] for strength in strengths) for role in ROLES}
    where = ", ".join(f"{value:.3g} in {ROLES[role]}" for role, value in strongest.items() if value > TRUSTED)
    return (
        f"Beyond γσ of about {TRUSTED:g} the model of write noise is an extrapolation: {beyond} of "
        f"{len(results.points)} points lie there (γσ up to {where})."
    )


def _gamma_sigmas(noise: RoleNoise) -> dict[str, float]:
    """Role -> γσ; 0 where cells have other noise or none."""
    return {role: cells.gamma_sigma or 0.0 if cells else 0.0 for role, cells in noise.by_role.items()}


def _left_out(results: StudyResults) -> str:
    levels = {point.accuracy.level for point in results.points}
    return "Level noise leaves converters and read noise out." if "noise" in levels else ""


def _notes(results: StudyResults) -> list[str]:
    """Notes of tasks and models, as sentences."""
    notes = dict.fromkeys(note for point in results.points for note in point.notes)
    return [f"{note[:1].upper()}{note[1:]}." for note in notes]
