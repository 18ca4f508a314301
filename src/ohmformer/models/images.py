"""Image files as inputs of a model, read with PIL and without torchvision.

N images of C channels: inputs are float32 [N, C, H, W].
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohmformer.errors import BadInput, shown
from ohmformer.models.sources import first_line, is_file

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""Suffixes of image files, in lower case: the list of torchvision's ImageFolder."""

CACHED_BYTES = 2 << 30
"""Maximum bytes of pixels that a set keeps in memory. Larger sets are read again at every use."""

LARGEST_ASPECT = 100
"""Largest accepted ratio of the longer edge to the shorter one: resized by the shorter edge, others fill memory."""

LARGEST_INPUT = 1 << 24
"""Maximum number of pixels of a model's input: 4096 x 4096."""

RESIZED_WHOLE = 1 << 24
"""Maximum pixels of a resized image that is computed as a whole and then cropped. Of larger ones only the cropped part
is computed, which differs by rounding."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "hamming": Image.Resampling.HAMMING,
}  # fmt: skip


class ImageReader(Protocol):
    """Converts image files to inputs of a model. Its `repr` must hold everything that determines the result."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of a prepared square image; None if its size does not change."""

    def pixels(self, file: Path) -> NDArray[Any]:
        """Read one image, in the form that is kept in memory."""

    def inputs(self, pixels: NDArray[Any]) -> Tensor:
        """Convert stacked results of `pixels` [N, ...] to inputs [N, C, H, W], float32."""


