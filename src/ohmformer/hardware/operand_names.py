"""Names of operands, and the names by which rules find them: the same for accuracy, traced workloads and cost.

An operand is a matrix that arrays hold. Weights have the name of the layer that owns them (`blocks.0.mlp.0`), with
`[3]` for one matrix of a bank and `#64` for the part of a parameter that begins at value 64. If the same weights are
also read as another matrix, such as transposed, `#as2` follows. K and V have the name of their attention site, a place
in a module where attention is computed, such as `attn.K`. The second site of a module is `attn#1`. If the module has a
layer of its own that is named `K` or `V`, its first site is `attn#0`, so `attn.K` is the layer and `attn#0.K` the K.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count

LETTERS = {"key": "K", "value": "V"}
"""Role in attention -> last part of the operand's name."""


def kv_name(site: str, role: str) -> str:
    """The name of K (role "key") or V (role "value") at an attention site."""
    return f"{site}.{LETTERS[role]}"


def kv_rule_names(name: str) -> tuple[str, ...]:
    """All names by which rules find K or V: its own name, the name of its site, and that of its module."""
    site = name.rpartition(".")[0]
    return _distinct(name, site, site.partition("#")[0])


def weight_name(layer: str, *, index: int | None = None, part: int | str | None = None) -> str:
    """The name of weights: of a whole layer, of one matrix of a bank, or of one part of a parameter.

    Args:
        layer: name of the layer, or of the parameter if that is not `weight`.
        index: index of the matrix in a bank [E, O, I].
        part: index of the part's first value, or its letter (`q`, `k` or `v` of `nn.MultiheadAttention`).
    """
    if index is not None:
        return f"{layer}[{index}]"
    return layer if part is None else f"{layer}#{part}"


def form_name(name: str, others: int) -> str:
    """The name of weights that are read as several matrices: `proj`, `proj#as2`, `proj#as3`, and so on.

    Args:
        name: name of the weights.
        others: number of other matrices that they were read as before.
    """
    return name if others == 0 else f"{name}#as{others + 1}"


def weight_rule_names(name: str) -> tuple[str, ...]:
    """All names by which rules find weights: their own name, and that of the whole layer or parameter.

    The module that owns the weights decides, not the module that multiplies by them.
    """
    return _distinct(name, name.partition("[")[0].partition("#")[0])


class SiteNames:
    """Numbers the attention sites of every module in order of first use: `attn`, `attn#1`, `attn#2`, and so on.

    The first site is `attn#0` where the module has a layer or a parameter of the name `K` or `V`.
    """

    def __init__(self, owned: Iterable[str] = ()) -> None:
        """`owned` are the names of all layers and parameters, which are names of weights."""
        self._owned = frozenset(owned)
        self._numbers: dict[tuple[str, str, int], int] = {}
        self._used: defaultdict[tuple[str, str], set[int]] = defaultdict(set)

    def name(self, module: str, role: str, position: int) -> str:
        """The name of a site; the same position always gets the same name.

        Args:
            module: name of the calling module.
            role: "attention" for a fused call, which has K and V; "key" or "value" for a separate product. The numbers
                of K are counted apart from those of V.
            position: index of the product within a call of the module.
        """
        number = self._numbers.get((module, role, position))
        if number is None:
            used = [self._used[module, of] for of in (LETTERS if role == "attention" else (role,))]
            number = next(n for n in count() if not any(n in numbers for numbers in used))
            for numbers in used:
                numbers.add(number)
            self._numbers[module, role, position] = number
        ambiguous = any(f"{module}.{letter}" in self._owned for letter in LETTERS.values())
        return f"{module}#{number}" if number or ambiguous else module


def _distinct(*names: str) -> tuple[str, ...]:
    """The names without repetitions, in their order."""
    return tuple(dict.fromkeys(names))
