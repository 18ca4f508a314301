"""Replace the parts of a model that multiply, following what the dry run saw and the rules of the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, Engine
from ohmformer.nn.attention import AttentionSite, crossbar_class
from ohmformer.nn.capture import Product
from ohmformer.nn.dynamic import DynamicOperand
from ohmformer.nn.linear import CrossbarLinear, crossbar_layer
from ohmformer.nn.multihead import CrossbarMultiheadAttention, check_supported
from ohmformer.nn.operand import Operand
from ohmformer.nn.state import State
from ohmformer.nn.static import StaticOperand
from ohmformer.nn.table import BY_HARDWARE, BY_RULE, Captured, CaptureTable

Rules = Mapping[str, Crossbar | None]


def become(module: nn.Module, cls: type[nn.Module], **attributes: object) -> None:
    """Give a module another class, in place, and what that class needs."""
    module.__class__ = cls
    for name, value in attributes.items():
        setattr(module, name, value)


class Replacer:
    """Turns modules into their crossbar classes, in place, and writes down what it did."""

    def __init__(self, model: nn.Module, hardware: Accelerator, state: State, rules: Rules, batch: int) -> None:
        self.hardware = hardware
        self.state = state
        self.rules = rules
        self.batch = batch
        self.modules = dict(model.named_modules())
        self.times: Counter[tuple[str, str]] = Counter()
        self.calls: Mapping[str, int] = {}
        self.operands: list[Operand] = []
        self.rows: list[Captured] = []
        self.matched: set[str] = set()

    def replace(self, products: list[Product], calls: Mapping[str, int]) -> CaptureTable:
        """Replace whatever multiplies in these products; `calls` says how often each module was called.

        Raises:
            BadInput: a product is not understood, or a rule matches no module.
        """
        self.calls = calls
        self.times = Counter((product.module, product.kind) for product in products)
        seen: set[tuple[str, str]] = set()
        for product in products:
            first = (product.module, product.kind) not in seen
            seen.add((product.module, product.kind))
            match product.kind:
                case "attention":
                    self._check_batch(product)
                    if first:
                        self._attention(product.module)
                case "multihead attention" if first:
                    self._multihead(product)
                case "weights" if first:
                    self._weights(product)
                case "two activations":
                    self._two_activations(product)
                case "unknown":
                    self._stay_digital(product.module, product.operation, f"{product.operation} is not understood")
        if not self.rows:
            raise BadInput("the model multiplies nothing on the sample, so there is nothing to put on crossbars")
        self._unseen({module for module, _ in seen})
        for pattern in self.rules:
            if pattern not in self.matched:
                raise BadInput(f"rules: {pattern!r} matches no module that multiplies; correct or remove it")
        return CaptureTable(tuple(self.rows))

    def _unseen(self, seen: set[str]) -> None:
        """List the layers that the sample did not reach: they stay as they are."""
        inside = {id(m.out_proj) for m in self.modules.values() if isinstance(m, nn.MultiheadAttention)}
        for name, module in self.modules.items():
            multiplies = isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention))
            if multiplies and name not in seen and id(module) not in inside:
                self._stay_digital(name, "x W", "its forward is not called on the sample")

    def _rule(self, name: str) -> tuple[bool, Crossbar | None]:
        """Whether a rule speaks of a module, and what it says."""
        for pattern, choice in self.rules.items():
            if fnmatchcase(name, pattern):
                self.matched.add(pattern)
                return True, choice
        return False, None

    def _array(self, name: str, engine: Engine) -> tuple[Crossbar | None, str]:
        """The crossbar of a module's operand, or None and the reason why it stays digital."""
        ruled, choice = self._rule(name)
        if ruled:
            return choice, "" if choice else BY_RULE
        return (engine.array, "") if engine.kind == "crossbar" else (None, BY_HARDWARE)

    def _row(self, module: str, product: str, role: str, reason: str = "") -> None:
        self.rows.append(Captured(module, product, "digital" if reason else role, reason))

    def _stay_digital(self, module: str, product: str, reason: str) -> None:
        """List what cannot be put on crossbars; a rule that asks for just that is the better reason."""
        self._row(module, product, "digital", BY_RULE if self._rule(module) == (True, None) else reason)

    def _static(self, name: str, product: str, uses: int) -> StaticOperand | None:
        array, reason = self._array(name.partition("#")[0], self.hardware.projection)
        self._row(name, product, "projection", reason)
        if array is None:
            return None
        operand = StaticOperand(name, array, self.state, uses=uses)
        self.operands.append(operand)
        return operand

    def _weights(self, product: Product) -> None:
        name = product.module
        module = self.modules[name]
        replaceable, reason = crossbar_layer(module)
        if replaceable is None:
            self._stay_digital(name, f"x W ({product.operation})", reason)
            return
        operand = self._static(name, "x W", self.times[name, "weights"])
        if operand is not None:
            become(module, replaceable, weight_operand=operand)
        self._use_modules(name)

    def _use_modules(self, name: str) -> None:
        """Keep PyTorch's fused encoder from reading the weights of its layers past the layers themselves."""
        parts = name.split(".")
        for depth in range(len(parts)):
            parent = self.modules.get(".".join(parts[:depth]))
            if isinstance(parent, nn.TransformerEncoderLayer):
                parent.activation_relu_or_gelu = 0
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False

    def _multihead(self, seen: Product) -> None:
        name = seen.module
        module = self.modules[name]
        if not isinstance(module, nn.MultiheadAttention):
            self._two_activations(seen)
            return
        if self._rule(name) == (True, None):
            for product in ("x W", "Q K", "P V"):
                self._row(name, product, "digital", BY_RULE)
            return
        check_supported(module, name)
        uses = self.times[name, "multihead attention"]
        operands = tuple(self._static(f"{name}#{role}", "x W", uses) for role in "qkv")
        become(module, CrossbarMultiheadAttention, in_operands=operands, attention_sites=[self._site(name, uses)])
        operand = self._static(f"{name}.out_proj", "x W", uses)
        if operand is not None:
            become(module.out_proj, CrossbarLinear, weight_operand=operand)
        self._use_modules(name)

    def _attention(self, name: str) -> None:
        if self._rule(name) == (True, None):
            self._row(name, "Q K, P V", "digital", BY_RULE)
            return
        module = self.modules[name]
        calls = max(1, self.calls[name])
        each = -(-self.times[name, "attention"] // calls)
        sites = [self._site(name if n == 0 else f"{name}#{n}", calls) for n in range(each)]
        if any(site.key or site.value for site in sites):
            cls: type[nn.Module] = type(module)
            become(module, crossbar_class(cls), attention_sites=sites)  # type: ignore[arg-type]

    def _site(self, name: str, uses: int) -> AttentionSite:
        attention = self.hardware.attention
        key = self._dynamic(name, "K", "Q K", attention.key, uses)
        return AttentionSite(name, key, self._dynamic(name, "V", "P V", attention.value, uses))

    def _dynamic(self, name: str, axis: str, product: str, engine: Engine, uses: int) -> DynamicOperand | None:
        role = "attention.key" if axis == "K" else "attention.value"
        array, reason = self._array(name.partition("#")[0], engine)
        self._row(name, product, role, reason)
        if array is None:
            return None
        full_name = f"{name}.{axis}"
        arrays = role if self.hardware.attention.arrays == "shared" else full_name
        signed = axis == "K"
        operand = DynamicOperand(full_name, array, self.state, uses=uses, signed=signed, axis=axis, fault_name=arrays)
        self.operands.append(operand)
        return operand

    def _check_batch(self, product: Product) -> None:
        shape = product.shapes[0]
        if len(shape) < 3 or shape[0] != self.batch:
            raise BadInput(
                f"{product.module}: attention on a tensor of shape {shape} for a batch of {self.batch}: cannot tell "
                f"which rows belong to which sample; keep it digital with rules={{{product.module!r}: None}}"
            )

    def _two_activations(self, product: Product) -> None:
        if self._rule(product.module) == (True, None):
            self._row(product.module, product.operation, "digital", BY_RULE)
            return
        shapes = " with ".join(str(shape) for shape in product.shapes[:2])
        raise BadInput(
            f"{product.module or 'the model itself'}: multiplies two activations by {product.operation} ({shapes}), "
            f"which is not understood; keep it digital with rules={{{product.module!r}: None}}, or use "
            "scaled_dot_product_attention"
        )
