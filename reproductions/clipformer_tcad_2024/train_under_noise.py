"""Train the model of a study under the noise of its hardware, without labels: variation-aware self-distillation.

    python train_under_noise.py --study studies/minilm_tweets.toml --out minilm_tweets_vat --gamma 2:6

In each step the cells are written anew, as if on another chip, and what the model says is pulled toward what the clean
original says of the same inputs: probabilities of classes or of next tokens, or the direction of pooled features.
Nothing that the study scores or calibrates on is learned from (`unscored.py`).

OUT/model becomes a folder of Hugging Face that a study names as `hf:OUT/model`. A bundled model becomes one of the
library folder OUT: with OHMFORMER_LIBRARY=OUT a study names it `bundled:OUT`, where `-` stands for `_`. OUT/result.json
is the record of the run. A run that was stopped goes on with the same command and gives the same bits.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from checkpoints import Training
from crossbars import OnCrossbars
from distilling import USUAL, Kind, answers, distance, kind_of, mask_of
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
from photographs import flipped, order
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from unscored import Unscored, pick, unscored

from ohmformer import catalog
from ohmformer.capture.inputs import Inputs, batches, size, take
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.models.load import make_model, model_digest
from ohmformer.models.preprocessing import preparation
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import bundled_file, split
from ohmformer.study.read_study import make_study
from ohmformer.study.spec import Settings as Study
from ohmformer.tasks.head_choice import head_for
from ohmformer.terminal.files import make_folder, write_text

BESIDE = ("preprocessor_config.json", "1_Pooling/config.json")
"""Files beside the weights of Hugging Face that decide how a task asks the model."""


@dataclass(frozen=True)
class Settings:
    """What decides the weights that come out, beside study, noise and first weights; None is the task's usual."""

    steps: int | None = field(
        default=None, metadata={"type": int, "help": "number of steps; default: by the kind of output"}
    )
    batch: int | None = field(
        default=None, metadata={"type": int, "help": "samples in a step; default: by the kind of output"}
    )
    lr: float | None = field(
        default=None, metadata={"type": float, "help": "highest learning rate of AdamW; default: by the kind of output"}
    )
    temperature: float | None = field(
        default=None,
        metadata={"type": float, "help": "temperature that softens probabilities; default: by the kind of output"},
    )
    warmup: float = field(default=0.1, metadata={"help": "share of the steps in which the rate rises"})
    decay: float = field(default=0.0, metadata={"help": "weight decay of matrices"})
    seed: int = field(default=0, metadata={"help": "seed of the noise, the order and the mirroring of images"})
    threads: int = field(default=1, metadata={"help": "number of threads of torch; another number rounds differently"})
    bfloat16: bool = field(default=False, metadata={"help": "multiply in bfloat16 (weights stay in float32)"})

    def check(self, every: int) -> None:
        """Refuse numbers that make no run.

        Raises:
            BadInput: one is out of its range.
        """
        whole = {"every": every, **{name: getattr(self, name) for name in ("steps", "batch", "threads")}}
        check_numbers(whole, {"warmup": self.warmup, "decay": self.decay}, self.lr or 0.0, self.seed)
        if self.temperature is None or not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BadInput(f"--temperature {self.temperature}: must be above 0; 1 softens nothing")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    args = parse(arguments)

    def asked() -> None:
        study = read(args.study)
        kind = kind_of(study.task)
        given = {each.name: getattr(args, each.name) for each in fields(Settings)}
        settings = Settings(**{**given, **{name: usual for name, usual in USUAL[kind].items() if given[name] is None}})
        settings.check(args.every)
        name = Path(args.study).stem
        run(study, kind, OnCrossbars.on(study.hardware, name, args.gamma, args.kv, option="--study"), args, settings)

    return exit_status(asked)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options as given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, help="study file whose model, task and hardware are taken")
    parser.add_argument("--out", type=Path, required=True, help="folder for model, record and checkpoint")
    parser.add_argument(
        "--gamma",
        help="gamma of the write noise of K and V: A, or A:B to draw it anew in each step; default: the hardware's",
    )
    parser.add_argument("--kv", help="auto: condition K and V in training as calibration chooses; default: not at all")
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints; default: 20")
    add_settings(parser, Settings)
    return parser.parse_args(arguments)


def read(name: str) -> Study:
    """What a study says without its sweep: model, task and hardware.

    Raises:
        BadInput: it cannot be read, or its model is one that cannot be trained or saved here.
    """
    file = catalog.find("study", name)
    document = {key: value for key, value in catalog.read(file).items() if key != "sweep"}
    study = make_study(document, where=str(file), folder=file.parent).points[0].settings
    if study.rules or study.mitigation.weights != WeightMitigation():
        raise BadInput(f"--study {name}: has rules or mitigation.weights, which are not trained with; leave them out")
    if split("model", study.model.source)[0] not in ("hf", "bundled"):
        raise BadInput(f"{study.model.where}: only models of hf: and bundled: can be trained here; name one")
    return study


