"""Which model: a source, its weights and its head. Free of torch."""

from __future__ import annotations

from typing import Literal

from ohmformer.quantities import Seed
from ohmformer.schema import Spec

Head = Literal["task", "image-classification", "text-classification", "causal-lm", "encoder"]


class ModelChoice(Spec):
    """The transformer.

    Attributes:
        source: `bundled:NAME`, `timm:NAME`, `hf:NAME`, `hf:FOLDER`, `hf:FOLDER/FILE.gguf`, or
            `python:MODULE:FUNCTION` for a function that returns an `nn.Module`.
        weights: `pretrained` ones from a folder, the local cache or the hub; `random` ones only when asked for.
        seed: of random weights.
        head: which head a Hugging Face model gets: what the `task` needs, or one by name.
    """

    source: str
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: Seed = 0
    head: Head = "task"

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"model.source = {self.source!r}"
