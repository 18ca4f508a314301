"""How much slower a language model of SmolLM2-135M's shape decodes with weights and cached K and V on crossbars.

One thread, one text, random weights: a prefill of 128 tokens, then 16 tokens one by one through a KV cache; the digital
model and the converted ones take turns. Prints a markdown table; `--write` also keeps it.

    python benchmarks/decode.py [--rounds 3] [--write benchmarks/decode.md]
"""

from __future__ import annotations

import argparse
import platform
from functools import partial
from pathlib import Path

import torch
import transformers
from torch import nn
from turns import medians

import ohmformer as of

PROMPT, STEPS = 128, 16


def cases(tokens: torch.Tensor) -> dict[str, nn.Module]:
    """The digital model, and the same model with one range of K and V per layer and per token."""
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    hardware = of.load("clipformer_tcad_2024")
    per_token = of.replace(hardware, "attention.array.scale", "token")
    sample = {"input_ids": tokens[:, :32]}
    return {
        "digital": model,
        "noise, one range per layer": of.convert(model, hardware, sample=sample, level="noise"),
        "noise, one range per token": of.convert(model, per_token, sample=sample, level="noise"),
    }


def decode(model: nn.Module, tokens: torch.Tensor) -> None:
    """A prefill, and one token after the other."""
    with torch.inference_mode(), of.samples([0]):
        past = model(input_ids=tokens[:, :PROMPT], use_cache=True).past_key_values
        for n in range(PROMPT, PROMPT + STEPS):
            past = model(input_ids=tokens[:, n : n + 1], past_key_values=past).past_key_values


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = torch.randint(0, 49152, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(0))
    models = cases(tokens)
    found = medians({name: partial(decode, m, tokens) for name, m in models.items()}, rounds=options.rounds, warm_up=1)
    lines = [
        f"torch {torch.__version__}, {platform.machine()}, one thread, {PROMPT} + {STEPS} tokens, median of "
        f"{options.rounds} rounds; the rows of a table take turns.",
        "",
        "| SmolLM2-135M's shape | s | times digital |",
        "|---|--:|--:|",
        *(f"| {name} | {s:.2f} | {s / found['digital']:.2f} |" for name, s in found.items()),
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        options.write.write_text(f"# Decoding through a cache\n\n{text}\n")


if __name__ == "__main__":
    main()
