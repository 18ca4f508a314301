"""Weights that are given up once cells hold them: same bits, less memory, and one line for all that needs them."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer.capture.torch_private import plain
from ohmformer.nn.operands.weight import WeightOperand
from tests.nn.models import Encoder, vit

PER_CELL, CONVERTED = of.load("clipformer_tcad_2024"), of.load("generic_amplitude")
IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def both(build: Callable[[], nn.Module], sample: Any, hardware: of.Accelerator, **options: Any) -> tuple[Any, Any]:
    """The same model, with its weights kept and given up."""
    kept, given_up = (
        of.convert(build(), hardware, sample=sample, keep_original=keep, **options) for keep in (True, False)
    )
    return kept, given_up


def output(model: Any, sample: Any) -> Tensor:
    with torch.no_grad(), of.samples(range(2)):
        found: Tensor = model(sample)
    return found


def without_values(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.is_meta]


@pytest.mark.parametrize(("hardware", "level"), [(PER_CELL, "noise"), (CONVERTED, "array")])
@pytest.mark.parametrize(
    "options", [{}, {"weights": of.WeightMitigation(rotate=True, scaling=0.5)}, {"seed": 3, "chip": 2}]
)
def test_the_bits_stay(hardware: of.Accelerator, level: of.Level, options: dict[str, Any]) -> None:
    kept, given_up = both(vit, IMAGES, hardware, level=level, **options)
    assert torch.equal(output(kept, IMAGES), output(given_up, IMAGES))
    assert torch.equal(
        output(kept, IMAGES[:1].expand(2, -1, -1, -1)), output(given_up, IMAGES[:1].expand(2, -1, -1, -1))
    )
    assert without_values(given_up)
    assert not without_values(kept)


def test_the_original_loses_the_same_weights_and_nothing_else() -> None:
    model = vit()
    given_up = of.convert(model, PER_CELL, sample=IMAGES, level="noise", keep_original=False)
    lost = without_values(given_up)
    assert lost == without_values(model)
    assert lost == [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def test_gradients_still_reach_the_inputs() -> None:
    kept, given_up = both(vit, IMAGES, PER_CELL, level="noise")
    gradients = []
    for model in (kept.requires_grad_(False), given_up.requires_grad_(False)):
        x = IMAGES.clone().requires_grad_()
        with of.samples(range(2)):
            model(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_weights_are_held_once() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(4)))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers(x)
            return y

    def held(model: nn.Module) -> int:
        """Bytes of the large tensors that are alive."""
        gc.collect()
        tensors = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and plain(each)]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(size for size in storages.values() if size == 4 * 512 * 512)

    model, x = Wide(), torch.randn(2, 512)
    before = held(model)
    converted = of.convert(model, PER_CELL, sample=x, level="noise", keep_original=False)
    output(converted, x)
    assert held(converted) == before


class Tied(nn.Module):
    """A head that shares its weight with the embedding, and a layer that is used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.body = nn.Embedding(30, 16), nn.Linear(16, 16)
        self.twin, self.head = nn.Linear(16, 16), nn.Linear(16, 30, bias=False)
        self.head.weight, self.twin.weight = self.embedding.weight, self.body.weight

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(self.twin(torch.tanh(self.body(self.embedding(tokens)))))
        return y


def test_tied_weights_stay_if_an_embedding_reads_them() -> None:
    tokens = torch.randint(0, 30, (2, 5), generator=torch.Generator().manual_seed(0))
    kept, given_up = both(Tied, tokens, PER_CELL, level="noise")
    assert torch.equal(output(kept, tokens), output(given_up, tokens))
    assert without_values(given_up) == ["body.weight"]
    assert given_up.twin.weight is given_up.body.weight


def test_weights_that_are_parts_of_a_parameter_stay() -> None:
    sample = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(2))

    def model() -> nn.Module:
        torch.manual_seed(4)
        return Encoder().eval()

    kept, given_up = both(model, sample, PER_CELL, level="noise")
    assert torch.equal(output(kept, sample), output(given_up, sample))
    assert without_values(given_up)
    assert not any("in_proj" in name for name in without_values(given_up))


def test_rules_keep_weights() -> None:
    given_up = of.convert(vit(), PER_CELL, sample=IMAGES, level="noise", rules={"head": None}, keep_original=False)
    assert "head.weight" not in without_values(given_up)


def analog_output(model: Any, _: Path) -> object:
    with of.without_quantizers(model):
        return output(model, IMAGES)


