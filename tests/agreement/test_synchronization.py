"""The forward pass of a converted model makes the host wait for a GPU at the listed places only, and at no others."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import deferred_checks
from ohmformer.streams import backends
from tests.gpu.synchronization import Waits
from tests.nn.models import Decoder, vit

IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))

ONCE = {
    "deferred_checks.py:end": 1,
    "nn/shared/weight_fingerprints.py:_read": 1,
}
"""Once in a call, however many layers the model has."""


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU draws, checks and compares as a GPU does."""
    monkeypatch.setattr(backends, "backend_of", lambda *_: "philox")
    monkeypatch.setattr(deferred_checks, "waits", lambda device: True)


def waits(model: nn.Module, x: Tensor) -> Counter[str]:
    with torch.no_grad(), of.samples(range(len(x))), Waits([*model.parameters(), *model.buffers(), x]) as found:
        model(x)  # writes the weights
        found.lines.clear()
        model(x)
    return found.lines


@pytest.mark.parametrize("hardware", ["clipformer_tcad_2024", "generic_amplitude"])
@pytest.mark.parametrize("level", ["noise", "array"])
def test_a_vision_transformer_waits_once_in_a_call(hardware: str, level: Any) -> None:
    model = of.convert(vit().eval(), of.load(hardware), sample=IMAGES, level=level)
    assert waits(model, IMAGES) == {**ONCE, "nn/calls/larger_inputs.py:magnitudes": 1}


OPERANDS = 4
"""K and V of the two layers of `Decoder`."""
MASKS = dict.fromkeys(("capture/masks.py:shows_nothing", "nn/operands/unpad.py:unpad"), OPERANDS)
"""Decisions that follow from a mask: whether padding is left out, and whether a query sees nothing at all."""
COPIES = {"nn/modules/grouped_query.py:_without_copies": OPERANDS}
"""Whether heads of keys and values are copies of each other."""


@pytest.mark.parametrize("level", ["noise", "array"])
def test_a_decoder_waits_for_its_masks_and_copied_heads_too(level: Any) -> None:
    model = of.convert(Decoder().eval(), of.load("generic_amplitude"), sample=TOKENS, level=level)
    assert waits(model, TOKENS) == {**ONCE, **MASKS, **COPIES}


def test_decoding_compares_cached_tokens_too() -> None:
    model = of.convert(Decoder().eval(), of.load("clipformer_tcad_2024"), sample=TOKENS, level="noise")
    with torch.no_grad(), of.samples(range(len(TOKENS))), Waits([*model.parameters(), TOKENS]) as found:
        _, past = model(TOKENS[:, :4], [])
        _, past = model(TOKENS[:, 4:5], past)
        found.lines.clear()
        model(TOKENS[:, 5:], past)
    assert found.lines == {**ONCE, **MASKS, **COPIES, "nn/operands/kv_cache.py:same_bits": OPERANDS}


def test_values_that_are_no_numbers_are_refused_at_the_end_of_the_call() -> None:
    model = of.convert(vit().eval(), of.load("clipformer_tcad_2024"), sample=IMAGES, level="noise")
    spoiled = IMAGES.clone()
    spoiled[1, 0, 3, 3] = float("nan")
    with torch.no_grad(), of.samples(range(len(IMAGES))):
        whole = model(IMAGES)
        with pytest.raises(of.BadInput, match="an input of a crossbar, or its range, holds NaN or infinity"):
            model(spoiled)
        assert torch.equal(model(IMAGES), whole)


def test_weights_that_change_between_calls_are_written_again() -> None:
    model = of.convert(vit().eval(), of.load("clipformer_tcad_2024"), sample=IMAGES, level="noise")
    with torch.no_grad(), of.samples(range(len(IMAGES))):
        before = model(IMAGES)
        assert torch.equal(model(IMAGES), before)
        next(p for name, p in model.named_parameters() if name.endswith("weight") and p.dim() == 2).data.mul_(0.5)
        assert not torch.allclose(model(IMAGES), before)


def test_a_wait_that_is_new_is_found() -> None:
    class Curious(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool((x > 0).any()) and len(x[x > 0].tolist()) else -x

    x = torch.ones(3)
    with Waits([x]) as found:
        Curious()(x)
        torch.ones(3).tolist()
    assert found.lines == {"outside": 3}
