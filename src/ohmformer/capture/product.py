"""The record of one forward pass: its matrix products, its other digital steps, and its calls of modules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ohmformer.capture.signature import Signature

Kind = Literal[
    "weights", "computed weights", "constant", "attention", "multihead attention", "two activations", "unknown"
]
"""What a product multiplies an activation by: a parameter (`weights`), a matrix computed from parameters, a constant,
or another activation; or what its call is: fused attention, `F.multi_head_attention_forward`, or an unknown one."""


@dataclass(eq=False)
class Product:
    """One product of the dry run: a multiplication of two matrices, or a call of fused attention.

    Attributes:
        module: name of the innermost module whose `forward` runs.
        kind: what is multiplied, see `Kind`.
        operation: name of the function or kernel.
        shapes: shapes of the tensors that it multiplies.
        position: index among the products of one call of the module, products with weights not counted; -1 for those.
        weights: name of the parameter that the product multiplies by.
        matrix: the weights [O, I] or [G, O, I] in use: a view of the parameter, or a copy of one.
        origin: the view of the parameter that `matrix` is, or is copied from.
        left: signature of the left factor [..., M, I].
        right: signature of the right factor [..., O, I].
        role: the role of a product of two activations in attention: Q K^T ("key"), P V ("value"), or "" for none.
        unsigned: True if the left factor is a softmax output, so never negative.
        causal: True if no query sees a later key; None if the dry run does not show it.
        across: True if the keys belong to other tokens than the queries, which may come one by one.
        groups: heads of the right factor, where adjacent copies of a head count once; None without an axis of heads.
        swapped: True if the call multiplies V P^T in place of P V; `left` and `right` are those of P V.
        scope: for P V, name of the module inside which the scores became probabilities.
        scores_at: for P V, positions of the products Q K^T of its own module whose results became P.
        why: the reason why the product cannot be followed, if there is one.
    """

    module: str
    kind: Kind
    operation: str
    shapes: tuple[tuple[int, ...], ...]
    position: int = -1
    weights: str = ""
    matrix: Tensor | None = None
    origin: Tensor | None = None
    left: Signature | None = None
    right: Signature | None = None
    role: Literal["key", "value", ""] = ""
    unsigned: bool = False
    causal: bool | None = None
    across: bool = False
    groups: int | None = None
    swapped: bool = False
    scope: str = ""
    scores_at: tuple[int, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class DigitalStep:
    """A step that is not a matrix product: a softmax, a normalization or a nonlinear function of single values."""

    module: str
    kind: Literal["softmax", "normalization", "activation"]
    shape: tuple[int, ...]


@dataclass
class PassRecord:
    """The record of one forward pass.

    Attributes:
        products: all products, in order.
        digital: softmax, normalizations and nonlinear functions, in order.
        operations: module -> position in a call of it -> names of the functions that multiply there.
        calls: module -> number of its calls so far.
        stack: names of the modules whose `forward` runs now, outermost first.
        elsewhere: names of the modules that ran in another thread, where nothing is recorded.
        failed: name of the module in which a recorded call failed; None if none failed.
    """

    products: list[Product] = field(default_factory=list)
    digital: list[DigitalStep] = field(default_factory=list)
    operations: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    stack: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    failed: str | None = None
