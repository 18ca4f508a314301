"""Correcting the errors of weights in weights that are written later.

The inputs of a matrix are correlated, so an error in the weight of one input can be made up for by the weights of
others. Weights are written input by input: what read-backs show to be missing is added to the targets of the weights
that are still to be written, each by its share in the best linear prediction of the input. GPTQ (arXiv 2210.17323) does
this for rounding; here it is done for whatever is missing after a write, so no cell is written twice.

Shapes: O outputs, I inputs of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmformer.array.residual.writing import open_read_backs, write_slices
from ohmformer.array.writing import Writer
from ohmformer.streams import RandomSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from ohmformer.array.crossbar import WriteRequest

RIDGE = 0.03
"""Share of the mean power of the inputs that is added to each, so that rare inputs get no extreme corrections. For the
matrices of a ViT-S, on photographs that have no part in the moments, 0.1 gains as much, 0.01 is 0.1 dB worse and 0.001
0.8 dB."""
GROUP = 8
"""Number of inputs whose weights are written at the same time. For the matrices of a ViT-S, groups of 8 lose 0.1 dB of
the 7 to 9 dB that single inputs gain."""
BLOCK = 128
"""Number of inputs after which corrections of all later weights are made, a multiple of `GROUP`."""


@dataclass(frozen=True, eq=False)
class ErrorFeedback:
    """How errors of weights are corrected in later ones.

    Attributes:
        order: [I] the inputs, in the order in which their weights are written.
        shares: [I, I] in that order: what is missing in the weight of input i, times `shares[i, j]`, is added to the
            weight of a later input j. In half precision, which is enough for shares, and half as large in files.
    """

    order: Tensor
    shares: Tensor


def fit_feedback(moments: Tensor) -> ErrorFeedback:
    """Return the corrections with the smallest mean square error of the product, the strongest inputs first.

    Args:
        moments: second moments [I, I] of the inputs, up to a factor.
    """
    moments = moments.double()
    power = moments.diagonal().mean()
    ridge = torch.where(power > 0, RIDGE * power, 1.0)
    order = moments.diagonal().argsort(descending=True, stable=True)
    eye = torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    inverse = torch.cholesky_inverse(_cholesky(moments[order][:, order], ridge * eye))
    factor = torch.linalg.cholesky(inverse, upper=True)
    return ErrorFeedback(order, (-factor / factor.diagonal()[:, None]).triu(1).half())


def _cholesky(moments: Tensor, ridge: Tensor) -> Tensor:
    """Return the Cholesky factor of moments + ridge, with as large a multiple of the ridge as rounding errors need."""
    factor, failed = torch.linalg.cholesky_ex(moments + ridge)
    return factor if not bool(failed) else _cholesky(moments, 10 * ridge)


def corrected(request: WriteRequest, feedback: ErrorFeedback) -> Tensor:
    """Return the codes [O, I] to be written, with corrections for what earlier weights will miss.

    The cells that are then written with the same streams have the errors that were corrected.

    Args:
        request: a write of one matrix into an array with `residual`.
        feedback: the corrections.
    """
    order, shares = feedback.order.to(request.codes.device), feedback.shares.to(request.codes)
    targets = request.codes.index_select(-1, order).T.contiguous()
    missing = _missing_of_inputs(request, order)
    for start in range(0, len(targets), BLOCK):
        block, within = targets[start : start + BLOCK], shares[start : start + BLOCK, start : start + BLOCK]
        errors = torch.empty_like(block)
        for first in range(0, len(block), GROUP):
            group = slice(first, first + GROUP)
            block[group].clamp_(-request.largest, request.largest)
            errors[group] = missing(block[group], start + first)
            rest = block[first + GROUP :]
            rest.addmm_(within[group, first + GROUP :].T, errors[group])
        later = targets[start + BLOCK :]
        later.addmm_(shares[start : start + BLOCK, start + BLOCK :].T, errors)
    codes = torch.empty_like(request.codes)
    return codes.index_copy_(-1, order, targets.T)


def _missing_of_inputs(request: WriteRequest, order: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Return a function that writes targets [n, O] of n inputs, and returns what read-backs show to be missing.

    Its second argument is the place of the first of these inputs in the order.
    """
    writer = _WriterOfInputs(request, order)
    read_backs = open_read_backs(writer)

    def missing(targets: Tensor, place: int) -> Tensor:
        writer.place = slice(place, place + len(targets))
        steps = write_slices(targets.T, request.max_code, writer, writer.write_and_read_back, read_backs, last=True)
        *_, (_, _, rest) = steps
        return rest.T

    return missing


class _WriterOfInputs(Writer):
    """A writer of some inputs of a matrix after others, with the random numbers that the whole matrix has.

    Attributes:
        place: the inputs that are written, in the order of writing.
    """

    def __init__(self, request: WriteRequest, order: Tensor) -> None:
        # A read-back follows its write at once, so it sees no drift.
        array = request.array.model_copy(update={"age": 0.0})
        super().__init__(array, "cell", request.stream, request.fault_stream, request.major, request.codes.device)
        self.place = slice(0)
        self._order, self._whole = order, request.codes.unsqueeze(0)
        self._drawn: dict[tuple[int, int, int], Tensor] = {}
        self._faults: dict[int, Tensor] = {}

    def _normal(self, source: RandomSource, like: Tensor, P: int) -> Tensor:
        key = id(source), self.next_slice, P
        if key not in self._drawn:
            whole = super()._normal(source, self._whole, P)
            self._drawn[key] = whole.index_select(-1, self._order)
        return self._drawn[key][..., self.place]

    def _fault_numbers(self, like: Tensor, s: int) -> Tensor:
        if s not in self._faults:
            whole = super()._fault_numbers(self._whole.expand(2, -1, -1), s)
            self._faults[s] = whole.index_select(-1, self._order)
        return self._faults[s][..., self.place]
