"""Load Hugging Face models with their tokenizer or image processor, from a folder, a GGUF file or the hub."""

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
from ohmformer.models.class_names import check_class_names, class_names
from ohmformer.models.hf_private import model_class
from ohmformer.models.image_processors import ProcessorSettings, image_reader, read_settings
from ohmformer.models.preprocessing import Preparation, remember
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import PACKAGE, first_line, in_package, is_failure, is_file, is_folder
from ohmformer.models.spec import ModelChoice
from ohmformer.models.tokenizers import (
    agree_on_pad_token,
    check_padding,
    check_vocabulary,
    longest_text,
    pad_on_the_side_that_is_not_read,
    read_tokenizer,
)
from ohmformer.models.torchvision_stub import stand_in
from ohmformer.models.weight_files import (
    check_complete,
    check_depth,
    check_downloaded,
    check_regular,
    check_types,
    check_undamaged,
)
from ohmformer.textfiles import home_expanded
from ohmformer.wording import with_article

AUTO = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "causal-lm": "AutoModelForCausalLM",
    "encoder": "AutoModel",
}
"""Head -> auto class of transformers that loads models with it."""


def transformers_package() -> Any:
    """Import transformers.

    Raises:
        BadInput: transformers is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise BadInput(
            f"Hugging Face models need transformers, which cannot be imported ({error}); pip install 'ohmformer[hf]'"
        ) from error


def load_hf(choice: ModelChoice, name: str, head: str) -> nn.Module:
    """Load a Hugging Face model in float32.

    Args:
        choice: the choice of the model, for its weights and seed.
        name: folder, GGUF file or name on the hub, without the prefix `hf:`; or `package:NAME/PATH` for a folder or
            file in an installed package.
        head: a key of `AUTO`, or `auto` for the class that the configuration names.

    Returns:
        The model, with its `Preparation`.

    Raises:
        BadInput: the model is not found or has no weights for that head, or an optional package is missing.
    """
    transformers = transformers_package()
    if name.startswith(PACKAGE):
        name = str(in_package(choice.where, name.removeprefix(PACKAGE)))
        choice = choice.model_copy(update={"source": f"hf:{name}"})
    place, options = _place(choice, name)
    for folder in (Path(place), Path(place) / "1_Pooling"):
        check_regular(folder)
    plain = {"trust_remote_code": False}  # otherwise transformers prompts whether to run code
    with quietly(), stand_in(only_for_broken=True):
        config = _load_cached_first(
            choice, lambda local: transformers.AutoConfig.from_pretrained(place, **plain, **options, **local)
        )
        check_depth(choice.where, config)
        cls = _class(transformers, config, head, choice)
        if _classifies(cls) and not options:
            check_class_names(Path(place) / "config.json", _json(place, "config.json") or {})
        extra = _without_pooling_layer(cls, config, head)
        if choice.weights == "random":
            model = _with_random_weights(choice, cls, config, extra)
        else:
            check_downloaded(Path(place))
            extra.update(options, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True)
            model, info = _load_cached_first(
                choice, lambda local: cls.from_pretrained(place, **plain, **extra, **local)
            )
            check_complete(choice.where, model, info, head)
            if not options:
                check_types(Path(place), model)
        return remember(model, _preparation(transformers, choice, place, options, model))


def _place(choice: ModelChoice, name: str) -> tuple[str, dict[str, str]]:
    """Return the folder or hub name, and the options that select a GGUF file in the folder."""
    path = home_expanded(name)
    if name.endswith(".gguf"):
        if not is_file(path):
            raise BadInput(f"{choice.where}: there is no such file; correct the path")
        for package in ("gguf", "accelerate"):
            if importlib.util.find_spec(package) is None:
                raise BadInput(f"{choice.where}: GGUF needs {package}; pip install 'ohmformer[hf]'")
        if choice.weights == "random":
            raise BadInput(
                "model.weights = 'random': a GGUF file is loaded with its weights; leave it out, or name a folder"
            )
        return str(path.parent), {"gguf_file": path.name}
    if is_folder(path):
        return str(path), {}
    if is_file(path):
        raise BadInput(f"{choice.where}: is a file; name the folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"{choice.where}: there is no such folder; correct the path")
    return name, {}


def _load_cached_first(choice: ModelChoice, load: Callable[[dict[str, bool]], Any]) -> Any:
    """Call a loading function with the local cache alone, then with the hub; errors become messages of one line."""
    try:
        with suppress(OSError):
            return load({"local_files_only": True})
        return load({})
    except BaseException as error:
        if not is_failure(error):
            raise
        why = first_line(error)
        where = choice.where
        place = choice.source.partition(":")[2]
        if place.endswith(".gguf"):
            raise BadInput(f"{where}: cannot be read ({why}); download it again, or take another file") from error
        if isinstance(error, OSError) and not is_folder(home_expanded(place)):
            raise BadInput(
                f"{where}: is not a folder, not in the local cache and not reachable on the hub ({why}); download "
                "it once with a network, or name a folder that holds it"
            ) from error
        _check_files(choice, home_expanded(place))
        remedy = "check the folder's config.json and weights, or set model.weights = 'random'"
        raise BadInput(f"{where}: cannot be loaded ({why}); {remedy}") from error


def _check_files(choice: ModelChoice, folder: Path) -> None:
    """Find the file to blame after a model could not be loaded from a folder.

    Raises:
        BadInput: there is one.
    """
    if not is_folder(folder):
        return
    config = _json(str(folder), "config.json")
    if config is None:
        raise BadInput(f"{choice.where}: {folder} has no config.json; name the folder of a model")
    if "architecture" in config and "model_type" not in config:
        raise BadInput(f"{choice.where}: is a model of timm; write model.source = 'timm:local-dir:FOLDER'")
    check_class_names(folder / "config.json", config)
    if choice.weights == "pretrained":
        check_undamaged(folder)


def _class(transformers: Any, config: Any, head: str, choice: ModelChoice) -> Any:
    """Return the model class for a head; for `auto` the one that the configuration names, else the bare encoder."""
    if head != "auto":
        cls = model_class(getattr(transformers, AUTO[head]), config)
        if cls is None:
            raise BadInput(
                f"{choice.where}: {with_article(config.model_type)} model has no head for {head}; choose another "
                "model, or another task"
            )
        return cls
    architecture = (getattr(config, "architectures", None) or [""])[0]
    cls = getattr(transformers, architecture, None)
    return cls if inspect.isclass(cls) else _class(transformers, config, "encoder", choice)


def _classifies(cls: Any) -> bool:
    return "Classification" in cls.__name__


def _without_pooling_layer(cls: Any, config: Any, head: str) -> dict[str, Any]:
    """Return options that leave out a text encoder's pooling layer, which no way of pooling features uses."""
    has_one = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if head == "encoder" and has_one and hasattr(config, "vocab_size") else {}


