"""Fine-tune DINOv2 ViT-S/14 (12 layers, 384 features, 6 heads: the shape of DeiT-S) as a classifier of photographs.

    python train_classifier.py --data FOLDER --weights real_models_data/dinov2 --out vit_s

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg. OUT/model becomes a folder of Hugging Face that a study names as
`hf:OUT/model`, OUT/result.json the record of the run. The first --held-out photographs of train, in the order in which
studies take calibration samples, are never learned from. A run that was stopped goes on with the same command and gives
the same bits; the test photographs are looked at once, at the end.

With --hardware the model is trained on noisy crossbars (variation-aware training); what is saved is a digital model.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import photographs
import torch
import torch.nn.functional as F
from checkpoints import Training
from crossbars import OnCrossbars
from loop import (
    add_settings,
    check_numbers,
    descend,
    exit_status,
    finished,
    go_on,
    loss_curve,
    make_optimizer,
    versions,
    whole_folder,
)
from numpy.typing import NDArray
from photographs import Photographs
from starting import starting_model
from torch import Tensor, nn

from ohmformer.models.images import ImagePreparation
from ohmformer.models.load import load_model
from ohmformer.models.silence_loaders import quietly
from ohmformer.stats.intervals import mean_interval
from ohmformer.tasks.load import load_task
from ohmformer.terminal.files import make_folder, write_text

EVALUATION_BATCH = 100
CALIBRATION = 100
"""So many of the photographs that are learned from find the ranges of the crossbars, as in the study of the README."""


@dataclass(frozen=True)
class Settings:
    """What decides the weights that come out, beside data and first weights."""

    epochs: int = field(default=3, metadata={"help": "passes over the training photographs"})
    batch: int = field(default=32, metadata={"help": "photographs in a step"})
    lr: float = field(default=5e-5, metadata={"help": "highest learning rate of AdamW"})
    warmup: float = field(default=0.1, metadata={"help": "share of the steps in which the rate rises"})
    decay: float = field(default=0.05, metadata={"help": "weight decay of matrices"})
    smoothing: float = field(default=0.1, metadata={"help": "label smoothing"})
    size: int = field(default=98, metadata={"help": "pixels along an edge, a multiple of the patch"})
    held_out: int = field(default=500, metadata={"help": "photographs of train that are kept for calibration"})
    seed: int = field(default=0, metadata={"help": "seed of the new head, the order and the mirroring"})
    threads: int = field(default=2, metadata={"help": "number of threads of torch; another number rounds differently"})
    bfloat16: bool = field(default=False, metadata={"help": "multiply in bfloat16 (weights stay in float32)"})


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    args = parse(arguments)
    settings = Settings(**{each.name: getattr(args, each.name) for each in fields(Settings)})

    def asked() -> None:
        check(settings, args.every)
        crossbars = OnCrossbars.of(args.hardware, args.gamma, args.clip, args.kv)
        run(args.data, args.weights, args.out, settings, args.every, crossbars)

    return exit_status(asked)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options as given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("real_models_data/dinov2"),
        help="folder of DINOv2, or the model folder that a run has saved",
    )
    parser.add_argument("--out", type=Path, default=Path("vit_s"), help="folder for model, record and checkpoint")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints; default: 50")
    parser.add_argument("--hardware", help="accelerator whose noise the model is trained under; default: none")
    parser.add_argument(
        "--gamma",
        help="gamma of the write noise of K and V: A, or A:B to draw it anew in each step; default: the hardware's",
    )
    parser.add_argument("--clip", help="ClipFormer's clip of K and V in training, ALPHA,BETA; default: none")
    parser.add_argument("--kv", help="auto: condition K and V in training as calibration chooses; default: not at all")
    add_settings(parser, Settings)
    return parser.parse_args(arguments)


def check(settings: Settings, every: int) -> None:
    """Refuse numbers that make no run.

    Raises:
        BadInput: one is out of its range.
    """
    whole = {"every": every, **{name: getattr(settings, name) for name in ("epochs", "batch", "size", "threads")}}
    shares = {name: getattr(settings, name) for name in ("warmup", "decay", "smoothing")}
    check_numbers(whole, shares, settings.lr, settings.seed)


def run(
    data: Path, weights: Path, out: Path, settings: Settings, every: int, crossbars: OnCrossbars | None = None
) -> None:
    """Train or go on training, save the model, and record what it does on the test photographs.

    Raises:
        BadInput: data or weights cannot be used, or OUT holds another run.
    """
    torch.set_num_threads(settings.threads)
    found = photographs.find(data, settings.held_out)
    start = starting_model(weights, found.names, settings.size, settings.seed)
    identity = {
        "settings": asdict(settings), "versions": versions(), "photographs": found.digest, "weights": start.digest,
        "crossbars": crossbars and crossbars.identity(),
    }  # fmt: skip
    record = out / "result.json"
    if finished(record, identity):
        print(f"{record}: this run is complete")
        return
    make_folder(out)
    model, variation = start.model, None
    if crossbars:
        sample = photographs.sample(found, start.images, CALIBRATION, settings.seed)
        model, variation = crossbars.put(model, sample, settings.seed)
    training = Training(
        model, make_optimizer(model, settings.lr, settings.decay), identity, out / "checkpoint.pt", variation
    )
    training.restore()
    train(training, settings, found, start.images, every)
    save_model(start.model, weights, out / "model", settings.size)
    content = {**identity, "head": start.head, **result(data, out / "model", found, training)}
    write_text(record, json.dumps(content, indent=2) + "\n")
    training.file.unlink(missing_ok=True)
    test = content["test"]
    print(
        f"accuracy {test['accuracy']:.4f} {test['ci95']} on {test['images']} test photographs; model in {out / 'model'}"
    )


def train(training: Training, settings: Settings, found: Photographs, prepared: ImagePreparation, every: int) -> None:
    """All steps that are still to do, with a checkpoint after every so many.

    Raises:
        BadInput: a photograph cannot be read, the loss is not finite, or a checkpoint cannot be written.
    """
    in_epoch = math.ceil(len(found.labels) / settings.batch)
    steps = settings.epochs * in_epoch
    if training.step == steps:
        return
    pixels, labels = photographs.pixels(found.training, prepared), torch.tensor(found.labels)
    training.model.train()

    def take_step(step: int) -> float:
        epoch, place = divmod(step, in_epoch)
        chosen = photographs.order(len(labels), epoch, settings.seed)[place * settings.batch :][: settings.batch]
        inputs = photographs.flipped(prepared.inputs(pixels[chosen]), step, settings.seed)
        return gradient_step(training, inputs, labels[chosen], settings)

    go_on(training, steps, settings, every, take_step)


def gradient_step(training: Training, inputs: Tensor, labels: Tensor, settings: Settings) -> float:
    """One step on inputs [B, 3, H, W] and labels [B]; returns the loss.

    Raises:
        BadInput: the loss is not finite.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        logits = training.model(inputs).logits
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.smoothing)
    return descend(training, loss, settings.lr)


