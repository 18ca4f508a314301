"""Image processors of Hugging Face folders: the class that a folder names, with its settings.

If `ImagePreparation` gives the same pixels, it is used, since it keeps bytes in memory instead of floats. Otherwise
transformers' own processor is used, in its version for PIL and NumPy, which does not need torchvision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch import Tensor

from ohmformer.errors import BadInput, shown
from ohmformer.models.hf_private import image_processor_base, image_processor_name
from ohmformer.models.images import LARGEST_INPUT, ImagePreparation, ImageReader, read_image
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import first_line
from ohmformer.models.torchvision_stub import stand_in
from ohmformer.wording import with_article

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's number of a resampling filter, as in preprocessor_config.json -> its name."""

TRIAL_SIZES = ((61, 83), (90, 47), (224, 224), (19, 70))
"""Height and width of the images on which two preparations are compared."""

SQUARE = 2
"""Index of the square image in `TRIAL_SIZES`."""

TOLERANCE = 1e-4
"""Largest accepted difference between two preparations of a pixel, relative to half the range of values. A difference
of 1 in 255 is about 80 times as large."""

EDGES = {"height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"}


def _size(value: Any) -> Any:
    """Check a size: one number, [height, width] or a table. Others would fail later, or fill memory."""
    if isinstance(value, dict):
        unknown = [key for key in value if key not in EDGES]
        edges = list(value.values())
        paired = all(
            (height in value) == (width in value)
            for height, width in (("height", "width"), ("max_height", "max_width"))
        )
        if unknown or not value or not paired:
            raise ValueError("must be { height, width } or { shortest_edge }")
    else:
        edges = list(value) if isinstance(value, (list, tuple)) else [value, value]
        if len(edges) != 2:
            raise ValueError("must be one number or [height, width]")
    if not all(isinstance(edge, int) and not isinstance(edge, bool) and edge >= 1 for edge in edges):
        raise ValueError("must be whole numbers of pixels, 1 or more")
    if max(edges) ** 2 > LARGEST_INPUT * 4 or (len(edges) == 2 and math.prod(edges) > LARGEST_INPUT):
        raise ValueError("is too large; at most 4096 x 4096 pixels")
    return value


def _by_channel(value: Any) -> Any:
    """Check one number for all channels, or one for each of three."""
    values = value if isinstance(value, (list, tuple)) else [value]
    numeric = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in values)
    if not numeric or len(values) not in (1, 3) or not all(abs(number) < 1e6 for number in values):
        raise ValueError("must be one number, or three of them, finite")
    return value


def _above_zero(value: Any) -> Any:
    values = value if isinstance(value, (list, tuple)) else [value]
    if value is not None and not all(number > 0 for number in values):
        raise ValueError("must be above 0")
    return value


def _optional(check: Any) -> Any:
    return BeforeValidator(lambda value: None if value is None else check(value))


class ProcessorSettings(BaseModel):
    """Settings in preprocessor_config.json. null means left out; other keys go to the processor class unchecked."""

    model_config = ConfigDict(extra="allow", strict=True)

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_convert_rgb: bool | None = None
    do_pad: bool | None = None
    do_flip_channel_order: bool | None = None
    size: Annotated[Any, _optional(_size)] = None
    crop_size: Annotated[Any, _optional(_size)] = None
    resample: Annotated[int | None, Field(ge=0, le=5)] = None
    rescale_factor: Annotated[float | None, Field(gt=0, le=1e3, allow_inf_nan=False)] = None
    image_mean: Annotated[Any, _optional(_by_channel)] = None
    image_std: Annotated[Any, _optional(_by_channel), AfterValidator(_above_zero)] = None
    crop_pct: Annotated[float | None, Field(gt=0, le=1)] = None

    def given(self) -> dict[str, Any]:
        """Return the settings that the file gives, without the name of the class."""
        class_keys = ("image_processor_type", "feature_extractor_type", "auto_map", "processor_class")
        return {key: value for key, value in self.model_dump().items() if value is not None and key not in class_keys}

    @property
    def class_name(self) -> str | None:
        """Name of the processor class; names of the old feature extractors are translated."""
        name = self.image_processor_type or self.feature_extractor_type
        return name.replace("FeatureExtractor", "ImageProcessor") if name else None


