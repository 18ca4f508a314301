"""Keys and values that age token by token, from the times of a timeline."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import Accelerator, BadInput
from ohmformer.array.event_counter import counting
from ohmformer.hardware.ages import Ages, OperandAges
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.streams import Stream
from tests.cases import quick_first
from tests.nn.models import Decoder, vit
from tests.nn.operands.test_kv_cache import Ring

BASE = of.load("clipformer_tcad_2024")
NOISY = of.replace(BASE, "attention.array.cell.write_noise", {"kind": "uniform", "sigma": 0.05})
N = 9
TOKENS = torch.randint(0, 20, (3, N), generator=torch.Generator().manual_seed(1))
IDS = [7, "b", 9]
NAMES = [f"layers.{layer}.{letter}" for layer in range(2) for letter in "KV"]
EXPONENTIAL = {"kind": "exponential", "tau": 2e-5}
SPREAD = {"kind": "exponential", "tau": 2e-5, "tau_spread": 0.4, "stretch": 0.7, "g_rest": 1e-6}
POWER = {"kind": "power_law", "t0": 1e-6, "nu": 0.1, "nu_std": 0.05}
FLICKER = {"kind": "pcm_flicker", "q_scale": 0.02, "q_power": 0.5, "q_max": 0.2, "t_read": 1e-7}


def with_drift(drift: dict[str, Any], base: Accelerator = NOISY, **more: Any) -> Accelerator:
    hardware = of.replace(base, "attention.array.cell.drift", drift)
    for path, value in more.items():
        hardware = of.replace(hardware, f"attention.array.{path.replace('__', '.')}", value)
    return hardware


def times(name: str, count: int = N, step: float = 1e-6, *, causal: bool = True, **more: Any) -> OperandAges:
    """Token n is written after n steps, and its query reads half a step later, or more the larger n is."""
    number = np.arange(float(count))
    fields: dict[str, Any] = {
        "written": number * step, "read": (number + 0.5 + number**2 / 100) * step,
        "rewritten": np.full(count, -np.inf), "causal": causal, **more,
    }  # fmt: skip
    role = "attention.key" if name.endswith("K") else "attention.value"
    return OperandAges(name, role, None, **fields)


AGES = Ages(tuple(times(name) for name in NAMES))


def converted(hardware: Accelerator, ages: Ages | None = AGES, level: str = "noise", **options: Any) -> nn.Module:
    return of.convert(Decoder(**options).eval(), hardware, sample=TOKENS, level=level, ages=ages)


def full(model: nn.Module, tokens: Tensor = TOKENS, ids: list[Any] = IDS, **more: Any) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        y = model(tokens, **more)
    assert isinstance(y, Tensor)
    return y


def stepwise(model: nn.Module, first: int = 3) -> Tensor:
    past: Any = []
    found = []
    with torch.no_grad(), of.samples(IDS):
        for start, stop in [(0, first), *((n, n + 1) for n in range(first, N))]:
            logits, past = model(TOKENS[:, start:stop], past)
            found.append(logits)
    return torch.cat(found, dim=1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def operands(model: nn.Module) -> dict[str, KVOperand]:
    return {o.name: o for o in crossbars(model).operands if isinstance(o, KVOperand)}


ARRAYS: dict[str, dict[str, Any]] = {
    "ideal converters": {},
    "converters": {"adc": {"bits": 9}},
    "flicker": {"cell__read_noise": FLICKER},
    "faults": {"cell__faults": {"stuck_at_g_min": 0.02}},
    "wires": {"rows": 16, "columns": 16, "wires": {"row": 1.0, "column": 1.0, "ir_drop": "first_order"}},
    "token scale": {"scale": "token"},
    "offset": {"encoding": "offset", "rows": 8, "columns": 4},
}


@pytest.mark.parametrize("drift", [EXPONENTIAL, SPREAD, POWER], ids=["exponential", "spread", "power law"])
@pytest.mark.parametrize("more", quick_first(ARRAYS.values(), 3), ids=ARRAYS)
def test_decoding_with_a_cache_equals_one_pass(drift: dict[str, Any], more: dict[str, Any]) -> None:
    level = "array" if set(more) & {"adc", "cell__read_noise"} else "noise"
    model = converted(with_drift(drift, **more), level=level)
    with of.without_quantizers(model) if "adc" not in more else torch.no_grad():
        assert relative(stepwise(model), full(model)) < 2e-5
    assert relative(full(model), full(converted(with_drift(drift, **more), None, level))) > 1e-3


@pytest.mark.parametrize("level", ["noise", "array", "cell"])
@pytest.mark.parametrize("drift", [EXPONENTIAL, SPREAD, POWER], ids=["exponential", "spread", "power law"])
@pytest.mark.slow
def test_one_age_for_all_tokens_equals_the_age_of_the_array(drift: dict[str, Any], level: str) -> None:
    """Every query reads at 5 us, and every token is written at 0: the same as `age = "5 us"` of the array."""
    same = {"written": np.zeros(N), "read": np.full(N, 5e-6)}
    ages = Ages(tuple(times(name, **same) for name in NAMES))
    hardware = with_drift(drift, cell__read_noise=FLICKER)
    model = converted(hardware, ages, level)
    fixed = converted(of.replace(hardware, "attention.array.age", 5e-6), None, level)
    if level == "cell":  # read noise of a query that is read alone has keys of its own
        hardware = with_drift(drift)
        model = converted(hardware, ages, level)
        fixed = converted(of.replace(hardware, "attention.array.age", 5e-6), None, level)
    assert relative(full(model), full(fixed)) < 1e-5


@pytest.mark.parametrize("level", ["noise", "array"])
def test_reference_columns_age_with_their_tokens(level: str) -> None:
    same = {"written": np.zeros(N), "read": np.full(N, 5e-6)}
    ages = Ages(tuple(times(name, **same) for name in NAMES))
    hardware = with_drift(SPREAD, encoding="offset", rows=8, columns=4, cell__read_noise=FLICKER)
    fixed = converted(of.replace(hardware, "attention.array.age", 5e-6), None, level)
    assert relative(full(converted(hardware, ages, level)), full(fixed)) < 1e-5


def test_a_number_is_one_age_of_all_tokens() -> None:
    hardware = with_drift(SPREAD)
    model = of.convert(Decoder().eval(), hardware, sample=TOKENS, level="noise", ages=5e-6)
    fixed = converted(of.replace(hardware, "attention.array.age", 5e-6), None)
    assert torch.equal(full(model), full(fixed))


def held(operand: KVOperand, tokens: Tensor, queries: int) -> Tensor:
    """What each of the last queries finds in the cells: [B, R, M, n, d], read out by unit inputs."""
    B, R, n, d = tokens.shape
    x = torch.eye(d if operand.axis == "K" else n).repeat_interleave(queries, dim=0)
    found = []
    for index in range(len(x) // queries):
        unit = x[index * queries : (index + 1) * queries].expand(B, R, -1, -1)
        operand.x_range = torch.ones(())
        found.append(operand.product(unit, tokens))
    stacked = torch.stack(found, dim=-1 if operand.axis == "K" else -2)
    return stacked


@pytest.mark.parametrize("letter", ["K", "V"])
@pytest.mark.parametrize("drift", [EXPONENTIAL, SPREAD, POWER], ids=["exponential", "spread", "power law"])
def test_each_token_decays_by_its_formula(drift: dict[str, Any], letter: str) -> None:
    """Device by device, from what is written without drift and from the keyed normal numbers of each cell."""
    hardware = with_drift(drift, bits_per_cell=8, scale="tensor")
    model = converted(hardware)
    operand = operands(model)[f"layers.0.{letter}"]
    tokens = torch.randn(1, 2, N, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad(), of.samples(["s"]), of.without_quantizers(model):
        operand.w_range = tokens.abs().amax().reshape(1, 1, 1, 1)
        found = held(operand, tokens, N)
    cell, array = operand.array.cell, operand.array
    span = cell.g_max - cell.g_min
    expected = torch.zeros_like(found)
    key = Stream("seed", 0, "chip", 0, operand.name, "sample", "s")
    times_of = AGES.operands[NAMES.index(operand.name)]
    for token in range(N):

        def drawn(what: str, token: int = token) -> Tensor:
            return key.child("cell", what, "token", token).normal(2, 2, 6, like=tokens)

        value = tokens[0, :, token] / operand.w_range.flatten()
        target = torch.stack([value.clamp(min=0), (-value).clamp(min=0)]) * span + cell.g_min
        g = (target + 0.05 * span * drawn("write")).clamp(min=0.0)
        for query in range(token, N):
            t = times_of.read[query] - times_of.written[token]
            eps = drawn("drift")
            if drift["kind"] == "exponential":
                tau = drift["tau"] * torch.exp(drift.get("tau_spread", 0.0) * eps.double())
                rest = drift.get("g_rest", cell.g_min)
                now = rest + (g - rest) * torch.exp(-((t / tau) ** drift.get("stretch", 1.0)))
            else:
                nu = (drift["nu"] + drift["nu_std"] * eps.double()).clamp(min=0)
                now = g * (max(t, drift["t0"]) / drift["t0"]) ** -nu
            expected[0, :, query, token] = ((now[0] - now[1]) / span * operand.w_range.flatten()).float()
    read = torch.ones(N, N).tril().bool()
    assert array.redundancy == 1
    assert torch.allclose(found[:, :, read], expected[:, :, read], atol=2e-4)


def test_a_token_is_found_again_to_the_bit() -> None:
    """A token whose age does not change between two reads is the same to the bit at both."""
    frozen = Ages(tuple(times(name, read=np.full(N, 3e-5)) for name in NAMES))
    model = converted(with_drift(SPREAD), frozen)
    operand = operands(model)["layers.0.K"]
    tokens = torch.randn(1, 2, N, 6, generator=torch.Generator().manual_seed(5))
    x = torch.randn(1, 2, 1, 6, generator=torch.Generator().manual_seed(6))
    with torch.no_grad(), of.samples(["s"]):
        operand.w_range = tokens.abs().amax().reshape(1, 1, 1, 1)
        calls = [operand.product(x, tokens[:, :, : n + 1])[..., 0] for n in range(N)]
    assert all(torch.equal(call, calls[0]) for call in calls)


@pytest.mark.parametrize("base", [BASE, NOISY], ids=["silent", "noisy"])
def test_a_cache_that_has_lost_its_first_tokens_is_refused(base: Accelerator) -> None:
    """Its tokens would count from 0 again, and so have the ages of others, also where cells draw nothing."""
    silent = of.replace(base, "attention.array.cell.write_noise", {"kind": "none"}) if base is BASE else base
    model = converted(with_drift(EXPONENTIAL, silent))
    with torch.no_grad(), of.samples(IDS):
        _, past = model(TOKENS[:, :6], [])
        shorter = [(k[:, :, 2:], v[:, :, 2:]) for k, v in past]
        with pytest.raises(BadInput, match="under other numbers than they were written under"):
            model(TOKENS[:, 6:7], shorter)


@pytest.mark.parametrize("noise", [{"kind": "none"}, {"kind": "uniform", "sigma": 0.05}], ids=["silent", "noisy"])
def test_a_ring_ages_as_one_pass_does_where_its_tokens_are_numbered(noise: dict[str, Any]) -> None:
    """A ring loses its first tokens, but the call says which numbers the others have."""
    x = torch.randn(2, N, 8, generator=torch.Generator().manual_seed(2))
    hardware = of.replace(with_drift(EXPONENTIAL), "attention.array.cell.write_noise", noise)
    plain = of.convert(Ring().eval(), hardware, sample=x, level="noise")
    ages = Ages(tuple(times(name) for name in operands(plain)))
    model = of.convert(Ring().eval(), hardware, sample=x, level="noise", ages=ages)
    with of.without_quantizers(model), torch.no_grad(), of.samples(["a", "b"]):
        once = model(x)
        steps = torch.cat([model(x[:, n : n + 1], cache_position=torch.tensor([n])) for n in range(N)], dim=1)
    assert relative(steps, once) < 1e-4
    with of.without_quantizers(plain), torch.no_grad(), of.samples(["a", "b"]):
        assert relative(once, plain(x)) > 1e-3


@pytest.mark.parametrize("drift", [EXPONENTIAL, SPREAD], ids=["exponential", "spread"])
def test_other_order_and_left_padding_change_nothing(drift: dict[str, Any]) -> None:
    model = converted(with_drift(drift, scale="token"))
    mask = torch.ones(3, N, dtype=torch.long)
    shifted = TOKENS.clone()
    shifted[1, 2:], mask[1, :2] = TOKENS[1, : N - 2], 0
    with of.without_quantizers(model):
        expected = full(model)
        assert relative(full(model, TOKENS.flip(0), IDS[::-1]).flip(0), expected) < 1e-5
        padded = full(model, shifted, attention_mask=mask)
        assert relative(padded[1, 2:], expected[1, : N - 2]) < 1e-5
        assert relative(padded[[0, 2]], expected[[0, 2]]) < 1e-5


@pytest.mark.parametrize("drift", [EXPONENTIAL, SPREAD], ids=["exponential", "spread"])
@pytest.mark.slow
def test_a_refresh_restarts_ages_and_draws_new_write_noise(drift: dict[str, Any]) -> None:
    rewritten = np.where(np.arange(N) >= 5, 4.8e-6, -np.inf)
    model = converted(with_drift(drift), Ages(tuple(times(name, rewritten=rewritten) for name in NAMES)))
    with of.without_quantizers(model):
        y = full(model)
        assert relative(stepwise(model), y) < 2e-5
        plain = full(converted(with_drift(drift)))
    assert relative(y[:, :5], full(converted(with_drift(drift)))[:, :5]) < 0.2
    assert not torch.allclose(y[:, 5:], plain[:, 5:], rtol=1e-3)
    exact = with_drift(drift, BASE, cell__write_noise={"kind": "none"})
    same = Ages(tuple(times(n, rewritten=rewritten, written=np.zeros(N), read=np.full(N, 5e-6)) for n in NAMES))
    fresh = converted(exact, same)
    with counting() as events:
        full(fresh)
    assert events.cell_writes > 0


def test_an_encoder_takes_the_mean_over_queries_or_the_longest() -> None:
    hardware = with_drift(EXPONENTIAL, of.replace(BASE, "attention.array.cell.write_noise", {"kind": "none"}))
    pixels = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    table = of.convert(vit(), hardware, sample=pixels)
    names = list(operands(table))
    number = np.arange(10.0)
    spread = {"written": number * 1e-6, "read": 1.2e-5 + number * 1e-6, "causal": False}
    ages = Ages(tuple(times(name, 10, **spread) for name in names))
    longest = dataclasses.replace(ages, encoder="longest")

    def output(ages: Ages | None, hardware: Accelerator = hardware) -> Tensor:
        with torch.no_grad(), of.samples([0, 1]):
            return of.convert(vit(), hardware, sample=pixels, ages=ages)(pixels)  # type: ignore[no-any-return]

    mean = {"written": number * 1e-6, "read": np.full(10, 1.65e-5), "causal": False}
    late = {"written": number * 1e-6, "read": np.full(10, 2.1e-5), "causal": False}
    assert torch.equal(output(ages), output(Ages(tuple(times(name, 10, **mean) for name in names))))
    assert torch.equal(output(longest), output(Ages(tuple(times(name, 10, **late) for name in names))))
    assert not torch.equal(output(ages), output(longest))


def test_gradients_are_those_of_the_aged_matrix() -> None:
    for drift in (EXPONENTIAL, SPREAD):
        model = converted(with_drift(drift))
        operand = operands(model)["layers.0.V"]
        tokens = torch.randn(1, 2, N, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()
        x = torch.rand(1, 2, N, N, generator=torch.Generator().manual_seed(6)).tril().requires_grad_()
        with of.samples(["s"]):
            operand.w_range = tokens.detach().abs().amax().reshape(1, 1, 1, 1)
            y = operand.product(x, tokens)
            (grad,) = torch.autograd.grad(y.sum(), x)
            with torch.no_grad():
                matrix = held(operand, tokens.detach(), N).sum(dim=-1)
        read = torch.ones(N, N).tril().bool()
        assert torch.allclose(grad[:, :, read], matrix[:, :, read], rtol=2e-2, atol=2e-2)


def test_cells_whose_age_does_not_matter_stay_as_they_are() -> None:
    assert torch.equal(full(converted(NOISY)), full(converted(NOISY, None)))


def test_a_saved_model_keeps_its_ages(tmp_path: Any) -> None:
    model = converted(with_drift(SPREAD))
    of.save(model, tmp_path / "model.safetensors")
    restored = of.restore(Decoder().eval(), tmp_path / "model.safetensors")
    assert torch.equal(full(restored), full(model))


REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "too short": ({}, Ages(tuple(times(name, 5) for name in NAMES)), "is not in the timeline"),
    "other names": ({}, Ages((times("a.K"),)), "has 1 others for 'layers.0.K'"),
    "age of the array": ({"age": 1.0}, AGES, "age = 1 s for all tokens"),
    "not causal": ({}, Ages(tuple(times(name, causal=False) for name in NAMES)), "not causal in the timeline"),
    "NaN": ({}, Ages(tuple(times(name, read=np.full(N, np.nan)) for name in NAMES)), "NaN"),
    "shapes": ({}, Ages(tuple(times(name, read=np.zeros(3)) for name in NAMES)), "have shapes"),
    "no ages": ({}, "timeline", "ages is "),
    "below zero": ({}, -1e-6, "must be 0 or more"),
    "truth": ({}, True, "ages is "),
}


@pytest.mark.parametrize(("more", "ages", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(more: dict[str, Any], ages: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        full(converted(with_drift(SPREAD, **more), ages))
    assert "\n" not in str(error.value)


def test_timed_write_noise_is_refused() -> None:
    noise = {
        "kind": "piecewise_polynomial", "g_ref": "10 uS", "borders": [], "times": ["1 us", "1 ms"],
        "coefficients": [["0.1 uS"], ["0.2 uS"]],
    }  # fmt: skip
    with pytest.raises(BadInput, match="write_noise has other parameters"):
        converted(with_drift(SPREAD, cell__write_noise=noise))
    late = {**noise, "times": ["1 s", "2 s"]}
    full(converted(with_drift(SPREAD, cell__write_noise=late)))
