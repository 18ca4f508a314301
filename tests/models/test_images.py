"""Photographs of all kinds: read right, or refused in one line before they fill memory."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmformer.errors import BadInput
from ohmformer.models import images
from ohmformer.models.images import ImagePreparation, Images
from tests.tasks import tiny

PREPARATION = ImagePreparation(resize=20, crop=(16, 16))


def png(width: int, height: int) -> bytes:
    """A gray image of one color: few bytes, however many pixels."""
    packed = zlib.compress(bytes(1 + (width + 7) // 8) * min(height, 100))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (30000, 1, "one edge is more than 100 times the other"),
        (80_000_000, 2, "one edge is more than 100 times the other"),
        (13000, 13000, "more than the limit of 89478485"),
        (100000, 100000, "DecompressionBomb|more than the 89478485"),
        (2000, 20, "resized, it would have more than 89478485"),
    ],
)
def test_images_that_would_fill_memory_are_refused(tmp_path: Path, width: int, height: int, said: str) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png(width, height))
    with pytest.raises(BadInput, match=rf"bomb\.png: .*({said}).*; remove or replace it") as caught:
        ImagePreparation(resize=1024, crop=(16, 16)).pixels(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(300, 40), (33, 210), (64, 64)])
@pytest.mark.parametrize("crop", [(30, 30), (41, 57), (90, 20)])
def test_of_large_images_only_what_the_crop_keeps_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], crop: tuple[int, int]
) -> None:
    down, across = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([128 + 100 * np.sin(down / 7), 128 + 100 * np.sin(across / 5), 60 + 0.5 * down], axis=-1)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.png")
    prepare = ImagePreparation(resize=60, crop=crop)
    whole = prepare.pixels(tmp_path / "a.png").astype(int)
    monkeypatch.setattr(images, "RESIZED_WHOLE", 1)
    part = prepare.pixels(tmp_path / "a.png").astype(int)
    assert part.shape == whole.shape
    assert np.abs(part - whole).max() <= 2, "PIL rounds between its two passes, and chooses their order"
    assert (part == whole).mean() > 0.5


def test_sixteen_bits_keep_their_upper_half(tmp_path: Path) -> None:
    values = (np.arange(256, dtype=np.uint16) * 256 + 77).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    gray = ImagePreparation(resize=None, crop=None, mean=(0.0,), std=(1.0,))
    for name in ("deep.png", "deep.tiff"):
        assert gray.pixels(tmp_path / name)[:, :, 0].tolist() == (values >> 8).tolist()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "RGB"])
def test_other_modes_become_three_channels(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (30, 24)).save(tmp_path / "a.tiff")
    assert PREPARATION.pixels(tmp_path / "a.tiff").shape == (16, 16, 3)


def fifo(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(png(40, 40)[:40]),
        lambda file: file.write_bytes(b"no image"),
        lambda file: file.mkdir(),
        lambda file: file.symlink_to("nowhere"),
        lambda file: Image.new("F", (30, 30)).save(file, "TIFF"),
        pytest.param(fifo, marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")),
    ],
)
def test_what_is_no_image_is_one_line(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a\.png: .*; remove or replace it") as caught:
        PREPARATION.pixels(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": 0}, {"resize": 10**30}, {"crop": (0, 3)}, {"crop": (10**5, 10**5)}, {"mean": (float("nan"),) * 3},
        {"std": (0.0, 1.0, 1.0)}, {"scale": float("inf")}, {"mean": (0.5,)},
    ],
)  # fmt: skip
def test_preparations_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        ImagePreparation(**{"resize": 20, "crop": (16, 16), **wrong})  # type: ignore[arg-type]


def test_images_are_a_sequence_of_inputs(tmp_path: Path) -> None:
    files = sorted(tiny.photographs(tmp_path, 2).rglob("*.*"))
    found = Images(files, PREPARATION).load()
    batch = found.tensor()
    assert batch.shape == (len(found), 3, 16, 16) == (6, 3, 16, 16)
    assert torch.equal(torch.stack(list(found)), batch)
    assert torch.equal(found[-1], batch[-1])
    assert torch.equal(found[1:5:2], batch[1:5:2])
    assert found.to(torch.float64).dtype == torch.float64
    assert found.to("meta").device.type == "meta"
    with pytest.raises(IndexError):
        found[6]
    with pytest.raises(IndexError):
        found[3:3]


def test_sizes_that_differ_are_told(tmp_path: Path) -> None:
    for number, size in enumerate([(20, 20), (20, 24)]):
        tiny.image(tmp_path / f"{number}.png", number, size)
    with pytest.raises(BadInput, match=r"1\.png: is prepared as .*give images of one size"):
        Images(sorted(tmp_path.iterdir()), ImagePreparation(resize=None, crop=None)).load()
