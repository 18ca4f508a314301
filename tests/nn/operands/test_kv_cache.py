"""Keys and values in a cache: each token is written once, and keeps its noise at all later steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import Accelerator, BadInput, KVClip
from ohmformer.array.event_counter import counting
from ohmformer.array.folded import Folded
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_cache import Growing
from ohmformer.nn.operands.kv_transform import Conditioner
from tests.nn.models import Decoder

BASE = of.load("clipformer_tcad_2024")
NOISY = of.replace(BASE, "attention.array.cell.write_noise.gamma", 4.0)
READS = of.replace(NOISY, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
READS = of.replace(READS, "projection.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
UNIFORM = of.replace(BASE, "attention.array.cell.write_noise", {"kind": "uniform", "sigma": 0.1})
OFFSET = of.replace(UNIFORM, "attention.array.encoding", "offset")
TOKENS = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(1))
IDS = [7, "b", 9]


def converted(hardware: Accelerator = NOISY, scale: str = "tensor", level: str = "noise", **options: Any) -> nn.Module:
    hardware = of.replace(hardware, "attention.array.scale", scale)
    return of.convert(Decoder(**options).eval(), hardware, sample=TOKENS, level=level)


def full(model: nn.Module, tokens: Tensor = TOKENS, ids: list[Any] = IDS, **more: Any) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        y = model(tokens, **more)
    assert isinstance(y, Tensor)
    return y


def stepwise(model: nn.Module, tokens: Tensor = TOKENS, ids: list[Any] = IDS, first: int = 3) -> Tensor:
    """Logits of a prefill of some tokens, then one token at a time."""
    past: Any = []
    found = []
    with torch.no_grad(), of.samples(ids):
        for start, stop in [(0, first), *((n, n + 1) for n in range(first, tokens.shape[1]))]:
            logits, past = model(tokens[:, start:stop], past)
            found.append(logits)
    return torch.cat(found, dim=1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@dataclass
class Drawn:
    """What the cells of every K and V hold."""

    weights: dict[str, Tensor]


@contextmanager
def watching(model: nn.Module) -> Iterator[Drawn]:
    """Keep what was last written, by operand."""
    drawn = Drawn({})
    operands = [o for o in crossbars(model).operands if isinstance(o, KVOperand)]
    for operand in operands:
        original = operand.multiply

        def keep(
            x: Tensor, w: Tensor, cells: Folded, streams: Any, name: str = operand.name, original: Any = original
        ) -> Any:
            drawn.weights[name] = cells.values
            return original(x, w, cells, streams)

        operand.multiply = keep  # type: ignore[method-assign, assignment]
    yield drawn
    for operand in operands:
        del operand.multiply


SCALES = ["tensor", "head", "token", "column"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("hardware", [NOISY, UNIFORM, OFFSET])
def test_steps_give_what_one_pass_gives(hardware: Accelerator, scale: str, fused: bool) -> None:
    model = converted(hardware, scale, fused=fused)
    with of.without_quantizers(model):
        assert relative(stepwise(model), full(model)) < 1e-4
        assert relative(full(model), full(of.revert(model))) > 1e-2


@pytest.mark.parametrize("scale", SCALES)
def test_the_cells_hold_the_same_after_steps_and_after_one_pass(scale: str) -> None:
    """The first layer's K and V are the same in both, but for the order of sums: so are its cells, with their noise."""
    model = converted(scale=scale)
    with watching(model) as drawn:
        full(model)
        once = dict(drawn.weights)
        stepwise(model)
    for name in ("layers.0.K", "layers.0.V"):
        assert torch.allclose(once[name], drawn.weights[name], rtol=1e-5, atol=1e-6), name


def test_read_noise_belongs_to_tokens_too() -> None:
    model = converted(READS, level="array")
    with of.without_quantizers(model):
        assert relative(stepwise(model), full(model)) < 1e-4
        clean = full(of.convert(Decoder().eval(), NOISY, sample=TOKENS, level="noise"))
        assert relative(full(model), clean) > 1e-3


def test_with_quantizers_few_codes_flip() -> None:
    """Sums in another order flip codes that lie on a boundary: rarely, and then by one."""
    model = converted()
    steps, once = stepwise(model), full(model)
    flipped = ((steps - once).abs().amax(dim=-1) > 1e-4 * once.abs().amax()).float().mean()
    assert float(flipped) < 0.05
    assert relative(steps, once) < 1e-2


