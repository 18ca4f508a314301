"""Do the weights in the files of a Hugging Face folder belong to the model that its configuration describes?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.sources import is_file

SUFFIXES = (".safetensors", ".bin")
"""Suffixes of files of weights."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer: a small text that stands for a file that was not downloaded."""

UNUSED = frozenset(
    {"mask_token", "position_ids", "relative_position_index", "num_batches_tracked", "inv_freq", "masked_bias"}
)
"""Last parts of names that change no output: tokens of pretraining alone, and buffers that models compute anew."""

DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
"""Names of the number of layers in configurations."""


def check_depth(where: str, config: Any) -> None:
    """Refuse a configuration without layers.

    Raises:
        BadInput: a number of layers is below 1, and the configuration has no positive one.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = {name: getattr(text, name, None) for name in DEPTHS}
    numbers = {name: value for name, value in counts.items() if isinstance(value, int)}
    if numbers and max(numbers.values()) < 1:
        name, value = next(iter(numbers.items()))
        raise BadInput(f"{where}: config.json: {name} = {value}: must be 1 or more; correct it")


def check_downloaded(folder: Path) -> None:
    """Refuse a folder in which a file of weights is empty or a Git LFS pointer.

    Raises:
        BadInput: a file of weights was not downloaded.
    """
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix not in SUFFIXES or not is_file(file):
            continue
        with open(file, "rb") as content:
            start = content.read(len(POINTER))
        if start == POINTER or not start:
            what = "is a Git LFS pointer instead of weights" if start else "is empty"
            raise BadInput(f"{file}: {what}; download it again, such as with git lfs pull")


def left_over(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names of weights in the files that belong to parts of the model but have no place in it.

    Weights of other heads, and of a pooling layer that is left out, are no part of the model. Weights of a further
    layer, or a bias that the configuration leaves out, are.

    Args:
        model: a model of transformers.
        unexpected: names of weights that the model did not take, without those that transformers ignores.
    """
    base: nn.Module = getattr(model, "base_model", model)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    parts = {name for name, _ in base.named_children()}
    names = []
    for name in sorted(unexpected):
        inner = name.removeprefix(prefix) if prefix != "." else name
        part, *rest = inner.split(".")
        if part in parts and rest and rest[-1] not in UNUSED:
            names.append(name)
    return names
