"""Tensors whose rows are not the new tokens of a call, such as the output of an encoder to which a decoder attends.

Their rows have no token numbers, so noise of products with them belongs to their sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from threading import Lock

from torch import Tensor

from ohmformer.capture.torch_private import StorageWeakRef, storage_id

Mask = tuple[Tensor, ...]
"""A mask [B, N] in a tuple, True at rows that are not padding; empty if no row is padding."""


@dataclass(frozen=True, eq=False)
class MemoryTensor:
    """The identity of a tensor that does not hold new tokens.

    Attributes:
        storage: weak reference to its storage; it keeps the identity of the storage from being reused, but not the
            values.
        layout: its storage offset, shape and stride.
        contiguous: True if its values are contiguous.
        whole: True if it fills its storage, so that every view of the storage is a part of it.
        mask: its mask.
    """

    storage: StorageWeakRef
    layout: tuple[int, tuple[int, ...], tuple[int, ...]]
    contiguous: bool
    whole: bool
    mask: Mask

    def mask_of(self, x: Tensor) -> Mask | None:
        """Return the mask of the rows of x, which has the same storage; None if x is not a part of this tensor."""
        same = _layout(x) == self.layout
        rows = self.contiguous and x.is_contiguous() and x.storage_offset() == self.layout[0]
        shape = self.layout[1]
        if same or (rows and x.shape[-1] == shape[-1] and x.numel() == prod(shape)):
            return self.mask
        if not self.whole:
            return None
        return self.mask if x.numel() == prod(shape) else ()


class AttendedMemory:
    """Tensors [B, N, features] or [B, features] that do not hold new tokens, recognized by their storage.

    Views are recognized too, and copies are not. A tensor is forgotten when its storage is freed; another one at the
    same address is not taken for it. All threads share one memory, since a decoder may attend to a tensor that another
    thread computed.
    """

    def __init__(self) -> None:
        self.noted: dict[int, MemoryTensor] = {}
        self.lock = Lock()

    def note(self, t: Tensor, mask: Mask = ()) -> None:
        """Remember a tensor; tensors with one axis, or without a storage, are ignored.

        Args:
            t: a tensor that does not hold new tokens.
            mask: its mask; ignored if it has another shape.
        """
        key = storage_id(t) if t.dim() > 1 else -1
        if key == -1 or not t.numel():
            return
        whole = t.numel() * t.element_size() == t.untyped_storage().nbytes()
        fits = bool(mask) and t.dim() == 3 and mask[0].shape == t.shape[:2]
        with self.lock:
            previous = self.noted.get(key)
            if previous is not None and previous.layout != _layout(t) and previous.whole:
                return
            if previous is None:
                self.noted = {other: noted for other, noted in self.noted.items() if not noted.storage.expired()}
            if previous is None or previous.layout != _layout(t) or fits:
                storage = StorageWeakRef(t.untyped_storage())
                self.noted[key] = MemoryTensor(storage, _layout(t), t.is_contiguous(), whole, mask if fits else ())

    def mask_of(self, x: Tensor) -> Mask | None:
        """Return the mask of the rows of x if it is a tensor of this memory; None otherwise."""
        noted = self.noted.get(storage_id(x)) if self.noted else None
        return None if noted is None else noted.mask_of(x)

    def __reduce__(self) -> tuple[type[AttendedMemory], tuple[()]]:
        """A copy starts empty."""
        return AttendedMemory, ()


def _layout(t: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return storage offset, shape and stride."""
    return int(t.storage_offset()), tuple(t.shape), tuple(t.stride())