def test_a_token_is_written_once() -> None:
    layers, operands, samples, tokens, heads, values, slices, halves = 2, 2, 3, 9, 2, 6, 4, 2
    expected = layers * operands * samples * tokens * heads * values * slices * halves
    for run in (full, stepwise):
        model = converted()
        full(model, TOKENS[:, :2])  # static weights are written now
        with counting() as counts:
            run(model)
        assert counts.cell_writes == expected, run


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_writes_count_heads_of_keys_not_their_copies(groups: int) -> None:
    model = converted(groups=groups)
    full(model)
    with counting() as counts:
        full(model)
    assert counts.cell_writes == 2 * 2 * 3 * 9 * groups * 6 * 4 * 2


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.slow
def test_padding_changes_nothing(side: str, scale: str, fused: bool) -> None:
    model = converted(scale=scale, fused=fused)
    alone = full(model, TOKENS[:1, :6], IDS[:1], attention_mask=torch.ones(1, 6, dtype=torch.long))
    pad, mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(2, 9, dtype=torch.long)
    row = torch.cat([pad, TOKENS[:1, :6]] if side == "left" else [TOKENS[:1, :6], pad], dim=1)
    mask[0, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    padded = full(model, torch.cat([row, TOKENS[1:2]]), ["other", *IDS[:1]][::-1], attention_mask=mask)
    inner = padded[:1, 3:] if side == "left" else padded[:1, :6]
    assert relative(inner, alone) < 1e-5
    with counting() as counts:
        full(model, torch.cat([row, TOKENS[1:2]]), ["other", *IDS[:1]][::-1], attention_mask=mask)
    assert counts.cell_writes == 2 * 2 * (6 + 9) * 2 * 6 * 4 * 2


def test_later_tokens_change_nothing_before_them() -> None:
    """A range over all tokens would leak: it is calibrated for causal attention."""
    for scale in SCALES:
        model = converted(scale=scale)
        changed = TOKENS.clone()
        changed[:, 5:] = (changed[:, 5:] + 3) % 20
        assert relative(full(model, changed)[:, :5], full(model)[:, :5]) < 1e-5


@pytest.mark.slow
def test_a_memory_of_what_was_written_changes_nothing() -> None:
    """The same steps with a fresh model at each: nothing is remembered, everything is written again."""
    model = converted()
    past: Any = []
    with torch.no_grad(), of.samples(IDS):
        for start in range(9):
            one = converted()
            kept, _ = one(TOKENS[:, start : start + 1], list(past))
            logits, past = model(TOKENS[:, start : start + 1], past)
            assert torch.equal(kept, logits), start


def test_a_cache_whose_tokens_moved_is_refused() -> None:
    model = converted()
    with torch.no_grad(), of.samples(IDS):
        _, past = model(TOKENS[:, :4], [])
        _, past = model(TOKENS[:, 4:5], past)
        moved = [tuple(t[[1, 0, 2]] for t in layer) for layer in past]
        with pytest.raises(BadInput, match=r"layers.0.K: the cache holds other tokens .*beam search"):
            model(TOKENS[:, 5:6], moved)


def test_a_shortened_cache_and_another_text_are_fine() -> None:
    model = converted()
    with torch.no_grad(), of.samples(IDS):
        _, past = model(TOKENS[:, :6], [])
        short = [tuple(t[:, :, :4] for t in layer) for layer in past]
        logits, _ = model(TOKENS[:, 4:5], short)
    assert torch.allclose(logits, full(model)[:, 4:5], atol=1e-5)
    other = (TOKENS + 1) % 20
    assert relative(stepwise(model, other), full(model, other)) < 1e-2


class Slots(nn.Module):
    """A cache of fixed size: the mask hides what was not written yet, whose content is anything."""

    def __init__(self, junk: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.junk = nn.Linear(8, 24), junk

    def forward(self, x: Tensor, size: int = 12) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        B, M, d = q.shape
        held = [torch.full((B, size - M, d), self.junk) for _ in range(2)]
        mask = torch.ones(M, size, dtype=torch.bool).tril()
        k, v = torch.cat([k, held[0]], dim=1), torch.cat([v, held[1]], dim=1)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def test_slots_that_were_never_written_are_not_written() -> None:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))
    models = [of.convert(Slots(junk).eval(), NOISY, sample=x, level="noise") for junk in (0.0, 50.0)]
    outputs = []
    for model in models:
        full(model, x, ["a", "b"])
        with counting() as counts:
            outputs.append(full(model, x, ["a", "b"]))
        assert counts.cell_writes == 2 * 2 * 5 * 8 * 4 * 2
    assert torch.equal(*outputs)
    shorter = of.convert(Slots(0.0).eval(), NOISY, sample=x, level="noise")
    with torch.no_grad(), of.samples(["a", "b"]):
        assert torch.allclose(shorter(x, 7), outputs[0], atol=1e-6)


