"""The training scripts, with photographs and first weights for that of the classifier, all tiny."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.tasks import tiny

FOLDER = Path(__file__).parents[2] / "reproductions" / "clipformer_tcad_2024"
MODULES = (
    "train_classifier",
    "train_under_noise",
    "starting",
    "crossbars",
    "photographs",
    "checkpoints",
    "loop",
    "distilling",
    "unscored",
)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script that trains the classifier, imported as it imports its neighbors when it runs."""
    yield from imported("train_classifier")


@pytest.fixture(scope="module")
def under_noise() -> Iterator[ModuleType]:
    """The script that trains the models of studies under noise, likewise."""
    yield from imported("train_under_noise")


def imported(name: str) -> Iterator[ModuleType]:
    pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module(name)
        for each in MODULES:
            sys.modules.pop(each, None)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.photographs(folder / "train")
    tiny.photographs(folder / "test", each=4)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "dinov2"
    tiny.save(folder, "Dinov2Model", "Dinov2Config", hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
              mlp_ratio=2, image_size=40, patch_size=8)  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny.IMAGES))
    return folder
