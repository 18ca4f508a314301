"""The names of operands, and by which of them rules find each: the same for accuracy, traced workloads and prices.

An operand is a matrix that arrays hold. Weights are called after the layer that owns them (`blocks.0.mlp.0`), with
`[3]` for one matrix of a bank and `#64` for the part of a parameter that begins at value 64; where the same weights
are read as another matrix, `#as2` follows. K and V are called after
their site, the place in a module where attention is computed: `attn.K`; a second site of one module is `attn#1`.
"""

from __future__ import annotations

from collections import defaultdict

LETTERS = {"key": "K", "value": "V"}
"""What ends the name of an operand, by its role in attention."""


def kv_name(site: str, role: str) -> str:
    """The name of K (`role` is "key") or V ("value") at a site."""
    return f"{site}.{LETTERS[role]}"


def kv_rule_names(name: str) -> tuple[str, ...]:
    """All names by which rules find a K or V: its own, that of its site and that of its module."""
    site = name.rpartition(".")[0]
    return _distinct(name, site, site.partition("#")[0])


def weight_name(layer: str, *, index: int | None = None, part: int | str | None = None) -> str:
    """The name of weights: of a whole layer, of matrix `index` of a bank, or of one part of a parameter.

    Args:
        layer: the layer, or the parameter if it is not called `weight`.
        index: of a matrix in a bank [E, ., .].
        part: the part's first value, or its letter (`q`, `k`, `v` of `nn.MultiheadAttention`).
    """
    if index is not None:
        return f"{layer}[{index}]"
    return layer if part is None else f"{layer}#{part}"


def form_name(name: str, others: int) -> str:
    """The name of weights that were read as so many `others` matrices before: `proj`, `proj#as2`, `proj#as3` ..."""
    return name if others == 0 else f"{name}#as{others + 1}"


def weight_rule_names(name: str) -> tuple[str, ...]:
    """All names by which rules find weights: their own, and that of the whole layer or parameter.

    The module that multiplies by them does not count: weights lie where their owner says, however they are called.
    """
    return _distinct(name, name.partition("[")[0].partition("#")[0])


class SiteNames:
    """Numbers the sites of every module in the order in which they are asked for: `attn`, `attn#1`, `attn#2` ..."""

    def __init__(self) -> None:
        self._positions: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def name(self, module: str, role: str, position: int) -> str:
        """The name of a site; the same again for the same position.

        Args:
            module: the calling module.
            role: "attention" for a fused call, "key" or "value" for a product of its own: each is numbered apart.
            position: which product of a call of the module it is.
        """
        known = self._positions[module, role]
        if position not in known:
            known.append(position)
        number = known.index(position)
        return module if number == 0 else f"{module}#{number}"


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
