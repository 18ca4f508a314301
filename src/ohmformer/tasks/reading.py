"""How a task calls a model, and which of its outputs count. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = -100
"""Label of a token that is not scored: the default `ignore_index` of PyTorch's cross entropy."""


@dataclass(frozen=True)
class Reading:
    """How a model is called on the samples of a task, and how its output is reduced to one vector per sample.

    Attributes:
        pooling: how token features become the features of a sample: `mean` over tokens, the first token (`cls`), or
            `auto`: the model's own pooled output if it returns one, else the mean.
        prefill: number of tokens that enter a KV cache in the first call; None calls the model without a cache.
        step: number of tokens in each later call.
    """

    pooling: str = "auto"
    prefill: int | None = None
    step: int = 1
