"""What a forward pass did: its products, its digital work and its calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ohmformer.capture.signature import Signature

Kind = Literal[
    "weights", "computed weights", "constant", "attention", "multihead attention", "two activations", "unknown"
]


@dataclass(eq=False)
class Product:
    """One product that the dry run saw.

    Attributes:
        module: name of the innermost module at work.
        kind: what multiplies what.
        operation: the function that was called.
        shapes: of the operands.
        position: which of the products of that call it was, those with weights not counted; -1 for those.
        weights: name of the parameter that is multiplied.
        matrix: the very weights [O, I] or [G, O, I], a view of the parameter or a copy of one.
        origin: the view of the parameter that they are, or were copied from.
        left: sizes and samples of the left factor [..., M, I].
        right: of the right factor [..., O, I].
        role: what a product of two activations is to attention: Q K ("key") or P V ("value"); "" for neither.
        unsigned: its left factor is a softmax output, so never negative.
        causal: no query sees a later key; None where that could not be seen.
        across: keys are those of other tokens than the queries, which may come one by one.
        groups: how many heads the right factor has, copies of a head in a row counted once; None without an axis of
            heads.
        swapped: the model writes V P^T for P V; "left" and "right" are those of P V.
        scope: of P V, the module inside which scores became probabilities.
        why: what keeps it from being understood, where that is known.
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
    why: str = ""


@dataclass(frozen=True)
class Digital:
    """Work that is no matrix product: a softmax, a normalization or a nonlinear function of values."""

    module: str
    kind: Literal["softmax", "normalization", "activation"]
    shape: tuple[int, ...]


@dataclass
class Seen:
    """What one forward pass did.

    Attributes:
        products: in order.
        digital: softmax, normalizations and nonlinear functions, in order.
        operations: by module and position in a call, the functions that multiply there.
        calls: how often each module was called, by name.
        stack: names of the modules at work now, outermost first.
        elsewhere: names of the modules that were called in another thread, where nothing is seen.
        failed: name of the module where a watched call failed; None where none did.
    """

    products: list[Product] = field(default_factory=list)
    digital: list[Digital] = field(default_factory=list)
    operations: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    stack: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    failed: str | None = None