def save_model(model: nn.Module, weights: Path, target: Path, size: int) -> None:
    """A folder of Hugging Face, whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    with whole_folder(target) as draft:
        with quietly():
            model.save_pretrained(draft)
        images = json.loads((weights / "preprocessor_config.json").read_text(encoding="utf-8"))
        images.update(
            do_resize=True, size={"shortest_edge": size}, do_center_crop=True, crop_size={"height": size, "width": size}
        )
        (draft / "preprocessor_config.json").write_text(json.dumps(images, indent=2) + "\n", encoding="utf-8")


def result(data: Path, saved: Path, found: Photographs, training: Training) -> dict[str, Any]:
    """What the saved model does, read and asked as a study does it, and how it came about."""
    model = load_model(f"hf:{saved}")
    task = load_task(f"imagefolder:{data}", model=model, calibration=len(found.held_out))
    started = time.monotonic()
    hits = correct(model, task.inputs, task.labels)
    seconds = time.monotonic() - started
    kept = correct(model, task.calibration, task.calibration_labels)
    return {
        "classes": found.names,
        "images": {"training": len(found.training), "held_out": len(found.held_out), "test": found.tests},
        "test": {
            "accuracy": float(hits.mean()), "ci95": list(mean_interval(hits[None])), "images": len(hits),
        },
        "held_out": {
            "accuracy": float(kept.mean()), "ci95": list(mean_interval(kept[None])), "images": len(kept),
        },
        "loss": loss_curve(training.losses),
        "minutes": round(training.seconds / 60, 2),
        "images_per_second_forward": round(len(hits) / seconds, 1),
    }  # fmt: skip


def correct(model: nn.Module, inputs: Any, labels: Tensor) -> NDArray[np.float64]:
    """[N] 1 where the model is right, 0 elsewhere."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(labels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            found.append(model(inputs[rows]).logits.argmax(1) == labels[rows])
    return torch.cat(found).double().numpy()


if __name__ == "__main__":
    sys.exit(main())
