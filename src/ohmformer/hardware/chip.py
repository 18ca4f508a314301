"""What surrounds the arrays of an accelerator: cores, tiles, memories, links, vector lanes. It decides cost alone.

A core holds crossbars and vector lanes, a tile holds cores and a memory, a node holds tiles. Every price is required:
one that is part of another is written as "included", and its source says in which.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ohmformer.array.spec import Included
from ohmformer.quantities import (
    BytesPerSecond,
    Count,
    Factor,
    Hertz,
    Joules,
    JoulesPerByte,
    Nanometres,
    Seconds,
    SquareMetres,
    Watts,
)
from ohmformer.schema import Spec

PerByte = Annotated[JoulesPerByte, Field(ge=0)] | Included
Area = Annotated[SquareMetres, Field(ge=0)]
Scaling = Literal["linear", "dennard"]


class VectorUnit(Spec):
    """The digital lanes of a core: normalisation, activations, additions, and softmax where no unit does it.

    The numbers of operations are per element; `add` covers residuals, biases and partial sums of row blocks.
    `priced_at` is the feature size in nm that the energy is for; None for that of the chip's prices.
    """

    lanes_per_core: Count
    energy_per_op: Annotated[Joules, Field(ge=0)]
    add: Factor
    norm: Factor
    activation: Factor
    softmax: Factor
    priced_at: Nanometres | None = None


class SoftmaxUnit(Spec):
    """Units for softmax beside the attention arrays: every lane takes one element per cycle.

    `priced_at` is the feature size in nm that energy and area are for; None for that of the chip's prices.
    """

    lanes_per_head: Count
    energy_per_element: Annotated[Joules, Field(ge=0)]
    area_per_head: Area
    priced_at: Nanometres | None = None


class Dram(Spec):
    """Memory off the chip."""

    bandwidth: Annotated[BytesPerSecond, Field(gt=0)]
    energy: Annotated[JoulesPerByte, Field(ge=0)]


class Chip(Spec):
    """Hierarchy and periphery.

    `tiles` is how many tiles there are; None takes as many as the model needs: whole tiles for each layer
    (`granularity = "layer"`) or whole nodes of `tiles_per_node` (`"node"`).
    """

    technology: Nanometres
    """Feature size in nm."""
    priced_at: Nanometres | None = None
    """Feature size in nm that the energies, areas and standing power of cores and tiles are for; None for `technology`.
    Where it is another one, they are carried over (see cost/technology.py); arrays and converters keep theirs."""
    scaling: Scaling = "linear"
    """How they are carried over."""
    clock: Annotated[Hertz, Field(gt=0)]
    arrays_per_core: Count
    cores_per_tile: Count
    tiles: Count | None = None
    granularity: Literal["layer", "node"] = "layer"
    tiles_per_node: Count | None = None
    register_energy: PerByte
    """Input and output registers of a core."""
    buffer_energy: PerByte
    """Memory of a tile."""
    bus_energy: PerByte
    network_energy: PerByte
    """Between tiles, over the usual distance."""
    network_latency: Annotated[Seconds, Field(ge=0)]
    """From one stage to the next."""
    vector: VectorUnit
    softmax: SoftmaxUnit | None = None
    dram: Dram | None = None
    tile_power: Annotated[Watts, Field(ge=0)]
    """What a tile draws whether it works or not."""
    core_area: Area
    """Of a core, without its arrays and converters."""
    tile_area: Area
    """Of a tile, without its cores."""
    node_area: Area
    """Of a node, without its tiles."""