def training_step(model: Any, _: Path) -> object:
    with of.variation(model.train()), of.samples(range(2)):
        return model(IMAGES)


def plain_training_step(model: Any, _: Path) -> object:
    with of.samples(range(2)):
        return model.train()(IMAGES).sum().backward()


def one_layer_trains(model: Any, _: Path) -> object:
    model.blocks[1].train()
    with of.samples(range(2)):
        return model(IMAGES)


def another_weight(model: Any, _: Path) -> object:
    model.head.weight = nn.Parameter(torch.zeros_like(model.head.weight, device="cpu"))
    return output(model, IMAGES)


NEEDS: dict[str, Callable[[Any, Path], object]] = {
    "another chip": lambda model, _: [of.set_chip(model, 1), output(model, IMAGES)],
    "another seed": lambda model, _: [of.set_chip(model, 0, seed=1), output(model, IMAGES)],
    "chips": lambda model, _: of.monte_carlo(model, lambda m: output(m, IMAGES).mean(), chips=2, progress=False),
    "ranges": lambda model, _: of.calibrate_ranges(model, IMAGES),
    "calibration": lambda model, _: of.calibrate(model, IMAGES),
    "mitigation": lambda model, _: of.set_weights(model, of.WeightMitigation(scaling=0.5)),
    "analog values": analog_output,
    "the way back": lambda model, _: of.revert(model),
    "a part of the way back": lambda model, _: of.revert(model.blocks[0]),
    "a file": lambda model, folder: of.save(model, folder / "model.safetensors"),
    "other weights": lambda model, _: model.load_state_dict(vit().state_dict(), strict=False),
    "other weights of a part": lambda model, _: model.blocks[0].load_state_dict(vit().blocks[0].state_dict()),
    "another parameter": another_weight,
    "a state dictionary": lambda model, folder: torch.save(model.state_dict(), folder / "model.pt"),
    "that of a part": lambda model, _: model.blocks[0].state_dict(),
    "that of a model around it": lambda model, _: nn.Sequential(model).state_dict(),
    "training under variation": training_step,
    "training": plain_training_step,
    "training of a part": one_layer_trains,
}


def original_with_lost_weights() -> nn.Module:
    model = vit()
    of.convert(model, PER_CELL, sample=IMAGES, level="noise", keep_original=False)
    return model


NEEDS_OF_THE_ORIGINAL: dict[str, Callable[[Any], object]] = {
    "a call": lambda model: model(IMAGES),
    "a call of a part": lambda model: model.blocks[0](torch.randn(2, 3, 16)),
    "training": lambda model: model.train()(IMAGES),
    "a state dictionary": lambda model: model.state_dict(),
    "that of a part": lambda model: model.blocks[0].state_dict(),
    "other weights": lambda model: model.load_state_dict(vit().state_dict()),
    "a trace": lambda model: of.trace(model, IMAGES),
    "a call of a copy": lambda model: pickle.loads(pickle.dumps(model))(IMAGES),
}


@pytest.mark.parametrize("what", NEEDS_OF_THE_ORIGINAL)
def test_the_original_is_refused_too(what: str) -> None:
    with pytest.raises(of.BadInput, match=r"given up \(keep_original=False\)") as error:
        NEEDS_OF_THE_ORIGINAL[what](original_with_lost_weights())
    assert "\n" not in str(error.value)


