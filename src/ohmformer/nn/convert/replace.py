"""Replace the parts of a model that multiply, following what the dry run saw and the rules of the user."""

from __future__ import annotations

from collections import Counter, defaultdict

from torch import nn

from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.dry_run import DryRun, Place
from ohmformer.capture.product import Product
from ohmformer.capture.table import BY_RULE, COMPUTED, ELSEWHERE, NOT_CALLED, Captured, CaptureTable
from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import weight_name
from ohmformer.hardware.rules import OrderedRules, RecordedRules, Rule, RuleBook
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.convert.operand_choice import OperandChoice, digital_row
from ohmformer.nn.modules.activation_matmul import ActivationMatmulSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.class_swap import changing, swap_class
from ohmformer.nn.modules.intercept import Frame, Weights, crossbar_class
from ohmformer.nn.modules.linear import CrossbarLinear, is_plain_linear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.state import State
from ohmformer.routing.product_handler import PairRole, ProductHandler, unseen_layers
from ohmformer.routing.refusals import check_place, not_understood
from ohmformer.routing.weight_names import geometry


class Replacer(ProductHandler[Place, list[Captured]]):
    """Turns modules into their crossbar classes, in place; what it makes of a product are the rows of the table."""

    def __init__(
        self,
        model: nn.Module,
        hardware: Accelerator,
        state: State,
        rules: OrderedRules,
        run: DryRun,
        weights: WeightMitigation,
    ) -> None:
        super().__init__(model, RecordedRules(RuleBook(rules)))
        self.choice = OperandChoice(hardware, state, self.rules, weights)
        self.modules, self.run = self.weights_of.modules, run
        self.times = Counter(_matrix_key(p) for p in run.seen.products if p.kind == "weights")
        self.frames: dict[str, Frame] = {}
        self.held_by: defaultdict[str, list[Weights]] = defaultdict(list)

    @property
    def operands(self) -> list[Operand]:
        """All operands on crossbars, in the order in which they were made."""
        return self.choice.operands

    def replace(self) -> CaptureTable:
        """Replace whatever multiplies.

        Raises:
            BadInput: a product is not understood, or a rule matches no module.
        """
        seen: set[object] = set()
        rows: list[Captured] = []
        for product in self.run.seen.products:
            key = _matrix_key(product) if product.kind == "weights" else (product.module, product.position)
            if key not in seen or product.kind == "unknown":
                rows += self.handle(product, self.run.places[product])
            seen.add(key)
        self._follow()
        for name, frame in self.frames.items():
            frame.weights = self.held_by[name]
        if not rows:
            raise BadInput("the model multiplies nothing on the sample, so there is nothing to put on crossbars")
        elsewhere = self.run.seen.elsewhere
        for name in unseen_layers(self.modules, self.run.seen.products):
            rows.append(self._row_of_unused(name, "x W", ELSEWHERE if name in elsewhere else NOT_CALLED))
        self.choice.check_rules()
        return CaptureTable(tuple(rows))

    def _row_of_unused(self, module: str, product: str, reason: str) -> Captured:
        """What cannot be put on crossbars; a rule that asks for just that is the better reason."""
        digital = self.rules.rule((module,)).digital
        return digital_row(module, product, BY_RULE if digital else reason)

    def _follow(self) -> None:
        """Scores are followed to their softmax, also where a module of its own computes them."""
        products = [p for p in self.run.seen.products if p.role and p.module in self.frames]
        for product in products:
            frame = self._frame(product.scope if product.role == "value" else product.module)
            if product.role == "key":
                frame.scores.add(product.position)

    def unknown(self, product: Product, given: Place, rule: Rule) -> list[Captured]:
        """Stays digital."""
        reason = BY_RULE if rule.digital else product.why or not_understood(product)
        return [digital_row(product.module, product.operation, reason)]

    def weights(self, product: Product, given: Place) -> list[Captured]:
        """A linear layer, or weights that a module multiplies by itself."""
        module = self.modules[product.module]
        rows = given.left if given.left is not None or given.known else FIRST
        if is_plain_linear(module) and product.weights == self.weights_of.own_weight(product.module):
            found = [self._linear(product, module, rows, known=given.known)]
        else:
            found = self._functional(product, rows, known=given.known)
        self._use_modules(product.module)
        return found

    def _linear(self, product: Product, module: nn.Module, rows: BatchAxis | None, *, known: bool) -> Captured:
        key = (product.weights, *geometry(product))
        calls_per_forward, name = self.times[_matrix_key(product)], self.weights_of.matrix(product).name
        operand, row = self.choice.weight(name, key, calls_per_forward, rows=rows, samples_known=known)
        if operand is not None:
            operand.rows_of = self._rows_by_use(product)
            swap_class(module, CrossbarLinear, ohmformer_weight=operand)
        return row

    def _rows_by_use(self, product: Product) -> tuple[BatchAxis | None, ...]:
        """Where samples stand in each use of a matrix, if that differs and is known."""
        calls = [p for p in self.run.seen.products if p.kind == "weights" and p.module == product.module]
        places = [self.run.places[p] for p in calls if _matrix_key(p) == _matrix_key(product)]
        rows = tuple(place.left for place in places)
        return rows if len(set(rows)) > 1 and all(place.known for place in places) else ()

    def _functional(self, product: Product, rows: BatchAxis | None, *, known: bool) -> list[Captured]:
        """Weights that a module multiplies by itself: a whole parameter, a part, or a bank, of which all are held."""
        _, *form = geometry(product)
        owner, _, attribute = product.weights.rpartition(".")
        held, bank = self.held_by[product.module], self.weights_of.bank(product)
        same = (attribute, self.modules[owner], form[0])
        if bank and any((w.parameter, w.owner, w.shape) == same for w in held):
            return []
        found = []
        for each in bank or [self.weights_of.matrix(product)]:
            operand, row = self.choice.weight(
                each.name,
                (product.weights, each.start, *form),
                self.times[_matrix_key(product)],
                rows=rows,
                samples_known=known,
                bank=each.layer if bank else "",
            )
            found.append(row)
            if operand is not None:
                self._frame(product.module)
            held.append(Weights(operand, self.modules[owner], attribute, each.start, *form))
        return found

    def _frame(self, name: str) -> Frame:
        """What is intercepted in a module, which then intercepts."""
        if name not in self.frames:
            module = self.modules[name]
            self.frames[name] = Frame(name, self.choice.state, operations=self.run.seen.operations.get(name, {}))
            cls: type[nn.Module] = type(module)
            swap_class(module, crossbar_class(cls), ohmformer_frame=self.frames[name])  # type: ignore[arg-type]
        return self.frames[name]

    def _use_modules(self, name: str) -> None:
        """Keep PyTorch's fused encoder from reading the weights of its layers past the layers themselves."""
        parts = name.split(".")
        for depth in range(len(parts)):
            parent = self.modules.get(".".join(parts[:depth]))
            if isinstance(parent, nn.TransformerEncoderLayer):
                changing(parent, activation_relu_or_gelu=0)
            if isinstance(parent, nn.TransformerEncoder):
                changing(parent, use_nested_tensor=False)

    def multihead(self, product: Product, given: Place, module: nn.MultiheadAttention) -> list[Captured]:
        """PyTorch's own attention: three projections in, two products, and `out_proj`."""
        name, calls_per_forward = product.module, self._uses(product)
        check_place(product, given)
        made = [self.choice.weight(weight_name(name, part=part), (name, part), calls_per_forward) for part in "qkv"]
        site, found = self._site(product, FIRST, calls_per_forward)
        operands = tuple(operand for operand, _ in made)
        swap_class(module, CrossbarMultiheadAttention, ohmformer_inputs=operands, ohmformer_sites=[site])
        rows = [*(row for _, row in made), *found]
        if isinstance(module.out_proj, CrossbarLinear):  # of another attention, too
            module.out_proj.ohmformer_weight.calls_per_forward += calls_per_forward
        else:
            last = f"{name}.out_proj".lstrip(".")
            operand, row = self.choice.weight(last, (last,), calls_per_forward)
            rows.append(row)
            if operand is not None:
                swap_class(module.out_proj, CrossbarLinear, ohmformer_weight=operand)
        self._use_modules(name)
        return rows

    def attention(self, product: Product, given: Place) -> list[Captured]:
        """Fused attention: K and V at one site."""
        site, rows = self._site(product, given.right or given.left or FIRST, self._uses(product))
        if any(row.reason != BY_RULE for row in rows):
            check_place(product, given)
        if site.key or site.value:
            self._frame(product.module).sites[product.position] = site
        return rows

    def _uses(self, product: Product) -> int:
        """How often a forward pass comes to a product."""
        return sum((p.module, p.position) == (product.module, product.position) for p in self.run.seen.products)

    def _site(self, product: Product, rows: BatchAxis, calls_per_forward: int) -> tuple[AttentionSite, list[Captured]]:
        name = self.site(product, "attention")
        key, key_row = self.choice.kv(name, "key", calls_per_forward, product)
        value, value_row = self.choice.kv(name, "value", calls_per_forward, product)
        return AttentionSite(name, key, value, self.choice.state, rows, product.groups), [key_row, value_row]

    def pair(self, product: Product, given: Place, role: PairRole) -> list[Captured]:
        """K or V of a product of two activations that the model writes out."""
        known = given.known and (given.left is not None or given.right is not None)
        if product.kind == "computed weights" and not known:
            return self.digital(product, given, role, COMPUTED)
        check_place(product, given)
        name = self.site(product, role)
        operand, row = self.choice.kv(name, role, self._uses(product), product)
        if operand is not None:
            where = {"left": given.left, "right": given.right}
            site = ActivationMatmulSite(
                name, operand, self.choice.state, **where, groups=product.groups, swapped=product.swapped
            )
            self._frame(product.module).sites[product.position] = site
        return [row]

    def digital(self, product: Product, given: Place, role: PairRole | None, reason: str) -> list[Captured]:
        """Nothing is changed."""
        name = product.module
        if product.kind == "multihead attention":
            rows = [digital_row(name, title, reason) for title in ("x W", "Q K", "P V")]
            own = isinstance(self.modules[name], nn.MultiheadAttention)
            return [*rows, *([digital_row(f"{name}.out_proj".lstrip("."), "x W", reason)] if own else [])]
        title = f"x W ({product.operation})" if reason == COMPUTED else product.operation
        return [digital_row(name, title, reason)]

    def across_samples(self, product: Product, given: Place) -> bool:
        """As the rows of its factors show."""
        return given.left is None and given.right is None


def _matrix_key(product: Product) -> tuple[object, ...]:
    """What tells one use of a matrix of weights from those of others."""
    return (product.module, product.weights, *(() if product.matrix is None else geometry(product)))
