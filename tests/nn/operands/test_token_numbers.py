"""Tokens are numbered by the arguments of a call, whatever their form."""

from __future__ import annotations

import pytest
import torch

from ohmformer.nn.operands.token_numbers import numbered

POSITIONS = torch.tensor([[3], [1]])
"""Of one new token of each of two samples, of which the second has two slots of padding."""
SEEN = torch.tensor([[[[1, 1, 1, 1, 0]]], [[[0, 0, 1, 1, 0]]]]).bool()
"""[B, 1, M, N] for a cache with five slots."""


class Cache:
    """A cache with three tokens."""

    def get_seq_length(self) -> int:
        return 3


@pytest.mark.parametrize(
    "mask",
    [
        SEEN,
        {"full_attention": SEEN, "conv": None},
        {"conv": None, "full_attention": SEEN},
        {"conv": torch.ones(2, 1, dtype=torch.long), "full_attention": SEEN},
    ],
)
def test_masks_of_attention_decide_beside_those_of_other_layers(mask: object) -> None:
    """Models of attention and convolutions name a mask for each kind of layer, None for some."""
    new = numbered({"past_key_values": Cache(), "position_ids": POSITIONS}, mask, B=2, M=1)
    assert new.numbers == ((3,), (1,))
    assert new.tokens_so_far == (4, 2)
