"""Specification of the circuits around an array: row drivers and converters that are not ideal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ohmformer.quantities import Mismatch, Share, Volts
from ohmformer.schema import Spec

if TYPE_CHECKING:
    from ohmformer.array.spec import Crossbar

MOST_SINH = 20.0
"""Largest ratio of read voltage to V_0: sinh(20) is 2.4e8, beyond which nearly all inputs give no current."""
TRIM_SPAN = 4.0
"""A trim covers this many standard deviations of a mismatch, on both sides of zero."""


class MismatchCalibration(Spec):
    """Measurement and correction of the gain and the offset of each converter, once for a chip.

    Each converter measures a current of zero and one of the full range, `reads` times each. The means give its offset
    and its gain, with the error that output noise leaves. Both are corrected in the analog domain by trims of `bits`
    bits, whose steps span four standard deviations of the mismatch on both sides; a mismatch beyond takes the last
    step.
    """

    reads: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["ideal"] = "ideal"
    """Number of conversions behind each mean; "ideal" measures without error."""
    bits: Annotated[int, Field(ge=1, le=24)] | Literal["ideal"] = "ideal"
    """Resolution of the trims; "ideal" corrects by exactly what was measured."""


class Peripherals(Spec):
    """Row drivers and converters that are not ideal.

    Drivers. One driver feeds a row in all arrays that hold a matrix: its slices, both halves of pairs and all blocks of
    columns. A row whose input is zero is not driven, so it adds no noise.

    Converters. Before it is rounded, the current I of a column becomes (1 + gain) I + offset + noise. Gain and offset
    belong to a converter, which `adc.columns_per_adc` neighboring columns of an array share, and to a chip. Arrays
    whose rows all have the input zero are not converted, so they add neither offset nor noise.
    """

    input_noise: Share = 0.0
    """Standard deviation of the voltage of a row in one read, as a share of its largest voltage. Bits that are sent one
    by one have noise of their own."""
    output_noise: Share = 0.0
    """Standard deviation of the noise of one conversion, as a share of the range of the converter, from its lowest to
    its highest current."""
    gain_mismatch: Mismatch = 0.0
    """Standard deviation of the relative error of the gain, from converter to converter."""
    offset_mismatch: Mismatch = 0.0
    """Standard deviation of the offset, from converter to converter, as a share of the range of the converter."""
    calibration: MismatchCalibration | None = None
    """Calibration of gain and offset; None leaves them as they are."""
    read_voltage: Annotated[Volts, Field(gt=0)] | None = None
    """Voltage of a row at the largest input [V]. Only for cells with a curved current, see `cell.sinh_voltage`."""
    predistorted: bool = False
    """True if the driver takes, for every input code, the voltage level at which the current is nearest to being in
    proportion to the code. The levels are those of a linear DAC of `inputs.bits` bits."""


def draws_for_reads(array: Crossbar) -> bool:
    """True if reads draw noise of row drivers or converters."""
    parts = array.peripherals
    return parts.input_noise > 0 or parts.output_noise > 0


def mismatched(array: Crossbar) -> bool:
    """True if converters differ in gain or offset, after their calibration."""
    parts = array.peripherals
    if not (parts.gain_mismatch or parts.offset_mismatch):
        return False
    how = parts.calibration
    return how is None or how.bits != "ideal" or (how.reads != "ideal" and parts.output_noise > 0)


def distorts(array: Crossbar) -> bool:
    """True if currents are not in proportion to input codes. Only amplitudes drive more than one voltage."""
    return array.cell.sinh_voltage is not None and array.inputs.kind == "amplitude"


def unsuited(array: Crossbar) -> str:
    """Say which peripherals the rest of an array does not allow, as fault and remedy; empty if it allows all."""
    parts = array.peripherals
    if distorts(array):
        if parts.read_voltage is None:
            return (
                "peripherals.read_voltage: is missing, but cell.sinh_voltage distorts amplitudes by the voltage; give "
                "the voltage of the largest input, or use inputs.kind = 'bit_serial'"
            )
        if parts.read_voltage > MOST_SINH * (array.cell.sinh_voltage or 0.0):
            return (
                f"peripherals.read_voltage = {parts.read_voltage:g} V is above {MOST_SINH:g} times cell.sinh_voltage = "
                f"{array.cell.sinh_voltage:g} V; correct one of them"
            )
        if array.wires is not None:
            return (
                "wires: cells whose current is not linear (cell.sinh_voltage) are not solved in a network of wires; "
                "use inputs.kind = 'bit_serial', or leave one of them out"
            )
    if parts.predistorted and not distorts(array):
        return (
            "peripherals.predistorted = true needs inputs.kind = 'amplitude' and cell.sinh_voltage; leave it out, or "
            "give both"
        )
    shares = [name for name in ("output_noise", "offset_mismatch") if getattr(parts, name)]
    if shares and array.adc.bits == "ideal" and array.adc.range.kind != "given":
        return (
            f"peripherals.{shares[0]} = {getattr(parts, shares[0]):g} is a share of the range of a converter, but "
            "adc.bits = 'ideal' has none; give adc.bits, or adc.range.kind = 'given' with adc.range.high"
        )
    if parts.gain_mismatch and array.encoding == "offset" and array.subtract == "analog":
        return (
            f"peripherals.gain_mismatch = {parts.gain_mismatch:g} is not simulated where a reference column is "
            "subtracted in the analog domain; use subtract = 'digital', or encoding = 'differential'"
        )
    return ""
