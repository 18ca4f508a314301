"""A model whose noise, writes and conversions are kernels gives what it gives in PyTorch, with the same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.array.kernels import converted_sum
from ohmformer.array.kernels.writes import folded_write
from ohmformer.streams import backends
from tests.gpu.kernels import KERNEL_DEVICE, needs_triton
from tests.nn.models import Decoder, vit

IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1)).to(KERNEL_DEVICE)
TOKENS = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(1)).to(KERNEL_DEVICE)
NOISY = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)


def outputs(monkeypatch: pytest.MonkeyPatch, backend: str, model: nn.Module, x: Tensor, **options: Any) -> Tensor:
    monkeypatch.setattr(backends, "backend_of", lambda *_: backend)
    model = of.convert(model.to(KERNEL_DEVICE).eval(), sample=x, **options)
    with torch.no_grad(), of.samples(range(len(x))):
        y: Tensor = model(x)
    return y


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    ("model", "x", "level", "hardware", "used"),
    [
        (vit, IMAGES, "noise", NOISY, [folded_write]),
        pytest.param(Decoder, TOKENS, "noise", NOISY, [folded_write], marks=pytest.mark.slow),
        (vit, IMAGES, "array", of.load("generic_amplitude"), [converted_sum]),
    ],
    ids=["noise", "tokens", "converters"],
)
def test_kernels_give_what_pytorch_gives(
    monkeypatch: pytest.MonkeyPatch, model: Any, x: Tensor, level: Any, hardware: of.Accelerator, used: list[Any]
) -> None:
    plain = outputs(monkeypatch, "philox", model(), x, hardware=hardware, level=level)
    calls = []
    for module in used:
        name = "written" if module is folded_write else "converted_product"
        fused = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, fused=fused, **k: (calls.append(1), fused(*a, **k))[1])
    found = outputs(monkeypatch, "philox_kernel", model(), x, hardware=hardware, level=level)
    assert calls, "the kernel was not used"
    # A sum in another order may move a value across the border of a code.
    assert torch.allclose(found, plain, atol=0.02 * float(plain.abs().max()))
