"""Variation-aware training: what a step draws, what stays as it was, and that it helps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ohmformer as of
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.variation import NoSteps
from tests.nn.models import Checkpointed, Decoder, vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


def converted(hardware: of.Accelerator = HARDWARE, **options: Any) -> nn.Module:
    return of.convert(vit(), hardware, sample=IMAGES, **{"level": "noise", **options}).train()


def with_field(path: str, value: object, hardware: of.Accelerator = HARDWARE) -> of.Accelerator:
    """The accelerator with a field of all its arrays changed."""
    return of.replace(of.replace(hardware, f"projection.array.{path}", value), f"attention.array.{path}", value)


def run(model: nn.Module, x: Tensor = IMAGES, ids: Any = None) -> Tensor:
    with torch.no_grad(), of.samples(range(len(x)) if ids is None else ids):
        y: Tensor = model(x)
    return y


def test_every_step_draws_anew_and_a_seed_draws_the_same_again() -> None:
    model = converted()
    with of.variation(model, seed=3):
        first = [run(model) for _ in range(3)]
    assert not any(torch.allclose(a, b) for a, b in pairwise(first))
    other = converted()
    run(other.eval())  # what was drawn before does not count
    with of.variation(other.train(), seed=3):
        assert all(torch.equal(run(other), y) for y in first)
    with of.variation(model, seed=4):
        assert not torch.allclose(run(model), first[0])


@pytest.mark.parametrize("operand", ["projection", "attention.key", "attention.value"])
def test_weights_keys_and_values_draw_each(operand: str) -> None:
    silent = with_field("cell.write_noise.sigma", 0.0)
    model = converted(of.replace(silent, f"{operand}.array.cell.write_noise.sigma", 0.2))
    with of.variation(model):
        assert not torch.allclose(run(model), run(model))
    model = converted(silent)
    with of.variation(model):
        assert torch.equal(run(model), run(model))


def test_reads_draw_anew_where_the_hardware_has_read_noise() -> None:
    hardware = with_field("cell.write_noise.sigma", 0.0)
    model = converted(with_field("cell.read_noise", {"kind": "proportional", "sigma": 0.05}, hardware), level="array")
    with of.variation(model):
        assert not torch.allclose(run(model), run(model))


@pytest.mark.parametrize("make", [vit, Decoder])
def test_a_sample_draws_the_same_in_any_batch(make: Callable[[], nn.Module]) -> None:
    x = IMAGES if make is vit else TOKENS
    model = of.convert(make().eval(), HARDWARE, sample=x, level="noise").train()
    with of.variation(model) as steps:
        together = run(model, x, ids=range(len(x)))
        steps.step = 0
        assert torch.allclose(run(model, x[[2, 1]], ids=[2, 1]), together[[2, 1]], atol=1e-5)
        steps.step = 0
        assert not torch.allclose(run(model, x[[2, 1]], ids=[0, 1])[0], together[2], atol=1e-5)


def test_rows_without_names_have_noise_of_their_own() -> None:
    model = converted()
    same = IMAGES[:1].expand(3, -1, -1, -1)
    with of.variation(model), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = model(same)
    assert not torch.allclose(y[0], y[1])


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
def test_parameters_stay_clean_and_what_follows_is_a_chip_of_them() -> None:
    model = converted()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    chip = run(model.eval())
    with of.variation(model.train()):
        model(IMAGES).square().mean().backward()
        assert torch.equal(run(model.eval()), chip)
        run(model.train())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(run(model), chip)
    assert torch.equal(run(model.eval()), chip)
    with torch.no_grad():
        model.head.weight.mul_(2.0)
    fresh = of.convert(of.revert(model), HARDWARE, sample=IMAGES, level="noise")
    assert torch.allclose(run(model), run(fresh), atol=1e-6)


def train(model: nn.Module, count: int, steps: Any, optimizer: torch.optim.Optimizer) -> Any:
    labels = torch.tensor([0, 1, 2, 3])
    for step in range(count):
        with of.samples(range(4 * step, 4 * step + 4)):
            loss = nn.functional.cross_entropy(model(IMAGES), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return steps.state_dict()


def test_a_resumed_training_goes_on_to_the_bit() -> None:
    whole, first = converted(), converted()
    options = {"seed": 5, "gamma": {"attention.key": (0, 5), "projection": 2}}
    with of.variation(whole, **options) as steps:
        train(whole, 2, steps, torch.optim.SGD(whole.parameters(), 0.1))
        train(whole, 2, steps, torch.optim.SGD(whole.parameters(), 0.1))
    with of.variation(first, **options) as steps:
        saved = train(first, 2, steps, torch.optim.SGD(first.parameters(), 0.1))
    second = converted()
    second.load_state_dict(first.state_dict())
    steps = of.variation(second, **options)
    steps.load_state_dict(json.loads(json.dumps(saved)))
    with steps:
        train(second, 2, steps, torch.optim.SGD(second.parameters(), 0.1))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert steps.step == 4


def gradients(reentrant: bool | None) -> list[Tensor]:
    """Of a step, of two that share a backward pass, and of one whose backward pass comes after the block."""
    model = of.convert(Checkpointed(reentrant).eval(), HARDWARE, sample=TOKENS, level="noise").train()
    found = []
    with of.variation(model, gamma=(1, 5)):
        model(TOKENS).square().mean().backward()
        found.append(gradient(model))
        (model(TOKENS).square().mean() + 2 * model(TOKENS[:2]).square().mean()).backward()
        found.append(gradient(model))
        loss = model(TOKENS).square().mean()
        run(model.eval(), TOKENS)
    loss.backward()
    return [*found, gradient(model)]


def gradient(model: nn.Module) -> Tensor:
    """Of all parameters, which are left without."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the self-check runs without gradients
