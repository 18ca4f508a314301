"""The cost of using arrays: of matrix-vector products, of writing cells, and of the read-backs of a write.

The price of each event (a read, a conversion) is that of `cost/scaled_array_prices.py`; here it is multiplied by the
number of events.
"""

from __future__ import annotations

from ohmformer.array.prices.differences import check_write, converter_bits
from ohmformer.array.spec import Crossbar
from ohmformer.cost.attention.array_sides import by_columns
from ohmformer.cost.attention.partial_reads import PartialReads
from ohmformer.cost.cost import Cost
from ohmformer.cost.scaled_array_prices import ArrayPrices, array_cost, priced
from ohmformer.errors import BadInput
from ohmformer.hardware.write_lines import WriteLines
from ohmformer.mapping.planning import Plan


def mvm_cost(plan: Plan, vectors: float, role: str, *, partial: PartialReads | None = None) -> Cost:
    """Cost of matrix-vector products on arrays.

    Args:
        plan: the matrices.
        vectors: number of input vectors that each matrix multiplies.
        role: role of the engine, for messages.
        partial: events of all vectors, if vectors use parts of the matrices; None if each uses all of them.

    Returns:
        The energy of all vectors; latency and interval of one vector that uses a whole matrix.
    """
    array = plan.array
    cost, prices, cycles = array_cost(array, role), priced(array, role), array.cycles()
    reads = plan.reads(1)
    rows = cycles * plan.inputs * plan.column_blocks * plan.matrices * plan.slices * array.polarities
    if partial is not None:
        reads, rows, vectors = partial.counts, partial.rows, 1
    conversions = reads.adc_conversions
    samples = conversions
    if array.inputs.kind == "integrated":
        samples = conversions // array.inputs.phases * cycles  # every pulse is sampled, every group of bits converted
    energy = {
        "array": reads.activations * prices.read_energy,
        "dac": rows * prices.dac_energy,
        "adc": conversions * prices.adc_energy,
        "sample": samples * prices.sample_energy,
        "shift_add": conversions * prices.shift_add_energy,
    }
    energy = {name: value * vectors for name, value in energy.items() if value}
    fill = cost.fill_cycles
    if cost.timing == "one_access":
        cycles, fill = 1, 0
    interval, latency = cycles * prices.access_time, (cycles + fill) * prices.access_time
    if array.inputs.kind == "integrated":
        # the integrator of a column holds the sum until it is converted, so pulses and conversions follow one another
        interval = array.inputs.reads * prices.read_time + array.inputs.phases * prices.conversion_time
        latency = interval + fill * prices.access_time
    return Cost(energy, latency, interval)


def write_cost(plan: Plan, role: str, *, cells: int | None = None, lines: WriteLines = "rows") -> Cost:
    """Cost of writing the cells of a plan once.

    Verified writes are repeated. A verifying read between them drives one row and converts each of its columns. With
    residual writing, the slices of a line are written one after another, with such a read of each but the last.

    Args:
        plan: the matrices.
        role: role of the engine, for messages.
        cells: number of cells that are written; by default all cells of the plan.
        lines: lines that writing selects.

    Returns:
        The energy of all cells; as latency and interval the time of one line, which all arrays write at the same time.

    Raises:
        BadInput: the cell has no write time or no write energy, or the lines have no price.
    """
    array, cell = plan.array, plan.array.cell
    read_back = "write_verify" if array.write_verify is not None else "residual" if array.residual is not None else ""
    if lines == "columns" and read_back:
        what = "verified" if read_back == "write_verify" else "residual"
        raise BadInput(
            f"hardware.{role}.write_lines = 'columns': {what} writes are read back a row at a time, so a column has "
            f"no price; take 'rows' or 'transposable', or leave array.{read_back} out"
        )
    written = array if lines != "columns" else by_columns(array, role)
    for name, stated in (("write_time", cell.write_time), ("write_energy", cell.write_energy)):
        if stated is None:
            raise BadInput(
                f"hardware.{role}.array.cell.{name}: is missing, so writing has no price; "
                "add it with its source, or put attention on another engine"
            )
    assert cell.write_time is not None
    assert cell.write_energy is not None
    check_write(array, f"hardware.{role}.array")
    ratio, row_time = cell.pulse_ratio, cell.write_time * cell.pulse_ratio
    if array.cost is not None:
        prices = priced(written, role)
        assert prices.write_time is not None
        ratio, row_time = prices.write_energy_ratio, prices.write_time
    count, expected = plan.cells if cells is None else cells, plan.effort
    energy = {"write": count * (cell.write_energy * ratio) * expected.writes}
    time = row_time * expected.row_writes
    if expected.reads:
        name = "verify" if array.residual is None else "read back"
        energy[name] = count * expected.reads * _read_back_energy(array, role)
        time += expected.row_reads * priced(array, role).access_time
    return Cost(energy, time, time)


def row_read_cost(plan: Plan, role: str) -> Cost:
    """Cost of reading the cells of a plan, one driven row at a time, with one conversion of each column.

    Args:
        plan: the matrices.
        role: role of the engine, for messages.

    Returns:
        The energy of all cells; as latency and interval the time of one row, which all arrays read at the same time.

    Raises:
        BadInput: the array has no prices.
    """
    prices = priced(plan.array, role)
    energy = plan.cells * _one_row_energy(prices, plan.array, plan.array.column_circuits)
    return Cost({"drift reading": energy}, prices.access_time, prices.access_time)


def _read_back_energy(array: Crossbar, role: str) -> float:
    """Energy of one read-back per cell [J]: the cell's share of one driven row, and one conversion.

    Pairs that are subtracted in the analog domain share the conversion of residual writing.

    Raises:
        BadInput: residual writing reads back with more bits than the converter has.
    """
    prices, how = priced(array, role), array.residual
    if how is not None and how.bits != "ideal" and how.bits > converter_bits(array):
        raise BadInput(
            f"hardware.{role}.array.residual.bits = {how.bits}: is above the {converter_bits(array)} bits of the "
            "converter that is priced; lower it, or raise array.adc.bits"
        )
    return _one_row_energy(prices, array, 1.0 if how is None else array.column_circuits)


def _one_row_energy(prices: ArrayPrices, array: Crossbar, conversions: float) -> float:
    """Energy per cell [J] of driving one row alone, with a number of conversions of each column."""
    share = prices.read_energy / array.rows + prices.dac_energy
    return share / array.columns + conversions * (prices.sample_energy + prices.adc_energy)
