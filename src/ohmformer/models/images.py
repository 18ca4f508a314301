"""Photographs in folders, one for each class, as inputs of a model. Read with PIL, so without torchvision.

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

from ohmformer.errors import BadInput
from ohmformer.models.sources import first_line, is_file

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""What counts as an image, in lower case: torchvision's list."""

KEPT_BYTES = 2 << 30
"""So many bytes of pixels are kept in memory; larger sets are read again whenever they are used."""

LARGEST_ASPECT = 100
"""Images whose longer edge is more times the shorter one are refused: resized by the shorter edge, they fill memory."""

LARGEST_INPUT = 1 << 24
"""Pixels of a model's input, at most: 4096 x 4096."""

WHOLE = 1 << 24
"""Up to so many pixels an image is resized as a whole and then cropped; of larger ones only what the crop keeps is
made, which differs from that by rounding."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "hamming": Image.Resampling.HAMMING,
}  # fmt: skip


class ImageReader(Protocol):
    """From an image file to what a model takes. Its `repr` says all that decides the result."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width that a square photograph gets; None if it keeps its own."""

    def pixels(self, file: Path) -> NDArray[Any]:
        """One image as it is kept in memory."""

    def inputs(self, pixels: NDArray[Any]) -> Tensor:
        """Images [N, ...], as `pixels` gives each of them, to inputs [N, C, H, W] float32."""


