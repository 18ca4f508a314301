"""Tensors whose rows are not the new tokens of a call: what a decoder looks at, such as the output of an encoder.

Their rows are not numbered as the new tokens are, so the noise of reading them belongs to their sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from threading import Lock

from torch import Tensor

from ohmformer.capture.torch_private import StorageWeakRef, storage_id

Mask = tuple[Tensor, ...]
"""Which rows [B, N] hold something; empty if all do."""


@dataclass(frozen=True, eq=False)
class Noted:
    """A tensor that is not new tokens.

    Attributes:
        storage: keeps the identity of its storage from being used again, but not its values.
        layout: its storage offset, shape and stride.
        contiguous: its rows follow one another.
        whole: it fills its storage, so every view of that is a part of it.
        padding: which of its rows hold something.
    """

    storage: StorageWeakRef
    layout: tuple[int, tuple[int, ...], tuple[int, ...]]
    contiguous: bool
    whole: bool
    padding: Mask

    def padding_of(self, x: Tensor) -> Mask | None:
        """What is known of x, which has the same storage; None if x is not a part of the tensor."""
        same = _layout(x) == self.layout
        rows = self.contiguous and x.is_contiguous() and x.storage_offset() == self.layout[0]
        shape = self.layout[1]
        if same or (rows and x.shape[-1] == shape[-1] and x.numel() == prod(shape)):
            return self.padding
        if not self.whole:
            return None
        return self.padding if x.numel() == prod(shape) else ()


class Memory:
    """Tensors [B, N, features] or [B, features] that are not new tokens, known again by their storage, as are views.

    A tensor is forgotten with its storage. Another one at the same address is not taken for it. Copies are not known.
    All threads share one memory, since a decoder may look at what another thread computed.
    """

    def __init__(self) -> None:
        self.noted: dict[int, Noted] = {}
        self.lock = Lock()

    def note(self, t: Tensor, padding: Mask = ()) -> None:
        """Remember a tensor; tensors with one axis, or without a storage, are left out.

        Args:
            t: what the decoder looks at.
            padding: which of its rows hold something; left out if it has another shape.
        """
        key = storage_id(t) if t.dim() > 1 else -1
        if key == -1 or not t.numel():
            return
        whole = t.numel() * t.element_size() == t.untyped_storage().nbytes()
        fits = bool(padding) and t.dim() == 3 and padding[0].shape == t.shape[:2]
        with self.lock:
            known = self.noted.get(key)
            if known is not None and known.layout != _layout(t) and known.whole:
                return
            if known is None:
                self.noted = {other: noted for other, noted in self.noted.items() if not noted.storage.expired()}
            if known is None or known.layout != _layout(t) or fits:
                storage = StorageWeakRef(t.untyped_storage())
                self.noted[key] = Noted(storage, _layout(t), t.is_contiguous(), whole, padding if fits else ())

    def padding_of(self, x: Tensor) -> Mask | None:
        """Which rows of inputs hold something, if they are known not to be new tokens; None otherwise."""
        noted = self.noted.get(storage_id(x)) if self.noted else None
        return None if noted is None else noted.padding_of(x)

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        """Copies start empty."""
        return Memory, ()


def _layout(t: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return int(t.storage_offset()), tuple(t.shape), tuple(t.stride())
