"""Folders of tiny models and data, made on the spot, with random weights that are saved as if they were trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ohmformer.models.torchvision_stub import stand_in

WORDS = [
    "good",
    "bad",
    "fine",
    "poor",
    "great",
    "awful",
    "film",
    "book",
    "song",
    "day",
    "the",
    "a",
    "was",
    "is",
    "very",
    "not",
    "i",
    "you",
    "we",
    "it",
]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>")
IMAGES = {
    "do_resize": True, "size": {"shortest_edge": 20}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4],
}  # fmt: skip


def save(folder: Path, cls: str, config: str, **settings: Any) -> Path:
    """A model of transformers with random weights, as a folder."""
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng(), stand_in(only_for_broken=True):
        torch.manual_seed(0)
        model = getattr(transformers, cls)(getattr(transformers, config)(**settings))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
    return folder


def tokenizer(folder: Path, **settings: Any) -> None:
    """A tokenizer of whole words, beside a model."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", eos_token="</s>", **settings)
    fast.save_pretrained(folder)


def bert(folder: Path, cls: str = "BertModel", **settings: Any) -> Path:
    size = {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 12}
    save(folder, cls, "BertConfig", **SMALL, **size, **settings)
    tokenizer(folder, pad_token="[PAD]")
    return folder


def llama(folder: Path) -> Path:
    size = {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 32, "num_key_value_heads": 1}
    save(folder, "LlamaForCausalLM", "LlamaConfig", **SMALL, **size)
    tokenizer(folder)
    return folder


def deit(
    folder: Path, classes: Sequence[str] = ("dark", "light", "noisy"), cls: str = "DeiTForImageClassification"
) -> Path:
    names = dict(enumerate(classes))
    save(folder, cls, "DeiTConfig", **SMALL, image_size=16, patch_size=8, id2label=names,
         label2id={name: number for number, name in names.items()})  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    return folder


def image(file: Path, seed: int, size: tuple[int, int] = (24, 30), low: int = 0, high: int = 256) -> None:
    """One image of noise, of (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(low, high, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def photographs(folder: Path, each: int = 8) -> Path:
    """Three classes, told apart by their brightness."""
    for number in range(each):
        image(folder / "dark" / f"{number}.png", number, high=90)
        image(folder / "light" / f"{number}.PNG", 100 + number, low=160)
        image(folder / "noisy" / f"{number}.jpg", 200 + number)
    return folder


def table(file: Path, *rows: Sequence[object]) -> Path:
    """Column names, and rows."""
    with open(file, "w", encoding="utf-8", newline="") as content:
        csv.writer(content).writerows(rows)
    return file


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different ones, of three to eight words."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(random.choice(WORDS, size=random.integers(3, 9)))] = None
    return list(found)


def reviews(file: Path, count: int = 60) -> Path:
    """Texts with a label that their first word decides."""
    rows = [("good " if n % 2 else "bad ") + text for n, text in enumerate(sentences(count))]
    return table(file, ("text", "label"), *((text, "pos" if text.startswith("good") else "neg") for text in rows))


def ratings(file: Path, texts: int = 10) -> Path:
    """All pairs of some texts, with how many words they share."""
    known = sentences(texts, seed=1)
    pairs = [(a, b, len(set(a.split()) & set(b.split()))) for i, a in enumerate(known) for b in known[i + 1 :]]
    return table(file, ("text_a", "text_b", "score"), *pairs)


def prose(file: Path, words: int = 260) -> Path:
    """Running text."""
    file.write_text(" ".join(np.random.default_rng(2).choice(WORDS, size=words)), encoding="utf-8")
    return file
