"""Which operand of a model lies in which array: hardware, rules and conditioning, as the cost half reads them too."""

from __future__ import annotations

from dataclasses import dataclass, field

from ohmformer.array.spec import Crossbar
from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.product import Product
from ohmformer.capture.table import BY_HARDWARE, BY_RULE, Captured
from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import kv_name, kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import RecordedRules, Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import WeightCells, WeightOperand
from ohmformer.routing.product_handler import PairRole
from ohmformer.schema import replace

_TITLES = {"key": "Q K", "value": "P V"}


def digital_row(module: str, product: str, reason: str) -> Captured:
    """The row of what stays digital."""
    return Captured(module, product, "digital", reason)


@dataclass
class OperandChoice:
    """Makes the operands of a model that is being converted.

    Attributes:
        hardware: the engines.
        state: what all operands share.
        rules: what is different for some of them.
        weights: how static weights are conditioned.
        operands: those that were made.
        rotating: patterns of the rules that hold for static weights on arrays.
        cells: by matrix, array and basis: equal weights are stored once.
    """

    hardware: Accelerator
    state: State
    rules: RecordedRules
    weights: WeightMitigation
    operands: list[Operand] = field(default_factory=list)
    rotating: set[str] = field(default_factory=set)
    cells: dict[tuple[object, ...], WeightCells] = field(default_factory=dict)

    def weight(
        self,
        name: str,
        key: tuple[object, ...],
        calls_per_forward: int,
        *,
        rows: BatchAxis | None = FIRST,
        samples_known: bool = True,
        bank: str = "",
    ) -> tuple[WeightOperand | None, Captured]:
        """The operand of a matrix of weights, None if it stays digital; and its row of the table.

        Args:
            name: of the operand.
            key: what tells the matrix from others.
            uses: how often a forward pass multiplies by it.
            rows: where samples stand in its inputs.
            samples_known: False if that could not be found.
            bank: the layer, if the matrix is one of a bank.
        """
        pattern, rule = self.rules.match(weight_rule_names(name))
        engine = self.hardware.projection
        # What SRAM holds is exact; only memristive cells are conditioned.
        weights = self.weights if isinstance(engine, CrossbarEngine) or rule.array else WeightMitigation()
        array, reason = self._array(rule, engine, weights)
        if array is None:
            return None, digital_row(name, "x W", reason)
        rotated = weights.rotate if rule.rotate is None else rule.rotate
        self.rotating.add(pattern)
        cells = self.cells.setdefault((*key, array, rotated), WeightCells(name))
        operand = WeightOperand(
            name,
            array,
            self.state,
            calls_per_forward=calls_per_forward,
            rows=rows,
            samples_known=samples_known,
            cells=cells,
            bank=bank,
            rotated=rotated,
        )
        self.operands.append(operand)
        return operand, Captured(name, "x W", "projection")

    def kv(
        self, site: str, role: PairRole, calls_per_forward: int, product: Product
    ) -> tuple[KVOperand | None, Captured]:
        """The operand of K or V at a site, None if it stays digital; and its row of the table.

        Raises:
            BadInput: a rule has another number of clips than there are heads.
        """
        name, letter = kv_name(site, role), kv_name("", role).lstrip(".")
        attention = self.hardware.attention
        engine, engine_name = (attention.key if role == "key" else attention.value), f"attention.{role}"
        _, rule = self.rules.match(kv_rule_names(name))
        array, reason = self._array(rule, engine)
        if array is None:
            return None, digital_row(site, _TITLES[role], reason)
        if isinstance(rule.clip, tuple) and product.groups not in (None, len(rule.clip)):
            count = f"{len(rule.clip)} clips for {product.groups} heads of K and V"
            raise BadInput(f"rules: {name}: clip: {count}; give one for each head")
        # Clipping is a remedy for memristive cells; what SRAM holds is exact.
        shared = attention.arrays == "shared" and rule.array is None
        write = rule.write
        if write == "hardware":
            write = engine.written if isinstance(engine, ArrayEngine) else "right"
        operand = KVOperand(
            name,
            array,
            self.state,
            calls_per_forward=calls_per_forward,
            signed=write == "left" or role == "key" or not product.unsigned,
            axis="K" if write == "left" else letter,
            write=write,
            fault_name=engine_name if shared else name,
            causal=bool(product.causal) or (product.across and write == "left"),
            memristive=isinstance(engine, CrossbarEngine) or rule.array is not None,
            clip="none" if rule.clip == "model" and not isinstance(engine, CrossbarEngine) else rule.clip,
        )
        self.operands.append(operand)
        return operand, Captured(site, _TITLES[role], engine_name if rule.on == "hardware" else rule.on)

    def check_rules(self) -> None:
        """Refuse rules without effect.

        Raises:
            BadInput: a rule rotates what cannot be rotated, or matches nothing first.
        """
        for pattern, rule in self.rules.book.rules:
            if rule.rotate and pattern in self.rules.used and pattern not in self.rotating:
                raise BadInput(f"rules: {pattern!r}: rotate = true, but it matches no static weights on crossbars")
        self.rules.check()

    def _array(
        self, rule: Rule, engine: Engine, weights: WeightMitigation | None = None
    ) -> tuple[Crossbar | None, str]:
        """The crossbar of an operand, or None and the reason why it stays digital."""
        if rule.digital:
            return None, BY_RULE
        attention = self.hardware.attention
        named = {"projection": self.hardware.projection, "attention.key": attention.key}
        engine = {**named, "attention.value": attention.value}.get(rule.on, engine)
        array = rule.array or (engine.array if isinstance(engine, ArrayEngine) else None)
        if array is None:
            return None, BY_HARDWARE
        for name in ("scale", "percentile"):
            value = getattr(rule, name) if getattr(rule, name) is not None else getattr(weights, name, None)
            if value is not None:
                array = replace(array, name, value)
        return array, ""
