"""Specification of a chip around its arrays: cores, tiles, memories, links, vector lanes. It affects cost only.

A core holds crossbars and vector lanes, a tile holds cores and a memory, a node holds tiles. Every price is required. A
price that another one includes is written as "included"; its source says which one includes it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from ohmformer.array.prices.spec import Included, LineCount
from ohmformer.errors import BadInput
from ohmformer.hardware.memory import Memory
from ohmformer.quantities import (
    Bytes,
    BytesPerSecond,
    Clock,
    Count,
    Duration,
    Factor,
    Joules,
    JoulesPerByte,
    Nanometers,
    SquareMeters,
    Watts,
)
from ohmformer.schema import Spec

PerByte = Annotated[JoulesPerByte, Field(ge=0)] | Included
Area = Annotated[SquareMeters, Field(ge=0)]
Scaling = Literal["linear", "dennard"]
Overload = Literal["slow", "refuse", "note"]
AttentionTiles = Literal["by_operand", "by_head"]
Load = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1_000)]
"""Packets per cycle and tile."""


class VectorUnit(Spec):
    """The digital lanes of a core: normalization, activations, additions, and softmax if no softmax unit exists."""

    lanes_per_core: Count
    """Lanes of the vector unit of a core, which work in parallel."""
    units: Count | None = None
    """Number of vector units that all layers of a chip share, each with `lanes_per_core` lanes. A unit takes one token
    of one layer at a time, first come, first served. None: every core has one, and a layer uses those of the cores that
    hold it."""
    energy_per_op: Annotated[Joules, Field(ge=0)]
    """Energy of one operation of one lane [J]."""
    add: Factor
    """Operations per element of an addition: residuals, biases and partial sums of row blocks."""
    norm: Factor
    """Operations per element of a normalization."""
    activation: Factor
    """Operations per element of an activation function."""
    softmax: Factor
    """Operations per element of a softmax."""
    priced_at: Nanometers | None = None
    """Feature size that the energy is for [nm]; None for that of the chip's prices."""


class SoftmaxUnit(Spec):
    """Softmax units beside the attention arrays. Every lane processes one element per cycle."""

    lanes_per_head: Count
    energy_per_element: Annotated[Joules, Field(ge=0)]
    """Energy of the softmax of one element [J]."""
    area_per_head: Area
    """Area of the lanes of one head [m^2]."""
    priced_at: Nanometers | None = None
    """Feature size that energy and area are for [nm]; None for that of the chip's prices."""


class TileContents(Spec):
    """What tiles held when their prices were published. What is left out is that of the file with these prices."""

    rows: LineCount | None = None
    """Rows of an array."""
    columns: LineCount | None = None
    """Columns of an array."""
    arrays_per_core: Count | None = None
    cores_per_tile: Count | None = None

    def complete(self) -> bool:
        """True if nothing is left out."""
        return None not in (self.rows, self.columns, self.arrays_per_core, self.cores_per_tile)


