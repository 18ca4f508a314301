"""The choice of kernels: refused without numba, kept by copies and files, and the same noise for any batch."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.convert.spec import ConvertConfig
from ohmformer.streams import compiling
from tests.gpu.kernels import needs_numba
from tests.nn.models import Decoder, vit

IMAGES = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(1))
NOISY = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)


def outputs(model: nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        y: Tensor = model(IMAGES[ids])
    return y


def test_without_numba_compiled_kernels_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "has_numba", lambda: False)
    line = r"convert: kernels = 'compiled': needs numba, .* pip install \"ohmformer\[fast\]\", or take 'torch'$"
    with pytest.raises(of.BadInput, match=line):
        of.convert(vit(), NOISY, sample=IMAGES, kernels="compiled")
    config = ConvertConfig(hardware=NOISY, kernels="compiled")
    with pytest.raises(of.BadInput, match=line):
        of.convert(vit(), config, sample=IMAGES)


@pytest.mark.parametrize("kernels", ["numba", 3])
def test_other_kernels_are_refused(kernels: object) -> None:
    with pytest.raises(of.BadInput, match=r"^convert: kernels = .*torch"):
        of.convert(vit(), NOISY, sample=IMAGES, kernels=kernels)  # type: ignore[arg-type]


def test_kernels_beside_a_configuration_are_refused() -> None:
    with pytest.raises(of.BadInput, match=r"kernels given beside a configuration"):
        of.convert(vit(), ConvertConfig(hardware=NOISY), sample=IMAGES, kernels="torch")


@needs_numba
@pytest.mark.parametrize("hardware", ["clipformer_tcad_2024", "generic_amplitude"])
def test_samples_draw_the_same_noise_in_any_batch_and_order(hardware: str) -> None:
    model = of.convert(vit(), of.load(hardware), sample=IMAGES, kernels="compiled")
    whole, other = outputs(model, [0, 1, 2]), outputs(model, [2, 0])
    # Products of another shape are summed in another order.
    assert torch.allclose(other, whole[[2, 0]], atol=1e-3 * float(whole.abs().max()))
    again = of.convert(vit(), of.load(hardware), sample=IMAGES, kernels="compiled")
    assert torch.equal(outputs(again, [0, 1, 2]), whole)
    torch_model = of.convert(vit(), of.load(hardware), sample=IMAGES)
    assert not torch.allclose(outputs(torch_model, [0, 1, 2]), whole, atol=0.01 * float(whole.abs().max()))


@needs_numba
def test_copies_files_and_chips_keep_the_choice(tmp_path: Path) -> None:
    model = of.convert(vit(), NOISY, sample=IMAGES, kernels="compiled")
    whole = outputs(model, [0, 1])
    assert torch.equal(outputs(copy.deepcopy(model), [0, 1]), whole)
    of.save(model, tmp_path / "model.safetensors")
    restored = of.restore(vit(seed=9), tmp_path / "model.safetensors")
    assert crossbars(restored).state.kernels == "compiled"
    assert torch.equal(outputs(restored, [0, 1]), whole)
    plain = of.restore(vit(seed=9), tmp_path / "model.safetensors", kernels="torch")
    assert crossbars(plain).state.kernels == "torch"
    digital = of.revert(model)
    assert torch.equal(digital(IMAGES), vit()(IMAGES))
    stats = of.monte_carlo(model, lambda m: outputs(m, [0, 1])[:, 0].double().numpy(), chips=2, progress=False)
    assert stats.scores is not None
    assert stats.scores[0, 0] == pytest.approx(float(whole[0, 0]))
    assert stats.scores[1, 0] != stats.scores[0, 0]


@needs_numba
def test_training_draws_by_compiled_kernels_too() -> None:
    losses = []
    for kernels in ("torch", "compiled", "compiled"):
        model = of.convert(vit(), NOISY, sample=IMAGES, kernels=kernels).train()  # type: ignore[arg-type]
        with of.variation(model), of.samples(range(3)):
            loss = model(IMAGES).square().mean()
            loss.backward()
        losses.append(float(loss.detach()))
    assert losses[1] == losses[2] != losses[0]


@needs_numba
@pytest.mark.parametrize("hardware", ["clipformer_tcad_2024", "generic_amplitude"])
def test_tokens_draw_the_same_noise_however_many_follow(hardware: str) -> None:
    tokens = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(1))
    model = of.convert(Decoder().eval(), of.load(hardware), sample=tokens, kernels="compiled")
    with torch.no_grad(), of.samples(range(2)):
        whole, begin = model(tokens), model(tokens[:, :4])
    # Products of another shape are summed in another order.
    assert torch.allclose(begin, whole[:, :4], atol=1e-3 * float(whole.abs().max()))


@needs_numba
def test_values_that_are_no_numbers_are_refused_in_the_same_words() -> None:
    messages = []
    for kernels in ("torch", "compiled"):
        model = of.convert(vit(), NOISY, sample=IMAGES, kernels=kernels)  # type: ignore[arg-type]
        with pytest.raises(of.BadInput) as caught, of.samples(range(3)):
            model(IMAGES * torch.nan)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
