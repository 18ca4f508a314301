"""A clip is chosen for what it does to the answers, and the gentlest of equals is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.spec import KVClip
from ohmformer.nn.calibrate import CHIP, candidates, choose_clip
from ohmformer.nn.convert import convert, crossbars
from ohmformer.schema import replace
from tests.study.small import model as small_model
from tests.study.small import task as small_task

GENTLE = KVClip(alpha=0.0, beta=1.0)


def hardware(gamma: float) -> Accelerator:
    found = load("clipformer_tcad_2024")
    assert isinstance(found, Accelerator)
    return replace(found, "attention.array.cell.write_noise.gamma", gamma)


def test_the_grid_starts_with_no_clip_and_leaves_out_what_leaves_nothing() -> None:
    grid = candidates(hardware(1))
    assert grid[0] == GENTLE
    assert len(set(grid)) == len(grid) > 4
    narrow = replace(hardware(1), "attention.key.array.cell.g_min", "2.5 uS")
    assert {clip.beta for clip in candidates(narrow)} == {1.0, 0.5}, "beta r <= 1 for r = 4 and beta = 0.25"


def test_without_noise_no_clip_is_best() -> None:
    model = small_model().eval()
    inputs = small_task().inputs
    converted = convert(model, hardware(0), sample=inputs)
    assert choose_clip(model, converted, inputs, candidates(hardware(0)), batch=6) == GENTLE
    assert crossbars(converted).state.clip == GENTLE
    assert crossbars(converted).state.chip == CHIP < 0


def test_the_choice_does_not_depend_on_the_batch() -> None:
    model, inputs = small_model().eval(), small_task().inputs
    noisy = hardware(7)
    chosen = {
        choose_clip(model, convert(model, noisy, sample=inputs), inputs, candidates(noisy), batch=batch)
        for batch in (3, 16)
    }
    assert len(chosen) == 1


def test_of_equals_the_first_is_taken() -> None:
    model, inputs = small_model().eval(), small_task().inputs
    converted = convert(model, hardware(2), sample=inputs)
    same = [KVClip(alpha=0.0, beta=1.0), KVClip(alpha=0.0, beta=1.0)]
    assert choose_clip(model, converted, inputs, same, batch=16) is same[0]


class Shifted(nn.Module):
    """Pretends to be a converted model whose answers are right only with the clip that it likes."""

    def __init__(self, liked: KVClip) -> None:
        super().__init__()
        self.liked = liked
        self.clip: KVClip | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.clip == self.liked else x.flip(-1)


@pytest.mark.parametrize("index", [0, 3, 7])
def test_the_clip_with_the_most_similar_answers_wins(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = candidates(hardware(1))
    monkeypatch.setattr("ohmformer.nn.calibrate.set_chip", lambda model, chip, *, seed: None)
    monkeypatch.setattr("ohmformer.nn.calibrate.set_clip", lambda model, clip: setattr(model, "clip", clip))
    converted = Shifted(grid[index])
    inputs = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 5.0]])
    assert choose_clip(nn.Identity(), converted, inputs, grid, batch=1) == grid[index]
    assert converted.clip == grid[index]


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one"):
        choose_clip(nn.Identity(), nn.Identity(), torch.zeros(2, 2), [], batch=1)
    with pytest.raises(BadInput, match="at least one"):
        choose_clip(nn.Identity(), nn.Identity(), torch.zeros(0, 2), [GENTLE], batch=1)