def read_image(file: Path, mode: Literal["L", "RGB"], shorter: int | None = None) -> Image.Image:
    """Read an image file as 8-bit gray or color pixels; of an animation the first frame.

    Transparency and rotations in the metadata are ignored, as timm and transformers do. Of 16-bit pixels the upper 8
    bits are kept.

    Args:
        file: the image file.
        mode: gray ("L") or color ("RGB").
        shorter: length to which the shorter edge will be resized [pixels]; None if it will not.

    Raises:
        BadInput: PIL cannot read the file, or the image would fill memory.
    """
    if not is_file(file):
        raise BadInput(f"{file}: is not a readable file; remove or replace it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked below; other warnings are about metadata
            with Image.open(file) as opened:
                _check_size(opened.size, shorter)
                return _eight_bits(opened).convert(mode)
    except _Unusable as error:
        raise BadInput(f"{file}: {error}; remove or replace it") from None
    except Exception as error:  # PIL raises many kinds of errors on damaged bytes
        raise BadInput(f"{file}: cannot be read as an image ({first_line(error)}); remove or replace it") from error


class _Unusable(Exception):
    """Reason why an image cannot be used."""


def _check_size(size: tuple[int, int], shorter: int | None) -> None:
    """Refuse images that would fill memory, before any pixel is read."""
    short, long = sorted(size)
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if short < 1 or long > LARGEST_ASPECT * short:
        raise _Unusable(f"has {size[0]} x {size[1]} pixels; one edge is more than {LARGEST_ASPECT} times the other")
    if short * long > limit:
        raise _Unusable(f"has {size[0]} x {size[1]} pixels, more than the limit of {limit}")
    if shorter is not None and shorter * shorter * (long / short) > limit:
        raise _Unusable(f"has {size[0]} x {size[1]} pixels; resized, it would have more than {limit}")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit pixels to 8 bits; other images are returned unchanged.

    Raises:
        _Unusable: the range of the pixels is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise _Unusable(f"has 32-bit pixels (mode {image.mode}), whose range is unknown; save it with 8 bits")
    return image


@dataclass(frozen=True)
class ImagePreparation:
    """An `ImageReader` that resizes, crops and normalizes: input = (scale * pixel - mean) / std.

    Attributes:
        resize: length of the shorter edge, or (height, width) [pixels]; None does not resize.
        crop: (height, width) of the center crop [pixels]; None does not crop.
        interpolation: name of the resampling filter, a key of `RESAMPLING`.
        mean: mean of each channel after scaling; a single channel means gray images.
        std: standard deviation of each channel after scaling.
        scale: factor for stored values 0 to 255.
        rounding: rounding of half an odd margin around the crop: `down`, or to `even` numbers.

    Raises:
        BadInput: a value is out of range.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    scale: float = 1 / 255
    rounding: Literal["down", "even"] = "even"

    def __post_init__(self) -> None:
        if self.interpolation not in RESAMPLING:
            raise BadInput(
                f"interpolation = {shown(self.interpolation)} of the model's images; known: {', '.join(RESAMPLING)}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise BadInput("the model's image mean and std must be 1 or 3 numbers each, std above 0")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std, self.scale)):
            raise BadInput("the model's image mean, std and scale must be finite; correct them")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            edges = (size, size) if isinstance(size, int) else size
            if edges is not None and (min(edges) < 1 or math.prod(edges) > LARGEST_INPUT):
                raise BadInput(
                    f"{name} = {size} of the model's images: must be 1 pixel or more, and 4096 x 4096 at most"
                )

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of a prepared square image; None if its size does not change."""
        whole = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        edges = self.crop or whole
        return (len(self.mean), *edges) if edges else None

    def pixels(self, file: Path) -> NDArray[np.uint8]:
        """Read one file, resize and crop it.

        Returns:
            Pixels [H, W, C].

        Raises:
            BadInput: PIL cannot read the file, or the image would fill memory.
        """
        shorter = self.resize if isinstance(self.resize, int) else None
        pixels = self.prepared(read_image(file, "L" if len(self.mean) == 1 else "RGB", shorter))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Normalize pixels [N, H, W, C] to inputs [N, C, H, W]."""
        shape = (1, len(self.mean), 1, 1)
        x = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2) * self.scale
        return ((x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)).contiguous()

    def prepared(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize one image and crop its center to pixels [H, W] or [H, W, C]; beyond the image, pixels are black."""
        width, height = self._resized(image.size)
        left, top, right, bottom = self._crop_box(width, height)
        kept = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if self.resize is None:
            image = image.crop((left, top, right, bottom))
        elif width * height <= RESIZED_WHOLE:
            image = image.resize((width, height), RESAMPLING[self.interpolation]).crop((left, top, right, bottom))
        else:
            x_ratio, y_ratio = image.width / width, image.height / height
            box = kept[0] * x_ratio, kept[1] * y_ratio, kept[2] * x_ratio, kept[3] * y_ratio
            size = kept[2] - kept[0], kept[3] - kept[1]
            image = image.resize(size, RESAMPLING[self.interpolation], box=box)
            image = image.crop((left - kept[0], top - kept[1], right - kept[0], bottom - kept[1]))
        return np.asarray(image)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return width and height after resizing."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            height, width = self.resize
        else:
            short = min(size)
            width, height = (int(self.resize * edge / short) for edge in size)
        return max(1, width), max(1, height)

    def _crop_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the crop in a resized image."""
        if self.crop is None:
            return 0, 0, width, height
        left, top = self._half(width - self.crop[1]), self._half(height - self.crop[0])
        return left, top, left + self.crop[1], top + self.crop[0]

    def _half(self, margin: int) -> int:
        return math.floor(margin / 2) if self.rounding == "down" else round(margin / 2)


class Images:
    """A sequence of inputs [C, H, W] that are read from image files when needed; small sets stay in memory as pixels.

    An index returns one input, a slice returns a batch, and iteration returns one input after the other. `tensor`
    returns all inputs as one tensor; `to` does so on a device or in another type.

    Args:
        files: paths of the images.
        preparation: how a file becomes an input.
    """

    def __init__(self, files: Iterable[Path], preparation: ImageReader) -> None:
        self.files = tuple(files)
        self.preparation = preparation
        self._pixels: list[NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: int | slice) -> Tensor:
        """Return one input [C, H, W], or those of a slice [n, C, H, W], float32.

        Raises:
            BadInput: as for `load`.
            IndexError: the index is out of range, or the slice is empty.
        """
        if not isinstance(rows, slice):
            number = range(len(self.files))[rows]
            return self[number : number + 1][0]
        files = self.files[rows]
        if not files:
            raise IndexError(f"no images in {rows} of {len(self.files)}")
        cached = len(self._pixels) == len(self.files)
        pixels = self._pixels[rows] if cached else [self.preparation.pixels(file) for file in files]
        _check_sizes(pixels, files)
        return self.preparation.inputs(np.stack(pixels))

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the inputs [C, H, W]."""
        return (self[number] for number in range(len(self.files)))

    def tensor(self) -> Tensor:
        """Return all inputs [N, C, H, W], float32.

        Raises:
            BadInput: as for `load`.
        """
        return self[:]

    def to(self, *where: Any, **options: Any) -> Tensor:
        """Return all inputs on a device or in another type; arguments are those of `Tensor.to`."""
        return self.tensor().to(*where, **options)

    def load(self) -> Images:
        """Read all files, and keep their pixels if they fit into `CACHED_BYTES`.

        Returns:
            This object.

        Raises:
            BadInput: a file cannot be read, or sizes differ and the preparation does not resize.
        """
        pixels: list[NDArray[Any]] = []
        total = 0
        for file in self.files:
            pixels.append(self.preparation.pixels(file))
            total += pixels[-1].nbytes
            if total > CACHED_BYTES:
                return self
        _check_sizes(pixels, self.files)
        self._pixels = pixels
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the contents of the files and their preparation."""
        digest = hashlib.sha256(repr(self.preparation).encode())
        for file in self.files:
            try:
                content = file.read_bytes()
            except OSError as error:
                raise BadInput(f"{file}: cannot be read ({error.strerror}); restore it") from error
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


def _check_sizes(pixels: list[NDArray[Any]], files: tuple[Path, ...]) -> None:
    """Refuse images whose prepared sizes differ, since they cannot be one batch."""
    for image, file in zip(pixels, files, strict=True):
        if image.shape != pixels[0].shape:
            sizes = " but ".join(" x ".join(map(str, shape)) for shape in (image.shape, pixels[0].shape))
            raise BadInput(
                f"{file}: is prepared as {sizes} for {files[0].name}, since the model's preparation does not resize; "
                "give images of one size"
            )
