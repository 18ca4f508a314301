"""The first and the last tokens stay digital: the same products, and cells hold the others alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, Conditioning
from ohmformer.array.event_counter import counting
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from tests.nn.models import Decoder, Encoder, SelfAttention, vit
from tests.nn.operands.test_kv_cache import IDS, NOISY, OFFSET, READS, TOKENS, converted, full, relative, stepwise
from tests.nn.operands.test_kv_transform import QUIET, difference
from tests.nn.operands.test_kv_transform import TOKENS as VECTORS

FIRST = Conditioning(first_tokens=2)
BOTH = Conditioning(first_tokens=1, last_tokens=3)
LAST = Conditioning(last_tokens=3)
SPECS = [
    FIRST,
    LAST,
    BOTH,
    Conditioning(mean=True, basis="balanced", scale="token", first_tokens=1, last_tokens=2),
    Conditioning(mean=True, basis="hadamard", radix=1, unbiased=True, first_tokens=2, last_tokens=1),
    Conditioning(scale="token", residual={}, first_tokens=2, last_tokens=2),
]
NAMES = [str(n) for n in range(len(SPECS))]
STRONG = of.replace(QUIET, "attention.array.cell.write_noise.gamma", 1000.0)
"""Noise that leaves nothing of what cells hold."""


def with_kv(spec: Conditioning | None, model: nn.Module) -> nn.Module:
    of.set_kv(model, spec)
    return model


def padded(side: str, tokens: Tensor = TOKENS) -> tuple[Tensor, Tensor]:
    """Tokens with two places of padding, and their mask."""
    pad = tokens.new_zeros(len(tokens), 2)
    parts = [pad, tokens] if side == "left" else [tokens, pad]
    mask = torch.ones(len(tokens), tokens.shape[1] + 2, dtype=torch.long)
    mask[:, slice(0, 2) if side == "left" else slice(-2, None)] = 0
    return torch.cat(parts, dim=1), mask


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
@pytest.mark.parametrize("fused", [False, True])
def test_they_are_exact_on_ideal_hardware(spec: Conditioning, fused: bool) -> None:
    model = Decoder(fused=fused).eval()
    exact = with_kv(spec, of.convert(model, QUIET, sample=TOKENS, level="noise"))
    with torch.no_grad(), of.without_quantizers(exact):
        assert relative(exact(TOKENS), model(TOKENS)) < 3e-5
        for side in ("left", "right"):
            row, mask = padded(side)
            inner = slice(2, None) if side == "left" else slice(0, -2)
            found, expected = (run(row, attention_mask=mask)[:, inner] for run in (exact, model))
            assert relative(found, expected) < 3e-5, side


@pytest.mark.parametrize("scale", ["tensor", "head", "token", "column"])
def test_encoders_keep_the_first_tokens(scale: Any) -> None:
    spec = Conditioning(mean=True, basis="hadamard", scale=scale, first_tokens=1)
    images = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    assert difference(vit(), images[:2], sample=images, spec=spec) < 3e-5
    assert difference(SelfAttention(groups=2, enable_gqa=True), VECTORS, sample=VECTORS, spec=spec) < 3e-5
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[0, 4:] = padding[2, :2] = True
    model = Encoder().eval()
    exact = with_kv(spec, of.convert(model, QUIET, sample=(VECTORS, padding), level="noise"))
    with torch.no_grad(), of.without_quantizers(exact):
        expected, found = model(VECTORS, padding), exact(VECTORS, padding)
    assert torch.allclose(expected[~padding], found[~padding], atol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
@pytest.mark.parametrize("groups", [1, 2])
def test_steps_give_what_one_pass_gives(spec: Conditioning, groups: int) -> None:
    """Each query has a recent window of its own in one pass, as in decoding."""
    model = with_kv(spec, converted(groups=groups))
    with of.without_quantizers(model):
        once = full(model)
        for first in (1, 2, 6):
            assert relative(stepwise(model, first=first), once) < 1e-5, first
        assert relative(once, full(of.revert(model))) > 1e-3


@pytest.mark.parametrize("hardware", [READS, OFFSET])
@pytest.mark.parametrize("level", ["noise", "array"])
def test_steps_give_what_one_pass_gives_where_places_matter(hardware: of.Accelerator, level: str) -> None:
    """Reads draw noise, or columns share a reference."""
    model = with_kv(BOTH, converted(hardware, "token", level=level))
    with of.without_quantizers(model):
        assert relative(stepwise(model), full(model)) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("hardware", [NOISY, READS])
@pytest.mark.parametrize("spec", [FIRST, LAST, BOTH])
@pytest.mark.slow
def test_padding_does_not_count(spec: Conditioning, hardware: of.Accelerator, side: str) -> None:
    model = with_kv(spec, converted(hardware, level="array"))
    row, mask = padded(side)
    inner = slice(2, None) if side == "left" else slice(0, -2)
    assert relative(full(model, row, attention_mask=mask)[:, inner], full(model)) < 1e-5


@pytest.mark.parametrize("spec", [FIRST, LAST, BOTH])
def test_a_sample_is_the_same_in_a_batch_and_alone(spec: Conditioning) -> None:
    model = with_kv(spec, converted())
    assert relative(full(model, TOKENS[1:2], ["b"]), full(model)[1:2]) < 1e-5


@pytest.mark.parametrize(("spec", "exact"), [(FIRST, 2), (LAST, 3), (BOTH, 4)])
def test_queries_that_see_digital_tokens_alone_are_exact(spec: Conditioning, exact: int) -> None:
    """The other queries read cells of which the noise leaves nothing."""
    model = with_kv(spec, converted(STRONG))
    with of.without_quantizers(model):
        found, expected = full(model), full(of.revert(model))
        assert relative(found[:, :exact], expected[:, :exact]) < 1e-5
        assert relative(found[:, exact], expected[:, exact]) > 1e-2
        steps = stepwise(model, first=1)
    assert relative(steps[:, :exact], expected[:, :exact]) < 1e-5


def test_all_tokens_digital_is_the_model_itself() -> None:
    model = with_kv(Conditioning(first_tokens=2, last_tokens=6), converted(STRONG))
    with of.without_quantizers(model):
        expected = full(of.revert(model), TOKENS[:, :8])
        full(model, TOKENS[:, :1])  # static weights are written now
    with of.without_quantizers(model), counting() as counts:
        assert relative(full(model, TOKENS[:, :8]), expected) < 1e-5
        assert relative(stepwise(model, TOKENS[:, :8]), expected) < 1e-5
    assert counts.cell_writes == 0


def is_digital(q: int, k: int, spec: Conditioning) -> bool:
    return k < spec.first_tokens or k > q - spec.last_tokens


@pytest.mark.parametrize("spec", [FIRST, LAST, BOTH])
def test_the_product_is_that_of_its_definition(spec: Conditioning) -> None:
    """Scores and sums from what the cells of the same tokens hold without digital tokens, token by token."""
    noisy, plain = with_kv(spec, converted(scale="token")), with_kv(Conditioning(scale="token"), converted())
    for name in ("layers.0.K", "layers.0.V"):
        ours, theirs = (
            next(op for op in crossbars(m).operands if isinstance(op, KVOperand) and op.name == name)
            for m in (noisy, plain)
        )
        g = torch.Generator().manual_seed(5)
        tokens, x = torch.randn(3, 2, 9, 6, generator=g), torch.rand(3, 2, 9, 6 if ours.axis == "K" else 9, generator=g)
        x = x if ours.axis == "K" else x.tril()
        for operand in (ours, theirs):
            operand.w_range, operand.x_range = torch.full((1, 1, 1, 1), 4.0), torch.tensor(1.0)
        with torch.no_grad(), of.samples(IDS), of.without_quantizers(noisy), of.without_quantizers(plain):
            found = ours.product(x, tokens)
            held = theirs.product(torch.eye(6 if ours.axis == "K" else 9).expand(3, 2, -1, -1), tokens)
        digital = torch.tensor([[is_digital(q, k, spec) for k in range(9)] for q in range(9)])
        if ours.axis == "K":
            seen = torch.ones(9, 9).tril().bool()
            expected = torch.where(digital, x @ tokens.mT, x @ held)
            found, expected = found[..., seen], expected[..., seen]
        else:
            expected = (x * digital) @ tokens + (x * ~digital) @ held
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), name


def test_each_token_is_written_when_it_leaves_the_window() -> None:
    per_token = 2 * 2 * 3 * 2 * 6 * 4 * 2  # layers, operands, samples, heads, values, slices, halves
    for spec, tokens in ((FIRST, 7), (LAST, 6), (BOTH, 5)):
        for run in (full, stepwise):
            model = with_kv(spec, converted())
            full(model, TOKENS[:, :2])
            with counting() as counts:
                run(model)
            assert counts.cell_writes == per_token * tokens, (spec, run)


def test_level_cell_agrees() -> None:
    exact = of.replace(NOISY, "attention.array.adc.bits", "ideal")
    found = [full(with_kv(BOTH, converted(exact, "token", level=level)), TOKENS[:, :6]) for level in ("cell", "noise")]
    assert relative(found[0], found[1]) < 1e-4


def test_an_outlier_at_the_start_does_not_set_the_range() -> None:
    torch.manual_seed(0)
    model, x = SelfAttention(), torch.randn(3, 7, 24)
    x[:, 0] *= 50
    errors = []
    for spec in (Conditioning(), Conditioning(first_tokens=1)):
        digital = dict.fromkeys("qkv")
        model_on_cells = with_kv(spec, of.convert(model.eval(), QUIET, sample=x, level="noise", rules=digital))
        with torch.no_grad(), of.samples(range(3)):
            errors.append(relative(model_on_cells(x), model(x)))
    assert errors[1] < 0.5 * errors[0]


def test_gradients_are_those_of_the_model_on_ideal_hardware() -> None:
    model = SelfAttention()
    on_cells = with_kv(
        Conditioning(mean=True, basis="balanced", first_tokens=2),
        of.convert(model.eval(), QUIET, sample=VECTORS, level="noise"),
    )
    x, y = VECTORS.clone().requires_grad_(), VECTORS.clone().requires_grad_()
    model(x).square().sum().backward()
    with of.without_quantizers(on_cells), of.samples(range(3)):
        on_cells(y).square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert relative(y.grad, x.grad) < 1e-3


def test_what_cannot_be_honored_is_refused_by_name() -> None:
    encoder = of.convert(SelfAttention().eval(), QUIET, sample=VECTORS, level="noise")
    with pytest.raises(BadInput, match=r"kv.last_tokens = 3: .*K is not causal.*leave last_tokens out"):
        of.set_kv(encoder, LAST)
    queries = of.convert(Decoder().eval(), NOISY, sample=TOKENS, level="noise", rules={"*.K": of.Rule(write="left")})
    with pytest.raises(BadInput, match=r"kv.first_tokens = 2: the cells of layers.0.K hold queries"):
        of.set_kv(queries, FIRST)
    with pytest.raises(BadInput, match=r"12 digital tokens .*at most 9 tokens on the calibration inputs"):
        of.set_kv(converted(), Conditioning(first_tokens=4, last_tokens=8))
    for wrong in (-1, 2.5, "many", 10**9):
        with pytest.raises(BadInput, match="first_tokens"):
            Conditioning(first_tokens=wrong)


@pytest.mark.parametrize("spec", [FIRST, BOTH, Conditioning(scale="token", residual={}, last_tokens=2)])
@pytest.mark.slow
def test_tokens_age_from_when_they_leave_the_window(spec: Conditioning) -> None:
    """Decoding token by token equals one pass where drift follows the timeline."""
    machine = of.replace(READS, "attention.array.scale", "token")
    machine = of.replace(machine, "attention.array.cell.drift", {"kind": "exponential", "tau": 5e-6, "tau_spread": 0.3})
    work = of.trace(Decoder().eval(), TOKENS[:1], phase="prefill")
    later, at_once = (of.simulate(work, machine, kv=kv).timeline.ages() for kv in (spec, None))
    model = of.convert(Decoder().eval(), machine, sample=TOKENS, level="array", ages=later)
    with_kv(spec, model)
    with of.without_quantizers(model):
        once = full(model)
        assert relative(stepwise(model), once) < 1e-4
        other = with_kv(spec, of.convert(Decoder().eval(), machine, sample=TOKENS, level="array", ages=at_once))
        with of.without_quantizers(other):
            assert relative(full(other), once) > 1e-4


def test_saved_copied_and_trained_models_keep_their_digital_tokens(tmp_path: Path) -> None:
    spec = Conditioning(mean=True, basis="hadamard", scale="token", first_tokens=2, last_tokens=2)
    model = with_kv(spec, converted())
    once = full(model)
    of.save(model, tmp_path / "model.safetensors")
    assert torch.equal(full(of.restore(Decoder().eval(), tmp_path / "model.safetensors")), once)
    assert torch.equal(full(copy.deepcopy(model)), once)
    model.train()
    with of.variation(model):
        model(TOKENS).square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_no_conditioning_again_is_the_model_before() -> None:
    model = converted()
    before = full(model)
    assert relative(full(with_kv(BOTH, model)), before) > 1e-4
    assert torch.equal(full(with_kv(None, model)), before)
    assert relative(full(with_kv(Conditioning(), model)), full(with_kv(None, converted()))) < 1e-6
