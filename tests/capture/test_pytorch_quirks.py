"""Tests of `ohmformer.capture.pytorch_quirks`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.capture.pytorch_quirks import unchanged_buffers, unchanged_structure


class Changing(nn.Module):
    """Exchanges its layer, and changes its attributes and configuration, when it meets fewer than four tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.config = SimpleNamespace(kind="sparse")
        self.kind = "sparse"

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < 4:
            self.layer = nn.Linear(8, 8)
            self.kind = self.config.kind = "full"
            self.more = nn.Identity()
        return self.layer(x)


def test_a_model_that_changes_itself_is_as_before() -> None:
    model = Changing()
    layer = model.layer
    with unchanged_structure(model):
        model(torch.ones(1, 2, 8))
        assert model.kind == "full"
    assert model.layer is layer
    assert (model.kind, model.config.kind) == ("sparse", "sparse")
    assert [name for name, _ in model.named_children()] == ["layer"]


def test_a_buffer_that_a_call_resizes_is_as_before() -> None:
    """Observers of quantization-aware training size their buffers in the first call."""
    model = nn.Linear(2, 2)
    model.register_buffer("least", torch.zeros(0))
    model.register_buffer("most", torch.arange(3.0))
    least, most = model.least, model.most
    with unchanged_buffers(model):
        model.least.resize_(4).fill_(1)
        model.most.resize_(1).fill_(7)
    assert (model.least, model.most) == (least, most)
    assert least.shape == (0,)
    assert most.tolist() == [0, 1, 2]


def test_an_error_inside_changes_nothing_either() -> None:
    model = Changing()
    try:
        with unchanged_structure(model):
            model(torch.ones(1, 2, 8))
            raise RuntimeError
    except RuntimeError:
        pass
    assert model.kind == "sparse"


def test_a_conversion_tries_inputs_that_leave_no_trace() -> None:
    """BigBird takes another attention, for good, when its text is short, as the steps with a cache are."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BigBirdConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        block_size=4, num_random_blocks=1, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BigBirdModel(config).eval()
    tokens = torch.randint(2, 100, (2, 44))
    of.convert(model, of.load("clipformer_tcad_2024"), sample={"input_ids": tokens}, level="noise")
    assert model.attention_type == model.config.attention_type == "block_sparse"
    assert type(model.encoder.layer[0].attention.self).__name__ == "BigBirdBlockSparseAttention"
