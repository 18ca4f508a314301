"""Numbers that reveal whether weights have changed since they were written; on a GPU read for all layers at once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ohmformer import deferred_checks

PLACES = 64
"""Values of a matrix that are compared one by one."""


def scattered(w: Tensor) -> tuple[int, ...]:
    """The bits of `PLACES` values from all over w, in float32.

    With `checksum` they reveal changes that PyTorch's version counter misses: those through `.data` (averaged weights,
    pruning, old optimizers), and those of tensors made in inference mode.
    """
    values = _values(w)
    return tuple((values if values.dtype is torch.float32 else values.float()).view(torch.int32).tolist())


def checksum(w: Tensor) -> int:
    """The sum of the bits of w as whole numbers, modulo 2^64: a change of any one value changes it."""
    return int(_checksum(w))


def square_sum(w: Tensor) -> float:
    """The sum of the squares of w."""
    flat = w.reshape(-1).float()
    return float(flat.dot(flat))


def _scattered(w: Tensor) -> Tensor:
    return _values(w).float().view(torch.int32).long()


def _values(w: Tensor) -> Tensor:
    """`PLACES` values from all over w."""
    index = _places(w.numel(), w.device)
    if w.is_contiguous():
        return w.view(-1).index_select(0, index)
    return w[torch.unravel_index(index, w.shape)]


@lru_cache(maxsize=256)
def _places(size: int, device: torch.device) -> Tensor:
    """The places of these values among those of a matrix in its order."""
    with torch.inference_mode(False):
        return (torch.arange(PLACES, device=device) * 2654435761) % size


def _checksum(w: Tensor) -> Tensor:
    if w.dim() == 2 and w.is_contiguous() and w.dtype is torch.float32 and w.shape[1] % 2 == 0 == w.data_ptr() % 8:
        return w.view(torch.int64).sum()  # the usual case, in fewer calls
    flat = w.reshape(-1)
    if flat.stride(0) != 1 or flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone(memory_format=torch.contiguous_format)
    memory = flat.view(torch.uint8)
    end = memory.numel() // 8 * 8
    return memory[:end].view(torch.int64).sum() + memory[end:].sum()


class _Here(threading.local):
    """What one thread has read: the numbers of this call, and what it compared last."""

    def __init__(self) -> None:
        self.read: dict[object, tuple[int, ...]] = {}
        self.unchanged = False
        self.ids: list[int] = []
        self.bits: Tensor | None = None


class Fingerprints:
    """The numbers of the weights of a model, by `scattered` and `checksum`.

    On a GPU the host waits for every number that it reads. So a call of the model begins by reading those of all
    weights that the call before has used, in one go. They hold while the call runs. A call that goes on with a text
    compares those of `scattered` with those of the call before, on the CPU too. Copies of it are empty.
    """

    def __init__(self) -> None:
        self._used: dict[str, weakref.ref[Tensor]] = {}
        self._held: dict[str, weakref.ref[Tensor]] = {}
        self._here = _Here()

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprints, ()

    def note(self, name: str, w: Tensor) -> None:
        """Note the weights of an operand, so that the next call reads them with the others."""
        if deferred_checks.waits(w.device):
            self._used[name] = weakref.ref(w)

    def hold(self, name: str, w: Tensor) -> None:
        """Note weights on the CPU, in float32 and without gaps, that `unchanged` speaks of from the next call on."""
        self._held[name] = weakref.ref(w)

    @property
    def unchanged(self) -> bool:
        """True in a call that goes on with a text if `scattered` of all weights is what it was in the call before."""
        return self._here.unchanged

    def _compare(self) -> None:
        """Compare the weights that are held with what they were when this thread compared them last."""
        weights = [w for ref in list(self._held.values()) if (w := ref()) is not None]
        here, held = self._here, [w for w in weights if w.is_cpu and w.dtype is torch.float32 and w.is_contiguous()]
        if not held:
            return
        with torch.inference_mode():
            now = torch.stack([w.view(-1).index_select(0, _places(w.numel(), w.device)) for w in held])
            bits = now.view(torch.int32)
            ids = [id(w) for w in held]
            here.unchanged = here.ids == ids and here.bits is not None and torch.equal(here.bits, bits)
        here.ids, here.bits = ids, bits

    def begin_call(self, *, whole: bool) -> None:
        """Read the numbers of all weights; without `whole` those of `scattered` alone."""
        self._here.unchanged = False
        if not whole:
            self._compare()
        weights = [w for ref in list(self._used.values()) if (w := ref()) is not None and w.numel()]
        self._here.read = {}
        for device in {w.device for w in weights}:
            on_device = [w.detach() for w in weights if w.device == device]
            self._here.read |= dict(zip(map(_key, on_device), _read(on_device, whole=whole), strict=True))

    def end_call(self) -> None:
        """Forget the numbers, since weights may change now."""
        self._here.read, self._here.unchanged = {}, False

    def scattered(self, w: Tensor) -> tuple[int, ...]:
        """`scattered` of a matrix, read with the others if it could be."""
        found = self._found(w)
        return scattered(w) if found is None else found[:PLACES]

    def checksum(self, w: Tensor) -> int:
        """`checksum` of a matrix, read with the others if it could be."""
        found = self._found(w)
        return checksum(w) if found is None or len(found) == PLACES else found[PLACES]

    def _found(self, w: Tensor) -> tuple[int, ...] | None:
        return self._here.read.get(_key(w)) if self._here.read else None


def _key(w: Tensor) -> object:
    """What tells one state of a matrix from another while a call runs."""
    version = 0 if w.is_inference() else w._version
    return w.data_ptr(), version, w.device, w.dtype, tuple(w.shape), w.stride()


def _read(weights: Iterable[Tensor], *, whole: bool) -> list[tuple[int, ...]]:
    """The numbers of matrices on one device, in one transfer."""
    parts: Callable[[Tensor], Tensor] = _whole if whole else _scattered
    return [tuple(row) for row in torch.stack([parts(w) for w in weights]).tolist()]


def _whole(w: Tensor) -> Tensor:
    return torch.cat([_scattered(w), _checksum(w)[None]])