def run(study: Study, kind: Kind, crossbars: OnCrossbars, args: argparse.Namespace, settings: Settings) -> None:
    """Train or go on training, save the model, and record how.

    Raises:
        BadInput: model or data cannot be used, or OUT holds another run.
    """
    torch.set_num_threads(settings.threads)
    model = make_model(study.model, head_for(study.task))
    tokenizer = copy.deepcopy(preparation(model).tokenizer)  # before a task tells it how to pad
    data = unscored(study.task, model)
    identity = {
        "settings": asdict(settings), "versions": versions(), "model": model_digest(model), "inputs": data.digest,
        "crossbars": crossbars.identity(),
    }  # fmt: skip
    out, record = args.out, args.out / "result.json"
    if finished(record, identity):
        print(f"{record}: this run is complete")
        return
    make_folder(out)
    clean = copy.deepcopy(model).requires_grad_(False)
    converted, variation = crossbars.put(model, sample(data, settings.seed), settings.seed)
    optimizer = make_optimizer(converted, settings.lr, settings.decay)
    training = Training(converted, optimizer, identity, out / "checkpoint.pt", variation)
    training.restore()
    train(training, clean, data, kind, settings, args.every)
    place = save_model(model, tokenizer, study.model.source, out)
    kept = far(model, clean, data.calibration, kind, data, study.simulation.batch)
    content = {
        **identity,
        "learned_from": {"samples": size(data.inputs), "what": data.what},
        "loss": loss_curve(training.losses),
        "clean_loss_on_calibration": round(kept, 6),
        "minutes": round(training.seconds / 60, 2),
    }
    write_text(record, json.dumps(content, indent=2) + "\n")
    training.file.unlink(missing_ok=True)
    first, last = content["loss"]["means"][0], content["loss"]["means"][-1]
    print(f"loss under noise {first:.4f} at first, {last:.4f} at last; {place}")


def sample(data: Unscored, seed: int) -> Inputs:
    """As many of the learned inputs as the study calibrates on: they find the crossbars' ranges."""
    return pick(data.inputs, order(size(data.inputs), 0, seed)[: size(data.calibration)])


def train(training: Training, clean: nn.Module, data: Unscored, kind: Kind, settings: Settings, every: int) -> None:
    """All steps that are still to do.

    Raises:
        BadInput: the loss is not finite, or a checkpoint cannot be written.
    """
    count = size(data.inputs)
    in_epoch = math.ceil(count / settings.batch)

    def take_step(step: int) -> float:
        epoch, place = divmod(step, in_epoch)
        chosen = order(count, epoch, settings.seed)[place * settings.batch :][: settings.batch]
        inputs = pick(data.inputs, chosen)
        if isinstance(inputs, Tensor) and inputs.dim() == 4:
            inputs = flipped(inputs, step, settings.seed)
        return gradient_step(training, clean, inputs, kind, data, settings)

    # Only the whole model is told that it trains: that is a step with noise of its own, but without dropout.
    training.model.eval()
    training.model.training = True
    go_on(training, settings.steps, settings, every, take_step)
    training.model.training = False


def gradient_step(
    training: Training, clean: nn.Module, inputs: Inputs, kind: Kind, data: Unscored, settings: Settings
) -> float:
    """One step toward what the clean model says of the inputs; returns the loss.

    Raises:
        BadInput: the loss is not finite.
    """
    reading = data.task.reading
    with torch.no_grad():
        wanted = answers(clean, inputs, kind, reading)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        said = answers(training.model, inputs, kind, reading)
    loss = distance(said, wanted, kind, settings.temperature, mask_of(inputs))
    return descend(training, loss, settings.lr)


def far(model: nn.Module, clean: nn.Module, inputs: Inputs, kind: Kind, data: Unscored, batch: int) -> float:
    """How far a model without noise is from the original on inputs that were not learned from, at temperature 1."""
    total = 0.0
    with torch.inference_mode():
        for rows in batches(inputs, batch):
            part = take(inputs, rows)
            said, wanted = (answers(each, part, kind, data.task.reading) for each in (model.eval(), clean))
            total += size(part) * distance(said, wanted, kind, 1.0, mask_of(part)).item()
    return total / size(inputs)


def save_model(model: nn.Module, tokenizer: Any, source: str, out: Path) -> str:
    """Write what studies can name, whole or not at all; returns how they name it.

    Raises:
        BadInput: it cannot be written.
    """
    prefix, rest = split("model", source)
    if prefix == "bundled":
        file = bundled_file("model", source)
        with safe_open(file, framework="pt") as content:
            architecture = content.metadata()
        with whole_folder(out / "bundled") as draft:
            weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            save_file(weights, draft / f"{out.resolve().name}.safetensors", metadata=architecture)
        return f"with OHMFORMER_LIBRARY={out} studies name it bundled:{out.resolve().name.replace('_', '-')}"
    folder = Path(rest).expanduser()
    folder = folder.parent if folder.suffix == ".gguf" else folder
    with whole_folder(out / "model") as draft:
        with quietly():
            _unquantized(model).save_pretrained(draft)
            if tokenizer is not None:
                tokenizer.save_pretrained(draft)
        for name in BESIDE:
            if (folder / name).is_file():
                (draft / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder / name, draft / name)
    return f"studies name it hf:{out / 'model'}"


def _unquantized(model: Any) -> Any:
    """Models of GGUF files remember that they were quantized, and transformers refuses to save them."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


if __name__ == "__main__":
    sys.exit(main())
