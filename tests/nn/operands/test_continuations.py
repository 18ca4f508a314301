"""A cache may be copied, cut back, continued otherwise or filled again: a token's noise is that of its number.

Whatever is done with a cache, logits are those of one pass over all tokens before them.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from tests.nn.hub import library

WRITE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
READ = of.replace(WRITE, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
READ = of.replace(READ, "projection.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
OFFSET = of.replace(READ, "attention.array.cell.write_noise", {"kind": "uniform", "sigma": 0.1})
OFFSET = of.replace(OFFSET, "attention.array.encoding", "offset")
HARDWARE = {"write": WRITE, "read": READ, "offset": OFFSET}

NAMES = ["a", "b"]
PROMPT = torch.randint(2, 50, (2, 12), generator=torch.Generator().manual_seed(3))
MORE = torch.randint(2, 50, (4, 2, 6), generator=torch.Generator().manual_seed(4))
"""Four ways to go on."""

LLAMA = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
LLAMA |= {"intermediate_size": 24, "initializer_range": 0.3, "num_hidden_layers": 2}
LLAMA |= {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
GPT2 = {"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 50, "initializer_range": 0.3}
GPT2 |= {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
WINDOW = {**LLAMA, "sliding_window": 6}
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA = {"head_dim": 4, "query_pre_attn_scalar": 4}
EXPERTS = {"head_dim": 4, "num_local_experts": 2, "num_experts_per_tok": 2}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "gpt2": ("GPT2", GPT2),
    "mistral": ("Mistral", WINDOW),
    "gemma3": ("Gemma3", {**MIXED, **GEMMA}),
    "gemma2": ("Gemma2", {**WINDOW, **GEMMA}),
    "cohere2": ("Cohere2", {**MIXED, "logit_scale": 1.0}),
    "gpt_oss": ("GptOss", {**MIXED, **EXPERTS}),
}
SDPA, EAGER = "sdpa", "eager"
CASES = [("llama", SDPA, "write"), ("gpt2", EAGER, "read"), ("mistral", SDPA, "read"), ("gemma3", EAGER, "read")]
SLOW = [
    ("llama", EAGER, "read"), ("gpt2", SDPA, "write"), ("mistral", EAGER, "write"), ("gemma3", SDPA, "write"),
    ("gemma2", EAGER, "read"), ("cohere2", SDPA, "read"), ("cohere2", EAGER, "read"), ("gpt_oss", EAGER, "write"),
    ("mistral", SDPA, "offset"), ("llama", EAGER, "offset"),
]  # fmt: skip
every = pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)])


def digital(family: str, attention: str) -> nn.Module:
    transformers = library("transformers")
    name, options = OPTIONS[family]
    config = f"{name}TextConfig" if family == "gemma3" else f"{name}Config"
    torch.manual_seed(0)
    model = f"{name}LMHeadModel" if family == "gpt2" else f"{name}ForCausalLM"
    made = getattr(transformers, model)(getattr(transformers, config)(attn_implementation=attention, **options))
    assert isinstance(made, nn.Module)
    return made.eval()


@cache
def converted(family: str, attention: str, hardware: str) -> nn.Module:
    model = digital(family, attention)
    return of.convert(model, HARDWARE[hardware], sample={"input_ids": PROMPT}, level="array")


@pytest.fixture
def model(case: tuple[str, str, str]) -> Any:
    """A model, samples with names, and quantizers bypassed, so that no tie of rounding tells sums apart."""
    made = converted(*case)
    with torch.no_grad(), of.samples(NAMES), of.without_quantizers(made):
        yield made


def full(model: nn.Module, tokens: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-5 * max(1.0, float(b.abs().max())))


@every
@pytest.mark.slow
def test_copies_of_a_cache_go_on_in_any_order(model: nn.Module, case: Any) -> None:
    """Each copy is continued otherwise, word by word, and they take turns."""
    first = model(input_ids=PROMPT, use_cache=True).past_key_values
    caches = [copy.deepcopy(first) for _ in MORE]
    once = [full(model, torch.cat([PROMPT, words], dim=1)) for words in MORE]
    for n in range(3):
        for k in [2, 0, 1, 3] if n % 2 else [1, 3, 0, 2]:
            logits = model(input_ids=MORE[k][:, n : n + 1], past_key_values=caches[k]).logits
            assert same(logits, once[k][:, 12 + n : 13 + n]), (n, k)


@every
def test_rows_may_exchange_their_words(model: nn.Module, case: Any) -> None:
    """Two samples with one prompt: what the cells hold of the other sample is no sign of a cache that was moved."""
    prompt = PROMPT[:1].expand(2, -1)
    first = model(input_ids=prompt, use_cache=True).past_key_values
    ways = [MORE[0], MORE[0].flip(0)]
    caches = [copy.deepcopy(first) for _ in ways]
    once = [full(model, torch.cat([prompt, words], dim=1)) for words in ways]
    for n in range(2):
        for k in range(2):
            logits = model(input_ids=ways[k][:, n : n + 1], past_key_values=caches[k]).logits
            assert same(logits, once[k][:, 12 + n : 13 + n]), (n, k)


@every
def test_a_cache_may_be_cut_back(model: nn.Module, case: Any) -> None:
    text = PROMPT
    held = model(input_ids=PROMPT, use_cache=True).past_key_values
    held.activate_past_recording()
    for words, rejected in zip(MORE, [5, 4, 6, 3], strict=True):
        logits = model(input_ids=words, past_key_values=held).logits
        text = torch.cat([text, words], dim=1)
        assert same(logits, full(model, text)[:, -6:])
        held.crop(-rejected)
        text = text[:, :-rejected]


@every
def test_steps_of_any_size_give_what_one_pass_gives(model: nn.Module, case: Any) -> None:
    text = torch.cat([PROMPT, MORE[0], MORE[1]], dim=1)
    once, held, start = full(model, text), None, 0
    for size in [3, 2, 1, 1, 4, 1, 1, 5, 1, 1]:
        found = model(input_ids=text[:, start : start + size], past_key_values=held, use_cache=True)
        assert same(found.logits, once[:, start : start + size]), start
        held, start = found.past_key_values, start + size


@every
def test_a_static_cache_may_be_filled_again(model: nn.Module, case: Any) -> None:
    held = library("transformers").StaticCache(config=model.config, max_cache_len=16)
    for call_index in range(2):
        text = PROMPT.roll(call_index, 1)
        assert same(model(input_ids=text, past_key_values=held).logits, full(model, text))
        for n in range(2):
            word = MORE[call_index][:, n : n + 1]
            text = torch.cat([text, word], dim=1)
            assert same(model(input_ids=word, past_key_values=held).logits, full(model, text)[:, -1:])
        held.reset()


@every
@pytest.mark.parametrize("how", ["prompt lookup", "assistant"])
def test_speculative_decoding(model: nn.Module, case: Any, how: str) -> None:
    if how == "assistant":
        assistant = digital(*case[:2])
        for parameter in assistant.parameters():
            parameter.mul_(1.02)
        options: dict[str, Any] = {"assistant_model": assistant}
    else:
        options = {"prompt_lookup_num_tokens": 3}
    with of.samples(["a"]):
        found = model.generate(  # type: ignore[operator]
            PROMPT[:1], max_new_tokens=8, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
        )
        once = full(model, found.sequences)
    logits = torch.stack(found.logits, dim=1)
    assert same(logits, once[:, 11 : 11 + logits.shape[1]])


@pytest.mark.parametrize("case", [("llama", SDPA, "write")])
def test_what_cells_hold_changes_no_result(model: nn.Module, case: Any) -> None:
    """A quantized cache changes tokens after they were written: they are written again, with the noise of old."""
    utilities = library("transformers").cache_utils

    class Rounded(utilities.QuantizedLayer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(nbits=4, axis_key=0, axis_value=0, q_group_size=4, residual_length=4)

        def _quantize(self, t: Tensor, axis: int) -> Tensor:
            return (t * 8).round() / 8

        def _dequantize(self, q_tensor: Tensor) -> Tensor:
            return q_tensor

    text = torch.cat([PROMPT, MORE[0], MORE[1]], dim=1)
    written = crossbars(model).state.threads.call.written

    def steps(forget: bool) -> Tensor:
        held, start, found = utilities.Cache(layer_class_to_replicate=Rounded), 0, []
        for size in [12, *[1] * 7, 3, 1]:
            if forget:
                written.clear()
            found.append(model(input_ids=text[:, start : start + size], past_key_values=held).logits)
            start += size
        return torch.cat(found, dim=1)

    assert same(steps(forget=False), steps(forget=True))


@pytest.mark.parametrize("case", [("llama", SDPA, "read"), ("mistral", SDPA, "read")])
def test_a_mask_may_speak_of_later_tokens_too(model: nn.Module, case: Any) -> None:
    text = torch.cat([PROMPT, MORE[0]], dim=1)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, :3] = 0
    numbers = (mask.cumsum(dim=1) - 1).clamp(min=0)
    more = {"attention_mask": mask[:, :18], "position_ids": numbers[:, :18]}
    once, held = model(input_ids=text, use_cache=False, **more).logits, None
    for start, stop in [(0, 9), (9, 10), (10, 14), (14, 18)]:
        more = {"attention_mask": mask, "position_ids": numbers[:, start:stop], "past_key_values": held}
        found = model(input_ids=text[:, start:stop], use_cache=True, **more)
        held, own = found.past_key_values, mask[:, start:stop, None]
        assert same(found.logits * own, once[:, start:stop] * own)


@pytest.mark.parametrize("case", [("llama", SDPA, "write")])
def test_a_mask_of_new_tokens_alone_is_refused(model: nn.Module, case: Any) -> None:
    held = model(input_ids=PROMPT, use_cache=True).past_key_values
    with pytest.raises(
        of.BadInput, match="attention_mask has 1 columns, but with the 12 tokens of the cache and 1 new"
    ):
        model(input_ids=MORE[0][:, :1], attention_mask=torch.ones(2, 1, dtype=torch.long), past_key_values=held)


@pytest.mark.parametrize("case", [("llama", SDPA, "write")])
@pytest.mark.parametrize("names", [["a", "b"], ["c", "d"]])
def test_tokens_of_another_sample_are_refused(model: nn.Module, case: Any, names: list[str]) -> None:
    """K and V of deeper layers follow from the noise of the sample for which they were computed."""
    held = model(input_ids=PROMPT, use_cache=True).past_key_values
    if names == NAMES:
        held.reorder_cache(torch.tensor([1, 0]))
    with of.samples(names), pytest.raises(of.BadInput, match=r"for this sample.*beam search"):
        model(input_ids=MORE[0][:, :1], past_key_values=held)


@pytest.mark.parametrize("case", [("llama", SDPA, "write")])
def test_one_prompt_goes_on_in_several_rows_of_its_name(model: nn.Module, case: Any) -> None:
    with of.samples(["a"]):
        held = model(input_ids=PROMPT[:1], use_cache=True).past_key_values
    held.batch_repeat_interleave(3)
    with of.samples(["a", "a", "a"]):
        text = torch.cat([PROMPT[:1].expand(3, -1), MORE[:3, 0, :1]], dim=1)
        assert same(model(input_ids=text[:, -1:], past_key_values=held).logits, full(model, text)[:, -1:])


@pytest.mark.parametrize("case", [("llama", SDPA, "write"), ("mistral", SDPA, "read")])
def test_rows_of_one_name_may_go_on_and_leave(model: nn.Module, case: Any) -> None:
    """Samples that are drawn from one prompt have its name; a row is not taken for another sample of that name.

    In a window each step shifts the tokens, and a row that leaves shifts the rows.
    """
    prompt, words = PROMPT[:1].expand(3, -1), torch.cat([MORE[0], MORE[1][:1]])[:3]
    with of.samples(["a"] * 3):
        held = model(input_ids=prompt, use_cache=True).past_key_values
        text = torch.cat([prompt, words], dim=1)
        once = full(model, text)
        for n in range(12, 15):
            logits = model(input_ids=text[:, n : n + 1], past_key_values=held).logits
            assert same(logits, once[:, n : n + 1]), n
    held.batch_select_indices(torch.tensor([1]))
    with of.samples(["a"]):
        logits = model(input_ids=text[1:2, 15:16], past_key_values=held).logits
    assert same(logits, once[1:2, 15:16])
