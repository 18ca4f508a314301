"""Sources whose numbers come from the counter-based generator: those of all keys of a tensor at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ohmformer.streams import backends, philox
from ohmformer.streams.backends import Kernels
from ohmformer.streams.places import Places, repeated
from ohmformer.streams.sources import RandomSource


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
        (places, nth), whole = self.next_places(shape, count), shape if count is None else (count, *shape)
        out = (torch.empty if places.full else torch.zeros)(whole, dtype=torch.float32, device=self._device)
        if out.numel():
            draw_into(out, places, nth, kind, self._kernels)
        return out

    def next_places(self, shape: tuple[int, ...], count: int | None = None) -> tuple[Places, int]:
        """Where the numbers of the next tensor of a shape stand, which then counts as drawn.

        Args:
            shape: of the tensor.
            count: None, or number of such tensors that follow one another, [count, ...].

        Returns:
            The places, and how many tensors were drawn before.
        """
        if (shape, count) not in self._sent:
            places = self._places(shape)
            places = places if count is None else repeated(places, count)
            self._sent[shape, count] = places.to(self._device)
        places = self._sent[shape, count]
        nth = self._drawn[places.numbered]
        self._drawn[places.numbered] += 1 if count is None else count
        return places, nth


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