def _with_random_weights(choice: ModelChoice, cls: Any, config: Any, extra: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(choice.seed)
        try:
            model: nn.Module = cls(config, **extra)
        except Exception as error:
            why = first_line(error)
            raise BadInput(f"{choice.where}: cannot be built ({why}); check the folder's config.json") from error
    return model.float()


def _preparation(
    transformers: Any, choice: ModelChoice, place: str, options: dict[str, str], model: Any
) -> Preparation:
    """Read how the model's inputs are prepared, from the files beside its weights."""
    config = model.config
    text = hasattr(config, "vocab_size") and not hasattr(config, "vision_config")
    tokenizer, images, missing = None, None, {}
    try:
        if text:
            found = read_tokenizer(transformers, place, options, _json(place, "tokenizer_config.json"))
            check_padding(place, model)
            agree_on_pad_token(found, config)
            pad_on_the_side_that_is_not_read(found, config)
            check_vocabulary(place, found, _words(model))
            tokenizer = found
        elif settings := _image_settings(place):
            images = image_reader(transformers, *settings, config)
    except BadInput as error:
        missing = {"tokenizer" if text else "images": str(error)}
    classifies = hasattr(model, "classifier") or _classifies(type(model))
    notes = () if choice.weights == "pretrained" else (f"weights of {choice.source} are random (seed {choice.seed})",)
    return Preparation(
        images=images,
        tokenizer=tokenizer,
        max_tokens=longest_text(model, tokenizer) if text else None,
        words=_words(model) if text else None,
        classes=config.num_labels if classifies else None,
        names=class_names(config) if classifies else (),
        pooling=_pooling(place),
        notes=notes,
        missing=missing,
    )


def _words(model: Any) -> int | None:
    """Return the number of rows of the token embedding; None if the model has no such table."""
    try:
        embedding = model.get_input_embeddings()
    except Exception:  # some models do not embed tokens by a table
        return None
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def _image_settings(place: str) -> tuple[Path, ProcessorSettings] | None:
    """Read the settings of the image processor, and return them with their file; None if there is no such file.

    Raises:
        BadInput: a setting is invalid.
    """
    name = "preprocessor_config.json"
    content = _json(place, name)
    if content is None and (both := _json(place, "processor_config.json")):
        name, content = "processor_config.json", both.get("image_processor")
    return None if content is None else (Path(place) / name, read_settings(Path(place) / name, content))


def _pooling(place: str) -> Literal["mean", "cls"] | None:
    """Read the pooling from the configuration of sentence-transformers; None if the folder has none."""
    content = _json(place, "1_Pooling/config.json") or {}
    return "cls" if content.get("pooling_mode_cls_token") else "mean" if content else None


def _json(place: str, name: str) -> dict[str, Any] | None:
    """Read a JSON file beside the weights, in the folder or on the hub; None if there is no such file.

    Raises:
        BadInput: the file is not JSON, or its content is not a table.
    """
    path = Path(place) / name
    if not is_folder(Path(place)):
        hub = importlib.import_module("huggingface_hub")
        try:
            path = Path(hub.hf_hub_download(place, name))
        except Exception:  # the repository has no such file, or there is no network
            return None
    if not is_file(path):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not a JSON file ({first_line(error)}); correct it") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds {type(content).__name__}; write a table")
    return content
