"""The noise of a sample is the same alone, in a batch, beside padding and with a cache; what differs is told."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from tests.nn.hub import library
from tests.nn.same_noise import HARDWARE, LARGEST, comparisons, differences
from tests.nn.zoo import (
    ENDS,
    FAMILIES,
    GROUPED,
    SEQUENCES,
    T5,
    WORDS,
    Family,
    _hugging_face,
    _pairs,
    _tokens,
    sharpened,
)


def text_family(name: str, model: str, options: dict[str, Any], *, pairs: bool = False) -> Family:
    """A family that is not in the table of models."""
    config = re.sub("(ForCausalLM|ForConditionalGeneration|Model)$", "Config", model)
    return Family(name, "transformers", _hugging_face(model, config, **options), _pairs if pairs else _tokens)


MORE = {
    family.name: family
    for family in (
        text_family("Doge", "DogeForCausalLM", {**GROUPED, **ENDS, "keep_window_size": 4}),
        text_family(
            "GPT-Neo",
            "GPTNeoForCausalLM",
            {"vocab_size": 100, "hidden_size": 32, "num_layers": 2}
            | {"num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
        ),
        text_family(
            "Pegasus-X",
            "PegasusXForConditionalGeneration",
            {**SEQUENCES, "block_size": 4, "num_global_tokens": 3},
            pairs=True,
        ),
        text_family(
            "LongT5, local",
            "LongT5ForConditionalGeneration",
            {**T5, "local_radius": 3, "encoder_attention_type": "local"},
            pairs=True,
        ),
        text_family("RoFormer", "RoFormerModel", WORDS),
        text_family("BigBird, full", "BigBirdModel", {**WORDS, "attention_type": "original_full"}),
    )
}
TRIED: dict[str, Family] = {**FAMILIES, **MORE}
READS = of.replace(HARDWARE, "projection.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
READS = of.replace(READS, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
TOLD = {
    "transformers: Longformer": {"right"},
    "transformers: LED": {"right"},
    "transformers: LongT5, transient global": {"right"},
    "LongT5, local": {"left", "right"},
    "Pegasus-X": {"right"},
    "RoFormer": {"left"},
}
"""Local attention is cut into blocks where the padded text begins, so a token is written in other company; RoFormer
rotates K by places that count padding. Their conversions warn."""
TOLD_OF_READS = {
    *(f"transformers: {name}" for name in ("DeBERTa", "XLNet", "Mamba", "Falcon Mamba", "Mamba 2", "RecurrentGemma")),
    "Doge",
}
"""Inputs of products that are not the tokens of the call: distances, windows of tokens, masks made from values."""
UNSEEN = {
    "transformers: T5Gemma": {"decoder_left"},
    "transformers: Moonshine": {"decoder_left"},
}
"""K is rotated by places that count padding of a decoder, unless a call gives its positions: other values are written.
docs/models.md says so."""


def converted(
    name: str, hardware: of.Accelerator = HARDWARE, level: of.Level = "noise"
) -> tuple[nn.Module, nn.Module, set[str]]:
    """A tiny model, the same on crossbars, and what its conversion warned of."""
    family = TRIED[name]
    library(family.source)
    torch.manual_seed(0)
    model = sharpened(family.make())
    torch.manual_seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = of.convert(model, hardware, sample=family.sample(3), level=level, rules=family.rules)
    return model, found, {warning.category.__name__ for warning in caught}


def check(name: str) -> None:
    model, found, told = converted(name)
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured = differences(model, found, TRIED[name].sample(3))
    numbers = {how: value for how, value in measured.items() if isinstance(value, float)}
    large = {how for how, value in numbers.items() if value > LARGEST}
    assert large <= TOLD.get(name, set()) | UNSEEN.get(name, set()), numbers
    assert not TOLD.get(name) or "UnstableNoise" in told
    if name not in TOLD and "RecurrentGemma" not in name:
        assert "UnstableNoise" not in told


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_noise_depends_on_the_sample_alone_or_the_conversion_says_so(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_read_noise_that_is_not_that_of_tokens_is_told(name: str) -> None:
    told, refusal = set(), ""
    try:
        _, _, told = converted(name, READS, level="array")
    except of.BadInput as error:
        refusal = str(error)
    routed = "do not show which rows belong to which sample" in refusal  # the inputs of an expert come from any sample
    assert not refusal or routed
    assert routed or ("UnstableNoise" in told) == (name in TOLD_OF_READS or name in TOLD)


@pytest.mark.parametrize("name", ["transformers: DeBERTa", "transformers: XLNet", "Doge"])
@pytest.mark.slow
def test_relative_positions_and_masks_of_values_keep_the_noise_of_a_token(name: str) -> None:
    """Codes of distances that no token uses, and keys that a mask hides, shift no number of another."""
    check(name)


class Blocks(nn.Module):
    """Attention within blocks of four places, wherever the text begins in them: padding in front moves the cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Embedding(20, 8), nn.Linear(8, 24)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Means over the tokens of each text."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        B, N = input_ids.shape
        q, k, v = self.qkv(self.embed(input_ids)).split(8, dim=-1)
        hidden = mask.new_zeros(B, 1, N, dtype=q.dtype).masked_fill(mask[:, None] == 0, -1e9)
        return ((q @ k.flip(1).transpose(1, 2) + hidden.flip(-1)).softmax(dim=-1) @ v.flip(1)) * mask[..., None]


