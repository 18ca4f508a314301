"""Sources whose numbers come from the counter-based generator: those of all keys of a tensor at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ohmformer.streams import backends, philox
from ohmformer.streams.backends import Kernels
from ohmformer.streams.places import Places, repeated
from ohmformer.streams.sources import RandomSource


class Undrawn(NamedTuple):
    """Standard normals for a compiled loop.

    Attributes:
        normals: drawn already, one after the other; empty if the loop is to draw them.
        rows: whose numbers stand one after the other, see `Places`; of drawn numbers one row without a key.
        nth: how many tensors were drawn before.
    """

    normals: Tensor
    rows: Tensor
    nth: int


_NONE = torch.empty(0)


class CountedSource(RandomSource):
    """Random numbers of streams whose first axis is samples, by the counter-based generator.

    The numbers of the n-th tensor that it draws depend on n, so they follow on those of the tensors before.

    Args:
        places: where the numbers of each stream stand in a tensor of a shape.
        device: where the tensors live.
        kernels: what draws on the CPU.
    """

    def __init__(
        self, places: Callable[[tuple[int, ...]], Places], device: torch.device | str, kernels: Kernels = "torch"
    ) -> None:
        self._places, self._device, self._kernels = places, torch.device(device), kernels
        self._sent: dict[tuple[tuple[int, ...], int | None], Places] = {}
        self._drawn: Counter[int] = Counter()

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """See `RandomSource`."""
        return self._draw(shape, philox.NORMAL).to(like.dtype)

    def normals(self, count: int, *shape: int, like: Tensor) -> Tensor:
        """The next tensors of standard normals [count, ...], as `count` calls of `normal` give them, drawn at once."""
        return self._draw(shape, philox.NORMAL, count).to(like.dtype)

    def uniform(self, *shape: int, like: Tensor) -> Tensor:
        """See `RandomSource`."""
        return self._draw(shape, philox.UNIFORM).to(like.dtype)

    def _draw(self, shape: tuple[int, ...], kind: int, count: int | None = None) -> Tensor:
        """The next tensor of a shape, or the next `count` tensors [count, ...]."""
        places, whole = self._places_of(shape, count), shape if count is None else (count, *shape)
        out = (torch.empty if places.full else torch.zeros)(whole, dtype=torch.float32, device=self._device)
        if out.numel():
            draw_into(out, places, self._drawn[places.numbered], kind, self._kernels)
        self._drawn[places.numbered] += 1 if count is None else count
        return out

    def _places_of(self, shape: tuple[int, ...], count: int | None = None) -> Places:
        """Where the numbers of a tensor of a shape stand on the device, or those of `count` tensors [count, ...]."""
        if (shape, count) not in self._sent:
            places = self._places(shape)
            places = places if count is None else repeated(places, count)
            self._sent[shape, count] = places.to(self._device)
        return self._sent[shape, count]

    def undrawn_normals(self, count: int, *shape: int) -> Undrawn:
        """The next tensors of standard normals, as `normals` gives them, for a loop that draws them where it can."""
        places = self._places_of(shape)
        if places.contiguous and places.full:
            nth = self._drawn[places.numbered]
            self._drawn[places.numbered] += count
            return Undrawn(_NONE, places.rows, nth)
        drawn = self._draw(shape, philox.NORMAL, count)
        size = drawn.numel()
        return Undrawn(drawn.view(-1), torch.tensor([[0, 0, 0, size, max(1, size), 1, 0]]), 0)


class CountedStreamSource(CountedSource):
    """The same of one stream, for tensors of any shape."""

    by_sample: ClassVar[bool] = False


def draw_into(out: Tensor, places: Places, nth: int, kind: int, kernels: Kernels) -> None:
    """`philox.draw` by the backend of the device of `out`."""
    if backends.compiles(out.device, kernels):
        from ohmformer.streams import philox_compiled

        philox_compiled.draw(out, places, nth, kind)
    elif backends.has_kernels(out.device):
        from ohmformer.streams import philox_kernel

        philox_kernel.draw(out, places, nth, kind)
    else:
        philox.draw(out, places, nth, kind)
