"""The private names of transformers that the package relies on, in one place.

- `_model_mapping` of an auto class maps a configuration class to the model class (or classes) with that head. There is
  no public way to test whether a model has a head without loading it.
- `models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES` (public name, internal module) maps a model type to
  the names of its image processors: a table by backend, or a tuple.
- `image_processing_base.ImageProcessingMixin` (public name, internal module) is the base class of image processors.
"""

from __future__ import annotations

import importlib
from typing import Any


def model_class(auto_class: Any, config: Any) -> Any | None:
    """Return the class that an auto class would load for a configuration; None if there is none with that head.

    Args:
        auto_class: such as `transformers.AutoModelForCausalLM`.
        config: configuration of a model.
    """
    mapping = auto_class._model_mapping
    if type(config) not in mapping:
        return None
    classes = mapping[type(config)]
    return classes[0] if isinstance(classes, (tuple, list)) else classes


def image_processor_name(model_type: str) -> str | None:
    """Return the name of the image processor of a model type, preferably the one for PIL; None if there is none."""
    auto = importlib.import_module("transformers.models.auto.image_processing_auto")
    names = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    return (names.get("pil") or names.get("torchvision")) if isinstance(names, dict) else names[0]


def image_processor_base() -> type:
    """Return the base class of image processors."""
    base: type = importlib.import_module("transformers.image_processing_base").ImageProcessingMixin
    return base
