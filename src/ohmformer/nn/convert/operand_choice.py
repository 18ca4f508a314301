"""Makes the operands of a conversion on the arrays that `hardware.assignment` gives them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.array.spec import Crossbar
from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.product import Product
from ohmformer.capture.table import BY_HARDWARE, BY_RULE, Captured
from ohmformer.errors import BadInput
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.assignment import KVRole, assign_kv, assign_weight
from ohmformer.hardware.operand_names import kv_name, kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import RecordedRules, Rule
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_ages import at_one_age, token_ages
from ohmformer.nn.operands.weight import WeightCells, WeightOperand
from ohmformer.nn.shared.state import State
from ohmformer.routing.product_handler import PairRole

_PRODUCT_TITLES = {"key": "Q K", "value": "P V"}
"""Role of an operand -> the product in the capture table."""


def digital_row(module: str, product: str, reason: str) -> Captured:
    """Return the row of the capture table for a product that stays digital."""
    return Captured(module, product, "digital", reason)


@dataclass
class OperandChoice:
    """Makes the operands of a conversion, and lists them.

    Attributes:
        hardware: the accelerator.
        state: the state that all operands share.
        rules: settings for operands by name.
        weights: mitigation of all static weights.
        ages: of K and V, see `convert`.
        operands: the operands made so far.
        of_weights: patterns of the rules that hold for static weights on arrays.
        of_memristive_weights: those of them whose weights lie in memristive cells.
        cells: (matrix, array, basis, mitigation) -> cells; equal weights are stored once.
    """

    hardware: Accelerator
    state: State
    rules: RecordedRules
    weights: WeightMitigation
    ages: Ages | float | None = None
    operands: list[Operand] = field(default_factory=list)
    of_weights: set[str] = field(default_factory=set)
    of_memristive_weights: set[str] = field(default_factory=set)
    cells: dict[tuple[object, ...], WeightCells] = field(default_factory=dict)

    def weight(
        self,
        name: str,
        key: tuple[object, ...],
        calls_per_forward: int,
        *,
        batch_axis: BatchAxis | None = FIRST,
        samples_known: bool = True,
        bank: str = "",
    ) -> tuple[WeightOperand | None, Captured]:
        """Make the operand of a matrix of weights.

        Args:
            name: name of the operand.
            key: identity of the matrix: equal keys share cells.
            calls_per_forward: number of products with the matrix in a forward pass.
            batch_axis: the axis of its inputs that holds samples.
            samples_known: False if that axis could not be found.
            bank: name of the layer if the matrix is one of a bank.

        Returns:
            The operand, None if it stays digital; and its row of the capture table.

        Raises:
            BadInput: the array does not support the mitigation of weights.
        """
        pattern, rule = self.rules.match(weight_rule_names(name))
        assigned = assign_weight(self.hardware, rule, self.weights)
        array, rotated, mitigation = assigned.array, assigned.rotated, assigned.mitigation
        if array is None:
            return None, digital_row(name, "x W", _reason(rule))
        self.of_weights.add(pattern)
        if assigned.memristive:
            self.of_memristive_weights.add(pattern)
        check_closed_form(name, array, mitigation)
        cells = self.cells.setdefault((key, array, rotated, mitigation), WeightCells(name))
        operand = WeightOperand(
            name,
            array,
            self.state,
            calls_per_forward=calls_per_forward,
            batch_axis=batch_axis,
            samples_known=samples_known,
            cells=cells,
            bank=bank,
            rotated=rotated,
            matrix=key,
            mitigation=mitigation,
        )
        self.operands.append(operand)
        return operand, Captured(name, "x W", assigned.role)

    def kv(
        self, site: str, role: PairRole, calls_per_forward: int, product: Product
    ) -> tuple[KVOperand | None, Captured]:
        """Make the operand of K or V at a site.

        Args:
            site: name of the site.
            role: "key" or "value".
            calls_per_forward: number of products with it in a forward pass.
            product: the captured product.

        Returns:
            The operand, None if it stays digital; and its row of the capture table.

        Raises:
            BadInput: a rule has another number of clips than there are heads.
        """
        name, letter = kv_name(site, role), kv_name("", role).lstrip(".")
        kv_role: KVRole = "attention.key" if role == "key" else "attention.value"
        _, rule = self.rules.match_kv(kv_rule_names(name))
        assigned = assign_kv(self.hardware, rule, kv_role)
        array, written = assigned.array, assigned.written
        if array is None:
            return None, digital_row(site, _PRODUCT_TITLES[role], _reason(rule))
        if isinstance(rule.clip, tuple) and product.groups not in (None, len(rule.clip)):
            count = f"{len(rule.clip)} clips for {product.groups} heads of K and V"
            raise BadInput(f"rules: {name}: clip: {count}; give one for each head")
        operand = KVOperand(
            name,
            array,
            self.state,
            calls_per_forward=calls_per_forward,
            signed=written == "left" or role == "key" or not product.unsigned,
            axis="K" if written == "left" else letter,
            write=written,
            fault_name=kv_role if assigned.shared else name,
            causal=bool(product.causal) or (product.across and written == "left"),
            memristive=assigned.memristive,
            clip=assigned.clip,
        )
        self._set_ages(operand)
        self.operands.append(operand)
        return operand, Captured(site, _PRODUCT_TITLES[role], assigned.role)

    def _set_ages(self, operand: KVOperand) -> None:
        """Give an operand one age, or the times of its tokens if its cells change within the ages of a timeline.

        Raises:
            BadInput: see `token_ages` and `at_one_age`.
        """
        if isinstance(self.ages, Ages):
            operand.ages = token_ages(
                operand.name,
                operand.array,
                self.ages,
                causal=operand.causal,
                holds_queries=operand.write == "left",
                calls_per_forward=operand.calls_per_forward,
            )
        elif self.ages is not None:
            operand.array = operand.plain = at_one_age(operand.name, operand.array, self.ages)

    def check_rules(self) -> None:
        """Refuse rules without effect.

        Raises:
            BadInput: a rule rotates or mitigates other operands than static weights on arrays, or
                `RecordedRules.check` refuses it.
        """
        for pattern, rule in self.rules.book.rules:
            if rule.rotate and pattern in self.rules.used and pattern not in self.of_weights:
                raise BadInput(f"rules: {pattern!r}: rotate = true, but it matches no static weights on crossbars")
            if rule.weights is not None and pattern in self.rules.used and pattern not in self.of_memristive_weights:
                raise BadInput(
                    f"rules: {pattern!r}: sets weights, but it matches no static weights in memristive cells; leave "
                    "weights out"
                )
        self.rules.check()


def check_closed_form(name: str, array: Crossbar, mitigation: WeightMitigation) -> None:
    """Refuse bias-corrected codes where no closed form says what cells hold.

    Raises:
        BadInput: there is none.
    """
    if mitigation.unbiased and (reason := no_closed_form(array)):
        raise BadInput(f"weights.unbiased: {name}: {reason}; or leave unbiased out")


def _reason(rule: Rule) -> str:
    """Return the reason why an operand without arrays stays digital."""
    return BY_RULE if rule.digital else BY_HARDWARE