def test_an_original_that_lost_some_weights_before_an_interrupt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    release, model = WeightOperand.release, vit()

    def interrupted(operand: WeightOperand, w: Tensor) -> None:
        if operand.name == "head":
            raise KeyboardInterrupt
        release(operand, w)

    monkeypatch.setattr(WeightOperand, "release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.convert(model, PER_CELL, sample=IMAGES, level="noise", keep_original=False)
    assert without_values(model)
    with pytest.raises(of.BadInput, match="given up"):
        model(IMAGES)


def test_inputs_on_another_device_than_the_cells_are_refused(given_up: Any) -> None:
    model = copy.deepcopy(given_up)
    cells = model.head.ohmformer_weight.cells
    cells.cells = replace(cells.cells, unit=cells.cells.unit.to("meta"))  # stands for a GPU
    with pytest.raises(
        of.BadInput, match=r"^head: gets inputs on cpu, but its .* cells hold them on meta; move"
    ) as error:
        output(model, IMAGES)
    assert "\n" not in str(error.value)


def test_parts_without_lost_weights_can_be_saved_and_loaded(given_up: Any) -> None:
    model = copy.deepcopy(given_up)
    weights = {name: 2 * t for name, t in model.patch_embed.state_dict().items()}
    model.patch_embed.load_state_dict(weights)
    assert torch.equal(model.patch_embed.weight, weights["weight"])


def test_calls_in_train_mode_without_gradients_and_in_eval_mode_with_them(given_up: Any) -> None:
    model, expected = copy.deepcopy(given_up), output(given_up, IMAGES)
    with of.samples(range(2)):
        assert torch.equal(model(IMAGES).detach(), expected)
    assert torch.equal(output(model.train(), IMAGES), expected)
    with torch.inference_mode(), of.samples(range(2)):
        assert torch.equal(model(IMAGES), expected)


def test_other_parameters_train_once_the_lost_ones_are_frozen(given_up: Any) -> None:
    gradients = []
    for model in (of.convert(vit(), PER_CELL, sample=IMAGES, level="noise"), copy.deepcopy(given_up)):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.requires_grad_(False)
        with of.samples(range(2)):
            model.train()(IMAGES).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() >= {"pos_embed", "blocks.0.norm1.weight"}
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_weights_that_were_frozen_before_stay_so() -> None:
    model = vit().requires_grad_(False)
    given_up = of.convert(model, PER_CELL, sample=IMAGES, level="noise", keep_original=False)
    with of.samples(range(2)):
        assert torch.equal(given_up.train()(IMAGES), output(given_up, IMAGES))


def test_gradients_in_eval_mode_warn_of_what_they_leave_out(given_up: Any) -> None:
    model = copy.deepcopy(given_up)
    with of.samples(range(2)), pytest.warns(of.GradientsLeftOut, match=r"not those that were given up .* freeze them"):
        model(IMAGES).sum().backward()
    assert model.pos_embed.grad is not None


@pytest.mark.parametrize("move", [lambda m: m.to("cpu"), lambda m: m.float(), lambda m: m.share_memory()])
def test_moves_to_the_same_place_change_nothing(move: Callable[[Any], Any], given_up: Any) -> None:
    model = copy.deepcopy(given_up)
    assert torch.equal(output(move(model), IMAGES), output(given_up, IMAGES))
    assert list(model.head._parameters) == ["weight", "bias"]


def test_pickles_keep_the_cells(given_up: Any, tmp_path: Path) -> None:
    torch.save(given_up, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(output(again, IMAGES), output(given_up, IMAGES))
    with pytest.raises(of.BadInput, match="given up"):
        again.state_dict()


@pytest.fixture(scope="module")
def given_up() -> Any:
    return of.convert(vit(), PER_CELL, sample=IMAGES, level="noise", keep_original=False)


@pytest.mark.parametrize("what", NEEDS)
def test_what_needs_the_weights_is_refused_in_one_line(what: str, given_up: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(given_up)
    with pytest.raises(of.BadInput, match=r"given up \(keep_original=False\)") as error:
        NEEDS[what](model, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_chip_that_is_held_still_computes_after_a_refusal(given_up: Any) -> None:
    before = output(given_up, IMAGES)
    with pytest.raises(of.BadInput):
        of.calibrate_ranges(given_up, IMAGES)
    of.set_chip(given_up, 5)
    with pytest.raises(of.BadInput):
        output(given_up, IMAGES)
    of.set_chip(given_up, 0)
    assert torch.equal(output(given_up, IMAGES), before)


def test_an_empty_batch_still_gives_an_empty_result() -> None:
    model = nn.Sequential(nn.Linear(16, 4)).eval()
    given_up = of.convert(model, PER_CELL, sample=torch.randn(2, 16), level="noise", keep_original=False)
    assert given_up(torch.empty(0, 16)).shape == (0, 4)


def test_a_model_that_reads_a_weight_itself_is_refused() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = F.normalize(self.layer(x), dim=-1) * self.layer.weight.norm()
            return y

    with pytest.raises(of.BadInput, match=r"reads weights outside of its linear layers") as error:
        of.convert(Reads(), PER_CELL, sample=torch.randn(2, 16), level="noise", keep_original=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 0, "no"])
def test_keep_original_is_true_or_false(value: Any) -> None:
    with pytest.raises(of.BadInput, match="keep_original"):
        of.convert(vit(), PER_CELL, sample=IMAGES, keep_original=value)
