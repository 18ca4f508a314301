"""Specification of an accelerator: its engines, and which engine computes with which operand of a transformer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput, printable
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.lane_units import LaneOwner, check_units
from ohmformer.hardware.refresh import RefreshLoss, check_refresh
from ohmformer.hardware.shared_engine import with_shared_engine
from ohmformer.hardware.system import System
from ohmformer.hardware.work import Price as Price
from ohmformer.hardware.work import Work as Work
from ohmformer.hardware.work import area_of, bits_of, price_of
from ohmformer.hardware.write_lines import WriteLines, check_transposable, check_weights, in_both_roles
from ohmformer.quantities import (
    Bytes,
    BytesPerSecond,
    Count,
    Duration,
    Efficiency,
    Factor,
    Joules,
    JoulesPerByte,
    Nanometers,
    OpsPerSecond,
    Seconds,
    Share,
    SquareMeters,
    Watts,
)
from ohmformer.registry import Family, register
from ohmformer.schema import Spec

Bits = Annotated[int, Field(ge=1, le=64)]
Fusion = Literal["full", "elementwise", "none"]
Overflow = Literal["rewrite", "spill", "refuse"]


class Engine(Family):
    """What computes matrix products.

    A kind that computes on arrays of cells derives from `ArrayEngine`; accuracy and cost follow from its array. A kind
    with exact products derives from `ExactEngine` and defines its `price`.
    """

    family: ClassVar[str] = "engine"
    simulated: ClassVar[bool] = False
    """True if arrays of cells compute the products, so that their errors are simulated."""

    kind: str


class ArrayEngine(Engine):
    """Base of engines that compute on arrays of cells."""

    cost_fields: ClassVar[tuple[str, ...]] = ("resident", "overflow", "write_lines")
    simulated: ClassVar[bool] = True

    array: Crossbar
    """The arrays of the engine."""
    written: Literal["right", "left"] = "right"
    """Which of two activations is stored in cells: the right-hand one (K^T, V) or the left-hand one (Q, P). Weights are
    always stored."""
    resident: Count | None = None
    """Number of tokens that have cells; None for as many as needed."""
    overflow: Overflow = "rewrite"
    """What happens to more tokens than `resident`. `rewrite`: they take turns in the cells, so that every use of a
    cache writes all its tokens again. `spill`: the tokens beyond the cells are read from memory and multiplied in the
    vector lanes. `refuse`: such a workload is refused."""
    write_lines: WriteLines = "rows"
    """Lines of an array that writing selects one after another. `rows` take the inputs of products: a token of V is one
    row, a token of K takes a write of each row of its column. `columns`: the reverse. `transposable`: tokens of K and V
    are rows, and Q K^T runs along the other axis, with a second set of drivers and converters, whose area counts."""

    @model_validator(mode="after")
    def _spills_what_it_keeps(self) -> ArrayEngine:
        if self.overflow == "spill" and self.written == "left":
            raise ValueError("overflow = 'spill': an engine that stores Q or P keeps no cache; take 'rewrite'")
        return self

    @model_validator(mode="after")
    def _same_along_both_axes(self) -> ArrayEngine:
        check_transposable(self.write_lines, self.array)
        return self


@register
class CrossbarEngine(ArrayEngine):
    """Computes on memristive crossbars."""

    kind: Literal["crossbar"] = "crossbar"


@register
class SramEngine(ArrayEngine):
    """Computes with currents in arrays of SRAM cells, which hold one bit each and are written without error."""

    cost_fields: ClassVar[tuple[str, ...]] = ("resident", "overflow", "write_lines", "arrays")

    kind: Literal["sram"] = "sram"
    arrays: Count | None = None
    """Number of arrays for weights; None for as many as needed. Weights that do not fit are loaded from DRAM for every
    use."""

    @model_validator(mode="after")
    def _one_bit(self) -> SramEngine:
        if self.array.bits_per_cell != 1:
            raise ValueError(
                f"array.bits_per_cell = {self.array.bits_per_cell}: an SRAM cell holds one bit; set it to 1"
            )
        return self


class ExactEngine(Engine):
    """Base of engines with exact products. All layers share the engine, which processes one stage at a time.

    Their weights, keys and values are in the memories of the chip, which `price` does not include.
    """

    def price(self, work: Work) -> Price | None:
        """Time and energy of some work, without those of memories; None if the cost of the engine is unknown."""
        return None

    def operand_bits(self) -> int | None:
        """Width of one weight, key or value [bit]; None for that of the values that the chip moves."""
        return None

    def own_area(self) -> float:
        """Area of the engine in addition to that of tiles [m^2]."""
        return 0.0

    def checked_price(self, work: Work) -> Price | None:
        """`price`, checked (see `work.price_of`)."""
        return price_of(self, work)

    def checked_bits(self) -> int | None:
        """`operand_bits`, checked (see `work.bits_of`)."""
        return bits_of(self)

    def checked_area(self) -> float:
        """`own_area`, checked (see `work.area_of`)."""
        return area_of(self)


@register
class DigitalEngine(ExactEngine):
    """Computes in exact digital logic without a description of its cost, so that pricing is refused."""

    kind: Literal["digital"] = "digital"


@register
class SimdEngine(ExactEngine):
    """Computes in the vector lanes of the cores (see `Chip.vector`)."""

    cost_fields: ClassVar[tuple[str, ...]] = ("ops_per_mac", "lanes", "units", "shared", "results", "bits")

    kind: Literal["simd"] = "simd"
    ops_per_mac: Factor
    """Lane operations per multiply-accumulate."""
    lanes: Count | Literal["of_layer"] = "of_layer"
    """Lanes that work in parallel: a number, or those of the cores with the layer's weights. If the chip has vector
    units (`Chip.vector.units`), `of_layer` stands for one of these units."""
    units: Count | None = None
    """Number of digital units with `lanes` lanes each. A unit takes one token of one layer at a time; tokens wait for a
    unit first come, first served. None: all `lanes` together are one unit, which takes layer after layer."""
    shared: LaneOwner = "chip"
    """`chip`: all layers share the units. `layer`: each layer has as many of its own."""
    results: Literal["by_token", "by_sequence"] = "by_token"
    """When results go on to the next stage: `by_token`, those of each token when it is done, or `by_sequence`, those of
    all tokens of a sample together. Then a unit takes a whole sequence of one layer at a time."""
    bits: Bits | None = None
    """Width of one weight, key or value [bit]; None for that of the inputs of the projection arrays, or for 8 without
    such arrays."""

    @model_validator(mode="after")
    def _units_have_lanes(self) -> SimdEngine:
        check_units(self.lanes, self.units, self.shared)
        return self

    def operand_bits(self) -> int | None:
        """`bits`."""
        return self.bits


@register
class GpuEngine(ExactEngine):
    """Computes on a GPU, one kernel after another (equations: cost/gpu_roofline.py).

    Data sheets give peak, bandwidth, memory, processors, board power, area and technology. The other fields default to
    what published times of one GPU, the A100, give (docs/cost.md). Roles of the same GPU may differ in peak and sizes:
    attention in 16 bits beside projections in 8 bits.
    """

    cost_fields: ClassVar[tuple[str, ...]] = (
        *("peak", "processors", "bandwidth", "memory", "bytes_per_value", "bytes_per_weight", "power", "idle_share"),
        *("area", "technology", "energy_per_op", "priced_at", "energy_per_byte", "efficiency"),
        *("attention_efficiency", "memory_efficiency", "launch_time", "fusion"),
    )

    kind: Literal["gpu"] = "gpu"
    peak: Annotated[OpsPerSecond, Field(gt=0)]
    """Peak throughput of dense products [op/s]; a multiply-accumulate is two operations."""
    processors: Count
    """Number of streaming multiprocessors. Each computes one thread block of a kernel at a time."""
    bandwidth: Annotated[BytesPerSecond, Field(gt=0)]
    """Peak bandwidth of the memory [byte/s]."""
    memory: Annotated[Bytes, Field(gt=0)]
    """Capacity of the memory, for weights, keys, values and activations [byte]."""
    bytes_per_value: Factor
    """Size of one activation, key or value [byte]."""
    bytes_per_weight: Factor | None = None
    """Size of one weight [byte]; None for `bytes_per_value`."""
    power: Annotated[Watts, Field(gt=0)]
    """Board power, the limit to which clocks are lowered [W]."""
    idle_share: Share = 0.22
    """Share of `power` that the board draws all the time."""
    area: Annotated[SquareMeters, Field(gt=0)]
    """Area of the chip [m^2]."""
    technology: Nanometers
    """Feature size [nm]."""
    energy_per_op: Annotated[Joules, Field(ge=0)] = 1.21e-12
    """Dynamic energy of one operation with values of two bytes at the feature size `priced_at` [J]. It is carried over
    in proportion to `technology` and `bytes_per_value`."""
    priced_at: Nanometers = 7.0
    """Feature size that `energy_per_op` is for [nm]."""
    energy_per_byte: Annotated[JoulesPerByte, Field(ge=0)] = 31.4e-12
    """Dynamic energy of moving one byte to or from the memory [J/byte]."""
    efficiency: Efficiency = 0.61
    """Share of the peak throughput that large products reach."""
    attention_efficiency: Efficiency = 0.29
    """Share of the peak throughput that fused attention reaches."""
    memory_efficiency: Efficiency = 0.75
    """Share of the peak bandwidth that kernels reach."""
    launch_time: Annotated[Duration, Field(ge=0)] = 3.5e-6
    """Time of a kernel in addition to its work: launch, start and end [s]."""
    fusion: Fusion = "full"
    """Which operations share a kernel, so that values between them stay on the chip. `elementwise`: activations and
    additions join the products; Q K^T, softmax and P V are three kernels. `full`: attention is one kernel as well.
    `none`: every operation is a kernel, as in a framework without a compiler."""

    @model_validator(mode="after")
    def _has_dynamic_power(self) -> GpuEngine:
        if self.idle_share == 1 and (self.energy_per_op or self.energy_per_byte):
            raise ValueError(
                "idle_share = 1: leaves no power for work; lower it, or set energy_per_op and energy_per_byte to 0"
            )
        return self

    @property
    def weight_bytes(self) -> float:
        """Size of one weight [byte]."""
        return self.bytes_per_value if self.bytes_per_weight is None else self.bytes_per_weight

    @property
    def idle_power(self) -> float:
        """Power that the board draws all the time [W]."""
        return self.idle_share * self.power

    @property
    def op_energy(self) -> float:
        """Dynamic energy of one operation at this technology and size of values [J]."""
        return self.energy_per_op * (self.technology / self.priced_at) * (self.bytes_per_value / 2)


class Attention(Spec):
    """The engines of attention. In files, `array = ...` sets the arrays of both."""

    cost_fields: ClassVar[tuple[str, ...]] = ("refresh", "refresh_loss")
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {
        "array": ("key.array", "value.array"),
        "kind": ("key.kind", "value.kind"),
        "write_lines": ("key.write_lines", "value.write_lines"),
    }

    key: Engine
    """Engine of Q K^T, which stores K."""
    value: Engine
    """Engine of P V, which stores V."""
    arrays: Literal["shared", "per_layer"] = "per_layer"
    """Whether all layers rewrite the same arrays, or each layer has its own. It decides the wear of the cells, and
    which faults a layer sees."""
    refresh: Annotated[Seconds, Field(gt=0)] | None = None
    """Time after which every cell of K and V has been written again, so that no value gets older [s]; None for cells
    that keep their values. The machine stops computing for a refresh (see cost/machine/refresh.py)."""
    refresh_loss: RefreshLoss | None = None
    """In place of `refresh`: the share that no typical cell loses by drift before it is written again."""

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Expand `array = ...`, the same crossbar in both roles, and `write_lines = ...`, the same lines in both."""
        if "array" in data:
            both = {"kind": "crossbar", "array": data["array"]}
            data = {"key": both, "value": both, **{name: value for name, value in data.items() if name != "array"}}
        return in_both_roles(data)

    @model_validator(mode="after")
    def _one_refresh(self) -> Attention:
        check_refresh(self)
        return self

    @property
    def array(self) -> Crossbar:
        """The array that both roles share.

        Raises:
            BadInput: the roles have different arrays, or an engine has none.
        """
        engines = (self.key, self.value)
        arrays = {engine.array for engine in engines if isinstance(engine, ArrayEngine)}
        if len(arrays) != 1 or not all(isinstance(engine, ArrayEngine) for engine in engines):
            raise BadInput(
                "attention.array: key and value do not share one crossbar; name attention.key.array or .value.array"
            )
        return arrays.pop()