@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_layers_see_the_noise_of_their_step(reentrant: bool) -> None:
    assert all(torch.equal(a, b) for a, b in zip(gradients(reentrant), gradients(None), strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_model_that_is_recomputed_as_a_whole_is_no_step_of_its_own(reentrant: bool) -> None:
    found = []
    for call in (lambda m, x: m(x), lambda m, x: checkpoint(m, x, use_reentrant=reentrant)):
        model = converted()
        with of.variation(model) as steps:
            with of.samples(["a", "b", "c", "d"]):
                loss = call(model, IMAGES.clone().requires_grad_()).square().mean()
            loss.backward()
        assert steps.step == 1
        found.append(gradient(model))
    assert torch.equal(*found)


def test_gamma_is_drawn_from_its_range_for_the_cells_it_speaks_of() -> None:
    model = converted()
    names = [operand.name for operand in crossbars(model).operands]
    steps = of.variation(model, gamma={"attention.key": (2, 4), "attention": 7}, seed=1)
    drawn = [steps.draw().cells for _ in range(200)]
    keys = torch.tensor([step["blocks.0.attn.K"].write_noise.gamma for step in drawn])
    assert 2 <= keys.min() < 2.1
    assert 3.9 < keys.max() <= 4
    assert abs(keys.mean() - 3) < 4 * (2 / 12**0.5) / 200**0.5  # alarm 6e-5
    assert all(step["blocks.1.attn.V"].write_noise.gamma == 7 for step in drawn)
    assert set(drawn[0]) == {name for name in names if name[-2:] in (".K", ".V")}
    assert steps.step == 200


def test_gamma_and_scale_set_the_noise_that_is_drawn() -> None:
    model = converted(rules={"head": None})
    exact = converted(with_field("cell.write_noise.sigma", 0.0), rules={"head": None})
    clean = run(exact.eval())
    with of.variation(model, gamma=0):
        assert torch.allclose(run(model), clean, atol=1e-5)
    errors = []
    for options in ({"scale": 0.5}, {}, {"scale": 2.0}):
        with of.variation(model, **options):
            errors.append(torch.stack([(run(model) - clean).square().mean() for _ in range(8)]).mean())
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("axis", ["K", "V"])
def test_gradients_of_keys_and_values_are_those_of_what_the_cells_hold(axis: str, saturated: bool) -> None:
    """They pass the quantizer straight through, also where codes saturate: no value stays without a gradient."""
    hardware = with_field("percentile", 60.0) if saturated else HARDWARE
    clip = of.KVClip(alpha=2.0, beta=0.25) if saturated else None
    model = converted(hardware, clip=clip, level="noise")
    operand = next(op for op in crossbars(model).operands if op.name == f"blocks.0.attn.{axis}")
    B, R, M, N, d = 2, 3, 5, 4, 8
    tokens = torch.randn(B, R, N, d, requires_grad=True)
    x = torch.rand(B, R, M, d if axis == "K" else N, requires_grad=True)
    held = []
    write = operand.write_tokens
    operand.write_tokens = lambda *args, **options: held.append(write(*args, **options)) or held[-1]
    with of.samples(range(B)):
        y = operand.product(x, tokens)
    grad = torch.randn_like(y)
    y.backward(grad)
    w = tokens.detach() if axis == "K" else tokens.detach().transpose(-2, -1)
    assert not torch.allclose(held[0].values, w, atol=0.01)
    expected = grad.transpose(-2, -1) @ x.detach()
    assert torch.allclose(x.grad, grad @ held[0].values, atol=1e-6)
    assert torch.allclose(tokens.grad, expected if axis == "K" else expected.transpose(-2, -1), atol=1e-6)


def test_an_exception_leaves_the_model_as_it_was() -> None:
    model = converted()
    before = run(model)
    with pytest.raises(of.BadInput, match="NaN or infinity"), of.variation(model):
        run(model, torch.full_like(IMAGES, torch.nan))
    assert torch.equal(run(model), before)
    with of.variation(model), pytest.raises(of.BadInput, match="NaN or infinity"):
        run(model, torch.full_like(IMAGES, torch.nan))
    assert torch.equal(run(model), before)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"gamma": -1}, "gamma = -1: must be a number"),
        ({"gamma": (3, 1)}, "low <= high"),
        ({"gamma": float("nan")}, "must be a number"),
        ({"gamma": True}, "must be a number"),
        ({"gamma": "3"}, "must be a number"),
        ({"gamma": {"attention.keys": 1}}, "'attention.keys' is not a role; did you mean 'attention.key'"),
        ({"scale": {"attention": (1, 2, 3)}}, r"scale\['attention'\] = \(1, 2, 3\)"),
        ({"gamma": 1, "scale": 1}, "give one of them"),
        ({"seed": 1.5}, "seed = 1.5: must be a whole number"),
    ],
)
def test_bad_input_gets_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(of.BadInput, match=line):
        of.variation(converted(), **options)