def read_settings(file: Path, content: Any) -> ProcessorSettings:
    """Validate the settings of a file.

    Raises:
        BadInput: a setting is invalid.
    """
    if not isinstance(content, dict):
        raise BadInput(f"{file}: holds {type(content).__name__}; write a table of settings")
    try:
        return ProcessorSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, value = str(first["loc"][0]), repr(first["input"])
        reason = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
        reason = f"{reason[:1].lower()}{reason[1:]}"
        raise BadInput(f"{file}: {key} = {value[:80]}: {reason}; correct it, or leave it out") from None


def image_reader(transformers: Any, file: Path, settings: ProcessorSettings, config: Any) -> ImageReader:
    """Return a reader that prepares images like the processor class that a folder names, or of its type of model.

    Args:
        transformers: the package.
        file: file of the settings, for messages.
        settings: settings of the processor.
        config: configuration of the model.

    Raises:
        BadInput: there is no such class, it cannot be used here, or it returns something other than pixels.
    """
    name, classes = _classes(transformers, file, settings, config)
    reasons = []
    for cls in classes:
        try:
            with quietly(), stand_in(only_for_broken=True):
                processor = cls(**settings.given())
                channels = _channels(processor, config)
                theirs = Processed(processor, type(processor).__name__, channels)
                trials = [_trial_image(size, channels) for size in TRIAL_SIZES]
                expected = [theirs.prepared(image) for image in trials]
        except Exception as error:
            reasons.append(first_line(error))
            continue
        square = expected[SQUARE].shape
        resized = any(pixels.shape[1:] != size for pixels, size in zip(expected, TRIAL_SIZES, strict=True))
        shape = (square[0], square[1], square[2]) if resized else None
        return _equivalent(processor, channels, trials, expected) or Processed(processor, theirs.name, channels, shape)
    why = reasons[0] if reasons else "is not a class of transformers that works without torchvision"
    raise BadInput(f"{file}: image_processor_type = {shown(name)}: {why}; correct the file, or choose another model")


def _classes(transformers: Any, file: Path, settings: ProcessorSettings, config: Any) -> tuple[str, list[Any]]:
    """Return the name of the processor and its candidate classes, that for PIL and NumPy first."""
    model_type = str(getattr(config, "model_type", ""))
    name = settings.class_name or image_processor_name(model_type)
    if not name:
        raise BadInput(
            f"{file}: image_processor_type: is missing, and {with_article(str(model_type))} model has no default; "
            "add it, such as 'ViTImageProcessor'"
        )
    base = name.removesuffix("Pil").removesuffix("Fast")
    processor_base = image_processor_base()
    with quietly(), stand_in(only_for_broken=True):
        found = [_attribute(transformers, candidate) for candidate in (f"{base}Pil", base)]
    classes = [cls for cls in found if isinstance(cls, type) and issubclass(cls, processor_base)]
    return settings.class_name or base, classes


def _attribute(package: Any, name: str) -> Any:
    try:
        return getattr(package, name, None)
    except Exception:  # the module of a class imports a package that is not installed
        return None


def _channels(processor: Any, config: Any) -> int:
    """Return the number of channels, 1 (gray) or 3."""
    mean = getattr(processor, "image_mean", None)
    gray = isinstance(mean, (list, tuple)) and len(mean) == 1
    return 1 if gray or getattr(config, "num_channels", 3) == 1 else 3


def _trial_image(size: tuple[int, int], channels: int) -> Image.Image:
    """Draw an image with edges and fine detail; deterministic."""
    height, width = size
    draw = np.random.default_rng(height)
    coarse = np.kron(draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1), int))
    fine = coarse[:height, :width] // 2 + draw.integers(0, 128, (height, width, 3))
    image = Image.fromarray(fine.astype(np.uint8))
    return image.convert("L") if channels == 1 else image


