"""Replace the parts of a model that multiply, following what the dry run saw and the rules of the user."""

from __future__ import annotations

from collections import Counter, defaultdict
from fnmatch import fnmatchcase

from torch import nn

from ohmformer.array.spec import Crossbar
from ohmformer.capture import table as reasons
from ohmformer.capture.batch_axis import FIRST, Rows
from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.product import Product
from ohmformer.capture.pytorch_mha import check_supported
from ohmformer.capture.refusals import check_place, not_followed, not_understood
from ohmformer.capture.table import Captured, CaptureTable
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.modules.activation_matmul import PairSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.class_swap import become, changing
from ohmformer.nn.modules.intercept import Frame, Weights, crossbar_class
from ohmformer.nn.modules.linear import CrossbarLinear, is_plain_linear
from ohmformer.nn.modules.multihead_attention import CrossbarMultiheadAttention
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import DynamicOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import Cells, StaticOperand
from ohmformer.schema import replace as changed

RuleList = tuple[tuple[str, Rule], ...]
_ROLES = {"key": ("K", "Q K", "attention.key"), "value": ("V", "P V", "attention.value")}


class Replacer:
    """Turns modules into their crossbar classes, in place, and writes down what it did."""

    def __init__(
        self,
        model: nn.Module,
        hardware: Accelerator,
        state: State,
        rules: RuleList,
        run: DryRun,
        weights: WeightMitigation,
    ) -> None:
        self.hardware, self.state, self.rules, self.run, self.conditioning = hardware, state, rules, run, weights
        self.modules = dict(model.named_modules())
        self.parameters = dict(model.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.times = Counter(self._matrix_key(p) for p in run.seen.products if p.kind == "weights")
        self.site_names: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.cells: dict[tuple[object, ...], Cells] = {}
        self.forms: dict[str, list[tuple[object, ...]]] = {}
        self.frames: dict[str, Frame] = {}
        self.held_by: defaultdict[str, list[Weights]] = defaultdict(list)
        self.operands: list[Operand] = []
        self.rows: list[Captured] = []
        self.matched: set[str] = set()
        self.looked_up: set[str] = set()
        self.rotating: set[int] = set()

    def replace(self) -> CaptureTable:
        """Replace whatever multiplies.

        Raises:
            BadInput: a product is not understood, or a rule matches no module.
        """
        seen: set[object] = set()
        for product in self.run.seen.products:
            key = self._matrix_key(product) if product.kind == "weights" else (product.module, product.position)
            if product.kind == "unknown":
                self._stay_digital(product.module, product.operation, product.why or not_understood(product))
            elif key not in seen:
                self._one(product)
            seen.add(key)
        for name, frame in self.frames.items():
            frame.weights = self.held_by[name]
        if not self.rows:
            raise BadInput("the model multiplies nothing on the sample, so there is nothing to put on crossbars")
        self._unseen()
        for pattern, rule in self.rules:
            if rule.rotate and pattern in self.matched and id(rule) not in self.rotating:
                raise BadInput(f"rules: {pattern!r}: rotate = true, but it matches no static weights on crossbars")
            if pattern not in self.matched:
                shadowed = any(fnmatchcase(name, pattern) for name in self.looked_up)
                why = "stands behind rules that match first" if shadowed else "matches no module that multiplies"
                raise BadInput(f"rules: {pattern!r} {why}; correct or remove it")
        return CaptureTable(tuple(self.rows))

    def _one(self, product: Product) -> None:
        match product.kind:
            case "weights":
                self._weights(product)
            case "multihead attention":
                self._multihead(product)
            case "attention":
                self._attention(product)
            case _:
                self._pair(product)

    @staticmethod
    def _matrix_key(product: Product) -> tuple[object, ...]:
        """What tells one use of a matrix of weights from those of others."""
        assert product.matrix is not None or product.kind != "weights"
        return (product.module, product.weights, *(() if product.matrix is None else _geometry(product)))

    def _unseen(self) -> None:
        """List the layers that the sample did not reach: they stay as they are."""
        used = {product.module for product in self.run.seen.products}
        used |= {product.weights.rpartition(".")[0] for product in self.run.seen.products}
        elsewhere = self.run.seen.elsewhere
        inside = {id(m.out_proj) for m in self.modules.values() if isinstance(m, nn.MultiheadAttention)}
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)
        for name, module in self.modules.items():
            multiplies = isinstance(module, kinds) or type(module).__name__ == "Conv1D"
            if multiplies and name not in used and id(module) not in inside:
                self._stay_digital(name, "x W", reasons.ELSEWHERE if name in elsewhere else reasons.NOT_CALLED)

    def _rule(self, *names: str) -> Rule:
        """What the rules say of a module or operand, by its name; the first that matches any of its names."""
        self.looked_up.update(names)
        for pattern, rule in self.rules:
            if any(fnmatchcase(name, pattern) for name in names):
                self.matched.add(pattern)
                return rule
        return Rule()

    def _array(
        self, rule: Rule, engine: Engine, weights: WeightMitigation | None = None
    ) -> tuple[Crossbar | None, str]:
        """The crossbar of an operand, or None and the reason why it stays digital."""
        if rule.digital:
            return None, reasons.BY_RULE
        named = {
            "projection": self.hardware.projection,
            "attention.key": self.hardware.attention.key,
            "attention.value": self.hardware.attention.value,
        }
        engine = named.get(rule.on, engine)
        array = rule.array or (engine.array if isinstance(engine, ArrayEngine) else None)
        if array is None:
            return None, reasons.BY_HARDWARE
        for name in ("scale", "percentile"):
            value = getattr(rule, name) if getattr(rule, name) is not None else getattr(weights, name, None)
            if value is not None:
                array = changed(array, name, value)
        return array, ""

    def _row(self, module: str, product: str, role: str, reason: str = "") -> None:
        self.rows.append(Captured(module, product, "digital" if reason else role, reason))

    def _stay_digital(self, module: str, product: str, reason: str) -> None:
        """List what cannot be put on crossbars; a rule that asks for just that is the better reason."""
        self._row(module, product, "digital", reasons.BY_RULE if self._rule(module).digital else reason)

    def _static(
        self,
        name: str,
        key: tuple[object, ...],
        uses: int,
        rows: Rows | None = FIRST,
        known: bool = True,
        bank: str = "",
    ) -> StaticOperand | None:
        rule = self._rule(bank or name.partition("#")[0], name)
        engine = self.hardware.projection
        # What SRAM holds is exact; only memristive cells are conditioned.
        weights = self.conditioning if isinstance(engine, CrossbarEngine) or rule.array else WeightMitigation()
        array, reason = self._array(rule, engine, weights)
        self._row(name, "x W", "projection", reason)
        if array is None:
            return None
        rotated = weights.rotate if rule.rotate is None else rule.rotate
        self.rotating.add(id(rule))
        cells = self.cells.setdefault((*key, array, rotated), Cells(name))
        operand = StaticOperand(
            name, array, self.state, uses=uses, rows=rows, samples_known=known, cells=cells, bank=bank, rotated=rotated
        )
        self.operands.append(operand)
        return operand

    def _weights(self, product: Product) -> None:
        module, matrix, place = self.modules[product.module], product.matrix, self.run.places[product]
        assert matrix is not None
        rows = place.left if place.left is not None or place.known else FIRST
        uses = self.times[self._matrix_key(product)]
        if is_plain_linear(module) and product.weights == self._own_name(product.module):
            operand = self._static(product.module, self._cells_key(product), uses, rows, place.known)
            if operand is not None:
                operand.rows_of = self._rows_by_use(product)
                become(module, CrossbarLinear, ohmformer_weight=operand)
        else:
            self._functional(product, uses, rows, place.known)
        self._use_modules(product.module)

    def _rows_by_use(self, product: Product) -> tuple[Rows | None, ...]:
        """Where samples stand in each use of a matrix, if that differs and is known."""
        uses = [p for p in self.run.seen.products if p.kind == "weights" and p.module == product.module]
        places = [self.run.places[p] for p in uses if self._matrix_key(p) == self._matrix_key(product)]
        rows = tuple(place.left for place in places)
        return rows if len(set(rows)) > 1 and all(place.known for place in places) else ()

    def _own_name(self, module: str) -> str:
        """The name under which a module's weight is listed, which is another module's where they are tied."""
        return self.names.get(id(self.modules[module]._parameters.get("weight")), "")

    def _cells_key(self, product: Product) -> tuple[object, ...]:
        return (product.weights, *_geometry(product))

    def _functional(self, product: Product, uses: int, rows: Rows | None, known: bool) -> None:
        """Weights that a module multiplies by itself: a whole parameter, a part, or one matrix of a bank."""
        parameter, matrix, origin = self.parameters[product.weights], product.matrix, product.origin
        assert matrix is not None
        assert origin is not None
        owner, _, attribute = product.weights.rpartition(".")
        layer = owner if attribute == "weight" else product.weights
        if product.module and self._own_name(product.module) == product.weights:
            layer = product.module
        offset = int(origin.storage_offset()) - int(parameter.storage_offset())
        bank = parameter.dim() == 3 and matrix.numel() == parameter[0].numel() and matrix.dim() == 2
        held = self.held_by[product.module]
        if bank:
            same = (attribute, self.modules[owner], tuple(origin.shape))
            if any((w.parameter, w.owner, w.shape) == same for w in held):
                return
            places = [(f"{layer}[{e}]", e * parameter.stride(0)) for e in range(len(parameter))]
        else:
            part = "" if matrix.numel() == parameter.numel() else f"#{offset}"
            places = [(f"{layer}{part}", offset)]
        for name, start in places:
            key = (product.weights, start, *_geometry(product)[1:])
            operand = self._static(self._unlike(name, key), key, uses, rows, known, bank=layer if bank else "")
            if operand is not None:
                self._frame(product.module)
            view = (tuple(origin.shape), origin.stride(), tuple(matrix.shape))
            held.append(Weights(operand, self.modules[owner], attribute, start, *view))

    def _unlike(self, name: str, key: tuple[object, ...]) -> str:
        """The name of a matrix, with `#as2` ... where the same weights were read as another matrix before."""
        forms = self.forms.setdefault(name, [])
        if key not in forms:
            forms.append(key)
        n = forms.index(key) + 1
        return name if n == 1 else f"{name}#as{n}"

    def _frame(self, name: str) -> Frame:
        """What is intercepted in a module, which then intercepts."""
        if name not in self.frames:
            module = self.modules[name]
            self.frames[name] = Frame(name, self.state, operations=self.run.seen.operations.get(name, {}))
            cls: type[nn.Module] = type(module)
            become(module, crossbar_class(cls), ohmformer_frame=self.frames[name])  # type: ignore[arg-type]
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

    def _multihead(self, seen: Product) -> None:
        name = seen.module
        module = self.modules[name]
        rule = self._rule(name)
        if not isinstance(module, nn.MultiheadAttention) and not rule.digital:
            raise BadInput(
                f"{name or 'the model itself'}: calls {seen.operation} by itself, which hides its products; keep it "
                f"digital with rules={{{name!r}: None}}"
            )
        if rule.digital:
            for product in ("x W", "Q K", "P V"):
                self._row(name, product, "digital", reasons.BY_RULE)
            if isinstance(module, nn.MultiheadAttention):
                self._row(f"{name}.out_proj".lstrip("."), "x W", "digital", reasons.BY_RULE)
            return
        check_supported(module, name)
        check_place(seen, self.run.places[seen])
        uses = self._uses(seen)
        operands = tuple(self._static(f"{name}#{role}", (name, role), uses) for role in "qkv")
        site = self._site(seen, FIRST, uses)
        become(module, CrossbarMultiheadAttention, ohmformer_inputs=operands, ohmformer_sites=[site])
        if isinstance(module.out_proj, CrossbarLinear):  # of another attention, too
            module.out_proj.ohmformer_weight.uses += uses
        else:
            last = f"{name}.out_proj".lstrip(".")
            operand = self._static(last, (last,), uses)
            if operand is not None:
                become(module.out_proj, CrossbarLinear, ohmformer_weight=operand)
        self._use_modules(name)

    def _attention(self, product: Product) -> None:
        place = self.run.places[product]
        if not all(self._rule(product.module, f"{product.module}.{letter}").digital for letter in "KV"):
            check_place(product, place)
        rows = place.right or place.left or FIRST
        site = self._site(product, rows, self._uses(product))
        if site.key or site.value:
            self._frame(product.module).sites[product.position] = site

    def _uses(self, product: Product) -> int:
        """How often a forward pass comes to a product."""
        same = [p for p in self.run.seen.products if p.module == product.module and p.position == product.position]
        return len(same)

    def _site(self, product: Product, rows: Rows, uses: int) -> AttentionSite:
        name = self._site_name(product.module, "attention")
        attention = self.hardware.attention
        key = self._dynamic(name, "key", attention.key, uses, product)
        value = self._dynamic(name, "value", attention.value, uses, product)
        return AttentionSite(name, key, value, self.state, rows, product.groups)

    def _site_name(self, module: str, role: str) -> str:
        """The name of the next site of a module: its own, then with `#1`, `#2` ..."""
        n = self.site_names[module, role]
        self.site_names[module, role] += 1
        return module if n == 0 else f"{module}#{n}"

    def _dynamic(self, name: str, role: str, engine: Engine, uses: int, product: Product) -> DynamicOperand | None:
        letter, title, engine_name = _ROLES[role]
        full_name = f"{name}.{letter}"
        rule = self._rule(name.partition("#")[0], name, full_name)
        array, reason = self._array(rule, engine)
        self._row(name, title, engine_name if rule.on == "hardware" else rule.on, reason)
        if array is None:
            return None
        if isinstance(rule.clip, tuple) and product.groups not in (None, len(rule.clip)):
            count = f"{len(rule.clip)} clips for {product.groups} heads of K and V"
            raise BadInput(f"rules: {full_name}: clip: {count}; give one for each head")
        # Clipping is a remedy for memristive cells; what SRAM holds is exact.
        shared = self.hardware.attention.arrays == "shared" and rule.array is None
        write = rule.write
        if write == "hardware":
            write = engine.written if isinstance(engine, ArrayEngine) else "right"
        operand = DynamicOperand(
            full_name,
            array,
            self.state,
            uses=uses,
            signed=write == "left" or role == "key" or not product.unsigned,
            axis="K" if write == "left" else letter,
            write=write,
            fault_name=engine_name if shared else full_name,
            causal=bool(product.causal),
            memristive=isinstance(engine, CrossbarEngine) or rule.array is not None,
            clip="none" if rule.clip == "model" and not isinstance(engine, CrossbarEngine) else rule.clip,
        )
        self.operands.append(operand)
        return operand

    def _pair(self, product: Product) -> None:
        """A product of two activations that the model writes out."""
        rule, place = self._rule(product.module), self.run.places[product]
        role = product.role or {"attention.key": "key", "attention.value": "value"}.get(rule.on, "")
        if rule.digital:
            self._row(product.module, product.operation, "digital", reasons.BY_RULE)
            return
        if not role and product.kind == "constant":
            self._row(product.module, product.operation, "digital", reasons.CONSTANT)
            return
        place_known = place.known and (place.left is not None or place.right is not None)
        if product.kind == "computed weights" and not (role and place_known):
            self._row(product.module, f"x W ({product.operation})", "digital", reasons.COMPUTED)
            return
        if not role and product.left is not None and place.left is None and place.right is None:
            self._row(product.module, product.operation, "digital", reasons.ACROSS_SAMPLES)
            return
        if not role or product.left is None:
            raise not_followed(product)
        check_place(product, place)
        name, attention = self._site_name(product.module, role), self.hardware.attention
        engine = attention.key if role == "key" else attention.value
        operand = self._dynamic(name, role, engine, self._uses(product), product)
        if operand is not None:
            where = {"left": place.left, "right": place.right}
            site = PairSite(name, operand, self.state, **where, groups=product.groups, swapped=product.swapped)
            self._frame(product.module).sites[product.position] = site


def _geometry(product: Product) -> tuple[object, ...]:
    """What tells parts of one parameter, and ways to read it as a matrix, from one another."""
    origin, matrix = product.origin, product.matrix
    assert origin is not None
    assert matrix is not None
    return origin.storage_offset(), tuple(origin.shape), origin.stride(), tuple(matrix.shape)
