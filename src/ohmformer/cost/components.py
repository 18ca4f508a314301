"""Components: from what they are to what one use of them costs, and the area that they take.

Names of components in a breakdown: array, dac, adc, sample, shift_add, write, verify, register, buffer, bus, network,
vector, softmax, conditioning, simd, dram, gpu, static.
"""

from __future__ import annotations

from math import ceil

from ohmformer.array.spec import ArrayCost, Crossbar, bits_needed
from ohmformer.cost.cost import Cost
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip, SoftmaxUnit
from ohmformer.mapping.planning import Plan
from ohmformer.mapping.write_effort import effort


def price(value: float | str) -> float:
    """What is to be added: nothing for what another price includes."""
    return 0.0 if isinstance(value, str) else value


def array_cost(array: Crossbar, role: str) -> ArrayCost:
    """The prices of an array.

    Raises:
        BadInput: it has none.
    """
    if array.cost is None:
        raise BadInput(
            f"hardware.{role}.array.cost: is missing, so nothing can be said of time and energy; "
            "take an accelerator whose arrays have prices (`ohmformer list`), or add the table"
        )
    return array.cost


def converter_bits(array: Crossbar) -> int:
    """Bits of the converter that is paid for: an ideal one is the smallest that loses nothing."""
    if array.adc.bits != "ideal":
        return array.adc.bits
    serial = array.inputs.kind == "bit_serial"
    top = 1 if serial else array.max_input(signed=True)
    both = array.subtract == "analog" or not serial
    return bits_needed(array.rows, array.bits_per_cell, max_input=top, both_signs=both)


def conversion(array: Crossbar, role: str) -> tuple[float, float]:
    """Energy [J] and time [s] of one conversion: proportional to its bits."""
    cost = array_cost(array, role)
    share = converter_bits(array) / cost.adc_bits
    return price(cost.adc_energy) * share, cost.adc_time * share


def access_time(array: Crossbar, role: str) -> float:
    """One access of an array [s]: reading it, or converting all columns of a converter while the next read runs."""
    cost = array_cost(array, role)
    _, time = conversion(array, role)
    return max(cost.read_time, min(array.adc.columns_per_adc, array.columns) * time)


def multiply(plan: Plan, vectors: float, role: str) -> Cost:
    """`vectors` input vectors through every matrix of a plan: the energy of all, latency and interval of one."""
    array = plan.array
    cost = array_cost(array, role)
    once = plan.reads(1)
    conversions = once.adc_conversions
    access, (adc_energy, _) = access_time(array, role), conversion(array, role)
    cycles = array.cycles() if cost.timing == "bit_serial" else 1
    fill = cost.fill_cycles if cost.timing == "bit_serial" else 0
    rows = array.cycles() * plan.inputs * plan.column_blocks * plan.matrices * plan.slices * array.polarities
    energy = {
        "array": once.activations * price(cost.read_energy),
        "dac": rows * price(cost.dac_energy),
        "adc": conversions * adc_energy,
        "sample": conversions * price(cost.sample_energy),
        "shift_add": conversions * price(cost.shift_add_energy),
    }
    kept = {name: value * vectors for name, value in energy.items() if value}
    return Cost(kept, (cycles + fill) * access, cycles * access)


def write(plan: Plan, role: str, *, cells: int | None = None) -> Cost:
    """Writing cells of a plan once, by default all: their energy, and the time of one row of every array at once.

    Verified writes are repeated, and read back in between: one driven row, each of its columns converted.
    """
    cell = plan.array.cell
    for name in ("write_time", "write_energy"):
        if getattr(cell, name) is None:
            raise BadInput(
                f"hardware.{role}.array.cell.{name}: is missing, so writing has no price; "
                "add it with its source, or put attention on another engine"
            )
    assert cell.write_time is not None
    assert cell.write_energy is not None
    number, made = plan.cells if cells is None else cells, effort(plan.array, plan.slices)
    energy, time = {"write": number * cell.write_energy * made.writes}, cell.write_time * made.row_writes
    if made.reads:
        energy["verify"] = number * made.reads * _reading_back(plan.array, role)
        time += made.row_reads * access_time(plan.array, role)
    return Cost(energy, time, time)


def _reading_back(array: Crossbar, role: str) -> float:
    """Energy of one verifying read of a cell [J]: its share of an access, of a driven row, and one conversion."""
    cost, (conversion_energy, _) = array_cost(array, role), conversion(array, role)
    share = price(cost.read_energy) / array.rows + price(cost.dac_energy)
    return share / array.columns + price(cost.sample_energy) + conversion_energy


def transfer(chip: Chip, bytes_in: float, bytes_out: float) -> Cost:
    """Operands from a tile's memory to a core and results back, and on to the next stage."""
    both = bytes_in + bytes_out
    energy = {
        "register": both * price(chip.register_energy),
        "buffer": both * price(chip.buffer_energy),
        "bus": both * price(chip.bus_energy),
        "network": bytes_out * price(chip.network_energy),
    }
    return Cost({name: value for name, value in energy.items() if value}, chip.network_latency)


def lanes(chip: Chip, operations: float, count: int, vectors: float, *, name: str = "vector") -> Cost:
    """Operations on `count` vector lanes: the energy of all, and the time of those for one of `vectors` tokens."""
    time = operations / vectors / (count * chip.clock)
    return Cost({name: operations * chip.vector.energy_per_op}, 0.0, time)


def softmax(chip: Chip, unit: SoftmaxUnit, rows: float, length: int) -> Cost:
    """Softmax of all rows in units of their own: the energy of all; each head's lanes take one row after another."""
    return Cost({"softmax": rows * length * unit.energy_per_element}, 0.0, length / (unit.lanes_per_head * chip.clock))


def array_area(array: Crossbar, role: str) -> float:
    """One array with its drivers, converters, sampling and adders [m^2]."""
    cost = array_cost(array, role)
    converters = ceil(array.columns / array.adc.columns_per_adc)
    return (
        price(cost.area)
        + array.rows * price(cost.dac_area)
        + array.columns * price(cost.sample_area)
        + converters * price(cost.adc_area)
        + price(cost.shift_add_area)
    )
