"""`ProductHandler`: one dispatch over the kinds of captured products, shared by `convert` and `trace`.

It applies the rules, refuses products that are not understood, and names the others. Its two subclasses place the
products on engines (`nn/convert/replace.py`) and make operations of them (`tracing/operations.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Generic, Literal, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from ohmformer.capture.product import Product
from ohmformer.capture.table import ACROSS_SAMPLES, BY_RULE, COMPUTED, CONSTANT
from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import SiteNames
from ohmformer.hardware.rules import RecordedRules, Rule
from ohmformer.routing.refusals import check_supported, not_followed, remedy, where
from ohmformer.routing.weight_names import WeightNames

PairRole = Literal["key", "value"]
_BY_ENGINE: dict[str, PairRole] = {"attention.key": "key", "attention.value": "value"}

Given = TypeVar("Given")
"""What the caller knows of a product beside the product itself, such as the axes of its samples."""
Made = TypeVar("Made")
"""The result of a subclass for one product."""


class ProductHandler(ABC, Generic[Given, Made]):
    """Applies the rules to each product, refuses those that are not understood, and hands the others to its methods.

    Attributes:
        rules: the rules, which record their matches.
        weights_of: names of the matrices of weights.
        sites: names of the sites of attention.
    """

    def __init__(self, model: nn.Module, rules: RecordedRules) -> None:
        self.rules, self.weights_of = rules, WeightNames(model)
        self.sites = SiteNames((*self.weights_of.modules, *self.weights_of.parameters))

    def handle(self, product: Product, given: Given) -> Made:
        """Call the method for the kind of a product, and return its result.

        Args:
            product: a product of the dry run.
            given: what else the caller knows of it; it is passed on.

        Raises:
            BadInput: the product is not understood, and no rule keeps it digital.
        """
        match product.kind:
            case "weights":
                return self.weights(product, given)
            case "attention":
                return self.attention(product, given)
            case "multihead attention":
                return self._multihead(product, given)
            case "unknown":
                return self.unknown(product, given, self.rules.rule((product.module,)))
        return self._pair(product, given)

    def _multihead(self, product: Product, given: Given) -> Made:
        module = self.weights_of.modules[product.module]
        if self.rules.rule((product.module,)).digital:
            return self.digital(product, given, None, BY_RULE)
        if not isinstance(module, nn.MultiheadAttention):
            raise BadInput(
                f"{where(product)}: calls {product.operation} directly, which hides its products; "
                f"{remedy('keep it digital', product)}"
            )
        if any(parametrize.is_parametrized(part) for part in (module, module.out_proj)):
            return self.digital(product, given, None, COMPUTED)
        check_supported(module, product.module)
        return self.multihead(product, given, module)

    def _pair(self, product: Product, given: Given) -> Made:
        rule = self.rules.rule((product.module,))
        role = product.role or _BY_ENGINE.get(rule.on)
        if rule.digital:
            return self.digital(product, given, role or None, BY_RULE)
        if product.left is None or product.right is None:
            raise not_followed(product)
        if role:
            return self.pair(product, given, role)
        if product.kind == "constant":
            reason = CONSTANT
        elif product.kind == "computed weights":
            reason = COMPUTED
        elif self.across_samples(product, given):
            reason = ACROSS_SAMPLES
        else:
            raise not_followed(product)
        return self.digital(product, given, None, reason)

    def site(self, product: Product, role: str) -> str:
        """The name of the site of attention that computes a product; see `SiteNames.name`."""
        return self.sites.name(product.module, role, product.position)

    @abstractmethod
    def weights(self, product: Product, given: Given) -> Made:
        """The result for a product with weights."""

    @abstractmethod
    def attention(self, product: Product, given: Given) -> Made:
        """The result for fused attention."""

    @abstractmethod
    def multihead(self, product: Product, given: Given, module: nn.MultiheadAttention) -> Made:
        """The result for a call of `nn.MultiheadAttention`."""

    @abstractmethod
    def pair(self, product: Product, given: Given, role: PairRole) -> Made:
        """The result for a separate product Q K^T ("key") or P V ("value")."""

    @abstractmethod
    def digital(self, product: Product, given: Given, role: PairRole | None, reason: str) -> Made:
        """The result for a product without weights, or a whole `nn.MultiheadAttention`, that stays digital."""

    @abstractmethod
    def unknown(self, product: Product, given: Given, rule: Rule) -> Made:
        """The result for a call whose products are not known; `rule` is that of its module."""

    @abstractmethod
    def across_samples(self, product: Product, given: Given) -> bool:
        """True if a product of two activations multiplies samples with one another."""


def unseen_layers(modules: Mapping[str, nn.Module], products: Iterable[Product]) -> Iterator[str]:
    """Names of the layers with weights that the products of the sample do not use."""
    used: set[str] = set()
    for product in products:
        used |= {product.module, product.weights.rpartition(".")[0]}
    parts_of_attention = {id(m.out_proj) for m in modules.values() if isinstance(m, nn.MultiheadAttention)}
    for name, module in modules.items():
        if _multiplies(module) and name not in used and id(module) not in parts_of_attention:
            yield name


def _multiplies(module: nn.Module) -> bool:
    """True if a module is a layer that multiplies by weights."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)
    return isinstance(module, layers) or type(module).__name__ == "Conv1D"


def layers_elsewhere(modules: Mapping[str, nn.Module], elsewhere: Set[str], rules: RecordedRules) -> list[str]:
    """Names of the layers with weights that run in another thread and that no rule keeps digital.

    Args:
        modules: name -> module.
        elsewhere: names of the modules that ran in another thread.
        rules: the rules.
    """
    return [name for name in sorted(elsewhere) if _multiplies(modules[name]) and not rules.rule((name,)).digital]
