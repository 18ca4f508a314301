"""Rows that are named by their number: the same noise in any batches, also along a KV cache and behind an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer.errors import BadInput
from tests.tasks import tiny

pytest.importorskip("transformers")


def noisy(model: torch.nn.Module, sample: dict[str, Tensor]) -> torch.nn.Module:
    return of.convert(model, of.load("clipformer_tcad_2024"), sample=sample)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = of.load_model(f"hf:{tiny.llama(tmp_path_factory.mktemp('llama'))}", head="causal-lm")
    return noisy(model, {"input_ids": words(2)})


def words(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 20, (rows, 8), generator=torch.Generator().manual_seed(seed))


def logits(model: Any, *batches: Tensor) -> Tensor:
    with torch.inference_mode(), of.numbered_samples():
        return torch.cat([model(input_ids=batch).logits for batch in batches])


def test_noise_is_that_of_named_samples_in_any_batches(llama: Any) -> None:
    ids = words(5)
    with torch.inference_mode(), of.samples(range(5)):
        named = llama(input_ids=ids).logits
    for sizes in ([5], [2, 3], [1, 1, 1, 1, 1]):
        assert torch.equal(logits(llama, *ids.split(sizes)), named)


def test_equal_rows_draw_different_noise(llama: Any) -> None:
    ids = words(1)
    first, second = logits(llama, ids, ids)
    assert not torch.equal(first, second)


def test_a_generated_text_keeps_its_number(llama: Any) -> None:
    ids, options = words(4), {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with of.samples(range(4)):
        named = llama.generate(ids, attention_mask=torch.ones_like(ids), **options)
    with of.numbered_samples():
        parts = [llama.generate(part, attention_mask=torch.ones_like(part), **options) for part in ids.split([1, 3])]
    assert torch.equal(torch.cat(parts), named)


def test_a_decoder_has_the_numbers_of_its_encoder() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=24, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    ids = words(3)
    converted = noisy(model, {"input_ids": ids, "decoder_input_ids": ids[:, :4]})
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with of.samples(range(3)):
        named = converted.generate(ids, **options)
    with of.numbered_samples():
        parts = [converted.generate(part, **options) for part in ids.split(1)]
    assert torch.equal(torch.cat(parts), named)


def test_names_of_a_block_inside_win(llama: Any) -> None:
    ids = words(2)
    with torch.inference_mode(), of.samples(["a", "b"]):
        named = llama(input_ids=ids).logits
    with torch.inference_mode(), of.numbered_samples(), of.samples(["a", "b"]):
        assert torch.equal(llama(input_ids=ids).logits, named)


def test_wrong_uses_are_one_line() -> None:
    with pytest.raises(BadInput, match="numbered_samples: start is"), of.numbered_samples("x"):  # type: ignore[arg-type]
        pass
    with of.samples([1]), pytest.raises(BadInput, match="inside a block of samples"), of.numbered_samples():
        pass
