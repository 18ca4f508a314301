"""Two-factor `einsum` equations as matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from string import ascii_letters
from typing import Any

from torch import Tensor

Matrices = tuple[Tensor, Tensor, Callable[[Tensor], Tensor], tuple[Tensor, Tensor]]
"""Left factor, right factor, the function that makes the result from their product, and views of the operands."""


def as_matrices(equation: str, factors: Sequence[Any]) -> Matrices | None:
    """An `einsum` equation as a matrix product.

    Returns:
        left[..., M, I], right[..., O, I], the function from their product [..., M, O] to the result of the equation,
        and views of both factors with their axes in this order, before axes were joined (which may copy). None if the
        equation is not a product of two matrices: it has another number of factors, a letter twice in one factor, or
        a sum over a letter of one factor alone.
    """
    letters = _letters(equation, factors)
    if letters is None:
        return None
    a, b, out = letters
    if any(len(set(word)) < len(word) for word in (a, b, out)) or not set(out) <= set(a) | set(b):
        return None
    shared = [c for c in out if c in a and c in b]
    rows, columns = [c for c in out if c in a and c not in b], [c for c in out if c in b and c not in a]
    summed = [c for c in a if c in b and c not in out]
    if set(a) - set(shared) - set(rows) - set(summed) or set(b) - set(shared) - set(columns) - set(summed):
        return None
    if not summed:
        return None
    left, right = factors
    size = {c: n for word, factor in ((a, left), (b, right)) for c, n in zip(word, factor.shape, strict=True)}
    size |= {c: max(left.shape[a.index(c)], right.shape[b.index(c)]) for c in shared}

    def ordered(factor: Tensor, word: str, free: list[str]) -> Tensor:
        return factor.permute([word.index(c) for c in chain(shared, free, summed)])

    def folded(ordered: Tensor, free: list[str]) -> Tensor:
        lead = ordered.shape[: len(shared)]
        return ordered.reshape(*lead, prod(size[c] for c in free), prod(size[c] for c in summed))

    def finish(y: Tensor) -> Tensor:
        order = [*shared, *rows, *columns]
        lead = y.shape[: len(shared)]
        y = y.reshape((*lead, *(size[c] for c in chain(rows, columns))))
        return y.permute([order.index(c) for c in out])

    views = ordered(left, a, rows), ordered(right, b, columns)
    return folded(views[0], rows), folded(views[1], columns), finish, views


def _letters(equation: str, factors: Sequence[Any]) -> tuple[str, str, str] | None:
    """The letters of left factor, right factor and result, ellipses spelled out; None unless there are two factors."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    words = inputs.split(",")
    if len(words) != 2 or len(factors) != 2 or not all(isinstance(factor, Tensor) for factor in factors):
        return None
    free = [c for c in ascii_letters if c not in equation]
    unnamed = [factor.dim() - len(word.replace("...", "")) for word, factor in zip(words, factors, strict=True)]
    unnamed = [n if "..." in word else 0 for n, word in zip(unnamed, words, strict=True)]
    if min(unnamed) < 0 or max(unnamed) > len(free):
        return None
    dots = "".join(free[: max(unnamed)])
    a, b = (word.replace("...", dots[len(dots) - n :]) for word, n in zip(words, unnamed, strict=True))
    if any(len(word) != factor.dim() for word, factor in zip((a, b), factors, strict=True)):
        return None
    if not arrow:
        once = sorted(c for c in {*a, *b} - {*dots} if (a + b).count(c) == 1)
        return a, b, dots + "".join(once)
    return a, b, output.replace("...", dots)
