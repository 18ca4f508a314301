"""How a folder of Hugging Face prepares photographs: the image processor class that it names, with its settings.

Where `ImagePreparation` does the same, it is taken: it keeps bytes instead of floats. Otherwise transformers' own
processor is, in its version for PIL and NumPy, which needs no torchvision.
"""

from __future__ import annotations

import importlib
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

from ohmformer.errors import BadInput
from ohmformer.models.images import LARGEST_INPUT, ImagePreparation, ImageReader, picture
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import first_line
from ohmformer.models.torchvision_stub import stand_in

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's numbers, as preprocessor_config.json has them."""

TRIED = ((61, 83), (90, 47), (224, 224), (19, 70))
"""Height and width of the images on which two preparations are compared."""

SQUARE = 2
"""Which of them is a square."""

ALIKE = 1e-4
"""So far may two preparations of one pixel be apart; a difference of one in 255 is 40 times as much."""

EDGES = {"height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"}


def _size(value: Any) -> Any:
    """One number, [height, width], or a table; checked for what transformers would fail on later, or fill memory by."""
    if isinstance(value, dict):
        wrong = [key for key in value if key not in EDGES]
        edges = list(value.values())
        paired = all(
            (one in value) == (other in value) for one, other in (("height", "width"), ("max_height", "max_width"))
        )
        if wrong or not value or not paired:
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
    values = value if isinstance(value, (list, tuple)) else [value]
    number = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)
    if not number or len(values) not in (1, 3) or not all(abs(one) < 1e6 for one in values):
        raise ValueError("must be one number, or three of them, finite")
    return value


def _above_zero(value: Any) -> Any:
    if value is not None and not all(one > 0 for one in (value if isinstance(value, (list, tuple)) else [value])):
        raise ValueError("must be above 0")
    return value


def _optional(check: Any) -> Any:
    return BeforeValidator(lambda value: None if value is None else check(value))


class Settings(BaseModel):
    """What stands in preprocessor_config.json; null is as if it were left out. Other keys are the class's own."""

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
        """The settings that are given, without the class."""
        named = ("image_processor_type", "feature_extractor_type", "auto_map", "processor_class")
        return {key: value for key, value in self.model_dump().items() if value is not None and key not in named}

    @property
    def named(self) -> str | None:
        """The class that the folder names, by its name of today."""
        found = self.image_processor_type or self.feature_extractor_type
        return found.replace("FeatureExtractor", "ImageProcessor") if found else None


def read_settings(file: Path, content: Any) -> Settings:
    """The settings of a file.

    Raises:
        BadInput: one of them cannot be what it is.
    """
    if not isinstance(content, dict):
        raise BadInput(f"{file}: holds {type(content).__name__}; write a table of settings")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key, value = str(found["loc"][0]), repr(found["input"])
        said = str(found["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
        said = f"{said[:1].lower()}{said[1:]}"
        raise BadInput(f"{file}: {key} = {value[:80]}: {said}; correct it, or leave it out") from None


def image_reader(transformers: Any, file: Path, settings: Settings, config: Any) -> ImageReader:
    """What prepares images as the class does that a folder names, or that goes with its kind of model.

    Raises:
        BadInput: there is no such class, it cannot be used here, or it makes something else than pixels.
    """
    name, classes = _classes(transformers, file, settings, config)
    reasons = []
    for cls in classes:
        try:
            with quietly(), stand_in(only_for_broken=True):
                processor = cls(**settings.given())
                channels = _channels(processor, config)
                theirs = Processed(processor, type(processor).__name__, channels)
                samples = [_tried(size, channels) for size in TRIED]
                wanted = [theirs.prepared(image) for image in samples]
        except Exception as error:
            reasons.append(first_line(error))
            continue
        square = wanted[SQUARE].shape
        resized = any(found.shape[1:] != size for found, size in zip(wanted, TRIED, strict=True))
        shape = (square[0], square[1], square[2]) if resized else None
        return _ours(processor, channels, samples, wanted) or Processed(processor, theirs.name, channels, shape)
    why = reasons[0] if reasons else "is no class of transformers that works without torchvision"
    raise BadInput(f"{file}: image_processor_type = {name!r}: {why}; correct the file, or take another model")


def _classes(transformers: Any, file: Path, settings: Settings, config: Any) -> tuple[str, list[Any]]:
    """Name of the processor, and the classes that may do its work: first that of PIL and NumPy."""
    model_type = str(getattr(config, "model_type", ""))
    auto = importlib.import_module("transformers.models.auto.image_processing_auto")
    known = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    name = settings.named or (known.get("pil") or known.get("torchvision") if isinstance(known, dict) else known[0])
    if not name:
        raise BadInput(
            f"{file}: image_processor_type: is missing, and none goes with a {model_type} model; add it, such as "
            "'ViTImageProcessor'"
        )
    base = name.removesuffix("Pil").removesuffix("Fast")
    mixin = importlib.import_module("transformers.image_processing_base").ImageProcessingMixin
    with quietly(), stand_in(only_for_broken=True):
        found = [_attribute(transformers, candidate) for candidate in (f"{base}Pil", base)]
    return settings.named or base, [cls for cls in found if isinstance(cls, type) and issubclass(cls, mixin)]


def _attribute(package: Any, name: str) -> Any:
    try:
        return getattr(package, name, None)
    except Exception:  # the module of a class asks for a package that is not there
        return None


def _channels(processor: Any, config: Any) -> int:
    mean = getattr(processor, "image_mean", None)
    one = isinstance(mean, (list, tuple)) and len(mean) == 1
    return 1 if one or getattr(config, "num_channels", 3) == 1 else 3


def _tried(size: tuple[int, int], channels: int) -> Image.Image:
    """A picture with edges and fine detail; the same at every call."""
    height, width = size
    draw = np.random.default_rng(height)
    coarse = np.kron(draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1), int))
    fine = coarse[:height, :width] // 2 + draw.integers(0, 128, (height, width, 3))
    found = Image.fromarray(fine.astype(np.uint8))
    return found.convert("L") if channels == 1 else found


