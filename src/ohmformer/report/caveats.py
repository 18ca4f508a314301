"""What a reader of these numbers must know of their limits, computed from a results document."""

from __future__ import annotations

from ohmformer.report.view import Document
from ohmformer.study.noise_labels import ROLES, gamma_sigma

TRUSTED = 0.5
"""The model of write noise is meant for γσ up to about this; beyond, it is extrapolated."""


def caveats(document: Document) -> list[str]:
    """Sentences, none where nothing needs saying."""
    return [sentence for sentence in (_extrapolation(document), _left_out(document), *_notes(document)) if sentence]


def _extrapolation(document: Document) -> str:
    """How many points lie where the model of write noise is an extrapolation."""
    strongest: dict[str, float] = {}
    points = 0
    for point in document["points"]:
        found = {role: gamma_sigma(point["write_noise"].get(role)) or 0.0 for role in ROLES}
        points += max(found.values()) > TRUSTED
        strongest = {role: max(value, strongest.get(role, 0.0)) for role, value in found.items()}
    if not points:
        return ""
    where = ", ".join(f"{value:.3g} in {ROLES[role]}" for role, value in strongest.items() if value > TRUSTED)
    return (
        f"Beyond γσ of about {TRUSTED:g} the model of write noise is an extrapolation: {points} of "
        f"{len(document['points'])} points lie there (γσ up to {where})."
    )


def _left_out(document: Document) -> str:
    levels = {point["accuracy"]["level"] for point in document["points"]}
    return "Level noise leaves converters and read noise out." if "noise" in levels else ""


def _notes(document: Document) -> list[str]:
    """What tasks and models say of themselves, as sentences."""
    notes = dict.fromkeys(note for point in document["points"] for note in point.get("notes", []))
    return [f"{note[:1].upper()}{note[1:]}." for note in notes]
