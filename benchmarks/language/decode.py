"""Time of decoding one token through the cache, after short and long prompts, against plain PyTorch in the same run.

SmolLM2-135M with random weights, batch 1, one thread, float32. The cases take turns, token by token, so that a busy
machine slows all alike. "CPU" is the time of this process alone. Writes benchmarks/language/decode.md.

    python benchmarks/language/decode.py [--prompts 128 2048] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import ohmformer as of

STEPS = 16
"""Tokens that are decoded after each prompt."""
HARDWARE = "clipformer_tcad_2024_per_value"
CONDITIONING = of.Conditioning(mean=True, basis="hadamard", scale="token", unbiased=True)
Times = dict[str, list[tuple[float, float]]]
"""Case -> wall time and processor time of each token [s]."""


def smollm2() -> Any:
    """The model."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    config = transformers.LlamaConfig(**sizes, **heads, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).eval()


def models() -> dict[str, Any]:
    """Case -> model; those on crossbars share the weights of the plain one."""
    plain, hardware = smollm2(), of.load(HARDWARE)
    sample = {"input_ids": torch.randint(0, 32000, (1, 32), generator=torch.Generator().manual_seed(1))}
    found = {"plain PyTorch": plain}
    for name, kernels in (("", "torch"), (", compiled", "compiled")):
        found[f"K, V and weights on cells{name}"] = of.convert(
            plain, hardware, sample=sample, level="noise", kernels=kernels
        )
    name = "the same, K and V conditioned"
    found[name] = of.convert(plain, hardware, sample=sample, level="noise")
    of.set_kv(found[name], CONDITIONING)
    return found


def decoded(cases: dict[str, Any], tokens: Tensor, prompt: int, times: Times) -> None:
    """Decode the tokens behind a prompt; the first one is not timed."""
    with torch.no_grad(), of.samples([0]):  # as `generate` does
        past = {
            name: model(input_ids=tokens[:, :prompt], use_cache=True).past_key_values for name, model in cases.items()
        }
        for n in range(prompt, tokens.shape[1]):
            for name, model in cases.items():
                wall, own = time.perf_counter(), time.process_time()
                model(input_ids=tokens[:, n : n + 1], past_key_values=past[name])
                if n > prompt:
                    times[name].append((time.perf_counter() - wall, time.process_time() - own))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", type=int, default=[128, 2048])
    parser.add_argument("--rounds", type=int, default=3, help="how often each prompt is decoded")
    parser.add_argument("--write", type=Path, default=Path(__file__).with_name("decode.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = models()
    lines = ["| tokens | case | ms | times plain | ms, CPU | times plain, CPU |", "|---|---|--:|--:|--:|--:|"]
    for prompt in options.prompts:
        times: Times = {name: [] for name in cases}
        for turn in range(options.rounds):
            tokens = torch.randint(0, 32000, (1, prompt + STEPS + 1), generator=torch.Generator().manual_seed(turn))
            decoded(cases, tokens, prompt, times)
        found = {
            name: [1e3 * statistics.median(each) for each in zip(*own, strict=True)] for name, own in times.items()
        }
        base = found["plain PyTorch"]
        for name, (wall, own) in found.items():
            ratios = wall / base[0], own / base[1]
            row = f"| {prompt:,} + {STEPS} | {name} | {wall:.1f} | {ratios[0]:.2f} | {own:.1f} | {ratios[1]:.2f} |"
            lines.append(row)
            print(row, flush=True)
    text = (
        f"# Decoding through the cache\n\nSmolLM2-135M (30 layers, random weights), {HARDWARE}, level `noise`, batch "
        f"1, float32, one thread; torch {torch.__version__}, transformers {transformers.__version__}. Medians of one "
        "step.\n\n"
    )
    options.write.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
