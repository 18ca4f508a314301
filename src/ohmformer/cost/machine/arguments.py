"""Refuses arguments of the functions that price workloads."""

from __future__ import annotations

from collections.abc import Mapping

from ohmformer.cost.tiles import KVArrays
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


CHOICES: dict[str, tuple[object, object]] = {
    "kv_sets": (1, 2),
    "softmax_sets": ("one", "per_layer"),
    "batching": ("pipelined", "serial"),
}
"""Option of `place` -> its two values."""


def check_choices(**choices: object) -> None:
    """Refuse options of `place` that do not exist.

    Raises:
        BadInput: one line with the option and the remedy.
    """
    for name, value in choices.items():
        one, other = CHOICES[name]
        if type(value) is not type(one) or value not in (one, other):
            raise BadInput(f"place: {name} is {given(value)}; give {one!r} or {other!r}")


def check_clip(hardware: Accelerator, clip: KVClip | None) -> None:
    """Refuse a clip that does not fit the arrays of K and V.

    Raises:
        BadInput: it does not.
    """
    for engine in (hardware.attention.key, hardware.attention.value):
        if clip is not None and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)


def check_kv(workload: Workload, kv: KVConditioning | None) -> None:
    """Refuse conditionings of operands that a workload does not have.

    Raises:
        BadInput: a name or a value is refused.
    """
    names = {op.name for op in workload.dynamic}
    for name, spec in kv.items() if isinstance(kv, Mapping) else [("", kv)]:
        where = f"kv[{shown(name)}]" if isinstance(kv, Mapping) else "kv"
        if name not in names and isinstance(kv, Mapping):
            raise BadInput(f"{where}: names no operand; {suggest(str(name), sorted(names))}")
        if not isinstance(spec, Conditioning | None):
            raise BadInput(
                f"{where} is {given(spec)}; which is not a conditioning; take Conditioning(mean=True, basis='hadamard')"
            )


def check_sets(hardware: Accelerator, workload: Workload, arrays: list[KVArrays], sets: int) -> None:
    """Refuse a second set of cells that nothing would use.

    Raises:
        BadInput: no layers share arrays of K and V, or only one sample of one layer uses them.
    """
    if sets == 1:
        return
    turns = [workload.batch * sum(use.layers for use in entry.uses) for entry in arrays if entry.shared]
    if max(turns, default=0) > 1:
        return
    reason = f"hardware.attention.arrays = {hardware.attention.arrays!r}"
    if not arrays or (not any(entry.shared for entry in arrays) and hardware.attention.arrays == "shared"):
        reason = "attention is not in arrays"
    elif turns:
        reason = "one layer and one sample"
    raise BadInput(
        f"dataflow.kv_cells = 'double': {reason}: no cells of K and V are written again while they are read; "
        "leave it out (single)"
    )
