"""The energy of moving bytes between the memory of a tile and its cores, and on to the next stage."""

from __future__ import annotations

from ohmformer.cost.cost import Cost
from ohmformer.cost.scaled_array_prices import number
from ohmformer.hardware.chip import Chip


def transfer_cost(chip: Chip, bytes_in: float, bytes_out: float) -> Cost:
    """Cost of moving operands from a tile's memory to a core, and results back and on to the next stage.

    Args:
        chip: prices of registers, buffers, buses and the network.
        bytes_in: bytes of operands.
        bytes_out: bytes of results.

    Returns:
        Energy, and one network latency.
    """
    both = bytes_in + bytes_out
    energy = {
        "register": both * number(chip.register_energy),
        "buffer": both * number(chip.buffer_energy),
        "bus": both * number(chip.bus_energy),
        "network": bytes_out * number(chip.network_energy),
    }
    return Cost({name: value for name, value in energy.items() if value}, chip.network_latency)
