"""What queries may see comes from the mask that the model applies, however it applies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.capture.masks import is_causal
from ohmformer.nn.checks.comparing import difference
from ohmformer.nn.checks.sample_variants import change_padding
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand

BASE = of.load("clipformer_tcad_2024")
NOISY = of.replace(BASE, "attention.array.cell.write_noise.gamma", 4.0)
LEAST = torch.finfo(torch.float32).min

Mask = Callable[[Tensor, Tensor], Tensor]
"""Scores [B, H, M, N] and what may be seen [B, 1, M, N] to probabilities."""


def lowest(seen: Tensor) -> float:
    """Minus infinity, unless that gives NaN where nothing is seen."""
    return float("-inf") if bool(seen.any(dim=-1).all()) else LEAST


def fill(s: Tensor, seen: Tensor) -> Tensor:
    return (s / 2).masked_fill(~seen, LEAST).softmax(-1)


def fill_first(s: Tensor, seen: Tensor) -> Tensor:
    return (s.masked_fill(~seen, -1e9) / 2).softmax(-1)


def fill_in_place(s: Tensor, seen: Tensor) -> Tensor:
    s /= 2
    return s.masked_fill_(~seen, lowest(seen)).softmax(-1)


def add(s: Tensor, seen: Tensor) -> Tensor:
    return torch.softmax(s * 0.5 + torch.zeros(seen.shape).masked_fill(~seen, -1e4), dim=-1)


def add_on_the_left(s: Tensor, seen: Tensor) -> Tensor:
    mask = torch.zeros(seen.shape).masked_fill(~seen, LEAST)
    return nn.functional.softmax(mask + s, dim=-1)


def add_in_place(s: Tensor, seen: Tensor) -> Tensor:
    s += torch.zeros(seen.shape).masked_fill(~seen, LEAST)
    return nn.functional.softmax(s, dim=-1, dtype=torch.float32).type_as(s)


def subtract(s: Tensor, seen: Tensor) -> Tensor:
    return (s - 1e9 * (~seen).float()).softmax(-1)


def multiply(s: Tensor, seen: Tensor) -> Tensor:
    kept = seen.float()
    return (s * kept - 1e10 * (1 - kept)).softmax(-1)


def where(s: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen, s, torch.tensor(LEAST)).softmax(-1)


def set_item(s: Tensor, seen: Tensor) -> Tensor:
    s = s.clone()
    s[(~seen).expand_as(s)] = lowest(seen)
    return s.softmax(-1)


def folded(s: Tensor, seen: Tensor) -> Tensor:
    B, H, M, N = s.shape
    s = s.view(B * H, M, N).view(B, H, M, N) + torch.zeros(seen.shape).masked_fill(~seen, LEAST)
    return s.view(B * H, M, N).softmax(-1).view(B, H, M, N)


def sink(s: Tensor, seen: Tensor) -> Tensor:
    s = s + torch.zeros(seen.shape).masked_fill(~seen, LEAST)
    s = torch.cat([s, torch.full((*s.shape[:-1], 1), 0.3)], dim=-1)
    s = s - s.max(dim=-1, keepdim=True).values
    return s.softmax(-1)[..., :-1]


def capped(s: Tensor, seen: Tensor) -> Tensor:
    return (torch.tanh(s / 5) * 5).masked_fill(~seen, -1e9).softmax(-1)


def cleaned(s: Tensor, seen: Tensor) -> Tensor:
    p = s.masked_fill(~seen, LEAST).softmax(-1)
    return nn.functional.dropout(p.masked_fill(~seen, 0.0), 0.1, training=False)


def after(s: Tensor, seen: Tensor) -> Tensor:
    return s.softmax(-1) * seen.float()


def selected(s: Tensor, seen: Tensor) -> Tensor:
    s = s.masked_fill(~seen, LEAST)
    return s.masked_fill(s < s.topk(2, dim=-1).values[..., -1:], LEAST).softmax(-1)


MASKS: list[Mask] = [
    fill, fill_first, fill_in_place, add, add_on_the_left, add_in_place, subtract, multiply, where, set_item, folded,
    sink, capped, cleaned,
]  # fmt: skip
UNKNOWN: list[Mask] = [after, selected]


class Written(nn.Module):
    """Attention in two heads that applies its mask as `how` says; `causal`, or in windows, and with padding.

    `forward(x[B, N, 8], lengths[B])` gives y[B, N, 8]; padding stands behind, or in front.
    """

    def __init__(self, how: Mask, *, causal: bool = False, window: int = 0, left: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.how, self.causal, self.window, self.left = how, causal, window, left

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        N = x.shape[1]
        places = torch.arange(N)
        kept = places >= N - lengths[:, None] if self.left else places < lengths[:, None]
        seen = kept[:, None, None, :].expand(-1, 1, N, N)
        if self.causal:
            seen = seen & torch.ones(N, N, dtype=torch.bool).tril()
        if self.window:
            seen = seen & ((places[:, None] - places).abs() < self.window)
        return self.out((self.how(q @ k.transpose(-2, -1), seen) @ v).transpose(1, 2).flatten(2))


LENGTHS = torch.tensor([5, 9, 6])


def batch(N: int = 11, left: bool = False, junk: float = 1.0) -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(1))
    rows = torch.full((3, N, 8), junk)
    for b, n in enumerate(LENGTHS.tolist()):
        rows[b, N - n if left else 0 :][:n] = x[b, :n]
    return rows, LENGTHS


def own(y: Tensor, b: int, left: bool) -> Tensor:
    n = int(LENGTHS[b])
    return y[b, -n:] if left else y[b, :n]


def run(model: nn.Module, sample: tuple[Tensor, ...], ids: list[Any], mode: str = "run") -> Tensor:
    state = crossbars(model).state
    state.mode = mode  # type: ignore[assignment]
    try:
        with torch.no_grad(), of.samples(ids), of.without_quantizers(model):
            y = model(*sample)
    finally:
        state.mode = "run"
    assert isinstance(y, Tensor)
    return y


KINDS: list[dict[str, Any]] = [{}, {"causal": True}, {"causal": True, "left": True}, {"window": 3}]


@pytest.mark.parametrize("kind", [{}, {"causal": True, "left": True}, {"window": 3}], ids=str)
@pytest.mark.parametrize("how", [*MASKS, *UNKNOWN], ids=lambda how: how.__name__)
@pytest.mark.slow
def test_ideal_cells_give_the_original_with_any_padding(how: Mask, kind: dict[str, Any]) -> None:
    model, left = Written(how, **kind).eval(), kind.get("left", False)
    found = of.convert(model, NOISY, sample=(batch(left=left)[0], torch.tensor([11, 11, 11])), level="noise")
    for N in (9, 18):
        sample = batch(N, left)
        with torch.no_grad():
            expected = model(*sample)
        if bool(expected.isfinite().all()):
            assert difference(expected, run(found, sample, ["a", "b", "c"], "ideal")) < 1e-5


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("how", MASKS, ids=lambda how: how.__name__)
@pytest.mark.slow
def test_a_sample_draws_the_same_whatever_its_padding(how: Mask, kind: dict[str, Any]) -> None:
    left = kind.get("left", False)
    found = of.convert(Written(how, **kind).eval(), NOISY, sample=batch(left=left), level="noise")
    operands = [o for o in crossbars(found).operands if isinstance(o, KVOperand)]
    assert [o.causal for o in operands] == [kind.get("causal", False)] * 2
    y, junk = (run(found, batch(N, left, junk), ["a", "b", "c"]) for N, junk in ((11, 1.0), (18, 30.0)))
    for b in range(3):
        n = int(LENGTHS[b])
        alone = run(found, (own(batch(left=left)[0], b, left)[None], LENGTHS[b : b + 1]), ["abc"[b]])[0, -n:]
        assert torch.allclose(own(y, b, left), alone, atol=1e-5)
        assert torch.allclose(own(junk, b, left), alone, atol=1e-5)


class Apart(nn.Module):
    """Scores and mixing are modules of their own, with the mask between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.scores, self.mix = nn.Linear(8, 24), Product(), Product()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        hidden = torch.arange(x.shape[1]) >= lengths[:, None, None]
        p = self.scores(q, k.transpose(1, 2)).masked_fill(hidden, LEAST).softmax(dim=-1)
        return self.mix(p, v)


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