class Chip(Spec):
    """Hierarchy and periphery of a chip."""

    technology: Nanometers
    """Feature size [nm]."""
    priced_at: Nanometers | None = None
    """Feature size that the energies, areas and standing power of cores and tiles are for [nm]; None for `technology`.
    If it differs, they are scaled (see cost/technology.py). Prices of arrays and converters are never scaled."""
    scaling: Scaling = "linear"
    """Rule by which prices are scaled from `priced_at` to `technology`."""
    clock: Annotated[Clock, Field(gt=0)]
    """Clock frequency of the digital logic [Hz]."""
    arrays_per_core: Count
    cores_per_tile: Count
    tiles: Count | None = None
    """Number of tiles of a chip; None for as many as the model needs or, with several chips (`system`), for those of a
    node."""
    granularity: Literal["layer", "node"] = "layer"
    """What is added for a model if `tiles` is None: whole tiles for each layer, or whole nodes."""
    tiles_per_node: Count | None = None
    """Number of tiles of a node; with several chips and without `tiles`, a node is a chip."""
    register_energy: PerByte
    """Energy of the input and output registers of a core [J/byte]."""
    buffer_energy: PerByte
    """Energy of the memory of a tile [J/byte]."""
    buffer_capacity: Annotated[Bytes, Field(gt=0)] | None = None
    """Capacity of the memory of a tile [byte]; None if it is unknown, so that no weights and no cache stay there."""
    buffer_bandwidth: Annotated[BytesPerSecond, Field(gt=0)] | None = None
    """Bandwidth of the memory of a tile [byte/s]; needed where weights, keys or values are there."""
    bus_energy: PerByte
    """Energy of the bus inside a tile [J/byte]."""
    network_energy: PerByte
    """Energy of the network between tiles, over the usual distance [J/byte]."""
    network_latency: Annotated[Duration, Field(ge=0)]
    """Latency from one stage to the next [s]."""
    network_packet: Annotated[Bytes, Field(gt=0)] | None = None
    """Bytes of a packet of the network; None if unknown, so that its bandwidth is taken to suffice."""
    network_max_load: Load | None = None
    """Packets that a tile may send per cycle of `clock`; beyond, the latency of the network no longer holds."""
    overload: Overload = "slow"
    """What happens to a stage that sends more than `network_max_load`, or moves more bytes through the memories of its
    tiles than `buffer_bandwidth`. `slow`: it takes the time in which these bytes pass. `refuse`: the workload is
    refused. `note`: it takes no longer, and results carry a note."""
    attention_tiles: AttentionTiles = "by_operand"
    """Where K and V lie. `by_operand`: in different tiles, so that scores pass the network. `by_head`: those of a head
    share tiles, so that scores stay in their memories."""
    partial_sum_bits: Annotated[int, Field(ge=1, le=64)] | None = None
    """Bits of a partial sum that travels between arrays, cores and tiles; None for as many as the exact sum needs."""
    vector: VectorUnit
    softmax: SoftmaxUnit | None = None
    """Softmax units; None if the vector lanes compute softmax."""
    dram: Memory | None = None
    """Memory outside the chip; None for none. Embedding tables are there, weights that are loaded for every use, and
    weights, keys and values that neither cells nor the memories of tiles hold."""
    tile_power: Annotated[Watts, Field(ge=0)]
    """Standing power of a tile, whether it works or not [W]."""
    idle_tiles: Literal["on", "gated"] = "on"
    """`on`: all tiles draw their standing power all the time. `gated`: a tile draws it only while the stage whose
    arrays or lanes it holds works."""
    core_area: Area
    """Area of a core without its arrays and converters [m^2]."""
    tile_area: Area
    """Area of a tile without its cores [m^2]."""
    node_area: Area
    """Area of a node without its tiles [m^2]."""
    link_power: Annotated[Watts, Field(ge=0)] | None = None
    """Power of the links off a node at full load [W]; None if none are described. It counts at full load alone."""
    priced_with: TileContents = TileContents()
    """What tiles held when `tile_power`, `core_area` and `tile_area` were published: registers, control and standing
    power of cores do not follow their arrays. Results say so where tiles hold something else."""

    @property
    def network_bandwidth(self) -> float | None:
        """Bytes per second that a tile may send [byte/s]; None if it is unknown.

        Raises:
            BadInput: only one of the two fields that decide it is given.
        """
        packet, load = self.network_packet, self.network_max_load
        if packet is None or load is None:
            if packet is load:
                return None
            given, missing = ("network_max_load", "network_packet")[:: 1 if packet is None else -1]
            raise BadInput(f"hardware.chip.{missing}: is missing beside {given}; give both, or leave both out")
        return packet * load * self.clock

    def after_change(self, old: Self) -> Self:
        """This chip, as it was made from another one; prices that are all stated anew hold for what tiles hold now."""
        now, was = dict(self.provenance), dict(old.provenance)
        anew = self.priced_with is old.priced_with
        for name in ("tile_power", "core_area", "tile_area"):
            anew = anew and (getattr(self, name), now.get(name)) != (getattr(old, name), was.get(name))
        return self.model_copy(update={"priced_with": TileContents()}) if anew else self

    def bound(self, rows: int, columns: int) -> Chip:
        """The chip with `priced_with` complete; what it leaves out is taken from the accelerator around it."""
        here = {"rows": rows, "columns": columns}
        here |= {"arrays_per_core": self.arrays_per_core, "cores_per_tile": self.cores_per_tile}
        wanted = {name: value for name, value in here.items() if getattr(self.priced_with, name) is None}
        return self.model_copy(update={"priced_with": self.priced_with.model_copy(update=wanted)})
