"""Vectors of numbers in code that is made for LLVM, where a loop of numba would not become vectors.

It needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

LANES = 16
"""Numbers of a vector."""
ALIGNMENT = 4
"""Of numbers in memory."""
ROUNDING = 12582912.0
"""A number below 2^22 that is added to it has no bits for a fraction left, see `input_codes_compiled.rounded`."""


class Vectors:
    """Vectors of `LANES` numbers in the code that a builder of LLVM makes."""

    def __init__(self, builder: Any) -> None:
        self.builder, self.type = builder, ir.VectorType(ir.FloatType(), LANES)

    def all(self, value: float) -> Any:
        """A constant in all places."""
        return ir.Constant(self.type, [value] * LANES)

    def spread(self, number: Any) -> Any:
        """A number in all places."""
        word = ir.IntType(32)
        first = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), number, word(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(word, LANES), [0] * LANES))

    def at(self, base: Any, offset: Any) -> Any:
        """The place of a vector that begins some numbers behind a pointer."""
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.type.as_pointer())

    def load(self, place: Any) -> Any:
        """A vector in memory."""
        loaded = self.builder.load(place)
        loaded.align = ALIGNMENT
        return loaded

    def store(self, vector: Any, place: Any) -> None:
        """Write a vector to memory."""
        self.builder.store(vector, place).align = ALIGNMENT

    def clamped(self, a: Any, lowest: Any, highest: Any) -> Any:
        """Numbers moved to the nearest bound if they lie beyond it."""
        a = self.builder.select(self.builder.fcmp_ordered("<", a, lowest), lowest, a)
        return self.builder.select(self.builder.fcmp_ordered(">", a, highest), highest, a)

    def rounded(self, a: Any, rounding: Any) -> Any:
        """Numbers rounded to whole ones by `ROUNDING` in all places, or to multiples of 2^n by that times 2^n."""
        return self.builder.fsub(self.builder.fadd(a, rounding), rounding)

    def quotient(self, a: Any, b: Any, inverse: Any) -> Any:
        """a / b, rounded once, in a third of the time of a division, from the rounded inverse of b."""
        first = self.builder.fmul(a, inverse)
        return self.fused(self.fused(self.builder.fneg(first), b, a), inverse, first)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        kind = ir.FunctionType(self.type, [self.type] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fma.v{LANES}f32")
        return self.builder.call(function, [a, b, c])
