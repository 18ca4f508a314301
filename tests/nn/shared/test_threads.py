"""One converted model in several threads: each gives what it gives alone."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.shared.state import CallInfo, State
from tests.nn.models import Decoder, SelfAttention, vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


class Shared(nn.Module):
    """A layer and an attention that one pass uses three times, with weights of a module that multiplies by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mix = SelfAttention(), nn.Parameter(torch.randn(24, 24) / 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.attention(x) @ self.mix
        return x


CASES: dict[str, tuple[Any, Tensor]] = {
    "images": (vit, IMAGES),
    "text": (lambda: Decoder().eval(), TOKENS),
    "shared": (lambda: Shared().eval(), torch.randn(4, 5, 24, generator=torch.Generator().manual_seed(3))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_many_threads_give_what_each_gives_alone(name: str) -> None:
    make, x = CASES[name]
    torch.manual_seed(0)
    converted = of.convert(make(), HARDWARE, sample=x)

    def answer(n: int) -> Tensor:
        rows = x.roll(n % 3, 0)[: 1 + n % len(x)]
        with torch.no_grad(), of.samples(f"{n} {row}" for row in range(len(rows))):
            found = converted(rows)
        assert isinstance(found, Tensor)
        return found

    alone = [answer(n) for n in range(8)]
    start = threading.Barrier(8)

    def together(n: int) -> list[Tensor]:
        start.wait()
        return [answer(n) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(together, range(8))):
            assert all(torch.equal(one, alone[n]) for one in found)


def test_an_error_in_one_thread_leaves_the_others_alone() -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    with torch.no_grad(), of.samples(range(4)):
        expected = converted(IMAGES)
    with ThreadPoolExecutor(2) as pool:
        failing = [pool.submit(converted, IMAGES[:, :, :7]) for _ in range(10)]
        assert all(one.exception() is not None for one in failing)
    with torch.no_grad(), of.samples(range(4)):
        assert torch.equal(converted(IMAGES), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_models_are_copied_in_any_thread(copied: Any) -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    with torch.no_grad(), of.samples(range(4)):
        expected = converted(IMAGES)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(copied, converted).result()
        assert torch.equal(other(IMAGES), expected)


def test_what_a_call_keeps_is_that_of_its_thread() -> None:
    state = State()
    wait = threading.Barrier(4)

    def keeps(n: int) -> bool:
        state.threads.enter()
        wait.wait()
        call, encoder = state.threads.call, CallInfo(batch_size=10 + n)
        call.info = CallInfo(batch_size=n)
        call.encoders.append(encoder)
        call.moved[f"K{n}"] = frozenset()
        call.uses[f"K{n}"] = 1
        state.threads.here.frames.append(n)
        wait.wait()
        call = state.threads.call
        kept = (call.info.batch_size, call.encoders, set(call.moved), set(call.uses), state.threads.here.frames)
        wait.wait()
        return kept == (n, [encoder], {f"K{n}"}, {f"K{n}"}, [n])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(keeps, range(4)))


@pytest.mark.filterwarnings("ignore")
def test_encoders_that_are_called_by_themselves_at_the_same_time_know_their_own_padding() -> None:
    """`generate` calls the encoder before its thread has ever called the whole model."""
    config = BartConfig(
        **{"vocab_size": 30, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
    )
    torch.manual_seed(0)
    ids = torch.randint(3, 30, (2, 6))
    masks = [torch.ones_like(ids), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])]
    sample = {"input_ids": ids, "attention_mask": masks[1], "decoder_input_ids": ids[:, :3]}
    converted = of.convert(BartForConditionalGeneration(config).eval(), HARDWARE, sample=sample)
    encoder, state = converted.get_encoder(), crossbars(converted).state
    assert isinstance(encoder, nn.Module)
    both, known = threading.Barrier(2), {}

    def look(_module: nn.Module, _args: Any) -> None:
        both.wait()
        known[threading.get_ident()] = [part.token_mask for part in state.threads.call.encoders]
        both.wait()

    encoder.layers[0].register_forward_pre_hook(look)

    def encode(n: int) -> bool:
        with torch.no_grad(), of.samples([f"{n} a", f"{n} b"]):
            encoder(ids, attention_mask=masks[n])
        (padding,) = known[threading.get_ident()]
        return bool(torch.equal(padding[0], masks[n].bool()))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(encode, range(2)))