class Accelerator(Spec):
    """An accelerator; in files, `engine = ...` sets the engines of all three roles, and `array = ...` their arrays."""

    catalog_kind: ClassVar[str] = "accelerator"
    cost_fields: ClassVar[tuple[str, ...]] = ("chip", "system")
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {
        "array": ("projection.array", "attention.array"),
        "engine": ("projection", "attention.key", "attention.value"),
    }

    title: str = ""
    """Name for tables and figures."""
    projection: Engine
    """Engine of products with static weights."""
    attention: Attention
    """Engines of products with K and V, which are written at run time."""
    chip: Chip | None = None
    """What surrounds the arrays; None without a description of it, so that pricing is refused."""
    system: System | None = None
    """Several chips or GPUs with links between them; None for one."""

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_shared_engine(data)

    @model_validator(mode="after")
    def _weights_along_rows(self) -> Accelerator:
        check_weights(self.projection.write_lines if isinstance(self.projection, ArrayEngine) else None)
        return self

    @model_validator(mode="after")
    def _contents_of_tiles(self) -> Accelerator:
        if self.chip is None or self.chip.priced_with.complete():
            return self
        for engine in self.engines.values():
            if isinstance(engine, ArrayEngine):
                # prices that name no arrays hold for those beside which they are first read; the copy is not public yet
                object.__setattr__(self, "chip", self.chip.bound(engine.array.rows, engine.array.columns))
        return self

    @property
    def engines(self) -> dict[str, Engine]:
        """Role -> engine that computes it."""
        attention = self.attention
        return {"projection": self.projection, "attention.key": attention.key, "attention.value": attention.value}

    @property
    def value_bytes(self) -> float:
        """Size of one value that memories and links move [byte]."""
        match self.projection:
            case ArrayEngine(array=array):
                return array.inputs.bits / 8
            case GpuEngine(bytes_per_value=size):
                return size
            case ExactEngine() as engine:
                return (engine.checked_bits() or 8) / 8
        return 1.0

    @property
    def gpus(self) -> dict[str, GpuEngine]:
        """Role -> GPU that computes it, for the roles of a GPU."""
        return {role: engine for role, engine in self.engines.items() if isinstance(engine, GpuEngine)}

    def __repr__(self) -> str:
        """Title and engines in one line; `walk` and `ohmformer show` give all values."""
        parts = ", ".join(
            f"{role.removeprefix('attention.')} {_described(engine)}" for role, engine in self.engines.items()
        )
        return f"Accelerator({printable(self.title) or 'without a title'}; {parts}{'' if self.chip else ', no chip'})"

    __str__ = __repr__


def _described(engine: Engine) -> str:
    """Kind of an engine, and the size of its arrays."""
    size = f" {engine.array.rows} x {engine.array.columns}" if isinstance(engine, ArrayEngine) else ""
    return f"{engine.kind}{size}"
