"""Why a product of a model cannot be used as it is, in one line with a remedy."""

from __future__ import annotations

from ohmformer.capture.dry_run import Place
from ohmformer.capture.product import Product
from ohmformer.errors import BadInput


def check_place(product: Product, place: Place) -> None:
    """Refuse a product of which it is not known whose rows are whose.

    Raises:
        BadInput: it is one.
    """
    if not place.known or (place.left is None and place.right is None):
        raise BadInput(
            f"{describe(product)}: cannot tell which rows belong to which sample; {remedy('keep it digital', product)}"
        )


def not_followed(product: Product) -> BadInput:
    """The error for a product of two activations of which nobody knows what it is."""
    what = f"{where(product)}: multiplies two activations by {product.operation} ({shapes(product)}), which"
    digital = remedy("keep it digital", product)
    if product.left is None:  # then no rule can say what it is
        return BadInput(f"{what} cannot be followed: {product.why or not_understood(product)}; {digital}")
    rule = f"rules={{{product.module!r}: Rule(on='attention.key')}}"
    return BadInput(f"{what} is not understood; {digital}, or say what it is with {rule}")


def not_counted(product: Product) -> BadInput:
    """The error for a call of which nobody knows what it multiplies."""
    why = f": {product.why}" if product.why else ""
    return BadInput(f"{describe(product)} is not understood{why}; {remedy('leave it out', product)}")


def not_understood(product: Product) -> str:
    """The reason for a product to stay digital where none is known."""
    return f"{product.operation} is not understood"


def describe(product: Product) -> str:
    """Where a product is, and of what."""
    return f"{where(product)}: {product.operation} on {shapes(product)}"


def where(product: Product) -> str:
    """The module that multiplies."""
    return product.module or "the model itself"


def shapes(product: Product) -> str:
    """The shapes of both factors."""
    return " with ".join(str(shape) for shape in product.shapes[:2])


def remedy(what: str, product: Product) -> str:
    """How to do something with a product by rule."""
    return f"{what} with rules={{{product.module!r}: None}}"