@dataclass(frozen=True)
class Processed:
    """An `ImageReader` that calls an image processor of transformers.

    Attributes:
        processor: the image processor.
        name: name of its class.
        channels: 1 (gray) or 3.
        shape: channels, height and width of a prepared square image; None if its size does not change.
    """

    processor: Any = field(repr=False)
    name: str
    channels: int
    shape: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"{self.name}({json.dumps(self.processor.to_dict(), sort_keys=True, default=repr)})"

    def pixels(self, file: Path) -> NDArray[np.float32]:
        """Read and prepare one file.

        Returns:
            Pixels [C, H, W].

        Raises:
            BadInput: PIL cannot read the file, it would fill memory, or the processor refuses it.
        """
        size = _as_mapping(getattr(self.processor, "size", None))
        opened = read_image(file, "L" if self.channels == 1 else "RGB", size.get("shortest_edge"))
        try:
            return self.prepared(opened)
        except Exception as error:
            raise BadInput(f"{file}: {self.name} cannot prepare it ({first_line(error)}); remove it") from error

    def prepared(self, image: Image.Image) -> NDArray[np.float32]:
        """Prepare one image.

        Returns:
            Pixels [C, H, W].

        Raises:
            ValueError: the processor returns something other than pixels.
        """
        outputs = self.processor(image, return_tensors="np")
        pixels = np.asarray(outputs["pixel_values"][0]) if set(outputs) == {"pixel_values"} else None
        if pixels is None or pixels.ndim != 3 or not np.isfinite(pixels).all():
            raise ValueError(f"{self.name} returns {', '.join(sorted(outputs))} instead of one array of pixels")
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def inputs(self, pixels: NDArray[np.float32]) -> Tensor:
        """Convert pixels [N, C, H, W] to a tensor."""
        return torch.from_numpy(pixels)


def _equivalent(
    processor: Any, channels: int, trials: list[Image.Image], expected: list[NDArray[np.float32]]
) -> ImagePreparation | None:
    """Return the `ImagePreparation` that gives the same pixels on all trial images; None if there is none."""
    try:
        preparation = _translated(processor, channels)
        for image, pixels in zip(trials, expected, strict=True):
            stored = preparation.prepared(image)
            stored = stored[:, :, None] if stored.ndim == 2 else stored
            inputs = preparation.inputs(stored[None])[0].numpy()
            tolerance = TOLERANCE * np.ptp(pixels) / 2
            if inputs.shape != pixels.shape or not np.allclose(inputs, pixels, rtol=0, atol=tolerance):
                return None
    except Exception:
        return None
    return preparation


def _translated(processor: Any, channels: int) -> ImagePreparation:
    """Translate the settings of a processor to those of `ImagePreparation`."""
    size, crop = (_as_mapping(getattr(processor, name, None)) for name in ("size", "crop_size"))
    if {"shortest_edge", "longest_edge"} <= size.keys():  # a long image is made smaller than its shortest edge says
        raise ValueError("has two bounds of its size")
    normal = getattr(processor, "do_normalize", True)
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    return ImagePreparation(
        resize=(size.get("shortest_edge") or _pair(size)) if getattr(processor, "do_resize", True) and size else None,
        crop=_pair(crop) if getattr(processor, "do_center_crop", False) and crop else None,
        interpolation=RESAMPLING[int(getattr(processor, "resample", 2))],
        mean=_each(mean, channels) if normal else (0.0,) * channels,
        std=_each(std, channels) if normal else (1.0,) * channels,
        scale=float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0,
        rounding="down",
    )


def _as_mapping(size: Any) -> Mapping[str, Any]:
    """Return a processor's size as a table of the edges that it gives."""
    table = size if isinstance(size, Mapping) else getattr(size, "__dict__", {})
    return {key: value for key, value in table.items() if key in EDGES and value is not None}


def _pair(size: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width."""
    return int(size["height"]), int(size["width"])


def _each(value: Any, channels: int) -> tuple[float, ...]:
    """Return one value per channel."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * channels