def test_scores_are_followed_out_of_a_module_of_their_own() -> None:
    found = of.convert(Apart().eval(), NOISY, sample=batch(), level="noise")
    y = run(found, batch(18, junk=30.0), ["a", "b", "c"])
    for b in range(3):
        alone = run(found, (own(batch()[0], b, False)[None], LENGTHS[b : b + 1]), ["abc"[b]])
        assert torch.allclose(own(y, b, False), alone[0], atol=1e-5)


class Windows(nn.Module):
    """Blocks of three tokens that see the blocks beside them, folded among the heads, as LongT5 has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(1, (-1, 3)) for t in self.qkv(x).chunk(3, dim=-1))
        k, v = (torch.cat([beside(t[:, :-1], 1), t, beside(t[:, 1:], 0)], dim=2) for t in (k, v))
        there = torch.ones(1, q.shape[1], 3, 1)
        there = torch.cat([beside(there[:, :-1], 1), there, beside(there[:, 1:], 0)], dim=2).squeeze(-1)
        scores = torch.einsum("bnqd,bnkd->bnqk", q, k) - 1e9 * (1 - there)[:, :, None, :]
        return torch.einsum("bnqk,bnkd->bnqd", scores.softmax(-1), v).flatten(1, 2)


def beside(t: Tensor, front: int) -> Tensor:
    empty = t.new_zeros(t.shape[0], 1, *t.shape[2:])
    return torch.cat([empty, t] if front else [t, empty], dim=1)


@pytest.mark.parametrize("N", [3, 6, 12])
def test_windows_among_the_heads_are_neither_padding_nor_causal(N: int) -> None:
    model = Windows().eval()
    x = torch.randn(2, N, 8)
    found = of.convert(model, NOISY, sample=x, level="noise")
    assert not any(o.causal for o in crossbars(found).operands if isinstance(o, KVOperand))
    for other in (x, torch.randn(3, 9, 8)):
        with torch.no_grad():
            assert difference(model(other), run(found, (other,), list(range(len(other))), "ideal")) < 1e-5
        run(found, (other,), list(range(len(other))))


def test_padding_at_the_end_is_not_causality() -> None:
    padded = torch.ones(2, 1, 4, 9, dtype=torch.bool)
    padded[..., 5:] = False
    assert not is_causal(padded)
    causal = torch.ones(4, 9, dtype=torch.bool).tril(2)
    assert is_causal(causal)
    assert is_causal(causal & (torch.arange(9) > 1))
    assert not is_causal(torch.stack([causal, torch.ones_like(causal)]))
    assert not is_causal(causal[:1])


def test_other_padding_keeps_a_token_of_every_row() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    found = change_padding({"input_ids": mask, "attention_mask": mask})
    assert found is not None
    assert bool(found["attention_mask"].any(dim=1).all())
    assert not torch.equal(found["attention_mask"], mask)
    assert found["input_ids"] is mask
    assert change_padding({"input_ids": mask}) is None
    assert change_padding(mask) is None


def test_a_wrong_capture_is_refused_by_the_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_only(seen: Tensor, *_: Any) -> Tensor:
        return torch.arange(seen.shape[-1]).expand(3, -1) < 2

    monkeypatch.setattr("ohmformer.nn.modules.activation_matmul._seen_by_samples", first_only)
    with pytest.raises(of.BadInput, match=r"on exact hardware, first at .*rules="):
        of.convert(Wrapped().eval(), NOISY, sample=batch(), level="noise")


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Written(fill)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y: Tensor = self.attention(x, lengths)
        return y


def test_a_mask_that_hides_earlier_keys_by_their_values_is_causal() -> None:
    """Each query sees some of the keys up to itself, the last one not among them: none sees a later one."""
    seen = torch.zeros(6, 6, dtype=torch.bool)
    for query, keys in enumerate([[0], [0], [0, 2], [2], [2, 3], [5]]):
        seen[query, keys] = True
    assert is_causal(seen)
    both_ways = seen.clone()
    both_ways[1, 3] = True
    assert not is_causal(both_ways)
    assert not is_causal(torch.tensor([[True, False, False]] * 3))  # padding behind one token
