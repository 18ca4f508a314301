"""Where a point has write noise, in words computed from its hardware. Free of torch.

A sweep's label may hold `{noise}`: it becomes what `noise_name` says of each point, so it stays true whatever is set.
"""

from __future__ import annotations

from typing import Any

from ohmformer.array.spec import Crossbar
from ohmformer.hardware.spec import Accelerator, CrossbarEngine

PLACE = "{noise}"
ROLES = {"projection": "static weights", "key": "K", "value": "V"}
"""Role -> what its engine holds, in words."""

Noise = dict[str, Any]


def write_noise(hardware: Accelerator) -> Noise:
    """Role -> write noise of its cells, in plain values, and how writes are verified; None for a digital engine."""
    roles = {"projection": hardware.projection, "key": hardware.attention.key, "value": hardware.attention.value}
    return {role: _of(engine.array) if isinstance(engine, CrossbarEngine) else None for role, engine in roles.items()}


def _of(array: Crossbar) -> Noise:
    verified = {"verify": array.verify.canonical()} if array.verify else {}
    return {**array.cell.write_noise.canonical(), **verified}


def filled(label: str, hardware: Accelerator) -> str:
    """A label with `{noise}` replaced."""
    return label.replace(PLACE, noise_name(write_noise(hardware)))


def gamma_sigma(noise: Noise | None) -> float | None:
    """The product that the `sqrt_range` noise of a cell depends on; None for other cells."""
    return noise["gamma"] * noise["sigma"] if noise and noise["kind"] == "sqrt_range" else None


def noise_name(roles: Noise) -> str:
    """'K only (γσ 1.4)', 'all: static weights (γσ 0.14), K and V (γσ 1.4)' or 'nothing'."""
    groups: dict[str, list[str]] = {}
    for role, name in ROLES.items():
        strength = _strength(roles[role])
        if strength:
            groups.setdefault(strength, []).append(name)
    noisy = [name for names in groups.values() for name in names]
    only, every = (" only", "") if len(noisy) == 1 else ("", "all: " if len(noisy) == len(ROLES) else "")
    parts = ", ".join(f"{' and '.join(names)}{only} ({strength})" for strength, names in groups.items())
    return f"{every}{parts}" if parts else "nothing"


def _strength(noise: Noise | None) -> str:
    """How strong the noise of a cell is; empty where there is none."""
    single = _single(noise)
    return f"{single}, verified" if single and noise and "verify" in noise else single


def _single(noise: Noise | None) -> str:
    """The same of a single write."""
    product = gamma_sigma(noise)
    if product is not None:
        return f"γσ {product:.3g}" if product else ""
    if noise is None or noise["kind"] == "none" or noise.get("sigma") == 0:
        return ""
    known = isinstance(noise.get("sigma"), (int, float))  # kinds from elsewhere may mean another thing by it
    return f"{noise['kind']} σ {noise['sigma']:.3g}" if known else str(noise["kind"])


def static_note(hardware: Accelerator) -> str:
    """Where the sigma of static weights comes from, if it is not that of K and V; else empty."""
    engine, attention = hardware.projection, (hardware.attention.key, hardware.attention.value)
    if not isinstance(engine, CrossbarEngine):
        return ""
    noise = engine.array.cell.write_noise
    others = [other.array.cell.write_noise for other in attention if isinstance(other, CrossbarEngine)]
    found = noise.canonical().get("sigma")
    if not isinstance(found, (int, float)) or found in [other.canonical().get("sigma") for other in others]:
        return ""
    source = dict(noise.provenance).get("sigma")
    why = f" ({source.kind}: {source.how})" if source and source.how else ""
    return f"σ of static weights {found:g}{why}"
