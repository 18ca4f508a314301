"""Text generation by Hugging Face models: what cells hold is the same however its caches and masks are laid out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.array.event_counter import counting
from tests.cases import quick_first
from tests.nn.hub import library

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
READS = of.replace(HARDWARE, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
SMALL = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
SMALL |= {"intermediate_size": 24, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "initializer_range": 0.2}
TOKENS = torch.randint(2, 50, (3, 9), generator=torch.Generator().manual_seed(3))


def llama(**options: Any) -> nn.Module:
    transformers = library("transformers")
    torch.manual_seed(0)
    model: nn.Module = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_hidden_layers=2, **SMALL, **options)
    ).eval()
    return model


def sliding(**options: Any) -> nn.Module:
    transformers = library("transformers")
    torch.manual_seed(0)
    model: nn.Module = transformers.MistralForCausalLM(
        transformers.MistralConfig(num_hidden_layers=2, sliding_window=6, **SMALL, **options)
    ).eval()
    return model


def generated(model: nn.Module, tokens: Tensor, names: list[int], **options: Any) -> Tensor:
    """Logits [B, 8, words] of eight tokens."""
    wanted = {"max_new_tokens": 8, "return_dict_in_generate": True, "output_logits": True, **options}
    with torch.no_grad(), of.samples(names), of.without_quantizers(model):
        return torch.stack(model.generate(tokens, **wanted).logits, dim=1)  # type: ignore[operator]


def test_reads_of_one_token_are_those_of_a_full_pass() -> None:
    model = of.convert(llama(attn_implementation="sdpa"), READS, sample=TOKENS)
    mask = torch.ones_like(TOKENS)
    mask[1, :3] = 0
    numbers = (mask.cumsum(dim=1) - 1).clamp(min=0)
    names = [0, 1, 2]
    with torch.no_grad(), of.samples(names), of.without_quantizers(model):
        once = model(input_ids=TOKENS, attention_mask=mask, position_ids=numbers).logits
        first = model(input_ids=TOKENS[:, :-1], attention_mask=mask[:, :-1], position_ids=numbers[:, :-1])
        more = {"attention_mask": mask, "position_ids": numbers[:, -1:], "past_key_values": first.past_key_values}
        last = model(input_ids=TOKENS[:, -1:], **more).logits
    assert torch.allclose(last, once[:, -1:], atol=1e-5)


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("attention", quick_first(["sdpa", "eager"], 1))
@pytest.mark.parametrize("make", [llama, sliding])
def test_padding_on_the_left_gives_the_same_as_alone(make: Any, attention: str, cache: dict[str, str]) -> None:
    model = of.convert(make(attn_implementation=attention), READS, sample=TOKENS)
    padded, mask = TOKENS.clone(), torch.ones_like(TOKENS)
    padding = [0, 2, 5]
    for row, count in enumerate(padding):
        padded[row, :count], mask[row, :count] = 0, 0
    together = generated(model, padded, [0, 1, 2], attention_mask=mask, **cache)
    for row, count in enumerate(padding):
        alone = generated(model, TOKENS[row : row + 1, count:], [row])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_repeated_words_that_slide_through_a_window_keep_their_noise() -> None:
    model = of.convert(sliding(), HARDWARE, sample=TOKENS)
    text = torch.tensor([[7, 9, *[5] * 12, *[8] * 12], [5] * 26])
    names = ["a", "b"]
    with torch.no_grad(), of.samples(names), of.without_quantizers(model):
        once = model(input_ids=text).logits
        first = model(input_ids=text[:, :4], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        with counting() as counts:
            for n in range(4, text.shape[1]):
                steps.append(model(input_ids=text[:, n : n + 1], past_key_values=cache, use_cache=True).logits)
    assert torch.allclose(torch.cat(steps, dim=1), once, atol=1e-5)
    # Nothing is rounded, so there are no slices.
    layers, operands, samples, tokens, heads, features, halves = 2, 2, 2, 22, 2, 4, 2
    assert counts.cell_writes == layers * operands * samples * tokens * heads * features * halves


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.filterwarnings("ignore::ohmformer.streams.UnnamedSamples")
def test_samples_that_leave_a_batch_need_names(named: bool) -> None:
    model = of.convert(llama(), HARDWARE, sample=TOKENS)

    def run(tokens: Tensor, names: list[int], **options: Any) -> Any:
        with torch.no_grad(), of.without_quantizers(model), of.samples(names) if named else nullcontext():
            return model(input_ids=tokens, **options)

    word = torch.tensor([[4], [5], [6]])
    once = run(torch.cat([TOKENS, word], dim=1), [0, 1, 2]).logits
    cache = run(TOKENS, [0, 1, 2], use_cache=True).past_key_values
    cache.batch_select_indices(torch.tensor([0, 2]))
    if named:
        assert torch.allclose(run(word[[0, 2]], [0, 2], past_key_values=cache).logits, once[[0, 2], -1:], atol=1e-5)
    else:
        with pytest.raises(of.BadInput, match="name the samples"):
            run(word[[0, 2]], [0, 1], past_key_values=cache)


def test_beam_search_without_a_cache_equals_each_text_alone() -> None:
    model = of.convert(llama(), HARDWARE, sample=TOKENS)
    options = {"num_beams": 3, "use_cache": False, "do_sample": False, "max_new_tokens": 4}
    options |= {"return_dict_in_generate": True, "output_scores": True}

    def searched(rows: slice, names: list[str]) -> Any:
        beams = [name for name in names for _ in range(3)]
        with torch.no_grad(), of.samples(beams), of.without_quantizers(model):
            return model.generate(TOKENS[rows], **options)  # type: ignore[operator]

    together = searched(slice(0, 3), ["a", "b", "c"])
    for row, name in enumerate("abc"):
        alone = searched(slice(row, row + 1), [name])
        assert torch.equal(together.sequences[row], alone.sequences[0])
        assert torch.allclose(together.sequences_scores[row], alone.sequences_scores[0], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_cache": True}, {"cache_implementation": "static"}])
def test_beam_search_with_a_cache_is_refused_with_its_remedy(options: dict[str, Any]) -> None:
    model = of.convert(llama(), HARDWARE, sample=TOKENS)
    with of.samples(range(9)), pytest.raises(of.BadInput, match=r"beam search would move .* use_cache=False"):
        model.generate(TOKENS, num_beams=3, max_new_tokens=2, **options)  # type: ignore[operator]