def test_misuse_gets_one_line() -> None:
    with pytest.raises(of.BadInput, match="not on crossbars"):
        of.variation(vit())
    model = converted()
    steps = of.variation(model)
    with steps:
        run(model)
        with pytest.raises(of.BadInput, match="in such a block already"), of.variation(model):
            pass
        with pytest.raises(of.BadInput, match="a part of the model"):
            model.blocks[0](torch.randn(1, 10, 24))
    with pytest.raises(of.BadInput, match="step = -1"):
        steps.step = -1
    with pytest.raises(of.BadInput, match="no 'seed'"):
        steps.load_state_dict({"step": 3})
    with pytest.raises(of.BadInput, match="seed = 0, not 1"):
        of.variation(model, seed=1).load_state_dict(steps.state_dict())
    with pytest.warns(NoSteps, match="train mode"), of.variation(model.eval()):
        run(model)


def test_cells_without_a_gamma_take_a_scale() -> None:
    model = converted(of.replace(HARDWARE, "projection.array.cell.write_noise", {"kind": "uniform", "sigma": 0.01}))
    with pytest.raises(of.BadInput, match=r"write noise 'uniform' of the cells of .* has no gamma; give scale"):
        of.variation(model, gamma=2)
    assert of.variation(model, gamma={"attention": 2}).step == 0
    assert of.variation(model, scale=2).draw().cells["head"].write_noise.sigma == 0.02
    silent = converted(with_field("cell.write_noise.sigma", 0.0))
    with pytest.raises(of.BadInput, match="gamma changes nothing"):
        of.variation(silent, gamma=2)
    with pytest.raises(of.BadInput, match="scale for 'projection' changes nothing"):
        of.variation(silent, scale={"projection": 2})


def noisy_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Five images under noise, and which of them each is."""
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(7))
    labels = torch.randint(5, (count,), generator=draw)
    return kinds[labels] + 1.5 * torch.randn(count, 1, 12, 12, generator=draw), labels


def fit(model: nn.Module, count: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(count):
        images, labels = noisy_images(32, 100 + step)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.slow
def test_training_on_noise_helps_more_than_as_much_training_without() -> None:
    """A fixed seed; 300 images on 4 chips. With it the gain is 7 points, of which chance makes about 2."""
    noisy = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 7.0)
    noisy = of.replace(noisy, "projection.array.cell.write_noise.gamma", 30.0)
    images, labels = noisy_images(300, 1)

    def trained() -> nn.Module:
        torch.manual_seed(0)
        model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=3, classes=5)
        fit(model, 60)
        return of.convert(model.eval(), noisy, sample=images[:32], level="noise")

    def accuracy(model: nn.Module) -> float:
        def right(model: nn.Module) -> Any:
            return (run(model, images).argmax(dim=1) == labels).float().numpy()

        return of.monte_carlo(model.eval(), right, chips=4).mean

    plain, varied = trained(), trained()
    before = accuracy(plain)
    fit(of.revert(plain).train(), 60)
    with of.variation(varied.train()):
        fit(varied, 60)
    assert accuracy(varied) > max(before, accuracy(plain)) + 0.04


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.slow
def test_the_trainer_of_hugging_face_takes_steps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=2
    )
    ids = torch.randint(2, 50, (16, 7), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i[0] % 2} for i in ids]
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config).eval()
        sample = {"input_ids": ids[:4], "attention_mask": torch.ones_like(ids[:4])}
        model = of.convert(model, HARDWARE, sample=sample, level="noise")
        options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 2, "report_to": []}
        arguments = transformers.TrainingArguments(
            str(tmp_path), use_cpu=True, disable_tqdm=True, gradient_checkpointing=recompute, seed=0, **options
        )
        with of.variation(model) as steps:
            transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
        assert steps.step == 4
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*found)
