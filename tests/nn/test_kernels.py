"""The choice of kernels: refused without numba, kept by copies and files, and the same noise for any batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.convert.spec import ConvertConfig
from ohmformer.nn.shared import compiled_loops
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
def test_a_file_whose_kernels_are_missing_is_named_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    of.save(of.convert(vit(), NOISY, sample=IMAGES, kernels="compiled"), file)
    monkeypatch.setattr(compiling, "has_numba", lambda: False)
    model = vit(seed=9)
    with pytest.raises(of.BadInput, match=r"model\.safetensors: kernels \(.*kernels=\) = 'compiled': needs numba"):
        of.restore(model, file)
    assert torch.equal(model(IMAGES), vit(seed=9)(IMAGES))
    assert crossbars(of.restore(model, file, kernels="torch")).state.kernels == "torch"


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


ADC = of.load("generic_amplitude")


def scores(batch: int, order: list[int]) -> Callable[[nn.Module], np.ndarray]:
    """An evaluation in batches of some size, in some order."""

    def evaluate(model: nn.Module) -> np.ndarray:
        found = np.zeros(len(order))
        for first in range(0, len(order), batch):
            ids = order[first : first + batch]
            found[ids] = outputs(model, ids)[:, 0].double().numpy()
        return found

    return evaluate


@needs_numba
@pytest.mark.parametrize("level", ["array", "cell"])
def test_chips_have_the_same_scores_in_any_batch_order_and_number_of_threads(level: of.Level) -> None:
    model = of.convert(vit(), ADC, sample=IMAGES, kernels="compiled", level=level)
    evaluations = scores(3, [0, 1, 2]), scores(2, [2, 0, 1]), scores(1, [1, 2, 0])
    whole, *others = (of.monte_carlo(model, each, chips=2, progress=False).scores for each in evaluations)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        others.append(of.monte_carlo(copy.deepcopy(model), evaluations[0], chips=2, progress=False).scores)
    finally:
        torch.set_num_threads(threads)
    assert whole is not None
    for other in others:
        # Products of another shape are summed in another order.
        np.testing.assert_allclose(other, whole, atol=1e-3 * np.abs(whole).max())


@needs_numba
@pytest.mark.parametrize("hardware", [NOISY, ADC])
def test_chips_are_distributed_as_those_of_pytorch(hardware: of.Accelerator) -> None:
    """Seeds are fixed; each of two comparisons rejects a true hypothesis with probability 1e-4."""
    models = [of.convert(vit(), hardware, sample=IMAGES, kernels=kernels) for kernels in ("torch", "compiled")]
    plain, compiled = (crossbars(model).operands for model in models)
    for mine, other in zip(compiled, plain, strict=True):  # each is calibrated on noise of its own
        mine.adc_range = other.adc_range
    found = [of.monte_carlo(model, scores(3, [0, 1, 2]), chips=60, seed=5, progress=False) for model in models]
    a, b = (np.asarray(each.scores)[:, 0] for each in found)
    assert stats.ks_2samp(a, b).pvalue > 1e-4
    assert a.std() > 0


@needs_numba
@pytest.mark.parametrize("hardware", [NOISY, ADC])
def test_other_types_and_autocast_draw_the_same_noise(hardware: of.Accelerator) -> None:
    exact = outputs(of.convert(vit(), hardware, sample=IMAGES, kernels="compiled"), [0, 1, 2])
    noise = float((exact - vit()(IMAGES).detach()).abs().max())
    # The bounds are a few roundings of each type, far less than the noise; other draws would differ by about as much.
    for dtype, rounding in ((torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.02)):
        model = of.convert(vit().to(dtype), hardware, sample=IMAGES.to(dtype), kernels="compiled")
        with torch.no_grad(), of.samples(range(3)):
            assert float((model(IMAGES.to(dtype)) - exact).abs().max()) < rounding < noise
    model = of.convert(vit(), hardware, sample=IMAGES, kernels="compiled")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float((outputs(model, [0, 1, 2]) - exact).abs().max()) < 0.02


@needs_numba
def test_threads_may_call_one_model() -> None:
    model = of.convert(vit(), ADC, sample=IMAGES, kernels="compiled")
    expected = outputs(model, [0, 1, 2])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: outputs(model, [0, 1, 2]), range(8)))
    assert all(torch.equal(each, expected) for each in found)


@needs_numba
def test_tensors_without_values_are_refused_in_one_line() -> None:
    model = of.convert(vit(), ADC, sample=IMAGES, kernels="compiled")
    for refused in (IMAGES.to("meta"), IMAGES):
        mode = FakeTensorMode(allow_non_fake_inputs=True) if not refused.is_meta else nullcontext()
        with pytest.raises(of.BadInput, match=r"no values") as caught, torch.no_grad(), mode:
            model(refused if refused.is_meta else torch.empty(IMAGES.shape))
        assert "\n" not in str(caught.value)


@needs_numba
def test_a_terminal_is_told_of_loops_that_are_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled_loops, "load_loops", lambda tell, _kernels: tell())
    compiled_loops.load_compiled_loops()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    compiled_loops.load_compiled_loops()
    assert "compiling loops for this CPU" in capsys.readouterr().err
    monkeypatch.setattr("multiprocessing.parent_process", object)
    compiled_loops.load_compiled_loops()
    assert capsys.readouterr().err == ""
