"""Refuses arguments of the functions of cost that have a wrong type or value, or that do not fit the workload."""

from __future__ import annotations

from collections.abc import Mapping

from ohmformer.errors import BadInput, check_type, given, shown, suggest
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mitigation.spec import Conditioning, KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import Workload


def check_cost_arguments(function: str, workload: object, hardware: object, clip: object, weights: object) -> None:
    """Refuse arguments of a wrong type that the functions of cost share.

    Raises:
        BadInput: an argument is refused; `function` names the function in the message.
    """
    named_hardware = f"of.load({shown(hardware)})" if isinstance(hardware, str) else "of.load"
    named_workload = f"of.shapes({shown(workload)})" if isinstance(workload, str) else "of.shapes or of.trace"
    check_type(function, "workload", workload, Workload, f"a Workload ({named_workload})")
    check_type(function, "hardware", hardware, Accelerator, f"an Accelerator ({named_hardware})")
    check_type(function, "clip", clip, (KVClip, type(None)), "KVClip(alpha=..., beta=...) or None")
    check_type(function, "weights", weights, (WeightMitigation, type(None)), "WeightMitigation(rotate=True) or None")


def check_options(
    workload: Workload,
    hardware: Accelerator,
    clip: KVClip | None,
    kv: KVConditioning | None,
    **choices: object,
) -> None:
    """Refuse options of `place` that do not exist, or do not fit the workload or the accelerator.

    Raises:
        BadInput: one line with the option and the remedy.
    """
    for name, allowed in CHOICES.items():
        value = choices[name]
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise BadInput(f"place: {name} is {given(value)}; give {allowed[0]!r} or {allowed[1]!r}")
    _check_mitigation(workload, hardware, clip, kv)


CHOICES: dict[str, tuple[object, object]] = {
    "kv_sets": (1, 2),
    "softmax_sets": ("one", "per_layer"),
    "batching": ("pipelined", "serial"),
}
"""Option of `place` -> its two values."""


def _check_mitigation(
    workload: Workload, hardware: Accelerator, clip: KVClip | None, kv: KVConditioning | None
) -> None:
    """Refuse a clip that does not fit the arrays, and conditionings of operands that do not exist.

    Raises:
        BadInput: one line with the field and the remedy.
    """
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)
    names = {op.name for op in workload.dynamic}
    for name, spec in kv.items() if isinstance(kv, Mapping) else [("", kv)]:
        where = f"kv[{shown(name)}]" if isinstance(kv, Mapping) else "kv"
        if name not in names and isinstance(kv, Mapping):
            raise BadInput(f"{where}: names no operand; {suggest(str(name), sorted(names))}")
        if not isinstance(spec, Conditioning | None):
            raise BadInput(
                f"{where} is {given(spec)}; which is not a conditioning; take Conditioning(mean=True, basis='hadamard')"
            )
