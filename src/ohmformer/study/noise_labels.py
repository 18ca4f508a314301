"""Describes the write noise of a point in words, computed from its hardware. Free of torch.

A sweep's label may hold `{noise}`: it becomes what `noise_name` says of each point, so it stays true whatever is set.
"""

from __future__ import annotations

from ohmformer.array.spec import Crossbar
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.study.results.spec import CellNoise, RoleNoise

PLACE = "{noise}"
ROLES = {"projection": "static weights", "key": "K", "value": "V"}
"""Role -> what its engine holds, in words."""


def write_noise(hardware: Accelerator) -> RoleNoise:
    """Write noise of the cells of each role, and how their writes are verified."""
    engines = {"projection": hardware.projection, "key": hardware.attention.key, "value": hardware.attention.value}
    return RoleNoise(
        **{role: _of(engine.array) if isinstance(engine, CrossbarEngine) else None for role, engine in engines.items()}
    )


def _of(array: Crossbar) -> CellNoise:
    verified = {"write_verify": array.write_verify.canonical()} if array.write_verify else {}
    return CellNoise.model_validate({**array.cell.write_noise.canonical(), **verified})


def filled(label: str, hardware: Accelerator) -> str:
    """A label with `{noise}` replaced."""
    return label.replace(PLACE, noise_name(write_noise(hardware)))


def noise_name(noise: RoleNoise) -> str:
    """'K only (γσ 1.4)', 'all: static weights (γσ 0.14), K and V (γσ 1.4)' or 'nothing'."""
    groups: dict[str, list[str]] = {}
    for role, cells in noise.by_role.items():
        strength = _strength(cells)
        if strength:
            groups.setdefault(strength, []).append(ROLES[role])
    noisy = [name for names in groups.values() for name in names]
    only, every = (" only", "") if len(noisy) == 1 else ("", "all: " if len(noisy) == len(ROLES) else "")
    parts = ", ".join(f"{' and '.join(names)}{only} ({strength})" for strength, names in groups.items())
    return f"{every}{parts}" if parts else "nothing"


def _strength(noise: CellNoise | None) -> str:
    """The strength of a cell's noise in words; empty where there is none."""
    single = _strength_of_one_write(noise)
    return f"{single}, verified" if single and noise and noise.verified else single


def _strength_of_one_write(noise: CellNoise | None) -> str:
    if noise is None:
        return ""
    if noise.gamma_sigma is not None:
        return f"γσ {noise.gamma_sigma:.3g}" if noise.gamma_sigma else ""
    if noise.kind == "none" or noise.sigma == 0:
        return ""
    return f"{noise.kind} σ {noise.sigma:.3g}" if isinstance(noise.sigma, (int, float)) else noise.kind


def static_note(hardware: Accelerator) -> str:
    """Source of the sigma of static weights, if it differs from the sigma of K and V; otherwise empty."""
    engine, attention = hardware.projection, (hardware.attention.key, hardware.attention.value)
    if not isinstance(engine, CrossbarEngine):
        return ""
    noise = engine.array.cell.write_noise
    others = [other.array.cell.write_noise for other in attention if isinstance(other, CrossbarEngine)]
    sigma = noise.canonical().get("sigma")
    if not isinstance(sigma, (int, float)) or sigma in [other.canonical().get("sigma") for other in others]:
        return ""
    source = dict(noise.provenance).get("sigma")
    why = f" ({source.kind}: {source.how})" if source and source.how else ""
    return f"σ of static weights {sigma:g}{why}"
