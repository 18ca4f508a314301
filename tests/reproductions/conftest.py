"""The training script, with photographs and first weights for it, all tiny."""

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
MODULES = ("train_classifier", "starting", "crossbars", "photographs", "checkpoints")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, imported as it imports its neighbours when it runs."""
    pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("train_classifier")
        for name in MODULES:
            sys.modules.pop(name, None)
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
