"""Which ways to protect K and V are compared within a budget?

`recipes_within` is the list of them: the recipes that are compared without a budget, and conditionings combined with
residual writing, redundancy, and first tokens that stay digital. A further way is a further entry of the list; its
recipe says how an operand is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import ClassVar, Literal

from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Copies, Crossbar
from ohmformer.mitigation.budget import KVBudget
from ohmformer.mitigation.spec import Conditioning
from ohmformer.nn.calibration.recipes import (
    Recipe,
    best_conditioner,
    fit_range_to_observed,
    recipe_of,
    supported_radices,
)
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.quantities import WholeNumber
from ohmformer.registry import register

PLAIN = ("none", "clip", "firm clip", "hadamard", "balanced")
"""The recipes of the remedy `auto`, the cheapest first."""

Basis = Literal["own", "hadamard", "balanced"]

BASES: tuple[Basis, ...] = ("own", "hadamard", "balanced")
"""Bases of the further candidates, the cheapest first."""

REDUNDANCY = 2
"""Number of cells for every digit in the candidates with redundancy."""


@register
class Combined(Recipe):
    """A conditioning, combined with residual writing, redundancy and first tokens that stay digital, as far as stated.

    Range and radix are chosen for each operand. With the basis `own`, neither mean nor scale changes, so range and
    radix cost nothing. Where an array supports no residual writing or no redundancy, its operand is written without it.

    Attributes:
        basis: basis of the features.
        residual: the read-back of residual writing; None to write all cells of a value at once.
        redundancy: factor by which the redundancy of the array is multiplied.
        first_tokens: number of tokens at the start of a sequence that stay digital.
    """

    renamed: ClassVar[dict[str, str]] = {"copies": "redundancy"}

    kind: Literal["combined"] = "combined"
    basis: Basis = "own"
    residual: Residual | None = None
    redundancy: Copies = 1
    first_tokens: WholeNumber = 0

    @property
    def label(self) -> str:
        """Basis, way of writing, redundancy and digital tokens in words."""
        words = [
            "range and radix" if self.basis == "own" else self.basis,
            "residual" if self.residual is not None else "",
            f"{self.redundancy} copies" if self.redundancy > 1 else "",
            f"first {self.first_tokens} digital" if self.first_tokens else "",
        ]
        return ", ".join(filter(None, words))

    def set_up(self, operand: KVOperand) -> None:
        """Set the conditioning with the smallest expected error."""
        operand.condition(best_conditioner(operand, self._start(operand.plain)))
        fit_range_to_observed(operand)

    def _start(self, array: Crossbar) -> Conditioning:
        """The conditioning of an array but for its range and its radix: as wished, or without what it does not support.

        Raises:
            BadInput: the array supports not even the basis.
        """
        wished = list(self._conditionings(array))
        supported = (spec for spec in wished if supported_radices(array, spec))
        return next(supported, wished[-1])

    def _conditionings(self, array: Crossbar) -> Iterator[Conditioning]:
        """Conditionings in falling order of preference."""
        residual = self.residual if array.residual is None else None  # the array has a read-back of its own
        own = self.basis == "own"
        for how, factor in product(dict.fromkeys((residual, None)), dict.fromkeys((self.redundancy, 1))):
            yield Conditioning(
                mean=not own,
                basis=self.basis,
                scale=None if own else "token",
                unbiased=not own and how is None and array.residual is None,
                redundancy=array.redundancy * factor if factor > 1 else None,
                residual=how,
                first_tokens=self.first_tokens,
            )


def recipes_within(budget: KVBudget) -> list[Recipe]:
    """Return the recipes to compare for a budget, the cheapest first."""
    further = [
        Combined(basis=basis, residual=residual, redundancy=redundancy, first_tokens=first)
        for first in dict.fromkeys((0, budget.first_tokens))
        for redundancy in ((1, REDUNDANCY) if budget.cells is None or budget.cells >= REDUNDANCY else (1,))
        for residual in (None, budget.residual)
        for basis in BASES
        if basis == "own" or residual is not None or redundancy > 1 or first  # else it is one of the plain ones
    ]
    return [*(recipe_of(name) for name in PLAIN), *further]
