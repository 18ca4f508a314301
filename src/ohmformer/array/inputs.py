"""How input codes are sent to the rows of a crossbar: bit by bit, as voltages, or as pulses whose charge is added."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.quantities import Percentile
from ohmformer.schema import Spec


class Inputs(Spec):
    """Fields common to all ways of sending inputs to the rows."""

    bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Bits of an input code."""
    range: Literal["calibrated", "dynamic"] = "calibrated"
    """Value of the largest input code. `calibrated`: a percentile of the magnitudes in calibration data, fixed
    afterward. `dynamic`: the largest magnitude of each input vector, found by digital logic at run time."""
    percentile: Percentile = 100.0
    """Percentile of a `calibrated` range, in percent; 100 is the maximum."""


class BitSerial(Inputs):
    """Inputs are sent bit by bit, with one read of the array per bit: two's complement if signed, otherwise binary."""

    kind: Literal["bit_serial"] = "bit_serial"


class Amplitude(Inputs):
    """Inputs are voltages of either sign from a DAC of `bits` bits, with one read of the array per input vector."""

    kind: Literal["amplitude"] = "amplitude"


class Integrated(Inputs):
    """Inputs are sent bit by bit, and a column is converted once for all bits.

    Every bit is a pulse on its row, whose sign is that of the input: `bits` - 1 pulses for the magnitude of a code. The
    charge of each pulse is added in the analog domain with the weight of its bit, and the sum is converted, as in
    NeuRRAM (Wan et al., Nature 608, 2022) and many SRAM macros.

    Inputs without a sign use the pulses of the magnitude only. With one bit there is one pulse, for codes of -1, 0 and
    1.
    """

    cost_fields: ClassVar[tuple[str, ...]] = ("weighting", "phases")

    kind: Literal["integrated"] = "integrated"
    bits: Annotated[int, Field(ge=1, le=16)] = 8
    """Bits of an input code, its sign included."""
    weighting: Literal["charge", "repetition"] = "charge"
    """How bits get their weights. `charge`: by the circuit, so that every pulse takes the time of one read.
    `repetition`: the charge of bit k is added 2^k times, which takes 2^k reads; the pulse is driven once."""
    phases: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of groups of bits, as equal as possible. Every group is converted by itself; digital logic adds them."""

    @model_validator(mode="after")
    def _has_bits_for_phases(self) -> Integrated:
        if self.phases > self.pulses:
            raise ValueError(
                f"phases = {self.phases}: is above {self.pulses} pulses of bits = {self.bits}; lower it, or raise bits"
            )
        return self

    @property
    def pulses(self) -> int:
        """Number of pulses on a row: one for each bit of the magnitude."""
        return max(1, self.bits - 1)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Number of pulses of each group of bits, the least significant group first."""
        whole, more = divmod(self.pulses, self.phases)
        return tuple(whole + (group < more) for group in range(self.phases))

    @property
    def reads(self) -> int:
        """Number of read times that all pulses take."""
        if self.weighting == "charge":
            return self.pulses
        return sum((1 << size) - 1 for size in self.group_sizes)


InputStreaming = Annotated[BitSerial | Amplitude | Integrated, Field(discriminator="kind")]
