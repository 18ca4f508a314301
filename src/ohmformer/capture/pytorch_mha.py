"""Which forms of `nn.MultiheadAttention` can be taken apart into products."""

from __future__ import annotations

from torch import nn

from ohmformer.errors import BadInput


def check_supported(module: nn.MultiheadAttention, name: str) -> None:
    """Refuse what is not written out here.

    Raises:
        BadInput: the module adds keys of its own.
    """
    if module.bias_k is not None or module.add_zero_attn:
        raise BadInput(
            f"{name}: nn.MultiheadAttention with add_bias_kv or add_zero_attn is not supported; "
            f"keep it digital with rules={{{name!r}: None}}"
        )