@dataclass(frozen=True)
class Processed:
    """Images as an image processor of transformers prepares them.

    Attributes:
        processor: of transformers.
        name: of its class.
        channels: 1 or 3.
        shape: channels, height and width that a square photograph gets; None if it keeps its own.
    """

    processor: Any = field(repr=False)
    name: str
    channels: int
    shape: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"{self.name}({json.dumps(self.processor.to_dict(), sort_keys=True, default=repr)})"

    def pixels(self, file: Path) -> NDArray[np.float32]:
        """[C, H, W] of one file.

        Raises:
            BadInput: it is no image that PIL can read, or one that would fill memory or that the processor refuses.
        """
        size = _as_mapping(getattr(self.processor, "size", None))
        opened = picture(file, "L" if self.channels == 1 else "RGB", size.get("shortest_edge"))
        try:
            return self.prepared(opened)
        except Exception as error:
            raise BadInput(f"{file}: {self.name} cannot prepare it ({first_line(error)}); remove it") from error

    def prepared(self, image: Image.Image) -> NDArray[np.float32]:
        """[C, H, W] of one picture.

        Raises:
            ValueError: the processor makes something else than pixels.
        """
        found = self.processor(image, return_tensors="np")
        pixels = np.asarray(found["pixel_values"][0]) if set(found) == {"pixel_values"} else None
        if pixels is None or pixels.ndim != 3 or not np.isfinite(pixels).all():
            raise ValueError(f"{self.name} makes {', '.join(sorted(found))} instead of one array of pixels")
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def inputs(self, pixels: NDArray[np.float32]) -> Tensor:
        """Pixels [N, C, H, W] as a tensor."""
        return torch.from_numpy(pixels)


def _ours(
    processor: Any, channels: int, samples: list[Image.Image], wanted: list[NDArray[np.float32]]
) -> ImagePreparation | None:
    """The same preparation as ours; None where ours differs."""
    try:
        found = _translated(processor, channels)
        for image, pixels in zip(samples, wanted, strict=True):
            kept = found.prepared(image)
            kept = kept[:, :, None] if kept.ndim == 2 else kept
            said = found.inputs(kept[None])[0].numpy()
            if said.shape != pixels.shape or not np.allclose(said, pixels, rtol=0, atol=ALIKE * np.ptp(pixels) / 2):
                return None
    except Exception:
        return None
    return found


def _translated(processor: Any, channels: int) -> ImagePreparation:
    """The settings that both know."""
    size, crop = (_as_mapping(getattr(processor, name, None)) for name in ("size", "crop_size"))
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
    """A size of a processor, as a table without what is not given."""
    table = size if isinstance(size, Mapping) else getattr(size, "__dict__", {})
    return {key: value for key, value in table.items() if key in EDGES and value is not None}


def _pair(size: Mapping[str, Any]) -> tuple[int, int]:
    return int(size["height"]), int(size["width"])


def _each(value: Any, channels: int) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * channels