def picture(file: Path, mode: Literal["L", "RGB"], shorter: int | None = None) -> Image.Image:
    """An image file as gray or color pixels, 8 bits each; of an animation the first frame.

    Transparency is left out, and so is a rotation that only the metadata ask for, as timm and transformers do. Of 16
    bits the upper 8 are kept.

    Args:
        file: what to read.
        mode: of the result.
        shorter: pixels that the shorter edge is going to be resized to.

    Raises:
        BadInput: it is no image that PIL can read, or one that would fill memory.
    """
    if not is_file(file):
        raise BadInput(f"{file}: is no file that can be read; remove or replace it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pixels there are fewer than PIL warns of; others are about metadata
            with Image.open(file) as opened:
                _check_size(opened.size, shorter)
                return _eight_bits(opened).convert(mode)
    except _Unfit as error:
        raise BadInput(f"{file}: {error}; remove or replace it") from None
    except Exception as error:  # PIL's readers raise whatever damaged bytes lead them to
        raise BadInput(f"{file}: cannot be read as an image ({first_line(error)}); remove or replace it") from error


class _Unfit(Exception):
    """Why an image is not used."""


def _check_size(size: tuple[int, int], shorter: int | None) -> None:
    """Refuse what would fill memory, before any pixel is read."""
    short, long = sorted(size)
    most = Image.MAX_IMAGE_PIXELS or math.inf
    if short < 1 or long > LARGEST_ASPECT * short:
        raise _Unfit(f"has {size[0]} x {size[1]} pixels; one edge is more than {LARGEST_ASPECT} times the other")
    if short * long > most:
        raise _Unfit(f"has {size[0]} x {size[1]} pixels, more than the {most} that an image may have")
    if shorter is not None and shorter * shorter * (long / short) > most:
        raise _Unfit(f"has {size[0]} x {size[1]} pixels; resized, it would have more than {most}")


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16-bit pixels with 8 bits; others as they are.

    Raises:
        _Unfit: its pixels have no known range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise _Unfit(f"has pixels of 32 bits (mode {image.mode}), whose range is unknown; save it with 8 bits")
    return image


@dataclass(frozen=True)
class ImagePreparation:
    """From an image file to the pixels that a model expects.

    Attributes:
        resize: of the shorter edge, or (height, width) of the whole; None leaves the size.
        crop: (height, width) cut out of the center; None cuts nothing.
        interpolation: a key of RESAMPLING.
        mean: subtracted from values in 0..1, by channel; one channel means gray images.
        std: divided by, after that.
        scale: of the stored values 0..255.
        rounding: which of two pixels is the center of an odd margin: `down` or to `even` numbers.
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
                f"interpolation = {self.interpolation!r} of the model's images; known: {', '.join(RESAMPLING)}"
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
        """Channels, height and width that a square photograph gets; None if it keeps its own."""
        whole = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        edges = self.crop or whole
        return (len(self.mean), *edges) if edges else None

    def pixels(self, file: Path) -> NDArray[np.uint8]:
        """[H, W, C] of one file.

        Raises:
            BadInput: it is no image that PIL can read, or one that would fill memory.
        """
        shorter = self.resize if isinstance(self.resize, int) else None
        found = self.prepared(picture(file, "L" if len(self.mean) == 1 else "RGB", shorter))
        return found[:, :, None] if found.ndim == 2 else found

    def inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels [N, H, W, C] as inputs [N, C, H, W]."""
        shape = (1, len(self.mean), 1, 1)
        x = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2) * self.scale
        return ((x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)).contiguous()

    def prepared(self, image: Image.Image) -> NDArray[np.uint8]:
        """[H, W] or [H, W, C] of one picture: resized, then the center cut out; what lies outside of it is black."""
        width, height = self._resized(image.size)
        left, top, right, bottom = self._crop_box(width, height)
        kept = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if self.resize is None:
            image = image.crop((left, top, right, bottom))
        elif width * height <= WHOLE:
            image = image.resize((width, height), RESAMPLING[self.interpolation]).crop((left, top, right, bottom))
        else:
            across, down = image.width / width, image.height / height
            box = kept[0] * across, kept[1] * down, kept[2] * across, kept[3] * down
            size = kept[2] - kept[0], kept[3] - kept[1]
            image = image.resize(size, RESAMPLING[self.interpolation], box=box)
            image = image.crop((left - kept[0], top - kept[1], right - kept[0], bottom - kept[1]))
        return np.asarray(image)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after resizing."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            height, width = self.resize
        else:
            short = min(size)
            width, height = (int(self.resize * edge / short) for edge in size)
        return max(1, width), max(1, height)

    def _crop_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is cut out of a resized image."""
        if self.crop is None:
            return 0, 0, width, height
        left, top = self._half(width - self.crop[1]), self._half(height - self.crop[0])
        return left, top, left + self.crop[1], top + self.crop[0]

    def _half(self, margin: int) -> int:
        return math.floor(margin / 2) if self.rounding == "down" else round(margin / 2)


class Images:
    """Inputs [N, C, H, W] that are read from files when they are needed; small sets stay in memory as pixels.

    A sequence of inputs: it has a length, and gives one input by number, some by slice, and each in turn. `tensor`
    gives all of them at once; so does `to`, on a device or as another type.
    """

    def __init__(self, files: Iterable[Path], preparation: ImageReader) -> None:
        self.files = tuple(files)
        self.preparation = preparation
        self._pixels: list[NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: int | slice) -> Tensor:
        """One input [C, H, W] by its number, or those of a slice [n, C, H, W]; float32.

        Raises:
            BadInput: as `load`.
            IndexError: there is no such number, or the slice is empty.
        """
        if not isinstance(rows, slice):
            number = range(len(self.files))[rows]
            return self[number : number + 1][0]
        files = self.files[rows]
        if not files:
            raise IndexError(f"no images in {rows} of {len(self.files)}")
        kept = len(self._pixels) == len(self.files)
        pixels = self._pixels[rows] if kept else [self.preparation.pixels(file) for file in files]
        _check_sizes(pixels, files)
        return self.preparation.inputs(np.stack(pixels))

    def __iter__(self) -> Iterator[Tensor]:
        """Each input [C, H, W]."""
        return (self[number] for number in range(len(self.files)))

    def tensor(self) -> Tensor:
        """All inputs [N, C, H, W] float32, as one batch in memory.

        Raises:
            BadInput: as `load`.
        """
        return self[:]

    def to(self, *where: Any, **options: Any) -> Tensor:
        """All inputs on a device, or as another type: what `Tensor.to` takes."""
        return self.tensor().to(*where, **options)

    def load(self) -> Images:
        """Read all files now, as far as memory is meant for them; itself.

        Raises:
            BadInput: one cannot be read, or the sizes differ and the model does not resize.
        """
        found: list[NDArray[Any]] = []
        total = 0
        for file in self.files:
            found.append(self.preparation.pixels(file))
            total += found[-1].nbytes
            if total > KEPT_BYTES:
                return self
        _check_sizes(found, self.files)
        self._pixels = found
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the contents of the files and how they are prepared."""
        found = hashlib.sha256(repr(self.preparation).encode())
        for file in self.files:
            try:
                content = file.read_bytes()
            except OSError as error:
                raise BadInput(f"{file}: cannot be read ({error.strerror}); restore it") from error
            found.update(hashlib.sha256(content).digest())
        return found.hexdigest()


def _check_sizes(pixels: list[NDArray[Any]], files: tuple[Path, ...]) -> None:
    for each, file in zip(pixels, files, strict=True):
        if each.shape != pixels[0].shape:
            sizes = " but ".join(" x ".join(map(str, shape)) for shape in (each.shape, pixels[0].shape))
            raise BadInput(
                f"{file}: is prepared as {sizes} of {files[0].name}, and the model's preparation makes no two sizes "
                "alike; give images of one size"
            )
