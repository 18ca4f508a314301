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
from ohmformer.nn.linear import CrossbarConv2d, CrossbarLinear, convertible_conv
from ohmformer.nn.multihead import CrossbarMultiheadAttention, check_supported
from ohmformer.nn.operand import DynamicOperand, Operand, StaticOperand
from ohmformer.nn.state import State
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
        self.model = model
        self.hardware = hardware
        self.state = state
        self.rules = rules
        self.batch = batch
        self.modules = dict(model.named_modules())
        self.operands: list[Operand] = []
        self.rows: list[Captured] = []
        self.matched: set[str] = set()

    def replace(self, products: list[Product]) -> CaptureTable:
        """Replace whatever multiplies in these products.

        Raises:
            BadInput: a product is not understood, or a rule matches no module.
        """
        attentions = Counter(p.module for p in products if p.kind == "attention")
        seen: set[str] = set()
        for product in products:
            match product.kind:
                case "weights" if product.module not in seen:
                    self._weights(product)
                case "multihead attention" if product.module not in seen:
                    self._multihead(product.module)
                case "attention":
                    self._check_batch(product)
                    if product.module not in seen:
                        self._attention(product.module, attentions[product.module])
                case "two activations":
                    self._two_activations(product)
            seen.add(product.module)
        self._unseen(seen)
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
                self._rule(name)
                self._row(name, "x W", "digital", "not used by the sample")

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

    def _static(self, name: str, product: str) -> StaticOperand | None:
        array, reason = self._array(name.partition("#")[0], self.hardware.projection)
        self._row(name, product, "projection", reason)
        if array is None:
            return None
        operand = StaticOperand(name, array, self.state)
        self.operands.append(operand)
        return operand

    def _weights(self, product: Product) -> None:
        name = product.module
        module = self.modules[name]
        replaceable: type[nn.Module] | None = None
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            replaceable = CrossbarLinear
        elif isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and convertible_conv(module):
            replaceable = CrossbarConv2d
        if replaceable is None:
            self._rule(name)
            self._row(name, f"x W ({product.operation})", "digital", f"{type(module).__name__} is not converted")
            return
        operand = self._static(name, "x W")
        if operand is not None:
            become(module, replaceable, weight_operand=operand)

    def _multihead(self, name: str) -> None:
        module = self.modules[name]
        assert isinstance(module, nn.MultiheadAttention)
        if self._rule(name) == (True, None):
            for product in ("x W", "Q K", "P V"):
                self._row(name, product, "digital", BY_RULE)
            return
        check_supported(module, name)
        operands = tuple(self._static(f"{name}#{role}", "x W") for role in "qkv")
        # The fused encoder layer reads the weights past this module; it steps back where the last of these is False.
        attributes = {"in_operands": operands, "attention_sites": [self._site(name)], "_qkv_same_embed_dim": False}
        become(module, CrossbarMultiheadAttention, **attributes)
        operand = self._static(f"{name}.out_proj", "x W")
        if operand is not None:
            become(module.out_proj, CrossbarLinear, weight_operand=operand)
        for parent in self.modules.values():
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False

    def _attention(self, name: str, count: int) -> None:
        if self._rule(name) == (True, None):
            self._row(name, "Q K, P V", "digital", BY_RULE)
            return
        module = self.modules[name]
        sites = [self._site(name if n == 0 else f"{name}#{n}") for n in range(count)]
        if any(site.key or site.value for site in sites):
            cls: type[nn.Module] = type(module)
            become(module, crossbar_class(cls), attention_sites=sites)  # type: ignore[arg-type]

    def _site(self, name: str) -> AttentionSite:
        attention = self.hardware.attention
        key = self._dynamic(name, "K", "Q K", attention.key)
        return AttentionSite(name, key, self._dynamic(name, "V", "P V", attention.value))

    def _dynamic(self, name: str, axis: str, product: str, engine: Engine) -> DynamicOperand | None:
        role = "attention.key" if axis == "K" else "attention.value"
        array, reason = self._array(name.partition("#")[0], engine)
        self._row(name, product, role, reason)
        if array is None:
            return None
        full_name = f"{name}.{axis}"
        arrays = role if self.hardware.attention.arrays == "shared" else full_name
        operand = DynamicOperand(full_name, array, self.state, signed=axis == "K", axis=axis, fault_name=arrays)
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
