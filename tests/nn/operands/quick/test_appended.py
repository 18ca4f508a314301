"""Steps of a decoding in few operations: the bits of the general way, and every change on the way is seen."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer.nn.operands import kv
from ohmformer.nn.operands.quick import appended
from ohmformer.nn.shared.weight_fingerprints import Fingerprints
from ohmformer.streams.compiling import has_numba
from tests.gpu.kernels import needs_amx

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 60, (2, 16), generator=torch.Generator().manual_seed(0))
PROMPT = 6
KERNELS = ["torch", pytest.param("compiled", marks=pytest.mark.skipif(not has_numba(), reason="numba is missing"))]
PER_VALUE, PER_CELL = of.load("clipformer_tcad_2024_per_value"), of.load("clipformer_tcad_2024")
BY_HEAD = of.replace(PER_CELL, "attention.array.scale", "head")
Change = Callable[[Any, Any], None]
"""Changes a model or its cache between two tokens."""


def converted(kernels: Any, hardware: of.Accelerator = PER_VALUE, **options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=2, intermediate_size=64, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config).eval()
    sample = {"input_ids": TOKENS[:, :PROMPT]}
    return of.convert(model, hardware, sample=sample, level="noise", kernels=kernels, **options)


def decoded(model: Any, change: Change | None = None, *, inference: bool = False, mask: Any = None) -> Tensor:
    """Logits [B, n, .] of a prompt's tokens one by one; the change comes in the middle."""
    found = []
    with torch.inference_mode(inference), torch.no_grad(), of.samples([3, "b"]):
        past = model(input_ids=TOKENS[:, :PROMPT], use_cache=True, attention_mask=mask).past_key_values
        for n in range(PROMPT, TOKENS.shape[1]):
            if n == PROMPT + 5 and change is not None:
                change(model, past)
            now = None if mask is None else torch.cat([mask, mask.new_ones(2, n + 1 - PROMPT)], dim=1)
            found.append(model(input_ids=TOKENS[:, n : n + 1], past_key_values=past, attention_mask=now).logits)
    return torch.cat(found, dim=1)


@pytest.fixture
def in_general(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """`decoded` in the general way."""

    def run(*args: Any, **options: Any) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(kv, "appended_product", lambda *_: None)
            patch.setattr(Fingerprints, "unchanged", False)
            return decoded(*args, **options)

    return run


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("hardware", [PER_VALUE, PER_CELL, BY_HEAD], ids=["per value", "per cell", "by head"])
def test_the_bits_are_those_of_the_general_way(
    kernels: Any, inference: bool, hardware: of.Accelerator, in_general: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, quick = converted(kernels, hardware), list[bool]()

    def counted(*args: Any) -> Tensor | None:
        y = appended.appended_product(*args)
        quick.append(y is not None)
        return y

    monkeypatch.setattr(kv, "appended_product", counted)
    found = decoded(model, inference=inference)
    steps = TOKENS.shape[1] - PROMPT
    assert sum(quick) == 4 * (steps - 1)  # K and V of two layers, from the second token on
    assert torch.equal(found, in_general(model, inference=inference))


@needs_amx
@pytest.mark.parametrize("hardware", [PER_VALUE, PER_CELL], ids=["per value", "per cell"])
def test_steps_without_tiles_draw_the_noise_of_those_with_them(hardware: of.Accelerator, in_general: Any) -> None:
    model = converted("amx", hardware)
    found, general = decoded(model), in_general(model)
    # Sums are rounded in another way; other noise would differ by a hundredth and more.
    torch.testing.assert_close(found, general, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, decoded(converted("torch", hardware)), atol=1e-3)


def test_texts_with_padding_take_the_general_way(in_general: Any) -> None:
    model, mask = converted("torch"), torch.ones(2, PROMPT, dtype=torch.long)
    mask[1, :2] = 0
    assert torch.equal(decoded(model, mask=mask), in_general(model, mask=mask))


@pytest.mark.parametrize("hardware", [of.load("generic_amplitude"), of.load("clipformer_tcad_2024_per_value")])
@pytest.mark.parametrize("clip", [None, of.KVClip(alpha=2.0, beta=0.5)])
def test_other_hardware_and_clips(hardware: of.Accelerator, clip: of.KVClip | None, in_general: Any) -> None:
    model = converted("torch", hardware, clip=clip)
    assert torch.equal(decoded(model), in_general(model))


def other_chip(model: Any, _: Any) -> None:
    of.set_chip(model, 1)


def other_clip(model: Any, _: Any) -> None:
    of.set_clip(model, of.KVClip(alpha=2.0, beta=0.5))


def other_cache(_: Any, past: Any) -> None:
    past.layers[0].keys[:, :, 2] *= 2


def cut_cache(_: Any, past: Any) -> None:
    past.crop(-3)


def new_cache(_: Any, past: Any) -> None:
    past.layers[1].values = past.layers[1].values.flip(-1)


def weights_in_place(model: Any, _: Any) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.25)


def data_of_weights(model: Any, _: Any) -> None:
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.25)


def other_weights(model: Any, _: Any) -> None:
    weight = model.model.layers[0].mlp.down_proj.weight
    model.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(weight.detach() * 0.75)


CHANGES = [other_chip, other_clip, other_cache, cut_cache, new_cache, weights_in_place, data_of_weights, other_weights]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_changes_between_tokens_are_seen(kernels: Any, change: Change, inference: bool, in_general: Any) -> None:
    found = decoded_or_refused(decoded, converted(kernels), change, inference=inference)
    assert same(found, decoded_or_refused(in_general, converted(kernels), change, inference=inference))
    assert not same(found, decoded(converted(kernels), inference=inference))


def decoded_or_refused(how: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor | str:
    """What `decoded` returns; or the message of its refusal."""
    try:
        return how(*args, **options)
    except of.BadInput as error:
        return str(error)


def same(a: Tensor | str, b: Tensor | str) -> bool:
    """True for equal bits, or messages."""
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else isinstance(a, str) and a == b


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_decode_on_their_own(copied: Callable[[Any], Any]) -> None:
    model = converted("torch")
    expected = decoded(model)
    assert torch.equal(decoded(copied(model)), expected)
    assert torch.equal(decoded(model), expected)


@pytest.mark.parametrize("kernels", KERNELS)
def test_values_that_are_not_finite_are_refused(kernels: Any) -> None:
    def broken(model: Any, _: Any) -> None:
        model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda _m, _a, y: y * float("nan"))

    with pytest.raises(of.BadInput, match="a matrix to be programmed, or its range, holds NaN or infinity"):
        decoded(converted(kernels), broken)
