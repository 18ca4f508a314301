"""What calibration keeps of K and V, and the part of it that a search looks at."""

from __future__ import annotations

import pytest
import torch

from ohmformer.nn.operands.observation import TOKENS, Observation, first_samples
from ohmformer.nn.operands.unpad import unpad_where


def observation(samples: int, length: int, lengths: list[int] | None = None) -> Observation:
    """Inputs and tokens of two heads; `lengths` are those of padded samples."""
    x, tokens = torch.randn(samples, 2, 3, 4), torch.randn(samples, 2, length, 4)
    places = None if lengths is None else unpad_where(torch.arange(length) < torch.tensor(lengths)[:, None])
    return Observation.of(x, tokens, places, "K")


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([(16, 257)], [4]),  # 4 x 257 tokens are the first to reach 1,024
        ([(16, 50)], [16]),  # fewer than 1,024 tokens in all
        ([(3, 257), (5, 257)], [3, 1]),
        ([(2, 4096), (2, 4096)], [1]),
    ],
)
def test_a_search_looks_at_the_first_samples_with_enough_tokens(sizes: list[tuple[int, int]], kept: list[int]) -> None:
    assert TOKENS == 1024
    watched = [observation(*size) for size in sizes]
    found = first_samples(watched)
    assert [len(each.tokens) for each in found] == kept
    for whole, part in zip(watched, found, strict=False):
        assert torch.equal(part.tokens, whole.tokens[: len(part.tokens)])
        assert torch.equal(part.x, whole.x[: len(part.x)])


def test_padded_samples_keep_their_places() -> None:
    whole = observation(3, 5, [5, 2, 4])
    (part,) = first_samples([whole], tokens=9)
    assert part.unpadding is not None
    assert part.unpadding.lengths == (5, 2)
    alone = observation(2, 5, [5, 2]).unpadding
    assert alone is not None
    assert torch.equal(part.unpadding.kept, alone.kept)
    assert torch.equal(part.unpadding.index, alone.index)
