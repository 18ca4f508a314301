"""Where a forward pass would make the host wait for a GPU, found on the CPU.

Values that descend from the parameters of the model or from its inputs, or that are made with the argument `device`,
count as values of the device. Reading one of them on the host, or an operation whose result has a size that depends on
them, would wait. Copies of lists of the host to the device, which wait too, are not found.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}
"""Operations of ATen that wait for their arguments."""
READING = {"tolist", "numpy", "cpu"}
"""Methods that copy a tensor to the host, and which the CPU does not dispatch."""


class Waits:
    """Counts the operations that would wait, by the line of the package that asks for them.

    Args:
        values: tensors of the device.
    """

    def __init__(self, values: Iterable[Tensor]) -> None:
        self.lines: Counter[str] = Counter()
        self._kept: list[Tensor] = []  # so that no other tensor takes the address of one of them
        self._addresses: set[int] = set()
        self.add(list(values))
        self._modes = (_Dispatched(self), _Read(self))

    def __enter__(self) -> Waits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def of_device(self, values: Any) -> bool:
        """True if a tensor among the values is one of the device."""
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor)]
        return any(t.untyped_storage().data_ptr() in self._addresses for t in tensors)

    def add(self, values: Any) -> None:
        """Count tensors as tensors of the device."""
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.numel()]
        self._kept += tensors
        self._addresses |= {t.untyped_storage().data_ptr() for t in tensors}

    def count(self) -> None:
        """Count the innermost line of the package that is running."""
        frames = [frame for frame in traceback.extract_stack() if "/src/ohmformer/" in frame.filename]
        line = f"{frames[-1].filename.split('/src/ohmformer/')[1]}:{frames[-1].name}" if frames else "outside"
        self.lines[line] += 1


class _Dispatched(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_device = self.waits.of_device([args, kwargs])
        if of_device and (function.overloadpacket.__name__ in WAITING or _masked(function, args)):
            self.waits.count()
        result = function(*args, **(kwargs or {}))
        if of_device:
            self.waits.add(result)
        return result


class _Read(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in READING and self.waits.of_device(args[0]):
            self.waits.count()
        result = function(*args, **(kwargs or {}))
        if kwargs and kwargs.get("device") is not None:
            self.waits.add(result)
        return result


def _masked(function: Any, args: Any) -> bool:
    """True for an index by a boolean mask, whose size the host must know."""
    if function.overloadpacket.__name__ not in ("index", "index_put", "index_put_"):
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
