"""Models of Hugging Face with digital tokens: caches, windows and padding give what one pass gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import Conditioning
from tests.nn.hub import library
from tests.nn.operands.digital_tokens.test_positions import relative
from tests.nn.operands.test_continuations import HARDWARE, NAMES, PROMPT, digital, full, same
from tests.nn.operands.test_cross_attention import SOURCE, TARGET, family
from tests.nn.operands.test_kv_transform import QUIET

SPEC = Conditioning(scale="token", first_tokens=2, last_tokens=3)
CASES = [
    ("llama", "sdpa", "write"),
    ("gpt2", "eager", "read"),
    ("mistral", "sdpa", "read"),
    ("gemma3", "eager", "write"),
]
every = pytest.mark.parametrize("case", CASES, ids=[name for name, _, _ in CASES])


def converted(case: tuple[str, str, str], hardware: of.Accelerator | None = None) -> nn.Module:
    name, attention, noise = case
    sample = {"input_ids": PROMPT}
    model = of.convert(digital(name, attention), hardware or HARDWARE[noise], sample=sample, level="array")
    of.set_kv(model, SPEC)
    return model


def generated(model: nn.Module, prompt: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
    """Tokens and logits of greedy generation."""
    found = model.generate(  # type: ignore[operator]
        input_ids=prompt, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True, **how
    )
    return found.sequences, torch.stack(found.logits, dim=1)


@every
@pytest.mark.slow
def test_generation_and_padding(case: tuple[str, str, str]) -> None:
    library("transformers")
    model = converted(case)
    mask = torch.ones_like(PROMPT)
    mask[0, :4] = 0
    with torch.no_grad(), of.without_quantizers(model):
        for length in (3, 12):  # shorter, and longer, than all digital tokens
            for how in ({}, {"cache_implementation": "static"}):
                with of.samples(NAMES):
                    ids, logits = generated(model, PROMPT[:, :length], **how)
                    assert same(full(model, ids)[:, length - 1 : -1], logits), how
        with of.samples(NAMES):
            ids, logits = generated(model, PROMPT, attention_mask=mask)
        with of.samples(NAMES[:1]):
            assert same(full(model, ids[:1, 4:])[:, 7:-1], logits[:1])


@every
def test_they_are_exact_on_ideal_hardware(case: tuple[str, str, str]) -> None:
    library("transformers")
    model = converted(case, QUIET)
    software = digital(case[0], case[1])
    with torch.no_grad(), of.without_quantizers(model), of.samples(NAMES):
        expected, past, found = full(software, PROMPT), None, []
        assert relative(full(model, PROMPT), expected) < 1e-4
        for words in PROMPT.split([3, 1, 4, *[1] * 4], dim=1):
            output = model(input_ids=words, past_key_values=past, use_cache=True)
            past = output.past_key_values
            found.append(output.logits)
    assert relative(torch.cat(found, dim=1), expected) < 1e-4


def test_cross_attention_keeps_the_first_tokens_of_the_source_and_has_no_recent_window() -> None:
    library("transformers")
    software = family("Bart")
    source = {"input_ids": SOURCE}
    model = of.convert(software, QUIET, sample={**source, "decoder_input_ids": TARGET}, level="noise")
    with pytest.raises(of.BadInput, match=r"kv.last_tokens = 3: .* is not causal"):
        of.set_kv(model, SPEC)
    of.set_kv(model, Conditioning(mean=True, basis="hadamard", first_tokens=2))
    found, past, memory = [], None, None
    with torch.no_grad(), of.samples([1, 2, 3]), of.without_quantizers(model):
        expected = software(**source, decoder_input_ids=TARGET).logits
        assert relative(model(**source, decoder_input_ids=TARGET).logits, expected) < 1e-4
        for step in range(TARGET.shape[1]):
            given: dict[str, Any] = source if memory is None else {"encoder_outputs": (memory,)}
            token = TARGET[:, step : step + 1]
            output = model(**given, decoder_input_ids=token, past_key_values=past, use_cache=True)
            past, memory = output.past_key_values, output.encoder_last_hidden_state
            found.append(output.logits)
    assert relative(torch.cat(found, dim=1), expected) < 1e-4
