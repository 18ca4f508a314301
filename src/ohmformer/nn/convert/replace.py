"""Replace the modules of a model that multiply, by the products of the dry run and the rules of the user."""

from __future__ import annotations

from collections import Counter, defaultdict

from torch import nn

from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.dry_run import DryRun, Place
from ohmformer.capture.product import Product
from ohmformer.capture.table import BY_RULE, COMPUTED, ELSEWHERE, NOT_CALLED, Captured, CaptureTable
from ohmformer.errors import BadInput
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.operand_names import weight_name
from ohmformer.hardware.rules import OrderedRules, RecordedRules, Rule, RuleBook
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.convert.operand_choice import OperandChoice, digital_row
from ohmformer.nn.modules.activation_matmul import ActivationMatmulSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.class_swap import set_attributes, swap_class
from ohmformer.nn.modules.intercept import Frame, Weights, crossbar_class
from ohmformer.nn.modules.linear import CrossbarLinear, is_plain_linear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.shared.state import State
from ohmformer.routing.product_handler import PairRole, ProductHandler, unseen_layers
from ohmformer.routing.refusals import check_place, in_another_thread, not_understood
from ohmformer.routing.weight_names import geometry


class Replacer(ProductHandler[Place, list[Captured]]):
    """Turns modules into crossbar classes, in place, and makes the rows of the capture table for each product."""

    def __init__(
        self,
        model: nn.Module,
        hardware: Accelerator,
        state: State,
        rules: OrderedRules,
        run: DryRun,
        weights: WeightMitigation,
        ages: Ages | float | None = None,
    ) -> None:
        super().__init__(model, RecordedRules(RuleBook(rules)))
        self.choice = OperandChoice(hardware, state, self.rules, weights, ages)
        self.modules, self.run = self.weights_of.modules, run
        self.matrix_calls = Counter(_matrix_key(p) for p in run.seen.products if p.kind == "weights")
        self.frames: dict[str, Frame] = {}
        self.weights_in: defaultdict[str, list[Weights]] = defaultdict(list)

    @property
    def operands(self) -> list[Operand]:
        """All operands on crossbars, in the order in which they were made."""
        return self.choice.operands

    def replace(self) -> CaptureTable:
        """Replace all modules that multiply, and return the capture table.

        Raises:
            BadInput: a product is not understood, a rule matches no module, or a module on crossbars runs in another
                thread, too.
        """
        handled: set[object] = set()
        rows: list[Captured] = []
        for product in self.run.seen.products:
            key = _matrix_key(product) if product.kind == "weights" else (product.module, product.position)
            if key not in handled or product.kind == "unknown":
                rows += self.handle(product, self.run.places[product])
            handled.add(key)
        self._follow_scores()
        for name, frame in self.frames.items():
            frame.weights = self.weights_in[name]
        if not rows:
            raise BadInput("the model multiplies nothing on the sample, so there is nothing to put on crossbars")
        elsewhere = self.run.seen.elsewhere
        if both := [row.module for row in rows if row.engine != "digital" and row.module in elsewhere]:
            raise in_another_thread(both, "keep it digital")
        for name in unseen_layers(self.modules, self.run.seen.products):
            rows.append(self._unseen_row(name, ELSEWHERE if name in elsewhere else NOT_CALLED))
        self.choice.check_rules()
        return CaptureTable(tuple(rows))

    def _unseen_row(self, module: str, reason: str) -> Captured:
        """Return the row of a layer that stays digital since the dry run shows no product of it, or by a rule."""
        _, rule = self.rules.match_kv((module,))
        return digital_row(module, "x W", BY_RULE if rule.digital else reason)

    def _follow_scores(self) -> None:
        """Make each module that computes or normalizes scores follow them from Q K^T to their softmax."""
        products = [p for p in self.run.seen.products if p.role and p.module in self.frames]
        for product in products:
            frame = self._frame(product.scope if product.role == "value" else product.module)
            if product.role == "key":
                frame.scores.add(product.position)
            for position in product.scores_at:
                users = self._frame(product.module).users
                users[position] = min(product.position, users.get(position, product.position))

    def unknown(self, product: Product, given: Place, rule: Rule) -> list[Captured]:
        """Keep a product digital that cannot be understood."""
        reason = BY_RULE if rule.digital else product.why or not_understood(product)
        return [digital_row(product.module, product.operation, reason)]

    def weights(self, product: Product, given: Place) -> list[Captured]:
        """Replace a linear layer, or intercept a product with weights in a module of another class."""
        module = self.modules[product.module]
        batch_axis = given.left if given.left is not None or given.known else FIRST
        if is_plain_linear(module) and product.weights == self.weights_of.own_weight(product.module):
            captured = [self._linear(product, module, batch_axis, known=given.known)]
        else:
            captured = self._functional(product, batch_axis, known=given.known)
        self._disable_fused_encoders(product.module)
        return captured

    def _linear(self, product: Product, module: nn.Module, batch_axis: BatchAxis | None, *, known: bool) -> Captured:
        key = (product.weights, *geometry(product))
        calls_per_forward, name = self.matrix_calls[_matrix_key(product)], self.weights_of.matrix(product).name
        operand, row = self.choice.weight(name, key, calls_per_forward, batch_axis=batch_axis, samples_known=known)
        if operand is not None:
            operand.batch_axis_of_use = self._batch_axis_of_use(product)
            swap_class(module, CrossbarLinear, ohmformer_weight=operand)
        return row

    def _batch_axis_of_use(self, product: Product) -> tuple[BatchAxis | None, ...]:
        """Return the axis of samples in the inputs of each use of a matrix; empty if all agree or one is unknown."""
        calls = [p for p in self.run.seen.products if p.kind == "weights" and p.module == product.module]
        places = [self.run.places[p] for p in calls if _matrix_key(p) == _matrix_key(product)]
        axes = tuple(place.left for place in places)
        return axes if len(set(axes)) > 1 and all(place.known for place in places) else ()

    def _functional(self, product: Product, batch_axis: BatchAxis | None, *, known: bool) -> list[Captured]:
        """Intercept products with weights in the forward of a module: a whole parameter, a part of it, or a bank.

        All matrices of a bank get operands, also those that the sample does not use.
        """
        _, *form = geometry(product)
        owner, _, attribute = product.weights.rpartition(".")
        module_weights, bank = self.weights_in[product.module], self.weights_of.bank(product)
        bank_key = (attribute, self.modules[owner], form[0])
        if bank and any((w.parameter, w.owner, w.shape) == bank_key for w in module_weights):
            return []
        captured = []
        for matrix in bank or [self.weights_of.matrix(product)]:
            operand, row = self.choice.weight(
                matrix.name,
                (product.weights, matrix.start, *form),
                self.matrix_calls[_matrix_key(product)],
                batch_axis=batch_axis,
                samples_known=known,
                bank=matrix.layer if bank else "",
            )
            captured.append(row)
            if operand is not None:
                self._frame(product.module)
            module_weights.append(Weights(operand, self.modules[owner], attribute, matrix.start, *form))
        return captured

    def _frame(self, name: str) -> Frame:
        """Return the frame of a module; the first call makes the module intercept products."""
        if name not in self.frames:
            module = self.modules[name]
            self.frames[name] = Frame(name, self.choice.state, operations=self.run.seen.operations.get(name, {}))
            cls: type[nn.Module] = type(module)
            swap_class(module, crossbar_class(cls), ohmformer_frame=self.frames[name])  # type: ignore[arg-type]
        return self.frames[name]

    def _disable_fused_encoders(self, name: str) -> None:
        """Make PyTorch's encoders around a module call their layers, instead of a kernel that reads their weights."""
        parts = name.split(".")
        for depth in range(len(parts)):
            parent = self.modules.get(".".join(parts[:depth]))
            if isinstance(parent, nn.TransformerEncoderLayer):
                set_attributes(parent, activation_relu_or_gelu=0)
            if isinstance(parent, nn.TransformerEncoder):
                set_attributes(parent, use_nested_tensor=False)

    def multihead(self, product: Product, given: Place, module: nn.MultiheadAttention) -> list[Captured]:
        """Replace `nn.MultiheadAttention`: three input projections, two products, and `out_proj`."""
        name, calls_per_forward = product.module, self._calls_per_forward(product)
        check_place(product, given)
        inputs = [self.choice.weight(weight_name(name, part=part), (name, part), calls_per_forward) for part in "qkv"]
        site, kv_rows = self._site(product, FIRST, calls_per_forward)
        operands = tuple(operand for operand, _ in inputs)
        swap_class(module, CrossbarMultiheadAttention, ohmformer_inputs=operands, ohmformer_sites=[site])
        rows = [*(row for _, row in inputs), *kv_rows]
        if isinstance(module.out_proj, CrossbarLinear):  # another attention shares it
            module.out_proj.ohmformer_weight.calls_per_forward += calls_per_forward
        else:
            out_name = f"{name}.out_proj".lstrip(".")
            operand, row = self.choice.weight(out_name, (out_name,), calls_per_forward)
            rows.append(row)
            if operand is not None:
                swap_class(module.out_proj, CrossbarLinear, ohmformer_weight=operand)
        self._disable_fused_encoders(name)
        return rows

    def attention(self, product: Product, given: Place) -> list[Captured]:
        """Intercept fused attention: K and V at one site."""
        site, rows = self._site(product, given.right or given.left or FIRST, self._calls_per_forward(product))
        if any(row.reason != BY_RULE for row in rows):
            check_place(product, given)
        if site.key or site.value:
            self._frame(product.module).sites[product.position] = site
        return rows

    def _calls_per_forward(self, product: Product) -> int:
        """Return how often a forward pass computes a product."""
        return sum((p.module, p.position) == (product.module, product.position) for p in self.run.seen.products)

    def _site(
        self, product: Product, batch_axis: BatchAxis, calls_per_forward: int
    ) -> tuple[AttentionSite, list[Captured]]:
        """Return a site of fused attention with its operands, and the rows of K and V for the capture table."""
        name = self.site(product, "attention")
        key, key_row = self.choice.kv(name, "key", calls_per_forward, product)
        value, value_row = self.choice.kv(name, "value", calls_per_forward, product)
        return AttentionSite(name, key, value, self.choice.state, batch_axis, product.groups), [key_row, value_row]

    def pair(self, product: Product, given: Place, role: PairRole) -> list[Captured]:
        """Intercept one product of written-out attention: Q K^T or P V."""
        known = given.known and (given.left is not None or given.right is not None)
        if product.kind == "computed weights" and not known:
            return self.digital(product, given, role, COMPUTED)
        check_place(product, given)
        name = self.site(product, role)
        operand, row = self.choice.kv(name, role, self._calls_per_forward(product), product)
        if operand is not None:
            axes = {"left": given.left, "right": given.right}
            site = ActivationMatmulSite(
                name, operand, self.choice.state, **axes, groups=product.groups, swapped=product.swapped
            )
            self._frame(product.module).sites[product.position] = site
        return [row]

    def digital(self, product: Product, given: Place, role: PairRole | None, reason: str) -> list[Captured]:
        """Keep a product digital: the model stays as it is, and the table gets its rows."""
        name = product.module
        if product.kind == "multihead attention":
            rows = [digital_row(name, title, reason) for title in ("x W", "Q K", "P V")]
            has_out_proj = isinstance(self.modules[name], nn.MultiheadAttention)
            return [*rows, *([digital_row(f"{name}.out_proj".lstrip("."), "x W", reason)] if has_out_proj else [])]
        title = f"x W ({product.operation})" if reason == COMPUTED else product.operation
        return [digital_row(name, title, reason)]

    def across_samples(self, product: Product, given: Place) -> bool:
        """True if no factor has an axis of samples."""
        return given.left is None and given.right is None


def _matrix_key(product: Product) -> tuple[object, ...]:
    """Return a key that is the same for all products with one matrix of weights in one module."""
    return (product.module, product.weights, *(() if product.matrix is None else geometry(product)))
