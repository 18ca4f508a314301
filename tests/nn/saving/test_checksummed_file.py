"""Saved models: what was damaged is refused, infinities come back, and a file is written whole or not at all."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.saving import checksummed_file
from tests.nn.models import SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def saved(file: Path, hardware: of.Accelerator = HARDWARE, kv: of.Conditioning | None = None) -> Path:
    torch.manual_seed(0)
    converted = of.convert(SelfAttention().eval(), hardware, sample=TOKENS)
    if kv is not None:
        of.set_kv(converted, kv)
    of.save(converted, file)
    return file


def test_a_single_bit_is_never_lost(tmp_path: Path) -> None:
    file = saved(tmp_path / "model.safetensors")
    whole = file.read_bytes()
    rng = random.Random(0)
    with torch.no_grad(), of.samples(range(3)):
        expected = of.restore(SelfAttention(), file)(TOKENS)
        for _ in range(150):
            place = rng.randrange(len(whole))
            changed = bytearray(whole)
            changed[place] ^= 1 << rng.randrange(8)
            file.write_bytes(bytes(changed))
            try:
                found = of.restore(SelfAttention(), file)
            except BadInput as error:
                lines = str(error).splitlines()
            else:
                lines = [str(file)]
                assert torch.equal(found(TOKENS), expected), place
            assert len(lines) == 1
            assert str(file) in lines[0]


def with_new_digest(file: Path, change: Any) -> None:
    """Change what a file holds, with a digest that fits."""
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["ohmformer"])
        tensors: dict[str, Tensor] = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    change(about, tensors)
    save_file(tensors, file, checksummed_file.checksummed_metadata(about, tensors))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["basis", "inverse"])
def test_a_basis_without_its_inverse_is_refused(tmp_path: Path, part: str, value: float) -> None:
    file = saved(tmp_path / "model.safetensors", kv=of.Conditioning(mean=True, basis="balanced"))
    of.restore(SelfAttention(), file)
    with_new_digest(file, lambda _, tensors: tensors[f"ohmformer/.K/{part}"].fill_(value))
    with pytest.raises(BadInput, match=r"is damaged .clip or conditioning of"):
        of.restore(SelfAttention(), file)


def test_a_digest_is_needed(tmp_path: Path) -> None:
    file = saved(tmp_path / "model.safetensors")
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["ohmformer"])
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    save_file(tensors, file, {"ohmformer": json.dumps({**about, "sha256": "0" * 64})})
    with pytest.raises(BadInput, match=r"is damaged .its contents do not have the SHA-256"):
        of.restore(SelfAttention(), file)
    del about["sha256"]
    save_file(tensors, file, {"ohmformer": json.dumps(about)})
    with pytest.raises(BadInput, match=r"is damaged .sha256"):
        of.restore(SelfAttention(), file)


def test_hardware_that_never_wears_out_comes_back(tmp_path: Path) -> None:
    hardware = of.load("nvm_ideal")
    file = saved(tmp_path / "model.safetensors", hardware)
    assert crossbars(of.restore(SelfAttention(), file)).hardware == hardware


@pytest.mark.parametrize("redundancy", [0, -1, 1.5, "many"])
def test_absurd_numbers_in_the_metadata_are_refused(tmp_path: Path, redundancy: Any) -> None:
    file = saved(tmp_path / "model.safetensors", kv=of.Conditioning(mean=True, redundancy=2))
    with_new_digest(file, lambda about, _: about["remedies"][".K"]["kv"].update(redundancy=redundancy))
    with pytest.raises(BadInput, match=r"model.safetensors"):
        of.restore(SelfAttention(), file)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    converted = of.convert(SelfAttention().eval(), HARDWARE, sample=TOKENS)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadInput, match=r"is not a regular file"):
            of.restore(SelfAttention(), place)
        with pytest.raises(BadInput, match=r"cannot be written .it is not a regular file"):
            of.save(converted, place)


def test_an_interrupted_save_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "model.safetensors")
    before = file.read_bytes()

    def full(_tensors: object, place: Path, _metadata: object) -> None:
        place.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("ohmformer.nn.saving.checkpoint.save_file", full)
    with pytest.raises(BadInput, match=r"no space left"):
        saved(file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == [file.name]


def test_links_stay_links(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "model.safetensors")
    saved(link)
    assert link.is_symlink()
    of.restore(SelfAttention(), tmp_path / "model.safetensors")
