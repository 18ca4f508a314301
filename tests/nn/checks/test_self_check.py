"""The self-check of a conversion, for models in half precision whose rounding errors add up over many layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import ohmformer as of
from ohmformer.nn.checks import self_check
from ohmformer.nn.checks.comparing import difference, rounding_effect, tolerance

TOKENS = torch.randint(0, 64, (1, 8), generator=torch.Generator().manual_seed(0))
SAMPLE = {"input_ids": TOKENS}


def deep_model(dtype: torch.dtype) -> Any:
    """A model of 32 layers with large weights, in which errors of rounding grow."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, **heads, initializer_range=0.3, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def test_a_deep_model_in_half_precision_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = deep_model(torch.bfloat16), list[float]()

    def noted(expected: Any, output: Any) -> float:
        seen.append(difference(expected, output))
        return seen[-1]

    monkeypatch.setattr(self_check, "difference", noted)
    of.convert(model, of.load("clipformer_tcad_2024_per_value"), sample=SAMPLE, level="noise")
    assert seen[0] > tolerance(model)  # more than four rounding steps, which is all that a single layer may differ by


def test_its_mistakes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep_model(torch.bfloat16)
    original = self_check.call

    def call(each: Any, sample: Any) -> Any:
        output = original(each, sample)
        if hasattr(each, "ohmformer_crossbars"):
            output.logits = output.logits * 1.5
        return output

    monkeypatch.setattr(self_check, "call", call)
    with pytest.raises(of.BadInput, match=r"differs from the original by 0\.5"):
        of.convert(model, of.load("clipformer_tcad_2024_per_value"), sample=SAMPLE, level="noise")


@pytest.mark.parametrize(("dtype", "lowest", "highest"), [(torch.bfloat16, 0.03, 0.3), (torch.float32, 0.0, 0.0)])
def test_rounding_changes_models_in_half_precision_alone(dtype: torch.dtype, lowest: float, highest: float) -> None:
    model = deep_model(dtype)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        expected: Tensor = model(**SAMPLE)
        effect = rounding_effect(model, SAMPLE, expected, names)
        assert lowest <= effect <= highest
        assert effect == rounding_effect(model, SAMPLE, expected, names)  # the same signs in every call
        assert not difference(expected, model(**SAMPLE))  # no hook stays
