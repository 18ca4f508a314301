"""Where tokens prove that other rows change no noise, no noisy pass runs; where they differ, noise is compared."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.device.families import GaussianWriteNoise
from ohmformer.nn.checks import noise_check
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from tests.nn.same_noise import HARDWARE


class Encoder(nn.Module):
    """Attention without positions to the tokens of a sample, in an order that a subclass may choose."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def order(self, x: Tensor) -> Tensor:
        """The order [N] in which tokens x[B, N, 8] are written."""
        return torch.arange(x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Means [B, 8] over tokens."""
        q, k, v = self.qkv(x[:, self.order(x)])[:, None].split(8, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(dim=1))


class Sorting(Encoder):
    """The order follows from all samples of the batch; the result of a sample does not, since it is a mean."""

    def order(self, x: Tensor) -> Tensor:
        """The order of the sums over all samples."""
        return x.sum(dim=(0, 2)).argsort()


class Reversing(Encoder):
    """Samples are written in reverse order, so the numbers of the first one are those of the last."""

    def forward(self, x: Tensor) -> Tensor:
        """Means [B, 8] over tokens."""
        return super().forward(x.flip(0)).flip(0)


def converted(
    cls: type[Encoder], monkeypatch: pytest.MonkeyPatch, hardware: of.Accelerator = HARDWARE, B: int = 2, **options: Any
) -> tuple[list[str], int, nn.Module]:
    """The warnings of a conversion, its number of runs of `noise_check`, and the model."""  # fmt: skip
    torch.manual_seed(0)
    model, sample, runs = cls().eval(), torch.randn(B, 12, 8), []
    real = noise_check._result
    monkeypatch.setattr(noise_check, "_result", lambda *args: runs.append(args) or real(*args))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = of.convert(model, hardware, sample=sample, **options)
    told = [str(each.message) for each in caught if each.category is of.UnstableNoise]
    return told, len(runs), model


@pytest.mark.parametrize("B", [1, 2, 5])
def test_equal_tokens_need_no_noisy_pass(B: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told, runs, model = converted(Encoder, monkeypatch, B=B)
    assert not told
    assert not runs
    operands: Any = crossbars(model).operands
    assert all(not op.watched and op.watched_row is None for op in operands if hasattr(op, "watched"))


@pytest.mark.parametrize("level", ["noise", "array"])
def test_the_level_of_the_model_does_not_matter(level: of.Level, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters that round are simulated at level `array`, but the noise of writing is compared without them."""
    hardware = of.replace(of.load("clipformer_tcad_2024_adc6"), "attention.array.cell.write_noise.gamma", 3.0)
    told, runs, _ = converted(Encoder, monkeypatch, hardware, level=level)
    assert not told
    assert not runs


@pytest.mark.parametrize("cls", [Sorting, Reversing])
def test_other_tokens_in_a_batch_are_told(cls: type[Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that depends on other samples, or rows that change places, keep the exact result but not its noise."""
    told, runs, _ = converted(cls, monkeypatch)
    assert runs
    assert len(told) == 1
    assert "in a batch with others" in told[0]


class ThroughoutBatch(GaussianWriteNoise):
    """A kind of write noise from outside the package, whose spread follows from all cells that are written."""

    kind: ClassVar[str] = "throughout_batch"

    def write_std(self, g: Tensor, cell: Any) -> Tensor:
        """See `GaussianWriteNoise`."""
        return 0.05 * g.mean().expand_as(g).clone()


def test_a_kind_of_noise_from_outside_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deviation may depend on the other rows, although tokens are equal."""
    cell = HARDWARE.attention.key.array.cell.model_copy(update={"write_noise": ThroughoutBatch.model_construct()})
    array = HARDWARE.attention.key.array.model_copy(update={"cell": cell})
    engine = HARDWARE.attention.key.model_copy(update={"array": array})
    attention = HARDWARE.attention.model_copy(update={"key": engine, "value": engine})
    told, runs, _ = converted(Encoder, monkeypatch, HARDWARE.model_copy(update={"attention": attention}))
    assert runs
    assert told


@pytest.mark.parametrize("exact", ["attention.key.array", "attention.value.array", "attention.array"])
def test_a_conversion_leaves_no_observation_behind(exact: str) -> None:
    """Also where K or V has no noise, so that its tokens prove nothing."""
    hardware = of.replace(HARDWARE, f"{exact}.cell.write_noise", {"kind": "none"})
    model = of.convert(Encoder().eval(), hardware, sample=torch.randn(3, 4, 8), level="noise")
    held = [operand.watched for operand in crossbars(model).operands if isinstance(operand, KVOperand)]
    assert len(held) == 2
    assert not any(held)
