"""Photographs in folders, one for each class, as inputs of a model. Read with PIL, so without torchvision.

N images of C channels: pixels uint8 [N, H, W, C], inputs float32 [N, C, H, W].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohmformer.errors import BadInput

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""What counts as an image, in lower case: torchvision's list."""

KEPT_BYTES = 2 << 30
"""So many bytes of pixels are kept in memory; larger sets are read again whenever they are used."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "hamming": Image.Resampling.HAMMING,
}  # fmt: skip


@dataclass(frozen=True)
class ImagePreparation:
    """From an image file to the pixels that a model expects.

    Attributes:
        resize: of the shorter edge, or (height, width) of the whole; None leaves the size.
        crop: (height, width) cut out of the centre; None cuts nothing.
        interpolation: a key of RESAMPLING.
        mean: subtracted from values in 0..1, by channel; one channel means grey images.
        std: divided by, after that.
        scale: of the stored values 0..255.
        rounding: which of two pixels is the centre of an odd margin: `down` or to `even` numbers.
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

    def pixels(self, file: Path) -> NDArray[np.uint8]:
        """[H, W, C] of one file.

        Raises:
            BadInput: it is no image that PIL can read.
        """
        try:
            with Image.open(file) as opened:
                image = opened.convert("L" if len(self.mean) == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadInput(f"{file}: cannot be read as an image ({error}); remove or replace it") from error
        found = np.asarray(self._cropped(self._resized(image)))
        return found[:, :, None] if found.ndim == 2 else found

    def inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels [N, H, W, C] as inputs [N, C, H, W]."""
        shape = (1, len(self.mean), 1, 1)
        x = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2) * self.scale
        return ((x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)).contiguous()

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        if isinstance(self.resize, tuple):
            height, width = self.resize
        else:
            short = min(image.size)
            width, height = (int(self.resize * edge / short) for edge in image.size)
        return image.resize((max(1, width), max(1, height)), RESAMPLING[self.interpolation])

    def _cropped(self, image: Image.Image) -> Image.Image:
        """The centre; what lies outside of the image is black."""
        if self.crop is None:
            return image
        height, width = self.crop
        left, top = (self._half(edge - wanted) for edge, wanted in zip(image.size, (width, height), strict=True))
        return image.crop((left, top, left + width, top + height))

    def _half(self, margin: int) -> int:
        return math.floor(margin / 2) if self.rounding == "down" else round(margin / 2)


class Images:
    """Inputs [N, C, H, W] that are read from files when they are needed; small sets stay in memory as pixels."""

    def __init__(self, files: Iterable[Path], preparation: ImagePreparation) -> None:
        self.files = tuple(files)
        self.preparation = preparation
        self._pixels: list[NDArray[np.uint8]] = []

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of them, as a tensor [n, C, H, W] float32.

        Raises:
            BadInput: as `load`.
        """
        if len(self._pixels) == len(self.files):
            pixels = self._pixels[rows]
        else:
            pixels = [self.preparation.pixels(file) for file in self.files[rows]]
        return self.preparation.inputs(_stacked(pixels, self.files[rows]))

    def load(self) -> Images:
        """Read all files now, as far as memory is meant for them; itself.

        Raises:
            BadInput: one cannot be read, or the sizes differ and the model does not resize.
        """
        found: list[NDArray[np.uint8]] = []
        total = 0
        for file in self.files:
            found.append(self.preparation.pixels(file))
            total += found[-1].nbytes
            if total > KEPT_BYTES:
                return self
        _stacked(found, self.files)
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


def _stacked(pixels: list[NDArray[np.uint8]], files: tuple[Path, ...]) -> NDArray[np.uint8]:
    for each, file in zip(pixels, files, strict=True):
        if each.shape != pixels[0].shape:
            raise BadInput(
                f"{file}: is {each.shape[0]} x {each.shape[1]} pixels but {files[0].name} is {pixels[0].shape[0]} x "
                f"{pixels[0].shape[1]}, and the model's preparation resizes nothing; give images of one size"
            )
    return np.stack(pixels)