def test_a_model_that_writes_padding_first_is_told() -> None:
    """Its keys are reversed, so tokens are written from the last to the first: an order of its own, but always one."""
    torch.manual_seed(0)
    model = Blocks().eval()
    sample = {"input_ids": torch.randint(0, 20, (3, 12))}
    with warnings.catch_warnings():
        warnings.simplefilter("error", of.UnstableNoise)
        of.convert(model, HARDWARE, sample=sample, level="noise")


class MaskAfterSoftmax(nn.Module):
    """Attention that hides padding behind its softmax, so that no mask shows which keys are tokens."""

    def __init__(self, *, followed: bool) -> None:
        super().__init__()
        self.embed, self.qkv, self.followed = nn.Embedding(20, 8), nn.Linear(8, 24), followed

    def forward(self, ids: Tensor | None = None, attention_mask: Any = None, inputs_embeds: Any = None) -> Tensor:
        """Features [B, N, 8]."""
        q, k, v = self.qkv(self.embed(ids) if inputs_embeds is None else inputs_embeds).split(8, dim=-1)
        seen, scores = attention_mask[:, None].bool(), q @ k.transpose(1, 2)
        if self.followed:
            return scores.masked_fill(~seen, -1e9).softmax(dim=-1) @ v
        p = scores.softmax(dim=-1) * seen
        return (p / p.sum(dim=-1, keepdim=True)) @ v


@pytest.mark.parametrize("name", ["ids", "inputs_embeds"])
@pytest.mark.parametrize("followed", [True, False])
def test_padding_of_the_sample_is_compared_whatever_holds_the_tokens(name: str, followed: bool) -> None:
    """Padding cannot be added to arguments of unknown meaning, but that of the sample can be taken away."""
    torch.manual_seed(0)
    model, ids = MaskAfterSoftmax(followed=followed).eval(), torch.randint(1, 20, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 6:], mask[1, :2] = 0, 0
    sample = {name: ids if name == "ids" else model.embed(ids).detach(), "attention_mask": mask}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        of.convert(model, HARDWARE, sample=sample, level="noise")
    told = [str(each.message) for each in caught if each.category is of.UnstableNoise]
    assert [("with padding" in message) for message in told] == ([] if followed else [True])


def test_a_decoder_that_convolves_by_hand_in_steps_is_told() -> None:
    _, _, told = converted("transformers: RecurrentGemma")
    assert "UnstableNoise" in told


def test_exact_cells_are_not_checked() -> None:
    family: Any = TRIED["LongT5, local"]
    library(family.source)
    exact = of.replace(HARDWARE, "attention.array.cell.write_noise", {"kind": "none"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", of.UnstableNoise)
        of.convert(sharpened(family.make()), exact, sample=family.sample(3), level="noise")


def test_every_family_of_texts_is_compared() -> None:
    sample = TRIED["Doge"].sample(2)
    model = sharpened(TRIED["Doge"].make())
    assert {"left", "right", "cached", "cropped", "in a batch", "permuted"} == set(comparisons(sample, model))


class CausalConvolution(nn.Module):
    """A convolution padded on both sides, of which the first outputs count, before attention to earlier tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(20, 8), nn.Conv1d(8, 8, 3, padding=2)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features [B, N, 8]."""
        N, tokens = input_ids.shape[1], torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.conv((self.embed(input_ids) * tokens[..., None]).transpose(1, 2))[..., :N].transpose(1, 2)
        q, k, v = self.qkv(x)[:, None].split(8, dim=-1)
        seen = torch.ones(N, N, dtype=torch.bool).tril() & tokens[:, None, None].bool()
        mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)[:, 0])


def test_read_noise_of_weights_that_depends_on_padding_is_told_with_a_remedy_that_works() -> None:
    """The convolution has more outputs than the text has tokens, so their read noise cannot be that of tokens."""
    torch.manual_seed(0)
    model = CausalConvolution().eval()
    sample = {"input_ids": torch.randint(1, 20, (3, 12))}
    with pytest.warns(of.UnstableNoise, match=r"rules=\{'conv': None\}"):
        of.convert(model, READS, sample=sample)
    with warnings.catch_warnings():
        warnings.simplefilter("error", of.UnstableNoise)
        of.convert(model, READS, sample=sample, rules={"conv": None})
        of.convert(model, HARDWARE, sample=sample)


def test_noise_of_converters_that_depends_on_padding_is_told() -> None:
    """Also where converters round, so that the noise is compared without their rounding."""
    torch.manual_seed(0)
    sample = {"input_ids": torch.randint(1, 20, (3, 12))}
    for adc in ({"bits": 8}, {"bits": 8, "range": {"kind": "calibrated"}}):
        hardware = of.replace(of.replace(HARDWARE, "array.adc", adc), "array.peripherals", {"output_noise": 0.01})
        with pytest.warns(of.UnstableNoise, match=r"rules=\{'conv': None\}"):
            of.convert(CausalConvolution().eval(), hardware, sample=sample)
        with warnings.catch_warnings():
            warnings.simplefilter("error", of.UnstableNoise)
            of.convert(CausalConvolution().eval(), hardware, sample=sample, rules={"conv": None})
