"""Messages for products that cannot be mapped, and reasons for products that stay digital: one line with a remedy."""

from __future__ import annotations

from torch import nn

from ohmformer.capture.dry_run import Place
from ohmformer.capture.product import Product
from ohmformer.capture.table import ELSEWHERE
from ohmformer.errors import BadInput


def check_supported(module: nn.MultiheadAttention, name: str) -> None:
    """Refuse an `nn.MultiheadAttention` that has more keys than its input, which its replacement does not compute.

    Raises:
        BadInput: the module has `add_bias_kv` or `add_zero_attn`.
    """
    if module.bias_k is not None or module.add_zero_attn:
        raise BadInput(
            f"{name}: nn.MultiheadAttention with add_bias_kv or add_zero_attn is not supported; "
            f"keep it digital with rules={{{name!r}: None}}"
        )


def check_place(product: Product, place: Place) -> None:
    """Refuse a product whose rows cannot be assigned to samples.

    Raises:
        BadInput: the dry run did not show the axis of the samples, or neither factor has one.
    """
    if not place.known or (place.left is None and place.right is None):
        raise BadInput(
            f"{describe(product)}: cannot tell which rows belong to which sample; {remedy('keep it digital', product)}"
        )


def not_followed(product: Product) -> BadInput:
    """The error for a product of two activations that has no known role in attention."""
    what = f"{where(product)}: multiplies two activations by {product.operation} ({shapes(product)}), which"
    digital = remedy("keep it digital", product)
    if product.left is None:  # without known factors, a rule cannot give it a role
        return BadInput(f"{what} cannot be followed: {product.why or not_understood(product)}; {digital}")
    rule = f"rules={{{product.module!r}: Rule(on='attention.key')}}"
    return BadInput(f"{what} is not understood; {digital}, or give it a role with {rule}")


def not_counted(product: Product) -> BadInput:
    """The error for a call whose matrix products are not known."""
    why = f": {product.why}" if product.why else ""
    return BadInput(f"{describe(product)} is not understood{why}; {remedy('leave it out', product)}")


def in_another_thread(modules: list[str], action: str) -> BadInput:
    """The error for modules that run in another thread; `action` says what a rule does to them."""
    rule = ", ".join(f"{name!r}: None" for name in dict.fromkeys(modules))
    return BadInput(
        f"{modules[0]}: {ELSEWHERE}; call it in the thread that calls the model, or {action} with rules={{{rule}}}"
    )


def not_understood(product: Product) -> str:
    """The reason why a product stays digital if no other is known."""
    return f"{product.operation} is not understood"


def describe(product: Product) -> str:
    """The module of a product, its function, and the shapes of its factors."""
    return f"{where(product)}: {product.operation} on {shapes(product)}"


def where(product: Product) -> str:
    """The module of a product, for messages."""
    return product.module or "the model itself"


def shapes(product: Product) -> str:
    """The shapes of both factors, for messages."""
    return " with ".join(str(shape) for shape in product.shapes[:2])


def remedy(action: str, product: Product) -> str:
    """An instruction that applies the rule None to the module of a product; `action` says what this does."""
    return f"{action} with rules={{{product.module!r}: None}}"
