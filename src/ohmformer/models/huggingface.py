"""Models of Hugging Face, their tokenizers and image preparation: a folder, a GGUF file, the local cache or the hub."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImagePreparation
from ohmformer.models.preprocessing import Preparation, remember
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.spec import ModelChoice
from ohmformer.models.torchvision_stub import stand_in

AUTO = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "causal-lm": "AutoModelForCausalLM",
    "encoder": "AutoModel",
}
"""Head -> class of transformers that makes it."""

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's numbers, as preprocessor_config.json has them."""


def transformers_package() -> Any:
    """The package transformers.

    Raises:
        BadInput: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise BadInput(
            f"models of Hugging Face need transformers, which cannot be imported ({error}); pip install 'ohmformer[hf]'"
        ) from error


def load_hf(choice: ModelChoice, name: str, head: str) -> nn.Module:
    """A model of Hugging Face in float32, with the head that is asked for; `auto` takes what its configuration names.

    Raises:
        BadInput: it cannot be found, has no weights for that head, or an optional package is missing.
    """
    transformers = transformers_package()
    place, options = _place(choice, name)
    with quietly(), stand_in(only_for_broken=True):
        config = _found(choice, lambda local: transformers.AutoConfig.from_pretrained(place, **options, **local))
        cls = _class(transformers, config, head, choice)
        extra = _bare(cls, config, head)
        if choice.weights == "random":
            model = _random(choice, cls, config, extra)
        else:
            extra.update(options, dtype=torch.float32, output_loading_info=True)
            model, info = _found(choice, lambda local: cls.from_pretrained(place, **extra, **local))
            _check_complete(choice, info, head)
        return remember(model, _preparation(transformers, choice, place, options, model))


def _place(choice: ModelChoice, name: str) -> tuple[str, dict[str, str]]:
    """A folder or a name for the hub, and which GGUF file of the folder."""
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise BadInput(f"{choice.where}: there is no such file; correct the path")
        for package in ("gguf", "accelerate"):
            if importlib.util.find_spec(package) is None:
                raise BadInput(f"{choice.where}: GGUF needs {package}; pip install 'ohmformer[hf]'")
        if choice.weights == "random":
            raise BadInput("model.weights = 'random': a GGUF file has weights; leave it out, or name a folder")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        return str(path), {}
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
        raise BadInput(f"{choice.where}: there is no such folder; correct the path")
    return name, {}


def _local(place: str) -> bool:
    return Path(place).is_dir()


def _found(choice: ModelChoice, load: Callable[[dict[str, bool]], Any]) -> Any:
    """What a loading function gives, from the local cache if it can; its failures in one line."""
    try:
        with suppress(OSError):
            return load({"local_files_only": True})
        return load({})
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0]
        where = choice.where
        place = choice.source.partition(":")[2]
        if isinstance(error, OSError) and not Path(place).expanduser().exists():
            raise BadInput(
                f"{where}: is no folder, and neither in the local cache nor reachable on the hub ({why}); fetch it "
                "once with a network, or name a folder that holds it"
            ) from error
        remedy = "check the folder's config.json and weights, or set model.weights = 'random'"
        raise BadInput(f"{where}: cannot be loaded ({type(error).__name__}: {why}); {remedy}") from error


def _class(transformers: Any, config: Any, head: str, choice: ModelChoice) -> Any:
    if head != "auto":
        auto = getattr(transformers, AUTO[head])
        if type(config) not in auto._model_mapping:
            raise BadInput(
                f"{choice.where}: a {config.model_type} model has no head for {head}; choose another model, "
                "or another task"
            )
        found = auto._model_mapping[type(config)]
        return found[0] if isinstance(found, (tuple, list)) else found
    named = (getattr(config, "architectures", None) or [""])[0]
    found = getattr(transformers, named, None)
    return found if inspect.isclass(found) else _class(transformers, config, "encoder", choice)


def _bare(cls: Any, config: Any, head: str) -> dict[str, Any]:
    """A text encoder's pooling layer is left out: pooled features are means of tokens, or the first one's."""
    has_one = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if head == "encoder" and has_one and hasattr(config, "vocab_size") else {}


def _random(choice: ModelChoice, cls: Any, config: Any, extra: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(choice.seed)
        model: nn.Module = cls(config, **extra)
    return model.float()


def _check_complete(choice: ModelChoice, info: dict[str, Any], head: str) -> None:
    """Refuse a model some of whose weights would be what they happened to be initialised to."""
    missing = sorted(info.get("missing_keys") or ())
    wrong = [str(entry[0] if isinstance(entry, tuple) else entry) for entry in info.get("mismatched_keys") or ()]
    if missing or wrong:
        which = (missing or wrong)[0]
        remedy = "take a model that was trained for it" if head.endswith("classification") else "complete the folder"
        probe = ", or put a probe behind its features (task.probe = true)" if head.endswith("classification") else ""
        raise BadInput(f"{choice.where}: has no trained weights for {which} (head {head}); {remedy}{probe}")


def _preparation(
    transformers: Any, choice: ModelChoice, place: str, options: dict[str, str], model: Any
) -> Preparation:
    config = model.config
    text = hasattr(config, "vocab_size") and not hasattr(config, "vision_config")
    tokenizer = _tokenizer(transformers, place, options) if text else None
    images = None if text else _images(place)
    classifies = hasattr(model, "classifier") or "Classification" in type(model).__name__
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels)) if classifies else ()
    notes = () if choice.weights == "pretrained" else (f"weights of {choice.source} are random (seed {choice.seed})",)
    return Preparation(
        images=images,
        tokenizer=tokenizer,
        max_tokens=_max_tokens(config, tokenizer) if text else None,
        classes=config.num_labels if classifies else None,
        names=() if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names,
        pooling=_pooling(place),
        notes=notes,
    )


def _tokenizer(transformers: Any, place: str, options: dict[str, str]) -> Any:
    """The tokenizer, with something to pad with; None where there is none (a task that needs it says so)."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    except Exception:
        return None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _max_tokens(config: Any, tokenizer: Any) -> int | None:
    """The longest text; positions that RoBERTa and its like keep for padding do not count."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions and getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= (config.pad_token_id or 0) + 1
    said = getattr(tokenizer, "model_max_length", None)
    known = [int(value) for value in (positions, said) if value and value < 10**9]
    return min(known, default=None)


def _images(place: str) -> ImagePreparation | None:
    """From preprocessor_config.json: transformers' own classes need torchvision for some models."""
    content = _json(place, "preprocessor_config.json")
    if content is None:
        return None
    size, crop = content.get("size"), content.get("crop_size")
    resize = content.get("do_resize", True)
    cut = content.get("do_center_crop", crop is not None)
    scale = float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 1.0
    normal = content.get("do_normalize", True)
    channels = len(content.get("image_mean", (0, 0, 0)))
    return ImagePreparation(
        resize=_size(size) if resize and size is not None else None,
        crop=_pair(crop) if cut and crop is not None else None,
        interpolation=RESAMPLING[int(content.get("resample", 2))],
        mean=tuple(content.get("image_mean", (0.5,) * channels)) if normal else (0.0,) * channels,
        std=tuple(content.get("image_std", (0.5,) * channels)) if normal else (1.0,) * channels,
        scale=scale,
        rounding="down",
    )


def _size(size: Any) -> int | tuple[int, int]:
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    return _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _pooling(place: str) -> Literal["mean", "cls"] | None:
    """What a sentence-transformers folder says."""
    content = _json(place, "1_Pooling/config.json") or {}
    return "cls" if content.get("pooling_mode_cls_token") else "mean" if content else None


def _json(place: str, name: str) -> dict[str, Any] | None:
    """A JSON file beside the weights, wherever they are; None if there is none."""
    path: str | None = str(Path(place) / name)
    if not _local(place):
        hub = importlib.import_module("huggingface_hub")
        try:
            path = hub.hf_hub_download(place, name)
        except Exception:
            path = None
    if path is None or not Path(path).is_file():
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: is no JSON file ({error}); mend it") from error
    return content if isinstance(content, dict) else None
