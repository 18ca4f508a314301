"""What is timed: transformers of several shapes with random weights, what is done with them, and hardware for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import ohmformer as of
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.streams.backends import Kernels
from ohmformer.streams.compiling import has_amx, has_numba

PROMPT, STEPS = 128, 16
"""Tokens of a prefill, and tokens that are decoded after it."""
LOOPS: tuple[Kernels, ...] = (*(("compiled",) if has_numba() else ()), *(("amx",) if has_amx() else ()))
"""Kernels with compiled loops that this CPU has."""


@dataclass(frozen=True)
class Shape:
    """A model and its work.

    Attributes:
        name: shown in tables.
        build: makes the model.
        inputs: makes a batch of inputs on a device: batch, device, dtype.
        work: what is timed: a model and a batch.
        rows: of its arrays, and those of the peer.
        cases: that are timed; empty for all that suit the rows.
        memory: that a device needs for it [GiB]; 0 for shapes that every device holds.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.device, torch.dtype], Tensor]
    work: Callable[[nn.Module, Tensor], object]
    rows: tuple[int, ...] = (128, 256)
    cases: tuple[str, ...] = ()
    memory: float = 0.0


def _vectors(batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, 197, 384, device=device, dtype=dtype)


def _three_linears() -> nn.Module:
    return nn.Sequential(nn.Linear(384, 384), nn.Linear(384, 1536), nn.Linear(1536, 384))


def _images(batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, 3, 224, 224, device=device, dtype=dtype)


def _tokens(batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randint(0, 32000, (batch, PROMPT + STEPS), device=device)


def _forward(model: nn.Module, x: Tensor) -> object:
    with of.samples(range(len(x))):
        return model(x)


def _prefill(model: Any, tokens: Tensor) -> object:
    with of.samples(range(len(tokens))):
        return model(input_ids=tokens[:, :PROMPT], use_cache=False)


def _decode(model: Any, tokens: Tensor) -> object:
    with of.samples(range(len(tokens))):
        past = model(input_ids=tokens[:, :PROMPT], use_cache=True).past_key_values
        for n in range(PROMPT, PROMPT + STEPS):
            past = model(input_ids=tokens[:, n : n + 1], past_key_values=past).past_key_values
        return past


def _deit_small() -> nn.Module:
    return VisionTransformer(size=224, patch=16, channels=3, width=384, depth=12, heads=6, mlp_ratio=4.0, classes=1000)


def _llama(*, tied: bool = True, **sizes: int) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(tie_word_embeddings=tied, **sizes))


def _smollm2() -> nn.Module:
    return _llama(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536,
    )  # fmt: skip


def _llama_1b() -> nn.Module:
    return _llama(
        vocab_size=128256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192,
    )  # fmt: skip


def _llama_8b() -> nn.Module:
    return _llama(
        tied=False, vocab_size=128256, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336,
    )  # fmt: skip


PER_VALUE = "noise, one draw per K/V value"
SHAPES = {
    "deit": Shape("DeiT-S", _deit_small, _images, _forward),
    "smollm2": Shape(f"SmolLM2-135M, prefill of {PROMPT}", _smollm2, _tokens, _prefill),
    "smollm2-decode": Shape(f"SmolLM2-135M, {PROMPT} + {STEPS} tokens", _smollm2, _tokens, _decode),
    "linears": Shape("Three linears of DeiT-S, 64 rows", _three_linears, _vectors, _forward, rows=(64,)),
    "llama": Shape(f"Llama-1B, prefill of {PROMPT}", _llama_1b, _tokens, _prefill),
    "llama-decode": Shape(f"Llama-1B, {PROMPT} + {STEPS} tokens", _llama_1b, _tokens, _decode),
    # In bfloat16 16 GB, and cells of one case in float32 twice that; so it has one case, and stands last.
    "llama-8b-decode": Shape(
        f"Llama-8B, {PROMPT} + {STEPS} tokens", _llama_8b, _tokens, _decode, cases=(PER_VALUE,), memory=70.0
    ),
}
"""Name on the command line -> shape."""

LEVELS: dict[str, tuple[str, str, dict[str, object]]] = {
    PER_VALUE: ("clipformer_tcad_2024_per_value", "noise", {}),
    "noise, one draw per 2-bit cell": ("clipformer_tcad_2024", "noise", {}),
    "array, 128 rows, amplitude": (
        "generic_amplitude",
        "array",
        {"adc": {"bits": "ideal"}, "cell.read_noise": {"kind": "none"}},
    ),
    "array, 128 rows, amplitude, 8-bit ADC": ("generic_amplitude", "array", {"cell.read_noise": {"kind": "none"}}),
    "array, 128 rows, amplitude, read noise": ("generic_amplitude", "array", {"adc": {"bits": "ideal"}}),
    "array, 128 rows, amplitude, read noise, 8-bit ADC": ("generic_amplitude", "array", {}),
}
"""Case -> accelerator, level, and changes of all its arrays."""
ON_64_ROWS = {
    name.replace("128", "64"): (base, level, {**changes, "rows": 64})
    for name, (base, level, changes) in LEVELS.items()
    if level == "array"
}
"""The same with arrays of 64 rows."""


def on_crossbars(model: nn.Module, sample: Tensor, case: str, kernels: str = "torch") -> nn.Module:
    """The model of a case; `kernels` compute on the CPU."""
    base, level, changes = (LEVELS | ON_64_ROWS)[case]
    hardware = of.load(base)
    for path, value in changes.items():
        for role in ("projection", "attention"):
            hardware = of.replace(hardware, f"{role}.array.{path}", value)
    return of.convert(model, hardware, sample=sample, level=level, kernels=kernels)  # type: ignore[arg-type]
