"""Component models: energy and time of one use of each hardware component, and the area of an array.

Components of an energy breakdown: array, dac, adc, sample, shift_add, write, verify, register, buffer, bus, network,
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
    """A price as a number: 0 for "included", since another price contains it."""
    return 0.0 if isinstance(value, str) else value


def array_cost(array: Crossbar, role: str) -> ArrayCost:
    """The prices of an array.

    Args:
        array: the array.
        role: role of its engine, such as "projection"; the message names it.

    Raises:
        BadInput: the array has no prices.
    """
    if array.cost is None:
        raise BadInput(
            f"hardware.{role}.array.cost: is missing, so time and energy are unknown; "
            "take an accelerator whose arrays have prices (`ohmformer list`), or add the table"
        )
    return array.cost


def converter_bits(array: Crossbar) -> int:
    """Resolution of the ADC that is priced [bits]; an ideal ADC is priced as the smallest that loses nothing."""
    if array.adc.bits != "ideal":
        return array.adc.bits
    serial = array.inputs.kind == "bit_serial"
    top = 1 if serial else array.max_input(signed=True)
    both = array.subtract == "analog" or not serial
    return bits_needed(array.rows, array.bits_per_cell, max_input=top, both_signs=both)


def conversion(array: Crossbar, role: str) -> tuple[float, float]:
    """Energy [J] and time [s] of one conversion; both are proportional to the resolution, as in PUMA's simulator."""
    cost = array_cost(array, role)
    share = converter_bits(array) / cost.adc_bits
    return price(cost.adc_energy) * share, cost.adc_time * share


def access_time(array: Crossbar, role: str) -> float:
    """Time of one access of an array [s]: the read, or the conversions of one ADC's columns if longer."""
    cost = array_cost(array, role)
    _, time = conversion(array, role)
    return max(cost.read_time, min(array.adc.columns_per_adc, array.columns) * time)


def mvm_cost(plan: Plan, vectors: float, role: str) -> Cost:
    """Cost of matrix-vector products on arrays.

    Args:
        plan: the matrices.
        vectors: number of input vectors that each matrix multiplies.
        role: role of the engine, for messages.

    Returns:
        The energy of all vectors; latency and interval of one vector.
    """
    array = plan.array
    cost = array_cost(array, role)
    one_vector = plan.reads(1)
    conversions = one_vector.adc_conversions
    access, (adc_energy, _) = access_time(array, role), conversion(array, role)
    cycles = array.cycles() if cost.timing == "bit_serial" else 1
    fill = cost.fill_cycles if cost.timing == "bit_serial" else 0
    rows = array.cycles() * plan.inputs * plan.column_blocks * plan.matrices * plan.slices * array.polarities
    energy = {
        "array": one_vector.activations * price(cost.read_energy),
        "dac": rows * price(cost.dac_energy),
        "adc": conversions * adc_energy,
        "sample": conversions * price(cost.sample_energy),
        "shift_add": conversions * price(cost.shift_add_energy),
    }
    energy = {name: value * vectors for name, value in energy.items() if value}
    return Cost(energy, (cycles + fill) * access, cycles * access)


def write_cost(plan: Plan, role: str, *, cells: int | None = None) -> Cost:
    """Cost of writing the cells of a plan once.

    Verified writes are repeated. A verifying read between them drives one row and converts each of its columns.

    Args:
        plan: the matrices.
        role: role of the engine, for messages.
        cells: number of cells that are written; by default all cells of the plan.

    Returns:
        The energy of all cells; as latency and interval the time of one row, which all arrays write at the same time.

    Raises:
        BadInput: the cell has no write time or no write energy.
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
    number, expected = plan.cells if cells is None else cells, effort(plan.array, plan.slices)
    energy, time = {"write": number * cell.write_energy * expected.writes}, cell.write_time * expected.row_writes
    if expected.reads:
        energy["verify"] = number * expected.reads * _verify_read_energy(plan.array, role)
        time += expected.row_reads * access_time(plan.array, role)
    return Cost(energy, time, time)


def _verify_read_energy(array: Crossbar, role: str) -> float:
    """Energy of one verifying read per cell [J]: the cell's share of one driven row, and one conversion."""
    cost, (conversion_energy, _) = array_cost(array, role), conversion(array, role)
    share = price(cost.read_energy) / array.rows + price(cost.dac_energy)
    return share / array.columns + price(cost.sample_energy) + conversion_energy


def transfer_cost(chip: Chip, bytes_in: float, bytes_out: float) -> Cost:
    """Cost of moving operands from a tile's memory to a core, and results back and on to the next stage.

    Args:
        chip: prices of registers, buffers, buses and the network.
        bytes_in: bytes of operands.
        bytes_out: bytes of results.

    Returns:
        Energy, and one network latency. Bandwidth is taken to suffice.
    """
    both = bytes_in + bytes_out
    energy = {
        "register": both * price(chip.register_energy),
        "buffer": both * price(chip.buffer_energy),
        "bus": both * price(chip.bus_energy),
        "network": bytes_out * price(chip.network_energy),
    }
    return Cost({name: value for name, value in energy.items() if value}, chip.network_latency)


def lanes_cost(chip: Chip, operations: float, count: int, vectors: float, *, name: str = "vector") -> Cost:
    """Cost of operations on vector lanes.

    Args:
        chip: clock and prices.
        operations: number of operations for all tokens.
        count: number of lanes.
        vectors: number of tokens.
        name: component of the breakdown.

    Returns:
        The energy of all operations; as interval the time per token.
    """
    time = operations / vectors / (count * chip.clock)
    return Cost({name: operations * chip.vector.energy_per_op}, 0.0, time)


def softmax_cost(chip: Chip, unit: SoftmaxUnit, rows: float, length: int) -> Cost:
    """Cost of softmax in dedicated units, one per head.

    Args:
        chip: clock.
        unit: lanes and prices.
        rows: number of rows of scores, of all heads.
        length: values per row.

    Returns:
        The energy of all rows; as interval the time of one row in the lanes of its head.
    """
    return Cost({"softmax": rows * length * unit.energy_per_element}, 0.0, length / (unit.lanes_per_head * chip.clock))


def array_area(array: Crossbar, role: str) -> float:
    """Area of one array with its drivers, converters, sample-and-hold circuits and adders [m^2]."""
    cost = array_cost(array, role)
    converters = ceil(array.columns / array.adc.columns_per_adc)
    return (
        price(cost.area)
        + array.rows * price(cost.dac_area)
        + array.columns * price(cost.sample_area)
        + converters * price(cost.adc_area)
        + price(cost.shift_add_area)
    )
