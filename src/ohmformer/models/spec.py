"""The choice of a model in a study: its source, weights and head. Free of torch."""

from __future__ import annotations

from typing import Literal

from ohmformer.errors import shown
from ohmformer.quantities import Seed
from ohmformer.schema import Spec

Head = Literal["task", "image-classification", "text-classification", "causal-lm", "encoder"]


class ModelChoice(Spec):
    """The transformer that a study runs.

    Attributes:
        source: `bundled:NAME`, `timm:NAME`, `timm:local-dir:FOLDER`, `hf:NAME`, `hf:FOLDER`, `hf:FOLDER/FILE.gguf`,
            `hf:package:NAME/PATH` for a folder or file in an installed package, or `python:MODULE:FUNCTION` for a
            function that returns an `nn.Module`.
        weights: `pretrained` from a folder, the local cache or the hub, or `random`.
        seed: seed of random weights.
        head: head of a Hugging Face model: the one that the `task` needs, or one by name.
    """

    source: str
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: Seed = 0
    head: Head = "task"

    @property
    def where(self) -> str:
        """How error messages refer to the model."""
        return f"model.source = {shown(self.source)}"