class Ring(nn.Module):
    """Attention to the last `size` tokens, in a ring whose oldest slot is overwritten; keeps its cache by itself."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.size, self.held = nn.Linear(8, 24), size, None

    def forward(self, x: Tensor, cache_position: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        M = x.shape[1]
        if M > 1:
            near = torch.ones(M, M, dtype=torch.bool).tril().triu(1 - self.size)
            return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=near)
        if self.held is None:
            self.held = [k[:, :0], v[:, :0], 0]
        keys, values, n = self.held
        if n < self.size:
            keys, values = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        else:
            keys, values = keys.clone(), values.clone()
            keys[:, n % self.size], values[:, n % self.size] = k[:, 0], v[:, 0]
        self.held = [keys, values, n + 1]
        return nn.functional.scaled_dot_product_attention(q, keys, values)


def test_a_ring_overwrites_its_oldest_tokens() -> None:
    x = torch.randn(2, 11, 8, generator=torch.Generator().manual_seed(2))
    model = of.convert(Ring().eval(), NOISY, sample=x, level="noise")
    with of.without_quantizers(model), torch.no_grad(), of.samples(["a", "b"]):
        once = model(x)
        with counting() as counts:
            steps = torch.cat([model(x[:, n : n + 1], cache_position=torch.tensor([n])) for n in range(11)], dim=1)
        assert relative(steps, once) < 1e-4
    assert counts.cell_writes == 2 * 2 * 11 * 8 * 2  # K and V, samples, tokens, values, halves: there are no slices


def test_a_ring_of_which_nothing_is_said_is_refused() -> None:
    """Its contents alone do not tell a ring from a tail that was rewritten."""
    x = torch.randn(2, 11, 8, generator=torch.Generator().manual_seed(2))
    model = of.convert(Ring().eval(), NOISY, sample=x, level="noise")
    with torch.no_grad(), of.samples(["a", "b"]):
        for n in range(4):
            model(x[:, n : n + 1])
        with pytest.raises(BadInput, match="cache_position"):
            model(x[:, 4:5])


def test_clips_act_on_cached_tokens_alike() -> None:
    model = converted()
    of.set_clip(model, KVClip(alpha=2.0, beta=0.25))
    with of.without_quantizers(model):
        assert relative(stepwise(model), full(model)) < 1e-4


@pytest.mark.parametrize("adc", ["ideal", 8])
def test_levels_with_cells_agree_with_steps_too(adc: object) -> None:
    hardware = of.replace(NOISY, "attention.array.adc.bits", adc)
    model = converted(hardware, level="array")
    assert relative(stepwise(model), full(model)) < 2e-2


CONDITIONING = of.Conditioning(mean=True, basis="hadamard", scale="token", unbiased=True)


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_steps_give_what_they_give_where_all_tokens_are_looked_at_again(
    scale: str, conditioned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = converted(scale=scale)
    if conditioned:
        of.set_kv(model, CONDITIONING)
    appended = stepwise(model)
    monkeypatch.setattr(KVOperand, "_written_before", lambda *_: None)
    again = stepwise(model)
    # A basis that multiplies one token rounds in another way than one that multiplies many.
    assert relative(appended, again) < 1e-5 if conditioned else torch.equal(appended, again)


def test_a_basis_multiplies_each_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counts = converted(), list[int]()
    of.set_kv(model, CONDITIONING)
    values = Conditioner.values

    def counted(self: Conditioner, tokens: Tensor, unpadding: Any) -> Any:
        counts.append(tokens.shape[-2])
        return values(self, tokens, unpadding)

    monkeypatch.setattr(Conditioner, "values", counted)
    stepwise(model)
    operands = [o for o in crossbars(model).operands if isinstance(o, KVOperand)]
    assert sum(counts) == len(operands) * TOKENS.shape[1]


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
def test_steps_may_follow_in_another_mode(first: Any) -> None:
    model, expected = converted(), stepwise(converted(), first=3)
    with first(), of.samples(IDS):
        logits, past = model(TOKENS[:, :3], [])
        _, past = model(TOKENS[:, 3:4], past)
    other = torch.no_grad if first is torch.inference_mode else torch.inference_mode
    with other(), of.samples(IDS):
        for n in range(4, TOKENS.shape[1]):
            logits, past = model(TOKENS[:, n : n + 1], past)
    assert torch.equal(logits, expected[:, -1:])


def test_a_cache_that_is_cut_back_and_goes_on_differently() -> None:
    model, other = converted(), TOKENS.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 20
    with torch.no_grad(), of.samples(IDS):
        _, past = model(TOKENS[:, :5], [])
        _, kept = model(TOKENS[:, 5:6], past)
        model(TOKENS[:, 6:7], kept)
        logits, _ = model(other[:, 6:7], kept)
    assert torch.allclose(logits, stepwise(model, other)[:, 6:7], atol=1e-5)


@pytest.mark.parametrize("dim", [-1, -2])
def test_what_grows_leaves_earlier_values(dim: int) -> None:
    parts = [torch.randn(2, 3, 4, 4) for _ in range(40)]
    growing, seen = Growing(parts[0], dim), [parts[0]]
    for part in parts[1:]:
        seen.append(growing.append(part))
    for n, each in enumerate(seen):
        assert torch.equal(each, torch.cat(parts[: n + 1], dim=dim))
